"""Times of putting, getting and deleting objects: inside a handler, and in the peers' own processes."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from harness.environments import PeerUnavailable, environment
from harness.peers import APPS, inherited_env

STORES = {"anyserve": "AnyServe", "ray": "Ray", "multiprocessing": "multiprocessing.shared_memory"}
"""What is compared, and how tables call it."""

Samples = dict[str, list[float]]


@dataclass
class Figures:
    """Figures of all rounds, one of each round; times are in microseconds."""

    rounds: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, who: str, what: str, size: int, figure: float) -> None:
        """Keep one round's figure."""
        self.rounds.setdefault((who, what, size), []).append(figure)

    def median(self, who: str, what: str, size: int) -> float | None:
        """Give the median of the rounds, or None without any."""
        figures = self.rounds.get((who, what, size))
        return median(figures) if figures else None

    def add_samples(self, store: str, size: int, samples: Samples) -> None:
        """Keep the medians of one round, and a put's part of memcpy's speed in that very round."""
        p50 = {what: median(seconds) * 1e6 for what, seconds in samples.items()}
        for what, micros in p50.items():
            self.add(store, what, size, micros)
        self.add(store, "of memcpy", size, p50["memcpy"] / p50["put"])

    def as_json(self) -> dict[str, Any]:
        """Give everything as plain data."""
        keys = sorted(self.rounds)
        figures = [{"who": key[0], "what": key[1], "size": key[2], "rounds": self.rounds[key]} for key in keys]
        return {"figures": figures, "missing": self.missing}


def in_handler(client: Path, port: int, size: int, seconds: float) -> Samples:
    """Give the times that the handler of `apps/objects_anyserve.py` took.

    Raises:
        PeerUnavailable: it failed.
    """
    samples: Samples = run([client, APPS / "objects_client.py", "times", f"127.0.0.1:{port}", seconds, size])
    return samples


def in_peer(peer: str, sizes: list[int], seconds: float) -> dict[int, Samples]:
    """Give the times of `ray` or `multiprocessing` by size, all in one process.

    Raises:
        PeerUnavailable: it cannot be installed, or failed.
    """
    python = environment("ray", ("ray", "numpy")) / "bin" / "python" if peer == "ray" else Path(sys.executable)
    times: dict[str, Samples] = run([python, APPS / "objects_peers.py", peer, seconds, *sizes])
    return {int(size): samples for size, samples in times.items()}


def run(command: list[Any]) -> Any:
    """Run a program and read the JSON on its last line.

    Raises:
        PeerUnavailable: it failed; the text is the last line of what it said.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=inherited_env())
    if done.returncode != 0:
        raise PeerUnavailable((done.stderr.strip() or "it failed and said nothing").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])
