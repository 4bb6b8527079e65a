"""The echo as a mosec worker: raw FP32 bytes in, a NumPy array for the handler, raw bytes out."""

import os
from pathlib import Path

import numpy as np
from mosec import Server, Worker
from numpy.typing import NDArray


class Echo(Worker):
    """Gives back the array it gets. The benchmark of restarts wants to know who to kill."""

    def __init__(self) -> None:
        super().__init__()
        Path("worker.pid").write_text(str(os.getpid()))

    def deserialize(self, data: bytes) -> NDArray[np.float32]:
        return np.frombuffer(data, dtype=np.float32)

    def serialize(self, data: NDArray[np.float32]) -> bytes:
        return data.tobytes()

    def forward(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, num=1)
    server.run()
