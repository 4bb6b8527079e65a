"""The load generator as a function from arguments to a report."""

import json
import subprocess
from pathlib import Path
from typing import Any

Report = dict[str, Any]
"""What ``anyserve bench --json`` prints."""


class Generator:
    """Runs ``anyserve bench``."""

    def __init__(self, command: list[str], seconds: float, connections: int = 1, warmup_s: float = 1.0) -> None:
        self._command = command
        self._seconds = seconds
        self._connections = connections
        self._warmup_s = warmup_s

    def answers(self, request: list[str]) -> bool:
        """Say whether one request succeeds, its echo included."""
        once = ["--requests", "1", "--warmup", "0s", "--duration", "10s"]
        done = subprocess.run([*self._command, *request, *once], capture_output=True)
        return done.returncode == 0

    def measure(self, request: list[str], in_flight: int) -> Report:
        """Load for the set time; a run without one success is a report with an ``error``."""
        lanes = max(1, in_flight // self._connections)
        connections = min(self._connections, in_flight)
        load = ["--connections", str(connections), "--in-flight", str(lanes)]
        timing = ["--duration", f"{self._seconds}s", "--warmup", f"{self._warmup_s}s"]
        command = [*self._command, *request, *load, *timing, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        report: Report = json.loads(done.stdout) if done.stdout else {}
        if done.returncode != 0:
            report["error"] = done.stderr.strip()
        return report

    def save_request(self, request: list[str], path: Path) -> None:
        """Write a gRPC request, framed as on the wire, to a file."""
        subprocess.run([*self._command, *request, "--save", str(path)], check=True)
