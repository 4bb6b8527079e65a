"""Replicas for the guarantees, started and watched as for the other end-to-end tests."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import replicas
from tests.e2e.conftest import api_server, begun, channel, pytest_runtest_makereport, replica
from tests.guarantees.calls import Calls

__all__ = ["api_server", "begun", "channel", "pytest_runtest_makereport", "replica"]

STORM_S = float(os.environ.get("ANYSERVE_STORM_S", "60"))
TEST_WATCHDOG_S = 120.0


@pytest.fixture
def storm_s() -> float:
    """How long a storm lasts, in seconds; ANYSERVE_STORM_S says otherwise."""
    return STORM_S


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """Ends every replica when a test hangs, so that what waits for one fails."""

    def end() -> None:
        for one in list(replicas.RUNNING):
            one.process.kill()

    timer = threading.Timer(STORM_S + TEST_WATCHDOG_S, end)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@pytest.fixture
def calls(channel) -> Callable[[replicas.Replica], Calls]:
    """Makes clients of replicas, each with a connection of its own."""
    return lambda served: Calls(served, channel(served.endpoint))
