"""Who has mapped the shared memory of a runtime, and what stands in /dev/shm; as the kernel tells it."""

import re
from pathlib import Path

SHM = Path("/dev/shm")


def names(runtime: int) -> set[str]:
    """What stands in /dev/shm under a name of a runtime's."""
    return {path.name for path in SHM.glob(f"anyserve-{runtime}-*")}


def mapped(pid: int | str, runtime: int) -> set[str]:
    """The segments of a runtime that a process has mapped."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    return set(re.findall(rf"/dev/shm/(anyserve-{runtime}-\w+)", maps))


def holders(runtime: int) -> dict[int, set[str]]:
    """Every process that has mapped a segment of a runtime, with the segments."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {pid: found for pid in pids if (found := mapped(pid, runtime))}
