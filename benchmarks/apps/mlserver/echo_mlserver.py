"""The echo as an MLServer model."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Echo(MLModel):
    """Gives back the tensors it gets, in whatever form they came: no codec in between."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(
                name=f"output_{tensor.name}",
                datatype=tensor.datatype,
                shape=tensor.shape,
                parameters=tensor.parameters,
                data=tensor.data,
            )
            for tensor in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
