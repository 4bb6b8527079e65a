"""The echo that the benchmark calls, as an AnyServe app."""

from anyserve import AnyServe, ModelInferRequest, ModelInferResponse

app = AnyServe()


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    """Answer with every input, unchanged."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        output = response.add_output(name=f"output_{tensor.name}", datatype=tensor.datatype, shape=tensor.shape)
        output.contents = tensor.contents
    return response
