"""The object plane's face: which values there are, and that what comes out is what went in."""

import asyncio
import threading
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from anyserve import InferInput, ModelInferResponse, Objects, ObjectStat, ObjRef, StoreUsage
from anyserve.errors import DeadlineExceeded, Internal, InvalidInput, NotFound, ObjectStoreFull
from tests.python.object_plane import FakePlane

WEEK_S = 7 * 24 * 3600
DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
GONE = "objref:0123456789abcdef-00000000-ffffffffffffffff"


@pytest.fixture
def plane():
    return FakePlane()


@pytest.fixture
def objects(plane):
    return Objects(plane)


class Arraylike:
    """Such as another framework's tensor."""

    def __init__(self, array, error=None):
        self.array = array
        self.error = error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array


# === values ===


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_an_array_of_each_datatype_comes_back_as_it_was(objects, plane, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    ref = objects.create(array)
    assert plane.stored[ref].kind == "array"
    assert [part.name for part in plane.stored[ref].parts] == ["value"]
    got = objects.get(ref)
    assert (got.dtype, got.shape, got.flags.writeable) == (array.dtype, shape, False)
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([b"a\0", b""], object), [b"a\0", b""]),
        (np.array([["é"]], object), [["é".encode()]]),
        (np.array(["a", "bc"]), [b"a", b"bc"]),
        (np.arange(6, dtype=">i4").reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (np.float32(1.5), 1.5),
        (np.float64(2.5), 2.5),
        (np.bool_(True), True),
        (Arraylike(np.arange(2)), [0, 1]),
    ],
)
def test_what_is_as_good_as_an_array_is_stored_as_one(objects, array, expected):
    assert objects.get(objects.create(array)).tolist() == expected


def test_an_input_is_stored_with_its_datatype(objects, plane):
    given = InferInput("x", np.float32([1.5, -2]), datatype="BF16", parameters={"objref": GONE, "bytes": True})
    ref = objects.create(given)
    (part,) = plane.stored[ref].parts
    assert (part.name, part.datatype, part.shape, part.parameters) == ("value", "BF16", [2], {})
    assert objects.get(ref).tolist() == [1.5, -2.0]
    output = ModelInferResponse().add_output("y", np.int8([[7]]))
    assert objects.get(objects.create({"y": output}))["y"].tolist() == [[7]]


@pytest.mark.parametrize("value", [b"", b"a\0\xff", bytearray(b"ab"), memoryview(b"abcd")[::2]])
def test_bytes_come_back_as_bytes(objects, plane, value):
    ref = objects.create(value)
    assert plane.stored[ref].kind == "bytes"
    assert [(part.datatype, part.shape) for part in plane.stored[ref].parts] == [("UINT8", [len(bytes(value))])]
    got = objects.get(ref)
    assert type(got) is bytes
    assert got == bytes(value)


def test_a_memoryview_of_numbers_is_its_bytes(objects):
    numbers = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert objects.get(objects.create(memoryview(numbers))) == numbers.tobytes()


def test_a_dict_comes_back_with_its_arrays_and_its_bytes(objects):
    given = {"z": np.float16([1, 2]), "raw": b"a\0", "octets": np.uint8([1, 2]), "empty": b"", "texts": np.array(["é"])}
    got = objects.get(objects.create(given))
    assert list(got) == list(given)
    assert (type(got["raw"]), got["raw"], got["empty"]) == (bytes, b"a\0", b"")
    assert (got["octets"].dtype, got["octets"].tolist()) == (np.uint8, [1, 2])
    assert (got["z"].dtype, got["z"].tolist()) == (np.float16, [1.0, 2.0])
    assert got["texts"].tolist() == ["é".encode()]


def test_a_dict_of_one_array_is_a_dict(objects):
    assert objects.get(objects.create({"value": np.arange(2)}))["value"].tolist() == [0, 1]


def test_an_object_does_not_change_with_what_it_was_made_of(objects):
    array, raw = np.arange(3), bytearray(b"abc")
    refs = objects.create(array), objects.create(raw), objects.create({"a": array, "b": raw})
    array[:], raw[:] = 9, b"xyz"
    assert objects.get(refs[0]).tolist() == [0, 1, 2]
    assert objects.get(refs[1]) == b"abc"
    both = objects.get(refs[2])
    assert (both["a"].tolist(), both["b"]) == ([0, 1, 2], b"abc")


class Anything:
    def __reduce__(self):
        raise AssertionError("it was pickled")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "the value is a NoneType: an object is an array, bytes, or a flat dict of those; nothing is pickled"),
        (Anything(), "the value is a Anything: .* nothing is pickled"),
        ({1, 2}, "the value is a set"),
        (np.ndarray, "the value is a type"),
        (len, "the value is a builtin_function_or_method"),
        ("text", r"the value is a str, which would come back as bytes: give value\.encode\(\)"),
        (np.str_("text"), "the value is a str_?, which would come back as bytes"),
        ([1, 2], r"the value is a list: give an array, such as numpy\.asarray\(value\)"),
        ((1,), "the value is a tuple: give an array"),
        (True, "the value is a bool: give an array"),
        (1, "the value is a int: give an array"),
        (1.5, "the value is a float: give an array"),
        (ObjRef(GONE), "the value is an ObjRef: an object holds values and no references"),
        (InferInput("x", ObjRef(GONE)), "the value is a reference: an object holds values"),
        (np.array([Anything()], object), "the value cannot be stored: .* has an element of type Anything at 0"),
        (np.zeros(1, complex), "the value cannot be stored: .* complex128, which is no KServe datatype"),
        (np.zeros(1, "datetime64[s]"), "the value cannot be stored"),
        (Arraylike(None, RuntimeError("it is on a device")), "which gives no array: it is on a device"),
        ({"a": {"b": np.zeros(1)}}, "the entry 'a' is a dict: the dict of an object is flat"),
        ({"a": "text"}, "the entry 'a' is a str"),
        ({"a": np.zeros(1), "b": None}, "the entry 'b' is a NoneType"),
        ({1: np.zeros(1)}, "the dict has the key 1"),
        ({"": np.zeros(1)}, "the dict has the key ''"),
    ],
)
def test_what_is_no_value_is_refused_with_its_type_and_the_fix(objects, plane, value, says):
    with pytest.raises(InvalidInput, match=says):
        objects.create(value)
    assert plane.stored == {}


@pytest.mark.parametrize(("entries", "fits"), [(0, False), (1, True), (1023, True), (1024, True), (1025, False)])
def test_a_dict_has_1_to_1024_entries(objects, entries, fits):
    value = {f"entry-{number}": b"" for number in range(entries)}
    if fits:
        assert objects.get(objects.create(value)) == value
    else:
        with pytest.raises(InvalidInput, match=f"the dict has {entries} entries: .* at least 1 and at most 1024"):
            objects.create(value)


def test_contents_that_somebody_made_unfit_are_the_values_mistake(objects):
    given = InferInput("x", np.arange(2))
    given.contents.int64_contents.append("a")
    with pytest.raises(InvalidInput, match=r"the value cannot be stored: .*which INT64 cannot hold"):
        objects.create(given)


# === the lease ===


@pytest.mark.parametrize("length", [1, 255, 256])
def test_a_key_has_up_to_256_characters(objects, length):
    ref = objects.create(b"a", key="é" * length)
    assert objects.lookup("é" * length) == ref


@pytest.mark.parametrize(("key", "says"), [("", "has 0 characters"), ("x" * 257, "has 257 characters"), (5, "a int"),
                                           (b"a", "a bytes")])  # fmt: skip
def test_a_key_out_of_bounds_is_refused(objects, key, says):
    for use in (lambda: objects.create(b"a", key=key), lambda: objects.lookup(key)):
        with pytest.raises(InvalidInput, match=f"the key .*{says}"):
            use()


def test_nothing_is_stored_under_none(objects):
    objects.create(b"a")
    with pytest.raises(InvalidInput, match="the key is None"):
        objects.lookup(None)


@pytest.mark.parametrize("ttl_s", [0.001, 1, WEEK_S - 1, WEEK_S, float(WEEK_S), np.float32(2), np.int64(3)])
def test_an_object_lives_up_to_a_week(objects, ttl_s):
    assert 0 < objects.stat(objects.create(b"a", ttl_s=ttl_s)).ttl_s <= WEEK_S


@pytest.mark.parametrize("ttl_s", [0, -1, WEEK_S + 1, WEEK_S + 0.001, float("nan"), float("inf"), None, "60", True])
def test_a_time_to_live_out_of_bounds_is_refused(objects, ttl_s):
    with pytest.raises(InvalidInput, match=r"ttl_s is .*above 0, at most 604800"):
        objects.create(b"a", ttl_s=ttl_s)


def test_the_options_of_an_object_are_handed_on_and_told(objects, plane):
    stat = objects.stat(objects.create(np.zeros(4), key="k", ttl_s=60, cacheable=True, durable=True, checksum=True))
    assert (stat.nbytes, stat.key, stat.cacheable, stat.durable, plane.checksums) == (32, "k", True, True, [True])
    assert 0 < stat.ttl_s <= 60
    plain = objects.stat(objects.create(b""))
    assert (plain.nbytes, plain.key, plain.cacheable, plain.durable, plane.checksums[1]) == (
        0,
        None,
        False,
        False,
        False,
    )
    assert 0 < plain.ttl_s <= 600


def test_usage_and_stat_are_values_that_cannot_be_changed(objects, plane):
    ref = objects.create(bytes(10))
    assert objects.usage() == StoreUsage(capacity=plane.capacity, used=10, objects=1, evicted=0)
    for told, field in ((objects.usage(), "used"), (objects.stat(ref), "nbytes")):
        assert isinstance(told, StoreUsage | ObjectStat)
        with pytest.raises(FrozenInstanceError):
            setattr(told, field, 0)


def test_a_full_store_says_so_and_stores_nothing():
    objects = Objects(FakePlane(capacity=8))
    assert objects.create(bytes(8))
    with pytest.raises(ObjectStoreFull, match="1 bytes do not fit"):
        objects.create(bytes(1))
    assert objects.usage().objects == 1


# === references ===


def test_a_reference_is_taken_as_itself_or_as_its_text(objects):
    ref = objects.create(b"a")
    assert objects.get(ref) == objects.get(str(ref)) == b"a"
    assert objects.stat(str(ref)).nbytes == 1
    assert objects.delete(str(ref))


def test_an_object_that_was_deleted_is_not_found(objects):
    ref = objects.create(b"a", key="k")
    assert objects.lookup("k") == ref
    assert objects.delete(ref)
    assert not objects.delete(ref)
    assert objects.lookup("k") is None
    for use in (objects.get, objects.stat):
        with pytest.raises(NotFound):
            use(ref)


def test_the_newest_object_with_a_key_is_the_one_that_is_found(objects):
    old, new = objects.create(b"old", key="k"), objects.create(b"new", key="k")
    assert objects.lookup("k") == new
    assert objects.get(old) == b"old"


@pytest.mark.parametrize("method", ["get", "delete", "stat"])
@pytest.mark.parametrize(("ref", "says"), [("user-123", "is no object reference"), (b"objref:", "not a bytes"),
                                           (None, "not a NoneType"), (5, "not a int")])  # fmt: skip
def test_what_is_no_reference_is_refused(objects, method, ref, says):
    with pytest.raises(InvalidInput, match=says):
        getattr(objects, method)(ref)


@pytest.mark.parametrize("method", ["get", "lookup"])
def test_the_time_to_wait_is_what_the_request_has_left(plane, method):
    def asked(left, **options):
        objects = Objects(plane, left)
        getattr(objects, method)(objects.create(b"a", key="k") if method == "get" else "k", **options)
        return plane.timeouts.pop()

    assert asked(None) is None
    assert asked(None, timeout_s=5) == 5
    assert 0 < asked(60) <= 60
    assert asked(60, timeout_s=5) == 5
    assert 0 < asked(60, timeout_s=90) <= 60


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_time_to_wait_is_above_0(objects, timeout_s):
    for use in (lambda: objects.get(GONE, timeout_s=timeout_s), lambda: objects.lookup("k", timeout_s=timeout_s)):
        with pytest.raises(InvalidInput, match=r"timeout_s is .*above 0"):
            use()


def test_a_request_without_time_left_asks_for_nothing(plane):
    for use in (lambda: Objects(plane, 0).get(GONE), lambda: Objects(plane, 0).lookup("k")):
        with pytest.raises(DeadlineExceeded, match="passed before the object was asked for"):
            use()
    assert plane.timeouts == []


@pytest.mark.parametrize(("kind", "parts"), [("array", 2), ("bytes", 0), ("image", 1)])
def test_an_object_that_nobody_could_have_made_is_a_defect_of_ours(objects, plane, kind, parts):
    ref = objects.create(b"a")
    plane.stored[ref].kind, plane.stored[ref].parts = kind, [InferInput("value", np.zeros(1))] * parts
    with pytest.raises(Internal, match=f"an object of kind '{kind}' has {parts} parts"):
        objects.get(ref)


# === the twins ===


def test_the_twins_do_the_same_in_another_thread(objects, plane, monkeypatch):
    threads = set()
    for name in ("create", "get", "lookup", "delete"):
        own = getattr(plane, name)
        monkeypatch.setattr(plane, name, lambda *given, own=own: (threads.add(threading.get_ident()), own(*given))[1])

    async def use():
        ref = await objects.acreate(np.arange(3), key="k", ttl_s=60, cacheable=True)
        assert await objects.alookup("k", timeout_s=5) == ref
        assert (await objects.aget(str(ref), timeout_s=5)).tolist() == [0, 1, 2]
        assert objects.stat(ref).cacheable
        assert await objects.adelete(ref)
        with pytest.raises(NotFound):
            await objects.aget(ref)
        with pytest.raises(InvalidInput, match="ttl_s"):
            await objects.acreate(b"a", ttl_s=0)

    asyncio.run(use())
    assert threads
    assert threading.get_ident() not in threads


def test_a_twin_leaves_the_event_loop_to_others(objects, plane, monkeypatch):
    others_ran = threading.Event()
    monkeypatch.setattr(plane, "get", lambda *_: (others_ran.wait(20), ("bytes", []))[0] and ("dict", []))

    async def use():
        reading = asyncio.create_task(objects.aget(GONE))
        await asyncio.sleep(0)
        others_ran.set()
        return await reading

    assert asyncio.run(use()) == {}
