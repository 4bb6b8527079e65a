"""A peer's process: started in a group of its own, awaited, stopped with all its children."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.environments import PEERS as HOME
from harness.environments import PeerUnavailable
from harness.generator import Generator
from harness.peers import Peer, Place, Tools, inherited_env
from harness.requests import request_arguments
from harness.workloads import Workload

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 10.0


class Server:
    """A running peer; a context manager that leaves no process behind."""

    def __init__(self, peer: Peer, tools: Tools, directory: Path) -> None:
        self.peer = peer
        self.directory = directory
        self._place = Place(free_ports(), directory, tools)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = HOME / "logs" / f"{peer.key}.log"

    @property
    def port(self) -> int:
        """The port requests go to."""
        return self._place.ports[0]

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        command = self.peer.start(self._place)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command.argv,
                env=inherited_env() | command.extra_env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        kill_group(self._process.pid)
        self._process.wait()

    def wait_until_it_answers(self, generator: Generator) -> None:
        """Return once one request has been echoed.

        Raises:
            PeerUnavailable: the process ended, or did not answer in time.
        """
        first = request_arguments(self.peer, Workload("small", 1), self.port, self.directory)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not generator.answers(first):
            if self._process is None or self._process.poll() is not None:
                raise PeerUnavailable(f"ended while starting: {self._last_line()}")
            if time.monotonic() > deadline:
                raise PeerUnavailable(f"no answer after {_START_TIMEOUT_S:.0f} s")
            time.sleep(0.1)

    def wait_until_it_listens(self) -> None:
        """Return once its port takes connections.

        Raises:
            PeerUnavailable: the process ended, or did not listen in time.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _listens(self.port):
            if not self.runs():
                raise PeerUnavailable(f"ended while starting: {self._last_line()}")
            if time.monotonic() > deadline:
                raise PeerUnavailable(f"it did not listen after {_START_TIMEOUT_S:.0f} s")
            time.sleep(0.05)

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_ports() -> tuple[int, int, int]:
    """Give three ports that nobody listens on; they are held together so that they differ."""
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        return _bind(first), _bind(second), _bind(third)


def kill_group(leader: int) -> None:
    """End what is left of the process group that ``leader`` began."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _bind(listener: socket.socket) -> int:
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    return port
