"""Handlers for the tests of the object plane: what they store, find and are given."""

import asyncio
import functools
import json

import marks
import numpy as np

from anyserve import AnyServe, Context, InferInput, ModelInferRequest, ModelInferResponse, ObjRef, TensorSpec, errors

kept: dict[str, np.ndarray] = {}
"""Views that outlive the requests in which they were made; each worker has its own."""

OPTIONS = ("key", "ttl_s", "cacheable", "durable", "checksum")


def create() -> AnyServe:
    """Make an app whose handlers run in threads and on an event loop."""
    app = AnyServe()
    add_store(app)
    add_references(app)
    add_views(app)
    return app


def options(request: ModelInferRequest) -> dict[str, object]:
    """What of the request's parameters is an option of `create`."""
    return {name: request.parameters[name] for name in OPTIONS if name in request.parameters}


def part(tensor: InferInput) -> object:
    """An input as an object's part: its element if it is to be bytes, else itself."""
    return tensor.contents.bytes_contents[0] if tensor.parameters.get("as") == "bytes" else tensor


def add_store(app: AnyServe) -> None:
    @app.capability(type="create", concurrency=8)
    def create_one(request: ModelInferRequest, context: Context):
        return {"ref": context.objects.create(part(request.input("x")), **options(request))}

    @app.capability(type="create-array", concurrency=8)
    def create_array(request: ModelInferRequest, context: Context):
        return {"ref": context.objects.create(request.input("x").as_numpy(), **options(request))}

    @app.capability(type="create-dict", concurrency=8)
    def create_dict(request: ModelInferRequest, context: Context):
        value = {tensor.name: part(tensor) for tensor in request.inputs}
        return {"ref": context.objects.create(value, **options(request))}

    @app.capability(type="create-changed")
    def create_changed(context: Context, size: int):
        array = np.ones(size, np.uint8)
        ref = context.objects.create(array)
        array[:] = 2
        return {"ref": ref}

    @app.capability(type="create-nonsense")
    def create_nonsense(context: Context, what: str):
        values = {"function": create_nonsense, "object": object(), "none": None, "text": "text", "list": [1]}
        return {"ref": context.objects.create(values[what])}

    @app.capability(type="get", concurrency=8)
    def get(ref: str, context: Context):
        return outputs(context.objects.get(ref))

    @app.capability(type="get-reference", concurrency=8)
    def get_reference(ref: ObjRef, context: Context):
        return outputs(context.objects.get(ref))

    @app.capability(type="lookup", concurrency=8)
    def lookup(key: str, context: Context):
        ref = context.objects.lookup(key)
        return {"found": ref is not None} | ({} if ref is None else {"ref": ref})

    @app.capability(type="delete", concurrency=8)
    def delete(ref: str, context: Context):
        return {"deleted": context.objects.delete(ref)}

    @app.capability(type="stat", concurrency=8)
    def stat(ref: str, context: Context):
        told = context.objects.stat(ref)
        return {"stat": json.dumps({name: getattr(told, name) for name in told.__slots__})}

    @app.capability(type="usage", inputs=[], concurrency=8)
    def usage(context: Context):
        told = context.objects.usage()
        return {"usage": json.dumps({name: getattr(told, name) for name in told.__slots__})}


def outputs(value: object) -> dict[str, object]:
    """What an object holds; names say which parts are bytes."""
    if isinstance(value, bytes):
        return {"bytes": value}
    if isinstance(value, dict):
        named = {f"bytes_{name}" if isinstance(one, bytes) else f"array_{name}": one for name, one in value.items()}
        return named | {"order": json.dumps(list(value))}
    assert not value.flags.writeable
    return {"array": value, "view": not value.flags.owndata}


def add_references(app: AnyServe) -> None:
    @app.capability(type="see", concurrency=8)
    def see(request: ModelInferRequest):
        """Tell what became of each input, and give it back."""
        response = ModelInferResponse()
        told = {}
        for tensor in request.inputs:
            told[tensor.name] = [tensor.datatype, tensor.shape, str(tensor.objref), tensor.parameters.get("objref")]
            response.add_output(f"output_{tensor.name}", tensor.datatype, tensor.shape).contents = tensor.contents
        response.add_output("seen", [json.dumps(told)])
        return response

    @app.capability(type="total", inputs=[TensorSpec("x", "FP32", [-1])], concurrency=8)
    def total(x):
        return {"total": float(x.sum())}

    @app.capability(type="total-async", inputs=[TensorSpec("x", "FP32", [-1])], concurrency=8)
    async def total_async(x):
        return {"total": float(x.sum())}

    @app.capability(type="totals", inputs=[TensorSpec("x", "FP32", [-1])], max_batch_size=8)
    def totals(requests: list[ModelInferRequest]):
        return [{"total": float(request.input("x").as_numpy().sum())} for request in requests]

    @app.capability(type="total-streamed", stream=True, concurrency=8)
    def total_streamed(x):
        yield {"total": float(x.sum())}

    @app.capability(type="type-of", concurrency=8)
    def type_of(x):
        return {"type": type(x).__name__}

    @app.capability(type="forward", concurrency=8)
    def forward(x: ObjRef):
        return {"ref": x}


def add_views(app: AnyServe) -> None:
    @app.capability(type="keep")
    def keep(name: str, ref: str, context: Context):
        kept[name] = context.objects.get(ref)
        return {"total": float(kept[name].sum())}

    @app.capability(type="keep-input")
    def keep_input(name: str, x):
        kept[name] = x
        return {"total": float(x.sum())}

    @app.capability(type="kept")
    def kept_total(name: str):
        return {"total": float(kept[name].sum()), "writeable": kept[name].flags.writeable}

    @app.capability(type="let-go")
    def let_go(name: str):
        del kept[name]
        return {"left": len(kept)}

    @app.capability(type="await", concurrency=8)
    async def awaits(name: str, ref: str, context: Context):
        """Hold a view across an `await`, while its object is deleted."""
        view = await context.objects.aget(ref)
        before = float(view.sum())
        marks.note(f"reading-{name}")
        await marks.wait_async(f"read-{name}")
        return {"before": before, "after": float(view.sum())}

    @app.capability(type="twins", concurrency=8)
    async def twins(key: str, x, context: Context):
        """Run every twin, several at once."""
        refs = await asyncio.gather(*(context.objects.acreate(x, key=f"{key}-{number}") for number in range(4)))
        found = await asyncio.gather(*(context.objects.alookup(f"{key}-{number}") for number in range(4)))
        assert found == refs
        values = await asyncio.gather(*map(context.objects.aget, refs))
        totals = [float(value.sum()) for value in values]
        deleted = await asyncio.gather(*map(context.objects.adelete, refs))
        return {"totals": totals, "deleted": deleted, "left": await gone(context, refs)}


async def gone(context: Context, refs: list[ObjRef]) -> int:
    """How many of these are still to be had."""
    ended = await asyncio.gather(*map(functools.partial(context.objects.aget), refs), return_exceptions=True)
    return sum(not isinstance(one, errors.NotFound) for one in ended)
