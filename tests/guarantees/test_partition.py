"""Guarantees 1 and 13 when the network is cut: who cannot be reached is left alone until they can be again."""

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from anyserve import Client, errors
from tests.e2e.replicas import WATCHDOG_S, until
from tests.guarantees import netns
from tests.guarantees.fleet import by, join
from tests.guarantees.steady import ECHO, TALK, THREADS, TIMEOUT_S, Traffic, discovered, proxied

TOKEN = {"ANYSERVE_CLUSTER_TOKEN": "secret"}
RATE = 100
"""Requests per second."""

STREAMS = 8
TYPED = (errors.Unavailable, errors.WorkerLost)
"""What a request may end with that had begun at the replica which is cut off."""


@pytest.fixture
def apart() -> Iterator[functools.partial]:
    """Makes namespaces, each with so many cables."""
    netns.need()
    with ExitStack() as stack:
        yield lambda cables=1: stack.enter_context(netns.Apart(cables))


@pytest.fixture
def open_server(apart, api_server):
    """An API server that every machine reaches. Who is silent is believed to be there for a minute."""
    return api_server("--host", "0.0.0.0", "--lease-s", "60", "--policy", "round-robin", env=TOKEN)


def join_from(place, replica, server, name, *capabilities, heartbeats=0, **more):
    """Start a replica on a machine of its own; which cable its heartbeats take may be another than that of requests."""
    port = server.endpoint.rpartition(":")[2]
    return join(
        replica, server, name, *capabilities, program=place.program, flags=["--host", place.cables[0].there],
        urls=[f"http://{place.cables[heartbeats].here}:{port}"], env=TOKEN, **more,
    )  # fmt: skip


def fleet(apart, replica, server, **more):
    """Three replicas, each with a machine of its own; the first one's is to be cut off."""
    places = [apart(), apart(), apart()]
    for place, name in zip(places, "abc", strict=True):
        join_from(place, replica, server, name, ECHO, TALK, **more)
    return places[0].cables[0]


def held(server, pool) -> list[tuple[str, Iterator]]:
    """Streams that have begun, each with the replica that has it; all three have some."""
    begun = []
    for _ in range(STREAMS):
        stream = pool.enter_context(Client(server.endpoint)).stream(TALK, {"text": "x"}, timeout_s=TIMEOUT_S)
        begun.append((by(next(stream)), stream))
    assert {name for name, _ in begun} == {"a", "b", "c"}
    return begun


def ends(name: str, stream: Iterator) -> None:
    """Read a stream to its end: with an error only if it was at the replica that was cut off, and then a typed one."""
    try:
        assert len(list(stream)) == 7
    except TYPED:
        assert name == "a"


def stays_away(server, traffic) -> None:
    """Nobody is sent to the one that was ejected, while the others serve."""
    traffic.answers("b", "c")
    unreached = server.metric("anyserve_routed_unreached_total")
    traffic.goes_on(RATE)
    assert traffic.by == {"b", "c"}
    assert server.metric("anyserve_routed_unreached_total") == unreached, "a request went there all the same"


CUTS = {"unplugged": netns.Cable.unplug, "silent": netns.Cable.swallow}


@pytest.mark.parametrize("cut", CUTS)
def test_a_replica_that_is_cut_off_is_ejected_once_and_is_back_when_it_is_reached_again(
    apart, replica, open_server, cut, record_property
):
    cable = fleet(apart, replica, open_server, part_s=0.25)
    with ExitStack() as pool, Traffic(proxied(open_server), rate=RATE) as traffic:
        traffic.answers("a", "b", "c")
        streams = held(open_server, pool)
        CUTS[cut](cable)
        began = time.monotonic()
        until(lambda: open_server.metric("anyserve_ejections_total") == 1, "the ejection")
        record_property("ejected_s", time.monotonic() - began)
        stays_away(open_server, traffic)
        for name, stream in streams:
            ends(name, stream)
        assert open_server.get("/health")["replicas"]["up"] == 2
        cable.mend()
        began = time.monotonic()
        traffic.answers("a", "b", "c")
        record_property("back_s", time.monotonic() - began)
    assert traffic.failures == []
    assert open_server.metric("anyserve_ejections_total") == 1


def test_who_found_a_replica_that_is_cut_off_loses_what_was_under_way_and_finds_another(apart, replica, api_server):
    server = api_server("--host", "0.0.0.0", "--policy", "round-robin", env=TOKEN)
    cable = fleet(apart, replica, server)
    # Nobody's deadline ends anything here.
    with Traffic(discovered(server), rate=RATE, timeout_s=WATCHDOG_S + 15) as traffic:
        traffic.answers("a", "b", "c")
        cable.swallow()
        traffic.answers("b", "c")
        assert len(traffic.failures) <= THREADS, traffic.failures
        assert all(isinstance(why, TYPED) for why in traffic.failures), traffic.failures
        lost = len(traffic.failures)
        cable.mend()
        traffic.answers("a", "b", "c")
    assert len(traffic.failures) == lost


def test_a_replica_whose_heartbeats_arrive_is_ejected_all_the_same_if_it_cannot_be_reached(apart, replica, open_server):
    place = apart(2)
    join_from(place, replica, open_server, "a", ECHO, heartbeats=1)
    join(replica, open_server, "b", ECHO, env=TOKEN)
    with Traffic(proxied(open_server), rate=RATE) as traffic:
        traffic.answers("a", "b")
        place.cables[0].swallow()
        until(lambda: open_server.metric("anyserve_ejections_total") == 1, "the ejection")
        lease_ms = open_server.replicas()["a"]["lease_ms"]
        traffic.answers("b")
        until(lambda: open_server.replicas()["a"]["lease_ms"] > lease_ms, "a heartbeat of it")
        place.cables[0].mend()
        traffic.answers("a", "b")
    assert traffic.failures == []
    assert open_server.metric("anyserve_ejections_total") == 1
