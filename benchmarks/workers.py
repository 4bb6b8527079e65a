"""Measure workers that come and go: answers of groups in every state, switches, restarts, memory, starts per second.

All ways of starting workers have their turn in every round. See README.md beside this file for the method.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from harness.environments import PeerUnavailable, installed_anyserve
from harness.generator import Generator
from harness.machine import facts
from harness.markdown import row, rule, time_of
from harness.peers import APPS, RESTARTING, Command, Peer, Place, Tools
from harness.restarts import restart_of
from harness.server import Server
from harness.stores import run

HEAVY = "sklearn.ensemble,pandas,scipy.stats"
WAYS = {
    "forked, NumPy": ("true", ""),
    "spawned, NumPy": ("false", ""),
    "forked, heavy imports": ("true", HEAVY),
    "spawned, heavy imports": ("false", HEAVY),
}
"""Ways of starting a worker: whether it is forked, and what its app imports."""

ROWS = {
    "ready": "request to answer: ready",
    "asleep": "asleep",
    "stopped": "stopped after use",
    "first": "never started",
    "switch": "switch: another group has the token",
    "killed": "its only worker was killed just before",
    "many": "one of 8 starts at once",
}
OTHERS = {peer.key: peer.label for peer in RESTARTING}

Figures = dict[str, dict[str, list[float]]]


def main() -> int:
    """Run the benchmark as the command line says."""
    options = parse()
    try:
        program = options.anyserve.absolute() if options.anyserve else installed_anyserve()
    except PeerUnavailable as error:
        say(str(error))
        return 1
    machine, missing = facts(), dict[str, str]()
    tools = Tools([str(program), "bench"], program)
    figures: Figures = {}
    for number in range(options.rounds):
        for way in [way for way in WAYS if way not in missing and (options.heavy or not WAYS[way][1])]:
            say(f"round {number + 1} of {options.rounds}: {way}")
            attempt(missing, way, lambda way=way: keep(figures, way, measure(tools, way, options.samples)))  # type: ignore[misc]
        for key in [key for key in options.peers if key not in missing]:
            say(f"round {number + 1} of {options.rounds}: {key}")
            attempt(missing, key, lambda key=key: keep(figures, key, restart(tools, key)))  # type: ignore[misc]
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "figures": figures, "missing": missing}, indent=1))
    print(render(figures, missing, machine))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--peers", nargs="*", choices=list(OTHERS), default=list(OTHERS), help="whose restarts to measure")
    add("--rounds", type=int, default=3, help="how often each has its turn")
    add("--no-heavy", dest="heavy", action="store_false", help="leave the heavy imports out")
    add("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    add("--samples", type=int, default=5, help="how often each is measured in a turn; 1 takes no care of residency")
    add("--anyserve", type=Path, help="an installed anyserve command, instead of installing it")
    return parser.parse_args()


def attempt(missing: dict[str, str], who: str, measuring: Any) -> None:
    """Measure somebody, or note why not."""
    try:
        measuring()
    except PeerUnavailable as reason:
        say(f"  {who}: {reason}")
        missing[who] = str(reason)


def keep(figures: Figures, who: str, more: dict[str, list[float]]) -> None:
    """Keep the median of one round."""
    for what, samples in more.items():
        figures.setdefault(who, {}).setdefault(what, []).append(median(samples))


def measure(tools: Tools, way: str, samples: int) -> dict[str, list[float]]:
    """Measure one way of starting workers, in a replica of its own.

    Raises:
        PeerUnavailable: it does not start, or what it is to import is not installed.
    """
    fork, imports = WAYS[way]
    python = tools.anyserve.parent / "python" if tools.anyserve else Path(sys.executable)
    run([python, "-c", f"import json{''.join(f', {name}' for name in imports.split(',') if name)}; print('null')"])

    def start(place: Place) -> Command:
        target = f"{APPS / 'workers_anyserve.py'}:app"
        argv = [str(tools.anyserve), "serve", target, "--port", str(place.ports[0]), "--resources", "token=1"]
        return Command([*argv, "--min-residency-s", "0"], {"ANYSERVE_FORK": fork, "IMPORTS": imports})

    with serving(Peer("workers", way, frozenset(), start), tools) as port:
        figures: dict[str, list[float]] = run([python, APPS / "workers_client.py", f"127.0.0.1:{port}", samples])
    return figures


@contextmanager
def serving(peer: Peer, tools: Tools) -> Iterator[int]:
    """A replica that listens; its port."""
    with Server(peer, tools, Path.cwd()) as server:
        server.wait_until_it_listens()
        yield server.port


def restart(tools: Tools, key: str) -> dict[str, list[float]]:
    """Measure a peer's restart.

    Raises:
        PeerUnavailable: it does not start.
    """
    (peer,) = [peer for peer in RESTARTING if peer.key == key]
    with TemporaryDirectory() as directory, Server(peer, tools, Path(directory)) as server:
        server.wait_until_it_answers(Generator(tools.generator, 1.0, 1))
        return {"killed": [restart_of(server)]}


def render(figures: Figures, missing: dict[str, str], machine: dict[str, str]) -> str:
    """Give everything as tables; times are medians over the rounds."""
    lines = [f"- {name}: {fact}" for name, fact in machine.items()] + [""]
    ways = [way for way in WAYS if way in figures]
    lines += [row(["", *ways]), rule(len(ways) + 1)]
    for what, label in ROWS.items():
        lines.append(row([label, *(time_of(median(figures[way][what]) * 1e6) for way in ways)]))
    lines.append(row(["starts per second", *(f"{1 / median(figures[way]['many']):.0f}" for way in ways)]))
    memory = [f"{median(figures[way]['memory']) / 2**20:.1f} MiB" for way in ways]
    lines.append(row(["memory of an idle worker, one of 8 (PSS)", *memory]))
    lines += ["", row(["killed while idle, until the next answer", "time"]), rule(2)]
    killed = {"AnyServe, " + way: way for way in ways} | {OTHERS[key]: key for key in OTHERS if key in figures}
    lines += [row([who, time_of(median(figures[key]["killed"]) * 1e6)]) for who, key in killed.items()]
    lines += [row([OTHERS.get(who, who), why]) for who, why in missing.items()]
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell the person who waits; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
