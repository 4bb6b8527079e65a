"""Between the tensors of a request and the values that a typed handler takes and returns.

Taking: an array as it is, or one element as `str`, `bytes`, `int`, `float` or `bool`, or all elements as a list. A
reference to an array or to bytes was resolved before; one to a dict is given as an `ObjRef` where an array would be.
Giving: a dict from names to values; without names one value, or a tuple in the order of the declared outputs. A value
is an array, or whatever NumPy makes one of; a scalar, a text or bytes become one element with shape ``[1]``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from anyserve._core import ObjRef
from anyserve.errors import InvalidInput
from anyserve.kserve import InferInput, ModelInferRequest, ModelInferResponse, TensorSpec

Array = npt.NDArray[Any]
Reader = Callable[[InferInput], Any]
"""Makes the value that a handler's parameter gets out of an input."""

_DTYPES: Mapping[str, np.dtype[Any]] = {datatype: np.dtype(made_of) for datatype, made_of in {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32,
    "FP64": np.float64, "BYTES": np.object_, "BF16": np.float32,
}.items()}  # fmt: skip
"""What an output of each datatype is made of; BF16 has no NumPy type and is rounded from float32."""

ARRAYS = ("", "ndarray", "NDArray", "ArrayLike")
"""Types of parameters that get the array; empty is none."""

_KINDS = {"int": "iu", "float": "fiu", "bool": "b", "str": "OSU", "bytes": "OSU"}
"""Which kinds of array an element of each Python type may come from."""


def reader_for(type_name: str, element: str) -> Reader | None:
    """Find how an input becomes a value of the type that a parameter is annotated with.

    Args:
        type_name: the annotation's outermost type; empty for a parameter without one.
        element: the type between its brackets, or empty.

    Returns:
        The reader, or ``None`` for a type that no input can become.
    """
    if type_name in ARRAYS:
        return InferInput._value  # noqa: SLF001 - the other half of what a typed handler takes
    if type_name == "ObjRef":
        return _reference
    if type_name == "InferInput":
        return _itself
    if type_name in ("list", "Sequence") and element in ("", "Any", *_KINDS):
        return lambda tensor: _elements(tensor, element if element in _KINDS else "").tolist()
    if type_name in _KINDS:
        return lambda tensor: _one(tensor, type_name)
    return None


def _reference(tensor: InferInput) -> ObjRef:
    ref = tensor.objref
    if ref is None:
        raise InvalidInput(f"input {tensor.name!r} is a {tensor.datatype} tensor, expected a reference to an object")
    return ref


def _itself(tensor: InferInput) -> InferInput:
    return tensor


def _one(tensor: InferInput, wanted: str) -> Any:
    elements = _elements(tensor, wanted)
    if elements.size != 1:
        raise InvalidInput(f"input {tensor.name!r} has {elements.size} elements, expected one {wanted}")
    return elements.reshape(-1)[0] if elements.dtype.kind == "O" else elements.item()


def _elements(tensor: InferInput, wanted: str) -> Array:
    array = tensor._value()  # noqa: SLF001 - the other half of what a typed handler takes
    if isinstance(array, ObjRef):
        raise InvalidInput(f"input {tensor.name!r} is a reference to an object that is no array")
    if wanted and array.dtype.kind not in _KINDS[wanted]:
        raise InvalidInput(f"input {tensor.name!r} has datatype {tensor.datatype}, which is no {wanted}")
    if wanted == "str":
        return _decoded(array, tensor.name)
    return array.astype(np.float64) if wanted == "float" else array


def _decoded(array: Array, name: str) -> Array:
    texts = np.empty(array.shape, dtype=np.object_)
    try:
        for place, element in enumerate(array.flat):
            texts.flat[place] = element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {name!r} is not UTF-8: {error.reason} at byte {error.start}") from error
    return texts


class Writer:
    """Makes a response of what a typed handler returned.

    Args:
        function: the handler's name, for messages.
        outputs: what the capability declares, or ``None``.
    """

    __slots__ = ("_function", "_outputs", "_specs")

    def __init__(self, function: str, outputs: Sequence[TensorSpec] | None) -> None:
        self._function = function
        self._outputs = outputs
        self._specs = {spec.name: spec for spec in outputs or ()}

    def __call__(self, value: Any, request: ModelInferRequest) -> ModelInferResponse:
        """Make the response to a request.

        Raises:
            TypeError: the value is nothing that outputs can be made of, or not what was declared.
        """
        if isinstance(value, ModelInferResponse):
            return value
        response = ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, output in self._named(value).items():
            self._add(response, name, output)
        return response

    def _named(self, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return self._checked(value)
        if value is None:
            raise TypeError(f"{self._function!r} returned None; return a dict from output names to arrays")
        if isinstance(value, tuple):
            return self._by_place(value)
        names = [spec.name for spec in self._outputs or ()] or ["output"]
        if len(names) > 1:
            raise TypeError(f"{self._function!r} returned one value for the outputs {', '.join(names)}")
        return {names[0]: value}

    def _checked(self, named: Mapping[Any, Any]) -> Mapping[str, Any]:
        if self._outputs is None:
            wrong = [name for name in named if not isinstance(name, str)]
            if wrong:
                raise TypeError(f"{self._function!r} returned the key {wrong[0]!r}; the name of an output is a str")
        elif named.keys() != self._specs.keys():
            got, declared = _listed(map(str, named)), _listed(self._specs)
            raise TypeError(f"{self._function!r} returned the outputs {got}, but declares {declared}")
        return named

    def _by_place(self, values: tuple[Any, ...]) -> Mapping[str, Any]:
        if self._outputs is None:
            raise TypeError(
                f"{self._function!r} returned a tuple, whose outputs have no names; "
                "return a dict, or declare outputs=[…]"
            )
        if len(values) != len(self._outputs):
            raise TypeError(f"{self._function!r} returned {len(values)} values, but declares {_listed(self._specs)}")
        return dict(zip(self._specs, values, strict=True))

    def _add(self, response: ModelInferResponse, name: str, value: Any) -> None:
        spec = self._specs.get(name)
        if isinstance(value, ObjRef):
            self._check_reference(spec)
            response.add_output(name, value)
            return
        if spec is None:
            response.add_output(name, self._array(name, value))
            return
        array = self._array(name, value, spec.datatype)
        self._check(array, spec)
        response.add_output(name, array, datatype=spec.datatype)

    def _array(self, name: str, value: Any, datatype: str | None = None) -> Array:
        try:
            return as_array(value, datatype)
        except TypeError as error:
            raise TypeError(f"{self._function!r} returned {name!r}: {error}") from error.__cause__

    def _check_reference(self, spec: TensorSpec | None) -> None:
        if spec is not None and (spec.datatype != "BYTES" or spec.shape not in ((1,), (-1,))):
            raise TypeError(
                f"{self._function!r} returned {spec.name!r} as a reference, but declares {spec.datatype} with shape "
                f'{list(spec.shape)}; declare TensorSpec({spec.name!r}, "BYTES", [1])'
            )

    def _check(self, array: Array, spec: TensorSpec) -> None:
        if array.dtype != _DTYPES[spec.datatype]:
            raise TypeError(
                f"{self._function!r} returned {spec.name!r} as {array.dtype}, but declares {spec.datatype}; "
                f"convert it with .astype(np.{_DTYPES[spec.datatype].name})"
            )
        fits = zip(array.shape, spec.shape, strict=False)
        if array.ndim != len(spec.shape) or any(wanted not in (-1, size) for size, wanted in fits):
            shape, declared = list(array.shape), list(spec.shape)
            raise TypeError(f"{self._function!r} returned {spec.name!r} with shape {shape}, but declares {declared}")


def as_array(value: Any, datatype: str | None = None) -> Array:
    """Make an array of what a handler returned for one output.

    Args:
        value: an array, which keeps its type; or a scalar, text, bytes or nested list of those.
        datatype: what a value that is no array is converted to; ``None`` lets NumPy choose.

    Raises:
        TypeError: no array can be made of it.
    """
    if isinstance(value, np.ndarray):
        return value.astype(np.object_) if value.dtype.kind in "SU" else value
    if isinstance(value, str | bytes) or _holds_text(value):
        # NumPy's own types for text cut zero bytes off at the end.
        return np.array([value] if isinstance(value, str | bytes) else value, dtype=np.object_)
    dtype = None if datatype is None or isinstance(value, np.generic) else _DTYPES[datatype]
    try:
        array = np.asarray(value, dtype=dtype)
    except (ValueError, OverflowError) as error:
        raise TypeError(f"no array can be made of {type(value).__name__}: {error}") from error
    if array.dtype.kind in "OSU" and datatype != "BYTES":
        raise TypeError(
            f"no array can be made of {type(value).__name__}; give a number, a text, bytes, a list of one of them, "
            "or an array"
        )
    return array.reshape(1) if array.ndim == 0 else array


def _holds_text(value: Any) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | bytes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
