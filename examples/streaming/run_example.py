"""Take the streams of `app.py`. Start the replica first; the README has the commands."""

import os

from anyserve import Client

ENDPOINT = os.environ.get("ANYSERVE_ENDPOINT", "127.0.0.1:8000")


def main() -> None:
    """Print every token as it comes, from each of the three handlers; then leave a stream before its end."""
    with Client(endpoint=ENDPOINT) as client:
        for model in ("tokens", "tokens-async", "tokens-sent"):
            parts = client.stream(model, {"prompt": ["one two three"]}, timeout_s=30)
            print(f"{model}:", *(part["token"][0].decode() for part in parts))

        for part in client.stream("tokens", {"prompt": ["first " + "more " * 1000]}, timeout_s=30):
            print("left after:", part["token"][0].decode())
            break  # The handler is told, and stops.


if __name__ == "__main__":
    main()
