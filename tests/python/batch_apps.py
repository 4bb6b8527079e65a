"""Apps for the tests of batches. What a request asks for is in its parameters.

`kind` makes the handler raise for it, or answer it with an exception; `gate` is a named pipe that the handler waits
for. An answer is the numbers of the requests that shared the call.
"""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse
from anyserve.errors import InvalidInput, Overloaded

serial = AnyServe()
asynchronous = AnyServe()
threads = AnyServe()


def number_of(request: ModelInferRequest) -> int:
    return int(request.id)


def shared_by(requests: Sequence[ModelInferRequest], own: ModelInferRequest) -> ModelInferResponse:
    response = ModelInferResponse(parameters={"own": number_of(own)})
    response.add_output("together", np.array([number_of(one) for one in requests], np.int64))
    return response


def check(requests: Sequence[ModelInferRequest]) -> None:
    """Raise what the first request with a `kind` asks for."""
    for request in requests:
        kind = request.parameters.get("kind")
        if kind == "value":
            raise ValueError(f"bad request {request.id}")
        if kind == "overloaded":
            raise Overloaded("come back", retry_after_s=1.5)
        if kind == "exit":
            raise SystemExit(number_of(request))
        if kind == "interrupt":
            raise KeyboardInterrupt


def answer(requests: Sequence[ModelInferRequest], own: ModelInferRequest) -> object:
    """Answer one request: by a response, a dict, or an exception as the answer."""
    kind = own.parameters.get("kind")
    if kind == "exception":
        return InvalidInput(f"request {own.id} is wrong")
    if kind == "interrupt-item":
        return KeyboardInterrupt()
    if kind == "nothing":
        return None
    if kind == "unfit":
        response = ModelInferResponse()
        response.add_output("y", "FP32", [3])
        return response
    if kind == "dict":
        return {"y": np.array([number_of(own)], np.int64)}
    return shared_by(requests, own)


def wait_at_gate(requests: Sequence[ModelInferRequest]) -> None:
    for request in requests:
        if "gate" in request.parameters:
            Path(request.parameters["gate"]).read_bytes()


def note(seen: Path, text: str) -> None:
    with seen.open("a") as file:
        file.write(text)


# === serial: handlers by their place ===

calls = 0


@serial.capability(type="embed", max_batch_size=256, max_delay_ms=1.5, priority=2, idempotent=True)  # 0
def embed(requests: list[ModelInferRequest]) -> list[object]:
    global calls  # noqa: PLW0603
    calls += 1
    check(requests)
    return [answer(requests, one) for one in requests]


@serial.capability(type="contexts", max_batch_size=8)  # 1
def with_contexts(requests: list[ModelInferRequest], contexts: list[Context]) -> list[object]:
    wait_at_gate(requests)
    known = [
        f"{context.request_id} {context.attempt} {context.cancelled} {context.remaining() is not None}"
        for context in contexts
    ]
    return [{"known": known} for _ in requests]


@serial.capability(type="length", max_batch_size=8)  # 2
def wrong_length(requests: list[ModelInferRequest]) -> object:
    kind = requests[0].parameters["kind"]
    response = shared_by(requests, requests[0])
    return {"short": [response], "long": [response] * 3, "none": None, "one": response, "tuple": (response, response)}[
        kind
    ]


@serial.capability(type="count", sequence=True)  # 3
def count(request: ModelInferRequest) -> dict[str, object]:
    return {"n": [calls]}


@serial.capability(type="gate", max_batch_size=8)  # 4
def gated(requests: list[ModelInferRequest]) -> list[object]:
    """Wait for the gate of the first request, once, then raise if any request says so."""
    if "gate" in requests[0].parameters:
        Path(requests[0].parameters.pop("gate")).read_bytes()
    check(requests)
    return [shared_by(requests, one) for one in requests]


@serial.capability(type="large", max_batch_size=8)  # 5
def large(requests: list[ModelInferRequest]) -> list[object]:
    sizes = [one.parameters["size"] for one in requests]
    return [
        {"small": np.full(3, number_of(one), np.uint8), "large": np.full(size, number_of(one), np.uint8)}
        for one, size in zip(requests, sizes, strict=True)
    ]


@serial.capability(type="greedy", max_batch_size=8)  # 6
def greedy(requests: list[ModelInferRequest]) -> list[object]:
    """Take the requests out of the list that it is given."""
    answers = []
    while requests:
        one = requests.pop(0)
        check([one])
        answers.append(shared_by([one], one))
    return answers


# === asynchronous ===

released = asyncio.Event()
running = most = 0


@asynchronous.capability(type="embed", max_batch_size=8, concurrency=2)  # 0
async def aembed(requests: list[ModelInferRequest]) -> list[object]:
    await asyncio.sleep(0)
    check(requests)
    return [answer(requests, one) for one in requests]


@asynchronous.capability(type="hold", max_batch_size=8, concurrency=8)  # 1
async def hold(requests: list[ModelInferRequest], contexts: list[Context]) -> list[object]:
    seen = Path(requests[0].parameters["seen"])
    try:
        await released.wait()
    except asyncio.CancelledError:
        note(seen, "cancelled")
        # Cleaning up takes a while: a second cancel would end it.
        await released.wait()
        note(seen, ", cleaned up")
        raise
    return [{"cancelled": [context.cancelled]} for context in contexts]


@asynchronous.capability(type="release", concurrency=8)  # 2
async def release(request: ModelInferRequest) -> dict[str, object]:
    released.set()
    return {"n": [1]}


@asynchronous.capability(type="two", max_batch_size=2, concurrency=2)  # 3
async def two(requests: list[ModelInferRequest]) -> list[object]:
    global running, most  # noqa: PLW0603
    running += 1
    most = max(most, running)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running -= 1
    return [{"n": [most]} for _ in requests]


@asynchronous.capability(type="gate", max_batch_size=8)  # 4
async def agated(requests: list[ModelInferRequest]) -> list[object]:
    return gated(requests)


# === threads ===

together = threading.Barrier(2)


@threads.capability(type="meet", max_batch_size=8, concurrency=2)  # 0
def meet(requests: list[ModelInferRequest]) -> list[object]:
    together.wait(timeout=20)
    return [shared_by(requests, one) for one in requests]


@threads.capability(type="embed", max_batch_size=8)  # 1
def embed_on_a_thread(requests: list[ModelInferRequest]) -> list[object]:
    check(requests)
    return [answer(requests, one) for one in requests]


@threads.capability(type="gate", max_batch_size=8)  # 2
def gated_on_a_thread(requests: list[ModelInferRequest]) -> list[object]:
    return gated(requests)
