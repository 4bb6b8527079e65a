"""Requests that run before a worker is ready, so that the first caller does not wait for caches and compilers.

They are called as the worker's loop calls them: a list of one where the handler takes lists, and a stream to its end.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from anyserve._core import Contents, Context, InferInput, ModelInferRequest
from anyserve._inputs import Tensor, tensors
from anyserve.handlers import Handler, to_response

__all__ = ["warm_up"]

Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on the event loop of the handlers."""


def warm_up(row: Handler, inputs: Mapping[str, Any], run: Run) -> None:
    """Run one request, and check what comes of it as a caller's answer is.

    Args:
        row: the handler.
        inputs: as a client gives them.
        run: runs a coroutine.

    Raises:
        BaseException: what the handler raises, and `TypeError` or `ValueError` for an answer that cannot be sent.
    """
    request = _request(row, inputs)
    context, sent = Context(capability=dict(row.capability)), _Sent(request)
    arguments: tuple[Any, ...] = (request, context, sent)[: row.takes]
    if row.max_batch_size:
        arguments = tuple([one] for one in arguments)
    if row.kind == "async_generator":
        run(_drain(row.call(*arguments), request))
        return
    answer = run(row.call(*arguments)) if row.kind == "async" else row.call(*arguments)
    if row.max_batch_size:
        answer = _only(answer, row.function)
    _check(row, answer, request)


class _Sent:
    """A stream whose receiver is always there and keeps nothing."""

    __slots__ = ("_request",)

    def __init__(self, request: ModelInferRequest) -> None:
        self._request = request

    def send(self, response: object) -> None:
        """Take one response."""
        to_response(response, self._request)

    async def asend(self, response: object) -> None:
        """Take one response."""
        to_response(response, self._request)


def _request(row: Handler, inputs: Mapping[str, Any]) -> ModelInferRequest:
    declared = {spec.name: spec.datatype for spec in row.inputs or ()}
    given = [_input(tensor.as_declared(declared.get(tensor.name))) for tensor in tensors(inputs)]
    model = str(row.capability.get("model", row.capability.get("type", "")))
    return ModelInferRequest(model, given, id="warm-up")


def _input(tensor: Tensor) -> InferInput:
    parameters = None if tensor.parameters is None else dict(tensor.parameters)
    return InferInput(tensor.name, tensor.datatype, tensor.shape, contents=_contents(tensor), parameters=parameters)


def _contents(tensor: Tensor) -> Contents:
    if isinstance(tensor.data, InferInput):
        return tensor.data.contents
    return Contents(bytes_contents=tensor.data) if tensor.datatype == "BYTES" else Contents(raw=tensor.data)


def _only(answers: Any, function: str) -> Any:
    if not isinstance(answers, list | tuple) or len(answers) != 1:
        got = f"a {type(answers).__name__}" + (f" of {len(answers)}" if isinstance(answers, list | tuple) else "")
        raise TypeError(
            f"{function!r} returned {got} for 1 request; return a list with one response for each, in order"
        )
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def _check(row: Handler, answer: Any, request: ModelInferRequest) -> None:
    if not row.stream:
        to_response(answer, request)
    elif isinstance(answer, Iterator):
        for response in answer:
            to_response(response, request)
    elif answer is not None:
        to_response(answer, request)


async def _drain(responses: AsyncGenerator[Any, None], request: ModelInferRequest) -> None:
    async with aclosing(responses):
        async for response in responses:
            to_response(response, request)
