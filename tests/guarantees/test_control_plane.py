"""Guarantees 12 and 13 over many replicas: API servers that die, replicas that restart or hang, and nothing is lost."""

import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from anyserve import Client
from tests.e2e.replicas import until
from tests.guarantees.fleet import by, join, text

ECHO, TALK = {"type": "echo"}, {"type": "talk"}
RATE = 300
"""Requests per second of discovered traffic."""

THREADS = 6
TIMEOUT_S = 30


class Traffic:
    """Requests at a rate, or streams one after the other, each checked; every failure is kept."""

    def __init__(self, clients: list[Client], *, streams: bool = False, rate: float = RATE) -> None:
        self.over, self.streams = threading.Event(), streams
        self.failures: list[str] = []
        self.ended, self.by = 0, set[str]()
        self.pause = len(clients) / rate
        self.threads = [threading.Thread(target=self.run, args=(client,)) for client in clients]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def run(self, client: Client) -> None:
        due = time.monotonic()
        for number in itertools.count():
            due += self.pause
            if self.over.wait(max(0.0, 0 if self.streams else due - time.monotonic())):
                return
            try:
                self.stream(client, number) if self.streams else self.call(client, number)
            except Exception as error:  # noqa: BLE001 - the test shows every one
                self.failures.append(f"{number}: {error!r}")
            self.ended += 1

    def call(self, client: Client, number: int) -> None:
        answer = client.infer(ECHO, {"text": str(number)}, timeout_s=TIMEOUT_S)
        assert text(answer, "text") == str(number)
        self.by.add(by(answer))

    def stream(self, client: Client, number: int) -> None:
        parts = list(client.stream(TALK, {"text": str(number)}, timeout_s=TIMEOUT_S))
        assert [text(part, "text") for part in parts] == [f"{number} {place}" for place in range(8)], "it was cut off"
        self.by.add(by(parts[0]))

    def goes_on(self, more: int) -> None:
        """Wait until so many more have ended."""
        enough = self.ended + more
        until(lambda: self.ended >= enough, f"{more} more ends")


def discovered(*servers, capability=ECHO, count=THREADS) -> list[Client]:
    """Clients that find their replicas by themselves."""
    urls = [server.url for server in servers]
    return [Client(api_server=urls, capability=capability) for _ in range(count)]


def test_discovered_requests_go_on_while_the_api_server_is_dead_and_it_knows_all_again_when_it_is_back(
    replica, api_server, record_property
):
    server = api_server()
    for name in ("a", "b"):
        join(replica, server, name, ECHO)
    with Traffic(discovered(server)) as traffic:
        traffic.goes_on(RATE)
        server.kill()
        traffic.goes_on(2 * RATE)
        again = api_server(port=server.endpoint.rpartition(":")[2])
        assert again.endpoint == server.endpoint
        began = time.monotonic()
        again.knows("a", "b")
        record_property("reconverged_s", time.monotonic() - began)
        traffic.goes_on(RATE)
    assert traffic.failures == []


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
    with Traffic([Client(server.endpoint) for _ in range(THREADS)]) as traffic:
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
    proxied = way == "proxied"
    clients = [Client(server.endpoint) for _ in range(8)] if proxied else discovered(server, capability=TALK, count=8)
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
