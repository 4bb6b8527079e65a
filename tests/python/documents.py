"""The documents as data: their blocks, tables and links; and the commands that they speak of."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from anyserve.cli import commands

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "docs/adr", "examples/*", "benchmarks", "fuzz", "tests/vectors")
DOCUMENTS = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md"))
COMMANDS: Any = typer.main.get_command(commands.cli)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    """A document's name, from the root of the repository."""
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """The text without its blocks of code."""
    return _BLOCK.sub("", path.read_text())


def blocks(path: Path, kind: str) -> list[str]:
    """The blocks of code of one kind."""
    return [text for found, text in _BLOCK.findall(path.read_text()) if found == kind]


def command_lines(path: Path) -> Iterator[str]:
    """Every command of the blocks of shell, without comments, each on one line."""
    for text in blocks(path, "bash"):
        lines = text.replace("\\\n", " ").splitlines()
        bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
        yield from (part for line in bare if line for part in line.split(" && "))


def links(path: Path) -> list[str]:
    """Where the text links to."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


def anchors(path: Path) -> set[str]:
    """What can stand behind `#` in a link to a document: its headings, as they are shown on a page."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def section(path: Path, heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#+ |\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{named(path)} has no heading {heading!r}"
    return found[1]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text: rows of cells, without head and rule."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[_cells(line) for line in table.splitlines()[2:]] for table in found]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def in_code(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def every_command(command: Any = COMMANDS) -> Iterator[Any]:
    """A command and all that are below it."""
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from every_command(one)


def options_of(command: Any) -> dict[str, Any]:
    """The options of a command by each of their long names."""
    return {flag: one for one in command.params for flag in [*one.opts, *one.secondary_opts] if flag.startswith("--")}


def long_options(name: str) -> dict[str, Any]:
    """The options of a command by its name."""
    return options_of(COMMANDS.commands[name])
