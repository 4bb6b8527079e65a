"""Promise 4: one deadline from the client to the handler; what cannot be done in time is not begun."""

import os
import signal

import grpc
import pytest

from anyserve import Client, errors
from tests.e2e.messages import anyserve_code
from tests.e2e.replicas import WATCHDOG_S, assert_gone, until
from tests.guarantees.calls import attempts_of, code_of, comes_with_a_time_to_wait, number, pid_of

APP = ("tests/guarantees/apps/promises.py:create", "--factory")
SERIAL = ("tests/guarantees/apps/promises.py:create_serial", "--factory")
SOON_S = 0.3
MICROS = 1_000_000


def is_deadline(error: grpc.RpcError) -> bool:
    return (error.code(), anyserve_code(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")


# === expired work never starts ===


def test_a_request_that_expires_in_the_queue_never_starts(replica, calls):
    served = replica(*APP)
    call = calls(served)
    running = call.begin("obstinate", "h")
    served.noted("started-h")
    assert is_deadline(call.refused("obstinate", "late", timeout_s=SOON_S))
    served.allow("go-h")
    served.allow("go-late")
    assert running.result(WATCHDOG_S).outputs
    assert call.begin("obstinate", "late").result(WATCHDOG_S).outputs
    assert len(served.note("started-late")) == 1


def test_a_request_that_expires_on_its_way_to_a_stopped_worker_never_starts(replica, calls):
    served = replica(*APP)
    call, pid = calls(served), served.worker()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert is_deadline(call.refused("hold", "late", timeout_s=SOON_S))
    finally:
        os.kill(pid, signal.SIGCONT)
    served.allow("go-next")
    assert pid_of(call.now("hold", "next")) == pid
    assert not served.note("started-late")


def test_a_request_whose_time_is_over_when_it_arrives_never_starts(replica, calls):
    served = replica(*APP)
    call = calls(served)
    served.allow("go-late")
    error = call.refused("hold", "late", headers={"grpc-timeout": "1n"})
    assert is_deadline(error)
    assert call.now("pid").outputs
    assert not served.note("started-late")


# === refused at once ===


def busy(served, call, waiting: int = 20) -> list[grpc.Future]:
    """Teach the replica how long a handler takes, then have so many requests wait behind one that is held up."""
    for _ in range(5):
        call.now("tenth")
    first = call.begin("tenth", "gated")
    served.noted("started-gated")
    # Those of a stricter priority are before whatever comes, however soon that is due.
    more = [call.begin("tenth", parameters={"priority": 1}) for _ in range(waiting)]
    call.in_flight(waiting + 1)
    return [first, *more]


def test_a_request_that_cannot_be_served_in_time_is_refused_and_told_when_to_come_back(replica, calls):
    served = replica(*APP)
    call = calls(served)
    running = busy(served, call)
    # Twenty tenths of a second are before it: it need not wait for its deadline to know.
    error = call.refused("tenth", timeout_s=1.0)
    assert (error.code(), anyserve_code(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert comes_with_a_time_to_wait(error)
    with Client(served.endpoint) as client, pytest.raises(errors.Overloaded) as raised:
        client.infer("tenth", {"name": ""}, timeout_s=1.0)
    assert raised.value.retry_after_s > 0
    served.allow("go-gated")
    assert all(one.result(WATCHDOG_S).outputs for one in running)


def test_a_request_that_can_wait_as_long_is_taken(replica, calls):
    served = replica(*APP)
    call = calls(served)
    running = busy(served, call)
    patient = call.begin("tenth", timeout_s=WATCHDOG_S)
    call.in_flight(len(running) + 1)
    served.allow("go-gated")
    assert all(one.result(WATCHDOG_S).outputs for one in [*running, patient])


# === an overrun ===


@pytest.mark.parametrize("app", [APP, SERIAL])
def test_a_worker_whose_handler_works_on_beyond_deadline_and_grace_is_replaced(replica, calls, app):
    served = replica(*app, "--overrun-grace-s", "0.5")
    call, pid = calls(served), served.worker()
    assert is_deadline(call.refused("obstinate", "h", timeout_s=SOON_S))
    assert_gone({pid})
    until(served.is_ready, "ready again")
    assert pid_of(call.now("pid")) != pid
    assert len(served.note("started-h")) == 1


def test_a_slot_is_not_used_again_while_its_handler_works_on(replica, calls):
    served = replica(*APP, "--overrun-grace-s", "60")
    call, pid = calls(served), served.worker()
    assert is_deadline(call.refused("obstinate", "h", timeout_s=SOON_S))
    second = call.begin("obstinate", "second")
    call.in_flight(1)
    for _ in range(50):
        assert pid_of(call.now("pid")) == pid
    assert not served.note("started-second")
    served.allow("go-h")
    served.noted("started-second")
    served.allow("go-second")
    assert pid_of(second.result(WATCHDOG_S)) == pid
    assert served.note("ended-h")


def test_a_handler_that_ends_within_the_grace_keeps_its_worker(replica, calls):
    served = replica(*APP, "--overrun-grace-s", "1")
    call, pid = calls(served), served.worker()
    assert is_deadline(call.refused("obstinate", "h", timeout_s=SOON_S))
    served.allow("go-h")
    served.noted("ended-h")
    served.allow("go-next")
    # Longer than the grace after the deadline there is still the same worker.
    for _ in range(15):
        assert pid_of(call.now("tenth")) == pid
    assert served.metric("anyserve_worker_restarts_total") == 0


def test_what_shares_a_worker_with_an_overrun_is_treated_as_after_any_death(replica, calls):
    served = replica(*APP, "--overrun-grace-s", "0.5")
    call, pid = calls(served), served.worker()
    plain, idempotent = call.begin("hold-async", "plain"), call.begin("hold-idempotent", "again")
    served.noted("started-plain")
    served.noted("started-again")
    assert is_deadline(call.refused("obstinate", "h", timeout_s=SOON_S))
    waiting = call.begin("obstinate", "waiting")
    assert code_of(plain) == "WORKER_LOST"
    for name in ("again", "waiting"):
        served.allow(f"go-{name}")
    answer = idempotent.result(WATCHDOG_S)
    assert attempts_of(answer) == 2
    assert pid_of(answer) == pid_of(waiting.result(WATCHDOG_S)) != pid
    assert len(served.note("started-waiting")) == 1


def test_a_handler_that_looks_is_told_that_its_time_is_over(replica, calls):
    served = replica(*APP)
    call = calls(served)
    assert is_deadline(call.refused("hold", "h", timeout_s=SOON_S))
    assert served.noted("left-h") == ["cancelled"]
    assert is_deadline(call.refused("hold-async", "a", timeout_s=SOON_S))
    assert served.noted("left-a") == ["CancelledError"]


# === what the handler is told ===


def test_the_handler_is_told_how_much_time_its_caller_has_left(replica, calls):
    call = calls(replica(*APP))
    assert 0 < number(call.now("remaining", timeout_s=20), "remaining") <= 20
    assert number(call.now("remaining"), "remaining") == -1


def test_the_timeout_parameter_is_a_deadline_as_well_and_the_sooner_one_counts(replica, calls):
    call = calls(replica(*APP))
    told = {(transport, parameter): number(call.now("remaining", timeout_s=transport,
                                                    parameters={"timeout": parameter * MICROS}), "remaining")
            for transport, parameter in [(None, 15), (40, 15), (15, 40), (15, 0)]}  # fmt: skip
    assert all(0 < left <= 15 for left in told.values()), told


def test_a_request_ends_by_its_timeout_parameter(replica, calls):
    served = replica(*APP)
    call = calls(served)
    assert is_deadline(call.refused("hold", "h", parameters={"timeout": 300_000}))
    assert served.noted("left-h") == ["cancelled"]


def test_a_negative_timeout_is_invalid(replica, calls):
    call = calls(replica(*APP))
    error = call.refused("pid", parameters={"timeout": -1})
    assert anyserve_code(error) == "INVALID_INPUT"
    assert "timeout" in error.details()
