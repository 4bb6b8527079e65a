"""API servers as their users start them, and replicas that announce themselves to them."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.replicas import BIN, ROOT, WATCHDOG_S, environment, until


@dataclass
class ApiServer:
    """A process of `anyserve api-server`."""

    process: subprocess.Popen[bytes]
    log: Path
    flags: tuple[str, ...]

    @property
    def endpoint(self) -> str:
        """Host and port."""
        found = until(lambda: re.search(r"API server on http://(\S+?),", self.output()), "the API server's port")
        return found[1]

    @property
    def url(self) -> str:
        """What `--api-server` takes."""
        return f"http://{self.endpoint}"

    def output(self) -> str:
        """Everything that it has printed."""
        text = self.log.read_text(errors="replace")
        assert self.process.poll() is None or "API server on" in text, f"it ended before it listened:\n{text}"
        return text

    def http(self, path: str, *, method: str = "GET", body: object = None, **headers: str) -> tuple[int, str]:
        """Status and body of an HTTP request; a body is sent as JSON."""
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.url}{path}", data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WATCHDOG_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def replicas(self) -> dict[str, dict]:
        """The replicas that it knows, by id."""
        return {one["id"]: one for one in json.loads(self.http("/registry")[1])["replicas"]}

    def knows(self, *ids: str) -> None:
        """Wait until it knows exactly these replicas."""
        until(lambda: set(self.replicas()) == set(ids), f"the replicas {ids}")

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.http("/metrics")[1].splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def kill(self) -> None:
        """End it by force."""
        self.process.kill()
        self.process.wait(WATCHDOG_S)

    def stop(self) -> None:
        """End it as an operator would; it must end well."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WATCHDOG_S) == 0, self.output()


def start(log: Path, *flags: str, port: str = "0", program: Sequence[str | Path] = (BIN / "anyserve",)) -> ApiServer:
    """Start an API server."""
    command = [*map(str, program), "api-server", "--port", port, *flags]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    return ApiServer(process, log, flags)
