"""A worker that breaks the rules of calls: what `--python` runs, with a codec of its own.

It serves `hold`, which keeps a request until it is cancelled, and `do`, which makes calls as its parameter `act` says
and fails with the first of them that does. Run as a template it says what it has, and that it cannot fork.
"""

import ctypes
import mmap
import os
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.python.frames import CODES, NOT_STARTED, OFFERED, SLOTS, STARTED, Frame, read_frame, tensor

DO, HOLD = 0, 1
ATOMIC = ctypes.CDLL("libatomic.so.1")
"""It comes with the compiler that links Rust programs."""

ACQ_REL, ACQUIRE = 4, 2
"""Memory orders, as compilers number them."""
TOKEN = os.environ.get("ANYSERVE_WORKER_TOKEN", "")


def handler(name: str) -> dict[str, Any]:
    return {"capability": [{"key": "type", "text": name}], "function": name, "concurrency": 512}


HANDLERS = [handler("do"), handler("hold")]


class Line:
    """The socket to the runtime."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._read = b""

    def send(self, *frames: Frame) -> None:
        """Send frames in one write."""
        self._socket.sendall(b"".join(frame.to_bytes() for frame in frames))

    def receive(self) -> Frame:
        """The next frame; the process ends when there is none, or when it is told to."""
        while (found := read_frame(self._read)) is None:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                sys.exit(0)
            self._read += chunk
        frame, self._read = found
        if frame.kind == "Drain":
            sys.exit(0)
        return frame


def call(number: int, parent: int, selector: str = "type=hold", body: bytes = b"", **request: Any) -> Frame:
    return Frame("Call", number, 0, {"parent": parent, "selector": selector, "request": request}, body)


def acts(act: str, parent: int) -> list[Frame]:
    """What is sent for a request."""
    x = tensor("x", "UINT8", [2], b"ab")
    before = ((parent >> 20) - 1) << 20
    place = {"tensor": 0, "block": {"index": 9, "generation": 9}}
    header = {"name": "X-AnyServe-Delegations", "value": "0"}
    if act.isdigit():
        return [call(number, parent) for number in range(1, int(act) + 1)]
    return {
        "unknown": [call(1, parent + (1 << 20))],
        "none": [call(1, 0)],
        "of-another-worker": [call(1, before)],
        "zero": [call(0, parent)],
        "twice": [call(7, parent), call(7, parent)],
        "without-request": [Frame("Call", 1, 0, {"parent": parent, "selector": "type=hold"})],
        "short": [call(1, parent, body=b"a", inputs=[x])],
        "misshapen": [call(1, parent, body=b"ab", inputs=[{**x, "shape": [3]}])],
        "placed": [call(1, parent, inputs=[x], places=[place])],
        "no-selector": [call(1, parent, "type=")],
        "header": [call(1, parent, headers=[header])],
        "stray": [Frame("Credit", 99, 0, {"bytes": 2**63}), Frame("Cancel", 99), call(1, parent, "type=nothing")],
        "given-up": [call(1, parent), Frame("Cancel", 1), call(1, parent, "type=nothing")],
    }[act]


class Slots:
    """The slot table: the runtime takes a request back by the same exchange as the worker claims it by."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._words = mmap.mmap(file.fileno(), 8 * SLOTS)

    def start(self, place: int, number: int) -> bool:
        """Claim a request; false if it was taken back."""
        word = ctypes.c_uint64.from_buffer(self._words, 8 * place)
        offered, started = ctypes.c_uint64(number << 3 | OFFERED), ctypes.c_uint64(number << 3 | STARTED)
        exchange = ATOMIC["__atomic_compare_exchange_8"]
        exchange.restype = ctypes.c_bool
        return exchange(ctypes.byref(word), ctypes.byref(offered), started, ACQ_REL, ACQUIRE)


class Worker:
    """What it has been given, and what it says to that."""

    def __init__(self, line: Line, slots: str) -> None:
        self._line, self._slots = line, Slots(slots)
        self._doing: dict[int, int] = {}
        self._held: set[int] = set()

    def take(self, frame: Frame) -> None:
        """Take one frame."""
        if frame.kind == "Ping":
            self._line.send(Frame("Pong", frame.id))
        elif frame.kind == "Request":
            self._start(frame)
        elif frame.kind == "Cancel":
            self._end(frame.id, {"code": CODES.index("CANCELLED")})
        elif frame.kind == "CallResult" and frame.meta["failed"]:
            for request in list(self._doing):
                self._end(request, frame.meta["failed"])

    def _start(self, frame: Frame) -> None:
        if not self._slots.start(frame.meta["slot"], frame.id):
            # Taken back in the meantime: nobody will cancel it.
            failed = {"code": CODES.index("CANCELLED"), "message": "the request was taken back"}
            self._line.send(Frame("Failed", frame.id, NOT_STARTED, failed))
            return
        if frame.meta["handler"] == HOLD:
            self._held.add(frame.id)
            self._look()
        else:
            (act,) = [one["text"] for one in frame.meta["parameters"] if one["key"] == "act"]
            self._doing[frame.id] = int(act) if act.isdigit() else -1
            self._line.send(*acts(act, frame.id))

    def _look(self) -> None:
        """Whether as many calls have come as were made."""
        for request, calls in list(self._doing.items()):
            if calls == len(self._held):
                self._end(request, {"code": CODES.index("NOT_FOUND"), "message": f"all {calls} calls have come"})

    def _end(self, request: int, failed: dict[str, Any]) -> None:
        self._held.discard(request)
        self._doing.pop(request, None)
        self._line.send(Frame("Failed", request, 0, failed))


def main() -> None:
    """Be a template, or a worker."""
    options = dict(zip(sys.argv, sys.argv[1:], strict=False))
    line = Line(options["--socket"])
    if "anyserve.worker.template" in sys.argv:
        groups = [{"name": "default", "handlers": HANDLERS}]
        line.send(Frame("Manifest", 0, 0, {"pid": os.getpid(), "token": TOKEN, "groups": groups, "no_fork": "no"}))
        return
    who = {"pid": os.getpid(), "worker": int(options["--worker-id"]), "token": TOKEN}
    line.send(Frame("Hello", 0, 0, {**who, "handlers": HANDLERS, "concurrency": 1024}))
    worker = Worker(line, line.receive().meta["slots"])
    line.send(Frame("Ready", 0))
    while True:
        worker.take(line.receive())


if __name__ == "__main__":
    main()
