"""Store an image, call with references to it, and delete it. Start the replica first; the README has the commands."""

import os

import numpy as np

from anyserve import Client
from anyserve.errors import NotFound

ENDPOINT = os.environ.get("ANYSERVE_ENDPOINT", "127.0.0.1:8000")


def main() -> None:
    """Send four mebibytes once, and 49 characters from then on."""
    image = np.full((1024, 1024), 0.5, np.float32)
    with Client(endpoint=ENDPOINT) as client:
        ref = client.infer("store", {"image": image, "key": "user-123-image"})["ref"]
        print("stored:", type(ref).__name__, "of", len(str(ref)), "characters")

        print("mean of the array:", client.infer("mean", {"image": image})["mean"][0])
        print("mean by reference:", client.infer("mean", {"image": ref})["mean"][0])
        print("mean by key:", client.infer("mean-of", {"key": "user-123-image"})["mean"][0])

        print("forgotten:", client.infer("forget", {"image": ref})["forgotten"][0])
        try:
            client.infer("mean", {"image": ref})
        except NotFound as error:
            print("mean by reference:", error.code)


if __name__ == "__main__":
    main()
