"""Calls that are under way while a test does something else."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from anyserve import Client
from anyserve.client import InferResult
from tests.e2e.replicas import WATCHDOG_S, Replica, until

MOST = 80


class Calls:
    """Calls of one replica, each in a thread of its own."""

    def __init__(self, replica: Replica) -> None:
        self.replica, self.client, self.pool = replica, Client(replica.endpoint), ThreadPoolExecutor(MOST)

    def __call__(self, model: str, name: str = "", timeout_s: float = WATCHDOG_S) -> "Future[InferResult]":
        """Begin a call."""
        key = "seconds" if model == "spin" else "name"
        return self.pool.submit(self.client.infer, model, {key: name}, timeout_s=timeout_s)

    def now(self, model: str, name: str = "", timeout_s: float = WATCHDOG_S) -> InferResult:
        """Call, and give the answer."""
        return self(model, name, timeout_s).result(WATCHDOG_S)

    def text(self, model: str, output: str) -> str:
        """Call, and give the one text of an output."""
        return text_of(self.now(model), output)

    def waiting(self, count: int) -> None:
        """Wait until so many requests have reached the replica and have not ended."""
        until(lambda: self.replica.metric("anyserve_requests_in_flight") == count, f"{count} requests in flight")

    def close(self) -> None:
        self.client.close()
        self.pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def callers() -> Iterator[Callable[[Replica], Calls]]:
    """What makes the callers of replicas, which end with this."""
    made: list[Calls] = []

    def make(replica: Replica) -> Calls:
        made.append(Calls(replica))
        return made[-1]

    yield make
    for one in made:
        one.close()


def text_of(result: InferResult, output: str) -> str:
    """The one text of an output."""
    return result[output][0].decode()
