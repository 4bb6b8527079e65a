"""Handlers for tensors in memory that clients share."""

import os

import marks
import numpy as np

from anyserve import AnyServe, ModelInferRequest, ModelInferResponse, TensorSpec

ANY = -1

app = AnyServe()


@app.capability(
    type="add",
    inputs=[TensorSpec("a", "FP32", [ANY]), TensorSpec("b", "FP32", [ANY])],
    outputs=[TensorSpec("sum", "FP32", [ANY]), TensorSpec("difference", "FP32", [ANY])],
)
def add(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    return {"sum": a + b, "difference": a - b}


@app.capability(type="same", concurrency=4)
def same(request: ModelInferRequest) -> ModelInferResponse:
    """Give every input back under its name."""
    response = ModelInferResponse()
    for inp in request.inputs:
        response.add_output(inp.name, inp.as_numpy(), datatype=inp.datatype)
    return response


@app.capability(type="late", concurrency=4)
def late(request: ModelInferRequest) -> ModelInferResponse:
    """Look at the inputs only once the test says so."""
    marks.note("began", os.getpid())
    marks.wait("look")
    response = ModelInferResponse()
    for inp in request.inputs:
        response.add_output(inp.name, inp.as_numpy().copy(), datatype=inp.datatype)
    return response


@app.capability(type="seen")
def seen(request: ModelInferRequest) -> dict[str, list[str]]:
    """Name the parameters that reached the handler with its first input."""
    return {"parameters": sorted(request.inputs[0].parameters) or ["none"]}


@app.capability(type="parts", stream=True, inputs=[TensorSpec("x", "FP32", [ANY])])
def parts(x: np.ndarray):
    """Answer with the input, then with twice it."""
    yield {"y": x}
    yield {"y": 2 * x}
