"""The commands in the READMEs of the examples do what stands below them.

A README is run as a reader would: ```bash blocks in their order, and what a ```text block below one says is what it
must print. `anyserve serve` and `anyserve api-server` run on while the rest is run, on free ports. A port that such a
command names stands for its free one wherever a later command names it; one without a port goes to the other commands
by the variable that they read anyway.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.replicas import until

ROOT = Path(__file__).resolve().parents[2]
READMES = sorted(ROOT.glob("examples/*/README.md"))
WATCHDOG_S = 120


def blocks(readme: Path) -> list[tuple[str, str | None]]:
    """Every command with the output below it, if there is one."""
    found: list[tuple[str, str | None]] = []
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL):
        if kind == "bash":
            found.append((text, None))
        elif kind == "text":
            assert found, f"{readme} starts with an output"
            found[-1] = (found[-1][0], text)
    return found


def environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANYSERVE_")}
    return {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


@contextmanager
def serving(command: str, cwd: Path = ROOT) -> Iterator[str]:
    """Runs a replica or an API server and hands its endpoint out; it must end well."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {on_a_free_port(command)}"],
        cwd=cwd,
        env=environment(ANYSERVE_PORT="0"),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        watchdog = threading.Timer(WATCHDOG_S, server.kill)
        watchdog.start()
        try:
            yield endpoint_of(server)
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        finally:
            watchdog.cancel()
            server.kill()


def on_a_free_port(command: str) -> str:
    return re.sub(r"--port \d+", "--port 0", command)


def endpoint_of(server: subprocess.Popen[str]) -> str:
    seen = []
    for line in server.stdout:
        seen.append(line)
        if found := re.match(r"(?:serving .*? on |API server on http://)(\S+?)(?: with|,)", line):
            return found[1]
    pytest.fail(f"the server ended before it served: {seen}")


class Shells:
    """The shells of a reader: what runs on, and which ports it has in truth."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.ports, self.endpoint, self.api_server = stack, dict[str, str](), "", ""

    def start(self, command: str) -> None:
        """Start what runs on. A replica that announces itself is waited for until it is known."""
        before = self.known()
        endpoint = self.stack.enter_context(serving(self.translated(command)))
        if named := re.search(r"--port (\d+)", command):
            self.ports[named[1]] = endpoint.rpartition(":")[2]
        if command.startswith("anyserve api-server"):
            self.api_server = endpoint
        else:
            self.endpoint = endpoint
        if "--api-server" in command:
            until(lambda: self.known() > before, "the replica in the registry")

    def known(self) -> int:
        """How many replicas the API server knows."""
        if not self.api_server:
            return 0
        with urllib.request.urlopen(f"http://{self.api_server}/registry") as response:
            return len(json.load(response)["replicas"])

    def translated(self, command: str) -> str:
        for written, real in self.ports.items():
            command = command.replace(f"localhost:{written}", f"localhost:{real}")
        return command


def run(command: str, endpoint: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT, env=environment(ANYSERVE_ENDPOINT=endpoint), capture_output=True, text=True, timeout=WATCHDOG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_are_readmes_to_run():
    assert {readme.parent.name for readme in READMES} >= {
        "basic",
        "batching",
        "delegation",
        "multiserver",
        "objects",
        "pipeline",
        "streaming",
    }


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_the_commands_of_a_readme_print_what_it_says(readme):
    with ExitStack() as stack:
        shells = Shells(stack)
        for command, expected in blocks(readme):
            if command.startswith(("anyserve serve ", "anyserve api-server")):
                shells.start(command)
            else:
                printed = run(shells.translated(command), shells.endpoint)
                assert expected is None or printed == expected, command


def test_the_smallest_app_of_the_readme_prints_what_it_says(tmp_path):
    readme = ROOT / "README.md"
    app, client = re.findall(r"^```python\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    assert app.startswith("# hello.py\n")
    (tmp_path / "hello.py").write_text(app)
    (serve, _), (call, printed) = [block for block in blocks(readme) if "hello.py" in block[0] or "greet" in block[0]]
    with serving(serve, tmp_path) as endpoint:
        assert run(call, endpoint) == printed
        script = client.replace("127.0.0.1:8000", endpoint)
        assert "hello, Ada" in run(f"python - <<'END'\n{script}\nEND", endpoint)


def test_the_readmes_first_command_serves_and_its_call_prints_what_it_says():
    (install_and_serve, _), (call, printed), *_ = blocks(ROOT / "README.md")
    install, serve = install_and_serve.strip().split(" && ")
    assert install == "pip install ."
    with serving(serve.replace("--port 8000", "--port 0")) as endpoint:
        assert run(call, endpoint) == printed
