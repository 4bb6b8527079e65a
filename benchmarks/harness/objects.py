"""What `benchmarks/objects.py` measures, one replica or peer at a time."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm

from anyserve import Client
from harness.environments import environment
from harness.peers import APPS, inherited_env

Seconds = list[float]
APP = f"{APPS / 'objects_anyserve.py'}:app"
_LARGEST = 1 << 30


@dataclass(frozen=True)
class Echo:
    """One way for a tensor to get to a handler and back."""

    key: str
    label: str
    options: tuple[str, ...]
    regions: int = 0


ECHOES = (
    Echo("socket", "gRPC, worker socket", ("--object-store", "0")),
    Echo("arena", "gRPC, arena", ()),
    Echo("shm1", "client shared memory, in place", ("--client-shm",), regions=1),
    Echo("shm2", "client shared memory, two regions", ("--client-shm",), regions=2),
)


@contextmanager
def replica(program: Path, *options: str) -> Iterator[str]:
    """A replica of the app with one worker; gives its endpoint."""
    command = [str(program), "serve", APP, "--port", "0", "--max-message-mb", "2048", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=inherited_env(), cwd="/"
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        raise RuntimeError(f"the replica did not start:\n{said}")
    finally:
        process.terminate()
        process.wait()


def connect(endpoint: str) -> triton.InferenceServerClient:
    """A client without limits on sizes."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    return triton.InferenceServerClient(endpoint, channel_args=options)


def inside(endpoint: str, size: int, repetitions: int) -> dict[str, Seconds]:
    """Times in a handler: memcpy, put, get."""
    inputs = []
    for name, value in (("size", size), ("repetitions", repetitions)):
        tensor = triton.InferInput(name, [1], "INT64")
        tensor.set_data_from_numpy(np.array([value]))
        inputs.append(tensor)
    result = connect(endpoint).infer("times", inputs)
    return {name: result.as_numpy(name).tolist() for name in ("memcpy", "put", "get")}


def of_peer(peer: str, size: int, repetitions: int) -> dict[str, Seconds]:
    """Times of `ray` or `multiprocessing`, in a process of its own.

    Raises:
        PeerUnavailable: Ray cannot be installed.
    """
    python = environment("ray", ("ray", "numpy")) / "bin" / "python" if peer == "ray" else Path(sys.executable)
    command = [str(python), str(APPS / "objects_peers.py"), peer, str(size), str(repetitions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=inherited_env())
    times: dict[str, Seconds] = json.loads(done.stdout.strip().splitlines()[-1])
    return times


def echo(endpoint: str, way: Echo, size: int, repetitions: int) -> Seconds:
    """Seconds from request to answer for a tensor of so many bytes: inline by our client, shared by Triton's."""
    call = _shared(connect(endpoint), size, way.regions) if way.regions else _inline(endpoint, size)
    try:
        next(call)
        return timed(repetitions, lambda: next(call))
    finally:
        call.close()


def _inline(endpoint: str, size: int) -> Iterator[None]:
    array = np.zeros(size // 4, np.float32)
    with Client(endpoint=endpoint) as client:
        while True:
            assert client.infer("echo", {"x": array})["output_x"].nbytes == size
            yield


def _shared(client: triton.InferenceServerClient, size: int, count: int) -> Iterator[None]:
    names = ("in", "out")[:count]
    regions = {name: shm.create_shared_memory_region(name, f"/bench-{name}", size) for name in names}
    try:
        shm.set_shared_memory_region(regions["in"], [np.zeros(size // 4, np.float32)])
        for name in regions:
            client.register_system_shared_memory(name, f"/bench-{name}", size)
        while True:
            tensor, output = triton.InferInput("x", [size // 4], "FP32"), triton.InferRequestedOutput("output_x")
            tensor.set_shared_memory("in", size)
            output.set_shared_memory(names[-1], size)
            client.infer("echo", [tensor], outputs=[output])
            yield
    finally:
        client.unregister_system_shared_memory()
        for region in regions.values():
            shm.destroy_shared_memory_region(region)


def timed(repetitions: int, step: Callable[[], Any]) -> Seconds:
    """Seconds of each of so many steps."""
    samples = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        step()
        samples.append(time.perf_counter() - begun)
    return samples


def repetitions_of(size: int, *, quick: bool) -> int:
    """How often something of this size is done in one round."""
    return 2 if quick else max(3, min(400, (2 << 30) // max(size, 1)))


def median(samples: Seconds) -> float:
    """The median, in seconds."""
    return statistics.median(samples)
