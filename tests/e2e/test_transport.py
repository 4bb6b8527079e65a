"""Connections: compression, sizes, deadlines, cancellation, TLS, HTTP, and whatever else somebody sends to a port."""

import asyncio
import contextlib
import itertools
import json
import random
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb

from anyserve import Client, errors
from tests.e2e.messages import INVALID, infer, number, refused, stub, tensor, text
from tests.e2e.replicas import WATCHDOG_S, until

MIB = 1 << 20
GZIP = (grpc.Compression.Gzip, grpc.Compression.Deflate)


def inputs_of(array: np.ndarray, datatype: str = "FP32") -> list[triton.InferInput]:
    inp = triton.InferInput("x", array.shape, datatype)
    inp.set_data_from_numpy(array)
    return [inp]


def named(name: str) -> list[triton.InferInput]:
    inp = triton.InferInput("name", [1], "BYTES")
    inp.set_data_from_numpy(np.array([name.encode()], object))
    return [inp]


def serves(replica) -> None:
    """It answers on a connection of its own."""
    with triton.InferenceServerClient(replica.endpoint) as client:
        assert client.is_server_ready()
        assert client.infer("echo", inputs_of(np.ones(3, "f4"))).as_numpy("output_x").tolist() == [1, 1, 1]


# === compression ===


@pytest.mark.parametrize("compression", ["gzip", "deflate", None])
def test_compressed_requests_are_decoded(either, compression):
    array = np.arange(100_000, dtype="f4") % 7
    with triton.InferenceServerClient(either.endpoint) as client:
        result = client.infer("echo", inputs_of(array), compression_algorithm=compression)
    assert np.array_equal(result.as_numpy("output_x"), array)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_streams_are_decoded(mixed, compression):
    array, done = np.arange(10_000, dtype="f4") % 7, []
    with triton.InferenceServerClient(mixed.endpoint) as client:
        client.start_stream(lambda result, error: done.append(error or result), compression_algorithm=compression)
        for _ in range(5):
            client.async_stream_infer("echo", inputs_of(array))
        client.stop_stream()
    assert [np.array_equal(result.as_numpy("output_x"), array) for result in done] == [True] * 5


def test_a_compressed_request_that_unpacks_to_more_than_the_limit_is_refused(replica, channel):
    small = replica("protocol.py:create_serial", "--factory", "--max-message-mb", "1")
    bomb = infer("echo", tensor("x", "UINT8", [64 * MIB]), raw=[bytes(64 * MIB)])
    service = stub(channel(small.endpoint))
    for compression in GZIP:
        with pytest.raises(grpc.RpcError) as raised:
            service.ModelInfer(bomb, compression=compression)
        assert raised.value.code() in (INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert str(MIB) in raised.value.details() or "1 MiB" in raised.value.details()
    assert service.ServerLive(pb.ServerLiveRequest()).live


# === sizes ===


@pytest.mark.parametrize("size", [4 * MIB - 1, 4 * MIB + 1, 64 * MIB])
def test_tensors_far_beyond_grpcs_own_limit_go_both_ways(either, size):
    array = np.frombuffer(random.Random(size).randbytes(size), dtype=np.uint8)
    with triton.InferenceServerClient(either.endpoint) as client:
        result = client.infer("echo", inputs_of(array, "UINT8"))
    assert np.array_equal(result.as_numpy("output_x"), array)


def test_a_large_tensor_goes_through_a_handler_that_reads_it_as_an_array(either):
    array = np.arange(16 * MIB, dtype="f4")
    with triton.InferenceServerClient(either.endpoint) as client:
        result = client.infer("as-arrays", inputs_of(array))
    assert np.array_equal(result.as_numpy("x"), array)


def test_large_tensors_of_several_clients_at_once_are_not_mixed_up(mixed):
    def one(seed: int) -> bool:
        array = np.frombuffer(random.Random(seed).randbytes(8 * MIB), dtype=np.uint8)
        with triton.InferenceServerClient(mixed.endpoint) as client:
            return np.array_equal(client.infer("echo", inputs_of(array, "UINT8")).as_numpy("output_x"), array)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(6)))


def test_large_parts_go_through_a_stream(mixed, channel):
    request = infer("count", text("name", ""), number("count", 4), number("size", 16 * MIB))
    parts = list(stub(channel(mixed.endpoint)).ModelStreamInfer(iter([request])))
    assert [len(part.infer_response.raw_output_contents[1]) for part in parts] == [16 * MIB + 4] * 4


def test_a_message_over_the_limit_is_refused_with_both_numbers_and_the_server_goes_on(replica, channel):
    small = replica("protocol.py:create_serial", "--factory", "--max-message-mb", "1")
    service = stub(channel(small.endpoint))
    fits = service.ModelInfer(infer("echo", tensor("x", "UINT8", [MIB - 100]), raw=[bytes(MIB - 100)]))
    assert len(fits.raw_output_contents[0]) == MIB - 100
    for size in (MIB + 1, 5 * MIB):
        with pytest.raises(grpc.RpcError) as raised:
            service.ModelInfer(infer("echo", tensor("x", "UINT8", [size]), raw=[bytes(size)]))
        assert raised.value.code() in (INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert str(MIB) in raised.value.details()
    assert service.ModelInfer(infer("echo", number("x", 1))).outputs


def test_an_answer_over_the_limit_is_an_error_and_the_server_goes_on(replica, channel):
    small = replica("protocol.py:create_mixed", "--factory", "--max-message-mb", "1")
    service = stub(channel(small.endpoint))
    request = infer("count", text("name", ""), number("count", 1), number("size", 2 * MIB))
    (answer,) = service.ModelStreamInfer(iter([request]))
    assert str(MIB) in answer.error_message
    assert service.ModelInfer(infer("echo", number("x", 1))).outputs


@pytest.mark.parametrize(("of_replica", "of_server"), [("1", "8"), ("8", "1")])
def test_an_answer_over_the_limit_is_the_handlers_error_on_every_way(replica, api_server, of_replica, of_server):
    server = api_server("--max-message-mb", of_server)
    served = replica("tests/e2e/apps/large.py:app", "--max-message-mb", of_replica, "--api-server", server.url)
    until(server.replicas, "the replica in the registry")
    ways = [server.endpoint, served.endpoint] if of_replica == "1" else [server.endpoint]
    # The first is one tensor of as many bytes as a message may have; what stands around it is too much.
    for endpoint, size in itertools.product(ways, (MIB, 2 * MIB)):
        with Client(endpoint=endpoint) as client:
            for ask in (client.infer, lambda *asked, client=client: list(client.stream(*asked))):
                with pytest.raises(errors.HandlerError, match=str(MIB)):
                    ask("large", {"size": [size]})
            assert client.infer("large", {"size": [MIB - 1000]})["zeros"].shape == (MIB - 1000,)


# === deadlines ===


@pytest.mark.parametrize("model", ["gate", "gate-async"])
def test_a_client_that_stops_waiting_gets_its_deadline_and_the_handler_is_told(mixed, model):
    name = f"deadline-{model}"
    with triton.InferenceServerClient(mixed.endpoint) as client:
        with pytest.raises(triton.InferenceServerException) as raised:
            client.infer(model, named(name), client_timeout=0.3)
        assert "Deadline Exceeded" in raised.value.message() or "DEADLINE" in str(raised.value)
        assert "DEADLINE_EXCEEDED" in str(raised.value.status())
    mixed.noted(f"cancelled-{name}")
    mixed.allow(f"go-{name}")


def test_a_handler_sees_how_much_time_its_caller_leaves_it(mixed, channel):
    mixed.allow("go-remaining")
    stub(channel(mixed.endpoint)).ModelInfer(infer("gate", text("name", "remaining")), timeout=40)
    (remaining,) = mixed.noted("started-remaining")
    # gRPC rounds what it sends up, by 3 % at most: 40.1 s were seen.
    assert 0 < float(remaining) <= 42


def test_the_servers_own_deadline_says_so_in_its_status(mixed, channel):
    error = refused(stub(channel(mixed.endpoint)).ModelInfer, infer("patient", text("name", "never")),
                    grpc.StatusCode.DEADLINE_EXCEEDED)  # fmt: skip
    assert dict(error.trailing_metadata())["x-anyserve-code"] == "DEADLINE"
    mixed.allow("go-never")


def test_a_request_with_a_deadline_beyond_all_clocks_is_answered(mixed, channel):
    call = stub(channel(mixed.endpoint)).ModelInfer
    assert call(infer("echo", number("x", 1)), timeout=10**8).outputs


# === cancellation ===


@pytest.mark.parametrize("model", ["gate", "gate-async"])
def test_cancelling_a_future_of_tritonclients_reaches_the_handler(mixed, model):
    name, done = f"cancel-{model}", threading.Event()
    with triton.InferenceServerClient(mixed.endpoint) as client:
        call = client.async_infer(model, named(name), lambda result, error: done.set())
        mixed.noted(f"started-{name}")
        call.cancel()
        assert done.wait(WATCHDOG_S)
    mixed.noted(f"cancelled-{name}")


def test_cancelling_a_task_of_tritonclients_reaches_the_handler(mixed):
    async def cancel() -> None:
        async with triton_aio.InferenceServerClient(mixed.endpoint) as client:
            task = asyncio.create_task(client.infer("gate-async", named("cancel-task")))
            await asyncio.to_thread(mixed.noted, "started-cancel-task")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert mixed.noted("cancelled-cancel-task") == ["CancelledError"]


def test_a_client_whose_connection_breaks_has_cancelled(mixed, channel):
    opened = channel(mixed.endpoint)
    call = stub(opened).ModelInfer.future(infer("gate-async", text("name", "broken")))
    mixed.noted("started-broken")
    opened.close()
    mixed.noted("cancelled-broken")
    assert call.cancelled() or call.exception() is not None


# === many ===


def test_two_hundred_connections_at_once_are_all_answered(mixed):
    count = 200
    with ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [stack.enter_context(grpc.insecure_channel(mixed.endpoint, options)) for _ in range(count)]
        calls = [stub(one).ModelInfer.future(infer("gate-async", text("name", "crowd"), id=str(place)))
                 for place, one in enumerate(channels)]  # fmt: skip
        mixed.noted("started-crowd", count)
        assert mixed.metric("anyserve_requests_in_flight", model="gate-async") == count
        mixed.allow("go-crowd")
        assert [call.result(WATCHDOG_S).id for call in calls] == [str(place) for place in range(count)]


def test_a_thousand_calls_on_one_connection_are_all_answered(mixed, channel):
    service = stub(channel(mixed.endpoint))
    calls = [service.ModelInfer.future(infer("echo", number("x", place))) for place in range(1000)]
    for place, call in enumerate(calls):
        assert int.from_bytes(call.result(WATCHDOG_S).raw_output_contents[0], "little") == place


def test_keepalive_pings_without_data_are_tolerated(mixed, channel):
    eager = [("grpc.keepalive_time_ms", 100), ("grpc.keepalive_permit_without_calls", 1),
             ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_timeout_ms", 20_000)]  # fmt: skip
    with counting_pings(mixed) as (endpoint, pings):
        call = stub(channel(endpoint, *eager)).ModelInfer.future(infer("gate-async", text("name", "pinged")))
        mixed.noted("started-pinged")
        # Servers that mind pings without data send the client away after three.
        until(lambda: len(pings) >= 4 or call.done(), "four pings of the client")
        assert not call.done()
        mixed.allow("go-pinged")
        assert call.result(WATCHDOG_S).outputs


@contextlib.contextmanager
def counting_pings(replica):
    """An endpoint in front of a replica, for one connection, and the pings that the client has sent through it."""
    pings: list[bytes] = []

    def up(client: socket.socket, server: socket.socket) -> None:
        server.sendall(exactly(client, len(PREFACE)))
        while True:
            head = exactly(client, 9)
            body = exactly(client, int.from_bytes(head[:3], "big"))
            if head[3] == 6 and head[4] == 0:
                pings.append(body)
            server.sendall(head + body)

    def down(client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(65536):
            client.sendall(data)

    def relay(one, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, AssertionError):
            one(client, server)

    def accept() -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            for one in (up, down):
                threading.Thread(target=relay, args=(one, client, server), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener, socket_to(replica) as server:
        server.settimeout(None)
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", pings


def test_pings_by_hand_in_great_number_are_answered_without_a_goaway(mixed):
    with h2_connection(mixed) as connection:
        for place in range(100):
            payload = place.to_bytes(8, "big")
            connection.sendall(b"\0\0\x08\x06\0\0\0\0\0" + payload)
            kind, flags, body = until_frame(connection, {6, 7})
            assert (kind, flags, body) == (6, 1, payload)


def h2_connection(replica):
    connection = socket_to(replica)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
    return connection


def until_frame(connection, kinds: set[int]) -> tuple[int, int, bytes]:
    while True:
        head = exactly(connection, 9)
        body = exactly(connection, int.from_bytes(head[:3], "big"))
        if head[3] in kinds and not (head[3] == 6 and head[4] == 0):
            return head[3], head[4], body


def exactly(connection, size: int) -> bytes:
    read = b""
    while len(read) < size:
        more = connection.recv(size - len(read))
        assert more, "the server closed the connection"
        read += more
    return read


# === garbage ===


def socket_to(replica) -> socket.socket:
    host, _, port = replica.endpoint.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=WATCHDOG_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
GARBAGE = {
    "nothing": b"",
    "a zero": b"\0",
    "random bytes": random.Random(1).randbytes(100_000),
    "half a preface": PREFACE[:12],
    "a preface and nothing": PREFACE,
    "a preface and random bytes": PREFACE + random.Random(2).randbytes(100_000),
    "a frame longer than allowed": PREFACE + SETTINGS + b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(1000),
    "headers of garbage": PREFACE + SETTINGS + b"\0\0\x10\x01\x04\0\0\0\x01" + b"\xff" * 16,
    "data for no stream": PREFACE + SETTINGS + b"\0\0\x04\0\0\0\0\0\x05abcd",
    "a continuation of nothing": PREFACE + SETTINGS + b"\0\0\x04\x09\0\0\0\0\x05abcd",
    "a window that overflows": PREFACE + SETTINGS + b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff" * 3,
    "HTTP/1 garbage": b"GET\r\n\r\n",
    "HTTP/1 with a bad length": b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "HTTP/1 with endless headers": b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 50_000,
    "half of an HTTP/1 request": b"GET /health/live HTTP/1.1\r\nHos",
    "HTTP/0.9": b"GET /\n",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_on_the_port_leaves_the_server_serving(mixed, what):
    with closing(socket_to(mixed)) as connection:
        try:
            connection.sendall(GARBAGE[what])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass  # Being thrown out in the middle of it is an answer as well.
    serves(mixed)


def test_a_tls_hello_on_a_plain_port_is_turned_away(mixed):
    context = ssl._create_unverified_context()
    with pytest.raises((ssl.SSLError, ConnectionError)), closing(socket_to(mixed)) as plain:
        context.wrap_socket(plain, server_hostname="localhost")
    serves(mixed)


def test_connections_that_say_nothing_are_in_nobodys_way(mixed):
    with ExitStack() as stack:
        for place in range(100):
            connection = stack.enter_context(closing(socket_to(mixed)))
            connection.sendall(PREFACE[: place % len(PREFACE)])
        serves(mixed)


def header(name: bytes, value: bytes) -> bytes:
    """A header as HPACK has it: literal, never to be remembered, without Huffman codes."""
    return b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


HEADERS, DATA, RESET, END_STREAM, END_HEADERS = 1, 0, 3, 1, 4


def call_by_hand(stream: int, body: bytes, *, method: bytes = b"ModelInfer", **more: bytes) -> bytes:
    """The frames of a call with this body, whatever it is."""
    pairs = {
        b":method": b"POST", b":scheme": b"http", b":path": b"/inference.GRPCInferenceService/" + method,
        b":authority": b"x", b"te": b"trailers", b"content-type": b"application/grpc",
        **{name.replace("_", "-").encode(): value for name, value in more.items()},
    }  # fmt: skip
    block = b"".join(header(name, value) for name, value in pairs.items())
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, body)


def kinds_until_end(connection, stream: int) -> list[int]:
    """Wait for the last frame of a stream and give the kinds of all."""
    kinds = []
    while True:
        head = exactly(connection, 9)
        exactly(connection, int.from_bytes(head[:3], "big"))
        if int.from_bytes(head[5:9], "big") == stream:
            kinds.append(head[3])
            if head[3] == RESET or (head[3] in (HEADERS, DATA) and head[4] & END_STREAM):
                return kinds


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


ONE = infer("echo", number("x", 1)).SerializeToString()
BROKEN = {
    "no message": (b"", {}),
    "two messages": (framed(ONE) * 2, {}),
    "half a prefix": (b"\0\0", {}),
    "half a message": (framed(ONE)[:-1], {}),
    "a byte too many": (framed(ONE) + b"\0", {}),
    "four gigabytes announced": (b"\0\xff\xff\xff\xff" + ONE, {}),
    "compressed without a word on how": (framed(ONE, compressed=True), {}),
    "compressed as nobody does": (framed(ONE, compressed=True), {"grpc_encoding": b"middle-out"}),
    "gzip that is none": (framed(b"\x1f\x8b\x08 no gzip", compressed=True), {"grpc_encoding": b"gzip"}),
    "deflate that is none": (framed(b"no deflate", compressed=True), {"grpc_encoding": b"deflate"}),
    "a flag that there is not": (b"\x07" + framed(ONE)[1:], {}),
    "a timeout that is none": (framed(ONE), {"grpc_timeout": b"soon"}),
    "a timeout in the past": (framed(ONE), {"grpc_timeout": b"0n"}),
    "a timeout of centuries": (framed(ONE), {"grpc_timeout": b"99999999H"}),
    "another content type": (framed(ONE), {"content_type": b"text/plain"}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_call_is_ended_and_the_connection_lives(mixed, what):
    body, headers = BROKEN[what]
    with closing(h2_connection(mixed)) as connection:
        connection.sendall(call_by_hand(1, body, **headers))
        assert kinds_until_end(connection, 1)[-1] in (HEADERS, DATA)
        connection.sendall(call_by_hand(3, framed(ONE)))
        assert kinds_until_end(connection, 3) == [HEADERS, DATA, HEADERS]


@pytest.mark.parametrize("half_closed", [True, False])
def test_a_stream_whose_deadline_passes_ends_in_a_status_and_not_in_an_answer(mixed, half_closed):
    request = infer("count-async", text("name", "gated-for-ever"), number("count", 1), number("size", 1))
    with closing(h2_connection(mixed)) as connection:
        for stream in range(1, 40, 2):
            # By hand, because clients have a clock of their own, which hides what the server says.
            call = call_by_hand(
                stream, framed(request.SerializeToString()), method=b"ModelStreamInfer", grpc_timeout=b"30m"
            )
            connection.sendall(call if half_closed else without_end(call))
            assert kinds_until_end(connection, stream) in ([HEADERS, HEADERS], [HEADERS, HEADERS, RESET])


def without_end(call: bytes) -> bytes:
    """The same frames, but the client may go on sending."""
    head = 9 + int.from_bytes(call[:3], "big")
    return call[: head + 4] + b"\0" + call[head + 5 :]


def test_streams_that_are_opened_and_reset_in_great_number_hurt_nobody(mixed):
    with closing(h2_connection(mixed)) as connection, contextlib.suppress(OSError):
        for stream in range(1, 20_001, 2):
            connection.sendall(call_by_hand(stream, framed(ONE)) + frame(RESET, 0, stream, bytes(4)))
    serves(mixed)
    until(lambda: mixed.metric("anyserve_requests_in_flight") == 0, "nothing in flight")


@pytest.mark.parametrize("size", [1000, 15_000])
def test_any_request_header_is_accepted(mixed, channel, size):
    metadata = [("x-mine", "x" * size), ("x-mine", "twice"), ("x-bytes-bin", bytes(range(256))), ("user-agent", "me")]
    answer = stub(channel(mixed.endpoint)).ModelInfer(infer("see"), metadata=metadata)
    assert json.loads(answer.raw_output_contents[0][4:])["headers"]["x-mine"] == "x" * size + ", twice"


def test_headers_beyond_all_measure_end_the_call_and_not_the_server(mixed, channel):
    service = stub(channel(mixed.endpoint))
    with pytest.raises(grpc.RpcError):
        service.ModelInfer(infer("echo"), metadata=[("x-mine", "x" * 1_000_000)])
    assert service.ModelInfer(infer("echo", number("x", 1))).outputs


# === TLS ===


def test_tls_serves_those_who_trust_its_authority_and_nobody_else(replica, certificates):
    served = replica("protocol.py:create_serial", "--factory", "--tls-cert", certificates / "server.pem",
                     "--tls-key", certificates / "server.key")  # fmt: skip
    port = served.endpoint.rpartition(":")[2]

    def trusting(authority: str) -> triton.InferenceServerClient:
        trusted = str(certificates / f"{authority}.pem")
        return triton.InferenceServerClient(f"localhost:{port}", ssl=True, root_certificates=trusted)

    with trusting("ca") as client:
        assert client.infer("echo", inputs_of(np.ones(3, "f4"))).as_numpy("output_x").tolist() == [1, 1, 1]
    with trusting("other") as client, pytest.raises(triton.InferenceServerException):
        client.is_server_live(client_timeout=5)
    with triton.InferenceServerClient(f"localhost:{port}") as client, pytest.raises(triton.InferenceServerException):
        client.is_server_live(client_timeout=5)
    with Client(f"https://localhost:{port}", tls_ca=certificates / "ca.pem") as client:
        assert client.infer("echo", {"x": [1]})["output_x"].tolist() == [1]
    with (
        Client(f"https://localhost:{port}", tls_ca=certificates / "other.pem") as own,
        pytest.raises(errors.Unavailable),
    ):
        own.infer("echo", {"x": np.ones(1)}, timeout_s=10)


def test_with_an_authority_for_clients_only_theirs_are_served(replica, certificates):
    served = replica("protocol.py:create_serial", "--factory", "--tls-cert", certificates / "server.pem",
                     "--tls-key", certificates / "server.key", "--tls-client-ca", certificates / "ca.pem")  # fmt: skip
    port, ca = served.endpoint.rpartition(":")[2], str(certificates / "ca.pem")

    def client(name: str | None):
        own = {} if name is None else {"private_key": str(certificates / f"{name}.key"),
                                       "certificate_chain": str(certificates / f"{name}.pem")}  # fmt: skip
        return triton.InferenceServerClient(f"localhost:{port}", ssl=True, root_certificates=ca, **own)

    with client("client") as known:
        assert known.is_server_live()
        assert known.infer("echo", inputs_of(np.ones(3, "f4"))).as_numpy("output_x").tolist() == [1, 1, 1]
    for name in ("stranger", None):
        with client(name) as unknown, pytest.raises(triton.InferenceServerException):
            unknown.is_server_live(client_timeout=5)
    with Client(f"https://localhost:{port}", tls_ca=ca, tls_cert=certificates / "client.pem",
                tls_key=certificates / "client.key") as own:  # fmt: skip
        assert own.infer("echo", {"x": [1]})["output_x"].tolist() == [1]


# === HTTP ===


def test_http_tells_that_it_lives_and_is_ready(mixed):
    assert (mixed.http("/health/live")[0], json.loads(mixed.http("/health/live")[1])["live"]) == (200, True)
    status, body = mixed.http("/health/ready")
    assert (status, json.loads(body)["ready"]) == (200, True)


def test_http_errors_are_json_with_a_message(mixed):
    status, body = mixed.http("/nobody")
    assert (status, "/nobody" in json.loads(body)["error"]) == (404, True)
    status, body = mixed.http("/metrics", method="POST")
    assert (status, "POST" in json.loads(body)["error"]) == (405, True)


def test_metrics_count_requests_by_model_and_code(replica, channel):
    served = replica("protocol.py:create_mixed", "--factory")
    service = stub(channel(served.endpoint))
    for place in range(5):
        service.ModelInfer(infer("echo", number("x", place)))
    refused(service.ModelInfer, infer("echo", tensor("x", "FP32", [2]), raw=[b""]), INVALID)
    refused(service.ModelInfer, infer("nobody"), grpc.StatusCode.NOT_FOUND)
    assert served.metric("anyserve_requests_total", model="echo", code="OK") == 5
    assert served.metric("anyserve_requests_total", model="echo", code="INVALID_INPUT") == 1
    assert served.metric("anyserve_requests_total", code="NO_CAPABILITY") == 1
    assert served.metric("anyserve_request_duration_seconds_count", model="echo") == 6
    assert served.metric("anyserve_request_duration_seconds_bucket", model="echo", le="+Inf") == 6
    assert served.metric("anyserve_requests_in_flight") == 0
    assert served.metric("anyserve_queue_depth") == 0
    assert served.metric("anyserve_workers", state="ready") == 1
    assert served.metric("anyserve_worker_restarts_total") == 0
    assert "nobody" not in served.http("/metrics")[1]


def test_metrics_show_what_is_in_flight_and_what_waits(replica, channel):
    served = replica("workers.py:create_mixed", "--factory")
    service = stub(channel(served.endpoint))
    calls = [service.ModelInfer.future(infer("hold", text("name", "h"))) for _ in range(3)]
    served.noted("started-h")
    until(lambda: served.metric("anyserve_requests_in_flight", model="hold") == 3, "three requests in flight")
    assert served.metric("anyserve_worker_requests") + served.metric("anyserve_queue_depth") == 3
    served.allow("go-h")
    assert all(call.result(WATCHDOG_S).outputs for call in calls)
    until(lambda: served.metric("anyserve_requests_in_flight") == 0, "nothing in flight")


def test_http_and_grpc_share_the_port_on_connections_that_stay_open(mixed):
    with closing(socket_to(mixed)) as connection:
        for _ in range(3):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            serves(mixed)


def test_the_port_belongs_to_loopback_unless_told_otherwise(mixed):
    assert mixed.endpoint.startswith("127.0.0.1:")
