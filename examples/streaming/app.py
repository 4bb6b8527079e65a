"""A prompt in, its words out one by one: as a generator, as an async generator, and by sending on a stream."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, Stream, TensorSpec

app = AnyServe()

PROMPT = [TensorSpec("prompt", "BYTES", [1])]
TOKEN = [TensorSpec("token", "BYTES", [1])]


@app.capability(type="tokens", stream=True, inputs=PROMPT, outputs=TOKEN)
def tokens(prompt: str) -> Iterator[dict[str, list[str]]]:
    """A generator: each value it yields is one answer. It is closed when the caller leaves."""
    for word in prompt.split():
        yield {"token": [word]}


@app.capability(type="tokens-async", stream=True, inputs=PROMPT, outputs=TOKEN, concurrency=64)
async def tokens_async(prompt: str) -> AsyncIterator[dict[str, list[str]]]:
    """An async generator: 64 of them take turns on one event loop."""
    for word in prompt.split():
        await asyncio.sleep(0)
        yield {"token": [word]}


@app.capability(type="tokens-sent", stream=True, inputs=PROMPT, outputs=TOKEN)
def tokens_sent(request: ModelInferRequest, context: Context, stream: Stream) -> None:
    """A function that sends: for code that calls back. `send` waits while the caller is behind."""
    prompt: bytes = request.input("prompt").as_numpy()[0]
    for word in prompt.split():
        if context.cancelled:
            return
        response = ModelInferResponse(model_name=request.model_name, id=request.id)
        response.add_output("token", np.array([word], dtype=object))
        stream.send(response)
