"""A replica that divides and raises to powers."""

import numpy as np
from numpy.typing import NDArray

from anyserve import AnyServe, TensorSpec
from anyserve.errors import InvalidInput

app = AnyServe()

NUMBERS = [TensorSpec("a", "FP64", [-1]), TensorSpec("b", "FP64", [-1])]


@app.capability(type="divide", inputs=NUMBERS)
def divide(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Divide element by element."""
    if not b.all():
        raise InvalidInput("input 'b' has a zero, and nothing can be divided by that")
    return {"result": a / b}


@app.capability(type="power", inputs=NUMBERS)
def power(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Raise to a power element by element."""
    return {"result": np.power(a, b)}
