"""What becomes of requests, of workers and of the replica when processes die, hang, print or are told to leave."""

import os
import random
import signal
import socket
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from anyserve import Client, errors
from tests.e2e.messages import anyserve_code, infer, refused, stub, text
from tests.e2e.replicas import WATCHDOG_S, Replica, assert_gone, lives, until
from tests.e2e.under_way import callers

SERIAL = ("workers.py:create_serial", "--factory")
MIXED = ("workers.py:create_mixed", "--factory")
UNFORKED = (*SERIAL, "--no-fork")
"""Each worker loads the app by itself, and the app can hold it up."""
KILLED = f"signal: {signal.SIGKILL.value}"
OUT_OF_MEMORY = "unless somebody killed it, the system may have run out of memory"


@pytest.fixture
def calls():
    """Makes the caller of a replica."""
    with callers() as make:
        yield make


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def failure(call: Future) -> BaseException:
    found = call.exception(WATCHDOG_S)
    assert found is not None, "the call was answered"
    return found


def replaced(replica: Replica, old: set[int]) -> set[int]:
    """Wait until the replica is ready with workers that are none of these."""

    def ready() -> set[int]:
        now = replica.workers()
        return now if replica.is_ready() and now and not now & old else set()

    return until(ready, f"workers other than {old}, and ready")


# === death ===


@pytest.mark.parametrize("app", [SERIAL, MIXED])
def test_a_killed_worker_fails_what_it_ran_at_once_and_the_rest_is_answered_by_the_next(replica, calls, app):
    served = replica(*app)
    call, pid = calls(served), served.worker()
    running = call("hold", "running")
    served.noted("started-running")
    others = [call("hold", "other") for _ in range(20)]
    call.waiting(21)
    kill(pid)
    lost = failure(running)
    served.allow("go-other")
    assert isinstance(lost, errors.WorkerLost)
    assert (lost.code, type(lost).__mro__[1]) == ("WORKER_LOST", errors.AnyServeError)
    (new,) = {int(other.result(WATCHDOG_S)["pid"][0]) for other in others}
    assert new != pid
    assert replaced(served, {pid}) == {new}
    until(lambda: served.metric("anyserve_worker_restarts_total") == 1, "the restart in the metrics")
    assert served.metric("anyserve_requests_total", code="WORKER_LOST") == 1
    assert served.metric("anyserve_requests_total", code="OK") == 20
    assert KILLED in served.output()
    assert OUT_OF_MEMORY in served.output()


def test_a_lost_request_is_unavailable_to_any_grpc_client(replica, channel):
    served = replica(*MIXED)
    call = stub(channel(served.endpoint)).ModelInfer.future(infer("hold", text("name", "h")))
    served.noted("started-h")
    kill(served.worker())
    error = call.exception(WATCHDOG_S)
    assert (error.code(), anyserve_code(error)) == (grpc.StatusCode.UNAVAILABLE, "WORKER_LOST")


@pytest.mark.parametrize("model", ["hold-async", "hold-threads", "hold"])
def test_every_request_that_runs_in_a_killed_worker_is_told_so(replica, calls, model):
    served = replica(*MIXED)
    call, count = calls(served), {"hold-async": 64, "hold-threads": 4, "hold": 1}[model]
    running = [call(model, "h") for _ in range(count)]
    served.noted("started-h", count)
    kill(served.worker())
    assert {type(failure(one)) for one in running} == {errors.WorkerLost}


@pytest.mark.parametrize("model", ["parts", "parts-async"])
def test_a_stream_whose_worker_is_killed_ends_in_an_error_after_what_it_gave(replica, model):
    served = replica(*MIXED)
    with Client(served.endpoint) as client:
        stream = client.stream(model, {"name": "s"}, timeout_s=WATCHDOG_S)
        pid = int(next(stream)["pid"][0])
        assert pid == served.worker()
        kill(pid)
        with pytest.raises(errors.WorkerLost):
            next(stream)
        replaced(served, {pid})
        for part in range(3):
            served.allow(f"go-s-{part}")
        assert len(list(client.stream(model, {"name": "s"}, timeout_s=WATCHDOG_S))) == 3


@pytest.mark.parametrize("model", ["exit", "abort"])
@pytest.mark.parametrize("app", [SERIAL, MIXED])
def test_a_handler_that_ends_its_process_loses_its_own_request_only(replica, calls, app, model):
    served = replica(*app)
    call, pid = calls(served), served.worker()
    assert isinstance(failure(call(model, "x")), errors.WorkerLost)
    assert int(call.now("pid")["pid"][0]) != pid
    assert len(served.note("started-x")) == 1
    replaced(served, {pid})


def test_health_tells_the_truth_while_the_only_worker_is_down(replica, calls, channel):
    served = replica(*UNFORKED)
    service, pid = stub(channel(served.endpoint)), served.worker()
    # The next worker is held up while it starts, so that there is none for as long as the test looks.
    served.allow("hold-up-start")
    kill(pid)
    until(lambda: not served.is_ready(), "not ready")
    assert served.http("/health/live")[0] == 200
    assert service.ServerLive(pb.ServerLiveRequest()).live
    assert not service.ServerReady(pb.ServerReadyRequest()).ready
    assert not service.ModelReady(pb.ModelReadyRequest(name="pid")).ready
    states = {model.state for model in service.RepositoryIndex(pb.RepositoryIndexRequest()).models}
    assert states == {"UNAVAILABLE"}
    assert served.metric("anyserve_workers", state="ready") == 0
    waiting = calls(served)("pid")
    (served.notes / "hold-up-start").unlink()
    assert int(waiting.result(WATCHDOG_S)["pid"][0]) != pid
    replaced(served, {pid})
    assert service.ModelReady(pb.ModelReadyRequest(name="pid")).ready
    until(lambda: served.metric("anyserve_workers", state="ready") == 1, "a ready worker in the metrics")


def test_who_watches_the_health_is_told_of_a_workers_death_and_of_its_return(replica, channel):
    served = replica(*UNFORKED)
    watch = channel(served.endpoint).unary_stream("/grpc.health.v1.Health/Watch")(b"")
    serving, not_serving = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse: `ServingStatus status = 1`
    assert next(watch) == serving
    served.allow("hold-up-start")
    kill(served.worker())
    assert next(watch) == not_serving
    (served.notes / "hold-up-start").unlink()
    assert next(watch) == serving


def test_with_two_workers_the_death_of_one_costs_the_other_nothing(replica, calls):
    served = replica(*SERIAL, "--workers", "2")
    call, both = calls(served), served.workers()
    assert len(both) == 2
    first, second = call("hold", "first"), call("hold", "second")
    pids = {name: int(served.noted(f"started-{name}")[0]) for name in ("first", "second")}
    assert set(pids.values()) == both
    kill(pids["first"])
    assert isinstance(failure(first), errors.WorkerLost)
    assert served.is_ready()
    served.allow("go-second")
    assert int(second.result(WATCHDOG_S)["pid"][0]) == pids["second"]
    until(lambda: len(served.workers()) == 2 and served.metric("anyserve_workers", state="ready") == 2, "two again")


def test_what_a_worker_had_not_started_goes_to_another_worker(replica, calls):
    served = replica(*SERIAL, "--workers", "2")
    call = calls(served)
    holds = [call("hold", "h") for _ in range(6)]
    started = served.noted("started-h", 2)
    kill(int(started[0]))
    served.allow("go-h")
    ended = [one.exception(WATCHDOG_S) for one in holds]
    assert sorted(type(error).__name__ for error in ended) == ["NoneType"] * 5 + ["WorkerLost"]
    assert len(served.note("ended-h")) == 5


def test_workers_that_keep_dying_fail_requests_instead_of_holding_them(replica, calls):
    served = replica(*UNFORKED)
    served.allow("die-at-start")
    kill(served.worker())
    assert isinstance(failure(calls(served)("pid")), errors.Unavailable)
    assert not served.is_ready()
    (served.notes / "die-at-start").unlink()
    until(served.is_ready, "ready again")
    assert calls(served).now("pid")["pid"][0] == served.worker()


def test_under_load_every_call_ends_with_an_answer_or_a_typed_error_while_workers_are_killed(replica, calls):
    served = replica(*MIXED, "--workers", "2")
    call, count = calls(served), 600
    started = [call(model) for place in range(count // 2) for model in ("pid", "coroutine")]
    for done in (0.1, 0.3, 0.6):
        until(lambda done=done: sum(one.done() for one in started) > done * count, "progress")
        kill(max(until(served.workers, "workers")))
    ended = [one.exception(WATCHDOG_S) for one in started]
    assert {type(error).__name__ for error in ended} <= {"NoneType", "WorkerLost"}
    assert sum(error is None for error in ended) > count // 2
    until(lambda: served.metric("anyserve_workers", state="ready") == 2, "two workers again")
    assert served.metric("anyserve_requests_total") == count
    assert served.metric("anyserve_requests_in_flight") == served.metric("anyserve_queue_depth") == 0


def test_under_load_nothing_that_was_taken_is_lost_when_the_replica_leaves(replica, calls):
    served = replica(*MIXED, "--workers", "2")
    call = calls(served)
    started = [call(model) for place in range(400) for model in ("pid", "coroutine")]
    until(lambda: sum(one.done() for one in started) > 100, "progress")
    served.signal()
    ended = [one.exception(WATCHDOG_S) for one in started]
    assert {type(error).__name__ for error in ended} <= {"NoneType", "Draining", "Unavailable"}
    assert sum(error is None for error in ended) > 100
    assert served.wait() == 0


def test_under_load_workers_that_are_told_to_leave_one_after_the_other_lose_nothing(replica, calls):
    served = replica(*MIXED, "--workers", "2")
    call, count = calls(served), 600
    started = [call(model) for place in range(count // 2) for model in ("pid", "coroutine")]
    for done in (0.1, 0.3, 0.5, 0.7):
        until(lambda done=done: sum(one.done() for one in started) > done * count, "progress")
        pid = min(until(served.workers, "workers"))
        kill(pid, signal.SIGTERM)
        assert_gone({pid})
    assert {type(one.exception(WATCHDOG_S)) for one in started} == {type(None)}
    until(lambda: served.metric("anyserve_workers", state="ready") == 2, "two workers again")
    assert served.metric("anyserve_requests_total", code="OK") == count


# === silence ===


def test_a_stopped_worker_is_replaced(replica, calls):
    served = replica(*MIXED, "--ping-timeout-s", "0.5")
    call, pid = calls(served), served.worker()
    running = call("hold", "h")
    served.noted("started-h")
    kill(pid, signal.SIGSTOP)
    assert isinstance(failure(running), errors.WorkerLost)
    replaced(served, {pid})
    assert_gone({pid})
    assert OUT_OF_MEMORY not in served.output(), "it is the replica that killed it"


def test_a_busy_handler_is_no_reason_to_replace_its_worker(replica, calls):
    served = replica(*SERIAL, "--ping-timeout-s", "0.3")
    call, pid = calls(served), served.worker()
    running = call("spin", "1.5")  # Seconds without letting go of the interpreter for long, five times the limit.
    assert int(running.result(WATCHDOG_S)["pid"][0]) == pid
    assert served.worker() == pid


def test_a_worker_that_never_says_hello_ends_the_start_with_a_message(tmp_path, begun):
    app = tmp_path / "stuck.py"
    app.write_text("import time\nwhile True:\n    time.sleep(0.01)\n")
    stuck = begun(f"{app}:app", "--start-timeout-s", "0.5")
    assert stuck.wait() == 2
    error = stuck.stderr.read_text()
    assert "0.5" in error or "500" in error, error
    assert "not ready" in error
    assert "Traceback" not in error


def test_an_app_that_ends_its_process_at_import_ends_the_start_with_its_status(tmp_path, begun):
    app = tmp_path / "leaves.py"
    app.write_text("import os\nprint('about to leave', flush=True)\nos._exit(7)\n")
    left = begun(f"{app}:app")
    assert left.wait() == 2
    assert "exit status: 7" in left.stderr.read_text()
    assert "about to leave" in left.stderr.read_text()


# === output ===


def test_what_a_worker_prints_is_in_the_log_line_by_line_under_its_name(replica, calls):
    served = replica(*SERIAL)
    calls(served).now("print", "words")
    for line in ("words to stdout", "words to stderr", "words without an end"):
        served.says(line)
        (logged,) = [one for one in served.stderr.read_text().splitlines() if line in one]
        assert "worker-0" in logged
    assert "\ufffd\ufffd" in served.stderr.read_text()


def test_what_a_worker_printed_last_before_its_death_is_in_the_log(replica, calls):
    served = replica(*SERIAL)
    assert isinstance(failure(calls(served)("say-and-exit", "last words")), errors.WorkerLost)
    served.says("last words")


def test_a_handlers_traceback_reaches_its_caller_in_debug_and_nobody_else(replica, calls):
    plain, debug = replica(*SERIAL), replica(*SERIAL, "--log-level", "debug")
    told, shown = (failure(calls(served)("raise", "deep inside")) for served in (plain, debug))
    assert isinstance(told, errors.HandlerError)
    assert str(told) == str(shown) == "ValueError: deep inside"
    assert told.traceback is None
    assert "in raise_it" in shown.traceback
    assert "anyserve/worker" not in shown.traceback


def test_what_a_handler_raises_is_in_the_log_with_its_traceback(replica, calls):
    served = replica(*MIXED)
    assert isinstance(failure(calls(served)("raise", "deep inside")), errors.HandlerError)
    served.says("ValueError: deep inside")
    served.says("in raise_it")
    assert "anyserve/worker/" not in served.stderr.read_text()


# === the end of the replica ===


def test_workers_end_with_a_runtime_that_is_killed(begun):
    served = begun(*MIXED, "--workers", "2")
    served.serves()
    workers = until(lambda: len(found := served.workers()) == 2 and found, "two workers")
    with Client(served.endpoint) as client, ThreadPoolExecutor() as pool:
        running = pool.submit(client.infer, "hold", {"name": "h"}, timeout_s=WATCHDOG_S)
        served.noted("started-h")
        served.signal(signal.SIGKILL)
        assert isinstance(failure(running), errors.Unavailable)
    assert served.wait() == -signal.SIGKILL
    assert_gone(workers)


def test_processes_that_a_worker_started_end_with_it(replica, calls):
    served = replica(*SERIAL)
    call = calls(served)
    first = int(call.now("fork")["pid"][0])
    assert lives(first)
    kill(served.worker())
    assert_gone({first})
    second = int(call.now("fork")["pid"][0])
    served.stop()
    assert_gone({second})


@pytest.mark.parametrize(("app", "models"), [
    (SERIAL, ["hold"]), (MIXED, ["hold", "hold-async", "hold-async", "hold-threads", "hold-threads"]),
])  # fmt: skip
def test_what_is_in_flight_at_sigterm_is_answered_before_the_replica_ends(replica, calls, app, models):
    served = replica(*app)
    call = calls(served)
    running = [call(model, f"h{place}") for place, model in enumerate(models)]
    for place in range(len(models)):
        served.noted(f"started-h{place}")
    pid = served.worker()
    served.signal()
    served.says(f"stopping: {len(models)} request")
    for place in range(len(models)):
        served.allow(f"go-h{place}")
    assert {int(one.result(WATCHDOG_S)["pid"][0]) for one in running} == {pid}
    assert served.wait() == 0
    assert "\nstopped\n" in served.stdout.read_text()
    assert_gone({pid})


def test_what_waits_at_sigterm_is_answered_as_well(replica, calls):
    served = replica(*SERIAL)
    call = calls(served)
    running = call("hold", "h")
    served.noted("started-h")
    waiting = [call("pid") for _ in range(10)]
    call.waiting(11)
    served.signal(signal.SIGINT)
    served.says("stopping: 11 requests")
    served.allow("go-h")
    for one in [running, *waiting]:
        assert one.result(WATCHDOG_S)["pid"]
    assert served.wait() == 0


def test_a_stream_in_flight_at_sigterm_is_given_to_its_end(replica):
    served = replica(*MIXED)
    with Client(served.endpoint) as client:
        stream = client.stream("parts", {"name": "s"}, timeout_s=WATCHDOG_S)
        assert next(stream)["pid"]
        served.signal()
        served.says("stopping: 1 request")
        for part in range(3):
            served.allow(f"go-s-{part}")
        assert len(list(stream)) == 2
    assert served.wait() == 0


def test_nobody_new_is_taken_while_the_replica_leaves(replica, calls, channel):
    served = replica(*SERIAL)
    opened = channel(served.endpoint)
    running = stub(opened).ModelInfer.future(infer("hold", text("name", "h")))
    served.noted("started-h")
    served.signal()
    served.says("stopping: 1 request")
    error = refused(stub(opened).ModelInfer, infer("pid", text("name", "")), grpc.StatusCode.UNAVAILABLE)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    host, _, port = served.endpoint.rpartition(":")

    def closed() -> bool:
        with closing(socket.socket()) as connection:
            return connection.connect_ex((host, int(port))) != 0

    until(closed, "a closed port")
    served.allow("go-h")
    assert running.result(WATCHDOG_S).outputs
    assert served.wait() == 0


@pytest.mark.parametrize("app", [SERIAL, MIXED])
def test_what_is_not_done_at_the_end_of_the_grace_is_aborted_and_the_exit_code_says_so(replica, calls, app):
    served = replica(*app, "--grace-s", "0.5")
    running, pid = calls(served)("hold", "h"), served.worker()
    served.noted("started-h")
    served.signal()
    told = failure(running)
    assert isinstance(told, errors.WorkerLost)
    assert "its grace was over" in str(told)
    assert served.wait() == 1
    assert "stopped; 1 request aborted" in served.stdout.read_text()
    assert_gone({pid})


def test_a_second_signal_ends_everything_at_once(replica, calls):
    served = replica(*MIXED)
    running, pid = calls(served)("hold", "h"), served.worker()
    served.noted("started-h")
    served.signal(signal.SIGINT)
    served.says("stopping: 1 request")
    served.signal(signal.SIGINT)
    assert served.wait() == 130
    assert isinstance(failure(running), errors.AnyServeError)
    assert_gone({pid})


def test_a_signal_during_the_start_ends_it(begun, tmp_path):
    app = tmp_path / "slow.py"
    app.write_text("import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(0.01)\n")
    starting = begun(f"{app}:app")
    starting.says("importing")
    workers = starting.workers()
    starting.signal()
    assert starting.wait() == 0
    assert_gone(workers)


@pytest.mark.parametrize("app", [SERIAL, MIXED])
def test_a_worker_that_is_told_to_leave_finishes_its_requests_and_is_replaced(replica, calls, app):
    served = replica(*app)
    call, pid = calls(served), served.worker()
    running = call("hold", "h")
    served.noted("started-h")
    kill(pid, signal.SIGTERM)
    served.allow("go-h")
    assert int(running.result(WATCHDOG_S)["pid"][0]) == pid
    replaced(served, {pid})
    assert int(call.now("pid")["pid"][0]) != pid


# === the worker socket ===


def worker_sockets(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]


def test_the_sockets_folder_is_private_and_gone_with_the_replica(replica, tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    served = replica(*SERIAL, env={"TMPDIR": str(folder)})
    inside = [path for path in folder.rglob("*") if path.is_dir()]
    assert len(inside) == 1
    assert {stat.S_IMODE(path.lstat().st_mode) for path in inside} == {0o700}
    served.stop()
    assert list(folder.iterdir()) == []


def test_garbage_on_the_worker_socket_hurts_nobody(replica, calls, tmp_path):
    folder, chance = tmp_path / "tmp", random.Random(3)
    folder.mkdir()
    served = replica(*UNFORKED, env={"TMPDIR": str(folder)})
    pid = served.worker()
    # The next worker is held up, so that its socket is open to others.
    served.allow("hold-up-start")
    kill(pid)
    (path,) = until(lambda: [one for one in worker_sockets(folder) if accepts(one)], "an open socket")
    frame = b"AS\x01\x01\0\0\0\0"
    garbage = [
        b"", b"A", chance.randbytes(100_000), frame + bytes(8) + b"\xff" * 12,
        frame + bytes(8) + b"\x05\0\0\0" + bytes(8) + b"\xff" * 5,
        b"AS\x01\x07\0\0\0\0" + bytes(8) + b"\x02\0\0\0" + bytes(8) + b"\x12\0",  # Somebody else's start failure.
        b"AS\x02\x01\0\0\0\0" + bytes(20),
    ]  # fmt: skip
    for place, data in enumerate(garbage * 5):
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(path))
            try:
                connection.sendall(data)
                if place % 2:
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
            except OSError:
                pass  # Being thrown out is what is expected.
    (served.notes / "hold-up-start").unlink()
    replaced(served, {pid})
    assert calls(served).now("pid")["pid"]


def accepts(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        return connection.connect_ex(str(path)) == 0


def test_the_workers_secret_is_not_in_its_environment(replica, calls):
    served = replica(*SERIAL)
    assert calls(served).now("token")["names"].tolist() == [b"none"]
    assert b"ANYSERVE_WORKER_TOKEN=" not in command_environment(served.process.pid)


def command_environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


# === concurrency ===


def test_two_workers_share_the_load(replica, calls):
    served = replica(*SERIAL, "--workers", "2")
    call = calls(served)
    holds = [call("hold", "h") for _ in range(2)]
    assert len(set(served.noted("started-h", 2))) == 2
    served.allow("go-h")
    assert {int(one.result(WATCHDOG_S)["pid"][0]) for one in holds} == served.workers()


def test_coroutines_wait_together(replica, calls):
    served = replica(*MIXED)
    call = calls(served)
    holds = [call("hold-async", "h") for _ in range(64)]
    served.noted("started-h", 64)
    served.allow("go-h")
    assert len([one.result(WATCHDOG_S) for one in holds]) == 64


def test_a_sync_handler_with_concurrency_runs_in_as_many_threads_and_no_more(replica, calls):
    served = replica(*MIXED)
    call = calls(served)
    holds = [call("hold-threads", "h") for _ in range(5)]
    served.noted("started-h", 4)
    call.waiting(5)
    call.now("pid")
    assert len(served.note("started-h")) == 4
    served.allow("go-h")
    assert len([one.result(WATCHDOG_S) for one in holds]) == 5


def test_a_busy_handler_keeps_no_other_handler_waiting(replica, calls):
    served = replica(*MIXED)
    call = calls(served)
    wanted = [("hold", "h", 1), ("hold-threads", "t", 4), ("hold-async", "a", 20)]
    busy = [call(model, name) for model, name, count in wanted for _ in range(count)]
    served.noted("started-a", 20)
    served.noted("started-t", 4)
    assert call.now("pid")["pid"]
    for name in "hta":
        served.allow(f"go-{name}")
    assert all(one.result(WATCHDOG_S) for one in busy)


@pytest.mark.parametrize(("flags", "model"), [(["--max-queue", "1"], "hold"), ([], "narrow")])
def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(replica, calls, channel, flags, model):
    served = replica(*MIXED, *flags)
    call = calls(served)
    running = [call(model, "h")]
    served.noted("started-h")
    full, service = [], stub(channel(served.endpoint))
    while len(full) < 3:
        sent = call(model, "h")
        (running if waits(served, sent, len(running) + 1) else full).append(sent)
        assert len(running) <= 2
    overloaded = [failure(one) for one in full]
    assert {type(error) for error in overloaded} == {errors.Overloaded}
    assert all(error.retry_after_s > 0 for error in overloaded)
    error = refused(service.ModelInfer, infer(model, text("name", "h")), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert anyserve_code(error) == "OVERLOADED"
    assert b"google.rpc.RetryInfo" in dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert served.is_ready()
    served.allow("go-h")
    assert all(one.result(WATCHDOG_S)["pid"] for one in running)


def waits(served: Replica, sent: Future, count: int) -> bool:
    """Whether a request has become the last of so many in flight; otherwise it was refused."""
    until(
        lambda: sent.done() or served.metric("anyserve_requests_in_flight") == count, "a request in flight, or refused"
    )
    return not sent.done()


def test_a_caller_that_leaves_the_queue_is_never_run(replica, channel):
    served = replica(*SERIAL)
    service = stub(channel(served.endpoint))
    running = service.ModelInfer.future(infer("hold", text("name", "h")))
    served.noted("started-h")
    leaving = service.ModelInfer.future(infer("hold", text("name", "gone")))
    until(lambda: served.metric("anyserve_requests_in_flight") == 2, "two requests in flight")
    leaving.cancel()
    until(lambda: served.metric("anyserve_requests_in_flight") == 1, "one request in flight")
    served.allow("go-h")
    assert running.result(WATCHDOG_S).outputs
    assert service.ModelInfer(infer("pid", text("name", ""))).outputs
    assert not served.note("started-gone")


def test_a_request_whose_deadline_passes_in_the_queue_is_never_run(replica, channel):
    served = replica(*SERIAL)
    service = stub(channel(served.endpoint))
    running = service.ModelInfer.future(infer("hold", text("name", "h")))
    served.noted("started-h")
    refused(service.ModelInfer, infer("hold", text("name", "late")), grpc.StatusCode.DEADLINE_EXCEEDED, timeout=0.3)
    served.allow("go-h")
    assert running.result(WATCHDOG_S).outputs
    assert service.ModelInfer(infer("pid", text("name", ""))).outputs
    assert not served.note("started-late")


def test_a_slot_is_not_used_again_while_its_abandoned_handler_still_runs(replica, channel):
    served = replica(*SERIAL)
    service = stub(channel(served.endpoint))
    refused(service.ModelInfer, infer("hold", text("name", "h")), grpc.StatusCode.DEADLINE_EXCEEDED, timeout=0.5)
    served.noted("started-h")
    second = service.ModelInfer.future(infer("hold", text("name", "second")))
    until(lambda: served.metric("anyserve_requests_in_flight") == 1, "the second request in flight")
    for _ in range(50):
        served.http("/health/live")
    assert not served.note("started-second")
    served.allow("go-h")
    served.noted("started-second")
    served.allow("go-second")
    assert second.result(WATCHDOG_S).outputs


def test_restarts_leave_no_descriptors_behind(replica, calls):
    served = replica(*SERIAL, "--workers", "2")
    descriptors = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
    for _ in range(3):
        before = served.workers()
        for pid in before:
            kill(pid)
        until(lambda before=before: len(served.workers() - before) == 2 and served.is_ready(), "two new workers")
    assert calls(served).now("pid")["pid"]
    now = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
    assert now <= descriptors + 5, f"{descriptors} descriptors became {now}"
