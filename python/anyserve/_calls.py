"""Calls that a handler makes of other capabilities: what `Context.call` and its three siblings do.

The arguments mean what those of `Client.infer` mean, and so do the results and the exceptions. A call goes through the
replica's own dispatcher if anything here serves it, and by the API server otherwise.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from anyserve import _core
from anyserve._call import Request, request
from anyserve._core import Context, ModelInferResponse
from anyserve._inputs import Inputs
from anyserve._results import AsyncResultStream, InferResult, ResultStream
from anyserve.errors import Internal
from anyserve.handlers import Handler

__all__ = ["acall", "acall_stream", "call", "call_stream", "declare"]

Called = str | Mapping[str, str | int | float | bool]
"""What is to serve a call: a capability, a model name, or a selector."""

_SIGNS = re.compile(r"[=!<>(),\"]|\s(in|notin)\s")
"""What a selector has and a model name has not."""

_declared: list[tuple[Mapping[str, Any], Mapping[str, str]]] = []
"""Every capability of this worker's app, with the datatypes of the inputs that it declares."""


def declare(handlers: Iterable[Handler]) -> None:
    """Take note of what an app declares, so that Python's numbers are sent as that.

    Args:
        handlers: every row of the app, whichever worker serves it.
    """
    rows = [(row.capability, {spec.name: spec.datatype for spec in row.inputs or ()}) for row in handlers]
    _declared[:] = rows


def call(context: Context, capability: Called, inputs: Inputs, **options: Any) -> InferResult:
    """Call a capability and wait for its answer; see `Context.call`."""
    asked = _asked(capability, inputs, options)
    return _only(next(context._make_call(asked, stream=False, awaited=False), None))  # noqa: SLF001 - the other half


def call_stream(context: Context, capability: Called, inputs: Inputs, **options: Any) -> ResultStream:
    """Call a capability and give its answers as they come; see `Context.call_stream`."""
    asked = _asked(capability, inputs, options)
    return ResultStream(context._make_call(asked, stream=True, awaited=False))  # noqa: SLF001 - the other half


async def acall(context: Context, capability: Called, inputs: Inputs, **options: Any) -> InferResult:
    """Call a capability and await its answer; see `Context.acall`."""
    asked = _asked(capability, inputs, options)
    return _only(await _next(context._make_call(asked, stream=False, awaited=True)))  # noqa: SLF001 - the other half


def acall_stream(context: Context, capability: Called, inputs: Inputs, **options: Any) -> AsyncResultStream:
    """Call a capability and give its answers asynchronously; see `Context.acall_stream`."""
    asked = _asked(capability, inputs, options)
    return _Answers(context._make_call(asked, stream=True, awaited=True))  # noqa: SLF001 - the other half


class _Answers(AsyncResultStream):
    """The answers to a call, for the worker's event loop."""

    def __init__(self, made: _core._MadeCall) -> None:
        super().__init__(_never)
        self._made = made

    async def aclose(self) -> None:
        """Give up what is not done. A task that waits for an answer gets the end."""
        await super().aclose()
        self._made.close()

    async def _next(self) -> ModelInferResponse | None:
        return None if self._closed else await _next(self._made)


async def _never() -> _core.Responses:
    raise AssertionError("a call is open from its beginning")


async def _next(made: _core._MadeCall) -> ModelInferResponse | None:
    future: asyncio.Future[ModelInferResponse | None] = asyncio.get_running_loop().create_future()
    try:
        made.start_next(future)
        return await future
    except BaseException:
        made.close()
        raise


def _only(response: ModelInferResponse | None) -> InferResult:
    if response is None:
        raise Internal("the call ended without an answer")
    return InferResult(response)


def _asked(capability: Called, inputs: Inputs, options: Mapping[str, Any]) -> _core.Call:
    asked = request(capability, inputs, capability=None, **options)
    if isinstance(capability, str) and _SIGNS.search(capability):
        asked = replace(asked, model="", parameters={**(asked.parameters or {}), "capability": capability})
    return asked.call(_datatypes(asked), asked.timeout_s)


def _datatypes(asked: Request) -> Mapping[str, str]:
    """Give the datatypes that the capability declares which the call will come to, if it is one of this app's."""
    if not asked.weak():
        return {}
    wanted = asked.capability
    for keys in [wanted] if wanted is not None else [{"model": asked.model}, {"type": asked.model}]:
        found = [row for row in _declared if keys.items() <= row[0].items()]
        if found:
            return min(found, key=lambda row: len(row[0]))[1]
    return {}
