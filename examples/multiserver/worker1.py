"""A replica that multiplies."""

import numpy as np
from numpy.typing import NDArray

from anyserve import AnyServe, TensorSpec

app = AnyServe()

NUMBERS = [TensorSpec("a", "FP64", [-1]), TensorSpec("b", "FP64", [-1])]


@app.capability(type="multiply", inputs=NUMBERS)
def multiply(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Multiply element by element."""
    return {"result": a * b}
