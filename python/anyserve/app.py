"""An app: the capabilities that its functions serve."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from anyserve._groups import DEFAULT_GROUP, Group
from anyserve._options import CapabilityValue, check_keys, check_options
from anyserve.errors import StartError
from anyserve.handlers import Handler, bind
from anyserve.kserve import TensorSpec

__all__ = ["AnyServe"]

F = TypeVar("F", bound=Callable[..., Any])


class AnyServe:
    """The capabilities of one app and the functions that serve them.

    ::

        app = AnyServe()

        @app.capability(type="echo")
        def echo(request: ModelInferRequest) -> ModelInferResponse:
            ...

    An app is data: making one starts nothing. ``anyserve serve module:app`` loads it in each worker and serves it.
    """

    def __init__(self) -> None:
        self._handlers: list[Handler] = []

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """One row per capability, in the order of declaration."""
        return tuple(self._handlers)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The app's worker groups, in the order of declaration."""
        return (Group(DEFAULT_GROUP, self.handlers),) if self._handlers else ()

    def capability(  # noqa: PLR0913 - every option is a keyword of its own
        self,
        keys: Mapping[str, CapabilityValue] | None = None,
        /,
        *,
        stream: bool = False,
        inputs: Sequence[TensorSpec] | None = None,
        outputs: Sequence[TensorSpec] | None = None,
        concurrency: int = 1,
        max_queue: int | None = None,
        timeout_s: float | None = None,
        max_batch_size: int | None = None,
        max_delay_ms: float = 0.0,
        priority: int | None = None,
        idempotent: bool = False,
        sequence: bool = False,
        **more: CapabilityValue,
    ) -> Callable[[F], F]:
        """Declare that a function serves a capability.

        A handler takes the request, or its inputs by name. It is a function or a coroutine function that returns one
        answer, or with ``stream=True`` a generator, an async generator, or a function that sends on its third
        argument. The function itself is handed back unchanged, so that decorators stack and tests can call it.

        With `max_batch_size` it is called once for several requests: it takes a list of them, and if it has a second
        parameter the list of their contexts, and returns a list with one answer for each, in the same order. An answer
        may be an exception, which is that one request's error. If the call raises, it is made again with either half
        of its requests, and so on until only those have failed that make it raise.

        Args:
            keys: keys of the capability that have the name of an option.
            stream: the handler answers any number of times.
            inputs: what a request must bring, exactly; ``None`` leaves it to the handler. Every parameter of a handler
                that takes its inputs by name stands here then.
            outputs: what an answer brings, in the order in which a tuple is returned.
            concurrency: requests that one worker runs at the same time, from 1 to 4096; with `max_batch_size` it is
                batches. Above 1 a function runs in as many threads; coroutines share one event loop.
            max_queue: requests that may wait, at least 1; ``None`` takes the replica's limit.
            timeout_s: seconds that a request may take when its caller gave no deadline, up to a week; ``None`` sets
                none.
            max_batch_size: requests that one call takes at most, from 1 to 256; ``None`` or 0 for a function that takes
                one request and no list. Not with ``stream=True`` or ``sequence=True``, nor with inputs by name.
            max_delay_ms: milliseconds that a request waits at most for others to share its batch, from 0 to 10 000. A
                worker that has nothing to do does not wait for 0.
            priority: of requests that name none, from 1, served first, to 8; ``None`` is 4, the middle.
            idempotent: running a request twice does no harm, so that it is sent again after its worker's death even if
                it had started.
            sequence: requests with the same ``sequence_id`` run one at a time, in order and on the same worker.
            **more: keys of the capability: each a str, int, float or bool.

        Returns:
            A decorator that registers its function and returns it.

        Raises:
            StartError: an option out of its range or not available in this version, options that exclude each other, a
                value that a capability cannot have, the same capability twice, or a function that cannot be called as a
                handler.
        """
        given = {
            "stream": stream,
            "inputs": inputs,
            "outputs": outputs,
            "concurrency": concurrency,
            "max_queue": max_queue,
            "timeout_s": timeout_s,
            "max_batch_size": max_batch_size,
            "max_delay_ms": max_delay_ms,
            "priority": priority,
            "idempotent": idempotent,
            "sequence": sequence,
        }
        capability, options = check_keys(keys, more), check_options(given)

        def register(function: F) -> F:
            self._add(bind(function, capability, options))
            return function

        return register

    def _add(self, handler: Handler) -> None:
        for other in self._handlers:
            if _identity(other.capability) == _identity(handler.capability):
                raise StartError(
                    f"the capability {handler.capability!r} is served by {other.function!r} and by "
                    f"{handler.function!r}; give one of them another key or value"
                )
        self._handlers.append(handler)


def _identity(capability: Mapping[str, CapabilityValue]) -> frozenset[tuple[str, bool, CapabilityValue]]:
    # True == 1 in Python, but a query tells `true` from `1`.
    return frozenset((key, isinstance(value, bool), value) for key, value in capability.items())
