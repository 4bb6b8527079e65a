"""Every way in which a request can end without an answer, and the one way in which a start can fail.

::

    Exception
    ├── AnyServeError           a request ended without an answer; `code` says why
    │   ├── InvalidInput        the caller changes the request
    │   ├── Unauthenticated     the caller sends a valid token
    │   ├── Forbidden           the caller may not do this
    │   ├── NoCapability        nothing serves what was asked for
    │   ├── NotFound            unknown version, stale reference; or a handler says so
    │   ├── DeadlineExceeded    the deadline passed
    │   ├── Cancelled           the caller left
    │   ├── Overloaded          the caller comes back after `retry_after_s`
    │   ├── ObjectStoreFull     the operator gives the arena more memory
    │   ├── Starting            a cold start takes longer than the deadline leaves
    │   ├── Draining            this replica leaves; the caller goes elsewhere
    │   ├── Unavailable         no worker, or what the handler depends on is away
    │   ├── WorkerLost          the worker died after the handler had started
    │   ├── Poison              the request is quarantined: it killed workers
    │   ├── HandlerError        the handler raised; `traceback` may say where
    │   ├── Internal            a defect of the runtime
    │   └── Unsupported         a call that this capability or this server does not offer
    └── StartError              the app, the target or an option cannot be served; the message has the fix

A client raises these, and a handler may raise an `AnyServeError` to choose the code its caller gets. Anything else that
a handler raises reaches the caller as `HandlerError`.
"""

from typing import ClassVar

__all__ = [
    "AnyServeError",
    "Cancelled",
    "DeadlineExceeded",
    "Draining",
    "Forbidden",
    "HandlerError",
    "Internal",
    "InvalidInput",
    "NoCapability",
    "NotFound",
    "ObjectStoreFull",
    "Overloaded",
    "Poison",
    "StartError",
    "Starting",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "WorkerLost",
]


class AnyServeError(Exception):
    """A request that ended without an answer.

    Args:
        message: what went wrong, for the one who reads the client's log.
        retry_after_s: seconds after which another attempt makes sense; ``None`` when nothing is known about it.
        traceback: where the handler raised, as text; ``None`` when nothing was sent about it.

    Attributes:
        code: name of the class's row in the closed set of codes, such as ``"INVALID_INPUT"``.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str = "", *, retry_after_s: float | None = None, traceback: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.traceback = traceback


class InvalidInput(AnyServeError):
    """Malformed or mismatched tensors, or a bad parameter: another attempt with the same request fails again."""

    code = "INVALID_INPUT"


class Unauthenticated(AnyServeError):
    """No token, or one that is not known."""

    code = "UNAUTHENTICATED"


class Forbidden(AnyServeError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"


class NoCapability(AnyServeError):
    """Nothing here or, after a delegation, anywhere serves what was asked for."""

    code = "NO_CAPABILITY"


class NotFound(AnyServeError):
    """An unknown version, a stale object reference, an unknown region; or raised by a handler."""

    code = "NOT_FOUND"


class DeadlineExceeded(AnyServeError):
    """The deadline passed; the message says where the request was."""

    code = "DEADLINE"


class Cancelled(AnyServeError):
    """The caller left before the answer."""

    code = "CANCELLED"


class Overloaded(AnyServeError):
    """The queue is full, or the deadline cannot be met; `retry_after_s` says when to come back."""

    code = "OVERLOADED"


class ObjectStoreFull(AnyServeError):
    """The arena of the object plane is full."""

    code = "OBJECT_STORE_FULL"


class Starting(AnyServeError):
    """What serves this is starting, and that takes longer than the deadline leaves."""

    code = "STARTING"


class Draining(AnyServeError):
    """This replica is leaving and takes no new requests."""

    code = "DRAINING"


class Unavailable(AnyServeError):
    """No worker can serve it now, or what the handler depends on is away."""

    code = "UNAVAILABLE"


class WorkerLost(AnyServeError):
    """The worker died after the handler had started: whether it had an effect is not known."""

    code = "WORKER_LOST"


class Poison(AnyServeError):
    """The request is quarantined, because its attempts killed workers."""

    code = "POISON"


class HandlerError(AnyServeError):
    """The handler raised something that is no `AnyServeError`: its type and text are the message."""

    code = "HANDLER_ERROR"


class Internal(AnyServeError):
    """A defect of the runtime."""

    code = "INTERNAL"


class Unsupported(AnyServeError):
    """A call that this capability or this server does not offer."""

    code = "UNSUPPORTED"


class StartError(Exception):
    """What was asked to be served cannot be: the message says what is wrong and how to put it right."""
