"""A worker's life, from its start to its end, against a runtime that is written down here frame by frame."""

import signal
import struct
from pathlib import Path

import pytest

from tests.python.frames import OFFERED, Frame, parameters, request

APPS = Path(__file__).with_name("life_apps.py")
FORMS = ("Serial", "Threaded", "Looped")
GROUPS = [form + hooks for form in FORMS for hooks in ("Sync", "Async")]

every_form = pytest.mark.parametrize("group", GROUPS)


class Notes:
    """What a worker writes down, and the gate that holds it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.gate = folder / "notes", folder / "gate"
        self.path.touch()

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    def wait_for(self, runtime, line: str) -> None:
        """Return when the worker has written this line; it must be alive until then."""
        while line not in self.lines():
            assert runtime.process.poll() is None, runtime.printed()

    def open(self) -> None:
        self.gate.write_bytes(b"x")


@pytest.fixture
def notes(tmp_path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def live(run, notes):
    """Starts a worker of a group, which fails or is held at a step if that is said."""
    import os

    def start(group: str, *, app: str = "app", fail: str = "", hold: str = "", **options):
        if hold:
            os.mkfifo(notes.gate)
        variables = {"NOTES": str(notes.path), "GATE": str(notes.gate), "FAIL": fail, "HOLD": hold}
        return run(app, group=group, environment=variables, **options)

    return start


def ended(runtime) -> None:
    """The worker closes its socket, and says nothing more before that."""
    with pytest.raises(EOFError):
        runtime.receive()


def failure(runtime) -> str:
    """Why the worker does not start, as it tells after its welcome."""
    failed = runtime.expect("Failed", 0)
    assert failed.code == "HANDLER_ERROR"
    assert runtime.wait() == 2
    return failed.meta["message"] + "\n" + failed.meta["traceback"]


def number_in(frame: Frame) -> int:
    return struct.unpack("<q", frame.body)[0]


# === in order ===


@every_form
def test_the_hooks_frame_the_requests(live, notes, group):
    runtime = live(group)
    assert notes.lines() == ["init", "start"], "it is ready after its start"
    assert [row["function"] for row in runtime.hello.meta["handlers"]] == [f"{group}.handle"] * 2
    runtime.send(request(1, 1))
    assert number_in(runtime.expect("Done", 1)) == 7
    runtime.send(Frame("Sleep", 0))
    runtime.expect("Asleep", 0)
    assert notes.lines()[2:] == [f"handle {group}-too", "sleep"]
    assert runtime.frames_before_pong() == [], "one that sleeps lives"
    runtime.send(Frame("Wake", 0))
    runtime.expect("Ready", 0)
    runtime.send(request(2, 0))
    runtime.expect("Done", 2)
    runtime.send(Frame("Drain", 0))
    ended(runtime)
    assert runtime.wait() == 0
    assert notes.lines()[4:] == ["wake", f"handle {group}", "stop"]


@every_form
def test_it_sleeps_and_wakes_as_often_as_it_is_told(live, notes, group):
    runtime = live(group)
    for _ in range(3):
        runtime.send(Frame("Sleep", 0))
        runtime.expect("Asleep", 0)
        runtime.send(Frame("Wake", 0))
        runtime.expect("Ready", 0)
    assert notes.lines() == ["init", "start", *["sleep", "wake"] * 3]


def test_a_worker_serves_the_functions_or_its_own_class_and_makes_no_other(live, notes):
    for group in (None, "default"):
        runtime = live(group)
        assert [row["function"] for row in runtime.hello.meta["handlers"]] == ["plain"]
    runtime.send(Frame("Sleep", 0))
    runtime.expect("Asleep", 0)
    runtime.send(Frame("Drain", 0))
    assert runtime.wait() == 0
    assert notes.lines() == []


# === start ===


@every_form
def test_while_it_starts_it_answers_pings_and_is_not_ready(live, notes, group):
    runtime = live(group, hold="start", ready=False)
    assert runtime.frames_before_pong() == []
    notes.open()
    runtime.expect("Ready")
    assert runtime.frames_before_pong() == []


@every_form
def test_a_start_that_raises_is_told_with_the_place_and_ends_with_2(live, notes, group):
    told = failure(live(group, fail="start", ready=False))
    assert told.startswith(f"on_start of {group!r} raised ValueError: no start\n")
    assert 'raise ValueError(f"no {name}")' in told
    assert "anyserve/worker/_life.py" not in told, "the traceback begins in the app"
    assert notes.lines() == ["init", "start"], "what did not start is not stopped"


def test_an_object_that_cannot_be_made_is_told_before_the_welcome(live):
    runtime = live("SerialSync", fail="init", welcome=False)
    assert runtime.expect("Hello").meta["handlers"] == []
    failed = runtime.expect("Failed", 0)
    assert failed.meta["message"] == "making a SerialSync() raised ValueError: no init"
    assert "in __init__" in failed.meta["traceback"]
    assert runtime.wait() == 2


@every_form
def test_a_runtime_that_goes_during_the_start_takes_the_worker_along(live, notes, group):
    runtime = live(group, hold="start", ready=False)
    notes.wait_for(runtime, "start")
    runtime.socket.close()
    assert runtime.wait() == -signal.SIGKILL


@every_form
def test_a_signal_during_the_start_ends_it_at_once(live, notes, group):
    runtime = live(group, hold="start", ready=False)
    notes.wait_for(runtime, "start")
    runtime.process.send_signal(signal.SIGTERM)
    assert runtime.wait() == -signal.SIGTERM
    assert notes.lines() == ["init", "start"]


@every_form
def test_a_drain_during_the_start_comes_after_it(live, notes, group):
    runtime = live(group, hold="start", ready=False)
    runtime.send(Frame("Drain", 0))
    notes.open()
    runtime.expect("Ready")
    ended(runtime)
    assert runtime.wait() == 0
    assert notes.lines() == ["init", "start", "stop"]


# === sleep and wake ===


@every_form
@pytest.mark.parametrize("hook", ["sleep", "wake"])
def test_while_a_hook_runs_pings_are_answered(live, notes, group, hook):
    runtime = live(group, hold=hook)
    runtime.send(Frame("Sleep", 0))
    if hook == "wake":
        runtime.expect("Asleep")
        runtime.send(Frame("Wake", 0))
    notes.wait_for(runtime, hook)
    assert runtime.frames_before_pong() == []
    notes.open()
    runtime.expect("Asleep" if hook == "sleep" else "Ready")


@every_form
@pytest.mark.parametrize("hook", ["sleep", "wake"])
def test_a_hook_that_raises_is_logged_and_ends_the_worker_with_3(live, notes, group, hook):
    runtime = live(group, fail=hook)
    runtime.send(Frame("Sleep", 0))
    if hook == "wake":
        runtime.expect("Asleep")
        runtime.send(Frame("Wake", 0))
    ended(runtime)
    assert runtime.wait() == 3
    assert f"ERROR anyserve.worker: on_{hook} of {group!r} raised ValueError: no {hook}\nTraceback" in runtime.printed()
    assert "stop" not in notes.lines()


@every_form
def test_a_runtime_that_goes_during_a_hook_takes_the_worker_along(live, notes, group):
    runtime = live(group, hold="sleep")
    runtime.send(Frame("Sleep", 0))
    notes.wait_for(runtime, "sleep")
    runtime.socket.close()
    assert runtime.wait() == -signal.SIGKILL


@every_form
def test_it_sleeps_after_what_it_has_begun(live, notes, group):
    runtime = live(group, hold=f"handle {group}")
    runtime.send(request(1, 0))
    runtime.wait_until_started(1)
    if group.startswith("Looped"):
        notes.open()  # It holds the loop; the answer and the order to sleep cross each other.
        runtime.send(Frame("Sleep", 0))
    else:
        runtime.send(Frame("Sleep", 0))
        assert runtime.frames_before_pong() == []
        notes.open()
    runtime.expect("Done", 1)
    runtime.expect("Asleep")
    assert notes.lines()[2:] == [f"handle {group}", "sleep"]


@every_form
@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([Frame("Sleep", 0), request(1, 0)], "a Request frame came to a worker that is "),
        ([Frame("Sleep", 0), Frame("Sleep", 0)], "a Sleep frame came to a worker that is "),
        ([Frame("Wake", 0)], "a Wake frame came to a worker that is awake"),
        ([Frame("Asleep", 0)], "a Asleep frame is none that a worker gets"),
    ],
)
def test_what_comes_out_of_turn_ends_the_worker(live, group, frames, says):
    runtime = live(group)
    runtime.send(*frames)
    assert runtime.wait() == 1
    assert says in runtime.printed()


@every_form
def test_a_request_before_it_is_ready_ends_the_worker(live, notes, group):
    runtime = live(group, hold="start", ready=False)
    runtime.send(request(1, 0))
    assert runtime.wait() == 1
    assert "a Request frame came to a worker that is starting" in runtime.printed()


# === the end ===


@every_form
def test_a_drain_finishes_what_is_under_way_and_then_stops(live, notes, group):
    runtime = live(group, hold=f"handle {group}")
    runtime.send(request(1, 0), Frame("Drain", 0))
    runtime.wait_until_started(1)
    notes.open()
    runtime.expect("Done", 1)
    ended(runtime)
    assert runtime.wait() == 0
    assert notes.lines()[2:] == [f"handle {group}", "stop"]


@every_form
@pytest.mark.parametrize("asleep", [False, True])
def test_a_signal_to_end_stops_it_too(live, notes, group, asleep):
    runtime = live(group)
    if asleep:
        runtime.send(Frame("Sleep", 0))
        runtime.expect("Asleep")
    runtime.process.send_signal(signal.SIGTERM)
    ended(runtime)
    assert runtime.wait() == 0
    assert notes.lines()[-1] == "stop"


@every_form
@pytest.mark.parametrize("asleep", [False, True])
def test_where_the_runtime_goes_and_nothing_is_under_way_it_stops_in_order(live, notes, group, asleep):
    runtime = live(group)
    if asleep:
        runtime.send(Frame("Sleep", 0))
        runtime.expect("Asleep")
    runtime.socket.close()
    assert runtime.wait() == 0
    assert notes.lines()[-1] == "stop"


@every_form
def test_a_stop_that_raises_is_logged_and_the_end_is_as_always(live, group):
    runtime = live(group, fail="stop")
    runtime.send(Frame("Drain", 0))
    ended(runtime)
    assert runtime.wait() == 0
    assert f"ERROR anyserve.worker: on_stop of {group!r} raised ValueError: no stop" in runtime.printed()


@every_form
def test_what_comes_while_it_stops_is_not_started(live, notes, group):
    runtime = live(group, hold="stop")
    runtime.process.send_signal(signal.SIGTERM)
    notes.wait_for(runtime, "stop")
    runtime.send(request(1, 0))
    assert runtime.frames_before_pong() == [], "what stops answers pings"
    assert runtime.slot(1) & 0b11 == OFFERED
    notes.open()
    assert runtime.wait() == 0
    assert runtime.slot(1) & 0b11 == OFFERED, "so that another worker may have it"


# === warm-up ===


@pytest.mark.parametrize(
    ("group", "lines"),
    [
        (
            "Typed",
            [
                "start",
                "typed float32 [1.5, 2.0] None", "typed-too float32 [1.5, 2.0] None",
                "typed float32 [3.0] None", "typed-too float32 [3.0] None",
            ],
        ),
        ("Batched", ["{'type': 'batched'} hé INT64 batched"]),
        ("Generated", ["drained"]),
        ("Sent", ["sent"]),
        ("Awaited", ["awaited"]),
        ("Yielded", ["drained"]),
        ("Asent", ["sent"]),
    ],
)  # fmt: skip
def test_requests_warm_a_worker_up_before_it_is_ready(live, notes, group, lines):
    runtime = live(group, app="warm")
    assert notes.lines() == lines
    assert runtime.frames_before_pong() == []


def test_a_warm_up_runs_on_the_loop_of_the_requests(live, notes):
    runtime = live("Awaited", app="warm")
    runtime.send(request(1, 0))
    runtime.expect("Done", 1)
    assert notes.lines() == ["awaited", "awaited"]


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (
            "Failing",
            "warmup[1] for the capability {'type': 'bad', 'size': 3} of 'Failing' raised ValueError: too large",
        ),
        (
            "Wrong",
            "warmup[0] for the capability {'type': 'wrong'} of 'Wrong' raised TypeError: the handler returned int",
        ),
        ("Short", "raised TypeError: 'Short.handle' returned a list of 0 for 1 request"),
        ("Raised", "raised ValueError: for this one"),
    ],
)
def test_a_warm_up_that_fails_fails_the_start_and_says_which_it_was(live, group, says):
    assert says in failure(live(group, app="warm", ready=False))


# === isolation ===


@pytest.mark.parametrize("group", ["Limited", "LimitedThreads"])
def test_what_is_beyond_the_memory_limit_fails_and_the_worker_lives(live, group):
    runtime = live(group, app="apart")
    runtime.send(request(1, 0, parameters=parameters(mib=100)))
    runtime.expect("Done", 1)
    for number in (2, 3):
        runtime.send(request(number, 0, parameters=parameters(mib=512)))
        failed = runtime.expect("Failed", number)
        assert failed.code == "HANDLER_ERROR"
        assert "MemoryError" in failed.meta["message"]
    runtime.send(request(4, 0, parameters=parameters(mib=100)))
    runtime.expect("Done", 4)


def test_a_start_beyond_the_memory_limit_is_told(live):
    assert "on_start of 'LimitedStart' raised MemoryError" in failure(live("LimitedStart", app="apart", ready=False))


def test_a_limit_below_what_a_worker_has_anyway_is_told_with_both_numbers(live):
    runtime = live("Tight", app="apart", welcome=False)
    runtime.expect("Hello")
    message = runtime.expect("Failed", 0).meta["message"]
    assert message.startswith("'Tight': memory_limit=16777216 bytes is below the ")
    assert runtime.wait() == 2


def test_niceness_is_added_to_the_process(live):
    import os

    runtime = live("Limited", app="apart")
    runtime.send(request(1, 1))
    assert number_in(runtime.expect("Done", 1)) == os.getpriority(os.PRIO_PROCESS, 0) + 7
