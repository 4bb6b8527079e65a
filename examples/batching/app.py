"""One capability that takes a list: what waits while a call runs is the next call, up to 32 requests together."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anyserve import AnyServe, ModelInferRequest, TensorSpec
from anyserve.errors import InvalidInput

app = AnyServe()

Answer = dict[str, npt.NDArray[np.float64] | list[int]]

COST_S = 0.01
"""What a call of a model costs, for one request as for 32: that is why they share it."""


@app.capability(
    type="unit",
    inputs=[TensorSpec("vectors", "FP64", [-1, -1])],
    outputs=[TensorSpec("unit", "FP64", [-1, -1]), TensorSpec("shared_by", "INT64", [1])],
    max_batch_size=32,
)
def unit(requests: list[ModelInferRequest]) -> list[Answer | InvalidInput]:
    """Scale vectors to length 1: the rows of all requests in one go, then an answer for each request, in order.

    The requests of a call have the same shape past the first axis, so that their rows can be put below each other.
    """
    rows = [request.input("vectors").as_numpy() for request in requests]
    scaled = model(np.concatenate(rows))
    parts = np.split(scaled, np.cumsum([len(own) for own in rows])[:-1])
    return [answer(part, requests) for part in parts]


def model(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stand in for a model: it takes its time, and a row of zeros comes out as no numbers."""
    time.sleep(COST_S)
    with np.errstate(invalid="ignore"):
        scaled: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def answer(scaled: npt.NDArray[np.float64], requests: Sequence[ModelInferRequest]) -> Answer | InvalidInput:
    """Answer one request. An exception in the list is the error of its request, and of no other."""
    if np.isnan(scaled).any():
        return InvalidInput("a vector of zeros has no direction")
    return {"unit": scaled, "shared_by": [len(requests)]}
