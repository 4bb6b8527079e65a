"""Whoever watches a storm sees every way in which a request may break the promise: here a server breaks it."""

import asyncio
import random
import struct

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.guarantees import executions, load
from tests.guarantees.ledger import ANSWERED, LEFT, Ledger, Request
from tests.guarantees.load import Load

PATIENCE_S = 0.4
ALLOWANCE_S = PATIENCE_S / 2
TIMEOUT_S = 0.1


def response(request, payload: str | None = None, **parameters: bool):
    """The answer to a request, or another with this payload."""
    made = pb.ModelInferResponse(id=request.id)
    if payload is not None:
        made.outputs.add(name="payload", datatype="BYTES", shape=[1])
        made.raw_output_contents.append(struct.pack("<I", len(payload)) + payload.encode())
    for name, value in parameters.items():
        made.parameters[name].bool_param = value
    return made


def payload_of(request) -> str:
    return request.inputs[0].contents.bytes_contents[0].decode()


async def typed(context, code: str) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "why", (("x-anyserve-code", code),))


async def unary(request, context):
    """Do to a request what its model says."""
    match request.model_name:
        case "good":
            return response(request, payload_of(request))
        case "wrong payload":
            return response(request, "another one")
        case "wrong id":
            return response(pb.ModelInferRequest(id="another"), payload_of(request))
        case "untyped":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "why")
        case "hang":
            await asyncio.Event().wait()
        case "late":
            await asyncio.sleep(TIMEOUT_S + ALLOWANCE_S + 0.05)
            return response(request, payload_of(request))
        case code:
            await typed(context, code)
    return None


def part(request, place: int):
    return pb.ModelStreamInferResponse(infer_response=response(request, f"{place} {payload_of(request)}"))


def end(request):
    return pb.ModelStreamInferResponse(infer_response=response(request, triton_final_response=True))


def error(request, code: str):
    made = pb.ModelStreamInferResponse(error_message="why", infer_response=response(request))
    made.infer_response.parameters["x-anyserve-code"].string_param = code
    return made


STREAMS = {
    "good": lambda r: [part(r, 0), part(r, 1), end(r)],
    "typed": lambda r: [part(r, 0), error(r, "WORKER_LOST")],
    "untyped": lambda r: [part(r, 0), error(r, "")],
    "a part missing": lambda r: [part(r, 0), end(r)],
    "no end": lambda r: [part(r, 0), part(r, 1)],
    "nothing": lambda r: [],
    "out of order": lambda r: [part(r, 1), part(r, 0), end(r)],
    "a part too many": lambda r: [part(r, 0), part(r, 1), part(r, 2), end(r)],
    "two ends": lambda r: [part(r, 0), part(r, 1), end(r), end(r)],
    "an end and an error": lambda r: [part(r, 0), part(r, 1), end(r), error(r, "DEADLINE")],
    "an error and a part": lambda r: [part(r, 0), error(r, "DEADLINE"), part(r, 1)],
}  # fmt: skip


async def streaming(requests, context):
    async for request in requests:
        for reply in STREAMS[request.model_name](request):
            yield reply


async def serve() -> tuple[grpc.aio.Server, str]:
    one = grpc.unary_unary_rpc_method_handler(
        unary, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    many = grpc.stream_stream_rpc_method_handler(
        streaming, pb.ModelInferRequest.FromString, pb.ModelStreamInferResponse.SerializeToString
    )
    server = grpc.aio.server()
    handlers = {"ModelInfer": one, "ModelStreamInfer": many}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(load.SERVICE.strip("/"), handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def books(model: str, *, leaves: bool = False, **more) -> Ledger:
    """Send one request to a server that does what the model says."""
    server, endpoint = await serve()
    ledger = Ledger()
    watching = Load(endpoint, ledger, random.Random(1))
    watching.send(watching.make(model, "payload", timeout_s=TIMEOUT_S, **more))
    if leaves:
        watching.leave(1)
    await watching.close()
    await server.stop(None)
    return ledger


@pytest.fixture
def watched(monkeypatch):
    """Watches one request to its end, with less patience than a storm has."""
    monkeypatch.setattr(load, "HUNG_S", PATIENCE_S)
    # By header, the server's own library would keep the deadline.
    monkeypatch.setattr(load, "TIMEOUT_BY_PARAMETER", 1.0)
    monkeypatch.setattr("tests.guarantees.ledger.ALLOWANCE_S", ALLOWANCE_S)
    return lambda model, **more: asyncio.run(books(model, **more))


def test_a_good_answer_and_a_typed_error_are_no_violations(watched):
    for model, outcome in [("good", ANSWERED), ("WORKER_LOST", "WORKER_LOST"), ("OVERLOADED", "OVERLOADED")]:
        ledger = watched(model)
        assert (ledger.by_outcome(), ledger.violations) == ({outcome: 1}, [])
        assert ledger.balance() == (1, 1)


@pytest.mark.parametrize(("model", "what"), [
    ("wrong payload", "another one"), ("wrong id", "'another'"), ("untyped", "untyped UNAVAILABLE"), ("hang", "hung"),
    ("late", "after its deadline"), ("INTERNAL", "INTERNAL"), ("HANDLER_ERROR", "HANDLER_ERROR"),
    ("NONSENSE", "closed set"),
])  # fmt: skip
def test_an_answer_that_is_wrong_late_untyped_or_never_comes_is_a_violation(watched, model, what):
    ledger = watched(model)
    assert any(what in one for one in ledger.violations), ledger
    assert not ledger.open


@pytest.mark.parametrize("model", ["good", "typed"])
def test_a_good_stream_and_one_that_ends_in_a_typed_error_are_no_violations(watched, model):
    assert watched(model, parts=2).violations == []


@pytest.mark.parametrize("model", [model for model in STREAMS if model not in {"good", "typed"}])
def test_a_stream_that_is_not_whole_or_ends_twice_is_a_violation(watched, model):
    assert len(watched(model, parts=2).violations) == 1


def test_an_answer_to_what_can_have_none_is_a_violation(watched):
    assert watched("good", never=True).violations


def test_a_caller_that_leaves_is_owed_nothing(watched):
    ledger = watched("hang", leaves=True)
    assert (ledger.by_outcome(), ledger.violations) == ({LEFT: 1}, [])


def test_an_end_after_the_end_is_a_violation_and_a_late_one_is_excused_by_the_watchers_own_delay():
    ledger, request = Ledger(), Request("echo-1", "echo", "payload", timeout_s=1)
    ledger.send(request, now=0)
    ledger.end(request, ANSWERED, now=1.5, own_delay_s=0.3)
    assert ledger.violations == []
    ledger.end(request, "DEADLINE", now=1.5)
    assert len(ledger.violations) == 1


def test_starts_are_counted_by_request_and_attempt(tmp_path):
    (tmp_path / "executions-1").write_text("echo-1 1\nidem-1 1\necho-2 1\nidem-2 1\nidem-2 1\n")
    (tmp_path / "executions-2").write_text("idem-1 2\necho-2 2\n")
    started = executions.read(tmp_path)
    assert [line.split(":")[0] for line in executions.run_twice(started, ["idem-"])] == ["echo-2", "idem-2"]
    told = {"echo-1": 1, "idem-1": 1, "never": 1}
    assert [line.split(":")[0] for line in executions.unknown_answers(started, told)] == ["idem-1", "never"]
