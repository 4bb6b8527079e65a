"""Handlers that are held up, die, print and start processes, for the tests of workers' lives."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import marks

from anyserve import AnyServe, Context


def create_serial() -> AnyServe:
    """Make an app with sync handlers only, one request at a time."""
    obey_at_start()
    app = AnyServe()
    add_plain(app)
    return app


def obey_at_start() -> None:
    """Die, or wait, as long as the test wants every start to."""
    if (marks.NOTES / "die-at-start").exists():
        os._exit(9)
    while (marks.NOTES / "hold-up-start").exists():
        time.sleep(marks.PAUSE_S)


def create_mixed() -> AnyServe:
    """Make the same, with threads and coroutines beside it."""
    app = create_serial()
    add_concurrent(app)
    return app


def report(name: str) -> None:
    marks.note(f"started-{name}", os.getpid())


def add_plain(app: AnyServe) -> None:
    @app.capability(type="pid")
    def pid(name: str) -> dict[str, list[int]]:
        return {"pid": [os.getpid()]}

    @app.capability(type="hold")
    def hold(name: str, context: Context) -> dict[str, list[int]]:
        report(name)
        marks.wait(f"go-{name}")
        marks.note(f"ended-{name}", context.attempt)
        return {"pid": [os.getpid()], "attempt": [context.attempt]}

    @app.capability(type="spin")
    def spin(seconds: str) -> dict[str, list[int]]:
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            sum(range(1_000_000))
        return {"pid": [os.getpid()]}

    @app.capability(type="raise")
    def raise_it(name: str) -> dict[str, list[int]]:
        raise ValueError(name)

    @app.capability(type="say-and-exit")
    def say_and_exit(name: str) -> dict[str, list[int]]:
        print(name)
        sys.stderr.write("and no end of a line")
        sys.stderr.flush()
        os._exit(3)

    @app.capability(type="exit")
    def leave(name: str) -> dict[str, list[int]]:
        report(name)
        os._exit(3)

    @app.capability(type="abort")
    def abort(name: str) -> dict[str, list[int]]:
        report(name)
        os.kill(os.getpid(), signal.SIGSEGV)
        signal.pause()
        return {}

    @app.capability(type="print")
    def say(name: str) -> dict[str, list[int]]:
        print(f"{name} to stdout")
        print(f"{name} to stderr", file=sys.stderr)
        sys.stdout.write(f"{name} without an end")
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\xff\xfe\n")
        sys.stdout.flush()
        return {"pid": [os.getpid()]}

    @app.capability(type="fork")
    def fork(name: str) -> dict[str, list[int]]:
        child = subprocess.Popen(["sleep", "1000"])
        return {"pid": [child.pid]}

    @app.capability(type="token")
    def token(name: str) -> dict[str, list[str]]:
        return {"names": [text for text in os.environ if "TOKEN" in text and text.startswith("ANYSERVE")] or ["none"]}

    @app.capability(type="parts", stream=True)
    def parts(name: str) -> Iterator[dict[str, list[int]]]:
        report(name)
        for part in range(3):
            yield {"pid": [os.getpid()]}
            marks.wait(f"go-{name}-{part}")


def add_concurrent(app: AnyServe) -> None:
    @app.capability(type="hold-async", concurrency=64)
    async def hold_async(name: str) -> dict[str, list[int]]:
        report(name)
        await marks.wait_async(f"go-{name}")
        return {"pid": [os.getpid()]}

    @app.capability(type="coroutine", concurrency=64)
    async def coroutine(name: str) -> dict[str, list[int]]:
        await asyncio.sleep(0)
        return {"pid": [os.getpid()]}

    @app.capability(type="hold-threads", concurrency=4)
    def hold_threads(name: str) -> dict[str, list[int]]:
        report(name)
        marks.wait(f"go-{name}")
        return {"pid": [os.getpid()]}

    @app.capability(type="narrow", max_queue=1)
    def narrow(name: str) -> dict[str, list[int]]:
        report(name)
        marks.wait(f"go-{name}")
        return {"pid": [os.getpid()]}

    @app.capability(type="parts-async", stream=True, concurrency=8)
    async def parts_async(name: str) -> AsyncIterator[dict[str, list[int]]]:
        report(name)
        for part in range(3):
            yield {"pid": [os.getpid()]}
            await marks.wait_async(f"go-{name}-{part}")
