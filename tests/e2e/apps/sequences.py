"""Handlers that keep what they were told in a sequence: every answer has all of it, and who keeps it."""

import os
from collections.abc import Iterator

import marks

from anyserve import AnyServe, Context

Answer = dict[str, list[int] | list[str]]

TOLD: dict[tuple[str, str], list[str]] = {}
"""What was said in each sequence of each model."""


def create() -> AnyServe:
    """Make an app whose handlers keep several sequences at the same time."""
    app = AnyServe()
    add_tallies(app)
    add_async(app)
    add_stream(app)
    return app


def create_serial() -> AnyServe:
    """Make an app whose one thread runs one request at a time."""
    app = AnyServe()

    @app.capability(type="tally", sequence=True)
    def tally(name: str, context: Context) -> Answer:
        return waited(name, context)

    return app


def tell(name: str, context: Context) -> Answer:
    """Add a name to its sequence."""
    marks.note("told", f"{context.parameters['sequence_id']} {name}")
    key = (context.capability["type"], repr(context.parameters["sequence_id"]))
    if context.parameters.get("sequence_start"):
        TOLD[key] = []
    # One that was started elsewhere has nothing here, and that is a failure of the runtime.
    TOLD[key].append(name)
    return {"told": list(TOLD[key]), "pid": [os.getpid()]}


def waited(name: str, context: Context) -> Answer:
    answer = tell(name, context)
    if name.startswith("gated"):
        marks.note(f"started-{name}", os.getpid())
        marks.wait(f"go-{name}")
    return answer


def add_tallies(app: AnyServe) -> None:
    @app.capability(type="tally", sequence=True, concurrency=8)
    def tally(name: str, context: Context) -> Answer:
        return waited(name, context)

    @app.capability(type="tally-idempotent", sequence=True, concurrency=8, idempotent=True)
    def tally_idempotent(name: str, context: Context) -> Answer:
        return waited(name, context)


def add_async(app: AnyServe) -> None:
    @app.capability(type="tally-async", sequence=True, concurrency=64)
    async def tally_async(name: str, context: Context) -> Answer:
        answer = tell(name, context)
        if name.startswith("gated"):
            marks.note(f"started-{name}", os.getpid())
            await marks.wait_async(f"go-{name}")
        return answer


def add_stream(app: AnyServe) -> None:
    @app.capability(type="parts", sequence=True, stream=True, concurrency=8)
    def parts(name: str, context: Context) -> Iterator[Answer]:
        for part in range(3):
            yield {**tell(f"{name}-{part}", context), "part": [part]}
            context.parameters["sequence_start"] = False
