"""Machines of their own for replicas: network namespaces, each joined to this one by cables that can be cut.

A cable is a pair of virtual interfaces with a network of two addresses from 198.18.0.0/15, which RFC 2544 keeps for
tests: `here` is this end's address, `there` the other's.
"""

import itertools
import os
import random
import shutil
import subprocess
from contextlib import ExitStack
from typing import Self

import pytest

from tests.e2e.replicas import BIN

NUMBERS = itertools.count()
TRIES = 20


class Cable:
    """A link to a namespace."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.ends = namespace, (f"{name}h", f"{name}t")
        run("ip", "link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1], "netns", namespace)
        self.here, self.there = self.addresses()
        run("ip", "-n", namespace, "address", "add", f"{self.there}/30", "dev", self.ends[1])
        run("ip", "link", "set", self.ends[0], "up")
        self.mend()

    def addresses(self) -> tuple[str, str]:
        """Addresses of both ends, of a network that nobody else has now."""
        for _ in range(TRIES):
            high, low = divmod(4 * random.randrange(1 << 15), 256)
            network = f"198.{18 + high // 256}.{high % 256}"
            if f"{network}.{low}/30" not in run("ip", "route"):
                run("ip", "address", "add", f"{network}.{low + 1}/30", "dev", self.ends[0])
                return f"{network}.{low + 1}", f"{network}.{low + 2}"
        pytest.fail("no network is free")

    def unplug(self) -> None:
        """Take the cable out at the other end: this one has no carrier any more."""
        run("ip", "-n", self.namespace, "link", "set", self.ends[1], "down")

    def mend(self) -> None:
        """Plug it in again, and let everything through."""
        run("ip", "-n", self.namespace, "link", "set", self.ends[1], "up")
        for where in ((), ("-n", self.namespace)):
            end = self.ends[1 if where else 0]
            if "blackhole" in run("tc", *where, "qdisc", "show", "dev", end):
                run("tc", *where, "qdisc", "delete", "dev", end, "root")

    def swallow(self) -> None:
        """Lose every packet of both directions, without a word."""
        run("tc", "qdisc", "add", "dev", self.ends[0], "root", "blackhole")
        run("tc", "-n", self.namespace, "qdisc", "add", "dev", self.ends[1], "root", "blackhole")

    def remove(self) -> None:
        """Take it away; it may be gone with its namespace."""
        subprocess.run(["ip", "link", "delete", self.ends[0]], check=False, capture_output=True)


class Apart:
    """A namespace with cables; everything is gone at the end of the `with` block, whatever lives in it."""

    def __init__(self, cables: int = 1) -> None:
        self.name = f"as{os.getpid()}x{next(NUMBERS)}"
        self.cables: list[Cable] = []
        self._count, self._stack = cables, ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            run("ip", "netns", "add", self.name)
            stack.callback(run, "ip", "netns", "delete", self.name)
            run("ip", "-n", self.name, "link", "set", "lo", "up")
            for number in range(self._count):
                cable = Cable(self.name, f"{self.name[2:]}{'abc'[number]}")
                stack.callback(cable.remove)
                self.cables.append(cable)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def program(self) -> list[str]:
        """What starts a replica in it."""
        return ["ip", "netns", "exec", self.name, str(BIN / "anyserve"), "serve"]


def need() -> None:
    """Skip the test where there can be no namespaces, but for CI."""
    name = f"as{os.getpid()}try"
    refused = shutil.which("ip") is None or shutil.which("tc") is None
    refused = refused or subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode != 0
    if refused:
        assert "ANYSERVE_CI" not in os.environ, "CI needs Debian's iproute2, and may have to be root"
        pytest.skip("no network namespace can be made here")
    run("ip", "netns", "delete", name)


def run(*command: str) -> str:
    """Run a command; it must end well."""
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}"
    return ended.stdout
