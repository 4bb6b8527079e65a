"""Certificates that are renewed in their files while processes use them."""

import http.client
import shutil
import socket
import ssl

import pytest

from anyserve import errors
from tests.e2e.certificates import sign
from tests.e2e.replicas import WATCHDOG_S, until
from tests.e2e.test_secure_cluster import APP, ECHO, Secure, joins, port_of, url


@pytest.fixture
def secure(certificates, tmp_path):
    """Flags and files of a cluster where everybody is asked for a certificate. The files are this test's own."""
    return Secure(shutil.copytree(certificates, tmp_path / "certificates"))


def context(secure, name="client", authority="ca") -> ssl.SSLContext:
    """What a client of other make shows and believes."""
    made = ssl.create_default_context(cafile=secure.folder / f"{authority}.pem")
    # What these certificates lack is nothing that the runtime asks for.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    made.load_cert_chain(secure.folder / f"{name}.pem", secure.folder / f"{name}.key")
    return made


def shown(secure, served) -> str:
    """The certificate that a server shows whoever comes now."""
    with (socket.create_connection(("localhost", port_of(served)), WATCHDOG_S) as plain,
          context(secure).wrap_socket(plain, server_hostname="localhost") as secured):  # fmt: skip
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


def expiry(connection: http.client.HTTPSConnection, secure) -> float:
    """When the server says that its certificate expires."""
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    (line,) = (line for line in text.splitlines() if str(secure.folder / "server.pem") in line)
    assert line.startswith("anyserve_tls_certificate_expiry_timestamp_seconds{"), line
    return float(line.rpartition(" ")[2])


def own(secure, name: str) -> str:
    """The certificate in the file of this name."""
    return (secure.folder / f"{name}.pem").read_text()


def put(secure, name: str, source: str) -> None:
    """Write certificate and key of one name into the files of another."""
    for end in ("pem", "key"):
        (secure.folder / f"{name}.{end}").write_text((secure.folder / f"{source}.{end}").read_text())


def renew(secure, name: str) -> None:
    """Make a new certificate, and write it and its key into the files of this name."""
    sign(secure.folder, "next", "ca", days=3)
    put(secure, name, "next")


def served_by(kind, replica, api_server, secure):
    """One of the two that have a port."""
    return replica(APP, *secure.port) if kind == "replica" else api_server(*secure.port)


@pytest.mark.parametrize("kind", ["replica", "API server"])
def test_who_comes_is_shown_the_renewed_certificate_and_who_is_there_stays(kind, replica, api_server, secure):
    served, first = served_by(kind, replica, api_server, secure), own(secure, "server")
    there = http.client.HTTPSConnection("localhost", port_of(served), timeout=WATCHDOG_S, context=context(secure))
    there.auto_open = False
    there.connect()
    before = expiry(there, secure)
    assert shown(secure, served) == first
    renew(secure, "server")
    until(lambda: shown(secure, served) == own(secure, "server"), "the renewed certificate")
    until(lambda: expiry(there, secure) != before, "the metric")
    assert expiry(there, secure) > before + 80_000
    there.close()
    assert "--tls-cert" in served.output()


def test_a_pair_that_does_not_match_is_told_once_and_the_old_one_goes_on(replica, secure):
    served, first = replica(APP, *secure.port), own(secure, "server")
    (secure.folder / "server.key").write_text((secure.folder / "client.key").read_text())
    served.says("cannot be used: the old ones go on")
    assert shown(secure, served) == first
    assert str(secure.folder / "server.key") in served.output()
    (secure.folder / "server.pem").write_text("half a certificate")
    until(lambda: served.output().count("the old ones go on") == 2, "the second complaint")
    assert shown(secure, served) == first
    renew(secure, "server")
    until(lambda: shown(secure, served) == own(secure, "server"), "the renewed certificate")
    assert served.output().count("the old ones go on") == 2


def test_another_authority_of_clients_counts_for_who_comes_from_then_on(replica, secure):
    served = replica(APP, *secure.port)
    endpoint = f"https://localhost:{port_of(served)}"

    def answers(name: str) -> bool:
        with secure.client(endpoint=endpoint, name=name) as client:
            try:
                return client.infer(ECHO, {"text": "a"}, timeout_s=10)["output_text"].tolist() == [b"a"]
            except errors.Unavailable:
                return False

    assert answers("client")
    assert not answers("stranger")
    (secure.folder / "ca.pem").write_text(own(secure, "ca") + own(secure, "other"))
    until(lambda: answers("stranger"), "a client of the other authority")
    assert answers("client")


def test_an_api_server_shows_replicas_its_renewed_certificate(replica, api_server, secure):
    put(secure, "own", "stranger")
    server = api_server(*secure.port, *secure.towards("replica", "own"))
    joins(replica, secure, server, "one")

    def answered() -> bool:
        with secure.client(endpoint=url(server)) as client:
            try:
                return client.infer(ECHO, {"text": "a"}, timeout_s=10)["output_text"].tolist() == [b"a"]
            except (errors.Unavailable, errors.WorkerLost):
                # Which of the two is chance: the replica refuses the certificate after the request is on its way.
                return False

    assert not answered()
    put(secure, "own", "client")
    until(answered, "an answer through the API server")
    assert "the files of --replica-ca, --replica-cert and --replica-key are new" in server.output()


def test_a_replica_shows_api_servers_its_renewed_certificate_and_believes_a_renewed_authority(
    replica, api_server, secure
):
    put(secure, "own", "stranger")
    put(secure, "believed", "other")
    server = api_server(*secure.port, *secure.towards("replica"))
    one = replica(APP, *secure.port, "--api-server", url(server), "--replica-id", "one",
                  *secure.towards("api-server", "own", "believed"))  # fmt: skip
    one.says(url(server))
    assert secure.replicas(server) == {}
    put(secure, "believed", "ca")
    put(secure, "own", "client")
    until(lambda: "one" in secure.replicas(server), "the replica in the registry")
    with secure.client(endpoint=url(server)) as client:
        assert client.infer(ECHO, {"text": "a"}, timeout_s=WATCHDOG_S)["output_text"].tolist() == [b"a"]
