"""The clients that find replicas through an API server, whose registry is played by `registry`."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from anyserve import AsyncClient, Client, errors
from tests.python.registry import WATCHDOG_S, Registry
from tests.python.test_client import Fake


class Replica(Fake):
    """A replica, running."""

    def __init__(self):
        super().__init__()
        self.refuses = False
        self._server = grpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        if self.refuses:
            context.set_trailing_metadata((("x-anyserve-code", "DRAINING"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "it leaves")
        return super().ModelInfer(request, context)

    def stop(self):
        self._server.stop(None).wait(WATCHDOG_S)


@pytest.fixture
def registry():
    registry = Registry()
    yield registry
    registry.stop()


@pytest.fixture
def replicas(registry):
    replicas = [Replica(), Replica()]
    for name, replica in zip("ab", replicas, strict=True):
        registry.add(name, replica.endpoint)
    yield replicas
    for replica in replicas:
        replica.stop()


def test_a_replica_is_found_by_the_first_call_and_then_used(registry, replicas):
    with Client(api_server=registry.endpoint, capability={"type": "echo"}) as client:
        assert (client.mode, client.endpoint, client.replica_id) == ("discovery", None, None)
        for number in range(3):
            assert client.infer("any", {"x": [number]})["x"].tolist() == [number]
        assert (client.endpoint, client.replica_id) == (replicas[0].endpoint, "a")
        headers = replicas[0].headers.get(timeout=WATCHDOG_S)
    assert headers["x-capability-type"] == "echo", "the client's capability goes along with every call"
    assert [(asked.selector, asked.model) for asked in registry.asked] == [("type=echo", "")]
    with pytest.raises(errors.InvalidInput, match="API servers 127"):
        client.infer("any", {})


@pytest.mark.parametrize(
    ("target", "capability", "expected"),
    [
        ("echo", None, ("", "echo")),
        ({"type": "chat"}, None, ("type=chat", "")),
        ("echo", {"type": "chat"}, ("type=chat", "")),
    ],
)
def test_without_a_capability_of_the_client_the_call_decides(registry, replicas, target, capability, expected):
    with Client(api_server=[registry.endpoint]) as client:
        client.infer(target, {"text": "a"}, capability=capability)
        assert [int(part["number"][0]) for part in client.stream(target, {"text": "a"}, capability=capability)] == [
            0,
            1,
            2,
        ]
    assert [(asked.selector, asked.model) for asked in registry.asked] == [expected]


def test_a_capability_of_the_call_wins_over_the_clients(registry, replicas):
    client = Client(api_server=registry.endpoint, capability={"type": "echo"})
    client.infer({"type": "chat"}, {"text": "a"})
    client.infer("any", {"text": "a"}, capability={"type": "embed"})
    assert [asked.selector for asked in registry.asked] == ["type=chat", "type=embed"]


def test_a_replica_that_leaves_or_is_gone_is_followed_by_another_one(registry, replicas):
    client = Client(api_server=registry.endpoint, capability={"type": "echo"})
    replicas[0].refuses = True
    client.infer("any", {"text": "a"}, timeout_s=WATCHDOG_S)
    assert client.replica_id == "b"
    registry.stop()
    client.infer("any", {"text": "a"}, timeout_s=WATCHDOG_S)
    replicas[0].refuses = False
    replicas[1].stop()
    client.infer("any", {"text": "a"}, timeout_s=WATCHDOG_S)
    assert client.replica_id == "a", "the one that is known, although it left a while ago"


def test_nobody_to_be_found_is_an_exception_that_says_why(registry):
    client = Client(api_server=registry.endpoint, capability={"type": "echo"})
    with pytest.raises(errors.NoCapability, match="nobody serves it"):
        client.infer("any", {"text": "a"})
    assert not client.is_ready("any")
    registry.stop()
    with pytest.raises(errors.Unavailable, match="nothing listens on"):
        client.infer("any", {"text": "a"})
    assert not client.is_live()


def test_questions_go_to_a_replica_that_serves_what_they_are_about(registry, replicas):
    client = Client(api_server=registry.endpoint, capability={"type": "echo"})
    assert client.is_live()
    assert client.is_ready()
    assert client.is_ready("echo")
    assert client.metadata("echo")["platform"] == "fake"
    other = Client(api_server=registry.endpoint)
    assert other.is_ready("echo")
    assert other.metadata("echo")["inputs"] == [("x", "FP32", [-1])]
    assert [(asked.selector, asked.model) for asked in registry.asked] == [("type=echo", ""), ("", "echo")]


def test_an_event_loop_finds_replicas_as_well(registry, replicas):
    async def ask():
        async with AsyncClient(api_server=registry.endpoint, capability={"type": "echo"}) as client:
            answers = await asyncio.gather(*(client.infer("any", {"x": [number]}) for number in range(20)))
            parts = [int(part["number"][0]) async for part in client.stream("any", {"x": [1]})]
            return [int(answer["x"][0]) for answer in answers], parts, client.replica_id, await client.is_ready("echo")

    assert asyncio.run(asyncio.wait_for(ask(), WATCHDOG_S)) == (list(range(20)), [0, 1, 2], "a", True)
    assert len(registry.asked) == 1


def test_a_client_says_how_it_finds_replicas():
    client = Client(api_server="http://localhost:8080", capability={"type": "echo"})
    assert repr(client) == "Client(api_server=['http://localhost:8080'], capability={'type': 'echo'})"
    assert repr(Client(endpoint="localhost:8000")) == "Client(endpoint='localhost:8000')"
