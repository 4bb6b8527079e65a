"""Call a server as Triton's own client does, and print JSON.

    objects_client.py times ENDPOINT SECONDS SIZE              what the handler `times` says of itself
    objects_client.py echo ENDPOINT SECONDS SIZE REGIONS       seconds of each echo through shared memory

With one region the output goes where the input is, with two it has a region of its own.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm

_LEAST = 3
_PATIENCE_S = 10.0


def times(client: triton.InferenceServerClient, seconds: float, size: int) -> dict[str, list[float]]:
    """Samples of the handler, by what was timed."""
    given = []
    for name, datatype, value in (("size", "INT64", np.int64(size)), ("seconds", "FP64", np.float64(seconds))):
        tensor = triton.InferInput(name, [1], datatype)
        tensor.set_data_from_numpy(np.array([value]))
        given.append(tensor)
    result = client.infer("times", given)
    return {name: result.as_numpy(name).tolist() for name in ("memcpy", "put", "get", "delete")}


def echo(client: triton.InferenceServerClient, seconds: float, size: int, count: int) -> list[float]:
    """Seconds of each echo, for about so long and three times at least; the first does not count and is checked."""
    sent = np.arange(size // 4, dtype=np.float32)
    with regions(client, size, count) as handles:
        shm.set_shared_memory_region(handles[0], [sent])
        tensor, output = triton.InferInput("x", [size // 4], "FP32"), triton.InferRequestedOutput("output_x")
        tensor.set_shared_memory(_name(0), size)
        output.set_shared_memory(_name(count - 1), size)
        samples: list[float] = []
        client.infer("echo", [tensor], outputs=[output])
        if not np.array_equal(shm.get_contents_as_numpy(handles[-1], np.float32, [size // 4]), sent):
            raise RuntimeError(f"an echo of {size} bytes came back as another")
        end = time.monotonic() + seconds
        while len(samples) < _LEAST or time.monotonic() < end:
            begun = time.perf_counter()
            client.infer("echo", [tensor], outputs=[output])
            samples.append(time.perf_counter() - begun)
    return samples


@contextmanager
def regions(client: triton.InferenceServerClient, size: int, count: int) -> Iterator[list[object]]:
    """So many regions, registered."""
    keys = {_name(number): f"/{_name(number)}" for number in range(count)}
    handles = [shm.create_shared_memory_region(name, key, size) for name, key in keys.items()]
    try:
        for name, key in keys.items():
            client.register_system_shared_memory(name, key, size)
        yield handles
        for name in keys:
            unregister(client, name)
    finally:
        for handle in handles:
            shm.destroy_shared_memory_region(handle)


def unregister(client: triton.InferenceServerClient, name: str) -> None:
    """Let the server forget a region. Triton answers a request before it has let go of its region, so not at once."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return client.unregister_system_shared_memory(name)
        except triton.InferenceServerException:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _name(number: int) -> str:
    return f"bench-{os.getpid()}-{number}"


if __name__ == "__main__":
    what, endpoint, time_s, *numbers = sys.argv[1:]
    with triton.InferenceServerClient(endpoint) as connected:
        call = {"times": times, "echo": echo}[what]
        print(json.dumps(call(connected, float(time_s), *map(int, numbers))))
