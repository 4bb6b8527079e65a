"""Worker groups: their processes, what they are given, when they start, sleep, make room and leave."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anyserve import errors
from tests.e2e.replicas import WATCHDOG_S, Replica, assert_gone, command_line, lives, name_of, until
from tests.e2e.under_way import callers, text_of

GROUPS = ("groups.py:create", "--factory", "--resources", "token=1", "--gpus", "0,1", "--min-residency-s", "0")
STUBBORN = ("groups.py:create_stubborn", "--factory")


@pytest.fixture
def calls():
    """Makes the caller of a replica."""
    with callers() as make:
        yield make


def groups(replica: Replica) -> dict[str, dict]:
    """The groups of a replica, by name."""
    return {group["name"]: group for group in json.loads(replica.http("/admin/workers")[1])["groups"]}


def states(replica: Replica, group: str) -> list[str]:
    """The states of a group's workers."""
    return [worker["state"] for worker in groups(replica)[group]["workers"]]


def used(replica: Replica, name: str) -> int:
    """How much of a resource workers have."""
    (found,) = [one for one in json.loads(replica.http("/admin/workers")[1])["resources"] if one["name"] == name]
    assert found["used"] <= found["total"]
    return found["used"]


# === what a worker is given ===


def test_each_group_has_processes_of_its_own_and_is_started_when_somebody_asks(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    assert {name: group["state"] for name, group in groups(served).items()} == {
        "default": "ready", "always": "ready", "one": "stopped", "other": "stopped", "sleeper": "stopped",
        "gpu": "stopped", "brief": "stopped",
    }  # fmt: skip
    assert served.is_ready(), "what is started on demand is ready"
    pids = {model: int(ask.now(model)["pid"][0]) for model in ("plain", "always", "one", "gpu")}
    assert len(set(pids.values())) == 4
    assert states(served, "one") == ["ready"]


def test_a_worker_sees_its_gpus_its_tokens_and_its_groups_variables(replica, calls):
    ask = calls(replica(*GROUPS))
    both = [ask("gpu", f"gated-{number}") for number in range(2)]
    for number in range(2):
        ask.replica.noted(f"reached-gated-{number}")
    for number in range(2):
        ask.replica.allow(f"go-gated-{number}")
    gpus = [text_of(call.result(WATCHDOG_S), "gpus") for call in both]
    assert sorted(gpus) == ["0", "1"], "each of the two has one that the other has not"
    assert ask.text("plain", "gpus") == "", "who asks for none sees none"
    assert ask.text("one", "tokens") == "token=1"
    assert ask.text("always", "mark") == "own"
    assert ask.text("one", "mark") == "unset"


def test_workers_are_forked_off_one_process_that_has_loaded_the_app(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    pids = [int(ask.now(model)["pid"][0]) for model in ("plain", "always", "one")]
    parents = {
        pid: int(re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1]) for pid in pids
    }
    assert set(parents.values()) == {served.process.pid}, "workers are the runtime's own children"
    names = {name_of(pid) for pid in pids}
    assert names == {"anyserve-worker"}


def test_without_forks_every_worker_loads_the_app_by_itself(replica, calls):
    served = replica(*GROUPS, "--no-fork")
    ask = calls(served)
    pid = int(ask.now("one")["pid"][0])
    assert b"anyserve.worker\0" in command_line(pid)
    assert "it was asked not to" in served.output()


# === making room ===


def test_two_groups_share_one_token_and_what_is_in_flight_is_finished_first(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    held = ask("one", "gated-a")
    served.noted("reached-gated-a")
    other = ask("other")
    until(lambda: groups(served)["other"]["queued"] == 1, "the other request to wait")
    assert (states(served, "other"), used(served, "token")) == ([], 1)
    served.allow("go-gated-a")
    assert text_of(held.result(WATCHDOG_S), "tokens") == "token=1"
    assert text_of(other.result(WATCHDOG_S), "tokens") == "token=1"
    assert served.note("one-stop"), "on_stop was called before the token went on"
    assert used(served, "token") == 1


def test_one_that_can_sleep_gives_its_token_back_and_stays_alive(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    first = int(ask.now("sleeper")["pid"][0])
    ask.now("one")
    assert states(served, "sleeper") == ["asleep"]
    assert lives(first)
    assert int(ask.now("sleeper")["pid"][0]) == first, "it was woken, not started"
    assert [len(served.note(f"sleeper-{step}")) for step in ("start", "sleep", "wake", "stop")] == [1, 1, 1, 0]


def test_alternating_traffic_on_one_token_is_all_served_and_never_over_committed(replica, calls):
    served = replica(*GROUPS, "--starvation-s", "0.2")
    ask = calls(served)
    waiting = [ask(model, str(number)) for number in range(10) for model in ("one", "other", "sleeper")]
    while not all(call.done() for call in waiting):
        used(served, "token")
    assert len([call.result(WATCHDOG_S) for call in waiting]) == 30


def test_an_idle_worker_on_demand_leaves_and_the_next_request_starts_another(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    first = int(ask.now("brief")["pid"][0])
    until(lambda: not lives(first), "the end of the idle worker")
    assert groups(served)["brief"]["state"] == "stopped"
    assert int(ask.now("brief")["pid"][0]) != first


def test_a_deadline_nearer_than_a_start_takes_is_refused_at_once_with_the_time_to_come_back(replica, calls):
    served = replica(*GROUPS, "--no-fork")
    ask = calls(served)
    ask.now("brief")
    until(lambda: groups(served)["brief"]["state"] == "stopped", "the end of the idle worker")
    takes = groups(served)["brief"]["start_time_ms"] / 1e3
    assert takes > 0.02, "a start without a fork loads the app"
    with pytest.raises(errors.Starting) as refused:
        ask.now("brief", timeout_s=takes / 2)
    assert refused.value.retry_after_s > 0


# === groups do not notice each other ===


def test_a_group_whose_workers_die_at_every_start_is_not_ready_and_others_serve(replica, calls):
    served = replica(*STUBBORN)
    ask = calls(served)
    with pytest.raises(errors.Unavailable, match="no weights in /models"):
        ask.now("refuses")
    until(lambda: not served.is_ready(), "the group to be down")
    assert groups(served)["Refuses"]["state"] == "down"
    assert ask.now("raises")["pid"]
    served.stop()


def test_the_death_of_a_worker_is_noticed_by_its_group_alone(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    plain = int(ask.now("plain")["pid"][0])
    with pytest.raises(errors.WorkerLost):
        ask.now("always", "die")
    until(lambda: groups(served)["always"]["restarts"] == 1, "the restart")
    assert int(ask.now("plain")["pid"][0]) == plain
    assert groups(served)["default"]["restarts"] == 0
    assert ask.now("always")["pid"]


# === starting and ending ===


def test_a_worker_is_ready_only_after_its_warm_up(replica, calls):
    served = replica(*STUBBORN)
    assert served.note("warmed") == ["first", "second"]
    served.stop()


def test_one_that_hangs_in_its_start_is_ended_and_its_request_answered(replica, calls):
    served = replica(*STUBBORN)
    call = calls(served)("hangs")
    first = int(served.noted("hangs-start")[0])
    assert isinstance(call.exception(WATCHDOG_S), errors.Unavailable)
    assert_gone({first})
    served.stop()


def test_memory_and_niceness_are_the_workers_own(replica, calls):
    served = replica(*STUBBORN)
    ask = calls(served)
    with pytest.raises(errors.HandlerError, match="MemoryError"):
        ask.now("eats", "much")
    assert ask.now("eats")["niceness"][0] == os.nice(0) + 5
    assert groups(served)["Eats"]["restarts"] == 0, "the limit is the request's error, not the worker's end"
    served.stop()


def test_workers_that_will_not_go_end_all_the_same_with_everything_they_started(begun):
    served = begun(*STUBBORN, "--grace-s", "1")
    served.serves()
    pids = {int(line) for name in ("deaf-start", "raises-start", "parent-child") for line in served.noted(name)}
    served.workers()
    served.signal(signal.SIGTERM)
    assert served.wait() == 0
    assert_gone(pids | served.seen_workers)
    assert served.note("raises-stop"), "on_stop was called"
    assert "it would not go" in served.output()


# === orders ===


def test_a_drained_worker_finishes_what_it_has_and_is_replaced(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    held = ask("always", "gated-b")
    pid = int(served.noted("reached-gated-b")[0])
    status, body = served.http("/admin/workers/always-0/drain?wait=false", method="POST")
    answer = json.loads(body)
    assert (status, answer["safe_to_stop"], answer["in_flight"]) == (202, False, 1)
    served.allow("go-gated-b")
    assert int(held.result(WATCHDOG_S)["pid"][0]) == pid
    assert_gone({pid})
    assert int(ask.now("always")["pid"][0]) != pid


def test_scaling_is_done_when_so_many_workers_are_ready(replica):
    served = replica(*GROUPS)
    assert served.http("/admin/groups/always/scale?workers=3", method="POST")[0] == 200
    assert states(served, "always") == ["ready"] * 3
    assert served.http("/admin/groups/always/scale?workers=1", method="POST")[0] == 200
    assert states(served, "always") == ["ready"]
    status, body = served.http("/admin/groups/one/scale?workers=2", method="POST")
    assert status == 429
    assert "token" in body


def test_unknown_names_are_told_with_those_that_there_are(replica):
    served = replica(*GROUPS)
    status, body = served.http("/admin/groups/nobody/start", method="POST")
    assert (status, "always" in body) == (404, True)
    status, body = served.http("/admin/workers/nobody-0/drain", method="POST")
    assert (status, "always-0" in body) == (404, True)


def test_a_drained_replica_says_when_it_is_safe_to_stop(replica, calls):
    served = replica(*GROUPS)
    ask = calls(served)
    held = ask("always", "gated-c")
    served.noted("reached-gated-c")
    answer = json.loads(served.http("/admin/drain?wait=false", method="POST")[1])
    assert (answer["draining"], answer["in_flight"], answer["safe_to_stop"]) == (True, 1, False)
    with pytest.raises(errors.Draining):
        ask.now("plain")
    served.allow("go-gated-c")
    held.result(WATCHDOG_S)
    status, body = served.http("/admin/drain", method="POST")
    assert (status, json.loads(body)["safe_to_stop"]) == (200, True)


def test_a_sleeping_worker_that_hangs_is_replaced_when_it_is_asked_for(replica, calls):
    served = replica(*GROUPS, "--ping-timeout-s", "1")
    ask = calls(served)
    first = int(ask.now("sleeper")["pid"][0])
    ask.now("one")
    assert states(served, "sleeper") == ["asleep"]
    os.kill(first, signal.SIGSTOP)
    assert int(ask.now("sleeper")["pid"][0]) != first
    assert_gone({first})


# === interpreters ===

ELSEWHERE = """
import sys
from anyserve import AnyServe, Worker

app = AnyServe()

@app.capability(type="here")
def here(name: str):
    return {{"prefix": [sys.prefix], "engine": [str("engine" in sys.modules)]}}

@app.worker(capabilities=[{{"type": "there"}}], python={python!r})
class There(Worker):
    def on_start(self):
        import engine
        self.engine = engine

    def handle(self, name: str):
        return {{"prefix": [sys.prefix], "engine": [self.engine.RELEASE]}}
"""


def test_a_group_runs_with_its_own_interpreter_and_what_is_installed_there(replica, calls, tmp_path):
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    (packages,) = other.glob("lib/python*/site-packages")
    (packages / "engine.py").write_text("RELEASE = 'only there'\n")
    (packages / "ours.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith(("site-packages", "python")))
    )
    app = tmp_path / "app.py"
    app.write_text(ELSEWHERE.format(python=str(other / "bin" / "python")))
    ask = calls(replica(f"{app}:app"))
    assert (ask.text("here", "prefix"), ask.text("here", "engine")) == (sys.prefix, "False")
    assert (ask.text("there", "prefix"), ask.text("there", "engine")) == (str(other), "only there")
