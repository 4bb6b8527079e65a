"""Handlers that take lists. What becomes of a request is in its name; what shared its call is in its answer."""

import os
from collections.abc import Sequence

import marks
import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse
from anyserve.errors import InvalidInput

Answer = dict[str, list[int] | list[str]]


def create_serial() -> AnyServe:
    """Make an app whose one thread runs everything."""
    app = AnyServe()
    add_sync(app)
    add_wide(app)
    add_sized(app)
    return app


def create_mixed() -> AnyServe:
    """Make the same with threads, and with coroutines beside them."""
    app = create_serial()
    add_async(app)
    add_contexts(app)
    add_lengths(app)
    add_lethal(app)
    return app


def names_of(requests: Sequence[ModelInferRequest]) -> list[str]:
    return [one.input("name").as_numpy()[0].decode() for one in requests]


def begin(model: str, requests: Sequence[ModelInferRequest]) -> list[str]:
    """Note the call, and give the names of its requests."""
    names = names_of(requests)
    marks.note(f"calls-{model}", " ".join(names))
    return names


def gates(names: Sequence[str]) -> list[str]:
    """The gates that a call waits at, noted as reached."""
    found = [name for name in names if name.startswith("gated")]
    for name in found:
        marks.note(f"started-{name}", f"{os.getpid()} {len(names)}")
    return [f"go-{name}" for name in found]


def answers(names: Sequence[str]) -> list[Answer | InvalidInput]:
    """Raise for the first bad name; otherwise answer each one, and wrong ones with an exception."""
    for name in names:
        if name.startswith("bad"):
            raise ValueError(f"{name} is bad")
    shared: Answer = {"together": list(names), "pid": [os.getpid()]}
    return [InvalidInput(f"{name} is wrong") if name.startswith("wrong") else shared for name in names]


def add_sync(app: AnyServe) -> None:
    @app.capability(type="together", max_batch_size=8)
    def together(requests: list[ModelInferRequest]) -> list[Answer | InvalidInput]:
        names = begin("together", requests)
        for gate in gates(names):
            marks.wait(gate)
        return answers(names)


def add_async(app: AnyServe) -> None:
    @app.capability(type="together-async", max_batch_size=8)
    async def together_async(requests: list[ModelInferRequest]) -> list[Answer | InvalidInput]:
        names = begin("together-async", requests)
        for gate in gates(names):
            await marks.wait_async(gate)
        return answers(names)


def add_wide(app: AnyServe) -> None:
    """Add one that would wait ten seconds for a batch to fill, and one that gives every tensor back."""

    @app.capability(type="patient", max_batch_size=8, max_delay_ms=10_000, priority=2)
    def patient(requests: list[ModelInferRequest]) -> list[Answer | InvalidInput]:
        names = begin("patient", requests)
        for gate in gates(names):
            marks.wait(gate)
        return answers(names)

    @app.capability(type="echo", max_batch_size=8)
    def echo(requests: list[ModelInferRequest]) -> list[ModelInferResponse]:
        for gate in gates(names_of(requests)):
            marks.wait(gate)
        return [given_back(one, len(requests)) for one in requests]


def given_back(request: ModelInferRequest, together: int) -> ModelInferResponse:
    response = ModelInferResponse(parameters={"together": together})
    for tensor in request.inputs:
        response.add_output(tensor.name, tensor.datatype, tensor.shape).contents = tensor.contents
    return response


def add_sized(app: AnyServe) -> None:
    @app.capability(type="one", max_batch_size=1)
    def one(requests: list[ModelInferRequest]) -> list[Answer | InvalidInput]:
        names = begin("one", requests)
        for gate in gates(names):
            marks.wait(gate)
        return answers(names)


def add_contexts(app: AnyServe) -> None:
    @app.capability(type="contexts", max_batch_size=8)
    async def with_contexts(requests: list[ModelInferRequest], contexts: list[Context]) -> list[Answer]:
        names = names_of(requests)
        for gate in gates(names):
            await marks.wait_async(gate)
        for name, context in zip(names, contexts, strict=True):
            if context.cancelled:
                marks.note(f"left-{name}")
        return [seen(context, len(requests)) for context in contexts]


def seen(context: Context, together: int) -> Answer:
    """What a context says of its request."""
    left = context.remaining()
    return {
        "id": [context.request_id], "colour": [context.headers.get("x-colour", "none")], "attempt": [context.attempt],
        "remaining": [-1 if left is None else int(left)], "size": [together],
    }  # fmt: skip


def add_lengths(app: AnyServe) -> None:
    """Add one that returns something else than a list of as many answers as there are requests."""

    @app.capability(type="lengths", max_batch_size=8)
    def lengths(requests: list[ModelInferRequest]) -> object:
        names = names_of(requests)
        for gate in gates(names):
            marks.wait(gate)
        answer = {"n": np.array([len(names)])}
        made = {"long": [answer] * (len(names) + 2), "short": [answer] * (len(names) - 1), "none": None, "dict": answer}
        return made.get(names[0].partition("-")[0], [answer] * len(names))


def add_lethal(app: AnyServe) -> None:
    """Add two that die of some names, of which one may be run twice."""

    @app.capability(type="lethal", max_batch_size=8)
    def lethal(requests: list[ModelInferRequest], contexts: list[Context]) -> list[Answer]:
        return lives_or_not(requests, contexts)

    @app.capability(type="lethal-idempotent", max_batch_size=8, idempotent=True)
    def lethal_idempotent(requests: list[ModelInferRequest], contexts: list[Context]) -> list[Answer]:
        return lives_or_not(requests, contexts)


def lives_or_not(requests: list[ModelInferRequest], contexts: list[Context]) -> list[Answer]:
    names = begin("lethal", requests)
    for gate in gates(names):
        marks.wait(gate)
    if any(name.startswith("lethal") for name in names):
        os._exit(9)
    return [{"pid": [os.getpid()], "attempt": [context.attempt], "size": [len(names)]} for context in contexts]
