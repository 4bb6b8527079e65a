"""All rounds' reports, and the medians that the table shows."""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from harness.generator import Report
from harness.peers import Peer
from harness.workloads import Workload


@dataclass
class Results:
    """Reports by peer and workload, one per round; why a peer has none."""

    reports: dict[str, dict[str, list[Report]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    cross_checks: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    unavailable: dict[str, str] = field(default_factory=dict)

    def add(self, peer: Peer, workload: Workload, report: Report) -> None:
        """Keep one round's report."""
        self.reports[peer.key][workload.key].append(report)

    def median(self, peer: str, workload: str, *path: str) -> float | None:
        """Give the median over rounds of a number in the reports, or None without any."""
        values = [dig(report, path) for report in self.reports[peer][workload]]
        numbers = [value for value in values if value is not None]
        return median(numbers) if numbers else None

    def errors(self, peer: str, workload: str) -> int:
        """Give the failed requests of all rounds."""
        return sum(int(report.get("errors", 0)) for report in self.reports[peer][workload])

    def problem(self, peer: str, workload: str) -> str | None:
        """Give what the generator said of a round without a success."""
        for report in self.reports[peer][workload]:
            if "error" in report:
                return str(report["error"])
        return None

    def as_json(self) -> dict[str, Any]:
        """Give everything as plain data."""
        return {
            "reports": self.reports,
            "cross_checks": self.cross_checks,
            "unavailable": self.unavailable,
        }


def dig(report: Report, path: tuple[str, ...]) -> float | None:
    """Follow keys into a report; None where one is missing or the run had no success."""
    value: Any = report
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and report.get("requests") else None
