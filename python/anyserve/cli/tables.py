"""Tables of text, for a terminal and for a pipe alike."""

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table: what stands above the columns, and the rows below it."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def printable(text: str) -> str:
    """Make a text of somebody else fit to be printed: what a terminal would obey is shown as an escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Write rows of the same length as lines, each column as wide as its widest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def counted(number: int, noun: str) -> str:
    """Say a number with its noun: `1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
