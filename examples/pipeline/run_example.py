"""Run the pipeline of `app.py`. Start the replica first; the README has the commands."""

import os

from anyserve import Client
from anyserve.errors import AnyServeError

ENDPOINT = os.environ.get("ANYSERVE_ENDPOINT", "127.0.0.1:8000")
TEXT = "The cat saw the dog. The dog saw the bird, and the bird saw nothing."


def main() -> None:
    """Ask for a report at once, and line by line; a mistake in a step is the caller's error."""
    with Client(endpoint=ENDPOINT) as client:
        print("report:", [line.decode() for line in client.infer("report", {"text": TEXT}, timeout_s=30)["report"]])
        for part in client.stream("lines", {"text": TEXT}, timeout_s=30):
            print("line:", part["line"][0].decode())
        try:
            client.infer("analyze", {"words": ["a"]})
        except AnyServeError as error:
            print("analyze without tokens:", error.code)


if __name__ == "__main__":
    main()
