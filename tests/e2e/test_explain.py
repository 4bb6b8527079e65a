"""What a replica says would become of a request is what then becomes of it; and what it says of what it refuses."""

import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import grpc
import pytest
import tritonclient.grpc as triton

from tests.e2e.conftest import serving
from tests.e2e.held import Held, clients, names_like
from tests.e2e.messages import anyserve_code, infer, text
from tests.e2e.replicas import WATCHDOG_S, Replica, anyserve, until
from tests.guarantees import admin
from tests.guarantees.calls import Calls, code_of, failure, pid_of

APP = ("explained.py:create", "--factory")
HEADER = "x-anyserve-explain"


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Iterator[Replica]:
    """A replica with one worker."""
    with serving(tmp_path_factory.mktemp("one") / "replica", *APP) as served:
        yield served


@pytest.fixture
def calls(channel) -> Iterator[Callable[[Replica], Calls]]:
    with clients(channel) as make:
        yield make


# === questions ===


def http(served: Replica, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of an HTTP request."""
    request = urllib.request.Request(f"http://{served.endpoint}{path}", headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=WATCHDOG_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def explain(served: Replica, headers: Mapping[str, str] | None = None, **pairs: object) -> dict[str, Any]:
    """What the replica says would become of such a request now."""
    status, answer = http(served, f"/explain?{urlencode(pairs, quote_via=quote)}", headers)
    assert status == 200, answer
    return answer


def explained(begun: grpc.Future) -> dict[str, Any]:
    """What an answer or an error says became of its request."""
    begun.exception(WATCHDOG_S)
    metadata = dict([*begun.initial_metadata(), *begun.trailing_metadata()])
    return json.loads(metadata[HEADER])


def chosen(explanation: Mapping[str, Any]) -> str | None:
    """The function of the candidate that is chosen."""
    found = [candidate["function"] for candidate in explanation["candidates"] if candidate["chosen"]]
    assert len(found) <= 1
    return found[0] if found else None


def candidate(explanation: Mapping[str, Any], function: str) -> dict[str, Any]:
    (found,) = [one for one in explanation["candidates"] if one["function"] == function]
    return found


def worker_pid(served: Replica, name: str) -> int:
    """The process that a worker's name means now."""
    return int(re.findall(rf"^{name} ready \(pid (\d+)\)", served.output(), re.MULTILINE)[-1])


def handler_of(answer: Any) -> str:
    """The handler that has answered."""
    return triton.InferResult(answer).as_numpy("handler")[0].decode()


def error_of(begun: grpc.Future) -> dict[str, str]:
    """An error, as an explanation has it."""
    error = failure(begun)
    return {"code": anyserve_code(error), "message": error.details()}


def refusal(explanation: Mapping[str, Any]) -> dict[str, str]:
    """The refusal that is decided on."""
    decision = explanation["decision"]
    assert decision["kind"] == "refuse", decision
    return {key: decision[key] for key in ("code", "message")}


# === it runs ===


def test_what_goes_to_a_worker_is_answered_by_that_worker(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    for _ in range(6):
        decision = explain(served, type="hold")["decision"]
        assert decision == {"kind": "run", "worker": decision["worker"]}
        asking = call.begin("hold", headers={HEADER: "1"})
        assert explained(asking)["decision"] == decision
        assert pid_of(asking.result()) == worker_pid(served, decision["worker"])


QUESTIONS = {
    "type=chat,model=small": "small",
    "type=chat": "small",  # It has a key less that nobody asked for.
    "model=large": "large",
    "size>=8": "large",
    "size<8": "small",
    "beta": "large",
    "type=chat,!beta": "small",
    "languages in (de,en),size!=7": "large",
    "side notin (right)": None,
    "type=twin,side notin (right)": "left",
}


@pytest.mark.parametrize("selector", [question for question, function in QUESTIONS.items() if function])
def test_the_capability_that_is_chosen_is_the_one_that_answers(one, calls, selector):
    call, function = calls(one), QUESTIONS[selector]
    assert chosen(explain(one, selector=selector)) == function
    asking = call.begin("", headers={HEADER: "1"}, parameters={"capability": selector})
    assert handler_of(asking.result(WATCHDOG_S)) == function
    assert chosen(explained(asking)) == function


def test_pairs_are_conditions_a_name_is_a_models_and_headers_win(one, calls):
    assert chosen(explain(one, type="chat", model="large")) == "large"
    assert chosen(explain(one, type="chat", selector="size>8")) == "large"
    assert chosen(explain(one, name="large")) == "large"
    headers = {"x-capability-model": "small"}
    assert chosen(explain(one, headers, type="twin")) == "small"
    asking = calls(one).begin("large", headers={**headers, HEADER: "1"})
    assert handler_of(asking.result(WATCHDOG_S)) == chosen(explained(asking)) == "small"


# === it waits ===


def test_what_waits_is_told_who_is_before_it(one, calls):
    held = Held(calls(one), "hold")
    for ahead in range(3):
        explanation = explain(one, type="hold")
        decision = explanation["decision"]
        assert (decision["kind"], decision["ahead"]) == ("wait", ahead)
        row = candidate(explanation, "hold")
        assert (row["queued"], row["in_flight"], row["workers"], row["health"]) == (ahead, 1, 1, "ready")
        assert decision["expected_wait_ms"] == row["expected_wait_ms"] >= 0
        held.begin(f"later-{ahead}", headers={HEADER: "1"})
    held.answers()
    assert [explained(begun)["decision"]["ahead"] for begun in held.waiting] == [0, 1, 2]


def test_a_priority_changes_who_is_before_a_request(one, calls):
    held = Held(calls(one), "hold")
    names = names_like("a", "b", "c", "urgent")
    for name in names[:3]:
        held.begin(name)
    decisions = {level: explain(one, {"x-priority": str(level)}, type="hold")["decision"] for level in (0, 1, 4, 8)}
    assert {level: decision["ahead"] for level, decision in decisions.items()} == {0: 3, 1: 0, 4: 3, 8: 3}
    held.begin(names[3], headers={"x-priority": "1", HEADER: "1"})
    held.answers()
    assert explained(held.waiting[3])["decision"]["ahead"] == 0
    assert [line.split(" ")[1] for line in one.note("called")[-4:]] == [names[3], *names[:3]]


def test_a_request_for_a_worker_that_is_not_there_yet_waits_for_it(replica, calls):
    served = replica(*APP, "--no-fork")
    call, pid = calls(served), served.worker()
    served.allow("hold-up-start")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not served.is_ready(), "the worker's death")
    row = candidate(explain(served, type="hold"), "hold")
    assert (row["health"], row["workers"]) == ("starting", 0)
    assert explain(served, type="hold")["decision"]["kind"] == "wait"
    asking = call.begin("hold", headers={HEADER: "1"})
    call.queued(1)
    (served.notes / "hold-up-start").unlink()
    assert pid_of(asking.result(WATCHDOG_S)) != pid
    assert explained(asking)["decision"]["kind"] == "wait"


# === it is refused ===


def test_a_full_queue_refuses_with_the_same_code_and_words(one, calls):
    held = Held(calls(one), "narrow")
    for name in ("a", "b"):
        held.begin(name)
    explanation = explain(one, type="narrow")
    assert refusal(explanation) == error_of(held.call.begin("narrow"))
    assert refusal(explanation)["code"] == "OVERLOADED"
    assert "the queue is full: 2 of 2 requests" in refusal(explanation)["message"]
    assert explanation["decision"]["retry_after_ms"] > 0
    row = candidate(explanation, "narrow")
    assert (row["health"], row["queued"], row["max_queue"], row["chosen"]) == ("saturated", 2, 2, True)
    asking = held.call.begin("narrow", headers={HEADER: "1"})
    assert refusal(explained(asking)) == error_of(asking)
    held.answers()
    assert explain(one, type="narrow")["decision"]["kind"] == "run"


def test_a_stricter_priority_takes_a_place_in_a_full_queue_and_is_told_so(one, calls):
    held = Held(calls(one), "narrow")
    held.begin("a")
    last = held.begin("b")
    decision = explain(one, {"x-priority": "1"}, type="narrow")["decision"]
    assert (decision["kind"], decision["ahead"]) == ("wait", 0)
    urgent = held.call.begin("narrow", "urgent", parameters={"priority": 1})
    assert code_of(last) == "OVERLOADED"
    held.release()
    assert urgent.result(WATCHDOG_S).outputs


def test_a_request_that_cannot_be_served_in_time_is_refused(one, calls):
    call = calls(one)
    for _ in range(3):
        call.now("slow")
    held = Held(call, "slow")
    for place in range(10):
        held.begin(f"{place}", parameters={"priority": 1})
    # Ten twentieths of a second are before it.
    refused = refusal(explain(one, {"grpc-timeout": "200m"}, type="slow"))
    assert refused["code"] == "OVERLOADED"
    assert "the expected wait of" in refused["message"]
    asking = call.begin("slow", timeout_s=0.2, headers={HEADER: "1"})
    assert code_of(asking) == refusal(explained(asking))["code"] == "OVERLOADED"
    assert explain(one, {"grpc-timeout": "9999S"}, type="slow")["decision"]["kind"] == "wait"
    held.answers()


def test_where_nothing_matches_every_candidate_says_why(one, calls):
    explanation = explain(one, type="chat", model="tiny")
    assert chosen(explanation) is None
    assert not any(row["matches"] for row in explanation["candidates"])
    why = {row["function"]: row["why"] for row in explanation["candidates"]}
    assert all(why.values())
    assert why["small"] == "model=tiny is asked for, it has model=small"
    assert why["hold"] == "model=tiny is asked for, it has no key model"
    asking = calls(one).begin("", headers={"x-capability-type": "chat", "x-capability-model": "tiny", HEADER: "1"})
    assert error_of(asking) == refusal(explanation) == refusal(explained(asking))
    assert refusal(explanation)["code"] == "NO_CAPABILITY"
    assert refusal(explanation)["message"].startswith("no capability matches 'model=tiny,type=chat'; served here: ")


def test_a_selectors_first_condition_that_fails_is_named(one):
    explanation = explain(one, selector="languages=en,size>=8,!beta")
    why = {row["function"]: row.get("why") for row in explanation["candidates"]}
    assert why["small"] == "size>=8 is asked for, it has size=7"
    assert why["large"] == "!beta is asked for, it has beta=true"
    assert why["left"] == "languages=en is asked for, it has no key languages"


def test_an_unknown_model_is_refused_with_the_same_words(one, calls):
    asking = calls(one).begin("nobody", headers={HEADER: "1"})
    assert error_of(asking) == refusal(explained(asking)) == refusal(explain(one, name="nobody"))
    assert "'nobody'" in failure(asking).details()


def test_where_workers_keep_dying_a_request_is_refused(replica, calls):
    served = replica(*APP, "--no-fork")
    served.allow("die-at-start")
    os.kill(served.worker(), signal.SIGKILL)
    until(lambda: explain(served, type="hold")["decision"]["kind"] == "refuse", "a refusal")
    explanation = explain(served, type="hold")
    assert refusal(explanation) == error_of(calls(served).begin("hold"))
    assert refusal(explanation)["code"] == "UNAVAILABLE"
    assert candidate(explanation, "hold")["health"] == "down"


@pytest.mark.parametrize(("parameters", "code"), [
    ({"priority": 9}, "INVALID_INPUT"), ({"timeout": -1}, "INVALID_INPUT"), ({"sequence_id": -1}, "INVALID_INPUT"),
])  # fmt: skip
def test_a_wish_that_cannot_be_read_is_refused_with_the_same_words(one, calls, parameters, code):
    asking = calls(one).begin("hold", parameters=parameters, headers={HEADER: "1"})
    assert error_of(asking) == refusal(explained(asking))
    assert refusal(explained(asking))["code"] == code


def test_a_sequence_that_was_never_started_is_refused_with_the_same_words(one, calls):
    asking = calls(one).begin("talk", parameters={"sequence_id": 7}, headers={HEADER: "1"})
    assert error_of(asking) == refusal(explained(asking))
    assert "sequence 7 is not known here" in failure(asking).details()


def poisoned(served: Replica, call: Calls, name: str) -> None:
    """Have a request kill two workers."""
    assert code_of(call.begin("die", name)) == "POISON"
    until(served.is_ready, "ready again")


def test_a_quarantined_request_is_refused_with_the_same_words(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    poisoned(served, call, "poison")
    asking = call.begin("die", "poison", headers={HEADER: "1"})
    assert error_of(asking)["code"] == "POISON"
    assert refusal(explained(asking)) == error_of(asking)


def test_a_sequence_whose_worker_is_idle_goes_to_it(one, calls):
    message = infer("talk", text("name", "a"))
    message.parameters["sequence_id"].int64_param = 1
    message.parameters["sequence_start"].bool_param = True
    asking = calls(one).service.ModelInfer.future(message, metadata=[(HEADER, "1")])
    assert asking.result(WATCHDOG_S).outputs
    assert explained(asking)["decision"] == {"kind": "run", "worker": "worker-0"}


def test_a_stream_that_is_called_for_one_answer_is_refused_with_the_same_words(one, calls):
    asking = calls(one).begin("parts", headers={HEADER: "1"})
    assert error_of(asking)["code"] == "UNSUPPORTED"
    assert refusal(explained(asking)) == error_of(asking)


# === among equals ===


def test_of_two_that_suit_alike_the_chosen_one_answers_and_they_take_turns(replica, calls):
    served = replica(*APP)
    call, seen = calls(served), []
    for _ in range(6):
        asked = [chosen(explain(served, type="twin")) for _ in range(3)]
        answered = handler_of(call.now("twin"))
        assert set(asked) == {answered}, "asking takes no turn"
        seen.append(answered)
    assert seen in (["left", "right"] * 3, ["right", "left"] * 3)


@pytest.mark.parametrize(("measured", "waiting"), [(True, 0), (False, 0), (True, 3)])
def test_of_two_that_suit_alike_the_one_that_is_free_is_chosen_and_answers(replica, calls, measured, waiting):
    served = replica(*APP)
    call = calls(served)
    for _ in range(6 if measured else 0):
        call.now("twin")
    held = Held(call, "", parameters={"capability": "side=left"})
    for place in range(waiting):
        held.begin(f"waits-{place}", parameters={"capability": "side=left"})
    for _ in range(20):
        explanation = explain(served, type="twin")
        assert (chosen(explanation), explanation["decision"]["kind"]) == ("right", "run")
        assert candidate(explanation, "left")["queued"] == waiting
        assert handler_of(call.now("twin")) == "right"
    held.answers()


# === what it costs ===


def test_to_ask_touches_no_handler_and_nothing_that_is_counted(replica):
    served = replica(*APP)
    for pairs in [{"type": "hold"}, {"type": "chat"}, {"type": "die"}, {"name": "talk"}, {"type": "parts"}] * 20:
        assert explain(served, **pairs)["candidates"]
    assert served.note("called") == []
    assert served.metric("anyserve_requests_total") == served.metric("anyserve_queue_depth") == 0
    with triton.InferenceServerClient(served.endpoint) as client:
        assert {row.inference_count for row in client.get_inference_statistics().model_stats} == {0}


def test_who_does_not_ask_is_told_nothing(one, calls):
    for headers in ({}, {HEADER: "0"}):
        asking = calls(one).begin("hold", headers=headers)
        assert asking.result(WATCHDOG_S).outputs
        assert HEADER not in dict([*asking.initial_metadata(), *asking.trailing_metadata()])


def test_the_question_does_not_reach_the_handler_and_the_answer_is_the_same(one, calls):
    call = calls(one)
    asked, plain = (call.begin("hold", headers=headers).result(WATCHDOG_S) for headers in ({HEADER: "1"}, {}))
    assert asked == plain


# === bad questions ===


@pytest.mark.parametrize(("path", "headers", "parts"), [
    ("/explain?selector=size%3E%3D", {}, ["selector 'size>='", "position 6", "expected a number"]),
    ("/explain?type=chat&selector=a%20in%20(b", {}, ["selector 'a in (b'", "position"]),
    ("/explain", {}, ["nothing is asked for"]),
    ("/explain?type=chat", {"x-priority": "9"}, ["header 'x-priority' is '9'", "from 1, first, to 8"]),
    ("/explain?type=chat", {"x-tenant": "t" * 129}, ["header 'x-tenant' has 129 bytes"]),
    ("/explain?type=chat", {"grpc-timeout": "soon"}, ["soon"]),
])  # fmt: skip
def test_a_question_that_cannot_be_read_is_a_bad_request(one, path, headers, parts):
    status, answer = http(one, path, headers)
    assert status == 400
    assert all(part in answer["error"] for part in parts), answer


# === the command ===


def explain_command(served: Replica, *arguments: str) -> tuple[int, str, str]:
    done = anyserve("explain", *arguments, "--endpoint", served.endpoint)
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_where_a_request_goes_and_why_not_elsewhere(one):
    code, shown, _ = explain_command(one, "type=chat", "model=small")
    assert code == 0
    head, empty, columns, *rows = shown.splitlines()
    assert (head, empty) == ("'model=small,type=chat' goes to worker-0 at once", "")
    assert columns.split()[:2] == ["capability", "function"]
    (marked,) = [row for row in rows if row.startswith("→")]
    assert " small " in marked
    assert "matches, with 2 other keys" in marked
    (large,) = [row for row in rows if " large " in row]
    assert "no: model=small is asked for, it has model=large" in large


def test_the_command_says_the_same_as_json(one):
    for arguments, pairs in [(["type=chat", "size>8"], {"selector": "type=chat,size>8"}), (["hold"], {"name": "hold"}),
                             (["--name", "large"], {"name": "large"})]:  # fmt: skip
        code, shown, _ = explain_command(one, *arguments, "--json")
        assert (code, json.loads(shown)) == (0, explain(one, **pairs))


def test_the_command_says_who_waits_and_who_is_refused(one, calls):
    held = Held(calls(one), "narrow")
    for name in ("a", "b"):
        held.begin(name)
    assert "is refused with OVERLOADED: the queue is full: 2 of 2" in explain_command(one, "narrow")[1]
    assert "waits for the next free place" in explain_command(one, "narrow", "--priority", "1", "--tenant", "t")[1]
    held.answers()
    assert "is refused with NO_CAPABILITY" in explain_command(one, "type=nobody")[1]


def test_the_command_ends_with_the_place_where_a_selector_cannot_be_read(one):
    code, shown, error = explain_command(one, "size>=")
    assert (code, shown) == (1, "")
    assert error.startswith("anyserve: INVALID_INPUT: selector 'size>=' at position 6: expected a number")


# === what is refused for good ===


def test_the_commands_on_the_quarantine_give_the_token_and_say_when_it_is_missing(replica, calls):
    served = replica(*APP, "--workers", "2", "--admin-token", "secret")
    call = calls(served)
    poisoned(served, call, "poison")

    def command(*arguments: str, **env: str) -> tuple[int, str, str]:
        done = anyserve("quarantine", *arguments, "--endpoint", served.endpoint, env=env)
        return done.returncode, done.stdout, done.stderr

    for arguments in ([], ["--token", "guess"]):
        code, _, error = command("list", *arguments)
        assert (code, error.split(":")[1].strip()) == (1, "UNAUTHENTICATED")
        assert "--token or ANYSERVE_ADMIN_TOKEN" in error
        assert "secret" not in error
    code, listed, _ = command("list", "--token", "secret")
    assert code == 0
    assert re.fullmatch(r"[0-9a-f]{16}  die: 2 workers died, 0 refused since, \d+ s left\n", listed), listed
    served.allow("tame-poison")
    assert command("release", "--all", ANYSERVE_ADMIN_TOKEN="secret")[:2] == (0, "released 1\n")
    assert call.now("die", "poison").outputs
    assert command("list", ANYSERVE_ADMIN_TOKEN="secret")[:2] == (0, "nothing is quarantined\n")
    assert command("release", "0123456789abcdef", "--token", "secret")[0] == 1


@pytest.mark.parametrize("token", [None, "secret"])
def test_a_web_page_may_not_administrate_whatever_it_knows(replica, token):
    served = replica(*APP, *([] if token is None else ["--admin-token", token]))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    assert http(served, admin.PATH, headers) == (200, {"quarantined": []})
    status, answer = http(served, admin.PATH, {**headers, "Origin": "http://localhost"})
    assert status == 403
    assert "Origin" in answer["error"]
    assert explain(served, {"Origin": "http://localhost"}, type="hold")["decision"]["kind"] == "run"
