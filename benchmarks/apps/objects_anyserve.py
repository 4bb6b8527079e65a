"""A handler that times the object plane from the inside, and echoes of large tensors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from objects_timing import measure

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, Objects, ObjRef

app = AnyServe()


class Plane:
    """The object plane, as a store to be timed."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def put(self, value: NDArray[np.uint8]) -> ObjRef:
        return self._objects.create(value)

    def get(self, ref: ObjRef) -> Any:
        return self._objects.get(ref)

    def delete(self, ref: ObjRef) -> None:
        self._objects.delete(ref)


@app.capability(type="times")
def times(request: ModelInferRequest, context: Context) -> dict[str, NDArray[np.float64]]:
    """Give the seconds that each copy, put, get and delete of ``size`` bytes took."""
    size = int(request.input("size").as_numpy()[0])
    seconds = float(request.input("seconds").as_numpy()[0])
    samples = measure(Plane(context.objects), size, seconds)
    return {name: np.array(taken) for name, taken in samples.items()}


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    """Answer with every input, unchanged."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        output = response.add_output(name=f"output_{tensor.name}", datatype=tensor.datatype, shape=tensor.shape)
        output.contents = tensor.contents
    return response


@app.capability(type="copy")
def copy(request: ModelInferRequest) -> ModelInferResponse:
    """Answer with a new array for every input, as a handler does that computes something."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        response.add_output(f"output_{tensor.name}", tensor.as_numpy().copy())
    return response
