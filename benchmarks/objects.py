"""Measure the object plane: put and get from inside a handler, echoes of large tensors, and when the arena pays.

Everything takes turns over several rounds, so that a slow minute of the machine hits all; the tables show medians, and
ratios within this run. See README.md beside this file for the method.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from harness.environments import PeerUnavailable, installed_anyserve
from harness.machine import facts
from harness.objects import ECHOES, Echo, echo, inside, median, of_peer, repetitions_of, replica

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = [KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB, GIB]
ECHO_SIZES = [KIB, MIB, 4 * MIB, 64 * MIB, GIB]
CROSSING = [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB]
ALWAYS = Echo("always", "arena from the first byte on", ("--object-threshold", "1"))
NEVER = Echo("never", "worker socket", ("--object-store", "0"))

Table = dict[tuple[str, int], list[float]]


def main() -> int:
    """Run the benchmark as the command line says."""
    options = parse()
    try:
        program = options.anyserve.absolute() if options.anyserve else installed_anyserve()
    except PeerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"- {name}: {value}" for name, value in facts().items()))
    if "objects" in options.only:
        show_objects(objects(program, options), options)
    if "echo" in options.only:
        show_echoes(echoes(program, options, ECHOES, options.echo_sizes), options)
    if "crossing" in options.only:
        show_crossing(echoes(program, options, (ALWAYS, NEVER), CROSSING))
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parts = ["objects", "echo", "crossing"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=parts, default=parts, help="parts to measure")
    add("--rounds", type=int, default=3, help="how often each has its turn")
    add("--sizes", nargs="+", type=int, default=SIZES, metavar="BYTES", help="sizes of objects")
    add("--echo-sizes", nargs="+", type=int, default=ECHO_SIZES, metavar="BYTES", help="sizes of echoes")
    add("--store", default="3GiB", help="size of the object store")
    add("--peers", nargs="*", default=["ray", "multiprocessing"], help="what objects are compared with")
    add("--quick", action="store_true", help="a few repetitions: does it run at all?")
    add("--anyserve", type=Path, help="an installed anyserve command, instead of installing it")
    return parser.parse_args()


def objects(program: Path, options: argparse.Namespace) -> Table:
    """Times of memcpy, put and get by candidate and size."""
    table: Table = defaultdict(list)
    for number in range(options.rounds):
        say(f"objects, round {number + 1} of {options.rounds}")
        with replica(program, "--object-store", options.store) as endpoint:
            for size in options.sizes:
                times = inside(endpoint, size, repetitions_of(size, quick=options.quick))
                for what, samples in times.items():
                    table[what, size] += samples
        for peer in list(options.peers):
            add_peer(table, peer, options)
    return table


def add_peer(table: Table, peer: str, options: argparse.Namespace) -> None:
    for size in options.sizes:
        try:
            times = of_peer(peer, size, min(50, repetitions_of(size, quick=options.quick)))
        except Exception as error:  # noqa: BLE001 - whatever keeps a peer from it goes into the report
            say(f"{peer}: {error}")
            options.peers.remove(peer)
            return
        for what, samples in times.items():
            table[f"{peer} {what}", size] += samples


def show_objects(table: Table, options: argparse.Namespace) -> None:
    """Print puts and gets, and their aims."""
    peers = [f"{peer} {what}" for peer in options.peers for what in ("put", "get")]
    heading("Objects, from inside a handler", ["bytes", "memcpy", "put", "of memcpy", "get", *peers])
    for size in options.sizes:
        ratio = median(table["memcpy", size]) / median(table["put", size])
        cells = [time_of(table["memcpy", size]), time_of(table["put", size]), f"{ratio:.2f} ×"]
        row([size_of(size), *cells, time_of(table["get", size]), *(time_of(table[peer, size]) for peer in peers)])
    large = [size for size in options.sizes if size >= MIB]
    worst = min((median(table["memcpy", size]) / median(table["put", size]) for size in large), default=0.0)
    slowest = max(median(table["get", size]) for size in options.sizes)
    judge("put ≥ 0.8 × memcpy from 1 MiB on", f"{worst:.2f} × at worst", worst >= 0.8)
    judge("get < 20 µs at any size", f"{slowest * 1e6:.1f} µs at worst", slowest < 20e-6)


def echoes(program: Path, options: argparse.Namespace, ways: tuple[Echo, ...], sizes: list[int]) -> Table:
    """Times of echoes by way and size."""
    table: Table = defaultdict(list)
    for number in range(options.rounds):
        say(f"echoes, round {number + 1} of {options.rounds}")
        for way in ways:
            store = () if "--object-store" in way.options else ("--object-store", options.store)
            with replica(program, *way.options, *store) as endpoint:
                for size in sizes:
                    if size < GIB or way.regions:
                        times = echo(endpoint, way, size, min(200, repetitions_of(size, quick=options.quick)))
                        table[way.key, size] += times
    return table


def show_echoes(table: Table, options: argparse.Namespace) -> None:
    """Print echoes, and their aim."""
    heading("FP32 echo, one at a time, p50", ["bytes", *(way.label for way in ECHOES)])
    for size in options.echo_sizes:
        row([size_of(size), *(time_of(table[way.key, size]) for way in ECHOES)])
    shared = [median(table["shm1", size]) for size in options.echo_sizes]
    ratio = max(shared) / min(shared)
    judge("client shared memory in place: largest within 2 × of smallest", f"{ratio:.2f} ×", ratio <= 2)


def show_crossing(table: Table) -> None:
    """Print where the arena begins to pay."""
    heading("Where the arena begins to pay: FP32 echo, p50", ["bytes", NEVER.label, ALWAYS.label, "arena is"])
    for size in CROSSING:
        ratio = median(table["never", size]) / median(table["always", size])
        row([size_of(size), time_of(table["never", size]), time_of(table["always", size]), f"{ratio:.2f} ×"])


def heading(title: str, columns: list[str]) -> None:
    print(f"\n### {title}\n")
    row(columns)
    row(["---"] * len(columns))


def row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def judge(aim: str, reached: str, met: bool) -> None:
    print(f"\n{aim}: {reached}, {'met' if met else 'missed'}")


def size_of(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def time_of(samples: list[float]) -> str:
    if not samples:
        return ""
    micros = median(samples) * 1e6
    return f"{micros:.1f} µs" if micros < 1000 else f"{micros / 1000:.1f} ms"


def say(text: str) -> None:
    """Tell the person who waits; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
