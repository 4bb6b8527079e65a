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

from anyserve._tensors import ARRAYS, Reader, reader_for
from anyserve.errors import StartError

Kind = Literal["sync", "async", "generator", "async_generator"]
"""How a function answers."""

_REQUEST_NAMES = ("request", "req")
_NAMES = {"Context": ("context", "ctx"), "Stream": ("stream",)}
_LISTS = ("list", "Sequence")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Raw:
    """A handler that takes the request, and after it the context and the stream if it has room for them.

    One that takes a list of requests takes a list of contexts after it, and no stream.

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


def read_signature(function: Callable[..., Any], max_batch_size: int = 0, name: str = "") -> Raw | Typed:
    """Read how a handler wants to be called.

    Args:
        function: the handler.
        max_batch_size: requests that one call is to take; 0 gives it one request and no list.
        name: what it is called in errors; empty takes its own name.

    Raises:
        StartError: it cannot be called as a handler; the message says what it should look like.
    """
    name = name or name_of(function)
    if inspect.isclass(function):
        raise StartError(f"{name!r} is a class; a handler is a function, a method or an object with __call__")
    parameters = _parameters(function, name)
    if parameters and parameters[0].name in ("self", "cls"):
        raise StartError(
            f"{name!r} is a method without its object; register the bound one: capability(…)(object.{name})"
        )
    takes_list = bool(parameters) and _takes_list(parameters[0])
    if takes_list != bool(max_batch_size):
        raise StartError(_one_or_many(parameters, name, max_batch_size))
    if takes_list:
        return _batched(parameters, name)
    if not parameters:
        return Typed({}, frozenset(), rest=False, closed=frozenset(), context=None, stream=None)
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
    return type_name(first.annotation) == "ModelInferRequest"


def _takes_list(first: inspect.Parameter) -> bool:
    """Whether it is meant for a list of requests: by its type, or by its name where the type leaves it open."""
    if first.kind not in _POSITIONAL:
        return False
    named = first.name.lstrip("_") == "requests"
    if _is_free(first):
        return named
    elements = ("ModelInferRequest", "", "Any") if named else ("ModelInferRequest",)
    return type_name(first.annotation) in _LISTS and element_name(first.annotation) in elements


def _one_or_many(parameters: list[inspect.Parameter], name: str, max_batch_size: int) -> str:
    if not max_batch_size:
        return (
            f"{name!r} takes a list of requests: add max_batch_size=32, or as many as one call may take, to its "
            "capability; or take one request: `request: ModelInferRequest`"
        )
    takes = "takes one request" if parameters and _takes_request(parameters[0]) else "takes its inputs by name"
    return (
        f"{name!r} {takes}, but with max_batch_size={max_batch_size} it is given a list of requests: write "
        "`requests: list[ModelInferRequest]` as its first parameter and return a list, or leave max_batch_size out"
    )


def _batched(parameters: list[inspect.Parameter], name: str) -> Raw:
    positional = [one for one in parameters if one.kind in _POSITIONAL]
    takes = 2 if positional[1:] and _takes_contexts(positional[1]) else 1
    called = "(requests) or (requests, contexts), both lists"
    _check_others(parameters, positional[:takes], name, "a list of requests", called)
    return Raw(takes)


def _takes_contexts(parameter: inspect.Parameter) -> bool:
    if _is_free(parameter):
        # By its place alone, unless it has a default: that one is the author's.
        return parameter.name in ("contexts", *_NAMES["Context"]) or parameter.default is parameter.empty
    annotation = _without_none(parameter.annotation)
    return type_name(annotation) in _LISTS and element_name(annotation) in ("Context", "", "Any")


def _raw(parameters: list[inspect.Parameter], name: str) -> Raw:
    positional = [one for one in parameters if one.kind in _POSITIONAL]
    offered = zip(positional[1:], ("Context", "Stream"), strict=False)
    takes = 1 + sum(1 for _ in takewhile(lambda pair: _is_ours(*pair), offered))
    called = "(request), (request, context) or (request, context, stream)"
    _check_others(parameters, positional[:takes], name, "the request", called)
    return Raw(takes)


def _check_others(
    parameters: list[inspect.Parameter], ours: list[inspect.Parameter], name: str, what: str, called: str
) -> None:
    """Refuse a parameter that nothing is given for."""
    others = [one for one in parameters if one not in ours and one.kind not in _VARIADIC]
    if any(one.default is one.empty for one in others):
        shown = ", ".join(one.name for one in parameters)
        raise StartError(
            f"{name!r} takes ({shown}), but a handler that takes {what} is called with {called}; give any further "
            "parameter a default"
        )


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
    annotation = None if _is_free(parameter) else _without_reference(_without_none(parameter.annotation))
    reader = reader_for(type_name(annotation), element_name(annotation))
    if reader is not None:
        inputs[parameter.name] = reader
    elif parameter.default is parameter.empty:
        raise StartError(
            f"the parameter {parameter.name!r} of {name!r} has the type {type_name(annotation)!r}, which no input can "
            "be read as; use np.ndarray, str, bytes, int, float, bool or a list[…] of those, ObjRef, or take the "
            "request: `request: ModelInferRequest`"
        )


def _is_free(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is inspect.Parameter.empty or parameter.annotation is Any


def _without_none(annotation: Any) -> Any:
    members = [member for member in get_args(annotation) if member is not type(None)]
    has_none = len(members) < len(get_args(annotation))
    if isinstance(annotation, str):
        return annotation.replace("| None", "").replace("None |", "").strip()
    return members[0] if has_none and len(members) == 1 else annotation


def _without_reference(annotation: Any) -> Any:
    """Take `np.ndarray | ObjRef` for an array: where there is none, the reference is given anyway."""
    if isinstance(annotation, str):
        members: list[Any] = [member.strip() for member in annotation.split("|")]
    else:
        members = list(get_args(annotation))
    others = [member for member in members if type_name(member) != "ObjRef"]
    alone = len(members) == 2 and len(others) == 1 and type_name(others[0]) in ARRAYS
    return others[0] if alone else annotation


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
