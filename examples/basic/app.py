"""Three capabilities: one takes the request as it is, one takes its inputs by name, one is a coroutine."""

import asyncio

import numpy as np
import numpy.typing as npt

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, TensorSpec

app = AnyServe()

Floats = npt.NDArray[np.float32]


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    """Give every input back as `output_<name>`, whatever its datatype: nothing is copied."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for inp in request.inputs:
        out = response.add_output(name=f"output_{inp.name}", datatype=inp.datatype, shape=inp.shape)
        out.contents = inp.contents
    return response


@app.capability(
    type="add",
    inputs=[TensorSpec("a", "FP32", [-1]), TensorSpec("b", "FP32", [-1])],
    outputs=[TensorSpec("sum", "FP32", [-1])],
)
def add(a: Floats, b: Floats) -> dict[str, Floats]:
    """Add two vectors; the declared inputs are checked before this is called."""
    return {"sum": a + b}


@app.capability(type="wait", concurrency=64)
async def wait(seconds: float, context: Context) -> dict[str, list[float]]:
    """Wait on something else, as up to 64 requests do at the same time on one event loop."""
    context.log.info("waiting %g s", seconds)
    await asyncio.sleep(seconds)
    return {"waited": [seconds]}
