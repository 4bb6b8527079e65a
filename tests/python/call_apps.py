"""Apps for the tests of calls: handlers that call whatever the runtime of the test answers for."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, TensorSpec
from anyserve.errors import AnyServeError, Overloaded

serial = AnyServe()
mixed = AnyServe()


def told(**outputs: Any) -> ModelInferResponse:
    response = ModelInferResponse()
    for name, value in outputs.items():
        response.add_output(name, value if isinstance(value, list | np.ndarray) else [value])
    return response


# === serial: handlers by their place ===


@serial.capability(type="typed", inputs=[TensorSpec("x", "FP32", [-1])])  # 0
def typed(x):
    return {"y": x}


@serial.capability(type="call")  # 1
def call(request: ModelInferRequest, context: Context):
    options = {"id": "i", "headers": {"X-A": "b"}, "parameters": {"k": 1}, "outputs": ["y"], "version": "3"}
    result = context.call({"type": "embed", "size": 7}, list(request.inputs), timeout_s=30, **options)
    return told(y=result["y"], model=result.response.model_name, id=result.response.id)


@serial.capability(type="targets")  # 2
def targets(request: ModelInferRequest, context: Context):
    for target in ("echo", "type=a,size>7", {"model": "m"}):
        context.call(target, {"x": [1.5]})
    context.call({"type": "typed"}, {"x": [1.5]})
    context.call("typed", {"x": [1]})
    return told(ok=True)


@serial.capability(type="code")  # 3
def code(request: ModelInferRequest, context: Context):
    try:
        context.call("a", {})
    except AnyServeError as error:
        return told(code=error.code, text=str(error), retry_after_s=error.retry_after_s or 0.0)
    return told(code="")


@serial.capability(type="stream")  # 4
def stream(request: ModelInferRequest, context: Context):
    with context.call_stream("a", {}) as results:
        taken = [int(result["n"][0]) for result in results]
    return told(taken=taken)


@serial.capability(type="leave")  # 5
def leave(request: ModelInferRequest, context: Context):
    with context.call_stream("a", {}) as results:
        first = next(results)
    return told(first=first["n"], rest=len(list(results)))


@serial.capability(type="read-late")  # 6
def read_late(request: ModelInferRequest, context: Context):
    results = context.call_stream("a", {})
    Path(request.parameters["gate"]).read_bytes()
    return told(taken=[int(result["n"][0]) for result in results])


@serial.capability(type="many")  # 7
def many(request: ModelInferRequest, context: Context):
    open_calls = [context.call_stream("a", {}) for _ in range(256)]
    try:
        context.call_stream("a", {})
    except Overloaded as error:
        text = str(error)
    open_calls.pop().close()
    open_calls.append(context.call_stream("a", {}))
    return told(text=text)


@serial.capability(type="generator", stream=True)  # 8
def generator(request: ModelInferRequest, context: Context):
    for _ in range(2):
        yield {"y": context.call("a", {})["y"]}


@serial.capability(type="batch", max_batch_size=8)  # 9
def batch(requests: list[ModelInferRequest], contexts: list[Context]):
    return [told(y=context.call("a", {})["y"]) for context in contexts]


@serial.capability(type="wrong")  # 10
def wrong(request: ModelInferRequest, context: Context):
    texts = []
    tries = (
        ({"type": "a"}, {"x": object()}),
        ("a", [1]),
        ("", {}),
        ("type=", {}),
        ({}, {}),
        ("a", {"x": np.zeros(1 << 25)}),
    )
    for target, inputs in tries:
        try:
            context.call(target, inputs)
        except AnyServeError as error:
            texts.append(f"{error.code}: {error}")
    try:
        context.acall_stream("a", {})
    except RuntimeError as error:
        texts.append(str(error))
    return told(texts=texts)


kept: list[Context] = []


@serial.capability(type="keep")  # 11
def keep(request: ModelInferRequest, context: Context):
    kept.append(context)
    return told(ok=True)


@serial.capability(type="use-kept")  # 12
def use_kept(request: ModelInferRequest, context: Context):
    try:
        kept.pop().call("a", {})
    except AnyServeError as error:
        return told(code=error.code)
    return told(code="")


# === mixed: coroutines and threads ===


@mixed.capability(type="acall", concurrency=64)  # 0
async def acall(request: ModelInferRequest, context: Context):
    result = await context.acall("a", {})
    return told(y=result["y"])


@mixed.capability(type="gather", concurrency=64)  # 1
async def gather(request: ModelInferRequest, context: Context):
    results = await asyncio.gather(*(context.acall("a", {"n": [n]}) for n in range(50)), return_exceptions=True)
    return told(codes=[error.code if isinstance(error, AnyServeError) else "" for error in results])


@mixed.capability(type="astream", concurrency=64)  # 2
async def astream(request: ModelInferRequest, context: Context):
    async with context.acall_stream("a", {}) as results:
        taken = [int(result["n"][0]) async for result in results]
    return told(taken=taken)


@mixed.capability(type="given-up", concurrency=64)  # 3
async def given_up(request: ModelInferRequest, context: Context):
    try:
        await asyncio.wait_for(context.acall("a", {}), 0.01)
    except TimeoutError:
        return told(late=True)
    return told(late=False)


@mixed.capability(type="threads", concurrency=4)  # 4
def threads(request: ModelInferRequest, context: Context):
    return told(y=context.call("a", {})["y"])


@mixed.capability(type="wrong-way", concurrency=64)  # 5
async def wrong_way(request: ModelInferRequest, context: Context):
    texts = []
    for use in (lambda: context.call("a", {}), lambda: context.call_stream("a", {})):
        try:
            use()
        except RuntimeError as error:
            texts.append(str(error))
    try:
        await asyncio.to_thread(lambda: asyncio.run(context.acall("a", {})))
    except RuntimeError as error:
        texts.append(str(error))
    return told(texts=texts)


@mixed.capability(type="agenerator", concurrency=8, stream=True)  # 6
async def agenerator(request: ModelInferRequest, context: Context):
    for _ in range(2):
        result = await context.acall("a", {})
        yield {"y": result["y"]}
