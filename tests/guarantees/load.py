"""The load of a storm: requests by a schedule that waits for nobody, each watched to its one end.

The replica alone is told the deadline (by the header `grpc-timeout`, or the parameter `timeout`): the client library
would otherwise end the request by itself at that instant, and nobody would see whether the replica does.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2 as pb

from tests.guarantees.ledger import LEFT, Ledger, Request

SERVICE = "/inference.GRPCInferenceService/"
TICK_S = 0.01
HUNG_S = 5.0
"""How long after its deadline a request is taken for hung."""

CHANNELS = 4
TIMEOUT_BY_PARAMETER = 0.1
MIX = {"echo": 52, "echo-async": 14, "echo-idempotent": 10, "slow": 2, "narrow": 2, "count": 10, "count-async": 10}
"""The models of good requests with their weights; a fifth are streams."""

OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]


class Delays:
    """How far behind its schedule this process was of late: what it sees then is as late by itself."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, float]] = deque(maxlen=1000)
        self.planned = math.inf

    async def until(self, planned: float) -> None:
        """Sleep until the next point of the schedule."""
        self.planned = planned
        await asyncio.sleep(planned - time.monotonic())
        now = time.monotonic()
        self.seen.append((now, now - planned))

    def since(self, instant: float, now: float) -> float:
        """The longest delay since an instant, with the one that lasts."""
        past = max((delay for at, delay in self.seen if at >= instant), default=0.0)
        return max(past, now - self.planned, 0.0)


class Load:
    """Sends requests and enters their ends in the ledger."""

    def __init__(self, endpoint: str, ledger: Ledger, chance: random.Random) -> None:
        self.endpoint, self.ledger, self.chance = endpoint, ledger, chance
        self.delays = Delays()
        self.under_way: dict[str, tuple[Request, asyncio.Task[None]]] = {}
        self.channels = [grpc.aio.insecure_channel(endpoint, options=OPTIONS) for _ in range(CHANNELS)]
        self.unary = [channel.unary_unary(SERVICE + "ModelInfer") for channel in self.channels]
        self.streams = [channel.stream_stream(SERVICE + "ModelStreamInfer") for channel in self.channels]
        self.numbers = iter(range(10**9))

    async def close(self) -> None:
        """Wait for what is under way, then hang up."""
        while self.under_way:
            await asyncio.wait([task for _, task in self.under_way.values()])
        for channel in self.channels:
            await channel.close()

    # === the schedule ===

    async def run(self, rate: float, duration_s: float) -> float:
        """Send good requests at a rate, and give the rate that came of it; a late tick sends all that were due."""
        start = time.monotonic()
        sent, tick, end = 0, 0, start + duration_s
        while (now := time.monotonic()) < end:
            due = int((now - start) * rate) + 1
            for _ in range(due - sent):
                self.send(self.good())
            sent, tick = due, max(tick + 1, int((now - start) / TICK_S))
            await self.delays.until(start + tick * TICK_S)
        self.delays.planned = math.inf
        return sent / (time.monotonic() - start)

    def good(self) -> Request:
        """Make a request that a handler would answer."""
        (model,) = self.chance.choices(list(MIX), MIX.values())
        parts = self.chance.randint(1, 8) if model.startswith("count") else 0
        return self.make(model, f"{parts} {self.chance.random()}", parts=parts)

    def make(self, model: str, payload: str, *, timeout_s: float | None = None, **more) -> Request:
        request_id = f"{model}-{next(self.numbers)}"
        timeout_s = timeout_s or self.chance.uniform(0.3, 3.0)
        return Request(request_id, model, f"{payload} {request_id}", timeout_s, **more)

    # === one request ===

    def send(self, request: Request, message: bytes | None = None) -> None:
        """Begin a request; `message` goes instead of the one that belongs to it."""
        by_parameter = message is None and self.chance.random() < TIMEOUT_BY_PARAMETER
        data = encode(request, with_timeout=by_parameter) if message is None else message
        metadata = () if by_parameter else (("grpc-timeout", f"{request.timeout_s * 1000:.0f}m"),)
        watch = self.watch_stream if request.parts else self.watch_unary
        place = self.ledger.sent % CHANNELS
        self.ledger.send(request, time.monotonic())
        task = asyncio.create_task(watch(request, data, metadata, place))
        self.under_way[request.id] = (request, task)
        task.add_done_callback(lambda _: self.over(request))

    def over(self, request: Request) -> None:
        """Forget a request. One whose caller left before it was sent has ended here."""
        del self.under_way[request.id]
        if request.left and request.id in self.ledger.open:
            self.ledger.end(request, LEFT, time.monotonic())

    def leave(self, count: int) -> int:
        """Cancel requests that are under way, as callers that leave."""
        left = self.chance.sample(sorted(self.under_way), min(count, len(self.under_way)))
        for name in left:
            request, task = self.under_way[name]
            request.left = True
            task.cancel()
        return len(left)

    async def watch_unary(self, request: Request, data: bytes, metadata, place: int) -> None:
        async def answer() -> int:
            reply = pb.ModelInferResponse.FromString(await self.unary[place](data, metadata=metadata))
            return attempts_of(check(reply, request, request.payload))

        await self.watch(request, answer)

    async def watch_stream(self, request: Request, data: bytes, metadata, place: int) -> None:
        async def answer() -> int:
            call = self.streams[place](metadata=metadata)
            with suppress(asyncio.InvalidStateError):  # It has ended before it was written; why is read below.
                await call.write(data)
                await call.done_writing()
            replies = [pb.ModelStreamInferResponse.FromString(reply) async for reply in call]
            return check_stream(replies, request)

        await self.watch(request, answer)

    async def watch(self, request: Request, answer: Callable[[], Awaitable[int]]) -> None:
        """Enter the one end of a request."""
        try:
            async with asyncio.timeout(request.timeout_s + HUNG_S):
                attempts = await answer()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is how the request has ended.
            self.enter_failure(request, error)
        else:
            now = time.monotonic()
            self.ledger.answer(request, now, attempts, own_delay_s=self.own_delay(request, now))

    def enter_failure(self, request: Request, error: Exception) -> None:
        now = time.monotonic()
        if request.left:
            self.ledger.end(request, LEFT, now)
        else:
            self.ledger.fail(request, *reason(error), now, own_delay_s=self.own_delay(request, now))

    def own_delay(self, request: Request, now: float) -> float:
        return self.delays.since(request.deadline, now) if now > request.deadline else 0.0


# === messages ===


class Failed(Exception):
    """A request of a stream that failed inside it."""


class Wrong(Exception):
    """An answer that is not the request's own."""


def encode(request: Request, *, with_timeout: bool = False, shape: int = 1) -> bytes:
    """The message of a request; its tensor fits another shape than 1 not at all."""
    made = pb.ModelInferRequest(model_name=request.model, id=request.id)
    tensor = made.inputs.add(name="payload", datatype="BYTES", shape=[shape])
    tensor.contents.bytes_contents.append(request.payload.encode())
    if request.parts:
        made.parameters["triton_enable_empty_final_response"].bool_param = True
    if with_timeout:
        made.parameters["timeout"].int64_param = int(request.timeout_s * 1e6)
    return made.SerializeToString()


def check(reply, request: Request, payload: str):
    """Whether an answer is what this request must get."""
    found = reply.raw_output_contents[0][4:].decode() if reply.raw_output_contents else None
    if (reply.id, found) != (request.id, payload):
        raise Wrong(f"answered with id {reply.id!r} and {found!r} instead of {payload!r}")
    return reply


def attempts_of(reply) -> int:
    """How often the request was sent to a worker, as its answer says; once if it says nothing."""
    return reply.parameters["anyserve_attempts"].int64_param if "anyserve_attempts" in reply.parameters else 1


def check_stream(replies: list, request: Request) -> int:
    """Whether a stream has given every part in order, then one end and nothing more."""
    ends = [place for place, reply in enumerate(replies) if is_end(reply)]
    if not ends:
        raise Wrong(f"ends without an end or an error after {len(replies)} of {request.parts} parts")
    if more := len(replies) - ends[0] - 1:
        raise Wrong(f"ends, and {more} messages follow")
    end, parts = replies[-1], [reply.infer_response for reply in replies[:-1]]
    for place, part in enumerate(parts):
        check(part, request, f"{place} {request.payload}")
    if end.error_message:
        raise Failed(end.infer_response.parameters["x-anyserve-code"].string_param, end.error_message)
    if len(parts) != request.parts or end.infer_response.outputs:
        raise Wrong(f"ends well after {len(parts)} of {request.parts} parts")
    return attempts_of(parts[0])


def is_end(reply) -> bool:
    return bool(reply.error_message) or reply.infer_response.parameters["triton_final_response"].bool_param


def reason(error: Exception) -> tuple[str, str]:
    """Code and text of a failure; what is no code of the closed set says what it is instead."""
    if isinstance(error, grpc.aio.AioRpcError):
        metadata = dict(error.trailing_metadata() or ())
        return metadata.get("x-anyserve-code", f"untyped {error.code().name} {error.details()}"), error.details() or ""
    if isinstance(error, Failed):
        return error.args[0], error.args[1]
    if isinstance(error, TimeoutError):
        return "hung", f"not ended {HUNG_S:g} s after its deadline"
    return type(error).__name__, str(error)
