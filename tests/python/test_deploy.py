"""What `deploy/` and the Dockerfile name is there: options, variables, paths, ports, metrics and commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from anyserve.cli import commands
from tests.e2e import api_servers, replicas
from tests.e2e.replicas import ROOT, Replica

FILES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
OBJECTS = [object_ for file in FILES for object_ in yaml.safe_load_all(file.read_text())]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KUBERNETES = "1.31"
COMMANDS: Any = typer.main.get_command(commands.cli)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["kind"] == kind]


def named(one: dict[str, Any]) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Options of a command line, as the command itself reads it; it is not run."""
    name, *rest = arguments
    return COMMANDS.commands[name].make_context(name, list(rest)).params


def variables(command: str) -> set[str]:
    """Variables that a command reads."""
    return {str(one.envvar) for one in COMMANDS.commands[command].params if one.envvar}


@pytest.mark.parametrize("one", OBJECTS, ids=named)
def test_every_object_is_one_of_kubernetes(one):
    kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_what_belongs_together_is_there():
    kinds = sorted(one["kind"] for one in OBJECTS)
    assert kinds == ["Deployment"] * 2 + ["HorizontalPodAutoscaler"] + ["PodDisruptionBudget"] * 2 + ["Service"] * 2
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind("Deployment")]
    for one in of_kind("Service"):
        assert one["spec"]["selector"] in labels, named(one)
    for one in of_kind("PodDisruptionBudget") + of_kind("Deployment"):
        assert one["spec"]["selector"]["matchLabels"] in labels, named(one)
    (scaled,) = of_kind("HorizontalPodAutoscaler")
    target = scaled["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in map(named, of_kind("Deployment"))
    (headless,) = (one for one in of_kind("Service") if one["spec"].get("clusterIP") == "None")
    assert headless["metadata"]["name"] == "anyserve-replica"


@pytest.mark.parametrize("deployment", of_kind("Deployment"), ids=named)
def test_options_and_variables_are_those_of_the_command(deployment):
    only = container(deployment)
    options = parsed(only["args"])
    (port,) = only["ports"]
    assert (options["host"], options["port"]) == ("0.0.0.0", port["containerPort"])
    given = {one["name"] for one in only["env"]}
    own = {name for name in given if name.startswith("ANYSERVE_")}
    assert own <= variables(only["args"][0])
    assert given - own <= {"POD_IP"}
    referred = {name for one in only["env"] for name in re.findall(r"\$\((\w+)\)", one.get("value", ""))}
    assert referred <= given


@pytest.mark.parametrize("deployment", of_kind("Deployment"), ids=named)
def test_a_pod_has_no_rights_and_leaves_politely(deployment):
    pod, only = deployment["spec"]["template"]["spec"], container(deployment)
    assert pod["securityContext"]["runAsNonRoot"]
    rights = only["securityContext"]
    assert (rights["allowPrivilegeEscalation"], rights["readOnlyRootFilesystem"]) == (False, True)
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert pod["terminationGracePeriodSeconds"] > parsed(only["args"])["grace_s"]
    hook = only["lifecycle"]["preStop"]
    if "exec" in hook:
        program, *arguments = hook["exec"]["command"]
        assert program == "anyserve"
        assert parsed(arguments)["wait"], "it is over when nothing is in flight"
        assert parsed(arguments)["endpoint"].endswith(f":{only['ports'][0]['containerPort']}")


def test_services_and_addresses_have_the_ports_that_are_listened_on():
    ports = {
        tuple(sorted(one["spec"]["template"]["metadata"]["labels"].items())): container(one)["ports"][0]
        for one in of_kind("Deployment")
    }
    for service in of_kind("Service"):
        port = ports[tuple(sorted(service["spec"]["selector"].items()))]
        (only,) = service["spec"]["ports"]
        assert (only["port"], only["targetPort"]) == (port["containerPort"], port["name"]), named(service)
    (address,) = (
        one["value"] for each in of_kind("Deployment") for one in container(each)["env"]
        if one["name"] == "ANYSERVE_API_SERVER"
    )  # fmt: skip
    services = {f"http://{one['metadata']['name']}:{one['spec']['ports'][0]['port']}" for one in of_kind("Service")}
    assert address in services


def test_the_object_store_fits_into_the_memory_that_it_is_in():
    (deployment,) = (one for one in of_kind("Deployment") if "serve" in container(one)["args"])
    (shm,) = (one["emptyDir"] for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "shm")
    store = parsed(container(deployment)["args"])["object_store"]
    assert int(store.removesuffix("MiB")) < int(shm["sizeLimit"].removesuffix("Mi"))
    assert any(mount["mountPath"] == "/dev/shm" for mount in container(deployment)["volumeMounts"])


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[dict[str, Replica]]:
    """What the two Deployments run, here."""
    folder = tmp_path_factory.mktemp("deploy")
    server = api_servers.start(folder / "api-server")
    replica = replicas.start(folder / "replica", "examples.basic.app:app")
    try:
        server.serves()
        replica.serves()
        yield {"api-server": server, "serve": replica}
    finally:
        server.kill()
        replica.kill()


@pytest.mark.parametrize("deployment", of_kind("Deployment"), ids=named)
def test_paths_that_are_asked_for_are_answered(running, deployment):
    only = container(deployment)
    asked = running[only["args"][0]]
    for probe in ("livenessProbe", "readinessProbe"):
        assert only[probe]["httpGet"]["port"] == only["ports"][0]["name"]
        assert asked.http(only[probe]["httpGet"]["path"])[0] == 200
    notes = deployment["spec"]["template"]["metadata"]["annotations"]
    assert int(notes["prometheus.io/port"]) == only["ports"][0]["containerPort"]
    assert "# EOF" in asked.http(notes["prometheus.io/path"])[1]


def test_the_metric_that_replicas_are_scaled_by_is_theirs(running):
    (scaled,) = of_kind("HorizontalPodAutoscaler")
    for metric in scaled["spec"]["metrics"]:
        name = metric["pods"]["metric"]["name"]
        assert re.search(rf"^{name}\{{", running["serve"].http("/metrics")[1], re.MULTILINE), name


def test_the_image_runs_the_command_as_somebody_else_than_root():
    instructions = dict(re.findall(r"^(USER|ENTRYPOINT|CMD|EXPOSE) (.*)$", DOCKERFILE, re.MULTILINE))
    assert int(instructions["USER"]) > 0
    assert instructions["ENTRYPOINT"] == '["anyserve"]'
    options = parsed(yaml.safe_load(instructions["CMD"]))
    assert (options["host"], str(options["port"])) == ("0.0.0.0", instructions["EXPOSE"].split()[0])
    for one in of_kind("Deployment"):
        assert str(container(one)["ports"][0]["containerPort"]) in instructions["EXPOSE"].split()


def test_what_the_image_is_made_of_is_there_and_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in re.findall(r"^COPY (?!--from).*$", DOCKERFILE, re.MULTILINE)]
    names = {name for line in copied for name in line}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)
    version = re.search(r'^rust-version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version
    assert f"FROM rust:{version[1]}-" in DOCKERFILE


def test_the_commands_above_the_image_are_commands():
    shown = re.findall(r"^#   docker run .* anyserve:\S+ ?(.*)$", DOCKERFILE, re.MULTILINE)
    assert shown
    assert all(parsed(shlex.split(one)) for one in shown if one)
    images = {container(one)["image"] for one in of_kind("Deployment")}
    assert images == {re.search(r"--tag (\S+)", DOCKERFILE)[1]}


def test_the_tests_know_every_file():
    assert [file.name for file in FILES] == ["api-server.yaml", "replicas.yaml"]
    assert not [path for path in Path(ROOT / "deploy").rglob("*") if path.is_file() and path not in FILES]
