"""Ask one replica for two things, one of which it cannot do. The README has the commands that come first."""

import argparse

from anyserve import Client
from anyserve.errors import NoCapability

parser = argparse.ArgumentParser(description=(__doc__ or "").partition(". ")[0])
parser.add_argument("--endpoint", default="localhost:8000")
ENDPOINT: str = parser.parse_args().endpoint


def main() -> None:
    """The replica serves the first itself and hands the second on; nobody serves the third."""
    with Client(endpoint=ENDPOINT) as client:
        for size in ("small", "large", "huge"):
            try:
                result = client.infer({"type": "decode", "size": size}, {"text": ["HELLO"]}, timeout_s=30)
                print(f"{size}: {result['text'][0].decode()}, by {result['by'][0].decode()}")
            except NoCapability:
                print(f"{size}: nobody")


if __name__ == "__main__":
    main()
