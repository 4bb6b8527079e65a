"""What a real replica says to an API server, and what it has served elsewhere. The API server is played."""

import pytest

from anyserve import Client, errors
from tests.python.registry import WATCHDOG_S, Registry
from tests.python.test_client import Fake

APP = "examples.basic.app:app"


@pytest.fixture
def elsewhere():
    """Whoever serves what the API server gets."""
    return Fake()


@pytest.fixture
def registry(elsewhere):
    registry = Registry(elsewhere)
    yield registry
    registry.stop()


def test_a_replica_announces_itself_and_says_that_it_drains_and_goes(registry, replica):
    one = replica(APP, "--api-server", registry.endpoint, "--replica-id", "one")
    registered = registry.hears("Register")
    assert (registered.id, registered.endpoint) == ("one", f"http://{one.endpoint}")
    types = {offer.capability["type"].text for offer in registered.offers}
    assert "echo" in types
    assert all(offer.slots >= 1 and offer.load.ready for offer in registered.offers)
    beat = registry.hears("Heartbeat")
    assert (beat.epoch, len(beat.loads), beat.draining) == (registered.epoch, len(registered.offers), False)
    one.stop()
    assert registry.hears("Heartbeat", lambda heard: heard.draining).registered == registered.seq
    left = registry.hears("Leave")
    assert (left.id, left.epoch) == ("one", registered.epoch)


def test_a_replica_that_starts_anew_has_a_later_epoch_and_by_default_the_name_of_its_endpoint(registry, replica):
    one = replica(APP, "--api-server", registry.endpoint)
    first = registry.hears("Register")
    assert first.id == one.endpoint
    one.stop()
    replica(APP, "--api-server", registry.endpoint, "--replica-id", first.id)
    again = registry.hears("Register", lambda heard: heard.epoch != first.epoch)
    assert again.id == first.id
    assert again.epoch > first.epoch


def test_what_a_replica_does_not_serve_is_forwarded_once(registry, replica, elsewhere):
    one = replica(APP, "--api-server", registry.endpoint, "--replica-id", "one")
    with Client(endpoint=one.endpoint) as client:
        answer = client.infer("other", {"text": "a"}, id="7", headers={"x-trace": "9"}, timeout_s=WATCHDOG_S)
        assert (answer["text"].tolist(), answer.response.id) == ([b"a"], "7")
        headers = elsewhere.headers.get(timeout=WATCHDOG_S)
        assert (
            headers.items() >= {"x-anyserve-delegations": "1", "x-anyserve-refused-by": "one", "x-trace": "9"}.items()
        )
        with pytest.raises(errors.NoCapability, match="handed on once already"):
            client.infer("other", {"text": "a"}, headers={"x-anyserve-delegations": "1"}, timeout_s=WATCHDOG_S)
        client.infer({"type": "other", "size": 7}, {"text": "a"}, timeout_s=WATCHDOG_S)
        assert elsewhere.headers.get(timeout=WATCHDOG_S)["x-anyserve-query"] == "size=7,type=other"
        assert [int(part["number"][0]) for part in client.stream("other", {"text": "a"})] == [0, 1, 2]


def test_a_client_finds_a_real_replica_and_goes_on_with_it_without_the_api_server(registry, replica):
    one = replica(APP, "--api-server", registry.endpoint, "--replica-id", "one")
    registry.add("one", one.endpoint, lease_ms=1)
    with Client(api_server=registry.endpoint, capability={"type": "echo"}) as client:
        client.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)
        assert (client.replica_id, client.endpoint) == ("one", one.endpoint)
        registry.stop()
        for _ in range(100):
            client.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)


def test_a_replica_serves_and_stops_without_its_api_server(registry, replica):
    registry.stop()
    one = replica(APP, "--api-server", registry.endpoint)
    with Client(endpoint=one.endpoint) as client:
        client.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)
        with pytest.raises(errors.Unavailable, match="nothing listens on"):
            client.infer("other", {"text": "a"}, timeout_s=WATCHDOG_S)
    one.stop()
