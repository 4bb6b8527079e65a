"""The messages of KServe v2 as handlers see them."""

import asyncio
import gc
import pickle
import weakref

import numpy as np
import pytest

from anyserve import Contents, Context, InferInput, InferOutput, ModelInferRequest, ModelInferResponse
from anyserve.errors import InvalidInput, Unsupported

DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32,
    "FP64": np.float64,
}  # fmt: skip
LISTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
EXTREMES = {
    "BOOL": [True, False], "UINT8": [0, 255], "UINT16": [0, 65535], "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1], "INT8": [-128, 127], "INT16": [-(2**15), 2**15 - 1], "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1], "FP32": [-0.5, float("inf")], "FP64": [1e308, -1e-308], "BYTES": [b"", b"\0\xff"],
}  # fmt: skip


def raw(name: str, datatype: str, shape: list[int], data: bytes) -> InferInput:
    return InferInput(name, datatype, shape, contents=Contents(raw=data))


LEAST = {"BOOL": True}


# === arrays in ===


@pytest.mark.parametrize(("datatype", "dtype"), DTYPES.items())
def test_an_array_of_each_datatype_comes_back_as_it_was(datatype, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = InferInput("x", array)
    assert (tensor.datatype, tensor.shape, tensor.contents.raw) == (datatype, [2, 3], array.tobytes())
    view = tensor.as_numpy()
    assert (view.dtype, view.shape) == (array.dtype, array.shape)
    assert np.array_equal(view, array)
    assert view is tensor.as_numpy()


def test_an_array_of_an_input_is_a_read_only_view_that_keeps_its_bytes():
    data = np.arange(1000, dtype=np.float32).tobytes()
    view = ModelInferRequest("m", [raw("x", "FP32", [1000], data)]).inputs[0].as_numpy()
    gc.collect()
    assert not view.flags.writeable
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    assert view.tobytes() == data


@pytest.mark.parametrize("offset", range(8))
def test_misaligned_bytes_give_an_aligned_array(offset):
    whole = bytes(offset) + np.arange(4, dtype=np.float64).tobytes()
    view = raw("x", "FP64", [4], memoryview(whole)[offset:]).as_numpy()
    assert view.flags.aligned
    assert view.tolist() == [0, 1, 2, 3]


def test_bytes_are_an_array_of_objects():
    data = b"\x02\0\0\0\0\xff" + bytes(4)
    tensor = raw("x", "BYTES", [1, 2], data)
    assert tensor.as_numpy().dtype == object
    assert tensor.as_numpy().tolist() == [[b"\0\xff", b""]]
    assert not tensor.as_numpy().flags.writeable
    assert tensor.contents.bytes_contents == [b"\0\xff", b""]
    assert raw("x", "BYTES", [0], b"").as_numpy().shape == (0,)


def test_bf16_is_an_exact_float32():
    tensor = raw("x", "BF16", [2], bytes.fromhex("803f 20c0"))
    assert tensor.as_numpy().dtype == np.float32
    assert tensor.as_numpy().tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    ("single", "rounded"),
    [
        (1.0, 0x3F80),
        (1.00390625, 0x3F80),
        (1.01171875, 0x3F82),
        (1.0039064, 0x3F81),
        (float("inf"), 0x7F80),
        (-0.0, 0x8000),
    ],
)
def test_float32_is_rounded_to_bf16_to_the_nearest_even(single, rounded):
    output = ModelInferResponse().add_output("y", np.array([single], np.float32), datatype="BF16")
    assert output.datatype == "BF16"
    assert int.from_bytes(output.contents.raw, "little") == rounded


def test_a_not_a_number_stays_one_in_bf16():
    output = ModelInferResponse().add_output("y", np.array([np.nan], np.float32), datatype="BF16")
    assert np.isnan(output.as_numpy()[0])


def test_a_scalar_and_an_empty_tensor_keep_their_shape():
    assert InferInput("x", np.float32(2)).shape == []
    assert InferInput("x", np.zeros((0, 7), np.int8)).shape == [0, 7]
    assert raw("x", "FP32", [3, 0], b"").as_numpy().shape == (3, 0)


# === arrays out ===


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2],
        np.arange(12, dtype=np.int32).reshape(3, 4).T,
        np.arange(6, dtype=">i4"),
        np.arange(6, dtype=np.longlong).astype(">i8")[::-1],
        np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    ],
)
def test_an_array_with_gaps_or_of_another_byte_order_is_sent_row_by_row(array):
    output = ModelInferResponse().add_output("y", array)
    assert output.shape == list(array.shape)
    assert output.contents.raw == np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()


def test_an_array_is_read_when_it_is_asked_for():
    array = np.zeros(3, np.int8)
    output = ModelInferResponse().add_output("y", array)
    array[1] = 5
    assert output.as_numpy().tolist() == [0, 5, 0]
    seen = weakref.ref(array)
    del array
    gc.collect()
    assert seen() is not None, "the output holds on to it"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([b"a", b"bc"], object), [b"a", b"bc"]),
        (np.array(["ü"]), ["ü".encode()]),
        (np.array([b"x"], "S4"), [b"x"]),
        (["a\0", b"b"], [b"a\0", b"b"]),
    ],
)
def test_text_and_bytes_become_bytes(value, expected):
    output = ModelInferResponse().add_output("y", value)
    assert output.datatype == "BYTES"
    assert output.as_numpy().tolist() == expected


def test_lists_become_what_numpy_or_the_datatype_says():
    response = ModelInferResponse()
    assert response.add_output("a", [1, 2]).datatype == "INT64"
    assert response.add_output("b", [1, 2], datatype="FP16").as_numpy().dtype == np.float16
    assert response.add_output("c", [[True]]).shape == [1, 1]
    assert response.add_output("d", ["a"], datatype="BYTES").as_numpy().tolist() == [b"a"]
    assert response.add_output("e", "text", datatype="BYTES").shape == []


def test_bfloat16_of_ml_dtypes_is_sent_as_it_is():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    output = ModelInferResponse().add_output("y", np.array([1, -2.5], ml_dtypes.bfloat16))
    assert (output.datatype, output.contents.raw) == ("BF16", bytes.fromhex("803f 20c0"))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros(2, complex),), {}, "output 'y' is an array of complex128, which is no KServe datatype"),
        (
            (np.zeros(2),),
            {"datatype": "FP32"},
            'is an array of float64, but has datatype FP32: .*astype\\("float32"\\)',
        ),
        ((np.zeros(2, np.int8),), {"datatype": "BF16"}, "is an array of int8, but has datatype BF16"),
        ((np.array(["a"]),), {"datatype": "INT8"}, "but has datatype INT8"),
        ((np.array([1, "a"], object),), {}, "has an element of type int at 0: an element of BYTES is bytes"),
        (("FP31", [1]), {}, 'has the unknown datatype "FP31": use one of BOOL, '),
        (("fp32", [1]), {}, 'has the unknown datatype "fp32"'),
        (("FP32",), {}, "needs an array, or a datatype and a shape"),
        ((None, [1]), {}, "needs an array, or a datatype and a shape"),
        ((np.zeros(2), [2]), {}, "is given as an array, which has a shape of its own"),
        (("FP32", [2, -1]), {}, "has no possible shape: dimension -1 of shape \\[2, -1\\] is negative"),
        (("FP32", [2**62, 2**62]), {}, "more elements than can be counted"),
        (("FP32", ["a"]), {}, "expected a list of whole numbers"),
    ],
)
def test_what_no_output_can_be_is_told_with_the_fix(arguments, options, message):
    response = ModelInferResponse()
    with pytest.raises(ValueError, match=message):
        response.add_output("y", *arguments, **options)
    assert response.outputs == []


# === contents ===


@pytest.mark.parametrize(("datatype", "field"), LISTS.items())
def test_typed_lists_hold_the_extremes_of_their_datatype(datatype, field):
    values = EXTREMES[datatype]
    tensor = InferInput("x", datatype, [2], contents=Contents(**{field: values}))
    assert getattr(tensor.contents, field) == values
    again = raw("x", datatype, [2], tensor.contents.raw)
    assert getattr(again.contents, field) == values
    assert tensor == again


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("UINT8", 256), ("UINT8", -1), ("INT8", 128), ("INT16", -32769), ("UINT16", 65536), ("INT32", 2**31),
     ("INT64", 2**63), ("UINT64", 2**64), ("UINT64", -1), ("INT8", 1.5), ("FP32", "a"), ("BOOL", 2)],
)  # fmt: skip
def test_an_element_that_does_not_fit_is_named(datatype, value):
    with pytest.raises(InvalidInput, match=f"input 'x' has .* at 1, which {datatype} cannot hold"):
        InferInput("x", datatype, [2], contents=Contents(**{LISTS[datatype]: [LEAST.get(datatype, 1), value]}))


def test_the_contents_of_an_input_move_to_an_output():
    tensor = InferInput("x", np.arange(3, dtype=np.int16))
    output = ModelInferResponse().add_output(name="y", datatype=tensor.datatype, shape=tensor.shape)
    output.contents = tensor.contents
    assert output.contents is tensor.contents
    assert output.contents.int_contents == [0, 1, 2]
    assert output.as_numpy().tolist() == [0, 1, 2]


def test_a_list_of_an_output_can_be_filled_and_replaced():
    output = ModelInferResponse().add_output("y", "INT64", [3])
    output.contents.int64_contents.append(1)
    output.contents.int64_contents.extend([2, 3])
    assert output.as_numpy().tolist() == [1, 2, 3]
    output.contents.int64_contents = np.array([4, 5, 6])
    assert output.contents.raw == np.array([4, 5, 6], np.int64).tobytes()
    output.contents.raw = bytearray(24)
    assert output.contents.int64_contents == [0, 0, 0]
    assert output.contents.fp32_contents == []


def test_changing_a_list_after_reading_it_counts():
    output = ModelInferResponse().add_output("y", np.arange(2, dtype=np.float64))
    output.contents.fp64_contents[1] = 7.5
    assert output.as_numpy().tolist() == [0.0, 7.5]


def test_contents_have_one_form():
    with pytest.raises(InvalidInput, match="not several"):
        Contents(raw=b"", int_contents=[])
    with pytest.raises(TypeError, match='there are no contents "floats": there are raw and bool_contents, '):
        Contents(floats=[1.0])
    with pytest.raises(ValueError, match="before they are part of a tensor"):
        _ = Contents(int_contents=[1]).raw


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "message"),
    [
        ("INT8", [3], Contents(int_contents=[1, 2]), "input 'x' has 2 bytes, but INT8 with shape \\[3\\] takes 3"),
        ("FP32", [1], Contents(raw=b"123"), "has 3 bytes, but FP32 with shape \\[1\\] takes 4"),
        ("FP32", [1], Contents(int_contents=[1]), "which takes fp32_contents, but its contents are int_contents"),
        ("FP16", [1], Contents(fp32_contents=[1]), "has datatype FP16, which has no typed list"),
        ("BYTES", [1], Contents(raw=b"\x02\0\0\0a"), "is no BYTES data: element 0 has 2 bytes by its prefix"),
        ("BYTES", [1], Contents(raw=b"\x02"), "truncated length prefix"),
        ("BYTES", [2], Contents(raw=bytes(4)), "has 1 BYTES elements, but shape \\[2\\] takes 2"),
        ("BOOL", [-1], Contents(), "is negative"),
    ],
)
def test_an_input_whose_parts_do_not_fit_is_invalid(datatype, shape, contents, message):
    with pytest.raises(InvalidInput, match=message):
        InferInput("x", datatype, shape, contents=contents)


# === messages ===


def test_a_request_finds_its_inputs_by_name():
    a, b = InferInput("a", np.zeros(1)), InferInput("b", np.ones(1))
    request = ModelInferRequest("m", [a, b], id="7", model_version="2", parameters={"k": 1}, outputs=["y"])
    assert request.inputs == [a, b]
    assert request.input("b") is b
    assert (request.model_name, request.id, request.model_version) == ("m", "7", "2")
    assert (request.parameters, request.outputs) == ({"k": 1}, ["y"])
    with pytest.raises(InvalidInput, match="input 'c' is missing: the request has 'a', 'b'"):
        request.input("c")
    with pytest.raises(InvalidInput, match="input 'a' stands twice"):
        ModelInferRequest("m", [a, a])


def test_a_response_finds_its_outputs_by_name():
    response = ModelInferResponse(model_name="m", id="7", parameters={"k": True})
    output = response.add_output("y", np.zeros(2), parameters={"p": "q"})
    assert response.output("y") is output
    assert response.outputs == [output]
    assert (response.parameters, output.parameters) == ({"k": True}, {"p": "q"})
    with pytest.raises(KeyError, match="there is no output 'z'; the response has 'y'"):
        response.output("z")


@pytest.mark.parametrize("value", [True, 1, -(2**63), 2**64 - 1, 0.5, "ü", np.int8(3), np.float32(0.5), np.bool_(True)])
def test_a_parameter_of_every_type_is_kept(value):
    parameters = ModelInferRequest(parameters={"p": value}).parameters
    assert parameters == {"p": value}
    assert type(parameters["p"]) in (bool, int, float, str)


@pytest.mark.parametrize("parameters", [{"p": None}, {"p": [1]}, {"p": 2**64}, {1: "a"}])
def test_what_no_parameter_can_be_is_refused(parameters):
    with pytest.raises(TypeError, match="parameter"):
        ModelInferRequest(parameters=parameters)


def test_tensors_are_equal_if_their_parts_are():
    zeros = InferInput("x", np.zeros(2))
    assert zeros == InferInput("x", np.zeros(2))
    for other in (InferInput("y", np.zeros(2)), InferInput("x", np.zeros((2, 1))), InferInput("x", np.ones(2)), 0):
        assert zeros != other
    one, two = ModelInferResponse(), ModelInferResponse()
    assert one.add_output("y", [1]) == two.add_output("y", "INT64", [1]) or two.outputs[0].contents.raw == b""
    two.outputs[0].contents.int64_contents.append(1)
    assert one.outputs[0] == two.outputs[0]


def test_messages_show_what_they_are():
    request = ModelInferRequest("m", [InferInput("x", np.zeros(2))], id="7")
    assert repr(request) == '<ModelInferRequest model_name="m" id="7" inputs=["x"]>'
    assert repr(request.inputs[0]) == 'InferInput(name="x", datatype="FP64", shape=[2])'
    assert repr(request.inputs[0].contents) == "<Contents: 16 raw bytes>"
    assert "outputs=0" in repr(ModelInferResponse())


def test_messages_are_not_pickled():
    output = ModelInferResponse().add_output("y", [1])
    for one in (ModelInferRequest(), ModelInferResponse(), InferInput("x", [1]), output, output.contents):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(one)


def test_an_output_is_made_by_its_response():
    with pytest.raises(TypeError, match=r"No constructor defined|cannot create"):
        InferOutput()


# === context ===


def test_a_context_for_a_test_has_what_it_is_given():
    context = Context(request_id="7", capability={"type": "t"}, parameters={"k": 1}, headers={"h": "v"}, timeout_s=60)
    assert (context.request_id, context.capability, context.parameters) == ("7", {"type": "t"}, {"k": 1})
    assert (context.headers, context.attempt, context.cancelled) == ({"h": "v"}, 1, False)
    assert 0 < context.remaining() <= 60
    assert Context().remaining() is None
    assert Context(timeout_s=0).remaining() == 0


def test_a_handlers_log_carries_the_request(caplog):
    with caplog.at_level("INFO", logger="anyserve.handler"):
        Context(request_id="7").log.info("hello")
    assert [(record.name, record.request_id) for record in caplog.records] == [("anyserve.handler", "7")]


def test_a_context_of_a_test_makes_no_calls_and_has_no_objects():
    context = Context()
    alone = pytest.raises(Unsupported, match="belongs to no request of a replica")
    with alone:
        context.call({"type": "embed"}, {"x": [1]})
    with alone:
        context.call_stream("embed", {"x": [1]})
    with alone:
        asyncio.run(context.acall("embed", {"x": [1]}))
    with alone:
        context.acall_stream("embed", {"x": [1]})
    with pytest.raises(Unsupported, match="no object store here"):
        _ = context.objects
