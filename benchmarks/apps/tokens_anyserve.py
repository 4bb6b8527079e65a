"""The token stream that the benchmark calls: one worker generates up to 64 of them at the same time."""

from collections.abc import AsyncIterator

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse

app = AnyServe()


@app.capability(type="tokens", stream=True, concurrency=64)
async def tokens(request: ModelInferRequest, context: Context) -> AsyncIterator[ModelInferResponse]:
    """Answer as many times as the request's parameter ``answers`` says."""
    for index in range(int(context.parameters["answers"])):
        response = ModelInferResponse(model_name=request.model_name, id=request.id)
        output = response.add_output(name="token", datatype="INT32", shape=[1])
        output.contents.int_contents = [index]
        yield response


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    """Answer with every input, unchanged: by this the benchmark sees that the app is up."""
    response = ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        output = response.add_output(name=f"output_{tensor.name}", datatype=tensor.datatype, shape=tensor.shape)
        output.contents = tensor.contents
    return response
