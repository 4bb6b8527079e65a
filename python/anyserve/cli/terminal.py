"""The table of workers that a terminal shows while a replica starts."""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from anyserve.cli.progress import line

_STYLES = {
    "ready": "green", "starting": "yellow", "replacing": "red", "backing-off": "red", "draining": "dim",
    "stopping": "dim", "stopped": "dim",
}  # fmt: skip


class Terminal:
    """Shows events on a terminal: a live table until the replica serves, then a line each.

    Events may come from any thread.
    """

    def __init__(self) -> None:
        self._console = Console()
        self._lock = threading.Lock()
        self._workers: dict[str, Mapping[str, Any]] = {}
        self._live: Live | None = Live(console=self._console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end_table()

    def show(self, kind: str, event: Mapping[str, Any]) -> None:
        """Show one event of `_core.serve`."""
        with self._lock:
            if kind == "worker" and self._live is not None:
                self._workers[event["name"]] = event
                self._live.update(self._table(), refresh=True)
                return
            for worker in self._end_table():
                self._console.print(self._styled("worker", worker), soft_wrap=True)
            self._console.print(self._styled(kind, event), soft_wrap=True)

    def _end_table(self) -> list[Mapping[str, Any]]:
        if self._live is None:
            return []
        self._live.stop()
        self._live = None
        return list(self._workers.values())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, event in self._workers.items():
            state, style = event["state"], _STYLES.get(event["state"], "")
            mark = Spinner("dots") if state == "starting" else Text("●", style)
            table.add_row(mark, name, Text(state, style), str(event.get("detail") or ""))
        return table

    @staticmethod
    def _styled(kind: str, event: Mapping[str, Any]) -> Text:
        text = Text(line(kind, event))
        for state, style in _STYLES.items():
            text.highlight_words([f" {state}"], style)
        return text
