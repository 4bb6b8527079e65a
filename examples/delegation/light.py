"""A replica for small things: what asks for more goes to `decode.heavy`."""

from anyserve import AnyServe

app = AnyServe(upgrade="type=decode -> type=decode.heavy")


@app.capability(type="decode", size="small")
def decode(text: str) -> dict[str, list[str]]:
    """Decode something small."""
    return {"text": [text.lower()], "by": ["light"]}
