"""Promise 5: a caller that leaves frees its place, and its handler is told."""

import pytest

from tests.e2e.replicas import WATCHDOG_S, until
from tests.guarantees.calls import code_of

APP = ("tests/guarantees/apps/promises.py:create", "--factory")


def full(served, call) -> list:
    """Fill the queue of `narrow`: one request runs, and as many wait as may."""
    running = [call.begin("narrow", "h")]
    served.noted("started-h")
    while True:
        another = call.begin("narrow", "waits")
        until(
            lambda sent=another: (
                sent.done() or served.metric("anyserve_requests_in_flight", model="narrow") == len(running) + 1
            ),
            "a request in flight, or refused",
        )
        if another.done():
            assert code_of(another) == "OVERLOADED"
            return running
        running.append(another)


def test_a_caller_that_leaves_the_queue_frees_its_place_at_once(replica, calls):
    served = replica(*APP)
    call = calls(served)
    running, *waiting = full(served, call)
    assert len(waiting) >= 2
    waiting.pop().cancel()
    call.in_flight(len(waiting) + 1)
    next_one = call.begin("narrow", "next")
    call.in_flight(len(waiting) + 2)
    assert code_of(call.begin("narrow", "one too many")) == "OVERLOADED"
    for name in ("h", "waits", "next"):
        served.allow(f"go-{name}")
    assert all(one.result(WATCHDOG_S).outputs for one in [running, *waiting, next_one])
    assert len(served.note("started-waits")) == len(waiting)


@pytest.mark.parametrize(("model", "told"), [("hold", "cancelled"), ("hold-async", "CancelledError")])
def test_a_started_handler_is_told_that_its_caller_has_left(replica, calls, model, told):
    served = replica(*APP)
    call = calls(served)
    running = call.begin(model, "h")
    served.noted("started-h")
    running.cancel()
    assert served.noted("left-h") == [told]
    call.in_flight(0)
    # Its place is free again.
    served.allow("go-next")
    assert call.now(model, "next").outputs


@pytest.mark.parametrize("model", ["parts", "parts-async"])
def test_a_stream_stops_within_one_part_of_its_callers_leaving(replica, calls, model):
    served = replica(*APP)
    call = calls(served)
    stream = call.stream(model, "s")
    served.allow("go-s-0")
    assert next(stream).infer_response.outputs
    stream.cancel()
    call.in_flight(0)
    for part in range(1, 50):
        served.allow(f"go-s-{part}")
    served.noted("left-s")
    assert len(served.note("made-s")) <= 2


@pytest.mark.parametrize("model", ["hold", "hold-async"])
def test_a_caller_whose_connection_breaks_has_left(replica, calls, channel, model):
    served = replica(*APP)
    opened = channel(served.endpoint)
    other = calls(served)
    broken = type(other)(served, opened).begin(model, "h")
    served.noted("started-h")
    opened.close()
    served.noted("left-h")
    other.in_flight(0)
    assert broken.cancelled() or broken.exception() is not None


def test_a_caller_that_leaves_takes_nobody_with_it(replica, calls):
    served = replica(*APP)
    call = calls(served)
    leaving, staying = call.begin("hold-async", "leaving"), call.begin("hold-async", "staying")
    served.noted("started-leaving")
    served.noted("started-staying")
    leaving.cancel()
    assert served.noted("left-leaving")
    served.allow("go-staying")
    assert staying.result(WATCHDOG_S).outputs
    assert not served.note("left-staying")
