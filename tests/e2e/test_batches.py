"""Handlers that take lists: who shares a call and who does not, and that each request keeps its own answer and end."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from anyserve import Client, errors
from tests.e2e.conftest import serving
from tests.e2e.held import Held, clients, names_like
from tests.e2e.messages import anyserve_code, infer, tensor, text
from tests.e2e.replicas import WATCHDOG_S, Replica, anyserve, until
from tests.guarantees.calls import ATTEMPTS, Calls, attempts_of, code_of, failure, number, pid_of

SERIAL = ("batches.py:create_serial", "--factory")
MIXED = ("batches.py:create_mixed", "--factory")
SOON_S = 0.5
MIB = 1 << 20


@pytest.fixture(scope="module")
def one_thread(tmp_path_factory) -> Iterator[Replica]:
    """One worker whose only thread runs every handler."""
    with serving(tmp_path_factory.mktemp("one-thread") / "replica", *SERIAL) as served:
        yield served


@pytest.fixture(scope="module")
def threads(tmp_path_factory) -> Iterator[Replica]:
    """One worker with threads and coroutines."""
    with serving(tmp_path_factory.mktemp("threads") / "replica", *MIXED) as served:
        yield served


@pytest.fixture
def calls(channel) -> Iterator[Callable[[Replica], Calls]]:
    with clients(channel) as make:
        yield make


@pytest.fixture(params=["one thread", "a thread of its own", "a coroutine"])
def batched(request, calls) -> tuple[Calls, str]:
    """A client, and a model that puts requests together, for every way in which a worker runs it."""
    if request.param == "one thread":
        return calls(request.getfixturevalue("one_thread")), "together"
    model = "together" if request.param == "a thread of its own" else "together-async"
    return calls(request.getfixturevalue("threads")), model


@contextmanager
def own_client(served: Replica) -> Iterator[Callable[[str, str], Future]]:
    """Begins calls by `anyserve.Client`, each in a thread of its own."""
    with Client(served.endpoint) as client, ThreadPoolExecutor(8) as pool:
        yield lambda model, name: pool.submit(client.infer, model, {"name": [name]}, timeout_s=WATCHDOG_S)


# === requests that wait together ===


def batch(call: Calls, model: str, names: Sequence[str], **more: Any) -> list[grpc.Future]:
    """Have these requests share one call."""
    held = Held(call, model)
    begun = [held.begin(name, **more) for name in names]
    held.release()
    assert held.first.result(WATCHDOG_S).outputs
    return begun


def together(answer: Any) -> list[str]:
    """The names of the requests that shared a call, as the answer of one of them says."""
    return [name.decode() for name in triton.InferResult(answer).as_numpy("together")]


def calls_of(call: Calls, model: str, name: str) -> list[list[str]]:
    """The calls of a handler that a request was in, as the handler noted them."""
    noted = (line.split(" ") for line in call.replica.note(f"calls-{model}"))
    return [names for names in noted if name in names]


# === who shares a call ===


def test_requests_that_wait_share_a_call_and_each_gets_its_own_answer(batched):
    call, model = batched
    names = names_like("a", "b", "c", "d", "e")
    answers = [one.result(WATCHDOG_S) for one in batch(call, model, names)]
    assert [together(answer) for answer in answers] == [names] * 5
    assert [calls_of(call, model, name) for name in names] == [[names]] * 5
    assert not any(ATTEMPTS in answer.parameters for answer in answers)


def test_a_lonely_request_is_a_batch_of_one(batched):
    call, model = batched
    (name,) = names_like("lonely")
    assert together(call.now(model, name)) == [name]


def test_no_more_requests_share_a_call_than_one_call_takes(batched):
    call, model = batched
    names = names_like(*(f"{place:02}" for place in range(19)))
    answers = [one.result(WATCHDOG_S) for one in batch(call, model, names)]
    assert [together(answer) for answer in answers] == [names[:8]] * 8 + [names[8:16]] * 8 + [names[16:]] * 3


def test_a_largest_batch_of_one_is_a_list_of_one_each_time(one_thread, calls):
    names = names_like("a", "b", "c")
    answers = [one.result(WATCHDOG_S) for one in batch(calls(one_thread), "one", names)]
    assert [together(answer) for answer in answers] == [[name] for name in names]


def test_requests_of_any_client_share_a_call(threads, calls):
    call = calls(threads)
    mine, theirs, typed = names_like("stub", "triton", "anyserve")
    held, answers = Held(call, "together"), []
    held.begin(mine)
    with triton.InferenceServerClient(threads.endpoint) as client, own_client(threads) as begin:
        name = triton.InferInput("name", [1], "BYTES")
        name.set_data_from_numpy(np.array([theirs.encode()], object))
        client.async_infer("together", [name], lambda result, error: answers.append(result or error))
        call.queued(2)
        later = begin("together", typed)
        call.queued(3)
        held.release()
        until(lambda: answers, "tritonclient's answer")
        wanted = [mine, theirs, typed]
        assert together(answers[0].get_response()) == together(held.waiting[0].result(WATCHDOG_S))
        assert together(answers[0].get_response()) == [one.decode() for one in later.result(WATCHDOG_S)["together"]]
        assert sorted(together(answers[0].get_response())) == sorted(wanted)


def rows(name: str, shape: list[int], datatype: str = "FP32") -> Any:
    """A request with a tensor of this shape beside its name."""
    size = int(np.prod(shape)) * {"FP32": 4, "FP64": 8}[datatype]
    raw = [len(name).to_bytes(4, "little") + name.encode(), bytes(size)]
    return infer("together", tensor("name", "BYTES", [1]), tensor("x", datatype, shape), raw=raw)


def test_only_requests_of_one_shape_past_the_first_axis_share_a_call(one_thread, calls):
    names = names_like("short", "long", "wide", "double", "deep", "alone", "again")
    short, long, wide, double, deep, alone, again = names
    shapes = {short: [1, 3], long: [5, 3], wide: [1, 4], double: [1, 3], deep: [1, 3, 1], again: [2, 3]}
    held = Held(calls(one_thread), "together")
    for name, shape in shapes.items():
        held.send(rows(name, shape, "FP64" if name == double else "FP32"))
    held.begin(alone)
    shared = [together(answer) for answer in held.answers()]
    alike = [short, long, again]
    assert shared == [alike, alike, [wide], [double], [deep], alike, [alone]]


def test_only_requests_that_want_the_same_outputs_share_a_call(one_thread, calls):
    call = calls(one_thread)
    wanted = {"all": [], "some": ["together"], "both": ["pid", "together"], "turned": ["together", "pid"]}
    names = dict(zip(wanted, names_like(*wanted), strict=True))
    held = Held(call, "together")
    for key, outputs in wanted.items():
        held.send(infer("together", text("name", names[key]), outputs=outputs))
    answers = dict(zip(wanted, held.answers(), strict=True))
    pair = [names["both"], names["turned"]]
    shared = {key: together(answer) for key, answer in answers.items()}
    assert shared == {"all": [names["all"]], "some": [names["some"]], "both": pair, "turned": pair}
    given = {key: {output.name for output in answer.outputs} for key, answer in answers.items()}
    assert given == {key: set(outputs or ["pid", "together"]) for key, outputs in wanted.items()}


def test_requests_share_a_call_whatever_their_ids_parameters_priorities_and_tenants(one_thread, calls):
    held = Held(calls(one_thread), "together")
    names = names_like("plain", "urgent", "tenant", "parameter", "late")
    wishes = [{}, {"parameters": {"priority": 1}}, {"headers": {"x-tenant": "blue"}}, {"parameters": {"k": "v"}},
              {"timeout_s": 600}]  # fmt: skip
    for name, more in zip(names, wishes, strict=True):
        held.begin(name, **more)
    shared = [together(answer) for answer in held.answers()]
    assert all(sorted(one) == sorted(names) for one in shared)
    assert shared[0][0] == names[1], "the most urgent one is the first of the list"


def test_a_large_tensor_comes_through_a_batch_bit_by_bit(one_thread, calls):
    call = calls(one_thread)
    chance = np.random.default_rng(5)
    sent = [chance.bytes(size) for size in (8 * MIB, 3 * MIB + 1, 0, 17, 8 * MIB)]
    held = Held(call, "echo")
    message = infer("echo", tensor("name", "BYTES", [1]), tensor("x", "UINT8", [0]))
    for data in sent:
        message.inputs[1].shape[0] = len(data)
        del message.raw_input_contents[:]
        message.raw_input_contents.extend([b"\x01\0\0\0x", data])
        held.send(message)
    answers = held.answers()
    assert [answer.parameters["together"].int64_param for answer in answers] == [5] * 5
    assert [list(answer.outputs[1].shape) for answer in answers] == [[len(data)] for data in sent]
    assert [answer.raw_output_contents[1] == data for answer, data in zip(answers, sent, strict=True)] == [True] * 5


def test_what_is_larger_than_one_message_together_is_several_calls(replica, calls):
    call = calls(replica(*SERIAL, "--max-message-mb", "1"))
    held, size = Held(call, "echo"), 400 << 10
    tensors = tensor("name", "BYTES", [1]), tensor("x", "UINT8", [size])
    for _ in range(5):
        held.send(infer("echo", *tensors, raw=[b"\x01\0\0\0x", bytes(size)]))
    shared = [answer.parameters["together"].int64_param for answer in held.answers()]
    assert sorted(shared) == [1, 2, 2, 2, 2]


def test_of_two_hundred_requests_each_gets_its_own_back_from_a_full_batch(one_thread, calls):
    held = Held(calls(one_thread), "echo")
    begun = [held.call.begin("echo", f"name-{place}") for place in range(200)]
    held.call.queued(200)
    held.release()
    answers = [one.result(WATCHDOG_S) for one in begun]
    assert [answer.raw_output_contents[0][4:].decode() for answer in answers] == [f"name-{n}" for n in range(200)]
    assert {answer.parameters["together"].int64_param for answer in answers} == {8}


def test_requests_of_one_stream_share_a_call_and_are_answered_in_their_order(threads, calls):
    held = Held(calls(threads), "together")
    names = names_like("d", "c", "b", "a")
    stream = held.call.service.ModelStreamInfer(infer("together", text("name", name), id=name) for name in names)
    held.call.queued(4)
    held.release()
    answers = [one.infer_response for one in stream]
    assert [answer.id for answer in answers] == names
    assert {tuple(together(answer)) for answer in answers} == {tuple(names)}


# === a delay ===


def test_an_idle_handler_waits_for_nobody_however_long_it_might(one_thread, calls):
    call = calls(one_thread)
    for name in names_like("a", "b", "c"):
        # It would be too late after the ten seconds.
        assert together(call.now("patient", name, timeout_s=8)) == [name]


def test_after_a_burst_the_next_one_gathers_until_it_is_as_large(replica, calls):
    call = calls(replica(*SERIAL))
    first = names_like("a", "b", "c", "d")
    assert {tuple(together(one.result(WATCHDOG_S))) for one in batch(call, "patient", first)} == {tuple(first)}
    second = names_like("e", "f", "g", "h")
    begun = []
    for name in second[:-1]:
        begun.append(call.begin("patient", name))
        call.queued(len(begun))
    last = call.begin("patient", second[-1])
    assert {tuple(together(one.result(WATCHDOG_S))) for one in [*begun, last]} == {tuple(second)}


# === errors ===


def test_in_a_batch_that_raises_only_the_culprits_fail_each_with_its_own_error(batched):
    call, model = batched
    names = names_like("a", "bad-b", "c", "d", "bad-e", "f")
    begun = dict(zip(names, batch(call, model, names), strict=True))
    for name, one in begun.items():
        if name.startswith("bad"):
            assert (code_of(one), failure(one).details()) == ("HANDLER_ERROR", f"ValueError: {name} is bad")
        else:
            assert name in together(one.result(WATCHDOG_S))
    assert {tuple(calls_of(call, model, name)[0]) for name in names} == {tuple(names)}
    assert [calls_of(call, model, name)[-1] for name in (names[1], names[4])] == [[names[1]], [names[4]]]


def test_a_batch_that_does_not_raise_is_run_once(batched):
    call, model = batched
    names = names_like("a", "wrong-b", "c")
    begun = batch(call, model, names)
    assert [one.exception(WATCHDOG_S) is None for one in begun] == [True, False, True]
    assert calls_of(call, model, names[1]) == [names]


def test_an_exception_in_the_list_is_the_error_of_that_request_alone(batched):
    call, model = batched
    names = names_like("a", "wrong-b", "wrong-c", "d")
    a, b, c, d = batch(call, model, names)
    for name, one in zip(names[1:3], (b, c), strict=True):
        error = failure(one)
        assert (error.code(), anyserve_code(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
        assert error.details() == f"{name} is wrong"
    assert together(a.result(WATCHDOG_S)) == together(d.result(WATCHDOG_S)) == names


def test_a_lonely_request_that_raises_fails_as_any_other(batched):
    call, model = batched
    (name,) = names_like("bad")
    error = call.refused(model, name)
    assert (anyserve_code(error), error.details()) == ("HANDLER_ERROR", f"ValueError: {name} is bad")
    assert calls_of(call, model, name) == [[name]]


@pytest.mark.parametrize(("kind", "returned"), [
    ("long", "a list of 5"), ("short", "a list of 2"), ("none", "NoneType"), ("dict", "dict"),
])  # fmt: skip
def test_another_number_of_answers_is_the_handlers_error_and_says_both(threads, calls, kind, returned):
    begun = batch(calls(threads), "lengths", names_like(kind, "b", "c"))
    for one in begun:
        assert code_of(one) == "HANDLER_ERROR"
        assert f"'lengths' returned {returned} for 3 requests" in failure(one).details()


# === members that end by themselves ===


def test_a_member_whose_caller_leaves_costs_the_others_nothing(threads, calls):
    call = calls(threads)
    names = names_like("leaving", "b", "gated")
    held = Held(call, "contexts")
    leaving, *others = (held.begin(name) for name in names)
    held.release()
    threads.noted(f"started-{names[2]}")
    leaving.cancel()
    call.in_flight(2)
    threads.allow(f"go-{names[2]}")
    assert {number(one.result(WATCHDOG_S), "size") for one in others} == {3}
    assert threads.noted(f"left-{names[0]}")


def test_a_member_whose_time_is_over_costs_the_others_nothing(replica, calls):
    served = replica(*MIXED)
    call = calls(served)
    held = Held(call, "contexts")
    late = held.begin("late", timeout_s=SOON_S)
    others = [held.begin(name) for name in ("b", "gated-c")]
    held.release()
    assert code_of(late) == "DEADLINE"
    served.allow("go-gated-c")
    assert {number(one.result(WATCHDOG_S), "size") for one in others} <= {2, 3}
    assert call.now("contexts", "next").outputs


def test_who_leaves_before_the_call_is_not_in_it(batched):
    call, model = batched
    held = Held(call, model)
    names = names_like("a", "gone", "c")
    a, gone, c = (held.begin(name) for name in names)
    gone.cancel()
    call.queued(2)
    held.release()
    assert together(a.result(WATCHDOG_S)) == together(c.result(WATCHDOG_S)) == [names[0], names[2]]
    assert calls_of(call, model, names[1]) == []


# === contexts ===


def test_each_member_has_a_context_of_its_own(threads, calls):
    held = Held(calls(threads), "contexts")
    for place, metadata in enumerate([[("grpc-timeout", "600S")], [("x-colour", "blue")], []]):
        held.send(infer("contexts", text("name", f"m{place}"), id=f"id-{place}"), metadata)
    keys = ("id", "colour", "attempt", "remaining", "size")
    results = map(triton.InferResult, held.answers())
    seen = [{key: result.as_numpy(key).item() for key in keys} for result in results]
    assert [one["id"] for one in seen] == [b"id-0", b"id-1", b"id-2"]
    assert [one["colour"] for one in seen] == [b"none", b"blue", b"none"]
    assert 0 < seen[0]["remaining"] <= 600
    assert [one["remaining"] for one in seen[1:]] == [-1, -1]
    assert {(one["attempt"], one["size"]) for one in seen} == {(1, 3)}


# === a worker's death ===


def killed(served: Replica, call: Calls, model: str) -> tuple[int, list[grpc.Future]]:
    """Have four requests share a call, and kill their worker while the other one is busy."""
    busy, other = Held(call, model), Held(call, model)
    assert {busy.pid, other.pid} == served.workers()
    begun = [busy.begin(name) for name in ["a", "b", "c", "gated-d"]]
    busy.release()
    pid, size = map(int, served.noted("started-gated-d")[0].split())
    assert (pid, size) == (busy.pid, len(begun))
    os.kill(pid, signal.SIGKILL)
    served.allow("go-gated-d")
    other.release()
    assert pid_of(other.first.result(WATCHDOG_S)) == other.pid
    return pid, begun


def test_a_killed_workers_batch_is_answered_by_another_if_running_it_twice_does_no_harm(replica, calls):
    served = replica(*MIXED, "--workers", "2")
    pid, begun = killed(served, calls(served), "lethal-idempotent")
    answers = [one.result(WATCHDOG_S) for one in begun]
    assert [(attempts_of(answer), number(answer, "size")) for answer in answers] == [(2, 1)] * 4
    assert pid not in {pid_of(answer) for answer in answers}
    assert served.metric("anyserve_retries_total") == 4


def test_a_killed_workers_batch_is_lost_otherwise_and_was_run_once(replica, calls):
    served = replica(*MIXED, "--workers", "2")
    call = calls(served)
    _, begun = killed(served, call, "lethal")
    assert {code_of(one) for one in begun} == {"WORKER_LOST"}
    assert [len(calls_of(call, "lethal", name)) for name in "abc"] == [1, 1, 1]


def test_of_a_batch_that_kills_its_worker_the_culprit_is_found_and_the_others_are_answered(replica, calls):
    served = replica(*MIXED)
    call = calls(served)
    a, culprit, c = batch(call, "lethal-idempotent", ["a", "lethal-b", "c"])
    assert code_of(culprit) == "POISON"
    assert [attempts_of(one.result(WATCHDOG_S)) for one in (a, c)] == [2, 2]
    assert calls_of(call, "lethal", "lethal-b") == [["a", "lethal-b", "c"], ["lethal-b"]]


# === what is told of it ===


def test_the_config_tells_tritonclient_of_the_batches(one_thread):
    with triton.InferenceServerClient(one_thread.endpoint) as client:
        config = {model: client.get_model_config(model).config for model in ("together", "patient")}
    assert all(one.HasField("dynamic_batching") for one in config.values())
    told = {model: one.dynamic_batching for model, one in config.items()}
    assert {model: list(one.preferred_batch_size) for model, one in told.items()} == {"together": [8], "patient": [8]}
    assert [told[model].max_queue_delay_microseconds for model in ("together", "patient")] == [0, 10_000_000]
    assert [told[model].default_priority_level for model in ("together", "patient")] == [4, 2]
    # Another number would mean that the first axis is not in the declared shapes.
    assert {one.max_batch_size for one in config.values()} == {0}


MISUSES = {
    "a delay without batches": ("max_delay_ms=5", "def f(request): ...", "max_delay_ms=5", "add max_batch_size=32"),
    "a stream": ("max_batch_size=8, stream=True", "def f(requests): ...", "max_batch_size=8 with stream=True"),
    "a sequence": ("max_batch_size=8, sequence=True", "def f(requests): ...", "max_batch_size=8 with sequence=True"),
    "a generator": ("max_batch_size=8", "def f(requests):\n    yield 1", "'f' yields", "return a list"),
    "inputs by name": ("max_batch_size=8", "def f(x): ...", "inputs by name", "requests: list[ModelInferRequest]"),
    "one request": ("max_batch_size=8", "def f(request): ...", "one request", "requests: list[ModelInferRequest]"),
    "a list without batches": ("concurrency=2", "def f(requests): ...", "takes a list", "add max_batch_size=32"),
    "too many": ("max_batch_size=257", "def f(requests): ...", "max_batch_size=257", "from 1 to 256"),
    "too long": ("max_batch_size=8, max_delay_ms=10001", "def f(requests): ...", "max_delay_ms=10001", "0 to 10000"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISUSES)
def test_a_misused_option_ends_the_start_with_the_fix(tmp_path, what):
    options, function, *parts = MISUSES[what]
    app, declared = tmp_path / "misuse.py", f"@app.capability(type='x', {options})\n{function}\n"
    app.write_text(f"from anyserve import AnyServe\napp = AnyServe()\n{declared}")
    done = anyserve("serve", f"{app}:app", "--port", "0")
    assert done.returncode == 2, done.stderr
    for part in [*parts, "misuse.py"]:
        assert part in done.stderr, done.stderr


def test_the_errors_of_a_batch_are_the_clients_own_types(threads, calls):
    held = Held(calls(threads), "together")
    with own_client(threads) as begin:
        begun = [begin("together", name) for name in names_like("bad", "wrong", "good")]
        held.call.queued(3)
        held.release()
        assert [type(one.exception(WATCHDOG_S)) for one in begun] == [
            errors.HandlerError, errors.InvalidInput, type(None)
        ]  # fmt: skip
