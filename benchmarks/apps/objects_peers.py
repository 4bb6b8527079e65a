"""Time Ray or `multiprocessing.shared_memory`, and print JSON: `objects_peers.py ray SECONDS SIZE...`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from objects_timing import Store, measure

_STORE_BYTES = 4 << 30


class Ray:
    """`ray.put` and `ray.get` in the driver; what nobody refers to is deleted."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def put(self, value: NDArray[np.uint8]) -> Any:
        return self._ray.put(value)

    def get(self, ref: Any) -> Any:
        return self._ray.get(ref)

    def delete(self, ref: Any) -> None:
        """The reference goes with the call."""


class Segments:
    """A segment for each value, and its name as the reference. A view must not outlive its handle."""

    def put(self, value: NDArray[np.uint8]) -> str:
        made = SharedMemory(create=True, size=value.nbytes)
        np.copyto(np.ndarray(value.shape, value.dtype, made.buf), value)
        made.close()
        return made.name

    def get(self, ref: str) -> NDArray[np.uint8]:
        found = SharedMemory(name=ref)
        ends = np.array([found.buf[0], found.buf[-1]])
        found.close()
        return ends

    def delete(self, ref: str) -> None:
        found = SharedMemory(name=ref)
        found.close()
        found.unlink()


@contextmanager
def store(peer: str) -> Iterator[Store]:
    """The store to be timed, for as long as it is needed."""
    if peer == "multiprocessing":
        yield Segments()
        return
    # Without that it writes a token into the home directory.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray  # noqa: PLC0415 - only where it is installed

    with TemporaryDirectory(prefix="ray-") as folder:
        options = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": folder}
        ray.init(num_cpus=1, object_store_memory=_STORE_BYTES, **options)
        try:
            yield Ray(ray)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    name, seconds, *sizes = sys.argv[1:]
    with store(name) as kept:
        print(json.dumps({size: measure(kept, int(size), float(seconds)) for size in sizes}))
