"""Calls of handlers, against a runtime that is written down here byte by byte."""

from pathlib import Path

import numpy as np
import pytest

from tests.python.frames import CODES, DATATYPES, FakeRuntime, Frame, batch, parameters, request, tensor

APPS = Path(__file__).with_name("call_apps.py")
CANCELLED = CODES.index("CANCELLED")


def result(call: Frame, *, end: bool = True, cost: int = 4096, **outputs: list[int]) -> Frame:
    """A result of a call, with INT64 outputs."""
    tensors = [tensor(name, "INT64", [len(data)], np.array(data, np.int64).tobytes()) for name, data in outputs.items()]
    body = b"".join(one["data"] for one in tensors)
    meta = {"response": {"outputs": tensors}, "end": end, "model": "m", "id": "i", "cost": cost}
    return Frame("CallResult", call.id, 0, meta, body)


def failed(call: Frame, code: str, message: str = "", **more: int) -> Frame:
    meta = {"failed": {"code": CODES.index(code), "message": message, **more}, "end": True}
    return Frame("CallResult", call.id, 0, meta)


def ended(call: Frame) -> Frame:
    return Frame("CallResult", call.id, 0, {"end": True})


def texts(done: Frame, name: str) -> list[str]:
    data, found = done.outputs()[name][2], []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return found


def numbers(done: Frame, name: str) -> list[int]:
    return np.frombuffer(done.outputs()[name][2], np.int64).tolist()


@pytest.fixture
def serial(run) -> FakeRuntime:
    return run("serial")


@pytest.fixture
def mixed(run) -> FakeRuntime:
    return run("mixed")


# === what is sent, and what comes back ===


def test_a_call_says_what_is_asked_for_and_its_result_is_the_handlers(serial):
    serial.send(request(5, 1, [tensor("x", "UINT8", [3], b"abc")]))
    call = serial.expect("Call")
    assert call.id > 0
    assert (call.meta["parent"], call.meta["stream"], call.body) == (5, False, b"abc")
    assert call.meta["selector"].replace("'", "").replace('"', "") == "size=7,type=embed"
    asked = call.meta["request"]
    assert (asked["model"], asked["version"], asked["id"], asked["outputs"]) == ("embed", "3", "i", ["y"])
    assert (asked["headers"], asked["parameters"]) == ([{"name": "X-A", "value": "b"}], parameters(k=1))
    assert 0 < asked["remaining_us"] <= 30_000_001
    assert [(one["name"], DATATYPES[one["datatype"]], one["shape"]) for one in asked["inputs"]] == [("x", "UINT8", [3])]
    serial.send(result(call, y=[1, 2]))
    done = serial.expect("Done", 5)
    assert (numbers(done, "y"), texts(done, "model"), texts(done, "id")) == ([1, 2], ["m"], ["i"])


def test_a_target_is_a_model_a_selector_or_a_capability_and_numbers_follow_what_the_app_declares(serial):
    serial.send(request(1, 2))
    seen = []
    for _ in range(5):
        call = serial.expect("Call")
        asked = call.meta["request"]
        (x,) = asked["inputs"]
        seen.append((call.meta["selector"].replace("'", "").replace('"', ""), asked["model"], DATATYPES[x["datatype"]]))
        serial.send(result(call))
    assert seen == [
        ("", "echo", "FP64"), ("type=a,size>7", "", "FP64"), ("model=m", "m", "FP64"), ("type=typed", "typed", "FP32"),
        ("", "typed", "FP32"),
    ]  # fmt: skip
    serial.expect("Done", 1)


def test_an_error_keeps_its_code_its_text_and_its_time(serial):
    serial.send(request(1, 3))
    serial.send(failed(serial.expect("Call"), "OVERLOADED", "full", retry_after_ms=1501))
    done = serial.expect("Done", 1)
    assert (texts(done, "code"), texts(done, "text")) == (["OVERLOADED"], ["full"])
    assert np.frombuffer(done.outputs()["retry_after_s"][2], np.float64).tolist() == [1.5]


def test_an_error_that_is_not_caught_is_the_callers(serial):
    serial.send(request(1, 1))
    serial.send(failed(serial.expect("Call"), "NOT_FOUND", "gone"))
    assert serial.expect("Failed", 1).code == "NOT_FOUND"


def test_pings_and_other_requests_are_taken_while_a_handler_waits(serial):
    serial.send(request(1, 3))
    call = serial.expect("Call")
    serial.send(Frame("Ping", 7), request(2, 3))
    serial.expect("Pong", 7)
    serial.send(result(call))
    serial.expect("Done", 1)
    serial.send(result(serial.expect("Call")))
    serial.expect("Done", 2)


def test_results_of_a_stream_come_in_order_and_are_given_back_a_quarter_window_at_a_time(run):
    runtime = run("serial", window=1 << 16)
    runtime.send(request(1, 4))
    call = runtime.expect("Call")
    assert call.meta["stream"]
    runtime.send(*(result(call, end=False, n=[n]) for n in range(7)), ended(call))
    credit = runtime.expect("Credit", call.id)
    assert credit.meta == {"bytes": 4 * 4096}
    assert numbers(runtime.expect("Done", 1), "taken") == list(range(7))


def test_a_stream_may_end_with_its_last_result_or_in_an_error(serial):
    serial.send(request(1, 4))
    call = serial.expect("Call")
    serial.send(result(call, end=False, n=[1]), result(call, n=[2]))
    assert numbers(serial.expect("Done", 1), "taken") == [1, 2]
    serial.send(request(2, 4))
    call = serial.expect("Call")
    serial.send(result(call, end=False, n=[1]), failed(call, "WORKER_LOST"))
    assert serial.expect("Failed", 2).code == "WORKER_LOST"


def test_what_was_sent_before_it_was_asked_for_is_kept_in_order(serial):
    gate = serial.fifo("gate")
    serial.send(request(1, 6, parameters=parameters(gate=str(gate))))
    call = serial.expect("Call")
    serial.send(result(call, end=False, n=[1]), result(call, end=False, n=[2]), ended(call))
    gate.write_bytes(b"")
    assert numbers(serial.expect("Done", 1), "taken") == [1, 2]


def test_who_leaves_a_stream_gives_the_call_up_and_late_results_are_dropped(serial):
    serial.send(request(1, 5))
    call = serial.expect("Call")
    serial.send(result(call, end=False, n=[1]))
    assert serial.expect("Cancel").id == call.id
    serial.send(result(call, end=False, n=[2]), ended(call))
    done = serial.expect("Done", 1)
    assert (numbers(done, "first"), numbers(done, "rest")) == ([1], [0])


def test_256_calls_are_open_and_no_more(serial):
    serial.send(request(1, 7))
    calls = [serial.expect("Call") for _ in range(256)]
    assert len({call.id for call in calls}) == 256
    serial.expect("Cancel", calls[-1].id)
    assert serial.expect("Call").id not in {call.id for call in calls}
    frames = [serial.receive() for _ in range(257)]
    kinds = [frame.kind for frame in frames]
    assert (kinds.count("Cancel"), kinds.count("Done")) == (256, 1), "what was open is given up with the handler's end"
    done = next(frame for frame in frames if frame.kind == "Done")
    assert texts(done, "text") == ["256 calls of this worker are open, which is the most: wait for some of them"]


def test_what_cannot_be_sent_is_told_before_it_is(serial):
    serial.send(request(1, 10))
    found = texts(serial.expect("Done", 1), "texts")
    says = ["input 'x' is no array", "give a dict", "the first argument is a model name", "position", "capability",
            "bytes of tensors, at most 67108864", "context.acall is for async handlers"]  # fmt: skip
    assert len(found) == len(says)
    assert all(part in text for part, text in zip(says, found, strict=True)), found
    assert all(text.startswith("INVALID_INPUT") for text in found[:-1])


def test_a_context_of_a_request_that_is_over_calls_nobody(serial):
    serial.send(request(1, 11), request(2, 12))
    serial.expect("Done", 1)
    assert texts(serial.expect("Done", 2), "code") == ["CANCELLED"]


def test_a_generator_and_a_batch_call_for_the_request_that_they_are_at(serial):
    serial.send(request(1, 8))
    for number in (1, 2):
        serial.send(result(serial.expect("Call"), y=[number]))
        serial.expect("Chunk", 1)
    serial.expect("Done", 1)
    serial.send(batch(request(2, 9), request(3, 9)))
    for number in (2, 3):
        call = serial.expect("Call")
        assert call.meta["parent"] == number
        serial.send(result(call, y=[number]))
    assert [numbers(serial.expect("Done", number), "y") for number in (2, 3)] == [[2], [3]]


# === on the event loop, and in threads ===


def test_coroutines_wait_for_their_calls_together(mixed):
    mixed.send(request(1, 0), request(2, 0))
    first, second = mixed.expect("Call"), mixed.expect("Call")
    mixed.send(result(second, y=[second.meta["parent"]]))
    parent = second.meta["parent"]
    assert numbers(mixed.expect("Done", parent), "y") == [parent]
    mixed.send(result(first, y=[1]))
    mixed.expect("Done", first.meta["parent"])


def test_fifty_calls_of_one_coroutine_are_answered_in_any_order(mixed):
    mixed.send(request(1, 1))
    calls = [mixed.expect("Call") for _ in range(50)]
    odd = {call.id for call in calls if np.frombuffer(call.body, np.int64)[0] % 2}
    mixed.send(*(failed(call, "NOT_FOUND") if call.id in odd else result(call) for call in reversed(calls)))
    assert texts(mixed.expect("Done", 1), "codes") == ["", "NOT_FOUND"] * 25


def test_a_stream_is_read_asynchronously(mixed):
    mixed.send(request(1, 2))
    call = mixed.expect("Call")
    mixed.send(result(call, end=False, n=[1]))
    mixed.send(result(call, end=False, n=[2]), ended(call))
    assert numbers(mixed.expect("Done", 1), "taken") == [1, 2]


def test_a_wait_that_is_cancelled_gives_the_call_up(mixed):
    mixed.send(request(1, 3))
    call = mixed.expect("Call")
    mixed.expect("Cancel", call.id)
    mixed.expect("Done", 1)


def test_a_cancelled_request_gives_its_calls_up(mixed):
    mixed.send(request(1, 0))
    call = mixed.expect("Call")
    mixed.cancel(1)
    frames = {mixed.receive().kind, mixed.receive().kind}
    assert frames == {"Cancel", "Failed"}
    mixed.send(failed(call, "CANCELLED"), Frame("Ping", 1))
    mixed.expect("Pong", 1)


def test_handlers_in_threads_wait_each_for_its_own(mixed):
    mixed.send(*(request(number, 4) for number in range(1, 5)))
    calls = [mixed.expect("Call") for _ in range(4)]
    mixed.send(*(result(call, y=[call.meta["parent"]]) for call in reversed(calls)))
    dones = [mixed.expect("Done") for _ in range(4)]
    assert sorted((done.id, numbers(done, "y")) for done in dones) == [(number, [number]) for number in range(1, 5)]


def test_a_call_that_would_block_the_event_loop_or_is_on_another_is_refused(mixed):
    mixed.send(request(1, 5))
    blocking, streaming, other = texts(mixed.expect("Done", 1), "texts")
    assert "await context.acall" in blocking
    assert "context.acall_stream" in streaming
    assert "the worker's own event loop" in other


def test_an_async_generator_calls_between_its_parts(mixed):
    mixed.send(request(1, 6))
    for number in (1, 2):
        mixed.send(result(mixed.expect("Call"), y=[number]))
        mixed.expect("Chunk", 1)
    mixed.expect("Done", 1)


def test_a_result_that_breaks_the_protocol_ends_the_worker(serial):
    serial.send(request(1, 3))
    call = serial.expect("Call")
    broken = result(call, y=[1])
    serial.send(Frame("CallResult", call.id, 0, broken.meta, b"short"))
    assert serial.wait() == 1
    assert "broke a rule of the socket: tensor 'y' has 8 bytes and the body 5 more" in serial.printed()
