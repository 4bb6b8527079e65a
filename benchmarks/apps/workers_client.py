"""Time what `workers_anyserve.py` does when it is asked; print seconds by name as JSON.

It runs in the environment that AnyServe is installed in.
"""

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyserve import Client

FIRSTS = 8
MANY = 8
LIMIT_S = 300.0

RESIDENCY_S = 10.0
"""Longer than twice a start: nobody is made to leave before."""


class Measured:
    """A replica that serves the app."""

    def __init__(self, endpoint: str, samples: int) -> None:
        self.endpoint, self.client, self.samples = endpoint, Client(endpoint), samples

    def answer(self, model: str) -> float:
        """Seconds from request to answer."""
        began = time.perf_counter()
        self.client.infer(model, {"x": [1.0]}, timeout_s=LIMIT_S)
        return time.perf_counter() - began

    def admin(self, path: str, method: str = "GET") -> Any:
        """What an HTTP request answers."""
        request = urllib.request.Request(f"http://{self.endpoint}{path}", method=method)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return json.load(response)

    def workers(self, group: str) -> list[dict[str, Any]]:
        """The workers of a group."""
        (found,) = [one for one in self.admin("/admin/workers")["groups"] if one["name"] == group]
        workers: list[dict[str, Any]] = found["workers"]
        return workers

    def often(self, measure: Callable[["Measured"], float]) -> list[float]:
        """Measure something as often as is wanted."""
        return [measure(self) for _ in range(self.samples)]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end:
                raise SystemExit("the replica did not come to the state that is to be measured")
            time.sleep(0.01)


def main(endpoint: str, samples: str) -> None:
    """Measure everything once."""
    replica = Measured(endpoint, int(samples))
    replica.until(lambda: replica.client.is_ready("ready"))
    replica.answer("ready")
    figures = {
        "ready": [replica.answer("ready") for _ in range(50)],
        "asleep": replica.often(asleep),
        "stopped": replica.often(stopped),
        "first": [replica.answer(f"first-{place}") for place in range(FIRSTS)],
        "switch": replica.often(switch),
        "killed": replica.often(killed),
        "many": [many(replica)],
        "memory": memory(replica),
    }
    print(json.dumps(figures))


def asleep(replica: Measured) -> float:
    """Seconds to an answer of a worker that sleeps."""
    replica.answer("asleep")
    replica.until(lambda: [one["state"] for one in replica.workers("Asleep")] == ["asleep"])
    return replica.answer("asleep")


def stopped(replica: Measured) -> float:
    """Seconds to an answer of a group whose worker has ended."""
    replica.answer("stopped")
    replica.until(lambda: not replica.workers("Stopped"))
    return replica.answer("stopped")


def switch(replica: Measured) -> float:
    """Seconds to an answer of a group that another one makes room for, which has had its time of residency."""
    replica.answer("one")
    time.sleep(RESIDENCY_S if replica.samples > 1 else 0)
    seconds = replica.answer("other")
    time.sleep(RESIDENCY_S if replica.samples > 1 else 0)
    return seconds


def killed(replica: Measured) -> float:
    """Seconds from the death of the only worker to the next answer."""
    replica.until(lambda: [one["state"] for one in replica.workers("Ready")] == ["ready"])
    os.kill(replica.workers("Ready")[0]["pid"], signal.SIGKILL)
    return replica.answer("ready")


def many(replica: Measured) -> float:
    """Seconds for which one of many starts lasts."""
    began = time.perf_counter()
    replica.admin(f"/admin/groups/Many/scale?workers={MANY}", "POST")
    replica.until(lambda: [one["state"] for one in replica.workers("Many")].count("ready") == MANY)
    return (time.perf_counter() - began) / MANY


def memory(replica: Measured) -> list[float]:
    """Bytes of each of many idle workers; what they share counts in parts."""
    return [proportional(one["pid"]) for one in replica.workers("Many")]


def proportional(pid: int) -> float:
    """The proportional set size of a process, in bytes."""
    with Path(f"/proc/{pid}/smaps_rollup").open() as rollup:
        lines = {name: rest for name, _, rest in (line.partition(":") for line in rollup)}
    return float(lines["Pss"].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
