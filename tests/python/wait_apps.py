"""Apps for the tests of threads that wait. A handler with the parameter `gate` opens that named pipe first."""

import threading
from pathlib import Path

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, Stream
from anyserve.errors import Cancelled

serial = AnyServe()
threads = AnyServe()

beside: list[threading.Thread] = []
left: list[str] = []


def pass_gate(request: ModelInferRequest) -> None:
    if "gate" in request.parameters:
        Path(request.parameters["gate"]).read_bytes()


def begin(thread: threading.Thread) -> None:
    thread.daemon = True
    beside.append(thread)
    thread.start()


# === serial: handlers by their place ===


@serial.capability(type="look-beside")  # 0
def look_beside(request: ModelInferRequest, context: Context) -> dict[str, object]:
    """Leave a thread behind that waits for the runtime's answer."""
    begin(threading.Thread(target=context.objects.lookup, args=("key",)))
    return {"n": [0]}


@serial.capability(type="join")  # 1
def join(request: ModelInferRequest) -> dict[str, object]:
    beside.pop().join(timeout=20)
    return {"n": [1]}


@serial.capability(type="count")  # 2
def count(request: ModelInferRequest) -> dict[str, object]:
    return {"n": [2]}


# === threads ===


@threads.capability(type="shared", max_batch_size=8, concurrency=2)  # 0
def shared(requests: list[ModelInferRequest]) -> list[object]:
    return [{"y": np.full(1 << 16, int(one.id), np.uint8)} for one in requests]


@threads.capability(type="large")  # 1
def large(request: ModelInferRequest) -> dict[str, object]:
    return {"y": np.zeros(4 << 20, np.uint8)}


@threads.capability(type="give-up")  # 2
def give_up(request: ModelInferRequest, context: Context) -> dict[str, object]:
    """Open a call, and give it up behind the gate."""
    opened = context.call_stream("a", {})
    pass_gate(request)
    opened.close()
    return {"n": [2]}


@threads.capability(type="touch")  # 3
def touch(request: ModelInferRequest) -> dict[str, object]:
    Path(request.parameters["seen"]).write_text("seen")
    return {"n": [3]}


@threads.capability(type="leave", stream=True)  # 4
def leave(request: ModelInferRequest, context: Context, stream: Stream) -> None:
    """Leave a thread behind that sends more than the window takes; return behind the gate."""
    begin(threading.Thread(target=send_on, args=(stream,)))
    pass_gate(request)


def send_on(stream: Stream) -> None:
    try:
        while True:
            stream.send({"n": [4]})
    except Cancelled:
        left.append("cancelled")


@threads.capability(type="join")  # 5
def join_beside(request: ModelInferRequest) -> dict[str, object]:
    beside.pop().join(timeout=20)
    return {"left": left or ["still there"]}
