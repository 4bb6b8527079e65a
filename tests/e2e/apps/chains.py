"""A chain of capabilities, each in a group of its own: `a` calls `b`, `b` calls `c`. Tests hold it where they want."""

from typing import Any

import marks

from anyserve import AnyServe, Context

NEXT = {"a": "b", "b": "c", "c": None}
CONCURRENCY = 4


def create() -> AnyServe:
    """Make the app."""
    app = AnyServe()
    for name, following in NEXT.items():
        add(app, name, following)
    return app


def add(app: AnyServe, name: str, following: str | None) -> None:
    def link(text: str, context: Context) -> dict[str, Any]:
        """Add a letter to what the rest of the chain says. A text such as `x@b` is held at `b` by the gate `go-x`."""
        held, _, where = text.partition("@")
        if where == name:
            marks.note(f"held-{held}", name)
            while not context.cancelled and not marks.is_open(f"go-{held}"):
                marks.pause()
        said = text if following is None else context.call(following, {"text": text})["text"][0].decode()
        return {"text": [f"{said} {name}"]}

    link.__name__ = name
    app.capability(type=name, min_workers=1, concurrency=CONCURRENCY)(link)
