"""What several tests of the Python package need."""

from collections.abc import Callable

import numpy as np
import pytest

from anyserve import InferInput, ModelInferRequest
from tests.python.frames import FakeRuntime


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


@pytest.fixture
def run(request):
    """Starts workers for the apps of the test's module, and ends them after the test."""
    started = []

    def start(app: str, **options) -> FakeRuntime:
        started.append(FakeRuntime(f"{request.module.APPS}:{app}", **options))
        return started[-1]

    yield start
    for runtime in started:
        runtime.close()
