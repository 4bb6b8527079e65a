"""The benchmarks run: what they print is for people, and no test looks at a time."""

import sys
from pathlib import Path

from tests.e2e.replicas import BIN, run

BENCHMARKS = Path("benchmarks")


def test_the_benchmark_of_the_object_plane_measures_all_that_it_needs_no_installation_for():
    quick = ["--quick", "--anyserve", BIN / "anyserve", "--client", sys.executable]
    done = run(sys.executable, BENCHMARKS / "objects.py", *quick)
    assert done.returncode == 0, done.stderr
    assert "was not measured" not in done.stdout
    tables = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    measured = {cells[0].removeprefix("| "): cells[1:] for cells in tables}
    assert {"1 KiB", "1 MiB", "16 KiB"} <= set(measured)
    assert all(all(cell.strip(" |") for cell in cells) for size, cells in measured.items() if size.endswith("iB"))


def test_the_benchmark_of_workers_measures_all_that_it_needs_no_installation_for():
    quick = ["--rounds", "1", "--samples", "1", "--no-heavy", "--peers", "--anyserve", BIN / "anyserve"]
    done = run(sys.executable, BENCHMARKS / "workers.py", *quick)
    assert done.returncode == 0, done.stderr
    tables = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    measured = {cells[0]: cells[1:] for cells in tables}
    states = {"request to answer: ready", "asleep", "stopped after use", "never started", "starts per second"}
    assert states <= set(measured)
    assert all(len(measured[state]) == 2 and all(measured[state]) for state in states)
