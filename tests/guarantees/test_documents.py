"""What `docs/guarantees.md` says of codes and tests is so."""

import re

import grpc
import pytest

from anyserve import _core
from tests.e2e.replicas import ROOT

TEXT = (ROOT / "docs/guarantees.md").read_text()
GRPC = {status.value[0]: status.name for status in grpc.StatusCode}


def rows(first: str) -> list[list[str]]:
    """The cells of each table row whose first cell looks like this."""
    lines = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("|")]
    return [cells for cells in lines if re.fullmatch(first, cells[0])]


def test_every_code_stands_there_with_its_statuses():
    written = {name: (status, int(http)) for name, status, http, *_ in rows("[A-Z_]{4,}")}
    assert written == {name: (GRPC[number], http) for name, number, http, _ in _core.codes()}


def test_every_promise_stands_there_once():
    assert [int(cells[0]) for cells in rows("[0-9]+")] == list(range(1, 15))


@pytest.mark.parametrize("cells", rows("[0-9]+"), ids=lambda cells: cells[0])
def test_what_is_kept_names_tests_that_there_are_and_what_is_not_names_none(cells):
    state, shown = cells[2], " ".join(cells[3:])
    named = re.findall(r"`((?:tests/e2e/)?test_\w+\.py)`", shown)
    paths = [ROOT / (name if "/" in name else f"tests/guarantees/{name}") for name in named]
    assert all(path.exists() for path in paths), named
    assert bool(named) == state.startswith(("kept", "partly")), (state, named)
