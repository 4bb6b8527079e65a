"""ModelStreamInfer as Triton defines it: many requests on one stream, each with any number of answers."""

import asyncio
import itertools
import queue
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.messages import INVALID, NOT_FOUND, UNIMPLEMENTED, infer, number, refused, stub, tensor, text
from tests.e2e.replicas import WATCHDOG_S, until

STREAMS = ["count", "count-sent", "count-async", "count-sent-async"]
names = (f"stream-{number}" for number in itertools.count())


def counting(model: str, count: int, *, name: str = "", size: int = 1, **more):
    """A request for so many parts."""
    return infer(model, text("name", name), number("count", count), number("size", size), **more)


def inputs_of(count: int, *, name: str = "", size: int = 1) -> list[triton.InferInput]:
    arrays = {"name": np.array([name.encode()], object), "count": np.array([count]), "size": np.array([size])}
    made = [triton.InferInput(key, [1], "BYTES" if key == "name" else "INT64") for key in arrays]
    for inp, array in zip(made, arrays.values(), strict=True):
        inp.set_data_from_numpy(array)
    return made


class Stream:
    """A stream of tritonclient's with its answers in a queue."""

    def __init__(self, endpoint: str, **more) -> None:
        self.client = triton.InferenceServerClient(endpoint)
        self.answers: queue.Queue = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), **more)

    def send(self, model: str, inputs: list[triton.InferInput], **more) -> None:
        self.client.async_stream_infer(model, inputs, **more)

    def answer(self):
        result, error = self.answers.get(timeout=WATCHDOG_S)
        assert error is None, error
        return result

    def part(self) -> int:
        return int(self.answer().as_numpy("part")[0])

    def error(self):
        result, error = self.answers.get(timeout=WATCHDOG_S)
        assert result is None
        return error

    def end(self, *, cancel: bool = False) -> None:
        self.client.stop_stream(cancel_requests=cancel)


@pytest.fixture
def stream(mixed) -> Iterator:
    """Opens streams, and ends them without an answer left over."""
    made: list[Stream] = []

    def open_stream(**more) -> Stream:
        made.append(Stream(mixed.endpoint, **more))
        return made[-1]

    yield open_stream
    for one in made:
        one.end()
        assert one.answers.empty()
        one.client.close()


@contextmanager
def by_hand(channel, *requests, **more):
    """A stream whose requests are put by hand; `None` ends them."""
    outgoing: queue.Queue = queue.Queue()
    for request in requests:
        outgoing.put(request)
    call = stub(channel).ModelStreamInfer(iter(outgoing.get, None), **more)
    try:
        yield call, outgoing
    finally:
        outgoing.put(None)
        call.cancel()


def echoed(value: int) -> list[triton.InferInput]:
    inp = triton.InferInput("x", [1], "INT64")
    inp.set_data_from_numpy(np.array([value]))
    return [inp]


# === answers ===


@pytest.mark.parametrize("model", STREAMS)
def test_a_stream_gives_every_part_in_order_under_the_requests_id(stream, model):
    one = stream()
    one.send(model, inputs_of(100, size=10), request_id="seven")
    results = [one.answer() for _ in range(100)]
    assert [int(result.as_numpy("part")[0]) for result in results] == list(range(100))
    assert {bytes(result.as_numpy("data")[0]) for result in results} == {b"x" * 10}
    assert {(result.get_response().id, result.get_response().model_name) for result in results} == {("seven", model)}


@pytest.mark.parametrize("model", ["count", "count-sent"])
def test_a_worker_with_one_thread_streams_as_well(serial, model):
    one = Stream(serial.endpoint)
    one.send(model, inputs_of(1000))
    assert [one.part() for _ in range(1000)] == list(range(1000))
    one.end()


def test_one_stream_carries_many_requests_of_many_models(stream):
    one = stream()
    for place in range(200):
        one.send("echo", echoed(place), request_id=str(place))
    for place in range(200):
        result = one.answer()
        assert (result.get_response().id, result.as_numpy("output_x").tolist()) == (str(place), [place])


def test_answers_of_ordinary_capabilities_keep_their_order(stream, mixed):
    one, name = stream(), next(names)
    slow = triton.InferInput("name", [1], "BYTES")
    slow.set_data_from_numpy(np.array([name.encode()], object))
    fast = triton.InferInput("name", [1], "BYTES")
    fast.set_data_from_numpy(np.array([f"{name}-fast".encode()], object))
    mixed.allow(f"go-{name}-fast")
    one.send("gate", [slow], request_id="first")
    one.send("gate-async", [fast], request_id="second")
    one.send("nobody", [fast], request_id="third")
    mixed.noted(f"ended-{name}-fast")
    mixed.allow(f"go-{name}")
    assert [one.answer().get_response().id, one.answer().get_response().id] == ["first", "second"]
    assert "nobody" in one.error().message()


def test_streaming_capabilities_interleave_on_one_stream(stream, mixed):
    one, first, second = stream(), f"gated-{next(names)}", f"gated-{next(names)}"
    one.send("count-async", inputs_of(2, name=first), request_id="first")
    one.send("count", inputs_of(2, name=second), request_id="second")
    seen = []
    for name, part in [(second, 0), (first, 0), (first, 1), (second, 1)]:
        mixed.allow(f"{name}-{part}")
        seen.append(one.answer().get_response().id)
    assert seen == ["second", "first", "first", "second"]


def test_an_ordinary_answer_does_not_wait_for_an_earlier_stream(stream, mixed):
    one, name = stream(), f"gated-{next(names)}"
    one.send("count", inputs_of(1, name=name), request_id="stream")
    one.send("echo", echoed(1), request_id="one")
    assert one.answer().get_response().id == "one"
    mixed.allow(f"{name}-0")
    assert one.answer().get_response().id == "stream"


def test_requests_that_were_sent_are_answered_after_the_client_has_sent_its_last(mixed, channel):
    requests = [counting("count", 3, id="a"), infer("echo", number("x", 1), id="b"), counting("count-async", 2, id="c")]
    answers = list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter(requests)))
    assert all(not answer.error_message for answer in answers)
    assert sorted(answer.infer_response.id for answer in answers) == ["a", "a", "a", "b", "c", "c"]


def test_a_stream_without_requests_ends_well(mixed, channel):
    assert list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter([]))) == []


@pytest.mark.parametrize("model", STREAMS)
def test_a_stream_may_have_no_answers_at_all(mixed, channel, model):
    assert list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter([counting(model, 0)]))) == []


# === the end of the answers ===


@pytest.mark.parametrize("model", STREAMS)
@pytest.mark.parametrize("count", [0, 3])
def test_the_end_of_a_stream_is_told_by_an_empty_answer_to_those_who_ask(stream, model, count):
    one = stream()
    one.send(model, inputs_of(count), request_id="7", enable_empty_final_response=True)
    answers = [one.answer().get_response() for _ in range(count + 1)]
    final = [answer.parameters["triton_final_response"].bool_param for answer in answers]
    assert final == [False] * count + [True]
    assert (answers[-1].id, answers[-1].model_name, len(answers[-1].outputs)) == ("7", model, 0)
    assert [len(answer.outputs) for answer in answers[:-1]] == [2] * count


def test_the_one_answer_of_an_ordinary_capability_is_the_final_one(stream):
    one = stream()
    one.send("echo", echoed(1), enable_empty_final_response=True)
    answer = one.answer()
    assert answer.get_response().parameters["triton_final_response"].bool_param
    assert answer.as_numpy("output_x").tolist() == [1]


def test_who_does_not_ask_for_the_end_is_not_told(mixed, channel):
    answers = list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter([counting("count", 2)])))
    assert [len(answer.infer_response.outputs) for answer in answers] == [2, 2]
    assert not any(answer.infer_response.parameters for answer in answers)


# === errors ===

BAD = {
    "an unknown model": (infer("nobody", id="bad"), "nobody"),
    "an unknown version": (infer("echo", model_version="9", id="bad"), "9"),
    "a byte short": (infer("echo", tensor("x", "FP32", [2]), raw=[bytes(7)], id="bad"), "7"),
    "a missing input": (infer("count", text("name", ""), id="bad"), "'count'"),
    "an unknown output": (infer("echo", number("x", 1), outputs=["q"], id="bad"), "'q'"),
    "a handler's error": (infer("fail", text("how", "ValueError"), text("why", "it broke"), id="bad"), "it broke"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_answered_with_an_error_and_the_stream_goes_on(mixed, channel, what):
    request, part = BAD[what]
    requests = [infer("echo", number("x", 1), id="before"), request, infer("echo", number("x", 2), id="after")]
    answers = list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter(requests)))
    assert [answer.infer_response.id for answer in answers] == ["before", "bad", "after"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert part in answers[1].error_message
    assert answers[1].infer_response.parameters["x-anyserve-code"].string_param
    assert not answers[1].infer_response.outputs


def test_tritonclient_is_told_of_an_error_and_goes_on(stream):
    one = stream()
    one.send("nobody", echoed(1))
    assert "Request for unknown model: 'nobody'" in one.error().message()
    one.send("echo", echoed(2))
    assert one.answer().as_numpy("output_x").tolist() == [2]


def test_a_stream_that_fails_midway_gives_its_parts_and_then_the_error(stream):
    one = stream()
    one.send("count-and-fail", inputs_of(3, name="seven"), enable_empty_final_response=True)
    assert [one.part() for _ in range(3)] == [0, 1, 2]
    assert "seven has no part 3" in one.error().message()
    one.send("echo", echoed(2))
    assert one.answer().as_numpy("output_x").tolist() == [2]


@pytest.mark.parametrize(("request_", "code"), [
    (infer("nobody"), NOT_FOUND), (infer("echo", tensor("x", "FP32", [2]), raw=[b""]), INVALID),
    (counting("count-and-fail", 0), NOT_FOUND),
])  # fmt: skip
def test_an_error_ends_the_stream_with_its_status_for_those_who_ask(mixed, channel, request_, code):
    asked = [("triton_grpc_error", "true")]
    with by_hand(channel(mixed.endpoint), infer("echo", number("x", 1)), metadata=asked) as (call, outgoing):
        assert next(call).infer_response.model_name == "echo"
        outgoing.put(request_)
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        assert raised.value.code() == code


def test_tritonclient_gets_the_status_of_a_stream_that_ends_in_an_error(mixed):
    one = Stream(mixed.endpoint, headers={"triton_grpc_error": "true"})
    one.send("nobody", echoed(1))
    error = one.error()
    assert (error.status(), "nobody" in error.message()) == ("StatusCode.NOT_FOUND", True)
    one.end()


def test_a_message_that_is_none_ends_the_stream_and_not_the_connection(mixed, channel):
    open_channel = channel(mixed.endpoint)
    call = open_channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as raised:
        list(call(iter([b"\xff" * 10])))
    assert raised.value.code() == INVALID
    assert stub(open_channel).ServerLive(pb.ServerLiveRequest()).live


@pytest.mark.parametrize("model", STREAMS)
def test_a_streaming_capability_is_not_called_by_model_infer(mixed, channel, model):
    refused(stub(channel(mixed.endpoint)).ModelInfer, counting(model, 1), UNIMPLEMENTED, model)


# === leaving, and being slow ===


@pytest.mark.parametrize("model", STREAMS)
def test_a_stream_that_is_cancelled_ends_its_handler(mixed, model):
    one, name = Stream(mixed.endpoint), next(names)
    one.send(model, inputs_of(10**9, name=name))
    one.answer()
    one.end(cancel=True)
    mixed.noted(f"left-{name}")
    assert len(mixed.note(f"progress-{name}")) < 10**6


@pytest.mark.parametrize("model", ["count", "count-sent"])
def test_a_stream_that_is_cancelled_frees_the_only_thread(serial, model):
    one, name = Stream(serial.endpoint), next(names)
    one.send(model, inputs_of(10**9, name=name))
    one.answer()
    one.end(cancel=True)
    serial.noted(f"left-{name}")
    again = Stream(serial.endpoint)
    again.send("echo", echoed(1))
    assert again.answer().as_numpy("output_x").tolist() == [1]
    again.end()


def test_closing_the_channel_ends_the_handlers_of_all_its_streams(mixed):
    name = next(names)
    with grpc.insecure_channel(mixed.endpoint) as channel:
        requests = [counting(model, 10**9, name=f"{name}-{model}") for model in STREAMS]
        calls = [stub(channel).ModelStreamInfer(iter([request])) for request in requests]
        for call in calls:
            assert next(call).infer_response.outputs
    for model in STREAMS:
        mixed.noted(f"left-{name}-{model}")


def test_a_streams_deadline_ends_it_and_its_handler(mixed, channel):
    name = f"gated-{next(names)}"
    with pytest.raises(grpc.RpcError) as raised:
        list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter([counting("count-async", 1, name=name)]), timeout=0.3))
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    mixed.noted(f"left-{name}")


PARTS, PART = 600, 256 << 10  # 150 MiB in all, far more than any buffer on the way holds


@pytest.mark.parametrize("model", STREAMS)
def test_a_slow_reader_slows_its_own_handler_down_and_nobody_else(mixed, channel, model):
    name, other = next(names), stub(channel(mixed.endpoint))
    with by_hand(channel(mixed.endpoint), counting(model, PARTS, name=name, size=PART)) as (call, outgoing):
        assert next(call).infer_response.outputs
        until(lambda: stopped(mixed, other, name), "a handler that has stopped for its reader")
        assert len(mixed.note(f"progress-{name}")) < PARTS // 2
        others = list(other.ModelStreamInfer(iter([counting(model, 50)])))
        assert len(others) == 50
        outgoing.put(None)
        parts = [int.from_bytes(answer.infer_response.raw_output_contents[0], "little") for answer in call]
    assert parts == list(range(1, PARTS))


@pytest.mark.parametrize("model", STREAMS)
def test_a_handler_that_waits_for_its_reader_is_told_when_the_reader_leaves(mixed, channel, model):
    name, other = next(names), stub(channel(mixed.endpoint))
    with by_hand(channel(mixed.endpoint), counting(model, PARTS, name=name, size=PART)) as (call, _):
        assert next(call).infer_response.outputs
        until(lambda: stopped(mixed, other, name), "a handler that has stopped for its reader")
        assert not mixed.note(f"left-{name}")
        call.cancel()
        mixed.noted(f"left-{name}")
    assert len(mixed.note(f"progress-{name}")) < PARTS // 2


def stopped(served, service, name: str) -> bool:
    """Whether a handler has made no progress while others were answered."""
    before = len(served.note(f"progress-{name}"))
    for place in range(300):
        service.ModelInfer(infer("echo", number("x", place)))
    return before == len(served.note(f"progress-{name}"))


def test_tritonclients_asynchronous_stream_gives_every_part(mixed):
    asyncio.run(check_aio_stream(mixed.endpoint))


async def check_aio_stream(endpoint: str) -> None:
    async def requests():
        for model in STREAMS:
            yield {"model_name": model, "inputs": inputs_of(5), "request_id": model}

    seen: dict[str, list[int]] = {}
    async with triton_aio.InferenceServerClient(endpoint) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None
            seen.setdefault(result.get_response().id, []).append(int(result.as_numpy("part")[0]))
    assert seen == {model: list(range(5)) for model in STREAMS}
