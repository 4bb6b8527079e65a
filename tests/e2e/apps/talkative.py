"""A handler that says a lot on its way."""

import sys

from anyserve import AnyServe

app = AnyServe()


@app.capability(type="talk")
def talk(lines: int) -> dict[str, list[int]]:
    """Say so many lines of 1 KiB, which go to the replica's log."""
    for _ in range(lines):
        print("x" * 1023, file=sys.stderr)
    sys.stderr.flush()
    return {"said": [lines]}
