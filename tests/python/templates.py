"""A runtime with one real template process, and the workers that it forks."""

import ctypes
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.python.frames import WATCHDOG_S, FakeRuntime, Frame, read_frame

PR_SET_CHILD_SUBREAPER = 36


class Process:
    """A forked worker's process: our child, though we did not start it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout: float) -> int:
        """The exit code, negative for a signal."""
        if self.returncode is None:
            assert select.select([self._pidfd], [], [], timeout)[0], "the worker does not end"
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._pidfd)
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return (
            self.wait(0) if self.returncode is None and select.select([self._pidfd], [], [], 0)[0] else self.returncode
        )

    def send_signal(self, number: int) -> None:
        """Signal it."""
        os.kill(self.pid, number)

    def communicate(self, timeout: float) -> None:
        """Wait for its end."""
        self.wait(timeout)


class ForkedWorker(FakeRuntime):
    """A runtime with a worker that a template forks.

    Args:
        template: who forks it.
        order: fields of the order.
        options: of `FakeRuntime`.
    """

    def __init__(self, template: "FakeTemplate", order: dict[str, Any], **options) -> None:
        self._template = template
        self._order = order
        super().__init__("", **options)

    def _spawn(self, target: str, path: str, group: str | None, variables: dict[str, str]) -> Process:
        more = {"socket": str(self.folder / "socket"), "stdout": self._file("stdout"), "stderr": self._file("stderr")}
        self.forked = self._template.fork(**more | self._order)
        assert not self.forked["failed"], self.forked
        return Process(self.forked["pid"])

    def _file(self, name: str) -> str:
        path = self.folder / name
        path.touch()
        return str(path)

    def printed(self, name: str = "stderr") -> str:
        """What the worker wrote."""
        return (self.folder / name).read_text()


class FakeTemplate:
    """The runtime's end of one template process.

    Args:
        target: what it loads.
        folder: where it runs, and where its socket and its stderr are.
        options: of its command.
    """

    def __init__(self, target: str, folder: Path, *options: str) -> None:
        # Workers become children of this process, as they become the runtime's.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.folder = folder
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "template.sock"))
        listener.listen()
        listener.settimeout(WATCHDOG_S)
        command = [sys.executable, "-m", "anyserve.worker.template", "--socket", str(folder / "template.sock")]
        environment = os.environ | {
            "ANYSERVE_WORKER_TOKEN": "secret",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        with (folder / "template.err").open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, "--target", target, *options], env=environment, stderr=stderr, cwd=folder, text=True
            )
        self.socket, _ = listener.accept()
        listener.close()
        self.socket.settimeout(WATCHDOG_S)
        self._read = b""
        self._workers: list[ForkedWorker] = []

    def receive(self) -> Frame:
        """The next frame."""
        while (found := read_frame(self._read)) is None:
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                raise EOFError
            self._read += chunk
        frame, self._read = found
        return frame

    def manifest(self) -> dict[str, Any]:
        """What the template says first."""
        frame = self.receive()
        assert (frame.kind, frame.meta["pid"], frame.meta["token"]) == ("Manifest", self.process.pid, "secret")
        return frame.meta

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        self.socket.sendall(frame.to_bytes())

    def fork(self, **order: Any) -> dict[str, Any]:
        """Order a fork. Returns the answer."""
        null = {"stdout": "/dev/null", "stderr": "/dev/null"}
        self.send(
            Frame("Fork", 0, 0, {"worker": 3, "group": "default", "token": "secret", "environment": []} | null | order)
        )
        answer = self.receive()
        assert (answer.kind, answer.meta["worker"]) == ("Forked", order.get("worker", 3))
        return answer.meta

    def worker(self, order: dict[str, Any] | None = None, **options) -> ForkedWorker:
        """Have a worker forked and greet it."""
        self._workers.append(ForkedWorker(self, order or {}, **options))
        return self._workers[-1]

    def printed(self) -> str:
        """What the template wrote to stderr."""
        return (self.folder / "template.err").read_text()

    def wait(self) -> int:
        """The exit code of the template, which is ending."""
        return self.process.wait(WATCHDOG_S)

    def close(self) -> None:
        """End everything."""
        for worker in self._workers:
            worker.close()
        self.socket.close()
        self.process.kill()
        self.process.wait(WATCHDOG_S)
