"""Guarantee 12 inside a replica: workers drain and the app is loaded again, twenty times each, and nothing is lost."""

import json
import threading

import numpy as np
import pytest

from anyserve import Client
from tests.e2e import traffic
from tests.e2e.replicas import Replica, until

APP = """
import os, time
from anyserve import AnyServe

app = AnyServe()

@app.capability(type="echo", concurrency=4)
def echo(number: int):
    return {"number": [number], "pid": [os.getpid()]}

@app.capability(type="count", stream=True, concurrency=4)
def count(number: int):
    for part in range(8):
        time.sleep(0.01)
        yield {"number": [number + part], "pid": [os.getpid()]}
"""

TIMES = 20


class Traffic(traffic.Traffic):
    """Calls and streams without a pause, each checked part by part."""

    def __init__(self, endpoint: str) -> None:
        super().__init__((Client(endpoint), kind) for kind in (self.call, self.call, self.stream, self.stream))
        self.pids: set[int] = set()

    def call(self, client: Client, number: int) -> None:
        answer = client.infer("echo", {"number": np.int64(number)}, timeout_s=30)
        assert answer["number"][0] == number
        self.pids.add(int(answer["pid"][0]))

    def stream(self, client: Client, number: int) -> None:
        parts = list(client.stream("count", {"number": np.int64(number)}, timeout_s=30))
        assert [part["number"][0] for part in parts] == [number + place for place in range(8)], "it was cut off"
        assert len({int(part["pid"][0]) for part in parts}) == 1


@pytest.fixture
def served(replica, tmp_path) -> Replica:
    """A replica with two workers."""
    path = tmp_path / "app.py"
    path.write_text(APP)
    return replica(f"{path}:app", "--workers", "2")


def names(served: Replica) -> list[str]:
    """The workers that are ready."""
    (group,) = json.loads(served.http("/admin/workers")[1])["groups"]
    return [worker["name"] for worker in group["workers"] if worker["state"] == "ready"]


def test_twenty_drained_workers_under_load_lose_nothing_and_each_is_safe_to_stop(served):
    with Traffic(served.endpoint) as sent:
        for number in range(TIMES):
            sent.goes_on(4)
            ready = until(lambda: (found := names(served))[: 2 * (len(found) == 2)], "two workers that are ready")
            status, body = served.http(f"/admin/workers/{ready[number % 2]}/drain", method="POST")
            assert (status, json.loads(body)["safe_to_stop"]) == (200, True), body
    assert sent.failures == []
    assert len(sent.pids) > TIMES // 2, "new workers take over"


def test_twenty_loads_of_the_app_under_load_lose_nothing(served):
    with Traffic(served.endpoint) as sent:
        for number in range(TIMES):
            sent.goes_on(4)
            status, body = served.http("/admin/reload", method="POST")
            assert (status, json.loads(body)["generation"]) == (200, number + 2), body
    assert sent.failures == []
    until(lambda: len(served.workers()) == 2, "the old workers to leave")


def test_a_drained_replica_says_that_it_is_safe_to_stop_and_then_stops_without_a_loss(served):
    with Client(served.endpoint) as client:
        stream = client.stream("count", {"number": np.int64(0)}, timeout_s=30)
        next(stream)
        status, body = served.http("/admin/drain")
        assert (status, json.loads(body)["safe_to_stop"]) == (200, False), body
        drained = threading.Thread(target=served.http, args=("/admin/drain",), kwargs={"method": "POST"})
        drained.start()
        assert len(list(stream)) == 7
        drained.join()
    assert json.loads(served.http("/admin/drain")[1])["safe_to_stop"]
    served.stop()
