"""The echo for batches as a mosec worker: a list of arrays becomes one array, and its rows the answers."""

import numpy as np
from mosec import Server, Worker
from numpy.typing import NDArray


class Echo(Worker):
    """Gives back the arrays it gets, after one operation on all of them."""

    def deserialize(self, data: bytes) -> NDArray[np.float32]:
        return np.frombuffer(data, dtype=np.float32)

    def serialize(self, data: NDArray[np.float32]) -> bytes:
        return data.tobytes()

    def forward(self, data: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return list(np.stack(data) * np.float32(1))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, num=1, max_batch_size=32, max_wait_time=1)
    server.run()
