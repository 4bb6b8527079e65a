"""Who goes first, who has how much time and who gives way: by tritonclient's parameters, by headers and by options."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from anyserve import Client, errors
from tests.e2e.conftest import serving
from tests.e2e.held import Held, clients, names_like
from tests.e2e.messages import anyserve_code, infer, text
from tests.e2e.replicas import WATCHDOG_S, Replica, anyserve, until
from tests.guarantees.calls import Calls, code_of, comes_with_a_time_to_wait, failure, number

APP = ("scheduling.py:create", "--factory")
MICROS = 1_000_000


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Iterator[Replica]:
    """A replica with one worker and one thread."""
    with serving(tmp_path_factory.mktemp("one") / "replica", *APP) as served:
        yield served


@pytest.fixture
def calls(channel) -> Iterator[Callable[[Replica], Calls]]:
    with clients(channel) as make:
        yield make


@pytest.fixture
def client(one) -> Iterator["Triton"]:
    with triton.InferenceServerClient(one.endpoint) as made:
        yield Triton(made)


class Triton:
    """Calls by tritonclient, under way until they are looked at."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self.client = client

    def begin(self, name: str, model: str = "plain", **more: Any) -> Future:
        ended: Future = Future()

        def end(result: triton.InferResult | None, error: Exception | None) -> None:
            ended.set_exception(error) if error else ended.set_result(result)

        self.client.async_infer(model, inputs(name), end, **more)
        return ended


def inputs(name: str) -> list[triton.InferInput]:
    made = triton.InferInput("name", [1], "BYTES")
    made.set_data_from_numpy(np.array([name.encode()], object))
    return [made]


def order(held: Held) -> list[str]:
    """Let what waits run, and give the names in the order in which it did."""
    before = len(held.call.replica.note("order"))
    held.answers()
    return held.call.replica.note("order")[before:]


# === priorities ===


def test_tritonclients_priorities_run_from_1_to_8(one, calls, client):
    held = Held(calls(one), "plain")
    names = names_like(*(f"level-{level}" for level in range(1, 9)))
    for level, name in reversed(list(enumerate(names, start=1))):
        held.add(client.begin(name, priority=level))
    assert order(held) == names


def test_level_0_and_none_are_the_default_and_within_a_level_the_first_goes_first(one, calls, client):
    held = Held(calls(one), "plain")
    names = names_like("none", "zero", "four", "none-again", "later", "sooner")
    for name, level in zip(names, [None, 0, 4, None, 5, 3], strict=True):
        held.add(client.begin(name, **({} if level is None else {"priority": level})))
    assert order(held) == [names[5], *names[:4], names[4]]


def test_a_capabilitys_own_priority_counts_for_requests_that_name_none(one, calls, client):
    held = Held(calls(one), "plain")
    names = names_like("patient", "plain", "urgent", "patient-first", "urgent-last")
    patient, plain, urgent, first, last = names
    held.add(client.begin(patient, "patient"))
    held.add(client.begin(plain))
    held.add(client.begin(urgent, "urgent"))
    held.add(client.begin(first, "patient", priority=1))
    held.add(client.begin(last, "urgent", priority=8))
    assert order(held) == [urgent, first, plain, patient, last]


def test_a_header_names_a_priority_and_the_parameter_wins_over_it(one, calls, client):
    held = Held(calls(one), "plain")
    names = names_like("plain", "by-header", "by-both")
    held.add(client.begin(names[0]))
    held.add(client.begin(names[1], headers={"x-priority": "2"}))
    held.add(client.begin(names[2], headers={"x-priority": "8"}, priority=1))
    assert order(held) == [names[2], names[1], names[0]]


def test_our_own_client_names_a_priority_as_a_parameter(one, calls):
    held = Held(calls(one), "plain")
    names = names_like("plain", "first")
    held.begin(names[0])
    with Client(one.endpoint) as own, ThreadPoolExecutor(1) as pool:
        held.add(pool.submit(own.infer, "plain", {"name": [names[1]]}, parameters={"priority": 1}))
        assert order(held) == [names[1], names[0]]


def test_on_one_stream_a_later_request_may_run_first_and_the_answers_keep_their_order(one, calls):
    held = Held(calls(one), "plain")
    names, messages = names_like("low", "high"), []
    for name, level in zip(names, (8, 1), strict=True):
        messages.append(infer("plain", text("name", name), id=name))
        messages[-1].parameters["priority"].int64_param = level
    stream = held.call.service.ModelStreamInfer(iter(messages))
    held.call.queued(2)
    held.release()
    assert [answer.infer_response.id for answer in stream] == names
    assert one.note("order")[-2:] == [names[1], names[0]]


# === time ===


def test_among_equals_the_sooner_timeout_goes_first(one, calls, client):
    held = Held(calls(one), "plain")
    names = names_like("none", "900", "600", "zero", "700")
    for name, seconds in zip(names, [None, 900, 600, 0, 700], strict=True):
        held.add(client.begin(name, timeout=None if seconds is None else seconds * MICROS))
    none, last, first, zero, middle = names
    assert order(held) == [first, middle, last, none, zero]


def test_a_request_whose_timeout_passes_while_it_waits_ends_and_never_runs(replica, calls):
    # Of its own: where it is known how long a handler takes, the request might be refused at once.
    served = replica(*APP)
    held = Held(calls(served), "plain")
    with triton.InferenceServerClient(served.endpoint) as client:
        ended = Triton(client).begin("late", timeout=200_000).exception(WATCHDOG_S)
    assert ended.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert "the deadline passed in the queue" in ended.message()
    held.answers()
    assert held.call.now("plain", "next").outputs
    assert served.note("order")[1:] == ["next"]


def test_a_capabilitys_own_timeout_counts_only_where_the_caller_gives_none(one, calls):
    call = calls(one)
    times = {"none": {}, "zero": {"parameters": {"timeout": 0}}, "longer": {"parameters": {"timeout": 60 * MICROS}},
             "by transport": {"timeout_s": 60}, "in digits": {"parameters": {"timeout": "60000000"}}}  # fmt: skip
    told = {name: number(call.now("hasty", **more), "remaining") for name, more in times.items()}
    assert {name for name, left in told.items() if 0 < left <= 5} == {"none", "zero"}
    assert {name for name, left in told.items() if 5 < left <= 60} == {"longer", "by transport", "in digits"}


# === wishes that cannot be read ===


@pytest.mark.parametrize(("wish", "parts"), [
    ({"priority": 9}, ["parameter 'priority' is 9", "a level from 1, first, to 8, last"]),
    ({"priority": 2**64 - 1}, ["parameter 'priority' is 18446744073709551615"]),
    ({"timeout": -1}, ["parameter 'timeout' is -1", "microseconds"]),
    ({"headers": {"x-priority": "high"}}, ["header 'x-priority' is 'high'", "a level from 1"]),
    ({"headers": {"x-priority": "-1"}}, ["header 'x-priority' is '-1'"]),
    ({"headers": {"x-tenant": "t" * 129}}, ["header 'x-tenant' has 129 bytes", "at most 128"]),
])  # fmt: skip
def test_tritonclient_is_told_which_wish_cannot_be_read(client, wish, parts):
    error = client.begin("never", **wish).exception(WATCHDOG_S)
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert all(part in error.message() for part in parts), error.message()


@pytest.mark.parametrize(("name", "field", "value", "part"), [
    ("priority", "double_param", 1.0, "parameter 'priority' is 1.0"),
    ("priority", "bool_param", True, "parameter 'priority' is true"),
    ("priority", "string_param", "1", "parameter 'priority' is '1'"),
    ("timeout", "double_param", 1.5, "parameter 'timeout' is 1.5"),
    ("timeout", "string_param", "1s", "parameter 'timeout' is '1s'"),
])  # fmt: skip
def test_a_wish_of_another_type_is_named_with_its_value(one, calls, name, field, value, part):
    message = infer("plain", text("name", "never"))
    setattr(message.parameters[name], field, value)
    error = failure(calls(one).service.ModelInfer.future(message))
    assert (anyserve_code(error), part in error.details()) == ("INVALID_INPUT", True), error.details()
    assert "never" not in one.note("order")


# === tenants ===


def test_tenants_share_as_their_weights_say_and_a_priority_goes_before_all_of_them(replica, calls):
    served = replica(*APP, "--tenant-weight", "big=4", "--tenant-weight", "middle=2")
    held = Held(calls(served), "plain")
    with triton.InferenceServerClient(served.endpoint) as made:
        client = Triton(made)
        for place in range(14):
            for tenant in ("small", "middle", "big"):
                held.add(client.begin(f"{tenant}-{place}", headers={"x-tenant": tenant}))
        held.add(client.begin("urgent", headers={"x-tenant": "small"}, priority=1))
        ran = order(held)
    assert ran[0] == "urgent"
    tenants = [name.partition("-")[0] for name in ran[1:15]]
    counts = {tenant: tenants.count(tenant) for tenant in ("small", "middle", "big")}
    expected = {"small": 2, "middle": 4, "big": 8}
    assert all(abs(counts[tenant] - expected[tenant]) <= 1 for tenant in expected), ran
    for tenant in counts:
        assert [name for name in ran if name.startswith(tenant)] == [f"{tenant}-{place}" for place in range(14)]


def test_in_a_full_queue_the_tenant_with_more_than_its_share_gives_way(one, calls):
    held = Held(calls(one), "narrow")
    loud = [held.begin(f"loud-{place}", headers={"x-tenant": "loud"}) for place in range(4)]
    own = held.call.refused("narrow", headers={"x-tenant": "loud"})
    assert anyserve_code(own) == "OVERLOADED"
    quiet = held.call.begin("narrow", headers={"x-tenant": "quiet"})
    assert code_of(loud[-1]) == "OVERLOADED"
    assert comes_with_a_time_to_wait(failure(loud[-1]))
    held.release()
    assert all(one.result(WATCHDOG_S).outputs for one in [*loud[:-1], quiet])


@pytest.mark.parametrize(("weight", "part"), [
    ("big", "big"), ("=3", "=3"), ("big=0", "0"), ("big=-1", "-1"), ("big=much", "much"),
])  # fmt: skip
def test_a_weight_that_cannot_be_read_ends_the_start(weight, part):
    target = ("tests/e2e/apps/scheduling.py:create", "--factory", "--port", "0")
    done = anyserve("serve", *target, "--tenant-weight", weight)
    assert done.returncode == 2, done.stderr
    assert "tenant" in done.stderr
    assert part in done.stderr
    assert "serving" not in done.stdout


# === what is told of queues ===


def ready_row(served: Replica, capability: str) -> dict[str, Any]:
    status, body = served.http("/health/ready")
    assert status == 200, "a queue is no reason to be restarted"
    (row,) = [row for row in json.loads(body)["capabilities"] if row["capability"] == f"type={capability}"]
    return row


def test_health_and_metrics_tell_what_waits_and_what_is_full_until_it_is_over(replica, calls):
    served = replica(*APP)
    held = Held(calls(served), "narrow")
    for count in range(4):
        row = ready_row(served, "narrow")
        assert (row["queued"], row["max_queue"], row["saturated"], row["ready"]) == (count, 4, False, True)
        assert served.metric("anyserve_capability_queue_depth", model="narrow") == count
        assert served.metric("anyserve_capability_saturated", model="narrow") == 0
        held.begin(f"waits-{count}")
    row = ready_row(served, "narrow")
    assert (row["queued"], row["saturated"], row["ready"]) == (4, True, True)
    assert served.metric("anyserve_capability_saturated", model="narrow") == 1
    assert served.metric("anyserve_queue_depth") == served.metric("anyserve_capability_queue_depth") == 4
    assert served.metric("anyserve_worker_requests") == 1
    assert ready_row(served, "plain")["saturated"] is False
    assert served.metric("anyserve_capability_saturated") == 1
    with triton.InferenceServerClient(served.endpoint) as client, Client(served.endpoint) as own:
        assert client.is_server_ready()
        assert client.is_model_ready("narrow")
        with pytest.raises(errors.Overloaded, match="4 of 4 requests"):
            own.infer("narrow", {"name": ["refused"]})
    assert served.metric("anyserve_requests_total", model="narrow", code="OVERLOADED") == 1
    held.answers()
    until(lambda: served.metric("anyserve_worker_requests") == 0, "an idle worker")
    row = ready_row(served, "narrow")
    assert (row["queued"], row["saturated"]) == (0, False)
    assert served.metric("anyserve_capability_saturated") == served.metric("anyserve_queue_depth") == 0
    assert served.metric("anyserve_requests_total", model="narrow", code="OK") == 5
