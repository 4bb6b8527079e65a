"""Promise 3: a request that kills workers is refused before it kills a third, and nobody else is refused with it."""

import grpc
import pytest

from tests.e2e.messages import anyserve_code
from tests.e2e.replicas import WATCHDOG_S, anyserve, until
from tests.guarantees import admin
from tests.guarantees.calls import attempts_of, code_of

APP = ("tests/guarantees/apps/promises.py:create", "--factory")
POISON = (grpc.StatusCode.FAILED_PRECONDITION, "POISON")


def poisoned(call, name: str = "poison") -> None:
    """Have a request kill two workers."""
    error = call.refused("die-idempotent", name)
    assert (error.code(), anyserve_code(error)) == POISON
    assert call.replica.noted(f"started-{name}", 2)


def test_a_request_whose_attempts_killed_two_workers_is_poison_and_is_not_run_a_third_time(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    poisoned(call)
    for _ in range(3):
        assert code_of(call.begin("die-idempotent", "poison")) == "POISON"
    assert len(served.note("started-poison")) == 2


def test_a_request_that_its_caller_repeats_is_refused_after_its_second_worker(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    assert code_of(call.begin("die", "poison")) == "WORKER_LOST"
    assert code_of(call.begin("die", "poison")) in {"WORKER_LOST", "POISON"}
    assert code_of(call.begin("die", "poison")) == "POISON"
    assert len(served.note("started-poison")) == 2


def test_what_is_refused_is_listed_with_its_fingerprint_model_and_deaths(replica, calls):
    served = replica(*APP, "--workers", "2")
    assert admin.quarantined(served) == []
    call = calls(served)
    poisoned(call)
    assert code_of(call.begin("die-idempotent", "poison")) == "POISON"
    (row,) = admin.quarantined(served)
    assert len(row["fingerprint"]) == 16
    assert int(row["fingerprint"], 16) >= 0
    assert (row["model"], row["deaths"]) == ("die-idempotent", 2)
    assert row["refused"] >= 1


def test_the_command_lists_what_is_refused_and_releases_it(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    poisoned(call)
    (row,) = admin.quarantined(served)
    listed = anyserve("quarantine", "list", "--endpoint", served.endpoint)
    assert listed.returncode == 0, listed.stderr
    assert row["fingerprint"] in listed.stdout
    assert "die-idempotent" in listed.stdout
    served.allow("tame-poison")
    released = anyserve("quarantine", "release", row["fingerprint"], "--endpoint", served.endpoint)
    assert released.returncode == 0, released.stderr
    assert admin.quarantined(served) == []
    assert attempts_of(call.now("die-idempotent", "poison")) == 1


def test_one_fingerprint_is_released_and_the_others_stay(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    poisoned(call, "one")
    until(served.is_ready, "ready")
    poisoned(call, "other")
    rows = admin.quarantined(served)
    assert len(rows) == 2
    newest = rows[0]["fingerprint"]
    assert admin.ask(served, f"{admin.PATH}/{newest}", method="DELETE")[0] == 200
    served.allow("tame-one")
    served.allow("tame-other")
    assert code_of(call.begin("die-idempotent", "one")) == "POISON"
    assert call.now("die-idempotent", "other").outputs


def test_all_fingerprints_are_released_together(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    poisoned(call)
    served.allow("tame-poison")
    assert admin.ask(served, method="DELETE")[0] == 200
    assert call.now("die-idempotent", "poison").outputs


@pytest.mark.parametrize("fingerprint", ["0123456789abcdef", "nonsense"])
def test_releasing_what_is_not_refused_says_so(replica, fingerprint):
    served = replica(*APP)
    status, _ = admin.ask(served, f"{admin.PATH}/{fingerprint}", method="DELETE")
    assert status in {400, 404}


def test_a_fingerprint_is_released_by_itself_after_its_time(replica, calls):
    served = replica(*APP, "--workers", "2", "--quarantine-ttl-s", "1")
    call = calls(served)
    poisoned(call)
    served.allow("tame-poison")
    until(lambda: not admin.quarantined(served), "an empty quarantine")
    assert call.now("die-idempotent", "poison").outputs


def test_other_requests_are_served_while_one_is_refused(replica, calls):
    served = replica(*APP, "--workers", "2")
    call = calls(served)
    poisoned(call)
    until(served.is_ready, "ready")
    assert attempts_of(call.now("die-idempotent", "harmless")) == 1
    assert call.now("die", "harmless").outputs
    assert call.now("pid").outputs


def test_a_request_that_only_shared_a_worker_with_a_poisonous_one_is_answered(replica, calls):
    served = replica(*APP, "--workers", "3")
    call = calls(served)
    bystanders = [call.begin("hold-idempotent", "bystander") for _ in range(4)]
    served.noted("started-bystander", 4)
    assert code_of(call.begin("die", "poison")) == "WORKER_LOST"
    served.allow("go-bystander")
    assert all(one.result(WATCHDOG_S).outputs for one in bystanders)
    assert admin.quarantined(served) == []


def test_with_a_token_the_quarantine_is_nobodys_who_has_it_not(replica):
    served = replica(*APP, "--admin-token", "secret")
    assert admin.ask(served)[0] == 401
    assert admin.ask(served, token="wrong")[0] in {401, 403}
    assert admin.ask(served, method="DELETE")[0] == 401
    assert admin.ask(served, token="secret")[0] == 200
