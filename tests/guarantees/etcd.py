"""An etcd that API servers of a test share."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.replicas import until


class Etcd:
    """A process of its own, with its data in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.client, peer = free_ports(2)
        urls = [f"http://127.0.0.1:{port}" for port in (self.client, peer)]
        # Requests of the test wait for no disk: on a busy one the defaults are soon too short.
        command = [
            "etcd", "--data-dir", folder, "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
            "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--unsafe-no-fsync",
            "--initial-cluster", f"default={urls[1]}", "--heartbeat-interval", "100", "--election-timeout", "1000",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def store(self) -> str:
        """What `--store` takes."""
        return f"etcd://127.0.0.1:{self.client}"

    def listens(self) -> None:
        """Wait until it takes connections."""
        until(lambda: answers(self.client), "etcd")

    def stop(self) -> None:
        """Let it stand still: it neither answers nor refuses."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def start(folder: Path) -> Etcd:
    """Start one. Without an etcd on this machine the test is skipped, but for CI."""
    if shutil.which("etcd") is None:
        assert "ANYSERVE_CI" not in os.environ, "CI needs Debian's etcd-server"
        pytest.skip("there is no etcd on this machine")
    return Etcd(folder)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def answers(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
