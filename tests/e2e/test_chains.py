"""Chains of calls between worker groups while the app is loaded again, or while workers in the middle of them die."""

import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from anyserve import Client, errors
from tests.e2e.replicas import WATCHDOG_S, Replica, anyserve, until
from tests.e2e.traffic import Traffic

APP = ("chains.py:create", "--factory")
GROUPS = ("a", "b", "c")
CALLERS = 4
TYPED = (errors.WorkerLost, errors.Unavailable, errors.Poison, errors.Overloaded, errors.Starting)
"""What a chain may end with while workers are killed."""


@pytest.fixture
def served(replica) -> Replica:
    """A chain of three groups with one worker each."""
    return replica(*APP)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def ask(served: Replica, text: str) -> str:
    """Have a text go through the whole chain, over a connection of its own."""
    with Client(served.endpoint) as client:
        return client.infer("a", {"text": text}, timeout_s=WATCHDOG_S)["text"][0].decode()


def hold(served: Replica, threads: ThreadPoolExecutor, name: str, where: str) -> list[Future[str]]:
    """Begin chains that are held somewhere."""
    before = len(served.note(f"held-{name}"))
    begun = [threads.submit(ask, served, f"{name}@{where}") for _ in range(CALLERS)]
    served.noted(f"held-{name}", before + CALLERS)
    return begun


def pids(served: Replica) -> dict[str, int]:
    """The process of each group's newest worker."""
    status = json.loads(anyserve("status", "--once", "--json", "--endpoint", served.endpoint).stdout)
    return {group["name"]: worker["pid"] for group in status["groups"] for worker in group["workers"] if worker["pid"]}


def nothing_is_left(served: Replica) -> None:
    """Wait until no request and no call is open, and the chain serves as before."""
    until(lambda: served.metric("anyserve_worker_requests") == 0, "the end of everything with a worker")
    until(lambda: served.metric("anyserve_queue_depth") == 0, "empty queues")
    assert served.metric("anyserve_requests_in_flight") == 0
    assert ask(served, "x") == "x c b a"


def chains(served: Replica) -> Traffic:
    """Chains without a pause."""

    def one(client: Client, _: int) -> None:
        assert client.infer("a", {"text": "t"}, timeout_s=WATCHDOG_S)["text"][0] == b"t c b a"

    return Traffic((Client(served.endpoint), one) for _ in range(CALLERS - 1))


def goes_on(traffic: Traffic) -> None:
    enough = traffic.answered + 10
    until(lambda: traffic.answered >= enough, "ten more answers")


def test_loading_the_app_again_loses_no_chain_that_is_under_way(served, threads):
    before = set(pids(served).values())
    with chains(served) as traffic:
        for number in range(3):
            goes_on(traffic)
            done = anyserve("workers", "reload", "--endpoint", served.endpoint)
            assert done.returncode == 0, (number, done)
        goes_on(traffic)
    assert traffic.failures == []
    until(lambda: not before & served.workers(), "the end of the first workers")
    nothing_is_left(served)


@pytest.mark.parametrize("where", GROUPS)
def test_chains_that_are_held_go_on_through_a_load_of_the_app(served, threads, where):
    before = set(pids(served).values())
    held = hold(served, threads, "kept", where)
    loaded = threads.submit(anyserve, "workers", "reload", "--endpoint", served.endpoint)
    until(lambda: not before & set(pids(served).values()), "new workers of every group")
    assert ask(served, "new") == "new c b a"
    assert not any(one.done() for one in held)
    served.allow("go-kept")
    assert [one.result(WATCHDOG_S) for one in held] == [f"kept@{where} c b a"] * CALLERS
    assert loaded.result(WATCHDOG_S).returncode == 0
    until(lambda: len(served.workers()) == len(GROUPS), "the end of the old workers")
    nothing_is_left(served)


@pytest.mark.parametrize("where", GROUPS)
@pytest.mark.parametrize("victim", GROUPS)
def test_the_death_of_a_worker_in_a_chain_is_told_to_every_caller_and_leaves_nothing(served, threads, victim, where):
    held = hold(served, threads, "lost", where)
    os.kill(pids(served)[victim], signal.SIGKILL)
    # A group that the chain has not come to yet has nothing to lose.
    if victim > where:
        served.allow("go-lost")
    outcomes = [one.exception(WATCHDOG_S) for one in held]
    if victim > where:
        assert all(outcome is None or isinstance(outcome, TYPED) for outcome in outcomes), outcomes
    else:
        assert {type(outcome) for outcome in outcomes} == {errors.WorkerLost}
    served.allow("go-lost")
    nothing_is_left(served)


@pytest.mark.parametrize("seed", [1, 2])
def test_workers_that_are_killed_at_random_leave_no_call_open(served, seed):
    chance = random.Random(seed)
    with chains(served) as traffic:
        for _ in range(9):
            goes_on(traffic)
            victim = pids(served).get(chance.choice(GROUPS))
            # It may have died since.
            if victim is not None and victim in served.workers():
                os.kill(victim, signal.SIGKILL)
        goes_on(traffic)
    assert all(isinstance(failure, TYPED) for failure in traffic.failures), traffic.failures
    nothing_is_left(served)
