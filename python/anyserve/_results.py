"""What comes back from a server: one response, or a stream of them, for threads and for event loops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

from anyserve import _core
from anyserve._core import InferOutput, ModelInferResponse
from anyserve.errors import Internal

_Answer = TypeVar("_Answer")


class InferResult(Mapping[str, Any]):
    """One response: a mapping from the names of the outputs to their arrays, or to an `ObjRef` where the output is one.

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

    def __getitem__(self, name: str) -> Any:
        """Give an output: an array or, where the handler answered with a reference, an `ObjRef`.

        Raises:
            KeyError: there is no such output; the message names those that there are.
            Internal: the output says that it is a reference, and is none.
        """
        for output in self.response.outputs:
            if output.name == name:
                return _value(output)
        raise KeyError(f"no output {name!r}; there are {', '.join(self) or 'none'}")

    def __iter__(self) -> Iterator[str]:
        return (output.name for output in self.response.outputs)

    def __len__(self) -> int:
        return len(self.response.outputs)

    def __repr__(self) -> str:
        return f"InferResult({dict(self)!r})"


def _value(output: InferOutput) -> Any:
    try:
        return output._value()  # noqa: SLF001 - the other half of what a result is
    except ValueError as error:
        raise Internal(f"the answer breaks the protocol: {error}") from None


class _Answers(Protocol):
    """Where the answers to one call come from."""

    def __next__(self) -> ModelInferResponse: ...
    def close(self) -> None: ...


class ResultStream(Iterator[InferResult]):
    """The answers to one call. Also a context manager, which closes it."""

    def __init__(self, responses: _Answers) -> None:
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


LOOPS = _Loops()
"""Where event loops get their answers from; one for the whole process."""


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
        return await LOOPS.answer(responses.start_next)
