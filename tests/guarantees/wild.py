"""The worker's end of the worker socket in the hands of a test: what no worker of ours would say."""

import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.replicas import ROOT, WATCHDOG_S, assert_gone
from tests.python.frames import RESPONSE, SLOTS, STARTED, FakeRuntime, Frame, read_frame

SCRIPT = ROOT / "tests/guarantees/apps/wild_worker.py"


class Wild:
    """One worker process whose socket this test has."""

    def __init__(self, control: socket.socket) -> None:
        told, (runtime,), *_ = socket.recv_fds(control, 4096, 1)
        self.control, self.socket, self._read = control, socket.socket(fileno=runtime), b""
        self.socket.settimeout(WATCHDOG_S)
        self.told = json.loads(told)
        self.pid: int = self.told["pid"]
        self.numbers = iter(range(1, 1 << 20))
        self.welcome: dict[str, Any] = {}

    def greet(self, handlers: list[dict[str, Any]]) -> None:
        """Become a worker that takes one request at a time."""
        self.hello(handlers)
        self.welcome = self.receive("Welcome").meta
        self.send(Frame("Ready", 0))

    def hello(self, handlers: list[dict[str, Any]]) -> None:
        """Say who it is, and that it takes one request at a time."""
        self.send(Frame("Hello", 0, 0, self.told | {"handlers": handlers, "concurrency": 1}))

    def is_closed(self) -> bool:
        """Whether the runtime has closed its end; everything that came before is passed over."""
        try:
            return select.select([self.socket], [], [], 0)[0] != [] and self.socket.recv(1 << 20) == b""
        except ConnectionError:
            return True

    @property
    def plane(self) -> dict[str, Any]:
        """What the runtime has told of the object plane."""
        return self.welcome["plane"]

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(frame.to_bytes() for frame in frames))

    def receive(self, kind: str, number: int | None = None) -> Frame:
        """The next frame of a kind; pings are answered, and everything else is passed over."""
        while True:
            while (found := read_frame(self._read)) is None:
                chunk = self.socket.recv(1 << 20)
                if not chunk:
                    raise EOFError
                self._read += chunk
            frame, self._read = found
            if frame.kind == "Ping":
                self.send(Frame("Pong", frame.id))
            elif frame.kind == kind and number in (None, frame.id):
                return frame

    def has_more(self) -> bool:
        """Whether something other than a ping can be received."""
        while True:
            found = read_frame(self._read)
            if found is None:
                if not select.select([self.socket], [], [], 0)[0]:
                    return False
                chunk = self.socket.recv(1 << 20)
                if not chunk:
                    return True
                self._read += chunk
            elif found[0].kind == "Ping":
                self.send(Frame("Pong", found[0].id))
                self._read = found[1]
            else:
                return True

    def ask(self, kind: str, **meta: Any) -> dict[str, Any]:
        """Send a frame of the object plane and give its answer."""
        number = next(self.numbers)
        self.send(Frame(kind, number, 0, meta))
        return self.receive("View", number).meta

    def refused(self, kind: str, **meta: Any) -> tuple[str, str]:
        """Send a frame that must be refused; gives the code and the text."""
        failed = self.ask(kind, **meta)["failed"]
        assert failed, f"{kind} {meta} was not refused"
        return Frame("Failed", 0, 0, failed).code, failed["message"]

    def put(self, size: int, **more: Any) -> dict[str, Any]:
        """A block to write to."""
        view = self.ask("Put", len=size, **more)
        assert not view["failed"], view
        return {"index": view["object"]["index"], "generation": view["object"]["generation"]}

    def start(self, request: Frame) -> None:
        """Say that a request's handler has started."""
        with Path(self.welcome["slots"]).open("r+b") as slots:
            assert request.meta["slot"] < SLOTS
            slots.seek(8 * request.meta["slot"])
            slots.write((request.id << 3 | STARTED).to_bytes(8, "little"))

    def done(self, request: Frame, *places: dict[str, Any], lens: list[int] | None = None) -> None:
        """Answer a request with UINT8 tensors, which lie at these places."""
        sizes = lens or [1] * len(places)
        outputs = [
            {"name": f"x{place}", "datatype": 1, "shape": [size], "len": size} for place, size in enumerate(sizes)
        ]
        numbered = [{"tensor": number} | place for number, place in enumerate(places)]
        self.send(Frame("Done", request.id, RESPONSE, {"outputs": outputs, "places": numbered}))

    def lie_about_pins(self, data: bytes) -> None:
        """Write to the file of this worker's pins."""
        with Path(self.plane["pins"]).open("r+b") as pins:
            pins.write(data)

    def kill(self) -> None:
        """End its process."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        assert_gone({self.pid})
        self.close()

    def close(self) -> None:
        self.socket.close()
        self.control.close()


class Wilds:
    """Where wild workers are waited for, as they are started by a replica."""

    def __init__(self, folder: Path, target: str) -> None:
        self.path = folder / "wild"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.listener.settimeout(WATCHDOG_S)
        self.python = folder / "python"
        self.python.write_text(f'#!/bin/sh\nexec {sys.executable} {SCRIPT} "$@"\n')
        self.python.chmod(0o755)
        self.handlers = handlers_of(target)
        self.made: list[Wild] = []

    def next(self) -> Wild:
        """The next wild worker, which is ready."""
        wild = Wild(self.listener.accept()[0])
        self.made.append(wild)
        wild.greet(self.handlers)
        return wild

    def close(self) -> None:
        self.listener.close()
        for wild in self.made:
            wild.close()


def handlers_of(target: str) -> list[dict[str, Any]]:
    """What an honest worker announces."""
    runtime = FakeRuntime(target, welcome=False)
    try:
        return runtime.expect("Hello").meta["handlers"]
    finally:
        runtime.close()
