"""A cluster whose API servers and replicas show one another certificates."""

import json
import ssl
import urllib.request

import numpy as np
import pytest

from anyserve import Client, errors
from tests.e2e.replicas import WATCHDOG_S, anyserve, until

APP = "examples.basic.app:app"
ECHO = {"type": "echo"}


def port_of(started) -> int:
    """The port that a process listens on."""
    return int(started.endpoint.rpartition(":")[2])


class Secure:
    """The flags of a cluster where everybody is asked for a certificate."""

    def __init__(self, folder):
        self.folder = folder
        self.port = ("--tls-cert", folder / "server.pem", "--tls-key", folder / "server.key",
                     "--tls-client-ca", folder / "ca.pem")  # fmt: skip

    def towards(self, side: str, name: str | None = "client", authority: str = "ca") -> list:
        """What one side shows the other, and whom it believes."""
        own = [] if name is None else [f"--{side}-cert", self.folder / f"{name}.pem",
                                       f"--{side}-key", self.folder / f"{name}.key"]  # fmt: skip
        return [f"--{side}-ca", self.folder / f"{authority}.pem", *own]

    def client(self, *, name: str | None = "client", **where) -> Client:
        """A client that shows this certificate."""
        own = {} if name is None else {"tls_cert": self.folder / f"{name}.pem", "tls_key": self.folder / f"{name}.key"}
        return Client(**where, tls_ca=self.folder / "ca.pem", **own)

    def replicas(self, server) -> dict[str, dict]:
        """The replicas that an API server knows, by id."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        # What these certificates lack is nothing that the runtime asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        url = f"https://localhost:{port_of(server)}/registry"
        with urllib.request.urlopen(url, timeout=WATCHDOG_S, context=context) as response:
            return {one["id"]: one for one in json.loads(response.read())["replicas"]}


@pytest.fixture
def secure(certificates):
    return Secure(certificates)


@pytest.fixture
def server(api_server, secure):
    """An API server that shows replicas its certificate."""
    return api_server(*secure.port, *secure.towards("replica"))


def url(server) -> str:
    return f"https://localhost:{port_of(server)}"


def joins(replica, secure, server, name):
    """Start a replica that shows the API server its certificate, and wait until it is known."""
    served = replica(APP, *secure.port, "--api-server", url(server), "--replica-id", name,
                     *secure.towards("api-server"))  # fmt: skip
    until(lambda: name in secure.replicas(server), f"replica {name} in the registry")
    return served


def test_requests_go_through_the_api_server_and_to_a_replica_that_was_found(replica, server, secure):
    joins(replica, secure, server, "one")
    assert secure.replicas(server)["one"]["endpoint"].startswith("https://127.0.0.1:")
    with secure.client(endpoint=url(server)) as through:
        assert through.infer(ECHO, {"text": "a"}, timeout_s=WATCHDOG_S)["output_text"].tolist() == [b"a"]
    with secure.client(api_server=url(server), capability=ECHO) as found:
        assert found.infer("echo", {"text": "a"}, timeout_s=WATCHDOG_S)["output_text"].tolist() == [b"a"]
        assert (found.replica_id, found.endpoint) == ("one", secure.replicas(server)["one"]["endpoint"])


def test_what_a_replica_does_not_serve_is_forwarded_with_its_certificate(replica, server, secure):
    joins(replica, secure, server, "one")
    other = replica("tests/e2e/apps/protocol.py:create_serial", "--factory", *secure.port, "--api-server", url(server),
                    "--replica-id", "other", *secure.towards("api-server"))  # fmt: skip
    until(lambda: "other" in secure.replicas(server), "the other replica in the registry")
    with secure.client(endpoint=f"https://localhost:{port_of(other)}") as client:
        a, b = np.float32([3]), np.float32([2])
        answer = client.infer({"type": "add"}, {"a": a, "b": b}, timeout_s=WATCHDOG_S)
        assert answer["sum"].tolist() == [5]


@pytest.mark.parametrize("name", [None, "stranger"])
def test_clients_that_show_no_certificate_or_another_authoritys_reach_neither(replica, server, secure, name):
    one = joins(replica, secure, server, "one")
    for where in ({"endpoint": url(server)}, {"endpoint": f"https://localhost:{port_of(one)}"},
                  {"api_server": url(server), "capability": ECHO}):  # fmt: skip
        with secure.client(name=name, **where) as client, pytest.raises(errors.Unavailable):
            client.infer("echo", {"text": "a"}, timeout_s=10)


@pytest.mark.parametrize(
    ("name", "authority", "fix"),
    [(None, "ca", "--api-server-cert"), ("stranger", "ca", ""), ("client", "other", "--api-server-ca")],
)
def test_a_replica_says_with_which_api_server_tls_fails_and_what_to_set(replica, server, secure, name, authority, fix):
    one = replica(APP, "--api-server", url(server), *secure.towards("api-server", name, authority))
    until(lambda: any(url(server) in line and fix in line for line in one.output().splitlines()), f"{fix!r} in the log")
    assert secure.replicas(server) == {}


def test_an_api_server_says_with_which_replica_tls_fails_and_what_to_set(replica, api_server, secure):
    server = api_server(*secure.port, *secure.towards("replica", authority="other"))
    joins(replica, secure, server, "one")
    endpoint = secure.replicas(server)["one"]["endpoint"]
    with secure.client(endpoint=url(server)) as client, pytest.raises(errors.Unavailable):
        client.infer(ECHO, {"text": "a"}, timeout_s=10)
    lines = server.output().splitlines()
    assert any(endpoint in line and "--replica-ca" in line for line in lines), server.output()


@pytest.mark.parametrize("command", [["serve", APP, "--api-server", "https://localhost:1"], ["api-server"]])
def test_a_key_of_another_certificate_is_named_with_its_option(secure, command):
    side = "replica" if command == ["api-server"] else "api-server"
    flags = (f"--{side}-cert", secure.folder / "client.pem", f"--{side}-key", secure.folder / "server.key")
    ended = anyserve(*command, "--port", "0", *flags)
    assert ended.returncode != 0
    for part in (f"--{side}-cert and --{side}-key", "client.pem", "server.key"):
        assert part in ended.stderr, ended.stderr
