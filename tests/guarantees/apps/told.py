"""An app that is made as the test says: capabilities and rules by variables. Its handlers tell what came to them."""

import json
import os
import time
from collections.abc import Iterator

from anyserve import AnyServe, Context

NAME = os.environ["TOLD_NAME"]
CAPABILITIES: list[dict[str, str]] = json.loads(os.environ["TOLD_CAPABILITIES"])
PART_S = float(os.environ.get("TOLD_PART_S", "0"))

app = AnyServe(upgrade=json.loads(os.environ.get("TOLD_UPGRADE", "[]")))

Answer = dict[str, list[str]]


def tell(text: str, context: Context) -> Answer:
    """Say who answers, and what came along."""
    remaining = context.remaining()
    return {
        "text": [text],
        "by": [NAME],
        "id": [context.request_id],
        "trace": [context.headers.get("traceparent", "")],
        "delegations": [context.headers.get("x-anyserve-delegations", "")],
        "remaining": ["" if remaining is None else f"{remaining:.3f}"],
    }


def tell_in_parts(text: str, context: Context) -> Iterator[Answer]:
    """The same eight times, with a pause between."""
    for part in range(8):
        yield tell(f"{text} {part}", context)
        time.sleep(PART_S)


for keys in CAPABILITIES:
    stream = keys["type"].startswith("talk")
    handler = tell_in_parts if stream else tell
    app.capability(keys, concurrency=8, idempotent=not stream, stream=stream)(handler)
