"""What is under way while a test changes something: threads that send one thing after the other, each checked."""

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from anyserve import Client
from tests.e2e.replicas import WATCHDOG_S, until


class Traffic:
    """Threads that send until the test leaves, each by a client of its own.

    Args:
        senders: for each thread its client, and what sends one thing and checks the answer. It is given the client, and
            how many the thread has sent before.

    Attributes:
        failures: what was raised instead of an answer.
        ended: how many have ended, one way or the other.
    """

    def __init__(self, senders: Iterable[tuple[Client, Callable[[Client, int], Any]]]) -> None:
        self.over = threading.Event()
        self.failures: list[Exception] = []
        self.ended = 0
        self.threads = [
            threading.Thread(target=self.run, args=(place, *sender), daemon=True)
            for place, sender in enumerate(senders)
        ]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(2 * WATCHDOG_S)
        self.failures += [TimeoutError(f"{thread.name} hangs") for thread in self.threads if thread.is_alive()]

    def run(self, place: int, client: Client, send: Callable[[Client, int], Any]) -> None:
        """Send until it is over."""
        with client:
            for number in itertools.count():
                if self.pauses(number):
                    return
                try:
                    send(client, number)
                except Exception as error:  # noqa: BLE001 - the test looks at every one
                    self.failures.append(error)
                self.has_ended(place)

    @property
    def answered(self) -> int:
        """How many have had their answer."""
        return self.ended - len(self.failures)

    def pauses(self, number: int) -> bool:
        """Wait until a thread's next one is due; true if it is over."""
        return self.over.is_set()

    def has_ended(self, place: int) -> None:
        """Count one of this thread's."""
        self.ended += 1

    def goes_on(self, more: float, *, limit_s: float = WATCHDOG_S) -> None:
        """Wait until so many more have ended."""
        enough = self.ended + more
        until(lambda: self.ended >= enough, f"{more:g} more ends", limit_s=limit_s)
