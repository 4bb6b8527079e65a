"""What several tests of the Python package need."""

from collections.abc import Callable

import numpy as np
import pytest

from anyserve import InferInput, ModelInferRequest


@pytest.fixture
def make_request() -> Callable[..., ModelInferRequest]:
    """A request with one input per keyword."""

    def make(**arrays) -> ModelInferRequest:
        inputs = []
        for name, value in arrays.items():
            array = np.asarray(value, dtype=object if isinstance(value, list) and isinstance(value[0], bytes) else None)
            inputs.append(InferInput(name, array))
        return ModelInferRequest("m", inputs, id="7")

    return make
