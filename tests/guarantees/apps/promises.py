"""Handlers that a test holds up, ends, floods and leaves. What they do is noted under the name that they are given."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np

from anyserve import AnyServe, Context
from tests.e2e.apps import marks

Answer = dict[str, list[int]]


def create() -> AnyServe:
    """Make an app with handlers in threads and on an event loop."""
    obey_at_start()
    app = AnyServe()
    add_plain(app)
    add_waiting(app)
    add_faulty(app)
    add_idempotent(app)
    add_async(app)
    add_streams(app)
    return app


def create_serial() -> AnyServe:
    """Make an app whose handlers are all sync with a concurrency of 1: one thread runs them all."""
    obey_at_start()
    app = AnyServe()
    add_plain(app)
    return app


def obey_at_start() -> None:
    """Wait as long as the test wants no worker to come up."""
    while (marks.NOTES / "hold-up-start").exists():
        time.sleep(marks.PAUSE_S)


def start(name: str, context: Context) -> None:
    marks.note(f"started-{name}", f"{os.getpid()} {context.attempt}")


def answer(context: Context) -> Answer:
    return {"pid": [os.getpid()], "attempt": [context.attempt]}


def add_plain(app: AnyServe) -> None:
    @app.capability(type="pid")
    def pid(name: str, context: Context) -> Answer:
        return answer(context)

    @app.capability(type="hold")
    def hold(name: str, context: Context) -> Answer:
        """Wait for the test, and stop for a caller that has left."""
        start(name, context)
        while not (marks.NOTES / f"go-{name}").exists():
            if context.cancelled:
                marks.note(f"left-{name}", "cancelled")
                break
            time.sleep(marks.PAUSE_S)
        return answer(context)

    @app.capability(type="obstinate")
    def obstinate(name: str, context: Context) -> Answer:
        """Wait for the test and for nobody else."""
        start(name, context)
        marks.wait(f"go-{name}")
        marks.note(f"ended-{name}")
        return answer(context)


def add_waiting(app: AnyServe) -> None:
    """Add what requests wait for in line."""

    @app.capability(type="order")
    def order(name: str, context: Context) -> Answer:
        """Note the order of the starts; the first one waits for the test."""
        marks.note("order", name)
        if name == "first":
            marks.wait("go-first")
        return answer(context)

    @app.capability(type="narrow", max_queue=2)
    def narrow(name: str, context: Context) -> Answer:
        start(name, context)
        marks.wait(f"go-{name}")
        return answer(context)

    @app.capability(type="tenth")
    def tenth(name: str, context: Context) -> Answer:
        """Take a tenth of a second; one that has a gate's name waits for it as well."""
        start(name, context)
        time.sleep(0.1)
        if name.startswith("gated"):
            marks.wait(f"go-{name}")
        return answer(context)

    @app.capability(type="remaining")
    def remaining(name: str, context: Context) -> dict[str, list[float]]:
        left = context.remaining()
        return {"remaining": [-1.0 if left is None else left]}


def add_faulty(app: AnyServe) -> None:
    @app.capability(type="die")
    def die(name: str, context: Context) -> Answer:
        return dies(name, context)

    @app.capability(type="die-idempotent", idempotent=True)
    def die_idempotent(name: str, context: Context) -> Answer:
        return dies(name, context)


def dies(name: str, context: Context) -> Answer:
    """End this process, unless the name is harmless or the test has tamed it."""
    start(name, context)
    if name != "harmless" and not (marks.NOTES / f"tame-{name}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return answer(context)


def add_idempotent(app: AnyServe) -> None:
    @app.capability(type="hold-idempotent", idempotent=True, concurrency=4)
    def hold_idempotent(name: str, context: Context) -> Answer:
        start(name, context)
        marks.wait(f"go-{name}")
        return answer(context)

    @app.capability(type="parts-idempotent", idempotent=True, stream=True, concurrency=4)
    def parts_idempotent(name: str, context: Context) -> Iterator[Answer]:
        start(name, context)
        marks.wait(f"go-{name}-0")
        yield answer(context)
        marks.wait(f"go-{name}-1")
        yield answer(context)


def add_async(app: AnyServe) -> None:
    @app.capability(type="hold-async", concurrency=64)
    async def hold_async(name: str, context: Context, ballast: np.ndarray | None = None) -> Answer:
        start(name, context)
        try:
            await marks.wait_async(f"go-{name}")
        except BaseException as error:
            marks.note(f"left-{name}", type(error).__name__)
            raise
        return answer(context)

    @app.capability(type="hold-async-idempotent", idempotent=True, concurrency=64)
    async def hold_async_idempotent(name: str, context: Context) -> Answer:
        start(name, context)
        await marks.wait_async(f"go-{name}")
        return answer(context)


def add_streams(app: AnyServe) -> None:
    """Add streams without an end: a part after each opened gate `go-<name>-<part>`, and large ones without gates."""

    @app.capability(type="parts", stream=True, concurrency=4)
    def parts(name: str, context: Context) -> Iterator[Answer]:
        try:
            for part in itertools.count():
                marks.wait(f"go-{name}-{part}")
                marks.note(f"made-{name}", part)
                yield answer(context)
        finally:
            marks.note(f"left-{name}")

    @app.capability(type="parts-async", stream=True, concurrency=4)
    async def parts_async(name: str, context: Context) -> AsyncIterator[Answer]:
        try:
            for part in itertools.count():
                await marks.wait_async(f"go-{name}-{part}")
                marks.note(f"made-{name}", part)
                yield answer(context)
        finally:
            marks.note(f"left-{name}")

    @app.capability(type="large", stream=True, concurrency=4)
    def large(name: str, context: Context) -> Iterator[dict[str, list[bytes]]]:
        for part in range(LARGE_PARTS):
            yield {"data": [bytes(LARGE_PART)]}
            marks.note(f"made-{name}", part)

    @app.capability(type="large-async", stream=True, concurrency=4)
    async def large_async(name: str, context: Context) -> AsyncIterator[dict[str, list[bytes]]]:
        for part in range(LARGE_PARTS):
            yield {"data": [bytes(LARGE_PART)]}
            marks.note(f"made-{name}", part)
            await asyncio.sleep(0)


LARGE_PARTS = 600
LARGE_PART = 1 << 18
"""Together more than what all buffers on the way hold."""
