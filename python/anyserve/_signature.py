"""What a handler's signature says: whether it takes the request or its inputs by name, and how it answers.

Nothing is called here. A signature that the worker could not call is refused with the way to write it.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, get_args, get_origin

from anyserve._tensors import Reader, reader_for
from anyserve.errors import StartError

Kind = Literal["sync", "async", "generator", "async_generator"]
"""How a function answers."""

_REQUEST_NAMES = ("request", "req", "requests")
_NAMES = {"Context": ("context", "ctx"), "Stream": ("stream",)}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Raw:
    """A handler that takes the request, and after it the context and the stream if it has room for them.

    Attributes:
        takes: how many of the three it takes.
    """

    takes: int


@dataclass(frozen=True, slots=True)
class Typed:
    """A handler that takes its inputs by name.

    Attributes:
        inputs: how to read each input that has a parameter.
        required: those without a default.
        rest: it takes any further input as well, by ``**``.
        closed: parameters that no input may reach.
        context: name of the parameter for the context, if there is one.
        stream: name of the parameter for the stream, if there is one.
    """

    inputs: Mapping[str, Reader]
    required: frozenset[str]
    rest: bool
    closed: frozenset[str]
    context: str | None
    stream: str | None

    @property
    def takes(self) -> int:
        """How many of request, context and stream it has to be given."""
        return 3 if self.stream else 2 if self.context else 1


def kind_of(function: Callable[..., Any]) -> Kind:
    """Tell how a function, method, partial or callable object answers."""
    plain = _plain(function)
    if inspect.isasyncgenfunction(plain):
        return "async_generator"
    if inspect.iscoroutinefunction(plain):
        return "async"
    return "generator" if inspect.isgeneratorfunction(plain) else "sync"


def name_of(function: Callable[..., Any]) -> str:
    """Name a callable as its author would."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def read_signature(function: Callable[..., Any]) -> Raw | Typed:
    """Read how a handler wants to be called.

    Raises:
        StartError: it cannot be called as a handler; the message says what it should look like.
    """
    name = name_of(function)
    if inspect.isclass(function):
        raise StartError(f"{name!r} is a class; a handler is a function, a method or an object with __call__")
    parameters = _parameters(function, name)
    if not parameters:
        return Typed({}, frozenset(), rest=False, closed=frozenset(), context=None, stream=None)
    if parameters[0].name in ("self", "cls"):
        raise StartError(
            f"{name!r} is a method without its object; register the bound one: capability(…)(object.{name})"
        )
    return _raw(parameters, name) if _takes_request(parameters[0]) else _typed(parameters, name, function)


def _plain(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return function
    return type(function).__call__


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise StartError(f"the signature of {name!r} cannot be read; wrap it in a function with `def`") from None
    # Where a name exists for type checkers only, the text of the annotation has to do.
    with suppress(Exception):
        signature = inspect.signature(function, eval_str=True)
    fixed = _fixed_by_partial(function)
    return [parameter for parameter in signature.parameters.values() if parameter.name not in fixed]


def _fixed_by_partial(function: Callable[..., Any]) -> set[str]:
    fixed: set[str] = set()
    while isinstance(function, functools.partial):
        fixed |= set(function.keywords)
        function = function.func
    return fixed


def _takes_request(first: inspect.Parameter) -> bool:
    if _is_free(first):
        return first.kind in _POSITIONAL and first.name.lstrip("_") in _REQUEST_NAMES
    return type_name(first.annotation) == "ModelInferRequest" or _is_batch(first)


def _raw(parameters: list[inspect.Parameter], name: str) -> Raw:
    if _is_batch(parameters[0]) or parameters[0].name == "requests":
        raise StartError(
            f"{name!r} takes a list of requests, but batching is not available in this version of AnyServe; "
            "take one request: `request: ModelInferRequest`"
        )
    positional = [one for one in parameters if one.kind in _POSITIONAL]
    offered = zip(positional[1:], ("Context", "Stream"), strict=False)
    takes = 1 + sum(1 for _ in takewhile(lambda pair: _is_ours(*pair), offered))
    others = [one for one in parameters if one not in positional[:takes] and one.kind not in _VARIADIC]
    if any(one.default is one.empty for one in others):
        shown = ", ".join(one.name for one in parameters)
        raise StartError(
            f"{name!r} takes ({shown}), but a handler that takes the request is called with (request), "
            "(request, context) or (request, context, stream); give any further parameter a default"
        )
    return Raw(takes)


def _is_ours(parameter: inspect.Parameter, wanted: str) -> bool:
    """Whether a parameter behind the request gets what the worker offers in its place."""
    if not _is_free(parameter):
        return type_name(_without_none(parameter.annotation)) == wanted
    meant = next((kind for kind, names in _NAMES.items() if parameter.name in names), None)
    # By its place alone, unless it has a default: that one is the author's.
    return meant == wanted or (meant is None and parameter.default is parameter.empty)


def _typed(parameters: list[inspect.Parameter], name: str, function: Callable[..., Any]) -> Typed:
    context = _only(parameters, "Context", name)
    stream = _only(parameters, "Stream", name)
    own = [one for one in parameters if one.name not in (context, stream)]
    rest = any(one.kind is one.VAR_KEYWORD for one in own)
    inputs: dict[str, Reader] = {}
    for parameter in own:
        if parameter.kind is not parameter.VAR_KEYWORD:
            _add_input(inputs, parameter, name)
    required = {one.name for one in own if one.default is one.empty and one.name in inputs}
    closed = _fixed_by_partial(function) | {one.name for one in parameters if one.name not in inputs}
    return Typed(inputs, frozenset(required), rest, frozenset(closed), context, stream)


def _only(parameters: list[inspect.Parameter], wanted: str, name: str) -> str | None:
    found = [one.name for one in parameters if one.kind in _NAMED and _is_special(one, wanted)]
    if len(found) > 1:
        raise StartError(f"{name!r} has several parameters of type {wanted}: {', '.join(found)}; keep one")
    return found[0] if found else None


def _is_special(parameter: inspect.Parameter, wanted: str) -> bool:
    if not _is_free(parameter):
        return type_name(_without_none(parameter.annotation)) == wanted
    return parameter.name in _NAMES[wanted]


def _add_input(inputs: dict[str, Reader], parameter: inspect.Parameter, name: str) -> None:
    if parameter.kind not in _NAMED:
        raise StartError(
            f"{name!r} has the parameter '{parameter}', which no input can be given to by name; "
            "write one parameter per input (or take the request: `request: ModelInferRequest`)"
        )
    annotation = None if _is_free(parameter) else _without_none(parameter.annotation)
    reader = reader_for(type_name(annotation), element_name(annotation))
    if reader is not None:
        inputs[parameter.name] = reader
    elif parameter.default is parameter.empty:
        raise StartError(
            f"the parameter {parameter.name!r} of {name!r} has the type {type_name(annotation)!r}, which no input can "
            "be read as; use np.ndarray, str, bytes, int, float, bool or a list[…] of those, or take the request: "
            "`request: ModelInferRequest`"
        )


def _is_free(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is inspect.Parameter.empty or parameter.annotation is Any


def _is_batch(parameter: inspect.Parameter) -> bool:
    return type_name(parameter.annotation) in ("list", "Sequence") and (
        element_name(parameter.annotation) == "ModelInferRequest"
    )


def _without_none(annotation: Any) -> Any:
    members = [member for member in get_args(annotation) if member is not type(None)]
    has_none = len(members) < len(get_args(annotation))
    if isinstance(annotation, str):
        return annotation.replace("| None", "").replace("None |", "").strip()
    return members[0] if has_none and len(members) == 1 else annotation


def type_name(annotation: Any) -> str:
    """Name an annotation's outermost type: ``"ndarray"`` for ``np.ndarray[…]``, also where it is a text."""
    if annotation is None or annotation is inspect.Parameter.empty:
        return ""
    if isinstance(annotation, str):
        return annotation.split("[")[0].rsplit(".", 1)[-1].strip()
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(getattr(get_origin(annotation) or annotation, "__name__", annotation))


def element_name(annotation: Any) -> str:
    """Name the first type between an annotation's brackets; empty without brackets."""
    if isinstance(annotation, str):
        return type_name(annotation.partition("[")[2].rstrip("]").split(",")[0])
    arguments = get_args(annotation)
    return type_name(arguments[0]) if arguments else ""
