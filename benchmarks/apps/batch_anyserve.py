"""The echo for batches as an AnyServe capability: a list of requests becomes one array, and its rows the answers."""

import numpy as np

from anyserve import AnyServe, ModelInferRequest, ModelInferResponse

app = AnyServe()


@app.capability(type="echo", max_batch_size=32)
def echo(requests: list[ModelInferRequest]) -> list[ModelInferResponse]:
    """Answer each request with its input, after one operation on all of them."""
    whole = np.stack([request.inputs[0].as_numpy() for request in requests]) * np.float32(1)
    responses = []
    for request, row in zip(requests, whole, strict=True):
        response = ModelInferResponse(model_name=request.model_name, id=request.id)
        response.add_output("output_x", row)
        responses.append(response)
    return responses
