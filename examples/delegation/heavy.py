"""A replica for large things."""

from anyserve import AnyServe

app = AnyServe()


@app.capability(type="decode.heavy", size="large")
def decode(text: str) -> dict[str, list[str]]:
    """Decode something large."""
    return {"text": [text.lower()], "by": ["heavy"]}
