"""Handlers that call each other, for the tests of calls."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import marks
import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, TensorSpec, Worker
from anyserve.errors import AnyServeError, NotFound


def target_of(context: Context) -> Any:
    """What the request wants called: a model name, or a selector."""
    return context.parameters["target"]


def create() -> AnyServe:
    """Make an app whose callers and callees are in groups of their own, beside some that share one worker."""
    app = AnyServe(upgrade="type=decode -> type=decode.heavy")
    add_callees(app)
    add_callers(app)
    add_async(app)
    add_shared(app)
    return app


def add_callees(app: AnyServe) -> None:
    @app.capability(type="double", min_workers=1, inputs=[TensorSpec("x", "FP32", [-1])])
    def double(x: Any) -> dict[str, Any]:
        return {"y": x * 2}

    @app.capability(type="seen", min_workers=1, inputs=[])
    def seen(context: Context) -> dict[str, list[Any]]:
        wanted = ("traceparent", "x-tenant", "x-request-id", "x-anyserve-depth", "x-other")
        headers = [context.headers.get(name, "-") for name in wanted]
        left = context.remaining()
        return {"headers": headers, "remaining": [-1.0 if left is None else left]}

    @app.capability(type="fail", min_workers=1, inputs=[])
    def fail() -> dict[str, Any]:
        raise NotFound("there is no such page")

    @app.capability(type="hold", min_workers=1)
    def hold(name: str, context: Context) -> dict[str, list[str]]:
        marks.note(f"started-{name}", 1)
        while not context.cancelled and not marks.is_open(f"go-{name}"):
            marks.pause()
        marks.note(f"ended-{name}", "cancelled" if context.cancelled else "open")
        return {"name": [name]}

    @app.capability(type="count", stream=True, min_workers=1)
    def count(to: str, context: Context) -> Iterator[dict[str, Any]]:
        try:
            for number in range(int(to)):
                marks.note("counted", number)
                yield {"n": [number], "filler": np.zeros(int(context.parameters.get("filler", 0)), np.uint8)}
        finally:
            marks.note("count-over", 1)

    @app.capability(type="mean", min_workers=1)
    def mean(x: Any) -> dict[str, list[float]]:
        return {"mean": [float(np.mean(x))]}


def add_callers(app: AnyServe) -> None:
    @app.capability(type="pass", min_workers=2)
    def pass_on(request: ModelInferRequest, context: Context) -> dict[str, Any]:
        """Call what the request wants, with the request's own inputs."""
        timeout_s = context.parameters.get("timeout_s")
        result = context.call(target_of(context), list(request.inputs), timeout_s=timeout_s)
        return dict(result)

    @app.capability(type="caught", min_workers=1)
    def caught(request: ModelInferRequest, context: Context) -> dict[str, list[str]]:
        try:
            context.call(target_of(context), list(request.inputs), timeout_s=context.parameters.get("timeout_s"))
        except AnyServeError as error:
            return {"code": [error.code], "text": [str(error)]}
        return {"code": [""], "text": [""]}

    @app.capability(type="later", min_workers=1, inputs=[])
    def later(context: Context) -> dict[str, Any]:
        marks.note("started-later", 1)
        marks.wait(str(context.parameters["gate"]))
        return dict(context.call(target_of(context), {}))

    @app.capability(type="sum", min_workers=1)
    def add_up(to: str, context: Context) -> dict[str, list[int]]:
        filler = {"filler": context.parameters.get("filler", 0)}
        with context.call_stream("count", {"to": to}, parameters=filler) as results:
            if gate := context.parameters.get("gate"):
                marks.wait(gate)
            return {"sum": [sum(int(result["n"][0]) for result in results)]}

    @app.capability(type="first", min_workers=1)
    def first(to: str, context: Context) -> dict[str, list[int]]:
        with context.call_stream("count", {"to": to}, parameters=context.parameters) as results:
            return {"n": next(results)["n"]}

    @app.capability(type="each", stream=True, min_workers=1)
    def each(to: str, context: Context) -> Iterator[dict[str, Any]]:
        for number in range(int(to)):
            yield dict(context.call("double", {"x": [number]}))

    @app.capability(type="batched", max_batch_size=8, min_workers=1)
    def batched(requests: list[ModelInferRequest], contexts: list[Context]) -> list[dict[str, Any]]:
        pairs = zip(requests, contexts, strict=True)
        return [dict(context.call("double", {"x": request.input("x")})) for request, context in pairs]

    @app.capability(type="stored", min_workers=1)
    def stored(size: str, context: Context) -> dict[str, Any]:
        ref = context.objects.create(np.ones(int(size), np.float32))
        return dict(context.call({"type": "mean"}, {"x": ref}))

    @app.worker(capabilities=[{"type": "classy"}])
    class Classy(Worker):
        def handle(self, request: ModelInferRequest, context: Context) -> dict[str, Any]:
            return dict(context.call("double", {"x": request.input("x")}))


def add_async(app: AnyServe) -> None:
    @app.capability(type="fan", concurrency=8, min_workers=1)
    async def fan(calls: str, context: Context) -> dict[str, Any]:
        numbers = range(int(calls))
        results = await asyncio.gather(*(context.acall("double", {"x": [number]}) for number in numbers))
        return {"sum": [sum(float(result["y"][0]) for result in results)]}

    @app.capability(type="async-each", concurrency=8, stream=True, min_workers=1)
    async def async_each(to: str, context: Context) -> AsyncIterator[dict[str, Any]]:
        async for result in context.acall_stream("count", {"to": to}):
            yield {"n": result["n"]}

    @app.capability(type="deep", concurrency=64, min_workers=1, inputs=[])
    async def deep(context: Context) -> dict[str, Any]:
        return dict(await context.acall("deep", {}))

    @app.capability(type="async-hold", concurrency=8, min_workers=1)
    async def async_hold(name: str, context: Context) -> dict[str, Any]:
        return dict(await context.acall("hold", {"name": name}))


def add_shared(app: AnyServe) -> None:
    """Those that share the group `default`."""

    @app.capability(type="own")
    def own(left: str, context: Context) -> dict[str, Any]:
        if int(left) == 0:
            return {"done": [True]}
        return dict(context.call("own", {"left": str(int(left) - 1)}))

    @app.capability(type="there", inputs=[])
    def there(context: Context) -> dict[str, Any]:
        return dict(context.call("back", {}))

    @app.capability(type="back", min_workers=1, inputs=[])
    def back(context: Context) -> dict[str, Any]:
        return dict(context.call("there", {}))
