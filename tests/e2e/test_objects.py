"""The object plane through real replicas: what is stored once, and references to it in requests and answers."""

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from anyserve import Client, ObjRef, errors
from tests.e2e.conftest import serving
from tests.e2e.messages import NOT_FOUND, RAW, anyserve_code, infer, refused, stub, tensor
from tests.e2e.replicas import Replica, until

APP = ("stored.py:create", "--factory")
MIB = 1 << 20
SMALL, LARGE = 3, MIB // 4
"""Elements of four bytes: below every threshold, and above it."""

SIZES = pytest.mark.parametrize("size", [0, 1, SMALL, LARGE])
NEVER = "objref:0000000000000000-00000000-0000000000000000"

numbers = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Replica]:
    """Two workers, so that what one stores is often read by the other."""
    with serving(
        tmp_path_factory.mktemp("store") / "replica", *APP, "--workers", "2", "--object-store", "64MiB"
    ) as own:
        yield own


@pytest.fixture
def alone(replica) -> Replica:
    """One worker and a small arena, which the test has to itself."""
    return replica(*APP, "--object-store", "8MiB")


@pytest.fixture
def client(store) -> Iterator[Client]:
    with Client(store.endpoint) as made:
        yield made


@pytest.fixture
def lone(alone) -> Iterator[Client]:
    """A client of the small one."""
    with Client(alone.endpoint) as made:
        yield made


def key() -> str:
    return f"key-{next(numbers)}"


def floats(size: int) -> np.ndarray:
    return np.arange(size, dtype=np.float32) % 7


def created(client: Client, value: object, how: str = "create", **options: object) -> ObjRef:
    ref = client.infer(how, {"x": value}, parameters=options)["ref"]
    assert isinstance(ref, ObjRef)
    return ref


def got(client: Client, ref: ObjRef) -> dict[str, object]:
    return dict(client.infer("get", {"ref": str(ref)}))


def looked_up(client: Client, name: str) -> ObjRef | None:
    return client.infer("lookup", {"key": name}).get("ref")


def deleted(client: Client, ref: ObjRef) -> bool:
    return bool(client.infer("delete", {"ref": str(ref)})["deleted"][0])


def stat(client: Client, ref: ObjRef) -> dict[str, object]:
    return json.loads(client.infer("stat", {"ref": str(ref)})["stat"][0])


def usage(client: Client) -> dict[str, int]:
    return json.loads(client.infer("usage", {})["usage"][0])


def is_gone(client: Client, ref: ObjRef) -> bool:
    try:
        stat(client, ref)
    except errors.NotFound:
        return True
    return False


def total(client: Client, model: str, x: object) -> float:
    return float(client.infer(model, {"x": x})["total"][0])


def seen(client: Client, **inputs: object) -> dict[str, list]:
    return json.loads(client.infer("see", inputs)["seen"][0])


# === values ===


@pytest.mark.parametrize("datatype", sorted(RAW))
@pytest.mark.parametrize("shape", [[3], [3, 1], [1, 3, 1]])
def test_an_array_of_every_datatype_comes_back_as_it_was(client, datatype, shape):
    values, _ = RAW[datatype]
    ref = created(client, {"data": values, "datatype": datatype, "shape": shape})
    array = got(client, ref)["array"]
    assert (array.reshape(-1).tolist(), list(array.shape)) == (values, shape)


@SIZES
def test_an_array_of_any_size_comes_back(client, size):
    array = floats(size)
    for how in ("create", "create-array"):
        result = got(client, created(client, array, how))
        np.testing.assert_array_equal(result["array"], array)
        assert result["view"].tolist() == [True]


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (2, 3)])
def test_a_shape_is_kept(client, shape):
    array = np.ones(shape, np.int16)
    assert got(client, created(client, array))["array"].shape == shape


@pytest.mark.parametrize("value", [b"", b"a\0\xff", bytes(range(256)) * 8192])
def test_bytes_come_back_as_bytes(client, value):
    ref = created(client, {"data": value, "parameters": {"as": "bytes"}})
    assert got(client, ref)["bytes"].tolist() == [value]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_dict_comes_back_with_its_arrays_and_bytes_in_their_order(client, size):
    inputs = {
        "z": floats(size), "raw": {"data": b"a\0", "parameters": {"as": "bytes"}}, "octets": np.uint8([97, 0]),
        "empty": {"data": b"", "parameters": {"as": "bytes"}}, "texts": ["a", b"\xff"], "a": np.float16([[1.5]]),
    }  # fmt: skip
    result = got(client, client.infer("create-dict", inputs)["ref"])
    assert json.loads(result.pop("order")[0]) == list(inputs)
    assert result.keys() == {"array_z", "bytes_raw", "array_octets", "bytes_empty", "array_texts", "array_a"}
    np.testing.assert_array_equal(result["array_z"], inputs["z"])
    assert (result["bytes_raw"].tolist(), result["bytes_empty"].tolist()) == ([b"a\0"], [b""])
    assert result["array_octets"].tolist() == [97, 0]
    assert result["array_texts"].tolist() == [b"a", b"\xff"]
    assert (result["array_a"].dtype, result["array_a"].tolist()) == (np.float16, [[1.5]])


@pytest.mark.parametrize("entries", [1, 1023, 1024])
def test_a_dict_has_up_to_1024_entries(client, entries):
    inputs = {f"entry-{number}": np.uint8([number % 256]) for number in range(entries)}
    result = got(client, client.infer("create-dict", inputs)["ref"])
    assert json.loads(result["order"][0]) == list(inputs)
    assert result[f"array_entry-{entries - 1}"].tolist() == [(entries - 1) % 256]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_object_does_not_change_with_what_it_was_made_of(client, size):
    ref = client.infer("create-changed", {"size": size})["ref"]
    assert set(got(client, ref)["array"].tolist()) == {1}


@pytest.mark.parametrize(("what", "says"), [
    ("function", "nothing is pickled"), ("object", "nothing is pickled"), ("none", "NoneType"), ("text", "encode"),
    ("list", r"numpy\.asarray"),
])  # fmt: skip
def test_nothing_is_pickled(client, what, says):
    with pytest.raises(errors.InvalidInput, match=says):
        client.infer("create-nonsense", {"what": what})


def test_a_checksum_changes_nothing_of_what_is_read(client):
    array = floats(LARGE)
    np.testing.assert_array_equal(got(client, created(client, array, checksum=True))["array"], array)


# === keys, leases and the end ===


def test_an_object_is_found_by_its_key_until_it_is_deleted(client):
    name = key()
    assert looked_up(client, name) is None
    ref = created(client, floats(SMALL), key=name)
    assert looked_up(client, name) == ref
    assert deleted(client, ref)
    assert looked_up(client, name) is None
    assert not deleted(client, ref)


def test_the_newest_object_with_a_key_is_found_and_the_older_lives_on(client):
    name = key()
    old, new = created(client, [1.0], key=name), created(client, [2.0], key=name)
    assert old != new
    assert looked_up(client, name) == new
    assert got(client, old)["array"].tolist() == [1.0]
    assert deleted(client, old)
    assert looked_up(client, name) == new
    assert deleted(client, new)


@pytest.mark.parametrize("length", [1, 255, 256])
def test_a_key_has_up_to_256_characters(client, length):
    name = f"{next(numbers):x}é".rjust(length, "日")[:length]
    ref = created(client, [1], key=name)
    assert (looked_up(client, name), stat(client, ref)["key"]) == (ref, name)
    assert deleted(client, ref)


@pytest.mark.parametrize("options", [{"key": ""}, {"key": "x" * 257}, {"ttl_s": 0}, {"ttl_s": 604801}, {"ttl_s": -1}])
def test_a_lease_out_of_bounds_is_refused(client, options):
    with pytest.raises(errors.InvalidInput):
        created(client, [1], **options)


def test_an_object_is_gone_when_its_time_is_over(client):
    name = key()
    short, long = created(client, [1], key=name, ttl_s=0.05), created(client, [2], ttl_s=600)
    until(lambda: is_gone(client, short), "the end of the lease")
    assert looked_up(client, name) is None
    with pytest.raises(errors.NotFound):
        got(client, short)
    assert got(client, long)["array"].tolist() == [2]


def test_what_is_known_of_an_object_is_told(client):
    name = key()
    told = stat(client, created(client, floats(100), key=name, ttl_s=60, cacheable=True))
    assert told.pop("nbytes") >= 400
    assert 0 < told.pop("ttl_s") <= 60
    assert told == {"key": name, "cacheable": True, "durable": False}
    assert stat(client, created(client, [1]))["key"] is None


def test_stores_and_their_references_differ(client, lone):
    mine, other = created(client, [1]), created(lone, [1])
    assert mine.store != other.store
    with pytest.raises(errors.NotFound):
        got(client, other)
    assert deleted(lone, other)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_stale_reference_is_not_found_and_never_another_object(client, size):
    stale = created(client, floats(size))
    assert deleted(client, stale)
    fresh = [created(client, floats(size)) for _ in range(8)]
    assert stale not in fresh
    for use in (got, stat):
        with pytest.raises(errors.NotFound):
            use(client, stale)
    for model in ("total", "total-async", "totals", "see", "forward"):
        with pytest.raises(errors.NotFound):
            client.infer(model, {"x": stale})
    for ref in fresh:
        assert deleted(client, ref)


def test_a_reference_that_never_was_one_is_told_from_one_that_is_none(client):
    for model in ("total", "see"):
        with pytest.raises(errors.NotFound):
            client.infer(model, {"x": ObjRef(NEVER)})
        with pytest.raises(errors.InvalidInput):
            client.infer(model, {"x": {"data": "user-123-image", "parameters": {"objref": True}}})
    with pytest.raises(errors.InvalidInput, match="is no object reference"):
        client.infer("get", {"ref": "user-123-image"})


# === references in requests and answers ===


@pytest.mark.parametrize("datatype", sorted(RAW))
def test_a_reference_is_resolved_to_the_datatype_shape_and_bytes_that_were_stored(client, datatype):
    values, raw = RAW[datatype]
    ref = created(client, {"data": values, "datatype": datatype, "shape": [3, 1]})
    result = client.infer("see", {"x": ref})
    output = result.response.output("output_x")
    assert (output.datatype, output.shape, output.contents.raw) == (datatype, [3, 1], raw)
    assert json.loads(result["seen"][0])["x"] == [datatype, [3, 1], str(ref), str(ref)]


@pytest.mark.parametrize("model", ["total", "total-async", "totals"])
@SIZES
def test_a_handler_that_takes_an_array_is_called_with_a_reference(client, model, size):
    array = floats(size)
    assert total(client, model, created(client, array)) == total(client, model, array) == float(array.sum())


def test_a_stream_is_called_with_a_reference(client):
    ref = created(client, floats(LARGE))
    (part,) = client.stream("total-streamed", {"x": ref})
    assert part["total"].tolist() == [float(floats(LARGE).sum())]


@pytest.mark.parametrize("model", ["total", "totals"])
def test_what_a_reference_stands_for_must_be_what_is_declared(client, model):
    for value in (np.zeros((1, 1), np.float32), np.zeros(1, np.int8)):
        with pytest.raises(errors.InvalidInput, match="'x'"):
            client.infer(model, {"x": created(client, value)})


def test_a_reference_to_bytes_is_put_in_its_place(client):
    ref = created(client, {"data": b"abc", "parameters": {"as": "bytes"}})
    (_, _, text, mark) = seen(client, x=ref)["x"]
    assert (text, mark) == (str(ref), str(ref))


def test_a_reference_to_a_dict_is_the_reference_itself(client):
    ref = client.infer("create-dict", {"a": floats(SMALL)})["ref"]
    assert seen(client, x=ref)["x"] == ["BYTES", [1], str(ref), True]
    assert client.infer("type-of", {"x": ref})["type"].tolist() == [b"ObjRef"]
    result = client.infer("get-reference", {"ref": ref})
    np.testing.assert_array_equal(result["array_a"], floats(SMALL))


def test_references_and_arrays_go_in_one_request(client):
    array, ref = floats(LARGE), created(client, floats(SMALL))
    told = seen(client, a=array, b=ref, c=ref, d="text")
    assert {name: (one[0], one[2]) for name, one in told.items()} == {
        "a": ("FP32", "None"), "b": ("FP32", str(ref)), "c": ("FP32", str(ref)), "d": ("BYTES", "None"),
    }  # fmt: skip


def test_an_answer_gives_the_reference_that_came(client):
    ref = created(client, floats(LARGE))
    result = client.infer("forward", {"x": ref})
    assert result["ref"] == ref
    raw = result.response.output("ref")
    assert (raw.datatype, raw.shape, raw.parameters) == ("BYTES", [1], {"objref": True})


def test_many_calls_share_one_object(client):
    ref, expected = created(client, floats(LARGE)), float(floats(LARGE).sum())
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda model: total(client, model, ref), ["total", "totals"] * 32)) == {expected}
    assert deleted(client, ref)


def test_tritonclient_stores_finds_and_sends_references(store):
    with triton.InferenceServerClient(store.endpoint) as made:
        array = floats(LARGE)
        x = triton.InferInput("x", list(array.shape), "FP32")
        x.set_data_from_numpy(array)
        answer = made.infer("create", [x])
        (output,) = answer.get_response().outputs
        assert (output.datatype, list(output.shape), output.parameters["objref"].bool_param) == ("BYTES", [1], True)
        text = answer.as_numpy("ref")[0]

        ref = triton.InferInput("x", [1], "BYTES")
        ref.set_data_from_numpy(np.array([text], object))
        ref._get_tensor().parameters["objref"].bool_param = True
        assert made.infer("total", [ref]).as_numpy("total").tolist() == [float(array.sum())]

        with Client(store.endpoint) as client:
            assert deleted(client, ObjRef(text.decode()))
        with pytest.raises(triton.InferenceServerException) as raised:
            made.infer("total", [ref])
        assert raised.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("raw", [True, False])
def test_a_reference_may_be_raw_or_typed_contents(store, client, channel, raw):
    ref = created(client, floats(SMALL))
    text = str(ref).encode()
    made = tensor("x", "BYTES", [1], **({} if raw else {"bytes_contents": [text]}))
    made.parameters["objref"].bool_param = True
    framed = [len(text).to_bytes(4, "little") + text] if raw else None
    answer = stub(channel(store.endpoint)).ModelInfer(infer("total", made, raw=framed))
    assert np.frombuffer(answer.raw_output_contents[0], np.float64).tolist() == [float(floats(SMALL).sum())]


def test_a_stale_reference_is_not_found_by_its_code(store, channel):
    made = tensor("x", "BYTES", [1], bytes_contents=[NEVER.encode()])
    made.parameters["objref"].bool_param = True
    error = refused(stub(channel(store.endpoint)).ModelInfer, infer("total", made), NOT_FOUND)
    assert anyserve_code(error) == "NOT_FOUND"


# === views ===


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_view_outlives_the_reply_and_its_object(lone, size):
    name, expected = key(), float(floats(size).sum())
    ref = created(lone, floats(size))
    assert float(lone.infer("keep", {"name": name, "ref": str(ref)})["total"][0]) == expected
    assert deleted(lone, ref)
    for _ in range(8):
        assert deleted(lone, created(lone, np.full(size, 9, np.float32)))
    result = lone.infer("kept", {"name": name})
    assert (float(result["total"][0]), result["writeable"].tolist()) == (expected, [False])
    lone.infer("let-go", {"name": name})


@pytest.mark.parametrize("stored", [True, False])
def test_an_input_outlives_the_reply(lone, stored):
    name, array = key(), floats(LARGE)
    ref = created(lone, array) if stored else None
    assert float(lone.infer("keep-input", {"name": name, "x": ref or array})["total"][0]) == float(array.sum())
    assert ref is None or deleted(lone, ref)
    for _ in range(4):
        assert total(lone, "total", np.full(LARGE, 9, np.float32)) == 9 * LARGE
    assert float(lone.infer("kept", {"name": name})["total"][0]) == float(array.sum())
    lone.infer("let-go", {"name": name})


def test_the_memory_of_a_deleted_object_is_free_when_its_last_view_is_gone(lone):
    name, ref = key(), created(lone, floats(LARGE))
    lone.infer("keep", {"name": name, "ref": str(ref)})
    assert deleted(lone, ref)
    assert usage(lone)["used"] >= 4 * LARGE
    lone.infer("let-go", {"name": name})
    until(lambda: usage(lone)["used"] < 4 * LARGE, "the memory of the view")


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_view_crosses_an_await_while_its_object_is_deleted(alone, lone, size):
    name, expected = key(), float(floats(size).sum())
    ref = created(lone, floats(size))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lone.infer, "await", {"name": name, "ref": str(ref)})
        alone.noted(f"reading-{name}")
        assert deleted(lone, ref)
        assert deleted(lone, created(lone, np.full(size, 9, np.float32)))
        alone.allow(f"read-{name}")
        result = reading.result()
    assert (float(result["before"][0]), float(result["after"][0])) == (expected, expected)


@pytest.mark.parametrize("size", [SMALL, LARGE // 8])
def test_the_twins_of_an_async_handler_do_the_same(client, size):
    result = client.infer("twins", {"key": key(), "x": floats(size)})
    assert result["totals"].tolist() == [float(floats(size).sum())] * 4
    assert (result["deleted"].tolist(), result["left"].tolist()) == ([True] * 4, [0])


# === a full store, and none ===


def fill(client: Client) -> list[ObjRef]:
    """Store mebibytes until there is no room for another."""
    refs = list(itertools.takewhile(bool, (room_for(client) for _ in range(9))))
    assert 1 <= len(refs) <= 8, "an arena of 8 MiB takes some of them, and not 9"
    return refs


def test_a_full_store_says_so_and_has_room_again_after_a_delete(alone, lone, channel):
    refs = fill(lone)
    assert usage(lone)["objects"] == len(refs)
    made = tensor("x", "UINT8", [MIB])
    create = infer("create", made, raw=[bytes(MIB)])
    error = refused(stub(channel(alone.endpoint)).ModelInfer, create, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert anyserve_code(error) == "OBJECT_STORE_FULL"
    assert deleted(lone, refs.pop())
    refs.append(until(lambda: room_for(lone), "room for another object"))
    for ref in refs:
        assert deleted(lone, ref)


def room_for(client: Client) -> ObjRef | None:
    try:
        return created(client, np.zeros(MIB, np.uint8))
    except errors.ObjectStoreFull:
        return None


def test_calls_with_large_arrays_work_while_the_store_is_full(lone):
    refs = fill(lone)
    array = floats(LARGE)
    assert total(lone, "total", array) == float(array.sum())
    np.testing.assert_array_equal(lone.infer("see", {"x": array})["output_x"], array)
    for ref in refs:
        assert deleted(lone, ref)


def test_cacheable_objects_make_room(lone):
    before = usage(lone)["evicted"]
    refs = [created(lone, np.zeros(MIB, np.uint8), cacheable=True) for _ in range(12)]
    assert usage(lone)["evicted"] > before
    assert is_gone(lone, refs[0])
    assert not is_gone(lone, refs[-1])
    for ref in refs:
        deleted(lone, ref)


def test_an_object_larger_than_the_arena_is_refused(lone):
    with pytest.raises(errors.ObjectStoreFull):
        created(lone, np.zeros(9 * MIB, np.uint8))


def test_usage_counts_objects_and_bytes(lone):
    before = usage(lone)
    ref = created(lone, np.zeros(MIB, np.uint8))
    until(lambda: usage(lone)["used"] >= MIB, "the bytes of the object")
    told = usage(lone)
    assert (told["capacity"], told["objects"]) == (8 * MIB, before["objects"] + 1)
    assert deleted(lone, ref)


def test_durable_objects_need_a_place_for_them(client):
    with pytest.raises(errors.Unsupported, match="--object-spill"):
        created(client, [1], durable=True)


def test_a_replica_without_an_object_store_says_so(replica):
    served = replica(*APP, "--object-store", "0")
    with Client(served.endpoint) as client:
        with pytest.raises(errors.Unsupported, match="--object-store"):
            created(client, [1])
        array = floats(LARGE)
        assert total(client, "total", array) == float(array.sum())
        assert seen(client, x=array)["x"][:2] == ["FP32", [LARGE]]
        for model in ("total", "see"):
            with pytest.raises((errors.NotFound, errors.Unsupported)):
                client.infer(model, {"x": ObjRef(NEVER)})


# === ends ===


def test_objects_outlive_the_worker_that_made_them(replica):
    served = replica(*APP, "--object-store", "8MiB")
    with Client(served.endpoint) as client:
        name = key()
        ref = created(client, floats(LARGE), key=name)
        before = served.workers()
        kill(before)
        until(lambda: served.workers() - before, "another worker")
        until(served.is_ready, "a replica that is ready")
        assert looked_up(client, name) == ref
        np.testing.assert_array_equal(got(client, ref)["array"], floats(LARGE))


def kill(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_writers_and_readers_at_once_see_whole_objects(client):
    stop, wrong = threading.Event(), []

    def write(fill_with: int) -> None:
        while not stop.is_set():
            created(client, np.full(LARGE // 16, fill_with, np.float32), key=name, cacheable=True, ttl_s=5)

    def read() -> None:
        for _ in range(100):
            ref = looked_up(client, name)
            try:
                values = set() if ref is None else set(got(client, ref)["array"].tolist())
            except errors.NotFound:
                continue
            if len(values) > 1:
                wrong.append(values)

    name = key()
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in (1, 2)]
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for one in readers:
                one.result()
        finally:
            stop.set()
        for one in writers:
            one.result()
    assert wrong == []
