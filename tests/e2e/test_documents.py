"""What the documents say of metrics, and of the binary's options, is what a running process says."""

import json
import re

import pytest

from tests.e2e.replicas import ROOT, Replica, anyserve, run
from tests.python.documents import in_code, long_options, section, tables

NODE = ROOT / "target/debug/anyserve-node"
BASIC = "examples.basic.app:app"


def documented(file: str, heading: str) -> dict[str, set[str]]:
    """The metrics of a table, each with the labels that its row names."""
    rows = [row for table in tables(section(ROOT / file, heading)) for row in table]
    metrics = {name: set(in_code(row[1])) for row in rows for name in in_code(row[0]) if name.startswith("anyserve_")}
    # Only who has certificates shows it, as `test_renewed_certificates.py` sees.
    assert metrics.pop("anyserve_tls_certificate_expiry_timestamp_seconds") == {"file"}
    return metrics


def shown(server: Replica) -> dict[str, set[str]]:
    """The metrics of a process, each with the labels of its samples."""
    text = server.http("/metrics")[1]
    families = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    names = [f"{name}_total" if kind == "counter" else name for name, kind in families]
    samples = {name: re.findall(rf"^{name}(?:_count)?\{{(.*)\}} ", text, re.MULTILINE) for name in names}
    return {name: {label for one in rows for label in re.findall(r'(\w+)="', one)} for name, rows in samples.items()}


def test_the_metrics_of_a_replica_are_those_of_the_table(replica):
    served = replica(BASIC)
    assert anyserve("call", "echo", "text=hello", "--endpoint", served.endpoint).returncode == 0
    assert shown(served) == documented("docs/runtime.md", "Metrics")


def test_the_metrics_of_an_api_server_are_those_of_the_table(api_server):
    server = api_server()
    assert anyserve("call", "echo", "text=hello", "--endpoint", server.endpoint).returncode == 1
    assert shown(server) == documented("docs/cluster.md", "What is seen of it")


@pytest.mark.parametrize("command", ["serve", "api-server"])
def test_the_binary_has_the_options_of_the_command(command):
    of_node = [] if command == "serve" else [command]
    found = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", run(NODE, *of_node, "--help").stdout, re.MULTILINE)
    assert set(found) - {"--help", "--version"} == set(long_options(command)) - {"--no-fork"}


def test_the_fields_of_a_status_are_those_of_the_table(replica):
    served = replica(BASIC, "--resources", "token=1")
    (rows,) = [
        table for table in tables(section(ROOT / "docs/runtime.md", "The inside")) if table[0][0] == "`uptime_s`"
    ]
    names = {name: text for cells, text in rows for name in in_code(cells)}
    status = json.loads(anyserve("status", "--once", "--json", "--endpoint", served.endpoint).stdout)
    assert {f"{name}[]" if isinstance(value, list) else name for name, value in status.items()} == {
        name for name in names if not name.startswith(".")
    }
    (group,) = status["groups"]
    assert {f".{name}[]" if name == "workers" else f".{name}" for name in group} == {
        name for name in names if name.startswith(".")
    }
    assert set(group["workers"][0]) == set(in_code(names[".workers[]"]))
    assert set(status["resources"][0]) == set(in_code(names["resources[]"])) - {"gpu"}
    assert set(status["objects"]) == {name.removesuffix("[]") for name in in_code(names["objects"])} - {
        "worker",
        "count",
    }
