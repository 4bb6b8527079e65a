"""The runtime's end of the worker socket in plain Python: frames, their messages, and a runtime to play with.

It shares no code with the worker. What both agree on is the protocol.
"""

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER = struct.Struct("<HBBHHQIQ")
MAGIC = int.from_bytes(b"AS", "little")
VERSION = 4
RESPONSE = 1
NOT_STARTED = 2
SLOTS = 4096
OFFERED, STARTED, RECALLED = 1, 2, 3
WATCHDOG_S = 30.0
# Cells of an object plane's directory, and its bytes: a page of the largest size.
ENTRIES, DIRECTORY = 1024, 64 << 10

KINDS = (
    "", "Hello", "Welcome", "Ready", "Request", "Chunk", "Done", "Failed", "Cancel", "Credit", "Drain", "Ping", "Pong",
    "Batch", "Put", "Sealed", "Get", "View", "Release", "Sleep", "Asleep", "Wake", "Manifest", "Fork", "Forked", "Call",
    "CallResult",
)  # fmt: skip
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
    "BF16",
)  # fmt: skip
CODES = (
    "INVALID_INPUT", "UNAUTHENTICATED", "FORBIDDEN", "NO_CAPABILITY", "NOT_FOUND", "DEADLINE", "CANCELLED",
    "OVERLOADED", "OBJECT_STORE_FULL", "STARTING", "DRAINING", "UNAVAILABLE", "WORKER_LOST", "POISON", "HANDLER_ERROR",
    "INTERNAL", "UNSUPPORTED",
)  # fmt: skip

# Field number -> name and type; a type in a list is repeated.
SCHEMAS: dict[str, dict[int, tuple[str, Any]]] = {
    "KeyValue": {1: ("key", "text"), 2: ("text", "text"), 3: ("int", "sint"), 4: ("double", "double"),
                 5: ("bool", "bool"), 6: ("uint", "uint")},
    "TensorSpec": {1: ("name", "text"), 2: ("datatype", "uint"), 3: ("shape", ["sint"])},
    "Handler": {1: ("capability", ["KeyValue"]), 2: ("function", "text"), 3: ("inputs", ["TensorSpec"]),
                4: ("declares_inputs", "bool"), 5: ("outputs", ["TensorSpec"]), 6: ("declares_outputs", "bool"),
                7: ("stream", "bool"), 8: ("concurrency", "uint"), 9: ("max_queue", "uint"), 10: ("timeout_us", "uint"),
                11: ("max_batch_size", "uint"), 12: ("max_delay_us", "uint"), 13: ("priority", "uint"),
                14: ("idempotent", "bool"), 15: ("sequence", "bool")},
    "Hello": {1: ("pid", "uint"), 2: ("worker", "uint"), 3: ("token", "text"), 4: ("handlers", ["Handler"]),
              5: ("concurrency", "uint")},
    "Welcome": {1: ("max_meta", "uint"), 2: ("max_body", "uint"), 3: ("stream_window", "uint"), 4: ("slots", "text"),
                5: ("plane", "Plane")},
    "Plane": {1: ("store", "fixed"), 2: ("segment", "text"), 3: ("entries", "uint"), 4: ("capacity", "uint"),
              5: ("pins", "text"), 6: ("threshold", "uint"), 7: ("epoch_ns", "uint")},
    "Header": {1: ("name", "text"), 2: ("value", "text")},
    "Tensor": {1: ("name", "text"), 2: ("datatype", "uint"), 3: ("shape", ["int"]), 4: ("len", "uint"),
               5: ("parameters", ["KeyValue"])},
    "Request": {1: ("handler", "uint"), 2: ("slot", "uint"), 3: ("attempt", "uint"), 4: ("remaining_us", "uint"),
                5: ("model", "text"), 6: ("version", "text"), 7: ("id", "text"), 8: ("inputs", ["Tensor"]),
                9: ("outputs", ["text"]), 10: ("parameters", ["KeyValue"]), 11: ("headers", ["Header"]),
                12: ("places", ["Place"]), 13: ("destinations", ["Destination"])},
    "Place": {1: ("tensor", "uint"), 2: ("offset", "uint"), 3: ("block", "Block"), 4: ("region", "Region")},
    "Block": {1: ("index", "uint"), 2: ("generation", "fixed")},
    "Region": {1: ("id", "uint"), 2: ("path", "text"), 3: ("start", "uint"), 4: ("len", "uint")},
    "Destination": {1: ("output", "text"), 2: ("region", "Region"), 3: ("offset", "uint"), 4: ("len", "uint")},
    "Batch": {1: ("members", ["Member"])},
    "Member": {1: ("id", "uint"), 2: ("len", "uint"), 3: ("request", "Request")},
    "Chunk": {1: ("outputs", ["Tensor"]), 2: ("parameters", ["KeyValue"]), 3: ("compute_ns", "uint"),
              4: ("places", ["Place"]), 5: ("written", ["uint"])},
    "Failed": {1: ("code", "uint"), 2: ("message", "text"), 3: ("traceback", "text"), 4: ("compute_ns", "uint"),
               5: ("retry_after_ms", "uint")},
    "Credit": {1: ("bytes", "uint")},
    "Put": {1: ("len", "uint"), 2: ("ahead", "bool")},
    "Sealed": {1: ("block", "Block"), 2: ("len", "uint"), 3: ("key", "text"), 4: ("ttl_ms", "uint"),
               5: ("cacheable", "bool"), 6: ("durable", "bool"), 7: ("answer", "bool")},
    "ObjectId": {1: ("store", "fixed"), 2: ("index", "uint"), 3: ("generation", "fixed")},
    "Get": {1: ("object", "ObjectId"), 2: ("key", "text"), 3: ("remaining_us", "uint"), 4: ("describe", "bool")},
    "View": {1: ("failed", "Failed"), 2: ("object", "ObjectId"), 3: ("offset", "uint"), 4: ("len", "uint"),
             5: ("stat", "Stat")},
    "Stat": {1: ("len", "uint"), 2: ("remaining_ms", "uint"), 3: ("key", "text"), 4: ("cacheable", "bool"),
             5: ("durable", "bool"), 6: ("capacity", "uint"), 7: ("objects", "uint"), 8: ("evicted", "uint")},
    "Manifest": {1: ("pid", "uint"), 2: ("token", "text"), 3: ("groups", ["Group"]), 4: ("failed", "Failed"),
                 5: ("no_fork", "text"), 6: ("files", ["text"])},
    "Group": {1: ("name", "text"), 2: ("handlers", ["Handler"]), 3: ("gpus", "uint"), 4: ("tokens", ["Amount"]),
              5: ("min_workers", "uint"), 6: ("max_workers", "uint"), 7: ("idle_timeout_us", "uint"),
              8: ("sleeps", "bool"), 9: ("environment", ["Header"]), 10: ("python", "text"),
              11: ("start_timeout_us", "uint"), 12: ("declares_workers", "bool"), 13: ("upgrades", ["text"])},
    "Call": {1: ("parent", "uint"), 2: ("selector", "text"), 3: ("stream", "bool"), 4: ("request", "Request")},
    "CallResult": {1: ("response", "Chunk"), 2: ("failed", "Failed"), 3: ("end", "bool"), 4: ("id", "text"),
                   5: ("model", "text"), 6: ("version", "text"), 7: ("cost", "uint")},
    "Amount": {1: ("name", "text"), 2: ("amount", "uint")},
    "Fork": {1: ("worker", "uint"), 2: ("group", "text"), 3: ("socket", "text"), 4: ("token", "text"),
             5: ("stdout", "text"), 6: ("stderr", "text"), 7: ("environment", ["Header"])},
    "Forked": {1: ("worker", "uint"), 2: ("pid", "uint"), 3: ("failed", "text")},
    "Release": {1: ("object", "ObjectId"), 2: ("block", "Block"), 3: ("region", "uint")},
}  # fmt: skip
SCHEMAS["Done"] = SCHEMAS["Chunk"]
EMPTY = {"uint": 0, "fixed": 0, "sint": 0, "int": 0, "bool": False, "double": 0.0, "text": ""}
NUMBERS = ("uint", "sint", "int", "bool")


# === protobuf ===


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _number(kind: str, value: int) -> bytes:
    if kind == "sint":
        value = value << 1 if value >= 0 else (-value << 1) - 1
    return _varint(value % (1 << 64))


def _from_number(kind: str, number: int) -> Any:
    if kind == "sint":
        return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)
    if kind == "int" and number >= 1 << 63:
        return number - (1 << 64)
    return bool(number) if kind == "bool" else number


def _delimited(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def encode(schema: str, message: dict[str, Any]) -> bytes:
    """Write a message; fields that have their default are left out, except those of a key's value."""
    out = b""
    for number, (name, kind) in SCHEMAS[schema].items():
        value = message.get(name)
        if value is None:
            continue
        if isinstance(kind, list):
            out += _repeated(number, kind[0], value)
        elif value != EMPTY.get(kind) or (schema == "KeyValue" and name != "key"):
            out += _single(number, kind, value)
    return out


def _repeated(number: int, kind: str, values: Iterable[Any]) -> bytes:
    if kind in NUMBERS:
        packed = b"".join(_number(kind, value) for value in values)
        return _delimited(number, packed) if packed else b""
    return b"".join(_single(number, kind, value) for value in values)


def _single(number: int, kind: str, value: Any) -> bytes:
    if kind in NUMBERS:
        return _varint(number << 3) + _number(kind, value)
    if kind in ("double", "fixed"):
        return _varint(number << 3 | 1) + struct.pack("<d" if kind == "double" else "<Q", value)
    return _delimited(number, value.encode() if kind == "text" else encode(kind, value))


def decode(schema: str, data: bytes) -> dict[str, Any]:
    """Read a message; every field is there, but for a key's other values."""
    fields = SCHEMAS[schema]
    message: dict[str, Any] = (
        {name: [] if isinstance(kind, list) else EMPTY.get(kind) for name, kind in fields.values()}
        if schema != "KeyValue"
        else {}
    )
    for number, raw in _fields(data):
        name, kind = fields[number]
        if isinstance(kind, list):
            message[name] += _values(kind[0], raw)
        else:
            message[name] = _value(kind, raw)
    return message


def _values(kind: str, raw: Any) -> list[Any]:
    if kind in NUMBERS and isinstance(raw, bytes):
        rest, values = deque(raw), []
        while rest:
            values.append(_from_number(kind, _read_varint(rest)))
        return values
    return [_value(kind, raw)]


def _value(kind: str, raw: Any) -> Any:
    if kind in NUMBERS:
        return _from_number(kind, raw)
    if kind in ("double", "fixed"):
        return struct.unpack("<d" if kind == "double" else "<Q", raw)[0]
    return raw.decode() if kind == "text" else decode(kind, raw)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    rest = deque(data)
    while rest:
        tag = _read_varint(rest)
        if tag & 7 == 0:
            yield tag >> 3, _read_varint(rest)
        else:
            size = {1: 8, 5: 4}.get(tag & 7) or _read_varint(rest) if tag & 7 != 2 else _read_varint(rest)
            yield tag >> 3, bytes(rest.popleft() for _ in range(size))


def _read_varint(rest: deque[int]) -> int:
    number, shift = 0, 0
    while True:
        byte = rest.popleft()
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number


# === frames ===


@dataclass
class Frame:
    """A frame as it was received, its message read."""

    kind: str
    id: int
    flags: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """The frame on the wire."""
        meta = encode(self.kind, self.meta) if self.kind in SCHEMAS else b""
        number = KINDS.index(self.kind)
        header = HEADER.pack(MAGIC, VERSION, number, self.flags, 0, self.id, len(meta), len(self.body))
        return header + meta + self.body

    @property
    def code(self) -> str:
        """The name of the code that a Failed frame has."""
        return CODES[self.meta["code"]]

    def outputs(self) -> dict[str, tuple[str, list[int], bytes]]:
        """Every output of a response: datatype, shape, bytes."""
        start, outputs = 0, {}
        for tensor in self.meta["outputs"]:
            data = self.body[start : start + tensor["len"]]
            outputs[tensor["name"]] = DATATYPES[tensor["datatype"]], tensor["shape"], data
            start += tensor["len"]
        assert start == len(self.body), "the tensors add up to the body"
        return outputs


def read_frame(data: bytes) -> tuple[Frame, bytes] | None:
    """The first frame of some bytes and what follows it, if the frame is whole."""
    if len(data) < HEADER.size:
        return None
    magic, version, kind, flags, reserved, number, meta_len, body_len = HEADER.unpack_from(data)
    assert (magic, version, reserved) == (MAGIC, VERSION, 0)
    end = HEADER.size + meta_len + body_len
    if len(data) < end:
        return None
    meta = data[HEADER.size : HEADER.size + meta_len]
    message = decode(KINDS[kind], meta) if KINDS[kind] in SCHEMAS else {}
    body = data[HEADER.size + meta_len : end]
    return Frame(KINDS[kind], number, flags, message, body), data[end:]


def tensor(name: str, datatype: str, shape: list[int], data: bytes) -> dict[str, Any]:
    """An input for `request`."""
    return {"name": name, "datatype": DATATYPES.index(datatype), "shape": shape, "len": len(data), "data": data}


def request(number: int, handler: int, inputs: Iterable[dict[str, Any]] = (), **meta: Any) -> Frame:
    """A request's frame; its slot is its number unless one is given."""
    tensors = list(inputs)
    body = b"".join(tensor["data"] for tensor in tensors)
    meta = {"handler": handler, "slot": number, "attempt": 1, "inputs": tensors} | meta
    return Frame("Request", number, 0, meta, body)


def batch(*requests: Frame) -> Frame:
    """A batch's frame, made of requests' frames."""
    members = [{"id": one.id, "len": len(one.body), "request": one.meta} for one in requests]
    return Frame("Batch", 0, 0, {"members": members}, b"".join(one.body for one in requests))


def parameters(**values: Any) -> list[dict[str, Any]]:
    """Parameters for `request`."""
    kinds = {str: "text", int: "int", float: "double", bool: "bool"}
    return [{"key": key, kinds[type(value)]: value} for key, value in values.items()]


# === the runtime ===


class FakeRuntime:
    """A runtime with one real worker process.

    Args:
        target: what the worker serves.
        window: bytes of a stream that the worker may send ahead.
        welcome: whether to read hello and answer it.
        path: what the worker's Python path starts with.
        group: the worker group that the worker belongs to; ``None`` does not say.
        ready: whether to wait until the worker is ready.
        environment: variables of the worker.
        arena: bytes of an object plane that nothing is in; with 0 there is none.
    """

    def __init__(
        self,
        target: str,
        *,
        window: int = 1 << 20,
        welcome: bool = True,
        path: str = "",
        group: str | None = None,
        ready: bool = True,
        environment: dict[str, str] | None = None,
        arena: int = 0,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="anyserve-test-")
        self.folder = Path(self._folder.name)
        self._slots = self._make_slots()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / "socket"))
        listener.listen()
        listener.settimeout(WATCHDOG_S)
        self.process = self._spawn(target, path, group, environment or {})
        self.socket, _ = listener.accept()
        listener.close()
        self.socket.settimeout(WATCHDOG_S)
        self._read = b""
        self.hello: Frame | None = None
        if welcome:
            self.hello = self.expect("Hello")
            meta = {"max_meta": 1 << 20, "max_body": 1 << 26, "stream_window": window}
            plane = {"plane": self._make_plane(arena)} if arena else {}
            self.send(Frame("Welcome", 0, 0, meta | {"slots": str(self.folder / "slots")} | plane))
            if ready:
                self.expect("Ready")

    def _make_slots(self) -> mmap.mmap:
        path = self.folder / "slots"
        path.write_bytes(bytes(8 * SLOTS))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), 8 * SLOTS)

    def _make_plane(self, arena: int) -> dict[str, Any]:
        segment, pins = self.folder / "segment", self.folder / "pins"
        for path, size in ((segment, DIRECTORY + arena), (pins, DIRECTORY)):
            with path.open("wb") as file:
                file.truncate(size)
        meta = {"store": 1, "segment": str(segment), "pins": str(pins), "entries": ENTRIES, "capacity": arena}
        return meta | {"threshold": 1 << 12, "epoch_ns": 0}

    def _spawn(self, target: str, path: str, group: str | None, variables: dict[str, str]) -> subprocess.Popen[str]:
        places = [path, *sys.path]
        environment = (
            os.environ
            | variables
            | {
                "ANYSERVE_WORKER_TOKEN": "secret",
                "PYTHONPATH": os.pathsep.join(place for place in places if place),
            }
        )
        command = [sys.executable, "-m", "anyserve.worker", "--socket", str(self.folder / "socket")]
        command += ["--worker-id", "3", "--target", target, *(() if group is None else ("--group", group))]
        # A file, because nobody reads along: a pipe would fill up, and the worker wait.
        with (self.folder / "stderr").open("w") as stderr:
            return subprocess.Popen(command, env=environment, stderr=stderr, text=True)

    def printed(self) -> str:
        """What the worker wrote to stderr."""
        return (self.folder / "stderr").read_text()

    def send(self, *frames: Frame) -> None:
        """Send frames in one write. The slots of requests are offered first."""
        for frame in frames:
            if frame.kind == "Request":
                self._offer(frame.id, frame.meta["slot"])
            elif frame.kind == "Batch":
                for member in frame.meta["members"]:
                    self._offer(member["id"], member["request"]["slot"])
        self.socket.sendall(b"".join(frame.to_bytes() for frame in frames))

    def _offer(self, number: int, place: int) -> None:
        if place < SLOTS and not self.slot(place):
            self.set_slot(place, number << 3 | OFFERED)

    def receive(self) -> Frame:
        """The next frame from the worker.

        Raises:
            EOFError: the worker has closed the socket.
        """
        while (found := read_frame(self._read)) is None:
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                raise EOFError
            self._read += chunk
        frame, self._read = found
        return frame

    def expect(self, kind: str, number: int | None = None) -> Frame:
        """The next frame, which must be of this kind and about this request."""
        frame = self.receive()
        assert frame.kind == kind, frame
        assert number is None or frame.id == number, frame
        return frame

    def grant(self, offset: int) -> Frame:
        """Answer the next frame, which must ask for room in the arena, with room that begins there."""
        put = self.expect("Put")
        granted = {"object": {"index": put.id, "generation": put.id}, "offset": offset, "len": put.meta["len"]}
        self.send(Frame("View", put.id, 0, granted))
        return put

    def frames_before_pong(self, number: int = 1 << 40) -> list[Frame]:
        """Everything that the worker sends before it answers a ping: what it would have sent, it had sent by then."""
        self.send(Frame("Ping", number))
        frames = []
        while (frame := self.receive()).kind != "Pong":
            frames.append(frame)
        assert frame.id == number
        return frames

    def slot(self, place: int) -> int:
        """The word of a slot."""
        return int.from_bytes(self._slots[8 * place : 8 * place + 8], "little")

    def set_slot(self, place: int, word: int) -> None:
        """Write the word of a slot."""
        self._slots[8 * place : 8 * place + 8] = word.to_bytes(8, "little")

    def cancel(self, number: int) -> None:
        """Cancel a request that has its own number as its slot."""
        self.set_slot(number, self.slot(number) | 0b100)
        self.send(Frame("Cancel", number))

    def wait_until_started(self, number: int) -> None:
        """Return when the handler of a request that has its own number as its slot has started."""
        end = time.monotonic() + WATCHDOG_S
        while self.slot(number) & 0b11 != STARTED:
            assert time.monotonic() < end, "the handler never started"
            os.sched_yield()

    def fifo(self, name: str) -> Path:
        """A named pipe: who opens it to read waits until somebody opens it to write."""
        path = self.folder / name
        os.mkfifo(path)
        return path

    def wait(self) -> int:
        """The exit code of the worker, which is ending."""
        return self.process.wait(WATCHDOG_S)

    def close(self) -> None:
        """End everything, however the test went."""
        self.socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=WATCHDOG_S)
        self._slots.close()
        self._folder.cleanup()
