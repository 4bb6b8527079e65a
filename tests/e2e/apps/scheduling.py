"""Handlers that share one thread and note in which order they run; a name like `gated-…` waits for the test."""

import os

import marks

from anyserve import AnyServe, Context

Answer = dict[str, list[int]]


def create() -> AnyServe:
    """Make an app whose one thread runs one request at a time, whatever it is for."""
    app = AnyServe()
    add_levels(app)
    add_limited(app)
    return app


def run(name: str) -> Answer:
    """Note the name, and wait if it says so."""
    marks.note("order", name)
    if name.startswith("gated"):
        marks.note(f"started-{name}", os.getpid())
        marks.wait(f"go-{name}")
    return {"pid": [os.getpid()]}


def add_levels(app: AnyServe) -> None:
    """Add handlers with each kind of default priority."""

    @app.capability(type="plain")
    def plain(name: str) -> Answer:
        return run(name)

    @app.capability(type="urgent", priority=1)
    def urgent(name: str) -> Answer:
        return run(name)

    @app.capability(type="patient", priority=8)
    def patient(name: str) -> Answer:
        return run(name)


def add_limited(app: AnyServe) -> None:
    @app.capability(type="narrow", max_queue=4)
    def narrow(name: str) -> Answer:
        return run(name)

    @app.capability(type="hasty", timeout_s=5)
    def hasty(name: str, context: Context) -> dict[str, list[float]]:
        """Say how much time there is."""
        left = context.remaining()
        return {"remaining": [-1.0 if left is None else left]}
