"""Handlers for the tests of the protocol: what comes back is made of what came, in every way there is."""

import builtins
import json
from collections.abc import AsyncIterator, Iterator

import marks
import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, Stream, TensorSpec, errors

ANY = -1
HOW = TensorSpec("how", "BYTES", [1])
FIELDS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def create_serial() -> AnyServe:
    """Make an app with sync handlers only, one request at a time."""
    app = AnyServe()
    add_unary(app, concurrency=1)
    add_streams(app, concurrency=1)
    return app


def create_mixed() -> AnyServe:
    """Make the same with threads, and with coroutines beside them."""
    app = AnyServe()
    add_unary(app, concurrency=8)
    add_streams(app, concurrency=4)
    add_async(app)
    return app


def add_unary(app: AnyServe, concurrency: int) -> None:
    @app.capability(type="echo", concurrency=concurrency)
    def echo(request: ModelInferRequest) -> ModelInferResponse:
        response = ModelInferResponse(model_name=request.model_name, id=request.id)
        response.parameters.update(request.parameters)
        for inp in request.inputs:
            out = response.add_output(f"output_{inp.name}", inp.datatype, inp.shape, parameters=dict(inp.parameters))
            out.contents = inp.contents
        return response

    @app.capability(type="as-arrays", concurrency=concurrency)
    def as_arrays(request: ModelInferRequest) -> ModelInferResponse:
        response = ModelInferResponse()
        for inp in request.inputs:
            array = inp.as_numpy()
            assert not array.flags.writeable
            response.add_output(inp.name, array, datatype=inp.datatype)
        return response

    @app.capability(type="as-lists", concurrency=concurrency)
    def as_lists(request: ModelInferRequest) -> ModelInferResponse:
        response = ModelInferResponse()
        for inp in request.inputs:
            out, field = response.add_output(inp.name, inp.datatype, inp.shape), FIELDS[inp.datatype]
            setattr(out.contents, field, list(getattr(inp.contents, field)))
        return response

    @app.capability(
        type="add",
        inputs=[TensorSpec("a", "FP32", [ANY]), TensorSpec("b", "FP32", [ANY])],
        outputs=[TensorSpec("sum", "FP32", [ANY]), TensorSpec("difference", "FP32", [ANY])],
        concurrency=concurrency,
    )
    def add(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
        return {"sum": a + b, "difference": a - b}

    @app.capability(type="fixed", inputs=[TensorSpec("x", "INT32", [2, ANY])], concurrency=concurrency)
    def fixed(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": x}

    for version in (3, 4):
        add_version(app, version, concurrency)

    @app.capability(type="see", size=7, concurrency=concurrency)
    def see(request: ModelInferRequest, context: Context) -> dict[str, list[str]]:
        seen = {
            "request_id": context.request_id, "capability": context.capability, "parameters": context.parameters,
            "headers": dict(context.headers), "attempt": context.attempt, "remaining": context.remaining(),
            "cancelled": context.cancelled, "model_name": request.model_name, "id": request.id,
            "model_version": request.model_version, "outputs": list(request.outputs),
        }  # fmt: skip
        return {"seen": [json.dumps(seen)]}

    @app.capability(type="fail", inputs=[HOW, TensorSpec("why", "BYTES", [1])], concurrency=concurrency)
    def fail(how: str, why: str) -> dict[str, list[int]]:
        raise error(how, why)

    @app.capability(type="answer", inputs=[HOW], concurrency=concurrency)
    def answer(request: ModelInferRequest) -> object:
        return ANSWERS[request.input("how").as_numpy()[0].decode()]()


def error(how: str, why: str) -> BaseException:
    """Make the exception of this name."""
    if how == "Overloaded":
        return errors.Overloaded(why, retry_after_s=1.5)
    return getattr(errors, how, None)(why) if hasattr(errors, how) else getattr(builtins, how)(why)


def short() -> ModelInferResponse:
    """Make a response with an output that lacks a byte."""
    response = ModelInferResponse()
    response.add_output("y", "INT32", [2]).contents.raw = b"1234567"
    return response


def twice() -> ModelInferResponse:
    """Make a response with two outputs of one name."""
    response = ModelInferResponse()
    response.add_output("y", np.zeros(1))
    response.add_output("y", np.zeros(1))
    return response


ANSWERS = {
    "none": lambda: None,
    "text": lambda: "text",
    "short": short,
    "twice": twice,
    "wide": lambda: {f"y{place}": [place] for place in range(1000)},
}


def add_version(app: AnyServe, version: int, concurrency: int) -> None:
    @app.capability(model="versioned", version=version, concurrency=concurrency)
    def versioned(request: ModelInferRequest) -> dict[str, list[int]]:
        return {"version": [version]}


PROMPT = [TensorSpec("name", "BYTES", [1]), TensorSpec("count", "INT64", [1]), TensorSpec("size", "INT64", [1])]


def add_streams(app: AnyServe, concurrency: int) -> None:
    """Add streams of `count` parts of `size` bytes; each waits for a gate if the name starts with `gated`."""

    @app.capability(type="count", stream=True, inputs=PROMPT, concurrency=concurrency)
    def count(name: str, count: int, size: int) -> Iterator[dict[str, list[object]]]:
        try:
            for part in range(count):
                if name.startswith("gated"):
                    marks.wait(f"{name}-{part}")
                yield {"part": [part], "data": [b"x" * size]}
                if name:
                    marks.note(f"progress-{name}", part)
        finally:
            if name:
                marks.note(f"left-{name}")

    @app.capability(type="count-sent", stream=True, concurrency=concurrency)
    def count_sent(request: ModelInferRequest, context: Context, stream: Stream) -> None:
        name, count, size = read(request)
        try:
            for part in range(count):
                if context.cancelled:
                    return
                stream.send(part_of(part, size))
                if name:
                    marks.note(f"progress-{name}", part)
        finally:
            if name:
                marks.note(f"left-{name}")

    @app.capability(type="count-and-fail", stream=True, inputs=PROMPT, concurrency=concurrency)
    def count_and_fail(name: str, count: int, size: int) -> Iterator[dict[str, list[object]]]:
        for part in range(count):
            yield {"part": [part]}
        raise error("NotFound", f"{name} has no part {count}")


def read(request: ModelInferRequest) -> tuple[str, int, int]:
    name, count, size = (request.input(spec.name).as_numpy()[0] for spec in PROMPT)
    return name.decode(), int(count), int(size)


def part_of(part: int, size: int) -> ModelInferResponse:
    response = ModelInferResponse()
    response.add_output("part", np.array([part]))
    response.add_output("data", np.array([b"x" * size], dtype=object))
    return response


def add_async(app: AnyServe) -> None:
    """Add handlers on the event loop, and one in a thread that the tests hold up."""

    @app.capability(type="gate", concurrency=8)
    def gate(name: str, context: Context) -> dict[str, list[str]]:
        marks.note(f"started-{name}", context.remaining())
        while not (marks.NOTES / f"go-{name}").exists():
            if context.cancelled:
                marks.note(f"cancelled-{name}", "seen")
                break
            marks.time.sleep(marks.PAUSE_S)
        marks.note(f"ended-{name}")
        return {"name": [name]}

    @app.capability(type="gate-async", concurrency=256)
    async def gate_async(name: str) -> dict[str, list[str]]:
        marks.note(f"started-{name}")
        try:
            await marks.wait_async(f"go-{name}")
        except BaseException as error:
            marks.note(f"cancelled-{name}", type(error).__name__)
            raise
        marks.note(f"ended-{name}")
        return {"name": [name]}

    @app.capability(type="patient", timeout_s=0.2, concurrency=8)
    async def patient(name: str) -> dict[str, list[str]]:
        await marks.wait_async(f"go-{name}")
        return {"name": [name]}

    @app.capability(type="count-async", stream=True, inputs=PROMPT, concurrency=64)
    async def count_async(name: str, count: int, size: int) -> AsyncIterator[dict[str, list[object]]]:
        try:
            for part in range(count):
                if name.startswith("gated"):
                    await marks.wait_async(f"{name}-{part}")
                yield {"part": [part], "data": [b"x" * size]}
                if name:
                    marks.note(f"progress-{name}", part)
        finally:
            if name:
                marks.note(f"left-{name}")

    @app.capability(type="count-sent-async", stream=True, concurrency=64)
    async def count_sent_async(request: ModelInferRequest, context: Context, stream: Stream) -> None:
        name, count, size = read(request)
        try:
            for part in range(count):
                await stream.asend(part_of(part, size))
                if name:
                    marks.note(f"progress-{name}", part)
        finally:
            if name:
                marks.note(f"left-{name}")
