"""A worker's life besides its requests: the object that handles them, its hooks, and the requests that warm it up.

`_core` says when; here is how. Hooks run in the main thread. One that is async runs on the worker's event loop, which
is made for it where no handler is async; one that is not never finds a running loop around it.
"""

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from anyserve._groups import Group
from anyserve.handlers import Handler, rebind
from anyserve.worker._process import users_traceback
from anyserve.worker._warmup import warm_up

if TYPE_CHECKING:
    from asyncio import Runner

__all__ = ["Life"]

Failure = tuple[str, str]
"""What went wrong, in one sentence, and the traceback of the user's code."""


class Life:
    """What a worker does from its start to its end, besides handling requests.

    Args:
        group: what it is a worker of. An object of its class is made.

    Attributes:
        handlers: the rows that it serves, bound to that object.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._runner: Runner | None = None
        self._made = None if group.make is None else group.make()
        self.handlers: tuple[Handler, ...] = group.handlers
        if self._made is not None:
            self.handlers = tuple(rebind(row, self._made.handle) for row in group.handlers)

    def start(self) -> Failure | None:
        """Run `on_start`, then the requests that warm the worker up.

        Returns:
            Why the worker cannot start; ``None`` if it can.
        """
        return self._attempt("on_start", lambda: self._hook("on_start")) or self._warm_up()

    def sleep(self) -> bool:
        """Run `on_sleep`; false if it raised, which is logged."""
        return self._logged("on_sleep")

    def wake(self) -> bool:
        """Run `on_wake`; false if it raised, which is logged."""
        return self._logged("on_wake")

    def stop(self) -> None:
        """Run `on_stop`, which may raise what it likes, and end the event loop."""
        self._logged("on_stop")
        if self._runner is not None:
            self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the worker's event loop, which is the same each time, and give what it returns."""
        if self._runner is None:
            # A worker without anything async has no need of it, and does not load it.
            import asyncio  # noqa: PLC0415

            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    def _hook(self, name: str) -> None:
        result = None if self._made is None else getattr(self._made, name)()
        if inspect.isawaitable(result):
            self.run(_awaited(result))

    def _warm_up(self) -> Failure | None:
        for place, inputs in enumerate(self._group.warmup):
            for row in self.handlers:
                what = f"warmup[{place}] for the capability {row.capability!r}"
                failure = self._attempt(what, lambda row=row, inputs=inputs: warm_up(row, inputs, self.run))  # type: ignore[misc]
                if failure is not None:
                    return failure
        return None

    def _attempt(self, what: str, step: Callable[[], None]) -> Failure | None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the runtime is told and decides.
            return f"{what} of {self._group.name!r} raised {_shown(error)}", users_traceback(error)
        return None

    def _logged(self, hook: str) -> bool:
        failure = self._attempt(hook, lambda: self._hook(hook))
        if failure is not None:
            logging.getLogger("anyserve.worker").error("%s\n%s", failure[0], failure[1].rstrip())
        return failure is None


async def _awaited(result: Any) -> None:
    await result


def _shown(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
