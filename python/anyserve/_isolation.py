"""The options of a worker class that set its processes apart: memory, priority, environment, interpreter, start."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyserve._checks import MAX_INTEGER, count, seconds
from anyserve._inputs import Tensor, tensors
from anyserve._options import Options
from anyserve.errors import InvalidInput, StartError
from anyserve.kserve import TensorSpec

__all__ = ["Isolation", "check_isolation", "check_warmup"]

LEAST_MEMORY = 16 << 20
"""Bytes; with less, Python itself does not start."""
LAST_NICENESS = 19

_SIZE = re.compile(r"(\d{1,19})\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True, slots=True)
class Isolation:
    """What sets the processes of a worker class apart.

    Attributes:
        memory_limit: bytes of memory of its own that a worker may have; ``None`` sets no limit.
        niceness: added to the priority number of its processes.
        environment: variables of its processes.
        python: absolute path of its interpreter; ``None`` takes the replica's.
        start_timeout_s: seconds that a worker has to become ready; ``None`` takes the replica's.
    """

    memory_limit: int | None
    niceness: int
    environment: dict[str, str]
    python: str | None
    start_timeout_s: float | None


def check_isolation(given: Mapping[str, object], *, gpus: int) -> Isolation:
    """Check the options that set processes apart.

    Args:
        given: one value for each attribute of `Isolation`.
        gpus: what each worker needs; it has ``CUDA_VISIBLE_DEVICES`` from the runtime then.

    Raises:
        StartError: a value of the wrong type or out of its range.
    """
    return Isolation(
        memory_limit=_memory(given["memory_limit"]),
        niceness=count("niceness", given["niceness"], LAST_NICENESS),
        environment=_environment(given["environment"], gpus=gpus),
        python=_python(given["python"]),
        start_timeout_s=seconds("start_timeout_s", given["start_timeout_s"]),
    )


def check_warmup(value: object, options: Options) -> tuple[Mapping[str, Any], ...]:
    """Check the requests that run before a worker is ready.

    Args:
        value: a list of dicts of inputs, as a client gives them; or ``None``.
        options: what the class declares about its inputs.

    Raises:
        StartError: an entry that is no dict of inputs, or does not fit the declared ones.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping) for entry in value):
        raise StartError(f'warmup={value!r}: it is a list of dicts of inputs, such as warmup=[{{"text": ["hello"]}}]')
    for place, entry in enumerate(value):
        try:
            _check_entry(tensors(entry), options.inputs)
        except InvalidInput as error:
            raise StartError(f"warmup[{place}]: {error}") from None
    return tuple(value)


def _check_entry(given: Sequence[Tensor], declared: Sequence[TensorSpec] | None) -> None:
    for tensor in given:
        if (tensor.parameters or {}).get("objref"):
            raise InvalidInput(f"input {tensor.name!r} is a reference, and there are no objects before the start")
    if declared is None:
        return
    specs, names = {spec.name: spec for spec in declared}, {tensor.name for tensor in given}
    missing = [name for name in specs if name not in names]
    if missing:
        raise InvalidInput(f"input {missing[0]!r} is declared and missing")
    for tensor in given:
        if tensor.name not in specs:
            raise InvalidInput(f"input {tensor.name!r} is not declared; there are {', '.join(specs) or 'none'}")
        _check_tensor(tensor, specs[tensor.name])


def _check_tensor(given: Tensor, spec: TensorSpec) -> None:
    tensor = given.as_declared(spec.datatype)
    fits = len(tensor.shape) == len(spec.shape) and all(
        wanted in (-1, size) for wanted, size in zip(spec.shape, tensor.shape, strict=True)
    )
    if tensor.datatype != spec.datatype or not fits:
        raise InvalidInput(
            f"input {tensor.name!r} is {tensor.datatype}{list(tensor.shape)}, declared is "
            f"{spec.datatype}{list(spec.shape)}"
        )


def _memory(value: object) -> int | None:
    if value is None:
        return None
    size = _size(value) if isinstance(value, str) else value
    if isinstance(size, int) and not isinstance(size, bool) and LEAST_MEMORY <= size <= MAX_INTEGER:
        return size
    raise StartError(f"memory_limit={value!r}: it is a number of bytes from 16 MiB on, or a text such as '2GiB'")


def _size(text: str) -> int | None:
    """Read bytes as a person writes them, as the command line does: 2GiB, 512MiB, 65536."""
    found = _SIZE.fullmatch(text)
    return None if found is None else int(found[1]) << _FACTORS[found[2].lower()]


def _environment(value: object, *, gpus: int) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise StartError(f'environment={value!r}: it is a dict of variables, such as environment={{"MODE": "fast"}}')
    for name, text in value.items():
        _check_variable(name, text)
        if gpus and name == "CUDA_VISIBLE_DEVICES":
            raise StartError(
                f"environment sets {name!r}, which the runtime sets for gpus={gpus}: leave one of them out"
            )
    return dict(value)


def _check_variable(name: object, text: object) -> None:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise StartError(f"environment has {name!r}: a variable's name is a text without '=' and NUL")
    if name.startswith("ANYSERVE_"):
        raise StartError(f"environment sets {name!r}: names that begin with ANYSERVE_ are the runtime's")
    if not isinstance(text, str) or "\0" in text:
        raise StartError(f"environment[{name!r}] is {text!r}: a variable's value is a text without NUL")


def _python(value: object) -> str | None:
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise StartError(f"python={value!r}: it is the path of an interpreter, such as '/path/venv/bin/python'")
    # Not resolved: an interpreter finds its environment by the link that it was called by.
    absolute = os.path.abspath(path)  # noqa: PTH100
    if not os.path.isfile(absolute) or not os.access(absolute, os.X_OK):  # noqa: PTH113
        raise StartError(f"python={value!r}: there is no program at {absolute}")
    return absolute
