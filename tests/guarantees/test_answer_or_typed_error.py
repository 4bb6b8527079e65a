"""Promise 1: every accepted request ends by its deadline, with its answer or with one code of the closed set."""

import asyncio
import os
import random

import pytest

from tests.e2e.messages import infer, stub, text
from tests.e2e.replicas import Replica, until
from tests.guarantees import executions
from tests.guarantees.faults import EVERY_S, GRACE_S, PING_TIMEOUT_S, RESET_REQUESTS, Faults
from tests.guarantees.ledger import ANSWERED, LEFT, Ledger
from tests.guarantees.load import Load

STORM = ("tests/guarantees/apps/storm.py:create", "--factory", "--workers", "3", "--max-message-mb", "1",
         "--ping-timeout-s", f"{PING_TIMEOUT_S}", "--overrun-grace-s", f"{GRACE_S}")  # fmt: skip
RATE = 500.0
IDEMPOTENT = ("echo-idempotent-", "crash-idempotent-")


@pytest.fixture
def seed() -> int:
    """The storm's seed; ANYSERVE_STORM_SEED brings the same faults and requests again."""
    return int(os.environ.get("ANYSERVE_STORM_SEED") or random.SystemRandom().randrange(2**32))


async def storm(served: Replica, seed: int, duration_s: float) -> tuple[Ledger, float]:
    """Bring load and faults on a replica, wait for the end of every request, and give the books and the rate."""
    ledger = Ledger()
    load = Load(served.endpoint, ledger, random.Random(seed))
    faults = Faults(served, load, ledger, random.Random(seed + 1))
    try:
        rate, _ = await asyncio.gather(load.run(RATE, duration_s), faults.run(duration_s))
    finally:
        faults.end()
        await load.close()
    return ledger, rate


def test_every_request_of_a_storm_ends_once_by_its_deadline_with_its_answer_or_a_typed_error(
    replica, channel, storm_s, seed
):
    print(f"ANYSERVE_STORM_SEED={seed}")
    served = replica(*STORM)
    ledger, rate = asyncio.run(storm(served, seed, storm_s))
    report = f"seed {seed}, {rate:.0f} good requests/s for {storm_s:g} s\n{ledger}"
    print(report)

    started = executions.read(served.notes)
    assert not ledger.violations, report
    assert not ledger.open, report
    assert not executions.run_twice(started, IDEMPOTENT), report
    assert not executions.unknown_answers(started, ledger.attempts), report
    sent, ended = ledger.balance()
    assert sent == ended, report
    # The rest ended with a code: a storm in which nothing is served would keep the promise, and prove little.
    outcomes = ledger.by_outcome()
    assert outcomes[ANSWERED] > (sent - outcomes[LEFT]) // 4, report
    assert sum(ledger.faults.values()) == int(storm_s / EVERY_S), report

    until(lambda: served.metric("anyserve_requests_in_flight") == 0, "no request in flight")
    assert served.metric("anyserve_queue_depth") == 0
    # What the replica has answered and nobody has read is what callers have left.
    unread = served.metric("anyserve_requests_total", code="OK") - outcomes[ANSWERED]
    assert 0 <= unread <= outcomes[LEFT] + RESET_REQUESTS * ledger.faults["reset"]
    assert served.http("/health/live")[0] == 200
    until(served.is_ready, "ready after the storm")
    assert stub(channel(served.endpoint)).ModelInfer(infer("echo", text("payload", "over"))).outputs
