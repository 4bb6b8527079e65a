"""What a replica shows of itself."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from anyserve.cli import terminal
from anyserve.cli.progress import example, line

SERVING = {"endpoint": "127.0.0.1:8000", "capabilities": [], "models": ["echo", "add"], "workers": 2}


@pytest.mark.parametrize(
    ("kind", "event", "expected"),
    [
        ("worker", {"name": "worker-1", "state": "ready", "pid": 9, "detail": ""}, "worker-1 ready (pid 9)"),
        ("worker", {"name": "worker-1", "state": "failed", "pid": None, "detail": "exit 3"}, "worker-1 failed: exit 3"),
        (
            "draining",
            {"in_flight": 1, "grace_s": 30.0},
            "stopping: 1 request in flight, at most 30 s; once more ends it",
        ),
        (
            "worker",
            {"name": "worker-1", "state": "stopping", "pid": 9, "detail": "no app"},
            "worker-1 stopping (pid 9)",
        ),
        ("stopped", {"clean": True, "aborted": 0}, "stopped"),
        ("stopped", {"clean": False, "aborted": 2}, "stopped; 2 requests aborted"),
        (
            "listening",
            {"endpoint": "http://127.0.0.1:8080", "store": "memory", "policy": "least-wait"},
            "API server on http://127.0.0.1:8080, routing by least-wait; next: anyserve serve app:app --api-server http://",
        ),
        (
            "listening",
            {"endpoint": "http://h:1", "store": "etcd", "policy": "sticky"},
            "API server on http://h:1, shared in etcd",
        ),
        ("something new", {}, ""),
    ],
)
def test_an_event_is_one_line(kind, event, expected):
    assert line(kind, event).startswith(expected)
    assert "no app" not in line(kind, event)
    assert "\n" not in line(kind, event)


def test_the_last_line_says_what_is_served_where_and_how_to_call_it():
    assert line("serving", SERVING) == (
        "serving echo, add on 127.0.0.1:8000 with 2 workers; "
        "try: anyserve call echo NAME=VALUE --endpoint 127.0.0.1:8000"
    )


def test_many_models_are_counted_after_the_first_eight():
    models = [f"m{number}" for number in range(10)]
    assert "m7 and 2 more on" in line("serving", {**SERVING, "models": models})


def test_the_example_of_a_model_that_declares_nothing_is_to_be_filled_in():
    assert example(["a model"], {}, "h:1") == "anyserve call 'a model' NAME=VALUE --endpoint h:1"


def test_the_example_has_the_inputs_that_are_declared():
    inputs = {"echo": None, "add": [("a", "FP32", [-1]), ("b", "FP32", [2])], "say": [("text", "BYTES", [1])]}
    assert example(["echo", "add"], inputs, "h:1") == "anyserve call add a=1 'b=[1,1]' --endpoint h:1"
    assert example(["say"], inputs, "h:1") == "anyserve call say text=hello --endpoint h:1"
    assert example(["x"], {"x": [("m", "BYTES", [1, 2])]}, "h:1") == (
        'anyserve call x \'m=[["hello","hello"]]\' --endpoint h:1'
    )


def test_the_example_of_a_stream_asks_for_one():
    assert line("serving", {**SERVING, "streams": ["echo"]}).endswith(
        "echo NAME=VALUE --stream --endpoint 127.0.0.1:8000"
    )
    assert "--stream" not in line("serving", {**SERVING, "streams": ["add"]})


def test_a_terminal_shows_a_table_while_it_starts_and_lines_after_that(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(terminal, "Console", lambda: Console(file=written, force_terminal=True, width=100))
    with terminal.Terminal() as shown:
        shown.show("worker", {"name": "worker-0", "state": "starting", "pid": 3, "detail": "loading"})
        shown.show("worker", {"name": "worker-0", "state": "ready", "pid": 3, "detail": ""})
        shown.show("serving", {**SERVING, "models": ["echo"]})
        shown.show("worker", {"name": "worker-0", "state": "stopped", "pid": 3, "detail": "exit 1"})
    lines = Text.from_ansi(written.getvalue()).plain
    assert "loading" in written.getvalue()
    assert "worker-0 ready (pid 3)" in lines
    assert "serving" in lines
    assert "exit 1" in lines


def test_a_terminal_that_never_got_to_serve_is_left_as_it_was(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(terminal, "Console", lambda: Console(file=written, force_terminal=True, width=100))
    with terminal.Terminal() as shown:
        shown.show("worker", {"name": "worker-0", "state": "starting", "pid": 3, "detail": ""})
    assert written.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in written.getvalue()
