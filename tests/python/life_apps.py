"""Worker classes for the tests of a worker's life: one for each form of worker, with hooks that are async and not.

What happens is noted in the file that `NOTES` names. The step that `FAIL` names raises; the one that `HOLD` names waits
for the named pipe in `GATE`.
"""

import asyncio
import os
from pathlib import Path

import numpy as np

from anyserve import AnyServe, ModelInferRequest, ModelInferResponse, TensorSpec, Worker

app = AnyServe()


def note(text: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{text}\n")


def step(name: str) -> None:
    note(name)
    if os.environ.get("HOLD") == name:
        Path(os.environ["GATE"]).read_bytes()
    if os.environ.get("FAIL") == name:
        raise ValueError(f"no {name}")


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Sync(Worker):
    """Hooks that find no running loop around them."""

    def __init__(self) -> None:
        step("init")

    def on_start(self):
        assert running_loop() is None
        step("start")

    def on_sleep(self):
        assert running_loop() is None
        step("sleep")

    def on_wake(self):
        assert running_loop() is None
        step("wake")

    def on_stop(self):
        assert running_loop() is None
        step("stop")


class Async(Worker):
    """Hooks that share a loop, in which a task of theirs goes on."""

    def __init__(self) -> None:
        step("init")

    async def on_start(self):
        self.loop, self.ticks = asyncio.get_running_loop(), 0
        self.task = self.loop.create_task(self.tick())
        step("start")

    async def tick(self):
        while True:
            self.ticks += 1
            await asyncio.sleep(0)

    async def turn(self, name: str):
        before = self.ticks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        assert self.ticks > before
        step(name)

    async def on_sleep(self):
        await self.turn("sleep")

    async def on_wake(self):
        await self.turn("wake")

    async def on_stop(self):
        await self.turn("stop")
        self.task.cancel()


def answer(value: int) -> ModelInferResponse:
    response = ModelInferResponse()
    response.add_output("n", np.array([value], np.int64))
    return response


def handle(self, request: ModelInferRequest, context) -> ModelInferResponse:
    step(f"handle {context.capability['type']}")
    return answer(7)


async def handle_async(self, request: ModelInferRequest, context) -> ModelInferResponse:
    assert getattr(self, "loop", None) in (None, asyncio.get_running_loop())
    step(f"handle {context.capability['type']}")
    return answer(7)


FORMS = {"Serial": (handle, 1), "Threaded": (handle, 2), "Looped": (handle_async, 2)}
for form, (method, concurrency) in FORMS.items():
    for hooks in (Sync, Async):
        name = f"{form}{hooks.__name__}"
        capabilities = [{"type": name}, {"type": f"{name}-too"}]
        app.worker(capabilities, concurrency=concurrency)(type(name, (hooks,), {"handle": method}))


@app.capability(type="plain")
def plain(request: ModelInferRequest) -> ModelInferResponse:
    return answer(1)


# === warm-up ===

warm = AnyServe()
INPUTS = [{"x": [1.5, 2]}, {"x": [3]}]


@warm.worker([{"type": "typed"}, {"type": "typed-too"}], inputs=[TensorSpec("x", "FP32", [-1])], warmup=INPUTS)
class Typed(Worker):
    def on_start(self):
        note("start")

    def handle(self, x: np.ndarray, context):
        note(f"{context.capability['type']} {x.dtype} {x.tolist()} {context.remaining()}")
        return {"y": x}


@warm.worker([{"type": "batched"}], max_batch_size=8, warmup=[{"text": "hé", "n": 3}])
class Batched(Worker):
    def handle(self, requests, contexts):
        (request,), (context,) = requests, contexts
        text = request.input("text").as_numpy().tolist()[0].decode()
        note(f"{context.capability} {text} {request.input('n').datatype} {request.model_name}")
        return [{"y": np.ones(1)}]


@warm.worker([{"type": "generated"}], stream=True, warmup=[{}])
class Generated(Worker):
    def handle(self, request):
        yield answer(1)
        yield answer(2)
        note("drained")


@warm.worker([{"type": "sent"}], stream=True, warmup=[{}])
class Sent(Worker):
    def handle(self, request, context, stream):
        stream.send(answer(1))
        note("sent")


@warm.worker([{"type": "awaited"}], concurrency=4, warmup=[{}])
class Awaited(Worker):
    def __init__(self) -> None:
        self.loop = None

    async def handle(self, request):
        await asyncio.sleep(0)
        if self.loop is not None:
            assert self.loop is asyncio.get_running_loop()
        self.loop = asyncio.get_running_loop()
        note("awaited")
        return answer(1)


@warm.worker([{"type": "yielded"}], stream=True, concurrency=4, warmup=[{}])
class Yielded(Worker):
    async def handle(self, request):
        yield answer(1)
        await asyncio.sleep(0)
        yield answer(2)
        note("drained")


@warm.worker([{"type": "asent"}], stream=True, concurrency=4, warmup=[{}])
class Asent(Worker):
    async def handle(self, request, context, stream):
        await stream.asend({"y": np.ones(1)})
        note("sent")


@warm.worker([{"type": "good"}, {"type": "bad", "size": 3}], warmup=[{"x": [1]}, {"x": [2]}])
class Failing(Worker):
    def handle(self, request, context):
        if context.capability["type"] == "bad" and request.input("x").as_numpy()[0] == 2:
            raise ValueError("too large")
        return answer(1)


@warm.worker([{"type": "wrong"}], warmup=[{}])
class Wrong(Worker):
    def handle(self, request):
        return 3


@warm.worker([{"type": "short"}], max_batch_size=2, warmup=[{}])
class Short(Worker):
    def handle(self, requests):
        return []


@warm.worker([{"type": "raised"}], max_batch_size=2, warmup=[{}])
class Raised(Worker):
    def handle(self, requests):
        return [ValueError("for this one")]


# === isolation ===

apart = AnyServe()


@apart.worker([{"type": "serial"}, {"type": "nice"}], memory_limit="256MiB", niceness=7)
class Limited(Worker):
    def handle(self, request, context):
        if context.capability["type"] == "nice":
            return answer(os.getpriority(os.PRIO_PROCESS, 0))
        held = np.ones(request.parameters["mib"] << 20, np.uint8)
        return answer(int(held[-1]))


@apart.worker([{"type": "threads"}], memory_limit="256MiB", concurrency=64)
class LimitedThreads(Worker):
    def handle(self, request):
        return answer(int(bytearray(request.parameters["mib"] << 20)[-1]))


@apart.worker([{"type": "start"}], memory_limit="128MiB")
class LimitedStart(Worker):
    def on_start(self):
        self.held = bytearray(1 << 30)

    def handle(self, request): ...


@apart.worker([{"type": "tight"}], memory_limit=16 << 20)
class Tight(Worker):
    def handle(self, request): ...
