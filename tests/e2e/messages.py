"""Messages written by hand, for what no client would send."""

from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

SERVICE = "inference.GRPCInferenceService"

SINGLES = [1.5, -3.4028234663852886e38, 2.0**-149]
WHOLE_64 = [-(2**63), 0x0102030405060708, 2**63 - 1]

# Elements of every datatype with their raw bytes: the limits of the type, and values whose bytes are all different.
RAW: dict[str, tuple[list[Any], bytes]] = {
    "BOOL": ([True, False, True], b"\x01\x00\x01"),
    "UINT8": ([0, 1, 255], b"\x00\x01\xff"),
    "UINT16": ([0, 0x0102, 0xFFFF], np.array([0, 0x0102, 0xFFFF], "<u2").tobytes()),
    "UINT32": ([0, 0x01020304, 2**32 - 1], np.array([0, 0x01020304, 2**32 - 1], "<u4").tobytes()),
    "UINT64": ([0, 0x0102030405060708, 2**64 - 1], np.array([0, 0x0102030405060708, 2**64 - 1], "<u8").tobytes()),
    "INT8": ([-128, 0, 127], b"\x80\x00\x7f"),
    "INT16": ([-(2**15), 0x0102, 2**15 - 1], np.array([-(2**15), 0x0102, 2**15 - 1], "<i2").tobytes()),
    "INT32": ([-(2**31), 0x01020304, 2**31 - 1], np.array([-(2**31), 0x01020304, 2**31 - 1], "<i4").tobytes()),
    "INT64": (WHOLE_64, np.array(WHOLE_64, "<i8").tobytes()),
    "FP16": ([1.5, -65504.0, 2.0**-24], np.array([1.5, -65504.0, 2.0**-24], "<f2").tobytes()),
    "FP32": (SINGLES, np.array(SINGLES, "<f4").tobytes()),
    "FP64": ([1.5, -1.7976931348623157e308, 5e-324], np.array([1.5, -1.7976931348623157e308, 5e-324], "<f8").tobytes()),
    "BYTES": ([b"", b"a\0b", b"\xff\xfe not UTF-8"],
              b"\x00\x00\x00\x00\x03\x00\x00\x00a\0b\x0c\x00\x00\x00\xff\xfe not UTF-8"),
    "BF16": ([1.5, -2.0, 3.3895313892515355e38], b"\xc0\x3f\x00\xc0\x7f\x7f"),
}  # fmt: skip

FIELD = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""The field of the typed contents; FP16 and BF16 have none."""

SIZE = {"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
        "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2}  # fmt: skip


def stub(channel: grpc.Channel) -> service_pb2_grpc.GRPCInferenceServiceStub:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name: str, datatype: str, shape: list[int], **contents: list[Any]) -> Any:
    """An input; with typed contents if there are any, even an empty list."""
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        made.contents.SetInParent()
        getattr(made.contents, field).extend(values)
    return made


def infer(model: str, *inputs: Any, raw: list[bytes] | None = None, outputs: list[str] | None = None, **more: Any):
    """A request."""
    message = pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw or [], **more)
    for name in outputs or []:
        message.outputs.add(name=name)
    return message


def text(name: str, value: str | bytes) -> Any:
    """An input with one text."""
    return tensor(name, "BYTES", [1], bytes_contents=[value.encode() if isinstance(value, str) else value])


def number(name: str, value: int) -> Any:
    """An input with one INT64."""
    return tensor(name, "INT64", [1], int64_contents=[value])


def refused(call, request: Any, code: grpc.StatusCode, *parts: str, **more: Any) -> grpc.RpcError:
    """The call must fail with this code and a message that has all these parts."""
    with pytest.raises(grpc.RpcError) as raised:
        call(request, **more)
    assert raised.value.code() == code, raised.value
    for part in parts:
        assert part in raised.value.details(), (part, raised.value.details())
    return raised.value


def anyserve_code(error: grpc.RpcError) -> str:
    """The name of the closed set's code that a status carries."""
    return dict(error.trailing_metadata())["x-anyserve-code"]
