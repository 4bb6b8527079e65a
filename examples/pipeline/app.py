"""Three steps, each a capability of its own, and one that calls them one after the other.

`report` has workers of its own, in a group apart from the steps: a handler keeps its place while it waits for a call,
and nobody should wait for the place that he holds himself.
"""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from anyserve import AnyServe, Context, ModelInferRequest

app = AnyServe()


@app.capability(type="tokenize")
def tokenize(text: str) -> dict[str, list[str]]:
    """Cut a text into words."""
    words = (word.strip(".,;:!?").lower() for word in text.split())
    return {"tokens": [word for word in words if word]}


@app.capability(type="analyze")
def analyze(request: ModelInferRequest) -> dict[str, list[Any]]:
    """Count the words, the most frequent first; those that are as frequent stand in the order of the alphabet."""
    tokens = request.input("tokens").as_numpy().tolist()
    counts = sorted(Counter(tokens).items(), key=lambda pair: (-pair[1], pair[0]))
    return {"words": [word for word, _ in counts], "counts": [count for _, count in counts]}


@app.capability(type="format")
def format_line(word: str, count: int) -> dict[str, list[str]]:
    """Write one line."""
    return {"line": [f"{word} {'*' * count}"]}


@app.capability(type="report", concurrency=64, min_workers=1)
async def report(text: str, context: Context) -> dict[str, list[str]]:
    """Call the steps, and give the lines together."""
    lines = [line async for line in lines_of(text, context)]
    return {"report": lines}


@app.capability(type="lines", stream=True, concurrency=64, min_workers=1)
async def lines(text: str, context: Context) -> AsyncIterator[dict[str, list[str]]]:
    """Do the same and send each line as it comes."""
    async for line in lines_of(text, context):
        yield {"line": [line]}


async def lines_of(text: str, context: Context) -> AsyncIterator[str]:
    """Run the pipeline: what one step answers, as arrays, is what the next one is given."""
    tokens = await context.acall({"type": "tokenize"}, {"text": text})
    counted = await context.acall({"type": "analyze"}, {"tokens": tokens["tokens"]})
    for word, count in list(zip(counted["words"], counted["counts"], strict=True))[:3]:
        formatted = await context.acall({"type": "format"}, {"word": word, "count": int(count)})
        yield formatted["line"][0].decode()
