"""Tensors on a command line: `NAME=VALUE` in, `name: value` out.

A value is JSON if it reads as a number, a truth or a list, else it is text; `NAME:BYTES=123` is text as well, and
`NAME:FP32=[1,2]` has the datatype it says. `@path` takes the value from a file: an array from `.npy`, JSON from
`.json`, otherwise the bytes as one element.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anyserve._core import ObjRef
from anyserve.kserve import DATATYPES


class BadValueError(ValueError):
    """An input that cannot be read; the message has the fix."""


def read_inputs(arguments: Iterable[str]) -> dict[str, Any]:
    """Read inputs as the client takes them.

    Args:
        arguments: each ``NAME=VALUE`` or ``NAME:DATATYPE=VALUE``.

    Raises:
        BadValueError: no name, a name twice, an unknown datatype, or a file that cannot be read.
    """
    inputs: dict[str, Any] = {}
    for argument in arguments:
        label, equals, text = argument.partition("=")
        name, _, datatype = label.partition(":")
        if not equals or not name:
            raise BadValueError(f"{argument!r} is no input; write NAME=VALUE, such as text=hello")
        if name in inputs:
            raise BadValueError(f"the input {name!r} is given twice")
        if datatype and datatype not in DATATYPES:
            raise BadValueError(f"{name!r} has the unknown datatype {datatype!r}; there are {', '.join(DATATYPES)}")
        value = _read_file(text.removeprefix("@")) if text.startswith("@") else _read_text(text, datatype)
        inputs[name] = _explicit(value, datatype) if datatype else value
    return inputs


def _read_text(text: str, datatype: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    if isinstance(value, list):
        return value
    plain = datatype != "BYTES" and isinstance(value, int | float)
    return [value] if plain else [value if isinstance(value, str) else text]


def _read_file(path: str) -> Any:
    try:
        if path.endswith(".npy"):
            return np.load(path, allow_pickle=False)
        content = Path(path).read_bytes()
        return json.loads(content) if path.endswith(".json") else [content]
    except OSError as error:
        raise BadValueError(f"cannot read {path!r}: {error.strerror}") from error
    except ValueError as error:
        raise BadValueError(f"cannot read {path!r}: {error}") from error


def _explicit(value: Any, datatype: str) -> dict[str, Any]:
    return {"data": value, "shape": list(np.shape(value)), "datatype": datatype}


def shown(answer: Mapping[str, np.ndarray[Any, Any] | ObjRef], *, as_json: bool) -> str:
    """Write an answer's outputs: a line each, or all of them as one JSON object."""
    plain = {name: _plain(value) for name, value in answer.items()}
    if as_json:
        return json.dumps(plain, ensure_ascii=False)
    return "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items())


def _plain(value: np.ndarray[Any, Any] | ObjRef) -> Any:
    return str(value) if isinstance(value, ObjRef) else _texts(value.tolist())


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
