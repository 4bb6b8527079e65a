"""Apps for the tests of the worker's loop. A handler that waits opens the named pipe in the parameter `gate`."""

import asyncio
import ctypes
import os
import threading
import time
from pathlib import Path

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, TensorSpec
from anyserve.errors import Cancelled, Overloaded

serial = AnyServe()
asynchronous = AnyServe()
threads = AnyServe()
mixed = AnyServe()


def number(value: int) -> ModelInferResponse:
    response = ModelInferResponse()
    response.add_output("n", np.array([value], np.int64))
    return response


def pass_gate(request: ModelInferRequest) -> None:
    Path(request.parameters["gate"]).read_bytes()


# === serial: handlers by their place ===

ran = 0


@serial.capability(type="echo", inputs=[TensorSpec("x", "FP32", [-1])])  # 0
def echo(x):
    return {"y": x}


@serial.capability(type="raw", version=2, weight=0.5, heavy=True, timeout_s=1.5, max_queue=7)  # 1
def raw(request: ModelInferRequest) -> ModelInferResponse:
    response = ModelInferResponse(id=request.id, parameters=request.parameters)
    for tensor in request.inputs:
        output = response.add_output(f"output_{tensor.name}", tensor.datatype, tensor.shape)
        output.contents = tensor.contents
    return response


@serial.capability(type="gate")  # 2
def gate(request: ModelInferRequest) -> ModelInferResponse:
    pass_gate(request)
    return number(1)


@serial.capability(type="count")  # 3
def count(request: ModelInferRequest) -> ModelInferResponse:
    global ran  # noqa: PLW0603
    ran += 1
    return number(ran)


@serial.capability(type="until-cancelled")  # 4
def until_cancelled(request: ModelInferRequest, context: Context) -> ModelInferResponse:
    while not context.cancelled:
        time.sleep(0.001)
    return number(1)


@serial.capability(type="raise")  # 5
def raises(request: ModelInferRequest) -> ModelInferResponse:
    kind = request.parameters["kind"]
    if kind == "anyserve":
        raise Overloaded("come back", retry_after_s=1.5)
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "cancelled":
        raise asyncio.CancelledError
    if kind == "long":
        raise ValueError("x" * 1_000_000)
    raise ValueError("bad value")


@serial.capability(type="wrong")  # 6
def wrong(request: ModelInferRequest):
    response = ModelInferResponse()
    kind = request.parameters["kind"]
    if kind == "none":
        return None
    if kind == "unset":
        response.add_output("y", "FP32", [3])
    if kind == "field":
        response.add_output("y", "FP32", [1]).contents.int_contents.append(1)
    if kind == "datatype":
        response.add_output("y", "INT32", [1]).contents = response.add_output("x", np.ones(1, np.float32)).contents
    if kind == "twice":
        response.add_output("y", np.ones(1))
        response.add_output("y", np.ones(1))
    if kind == "elements":
        response.add_output("y", "BYTES", [2]).contents.bytes_contents = [b"one"]
    if kind == "large":
        response.add_output("y", np.zeros((1 << 26) + 1, np.uint8))
    return response


@serial.capability(type="generate", stream=True)  # 7
def generate(request: ModelInferRequest, context: Context):
    for value in range(request.parameters["count"]):
        yield number(value)


@serial.capability(type="gated", stream=True)  # 8
def gated(request: ModelInferRequest):
    yield number(1)
    pass_gate(request)
    yield number(2)


@serial.capability(type="send", stream=True)  # 9
def send(request: ModelInferRequest, context: Context, stream) -> None:
    for value in range(request.parameters["count"]):
        try:
            stream.send(number(value))
        except Cancelled:
            Path(request.parameters["seen"]).write_text("cancelled")
            raise


@serial.capability(type="closing", stream=True)  # 10
def closing(request: ModelInferRequest):
    try:
        while True:
            yield number(1)
    finally:
        Path(request.parameters["seen"]).write_text("closed")


@serial.capability(type="context")  # 11
def look(request: ModelInferRequest, context: Context) -> ModelInferResponse:
    known = {
        "id": context.request_id, "attempt": context.attempt, "headers": context.headers,
        "parameters": context.parameters, "capability": context.capability, "cancelled": context.cancelled,
        "late": (context.remaining() or 1e9) < 60,
    }  # fmt: skip
    response = ModelInferResponse()
    response.add_output("text", np.array([repr(known)], dtype=object))
    return response


@serial.capability(type="mutate", stream=True)  # 12
def mutate(request: ModelInferRequest):
    array = np.zeros(1 << 16, np.uint8)
    response = ModelInferResponse()
    response.add_output("y", array)
    yield response
    array[:] = 1
    yield response


@serial.capability(type="gil")  # 13
def hold_the_lock(request: ModelInferRequest) -> ModelInferResponse:
    """Wait for the gate without giving up the interpreter's lock, as a badly written extension does."""
    gate = os.open(request.parameters["gate"], os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(gate, True)
    Path(request.parameters["seen"]).write_text("waiting")
    # The other end is open by now, so this blocks; `PyDLL` calls with the lock held.
    ctypes.PyDLL(None).read(gate, ctypes.create_string_buffer(1), 1)
    os.close(gate)
    return number(1)


# === asynchronous ===

released = asyncio.Event()
running = most = 0


@asynchronous.capability(type="hold", concurrency=8)  # 0
async def hold(request: ModelInferRequest) -> ModelInferResponse:
    await released.wait()
    return number(1)


@asynchronous.capability(type="release", concurrency=8)  # 1
async def release(request: ModelInferRequest) -> ModelInferResponse:
    released.set()
    return number(2)


@asynchronous.capability(type="forever", concurrency=8)  # 2
async def forever(request: ModelInferRequest) -> ModelInferResponse:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        Path(request.parameters["seen"]).write_text("cancelled")  # noqa: ASYNC240 - a few bytes, in a test
        raise
    return number(0)


@asynchronous.capability(type="tokens", stream=True, concurrency=8)  # 3
async def tokens(request: ModelInferRequest):
    for value in range(request.parameters["count"]):
        yield number(value)


@asynchronous.capability(type="asend", stream=True, concurrency=8)  # 4
async def asend(request: ModelInferRequest, context: Context, stream) -> None:
    for value in range(request.parameters["count"]):
        await stream.asend(number(value))


@asynchronous.capability(type="blocking", stream=True, concurrency=8)  # 5
async def blocking(request: ModelInferRequest):
    yield number(1)
    pass_gate(request)
    yield number(2)


@asynchronous.capability(type="two", concurrency=2)  # 6
async def two(request: ModelInferRequest) -> ModelInferResponse:
    global running, most  # noqa: PLW0603
    running += 1
    most = max(most, running)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running -= 1
    return number(most)


@asynchronous.capability(type="raise", concurrency=8)  # 7
async def araises(request: ModelInferRequest) -> ModelInferResponse:
    raise SystemExit(3)


@asynchronous.capability(type="wrong-send", stream=True, concurrency=8)  # 8
async def wrong_send(request: ModelInferRequest, context: Context, stream) -> None:
    stream.send(number(1))


# === threads ===

together = threading.Barrier(3)


@threads.capability(type="together", concurrency=3)  # 0
def meet(request: ModelInferRequest) -> ModelInferResponse:
    together.wait(timeout=20)
    return number(1)


@threads.capability(type="generate", stream=True)  # 1
def generate_on_a_thread(request: ModelInferRequest):
    for value in range(request.parameters["count"]):
        yield number(value)


@threads.capability(type="gate")  # 2
def gate_on_a_thread(request: ModelInferRequest) -> ModelInferResponse:
    pass_gate(request)
    return number(1)


# === mixed ===


@mixed.capability(type="sync")  # 0
def mixed_sync(request: ModelInferRequest) -> ModelInferResponse:
    pass_gate(request)
    return number(1)


@mixed.capability(type="async", concurrency=4)  # 1
async def mixed_async(request: ModelInferRequest) -> ModelInferResponse:
    return number(2)
