"""The API server as a process, and its page in a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anyserve import Client, __version__
from tests.e2e.api_servers import Played
from tests.e2e.browser import Browser, browsing
from tests.e2e.replicas import BIN, ROOT, WATCHDOG_S, anyserve, until
from tests.e2e.test_status_page import HOSTILE, brightness, columns, is_lost, text

APP = "examples.basic.app:app"


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    """Plays replicas."""
    made = []

    def play(*arguments, **more) -> Played:
        made.append(Played(*arguments, **more))
        return made[-1]

    yield play
    for one in made:
        one.stops()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser") / "home") as opened:
        yield opened


@pytest.mark.parametrize("program", [(BIN / "anyserve",), (ROOT / "target/debug/anyserve-node",)])
def test_it_says_where_it_listens_and_leaves_when_it_is_told_to(api_server, program):
    server = api_server(program=program)
    assert server.get("/health") == {
        "live": True, "ready": True, "draining": False, "store": "memory", "policy": "least-wait",
        "version": __version__,
        "replicas": {"up": 0, "ejected": 0, "probing": 0, "draining": 0},
    }  # fmt: skip
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "\nstopped" in server.output()


def test_options_come_from_flags_variables_and_a_file(api_server, tmp_path):
    file = tmp_path / "api.toml"
    file.write_text('policy = "sticky"\nlease_s = 7\ncluster_token = "secret"\n')
    server = api_server("--config", file, "--lease-s", "8", env={"ANYSERVE_HEARTBEAT_S": "2"})
    body = {"id": "a", "epoch": 1, "seq": 1, "endpoint": "http://a:1", "offers": []}
    assert server.post("/register", body) == {"verdict": "accepted", "heartbeat_ms": 2000, "lease_ms": 8000}
    assert server.get("/explain?type=x")["policy"] == "sticky"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--policy", "best"], "--policy is 'best', it takes one of least-wait"),
        (["--store", "redis://x"], "--store: a store is memory, or etcd://host:port"),
        (["--lease-s", "1"], "--lease-s is 1 and --heartbeat-s is 1"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(flags, says):
    done = anyserve("api-server", "--port", "0", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_a_replica_is_found_from_its_registration_until_it_is_silent(api_server, played):
    server = api_server("--heartbeat-s", "0.2", "--lease-s", "2")
    assert server.http("/route?type=chat")[0] == 503
    replica = played(server, "a", type="chat", context=8192)
    assert server.get("/route?selector=context%3E%3D4096")["replica_id"] == "a"
    replica.stops()
    until(lambda: server.http("/route?type=chat")[0] == 503, "the end of the lease")
    assert server.metric("anyserve_expiries_total") == 1


def test_the_commands_show_an_api_server_too(api_server, played):
    server = api_server()
    played(server, "a", type="chat")
    done = anyserve("explain", "type=chat", "--endpoint", server.endpoint)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "'type=chat' goes to a on http://127.0.0.1:9, says least-wait",
    )
    done = anyserve("status", "--once", "--endpoint", server.endpoint)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 replica up" in done.stdout
    done = anyserve("status", "--once", "--json", "--endpoint", server.endpoint)
    assert json.loads(done.stdout)["replicas"][0]["id"] == "a"


def test_the_page_shows_all_replicas_and_says_when_the_server_is_gone(api_server, played, browser):
    server = api_server()
    played(server, "a", type="chat")
    busy = played(server, "b", model=HOSTILE)
    busy.load = {"ready": True, "pending": 7, "wait_us": 1500}
    browser.opens(f"http://{server.endpoint}/")
    until(lambda: [one["replica"] for one in columns(browser, "replicas")] == ["a", "b"], "the replicas on the page")
    until(lambda: columns(browser, "replicas")[1]["pending"] == "7", "the load of the second")
    first, second = columns(browser, "replicas")
    assert (first["endpoint"], first["state"], first["heard"]) == ("http://127.0.0.1:9", "up", "here")
    assert first["capabilities"] == "type=chat (ready)"
    assert "(ready, 7 pending, 1.5 ms)" in second["capabilities"]
    (_, chat) = sorted(columns(browser, "capabilities"), key=lambda one: one["capability"])
    assert (chat["capability"], chat["ready"], chat["replicas"]) == ("type=chat", "1", "1")
    assert (text(browser, "state"), is_lost(browser)) == ("serving", False)
    assert "2 of 2 replicas up" in text(browser, "age")

    # What comes from others is text.
    assert HOSTILE in second["capabilities"]
    assert browser.runs("return document.querySelectorAll('img, b').length;") == 0
    assert browser.runs("return document.title;") == "AnyServe API server"

    # Charts move.
    until(lambda: browser.runs("return history.length;") >= 3, "a curve")
    labels = browser.runs("return [...document.querySelectorAll('svg')].map((one) => one.getAttribute('aria-label'));")
    assert [label.partition(":")[0] for label in labels] == ["requests", "failed", "in flight", "replicas up"]
    assert browser.complaints() == [], "the page keeps to its policy"

    server.kill()
    until(lambda: is_lost(browser), "the page to notice the end")
    assert text(browser, "state") == "connection lost"
    assert len(columns(browser, "replicas")) == 2, "what was known stays"


def test_numbers_in_json_have_the_datatype_that_the_model_declares(api_server, replica):
    server = api_server()
    assert "anyserve serve app:app --api-server URL" in server.http("/infer", body={"model": "add", "inputs": {}})[1]
    replica(APP, "--api-server", server.url, "--replica-id", "one")
    until(lambda: server.get("/health")["replicas"]["up"] == 1, "the replica")
    # `add` declares FP32, `echo` nothing.
    status, answer = server.http("/infer", body={"model": "add", "inputs": {"a": [1, 2.5], "b": [3, 4]}})
    assert (status, json.loads(answer)["outputs"]) == (
        200, [{"name": "sum", "datatype": "FP32", "shape": [2], "data": [4.0, 6.5]}],
    )  # fmt: skip
    status, answer = server.http("/infer", body={"model": "echo", "inputs": {"x": [1, 2]}})
    assert (status, json.loads(answer)["outputs"][0]["datatype"]) == (200, "INT64")
    status, answer = server.http("/infer", body={"model": "add", "inputs": {"a": [1, 1e39], "b": [3, 4]}})
    assert (status, json.loads(answer)["error"]) == (
        400, "input 'a': element 1: 1e39 is out of range for FP32, which the model declares",
    )  # fmt: skip
    status, answer = server.http("/infer", body={"model": "ad", "inputs": {}})
    meant = "no replica serves model 'ad': did you mean 'add'? GET /registry lists what 1 replica offers"
    assert (status, json.loads(answer)["error"]) == (404, f"{meant}; GET /explain says why")


def test_reflection_tells_the_services_of_the_port(api_server, channel):
    opened = channel(api_server().endpoint)
    for version in ("v1", "v1alpha"):
        ask = opened.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        (answer,) = ask(iter([b"\x3a\x00"]))
        for service in ("inference.GRPCInferenceService", "anyserve.v1.Registry", "grpc.health.v1.Health"):
            assert service.encode() in answer
        assert b"anyserve.v1.Replica" not in answer


def test_the_page_says_first_who_is_out_of_reach_and_why(api_server, played, browser):
    server = api_server()
    played(server, "b", type="other")
    assert server.http("/infer", body={"model": "other", "inputs": {}})[0] == 503
    played(server, "a", type="chat")
    played(server, "c", type="chat")
    browser.opens(f"http://{server.endpoint}/")
    until(lambda: len(columns(browser, "replicas")) == 3, "the replicas on the page")
    until(lambda: "asked again" in columns(browser, "replicas")[0]["why"], "the reason")
    first, *others = columns(browser, "replicas")
    assert (first["replica"], [one["replica"] for one in others]) == ("b", ["a", "c"])
    assert (first["state"], [one["why"] for one in others]) == ("ejected", ["", ""])
    assert "2 of 3 replicas up, 1 ejected" in text(browser, "age")
    until(lambda: "refused" in columns(browser, "replicas")[0]["why"], "what the first probe was told")

    # What is looked for is shown, and nothing else.
    look = "filter.value = arguments[0]; filter.dispatchEvent(new Event('input'));"
    browser.runs(look, "CHAT")
    assert [one["replica"] for one in columns(browser, "replicas")] == ["a", "c"]
    browser.runs(look, "eject")
    assert [one["replica"] for one in columns(browser, "replicas")] == ["b"]
    assert text(browser, "found") == "1 of the 3 shown"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_is_whole_in_light_and_dark_on_small_screens_and_large(api_server, played, browser, scheme, width):
    server = api_server()
    played(server, "a", type="chat")
    browser.prefers(scheme)
    browser.resizes(width, 900)
    browser.opens(f"http://{server.endpoint}/")
    until(lambda: columns(browser, "replicas"), "the replicas on the page")
    room, needed = browser.runs("return [innerWidth, document.documentElement.scrollWidth];")
    assert (room, needed <= room) == (width, True), "nothing sticks out"
    ground, ink = (brightness(browser, name) for name in ("background-color", "color"))
    assert (ground > 200 and ink < 60) if scheme == "light" else (ground < 60 and ink > 200), (ground, ink)
    headings = browser.runs("return [...document.querySelectorAll('th')].filter((one) => !one.scope).length;")
    captions = browser.runs("return [...document.querySelectorAll('table')].filter((one) => !one.caption).length;")
    assert (headings, captions) == (0, 0), "every heading says what it is of, every table what it is"


def test_real_replicas_register_are_found_and_leave(api_server, replica):
    server = api_server()
    one = replica(APP, "--api-server", f"http://{server.endpoint}", "--replica-id", "one")
    two = replica(APP, "--api-server", f"http://{server.endpoint}", "--replica-id", "two")
    until(lambda: server.get("/health")["replicas"]["up"] == 2, "both replicas")
    with Client(api_server=server.endpoint, capability={"type": "echo"}) as client:
        client.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)
        first = client.replica_id
        {"one": one, "two": two}[first].stop()
        until(lambda: server.get("/health")["replicas"]["up"] == 1, "one to leave")
        client.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)
        assert client.replica_id == ({"one", "two"} - {first}).pop()
    assert server.metric("anyserve_leaves_total") == 1


def test_a_server_that_comes_back_empty_knows_its_replicas_again(api_server, replica):
    first = api_server()
    port = first.endpoint.rpartition(":")[2]
    replica(APP, "--api-server", f"http://{first.endpoint}", "--replica-id", "one")
    until(lambda: first.get("/health")["replicas"]["up"] == 1, "the replica")
    first.signal(signal.SIGKILL)
    first.wait()
    again = api_server("--port", port, port=None)
    until(lambda: again.get("/health")["replicas"]["up"] == 1, "the replica to come back")


@contextmanager
def an_etcd(folder: Path, scheme: str = "http", *flags: str | Path) -> Iterator[str]:
    """The address of an etcd of this test."""
    if not shutil.which("etcd"):
        assert "ANYSERVE_CI" not in os.environ, "CI needs Debian's etcd-server"
        pytest.skip("there is no etcd on this machine")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, peer = one.getsockname()[1], f"http://127.0.0.1:{other.getsockname()[1]}"
    client = f"{scheme}://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            "etcd", "--data-dir", folder, "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            *flags,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def etcd(tmp_path) -> Iterator[str]:
    """The address of an etcd that talks to everybody."""
    with an_etcd(tmp_path / "etcd") as address:
        yield address


def test_an_etcd_that_asks_who_an_api_server_is_is_shown_its_certificate(api_server, certificates, tmp_path):
    def towards(name: str) -> list[str | Path]:
        return ["--store-ca", certificates / "ca.pem", "--store-cert", certificates / f"{name}.pem",
                "--store-key", certificates / f"{name}.key"]  # fmt: skip

    flags = ("--cert-file", certificates / "server.pem", "--key-file", certificates / "server.key",
             "--client-cert-auth", "--trusted-ca-file", certificates / "ca.pem")  # fmt: skip
    with an_etcd(tmp_path / "etcd", "https", *flags) as etcd:
        store = ("--store", f"etcd+https://{etcd}")
        known, unknown = (api_server(*store, *towards(name)) for name in ("client", "stranger"))
        until(lambda: known.get("/health")["store"] == "connected", "the store")
        unknown.says("etcd")
        assert unknown.get("/health")["store"] == "disconnected"


def test_servers_with_one_store_know_the_same_replicas(api_server, replica, etcd):
    first, second = (api_server("--store", f"etcd://{etcd}") for _ in range(2))
    for server in (first, second):
        until(lambda server=server: server.get("/health")["store"] == "connected", "the store")
    one = replica(APP, "--api-server", f"http://{first.endpoint}", "--replica-id", "one")
    until(lambda: second.http("/route?type=echo")[0] == 200, "the other server to know")
    with Client(api_server=second.endpoint, capability={"type": "echo"}) as client:
        client.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)
        assert client.replica_id == "one"
    one.stop()
    until(lambda: second.http("/route?type=echo")[0] == 503, "the other server to know that it went")
