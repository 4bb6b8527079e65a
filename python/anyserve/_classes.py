"""Worker classes: what a class brings along, checked without making an object of it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from anyserve._options import CapabilityValue, Options, check_keys
from anyserve.errors import StartError
from anyserve.handlers import Handler, bind

__all__ = ["HOOKS", "Worker", "check_capabilities", "check_class", "handlers_of", "sleeps"]

HOOKS = ("on_start", "on_sleep", "on_wake", "on_stop")
"""The methods that frame the life of a worker."""


class Worker:
    """A class whose object handles the requests of its own worker processes.

    ::

        @app.worker(capabilities=[{"type": "chat", "model": "llama-7b"}], gpus=1)
        class Chat(Worker):
            def on_start(self): ...
            def handle(self, request, context): ...

    Each worker process makes one object, without arguments. A class has a method `handle`, which is written as the
    function of a capability is, in any of its forms; ``context.capability`` says which capability is meant. The methods
    below are optional; each may be ``async def``. A hook that is not runs while nothing else does. In a worker whose
    `handle` is async, all of them share its event loop.
    """

    def on_start(self) -> Any:
        """Load what is needed. The worker is ready when it has returned; if it raises, the worker does not start."""

    def on_sleep(self) -> Any:
        """Give GPUs and other resources back and stay alive; no request is under way.

        A class that has it can be put to sleep instead of being stopped. If it raises, the worker ends, and gives its
        resources back by that.
        """

    def on_wake(self) -> Any:
        """Take the resources again. If it raises, the worker ends, and another one is started."""

    def on_stop(self) -> Any:
        """Leave in order: every request has its answer. What it raises is logged; it has the replica's grace to end."""


class _Unmade:
    """Stands for the object that a worker makes later."""


def check_class(given: object) -> type[Worker]:
    """Check that workers can make objects of a class, and call its hooks.

    Raises:
        StartError: it is no class, no `Worker`, has no handler, or hooks that cannot be called.
    """
    if not inspect.isclass(given):
        raise StartError(f"app.worker decorates a class, not {given!r}; a function has @app.capability(…)")
    if not issubclass(given, Worker):
        raise StartError(f"{given.__name__!r} is no Worker: write `class {given.__name__}(Worker)`")
    if not callable(getattr(given, "handle", None)):
        raise StartError(f"{given.__name__!r} has no handler: write `def handle(self, request): …`")
    if inspect.isabstract(given):
        left = ", ".join(sorted(getattr(given, "__abstractmethods__", ())))
        raise StartError(f"{given.__name__!r} is abstract, so that no worker can make one: write {left}")
    _check_constructor(given)
    for hook in HOOKS:
        _check_hook(given, hook)
    _check_sleep(given)
    return given


def check_capabilities(given: object) -> list[dict[str, CapabilityValue]]:
    """Check the capabilities of a class.

    Raises:
        StartError: it is no list of dicts of keys, or an empty one.
    """
    example = 'capabilities=[{"type": "chat"}]'
    if inspect.isclass(given):
        raise StartError(f"the decorator needs the capabilities: write @app.worker({example}), not @app.worker")
    if not isinstance(given, list | tuple) or not given or not all(isinstance(one, Mapping) for one in given):
        shown = "" if given is None else f", not {given!r}"
        raise StartError(f"app.worker takes a list with a dict of keys for each capability: {example}{shown}")
    return [check_keys(one, {}) for one in given]


def handlers_of(
    given: type[Worker], capabilities: Sequence[Mapping[str, CapabilityValue]], options: Options
) -> list[Handler]:
    """Make the rows of a class, for an object that is yet to be made.

    Raises:
        StartError: its method `handle` cannot be called as a handler.
    """
    handle = _bound(given, "handle")
    return [bind(handle, capability, options, f"{given.__name__}.handle") for capability in capabilities]


def sleeps(given: type[Worker]) -> bool:
    """Tell whether workers of a class can give their resources back and stay alive."""
    return _has(given, "on_sleep")


def _has(given: type[Worker], hook: str) -> bool:
    return getattr(given, hook) is not getattr(Worker, hook)


def _bound(given: type[Worker], name: str) -> Any:
    """Give a method as an object of the class would have it; static and class methods are what they are."""
    found = inspect.getattr_static(given, name)
    return found.__get__(_Unmade(), given) if hasattr(found, "__get__") else found


def _check_constructor(given: type[Worker]) -> None:
    try:
        inspect.signature(given).bind()
    except TypeError as error:
        raise StartError(
            f"each worker makes a {given.__name__}() without arguments, but: {error}; give them defaults, or load in "
            "on_start"
        ) from None
    except ValueError:
        pass  # Something without a readable signature: the call tells.


def _check_hook(given: type[Worker], hook: str) -> None:
    name, function = f"{given.__name__}.{hook}", _bound(given, hook)
    if not callable(function):
        raise StartError(f"{name!r} is {function!r}: it is a method, `def {hook}(self): …`")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise StartError(f"{name!r} yields, so that calling it does nothing: return instead")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise StartError(f"{name!r} is called without arguments, but: {error}; write `def {hook}(self): …`") from None
    except ValueError:
        pass  # Something without a readable signature: the call tells.


def _check_sleep(given: type[Worker]) -> None:
    for one, other in (("on_sleep", "on_wake"), ("on_wake", "on_sleep")):
        if _has(given, one) and not _has(given, other):
            raise StartError(
                f"{given.__name__!r} has {one} and no {other}: a worker that sleeps needs both; add {other}"
            )
