"""Guarantees 12 and 13 over many replicas: API servers that die, replicas that restart or hang, and nothing is lost."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from anyserve import Client
from tests.e2e.replicas import until
from tests.guarantees import etcd
from tests.guarantees.fleet import by, join
from tests.guarantees.steady import ECHO, RATE, TALK, THREADS, TIMEOUT_S, Traffic, discovered, proxied


def test_discovered_requests_go_on_while_the_api_server_is_dead_and_it_knows_all_again_when_it_is_back(
    replica, api_server, outage, record_property
):
    server = api_server()
    for name in ("a", "b"):
        join(replica, server, name, ECHO)
    with Traffic(discovered(server), rate=outage.rate) as traffic:
        traffic.goes_on(outage.rate)
        server.kill()
        traffic.goes_on(outage.requests)
        again = api_server(port=server.endpoint.rpartition(":")[2])
        assert again.endpoint == server.endpoint
        began = time.monotonic()
        again.knows("a", "b")
        record_property("reconverged_s", time.monotonic() - began)
        traffic.goes_on(outage.rate)
    assert traffic.failures == []
    outage.tell(f"{traffic.ended} discovered requests, none failed, by {sorted(traffic.by)}")


def test_requests_go_on_and_replicas_register_while_etcd_stands_still(replica, api_server, tmp_path, outage):
    store = etcd.start(tmp_path / "etcd")
    try:
        store.listens()
        servers = [api_server("--store", store.store) for _ in range(2)]
        for name, server in zip("ab", servers, strict=True):
            join(replica, server, name, ECHO)
        for server in servers:
            server.knows("a", "b")
        with Traffic(proxied(*servers), rate=outage.rate) as traffic:
            traffic.answers("a", "b")
            store.stop()
            until(lambda: all(server.get("/health")["store"] == "disconnected" for server in servers), "the loss")
            join(replica, servers[0], "c", ECHO)
            traffic.answers("a", "b", "c")
            traffic.goes_on(outage.requests)
            assert set(servers[1].replicas()) == {"a", "b"}, "nobody could tell it of c, and it forgot nobody"
            traffic.answers("a", "b", "c")
            store.go_on()
            servers[1].knows("a", "b", "c")
            traffic.goes_on(outage.rate)
        assert traffic.failures == []
        outage.tell(f"{traffic.ended} requests through two API servers, none failed, by {sorted(traffic.by)}")
    finally:
        store.kill()


def test_with_two_api_servers_one_may_die_and_proxied_requests_find_the_other(replica, api_server):
    first, second = api_server(), api_server()
    join(replica, [first, second], "a", ECHO)
    with Traffic(discovered(first, second)) as traffic:
        traffic.goes_on(RATE // 3)
        first.kill()
        with Client(api_server=[first.url, second.url], capability=ECHO) as late:
            assert by(late.infer(ECHO, {"text": "x"}, timeout_s=TIMEOUT_S)) == "a"
        traffic.goes_on(RATE // 3)
    assert traffic.failures == []


def test_a_replica_that_hangs_is_ejected_once_and_gets_nothing_until_it_is_back(replica, api_server):
    server = api_server()
    hung, _ = (join(replica, server, name, ECHO) for name in ("a", "b"))
    with Traffic(proxied(server)) as traffic:
        until(lambda: traffic.by == {"a", "b"}, "answers of both")
        os.kill(hung.process.pid, signal.SIGSTOP)
        try:
            until(lambda: server.metric("anyserve_ejections_total") >= 1, "the ejection")
            traffic.goes_on(THREADS)
            traffic.by.clear()
            traffic.goes_on(RATE)
            assert traffic.by == {"b"}
        finally:
            os.kill(hung.process.pid, signal.SIGCONT)
        traffic.by.clear()
        until(lambda: traffic.by == {"a", "b"}, "answers of both again")
    assert traffic.failures == []
    assert server.metric("anyserve_ejections_total") == 1


@pytest.mark.parametrize("way", ["proxied", "discovered"])
def test_twenty_rolling_restarts_of_replicas_lose_no_stream(replica, api_server, way):
    server = api_server()
    part_s = 0.25
    running = {name: join(replica, server, name, TALK, part_s=part_s) for name in ("a", "b")}
    through = way == "proxied"
    clients = proxied(server, count=8) if through else discovered(server, capability=TALK, count=8)
    with Traffic(clients, streams=True) as traffic:
        for number in range(20):
            name = "ab"[number % 2]
            traffic.goes_on(1)
            running[name].stop()
            running[name] = join(replica, server, name, TALK, part_s=part_s)
        traffic.goes_on(8)
    assert traffic.failures == []
    assert traffic.by == {"a", "b"}


def test_an_api_server_drains_what_is_in_flight_and_says_that_it_leaves(replica, api_server):
    server = api_server()
    join(replica, server, "a", TALK, part_s=0.1)
    with Client(server.endpoint) as client, ThreadPoolExecutor(1) as pool:
        stream = client.stream(TALK, {"text": "x"}, timeout_s=TIMEOUT_S)
        next(stream)
        stopped = pool.submit(server.stop)
        assert len(list(stream)) == 7
        stopped.result()
