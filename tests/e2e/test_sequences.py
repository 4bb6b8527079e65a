"""Sequences: requests that keep to one worker, one at a time and in order, from their start to their end."""

import itertools
import os
import queue
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from anyserve import Client, errors
from tests.e2e.conftest import serving
from tests.e2e.held import clients
from tests.e2e.messages import anyserve_code, infer, stub, text
from tests.e2e.replicas import WATCHDOG_S, Replica, until
from tests.guarantees.calls import Calls, code_of, failure

APP = ("sequences.py:create", "--factory")
SERIAL = ("sequences.py:create_serial", "--factory")

ids = itertools.count(1)
"""A sequence of its own for every test."""


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Iterator[Replica]:
    """Two workers that keep several sequences each."""
    with serving(tmp_path_factory.mktemp("two") / "replica", *APP, "--workers", "2") as served:
        yield served


@pytest.fixture
def calls(channel) -> Iterator[Callable[[Replica], Calls]]:
    with clients(channel) as make:
        yield make


# === messages ===


def said(sequence: int | str | None, name: str, *, start: bool = False, end: bool = False, model: str = "tally") -> Any:
    """A request of a sequence."""
    message = infer(model, text("name", name), id=name)
    if sequence is not None:
        field = "string_param" if isinstance(sequence, str) else "int64_param"
        setattr(message.parameters["sequence_id"], field, sequence)
    message.parameters["sequence_start"].bool_param = start
    message.parameters["sequence_end"].bool_param = end
    return message


class Talk:
    """One sequence, by hand: what is said is under way until it is looked at."""

    def __init__(self, call: Calls, sequence: int | str | None = None, model: str = "tally") -> None:
        self.call, self.model = call, model
        self.sequence = next(ids) if sequence is None else sequence

    def begin(self, name: str, **more: bool) -> grpc.Future:
        return self.call.service.ModelInfer.future(said(self.sequence, name, model=self.model, **more))

    def say(self, name: str, **more: bool) -> tuple[list[str], int]:
        """What the handler was told in this sequence so far, and by which worker it is kept."""
        return heard(self.begin(name, **more).result(WATCHDOG_S))

    def gated(self, **more: bool) -> tuple[str, grpc.Future]:
        """Have the handler wait with a request of this sequence, and give its name."""
        name = f"gated-{next(ids)}"
        begun = self.begin(name, **more)
        self.call.replica.noted(f"started-{name}")
        return name, begun


def heard(answer: Any) -> tuple[list[str], int]:
    result = answer if isinstance(answer, triton.InferResult) else triton.InferResult(answer)
    return [name.decode() for name in result.as_numpy("told")], result.as_numpy("pid").item()


def refused(call: Calls, message: Any, code: str, *parts: str) -> grpc.RpcError:
    """The request must fail with this code and a message with these parts."""
    error = failure(call.service.ModelInfer.future(message))
    assert anyserve_code(error) == code, error
    for part in parts:
        assert part in error.details(), (part, error.details())
    return error


def name_of(name: str) -> list[triton.InferInput]:
    made = triton.InferInput("name", [1], "BYTES")
    made.set_data_from_numpy(np.array([name.encode()], object))
    return [made]


# === one worker, in order ===


@pytest.mark.parametrize("model", ["tally", "tally-async"])
def test_a_sequence_of_tritonclients_keeps_its_worker_and_its_order_among_many(two, model):
    names = [f"step-{step}" for step in range(12)]

    def talk(sequence: int) -> list[tuple[list[str], int]]:
        with triton.InferenceServerClient(two.endpoint) as client:
            return [
                heard(client.infer(model, name_of(name), sequence_id=sequence, sequence_start=name == names[0],
                                   sequence_end=name == names[-1]))
                for name in names
            ]  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        talks = list(pool.map(talk, itertools.islice(ids, 8)))
    for steps in talks:
        assert [told for told, _ in steps] == [names[: place + 1] for place in range(len(names))]
        assert len({pid for _, pid in steps}) == 1


def test_requests_of_one_sequence_wait_for_each_other_though_another_worker_is_idle(two, calls):
    call = calls(two)
    talk = Talk(call)
    gate, first = talk.gated(start=True)
    names = [f"later-{place}" for place in range(10)]
    later = []
    for name in names:
        later.append(talk.begin(name, end=name == names[-1]))
        call.in_flight(1 + len(later))
    assert call.service.ModelInfer(said(next(ids), "other", start=True, end=True)).outputs
    assert not any(one.done() for one in later)
    two.allow(f"go-{gate}")
    _, pid = heard(first.result(WATCHDOG_S))
    steps = [heard(one.result(WATCHDOG_S)) for one in later]
    assert steps == [([gate, *names[: place + 1]], pid) for place in range(len(names))]


@pytest.mark.parametrize("model", ["tally", "tally-async"])
def test_sequences_that_interleave_know_nothing_of_each_other(two, calls, model):
    talks = {name: Talk(calls(two), model=model) for name in "abcd"}
    for step in range(5):
        for name, talk in talks.items():
            told, _ = talk.say(f"{name}{step}", start=step == 0, end=step == 4)
            assert told == [f"{name}{earlier}" for earlier in range(step + 1)]


def test_sequences_on_one_worker_run_at_the_same_time(replica, calls):
    served = replica(*APP)
    call = calls(served)
    held = [Talk(call).gated(start=True) for _ in range(3)]
    for name, _ in held:
        served.allow(f"go-{name}")
    assert len({heard(begun.result(WATCHDOG_S))[1] for _, begun in held}) == 1


def test_a_number_and_a_text_name_different_sequences(two, calls):
    number = next(ids)
    by_number, by_text = Talk(calls(two), number), Talk(calls(two), str(number))
    by_number.say("a", start=True)
    by_text.say("x", start=True)
    assert (by_number.say("b")[0], by_text.say("y")[0]) == (["a", "b"], ["x", "y"])


def test_sequences_of_different_models_may_have_one_name(two, calls):
    first, second = (Talk(calls(two), "shared", model) for model in ("tally", "tally-async"))
    first.say("a", start=True)
    assert second.say("x", start=True)[0] == ["x"]
    assert (first.say("b")[0], second.say("y")[0]) == (["a", "b"], ["x", "y"])


def test_texts_name_sequences_for_every_client(two):
    with triton.InferenceServerClient(two.endpoint) as client:
        say = partial(client.infer, "tally", sequence_id="chat of Ada")
        _, pid = heard(say(name_of("a"), sequence_start=True))
        assert heard(say(name_of("b"))) == (["a", "b"], pid)
    with Client(two.endpoint) as own:
        answer = own.infer("tally", {"name": ["c"]}, parameters={"sequence_id": "chat of Ada", "sequence_end": True})
        assert (answer["told"].tolist(), answer["pid"][0]) == ([b"a", b"b", b"c"], pid)


# === start and end ===


def unknown(sequence: int | str) -> str:
    return f"sequence {sequence!r} is not known here: its first request must set 'sequence_start'"


@pytest.mark.parametrize("sequence", [123456, "never started"])
def test_a_sequence_begins_with_its_start(two, calls, sequence):
    error = refused(calls(two), said(sequence, "a"), "INVALID_INPUT", unknown(sequence))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("sequence", [None, 0, ""])
def test_a_request_without_a_sequence_is_told_what_is_missing(two, calls, sequence):
    refused(calls(two), said(sequence, "a", start=True), "INVALID_INPUT", "the parameter 'sequence_id' must name one")


def test_tritonclient_is_told_as_well(two):
    with triton.InferenceServerClient(two.endpoint) as client:
        for sequence, part in [(0, "the parameter 'sequence_id' must name one"), (987654, unknown(987654))]:
            with pytest.raises(triton.InferenceServerException, match=part) as raised:
                client.infer("tally", name_of("a"), sequence_id=sequence)
            assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(("name", "field", "value", "part"), [
    ("sequence_id", "int64_param", -7, "parameter 'sequence_id' is -7, expected a whole number from 0, or a text"),
    ("sequence_id", "string_param", "x" * 129, "parameter 'sequence_id' has 129 bytes, expected at most 128"),
    ("sequence_start", "int64_param", 1, "parameter 'sequence_start' is 1, expected true or false"),
    ("sequence_end", "string_param", "yes", "parameter 'sequence_end' is 'yes', expected true or false"),
])  # fmt: skip
def test_a_parameter_of_another_kind_is_named_with_its_value(two, calls, name, field, value, part):
    message = said(next(ids), "a", start=True)
    message.parameters[name].Clear()
    setattr(message.parameters[name], field, value)
    refused(calls(two), message, "INVALID_INPUT", part)


def test_a_second_start_begins_anew(two, calls):
    talk = Talk(calls(two))
    talk.say("a", start=True)
    talk.say("b")
    assert talk.say("c", start=True)[0] == ["c"]
    assert talk.say("d")[0] == ["c", "d"]


def test_after_its_end_a_sequence_is_not_known_until_it_is_started_again(two, calls):
    talk = Talk(calls(two))
    talk.say("a", start=True)
    assert talk.say("b", end=True)[0] == ["a", "b"]
    refused(talk.call, said(talk.sequence, "c"), "INVALID_INPUT", unknown(talk.sequence))
    assert talk.say("d", start=True)[0] == ["d"]


def test_one_request_may_be_a_whole_sequence(two, calls):
    talk = Talk(calls(two))
    assert talk.say("a", start=True, end=True)[0] == ["a"]
    refused(talk.call, said(talk.sequence, "b"), "INVALID_INPUT", unknown(talk.sequence))


def test_an_end_and_a_new_start_that_wait_are_carried_out_in_order(two, calls):
    talk = Talk(calls(two))
    gate, first = talk.gated(start=True)
    last = talk.begin("last", end=True)
    talk.call.in_flight(2)
    again = talk.begin("again", start=True, end=True)
    talk.call.in_flight(3)
    two.allow(f"go-{gate}")
    told = [heard(one.result(WATCHDOG_S))[0] for one in (first, last, again)]
    assert told == [[gate], [gate, "last"], ["again"]]


def test_a_request_whose_caller_leaves_the_line_is_not_in_the_sequence(two, calls):
    talk = Talk(calls(two))
    gate, first = talk.gated(start=True)
    leaving = talk.begin("leaving")
    talk.call.in_flight(2)
    staying = talk.begin("staying", end=True)
    talk.call.in_flight(3)
    leaving.cancel()
    talk.call.in_flight(2)
    two.allow(f"go-{gate}")
    assert first.result(WATCHDOG_S).outputs
    assert heard(staying.result(WATCHDOG_S))[0] == [gate, "staying"]


def test_what_follows_a_start_that_never_ran_is_told_so(replica, calls):
    served = replica(*SERIAL)
    call = calls(served)
    gate, busy = Talk(call).gated(start=True)
    talk = Talk(call)
    start = talk.begin("start", start=True)
    call.in_flight(2)
    follower = talk.begin("follower")
    call.in_flight(3)
    start.cancel()
    assert code_of(follower) == "INVALID_INPUT"
    assert f"sequence {talk.sequence} never began" in failure(follower).details()
    served.allow(f"go-{gate}")
    assert busy.result(WATCHDOG_S).outputs
    assert not any("follower" in line for line in served.note("told"))


def test_the_config_tells_of_sequences(two):
    with triton.InferenceServerClient(two.endpoint) as client:
        assert client.get_model_config("tally").config.HasField("sequence_batching")


# === a worker's death ===


@pytest.mark.parametrize("model", ["tally", "tally-idempotent"])
def test_a_worker_that_is_killed_takes_its_sequences_with_it_until_they_are_started_again(replica, calls, model):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    mine, other = Talk(call, model=model), Talk(call, "of the other", model=model)
    gate, running = mine.gated(start=True)
    _, kept = other.say("a", start=True)
    pid = int(served.note(f"started-{gate}")[0])
    assert kept != pid, "an idle worker is chosen first"
    waiting = mine.begin("waiting")
    call.in_flight(2)
    os.kill(pid, signal.SIGKILL)
    lost = f"sequence {mine.sequence} ended: the worker that kept it died; start it again"
    assert (code_of(running), code_of(waiting)) == ("WORKER_LOST", "WORKER_LOST")
    assert failure(waiting).details().startswith(lost)
    for _ in range(2):
        error = refused(call, said(mine.sequence, "b", model=model), "WORKER_LOST", lost)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert other.say("b") == (["a", "b"], kept)
    assert mine.say("c", start=True)[0] == ["c"]
    assert mine.say("d", end=True)[0] == ["c", "d"]


def test_a_lost_sequence_is_an_error_of_its_own_type_for_the_client(replica):
    served = replica(*APP)
    with Client(served.endpoint) as client:
        say = partial(client.infer, "tally", {"name": ["a"]}, timeout_s=WATCHDOG_S)
        say(parameters={"sequence_id": 1, "sequence_start": True})
        os.kill(served.worker(), signal.SIGKILL)
        until(lambda: served.metric("anyserve_worker_restarts_total") == 1 and served.is_ready(), "another worker")
        with pytest.raises(errors.WorkerLost):
            say(parameters={"sequence_id": 1})
        assert say(parameters={"sequence_id": 1, "sequence_start": True})["told"].tolist() == [b"a"]


def test_a_worker_that_leaves_in_peace_finishes_what_runs_of_a_sequence(replica, calls):
    served = replica(*APP)
    talk = Talk(calls(served))
    gate, running = talk.gated(start=True)
    pid = served.worker()
    os.kill(pid, signal.SIGTERM)
    served.allow(f"go-{gate}")
    assert heard(running.result(WATCHDOG_S)) == ([gate], pid)
    until(lambda: served.is_ready() and served.workers() - {pid}, "another worker")
    refused(talk.call, said(talk.sequence, "b"), "WORKER_LOST", f"sequence {talk.sequence} ended")


# === idleness ===


def first_to_end(call: Calls) -> tuple[int, grpc.RpcError]:
    """Begin many sequences, and ask one after the other until one has ended: to be asked twice would keep it alive."""
    sequences = range(1, 401)
    begun = [call.service.ModelInfer.future(said(sequence, "a", start=True)) for sequence in sequences]
    assert all(one.result(WATCHDOG_S).outputs for one in begun)
    rest = iter(sequences)

    def ask() -> tuple[int, grpc.RpcError] | None:
        sequence = next(rest)
        error = call.service.ModelInfer.future(said(sequence, "b")).exception(WATCHDOG_S)
        return error and (sequence, error)

    return until(ask, "a sequence that has ended")


def test_a_sequence_that_nobody_goes_on_with_ends(replica, calls):
    served = replica(*APP, "--sequence-idle-s", "0.3")
    sequence, error = first_to_end(calls(served))
    assert anyserve_code(error) == "INVALID_INPUT"
    assert unknown(sequence) in error.details()
    assert "been idle for 300ms" in error.details()


def test_a_sequence_whose_request_runs_is_not_idle(replica, calls):
    served = replica(*APP, "--sequence-idle-s", "0.3")
    talk = Talk(calls(served), "long")
    gate, running = talk.gated(start=True)
    first_to_end(talk.call)
    behind = talk.begin("behind")
    talk.call.in_flight(2)
    served.allow(f"go-{gate}")
    assert running.result(WATCHDOG_S).outputs
    assert heard(behind.result(WATCHDOG_S))[0] == [gate, "behind"]


# === over one stream ===


class Stream:
    """A stream of tritonclient's with its answers in a queue."""

    def __init__(self, endpoint: str) -> None:
        self.client = triton.InferenceServerClient(endpoint)
        self.answers: queue.Queue = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def say(self, sequence: int | str, name: str, *, start: bool, end: bool, model: str = "tally") -> None:
        self.client.async_stream_infer(
            model, name_of(name), request_id=name, sequence_id=sequence, sequence_start=start, sequence_end=end
        )

    def answer(self) -> triton.InferResult:
        result, error = self.answers.get(timeout=WATCHDOG_S)
        assert error is None, error
        return result


@contextmanager
def streaming(served: Replica) -> Iterator[Stream]:
    stream = Stream(served.endpoint)
    yield stream
    stream.client.stop_stream()
    assert stream.answers.empty()
    stream.client.close()


def test_over_one_stream_a_sequence_keeps_the_order_in_which_it_was_sent(two):
    names, sequence = [f"s{step:03}" for step in range(100)], next(ids)
    with streaming(two) as stream:
        for name in names:
            stream.say(sequence, name, start=name == names[0], end=name == names[-1])
        steps = [heard(stream.answer()) for _ in names]
    assert [told for told, _ in steps] == [names[: place + 1] for place in range(len(names))]
    assert len({pid for _, pid in steps}) == 1


def test_over_one_stream_several_sequences_interleave(two):
    names = [f"{which}{step:02}" for step in range(20) for which in "abc"]
    sequences = {which: f"{which} of stream {next(ids)}" for which in "abc"}
    with streaming(two) as stream:
        for name in names:
            stream.say(sequences[name[0]], name, start=name[1:] == "00", end=name[1:] == "19")
        answers = [stream.answer() for _ in names]
    assert sorted(answer.get_response().id for answer in answers) == sorted(names)
    for which in "abc":
        own = [answer for answer in answers if answer.get_response().id[0] == which]
        assert [heard(answer)[0][-1] for answer in own] == [name for name in names if name[0] == which]
        assert len({heard(answer)[1] for answer in own}) == 1


def test_over_one_stream_an_unknown_sequence_is_an_error_and_the_stream_goes_on(two, channel):
    sequence = next(ids)
    messages = [said(sequence, "early"), said(sequence, "a", start=True), said(sequence, "b", end=True)]
    answers = list(stub(channel(two.endpoint)).ModelStreamInfer(iter(messages)))
    assert unknown(sequence) in answers[0].error_message
    assert [heard(answer.infer_response)[0] for answer in answers[1:]] == [["a"], ["a", "b"]]


def test_a_streaming_handler_gives_one_answer_to_its_end_before_the_sequence_goes_on(two):
    sequence = next(ids)
    with streaming(two) as stream:
        for name in "abc":
            stream.say(sequence, name, start=name == "a", end=name == "c", model="parts")
        told = [heard(stream.answer())[0][-1] for _ in range(9)]
    assert told == [f"{name}-{part}" for name in "abc" for part in range(3)]
