"""Call the capability of `app.py` many times at once. Start the replica first; the README has the commands."""

import asyncio
import os

import numpy as np

from anyserve import AsyncClient
from anyserve.client import InferResult
from anyserve.errors import InvalidInput

ENDPOINT = os.environ.get("ANYSERVE_ENDPOINT", "127.0.0.1:8000")
REQUESTS = 64


async def main() -> None:
    """Send 64 requests with one or two vectors each, and one with zeros that nobody else suffers from."""
    vectors = [np.full((1 + number % 2, 4), float(number)) for number in range(REQUESTS)]  # The first one is zeros.
    async with AsyncClient(endpoint=ENDPOINT) as client:
        calls = [client.infer("unit", {"vectors": own}, timeout_s=60) for own in vectors]
        results = await asyncio.gather(*calls, return_exceptions=True)
    answers = [result for result in results if isinstance(result, InferResult)]
    errors = [result for result in results if isinstance(result, InvalidInput)]
    lengths = {float(row @ row) for own in answers for row in own["unit"]}

    print("answers:", len(answers), "with vectors of length", lengths)
    print("errors:", *(f"{error.code}: {error}" for error in errors))
    print("fewer calls than requests:", sum(1 / own["shared_by"][0] for own in answers) < len(answers))


if __name__ == "__main__":
    asyncio.run(main())
