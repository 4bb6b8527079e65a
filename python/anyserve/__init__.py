"""AnyServe: serve Python handlers by capability, over the KServe v2 protocol.

The names below are what an app or a client imports. They are loaded on first use, so that a command which needs no
arrays does not wait for NumPy.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyserve._classes import Worker
    from anyserve.app import AnyServe
    from anyserve.client import AsyncClient, Client
    from anyserve.context import Context, Stream
    from anyserve.kserve import (
        Contents,
        InferInput,
        InferOutput,
        ModelInferRequest,
        ModelInferResponse,
        TensorSpec,
    )
    from anyserve.objects import Objects, ObjectStat, ObjRef, StoreUsage

__all__ = [
    "AnyServe",
    "AsyncClient",
    "Client",
    "Contents",
    "Context",
    "InferInput",
    "InferOutput",
    "ModelInferRequest",
    "ModelInferResponse",
    "ObjRef",
    "ObjectStat",
    "Objects",
    "StoreUsage",
    "Stream",
    "TensorSpec",
    "Worker",
]

_HOMES = {
    "AnyServe": "app",
    "AsyncClient": "client",
    "Client": "client",
    "Contents": "kserve",
    "Context": "context",
    "InferInput": "kserve",
    "InferOutput": "kserve",
    "ModelInferRequest": "kserve",
    "ModelInferResponse": "kserve",
    "ObjRef": "objects",
    "ObjectStat": "objects",
    "Objects": "objects",
    "StoreUsage": "objects",
    "Stream": "context",
    "TensorSpec": "kserve",
    "Worker": "_classes",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _import_module("importlib.metadata").version("anyserve")
    if name not in _HOMES:
        raise AttributeError(f"module 'anyserve' has no attribute {name!r}")
    value = getattr(_import_module(f"anyserve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
