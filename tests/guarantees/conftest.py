"""Replicas for the guarantees, started and watched as for the other end-to-end tests."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e import replicas
from tests.e2e.conftest import api_server, begun, channel, pytest_runtest_makereport, replica
from tests.guarantees.calls import Calls
from tests.guarantees.steady import RATE

__all__ = ["api_server", "begun", "channel", "pytest_runtest_makereport", "replica"]

STORM_S = float(os.environ.get("ANYSERVE_STORM_S", "60"))
OUTAGE_S = float(os.environ.get("ANYSERVE_OUTAGE_S", "2"))
OUTAGE_RATE = float(os.environ.get("ANYSERVE_OUTAGE_RATE", RATE))
TEST_WATCHDOG_S = 120.0


@pytest.fixture
def storm_s() -> float:
    """How long a storm lasts, in seconds; ANYSERVE_STORM_S says otherwise."""
    return STORM_S


@dataclass
class Outage:
    """How long what is lost stays away, and how many requests a second go on meanwhile."""

    seconds: float = OUTAGE_S
    rate: float = OUTAGE_RATE

    @property
    def requests(self) -> float:
        """Requests that go on while it is away."""
        return self.seconds * self.rate

    def tell(self, books: str) -> None:
        """Print what came of it; `pytest -s` shows it."""
        print(f"\n{self.seconds:g} s at {self.rate:g} requests/s: {books}")


@pytest.fixture
def outage() -> Outage:
    """How long a part of the control plane is away; ANYSERVE_OUTAGE_S and ANYSERVE_OUTAGE_RATE say otherwise."""
    return Outage()


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """Ends every replica when a test hangs, so that what waits for one fails."""

    def end() -> None:
        for one in list(replicas.RUNNING):
            one.process.kill()

    timer = threading.Timer(STORM_S + OUTAGE_S + TEST_WATCHDOG_S, end)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@pytest.fixture
def calls(channel) -> Callable[[replicas.Replica], Calls]:
    """Makes clients of replicas, each with a connection of its own."""
    return lambda served: Calls(served, channel(served.endpoint))
