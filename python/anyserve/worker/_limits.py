"""What a worker's process may use, set by the process itself before its object is made.

The limit is that of private writable memory (``RLIMIT_DATA``): where it is met, an allocation fails, Python raises
`MemoryError`, and the worker lives. A limit of the whole address space would count shared memory and what GPU drivers
map, which may be terabytes; the kernel keeps no limit of resident memory; and a control group ends the process instead,
and takes rights that a runtime does not have.
"""

import os
import resource
from collections.abc import Sequence
from pathlib import Path

from anyserve.errors import StartError
from anyserve.handlers import Handler

__all__ = ["be_nice", "limit_memory"]

_KIB = 1 << 10
_STACK = 8 << 20
"""Bytes that a thread's stack reserves where the system sets no limit."""


def be_nice(niceness: int) -> None:
    """Add to the priority number of this process."""
    if niceness:
        os.nice(niceness)


def limit_memory(limit: int, handlers: Sequence[Handler]) -> None:
    """Bound the memory that is this process's own, what it has already included.

    Address space that was reserved and never used does not count: the allocator of requests reserves a gigabyte. Nor do
    the stacks of the handlers' threads, which are still to be started.

    Args:
        limit: bytes.
        handlers: what runs in this process.

    Raises:
        StartError: it has more than that already.
    """
    reserved, used = _private()
    if used >= limit:
        raise StartError(
            f"memory_limit={limit} bytes is below the {used} bytes that a worker has before on_start: raise it, or "
            "import less"
        )
    most = limit + reserved - used + _stacks(handlers)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _private() -> tuple[int, int]:
    """Bytes of private writable memory: reserved, and used."""
    lines = (line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {name: value for name, value in lines if name in ("VmData", "RssAnon", "VmSwap")}
    kib = {name: int(value.split()[0]) for name, value in sizes.items()}
    return kib["VmData"] * _KIB, (kib["RssAnon"] + kib.get("VmSwap", 0)) * _KIB


def _stacks(handlers: Sequence[Handler]) -> int:
    """Bytes of the stacks of the threads that `_core` starts: one for each sync call, and its own."""
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    calls = sum(row.concurrency for row in handlers if row.kind in ("sync", "generator"))
    return (calls + 2) * (_STACK if stack == resource.RLIM_INFINITY else stack)
