"""Handlers to ask about: every one notes that it was called, and what is told to wait waits for the test."""

import os
import signal
import time
from collections.abc import Iterator

import marks

from anyserve import AnyServe

Answer = dict[str, list[int] | list[str]]


def create() -> AnyServe:
    """Make an app with sync handlers, each in a thread of its own."""
    obey_at_start()
    app = AnyServe()
    add_models(app)
    add_waiting(app)
    add_twins(app)
    add_special(app)
    return app


def obey_at_start() -> None:
    """Die, or wait, as long as the test wants every start to."""
    if (marks.NOTES / "die-at-start").exists():
        os._exit(9)
    while (marks.NOTES / "hold-up-start").exists():
        time.sleep(marks.PAUSE_S)


def called(name: str, handler: str) -> Answer:
    """Note the call, and wait for the test if the name says so."""
    marks.note("called", f"{handler} {name}".strip())
    if name.startswith("gated"):
        marks.note(f"started-{name}", os.getpid())
        marks.wait(f"go-{name}")
    return {"pid": [os.getpid()], "handler": [handler]}


def add_models(app: AnyServe) -> None:
    @app.capability(type="chat", model="small", size=7, languages="en")
    def small(name: str) -> Answer:
        return called(name, "small")

    @app.capability(type="chat", model="large", size=70, beta=True, languages="en")
    def large(name: str) -> Answer:
        return called(name, "large")


def add_waiting(app: AnyServe) -> None:
    @app.capability(type="hold")
    def hold(name: str) -> Answer:
        return called(name, "hold")

    @app.capability(type="narrow", max_queue=2)
    def narrow(name: str) -> Answer:
        return called(name, "narrow")

    @app.capability(type="slow")
    def slow(name: str) -> Answer:
        """Take a twentieth of a second."""
        time.sleep(0.05)
        return called(name, "slow")


def add_twins(app: AnyServe) -> None:
    """Add two that match `type=twin` equally well."""

    @app.capability(type="twin", side="left")
    def left(name: str) -> Answer:
        return called(name, "left")

    @app.capability(type="twin", side="right")
    def right(name: str) -> Answer:
        return called(name, "right")


def add_special(app: AnyServe) -> None:
    @app.capability(type="die", idempotent=True)
    def die(name: str) -> Answer:
        """End this process, unless the test has tamed it."""
        marks.note("called", "die")
        if not (marks.NOTES / f"tame-{name}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        return called(name, "die")

    @app.capability(type="talk", sequence=True, concurrency=4)
    def talk(name: str) -> Answer:
        return called(name, "talk")

    @app.capability(type="parts", stream=True)
    def parts(name: str) -> Iterator[Answer]:
        yield called(name, "parts")
