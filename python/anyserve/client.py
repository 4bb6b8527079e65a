"""Clients of a replica, and of any other server that speaks KServe v2 over gRPC.

A client goes to one server, ``endpoint=``, or to whichever replica serves a call, found through API servers,
``api_server=``. `Client` blocks, `AsyncClient` is awaited; they take the same arguments and raise the same exceptions.
What may be given for an input, and which datatype it gets, stands at `Client.infer`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from anyserve import _core
from anyserve._call import Request, Target, request
from anyserve._client_base import ClientBase, no_server
from anyserve._inputs import Inputs
from anyserve._results import LOOPS, AsyncResultStream, InferResult, ResultStream
from anyserve.errors import AnyServeError, InvalidInput

__all__ = ["AsyncClient", "AsyncResultStream", "Client", "InferResult", "ResultStream"]


class Client(ClientBase):
    """A client that blocks. Threads may share one; each call waits on its own.

    Nothing is sent before the first call, which connects; a lost connection is made again by the next call. A process
    made by `os.fork` may go on using it.

    With ``endpoint=`` every call goes to that server, and nothing is sent twice. With ``api_server=`` a call goes to a
    replica that serves it: an API server names one, which is used as long as it is believed to be there, also while no
    API server answers. A call that a replica did not begin (it could not be reached, or it refused the call as one that
    leaves, starts or does not serve it) goes to another one; a call that broke in the midst does not.

    Args:
        endpoint: ``"localhost:8000"``, ``"[::1]:8000"``, ``"http://…"``, or ``"https://…"`` for TLS.
        api_server: instead of `endpoint`: one API server, or several that stand in for one another.
        capability: with `api_server`: what serves every call that does not say a capability itself. Without it, the
            target of each call decides.
        tls_ca: file with the PEM certificates that may have signed the server's; by default the system's.
        tls_cert: file with the own PEM certificate, for servers that ask for one; together with `tls_key`.
        tls_key: file with the key of `tls_cert`, PEM.

    Raises:
        InvalidInput: neither endpoint nor API server, or both, one that cannot be understood, or unusable TLS files.

    Example::

        with Client(endpoint="localhost:8000") as client:
            result = client.infer("echo", {"text": ["hello"]}, timeout_s=5)
            print(result["output_text"])
        client = Client(api_server="http://localhost:8080", capability={"type": "echo"})
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
            outputs=outputs, capability=self._asked_for(target, capability),
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
            outputs=outputs, capability=self._asked_for(target, capability),
        )  # fmt: skip
        call = self._call(asked)
        return ResultStream(self._core.stream(call))

    def is_live(self, *, timeout_s: float | None = 5) -> bool:
        """Tell whether a server answers at the endpoint and says that it lives.

        With API servers it is a replica that serves the client's capability or, where it has none, an API server.

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
            metadata = self._core.metadata((asked.model, asked.version), asked.timeout_s, asked.capability)
            declared = self._remember(asked, metadata)
        except AnyServeError as error:
            declared = self._undeclared(asked, error)
        return asked.call(declared, asked.remaining())

    def _truth(self, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except AnyServeError as error:
            return no_server(error)


class AsyncClient(ClientBase):
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
            outputs=outputs, capability=self._asked_for(target, capability),
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
            outputs=outputs, capability=self._asked_for(target, capability),
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
            named, start = (asked.model, asked.version), self._core.start_metadata
            metadata: dict[str, Any] = await LOOPS.answer(
                lambda future, mailbox: start(named, asked.timeout_s, future, mailbox, asked.capability)
            )
            declared = self._remember(asked, metadata)
        except AnyServeError as error:
            declared = self._undeclared(asked, error)
        return asked.call(declared, asked.remaining())

    async def _truth(self, answer: Awaitable[bool]) -> bool:
        try:
            return await answer
        except AnyServeError as error:
            return no_server(error)
