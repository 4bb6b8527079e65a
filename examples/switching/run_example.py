"""Ask the three models of `app.py` in turn, then all at once. Start the replica first; the README has the commands."""

import asyncio
import os

from anyserve import AsyncClient

ENDPOINT = os.environ.get("ANYSERVE_ENDPOINT", "127.0.0.1:8000")
MODELS = ("translate", "summarize", "shout")


async def main() -> None:
    """Every model answers, although only one of them fits."""
    async with AsyncClient(endpoint=ENDPOINT) as client:

        async def ask(model: str, text: str) -> str:
            answer = await client.infer(model, {"text": [text]}, timeout_s=60)
            return f"{model}: {answer['text'][0].decode()}"

        for model in MODELS:
            print(await ask(model, "no hurry"))
        together = [ask(model, f"number {number}") for number in range(20) for model in MODELS]
        print("answers to 60 requests at once:", len(await asyncio.gather(*together)))


if __name__ == "__main__":
    asyncio.run(main())
