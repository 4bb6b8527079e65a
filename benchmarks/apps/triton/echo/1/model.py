"""The echo as a model of Triton's python backend."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Gives back the array it gets."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with its input ``x`` as ``output_x``."""
        return [self._echo(request) for request in requests]

    def _echo(self, request: Any) -> Any:
        array = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("output_x", array)])
