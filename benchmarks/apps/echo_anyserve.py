"""The echo and the token stream that the benchmark calls, as an AnyServe app."""

from collections.abc import Iterator

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse

app = AnyServe()


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    """Answer with every input, unchanged."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        output = response.add_output(name=f"output_{tensor.name}", datatype=tensor.datatype, shape=tensor.shape)
        output.contents = tensor.contents
    return response


@app.capability(type="tokens", stream=True)
def tokens(request: ModelInferRequest, context: Context) -> Iterator[ModelInferResponse]:
    """Answer as many times as the request's parameter ``answers`` says."""
    for index in range(int(context.parameters["answers"])):
        response = ModelInferResponse(model_name=request.model_name, id=request.id)
        output = response.add_output(name="token", datatype="INT32", shape=[1])
        output.contents.int_contents = [index]
        yield response
