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


def wait(name: str) -> None:
    """Wait until the test opens the gate."""
    while not (NOTES / name).exists():
        time.sleep(PAUSE_S)


async def wait_async(name: str) -> None:
    """Wait until the test opens the gate, and let others run."""
    while not (NOTES / name).exists():  # noqa: ASYNC110 - a file has no event to wait for
        await asyncio.sleep(PAUSE_S)
