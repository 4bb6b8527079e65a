"""The worker's loop against a runtime that is written down here byte by byte."""

import signal
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.python.frames import (
    NOT_STARTED,
    OFFERED,
    RECALLED,
    RESPONSE,
    SLOTS,
    STARTED,
    FakeRuntime,
    Frame,
    parameters,
    request,
    tensor,
)

APPS = Path(__file__).with_name("worker_apps.py")


@pytest.fixture(scope="module")
def _kept():
    runtime = FakeRuntime(f"{APPS}:serial")
    yield runtime
    runtime.close()


@pytest.fixture
def kept(_kept) -> FakeRuntime:
    """A serial worker that survives the test: every request is answered, so that every slot is free again."""
    for place in range(32):
        _kept.set_slot(place, 0)
    return _kept


def floats(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def number_in(frame: Frame) -> int:
    return struct.unpack("<q", frame.body)[0]


# === the start ===


def test_a_worker_says_who_it_is_and_what_it_serves(run):
    runtime = run("serial")
    hello = runtime.hello.meta
    assert (hello["pid"], hello["worker"], hello["token"]) == (runtime.process.pid, 3, "secret")
    assert hello["concurrency"] == 1, "one thread serves every handler"
    echo, raw, *_ = hello["handlers"]
    assert echo["function"] == "echo"
    assert echo["inputs"] == [{"name": "x", "datatype": 10, "shape": [-1]}]
    assert (echo["declares_inputs"], echo["declares_outputs"], echo["concurrency"]) == (True, False, 1)
    capability = [{"key": "heavy", "bool": True}, {"key": "type", "text": "raw"}, {"key": "version", "int": 2}]
    assert sorted(raw["capability"], key=lambda pair: pair["key"]) == [*capability, {"key": "weight", "double": 0.5}]
    assert (raw["timeout_us"], raw["max_queue"]) == (1_500_000, 7)
    assert [row["stream"] for row in hello["handlers"]].count(True) == 5


def test_a_worker_that_cannot_load_its_app_says_why(run):
    runtime = run("missing", welcome=False)
    assert runtime.expect("Hello").meta["token"] == "secret"
    failed = runtime.expect("Failed", 0)
    assert failed.code == "INVALID_INPUT"
    assert "has no attribute 'missing'" in failed.meta["message"]
    assert runtime.wait() == 2


# === requests ===


def test_a_request_is_answered_with_its_outputs(kept):
    kept.send(request(5, 0, [tensor("x", "FP32", [2], floats(1, 2))]))
    done = kept.expect("Done", 5)
    assert done.flags == RESPONSE
    assert done.outputs() == {"y": ("FP32", [2], floats(1, 2))}
    assert done.meta["compute_ns"] > 0


def test_every_datatype_passes_through_unchanged(kept):
    framed = b"\x01\0\0\0\xff" + bytes(4)
    datatypes = {"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4}
    datatypes |= {"INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2}
    inputs = [tensor(name, name, [3], bytes(range(3 * size))) for name, size in datatypes.items()]
    inputs += [tensor("BYTES", "BYTES", [2], framed), tensor("empty", "FP32", [0, 7], b"")]
    kept.send(request(1, 1, inputs, id="abc", parameters=parameters(a=1, b=-0.5, c="ü", d=True)))
    done = kept.expect("Done", 1)
    expected = {f"output_{one['name']}": (one["shape"], one["data"]) for one in inputs}
    assert {name: (shape, data) for name, (_, shape, data) in done.outputs().items()} == expected
    assert {name: datatype for name, (datatype, _, _) in done.outputs().items()}["output_BF16"] == "BF16"
    assert done.meta["parameters"] == parameters(a=1, b=-0.5, c="ü", d=True)


def test_many_requests_in_one_write_are_all_answered(run):
    runtime = run("serial")
    runtime.send(*(request(number, 3) for number in range(1, 201)))
    answers = [runtime.expect("Done") for _ in range(200)]
    assert [frame.id for frame in answers] == list(range(1, 201))
    assert [number_in(frame) for frame in answers] == list(range(1, 201))


def test_a_large_tensor_goes_there_and_back(kept):
    data = np.arange(1 << 20, dtype=np.float32).tobytes()
    small = tensor("small", "UINT8", [3], b"abc")
    large = tensor("large", "FP32", [1 << 20], data)
    kept.send(request(1, 1, [small, large, {**small, "name": "last"}]))
    outputs = kept.expect("Done", 1).outputs()
    assert outputs["output_large"][2] == data
    assert outputs["output_small"][2] == outputs["output_last"][2] == b"abc"


def test_frames_may_arrive_byte_by_byte(kept):
    kept.set_slot(9, 9 << 3 | OFFERED)
    for byte in request(9, 0, [tensor("x", "FP32", [1], floats(3))]).to_bytes():
        kept.socket.sendall(bytes([byte]))
    assert kept.expect("Done", 9).body == floats(3)


def test_a_handler_sees_the_call_it_is_in(kept):
    headers = [{"name": "x-a", "value": "1"}, {"name": "x-a", "value": "2"}, {"name": "x-b", "value": ""}]
    meta = {"id": "abc", "attempt": 2, "remaining_us": 30_000_001, "parameters": parameters(k=True)}
    kept.send(request(1, 11, headers=headers, **meta))
    (_, _, data) = kept.expect("Done", 1).outputs()["text"]
    known = eval(data[4:].decode())
    assert known == {
        "id": "abc", "attempt": 2, "headers": {"x-a": "1, 2", "x-b": ""}, "parameters": {"k": True},
        "capability": {"type": "context"}, "cancelled": False, "late": True,
    }  # fmt: skip


def test_a_reference_comes_to_a_handler_and_leaves_it_with_its_mark(kept):
    text = b"objref:0123456789abcdef-01234567-89abcdef01234567"
    framed = struct.pack("<I", len(text)) + text
    kept.send(request(1, 0, [{**tensor("x", "BYTES", [1], framed), "parameters": parameters(objref=True)}]))
    done = kept.expect("Done", 1)
    assert done.outputs() == {"y": ("BYTES", [1], framed)}
    assert done.meta["outputs"][0]["parameters"] == parameters(objref=True)


def test_what_the_runtime_resolved_comes_as_the_array(kept):
    text = "objref:0123456789abcdef-01234567-89abcdef01234567"
    kept.send(request(1, 0, [{**tensor("x", "FP32", [2], floats(1, 2)), "parameters": parameters(objref=text)}]))
    done = kept.expect("Done", 1)
    assert done.outputs() == {"y": ("FP32", [2], floats(1, 2))}
    assert done.meta["outputs"][0]["parameters"] == []


def test_a_mark_without_a_reference_is_the_callers_mistake(kept):
    kept.send(request(1, 0, [{**tensor("x", "FP32", [1], floats(1)), "parameters": parameters(objref=True)}]))
    failed = kept.expect("Failed", 1)
    assert failed.code == "INVALID_INPUT"
    assert "input 'x' has the parameter objref, but FP32" in failed.meta["message"]


def test_a_request_whose_time_is_over_when_its_turn_comes_never_starts(kept):
    kept.send(request(1, 0, [tensor("x", "FP32", [1], floats(3))], remaining_us=1))
    failed = kept.expect("Failed", 1)
    assert (failed.code, failed.flags) == ("DEADLINE", NOT_STARTED)


def test_a_finished_reply_does_not_wait_for_a_long_handler(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    runtime.send(request(1, 3), request(2, 2, parameters=parameters(gate=str(gate))))
    runtime.expect("Done", 1)
    gate.write_bytes(b"")
    runtime.expect("Done", 2)


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("anyserve", "OVERLOADED", "come back"),
        ("plain", "HANDLER_ERROR", "ValueError: bad value"),
        ("exit", "HANDLER_ERROR", "SystemExit: 3"),
        ("interrupt", "HANDLER_ERROR", "KeyboardInterrupt"),
        ("cancelled", "CANCELLED", "the handler was cancelled"),
        ("long", "HANDLER_ERROR", "ValueError: " + "x" * 1000),
    ],
)
def test_what_a_handler_raises_reaches_the_caller(kept, kind, code, message):
    kept.send(request(1, 5, parameters=parameters(kind=kind)), request(2, 3))
    failed = kept.expect("Failed", 1)
    assert (failed.code, failed.flags) == (code, 0)
    assert failed.meta["message"].startswith(message)
    assert len(failed.meta["message"]) < 100_000
    assert failed.meta["retry_after_ms"] == (1501 if kind == "anyserve" else 0)
    if code == "HANDLER_ERROR":
        assert failed.meta["traceback"].startswith("Traceback (most recent call last):\n")
        assert "in raises" in failed.meta["traceback"]
        assert "anyserve/handlers.py" not in failed.meta["traceback"]
    kept.expect("Done", 2)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "the handler returned NoneType"),
        ("unset", "output 'y' has 0 bytes, but FP32 with shape [3] takes 12"),
        ("field", "output 'y' has datatype FP32, which takes fp32_contents, but its contents are int_contents"),
        ("datatype", "output 'y' has datatype INT32, but its contents are FP32"),
        ("twice", "output 'y' stands twice"),
        ("elements", "output 'y' has 1 BYTES elements, but shape [2] takes 2"),
        ("large", "the response has 67108865 bytes of tensors, at most 67108864 are allowed"),
    ],
)
def test_a_wrong_response_is_the_handlers_error(kept, kind, message):
    kept.send(request(1, 6, parameters=parameters(kind=kind)), request(2, 3))
    failed = kept.expect("Failed", 1)
    assert failed.code == "HANDLER_ERROR"
    assert message in failed.meta["message"]
    kept.expect("Done", 2)


# === cancelling ===


@pytest.mark.parametrize(("app", "number"), [("serial", 3), ("asynchronous", 1), ("threads", 2)])
def test_a_request_that_was_taken_back_does_not_run(run, app, number):
    runtime = run(app)
    runtime.set_slot(1, 1 << 3 | RECALLED)
    runtime.send(request(1, number))
    failed = runtime.expect("Failed", 1)
    assert (failed.code, failed.flags) == ("CANCELLED", NOT_STARTED)
    if app == "serial":
        runtime.send(request(2, 3))
        assert number_in(runtime.expect("Done", 2)) == 1, "the handler has run once"
    assert runtime.slot(1) == 1 << 3 | RECALLED


def test_starting_is_written_into_the_slot_before_the_handler_runs(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    runtime.send(request(1, 2, parameters=parameters(gate=str(gate))))
    gate.write_bytes(b"")  # Returns when the handler has opened the other end.
    assert runtime.slot(1) == 1 << 3 | STARTED
    runtime.expect("Done", 1)


def test_a_sync_handler_sees_that_its_caller_left(run):
    runtime = run("serial")
    runtime.send(request(1, 4))
    runtime.wait_until_started(1)
    runtime.cancel(1)
    runtime.expect("Done", 1)


def test_an_async_handler_is_cancelled(run):
    runtime = run("asynchronous")
    seen = runtime.folder / "seen"
    runtime.send(request(1, 2, parameters=parameters(seen=str(seen))))
    # The loop takes its events in order, so the handler has started when this is answered.
    runtime.send(request(2, 1))
    runtime.expect("Done", 2)
    runtime.cancel(1)
    assert runtime.expect("Failed", 1).code == "CANCELLED"
    assert seen.read_text() == "cancelled"


def test_an_async_handler_that_is_cancelled_before_its_first_step_is_answered(run):
    runtime = run("asynchronous")
    runtime.send(*(request(number, 2, parameters=parameters(seen="/dev/null")) for number in range(1, 5)),
                 *(Frame("Cancel", number) for number in range(1, 5)))  # fmt: skip
    failed = [runtime.expect("Failed") for _ in range(4)]
    assert {frame.id for frame in failed} == {1, 2, 3, 4}
    assert {frame.code for frame in failed} == {"CANCELLED"}
    runtime.send(*(request(number, 1) for number in range(11, 31)))
    assert {runtime.expect("Done").id for _ in range(20)} == set(range(11, 31)), "the handlers' places are free again"


# === streams ===

STREAMS = [("serial", 7), ("serial", 9), ("asynchronous", 3), ("asynchronous", 4), ("threads", 1)]


@pytest.mark.parametrize(("app", "handler"), STREAMS)
def test_a_stream_is_chunks_and_an_end_without_response(run, app, handler):
    runtime = run(app)
    runtime.send(request(1, handler, parameters=parameters(count=20, seen="/dev/null")))
    chunks = [runtime.expect("Chunk", 1) for _ in range(20)]
    assert [number_in(chunk) for chunk in chunks] == list(range(20))
    done = runtime.expect("Done", 1)
    assert (done.flags, done.body, done.meta["outputs"]) == (0, b"", [])


@pytest.mark.parametrize(("app", "handler"), STREAMS)
def test_a_stream_sends_no_more_than_its_window(run, app, handler):
    runtime = run(app, window=3 * 4096)
    runtime.send(request(1, handler, parameters=parameters(count=8, seen="/dev/null")))
    chunks = [runtime.expect("Chunk", 1) for _ in range(3)]
    assert runtime.frames_before_pong() == []
    runtime.send(Frame("Credit", 1, 0, {"bytes": 4096}))
    chunks.append(runtime.expect("Chunk", 1))
    assert runtime.frames_before_pong() == []
    runtime.send(Frame("Credit", 1, 0, {"bytes": 4096}), Frame("Credit", 1, 0, {"bytes": 3 * 4096}))
    chunks += [runtime.expect("Chunk", 1) for _ in range(4)]
    assert [number_in(chunk) for chunk in chunks] == list(range(8))
    runtime.expect("Done", 1)


@pytest.mark.parametrize(("app", "handler"), STREAMS)
def test_a_stream_that_waits_for_its_window_can_be_cancelled(run, app, handler):
    runtime = run(app, window=4096)
    seen = runtime.folder / "seen"
    runtime.send(request(1, handler, parameters=parameters(count=8, seen=str(seen))))
    runtime.expect("Chunk", 1)
    runtime.cancel(1)
    assert runtime.expect("Failed", 1).code == "CANCELLED"
    if handler == 9:
        assert seen.read_text() == "cancelled", "the handler gets the exception"


def test_one_full_stream_does_not_hold_up_the_others(run):
    runtime = run("asynchronous", window=4096)
    runtime.send(request(1, 3, parameters=parameters(count=8)), request(2, 4, parameters=parameters(count=1)))
    frames = [runtime.receive() for _ in range(3)]
    assert sorted((frame.id, frame.kind) for frame in frames) == [(1, "Chunk"), (2, "Chunk"), (2, "Done")]


def test_a_generator_is_closed_when_its_caller_leaves(run):
    runtime = run("serial", window=10 * 4096)
    seen = runtime.folder / "seen"
    runtime.send(request(1, 10, parameters=parameters(seen=str(seen))))
    for _ in range(10):
        runtime.expect("Chunk", 1)
    runtime.cancel(1)
    assert runtime.expect("Failed", 1).code == "CANCELLED"
    assert seen.read_text() == "closed"


@pytest.mark.parametrize(("app", "handler"), [("serial", 8), ("asynchronous", 5)])
def test_a_token_is_sent_before_the_next_one_is_computed(run, app, handler):
    runtime = run(app)
    gate = runtime.fifo("gate")
    runtime.send(request(1, handler, parameters=parameters(gate=str(gate))))
    assert number_in(runtime.expect("Chunk", 1)) == 1
    gate.write_bytes(b"")
    assert number_in(runtime.expect("Chunk", 1)) == 2
    runtime.expect("Done", 1)


def test_a_large_array_is_sent_before_its_generator_goes_on(kept):
    kept.send(request(1, 12))
    assert [set(kept.expect("Chunk", 1).body) for _ in range(2)] == [{0}, {1}]


def test_the_blocking_send_is_refused_in_an_async_handler(run):
    runtime = run("asynchronous")
    runtime.send(request(1, 8))
    assert "await stream.asend(response)" in runtime.expect("Failed", 1).meta["message"]


# === several at once ===


def test_async_answers_come_in_the_order_in_which_they_are_ready(run):
    runtime = run("asynchronous")
    runtime.send(request(1, 0), request(2, 1))
    assert [runtime.expect("Done").id for _ in range(2)] == [2, 1]


def test_an_async_handler_runs_no_more_requests_than_its_concurrency(run):
    runtime = run("asynchronous")
    runtime.send(*(request(number, 6) for number in range(1, 21)))
    assert max(number_in(runtime.expect("Done")) for _ in range(20)) == 2


def test_an_exit_in_an_async_handler_is_an_error_and_the_worker_goes_on(run):
    runtime = run("asynchronous")
    runtime.send(request(1, 7), request(2, 1))
    assert runtime.expect("Failed", 1).meta["message"] == "SystemExit: 3"
    runtime.expect("Done", 2)


def test_places_of_requests_that_were_taken_back_are_free_again(run):
    runtime = run("asynchronous")
    for number in range(1, 2001):
        runtime.set_slot(number, number << 3 | (RECALLED if number % 50 else OFFERED))
    runtime.send(*(request(number, 6) for number in range(1, 2001)))
    answers = [runtime.receive() for _ in range(2000)]
    assert {frame.id for frame in answers if frame.kind == "Done"} == set(range(50, 2001, 50))
    assert {frame.id for frame in answers if frame.flags == NOT_STARTED} == set(range(2001)) - set(range(0, 2001, 50))


def test_a_sync_handler_with_concurrency_runs_on_as_many_threads(run):
    runtime = run("threads")
    runtime.send(*(request(number, 0) for number in range(1, 4)))
    assert {runtime.expect("Done").id for _ in range(3)} == {1, 2, 3}, "each waits for the two others"


def test_sync_and_async_handlers_run_side_by_side(run):
    runtime = run("mixed")
    assert runtime.hello.meta["concurrency"] == 5
    gate = runtime.fifo("gate")
    runtime.send(request(1, 0, parameters=parameters(gate=str(gate))), request(2, 1))
    runtime.expect("Done", 2)
    gate.write_bytes(b"")
    runtime.expect("Done", 1)


# === lifecycle ===


@pytest.mark.parametrize(("app", "handler"), [("serial", 2), ("threads", 2), ("mixed", 0)])
def test_a_ping_is_answered_during_a_long_handler(run, app, handler):
    runtime = run(app)
    gate = runtime.fifo("gate")
    runtime.send(request(1, handler, parameters=parameters(gate=str(gate))))
    for number in range(1 << 40, (1 << 40) + 3):
        assert runtime.frames_before_pong(number) == []
    gate.write_bytes(b"")
    runtime.expect("Done", 1)


def test_a_ping_is_answered_while_a_handler_holds_the_interpreters_lock(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    with gate.open("r+b", buffering=0) as writer:
        seen = runtime.folder / "seen"
        runtime.send(request(1, 13, parameters=parameters(gate=str(gate), seen=str(seen))))
        runtime.wait_until_started(1)
        for number in range(1 << 40, (1 << 40) + 3):
            assert runtime.frames_before_pong(number) == []
        writer.write(b".")
        runtime.expect("Done", 1)


def test_requests_that_came_during_a_long_handler_are_served_after_it(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    runtime.send(request(1, 2, parameters=parameters(gate=str(gate))))
    assert runtime.frames_before_pong() == []
    runtime.send(request(2, 3), request(3, 3))
    assert runtime.frames_before_pong() == []
    gate.write_bytes(b"")
    assert [runtime.expect("Done").id for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(("app", "handler"), [("serial", 2), ("threads", 2), ("mixed", 0)])
@pytest.mark.parametrize("by", ["frame", "signal"])
def test_a_draining_worker_finishes_what_is_in_flight(run, app, handler, by):
    runtime = run(app)
    gate = runtime.fifo("gate")
    runtime.send(request(1, handler, parameters=parameters(gate=str(gate))))
    assert runtime.frames_before_pong() == []
    if by == "frame":
        runtime.send(Frame("Drain", 0))
    else:
        runtime.process.send_signal(signal.SIGTERM)
    gate.write_bytes(b"")
    runtime.expect("Done", 1)
    assert runtime.wait() == 0


@pytest.mark.parametrize("app", ["serial", "threads", "asynchronous", "mixed"])
@pytest.mark.parametrize("how", ["drain", "SIGTERM", "end"])
def test_an_idle_worker_ends_when_it_is_told_to(run, app, how):
    runtime = run(app)
    assert runtime.frames_before_pong() == []
    runtime.process.send_signal(signal.SIGINT)  # Not for it to decide.
    assert runtime.frames_before_pong(1) == []
    if how == "drain":
        runtime.send(Frame("Drain", 0))
    elif how == "SIGTERM":
        runtime.process.send_signal(signal.SIGTERM)
    else:
        runtime.socket.close()
    assert runtime.wait() == 0


@pytest.mark.parametrize(("app", "handler"), [("serial", 2), ("serial", 10), ("threads", 2), ("asynchronous", 2)])
def test_a_worker_ends_with_its_runtime_whatever_its_handlers_do(run, app, handler):
    runtime = run(app, window=4096)
    gate = runtime.fifo("gate")
    runtime.send(request(1, handler, parameters=parameters(gate=str(gate), seen="/dev/null")))
    runtime.frames_before_pong()
    runtime.socket.close()
    assert runtime.wait() == -signal.SIGKILL


def test_more_requests_than_there_are_slots_end_the_worker(run):
    runtime = run("serial")
    gate = str(runtime.fifo("gate"))
    runtime.send(
        *(request(number, 2, slot=number % SLOTS, parameters=parameters(gate=gate)) for number in range(1, 4098))
    )
    assert runtime.wait() == 1
    assert "more than 4096 requests are under way" in runtime.printed()


@pytest.mark.parametrize("app", ["serial", "asynchronous"])
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "frame starts with"),
        (request(1, 99).to_bytes(), "handler 99"),
        (request(1, 0, slot=4096).to_bytes(), "slot 4096 of 4096"),
        (Frame("Done", 1).to_bytes(), "a Done frame is none that a worker gets"),
        (request(1, 0, [tensor("x", "FP32", [1], b"1234")]).to_bytes()[:-1] + b"", "in the middle of a frame"),
        (request(1, 0, [{**tensor("x", "FP32", [1], b"1234"), "len": 3}]).to_bytes(), "belong to no tensor"),
        (request(1, 0, [{**tensor("x", "FP32", [1], b"1234"), "len": 5}]).to_bytes(), "has 5 bytes and the body 4"),
        (request(1, 0, [{**tensor("x", "FP32", [1], b"1234"), "datatype": 14}]).to_bytes(), "number 14"),
        (Frame("Request", 1, 0, {}, bytes(1 << 10)).to_bytes()[:20] + b"\xff" * 8, "at most 67108864 are allowed"),
    ],
)
def test_a_runtime_that_breaks_a_rule_ends_the_worker(run, app, broken, says):
    runtime = run(app)
    runtime.socket.sendall(broken)
    runtime.socket.shutdown(1)
    assert runtime.wait() == 1
    assert says in runtime.printed()
