"""Threads that wait, against a runtime that is written down here byte by byte: none keeps another from going on."""

import os
import socket
import time
from pathlib import Path

from tests.python.frames import WATCHDOG_S, FakeRuntime, Frame, batch, parameters, request

APPS = Path(__file__).with_name("wait_apps.py")
MIB = 1 << 20


def until(is_so) -> None:
    end = time.monotonic() + WATCHDOG_S
    while not is_so():
        assert time.monotonic() < end, "it never came to it"
        os.sched_yield()


def open_gate(path: Path) -> None:
    path.write_bytes(b"")


def is_sending(runtime: FakeRuntime) -> bool:
    """Whether the worker has begun to send something."""
    try:
        return bool(runtime.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_room_that_was_asked_for_ahead_is_asked_for_before_it_is_waited_for(run):
    runtime = run("threads", arena=MIB)
    runtime.send(batch(*(request(number, 0, id=str(number)) for number in (1, 2, 3, 4))))
    # The answers of a batch leave together, so nothing but the wait itself can send what was asked ahead for the third.
    asked = [runtime.grant(place * (1 << 16)).meta for place in range(6)]
    assert [bool(put["ahead"]) for put in asked] == [False, False, True, True, True, True]
    assert [frame.kind for frame in (runtime.receive() for _ in range(4))] == ["Done"] * 4


def test_a_request_is_served_while_a_thread_that_was_left_behind_waits_for_an_answer(run):
    runtime = run("serial", arena=MIB)
    runtime.send(request(1, 0))
    first, second = runtime.receive(), runtime.receive()
    get = first if first.kind == "Get" else second
    for number in (2, 3, 4):
        runtime.send(request(number, 2))
        runtime.expect("Done", number)
    runtime.send(Frame("View", get.id), request(5, 1))
    runtime.expect("Done", 5)


def test_who_gives_a_call_up_keeps_no_other_handler_while_a_large_answer_is_sent(run):
    runtime = run("threads")
    gate, seen = runtime.fifo("gate"), runtime.folder / "seen"
    runtime.send(request(1, 2, parameters=parameters(gate=str(gate))))
    call = runtime.expect("Call")
    runtime.send(request(2, 1))
    # It cannot send all of it, and nobody else anything, until somebody reads.
    until(lambda: is_sending(runtime))
    open_gate(gate)
    runtime.send(request(3, 3, parameters=parameters(seen=str(seen))))
    until(seen.exists)
    frames = [runtime.receive() for _ in range(4)]
    assert sorted(frame.kind for frame in frames) == ["Cancel", "Done", "Done", "Done"]
    assert [frame.id for frame in frames if frame.kind == "Cancel"] == [call.id]


def test_the_end_of_a_stream_ends_the_wait_of_a_thread_that_still_sends(run):
    runtime = run("threads", window=1)
    gate = runtime.fifo("gate")
    runtime.send(request(1, 4, parameters=parameters(gate=str(gate))))
    runtime.expect("Chunk", 1)
    assert runtime.frames_before_pong() == []
    open_gate(gate)
    runtime.expect("Done", 1)
    runtime.send(request(2, 5))
    assert b"cancelled" in runtime.expect("Done", 2).outputs()["left"][2]
