"""The clients against a server of the real protocol, played by grpcio and tritonclient's messages."""

# ruff: noqa: N802 - the methods of a gRPC service are named by the protocol

import asyncio
import gc
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from anyserve import AsyncClient, Client, ObjRef, errors

WATCHDOG_S = 20


class Fake(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Does what the name of the model says, and echoes by default."""

    def __init__(self):
        self.declared = {"x": "FP32"}
        self.asked = 0
        self.headers = queue.Queue()
        self.started = queue.Queue()
        self.cancelled = queue.Queue()

    def wait_until_cancelled(self, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        self.started.put(True)
        self.cancelled.put(gone.wait(WATCHDOG_S))

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=request.name == "echo")

    def ModelMetadata(self, request, context):
        self.asked += 1
        if request.name == "unknown":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        response = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"], platform="fake")
        for name, datatype in self.declared.items():
            response.inputs.add(name=name, datatype=datatype, shape=[-1])
        return response

    def ModelInfer(self, request, context):
        self.headers.put(dict(context.invocation_metadata()))
        if request.model_name == "wait":
            self.wait_until_cancelled(context)
        if request.model_name == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            self.wait_until_cancelled(context)
        if request.model_name == "full":
            context.set_trailing_metadata((("x-anyserve-code", "OBJECT_STORE_FULL"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the arena is full")
        if request.model_name == "picky" and request.inputs[0].datatype != "INT32":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it takes INT32")
        return echo(request)

    def ModelStreamInfer(self, requests, context):
        request = next(requests)
        for number in range(3):
            response = echo(request)
            response.outputs.add(name="number", datatype="INT64", shape=[1])
            response.raw_output_contents.append(np.int64(number).tobytes())
            yield service_pb2.ModelStreamInferResponse(infer_response=response)
        if request.model_name == "endless":
            self.wait_until_cancelled(context)
        if request.model_name == "failing":
            response = service_pb2.ModelInferResponse()
            response.parameters["x-anyserve-code"].string_param = "WORKER_LOST"
            yield service_pb2.ModelStreamInferResponse(error_message="it died", infer_response=response)
        last = service_pb2.ModelInferResponse()
        last.parameters["triton_final_response"].bool_param = True
        yield service_pb2.ModelStreamInferResponse(infer_response=last)


def echo(request):
    response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id, model_version="1")
    for name, value in request.parameters.items():
        response.parameters[name].CopyFrom(value)
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in tensor.parameters.items():
            output.parameters[name].CopyFrom(value)
        response.raw_output_contents.append(raw)
    return response


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def endpoint(fake):
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(32), options=unlimited)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(WATCHDOG_S)


@pytest.fixture
def client(endpoint):
    with Client(endpoint=endpoint) as client:
        yield client


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, WATCHDOG_S))


def test_an_inference_gives_its_outputs_by_name(client):
    x, text = np.arange(6, dtype=np.int8).reshape(2, 3), ["é", b"a\0"]
    result = client.infer("echo", {"x": x, "text": text, "word": "hi"}, id="7", parameters={"a": True, "b": 2**63})
    np.testing.assert_array_equal(result["x"], x)
    assert result["x"].dtype == np.int8
    assert result["text"].tolist() == ["é".encode(), b"a\0"]
    assert result["word"].tolist() == [b"hi"]
    assert (list(result), len(result), "x" in result, "y" in result) == (["x", "text", "word"], 3, True, False)
    assert (result.response.id, result.response.model_name, result.response.model_version) == ("7", "echo", "1")
    assert result.parameters == {"a": True, "b": 2**63}
    with pytest.raises(KeyError, match="no output 'y'; there are x, text, word"):
        result["y"]


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 32 << 20])
def test_arrays_of_any_size_come_back_as_read_only_views_that_outlive_the_client(endpoint, size):
    sent = np.arange(size, dtype=np.uint8)
    with Client(endpoint=endpoint) as client:
        got = client.infer("echo", {"x": sent})["x"]
    del client
    gc.collect()
    np.testing.assert_array_equal(got, sent)
    assert not got.flags.writeable
    assert not got.flags.owndata


def test_a_reference_goes_both_ways_in_every_kind_of_call(client, endpoint):
    ref = ObjRef("objref:0123456789abcdef-01234567-89abcdef01234567")
    inputs = {"x": ref, "y": {"data": ref, "parameters": {"a": 1}}, "text": str(ref)}

    async def ask():
        async with AsyncClient(endpoint=endpoint) as own:
            parts = [part async for part in own.stream("echo", inputs)]
            return [await own.infer("echo", inputs), *parts]

    for result in [client.infer("echo", inputs), *client.stream("echo", inputs), *run(ask())]:
        assert (result["x"], result["y"], result["text"].tolist()) == (ref, ref, [str(ref).encode()])
        raw = result.response.output("y")
        assert (raw.datatype, raw.shape, raw.parameters) == ("BYTES", [1], {"a": 1, "objref": True})
        assert raw.as_numpy().tolist() == [str(ref).encode()]


def test_a_reference_asks_for_no_declaration(client, fake):
    client.infer("echo", {"x": ObjRef("objref:0123456789abcdef-01234567-89abcdef01234567")})
    assert fake.asked == 0


def test_pythons_numbers_become_what_the_server_declares_and_it_is_asked_once(client, fake):
    for _ in range(2):
        assert client.infer("echo", {"x": [1, 2]})["x"].dtype == np.float32
    assert client.infer("echo", {"undeclared": [1, 2]})["undeclared"].dtype == np.int64
    assert fake.asked == 1


def test_the_server_is_not_asked_for_what_has_a_datatype(client, fake):
    client.infer("echo", {"x": np.zeros(2), "text": "a", "flag": True, "explicit": {"data": [1], "datatype": "INT8"}})
    assert fake.asked == 0


def test_a_model_without_a_declaration_is_called_all_the_same(client, fake):
    for _ in range(2):
        assert client.infer("unknown", {"x": [1.5]})["x"].dtype == np.float64
    assert fake.asked == 1


def test_a_declaration_that_turned_out_wrong_is_read_again(client, fake):
    with pytest.raises(errors.InvalidInput, match="it takes INT32"):
        client.infer("picky", {"x": [1]})
    fake.declared = {"x": "INT32"}
    assert client.infer("picky", {"x": [1]})["x"].dtype == np.int32


def test_a_capability_travels_in_headers_and_names_the_model(client, fake):
    result = client.infer({"type": "chat", "model": "tiny", "size": 7}, {"text": "a"}, headers={"X-Trace": "9"})
    headers = fake.headers.get(timeout=WATCHDOG_S)
    assert (headers["x-capability-type"], headers["x-capability-size"], headers["x-trace"]) == ("chat", "7", "9")
    assert result.response.model_name == "tiny"
    assert client.infer("named", {"text": "a"}, capability={"type": "chat"}).response.model_name == "named"


def test_a_failure_is_the_exception_of_its_code(client):
    with pytest.raises(errors.ObjectStoreFull, match="the arena is full") as caught:
        client.infer("full", {})
    assert (caught.value.code, caught.value.message) == ("OBJECT_STORE_FULL", "the arena is full")


def test_nothing_listening_is_told_with_the_endpoint():
    client = Client(endpoint="127.0.0.1:1")
    with pytest.raises(errors.Unavailable, match=r"nothing listens on 127\.0\.0\.1:1 .* check that the server runs"):
        client.infer("echo", {"x": [1]})
    assert not client.is_live()
    assert not client.is_ready("echo")


def test_a_timeout_ends_the_wait_and_the_call(client, fake):
    # The server knows the deadline too, and may be the first to say that it is over.
    with pytest.raises(errors.DeadlineExceeded, match=r"within the timeout of 0\.2 s|Deadline Exceeded"):
        client.infer("wait", {"text": "a"}, timeout_s=0.2)
    # On a machine that is busy enough, the call had not arrived by then.
    assert fake.started.empty() or fake.cancelled.get(timeout=WATCHDOG_S)


def test_ctrl_c_ends_the_wait_and_the_call(client, fake):
    with pytest.raises(KeyboardInterrupt):
        client.infer("interrupt", {"text": "a"}, timeout_s=WATCHDOG_S)
    assert fake.cancelled.get(timeout=WATCHDOG_S)


def test_live_ready_and_metadata_are_told(client):
    assert client.is_live()
    assert client.is_ready()
    assert client.is_ready("echo")
    assert not client.is_ready("other")
    metadata = client.metadata("echo")
    assert (metadata["name"], metadata["platform"], metadata["inputs"]) == ("echo", "fake", [("x", "FP32", [-1])])
    with pytest.raises(errors.NotFound, match="no such model"):
        client.metadata("unknown")


def test_threads_share_a_client(client):
    def ask(number):
        return int(client.infer("echo", {"x": np.array([number])}, timeout_s=WATCHDOG_S)["x"][0])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == list(range(200))


def test_a_stream_gives_its_answers_in_order(client):
    with client.stream("count", {"text": "a"}, id="7") as stream:
        answers = list(stream)
    assert [int(answer["number"][0]) for answer in answers] == [0, 1, 2]
    assert answers[0].response.id == "7"
    assert "triton_final_response" not in answers[0].parameters
    assert list(stream) == []


def test_a_stream_that_fails_raises_after_what_came_before(client):
    stream = client.stream("failing", {})
    assert [int(next(stream)["number"][0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(errors.WorkerLost, match="it died"):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize("leave", ["close", "with", "drop"])
def test_leaving_a_stream_cancels_the_call(client, fake, leave):
    stream = client.stream("endless", {})
    next(stream)
    assert fake.started.get(timeout=WATCHDOG_S)
    if leave == "close":
        stream.close()
    if leave == "with":
        with stream:
            pass
    if leave == "drop":
        del stream
    assert fake.cancelled.get(timeout=WATCHDOG_S)


def test_closing_a_stream_wakes_who_waits_for_it(client, fake):
    stream = client.stream("endless", {}, timeout_s=WATCHDOG_S)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, stream)
        assert fake.started.get(timeout=WATCHDOG_S)
        stream.close()
        assert len(rest.result(WATCHDOG_S)) <= 3


def test_a_closed_client_refuses_calls_and_a_with_closes_it(endpoint):
    with Client(endpoint=endpoint) as client:
        assert (client.endpoint, client.mode, client.replica_id) == (endpoint, "direct", None)
    with pytest.raises(errors.InvalidInput, match="is closed"):
        client.infer("echo", {})


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "needs endpoint="),
        ({"endpoint": "localhost:1", "api_server": "http://localhost:8080"}, "and not both"),
        ({"endpoint": 8000}, "it is a str such as"),
        ({"api_server": []}, "or a list of them"),
        ({"api_server": [8080]}, "or a list of them"),
        ({"api_server": ["http://localhost:8080", "localhost"]}, "write localhost:8000"),
        ({"api_server": "http://localhost:8080", "capability": {"type": ["a"]}}, "capability key 'type'"),
        ({"api_server": "http://localhost:8080", "capability": {}}, "at least one key"),
        ({"endpoint": "localhost"}, "write localhost:8000"),
        ({"endpoint": "grpc://localhost:1"}, "scheme 'grpc'"),
        ({"endpoint": "::1:8000"}, "in brackets"),
        ({"endpoint": "localhost:1", "capability": {"type": "echo"}}, "belongs to api_server="),
        ({"endpoint": "https://localhost:1", "tls_ca": "/nowhere.pem"}, "cannot be read"),
        ({"endpoint": "https://localhost:1", "tls_cert": "a.pem"}, "belong together"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_that_cannot_be_is_refused_with_the_fix(kind, arguments, part):
    with pytest.raises(errors.InvalidInput) as caught:
        kind(**arguments)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"target": ""}, "the first argument is a model name"),
        ({"target": None}, "the first argument is a model name"),
        ({"target": {}}, "at least one key"),
        ({"target": {"type": ["a"]}}, "capability key 'type'"),
        ({"target": {"type": "a"}, "capability": {"type": "b"}}, "given twice"),
        ({"target": "m", "timeout_s": 0}, "timeout_s is 0"),
        ({"target": "m", "timeout_s": float("nan")}, "timeout_s is nan"),
        ({"target": "m", "outputs": "y"}, "give a list of names"),
        ({"target": "m", "parameters": {"a": [1]}}, "parameter 'a'"),
        ({"target": "m", "parameters": {"a": 2**64}}, "parameter 'a'"),
        ({"target": "m", "headers": {"grpc-timeout": "1S"}}, "gRPC's own"),
        ({"target": "m", "headers": {"x": "é"}}, "not ASCII"),
        ({"target": "m", "inputs": {"x": {"data": b"123", "datatype": "FP32", "shape": [1]}}}, "has 3 bytes, not 4"),
    ],
)
def test_an_argument_that_cannot_be_sent_is_refused(client, arguments, part):
    with pytest.raises(errors.InvalidInput) as caught:
        client.infer(**{"inputs": {}, **arguments})
    assert part in str(caught.value)


def test_a_forked_child_goes_on_using_the_client(endpoint):
    script = f"""
        import os
        from anyserve import Client

        client = Client(endpoint="{endpoint}")
        stream = client.stream("count", {{}})
        next(stream)
        child = os.fork()
        if child == 0:
            assert list(stream) == [], "a stream is its parent's"
            answer = client.infer("echo", {{"text": "child"}}, timeout_s={WATCHDOG_S})
            os._exit(0 if answer["text"][0] == b"child" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(list(stream)) == 2
        assert client.infer("echo", {{"text": "parent"}})["text"][0] == b"parent"
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True, timeout=2 * WATCHDOG_S)


def test_many_calls_are_under_way_on_one_event_loop(endpoint):
    async def ask():
        async with AsyncClient(endpoint=endpoint) as client:
            calls = [client.infer("echo", {"x": [number]}) for number in range(100)]
            return [int(result["x"][0]) for result in await asyncio.gather(*calls)]

    assert run(ask()) == list(range(100))
    assert run(ask()) == list(range(100)), "another loop works as well"


def test_an_awaited_failure_is_the_exception_of_its_code(endpoint):
    async def ask():
        client = AsyncClient(endpoint=endpoint)
        with pytest.raises(errors.ObjectStoreFull):
            await client.infer("full", {})
        with pytest.raises(errors.DeadlineExceeded):
            await client.infer("wait", {}, timeout_s=0.1)
        with pytest.raises(errors.InvalidInput):
            await client.infer("echo", {"x": None})
        with pytest.raises(errors.NotFound):
            await client.metadata("unknown")
        return await client.is_live(), await client.is_ready("echo"), await client.is_ready("other")

    assert run(ask()) == (True, True, False)


def test_cancelling_a_task_cancels_its_call(endpoint, fake):
    async def ask():
        client = AsyncClient(endpoint=endpoint)
        task = asyncio.create_task(client.infer("wait", {}))
        assert await asyncio.to_thread(fake.started.get, timeout=WATCHDOG_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(fake.cancelled.get, timeout=WATCHDOG_S)
        return int((await client.infer("echo", {"x": [5]}))["x"][0])

    assert run(ask()) == 5


def test_an_asynchronous_stream_gives_its_answers_in_order(endpoint):
    async def ask():
        client = AsyncClient(endpoint=endpoint)
        numbers = [int(answer["number"][0]) async for answer in client.stream("count", {"x": [1]})]
        with pytest.raises(errors.WorkerLost):
            numbers += [int(answer["number"][0]) async for answer in client.stream("failing", {})]
        return numbers

    assert run(ask()) == [0, 1, 2]


@pytest.mark.parametrize("leave", ["aclose", "cancel"])
def test_leaving_an_asynchronous_stream_cancels_the_call(endpoint, fake, leave):
    async def read(stream):
        async for _ in stream:
            pass

    async def ask():
        client = AsyncClient(endpoint=endpoint)
        stream = client.stream("endless", {})
        task = asyncio.create_task(read(stream))
        assert await asyncio.to_thread(fake.started.get, timeout=WATCHDOG_S)
        if leave == "aclose":
            await stream.aclose()
            await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await asyncio.to_thread(fake.cancelled.get, timeout=WATCHDOG_S)
        return [answer async for answer in stream]

    assert run(ask()) == []
