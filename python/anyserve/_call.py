"""What a user asks of a client, checked and in the form that `_core` sends."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from anyserve import _core
from anyserve._inputs import Inputs, Tensor, tensors
from anyserve.errors import DeadlineExceeded, InvalidInput

Target: TypeAlias = str | Mapping[str, str | int | float | bool] | None
"""What is to serve a call: a model name, or the keys and values that the serving capability must have."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call as the user gave it: checked, except for what only the server's declaration can tell."""

    model: str
    version: str
    tensors: list[Tensor]
    capability: dict[str, Any] | None
    outputs: list[str]
    parameters: dict[str, Any] | None
    headers: list[tuple[str, str]]
    id: str
    timeout_s: float | None
    started: float

    def weak(self) -> bool:
        """Tell whether the declaration of the server matters."""
        return any(tensor.weak for tensor in self.tensors)

    def remaining(self) -> float | None:
        """Give the seconds that are left of the timeout.

        Raises:
            DeadlineExceeded: none are left.
        """
        if self.timeout_s is None:
            return None
        left = self.started + self.timeout_s - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the timeout of {self.timeout_s} s passed before the request was sent")
        return left

    def call(self, declared: Mapping[str, str], timeout_s: float | None) -> _core.Call:
        """Make what `_core` sends, with weak inputs as the server declares them."""
        return _core.Call(
            self.model,
            [tensor.as_declared(declared.get(tensor.name)).row() for tensor in self.tensors],
            version=self.version,
            id=self.id,
            capability=self.capability,
            outputs=self.outputs,
            parameters=self.parameters,
            headers=self.headers,
            timeout_s=timeout_s,
        )


def request(  # noqa: PLR0913 - the arguments of a call, by their names
    target: Target,
    inputs: Inputs,
    *,
    timeout_s: float | None,
    id: str | None,  # noqa: A002 - the protocol's word
    parameters: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None,
    version: str,
    outputs: Sequence[str] | None,
    capability: Mapping[str, Any] | None,
) -> Request:
    """Check the arguments of a call; the timeout runs from here on.

    Raises:
        InvalidInput: an argument that cannot be sent; the message says what to give instead.
    """
    model, wanted = _target(target, capability)
    if isinstance(outputs, str):
        raise InvalidInput(f"outputs is {outputs!r}: give a list of names, as in outputs=[{outputs!r}]")
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidInput(f"timeout_s is {timeout_s}: it is a number of seconds above 0, or None to wait for ever")
    return Request(
        model=model,
        version=str(version),
        tensors=tensors(inputs),
        capability=wanted,
        outputs=list(outputs or ()),
        parameters=dict(parameters) if parameters else None,
        headers=[(str(name), str(value)) for name, value in (headers or {}).items()],
        id=id or "",
        timeout_s=timeout_s,
        started=time.monotonic(),
    )


def _target(target: Target, capability: Mapping[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """Give model name and capability of a call; a capability's name is its `model` or, failing that, its `type`."""
    if isinstance(target, Mapping):
        if capability is not None:
            raise InvalidInput("the capability is given twice: as the first argument and as capability=")
        target, capability = None, target
    if capability is None:
        if not isinstance(target, str) or not target:
            raise InvalidInput(
                "the first argument is a model name such as 'echo', or a capability such as {'type': 'echo'}"
            )
        return target, None
    name = target or capability.get("model", capability.get("type", ""))
    return str(name), dict(capability)
