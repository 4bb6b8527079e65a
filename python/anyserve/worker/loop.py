"""The event loop of async handlers.

The socket, the frames and the answers are `_core`'s. This is what only Python can do: await a handler.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

from anyserve._core import Stream, _BatchExchange, _Bridge, _Exchange
from anyserve.worker._life import Life

__all__ = ["answer", "answer_batch", "asend", "serve", "stream"]


def serve(bridge: _Bridge, life: Life) -> None:
    """Run the event loop until everything is answered after a drain, the socket is closed, or a hook has its turn.

    Args:
        bridge: the socket's end.
        life: whose loop it is. Called again, it is the same loop, with the same tasks.
    """
    life.run(_serve(bridge))


async def _serve(bridge: _Bridge) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    bridge.attach(loop, over)
    loop.add_reader(bridge.fileno(), bridge.drain)
    # Outside the main thread, whoever runs the worker there has the signals.
    with suppress(RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, bridge.terminate)
    try:
        # What came before this loop ran may have taken the descriptor's word with it.
        bridge.drain()
        await over
    finally:
        loop.remove_reader(bridge.fileno())


async def answer(exchange: _Exchange, call: Callable[..., Awaitable[object]], arguments: tuple[Any, ...]) -> None:
    """Await a handler and answer with what it returns."""
    try:
        value = await call(*arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it and the worker goes on.
        exchange.fail(error)
    else:
        exchange.finish(value)


async def answer_batch(exchange: _BatchExchange, call: Callable[..., Awaitable[object]]) -> None:
    """Await a handler that takes a list, again with halves of the list when it raises, until all are answered."""
    while (arguments := exchange.next()) is not None:
        try:
            answers = await call(*arguments)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it and the worker goes on.
            exchange.fail(error)
        else:
            exchange.finish(answers)


async def stream(
    exchange: _Exchange, call: Callable[..., AsyncGenerator[object, None]], arguments: tuple[Any, ...]
) -> None:
    """Send everything that an async generator yields."""
    try:
        async with aclosing(call(*arguments)) as responses:
            async for response in responses:
                while (room := exchange.send(response)) is not None:
                    await room
                # Other handlers have their turn, and what was sent leaves before the generator goes on.
                await asyncio.sleep(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it and the worker goes on.
        exchange.fail(error)
    else:
        exchange.finish(None)


async def asend(sender: Stream, response: object) -> None:
    """Send one response on a stream object; awaits while the caller is behind."""
    while (room := sender._offer(response)) is not None:  # noqa: SLF001 - the other half of `asend`
        await room
    await asyncio.sleep(0)
