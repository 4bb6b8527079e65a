"""Measure the API server: what its proxy adds, how fast it decides, what heartbeats cost it.

A replica is called directly, through the API server, and through an empty proxy of the generated code, in turns. See
README.md beside this file for the method.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from harness.environments import PeerUnavailable, installed_anyserve
from harness.generator import Generator, Report
from harness.machine import facts
from harness.markdown import row, rule, time_of
from harness.peers import APPS, Command, Peer, Place, Tools
from harness.server import Server

WAYS = {"direct": "direct", "tonic": "an empty tonic proxy", "proxy": "the API server"}
WORKLOADS = {
    "small@1": (["unary"], "echo_anyserve.py", ["--model", "echo", "--input", "x:FP32:16"], 1),
    "small@64": (["unary"], "echo_anyserve.py", ["--model", "echo", "--input", "x:FP32:16"], 64),
    "large@4": (["unary"], "echo_anyserve.py", ["--model", "echo", "--input", "x:FP32:1,1048576"], 4),
    "tokens@64": (
        ["stream"],
        "tokens_anyserve.py",
        ["--model", "tokens", "--input", "x:FP32:16", "--parameter", "answers=200"],
        64,
    ),
}
FLEETS = [10, 1000, 10000]
CAPABILITIES = 20
PARTS = ["proxy", "route", "heartbeats"]
REGISTERED_LIMIT_S = 120.0

Figures = dict[str, dict[str, list[float]]]


def main() -> int:
    """Run the benchmark as the command line says."""
    options = parse()
    try:
        program = options.anyserve.absolute() if options.anyserve else installed_anyserve()
    except PeerUnavailable as error:
        say(str(error))
        return 1
    tools = Tools([str(program), "bench"], program)
    generator = Generator(tools.generator, options.seconds, options.connections, warmup_s=options.seconds / 4)
    machine, figures = facts(), dict[str, dict[str, list[float]]]()
    parts = {"proxy": measure_proxy, "route": measure_routes, "heartbeats": measure_heartbeats}
    for number in range(options.rounds):
        for part in options.only:
            say(f"round {number + 1} of {options.rounds}: {part}")
            parts[part](tools, generator, options, figures)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1))
    print(render(figures, options.fleets, machine))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    add("--fleets", nargs="+", type=int, default=FLEETS, help="numbers of replicas for route and heartbeats")
    add("--seconds", type=float, default=3.0, help="how long each measurement takes")
    add("--connections", type=int, default=1, help="connections that requests in flight are spread over")
    add("--rounds", type=int, default=3, help="how often each has its turn")
    add("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    add("--anyserve", type=Path, help="an installed anyserve command, instead of installing it")
    return parser.parse_args()


# === the proxy ===


def measure_proxy(tools: Tools, generator: Generator, _: argparse.Namespace, figures: Figures) -> None:
    """Call one replica in three ways, workload by workload."""
    for app in dict.fromkeys(app for _, app, _, _ in WORKLOADS.values()):
        with three_ways(tools, generator, app) as ports:
            for key, (kind, of, request, in_flight) in WORKLOADS.items():
                if of == app:
                    for way, port in ports.items():
                        report = generator.measure([*kind, f"127.0.0.1:{port}", *request], in_flight)
                        keep(figures, f"{key} {way}", report)


@contextmanager
def three_ways(tools: Tools, generator: Generator, app: str) -> Iterator[dict[str, int]]:
    """A replica, an API server that knows it, and an empty proxy in front of it; their ports."""
    with ExitStack() as stack:
        server = stack.enter_context(started(tools, api_server, "api-server"))
        behind = stack.enter_context(started(tools, replica_of(app, server.port), "replica"))
        empty = stack.enter_context(started(tools, empty_proxy(behind.port), "tonic"))
        ports = {"direct": behind.port, "tonic": empty.port, "proxy": server.port}
        once = next(request for _, of, request, _ in WORKLOADS.values() if of == app)
        kind = next(kind for kind, of, _, _ in WORKLOADS.values() if of == app)
        for port in ports.values():
            until(lambda port=port: generator.answers([*kind, f"127.0.0.1:{port}", *once]), "an answer")  # type: ignore[misc]
        yield ports


def keep(figures: Figures, key: str, report: Report) -> None:
    """Keep a round's figures of one workload on one way."""
    found = figures.setdefault(key, {})
    if report.get("errors") or "error" in report:
        say(f"  {key}: {report.get('errors')} errors {report.get('error', '')}")
    rate = report.get("messages_per_s") or report.get("requests_per_s", 0.0)
    found.setdefault("rate", []).append(rate)
    found.setdefault("p50", []).append(report["latency_us"]["p50"])
    found.setdefault("p99", []).append(report["latency_us"]["p99"])


# === decisions and heartbeats ===


def measure_routes(tools: Tools, generator: Generator, options: argparse.Namespace, figures: Figures) -> None:
    """Ask for routes while fleets of several sizes are registered."""
    for replicas in options.fleets:
        with started(tools, api_server, "api-server") as server, fleet(tools, server, replicas):
            url = f"http://127.0.0.1:{server.port}/route?type=t1&model=m1"
            for in_flight in (1, 16):
                keep(figures, f"route {replicas} @{in_flight}", generator.measure(["http", url, "--get"], in_flight))


def measure_heartbeats(tools: Tools, _: Generator, options: argparse.Namespace, figures: Figures) -> None:
    """Let the largest fleet send heartbeats, and look at the API server's processor time and memory."""
    replicas = max(options.fleets)
    with started(tools, api_server, "api-server") as server:
        before = resident(server.pid)
        with fleet(tools, server, replicas, duration=options.seconds * 3) as process:
            spent, began = worked(server.pid), time.monotonic()
            said, _ = process.communicate()
            passed = time.monotonic() - began
            report: dict[str, Any] = json.loads(said)
            found = figures.setdefault("heartbeats", {})
            for name in ("heartbeats_per_s", "registrations_per_s", "p50_us", "p99_us", "refused"):
                found.setdefault(name, []).append(report[name])
            found.setdefault("cores", []).append((worked(server.pid) - spent) / passed)
            found.setdefault("memory", []).append((resident(server.pid) - before) / replicas)


@contextmanager
def fleet(
    tools: Tools, server: Server, replicas: int, *, duration: float = 3600.0
) -> Iterator["subprocess.Popen[bytes]"]:
    """Simulated replicas that are registered and send a heartbeat a second; ended by id."""
    command = [*tools.generator, "fleet", f"127.0.0.1:{server.port}", "--replicas", str(replicas), "--json"]
    more = ["--capabilities", str(CAPABILITIES), "--duration", f"{duration}s"]
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE) as process:
        try:
            until(lambda: registered(server) >= replicas, f"{replicas} registered replicas")
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def registered(server: Server) -> int:
    """How many replicas the API server says that it knows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        lines = response.read().decode().splitlines()
    counts = [line.split()[-1] for line in lines if line.startswith("anyserve_replicas{")]
    return sum(int(float(count)) for count in counts)


# === processes ===


def api_server(tools: Tools, place: Place) -> list[str]:
    """An API server."""
    return [str(tools.anyserve), "api-server", "--port", str(place.ports[0]), "--log-level", "warn"]


def replica_of(app: str, port: int) -> Any:
    """A replica that announces itself."""
    return lambda tools, place: [
        *(str(tools.anyserve), "serve", f"{APPS / app}:app", "--port", str(place.ports[0])),
        *("--api-server", f"http://127.0.0.1:{port}"),
    ]


def empty_proxy(port: int) -> Any:
    """A proxy of the generated code."""
    return lambda tools, place: [
        *tools.generator, "ceiling", "--port", str(place.ports[0]), "--upstream", f"127.0.0.1:{port}"
    ]  # fmt: skip


@contextmanager
def started(tools: Tools, argv: Any, key: str) -> Iterator[Server]:
    """A process that listens."""
    peer = Peer(f"cluster-{key}", key, frozenset(), lambda place: Command(argv(tools, place)))
    with Server(peer, tools, Path.cwd()) as server:
        server.wait_until_it_listens()
        yield server


def until(condition: Any, what: str) -> None:
    """Wait until something is so.

    Raises:
        SystemExit: it takes too long.
    """
    end = time.monotonic() + REGISTERED_LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.05)


def worked(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# === tables ===


def render(figures: Figures, fleets: list[int], machine: dict[str, str]) -> str:
    """Give everything as tables; medians over the rounds."""
    lines = [f"- {name}: {fact}" for name, fact in machine.items()]
    if any(key.startswith("small") for key in figures):
        lines += ["", *proxy_table(figures)]
    if any(key.startswith("route") for key in figures):
        lines += ["", *route_table(figures, fleets)]
    if "heartbeats" in figures:
        lines += ["", *heartbeat_table(figures["heartbeats"], max(fleets))]
    return "\n".join(lines)


def middle(figures: Figures, key: str, name: str) -> float:
    """The median of the rounds."""
    return median(figures[key][name])


def proxy_table(figures: Figures) -> list[str]:
    """What each way takes, and what it adds to the direct one."""
    lines = [row(["", "way", "requests or tokens/s", "of direct", "p50", "added", "p99"]), rule(7)]
    for key in WORKLOADS:
        direct = (middle(figures, f"{key} direct", "rate"), middle(figures, f"{key} direct", "p50"))
        for way, label in WAYS.items():
            rate, p50, p99 = (middle(figures, f"{key} {way}", name) for name in ("rate", "p50", "p99"))
            of, added = f"{rate / max(direct[0], 1e-9):.2f} ×", time_of(p50 - direct[1]) if way != "direct" else ""
            lines.append(row([key, label, f"{rate:,.0f}".replace(",", " "), of, time_of(p50), added, time_of(p99)]))
    return lines


def route_table(figures: Figures, fleets: list[int]) -> list[str]:
    """Decisions over HTTP, by the number of replicas."""
    lines = [row(["replicas", "one at a time", "p50", "p99", "16 at a time", "p50", "p99"]), rule(7)]
    for replicas in fleets:
        cells = [f"{replicas}"]
        for in_flight in (1, 16):
            key = f"route {replicas} @{in_flight}"
            cells += [f"{middle(figures, key, 'rate'):.0f}/s"]
            cells += [time_of(middle(figures, key, name)) for name in ("p50", "p99")]
        lines.append(row(cells))
    return lines


def heartbeat_table(found: dict[str, list[float]], replicas: int) -> list[str]:
    """What heartbeats cost."""
    cells = {
        "heartbeats answered": f"{median(found['heartbeats_per_s']):.0f}/s, {median(found['refused']):.0f} refused",
        "answered in": f"p50 {time_of(median(found['p50_us']))}, p99 {time_of(median(found['p99_us']))}",
        "processor": f"{median(found['cores']):.2f} cores",
        "memory": f"{median(found['memory']) / 1024:.1f} KiB a replica",
        "registrations": f"{median(found['registrations_per_s']):.0f}/s",
    }
    head = [row([f"{replicas} replicas x {CAPABILITIES} capabilities, a heartbeat a second", ""]), rule(2)]
    return head + [row([name, cell]) for name, cell in cells.items()]


def say(text: str) -> None:
    """Tell the person who waits; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
