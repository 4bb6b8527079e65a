"""Handlers that read, write and keep what lies in shared memory, and check every byte of it that they see."""

import itertools
import json
import os
import time
from collections.abc import Iterator

import numpy as np

from anyserve import AnyServe, Context, errors
from tests.e2e.apps import marks
from tests.guarantees.whole import MIB, check, payload, seed_of

kept: list[tuple[np.ndarray, int]] = []
"""Views that outlive the requests in which they were made, with their payloads' seeds; each worker has its own."""

OPTIONS = ("key", "ttl_s", "cacheable", "checksum")


def create() -> AnyServe:
    """Make an app with handlers in threads and on an event loop."""
    app = AnyServe()
    add_tensors(app)
    add_objects(app)
    add_limits(app)
    add_views(app)
    return app


def add_tensors(app: AnyServe) -> None:
    @app.capability(type="echo", concurrency=4)
    def echo(x, seed: int):
        check(x, seed)
        return {"x": x, "pid": os.getpid()}

    @app.capability(type="echo-async", concurrency=16)
    async def echo_async(x, seed: int):
        check(x, seed)
        return {"x": x, "pid": os.getpid()}

    @app.capability(type="derive", concurrency=4)
    def derive(x, seed: int):
        check(x, seed)
        return {"x": payload(seed + 1, len(x)), "pid": os.getpid()}

    @app.capability(type="parts", stream=True, concurrency=4)
    def parts(seed: int, count: int) -> Iterator[dict[str, object]]:
        for part in range(count):
            yield {"x": payload(seed + part), "pid": os.getpid()}

    @app.capability(type="parts-held", stream=True, concurrency=4)
    def parts_held(seed: int, name: str) -> Iterator[dict[str, object]]:
        yield {"x": payload(seed)}
        marks.wait(f"go-{name}")
        yield {"x": payload(seed + 1)}

    @app.capability(type="flood", stream=True, concurrency=4)
    def flood(seed: int, name: str) -> Iterator[dict[str, object]]:
        for part in itertools.count():
            marks.note(f"made-{name}", part)
            yield {"x": payload(seed + part)}

    @app.capability(type="hold", concurrency=4)
    def hold(x, seed: int, name: str):
        """Read as long as the test wants."""
        marks.note(f"holding-{name}")
        while not (marks.NOTES / f"go-{name}").exists():
            check(x, seed)
            time.sleep(marks.PAUSE_S)
        return {"pid": os.getpid()}


def add_objects(app: AnyServe) -> None:
    @app.capability(type="make", concurrency=4)
    def make(seed: int, context: Context, size: int = MIB):
        options = {name: context.parameters[name] for name in OPTIONS if name in context.parameters}
        return {"ref": context.objects.create(payload(seed, size), **options), "pid": os.getpid()}

    @app.capability(type="read", concurrency=4)
    def read(ref: str, seed: int, context: Context):
        x = context.objects.get(ref)
        check(x, seed)
        return {"x": x, "pid": os.getpid()}

    @app.capability(type="find", concurrency=4)
    def find(key: str, context: Context):
        """Read the newest object with a key; it may be gone between the two."""
        ref = context.objects.lookup(key)
        if ref is None:
            raise errors.NotFound(f"nothing under {key}")
        x = context.objects.get(ref)
        return {"x": x, "seed": seed_of(x), "pid": os.getpid()}

    @app.capability(type="drop", concurrency=4)
    def drop(ref: str, context: Context):
        return {"dropped": context.objects.delete(ref), "pid": os.getpid()}

    @app.capability(type="usage", inputs=[], concurrency=4)
    def usage(context: Context):
        told = context.objects.usage()
        return {"usage": json.dumps({name: getattr(told, name) for name in told.__slots__})}


def add_limits(app: AnyServe) -> None:
    @app.capability(type="crowd")
    def crowd(context: Context, most: int):
        """Make the smallest objects until there is room for no other; tell how many, and why no more."""
        made = 0
        try:
            while made < most:
                context.objects.create(b"x")
                made += 1
        except errors.ObjectStoreFull as error:
            return {"made": made, "why": str(error)}
        return {"made": made, "why": ""}


def add_views(app: AnyServe) -> None:
    @app.capability(type="keep")
    def keep(x, seed: int, ref: str, ref_seed: int, context: Context):
        """Keep an input and an object."""
        kept.extend([(x, seed), (context.objects.get(ref), ref_seed)])
        return {"kept": len(kept)}

    @app.capability(type="keep-many")
    def keep_many(count: int, context: Context):
        """Keep objects that are deleted."""
        for seed in range(count):
            ref = context.objects.create(payload(seed, 64))
            kept.append((context.objects.get(ref), seed))
            context.objects.delete(ref)
        return {"kept": len(kept)}

    @app.capability(type="kept", inputs=[])
    def check_kept():
        for data, seed in kept:
            check(data, seed)
        return {"kept": len(kept)}

    @app.capability(type="let-go", inputs=[])
    def let_go():
        kept.clear()
        return {"kept": 0}


app = create()
