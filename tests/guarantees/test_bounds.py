"""Promise 6: every queue and buffer has a limit and a documented answer, and a limit of one is not another's loss."""

import json
import re
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.e2e.messages import anyserve_code, infer, stub, tensor
from tests.e2e.replicas import WATCHDOG_S, Replica, until
from tests.guarantees.apps import promises
from tests.guarantees.calls import Calls, comes_with_a_time_to_wait

APP = ("tests/guarantees/apps/promises.py:create", "--factory")
MIB = 1 << 20


def resident(served: Replica) -> int:
    """Bytes of memory that the runtime's process has."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


# === a flood ===


def test_a_flood_of_one_capability_is_refused_with_a_time_to_wait_and_others_are_served(replica, calls):
    served = replica(*APP)
    call, count = calls(served), 500
    flood = [call.begin("narrow", "h") for _ in range(count)]
    served.noted("started-h")
    assert call.now("pid").outputs
    until(lambda: sum(one.done() for one in flood) >= count // 2, "the refusal of most of a flood")
    served.allow("go-h")
    errors = [error for one in flood if (error := one.exception(WATCHDOG_S)) is not None]
    assert count // 2 <= len(errors) < count
    assert {anyserve_code(error) for error in errors} == {"OVERLOADED"}
    assert all(comes_with_a_time_to_wait(error) for error in errors)


def test_the_runtimes_memory_is_bounded_by_its_limits_and_not_by_the_load(replica, channel):
    served = replica(*APP, "--max-queue", "32")
    service, before, most = stub(channel(served.endpoint)), resident(served), 0
    tensors = tensor("name", "BYTES", [1]), tensor("ballast", "UINT8", [MIB])
    message = infer("hold-async", *tensors, raw=[b"\x01\0\0\0h", bytes(MIB)])
    under_way: list[grpc.Future] = []
    for _ in range(1500):  # 1.5 GiB, of which 64 run at most, 32 wait, and the rest is refused.
        under_way.append(service.ModelInfer.future(message))
        under_way = until(partial(few_of, under_way), "room for more")
        most = max(most, resident(served))
    assert len(under_way) >= 64 + 32, "as many run and wait as may"
    assert most - before < 256 * MIB, f"{before / MIB:.0f} MiB became {most / MIB:.0f} MiB"
    for one in under_way:
        one.cancel()


def few_of(under_way: list[grpc.Future]) -> list[grpc.Future] | None:
    """Those that are still under way, once they are few; there is always one, the last."""
    left = [one for one in under_way if not one.done()] or under_way[-1:]
    return left if len(left) < 128 else None


# === back-pressure ===


@pytest.mark.parametrize("model", ["large", "large-async"])
def test_a_slow_reader_holds_its_own_handler_up_and_nobody_else(replica, calls, model):
    served = replica(*APP)
    call, other = calls(served), calls(served)
    before = resident(served)
    stream = call.stream(model, "s")
    assert next(stream).infer_response.outputs
    until(lambda: stands_still(served, other, "made-s"), "a handler that waits for its reader")
    assert len(served.note("made-s")) < promises.LARGE_PARTS // 2
    assert resident(served) - before < 64 * MIB
    assert len(list(stream)) == promises.LARGE_PARTS - 1


def stands_still(served: Replica, other: Calls, name: str) -> bool:
    """Whether a handler makes no progress while others are answered."""
    before = len(served.note(name))
    for _ in range(200):
        assert other.now("pid").outputs
    return before > 0 and before == len(served.note(name))


# === who goes first ===


def in_line(call: Calls, names: list[tuple[str, dict]]) -> list:
    """Have requests wait for the one worker, in this order."""
    running = [call.begin("order", "first")]
    call.replica.noted("order")
    for name, more in names:
        running.append(call.begin("order", name, **more))
        call.in_flight(len(running))
    return running


def order_of(call: Calls, running: list) -> list[str]:
    """Let the requests run, and give the order in which they did."""
    call.replica.allow("go-first")
    assert all(one.result(WATCHDOG_S).outputs for one in running)
    return call.replica.note("order")[1:]


@pytest.mark.parametrize("how", ["parameter", "header"])
def test_a_request_with_a_higher_priority_goes_before_those_that_wait(replica, calls, how):
    def level(number: int) -> dict:
        return {"parameters": {"priority": number}} if how == "parameter" else {"headers": {"x-priority": str(number)}}

    call = calls(replica(*APP))
    low = [(f"low-{place}", level(8)) for place in range(10)]
    order = order_of(call, in_line(call, [*low, ("middle", {}), ("high", level(1))]))
    # One may have been on its way to the worker before the others came.
    ahead = [name for name in order if name != "low-0"]
    assert ahead[:2] == ["high", "middle"], order
    assert ahead[2:] == [f"low-{place}" for place in range(1, 10)], order


def test_the_sooner_deadline_goes_first_among_equals(replica, calls):
    call = calls(replica(*APP))
    waits = [(f"{seconds} s", {"timeout_s": seconds}) for seconds in (900, 600, 800, 700)]
    order = order_of(call, in_line(call, [("filler", {"timeout_s": 100}), *waits]))
    assert [name for name in order if name != "filler"] == ["600 s", "700 s", "800 s", "900 s"]


@pytest.mark.parametrize(("name", "value"), [("priority", 9), ("priority", -1), ("priority", "high")])
def test_a_priority_that_there_is_not_is_invalid(replica, calls, name, value):
    call = calls(replica(*APP))
    error = call.refused("pid", parameters={name: value})
    assert anyserve_code(error) == "INVALID_INPUT"
    assert "priority" in error.details()


def tenant(name: str) -> dict:
    return {"headers": {"x-tenant": name}}


def test_a_tenant_that_floods_does_not_starve_another(replica, calls):
    call = calls(replica(*APP))
    flood = [(f"loud-{place}", tenant("loud")) for place in range(60)]
    quiet = [(f"quiet-{place}", tenant("quiet")) for place in range(5)]
    order = order_of(call, in_line(call, [*flood, *quiet]))
    last = max(place for place, name in enumerate(order) if name.startswith("quiet"))
    assert last <= 2 * len(quiet) + 2, order


def test_tenants_share_by_their_weights(replica, calls):
    call = calls(replica(*APP, "--tenant-weight", "big=3", "--tenant-weight", "small=1"))
    flood = [(f"{name}-{place}", tenant(name)) for name in ("small", "big") for place in range(32)]
    order = order_of(call, in_line(call, flood))
    assert 22 <= sum(name.startswith("big") for name in order[:32]) <= 26, order


# === health ===


def test_a_full_queue_is_told_and_is_no_reason_to_be_restarted(replica, calls):
    served = replica(*APP)
    call = calls(served)
    flood = [call.begin("narrow", "h") for _ in range(10)]
    until(lambda: sum(one.done() for one in flood) > 0, "a refusal")
    status, body = served.http("/health/ready")
    row = next(one for one in json.loads(body)["capabilities"] if "narrow" in one["capability"])
    assert (status, row["ready"], row["saturated"], row["queued"]) == (200, True, True, 2)
    assert served.http("/health/live")[0] == 200
    served.allow("go-h")
    for one in flood:
        assert one.exception(WATCHDOG_S) is None or anyserve_code(one.exception()) == "OVERLOADED"
    until(lambda: not any(one["saturated"] for one in json.loads(served.http("/health/ready")[1])["capabilities"]),
          "nothing saturated any more")  # fmt: skip
