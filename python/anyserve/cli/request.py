"""One request from the command line, through the client that programs use."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from anyserve.client import Client

_OPERATORS = re.compile(r"[=!<>()]|\s(in|notin)\s")


def answers(
    endpoint: str, model: str, inputs: Mapping[str, Any], *, timeout_s: float | None, stream: bool
) -> Iterator[Mapping[str, Any]]:
    """Send a request and yield its answer, or its answers as they come.

    Args:
        endpoint: host and port.
        model: a model name, or a selector of capabilities.
        inputs: as `Client.infer` takes them.
        timeout_s: seconds for the whole request; ``None`` waits.
        stream: take any number of answers.

    Raises:
        AnyServeError: the request ended without an answer.
    """
    target, parameters = chosen(model)
    with Client(endpoint=endpoint) as client:
        if stream:
            with client.stream(target, inputs, timeout_s=timeout_s, parameters=parameters) as parts:
                yield from parts
        else:
            yield client.infer(target, inputs, timeout_s=timeout_s, parameters=parameters)


def chosen(model: str) -> tuple[str | dict[str, str], dict[str, str] | None]:
    """Tell a model name, a capability and any other selector apart.

    Returns:
        What to give the client as target, and as parameters. ``type=echo,lang=en`` is a capability; what only the
        server can read, such as ``size>=7``, goes along as the request's selector.
    """
    if not _OPERATORS.search(model):
        return model, None
    pairs = [part.partition("=") for part in model.split(",")]
    if all(key and equals and not _OPERATORS.search(key + value) for key, equals, value in pairs):
        return {key.strip(): value.strip() for key, _, value in pairs}, None
    return model, {"capability": model}
