"""Clients of a replica, and of any other server that speaks KServe v2 over gRPC.

`Client` blocks, `AsyncClient` is awaited; they take the same arguments and raise the same exceptions. What may be given
for an input, and which datatype it gets, stands at `Client.infer`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from anyserve import _core
from anyserve._call import Request, Target, request
from anyserve._inputs import Inputs
from anyserve._results import LOOPS, AsyncResultStream, InferResult, ResultStream
from anyserve.errors import AnyServeError, InvalidInput

__all__ = ["AsyncClient", "AsyncResultStream", "Client", "InferResult", "ResultStream"]

_Path: TypeAlias = str | PathLike[str]


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
                "discovery through api_server= and capability= comes with the API server: give endpoint='host:port' of "
                "a replica, and the capability with the call, as in client.infer({'type': 'echo'}, …)"
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

    def _remember(self, asked: Request, metadata: Mapping[str, Any]) -> Mapping[str, str]:
        declared = {name: datatype for name, datatype, _ in metadata["inputs"]}
        self._declared[asked.model, asked.version] = declared
        return declared

    def _known(self, asked: Request) -> Mapping[str, str] | None:
        """Give the declared datatypes that a call needs; ``None`` if the server must be asked for them."""
        if not asked.weak() or not asked.model:
            return {}
        return self._declared.get((asked.model, asked.version))

    def _undeclared(self, asked: Request, error: AnyServeError) -> Mapping[str, str]:
        # Whatever is wrong, the call itself gets to the bottom of it. What does not pass by itself is not asked again.
        if error.code in ("NOT_FOUND", "NO_CAPABILITY", "UNSUPPORTED"):
            self._declared[asked.model, asked.version] = {}
        return {}

    def _forget(self, asked: Request) -> None:
        # The app behind the endpoint may be another by now, with other datatypes.
        self._declared.pop((asked.model, asked.version), None)


def _pem(path: _Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"the TLS file {str(path)!r} cannot be read: {error.strerror}") from None


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

        Inputs are arrays, scalars, `str`, `bytes`, nested lists, `InferInput`, an `ObjRef`, or explicit
        ``{"data": …, "datatype": …, "shape": …}``. An `ObjRef` stands for its object, which the
        handler gets. Arrays keep their datatype; text and bytes are BYTES; Python's
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
        asked = request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip
        call = self._call(asked)
        try:
            return InferResult(self._core.infer(call))
        except InvalidInput:
            self._forget(asked)
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
        asked = request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip
        call = self._call(asked)
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
            ``name``, ``versions``, ``platform``, and ``inputs`` and ``outputs`` as ``(name, datatype, shape)``, with -1
            for any size.

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

    def _call(self, asked: Request) -> _core.Call:
        known = self._known(asked)
        if known is not None:
            return asked.call(known, asked.timeout_s)
        try:
            declared = self._remember(asked, self._core.metadata((asked.model, asked.version), asked.timeout_s))
        except AnyServeError as error:
            declared = self._undeclared(asked, error)
        return asked.call(declared, asked.remaining())

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
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "",
        outputs: Sequence[str] | None = None,
        capability: Mapping[str, Any] | None = None,
    ) -> InferResult:
        """Ask for one inference. Arguments, result and exceptions are those of `Client.infer`."""
        asked = request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip
        call = await self._call(asked)
        try:
            return InferResult(
                await LOOPS.answer(lambda future, mailbox: self._core.start_infer(call, future, mailbox))
            )
        except InvalidInput:
            self._forget(asked)
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
        asked = request(
            target, inputs, timeout_s=timeout_s, id=id, parameters=parameters, headers=headers, version=version,
            outputs=outputs, capability=capability,
        )  # fmt: skip

        async def open_stream() -> _core.Responses:
            return self._core.stream(await self._call(asked))

        return AsyncResultStream(open_stream)

    async def is_live(self, *, timeout_s: float | None = 5) -> bool:
        """Tell whether a server answers at the endpoint and says that it lives."""
        start = self._core.start_live
        return await self._truth(LOOPS.answer(lambda future, mailbox: start(timeout_s, future, mailbox)))

    async def is_ready(
        self,
        model: str | None = None,
        *,
        version: str = "",
        timeout_s: float | None = 5,
    ) -> bool:
        """Tell whether the server or, with `model`, that model takes requests now."""
        named, start = None if model is None else (model, version), self._core.start_ready
        return await self._truth(LOOPS.answer(lambda future, mailbox: start(named, timeout_s, future, mailbox)))

    async def metadata(
        self,
        model: str,
        *,
        version: str = "",
        timeout_s: float | None = 5,
    ) -> dict[str, Any]:
        """Ask what a model is like. Result and exceptions are those of `Client.metadata`."""
        start = self._core.start_metadata
        return await LOOPS.answer(lambda future, mailbox: start((model, version), timeout_s, future, mailbox))

    async def close(self) -> None:
        """Let go of the connection. Calls under way end as they would have; new ones are refused."""
        self._core.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, asked: Request) -> _core.Call:
        known = self._known(asked)
        if known is not None:
            return asked.call(known, asked.timeout_s)
        try:
            metadata = await self.metadata(asked.model, version=asked.version, timeout_s=asked.timeout_s)
            declared = self._remember(asked, metadata)
        except AnyServeError as error:
            declared = self._undeclared(asked, error)
        return asked.call(declared, asked.remaining())

    async def _truth(self, answer: Awaitable[bool]) -> bool:
        try:
            return await answer
        except AnyServeError as error:
            return _no_server(error)
