"""What a replica shows of itself: workers coming up, then one line on what it serves, where, and how to call it.

On a terminal a small table is kept up to date while the replica starts; into a pipe or a file goes one line per change.
Only what the events say is shown. Logs are not of this module: they go to stderr, this to stdout.
"""

import json
import math
import shlex
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

Show = Callable[[str, Mapping[str, Any]], None]
"""Takes the events of `_core.serve` and `_core.serve_api_server`: their kind and their fields."""

Input = tuple[str, str, Sequence[int]]
"""Name, datatype and shape of a declared input."""

_MOST_NAMES = 8

_PRINTING = threading.Lock()
"""Events come from several threads, and `print` writes a line and its end one after the other."""


@contextmanager
def progress() -> Iterator[Show]:
    """Choose how to show the events of one run, and leave the terminal as it was."""
    if not sys.stdout.isatty():
        yield _print_line
        return
    from anyserve.cli.terminal import Terminal

    with Terminal() as terminal:
        yield terminal.show


def _print_line(kind: str, event: Mapping[str, Any]) -> None:
    text = line(kind, event)
    if text:
        # A pipe that nobody reads any more is no reason to stop serving.
        with suppress(OSError), _PRINTING:
            print(text, flush=True)


def line(kind: str, event: Mapping[str, Any]) -> str:
    """Say an event in one line; empty for one that there is nothing to say about."""
    texts = {
        "worker": _worker, "serving": _serving, "reloading": _reloading, "reloaded": _reloaded, "draining": _draining,
        "stopped": _stopped, "listening": _listening,
    }  # fmt: skip
    return texts[kind](event) if kind in texts else ""


def _worker(event: Mapping[str, Any]) -> str:
    pid = f" (pid {event['pid']})" if event.get("pid") else ""
    # Why a start is given up is the error that ends the command; it is not said twice.
    detail = f": {event['detail']}" if event.get("detail") and event["state"] != "stopping" else ""
    return f"{event['name']} {event['state']}{pid}{detail}"


def _serving(event: Mapping[str, Any]) -> str:
    models, endpoint = list(event["models"]), event["endpoint"]
    workers = _counted(event["workers"], "worker")
    command = example(models, event.get("inputs") or {}, endpoint, event.get("streams") or ())
    return f"serving {_names(models)} on {endpoint} with {workers}; try: {command}"


def example(
    models: Sequence[str], inputs: Mapping[str, Sequence[Input] | None], endpoint: str, streams: Collection[str] = ()
) -> str:
    """Write a command that calls what is served: one to copy, or where nothing is declared one to fill in.

    Args:
        models: names of what is served.
        inputs: what a model declares, by its name; ``None`` or nothing for one that takes any input.
        endpoint: host and port.
        streams: those of the models that answer with a stream.
    """
    # Which inputs a model without declared ones wants is not known here; one with them can be called for certain.
    name = next((model for model in models if inputs.get(model)), models[0] if models else "MODEL")
    values = [f"{tensor}={_sample(datatype, shape)}" for tensor, datatype, shape in inputs.get(name) or ()]
    words = [name, *(values or ["NAME=VALUE"]), *(["--stream"] if name in streams else [])]
    return " ".join(["anyserve call", *map(shlex.quote, words), f"--endpoint {endpoint}"])


def _sample(datatype: str, shape: Sequence[int]) -> str:
    value: Any = {"BYTES": "hello", "BOOL": True}.get(datatype, 1)
    if math.prod(abs(size) for size in shape) == 1 and len(shape) <= 1:
        return value if isinstance(value, str) else json.dumps(value)
    for size in reversed(shape):
        value = [value] * (1 if size == -1 else size)
    return json.dumps(value, separators=(",", ":"))


def _names(models: Sequence[str]) -> str:
    more = len(models) - _MOST_NAMES
    return ", ".join(models[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _reloading(event: Mapping[str, Any]) -> str:
    return f"{event['path']} has changed, loading the app again"


def _reloaded(event: Mapping[str, Any]) -> str:
    error = event["error"]
    return "the app was loaded again" if error is None else f"the app was not loaded again, its workers stay: {error}"


def _listening(event: Mapping[str, Any]) -> str:
    store = "" if event["store"] == "memory" else f", shared in {event['store']}"
    command = f"anyserve serve app:app --api-server {event['endpoint']}"
    return f"API server on {event['endpoint']}{store}, routing by {event['policy']}; next: {command}"


def _draining(event: Mapping[str, Any]) -> str:
    in_flight = _counted(event["in_flight"], "request")
    return f"stopping: {in_flight} in flight, at most {event['grace_s']:g} s; once more ends it at once"


def _stopped(event: Mapping[str, Any]) -> str:
    return "stopped" if event["clean"] else f"stopped; {_counted(event['aborted'], 'request')} aborted"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
