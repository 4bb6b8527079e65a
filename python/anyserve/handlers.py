"""From a user's function to the row that the worker's loop calls.

A function may take the request or its inputs by name, be plain or a coroutine, return once or yield; partials, methods
and objects with ``__call__`` count as functions. The loop knows one shape: ``call(request[, context[, stream]])``,
which returns or yields responses; with batches it is ``call(requests[, contexts])``, which returns a list. A handler
that takes the request *is* its `call`; for one that takes its inputs by name a wrapper reads them and makes the
response.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, fields
from typing import Any

from anyserve._options import CapabilityValue, Options
from anyserve._signature import Kind, Raw, Typed, kind_of, name_of, read_signature
from anyserve._tensors import Writer
from anyserve.errors import InvalidInput, StartError
from anyserve.kserve import InferInput, ModelInferRequest, ModelInferResponse, TensorSpec

__all__ = ["Handler", "bind", "rebind", "to_response"]

Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """One capability with the function that serves it, as the worker's loop takes it.

    Attributes:
        function: the function's name, for logs and errors.
        capability: what it serves.
        inputs: declared inputs; ``None`` leaves them unchecked.
        outputs: declared outputs; ``None`` leaves them open.
        stream: it answers any number of times.
        call: takes ``takes`` of request, context and stream, in this order; with batches lists of the first two.
        kind: how `call` answers.
        takes: 1, 2 or 3.
        concurrency: calls that one worker makes at the same time.
        max_queue: requests that may wait; ``None`` takes the replica's limit.
        timeout_s: seconds for a request without a deadline; ``None`` sets none.
        max_batch_size: requests that one call takes at most; 0 gives it one and no list.
        max_delay_ms: milliseconds that a request waits at most for others to share its batch.
        priority: of requests that name none, from 1 to 8; ``None`` takes the middle one.
        idempotent: running a request twice does no harm.
        sequence: requests belong to sequences.
    """

    function: str
    capability: dict[str, CapabilityValue]
    inputs: list[TensorSpec] | None
    outputs: list[TensorSpec] | None
    stream: bool
    call: Call
    kind: Kind
    takes: int
    concurrency: int = 1
    max_queue: int | None = None
    timeout_s: float | None = None
    max_batch_size: int = 0
    max_delay_ms: float = 0.0
    priority: int | None = None
    idempotent: bool = False
    sequence: bool = False


def bind(function: Call, capability: Mapping[str, CapabilityValue], options: Options, name: str = "") -> Handler:
    """Make the row of a function that serves a capability.

    Args:
        function: the handler.
        capability: what it serves.
        options: how its requests are run.
        name: what it is called in logs and errors; empty takes its own name.

    Raises:
        StartError: the function cannot be called as a handler, or does not answer as its options say.
    """
    if not callable(function):
        raise StartError(f"a capability is served by a function, not by {function!r}")
    name = name or name_of(function)
    kind, signature = kind_of(function), read_signature(function, options.max_batch_size, name)
    _check_batch(name, kind, options.max_batch_size)
    _check_stream(name, kind, sends=signature.takes == 3, stream=options.stream)  # the third argument is the stream
    if isinstance(signature, Typed):
        _check_inputs(name, signature, options.inputs)
    return Handler(
        function=name,
        capability=dict(capability),
        inputs=None if options.inputs is None else list(options.inputs),
        outputs=None if options.outputs is None else list(options.outputs),
        stream=options.stream,
        call=function if isinstance(signature, Raw) else _typed_call(function, signature, options, name, kind),
        kind=kind,
        takes=signature.takes,
        concurrency=options.concurrency,
        max_queue=options.max_queue,
        timeout_s=options.timeout_s,
        max_batch_size=options.max_batch_size,
        max_delay_ms=options.max_delay_ms,
        priority=options.priority,
        idempotent=options.idempotent,
        sequence=options.sequence,
    )


def rebind(handler: Handler, function: Call) -> Handler:
    """Make the same row for another function of the same signature: the method of an object that is made later."""
    options = Options(**{field.name: getattr(handler, field.name) for field in fields(Options)})
    return bind(function, handler.capability, options, handler.function)


def to_response(value: Any, request: ModelInferRequest) -> ModelInferResponse:
    """Make a response of what a handler that takes the request returned, yielded or sent.

    Args:
        value: a response, or a dict from output names to arrays or references.
        request: what it answers: its id and model name are those of the response.

    Raises:
        TypeError: anything else, with what to return instead.
    """
    if isinstance(value, ModelInferResponse):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(
            f"the handler returned {type(value).__name__}; return a ModelInferResponse, or a dict from output names to "
            "arrays"
        )
    return Writer(request.model_name, None)(value, request)


def _check_batch(name: str, kind: Kind, max_batch_size: int) -> None:
    if max_batch_size and kind in ("generator", "async_generator"):
        raise StartError(
            f"{name!r} yields, but with max_batch_size={max_batch_size} it answers its requests all at once: return a "
            "list with one response for each"
        )


def _check_stream(name: str, kind: Kind, *, sends: bool, stream: bool) -> None:
    generates = kind in ("generator", "async_generator")
    if generates and sends:
        raise StartError(f"{name!r} yields and takes a stream; do one of the two")
    if (generates or sends) and not stream:
        does = "yields" if generates else "takes a stream"
        raise StartError(f"{name!r} {does}, so that it answers any number of times: add stream=True to its capability")
    if stream and not (generates or sends):
        raise StartError(
            f"{name!r} has stream=True but neither yields nor takes (request, context, stream); "
            "write `yield response`, or send on the stream"
        )


def _check_inputs(name: str, signature: Typed, declared: Sequence[TensorSpec] | None) -> None:
    if declared is None:
        if not signature.inputs and not signature.rest:
            raise StartError(
                f"{name!r} takes no input; give it the request (`request: ModelInferRequest`) or one parameter per "
                "input, or declare inputs=[] if it needs none"
            )
        return
    names = [spec.name for spec in declared]
    unknown = sorted(signature.required - set(names))
    left = [one for one in names if one not in signature.inputs]
    optional = [one for one in names if one in signature.inputs and one not in signature.required]
    if unknown:
        raise StartError(f"{name!r} takes {unknown[0]!r}, which inputs=[…] does not declare: add it there")
    if left and not signature.rest:
        raise StartError(f"inputs=[…] declares {left[0]!r}, but {name!r} has no parameter of that name: add it")
    if optional:
        raise StartError(
            f"{optional[0]!r} has a default in {name!r}, but a declared input is always there: remove the default, or "
            "leave inputs=[…] out to have optional ones"
        )


class _Arguments:
    """Reads the arguments of a typed handler out of a request."""

    __slots__ = ("_declared", "_name", "_signature", "_write")

    def __init__(self, name: str, signature: Typed, options: Options, write: Writer) -> None:
        self._name = name
        self._signature = signature
        self._declared = None if options.inputs is None else {spec.name for spec in options.inputs}
        self._write = write

    def __call__(self, request: ModelInferRequest, context: Any, stream: Any) -> dict[str, Any]:
        signature = self._signature
        arguments = {tensor.name: self._read(tensor) for tensor in request.inputs}
        if not signature.required <= arguments.keys():
            missing = next(name for name in signature.inputs if name in signature.required - arguments.keys())
            raise InvalidInput(f"input {missing!r} is missing: {self._name!r} takes {', '.join(signature.inputs)}")
        if signature.context is not None:
            arguments[signature.context] = context
        if signature.stream is not None:
            arguments[signature.stream] = _TypedStream(stream, self._write, request)
        return arguments

    def _read(self, tensor: InferInput) -> Any:
        reader = self._signature.inputs.get(tensor.name)
        if reader is not None:
            return reader(tensor)
        if self._signature.rest and tensor.name not in self._signature.closed:
            return tensor._value()  # noqa: SLF001 - the other half of what a typed handler takes
        takes = ", ".join(self._signature.inputs) or "no inputs"
        raise InvalidInput(f"unexpected input {tensor.name!r}: {self._name!r} takes {takes}")


class _TypedStream:
    """The stream of a typed handler: makes a response of what is sent."""

    __slots__ = ("_request", "_stream", "_write")

    def __init__(self, stream: Any, write: Writer, request: ModelInferRequest) -> None:
        self._stream = stream
        self._write = write
        self._request = request

    def send(self, value: Any) -> None:
        """Send one answer; waits while the receiver is behind."""
        self._stream.send(self._write(value, self._request))

    async def asend(self, value: Any) -> None:
        """Send one answer; awaits while the receiver is behind."""
        await self._stream.asend(self._write(value, self._request))


def _typed_call(function: Call, signature: Typed, options: Options, name: str, kind: Kind) -> Call:
    write = Writer(name, options.outputs)
    arguments = _Arguments(name, signature, options, write)
    if signature.stream is not None:
        return _sending(function, arguments, kind)
    wrappers = {"sync": _sync, "async": _async, "generator": _generator, "async_generator": _async_generator}
    return wrappers[kind](function, arguments, write)


def _sync(function: Call, arguments: _Arguments, write: Writer) -> Call:
    def call(request: ModelInferRequest, context: Any = None) -> ModelInferResponse:
        return write(function(**arguments(request, context, None)), request)

    return call


def _async(function: Call, arguments: _Arguments, write: Writer) -> Call:
    async def call(request: ModelInferRequest, context: Any = None) -> ModelInferResponse:
        return write(await function(**arguments(request, context, None)), request)

    return call


def _generator(function: Call, arguments: _Arguments, write: Writer) -> Call:
    def call(request: ModelInferRequest, context: Any = None) -> Iterator[ModelInferResponse]:
        with closing(function(**arguments(request, context, None))) as values:
            for value in values:
                yield write(value, request)

    return call


def _async_generator(function: Call, arguments: _Arguments, write: Writer) -> Call:
    async def call(request: ModelInferRequest, context: Any = None) -> AsyncIterator[ModelInferResponse]:
        async with aclosing(function(**arguments(request, context, None))) as values:
            async for value in values:
                yield write(value, request)

    return call


def _sending(function: Call, arguments: _Arguments, kind: Kind) -> Call:
    def call(request: ModelInferRequest, context: Any, stream: Any) -> None:
        function(**arguments(request, context, stream))

    async def async_call(request: ModelInferRequest, context: Any, stream: Any) -> None:
        await function(**arguments(request, context, stream))

    return async_call if kind == "async" else call
