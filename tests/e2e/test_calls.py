"""Handlers that call other capabilities, through real replicas."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from anyserve import Client, errors
from tests.e2e.conftest import serving
from tests.e2e.replicas import WATCHDOG_S, Replica, anyserve, until

APP = ("calls.py:create", "--factory")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Replica]:
    """Callers and callees, with one worker for those in the group `default`."""
    with serving(tmp_path_factory.mktemp("calls") / "replica", *APP, "--object-store", "64MiB") as own:
        yield own


@pytest.fixture
def client(shared) -> Iterator[Client]:
    with Client(shared.endpoint) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def passed(client: Client, target: str, inputs=None, **parameters):
    return client.infer("pass", inputs or {}, parameters={"target": target, **parameters}, timeout_s=WATCHDOG_S)


# === answers ===


@pytest.mark.parametrize("target", ["double", "type=double"])
def test_a_call_has_the_answer_of_the_other_handler(client, target):
    assert passed(client, target, {"x": np.float32([1.5])})["y"].tolist() == [3.0]


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_tensors_of_every_size_come_through_whole(client, size):
    sent = np.arange(size, dtype=np.float32) % 1000
    assert np.array_equal(passed(client, "double", {"x": sent})["y"], sent * 2)


def test_a_class_a_generator_and_a_batch_call_as_any_handler_does(client, threads):
    assert client.infer("classy", {"x": np.float32([2])})["y"].tolist() == [4.0]
    assert [part["y"].tolist() for part in client.stream("each", {"to": "3"})] == [[0.0], [2.0], [4.0]]
    calls = [threads.submit(client.infer, "batched", {"x": np.float32([n])}) for n in range(20)]
    assert [call.result(WATCHDOG_S)["y"].tolist() for call in calls] == [[2.0 * n] for n in range(20)]


def test_a_coroutine_has_fifty_calls_open_at_the_same_time(client):
    assert client.infer("fan", {"calls": "50"}, timeout_s=WATCHDOG_S)["sum"].tolist() == [2450.0]


def test_results_of_a_stream_come_in_order(client):
    assert client.infer("sum", {"to": "100"})["sum"].tolist() == [4950]
    assert [int(part["n"][0]) for part in client.stream("async-each", {"to": "20"})] == list(range(20))


def test_a_reference_is_resolved_for_who_is_called(client):
    assert client.infer("stored", {"size": "1000000"})["mean"].tolist() == [1.0]


def test_nothing_of_a_call_stays_in_shared_memory(replica, threads):
    served = replica(*APP, "--object-store", "64MiB")
    with Client(served.endpoint) as client:
        sent = np.ones(1 << 20, np.float32)
        calls = [threads.submit(passed, client, "double", {"x": sent}) for _ in range(20)]
        assert all(call.result(WATCHDOG_S)["y"].shape == sent.shape for call in calls)
        filler = {"parameters": {"filler": 1 << 20}, "timeout_s": WATCHDOG_S}
        assert client.infer("first", {"to": "50"}, **filler)["n"].tolist() == [0]
        del calls
        until(lambda: served.metric("anyserve_object_store_tensors") == 0, "the end of every tensor")
        until(lambda: served.metric("anyserve_object_store_used_bytes") == 0, "an empty store")


# === errors ===


def test_an_error_passes_with_its_code_and_its_text(client):
    with pytest.raises(errors.NotFound, match="there is no such page"):
        passed(client, "fail")
    caught = client.infer("caught", {}, parameters={"target": "fail"})
    assert (caught["code"].tolist(), caught["text"].tolist()) == ([b"NOT_FOUND"], [b"there is no such page"])


def test_what_nothing_here_serves_is_told_with_what_is_served(client):
    with pytest.raises(errors.NoCapability, match=r"served here: .*type=double.*; no API server is known"):
        passed(client, "type=elsewhere")
    with pytest.raises(errors.NoCapability, match="no capability matches 'type=decode'; served here"):
        client.infer({"type": "decode"}, {})


def test_a_stream_is_not_called_for_one_answer_and_inputs_are_checked(client):
    with pytest.raises(errors.Unsupported, match="answers with a stream"):
        passed(client, "count", {"to": "1"})
    with pytest.raises(errors.InvalidInput, match="'x' is missing"):
        passed(client, "double")


# === what goes along ===


def test_trace_tenant_and_depth_go_along_and_other_headers_do_not(client):
    headers = {"traceparent": "00-1-2-01", "x-tenant": "blue", "x-request-id": "r", "x-other": "o"}
    seen = client.infer("pass", {}, parameters={"target": "seen"}, headers=headers)["headers"].tolist()
    assert seen == [b"00-1-2-01", b"blue", b"r", b"1", b"-"]


def test_the_deadline_is_shared_and_a_call_may_have_a_sooner_one(client):
    assert passed(client, "seen")["remaining"][0] <= WATCHDOG_S
    (left,) = passed(client, "seen", timeout_s=5.0)["remaining"]
    assert 0 < left <= 5
    assert client.infer("pass", {}, parameters={"target": "seen"})["remaining"].tolist() == [-1.0]


def test_a_call_whose_own_time_is_over_fails_and_its_caller_goes_on(shared, client):
    parameters = {"target": "hold", "timeout_s": 0.2}
    caught = client.infer("caught", {"name": "late"}, parameters=parameters, timeout_s=WATCHDOG_S)
    assert caught["code"].tolist() == [b"DEADLINE"]
    assert shared.noted("ended-late") == ["cancelled"]


def test_a_chain_of_calls_ends_at_sixteen(client):
    with pytest.raises(errors.InvalidInput, match="number 17 in a chain of calls, at most 16"):
        client.infer("deep", {}, timeout_s=WATCHDOG_S)
    for depth, fits in [("15", True), ("16", False)]:
        ask = {"parameters": {"target": "seen"}, "headers": {"x-anyserve-depth": depth}}
        if fits:
            assert client.infer("pass", {}, **ask)["headers"].tolist()[3] == b"16"
        else:
            with pytest.raises(errors.InvalidInput, match="at most 16"):
                client.infer("pass", {}, **ask)


# === the end of a caller ===


@pytest.mark.parametrize("caller", ["pass", "async-hold"])
def test_a_client_that_leaves_cancels_what_is_called_for_it(shared, caller):
    name = f"left-{caller}"
    with Client(shared.endpoint) as client, ThreadPoolExecutor(1) as pool:
        stream = client.stream(caller, {"name": name}, parameters={"target": "hold"})
        waiting = pool.submit(next, stream, None)
        shared.noted(f"started-{name}")
        stream.close()
        assert waiting.result(WATCHDOG_S) is None
    assert shared.noted(f"ended-{name}") == ["cancelled"]


def test_the_deadline_of_a_caller_ends_what_it_calls(shared, client):
    with pytest.raises(errors.DeadlineExceeded):
        client.infer("pass", {"name": "over"}, parameters={"target": "hold"}, timeout_s=0.5)
    assert shared.noted("ended-over") == ["cancelled"]


def test_the_death_of_a_callers_worker_cancels_what_it_called(replica, threads):
    served = replica(*APP)
    with Client(served.endpoint) as client:
        call = threads.submit(client.infer, "caught", {"name": "orphan"}, parameters={"target": "hold"})
        served.noted("started-orphan")
        kill_worker_of(served, "caught")
        assert isinstance(call.exception(WATCHDOG_S), errors.WorkerLost)
        assert served.noted("ended-orphan") == ["cancelled"]


def kill_worker_of(served: Replica, group: str) -> None:
    """End the process of the one worker of a group by force."""
    status = json.loads(anyserve("status", "--once", "--json", "--endpoint", served.endpoint).stdout)
    (own,) = [one for one in status["groups"] if one["name"] == group]
    os.kill(own["workers"][0]["pid"], signal.SIGKILL)


def test_the_death_of_who_is_called_is_an_error_of_the_call(replica, threads):
    served = replica(*APP)
    with Client(served.endpoint) as client:
        call = threads.submit(client.infer, "caught", {"name": "lost"}, parameters={"target": "hold"})
        served.noted("started-lost")
        kill_worker_of(served, "hold")
        assert call.result(WATCHDOG_S)["code"].tolist() == [b"WORKER_LOST"]


def test_a_replica_that_leaves_finishes_what_it_has_with_all_that_is_called(replica, threads):
    served = replica(*APP)
    with Client(served.endpoint) as client:
        call = threads.submit(client.infer, "later", {}, parameters={"gate": "go-on", "target": "seen"})
        served.noted("started-later")
        served.signal()
        served.says("stopping: 1 request in flight")
        served.allow("go-on")
        assert call.result(WATCHDOG_S)["headers"].tolist()[3] == b"1"
        assert served.wait() == 0


# === streams ===


def test_a_stream_that_is_not_read_waits_and_one_that_is_left_ends(replica, threads):
    served = replica(*APP)
    with Client(served.endpoint) as client:
        filler = 256 << 10
        call = threads.submit(
            client.infer, "sum", {"to": "1000"}, parameters={"gate": "read", "filler": filler}, timeout_s=WATCHDOG_S
        )
        stops = until(lambda: settled(served), "the stream to wait")
        assert stops < 40, "a window on each of the two ways, and a few on their way"
        served.allow("read")
        assert call.result(WATCHDOG_S)["sum"].tolist() == [499_500]
        served.noted("count-over")
        assert client.infer("first", {"to": "1000000"}, timeout_s=WATCHDOG_S)["n"].tolist() == [0]
        served.noted("count-over", 2)


def settled(served: Replica) -> int:
    """How far a stream has come, once it comes no further."""
    seen = len(served.note("counted"))
    served.is_ready()
    return seen if seen and seen == len(served.note("counted")) and served.is_ready() else 0


# === deadlocks ===


def test_a_handler_that_calls_itself_with_one_slot_is_refused_at_once_with_the_cycle(client):
    assert client.infer("own", {"left": "0"})["done"].tolist() == [True]
    says = r"own -> own: every one of the 1 slots of group 'default' waits for this call; raise concurrency or workers"
    with pytest.raises(errors.Unsupported, match=says):
        client.infer("own", {"left": "1"}, timeout_s=WATCHDOG_S)


def test_a_cycle_through_another_group_is_refused_with_its_name(client):
    with pytest.raises(errors.Unsupported, match=r"there -> back -> there: every one of the 1 slots"):
        client.infer("there", {}, timeout_s=WATCHDOG_S)


def test_with_two_slots_it_works_and_three_deep_it_is_refused(replica):
    served = replica(*APP, "--workers", "2")
    with Client(served.endpoint) as client:
        assert client.infer("own", {"left": "1"}, timeout_s=WATCHDOG_S)["done"].tolist() == [True]
        with pytest.raises(errors.Unsupported, match="own -> own -> own: every one of the 2 slots"):
            client.infer("own", {"left": "2"}, timeout_s=WATCHDOG_S)


def test_many_callers_of_each_other_never_hang(replica, threads):
    served = replica(*APP, "--workers", "2")
    with Client(served.endpoint) as client:

        def ask(number: int) -> str:
            try:
                client.infer("own", {"left": str(number % 3)}, timeout_s=WATCHDOG_S)
            except errors.Unsupported:
                return "refused"
            return "served"

        outcomes = list(threads.map(ask, range(300)))
        assert set(outcomes[::3]) == {"served"}
        assert set(outcomes[2::3]) == {"refused"}


# === workers that break the rules ===


@pytest.fixture
def scripted(replica, tmp_path) -> Callable[..., Replica]:
    """A replica whose workers make the calls that a test asks for, by the rules or not."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("scripted.py")} "$@"\n')
    program.chmod(0o755)
    return lambda *flags: replica("calls.py:create", "--factory", "--python", program, *flags)


def does(client: Client, act: str) -> errors.AnyServeError:
    """What comes of a request whose worker does this."""
    with pytest.raises(errors.AnyServeError) as raised:
        client.infer("do", {}, parameters={"act": act}, timeout_s=WATCHDOG_S)
    return raised.value


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("zero", "a Call frame with the number 0, which is 0 or that of an open call"),
        ("twice", "a Call frame with the number 7, which is 0 or that of an open call"),
        ("without-request", "a Call frame without a request"),
        ("short", "tensor 'x' has 2 bytes and the body 1 more"),
        ("misshapen", "tensor 'x' of UINT8 and shape [3] cannot have 2 bytes"),
        ("placed", "tensor 'x' has no 2 bytes at its place in shared memory"),
        ("of-another-worker", "which is with another worker"),
    ],
)
def test_a_worker_that_breaks_a_rule_of_calls_is_replaced_and_nobody_else_suffers(scripted, threads, act, says):
    served = scripted("--workers", "2")
    with Client(served.endpoint) as client:
        held = client.stream("hold", {})
        waiting = threads.submit(next, held, None)
        until(lambda: served.metric("anyserve_worker_requests") == 1, "a request that is held")
        error = does(client, act)
        assert error.code == "WORKER_LOST"
        served.says(says)
        assert served.metric("anyserve_worker_requests") == 1, "the other worker has its request still"
        held.close()
        assert waiting.result(WATCHDOG_S) is None


@pytest.mark.parametrize(
    ("act", "code", "says"),
    [
        ("unknown", "CANCELLED", "the request that makes this call is over"),
        ("none", "CANCELLED", "the request that makes this call is over"),
        ("no-selector", "INVALID_INPUT", "position"),
        ("header", "INVALID_INPUT", "header 'x-anyserve-delegations' is written by the runtime"),
        ("stray", "NO_CAPABILITY", "no capability matches"),
        ("given-up", "NO_CAPABILITY", "no capability matches"),
        ("255", "NOT_FOUND", "all 255 calls have come"),
        ("256", "NOT_FOUND", "all 256 calls have come"),
        ("257", "OVERLOADED", "256 calls of this worker are open, at most 256 are allowed"),
    ],
)
def test_what_cannot_be_carried_out_is_an_error_of_the_call(scripted, act, code, says):
    served = scripted()
    (pid,) = until(lambda: pids(served), "its worker")
    with Client(served.endpoint) as client:
        error = does(client, act)
        assert (error.code, says in str(error)) == (code, True), error
        until(lambda: served.metric("anyserve_worker_requests") == 0, "the end of all calls")
        assert does(client, "none").code == "CANCELLED"
    assert pids(served) == {pid}


def pids(served: Replica) -> set[int]:
    """Processes of the workers of a scripted replica."""
    status = json.loads(anyserve("status", "--once", "--json", "--endpoint", served.endpoint).stdout)
    return {worker["pid"] for group in status["groups"] for worker in group["workers"] if worker["pid"]}
