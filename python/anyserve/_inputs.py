"""What a client is given for an input, as a tensor.

A value is an array, a scalar, a `str`, `bytes`, a nested list or tuple of those, an `InferInput`, an `ObjRef`, or a
dict ``{"data": …, "datatype": …, "shape": …, "parameters": …}`` of which only ``data`` must be there.

- An array keeps its datatype and shape. A NumPy scalar has the shape ``[1]``.
- `str` and `bytes` become BYTES; text is UTF-8.
- `bool` becomes BOOL, `int` INT64 (UINT64 above 2**63 - 1), `float` FP64. Python's numbers have no size of their own,
  so they are *weak*: where the server declares a datatype for the input that takes such numbers, they are sent as that.
- An `ObjRef` stands for the object: the handler gets that. It is one input, never an element of one.
- One scalar, text or bytes is a tensor of the shape ``[1]``; a list has the shape of its nesting.
- ``datatype`` converts, and refuses what would change a value beyond rounding. Bytes given for a datatype other than
  BYTES are raw: little-endian, row-major.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anyserve._core import InferInput, ObjRef
from anyserve.errors import InvalidInput
from anyserve.kserve import DATATYPES

Array: TypeAlias = npt.NDArray[Any]
Inputs: TypeAlias = Mapping[str, Any] | Sequence[InferInput]
"""Values by the names of the inputs, or a list of `InferInput`."""

Row: TypeAlias = tuple[str, str, Sequence[int], Any, dict[str, Any] | None]
"""A tensor as `_core.Call` takes it: name, datatype, shape, data, parameters."""

_BY_DTYPE = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bfloat16": "BF16",
}  # fmt: skip
_BY_DATATYPE = {datatype: name for name, datatype in _BY_DTYPE.items()} | {"BF16": "float32"}
_RANKS = {"b": 0, "u": 1, "i": 1, "f": 2}
"""Kinds of numbers: one may become another of the same or a higher rank."""

_KEYS = ("data", "datatype", "shape", "parameters")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that is ready to be sent.

    Attributes:
        name: name of the input.
        datatype: one of the protocol's 14.
        shape: dimensions, none negative.
        data: a C-contiguous buffer of raw elements, an `InferInput`, or, for BYTES, a list of `bytes` and `str`.
        parameters: parameters of this input alone.
        weak: the datatype was chosen for Python's numbers, and another that takes them would do as well.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    parameters: Mapping[str, Any] | None = None
    weak: bool = False

    def row(self) -> Row:
        """Give the tensor in the form that `_core.Call` takes."""
        parameters = None if self.parameters is None else dict(self.parameters)
        return (self.name, self.datatype, self.shape, self.data, parameters)

    def as_declared(self, datatype: str | None) -> "Tensor":
        """Follow the datatype that the server declares for this input.

        Returns:
            This tensor as the declared datatype if it is weak and its numbers fit; else this tensor, and the server
            says what is wrong with it.
        """
        if not self.weak:
            return self
        try:
            return _converted(self, datatype)
        except InvalidInput:
            return self


def tensors(inputs: Any) -> list[Tensor]:
    """Make tensors of all inputs of a call.

    Args:
        inputs: `Inputs`, or whatever a user gave instead.

    Raises:
        InvalidInput: a value that no tensor can be made of; the message names the input.
    """
    if isinstance(inputs, Mapping):
        return [tensor(name, value) for name, value in inputs.items()]
    if isinstance(inputs, Sequence) and all(isinstance(value, InferInput) for value in inputs):
        return [tensor(value.name, value) for value in inputs]
    kind = type(inputs).__name__
    raise InvalidInput(f"the inputs are a {kind}: give a dict from the names of the inputs to their values")


def tensor(name: Any, value: Any) -> Tensor:
    """Make the tensor of one input.

    Raises:
        InvalidInput: no tensor can be made of the value, or the name is none.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"the name of an input is a text with at least one character, not {name!r}")
    if isinstance(value, InferInput):
        return Tensor(name, value.datatype, tuple(value.shape), value, value.parameters or None)
    if isinstance(value, Mapping):
        return _explicit(name, value)
    return _inferred(name, value)


def _explicit(name: str, given: Mapping[str, Any]) -> Tensor:
    unknown = [key for key in given if key not in _KEYS]
    if unknown or "data" not in given:
        what = f"has the unknown key {unknown[0]!r}" if unknown else "has no 'data'"
        raise InvalidInput(f"input {name!r} {what}: a dict for an input has the keys {', '.join(_KEYS)}")
    datatype, shape, data, parameters = (given.get(key) for key in ("datatype", "shape", "data", "parameters"))
    if datatype is not None and datatype not in DATATYPES:
        raise InvalidInput(f"input {name!r} has the unknown datatype {datatype!r}; there are {', '.join(DATATYPES)}")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidInput(f"input {name!r} has the parameters {parameters!r}: give a dict")
    if isinstance(data, ObjRef):
        return _of_reference(name, data, datatype, shape, parameters)
    if datatype not in (None, "BYTES") and isinstance(data, bytes | bytearray | memoryview):
        made = _raw(name, data, datatype, shape)
    else:
        made = _converted(_inferred(name, data), datatype)
        made = made if shape is None else _reshaped(made, shape)
    return replace(made, parameters=parameters, weak=made.weak and datatype is None)


def _of_reference(
    name: str, ref: ObjRef, datatype: Any = None, shape: Any = None, parameters: Mapping[str, Any] | None = None
) -> Tensor:
    if datatype is not None or shape is not None:
        raise InvalidInput(f"input {name!r} is a reference: datatype and shape are those of its object, leave them out")
    return Tensor(name, "BYTES", (1,), [str(ref)], {**(parameters or {}), "objref": True})


def _raw(name: str, data: bytes | bytearray | memoryview, datatype: str, shape: Any) -> Tensor:
    if shape is not None:
        return Tensor(name, datatype, _dimensions(name, shape), data)
    size = 2 if datatype == "BF16" else np.dtype(_BY_DATATYPE[datatype]).itemsize
    return Tensor(name, datatype, (memoryview(data).nbytes // size,), data)


def _converted(made: Tensor, datatype: str | None) -> Tensor:
    if datatype is None or datatype == made.datatype:
        return made
    if 0 in made.shape:
        return replace(made, datatype=datatype, data=b"")
    if "BYTES" in (datatype, made.datatype) or made.datatype == "BF16":
        raise InvalidInput(f"input {made.name!r} is {made.datatype} by its data and cannot be sent as {datatype}")
    return replace(made, datatype=datatype, data=_as_datatype(made.name, made.data, datatype))


def _reshaped(made: Tensor, shape: Any) -> Tensor:
    dimensions = _dimensions(made.name, shape)
    have, wanted = _count(made.shape), _count(dimensions)
    if have != wanted:
        given = list(dimensions)
        raise InvalidInput(f"input {made.name!r} has {have} elements, but the shape {given} takes {wanted}")
    return replace(made, shape=dimensions)


def _dimensions(name: str, shape: Any) -> tuple[int, ...]:
    try:
        dimensions = tuple(int(size.__index__()) for size in shape)
    except (TypeError, AttributeError):
        raise InvalidInput(f"input {name!r} has the shape {shape!r}: a shape is a list of whole numbers") from None
    if any(size < 0 for size in dimensions):
        raise InvalidInput(f"input {name!r} has the shape {list(dimensions)}: no dimension is below 0")
    return dimensions


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _inferred(name: str, value: Any) -> Tensor:
    if isinstance(value, str | bytes):
        return Tensor(name, "BYTES", (1,), [value])
    if isinstance(value, bytearray | memoryview):
        return Tensor(name, "BYTES", (1,), [bytes(value)])
    if isinstance(value, np.ndarray):
        return _of_array(name, value)
    if isinstance(value, ObjRef):
        return _of_reference(name, value)
    leaf = _first_leaf(value)
    if isinstance(leaf, str | bytes | ObjRef):
        return _of_texts(name, value)
    array = _as_array(name, value)
    made = _of_array(
        name, array.reshape(1) if array.ndim == 0 and isinstance(value, bool | int | float | np.generic) else array
    )
    return replace(made, weak=made.datatype != "BOOL" and (leaf is None or type(leaf) in (int, float)))


def _first_leaf(value: Any) -> Any:
    """Find the first element of a nested list; ``None`` if it has none."""
    while isinstance(value, list | tuple):
        if not value:
            return None
        value = value[0]
    return value


def _as_array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype == np.float64 and _are_ints(value):
            # NumPy has no type for negative numbers beside ones beyond INT64, and would round them all.
            array = np.asarray(value, dtype=np.uint64)
    except (ValueError, OverflowError, TypeError) as error:
        raise InvalidInput(f"input {name!r} is no array: {_why(value, error)}") from None
    if array.dtype.kind in "OSU":
        raise InvalidInput(f"input {name!r} is no array: {_why(value, None)}")
    return array


def _are_ints(value: Any) -> bool:
    return type(_first_leaf(value)) is int and all(type(leaf) is int for leaf in np.asarray(value, dtype=object).flat)


def _why(value: Any, error: Exception | None) -> str:
    if isinstance(value, list | tuple):
        if error is None:
            return "its elements are not all numbers of 64 bits, or all str and bytes"
        if "inhomogeneous" in str(error):
            return "its rows have different lengths"
    if error is not None:
        return str(error)
    return f"a {type(value).__name__} is neither a number, a text, bytes, a list nor an array"


def _of_array(name: str, array: Array) -> Tensor:
    if array.dtype.kind in "OSU":
        return _of_elements(name, array)
    datatype = _BY_DTYPE.get(array.dtype.name)
    if datatype is None:
        known = ", ".join(_BY_DTYPE)
        raise InvalidInput(f"input {name!r} is an array of {array.dtype}, which is no datatype; there are {known}")
    return Tensor(name, datatype, array.shape, _packed(array))


def _packed(array: Array) -> Array:
    """Lay an array out as the protocol has it: row-major and little-endian. It is copied only if it is not so."""
    little = array if array.dtype.byteorder != ">" else array.astype(array.dtype.newbyteorder("<"))
    packed: Array = little if little.flags.c_contiguous else little.copy(order="C")
    # The type is of no account any more, and not every type (bfloat16) can be lent by name.
    packed = packed.view(np.uint16) if packed.dtype.name == "bfloat16" else packed
    # The buffer of an array without dimensions has no shape, which its borrower cannot read.
    return packed if packed.ndim else packed.reshape(1)


def _of_texts(name: str, value: Any) -> Tensor:
    try:
        # As objects: NumPy's own types for text cut zero bytes off at the end.
        array = np.array(value, dtype=np.object_)
    except ValueError as error:
        raise InvalidInput(f"input {name!r} is no array: {_why(value, error)}") from None
    return _of_elements(name, array)


def _of_elements(name: str, array: Array) -> Tensor:
    elements: list[Any] = array.reshape(-1).tolist()
    for place, element in enumerate(elements):
        if isinstance(element, list | tuple):
            raise InvalidInput(f"input {name!r} is no array: its rows have different lengths")
        if isinstance(element, ObjRef):
            raise InvalidInput(
                f"input {name!r} has a reference as element {place}: a reference stands for a whole input; give each "
                "one an input of its own, or store the arrays together as one dict"
            )
        if not isinstance(element, str | bytes):
            kind = type(element).__name__
            raise InvalidInput(
                f"input {name!r} has a {kind} as element {place}: next to a text there are only str and bytes"
            )
    return Tensor(name, "BYTES", array.shape, elements)


def _as_datatype(name: str, array: Array, datatype: str) -> Array:
    """Convert numbers, if that changes none beyond rounding."""
    wanted = np.dtype(_BY_DATATYPE[datatype])
    if _RANKS[array.dtype.kind] > _RANKS[wanted.kind] or (array.dtype.kind == "b") != (wanted.kind == "b"):
        raise InvalidInput(f"input {name!r} is {array.dtype} by its data and cannot be sent as {datatype}")
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            wrong = low if low < limits.min else high
            raise InvalidInput(f"input {name!r} has the element {wrong}, which is out of range for {datatype}")
    try:
        with np.errstate(over="raise"):
            converted: Array = array.astype(wanted)
    except FloatingPointError:
        raise InvalidInput(f"input {name!r} has an element that is out of range for {datatype}") from None
    return _rounded_to_bf16(converted) if datatype == "BF16" else converted


def _rounded_to_bf16(array: Array) -> Array:
    """Give the upper halves of float32, rounded to nearest and ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    upper: Array = np.where(np.isnan(array), quiet_nan, rounded).astype(np.uint16)
    return upper
