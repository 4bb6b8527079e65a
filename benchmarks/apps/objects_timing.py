"""How long a value takes to be copied, stored, read and deleted: alike for every store, so that their times compare."""

import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Seconds = dict[str, list[float]]
"""Samples by what was done: ``memcpy``, ``put``, ``get``, ``delete``."""

_RING_BYTES = 128 << 20
_MOST_ALIVE = 256
_LEAST = 3
_UNCOUNTED = 2  # Turns that touch a store's memory for the first time.


class Store(Protocol):
    """What can keep an array."""

    def put(self, value: NDArray[np.uint8]) -> Any:
        """Keep a copy and give what finds it."""

    def get(self, ref: Any) -> NDArray[np.uint8]:
        """Give the array, or its first and last element where no view may outlive the call."""

    def delete(self, ref: Any) -> None:
        """Forget it."""


class Ring:
    """The limit: a copy into memory that was touched before and, when its turn comes again, is in no cache."""

    def __init__(self, source: NDArray[np.uint8]) -> None:
        self._source = source
        count = max(2, _RING_BYTES // source.nbytes)
        self._targets = itertools.cycle(list(np.ones((count, source.nbytes), np.uint8)))

    def copy(self) -> None:
        np.copyto(next(self._targets), self._source)


def measure(store: Store, size: int, seconds: float) -> Seconds:
    """Copy, put, get and delete a value of so many bytes in turns, for about so long and at least three times.

    As many are alive at once as fill the processor's caches several times over, 256 at most, so that a put finds its
    memory as cold as a copy does.
    """
    source = np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8)
    ring, refs = Ring(source), []
    alive = max(1, min(_RING_BYTES // size, _MOST_ALIVE))

    def turn() -> Seconds:
        copies = timed(alive, ring.copy)
        puts = timed(alive, lambda: refs.append(store.put(source)))
        check(store.get(refs[-1]), source)
        found = iter(refs)
        gets = timed(alive, lambda: store.get(next(found)))
        return {"memcpy": copies, "put": puts, "get": gets, "delete": timed(alive, lambda: store.delete(refs.pop()))}

    for _ in range(_UNCOUNTED):
        turn()
    samples: Seconds = {"memcpy": [], "put": [], "get": [], "delete": []}
    end = time.monotonic() + seconds
    while len(samples["put"]) < _LEAST or time.monotonic() < end:
        for name, taken in turn().items():
            samples[name] += taken
    return samples


def timed(count: int, step: Callable[[], Any]) -> list[float]:
    """Seconds of each of so many steps."""
    samples = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        step()
        samples.append((time.perf_counter_ns() - begun) / 1e9)
    return samples


def check(got: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
    """See that what came out is what went in, by its ends."""
    if (got[0], got[-1]) != (source[0], source[-1]):
        raise RuntimeError(f"an array of {source.nbytes} bytes came back as another")
