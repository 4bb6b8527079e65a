"""Times of `ray.put` and `ray.get`, or of `multiprocessing.shared_memory`, for one size; JSON on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from typing import Any

import numpy as np


def timed(repetitions: int, step: Callable[[int], Any]) -> list[float]:
    samples = []
    for number in range(repetitions):
        begun = time.perf_counter_ns()
        step(number)
        samples.append((time.perf_counter_ns() - begun) / 1e9)
    return samples


def with_ray(source: np.ndarray, repetitions: int) -> dict[str, list[float]]:
    import ray  # noqa: PLC0415 - only where it is installed

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=3 << 30)
    refs = [ray.put(source)]
    live = max(1, min((1 << 30) // max(source.nbytes, 1), repetitions))
    refs.clear()
    puts = timed(live, lambda _: refs.append(ray.put(source)))
    gets = timed(live, lambda number: ray.get(refs[number % len(refs)]))
    ray.shutdown()
    return {"put": puts, "get": gets}


@contextmanager
def segment(size: int) -> Iterator[shared_memory.SharedMemory]:
    made = shared_memory.SharedMemory(create=True, size=size)
    yield made
    made.close()
    made.unlink()


def with_multiprocessing(source: np.ndarray, repetitions: int) -> dict[str, list[float]]:
    def put(_: int) -> None:
        with segment(source.nbytes) as made:
            np.copyto(np.ndarray(source.shape, source.dtype, made.buf), source)

    def get(_: int) -> None:
        attached = shared_memory.SharedMemory(name=kept.name)
        np.ndarray(source.shape, source.dtype, attached.buf)
        attached.close()

    with segment(source.nbytes) as kept:
        return {"put": timed(repetitions, put), "get": timed(repetitions, get)}


if __name__ == "__main__":
    peer, size, repetitions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    array = np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8)
    run = {"ray": with_ray, "multiprocessing": with_multiprocessing}[peer]
    print(json.dumps(run(array, repetitions)))
