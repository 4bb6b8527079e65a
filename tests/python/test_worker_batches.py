"""Handlers that take lists, against a runtime that is written down here byte by byte."""

import time
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
    batch,
    encode,
    parameters,
    request,
    tensor,
)

APPS = Path(__file__).with_name("batch_apps.py")
EMBED = [("serial", 0), ("asynchronous", 0), ("threads", 1)]


def one(number: int, handler: int, *, gate: Path | None = None, seen: Path | None = None, **meta) -> Frame:
    """A request whose id is its number; a further keyword is a parameter, but for those of the protocol."""
    protocol = {key: meta.pop(key) for key in ("slot", "attempt", "remaining_us", "inputs") if key in meta}
    paths = {name: str(path) for name, path in (("gate", gate), ("seen", seen)) if path}
    inputs = protocol.pop("inputs", ())
    return request(number, handler, inputs, id=str(number), parameters=parameters(**paths, **meta), **protocol)


def answers(runtime: FakeRuntime, count: int) -> dict[int, Frame]:
    """The ends of this many requests, by their number."""
    frames = [runtime.receive() for _ in range(count)]
    assert {frame.kind for frame in frames} <= {"Done", "Failed"}
    assert len({frame.id for frame in frames}) == count
    return {frame.id: frame for frame in frames}


def shared(frame: Frame) -> list[int]:
    """The numbers of the requests that shared the call of an answered one."""
    assert (frame.kind, frame.flags) == ("Done", RESPONSE), frame
    assert frame.meta["parameters"] == parameters(own=frame.id)
    return np.frombuffer(frame.body, np.int64).tolist()


def texts(frame: Frame, output: str) -> list[str]:
    """The elements of a BYTES output."""
    _, (count,), data = frame.outputs()[output]
    found = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        found.append(data[4:end].decode())
        data = data[end:]
    assert len(found) == count
    return found


def calls(runtime: FakeRuntime) -> int:
    """How often the serial app's first handler was called so far."""
    runtime.send(request(1 << 40, 3, slot=SLOTS - 1))
    frame = runtime.expect("Done", 1 << 40)
    runtime.set_slot(SLOTS - 1, 0)
    return int(np.frombuffer(frame.body, np.int64)[0])


# === one call for many ===


def test_the_options_are_in_the_handler_table(run):
    embed, contexts, _, count, *_ = run("serial").hello.meta["handlers"]
    assert (embed["max_batch_size"], embed["max_delay_us"], embed["priority"]) == (256, 1500, 2)
    assert (embed["idempotent"], embed["sequence"], count["sequence"]) == (True, False, True)
    assert (contexts["max_delay_us"], contexts["priority"], count["max_batch_size"]) == (0, 0, 0)


def test_a_batch_counts_as_one_of_those_that_run_at_once(run):
    assert run("serial").hello.meta["concurrency"] == 1
    assert run("threads").hello.meta["concurrency"] == 4


@pytest.mark.parametrize(("app", "handler"), EMBED)
def test_a_batch_is_one_call_and_every_request_has_its_own_answer_in_order(run, app, handler):
    runtime = run(app)
    runtime.send(batch(*(one(number, handler) for number in (5, 3, 4))))
    frames = [runtime.expect("Done") for _ in range(3)]
    assert [frame.id for frame in frames] == [5, 3, 4]
    assert [shared(frame) for frame in frames] == [[5, 3, 4]] * 3
    assert len({frame.meta["compute_ns"] for frame in frames}) == 1, "the time of the one call"
    assert frames[0].meta["compute_ns"] > 0
    assert [runtime.slot(number) for number in (5, 3, 4)] == [number << 3 | STARTED for number in (5, 3, 4)]


@pytest.mark.parametrize(("app", "handler"), EMBED)
def test_a_single_request_is_a_batch_of_one(run, app, handler):
    runtime = run(app)
    runtime.send(one(1, handler), one(2, handler))
    assert {number: shared(frame) for number, frame in answers(runtime, 2).items()} == {1: [1], 2: [2]}


def test_every_request_has_its_own_tensors_and_may_be_answered_with_a_dict(run):
    runtime = run("serial")
    runtime.send(
        batch(
            one(1, 0, inputs=[tensor("x", "UINT8", [2], b"ab")]),
            one(2, 0, kind="dict"),
            one(3, 0, inputs=[tensor("x", "UINT8", [1], b"c"), tensor("y", "UINT8", [1], b"d")]),
        )
    )
    found = answers(runtime, 3)
    assert found[2].outputs() == {"y": ("INT64", [1], np.int64(2).tobytes())}
    assert shared(found[1]) == shared(found[3]) == [1, 2, 3]


def test_the_largest_batch_is_answered(run):
    runtime = run("serial")
    numbers = list(range(1, 257))
    runtime.send(batch(*(one(number, 0) for number in numbers)))
    frames = [runtime.expect("Done") for _ in numbers]
    assert [frame.id for frame in frames] == numbers
    assert shared(frames[0]) == numbers
    assert calls(runtime) == 1


def test_large_and_small_answers_of_one_batch_arrive_whole(run):
    runtime = run("serial")
    sizes = {1: 1, 2: 1 << 20, 3: 5, 4: 1 << 14, 5: (1 << 14) - 4}
    runtime.send(batch(*(one(number, 5, size=size) for number, size in sizes.items())))
    for number, size in sizes.items():
        outputs = runtime.expect("Done", number).outputs()
        assert outputs["small"][2] == bytes([number]) * 3
        assert outputs["large"][2] == bytes([number]) * size


def test_a_second_argument_is_the_list_of_contexts(run):
    runtime = run("serial")
    runtime.send(batch(one(1, 1), one(2, 1, attempt=2, remaining_us=30_000_001)))
    found = answers(runtime, 2)
    assert texts(found[1], "known") == texts(found[2], "known") == ["1 1 False False", "2 2 False True"]


@pytest.mark.parametrize("app", ["serial", "threads"])
def test_batches_wait_for_one_another_in_order(run, app):
    runtime = run(app)
    handler = dict(EMBED)[app]
    runtime.send(batch(one(1, handler), one(2, handler)), one(3, handler), batch(one(4, handler), one(5, handler)))
    frames = [runtime.expect("Done") for _ in range(5)]
    assert [frame.id for frame in frames] == [1, 2, 3, 4, 5]
    assert [shared(frame) for frame in frames] == [[1, 2], [1, 2], [3], [4, 5], [4, 5]]


def test_a_sync_handler_runs_as_many_batches_at_once_as_its_concurrency(run):
    runtime = run("threads")
    runtime.send(batch(one(1, 0), one(2, 0)), batch(one(3, 0), one(4, 0)))
    found = answers(runtime, 4)
    assert [shared(found[number]) for number in (1, 2, 3, 4)] == [[1, 2], [1, 2], [3, 4], [3, 4]]


def test_an_async_handler_runs_no_more_batches_than_its_concurrency(run):
    runtime = run("asynchronous")
    runtime.send(*(batch(one(number, 3), one(number + 1, 3)) for number in range(1, 41, 2)))
    found = answers(runtime, 40)
    assert max(int(np.frombuffer(frame.body, np.int64)[0]) for frame in found.values()) == 2


# === answers that are none ===


@pytest.mark.parametrize(
    ("kind", "returned"),
    [("short", "a list of 1"), ("long", "a list of 3"), ("none", "NoneType"), ("one", "ModelInferResponse")],
)
def test_an_answer_of_another_length_fails_every_request_and_names_both_numbers(run, kind, returned):
    runtime = run("serial")
    runtime.send(batch(one(1, 2, kind=kind), one(2, 2)))
    for frame in answers(runtime, 2).values():
        assert frame.code == "HANDLER_ERROR"
        assert f"'wrong_length' returned {returned} for 2 requests; return a list" in frame.meta["message"]


def test_a_tuple_is_a_list_of_answers(run):
    runtime = run("serial")
    runtime.send(batch(one(1, 2, kind="tuple"), one(2, 2)))
    assert {frame.kind for frame in answers(runtime, 2).values()} == {"Done"}


@pytest.mark.parametrize(("app", "handler"), EMBED)
@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("exception", "INVALID_INPUT", "request 2 is wrong"),
        ("interrupt-item", "HANDLER_ERROR", "KeyboardInterrupt"),
        ("nothing", "HANDLER_ERROR", "TypeError: the handler returned NoneType"),
        ("unfit", "HANDLER_ERROR", "ValueError: output 'y' has 0 bytes, but FP32 with shape [3] takes 12"),
    ],
)
def test_an_answer_that_is_an_error_fails_its_request_alone(run, app, handler, kind, code, message):
    runtime = run(app)
    runtime.send(batch(one(1, handler), one(2, handler, kind=kind), one(3, handler)))
    found = answers(runtime, 3)
    assert shared(found[1]) == shared(found[3]) == [1, 2, 3], "nothing was run again"
    assert (found[2].kind, found[2].code, found[2].flags) == ("Failed", code, 0)
    assert message in found[2].meta["message"]


# === a call that raises ===


@pytest.mark.parametrize(("app", "handler"), EMBED)
@pytest.mark.parametrize("culprit", range(1, 6))
def test_only_the_request_that_makes_a_batch_raise_fails(run, app, handler, culprit):
    runtime = run(app)
    runtime.send(
        batch(*(one(number, handler, **({"kind": "value"} if number == culprit else {})) for number in range(1, 6)))
    )
    found = answers(runtime, 5)
    failed = found.pop(culprit)
    assert (failed.kind, failed.code) == ("Failed", "HANDLER_ERROR")
    assert failed.meta["message"] == f"ValueError: bad request {culprit}"
    assert "in check" in failed.meta["traceback"]
    assert all(culprit not in shared(frame) for frame in found.values())
    assert "raised ValueError for 5 requests; each half" in runtime.printed()


def test_two_culprits_are_found_by_halves(run):
    runtime = run("serial")
    culprits = {2: "value", 7: "overloaded"}
    kinds = {number: {"kind": culprits[number]} if number in culprits else {} for number in range(1, 9)}
    runtime.send(batch(*(one(number, 0, **kind) for number, kind in kinds.items())))
    frames = [runtime.receive() for _ in range(8)]
    assert [frame.id for frame in frames] == list(range(1, 9)), "the first half is run first"
    found = {frame.id: frame for frame in frames}
    assert (found[2].code, found[7].code, found[7].meta["retry_after_ms"]) == ("HANDLER_ERROR", "OVERLOADED", 1501)
    assert [shared(found[number]) for number in (1, 3, 4, 5, 6, 8)] == [[1], [3, 4], [3, 4], [5, 6], [5, 6], [8]]
    # 8, then 4 2 1 1 2 on the one side and 4 2 2 1 1 on the other.
    assert calls(runtime) == 11


def test_where_every_request_makes_it_raise_each_has_its_own_error(run):
    runtime = run("serial")
    runtime.send(batch(*(one(number, 0, kind="value") for number in range(1, 9))))
    found = answers(runtime, 8)
    assert {frame.meta["message"] for frame in found.values()} == {f"ValueError: bad request {n}" for n in range(1, 9)}
    assert calls(runtime) == 15


@pytest.mark.parametrize(("app", "handler"), EMBED)
@pytest.mark.parametrize(("kind", "message"), [("exit", "SystemExit: 2"), ("interrupt", "KeyboardInterrupt")])
def test_a_batch_survives_what_would_end_a_process(run, app, handler, kind, message):
    runtime = run(app)
    runtime.send(batch(one(1, handler), one(2, handler, kind=kind)), one(3, handler))
    found = answers(runtime, 3)
    assert (found[2].code, found[2].meta["message"]) == ("HANDLER_ERROR", message)
    assert [shared(found[number]) for number in (1, 3)] == [[1], [3]]


def test_a_handler_may_empty_the_list_that_it_is_given(run):
    runtime = run("serial")
    runtime.send(batch(one(1, 6), one(2, 6, kind="value"), one(3, 6)))
    found = answers(runtime, 3)
    assert found[2].meta["message"] == "ValueError: bad request 2"
    assert [shared(found[number]) for number in (1, 3)] == [[1], [3]]


@pytest.mark.parametrize(("app", "handler"), [("serial", 4), ("asynchronous", 4), ("threads", 2)])
def test_a_half_is_answered_before_the_other_half_runs(run, app, handler):
    runtime = run(app)
    gate = runtime.fifo("gate")
    runtime.send(batch(one(1, handler), one(2, handler, kind="value", gate=gate)))
    runtime.expect("Done", 1)
    gate.write_bytes(b"")
    runtime.expect("Failed", 2)


def test_who_left_or_is_late_is_not_run_again(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    late = {"remaining_us": 500_000}  # Passes before the gate opens.
    passes = time.monotonic() + 0.5
    runtime.send(batch(one(1, 4, gate=gate), one(2, 4), one(3, 4, kind="value"), one(4, 4, **late)))
    runtime.wait_until_started(4)
    runtime.cancel(2)
    while time.monotonic() < passes:  # The condition is that time passes.
        pass
    gate.write_bytes(b"")
    found = answers(runtime, 4)
    assert shared(found[1]) == [1]
    assert (found[2].code, found[2].flags) == ("CANCELLED", 0)
    assert "the caller left before its part of the batch was run again" in found[2].meta["message"]
    assert found[3].meta["message"] == "ValueError: bad request 3"
    assert found[4].code == "DEADLINE"
    assert all(frame.meta["compute_ns"] > 0 for frame in found.values())


# === cancelling ===


@pytest.mark.parametrize(("app", "handler"), EMBED)
def test_a_request_that_was_taken_back_is_left_out(run, app, handler):
    runtime = run(app)
    runtime.set_slot(2, 2 << 3 | RECALLED)
    runtime.send(batch(one(1, handler), one(2, handler), one(3, handler)))
    found = answers(runtime, 3)
    assert (found[2].code, found[2].flags) == ("CANCELLED", NOT_STARTED)
    assert shared(found[1]) == shared(found[3]) == [1, 3]


@pytest.mark.parametrize(("app", "handler"), EMBED)
def test_a_batch_that_was_taken_back_whole_does_not_run(run, app, handler):
    runtime = run(app)
    for number in (1, 2):
        runtime.set_slot(number, number << 3 | RECALLED)
    runtime.send(batch(one(1, handler), one(2, handler)))
    assert [(frame.id, frame.flags) for frame in answers(runtime, 2).values()] == [(1, NOT_STARTED), (2, NOT_STARTED)]
    runtime.send(*(batch(one(number, handler)) for number in range(3, 9)))
    assert len(answers(runtime, 6)) == 6, "the handler's places are free"
    if app == "serial":
        assert calls(runtime) == 6


def test_a_sync_handler_sees_which_callers_left(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    runtime.send(batch(one(1, 1), one(2, 1, gate=gate)))
    runtime.wait_until_started(2)
    runtime.cancel(1)
    gate.write_bytes(b"")
    assert texts(answers(runtime, 2)[2], "known") == ["1 1 True False", "2 1 False False"]


def test_an_async_batch_goes_on_while_anybody_waits_for_it(run):
    runtime = run("asynchronous")
    seen = runtime.folder / "seen"
    runtime.send(batch(one(1, 1, seen=seen), one(2, 1)))
    runtime.wait_until_started(2)
    runtime.cancel(1)
    runtime.send(one(3, 2))
    found = answers(runtime, 3)
    assert {number: frame.kind for number, frame in found.items()} == {1: "Done", 2: "Done", 3: "Done"}
    assert [found[number].body for number in (1, 2)] == [b"\x01", b"\x00"]
    assert not seen.exists()


def test_an_async_batch_is_cancelled_once_when_everybody_has_left(run):
    runtime = run("asynchronous")
    seen = runtime.folder / "seen"
    runtime.send(batch(one(1, 1, seen=seen), one(2, 1)), batch(one(3, 0)))
    runtime.expect("Done", 3)  # The loop takes its events in order, so the first batch has started.
    for number in (1, 2):
        runtime.set_slot(number, runtime.slot(number) | 0b100)
    for number in (1, 2):
        runtime.send(Frame("Cancel", number), batch(one(10 + number, 0)))
        runtime.expect("Done", 10 + number)
    assert seen.read_text() == "cancelled"
    runtime.send(one(4, 2))
    found = answers(runtime, 3)
    assert {found[number].code for number in (1, 2)} == {"CANCELLED"}
    assert seen.read_text() == "cancelled, cleaned up"
    assert runtime.printed() == "", "nothing was run again, and nothing went wrong"


def test_an_async_batch_that_is_cancelled_before_its_first_step_is_answered(run):
    runtime = run("asynchronous")
    seen = Path("/dev/null")
    first = batch(one(1, 1, seen=seen), one(2, 1))
    for number in (1, 2):
        runtime.set_slot(number, number << 3 | OFFERED)
    runtime.send(first)
    runtime.cancel(1)
    runtime.cancel(2)
    assert {frame.code for frame in answers(runtime, 2).values()} == {"CANCELLED"}
    runtime.send(*(batch(one(number, 0), one(number + 1, 0)) for number in range(11, 31, 2)))
    assert set(answers(runtime, 20)) == set(range(11, 31)), "the places are free again"


# === the end ===


@pytest.mark.parametrize(("app", "handler"), [("serial", 4), ("serial", 1)])
def test_a_draining_worker_finishes_its_batches(run, app, handler):
    runtime = run(app)
    gate = runtime.fifo("gate")
    runtime.send(batch(one(1, handler, gate=gate), one(2, handler)), batch(one(3, handler), one(4, handler)))
    assert runtime.frames_before_pong() == []
    runtime.send(Frame("Drain", 0))
    gate.write_bytes(b"")
    assert set(answers(runtime, 4)) == {1, 2, 3, 4}
    assert runtime.wait() == 0


def test_every_request_of_a_batch_counts_against_the_slots(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    numbers = [range(8 * start, 8 * start + 8) for start in range(1, 512)]
    runtime.send(*(batch(*(one(number, 4, gate=gate) for number in some)) for some in numbers))
    runtime.send(batch(*(one(number, 4) for number in range(1, 7))))
    # 4094 are under way.
    runtime.send(batch(one(7, 4), one(5000, 4, slot=0)))
    assert runtime.frames_before_pong() == []
    runtime.send(batch(one(5001, 4, slot=1)))
    assert runtime.wait() == 1
    assert "more than 4096 requests are under way" in runtime.printed()


def test_a_batch_that_does_not_fit_the_slots_ends_the_worker(run):
    runtime = run("serial")
    gate = runtime.fifo("gate")
    numbers = [range(8 * start, 8 * start + 8) for start in range(1, 512)]
    runtime.send(*(batch(*(one(number, 4, gate=gate) for number in some)) for some in numbers))
    runtime.send(batch(*(one(number, 4) for number in range(1, 8))))
    # 4095 are under way.
    assert runtime.frames_before_pong() == []
    runtime.send(batch(one(5001, 4, slot=0), one(5002, 4, slot=1)))
    assert runtime.wait() == 1
    assert "more than 4096 requests are under way" in runtime.printed()


def broken(change=None, body: bytes = b"", members: int = 2) -> bytes:
    """A batch of requests for the first handler, with one thing changed about the last."""
    meta = {"members": [{"id": number, "len": 0, "request": one(number, 0).meta} for number in range(1, members + 1)]}
    if change:
        change(meta["members"][-1])
    return Frame("Batch", 0, 0, meta, body).to_bytes()


@pytest.mark.parametrize("app", ["serial", "asynchronous"])
@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (broken(members=0), "a batch has 0 members, from 1 to 256 are allowed"),
        (broken(members=257), "a batch has 257 members, from 1 to 256 are allowed"),
        (broken(lambda last: last.pop("request")), "request of a member is missing"),
        (broken(lambda last: last.update(id=1)), "two requests of a batch have the id 1"),
        (broken(lambda last: last["request"].update(slot=1)), "two requests of a batch have the slot 1"),
        (broken(lambda last: last["request"].update(slot=4096)), "slot 4096 of 4096"),
        (broken(lambda last: last["request"].update(handler=1)), "a batch is for handler 0 and for handler 1"),
        (broken(lambda last: last["request"].update(handler=99), members=1), "handler 99"),
        (broken(lambda last: last.update(len=5), b"1234"), "request 2 of a batch has 5 bytes and the body 4 more"),
        (broken(lambda last: last.update(len=2**64 - 1), b"1"), "has 18446744073709551615 bytes and the body 1 more"),
        (broken(lambda last: last.update(len=3), b"1234"), "1 bytes of the body belong to no request of the batch"),
        (broken(lambda last: last.update(len=1), b"1"), "1 bytes of the body belong to no tensor"),
        (broken()[:-1], "in the middle of a frame"),
        (Frame("Batch", 0).to_bytes()[:16] + b"\xff" * 12, "of metadata, at most"),
    ],
)
def test_a_batch_that_breaks_a_rule_ends_the_worker(run, app, frame, says):
    runtime = run(app)
    runtime.socket.sendall(frame)
    runtime.socket.shutdown(1)
    assert runtime.wait() == 1
    assert says in runtime.printed()


@pytest.mark.parametrize(
    ("app", "handler", "members", "says"),
    [
        ("serial", 3, 1, "a batch of 1 requests is for handler 3, which takes at most 0"),
        ("serial", 1, 9, "a batch of 9 requests is for handler 1, which takes at most 8"),
        ("asynchronous", 2, 2, "a batch of 2 requests is for handler 2, which takes at most 0"),
    ],
)
def test_a_batch_larger_than_its_handler_takes_ends_the_worker(run, app, handler, members, says):
    runtime = run(app)
    runtime.send(batch(*(one(number, handler) for number in range(1, members + 1))))
    assert runtime.wait() == 1
    assert says in runtime.printed()


def test_a_worker_ends_with_its_runtime_though_a_batch_runs(run):
    runtime = run("asynchronous")
    runtime.send(batch(one(1, 1, seen=Path("/dev/null")), one(2, 1)))
    runtime.wait_until_started(2)
    runtime.socket.close()
    assert runtime.wait() < 0


def test_a_field_that_this_release_does_not_know_is_left_alone(run):
    runtime = run("serial")
    meta = encode("Batch", batch(one(1, 0)).meta) + b"\x78\x01"
    frame = Frame("Batch", 0).to_bytes()
    runtime.set_slot(1, 1 << 3 | OFFERED)
    runtime.socket.sendall(frame[:16] + len(meta).to_bytes(4, "little") + bytes(8) + meta)
    assert shared(runtime.expect("Done", 1)) == [1]
