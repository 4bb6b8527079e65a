"""Compare AnyServe with its peers and with its ceiling, on one machine, in one run.

Every server gets one echo worker and the same load generator. Servers run one at a time and
take turns over several rounds, so that a slow minute of the machine hits all of them; the table
shows medians. See README.md beside this file for the method.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.crosscheck import cross_check, install_tools, missing_tools
from harness.environments import PeerUnavailable, build_generator
from harness.generator import Generator
from harness.machine import facts
from harness.peers import PEERS, Peer, Tools
from harness.requests import request_arguments
from harness.results import Results
from harness.server import Server
from harness.table import render
from harness.workloads import WORKLOADS, Workload

_CROSS_CHECKED = "small@64"


@dataclass(frozen=True)
class Run:
    """What to measure, and with what."""

    peers: list[Peer]
    workloads: list[Workload]
    generator: Generator
    tools: Tools
    seconds: float


def main() -> int:
    """Run the benchmark as the command line says."""
    options = parse()
    if options.install:
        install_tools()
    for package in missing_tools():
        say(f"no cross-check with {package}: it is not installed (--install does that)")
    try:
        run = prepare(options)
    except PeerUnavailable as error:
        say(str(error))
        return 1
    machine, results = facts(), Results()
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for peer in run.peers:
            visit(run, peer, results, first=number == 0)
    keys = [peer.key for peer in run.peers]
    print(render(results, machine, keys))
    if options.json:
        everything = {"machine": machine, **results.as_json()}
        options.json.write_text(json.dumps(everything, indent=1))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    keys, workloads = [peer.key for peer in PEERS], [workload.key for workload in WORKLOADS]
    add = parser.add_argument
    add("--peers", nargs="+", choices=keys, default=keys, help="servers to measure")
    add("--only", nargs="+", choices=workloads, default=workloads, help="workloads to measure")
    add("--seconds", type=float, default=5.0, help="how long each measurement takes")
    add("--rounds", type=int, default=3, help="how often each server has its turn")
    add("--connections", type=int, default=1, help="gRPC connections to share what is in flight")
    add("--json", type=Path, metavar="FILE", help="also write every report to FILE")
    add("--install", action="store_true", help="install h2load and wrk with apt-get if missing")
    add("--generator", type=Path, help="a built anyserve-bench, instead of building it")
    add("--anyserve", type=Path, help="an installed anyserve command, instead of installing it")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Run:
    """Find or build the programs of this repository."""
    program = [str((options.generator or build_generator()).resolve())]
    connections: int = options.connections
    return Run(
        peers=[peer for peer in PEERS if peer.key in options.peers],
        workloads=[workload for workload in WORKLOADS if workload.key in options.only],
        generator=Generator(program, options.seconds, connections),
        tools=Tools(program, options.anyserve and options.anyserve.absolute()),
        seconds=options.seconds,
    )


def visit(run: Run, peer: Peer, results: Results, *, first: bool) -> None:
    """Start one server, measure what it is asked for, stop it."""
    if peer.key in results.unavailable:
        return
    directory = Path(tempfile.mkdtemp(prefix=f"anyserve-bench-{peer.key}-"))
    try:
        with Server(peer, run.tools, directory) as server:
            server.wait_until_it_answers(run.generator)
            measure(run, server, results, first=first)
    except PeerUnavailable as reason:
        say(f"  {peer.key}: {reason}")
        results.unavailable[peer.key] = str(reason)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(run: Run, server: Server, results: Results, *, first: bool) -> None:
    """Measure one server's workloads; the first round also asks the other tools."""
    peer = server.peer
    for workload in run.workloads:
        if workload.kind not in peer.kinds:
            continue
        request = request_arguments(peer, workload, server.port, server.directory)
        report = run.generator.measure(request, workload.in_flight)
        results.add(peer, workload, report)
        say(f"  {peer.key} {workload.key}: {report.get('requests_per_s', 0):.0f} requests/s")
        if first and workload.key == _CROSS_CHECKED:
            other = cross_check(server, workload, run.generator, run.seconds)
            if other is not None:
                results.cross_checks[peer.key][workload.key] = other


def say(text: str) -> None:
    """Tell the person who waits; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
