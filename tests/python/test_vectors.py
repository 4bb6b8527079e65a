"""The golden vectors of the worker socket, read with a codec that shares nothing with the runtime's."""

from pathlib import Path

import pytest

from tests.python.frames import CODES, KINDS, NOT_STARTED, RESPONSE, read_frame

VECTORS = Path(__file__).parents[1] / "vectors"
VALUES = [
    {"key": "text", "text": "ü"},
    {"key": "int", "int": -3},
    {"key": "double", "double": 0.5},
    {"key": "bool", "bool": False},
    {"key": "uint", "uint": 2**64 - 1},
]
PLANE = {
    "store": 2**64 - 1, "segment": "/proc/1/fd/7", "entries": 262_144, "capacity": 1 << 30, "pins": "/proc/1/fd/8",
    "threshold": 65_536, "epoch_ns": 1 << 40,
}  # fmt: skip
BLOCK = {"index": 70_000, "generation": 2**64 - 2}
REGION = {"id": 9, "path": "/proc/1/fd/9", "start": 65_536, "len": 1 << 20}
OBJECT = {"store": 1, "index": 2, "generation": 3}
BARE = [
    ("Ready", 0), ("Drain", 0), ("Cancel", 7), ("Ping", 99), ("Pong", 99), ("Sleep", 0), ("Asleep", 0), ("Wake", 0),
]  # fmt: skip
OUTPUT = {"name": "y", "datatype": 5, "shape": [3], "len": 3, "parameters": []}


def vector(kind: str):
    frame, rest = read_frame((VECTORS / f"{kind.lower()}.bin").read_bytes())
    assert rest == b""
    assert frame.kind == kind
    return frame


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_frame_is_written_again_as_it_was(kind):
    assert vector(kind).to_bytes() == (VECTORS / f"{kind.lower()}.bin").read_bytes()


@pytest.mark.parametrize(("kind", "number"), BARE)
def test_a_bare_frame_is_its_header(kind, number):
    frame = vector(kind)
    assert (frame.id, frame.flags, frame.meta, frame.body) == (number, 0, {}, b"")


def test_hello_has_the_handler_table():
    meta = vector("Hello").meta
    assert (meta["pid"], meta["worker"], meta["token"], meta["concurrency"]) == (4711, 3, "secret", 65)
    full, least = meta["handlers"]
    assert full["capability"] == VALUES[:4]
    assert full["inputs"] == full["outputs"] == [{"name": "x", "datatype": 10, "shape": [-1, 300]}]
    assert (full["declares_inputs"], full["declares_outputs"], full["stream"]) == (True, True, True)
    assert (full["concurrency"], full["max_queue"], full["timeout_us"]) == (64, 100, 1_500_000)
    assert (least["function"], least["concurrency"], least["capability"]) == ("echo", 1, [])


def test_welcome_has_the_limits():
    meta = {"max_meta": 1 << 24, "max_body": 1 << 30, "stream_window": 1 << 20, "slots": "/tmp/slots"}
    assert vector("Welcome").meta == meta | {"plane": PLANE}


def test_a_request_has_its_tensors_in_the_body():
    frame = vector("Request")
    meta = frame.meta
    assert (frame.id, meta["handler"], meta["slot"], meta["attempt"]) == (7, 1, 4095, 2)
    assert meta["remaining_us"] == 30_000_001
    assert (meta["model"], meta["version"], meta["id"], meta["outputs"]) == ("echo", "1", "abc", ["y", "z"])
    assert meta["headers"] == [{"name": "x-a", "value": "b"}]
    assert meta["parameters"] == VALUES
    full, empty, arena, client = meta["inputs"]
    assert full == {"name": "x", "datatype": 10, "shape": [1, 2], "len": 8, "parameters": VALUES}
    assert empty == {"name": "empty", "datatype": 12, "shape": [0], "len": 0, "parameters": []}
    assert frame.body == bytes.fromhex("0000803f00000040")
    assert (arena["len"], client["len"]) == (100_000, 64)
    assert meta["places"] == [
        {"tensor": 2, "offset": 0, "block": BLOCK, "region": None},
        {"tensor": 3, "offset": 4096, "block": None, "region": REGION},
    ]
    assert meta["destinations"] == [{"output": "y", "region": REGION, "offset": 8192, "len": 256}]


def test_a_part_of_a_stream_has_its_outputs_in_the_body():
    frame = vector("Chunk")
    assert (frame.id, frame.flags, frame.body) == (7, 0, b"\x01\x02\xff")
    assert frame.meta == {"outputs": [OUTPUT], "parameters": VALUES, "compute_ns": 0, "places": [], "written": []}


def test_a_response_has_its_outputs_in_the_body_in_the_arena_and_where_the_caller_wants_them():
    frame = vector("Done")
    assert (frame.id, frame.flags, frame.body) == (2**61 - 1, RESPONSE, b"\x01\x02\xff")
    body, arena, client = frame.meta["outputs"]
    assert (body, arena["len"], client["len"], frame.meta["compute_ns"]) == (OUTPUT, 64, 0, 1_000_000)
    assert frame.meta["places"] == [{"tensor": 1, "offset": 128, "block": BLOCK, "region": None}]
    assert frame.meta["written"] == [2]


def test_the_object_planes_frames_have_every_field():
    assert (vector("Put").id, vector("Put").meta) == (11, {"len": 100_000, "ahead": True})
    flags = {"cacheable": True, "durable": True}
    sealed = {"block": BLOCK, "len": 100_000, "key": "key", "ttl_ms": 600_000, "answer": True} | flags
    assert vector("Sealed").meta == sealed
    assert vector("Get").meta == {"object": OBJECT, "key": "", "remaining_us": 2, "describe": True}
    view = vector("View").meta
    assert (view["object"], view["offset"], view["len"]) == (OBJECT, 64, 100_000)
    assert view["failed"] == vector("Failed").meta
    stat = {"len": 100_000, "remaining_ms": 599_999, "key": "key", "capacity": 1 << 30, "objects": 7, "evicted": 8}
    assert view["stat"] == stat | flags
    assert vector("Release").meta == {"object": OBJECT, "block": BLOCK, "region": 9}


def test_a_failure_has_a_code_and_a_text():
    frame = vector("Failed")
    assert (frame.id, frame.flags, CODES[frame.meta["code"]]) == (7, NOT_STARTED, "OVERLOADED")
    assert (frame.meta["message"], frame.meta["traceback"]) == ("come back", "Traceback")
    assert (frame.meta["compute_ns"], frame.meta["retry_after_ms"]) == (1_000, 1_501)


def test_credit_has_its_bytes():
    assert vector("Credit").meta == {"bytes": 65_536}


def test_a_batch_has_its_requests_bytes_one_after_the_other():
    frame = vector("Batch")
    assert (frame.id, frame.flags, frame.body) == (0, 0, bytes.fromhex("0000803f000000400102ff"))
    full, empty, last = frame.meta["members"]
    assert (full["id"], full["len"], full["request"]) == (7, 8, vector("Request").meta)
    assert (empty["id"], empty["len"], empty["request"]["slot"], empty["request"]["id"]) == (8, 0, 2, "b")
    assert (last["id"], last["len"], last["request"]["remaining_us"]) == (2**61 - 1, 3, 1)
    assert last["request"]["inputs"] == [OUTPUT]
    assert {member["request"]["handler"] for member in (full, empty, last)} == {1}


def test_a_manifest_has_the_groups_of_the_app():
    meta = vector("Manifest").meta
    assert (meta["pid"], meta["token"], meta["no_fork"], meta["files"]) == (4712, "secret", "threads", ["/app.py"])
    full, least = meta["groups"]
    assert full["handlers"] == vector("Hello").meta["handlers"]
    assert (full["name"], full["gpus"], full["tokens"]) == ("Chat", 2, [{"name": "token", "amount": 1}])
    assert (full["declares_workers"], full["min_workers"], full["max_workers"]) == (True, 1, 2)
    assert (full["idle_timeout_us"], full["sleeps"], full["start_timeout_us"]) == (300_000_000, True, 9_000_000)
    assert (full["environment"], full["python"]) == ([{"name": "A", "value": "b"}], "/venv/bin/python")
    assert (full["upgrades"], least["upgrades"]) == (["type=chat -> type=chat.heavy"], [])
    assert (least["name"], least["declares_workers"], least["handlers"]) == ("default", False, [])


def test_a_call_names_its_request_and_what_is_to_serve_it():
    frame = vector("Call")
    assert (frame.id, frame.flags, frame.body) == (15, 0, bytes.fromhex("0000803f00000040"))
    assert (frame.meta["parent"], frame.meta["selector"], frame.meta["stream"]) == (7, "type=embed", True)
    called, served = frame.meta["request"], vector("Request").meta
    assert called["inputs"] == served["inputs"][:3]
    assert called["places"] == served["places"][:1]
    assert (called["headers"], called["remaining_us"]) == (served["headers"], 30_000_001)
    assert (called["handler"], called["slot"], called["attempt"], called["destinations"]) == (0, 0, 0, [])


def test_a_result_of_a_call_is_a_response_with_its_names_and_its_cost():
    frame = vector("CallResult")
    assert (frame.id, frame.flags, frame.body) == (15, 0, b"\x01\x02\xff")
    meta, response = frame.meta, frame.meta["response"]
    assert (meta["id"], meta["model"], meta["version"], meta["end"], meta["cost"]) == ("abc", "embed", "1", True, 4096)
    assert meta["failed"] == vector("Failed").meta
    assert (response["outputs"][0], response["outputs"][1]["len"]) == (OUTPUT, 64)
    assert response["places"] == [{"tensor": 1, "offset": 128, "block": BLOCK, "region": None}]


def test_a_fork_says_who_the_worker_is_and_is_answered_with_its_process():
    fork = vector("Fork").meta
    assert (fork["worker"], fork["group"], fork["socket"], fork["token"]) == (3, "Chat", "/tmp/3.sock", "secret")
    assert (fork["stdout"], fork["stderr"]) == ("/proc/1/fd/5", "/proc/1/fd/6")
    assert fork["environment"] == [{"name": "A", "value": "b"}]
    assert vector("Forked").meta == {"worker": 3, "pid": 4713, "failed": "no memory"}
