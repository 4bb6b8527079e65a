"""The worker's process: its signals, what to say of an exception, and what is its own after a fork."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

from anyserve.errors import AnyServeError, HandlerError

_OWN = (str(Path(__file__).parent.parent), str(Path(os.__file__).parent / "asyncio"))
"""Where the code lies that leads to a handler or a hook."""
_LONGEST_LOG = 16 << 10
"""Characters of a traceback that are logged: its end, where the exception is."""


def handle_signals(terminate: Callable[[int, FrameType | None], None]) -> None:
    """Leave SIGINT to the runtime, and drain on SIGTERM.

    Args:
        terminate: makes the worker finish what is in flight and end.
    """
    # Outside the main thread, whoever runs the worker there has the signals.
    with suppress(ValueError):
        # Ctrl-C in a terminal reaches the whole group; who stops, and when, is for the runtime to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, terminate)


def describe(error: BaseException) -> tuple[str, str, str | None, float | None]:
    """Say what the caller gets for what a handler raised.

    Returns:
        Code, message, traceback and seconds until another attempt makes sense. An `AnyServeError` keeps its code and
        text; a cancelled task is ``CANCELLED``; anything else is ``HANDLER_ERROR`` with type, text and traceback.
    """
    if isinstance(error, AnyServeError):
        return error.code, str(error), error.traceback, error.retry_after_s
    if _is_cancelled(error):
        return "CANCELLED", "the handler was cancelled", None, None
    text = str(error)
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    shown = users_traceback(error)
    # The caller gets the message; who wrote the handler needs to see where.
    logging.getLogger("anyserve.handler").error("a handler raised\n%s", shown.rstrip()[-_LONGEST_LOG:])
    return HandlerError.code, message, shown, None


def note_halves(error: BaseException, function: str, requests: int) -> None:
    """Log that a batch raised, because its handler is called again: not what its author may expect."""
    logging.getLogger("anyserve.handler").warning(
        "%r raised %s for %d requests; each half of them is run again, to find the one that makes it raise",
        function, type(error).__name__, requests,
    )  # fmt: skip


def after_fork() -> None:
    """Give a forked worker random numbers of its own: its template's would be those of all its siblings.

    Python seeds its own generator by itself. Generators that the app made when it was loaded are the app's to seed, in
    `on_start`.
    """
    for module, seed in (("numpy.random", "seed"), ("torch", "seed")):
        loaded = sys.modules.get(module)
        if loaded is not None:
            getattr(loaded, seed)()


def _is_cancelled(error: BaseException) -> bool:
    # A worker without async handlers has no need of asyncio, and does not load it for this.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def users_traceback(error: BaseException) -> str:
    """Give an exception's traceback as a text, from the user's code on."""
    shown = traceback.TracebackException(type(error), error, _users_part(error.__traceback__))
    return "".join(shown.format())


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of this package and of the event loop that lead to the user's code, if it got there."""
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename.startswith(_OWN):
        part = part.tb_next
    return part or trace
