"""What outputs are made of what a typed handler returns."""

import numpy as np
import pytest

from anyserve import ModelInferResponse, TensorSpec
from anyserve._tensors import Writer, as_array


def write(value, request, outputs=None) -> dict:
    response = Writer("f", outputs)(value, request)
    return {out.name: (out.datatype, list(out.shape), out.as_numpy().tolist()) for out in response.outputs}


def spec(name, datatype="FP32", shape=(-1,)):
    return TensorSpec(name, datatype, shape)


def test_a_single_value_is_named_after_the_declared_output_or_output(make_request):
    assert write(np.float32([1]), make_request()) == {"output": ("FP32", [1], [1.0])}
    assert write(np.float32([1]), make_request(), [spec("y")]) == {"y": ("FP32", [1], [1.0])}


def test_a_tuple_goes_by_the_order_of_the_declared_outputs(make_request):
    made = write(([1.0], [2.0]), make_request(), [spec("b"), spec("a")])
    assert made == {"b": ("FP32", [1], [1.0]), "a": ("FP32", [1], [2.0])}


def test_values_that_are_no_arrays_take_the_declared_datatype(make_request):
    assert write({"y": [1, 2]}, make_request(), [spec("y")]) == {"y": ("FP32", [2], [1.0, 2.0])}
    assert write({"y": 3}, make_request(), [spec("y", "INT8")]) == {"y": ("INT8", [1], [3])}
    assert write({"y": "é"}, make_request(), [spec("y", "BYTES")]) == {"y": ("BYTES", [1], ["é".encode()])}
    assert write({"y": []}, make_request(), [spec("y", "BYTES")]) == {"y": ("BYTES", [0], [])}


def test_without_a_declaration_numpy_chooses_the_datatype(make_request):
    made = write({"i": [1], "f": [1.0], "t": True, "s": ["a", "b"]}, make_request())
    assert {name: datatype for name, (datatype, _, _) in made.items()} == {
        "i": "INT64", "f": "FP64", "t": "BOOL", "s": "BYTES",
    }  # fmt: skip


def test_bf16_is_written_from_float32(make_request):
    assert write({"y": np.float32([1.5])}, make_request(), [spec("y", "BF16")]) == {"y": ("BF16", [1], [1.5])}


def test_zero_bytes_and_nesting_survive():
    assert as_array([[b"a\0", b""], [b"\0", b"b"]]).tolist() == [[b"a\0", b""], [b"\0", b"b"]]
    assert as_array(b"a\0").tolist() == [b"a\0"]
    assert as_array(np.array(["a", "b"])).dtype == object


def test_a_scalar_has_one_element_and_an_array_keeps_its_shape():
    assert as_array(np.float32(2)).shape == (1,)
    assert as_array(2.0).shape == (1,)
    assert as_array(np.zeros(())).shape == ()
    assert as_array(np.zeros((0, 3))).shape == (0, 3)


def test_a_response_is_left_as_it_is(make_request):
    response = ModelInferResponse(model_name="other")
    assert Writer("f", [spec("y")])(response, make_request()) is response


@pytest.mark.parametrize(
    ("value", "outputs", "says"),
    [
        (None, None, "'f' returned None; return a dict"),
        (([1.0], [2.0]), None, "returned a tuple, whose outputs have no names"),
        (([1.0],), [spec("a"), spec("b")], "returned 1 values, but declares a, b"),
        ([1.0], [spec("a"), spec("b")], "returned one value for the outputs a, b"),
        ({1: [1.0]}, None, "the name of an output is a str"),
        ({"x": [1.0]}, [spec("y")], "returned the outputs x, but declares y"),
        ({}, [spec("y")], "returned the outputs none, but declares y"),
        ({"y": np.zeros(1)}, [spec("y")], r"as float64, but declares FP32; convert it with .astype\(np.float32\)"),
        ({"y": np.zeros((1, 1), np.float32)}, [spec("y")], r"with shape \[1, 1\], but declares \[-1\]"),
        ({"y": np.zeros(3, np.float32)}, [spec("y", shape=[2])], r"with shape \[3\], but declares \[2\]"),
        ({"y": object()}, None, "'f' returned 'y': no array can be made of object; give a number"),
        ({"y": [1, "a"]}, None, "no array can be made of list"),
        ({"y": [[1], [1, 2]]}, None, "no array can be made of list"),
        ({"y": [300]}, [spec("y", "UINT8")], "'f' returned 'y': no array can be made of list"),
    ],
)
def test_what_cannot_be_the_answer_is_a_type_error_with_the_fix(make_request, value, outputs, says):
    with pytest.raises(TypeError, match=says):
        write(value, make_request(), outputs)
