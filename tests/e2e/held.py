"""A handler that the test holds up, and what waits behind it meanwhile."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from tests.e2e.replicas import WATCHDOG_S, Replica
from tests.guarantees.calls import Calls

numbers = itertools.count()


class Held:
    """A call that waits for the test; what comes for the same handler meanwhile waits for it.

    If a name begins with `gated`, the handler notes `started-<name>` with its process first in the line, and waits for
    the gate `go-<name>`.
    """

    def __init__(self, call: Calls, model: str, **more: Any) -> None:
        self.call, self.model, self.name = call, model, f"gated-{next(numbers)}"
        self.first = call.begin(model, self.name, **more)
        (started,) = call.replica.noted(f"started-{self.name}")
        self.pid = int(started.split()[0])
        self.waiting: list[grpc.Future] = []

    def begin(self, name: str, **more: Any) -> grpc.Future:
        """Have a request wait for the next call; `more` is as in `tests.guarantees.calls.request`."""
        return self.add(self.call.begin(self.model, name, **more))

    def send(self, message: Any, metadata: list[tuple[str, str]] | None = None) -> grpc.Future:
        """Have a message wait for the next call."""
        return self.add(self.call.service.ModelInfer.future(message, metadata=metadata))

    def add(self, begun: grpc.Future) -> grpc.Future:
        """Wait until a request waits as well."""
        self.waiting.append(begun)
        self.call.queued(len(self.waiting))
        return begun

    def release(self) -> None:
        """Let the handler go on; what waits has its turn."""
        self.call.replica.allow(f"go-{self.name}")

    def answers(self) -> list[Any]:
        """Let the handler go on, and give the answers of what has waited."""
        self.release()
        assert self.first.result(WATCHDOG_S).outputs
        return [one.result(WATCHDOG_S) for one in self.waiting]


def names_like(*names: str) -> list[str]:
    """Names that no other test has."""
    mark = next(numbers)
    return [f"{name}-{mark}" for name in names]


@contextmanager
def clients(channel: Callable[[str], grpc.Channel]) -> Iterator[Callable[[Replica], Calls]]:
    """Makes clients of replicas. In the end no handler waits any more: the next test may have the same replica."""
    made: list[Calls] = []

    def make(served: Replica) -> Calls:
        made.append(Calls(served, channel(served.endpoint)))
        return made[-1]

    try:
        yield make
    finally:
        for call in made:
            for started in call.replica.notes.glob("started-gated*"):
                call.replica.allow(f"go-{started.name.removeprefix('started-')}")
