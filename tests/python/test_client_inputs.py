"""What a client is given for an input, and what it sends."""

import numpy as np
import pytest

from anyserve import InferInput
from anyserve._inputs import tensor, tensors
from anyserve.errors import InvalidInput


def sent(value):
    """Datatype, shape and elements of what is sent."""
    made = tensor("x", value)
    elements = made.data if isinstance(made.data, list) else np.asarray(made.data).reshape(-1).tolist()
    return made.datatype, tuple(made.shape), elements


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, ("INT64", (1,), [3])),
        (2.5, ("FP64", (1,), [2.5])),
        (True, ("BOOL", (1,), [True])),
        ("é", ("BYTES", (1,), ["é"])),
        (b"a\0", ("BYTES", (1,), [b"a\0"])),
        (bytearray(b"ab"), ("BYTES", (1,), [b"ab"])),
        ([1, 2], ("INT64", (2,), [1, 2])),
        ((1, 2.5), ("FP64", (2,), [1.0, 2.5])),
        ([[True], [False]], ("BOOL", (2, 1), [True, False])),
        ([2**63], ("UINT64", (1,), [2**63])),
        ([], ("FP64", (0,), [])),
        ([[], []], ("FP64", (2, 0), [])),
        (["a", ""], ("BYTES", (2,), ["a", ""])),
        (np.float32(1.5), ("FP32", (1,), [1.5])),
        (np.array(7, dtype=np.int8), ("INT8", (), [7])),
        ([np.float32(1), np.float32(2)], ("FP32", (2,), [1.0, 2.0])),
        (np.array(["a", "bc"]), ("BYTES", (2,), ["a", "bc"])),
        (np.array([[b"a"]]), ("BYTES", (1, 1), [b"a"])),
        (np.zeros((0, 3), dtype=np.uint16), ("UINT16", (0, 3), [])),
        (range(3), ("INT64", (3,), [0, 1, 2])),
    ],
)
def test_datatype_and_shape_are_inferred(value, expected):
    assert sent(value) == expected


def test_elements_of_text_keep_their_type_and_their_zero_bytes():
    made = tensor("x", [["a", b"b\0"], [b"", "é"]])
    assert (made.datatype, made.shape, made.data) == ("BYTES", (2, 2), ["a", b"b\0", b"", "é"])


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        ("bool", "BOOL"), ("u1", "UINT8"), ("u2", "UINT16"), ("u4", "UINT32"), ("u8", "UINT64"), ("i1", "INT8"),
        ("i2", "INT16"), ("i4", "INT32"), ("i8", "INT64"), ("f2", "FP16"), ("f4", "FP32"), ("f8", "FP64"),
    ],
)  # fmt: skip
def test_an_array_keeps_its_datatype_and_is_sent_without_a_copy(dtype, datatype):
    array = np.ones((2, 3), dtype=dtype)
    made = tensor("x", array)
    assert (made.datatype, made.shape, made.weak) == (datatype, (2, 3), False)
    assert made.data is array


@pytest.mark.parametrize(
    "array", [np.arange(12).reshape(3, 4).T, np.arange(9)[::2], np.arange(4, dtype=">i8"), np.arange(4, dtype=">f4")]
)
def test_an_array_in_another_order_is_brought_into_the_protocols(array):
    made = tensor("x", array)
    assert made.data.flags.c_contiguous
    assert made.data.dtype.byteorder in "=<"
    np.testing.assert_array_equal(made.data, array)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([[1, 2], [3]], "rows have different lengths"),
        ([["a"], ["b", "c"]], "rows have different lengths"),
        ([["a", "b"], "c"], "rows have different lengths"),
        (["a", 1], "has a int as element 1"),
        ([1, "a"], "not all numbers"),
        ([1, None], "not all numbers"),
        ([2**64], "not all numbers"),
        (None, "NoneType"),
        (object(), "a object is neither"),
        (1j, "complex128"),
        (np.zeros(2, dtype="datetime64[s]"), "datetime64"),
        ({"data": 1, "type": "FP32"}, "unknown key 'type'"),
        ({"datatype": "FP32"}, "has no 'data'"),
        ({"data": 1, "parameters": [1]}, "parameters [1]: give a dict"),
        ({"data": 1, "datatype": "float"}, "unknown datatype 'float'"),
        ({"data": [1, 2], "shape": [3]}, "has 2 elements, but the shape [3] takes 3"),
        ({"data": [1], "shape": [-1]}, "below 0"),
        ({"data": [1], "shape": [1.5]}, "list of whole numbers"),
        ({"data": [1], "shape": 1}, "list of whole numbers"),
        ({"data": [1.5], "datatype": "INT32"}, "cannot be sent as INT32"),
        ({"data": [300], "datatype": "UINT8"}, "300, which is out of range for UINT8"),
        ({"data": [-1], "datatype": "UINT64"}, "-1, which is out of range for UINT64"),
        ({"data": [1], "datatype": "BOOL"}, "cannot be sent as BOOL"),
        ({"data": [True], "datatype": "FP32"}, "cannot be sent as FP32"),
        ({"data": [1e300], "datatype": "FP32"}, "out of range for FP32"),
        ({"data": "a", "datatype": "FP32"}, "cannot be sent as FP32"),
        ({"data": [1], "datatype": "BYTES"}, "cannot be sent as BYTES"),
    ],
)
def test_what_no_tensor_can_be_made_of_is_refused_by_the_name_of_the_input(value, part):
    with pytest.raises(InvalidInput) as caught:
        tensor("the input", value)
    assert "'the input'" in str(caught.value)
    assert part in str(caught.value)


def test_an_explicit_input_is_converted_reshaped_and_keeps_its_parameters():
    made = tensor("x", {"data": [1, 2, 3, 4], "datatype": "FP16", "shape": [2, 2], "parameters": {"a": 1}})
    assert (made.datatype, made.shape, made.data.dtype, made.parameters) == ("FP16", (2, 2), np.float16, {"a": 1})
    assert not made.weak
    assert tensor("x", {"data": [1, 2]}).weak


def test_bytes_for_a_number_datatype_are_raw():
    raw = np.arange(3, dtype="<f4").tobytes()
    assert tensor("x", {"data": raw, "datatype": "FP32"}).shape == (3,)
    made = tensor("x", {"data": raw, "datatype": "FP32", "shape": [3, 1]})
    assert (made.shape, made.data) == ((3, 1), raw)


def test_bf16_is_rounded_to_nearest_even():
    values = [1.0, 1.00390625, 1.01171875, -0.0, float("inf"), 3.4e38]
    made = tensor("x", {"data": values, "datatype": "BF16"})
    assert [hex(bits) for bits in made.data.tolist()] == ["0x3f80", "0x3f80", "0x3f82", "0x8000", "0x7f80", "0x7f80"]
    nan = tensor("x", {"data": [float("nan")], "datatype": "BF16"}).data[0]
    assert nan & 0x7F80 == 0x7F80
    assert nan & 0x7F != 0


@pytest.mark.parametrize(
    ("value", "declared", "expected"),
    [
        ([1, 2], "FP32", ("FP32", [1.0, 2.0])),
        ([1.5], "FP32", ("FP32", [1.5])),
        ([1], "UINT8", ("UINT8", [1])),
        (3, "INT32", ("INT32", [3])),
        # What the declared datatype cannot hold goes as it is: the server says what is wrong.
        ([1.5], "INT32", ("FP64", [1.5])),
        ([300], "UINT8", ("INT64", [300])),
        ([1], "BOOL", ("INT64", [1])),
        ([1], "BYTES", ("INT64", [1])),
        ([1], None, ("INT64", [1])),
        # Arrays, truth values and explicit datatypes are what they are.
        (np.array([1.0]), "FP32", ("FP64", [1.0])),
        ([np.float64(1)], "FP32", ("FP64", [1.0])),
        ([True], "FP32", ("BOOL", [True])),
        ({"data": [1.0], "datatype": "FP64"}, "FP32", ("FP64", [1.0])),
    ],
)
def test_pythons_numbers_become_what_the_server_declares(value, declared, expected):
    made = tensor("x", value).as_declared(declared)
    assert (made.datatype, made.data.tolist()) == expected


@pytest.mark.parametrize("datatype", ["INT32", "BF16", "BYTES", "BOOL"])
def test_an_empty_list_becomes_whatever_is_asked_for(datatype):
    declared = tensor("x", [[]]).as_declared(datatype)
    explicit = tensor("x", {"data": [], "datatype": datatype, "shape": [0, 2]})
    assert (declared.datatype, declared.shape, declared.data) == (datatype, (1, 0), b"")
    assert (explicit.datatype, explicit.shape, explicit.data) == (datatype, (0, 2), b"")


def test_an_infer_input_is_passed_on():
    own = InferInput("x", np.arange(3, dtype=np.float32))
    made = tensor("other", own)
    assert (made.name, made.datatype, made.shape, made.data) == ("other", "FP32", (3,), own)
    assert [made.name for made in tensors([own])] == ["x"]


@pytest.mark.parametrize("inputs", [5, "abc", [1], None])
def test_inputs_without_names_are_refused(inputs):
    with pytest.raises(InvalidInput, match="give a dict"):
        tensors(inputs)


@pytest.mark.parametrize("name", ["", 5])
def test_an_input_has_a_name(name):
    with pytest.raises(InvalidInput, match="name of an input"):
        tensors({name: 1})
