"""Measure the object plane: objects inside a handler, echoes of large tensors, and from which size on the arena pays.

All have their turn in every round, so that a slow minute of the machine hits all of them; tables show medians over the
rounds, and ratios within this run. See README.md beside this file for the method.
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.echoes import CROSSINGS, TRITON, WAYS, Caller, Way, replica, serving
from harness.environments import PEERS, PeerUnavailable, installed_anyserve, release_of
from harness.generator import Generator
from harness.machine import Facts, facts
from harness.objects_table import render
from harness.peers import Tools, triton_environment
from harness.stores import STORES, Figures, in_handler, in_peer

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = [KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB, GIB]
ECHO_SIZES = [KIB, MIB, 4 * MIB, 64 * MIB, GIB]
CROSSING_SIZES = [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB]
PARTS = ["objects", "echo", "crossing"]
OTHERS = ["ray", "multiprocessing", "triton"]
STORE = 4 * GIB


@dataclass(frozen=True)
class Run:
    """What to measure, and with what."""

    peers: list[str]
    seconds: float
    store: int
    sizes: dict[str, list[int]]
    tools: Tools
    client: Path

    @property
    def caller(self) -> Caller:
        """What calls servers for one turn."""
        generator = Generator(self.tools.generator, self.seconds, warmup_s=self.seconds / 4)
        return Caller(generator, self.client, self.seconds)


def main() -> int:
    """Run the benchmark as the command line says."""
    options = parse()
    try:
        run = prepare(options)
    except PeerUnavailable as error:
        say(str(error))
        return 1
    machine, figures = facts() | releases(run), Figures()
    parts = {"objects": measure_objects, "echo": measure_echoes, "crossing": measure_crossing}
    for number in range(options.rounds):
        for part in options.only:
            say(f"round {number + 1} of {options.rounds}: {part}")
            parts[part](run, figures)
            if options.json:
                options.json.write_text(json.dumps({"machine": machine, **figures.as_json()}, indent=1))
    print(render(figures, machine))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    add("--peers", nargs="*", choices=OTHERS, help="what to compare with; all, without --quick")
    add("--seconds", type=float, default=1.0, help="how long each turn takes")
    add("--rounds", type=int, default=3, help="how often each has its turn")
    add("--json", type=Path, metavar="FILE", help="also write every figure to FILE, as they come")
    add("--quick", action="store_true", help="one short round of small sizes: does it run at all?")
    add("--anyserve", type=Path, help="an installed anyserve command, instead of installing it")
    add("--client", type=Path, metavar="PYTHON", help="a Python with tritonclient, instead of installing it")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 0.1, 1
    options.peers = options.peers if options.peers is not None else ["multiprocessing"] if options.quick else OTHERS
    return options


def prepare(options: argparse.Namespace) -> Run:
    """Find or build the programs of this repository, and choose sizes that this machine has room for."""
    program = options.anyserve.absolute() if options.anyserve else installed_anyserve()
    client = options.client or triton_environment() / "bin" / "python"
    store = 256 * MIB if options.quick else min(STORE, room() // 4)
    most = MIB if options.quick else store // 2
    wanted = {"objects": SIZES, "echo": ECHO_SIZES, "crossing": CROSSING_SIZES}
    return Run(
        peers=options.peers,
        seconds=options.seconds,
        store=store,
        sizes={part: [size for size in sizes if size <= most] for part, sizes in wanted.items()},
        tools=Tools([str(program), "bench"], program),
        client=client,
    )


def room() -> int:
    """Bytes that are free in /dev/shm and in memory."""
    shm = os.statvfs("/dev/shm")
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(shm.f_bavail * shm.f_frsize, memory)


def releases(run: Run) -> Facts:
    """Give the releases of what is compared."""
    found = {"ray": ("ray", "ray"), "triton": ("pytriton", "nvidia-pytriton")}
    return {package: release_of(PEERS / home, package) for peer, (home, package) in found.items() if peer in run.peers}


def measure_objects(run: Run, figures: Figures) -> None:
    """Time puts and gets in a handler of a replica, then in each peer."""
    for store in STORES:
        if (store == "anyserve" or store in run.peers) and store not in figures.missing:
            try:
                measure_store(run, figures, store)
            except PeerUnavailable as reason:
                give_up(figures, store, reason)


def measure_store(run: Run, figures: Figures, store: str) -> None:
    """Time one store with all sizes."""
    sizes = run.sizes["objects"]
    if store != "anyserve":
        for size, samples in in_peer(store, sizes, run.seconds).items():
            figures.add_samples(store, size, samples)
        return
    plane = replica("store", "--object-store", str(run.store))
    with serving(run.tools, run.caller.generator, {plane}) as ports:
        for size in sizes:
            figures.add_samples(store, size, in_handler(run.client, ports[plane], size, run.seconds))


def measure_echoes(run: Run, figures: Figures) -> None:
    """Time echoes on every way."""
    ways = [way for way in WAYS if way.server is not TRITON or "triton" in run.peers]
    measure_ways(run, figures, ways, run.sizes["echo"])


def measure_crossing(run: Run, figures: Figures) -> None:
    """Time echoes through socket and arena, where they are close to each other."""
    measure_ways(run, figures, [way for pair in CROSSINGS for way in pair], run.sizes["crossing"])


def measure_ways(run: Run, figures: Figures, ways: list[Way], sizes: list[int]) -> None:
    """Size by size, let each way have its turn."""
    servers = {way.server for way in ways if way.label not in figures.missing}
    with serving(run.tools, run.caller.generator, servers) as ports:
        for size in sizes:
            for way in ways:
                if way.takes(size) and way.label not in figures.missing:
                    try:
                        figures.add(way.key, "echo", size, run.caller.echo(way, ports[way.server], size))
                    except PeerUnavailable as reason:
                        give_up(figures, way.label, reason)


def give_up(figures: Figures, who: str, reason: PeerUnavailable) -> None:
    """Measure somebody no more; the table says why."""
    say(f"  {who}: {reason}")
    figures.missing[who] = str(reason)


def say(text: str) -> None:
    """Tell the person who waits; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
