"""A command on a terminal."""

import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.replicas import BIN, ROOT, environment


@contextmanager
def shown(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], bytearray]]:
    """Run a command of anyserve; its process, and what it has shown so far. It has ended afterwards."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [BIN / "anyserve", *arguments], cwd=ROOT, env=environment(TERM="xterm", COLUMNS="200", LINES="40"),
        stdin=child, stdout=child, stderr=child,
    )  # fmt: skip
    os.close(child)
    seen = bytearray()
    reader = threading.Thread(target=read_all, args=(parent, seen))
    reader.start()
    try:
        yield process, seen
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(parent)


def read_all(descriptor: int, into: bytearray) -> None:
    """Read until nobody writes any more."""
    try:
        while data := os.read(descriptor, 4096):
            into += data
    except OSError:
        pass  # The last one at the other end has closed it.
