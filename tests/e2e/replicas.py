"""Replicas as their users start them: a process, its output in files, its endpoint from the line its start ends on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = Path("tests/e2e/apps")
BIN = Path(sys.executable).parent
WATCHDOG_S = 45.0
PAUSE_S = 0.005

T = TypeVar("T")

RUNNING: list["Replica"] = []
"""Every replica that has been started and has not been seen to end."""


def until(condition: Callable[[], T], what: str, *, limit_s: float = WATCHDOG_S) -> T:
    """Wait until a condition holds and give its value; the watchdog fails the test."""
    end = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {limit_s:g} s in vain for this: {what}")
        time.sleep(PAUSE_S)
    return found


def environment(**more: str) -> dict[str, str]:
    """The variables of a command: this process's, without what would configure the product."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANYSERVE_")}
    return {**inherited, "PATH": f"{BIN}:{os.environ['PATH']}", **more}


def run(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True,
        timeout=WATCHDOG_S, check=False,
    )  # fmt: skip


def anyserve(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT):
    """Run the command `anyserve` to its end."""
    return run(BIN / "anyserve", *arguments, env=env, cwd=cwd)


@dataclass
class Replica:
    """A process that serves, or is about to."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    notes: Path
    seen_workers: set[int] = field(default_factory=set)

    # === what it says ===

    @property
    def endpoint(self) -> str:
        """Host and port."""
        found = re.search(r"^serving .* on (\S+) with", self.output(), re.MULTILINE)
        assert found, f"it does not serve:\n{self.output()}"
        return found[1]

    def serves(self) -> None:
        """Wait until it serves."""
        self.says("\nserving ")
        self.workers()

    def output(self) -> str:
        """Everything that it has printed, and its log; each line with an end before it."""
        return "\n" + "".join(path.read_text(errors="replace") for path in (self.stdout, self.stderr))

    def says(self, text: str) -> None:
        """Wait for a text in its output."""
        until(lambda: text in self.output() or self._ended(text), f"{text!r} in the output")

    def _ended(self, text: str) -> bool:
        if self.process.poll() is None or text in self.output():
            return False
        pytest.fail(f"it ended with {self.process.returncode} and never said {text!r}:\n{self.output()}")

    def note(self, name: str) -> list[str]:
        """Lines that handlers have noted under a name."""
        path = self.notes / name
        return path.read_text().splitlines() if path.exists() else []

    def noted(self, name: str, lines: int = 1) -> list[str]:
        """Wait until handlers have noted so many lines under a name."""
        return until(lambda: (found := self.note(name))[: len(found) if len(found) >= lines else 0], f"note {name!r}")

    def allow(self, name: str) -> None:
        """Open a gate that handlers wait at."""
        (self.notes / name).touch()

    # === HTTP ===

    def http(self, path: str, *, method: str | None = None, body: object = None) -> tuple[int, str]:
        """Status and body of a plain HTTP request: GET, or POST of a body as JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        request = urllib.request.Request(f"http://{self.endpoint}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WATCHDOG_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self) -> bool:
        """Whether it says that everything can be served now."""
        status, body = self.http("/health/ready")
        assert json.loads(body)["ready"] == (status == 200)
        return status == 200

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.http("/metrics")[1].splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    # === processes ===

    def workers(self) -> set[int]:
        """Processes of its workers that live now."""
        found = {pid for pid in children(self.process.pid) if name_of(pid) == "anyserve-worker"}
        self.seen_workers |= found
        return found

    def worker(self) -> int:
        """The process of its only worker."""
        (pid,) = until(self.workers, "a worker process")
        return pid

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the runtime."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and give its exit code."""
        code = self.process.wait(WATCHDOG_S)
        if self in RUNNING:
            RUNNING.remove(self)
        return code

    def stop(self) -> None:
        """End it as an operator would; it must end well, and leave nobody behind."""
        self.workers()
        self.signal()
        assert self.wait() == 0, f"the exit code after SIGTERM is {self.process.returncode}:\n{self.output()}"
        assert_gone(self.seen_workers)

    def kill(self) -> None:
        """End it by force, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


def children(parent: int) -> set[int]:
    """Processes with this parent."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def command_line(pid: int) -> bytes:
    """The command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def name_of(pid: int) -> str:
    """The name of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Whether a process has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(pids: set[int]) -> None:
    """Wait until none of these processes is left."""
    until(lambda: not any(map(lives, pids)), f"the end of the processes {pids}")


def start(
    folder: Path,
    target: str | None,
    *flags: str | Path,
    program: Sequence[str | Path] = (BIN / "anyserve", "serve"),
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    port: str | None = "0",
) -> Replica:
    """Start a replica and don't wait for it. A target without a folder is one of `apps`."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "notes"
    notes.mkdir()
    of_ours = target is not None and "/" not in target and ".py:" in target
    app = [] if target is None else [str(APPS / target) if of_ours else target]
    ports = [] if port is None else ["--port", port]
    command = [str(part) for part in (*program, *app, *ports, *flags)]
    stdout, stderr = folder / "stdout", folder / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(E2E_NOTES=str(notes), **(env or {})), stdout=out, stderr=err,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    replica = Replica(process, stdout, stderr, notes)
    RUNNING.append(replica)
    return replica
