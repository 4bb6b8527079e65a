"""Call the capabilities of `app.py`. Start the replica first; the README has the commands."""

import asyncio
import os

import numpy as np

from anyserve import AsyncClient, Client
from anyserve.errors import InvalidInput

ENDPOINT = os.environ.get("ANYSERVE_ENDPOINT", "127.0.0.1:8000")


def call_one_after_another() -> None:
    """One answer per call; a request that does not fit is a typed error."""
    with Client(endpoint=ENDPOINT) as client:
        echoed = client.infer("echo", {"text": ["hello"]})
        print("echo:", echoed["output_text"][0].decode())

        a, b = np.array([1, 2, 3], dtype=np.float32), np.array([10, 20, 30], dtype=np.float32)
        print("add:", client.infer("add", {"a": a, "b": b})["sum"].tolist())
        try:
            client.infer("add", {"a": a})
        except InvalidInput as error:
            print("add without b:", error.code)


async def call_at_the_same_time() -> None:
    """Ten calls in flight on one connection, in one worker."""
    async with AsyncClient(endpoint=ENDPOINT) as client:
        calls = [client.infer("wait", {"seconds": [0.1]}, timeout_s=30) for _ in range(10)]
        print("wait:", len(await asyncio.gather(*calls)), "answers")


if __name__ == "__main__":
    call_one_after_another()
    asyncio.run(call_at_the_same_time())
