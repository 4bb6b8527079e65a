"""Our own clients against a real replica: the same values and exceptions, and no call that outlives its caller."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from anyserve import AsyncClient, Client, InferInput, errors
from tests.e2e.messages import RAW
from tests.e2e.replicas import WATCHDOG_S, environment

names = (f"client-{number}" for number in itertools.count())
STREAMS = ["count", "count-sent", "count-async", "count-sent-async"]

RAISED = [
    errors.InvalidInput, errors.Unauthenticated, errors.Forbidden, errors.NoCapability, errors.NotFound,
    errors.DeadlineExceeded, errors.Cancelled, errors.Overloaded, errors.ObjectStoreFull, errors.Starting,
    errors.Draining,
    errors.Unavailable, errors.WorkerLost, errors.Poison, errors.HandlerError, errors.Internal, errors.Unsupported,
]  # fmt: skip


@pytest.fixture
def client(mixed):
    with Client(mixed.endpoint) as made:
        yield made


def parts(count: int, name: str = "", size: int = 1) -> dict[str, object]:
    return {"name": name, "count": count, "size": size}


def run_async(mixed, work):
    """Run a coroutine function with a client of its own."""

    async def run():
        async with AsyncClient(mixed.endpoint) as made:
            return await work(made)

    return asyncio.run(run())


# === values ===


@pytest.mark.parametrize("datatype", sorted(RAW))
def test_every_datatype_comes_back_as_it_was_given(client, datatype):
    values, _ = RAW[datatype]
    result = client.infer("echo", {"x": {"data": values, "datatype": datatype, "shape": [3, 1]}}, id="7")
    assert result["output_x"].tolist() == [[value] for value in values]
    assert not result["output_x"].flags.writeable
    (output,) = result.response.outputs
    assert (output.datatype, list(output.shape)) == (datatype, [3, 1])
    assert (result.response.id, result.response.model_name, result.response.model_version) == ("7", "echo", "1")


@pytest.mark.parametrize(("given", "datatype", "expected"), [
    ("hello", "BYTES", [b"hello"]), (b"\0\xff", "BYTES", [b"\0\xff"]), (["a", b"b"], "BYTES", [b"a", b"b"]),
    (1, "INT64", [1]), ([1, 2], "INT64", [1, 2]), (1.5, "FP64", [1.5]), (True, "BOOL", [True]),
    ([[1], [2]], "INT64", [[1], [2]]), (np.float16(1.5), "FP16", [1.5]),
    (np.arange(3, dtype="u2"), "UINT16", [0, 1, 2]),
    (np.arange(4, dtype=">i4")[::2], "INT32", [0, 2]), (np.zeros((0, 3), "f4"), "FP32", []),
    (InferInput("x", np.array([1, 2], "i1")), "INT8", [1, 2]),
])  # fmt: skip
def test_values_get_the_datatype_that_suits_them(client, given, datatype, expected):
    result = client.infer("echo", {"x": given})
    assert result["output_x"].tolist() == expected
    assert result.response.outputs[0].datatype == datatype


def test_numbers_get_the_datatype_that_the_server_declares(client):
    result = client.infer("add", {"a": [1, 2], "b": [0.5, 1]})
    assert result["sum"].tolist() == [1.5, 3.0]
    assert result["sum"].dtype == np.float32
    assert client.infer("fixed", {"x": [[1], [2]]})["y"].dtype == np.int32
    with pytest.raises(errors.InvalidInput, match="INT32"):
        client.infer("fixed", {"x": [[1], [2**31]]})


def test_a_scalar_goes_both_ways(client):
    result = client.infer("echo", {"x": np.array(1.5)})
    assert result["output_x"].shape == ()
    assert result["output_x"] == 1.5


def test_large_arrays_go_both_ways(client):
    array = np.arange(4 << 20, dtype=np.float32)
    assert np.array_equal(client.infer("echo", {"x": array})["output_x"], array)


def test_parameters_headers_outputs_and_versions_go_along(client):
    given = {"yes": True, "low": -(2**63), "high": 2**64 - 1, "half": 0.5, "text": "日本"}
    assert client.infer("echo", {"x": [1]}, parameters=given).parameters == given
    seen = json.loads(client.infer("see", {}, headers={"x-mine": "a"}, timeout_s=30)["seen"][0])
    assert seen["headers"]["x-mine"] == "a"
    assert 0 < seen["remaining"] <= 30
    assert list(client.infer("add", {"a": [1], "b": [2]}, outputs=["difference"])) == ["difference"]
    assert client.infer("versioned", {}, version="4")["version"].tolist() == [4]


def test_a_capability_is_asked_for_by_its_keys_or_by_a_selector(client):
    assert list(client.infer({"type": "see", "size": 7}, {})) == ["seen"]
    assert list(client.infer({"model": "versioned", "version": 3}, {})) == ["version"]
    assert list(client.infer("anything", {}, capability={"type": "see"})) == ["seen"]
    assert list(client.infer("anything", {}, parameters={"capability": "type=see,size>5"})) == ["seen"]
    with pytest.raises(errors.NoCapability):
        client.infer({"type": "see", "size": 8}, {})


def test_what_the_server_is_like_can_be_asked(client):
    assert client.is_live()
    assert client.is_ready()
    assert client.is_ready("echo")
    assert not client.is_ready("nobody")
    assert not client.is_ready("echo", version="9")
    inputs = [(name, datatype, list(shape)) for name, datatype, shape in client.metadata("add")["inputs"]]
    assert inputs == [("a", "FP32", [-1]), ("b", "FP32", [-1])]
    assert (client.mode, client.replica_id) == ("direct", None)
    with pytest.raises((errors.NotFound, errors.NoCapability)):
        client.metadata("nobody")


# === exceptions ===


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_what_a_handler_raises_is_raised_at_the_client(mixed, client, kind):
    inputs = {"how": kind.__name__, "why": "because of 日本"}

    def check(error: errors.AnyServeError) -> None:
        assert type(error) is kind
        assert (str(error), error.code) == ("because of 日本", kind.code)
        assert error.retry_after_s == (1.5 if kind is errors.Overloaded else None)

    for call in (lambda: client.infer("fail", inputs), lambda: list(client.stream("fail", inputs))):
        with pytest.raises(errors.AnyServeError) as raised:
            call()
        check(raised.value)

    async def both(other: AsyncClient) -> None:
        with pytest.raises(errors.AnyServeError) as raised:
            await other.infer("fail", inputs)
        check(raised.value)
        with pytest.raises(errors.AnyServeError) as raised:
            async for _ in other.stream("fail", inputs):
                pass
        check(raised.value)

    run_async(mixed, both)


def test_every_class_of_the_closed_set_is_tried_above():
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    closed = {kind for kind in classes if issubclass(kind, errors.AnyServeError)}
    assert closed - {errors.AnyServeError} == set(RAISED)


def test_any_other_exception_is_a_handlers_error(client):
    with pytest.raises(errors.HandlerError, match="ValueError: it broke"):
        client.infer("fail", {"how": "ValueError", "why": "it broke"})


def test_bad_requests_are_told_apart(client):
    with pytest.raises(errors.NoCapability, match="nobody"):
        client.infer("nobody", {"x": [1]})
    with pytest.raises(errors.NotFound, match="9"):
        client.infer("echo", {"x": [1]}, version="9")
    with pytest.raises(errors.InvalidInput, match="'b'"):
        client.infer("add", {"a": [1.0]})
    with pytest.raises(errors.Unsupported, match="count"):
        client.infer("count", parts(1))


def test_where_nobody_listens_is_unavailable(mixed):
    with Client("127.0.0.1:1") as nobody:
        with pytest.raises(errors.Unavailable, match=re.escape("127.0.0.1:1")):
            nobody.infer("echo", {"x": np.ones(1)})
        assert not nobody.is_live()
        assert not nobody.is_ready()


# === time ===


@pytest.mark.parametrize("model", ["gate", "gate-async"])
def test_a_timeout_is_raised_and_ends_the_handler(mixed, client, model):
    name = next(names)
    with pytest.raises(errors.DeadlineExceeded):
        client.infer(model, {"name": name}, timeout_s=0.3)
    mixed.noted(f"cancelled-{name}")


def test_a_timeout_holds_for_a_whole_stream(mixed, client):
    name = f"gated-{next(names)}"
    mixed.allow(f"{name}-0")
    stream = client.stream("count-async", parts(3, name), timeout_s=1)
    assert next(stream)["part"].tolist() == [0]
    with pytest.raises(errors.DeadlineExceeded):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)
    mixed.noted(f"left-{name}")


# === cancellation ===


def test_cancelling_a_task_cancels_the_handler(mixed):
    name = next(names)

    async def cancel(client: AsyncClient) -> None:
        task = asyncio.create_task(client.infer("gate-async", {"name": name}))
        await asyncio.to_thread(mixed.noted, f"started-{name}")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(mixed, cancel)
    assert mixed.noted(f"cancelled-{name}") == ["CancelledError"]


def test_a_timeout_of_asyncios_cancels_the_handler(mixed):
    name = next(names)

    async def wait(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.infer("gate", {"name": name})

    run_async(mixed, wait)
    mixed.noted(f"cancelled-{name}")


@pytest.mark.parametrize("model", STREAMS)
def test_leaving_a_stream_early_ends_its_handler(mixed, client, model):
    name = next(names)
    with client.stream(model, parts(10**9, name)) as stream:
        assert next(stream)["part"].tolist() == [0]
    mixed.noted(f"left-{name}")
    assert list(stream) == []


def test_forgetting_a_stream_ends_its_handler(mixed, client):
    name = next(names)
    for part in client.stream("count-async", parts(10**9, name)):
        assert part["part"].tolist() == [0]
        break
    mixed.noted(f"left-{name}")


def test_leaving_an_asynchronous_stream_ends_its_handler(mixed):
    left, cancelled = next(names), next(names)

    async def leave(client: AsyncClient) -> None:
        async with client.stream("count", parts(10**9, left)) as stream:
            assert (await anext(stream))["part"].tolist() == [0]
        assert [part async for part in stream] == []

        async def read() -> None:
            async for _ in client.stream("gate-async", {"name": cancelled}):
                pass

        task = asyncio.create_task(read())
        await asyncio.to_thread(mixed.noted, f"started-{cancelled}")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(mixed, leave)
    mixed.noted(f"left-{left}")
    mixed.noted(f"cancelled-{cancelled}")


def test_closing_a_stream_wakes_the_thread_that_reads_it(mixed, client):
    name = f"gated-{next(names)}"
    mixed.allow(f"{name}-0")
    stream = client.stream("count-async", parts(2, name))
    assert next(stream)["part"].tolist() == [0]
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(list, stream)
        stream.close()
        assert rest.result(WATCHDOG_S) == []
    mixed.noted(f"left-{name}")


# === streams ===


@pytest.mark.parametrize("model", STREAMS)
def test_a_stream_gives_every_part_in_order(mixed, client, model):
    got = list(client.stream(model, parts(500, size=100), id="7"))
    assert [int(part["part"][0]) for part in got] == list(range(500))
    assert {part["data"][0] for part in got} == {b"x" * 100}
    assert {(part.response.id, part.response.model_name) for part in got} == {("7", model)}

    async def read(other: AsyncClient) -> list[int]:
        return [int(part["part"][0]) async for part in other.stream(model, parts(500))]

    assert run_async(mixed, read) == list(range(500))


def test_an_ordinary_capability_streams_once(client):
    (only,) = client.stream("echo", {"x": [7]})
    assert only["output_x"].tolist() == [7]


def test_a_stream_that_fails_gives_its_parts_first(client):
    stream = client.stream("count-and-fail", parts(3, "seven"))
    assert [next(stream)["part"].tolist() for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(errors.NotFound, match="seven has no part 3"):
        next(stream)
    assert list(stream) == []


def test_a_client_that_reads_slowly_misses_nothing(mixed, client):
    count, size = 200, 256 << 10
    stream = client.stream("count", parts(count, name := next(names), size))
    assert next(stream)["part"].tolist() == [0]
    for _ in range(200):
        client.infer("echo", {"x": [1]})
    assert len(mixed.note(f"progress-{name}")) < count
    assert [int(part["part"][0]) for part in stream] == list(range(1, count))


# === many ===


def test_one_client_serves_many_threads(client):
    def one(*values: int) -> bool:
        return client.infer("echo", {"x": values})["output_x"].tolist() == list(values)

    def work(seed: int) -> bool:
        return all(one(seed, place) for place in range(25))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(32)))


def test_one_event_loop_has_many_calls_and_streams_in_flight(mixed):
    name = next(names)

    async def work(client: AsyncClient) -> list[object]:
        held = [asyncio.create_task(client.infer("gate-async", {"name": name})) for _ in range(200)]
        streams = [asyncio.create_task(read(client, place)) for place in range(20)]
        await asyncio.to_thread(mixed.noted, f"started-{name}", 200)
        mixed.allow(f"go-{name}")
        return await asyncio.gather(*held, *streams)

    async def read(client: AsyncClient, count: int) -> int:
        return len([part async for part in client.stream("count-async", parts(count))])

    answers = run_async(mixed, work)
    assert len(answers) == 220
    assert answers[200:] == list(range(20))


def test_a_client_outlives_its_replica_and_finds_the_next_one(replica):
    first = replica("protocol.py:create_serial", "--factory")
    port = first.endpoint.rpartition(":")[2]
    with Client(first.endpoint) as client:
        assert client.infer("echo", {"x": [1]})["output_x"].tolist() == [1]
        first.stop()
        with pytest.raises(errors.Unavailable):
            client.infer("echo", {"x": [1]}, timeout_s=20)
        replica("protocol.py:create_serial", "--factory", port=port)
        assert client.infer("echo", {"x": [2]}, timeout_s=20)["output_x"].tolist() == [2]


def test_a_closed_client_refuses_new_calls(mixed):
    client = Client(mixed.endpoint)
    client.infer("echo", {"x": [1]})
    client.close()
    client.close()
    with pytest.raises(errors.AnyServeError):
        client.infer("echo", {"x": [1]})


def test_a_client_goes_on_in_a_forked_process(client):
    assert client.infer("echo", {"x": [1]})["output_x"].tolist() == [1]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(write, b"%d" % client.infer("echo", {"x": [2]}, timeout_s=20)["output_x"][0])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"2"
    os.waitpid(pid, 0)
    assert client.infer("echo", {"x": [3]})["output_x"].tolist() == [3]


def test_ctrl_c_ends_a_wait_and_cancels_the_call(mixed):
    name = next(names)
    script = f"""
import anyserve
with anyserve.Client({mixed.endpoint!r}) as client:
    try:
        client.infer("gate-async", {{"name": {name!r}}})
    except KeyboardInterrupt:
        print("interrupted")
"""
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(WATCHDOG_S, process.kill)
    watchdog.start()
    mixed.noted(f"started-{name}")
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "interrupted\n"
    watchdog.cancel()
    mixed.noted(f"cancelled-{name}")
