"""Requests at a rate, or streams one after the other, through API servers or by discovery; each answer is checked."""

import time

from anyserve import Client
from tests.e2e import traffic
from tests.e2e.replicas import WATCHDOG_S, until
from tests.guarantees.fleet import by, text

ECHO, TALK = {"type": "echo"}, {"type": "talk"}
RATE = 300
"""Requests per second."""

THREADS = 6
TIMEOUT_S = 30


class Traffic(traffic.Traffic):
    """Requests at a rate, or streams one after the other, each checked; every failure is kept.

    Each client is used by a thread of its own, and closed at the end.
    """

    def __init__(
        self, clients: list[Client], *, streams: bool = False, rate: float = RATE, timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__((client, self.stream if streams else self.call) for client in clients)
        self.streams, self.rate, self.timeout_s = streams, rate, timeout_s
        self.by = set[str]()
        self.ended_of = [0] * len(clients)
        self.period, self.began = len(clients) / rate, time.monotonic()

    def pauses(self, number: int) -> bool:
        due = self.began + (number + 1) * self.period
        return self.over.wait(0 if self.streams else max(0.0, due - time.monotonic()))

    def has_ended(self, place: int) -> None:
        super().has_ended(place)
        self.ended_of[place] += 1

    def call(self, client: Client, number: int) -> None:
        answer = client.infer(ECHO, {"text": str(number)}, timeout_s=self.timeout_s)
        assert text(answer, "text") == str(number)
        self.by.add(by(answer))

    def stream(self, client: Client, number: int) -> None:
        parts = list(client.stream(TALK, {"text": str(number)}, timeout_s=self.timeout_s))
        assert [text(part, "text") for part in parts] == [f"{number} {place}" for place in range(8)], "it was cut off"
        self.by.add(by(parts[0]))

    def goes_on(self, more: float, *, limit_s: float | None = None) -> None:
        super().goes_on(more, limit_s=limit_s or WATCHDOG_S + 2 * more / self.rate)

    def everybody_goes_on(self) -> None:
        """Wait until each client has had the end of what is under way, and of one more."""
        enough = [ended + 2 for ended in self.ended_of]
        until(lambda: all(map(int.__ge__, self.ended_of, enough)), "two more ends of every client")

    def answers(self, *names: str) -> None:
        """Wait until exactly these have answered since now, after what is under way has ended."""
        self.everybody_goes_on()
        self.by.clear()
        until(lambda: self.by >= set(names), f"answers of {names}")
        assert self.by == set(names)


def discovered(*servers, capability=ECHO, count=THREADS) -> list[Client]:
    """Clients that find their replicas by themselves."""
    urls = [server.url for server in servers]
    return [Client(api_server=urls, capability=capability) for _ in range(count)]


def proxied(*servers, count=THREADS) -> list[Client]:
    """Clients that send everything through API servers, which take turns."""
    return [Client(servers[number % len(servers)].endpoint) for number in range(count)]
