"""The status on a terminal, kept up to date."""

from collections.abc import Iterable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Drawn
from rich.text import Text

from anyserve.cli.status import Status, headline, tables
from anyserve.cli.tables import Table

_STYLES = {
    "ready": "green", "starting": "yellow", "waiting": "yellow", "waking": "yellow", "draining": "yellow",
    "stopping": "yellow", "leaving": "yellow", "falling-asleep": "yellow", "down": "red", "replacing": "red",
    "backing-off": "red", "up": "green", "probing": "yellow", "ejected": "red",
}  # fmt: skip


def show(shown: Iterable[tuple[Status, Mapping[str, float]]]) -> None:
    """Draw each status in the place of the one before, until there is no more."""
    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for status, rate in shown:
            live.update(Group(Text(headline(status), "bold"), *map(_drawn, tables(status, rate))), refresh=True)


def _drawn(table: Table) -> Drawn:
    drawn = Drawn(*table.columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    state = table.columns.index("state") if "state" in table.columns else None
    for row in table.rows:
        # As text: a name is nobody's markup.
        drawn.add_row(*(Text(cell, _STYLES.get(cell, "") if at == state else "") for at, cell in enumerate(row)))
    return drawn
