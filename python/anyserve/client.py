"""Clients of a replica, and of any other server that speaks KServe v2 over gRPC.

`Client` blocks, `AsyncClient` is awaited; they take the same arguments and raise the same exceptions. What may be given
for an input, and which datatype it gets, stands at `Client.infer`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import numpy.typing as npt

from anyserve import _core
from anyserve._core import InferInput, ModelInferResponse
from anyserve._inputs import Tensor, tensors
from anyserve.errors import AnyServeError, DeadlineExceeded, InvalidInput

__all__ = ["AsyncClient", "AsyncResultStream", "Client", "InferResult", "ResultStream"]

Target: TypeAlias = str | Mapping[str, str | int | float | bool] | None
"""What is to serve a call: a model name, or the keys and values that the serving capability must have."""

Inputs: TypeAlias = Mapping[str, Any] | Sequence[InferInput]
"""Values by the names of the inputs, or a list of `InferInput`."""

_Path: TypeAlias = str | PathLike[str]
_Answer = TypeVar("_Answer")


class InferResult(Mapping[str, npt.NDArray[Any]]):
    """One response: a mapping from the names of the outputs to their arrays.

    Arrays are read-only views of what arrived; they stay valid after the client is closed. BYTES give arrays of
    `bytes`, BF16 gives float32.

    Attributes:
        response: the KServe response, with datatypes, shapes, id and version.
    """

    __slots__ = ("response",)

    def __init__(self, response: ModelInferResponse) -> None:
        self.response = response

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the response."""
        return self.response.parameters

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        for output in self.response.outputs:
            if output.name == name:
                return output.as_numpy()
        raise KeyError(f"no output {name!r}; there are {', '.join(self) or 'none'}")

    def __iter__(self) -> Iterator[str]:
        return (output.name for output in self.response.outputs)

    def __len__(self) -> int:
        return len(self.response.outputs)

    def __repr__(self) -> str:
        return f"InferResult({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class _Request:
    """A call as the user gave it: checked, except for what only the server's declaration can tell."""

    model: str
    version: str
    tensors: list[Tensor]
    capability: dict[str, Any] | None
    outputs: list[str]
    parameters: dict[str, Any] | None
    headers: list[tuple[str, str]]
    id: str
    deadline: float | None

    def weak(self) -> bool:
        return any(tensor.weak for tensor in self.tensors)

    def remaining(self) -> float | None:
        """Seconds that are left of the timeout.

        Raises:
            DeadlineExceeded: none are left.
        """
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the timeout passed before the request was sent")
        return left

    def call(self, declared: Mapping[str, str]) -> _core.Call:
        """Make what `_core` sends, with weak inputs as the server declares them."""
        return _core.Call(
            self.model,
            [tensor.as_declared(declared.get(tensor.name)).row() for tensor in self.tensors],
            version=self.version,
            id=self.id,
            capability=self.capability,
            outputs=self.outputs,
            parameters=self.parameters,
            headers=self.headers,
            timeout_s=self.remaining(),
        )


class _Base:
    """What both clients have in common."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        api_server: str | None = None,
        capability: Mapping[str, Any] | None = None,
        tls_ca: _Path | None = None,
        tls_cert: _Path | None = None,
        tls_key: _Path | None = None,
    ) -> None:
        if api_server is not None or capability is not None:
            raise InvalidInput(
                "discovery through api_server= and capability= comes with the API server: give endpoint='host:port' of a "
                "replica, and the capability with the call, as in client.infer({'type': 'echo'}, …)"
            )
        if not isinstance(endpoint, str):
            raise InvalidInput("a client needs endpoint='host:port', for example endpoint='localhost:8000'")
        if (tls_cert is None) != (tls_key is None):
            raise InvalidInput("tls_cert and tls_key belong together: give both, or neither")
        identity = None if tls_cert is None or tls_key is None else (_pem(tls_cert), _pem(tls_key))
        self._core = _core.Client(endpoint, tls_ca=None if tls_ca is None else _pem(tls_ca), tls_identity=identity)
        self._declared: dict[tuple[str, str], Mapping[str, str]] = {}

    @property
    def endpoint(self) -> str:
        """Where calls go: ``host:port``, with ``https://`` in front if the connection is encrypted."""
        return self._core.endpoint

    @property
    def mode(self) -> Literal["direct"]:
        """How the replica was found: ``"direct"`` by its endpoint."""
        return "direct"

    @property
    def replica_id(self) -> str | None:
        """Which replica the API server chose; ``None`` in direct mode, where nobody chose."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint={self.endpoint!r})"

    def _remember(self, request: _Request, metadata: Mapping[str, Any]) -> Mapping[str, str]:
        declared = {name: datatype for name, datatype, _ in metadata["inputs"]}
        self._declared[request.model, request.version] = declared
        return declared

    def _known(self, request: _Request) -> Mapping[str, str] | None:
        """Give the declared datatypes that a call needs; ``None`` if the server must be asked for them."""
        if not request.weak() or not request.model:
            return {}
        return self._declared.get((request.model, request.version))

    def _forget(self, request: _Request) -> None:
        # The app behind the endpoint may be another by now, with other datatypes.
        self._declared.pop((request.model, request.version), None)


def _pem(path: _Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"the TLS file {str(path)!r} cannot be read: {error.strerror}") from None


def _request(  # noqa: PLR0913 - the arguments of a call, by their names
    target: Target,
    inputs: Inputs,
    *,
    timeout_s: float | None,
    id: str | None,  # noqa: A002 - the protocol's word
    parameters: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None,
    version: str,
    outputs: Sequence[str] | None,
    capability: Mapping[str, Any] | None,
) -> _Request:
    model, wanted = _target(target, capability)
    if isinstance(outputs, str):
        raise InvalidInput(f"outputs is {outputs!r}: give a list of names, as in outputs=[{outputs!r}]")
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidInput(f"timeout_s is {timeout_s}: it is a number of seconds above 0, or None to wait for ever")
    return _Request(
        model=model,
        version=str(version),
        tensors=tensors(inputs),
        capability=wanted,
        outputs=list(outputs or ()),
        parameters=dict(parameters) if parameters else None,
        headers=[(str(name), str(value)) for name, value in (headers or {}).items()],
        id=id or "",
        deadline=None if timeout_s is None else time.monotonic() + timeout_s,
    )


def _target(target: Target, capability: Mapping[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """Give model name and capability of a call; the name of a capability is its `model` or, failing that, its `type`."""
    if isinstance(target, Mapping):
        if capability is not None:
            raise InvalidInput("the capability is given twice: as the first argument and as capability=")
        target, capability = None, target
    if capability is None:
        if not isinstance(target, str) or not target:
            raise InvalidInput(
                "the first argument is a model name such as 'echo', or a capability such as {'type': 'echo'}"
            )
        return target, None
    name = target or capability.get("model", capability.get("type", ""))
    return str(name), dict(capability)


class Client(_Base):
    """A client that blocks. Threads may share one; each call waits on its own.

    Nothing is sent before the first call, which connects; a lost connection is made again by the next call. Nothing is
    sent twice. A process made by `os.fork` may go on using it.

    Args:
        endpoint: ``"localhost:8000"``, ``"[::1]:8000"``, ``"http://…"``, or ``"https://…"`` for TLS.
        api_server: comes with the API server; refused until then.
        capability: likewise; a capability is given with each call.
        tls_ca: file with the PEM certificates that may have signed the server's; by default the system's.
        tls_cert: file with the own PEM certificate, for servers that ask for one; together with `tls_key`.
        tls_key: file with the key of `tls_cert`, PEM.

    Raises:
        InvalidInput: no endpoint, one that cannot be understood, or unusable TLS files.

    Example::

        with Client(endpoint="localhost:8000") as client:
            result = client.infer("echo", {"text": ["hello"]}, timeout_s=5)
            print(result["output_text"])
    """

    def infer(  # noqa: PLR0913 - the arguments of a call, by their names
        self,
        target: Target,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "",
        outputs: Sequence[str] | None = None,
        capability: Mapping[str, Any] | None = None,
    ) -> InferResult:
        """Ask for one inference and wait for its answer. Ctrl-C ends the wait and cancels the call.

        Inputs are arrays, scalars, `str`, `bytes`, nested lists, `InferInput`, or explicit
        ``{"data": …, "datatype": …, "shape": …}``. Arrays keep their datatype; text and bytes are BYTES; Python's
        numbers get the datatype that the server declares for the input and, where it declares none, INT64 for `int`,
        FP64 for `float` and BOOL for `bool`. (The server is asked for its declaration once per model, and only when
        such numbers are given.) One scalar or text has the shape ``[1]``. Arrays are sent from where they are: don't
        write to one before the call is done.

        Args:
            target: a model name, or a capability such as ``{"type": "chat", "model": "tiny"}``.
            inputs: values by the names of the inputs.
            timeout_s: seconds to wait, above 0; the server is told and stops working then. ``None`` waits for ever.
            id: comes back in the response.
            parameters: `str`, `bool`, `float` or 64-bit `int` by name.
            headers: gRPC metadata; ASCII.
            version: of the model; by default the server chooses.
            outputs: names of the outputs that are wanted; by default all.
            capability: a capability beside a model name: it decides, the name is what the response says.

        Returns:
            The outputs by name; ``.response`` has the rest.

        Raises:
            InvalidInput: an input that no tensor can be made of, or that the server refuses.
            AnyServeError: any other of `anyserve.errors`: `Unavailable` if no server answers, `DeadlineExceeded`, ….
        """
        request = _request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip
        call = request.call(self._ask_for_declared(request))
        try:
            return InferResult(self._core.infer(call))
        except InvalidInput:
            self._forget(request)
            raise

    def stream(  # noqa: PLR0913 - the arguments of a call, by their names
        self,
        target: Target,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "",
        outputs: Sequence[str] | None = None,
        capability: Mapping[str, Any] | None = None,
    ) -> "ResultStream":
        """Ask for an inference with any number of answers, and give them as they come.

        The arguments are those of `infer`; `timeout_s` holds for the whole stream. The call is sent when the first
        answer is asked for. A capability that does not stream answers once.

        Returns:
            An iterator of `InferResult`. Closing it, or leaving its ``with``, cancels what is not done.

        Raises:
            InvalidInput: an input that no tensor can be made of. What the server says is raised by the iterator.
        """
        request = _request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip
        call = request.call(self._ask_for_declared(request))
        return ResultStream(self._core.stream(call))

    def is_live(self, *, timeout_s: float | None = 5) -> bool:
        """Tell whether a server answers at the endpoint and says that it lives.

        Raises:
            AnyServeError: a server that answers with anything else than yes or no.
        """
        return self._truth(lambda: self._core.live(timeout_s))

    def is_ready(self, model: str | None = None, *, version: str = "", timeout_s: float | None = 5) -> bool:
        """Tell whether the server or, with `model`, that model takes requests now.

        Raises:
            AnyServeError: a server that answers with anything else than yes or no.
        """
        return self._truth(lambda: self._core.ready(None if model is None else (model, version), timeout_s))

    def metadata(self, model: str, *, version: str = "", timeout_s: float | None = 5) -> dict[str, Any]:
        """Ask what a model is like.

        Returns:
            ``name``, ``versions``, ``platform``, and ``inputs`` and ``outputs`` as ``(name, datatype, shape)``, where -1 is
            any size.

        Raises:
            AnyServeError: `NotFound` or `NoCapability` for an unknown model, or any other of `anyserve.errors`.
        """
        return self._core.metadata((model, version), timeout_s)

    def close(self) -> None:
        """Let go of the connection. Calls under way in other threads end as they would have; new ones are refused."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask_for_declared(self, request: _Request) -> Mapping[str, str]:
        known = self._known(request)
        if known is not None:
            return known
        try:
            return self._remember(request, self._core.metadata((request.model, request.version), request.remaining()))
        except AnyServeError:
            return {}  # The call itself gets to the bottom of it.

    def _truth(self, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except AnyServeError as error:
            return _no_server(error)


def _no_server(error: AnyServeError) -> Literal[False]:
    """Take no answer for a no; anything else is raised again."""
    if error.code in ("UNAVAILABLE", "DEADLINE"):
        return False
    raise error


class ResultStream(Iterator[InferResult]):
    """The answers to one call. Also a context manager, which closes it."""

    def __init__(self, responses: _core.Responses) -> None:
        self._responses = responses

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> InferResult:
        """Wait for the next answer.

        Raises:
            StopIteration: the stream is at its end, or closed.
            AnyServeError: the call failed; the stream is at its end.
        """
        return InferResult(next(self._responses))

    def close(self) -> None:
        """Cancel what is not done. A thread that waits for an answer gets the end."""
        self._responses.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Loops:
    """The mailboxes through which answers come back to event loops, one for each."""

    def __init__(self) -> None:
        self._mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _core.Mailbox] = WeakKeyDictionary()

    async def answer(self, start: Callable[["asyncio.Future[_Answer]", _core.Mailbox], _core.Pending]) -> _Answer:
        """Start a call and wait for its answer; cancelling the task cancels the call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        pending = start(future, self._mailbox(loop))
        try:
            return await future
        finally:
            pending.cancel()

    def _mailbox(self, loop: asyncio.AbstractEventLoop) -> _core.Mailbox:
        mailbox = self._mailboxes.get(loop)
        if mailbox is None:
            mailbox = _core.Mailbox()
            # The loop keeps the mailbox from here on, and the descriptor is open for as long as it is watched.
            loop.add_reader(mailbox.fileno(), mailbox.deliver)
            self._mailboxes[loop] = mailbox
        return mailbox


_LOOPS = _Loops()


class AsyncClient(_Base):
    """A client for event loops. It takes what `Client` takes and raises what `Client` raises.

    Cancelling a task that waits for an answer cancels the call on the server. One client may serve several loops.

    Example::

        async with AsyncClient(endpoint="localhost:8000") as client:
            result = await client.infer("echo", {"text": ["hello"]})
            async for part in client.stream("chat", {"prompt": "hi"}, timeout_s=30):
                print(part["text"])
    """

    async def infer(  # noqa: PLR0913 - the arguments of a call, by their names
        self,
        target: Target,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,  # noqa: ASYNC109 - the server is told, which no timeout around it could do
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "",
        outputs: Sequence[str] | None = None,
        capability: Mapping[str, Any] | None = None,
    ) -> InferResult:
        """Ask for one inference. Arguments, result and exceptions are those of `Client.infer`."""
        request = _request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip
        call = request.call(await self._ask_for_declared(request))
        try:
            return InferResult(
                await _LOOPS.answer(lambda future, mailbox: self._core.start_infer(call, future, mailbox))
            )
        except InvalidInput:
            self._forget(request)
            raise

    def stream(  # noqa: PLR0913 - the arguments of a call, by their names
        self,
        target: Target,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "",
        outputs: Sequence[str] | None = None,
        capability: Mapping[str, Any] | None = None,
    ) -> "AsyncResultStream":
        """Ask for an inference with any number of answers. Arguments and exceptions are those of `Client.stream`.

        Returns:
            An asynchronous iterator of `InferResult`; it is not awaited itself. Closing it, leaving its ``async with``
            or cancelling the task that reads from it cancels what is not done.
        """
        request = _request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip

        async def open_stream() -> _core.Responses:
            return self._core.stream(request.call(await self._ask_for_declared(request)))

        return AsyncResultStream(open_stream)

    async def is_live(self, *, timeout_s: float | None = 5) -> bool:  # noqa: ASYNC109 - as in infer
        """Tell whether a server answers at the endpoint and says that it lives."""
        start = self._core.start_live
        return await self._truth(_LOOPS.answer(lambda future, mailbox: start(timeout_s, future, mailbox)))

    async def is_ready(
        self,
        model: str | None = None,
        *,
        version: str = "",
        timeout_s: float | None = 5,  # noqa: ASYNC109 - as in infer
    ) -> bool:
        """Tell whether the server or, with `model`, that model takes requests now."""
        named, start = None if model is None else (model, version), self._core.start_ready
        return await self._truth(_LOOPS.answer(lambda future, mailbox: start(named, timeout_s, future, mailbox)))

    async def metadata(
        self,
        model: str,
        *,
        version: str = "",
        timeout_s: float | None = 5,  # noqa: ASYNC109 - as in infer
    ) -> dict[str, Any]:
        """Ask what a model is like. Result and exceptions are those of `Client.metadata`."""
        start = self._core.start_metadata
        return await _LOOPS.answer(lambda future, mailbox: start((model, version), timeout_s, future, mailbox))

    async def close(self) -> None:
        """Let go of the connection. Calls under way end as they would have; new ones are refused."""
        self._core.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask_for_declared(self, request: _Request) -> Mapping[str, str]:
        known = self._known(request)
        if known is not None:
            return known
        try:
            return self._remember(
                request, await self.metadata(request.model, version=request.version, timeout_s=request.remaining())
            )
        except AnyServeError:
            return {}  # The call itself gets to the bottom of it.

    async def _truth(self, answer: Awaitable[bool]) -> bool:
        try:
            return await answer
        except AnyServeError as error:
            return _no_server(error)


class AsyncResultStream(AsyncIterator[InferResult]):
    """The answers to one call, for an event loop. Also an asynchronous context manager, which closes it."""

    def __init__(self, open_stream: Callable[[], Awaitable[_core.Responses]]) -> None:
        self._open = open_stream
        self._responses: _core.Responses | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InferResult:
        """Wait for the next answer.

        Raises:
            StopAsyncIteration: the stream is at its end, or closed.
            AnyServeError: the call failed; the stream is at its end.
        """
        try:
            response = await self._next()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if response is None:
            raise StopAsyncIteration
        return InferResult(response)

    async def aclose(self) -> None:
        """Cancel what is not done. A task that waits for an answer gets the end."""
        self._closed = True
        if self._responses is not None:
            self._responses.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _next(self) -> ModelInferResponse | None:
        if self._closed:
            return None
        if self._responses is None:
            self._responses = await self._open()
        responses = self._responses
        return await _LOOPS.answer(responses.start_next)
