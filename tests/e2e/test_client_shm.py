"""Triton's system shared memory: `tritonclient.utils.shared_memory` with `tritonclient.grpc`, both unchanged."""

import itertools
import os
import queue
import threading
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor

from tests.e2e.messages import INVALID, NOT_FOUND, UNIMPLEMENTED, infer, number, refused, stub, tensor
from tests.e2e.replicas import WATCHDOG_S, until

EXISTS = grpc.StatusCode.ALREADY_EXISTS
NUMBERS = itertools.count()


class Object:
    """A shared-memory object of the client's."""

    def __init__(self, byte_size: int):
        self.key = f"/e2e_{os.getpid()}_{next(NUMBERS)}"
        self.handle = shm.create_shared_memory_region("unused", self.key, byte_size, create_only=True)

    @property
    def path(self) -> Path:
        return Path("/dev/shm") / self.key.lstrip("/")

    def put(self, *arrays: np.ndarray, offset: int = 0) -> None:
        shm.set_shared_memory_region(self.handle, list(arrays), offset)

    def get(self, dtype: object, shape: list[int], offset: int = 0) -> np.ndarray:
        return np.array(shm.get_contents_as_numpy(self.handle, dtype, shape, offset))


@pytest.fixture
def shared():
    """Makes objects that are gone at the test's end."""
    with ExitStack() as stack:

        def make(byte_size: int) -> Object:
            made = Object(byte_size)
            stack.callback(shm.destroy_shared_memory_region, made.handle)
            return made

        yield make


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    from tests.e2e.conftest import serving

    folder = tmp_path_factory.mktemp("shared") / "replica"
    with serving(folder, "shared_memory.py:app", "--client-shm") as served:
        yield served


@pytest.fixture
def client(shares):
    with triton.InferenceServerClient(shares.endpoint) as made:
        yield made
        made.unregister_system_shared_memory()


@pytest.fixture
def service(shares, channel):
    return stub(channel(shares.endpoint))


def given(name: str, datatype: str, shape: list[int], region: str, byte_size: int, offset: int = 0):
    return triton.InferInput(name, shape, datatype).set_shared_memory(region, byte_size, offset)


def plain(name: str, array: np.ndarray, datatype: str = "FP32"):
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)


def wanted(name: str, region: str, byte_size: int, offset: int = 0):
    output = triton.InferRequestedOutput(name)
    output.set_shared_memory(region, byte_size, offset)
    return output


def register(name: str, key: str, offset: int, byte_size: int):
    return pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=byte_size)


def place(region: str, byte_size: int, offset: int = 0) -> dict[str, str | int]:
    return {"shared_memory_region": region, "shared_memory_byte_size": byte_size, "shared_memory_offset": offset}


def in_region(made, region: str, byte_size: int, offset: int = 0):
    """The tensor of a message by hand, in a region."""
    for name, value in place(region, byte_size, offset).items():
        if isinstance(value, str):
            made.parameters[name].string_param = value
        else:
            made.parameters[name].int64_param = value
    return made


def begins(client: triton.InferenceServerClient, model: str, inputs: list, outputs: list | None = None) -> queue.Queue:
    """Sends a request; its result, or the error, comes through the queue."""
    ended: queue.Queue = queue.Queue()
    client.async_infer(model, inputs, lambda result, error: ended.put(error or result), outputs=outputs)
    return ended


# === regions ===


def test_regions_are_registered_listed_and_unregistered_one_or_all(client, shared):
    one = shared(100)
    client.register_system_shared_memory("one", one.key, 100)
    client.register_system_shared_memory("two", one.key, 50, offset=50)
    status = client.get_system_shared_memory_status(as_json=True)["regions"]
    assert set(status) == {"one", "two"}
    assert status["two"] == {"name": "two", "key": one.key, "offset": "50", "byte_size": "50"}
    assert set(client.get_system_shared_memory_status("two").regions) == {"two"}
    with pytest.raises(triton.InferenceServerException, match=r"Unable to find .*'nobody'"):
        client.get_system_shared_memory_status("nobody")
    client.unregister_system_shared_memory("one")
    client.unregister_system_shared_memory("one")
    assert set(client.get_system_shared_memory_status().regions) == {"two"}
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions


def test_a_region_that_is_there_already_is_not_registered_again(client, service, shared):
    one = shared(64)
    client.register_system_shared_memory("one", one.key, 64)
    refused(service.SystemSharedMemoryRegister, register("one", one.key, 0, 64), EXISTS, "'one' already in manager")
    with pytest.raises(triton.InferenceServerException, match="already in manager"):
        client.register_system_shared_memory("one", "/e2e_nobody", 1)
    client.unregister_system_shared_memory("one")
    client.register_system_shared_memory("one", one.key, 32)


def test_what_is_beyond_the_object_or_no_object_cannot_be_registered(service, shared):
    key = shared(100).key
    for offset, byte_size in [(0, 101), (1, 100), (100, 1), (0, 0), (2**64 - 1, 2), (2**63, 2**63), (0, 2**64 - 1)]:
        refused(service.SystemSharedMemoryRegister, register("r", key, offset, byte_size), INVALID, "'r'")
    for odd in ["", "/", ".", "..", "../etc/passwd", "/a/b", "/dev/shm" + key, "a\0b", "é", "k" * 201, "/e2e_nobody"]:
        refused(service.SystemSharedMemoryRegister, register("r", odd, 0, 1), INVALID)
    for odd in ["", "n" * 257]:
        refused(service.SystemSharedMemoryRegister, register(odd, key, 0, 1), INVALID, "the name")
    refused(service.SystemSharedMemoryRegister, register("r", "/anyserve-arena", 0, 1), INVALID, "the server's own")
    assert not service.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest()).regions


def test_a_link_and_a_directory_are_no_objects(service, shared):
    one = shared(8)
    link, folder = one.path.with_name(f"{one.path.name}_link"), one.path.with_name(f"{one.path.name}_folder")
    link.symlink_to(one.path)
    folder.mkdir()
    try:
        for path in (link, folder):
            refused(service.SystemSharedMemoryRegister, register("r", path.name, 0, 1), INVALID, path.name)
    finally:
        link.unlink()
        folder.rmdir()


def test_the_extension_is_told_only_where_it_is_on(client, mixed, channel):
    assert "system_shared_memory" in client.get_server_metadata().extensions
    without = stub(channel(mixed.endpoint))
    metadata = without.ServerMetadata(pb.ServerMetadataRequest())
    assert "system_shared_memory" not in metadata.extensions
    for call, message in [
        (without.SystemSharedMemoryRegister, register("r", "/k", 0, 1)),
        (without.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
        (without.SystemSharedMemoryUnregister, pb.SystemSharedMemoryUnregisterRequest()),
        (without.ModelInfer, infer("echo", in_region(tensor("x", "FP32", [1]), "r", 4))),
    ]:  # fmt: skip
        refused(call, message, UNIMPLEMENTED, "--client-shm")


def test_cuda_has_no_regions_and_takes_none(client):
    client.unregister_cuda_shared_memory()
    assert not client.get_cuda_shared_memory_status().regions
    with pytest.raises(triton.InferenceServerException, match="no CUDA"):
        client.register_cuda_shared_memory("r", b"AA==", 0, 8)


# === inputs ===


def test_two_inputs_lie_in_one_region(client, shared):
    one = shared(96)
    a, b = np.arange(8, dtype="f4"), np.full(8, 3, "f4")
    one.put(a)
    one.put(b, offset=40)
    client.register_system_shared_memory("r", one.key, 96)
    result = client.infer("add", [given("a", "FP32", [8], "r", 32), given("b", "FP32", [8], "r", 32, 40)])
    assert np.array_equal(result.as_numpy("sum"), a + b)
    assert np.array_equal(result.as_numpy("difference"), a - b)


def test_a_region_may_begin_within_its_object(client, shared):
    one, a = shared(3 * 4096), np.arange(8, dtype="f4")
    one.put(a, offset=4100)
    client.register_system_shared_memory("r", one.key, 100, offset=4096)
    assert np.array_equal(client.infer("same", [given("x", "FP32", [8], "r", 32, 4)]).as_numpy("x"), a)


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT16", "INT32", "INT64", "FP16", "FP32", "FP64"])
def test_every_datatype_is_taken_at_any_offset(client, shared, datatype):
    from tritonclient.utils import triton_to_np_dtype

    array = np.array([0, 1, 1], triton_to_np_dtype(datatype))
    one = shared(100)
    one.path.write_bytes(b"\xff" * 13 + array.tobytes() + bytes(87 - array.nbytes))
    client.register_system_shared_memory("r", one.key, 100)
    result = client.infer("same", [given("x", datatype, [3], "r", array.nbytes, 13)])
    assert np.array_equal(result.as_numpy("x"), array)


def test_texts_are_taken_and_given(client, shared):
    texts = np.array([b"", b"a\0b", b"\xff not UTF-8"], object)
    one, data = shared(100), serialize_byte_tensor(texts)
    one.put(data)
    size = len(data.item())
    client.register_system_shared_memory("r", one.key, 100)
    result = client.infer("same", [given("x", "BYTES", [3], "r", size)], outputs=[wanted("x", "r", 60, 40)])
    output = result.get_output("x")
    assert output.parameters["shared_memory_byte_size"].int64_param == size
    assert one.get(np.object_, [3], 40).tolist() == texts.tolist()


def test_shared_and_sent_inputs_mix_in_any_order(client, shared):
    one, a, b = shared(32), np.arange(8, dtype="f4"), np.ones(8, "f4")
    one.put(a)
    client.register_system_shared_memory("r", one.key, 32)
    there = given("a", "FP32", [8], "r", 32)
    for inputs in ([there, plain("b", b)], [plain("b", b), there]):
        assert np.array_equal(client.infer("add", inputs).as_numpy("difference"), a - b)


def test_raw_entries_are_only_for_inputs_that_are_sent(client, service, shared):
    client.register_system_shared_memory("r", shared(32).key, 32)
    inputs = [in_region(tensor("a", "FP32", [1]), "r", 4), tensor("b", "FP32", [1])]
    assert service.ModelInfer(infer("add", *inputs, raw=[bytes(4)])).raw_output_contents == [bytes(4), bytes(4)]
    refused(service.ModelInfer, infer("add", *inputs, raw=[bytes(4)] * 2), INVALID, "expected 1", "got 2")
    typed = in_region(tensor("a", "FP32", [1], fp32_contents=[1.0]), "r", 4)
    refused(service.ModelInfer, infer("add", typed, tensor("b", "FP32", [1], fp32_contents=[1.0])), INVALID, "'a'")


def test_the_place_of_an_input_does_not_reach_its_handler(client, shared):
    client.register_system_shared_memory("r", shared(32).key, 32)
    assert client.infer("seen", [given("x", "FP32", [1], "r", 4, 4)]).as_numpy("parameters").tolist() == [b"none"]


def test_a_handler_sees_the_clients_own_memory(replica, shared):
    served, one = replica("shared_memory.py:app", "--client-shm"), shared(32)
    one.put(np.zeros(8, "f4"))
    with triton.InferenceServerClient(served.endpoint) as client:
        client.register_system_shared_memory("r", one.key, 32)
        ended = begins(client, "late", [given("x", "FP32", [8], "r", 32)])
        served.noted("began")
        # Nobody has copied it, so what the client writes now is what the handler finds.
        one.put(np.full(8, 7, "f4"))
        served.allow("look")
        assert ended.get(timeout=WATCHDOG_S).as_numpy("x").tolist() == [7] * 8


# === outputs ===


def test_outputs_keep_name_datatype_and_shape_and_carry_no_data(client, shared):
    one, two = shared(64), shared(64)
    a, b = np.arange(8, dtype="f4"), np.ones(8, "f4")
    one.put(a, b)
    client.register_system_shared_memory("in", one.key, 64)
    client.register_system_shared_memory("out", two.key, 64)
    inputs = [given("a", "FP32", [8], "in", 32), given("b", "FP32", [8], "in", 32, 32)]
    outputs = [wanted("difference", "out", 32, 32), wanted("sum", "out", 32)]
    response = client.infer("add", inputs, outputs=outputs).get_response()
    assert list(response.raw_output_contents) == [b"", b""]
    for output, offset in zip(response.outputs, [0, 32], strict=True):
        assert (output.datatype, list(output.shape)) == ("FP32", [8])
        assert output.name == ("difference" if offset else "sum")
        told = {name: value.string_param or value.int64_param for name, value in output.parameters.items()}
        assert told == {name: value for name, value in place("out", 32, offset).items() if value}
    assert np.array_equal(two.get(np.float32, [8]), a + b)
    assert np.array_equal(two.get(np.float32, [8], 32), a - b)


def test_an_output_may_have_more_room_than_it_needs_and_leaves_the_rest(client, shared):
    one = shared(64)
    one.path.write_bytes(b"\xee" * 64)
    client.register_system_shared_memory("r", one.key, 64)
    result = client.infer("same", [plain("x", np.zeros(4, "f4"))], outputs=[wanted("x", "r", 40, 8)])
    assert result.get_output("x").parameters["shared_memory_byte_size"].int64_param == 16
    assert one.path.read_bytes() == b"\xee" * 8 + bytes(16) + b"\xee" * 40


def test_an_output_that_does_not_fit_is_an_error_and_writes_nothing_beside_its_room(client, shared):
    one = shared(64)
    client.register_system_shared_memory("r", one.key, 64)
    with pytest.raises(triton.InferenceServerException, match=r"15 bytes.* 16 bytes") as raised:
        client.infer("same", [plain("x", np.ones(4, "f4"))], outputs=[wanted("x", "r", 15)])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert one.path.read_bytes()[15:] == bytes(49)


def test_outputs_in_shared_memory_and_in_the_message_mix(client, shared):
    one = shared(64)
    client.register_system_shared_memory("r", one.key, 64)
    a, b = np.arange(8, dtype="f4"), np.ones(8, "f4")
    outputs = [triton.InferRequestedOutput("sum"), wanted("difference", "r", 32)]
    result = client.infer("add", [plain("a", a), plain("b", b)], outputs=outputs)
    assert np.array_equal(result.as_numpy("sum"), a + b)
    assert np.array_equal(one.get(np.float32, [8]), a - b)


def test_an_output_may_overwrite_its_input(client, shared):
    one, a = shared(64), np.arange(8, dtype="f4")
    one.put(a)
    client.register_system_shared_memory("r", one.key, 64)
    client.infer("same", [given("x", "FP32", [8], "r", 32)], outputs=[wanted("x", "r", 32, 4)])
    assert np.array_equal(one.get(np.float32, [8], 4), a)


def test_large_tensors_go_through_shared_memory_both_ways(client, shared):
    size = 64 << 20
    one, two = shared(size), shared(size)
    array = np.arange(size // 8, dtype="i8")
    one.put(array)
    client.register_system_shared_memory("in", one.key, size)
    client.register_system_shared_memory("out", two.key, size)
    inputs = [given("x", "INT64", [size // 8], "in", size)]
    client.infer("same", inputs, outputs=[wanted("x", "out", size)])
    assert np.array_equal(two.get(np.int64, [size // 8]), array)


def test_every_answer_of_a_stream_is_written_to_its_room(client, shared):
    one, answers = shared(64), queue.Queue()
    one.put(np.arange(4, dtype="f4"))
    client.register_system_shared_memory("r", one.key, 64)
    client.start_stream(lambda result, error: answers.put(error or result))
    client.async_stream_infer("parts", [given("x", "FP32", [4], "r", 16)], outputs=[wanted("y", "r", 16, 32)])
    for _ in range(2):
        response = answers.get(timeout=WATCHDOG_S).get_response()
        assert list(response.raw_output_contents) == [b""]
    assert one.get(np.float32, [4], 32).tolist() == [0, 2, 4, 6]
    client.async_stream_infer("same", [given("x", "FP32", [4], "nobody", 16)])
    assert "Unable to find shared memory region: 'nobody'" in str(answers.get(timeout=WATCHDOG_S))
    client.stop_stream()


# === what is refused ===


def test_an_unknown_region_is_not_found(service):
    for message in [
        infer("same", in_region(tensor("x", "FP32", [1]), "nobody", 4)),
        with_output(infer("same", tensor("x", "FP32", [1]), raw=[bytes(4)]), "x", "nobody", 4),
    ]:  # fmt: skip
        refused(service.ModelInfer, message, NOT_FOUND, "Unable to find shared memory region: 'nobody'")


def with_output(message, name: str, region: str, byte_size: int, offset: int = 0):
    in_region(message.outputs.add(name=name), region, byte_size, offset)
    return message


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(61, 4), (64, 4), (65, 4), (2**62, 4), (2**63 - 1, 4), (2**63 - 1, 2**63 - 1), (0, 2**63 - 1)],
)
def test_what_is_not_inside_of_the_region_is_an_invalid_argument(client, service, shared, offset, byte_size):
    # The object is larger than the region, and that does not help.
    client.register_system_shared_memory("r", shared(4096).key, 64)
    says = "Invalid offset + byte size for shared memory region: 'r'"
    inputs = infer("same", in_region(tensor("x", "FP32", [1]), "r", byte_size, offset))
    refused(service.ModelInfer, inputs, INVALID, says)
    outputs = with_output(infer("same", tensor("x", "FP32", [1]), raw=[bytes(4)]), "x", "r", byte_size, offset)
    refused(service.ModelInfer, outputs, INVALID, says)


def test_the_byte_size_must_be_the_tensors_though_the_region_is_larger(client, service, shared):
    client.register_system_shared_memory("r", shared(64).key, 64)
    for byte_size in (0, 15, 17, 64):
        message = infer("same", in_region(tensor("x", "FP32", [4]), "r", byte_size))
        refused(service.ModelInfer, message, INVALID, "'x'", f"{byte_size} bytes", "16")
    assert service.ModelInfer(infer("same", in_region(tensor("x", "FP32", [4]), "r", 16))).outputs


def test_odd_parameters_of_shared_memory_are_named(client, service, shared):
    client.register_system_shared_memory("r", shared(64).key, 64)
    for name, value in [
        ("shared_memory_region", 1), ("shared_memory_offset", -1), ("shared_memory_byte_size", -1),
        ("shared_memory_byte_size", "4"),
    ]:  # fmt: skip
        made = in_region(tensor("x", "FP32", [1]), "r", 4)
        made.parameters[name].Clear()
        if isinstance(value, str):
            made.parameters[name].string_param = value
        else:
            made.parameters[name].int64_param = value
        refused(service.ModelInfer, infer("same", made), INVALID, name, "'x'")
    made = in_region(tensor("x", "FP32", [1]), "r", 4)
    del made.parameters["shared_memory_byte_size"]
    refused(service.ModelInfer, infer("same", made), INVALID, "shared_memory_byte_size", "'x'")
    no_room = with_output(infer("same", number("x", 1)), "x", "r", 0)
    refused(service.ModelInfer, no_room, INVALID, "'x'", "0 bytes")


def test_texts_that_are_cut_short_are_refused(client, service, shared):
    one = shared(64)
    one.path.write_bytes(b"\x05\0\0\0abcde" + bytes(55))
    client.register_system_shared_memory("r", one.key, 64)
    for byte_size in (3, 8):
        message = infer("same", in_region(tensor("x", "BYTES", [1]), "r", byte_size))
        refused(service.ModelInfer, message, INVALID, "'x'")
    assert service.ModelInfer(infer("same", in_region(tensor("x", "BYTES", [1]), "r", 9))).outputs


# === a region's end ===


def test_a_region_that_is_unregistered_in_use_stays_until_the_request_ends(replica, shared):
    served, one, two = replica("shared_memory.py:app", "--client-shm"), shared(64), shared(64)
    one.put(np.arange(8, dtype="f4"))
    with triton.InferenceServerClient(served.endpoint) as client:
        client.register_system_shared_memory("r", one.key, 64)
        ended = begins(client, "late", [given("x", "FP32", [8], "r", 32)], [wanted("x", "r", 32, 32)])
        served.noted("began")
        client.unregister_system_shared_memory("r")
        assert not client.get_system_shared_memory_status().regions
        # The name is free for another object, and the request keeps its own.
        client.register_system_shared_memory("r", two.key, 64)
        served.allow("look")
        result = ended.get(timeout=WATCHDOG_S)
        assert list(result.get_response().raw_output_contents) == [b""]
        assert np.array_equal(one.get(np.float32, [8], 32), np.arange(8))
        assert not two.get(np.uint8, [64]).any()
        client.infer("same", [given("x", "FP32", [8], "r", 32)])
    worker = served.workers().pop()
    until(lambda: one.path.name not in mapped(served.process.pid), "the replica to drop the region")
    until(lambda: one.path.name not in mapped(worker), "the worker to drop the region")


def mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_an_object_that_was_made_again_under_its_name_is_not_the_registered_one(client, shared):
    one = shared(32)
    one.put(np.full(8, 1, "f4"))
    client.register_system_shared_memory("r", one.key, 32)
    one.path.unlink()
    one.path.write_bytes(np.full(8, 2, "f4").tobytes())
    assert client.infer("same", [given("x", "FP32", [8], "r", 32)]).as_numpy("x").tolist() == [1] * 8


def test_a_region_that_was_truncated_before_fails_its_requests(client, service, shared):
    one = shared(1 << 20)
    client.register_system_shared_memory("r", one.key, 1 << 20)
    for left in ((1 << 20) - 1, 4096, 0):
        os.truncate(one.path, left)
        message = infer("same", in_region(tensor("x", "UINT8", [1 << 20]), "r", 1 << 20))
        refused(service.ModelInfer, message, INVALID, "'r' was truncated")
    client.unregister_system_shared_memory("r")
    assert client.infer("same", [plain("x", np.ones(2, "f4"))]).as_numpy("x").tolist() == [1, 1]


def test_a_region_that_is_truncated_in_use_ends_neither_server_nor_worker(replica, shared):
    served, one = replica("shared_memory.py:app", "--client-shm"), shared(1 << 20)
    worker = served.workers()
    with triton.InferenceServerClient(served.endpoint) as client:
        client.register_system_shared_memory("r", one.key, 1 << 20)
        outputs = [None, [wanted("x", "r", 1 << 20)]]
        inputs = [[given("x", "UINT8", [1 << 20], "r", 1 << 20)], [plain("x", np.ones(1 << 20, "u1"), "UINT8")]]
        held = [begins(client, "late", *asked) for asked in zip(inputs, outputs, strict=True)]
        served.noted("began", 2)
        os.truncate(one.path, 4096)
        served.allow("look")
        for ended in held:
            error = ended.get(timeout=WATCHDOG_S)
            assert isinstance(error, triton.InferenceServerException), error
            assert error.status() == "StatusCode.INVALID_ARGUMENT"
            assert "truncated" in str(error)
        client.unregister_system_shared_memory("r")
        assert client.infer("same", [plain("x", np.ones(2, "f4"))]).as_numpy("x").tolist() == [1, 1]
    assert served.workers() == worker


def test_clients_that_truncate_while_others_ask_harm_only_themselves(client, shares, shared):
    good, size = shared(32), 1 << 20
    good.put(np.arange(8, dtype="f4"))
    client.register_system_shared_memory("good", good.key, 32)
    stop = threading.Event()

    def truncates(name: str) -> None:
        bad = Object(size)
        try:
            with triton.InferenceServerClient(shares.endpoint) as other:
                while not stop.is_set():
                    os.truncate(bad.path, size)
                    other.register_system_shared_memory(name, bad.key, size)
                    ended = begins(other, "same", [given("x", "UINT8", [size], name, size)], [wanted("x", name, size)])
                    os.truncate(bad.path, 0)
                    ended.get(timeout=WATCHDOG_S)
                    other.unregister_system_shared_memory(name)
        finally:
            shm.destroy_shared_memory_region(bad.handle)

    threads = [threading.Thread(target=truncates, args=[f"bad-{number}"]) for number in range(2)]
    workers = shares.workers()
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            result = client.infer("same", [given("x", "FP32", [8], "good", 32)])
            assert result.as_numpy("x").tolist() == list(range(8))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert shares.workers() == workers
