"""Guarantee 8 with real processes: two tokens, five models, traffic from seeds that makes them switch all the time.

The simulation of `sched` checks the same after every step of thousands of worlds; here processes do it.
"""

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice

import pytest

from anyserve import Client
from tests.e2e.replicas import Replica, until
from tests.guarantees.apps.switching import TOKENS

APP = "tests/guarantees/apps/switching.py:app"
RESIDENCY_S = 0.3
FLAGS = ("--resources", "token=2", "--min-residency-s", str(RESIDENCY_S), "--starvation-s", "0.5")
REQUESTS = 40
DEADLINE_S = 60.0
"""Above what loading every model for every request would take: nobody may fail."""

AT_ONCE = 6


def alternating(_: random.Random) -> Iterator[str]:
    """The models in turn."""
    return cycle(TOKENS)


def bursts(chance: random.Random) -> Iterator[str]:
    """Some of one, then some of another."""
    while True:
        yield from [chance.choice(list(TOKENS))] * chance.randint(1, 8)


def any_of_them(chance: random.Random) -> Iterator[str]:
    """Each is as likely as another."""
    while True:
        yield chance.choice(list(TOKENS))


def wide_against_narrow(chance: random.Random) -> Iterator[str]:
    """One that needs everything, among a crowd of those that need half."""
    while True:
        yield from [*chance.choices(["small", "middle"], k=4), "wide"]


TRAFFIC = [alternating, bursts, any_of_them, wide_against_narrow]


def journal(served: Replica) -> list[tuple[int, str, str]]:
    """What the models have written: nanoseconds, `takes` or `gives`, the model."""
    lines = [line.split() for line in served.note("journal")]
    return [(int(at), what, model) for at, what, model in lines]


def check(entries: list[tuple[int, str, str]]) -> None:
    """Nothing is given out twice, and whoever takes something keeps it for the time of residency."""
    held: dict[str, int] = {}
    for at, what, model in entries:
        if what == "takes":
            assert model not in held, f"two workers of {model}"
            held[model] = at
        else:
            assert at - held.pop(model) >= RESIDENCY_S * 1e9, f"{model} had to go too early"
        assert sum(TOKENS[one] for one in held) <= 2, f"more than two tokens are taken by {sorted(held)}"


def asked_for(client: Client, pool: ThreadPoolExecutor, models: list[str]) -> list[Future]:
    """Begin a request for each model, a few at a time."""
    return [
        pool.submit(client.infer, model, {"name": f"{model}-{number}"}, timeout_s=DEADLINE_S)
        for number, model in enumerate(models)
    ]


@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_asked_for_two_tokens_are_enough_and_everybody_is_served(replica, traffic, seed):
    served = replica(APP, *FLAGS)
    models = list(islice(traffic(random.Random(seed)), REQUESTS))
    with Client(served.endpoint) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [call.result() for call in asked_for(client, pool, models)]
    assert [answer["model"][0].decode() for answer in answers] == models
    assert [answer["name"][0].decode() for answer in answers] == [f"{model}-{n}" for n, model in enumerate(models)]
    check(journal(served))


def test_one_that_needs_everything_is_not_passed_by_a_crowd_for_ever(replica):
    served = replica(APP, *FLAGS)
    with Client(served.endpoint) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        crowd = asked_for(client, pool, ["small", "middle"])
        [call.result() for call in crowd]
        wide = Client(served.endpoint)
        waiting = ThreadPoolExecutor(1).submit(wide.infer, "wide", {"name": "w"}, timeout_s=DEADLINE_S)
        asked = 0
        while not waiting.done():
            [call.result() for call in asked_for(client, pool, ["small", "middle"])]
            asked += 1
        assert waiting.result()["model"][0] == b"wide"
        wide.close()
    check(journal(served))


def test_a_model_that_is_unloaded_in_the_middle_of_a_switch_gives_its_tokens_back(replica):
    served = replica(APP, *FLAGS)
    with Client(served.endpoint) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        client.infer("wide", {"name": "first"}, timeout_s=DEADLINE_S)
        waiting = asked_for(client, pool, ["small"])
        until(lambda: served.metric("anyserve_queue_depth") == 1, "the request that makes them switch")
        status, _ = served.http("/admin/models/small/unload", method="POST")
        assert status == 200
        assert waiting[0].exception() is not None or waiting[0].result()["model"][0] == b"small"
        assert client.infer("middle", {"name": "m"}, timeout_s=DEADLINE_S)["model"][0] == b"middle"
        assert client.infer("wide", {"name": "w"}, timeout_s=DEADLINE_S)["model"][0] == b"wide"
    check(journal(served))
