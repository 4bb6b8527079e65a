"""The echo as a LitServe API. LitServe's requests are JSON, so the array travels as a list."""

import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray


class Echo(litserve.LitAPI):
    """Gives back the array it gets."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the signature is LitServe's
        """Nothing to load; the benchmark of restarts wants to know who to kill."""
        Path("worker.pid").write_text(str(os.getpid()))

    def decode_request(self, request: dict[str, Any]) -> NDArray[np.float32]:
        return np.asarray(request["x"], dtype=np.float32)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, Any]:
        return {"x": output.tolist()}


if __name__ == "__main__":
    restarts = "--restart-workers" in sys.argv
    server = litserve.LitServer(Echo(), accelerator="cpu", devices=1, workers_per_device=1, restart_workers=restarts)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
