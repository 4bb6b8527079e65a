"""Guarantee 9: at most one delegation, never back to who refused, with the first deadline, id and trace."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from anyserve import Client, errors
from tests.guarantees.fleet import by, join, text

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LIGHT, HEAVY = {"type": "decode", "size": "small"}, {"type": "decode.heavy", "size": "large"}
RULE = "type=decode -> type=decode.heavy"
LARGE = {"type": "decode", "size": "large"}
TIMEOUT_S = 30


def ask(endpoint, query=LARGE, **more):
    """One request."""
    with Client(endpoint) as client:
        return client.infer(query, {"text": "x"}, timeout_s=TIMEOUT_S, **more)


def discovered(api_server, query=LARGE, **more):
    """One request, straight to the replica that the API server names."""
    with Client(api_server=api_server) as client:
        return client.infer(query, {"text": "x"}, timeout_s=TIMEOUT_S, **more)


@pytest.fixture
def pair(replica, api_server):
    """An API server, a light replica with a rule, and a heavy one."""
    server = api_server()
    return server, join(replica, server, "light", LIGHT, upgrade=[RULE]), join(replica, server, "heavy", HEAVY)


@pytest.mark.parametrize("way", ["the API server", "the replica", "discovery"])
def test_what_a_replica_cannot_serve_is_served_by_another_with_its_id_deadline_and_trace(pair, way):
    server, light, _ = pair
    endpoint = light.endpoint if way == "the replica" else server.endpoint
    send = discovered if way == "discovery" else ask
    answer = send(endpoint, id="the-one", headers={"traceparent": TRACE})
    assert (by(answer), text(answer, "id"), text(answer, "trace")) == ("heavy", "the-one", TRACE)
    assert 0 < float(text(answer, "remaining")) <= TIMEOUT_S
    assert text(answer, "delegations") == "1"
    assert by(send(endpoint, LIGHT)) == "light"


def test_who_has_a_rule_gets_what_nobody_claims_to_serve_before_who_only_comes_near(replica, api_server):
    server = api_server()
    join(replica, server, "near", LIGHT, HEAVY)
    join(replica, server, "rules", {"type": "other"}, upgrade=[RULE])
    told = server.replicas()
    assert (told["near"]["upgrades"], told["rules"]["upgrades"]) == ([], [RULE])
    explained = server.get("/explain?type=decode&size=large")
    assert (explained["decision"]["replica"], explained["upgrade"]) == ("rules", "'size=large,type=decode.heavy'")
    for _ in range(8):
        answer = ask(server.endpoint)
        assert (by(answer), text(answer, "delegations")) == ("near", "1")


@pytest.mark.parametrize("way", ["the API server", "the replica"])
def test_streams_are_delegated_before_their_first_part(replica, api_server, way):
    server = api_server()
    rule = "type=talk -> type=talk.heavy"
    light = join(replica, server, "light", {"type": "talk", "size": "small"}, upgrade=[rule])
    join(replica, server, "heavy", {"type": "talk.heavy", "size": "large"})
    endpoint = server.endpoint if way == "the API server" else light.endpoint
    with Client(endpoint) as client:
        parts = list(client.stream({"type": "talk", "size": "large"}, {"text": "x"}, timeout_s=TIMEOUT_S))
    assert [text(part, "text") for part in parts] == [f"x {number}" for number in range(8)]
    assert {by(part) for part in parts} == {"heavy"}


def test_a_replica_that_refused_does_not_get_the_request_again_although_it_serves_what_it_upgraded_it_to(
    replica, api_server
):
    server = api_server()
    light = join(replica, server, "light", LIGHT, {"type": "decode.heavy", "size": "large"}, upgrade=[RULE])
    with pytest.raises(errors.NoCapability):
        ask(light.endpoint)
    join(replica, server, "heavy", HEAVY)
    assert by(ask(light.endpoint)) == "heavy"


def test_rules_that_lead_in_a_circle_end_with_an_error(replica, api_server):
    server = api_server()
    there = join(replica, server, "there", {"type": "a"}, upgrade=["type=x -> type=y", "type=y -> type=x"])
    back = join(replica, server, "back", {"type": "b"}, upgrade=["type=y -> type=x", "type=x -> type=y"])
    for endpoint in (server.endpoint, there.endpoint, back.endpoint):
        for kind in ("x", "y"):
            with pytest.raises(errors.NoCapability):
                ask(endpoint, {"type": kind})


def test_without_an_api_server_a_replica_says_so(replica):
    served = replica("protocol.py:create_serial", "--factory")
    with pytest.raises(errors.NoCapability):
        ask(served.endpoint, {"type": "nowhere"})


# === a registry that is wrong ===


def claim(server, name: str, endpoint: str, *capabilities: dict[str, str]) -> None:
    """Tell the registry of a replica that is not what it says."""
    load = {"ready": True, "pending": 0, "wait_us": 0, "service_us": 1000}
    offers = [{"capability": capability, "idempotent": True, "slots": 8, "load": load} for capability in capabilities]
    body = {"id": name, "epoch": 1, "seq": 1, "endpoint": f"http://{endpoint}", "offers": offers}
    assert server.post("/register", body)["verdict"] == "accepted"


def unused() -> str:
    """An address at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_claims_that_are_not_true_cost_no_request_as_long_as_one_replica_serves_it(pair):
    server, light, _ = pair
    for number in range(5):
        claim(server, f"liar-{number}", light.endpoint, HEAVY)
    for number in range(5):
        claim(server, f"dead-{number}", unused(), HEAVY, LIGHT)
    with ThreadPoolExecutor(8) as pool:
        heavy = list(pool.map(lambda _: by(ask(server.endpoint, HEAVY)), range(40)))
        small = list(pool.map(lambda _: by(ask(server.endpoint, LIGHT)), range(40)))
    assert (set(heavy), set(small)) == ({"heavy"}, {"light"})


@pytest.mark.parametrize("seed", [1, 2])
def test_capabilities_that_come_and_go_cost_no_request_as_long_as_one_replica_keeps_its_own(replica, api_server, seed):
    server, chance = api_server(), random.Random(seed)
    kinds = [{"type": f"t{number}"} for number in range(3)]
    join(replica, server, "steady", *kinds)
    shaky = [join(replica, server, f"shaky-{number}", *kinds) for number in range(2)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(12):
            one, order = chance.choice(shaky), chance.choice(["load", "unload"])
            status, said = one.http(f"/admin/models/t0/{order}", method="POST")
            assert status == 200, said
            asked = [pool.submit(ask, server.endpoint, chance.choice(kinds)) for _ in range(8)]
            assert {by(call.result()) for call in asked} <= {"steady", "shaky-0", "shaky-1"}
