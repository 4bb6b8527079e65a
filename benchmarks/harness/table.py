"""The results as Markdown: absolute numbers, ratios, aims."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.machine import Facts
from harness.markdown import row, rule, time_of
from harness.peers import PEERS
from harness.results import Results
from harness.workloads import WORKLOADS, Kind

_THROUGHPUT = ("requests_per_s",)
_P50 = ("latency_us", "p50")
_P99 = ("latency_us", "p99")


@dataclass(frozen=True)
class Aim:
    """A ratio that AnyServe is to reach against a peer, in one run."""

    peer: str
    workload: str
    path: tuple[str, ...]
    bound: float
    at_most: bool = False
    ours: str = "anyserve"


AIMS = (
    Aim("ceiling", "small@64", _THROUGHPUT, 0.5),
    Aim("mosec", "small@64", _THROUGHPUT, 3.0),
    Aim("triton", "small@64", _THROUGHPUT, 3.0),
    Aim("mlserver", "small@64", _THROUGHPUT, 10.0),
    Aim("mosec", "small@1", _P50, 1.0, at_most=True),
    Aim("triton", "large@4", _THROUGHPUT, 2.0),
    Aim("mosec", "large@4", _THROUGHPUT, 2.0),
    Aim("mosec-batch", "batch@64", _THROUGHPUT, 1.0, ours="anyserve-batch"),
    Aim("mosec-batch", "batch@1", _P50, 0.1, at_most=True, ours="anyserve-batch"),
)


def render(results: Results, machine: Facts, peers: list[str]) -> str:
    """Give the whole report as Markdown."""
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    sections = [
        facts,
        "### 64-byte FP32[16] echo",
        "\n".join(_small(results, peers)),
        "### 4 MiB FP32[1048576] echo, 4 in flight",
        "\n".join(_large(results, peers)),
        "### 64 concurrent streams of 1000 tokens",
        "\n".join(_tokens(results, peers)),
        "### 64-byte FP32[16] echo in batches of up to 32 (mosec waits 1 ms to fill one, as its option asks for)",
        "\n".join(_batches(results, peers)),
        "### Aims",
        "\n".join(_aims(results)),
    ]
    return "\n\n".join(sections) + "\n"


def _small(results: Results, peers: list[str]) -> Iterator[str]:
    yield row(
        [
            "server",
            "req/s at 1",
            "p50",
            "req/s at 16",
            "p50",
            "req/s at 64",
            "p50",
            "p99",
            "of (a)",
            "(b) is",
            "cross-check",
            "generator",
        ]
    )
    yield rule(12)
    for peer, label in _chosen(peers, "small"):
        if reason := results.unavailable.get(peer):
            yield row([label, f"not measured: {reason}", *[""] * 10])
            continue
        yield row([label, *_small_cells(results, peer)])


def _small_cells(results: Results, peer: str) -> Iterator[str]:
    for workload in ("small@1", "small@16", "small@64"):
        yield _throughput(results, peer, workload)
        yield time_of(results.median(peer, workload, *_P50))
    yield time_of(results.median(peer, "small@64", *_P99))
    yield _ratio(results, peer, "ceiling", "small@64")
    yield _ratio(results, "anyserve", peer, "small@64")
    yield _number(results.cross_checks[peer].get("small@64"))
    cost = results.median(peer, "small@64", "cpu_us_per_request")
    yield "" if cost is None else f"{cost:.1f} µs"


def _large(results: Results, peers: list[str]) -> Iterator[str]:
    yield row(["server", "req/s", "p50", "p99", "MB/s each way", "(b) is"])
    yield rule(6)
    for peer, label in _measured(results, peers, "large@4"):
        sent = results.median(peer, "large@4", "sent_bytes_per_s")
        yield row(
            [
                label,
                _throughput(results, peer, "large@4"),
                time_of(results.median(peer, "large@4", *_P50)),
                time_of(results.median(peer, "large@4", *_P99)),
                "" if sent is None else f"{sent / 1e6:.0f}",
                _ratio(results, "anyserve", peer, "large@4"),
            ]
        )


def _tokens(results: Results, peers: list[str]) -> Iterator[str]:
    yield row(["server", "tokens/s", "first token p50", "p99", "stream p50"])
    yield rule(5)
    for peer, label in _measured(results, peers, "tokens@64"):
        yield row(
            [
                label,
                _number(results.median(peer, "tokens@64", "messages_per_s"))
                or results.problem(peer, "tokens@64")
                or "",
                time_of(results.median(peer, "tokens@64", "first_message_us", "p50")),
                time_of(results.median(peer, "tokens@64", "first_message_us", "p99")),
                time_of(results.median(peer, "tokens@64", *_P50)),
            ]
        )


def _batches(results: Results, peers: list[str]) -> Iterator[str]:
    yield row(["server", "req/s at 1", "p50", "req/s at 64", "p50", "p99", "(b) is"])
    yield rule(7)
    for peer, label in _measured(results, peers, "batch@64"):
        yield row(
            [
                label,
                _throughput(results, peer, "batch@1"),
                time_of(results.median(peer, "batch@1", *_P50)),
                _throughput(results, peer, "batch@64"),
                time_of(results.median(peer, "batch@64", *_P50)),
                time_of(results.median(peer, "batch@64", *_P99)),
                _ratio(results, "anyserve-batch", peer, "batch@64"),
            ]
        )


def _aims(results: Results) -> Iterator[str]:
    yield row(["aim", "reached", ""])
    yield rule(3)
    for aim in AIMS:
        ours = results.median(aim.ours, aim.workload, *aim.path)
        theirs = results.median(aim.peer, aim.workload, *aim.path)
        yield row([_describe(aim), *_judge(aim, ours, theirs)])


def _describe(aim: Aim) -> str:
    what = "p50" if aim.at_most else "req/s"
    return f"{aim.workload} {what}: (b) {'≤' if aim.at_most else '≥'} {aim.bound:g} × {aim.peer}"


def _judge(aim: Aim, ours: float | None, theirs: float | None) -> list[str]:
    if ours is None or not theirs:
        return ["not measured", ""]
    ratio = ours / theirs
    met = ratio <= aim.bound if aim.at_most else ratio >= aim.bound
    return [f"{ratio:.2f} ×", "met" if met else "missed"]


def _chosen(peers: Iterable[str], kind: Kind) -> Iterator[tuple[str, str]]:
    labels = {peer.key: peer.label for peer in PEERS if kind in peer.kinds}
    return ((peer, labels[peer]) for peer in peers if peer in labels)


def _measured(results: Results, peers: list[str], workload: str) -> Iterator[tuple[str, str]]:
    kind = next(known.kind for known in WORKLOADS if known.key == workload)
    return (chosen for chosen in _chosen(peers, kind) if results.reports[chosen[0]][workload])


def _throughput(results: Results, peer: str, workload: str) -> str:
    number = _number(results.median(peer, workload, *_THROUGHPUT))
    number = number or results.problem(peer, workload) or ""
    errors = results.errors(peer, workload)
    return f"{number} ({errors} errors)" if errors else number


def _ratio(results: Results, over: str, under: str, workload: str) -> str:
    above = results.median(over, workload, *_THROUGHPUT)
    below = results.median(under, workload, *_THROUGHPUT)
    return "" if above is None or not below else f"{above / below:.2f} ×"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}".replace(",", " ")
