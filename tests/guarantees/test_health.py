"""Promise 11: health comes from what happens to processes, at once, and a busy replica is a healthy one."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.replicas import WATCHDOG_S, until

APP = ("tests/guarantees/apps/promises.py:create", "--factory")
WATCH = "/grpc.health.v1.Health/Watch"
CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse: `ServingStatus status = 1`


def service(name: str) -> bytes:
    """A HealthCheckRequest: `string service = 1`."""
    return b"\x0a" + bytes([len(name)]) + name.encode() if name else b""


class Watch:
    """Everything that a watcher has been told, with the instants."""

    def __init__(self, channel: grpc.Channel, name: str = "") -> None:
        self.told: list[tuple[bytes, float]] = []
        self.over: Future = Future()
        self.stream = channel.unary_stream(WATCH)(service(name))
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        try:
            for status in self.stream:
                self.told.append((status, time.monotonic()))
            self.over.set_result("ended")
        except grpc.RpcError as error:
            self.over.set_result(error.code())

    def statuses(self) -> list[bytes]:
        return [status for status, _ in self.told]

    def wait(self, *statuses: bytes) -> float:
        """Wait until it has been told these and no others; gives the instant of the last."""
        until(lambda: len(self.told) >= len(statuses), f"{len(statuses)} statuses")
        assert self.statuses() == list(statuses)
        return self.told[-1][1]


@pytest.fixture
def watch(channel) -> Iterator:
    """Opens watches on replicas."""
    made: list[Watch] = []

    def open_watch(served, name: str = "") -> Watch:
        made.append(Watch(channel(served.endpoint), name))
        made[-1].wait(SERVING)
        return made[-1]

    yield open_watch
    for one in made:
        one.stream.cancel()


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService", "pid"])
def test_the_death_of_the_last_worker_is_pushed_to_who_watches_and_so_is_the_next_ones_start(
    replica, watch, name, record_property
):
    served = replica(*APP, "--no-fork")
    watching, pid = watch(served, name), served.worker()
    served.allow("hold-up-start")
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    told = watching.wait(SERVING, NOT_SERVING)
    record_property("not_ready_after_ms", round((told - killed) * 1000, 1))
    print(f"not ready {(told - killed) * 1000:.1f} ms after the kill")
    (served.notes / "hold-up-start").unlink()
    watching.wait(SERVING, NOT_SERVING, SERVING)


def test_without_a_worker_the_replica_lives_and_no_capability_is_ready(replica, calls):
    served = replica(*APP, "--no-fork")
    call = calls(served)
    served.allow("hold-up-start")
    os.kill(served.worker(), signal.SIGKILL)
    until(lambda: not served.is_ready(), "not ready")
    assert served.http("/health/live")[0] == 200
    assert call.service.ServerLive(pb.ServerLiveRequest()).live
    assert not call.service.ServerReady(pb.ServerReadyRequest()).ready
    assert not call.service.ModelReady(pb.ModelReadyRequest(name="pid")).ready
    (served.notes / "hold-up-start").unlink()
    until(served.is_ready, "ready again")
    assert call.service.ModelReady(pb.ModelReadyRequest(name="pid")).ready


def test_the_death_of_one_worker_of_two_changes_nobodys_health(replica, watch):
    served = replica(*APP, "--workers", "2")
    watching = [watch(served), watch(served, "pid")]
    before = until(lambda: len(found := served.workers()) == 2 and found, "two workers")
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(served.workers() - before) == 1 and served.metric("anyserve_workers", state="ready") == 2, "two")
    assert [one.statuses() for one in watching] == [[SERVING], [SERVING]]


def test_a_replica_that_leaves_tells_who_watches_while_it_finishes(replica, calls, watch):
    served = replica(*APP)
    call = calls(served)
    watching, running = watch(served), call.begin("hold-async", "h")
    served.noted("started-h")
    served.signal()
    watching.wait(SERVING, NOT_SERVING)
    served.allow("go-h")
    assert running.result(WATCHDOG_S).outputs
    assert served.wait() == 0


def test_full_queues_never_change_health(replica, calls, watch, channel):
    served = replica(*APP, "--max-queue", "4")
    call = calls(served)
    watching = [watch(served), watch(served, "narrow"), watch(served, "hold")]
    flood = [call.begin(model, "h") for model in ("narrow", "hold") for _ in range(20)]
    until(lambda: sum(one.done() for one in flood) > 10, "refusals")
    with closing(channel(served.endpoint)) as other:
        for name in ("", "narrow", "hold"):
            assert other.unary_unary(CHECK)(service(name)) == SERVING
    for _ in range(20):
        assert served.http("/health/live")[0] == 200
        assert served.is_ready()
    served.allow("go-h")
    assert sum(one.exception(WATCHDOG_S) is None for one in flood) >= 2
    assert {tuple(one.statuses()) for one in watching} == {(SERVING,)}
