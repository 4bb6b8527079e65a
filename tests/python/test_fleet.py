"""What the commands make of what an API server tells."""

from anyserve.cli.explain import shown
from anyserve.cli.status import rates, text

SERVES = {"capability": "type=x", "standing": "ready", "pending": 3, "wait_ms": 2.0}
REPLICA = {
    "id": "a", "epoch": 1, "endpoint": "http://a:8000", "health": "up", "draining": False, "state": "up", "why": None,
    "heard": "here", "lease_s": 4.25, "pending": 3, "slots": 8, "capabilities": [SERVES], "more": 0,
}  # fmt: skip
STATUS = {
    "uptime_s": 61.0, "draining": False, "policy": "least-wait", "store": "memory", "in_flight": 2, "succeeded": 5,
    "failed": 1, "delegations": 0, "count": 1, "up": 1, "replicas": [REPLICA],
    "states": {"up": 1, "draining": 0, "ejected": 0, "probing": 0},
}  # fmt: skip
CANDIDATE = {
    "replica": "a", "capability": "type=x", "standing": "ready", "pending": 3, "slots": 2, "expected_wait_ms": 1500.0,
    "chosen": True, "matches": True, "unmentioned": 0,
}  # fmt: skip
ANSWER = {
    "query": "type=x", "policy": "least-wait", "replicas": 1, "upgrade": None, "candidates": [CANDIDATE],
    "decision": {"kind": "send", "replica": "a", "endpoint": "http://a:8000", "capability": "type=x"},
}  # fmt: skip


def test_a_status_has_a_line_for_every_replica():
    lines = text(STATUS, rates(STATUS, STATUS)).splitlines()
    assert lines[0] == "serving, up for 1 min, 1 of 1 replica up, policy least-wait, 2 in flight"
    assert lines[2].split() == ["replica", "state", "pending", "slots", "lease", "endpoint", "capabilities"]
    assert lines[3] == "a        up     3        8      4.2 s  http://a:8000  type=x (ready)"


def test_what_is_wrong_is_said():
    gone = {**STATUS, "draining": True, "store": "disconnected", "replicas": []}
    assert text(gone, {}).startswith("draining, store disconnected, up for 1 min")
    why = "the connection was refused; tried once in vain, it is asked again in 0.4 s"
    full = {**REPLICA, "state": "ejected", "why": why, "capabilities": [], "more": 7, "id": "a\x1b"}
    states = {"up": 0, "draining": 0, "ejected": 1, "probing": 0}
    first, *_, line = text({**STATUS, "replicas": [full], "up": 0, "states": states}, {}).splitlines()
    assert "0 of 1 replica up, 1 ejected, policy" in first
    assert f"ejected: {why}" in line
    assert line.endswith("7 more")
    assert "\x1b" not in line


def test_replicas_that_are_not_shown_are_counted():
    (*_, line) = text({**STATUS, "count": 501}, {}).splitlines()
    assert line == "and 500 more"


def test_an_explanation_says_who_is_chosen_and_why_not_the_others():
    other = {
        **CANDIDATE,
        "replica": "b",
        "chosen": False,
        "matches": False,
        "why": "type=x is asked for, it has type=y",
    }
    lines = shown({**ANSWER, "candidates": [CANDIDATE, other], "more": 4}).splitlines()
    assert lines[0] == "type=x goes to a on http://a:8000, says least-wait"
    assert lines[3].split() == ["→", "a", "type=x", "ready", "3", "on", "2", "1.5", "s", "matches"]
    assert lines[4].endswith("no: type=x is asked for, it has type=y")
    assert lines[5] == "and 4 more"


def test_a_try_and_a_refusal_are_told():
    tried = {**ANSWER, "candidates": [], "decision": {"kind": "try", "replica": "a", "endpoint": "http://a:1"}}
    plain = "type=x is claimed by nobody; the most promising replica gets it once: a"
    assert shown(tried) == plain
    assert shown({**tried, "upgrade": "'type=y'"}) == f"{plain}, whose rule makes 'type=y' of it"
    refused = {
        "kind": "refuse",
        "code": "UNAVAILABLE",
        "message": "no replica is registered yet",
        "retry_after_ms": 2.0,
    }
    assert shown({**tried, "decision": refused}) == ("type=x is refused with UNAVAILABLE: no replica is registered yet")
