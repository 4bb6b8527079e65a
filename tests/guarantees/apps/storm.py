"""What is served in the storm: handlers that answer, stream, idle, raise, overrun and die, and a record of every start.

Each start is one line `id attempt` in a file of its worker, written before the handler does anything: what was run, and
how often, can be read there whatever became of worker and caller.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

from anyserve import AnyServe, Context
from tests.e2e.apps import marks

PAUSE_S = 0.001


def create() -> AnyServe:
    """Make the app."""
    app, record = AnyServe(), Record()
    add_echoes(app, record)
    add_streams(app, record)
    add_faulty(app, record)
    return app


class Record:
    """The starts of this worker's handlers."""

    def __init__(self) -> None:
        path = marks.NOTES / f"executions-{os.getpid()}"
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, context: Context) -> None:
        os.write(self.file, f"{context.request_id} {context.attempt}\n".encode())


def add_echoes(app: AnyServe, record: Record) -> None:
    @app.capability(type="echo")
    def echo(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        return {"payload": [payload]}

    @app.capability(type="echo-async", concurrency=16)
    async def echo_async(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        await asyncio.sleep(PAUSE_S)
        return {"payload": [payload]}

    @app.capability(type="echo-idempotent", idempotent=True)
    def echo_idempotent(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        time.sleep(PAUSE_S)
        return {"payload": [payload]}

    @app.capability(type="slow", concurrency=8)
    def slow(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        end = time.monotonic() + 0.15
        while time.monotonic() < end and not context.cancelled:
            time.sleep(PAUSE_S)
        return {"payload": [payload]}

    @app.capability(type="narrow", max_queue=8)
    def narrow(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        time.sleep(PAUSE_S)
        return {"payload": [payload]}


def add_streams(app: AnyServe, record: Record) -> None:
    """Add streams of as many parts as the payload says in front; each part is its number and the payload."""

    @app.capability(type="count", stream=True, concurrency=4)
    def count(payload: str, context: Context) -> Iterator[dict[str, list[str]]]:
        record(context)
        for part in range(int(payload.partition(" ")[0])):
            yield {"payload": [f"{part} {payload}"]}
            time.sleep(PAUSE_S)

    @app.capability(type="count-async", stream=True, concurrency=16)
    async def count_async(payload: str, context: Context) -> AsyncIterator[dict[str, list[str]]]:
        record(context)
        for part in range(int(payload.partition(" ")[0])):
            yield {"payload": [f"{part} {payload}"]}
            await asyncio.sleep(PAUSE_S)


def add_faulty(app: AnyServe, record: Record) -> None:
    @app.capability(type="raise")
    def raise_it(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        raise ValueError(payload)

    @app.capability(type="overrun", concurrency=2)
    def overrun(payload: str, context: Context) -> dict[str, list[str]]:
        """Sleep or keep the interpreter busy, whatever the caller's deadline says."""
        record(context)
        how, seconds, *_ = payload.split()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            sum(range(100_000)) if how == "spin" else time.sleep(float(seconds))
        return {"payload": [payload]}

    @app.capability(type="crash")
    def crash(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        die(payload)

    @app.capability(type="crash-idempotent", idempotent=True)
    def crash_again(payload: str, context: Context) -> dict[str, list[str]]:
        record(context)
        die(payload)


def die(payload: str) -> None:
    """End this process: by a signal, or as an extension module's `exit` would."""
    if payload.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)
