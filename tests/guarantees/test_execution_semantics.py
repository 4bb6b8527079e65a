"""Promise 2: what becomes of a request when its worker dies depends on how far it was, and on nothing else."""

import os
import signal

import grpc
import pytest

from tests.e2e.messages import anyserve_code
from tests.e2e.replicas import WATCHDOG_S, until
from tests.guarantees.calls import attempts_of, failure, number, pid_of

APP = ("tests/guarantees/apps/promises.py:create", "--factory")
LEAST_BUDGET = 10


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def pid_of_start(served, name: str, place: int = 0) -> int:
    """The worker that has started a request for the first, or a later, time."""
    return int(served.noted(f"started-{name}", place + 1)[place].split()[0])


def test_a_request_that_was_answered_at_once_was_sent_once(replica, calls):
    served = replica(*APP)
    assert attempts_of(calls(served).now("pid")) == 1


def test_a_request_that_had_not_started_when_its_worker_died_is_sent_again_and_says_so(replica, calls):
    served = replica(*APP)
    call, pid = calls(served), served.worker()
    # A stopped worker is sent the request and does not start it.
    kill(pid, signal.SIGSTOP)
    sent = call.begin("pid")
    call.in_flight(1)
    call.queued(0)
    kill(pid)
    answer = sent.result(WATCHDOG_S)
    assert attempts_of(answer) == 2
    assert pid_of(answer) != pid


@pytest.mark.parametrize("model", ["hold", "hold-async"])
def test_a_request_that_had_started_is_lost_with_its_worker_and_not_run_again(replica, calls, model):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    started = call.begin(model, "h")
    kill(pid_of_start(served, "h"))
    error = failure(started)
    assert (error.code(), anyserve_code(error)) == (grpc.StatusCode.UNAVAILABLE, "WORKER_LOST")
    served.allow("go-h")
    assert call.now("pid").outputs
    assert len(served.note("started-h")) == 1


@pytest.mark.parametrize("model", ["hold-idempotent", "hold-async-idempotent"])
def test_an_idempotent_request_that_had_started_is_answered_by_another_worker(replica, calls, model):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    started = call.begin(model, "h")
    first = pid_of_start(served, "h")
    kill(first)
    second = pid_of_start(served, "h", 1)
    served.allow("go-h")
    answer = started.result(WATCHDOG_S)
    assert (pid_of(answer), attempts_of(answer)) == (second, 2)
    assert first != second
    assert len(served.note("started-h")) == 2


def test_an_idempotent_stream_is_begun_again_before_its_first_part(replica, calls):
    served = replica(*APP, "--workers", "2")
    stream = calls(served).stream("parts-idempotent", "s")
    first = pid_of_start(served, "s")
    kill(first)
    second = pid_of_start(served, "s", 1)
    served.allow("go-s-0")
    served.allow("go-s-1")
    parts = [answer.infer_response for answer in stream]
    assert [pid_of(part) for part in parts] == [second, second]
    assert attempts_of(parts[0]) == 2


def test_an_idempotent_stream_is_lost_with_its_worker_after_its_first_part(replica, calls):
    served = replica(*APP, "--workers", "2")
    stream = calls(served).stream("parts-idempotent", "s")
    served.allow("go-s-0")
    first = next(stream).infer_response
    kill(pid_of(first))
    last = next(stream)
    assert last.infer_response.parameters["x-anyserve-code"].string_param == "WORKER_LOST"
    assert list(stream) == []
    assert len(served.note("started-s")) == 1


def test_the_retry_budget_bounds_how_many_are_run_again_after_a_death(replica, calls):
    served = replica(*APP)
    call, count = calls(served), 40
    started = [call.begin("hold-async-idempotent", "h") for _ in range(count)]
    served.noted("started-h", count)
    kill(served.worker())
    until(lambda: sum(one.done() for one in started) >= count - 2 * LEAST_BUDGET, "those that are not run again")
    # What was with a dying worker runs alone the next time, so that each has to end before the next one starts.
    served.allow("go-h")
    ended = [one.exception(WATCHDOG_S) for one in started]
    lost = [error for error in ended if error is not None]
    assert {anyserve_code(error) for error in lost} == {"WORKER_LOST"}
    # At least ten, and else a tenth of what there was of late.
    assert LEAST_BUDGET <= count - len(lost) <= LEAST_BUDGET + count // 10
    assert {attempts_of(one.result()) for one in started if one.exception() is None} == {2}


def test_the_handler_is_told_which_attempt_it_is(replica, calls):
    served = replica(*APP, "--workers", "2")
    started = calls(served).begin("hold-idempotent", "h")
    kill(pid_of_start(served, "h"))
    served.noted("started-h", 2)
    served.allow("go-h")
    assert number(started.result(WATCHDOG_S), "attempt") == 2
    assert [line.split()[1] for line in served.note("started-h")] == ["1", "2"]
