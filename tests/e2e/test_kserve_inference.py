"""ModelInfer, statement by statement: what goes in comes out, and what is wrong is told by name and number."""

import json
import random

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.messages import (
    FIELD,
    INVALID,
    NOT_FOUND,
    RAW,
    SERVICE,
    SIZE,
    UNIMPLEMENTED,
    anyserve_code,
    infer,
    number,
    refused,
    stub,
    tensor,
    text,
)

DATATYPES = sorted(RAW)
TYPED = sorted(FIELD)


@pytest.fixture
def service(either, channel):
    """The service of both kinds of workers; it must be alive and well after whatever a test sent."""
    made = stub(channel(either.endpoint))
    yield made
    assert made.ServerReady(pb.ServerReadyRequest()).ready
    assert made.ModelInfer(infer("echo", number("x", 7))).raw_output_contents == [(7).to_bytes(8, "little")]


# === tensors ===


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_contents_come_back_as_they_were_sent(service, datatype):
    values, raw = RAW[datatype]
    answer = service.ModelInfer(infer("echo", tensor("x", datatype, [1, len(values)]), raw=[raw]))
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("output_x", datatype, [1, len(values)])
    assert list(answer.raw_output_contents) == [raw]
    assert not output.HasField("contents")


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_understood_and_answered_raw(service, datatype):
    values, raw = RAW[datatype]
    answer = service.ModelInfer(infer("echo", tensor("x", datatype, [len(values)], **{FIELD[datatype]: values})))
    assert list(answer.raw_output_contents) == [raw]
    assert not answer.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_handler_that_reads_and_writes_arrays_changes_no_byte(service, datatype):
    values, raw = RAW[datatype]
    answer = service.ModelInfer(infer("as-arrays", tensor("x", datatype, [len(values), 1]), raw=[raw]))
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [len(values), 1])
    assert list(answer.raw_output_contents) == [raw]


@pytest.mark.parametrize("datatype", TYPED)
def test_a_handler_that_reads_and_writes_typed_lists_changes_no_byte(service, datatype):
    values, raw = RAW[datatype]
    by_list = infer("as-lists", tensor("x", datatype, [len(values)], **{FIELD[datatype]: values}))
    assert list(service.ModelInfer(by_list).raw_output_contents) == [raw]
    by_bytes = infer("as-lists", tensor("x", datatype, [len(values)]), raw=[raw])
    assert list(service.ModelInfer(by_bytes).raw_output_contents) == [raw]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_tritonclient_reads_back_the_array_that_it_wrote(either, datatype):
    values, _ = RAW[datatype]
    dtype = ml_dtypes.bfloat16 if datatype == "BF16" else triton.triton_to_np_dtype(datatype)
    array = np.array([values, values], dtype=dtype)
    given = triton.InferInput("x", array.shape, datatype)
    given.set_data_from_numpy(array)
    with triton.InferenceServerClient(either.endpoint) as client:
        result = client.infer("echo", [given], request_id="7")
    read = result.as_numpy("output_x")
    assert read.shape == array.shape
    assert read.tolist() == array.tolist()
    assert result.get_response().id == "7"
    assert result.get_response().model_name == "echo"


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [[0], [2, 0, 3], [0, 2**62, 2**62]])
@pytest.mark.parametrize("model", ["echo", "as-arrays"])
def test_tensors_without_elements_are_legal_and_keep_their_shape(service, datatype, shape, model):
    if model == "as-arrays" and max(shape) > 9:
        shape = [3, 0]  # An array of numpy's cannot be that large in any dimension.
    for raw in ([b""], None):
        answer = service.ModelInfer(infer(model, tensor("x", datatype, shape), raw=raw))
        assert list(answer.outputs[0].shape) == shape
        assert list(answer.raw_output_contents) == [b""]


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("model", ["echo", "as-arrays"])
def test_a_shape_without_dimensions_is_one_element(service, datatype, model):
    raw = b"\x01\x00\x00\x00a" if datatype == "BYTES" else b"\x01" + bytes(SIZE[datatype] - 1)
    answer = service.ModelInfer(infer(model, tensor("x", datatype, []), raw=[raw]))
    assert list(answer.outputs[0].shape) == []
    assert list(answer.raw_output_contents) == [raw]


@pytest.mark.parametrize("element", [b"", b"\0", b"\0" * 1000, b"\xff\xfe\xfd", "日本語".encode(), bytes(range(256))])
@pytest.mark.parametrize("model", ["echo", "as-arrays", "as-lists"])
def test_every_byte_is_data_in_a_bytes_element(service, element, model):
    raw = len(element).to_bytes(4, "little") + element
    by_bytes = service.ModelInfer(infer(model, tensor("x", "BYTES", [2]), raw=[raw * 2]))
    by_list = service.ModelInfer(infer(model, tensor("x", "BYTES", [2], bytes_contents=[element] * 2)))
    assert list(by_bytes.raw_output_contents) == list(by_list.raw_output_contents) == [raw * 2]


def test_bytes_that_need_framing_and_contain_prefixes_are_not_mistaken(service):
    nested = b"\x05\x00\x00\x00\xff\xff\xff\xff"
    raw = len(nested).to_bytes(4, "little") + nested
    answer = service.ModelInfer(infer("as-arrays", tensor("x", "BYTES", [1, 1]), raw=[raw]))
    assert list(answer.raw_output_contents) == [raw]


def test_inputs_come_in_any_order_and_outputs_go_with_their_bytes(service):
    a, b = np.array([1, 2], "<f4"), np.array([10, 20], "<f4")
    inputs = [tensor("b", "FP32", [2]), tensor("a", "FP32", [2])]
    answer = service.ModelInfer(infer("add", *inputs, raw=[b.tobytes(), a.tobytes()]))
    assert [output.name for output in answer.outputs] == ["sum", "difference"]
    assert [np.frombuffer(raw, "<f4").tolist() for raw in answer.raw_output_contents] == [[11, 22], [-9, -18]]


def test_a_request_without_inputs_is_one(service):
    answer = service.ModelInfer(infer("echo"))
    assert (list(answer.outputs), list(answer.raw_output_contents)) == ([], [])


def test_many_tensors_keep_their_order(service):
    inputs = [number(f"x{place}", place) for place in range(500)]
    answer = service.ModelInfer(infer("echo", *inputs))
    assert [output.name for output in answer.outputs] == [f"output_x{place}" for place in range(500)]
    assert [int.from_bytes(raw, "little") for raw in answer.raw_output_contents] == list(range(500))


def test_an_answer_may_have_more_outputs_than_the_request_had_inputs(service):
    answer = service.ModelInfer(infer("answer", text("how", "wide")))
    assert len(answer.outputs) == len(answer.raw_output_contents) == 1000


# === what is echoed ===


@pytest.mark.parametrize("given", ["", "7", "  two words ", "日本語 \U0001f600", "%25%0a\n\t", "x" * 100_000])
def test_the_id_comes_back_exactly(service, given):
    answer = service.ModelInfer(infer("echo", number("x", 1), id=given))
    assert answer.id == given


def test_the_answer_names_the_model_as_the_request_did_with_the_version_that_served_it(service):
    answer = service.ModelInfer(infer("versioned", version := number("x", 1)))
    assert (answer.model_name, answer.model_version in ("3", "4")) == ("versioned", True)
    for wanted in ("3", "4"):
        answer = service.ModelInfer(infer("versioned", version, model_version=wanted))
        assert (answer.model_name, answer.model_version) == ("versioned", wanted)
        assert answer.raw_output_contents[0] == int(wanted).to_bytes(8, "little")
    assert service.ModelInfer(infer("echo", model_version="1")).model_version == "1"


# === requested outputs ===


@pytest.mark.parametrize("wanted", [["sum"], ["difference"], ["difference", "sum"]])
def test_only_requested_outputs_come_back(service, wanted):
    a, b = np.array([1], "<f4").tobytes(), np.array([3], "<f4").tobytes()
    inputs = [tensor("a", "FP32", [1]), tensor("b", "FP32", [1])]
    answer = service.ModelInfer(infer("add", *inputs, raw=[a, b], outputs=wanted))
    values = {"sum": 4.0, "difference": -2.0}
    got = {
        output.name: np.frombuffer(raw, "<f4")[0]
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    assert got == {name: values[name] for name in wanted}


def test_an_unknown_or_repeated_requested_output_is_an_error_that_names_it(service):
    refused(service.ModelInfer, infer("echo", number("x", 1), outputs=["nobody"]), INVALID, "nobody", "echo")
    twice = infer("echo", number("x", 1), outputs=["output_x", "output_x"])
    refused(service.ModelInfer, twice, INVALID, "output_x", "echo")


# === parameters ===

PARAMETERS = {
    "yes": pb.InferParameter(bool_param=True), "no": pb.InferParameter(bool_param=False),
    "low": pb.InferParameter(int64_param=-(2**63)), "high": pb.InferParameter(uint64_param=2**64 - 1),
    "zero": pb.InferParameter(int64_param=0), "half": pb.InferParameter(double_param=-0.5),
    "text": pb.InferParameter(string_param="日本\0語"), "empty": pb.InferParameter(string_param=""),
}  # fmt: skip


def test_parameters_of_every_type_reach_the_handler_and_come_back(service):
    request = infer("echo", number("x", 1), parameters=PARAMETERS)
    for name, value in PARAMETERS.items():
        request.inputs[0].parameters[name].CopyFrom(value)
    answer = service.ModelInfer(request)
    assert dict(answer.parameters) == PARAMETERS
    assert dict(answer.outputs[0].parameters) == PARAMETERS


def test_a_handler_sees_parameters_as_pythons_types(service):
    answer = service.ModelInfer(infer("see", parameters=PARAMETERS))
    seen = json.loads(answer.raw_output_contents[0][4:])["parameters"]
    expected = {
        "yes": True, "no": False, "low": -(2**63), "high": 2**64 - 1, "zero": 0, "half": -0.5, "text": "日本\0語",
        "empty": "",
    }  # fmt: skip
    assert seen == expected
    assert [type(seen[name]) for name in expected] == [type(value) for value in expected.values()]


def test_tritonclients_own_parameters_fail_no_request(either):
    given = triton.InferInput("x", [1], "INT64")
    given.set_data_from_numpy(np.array([1]))
    with triton.InferenceServerClient(either.endpoint) as client:
        result = client.infer("echo", [given], priority=3, timeout=60_000_000, parameters={"mine": 1, "other": "two"})
    assert result.as_numpy("output_x").tolist() == [1]
    assert result.get_response().parameters["other"].string_param == "two"


def test_a_parameter_without_value_is_an_error_that_names_it(service):
    refused(service.ModelInfer, infer("echo", parameters={"odd": pb.InferParameter()}), INVALID, "odd")
    request = infer("echo", number("x", 1))
    request.inputs[0].parameters["odd"].SetInParent()
    refused(service.ModelInfer, request, INVALID, "odd", "x")


def test_parameters_that_start_with_triton_are_reserved(service):
    request = infer("echo", parameters={"triton_mine": pb.InferParameter(int64_param=1)})
    refused(service.ModelInfer, request, INVALID, "triton_mine")


# === errors ===

X = tensor("x", "FP32", [2])
EIGHT = bytes(8)

WRONG = {
    "a byte short": (infer("echo", X, raw=[bytes(7)]), "'x'", "'echo'", "7", "8"),
    "a byte long": (infer("echo", X, raw=[bytes(9)]), "'x'", "'echo'", "9", "8"),
    "no bytes": (infer("echo", X, raw=[b""]), "'x'", "'echo'", "0", "8"),
    "bytes for no elements": (infer("echo", tensor("x", "FP32", [0]), raw=[b"a"]), "'x'", "'echo'", "1", "0"),
    "a negative dimension": (infer("echo", tensor("x", "FP32", [2, -1]), raw=[EIGHT]), "'x'", "-1"),
    "a negative dimension beside an empty one": (infer("echo", tensor("x", "FP32", [0, -1]), raw=[b""]), "'x'", "-1"),
    "two negative dimensions": (infer("echo", tensor("x", "FP32", [-2, -1]), raw=[EIGHT]), "'x'", "-2"),
    "the lowest dimension": (infer("echo", tensor("x", "FP32", [-(2**63)]), raw=[EIGHT]), "'x'", str(-(2**63))),
    "more elements than can be counted": (
        infer("echo", tensor("x", "INT8", [2**62, 4]), raw=[b""]), "'x'", str(2**62)),
    "elements that overflow to nothing": (infer("echo", tensor("x", "INT8", [2**32, 2**32]), raw=[b""]), "'x'"),
    "elements that overflow to eight bytes": (infer("echo", tensor("x", "INT8", [2**61 + 1, 8]), raw=[EIGHT]), "'x'"),
    "bytes that overflow": (infer("echo", tensor("x", "FP64", [2**61]), raw=[b""]), "'x'"),
    "bytes that overflow to eight": (infer("echo", tensor("x", "FP64", [2**61 + 1]), raw=[EIGHT]), "'x'"),
    "far more elements than there are": (infer("echo", tensor("x", "INT8", [2**50]), raw=[EIGHT]), "'x'", "8"),
    "far more typed elements than there are": (
        infer("echo", tensor("x", "INT8", [2**50], int_contents=[1])), "'x'", "1", str(2**50)),
    "typed elements that overflow": (infer("echo", tensor("x", "INT8", [2**32, 2**32], int_contents=[])), "'x'"),
    "too many dimensions": (infer("echo", tensor("x", "INT8", [1] * 33), raw=[b"a"]), "'x'", "33", "32"),
    "raw and typed": (
        infer("echo", X, number("y", 1), raw=[EIGHT, EIGHT]),
        "contents field must not be specified when using raw_input_contents for 'y' for model 'echo'"),
    "one raw too few": (infer("echo", X, tensor("z", "FP32", [2]), raw=[EIGHT]), "2", "1", "'z'", "'echo'"),
    "one raw too many": (infer("echo", X, raw=[EIGHT, EIGHT]), "1", "2", "'echo'"),
    "raw without inputs": (infer("echo", raw=[EIGHT]), "0", "1", "'echo'"),
    "no contents at all": (infer("echo", X), "'x'", "'echo'", "0", "2"),
    "one typed too few": (infer("echo", tensor("x", "FP32", [2], fp32_contents=[1])), "'x'", "'echo'", "1", "2"),
    "one typed too many": (infer("echo", tensor("x", "FP32", [2], fp32_contents=[1] * 3)), "'x'", "'echo'", "3", "2"),
    "one text too few": (infer("echo", tensor("x", "BYTES", [2], bytes_contents=[b""])), "'x'", "'echo'", "1", "2"),
    "two fields": (
        infer("echo", tensor("x", "FP32", [1], fp32_contents=[1], fp64_contents=[1])), "'x'", "fp64_contents"),
    "an unknown datatype": (infer("echo", tensor("x", "FP99", [1]), raw=[b""]), "'x'", "FP99"),
    "a datatype in lower case": (infer("echo", tensor("x", "fp32", [1]), raw=[bytes(4)]), "'x'", "fp32"),
    "no datatype": (infer("echo", tensor("x", "", [1]), raw=[bytes(4)]), "'x'"),
    "an element's length cut off": (infer("echo", tensor("x", "BYTES", [1]), raw=[b"\x01\0\0"]), "'x'", "3", "4"),
    "an element cut off": (infer("echo", tensor("x", "BYTES", [1]), raw=[b"\x03\0\0\0ab"]), "'x'", "3", "2"),
    "the longest element cut off": (
        infer("echo", tensor("x", "BYTES", [1]), raw=[b"\xff\xff\xff\xffab"]), "'x'", "4294967295"),
    "bytes after the last element": (infer("echo", tensor("x", "BYTES", [1]), raw=[b"\x01\0\0\0ab"]), "'x'"),
    "an element too many": (infer("echo", tensor("x", "BYTES", [1]), raw=[bytes(8)]), "'x'", "2", "1"),
    "an element too few": (infer("echo", tensor("x", "BYTES", [3]), raw=[bytes(8)]), "'x'", "2", "3"),
    "a missing input": (infer("add", tensor("a", "FP32", [1]), raw=[bytes(4)]), "'b'", "'add'", "1", "2"),
    "no input where two are declared": (infer("add"), "'a'", "'add'", "0", "2"),
    "an unknown input": (
        infer("fixed", tensor("x", "INT32", [2, 0]), tensor("q", "INT32", [0]), raw=[b"", b""]), "'q'", "'fixed'",
        "'x'"),
    "an input twice": (
        infer("add", *[tensor(name, "FP32", [1]) for name in "aab"], raw=[bytes(4)] * 3), "'a'", "'add'", "twice"),
    "an undeclared input twice": (infer("echo", number("x", 1), number("x", 1)), "'x'", "'echo'", "twice"),
    "another datatype": (infer("fixed", tensor("x", "INT64", [2, 1]), raw=[bytes(16)]), "'x'", "INT64", "INT32"),
    "another rank": (infer("fixed", tensor("x", "INT32", [2]), raw=[EIGHT]), "'x'", "[2]", "[2, -1]"),
    "another fixed dimension": (
        infer("fixed", tensor("x", "INT32", [3, 1]), raw=[bytes(12)]), "'x'", "[3, 1]", "[2, -1]"),
    "a declared dimension left open": (infer("fixed", tensor("x", "INT32", [2, -1]), raw=[b""]), "'x'", "-1"),
    "a capability that cannot be read": (
        infer("echo", parameters={"capability": pb.InferParameter(string_param="type==(")}),),
    "a capability that is no text": (
        infer("echo", parameters={"capability": pb.InferParameter(int64_param=1)}), "capability"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_request_is_told_by_name_and_number(service, what):
    request, *parts = WRONG[what]
    error = refused(service.ModelInfer, request, INVALID, *parts)
    assert anyserve_code(error) == "INVALID_INPUT"


OUT_OF_RANGE = [
    ("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("INT16", -(2**15) - 1), ("UINT8", 256), ("UINT16", 2**16),
]  # fmt: skip


@pytest.mark.parametrize(("datatype", "value"), OUT_OF_RANGE)
def test_a_typed_element_out_of_its_datatypes_range_is_an_error(service, datatype, value):
    request = infer("echo", tensor("x", datatype, [2], **{FIELD[datatype]: [0, value]}))
    refused(service.ModelInfer, request, INVALID, "'x'", str(value), datatype, "1")


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("field", sorted(set(FIELD.values())))
def test_elements_in_another_datatypes_field_are_an_error(service, datatype, field):
    value = b"a" if field == "bytes_contents" else 1
    request = infer("echo", tensor("x", datatype, [1], **{field: [value]}))
    if FIELD.get(datatype) == field:
        assert len(service.ModelInfer(request).raw_output_contents) == 1
    else:
        refused(service.ModelInfer, request, INVALID, "'x'", datatype)


@pytest.mark.parametrize("name", ["nobody", "", "echo ", "../echo", "ECHO", "x" * 10_000, "日本語"])
def test_an_unknown_model_is_not_found_under_its_name(service, name):
    error = refused(service.ModelInfer, infer(name, number("x", 1)), NOT_FOUND, name[:100])
    assert anyserve_code(error) == "NO_CAPABILITY"


@pytest.mark.parametrize(("model", "version"), [("echo", "2"), ("versioned", "1"), ("versioned", "x"), ("echo", "01")])
def test_an_unknown_version_is_not_found_in_every_rpc(service, model, version):
    named = {"name": model, "version": version}
    error = refused(service.ModelInfer, infer(model, number("x", 1), model_version=version), NOT_FOUND, model, version)
    assert anyserve_code(error) == "NOT_FOUND"
    refused(service.ModelMetadata, pb.ModelMetadataRequest(**named), NOT_FOUND, model)
    refused(service.ModelConfig, pb.ModelConfigRequest(**named), NOT_FOUND, model)
    refused(service.ModelStatistics, pb.ModelStatisticsRequest(**named), NOT_FOUND, model)
    assert not service.ModelReady(pb.ModelReadyRequest(**named)).ready


# === handlers ===

KINDS = [
    ("InvalidInput", "INVALID_ARGUMENT", "INVALID_INPUT"), ("NotFound", "NOT_FOUND", "NOT_FOUND"),
    ("Unauthenticated", "UNAUTHENTICATED", "UNAUTHENTICATED"), ("Forbidden", "PERMISSION_DENIED", "FORBIDDEN"),
    ("Overloaded", "RESOURCE_EXHAUSTED", "OVERLOADED"), ("Unavailable", "UNAVAILABLE", "UNAVAILABLE"),
    ("Unsupported", "UNIMPLEMENTED", "UNSUPPORTED"), ("DeadlineExceeded", "DEADLINE_EXCEEDED", "DEADLINE"),
    ("Poison", "FAILED_PRECONDITION", "POISON"), ("Internal", "INTERNAL", "INTERNAL"),
    ("HandlerError", "INTERNAL", "HANDLER_ERROR"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "status", "code"), KINDS)
def test_an_error_that_a_handler_raises_reaches_the_client_with_its_kind_and_text(service, kind, status, code):
    request = infer("fail", text("how", kind), text("why", "because 100% of 日本"))
    error = refused(service.ModelInfer, request, grpc.StatusCode[status], "because 100% of 日本")
    assert anyserve_code(error) == code


@pytest.mark.parametrize("kind", [
    "ValueError", "KeyError", "ZeroDivisionError", "RecursionError", "MemoryError", "StopIteration", "SystemExit",
    "KeyboardInterrupt", "GeneratorExit", "BaseException",
])  # fmt: skip
def test_any_other_exception_of_a_handler_is_told_by_type_and_text(service, kind):
    error = refused(service.ModelInfer, infer("fail", text("how", kind), text("why", "it broke")),
                    grpc.StatusCode.INTERNAL, kind, "it broke")  # fmt: skip
    assert anyserve_code(error) == "HANDLER_ERROR"
    assert "Traceback" not in error.details()


def test_the_text_of_an_error_may_be_longer_than_any_header(service):
    request = infer("fail", text("how", "ValueError"), text("why", "x" * 1_000_000))
    refused(service.ModelInfer, request, grpc.StatusCode.INTERNAL, "ValueError: xxx")


@pytest.mark.parametrize(("how", "parts"), [
    ("none", ["NoneType", "ModelInferResponse"]), ("text", ["str", "ModelInferResponse"]), ("short", ["y", "7", "8"]),
    ("twice", ["y"]),
])  # fmt: skip
def test_an_answer_that_is_none_is_the_handlers_error_and_says_why(service, how, parts):
    error = refused(service.ModelInfer, infer("answer", text("how", how)), grpc.StatusCode.INTERNAL, *parts)
    assert anyserve_code(error) == "HANDLER_ERROR"


# === capabilities ===


def test_a_query_by_headers_wins_over_one_by_parameter_and_that_over_the_name(service):
    by_parameter = infer("add", number("x", 1), parameters={"capability": pb.InferParameter(string_param="type=echo")})
    assert service.ModelInfer(by_parameter).outputs[0].name == "output_x"
    by_header = service.ModelInfer(by_parameter, metadata=[("x-capability-type", "see"), ("x-capability-size", "7")])
    assert by_header.outputs[0].name == "seen"
    error = refused(service.ModelInfer, by_parameter, NOT_FOUND, metadata=[("x-capability-type", "nobody")])
    assert anyserve_code(error) == "NO_CAPABILITY"


@pytest.mark.parametrize("selector", ["size>=7", "size", "type in (see,nobody)", "type=see,size<8,!version"])
def test_a_selector_finds_a_capability_without_a_model_name(service, selector):
    answer = service.ModelInfer(infer("", parameters={"capability": pb.InferParameter(string_param=selector)}))
    seen = json.loads(answer.raw_output_contents[0][4:])
    assert seen["capability"] == {"type": "see", "size": 7}


def test_a_handler_sees_what_the_call_brought(service):
    metadata = [("x-mine", "a"), ("authorization", "Bearer x"), ("x-trace-bin", b"\0\1")]
    request = infer("see", id="7", model_version="1", outputs=["seen"])
    answer = service.ModelInfer(request, metadata=metadata, timeout=60)
    seen = json.loads(answer.raw_output_contents[0][4:])
    assert (seen["headers"]["x-mine"], seen["headers"]["authorization"]) == ("a", "Bearer x")
    assert (seen["id"], seen["request_id"], seen["model_name"], seen["outputs"]) == ("7", "7", "see", ["seen"])
    assert (seen["attempt"], seen["cancelled"]) == (1, False)
    assert 0 < seen["remaining"] <= 61  # gRPC rounds a timeout up where it writes it.
    assert json.loads(service.ModelInfer(infer("see")).raw_output_contents[0][4:])["remaining"] is None


# === limits ===


@pytest.mark.parametrize("count", [4095, 4096, 4097])
def test_a_request_has_at_most_4096_inputs(service, count):
    request = infer("echo", *[number(f"x{place}", place) for place in range(count)])
    if count > 4096:
        refused(service.ModelInfer, request, INVALID, "4097", "4096", "'echo'")
    else:
        assert len(service.ModelInfer(request).outputs) == count


@pytest.mark.parametrize("rank", [31, 32, 33])
def test_a_tensor_has_at_most_32_dimensions(service, rank):
    request = infer("as-arrays", tensor("x", "INT8", [1] * rank), raw=[b"a"])
    if rank > 32:
        refused(service.ModelInfer, request, INVALID, "'x'", "33", "32")
    else:
        assert list(service.ModelInfer(request).outputs[0].shape) == [1] * rank


LONG = 17 << 20


@pytest.mark.parametrize("request_", [
    infer("echo", id="x" * LONG), infer("echo", parameters={"p": pb.InferParameter(string_param="x" * LONG)}),
    infer("echo", tensor("x" * LONG, "INT8", [1]), raw=[b"a"]),
], ids=["id", "parameter", "name"])  # fmt: skip
def test_what_is_beside_the_tensors_is_bounded(service, request_):
    refused(service.ModelInfer, request_, INVALID, str(16 << 20))


# === whatever bytes there are ===


def test_no_sequence_of_bytes_ends_the_server_or_the_connection(either, channel):
    open_channel = channel(either.endpoint)
    call = open_channel.unary_unary(f"/{SERVICE}/ModelInfer")
    chance, whole = random.Random(2), infer("echo", X, number("y", 1), id="7").SerializeToString()
    for _ in range(300):
        message = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        try:
            call(bytes(message[: chance.randrange(1, len(message) + 1)]))
        except grpc.RpcError as error:
            assert error.code() in (INVALID, NOT_FOUND, UNIMPLEMENTED), error  # noqa: PT017 - an answer is as good
    assert stub(open_channel).ModelInfer(infer("echo", number("x", 1))).outputs[0].name == "output_x"


def test_a_message_that_is_none_is_an_error_and_the_connection_lives(either, channel):
    open_channel = channel(either.endpoint)
    for message in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0a\x05ab", b"\x08\x01\x80"):
        refused(open_channel.unary_unary(f"/{SERVICE}/ModelInfer"), message, INVALID)
    assert stub(open_channel).ServerLive(pb.ServerLiveRequest()).live
