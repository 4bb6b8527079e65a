"""The messages of the KServe v2 protocol as handlers and clients see them.

The messages themselves live in `_core`, where their bytes stay; `TensorSpec` is plain Python, because it is written by
people and read once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from anyserve._core import Contents, InferInput, InferOutput, ModelInferRequest, ModelInferResponse

__all__ = ["Contents", "InferInput", "InferOutput", "ModelInferRequest", "ModelInferResponse", "TensorSpec"]

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
    "BF16",
)  # fmt: skip
"""Every datatype of the protocol."""


@dataclass(frozen=True, slots=True, init=False)
class TensorSpec:
    """Name, datatype and shape of a tensor that a capability takes or gives.

    Args:
        name: name of the tensor; not empty.
        datatype: one of the protocol's 14, such as ``"FP32"``.
        shape: one number per dimension, at least 0, or -1 for a dimension of any size. Requests have exactly this rank.

    Raises:
        ValueError: an empty name, an unknown datatype or a dimension below -1.
        TypeError: a shape that is not made of whole numbers.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __init__(self, name: str, datatype: str, shape: Iterable[int]) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a tensor is a text with at least one character, not {name!r}")
        if datatype not in DATATYPES:
            raise ValueError(f"{name!r} has the unknown datatype {datatype!r}; there are {', '.join(DATATYPES)}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "datatype", datatype)
        object.__setattr__(self, "shape", _dimensions(name, shape))


def _dimensions(name: str, shape: Iterable[int]) -> tuple[int, ...]:
    dimensions = tuple(shape)
    for dimension in dimensions:
        if not isinstance(dimension, int) or isinstance(dimension, bool):
            raise TypeError(f"the shape of {name!r} is a list of whole numbers, not {list(dimensions)!r}")
        if dimension < -1:
            raise ValueError(f"dimension {dimension} of {name!r} is negative; -1 stands for any size")
    return dimensions
