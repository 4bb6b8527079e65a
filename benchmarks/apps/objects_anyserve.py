"""Handlers that time the object plane from the inside, and an echo for large tensors."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse

app = AnyServe()
_RING_BYTES = 256 << 20


def timed(repetitions: int, step: Callable[[int], Any]) -> np.ndarray:
    """Seconds of each of so many steps."""
    samples = np.empty(repetitions)
    for number in range(repetitions):
        begun = time.perf_counter_ns()
        step(number)
        samples[number] = (time.perf_counter_ns() - begun) / 1e9
    return samples


def copies(source: np.ndarray, repetitions: int) -> np.ndarray:
    """The limit: copies into memory that was touched before and is in no cache, as an arena's blocks are."""
    targets = [np.zeros_like(source) for _ in range(max(2, min(_RING_BYTES // source.nbytes, 4096)))]
    for target in targets:
        np.copyto(target, source)
    return timed(repetitions, lambda number: np.copyto(targets[number % len(targets)], source))


@app.capability(type="times")
def times(request: ModelInferRequest, context: Context) -> dict[str, np.ndarray]:
    """Time memcpy, create and get of one size, turn by turn."""
    size, repetitions = (int(request.input(name).as_numpy()[0]) for name in ("size", "repetitions"))
    source = np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8)
    live = max(1, min(_RING_BYTES // size, 256))
    refs: list[Any] = []

    def put(_: int) -> None:
        refs.append(context.objects.create(source))

    def warm() -> None:
        for _ in range(live):
            put(0)
        forget()

    def forget() -> None:
        while refs:
            context.objects.delete(refs.pop())

    warm()
    puts, memcpy = [], []
    for _ in range(max(1, repetitions // live)):
        memcpy.append(copies(source, live))
        puts.append(timed(live, put))
        gets = timed(live, lambda number: context.objects.get(refs[number % len(refs)]))
        forget()
    return {"memcpy": np.concatenate(memcpy), "put": np.concatenate(puts), "get": gets}


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    """Answer with every input, unchanged."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        output = response.add_output(name=f"output_{tensor.name}", datatype=tensor.datatype, shape=tensor.shape)
        output.contents = tensor.contents
    return response
