"""How handlers and tests talk past the server: lines in files, and gates that are files."""

import asyncio
import os
import time
from pathlib import Path

NOTES = Path(os.environ.get("E2E_NOTES", "/nonexistent"))
PAUSE_S = 0.002


def note(name: str, text: object = "") -> None:
    """Append a line in one write, so that lines of several processes don't mix."""
    with (NOTES / name).open("a") as file:
        file.write(f"{text}\n")


def is_open(name: str) -> bool:
    """Tell whether the test has opened the gate."""
    return (NOTES / name).exists()


def pause() -> None:
    """Wait for a moment before looking again."""
    time.sleep(PAUSE_S)


def wait(name: str) -> None:
    """Wait until the test opens the gate."""
    while not is_open(name):
        pause()


async def wait_async(name: str) -> None:
    """Wait until the test opens the gate, and let others run."""
    while not is_open(name):  # noqa: ASYNC110 - a file has no event to wait for
        await asyncio.sleep(PAUSE_S)
