"""Calls on a replica with everything that the promises are about: deadline, parameters, headers, code, attempts."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np

from tests.e2e.messages import anyserve_code, infer, stub, text
from tests.e2e.replicas import WATCHDOG_S, Replica, until

ATTEMPTS = "anyserve_attempts"
RETRY_INFO = b"google.rpc.RetryInfo"


class Calls:
    """One client of a replica. Deadlines are the replica's to keep: the client itself waits for the watchdog."""

    def __init__(self, replica: Replica, channel: grpc.Channel) -> None:
        self.replica, self.service = replica, stub(channel)

    def begin(self, model: str, name: str = "", **more: Any) -> grpc.Future:
        """Begin a unary call; `more` is as in `request`."""
        message, metadata = request(model, name, **more)
        return self.service.ModelInfer.future(message, metadata=metadata)

    def now(self, model: str, name: str = "", **more: Any) -> Any:
        """Call, and give the answer."""
        return self.begin(model, name, **more).result(WATCHDOG_S)

    def stream(self, model: str, name: str = "", **more: Any) -> Any:
        """Begin a call with streamed answers."""
        message, metadata = request(model, name, **more)
        return self.service.ModelStreamInfer(iter([message]), metadata=metadata)

    def refused(self, model: str, name: str = "", **more: Any) -> grpc.RpcError:
        """Call, and give the error."""
        return failure(self.begin(model, name, **more))

    def in_flight(self, count: int) -> None:
        """Wait until so many requests have reached the replica and have not ended."""
        until(lambda: self.replica.metric("anyserve_requests_in_flight") == count, f"{count} requests in flight")

    def queued(self, count: int) -> None:
        """Wait until so many requests wait for a worker."""
        until(lambda: self.replica.metric("anyserve_queue_depth") == count, f"{count} requests in queues")


def request(
    model: str,
    name: str,
    *,
    timeout_s: float | None = None,
    parameters: Mapping[str, int | str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[Any, list[tuple[str, str]]]:
    """A request and its metadata."""
    message = infer(model, text("name", name))
    for key, value in (parameters or {}).items():
        field = "int64_param" if isinstance(value, int) else "string_param"
        setattr(message.parameters[key], field, value)
    metadata = list((headers or {}).items())
    if timeout_s is not None:
        metadata.append(("grpc-timeout", f"{timeout_s * 1000:.0f}m"))
    return message, metadata


def failure(call: grpc.Future) -> grpc.RpcError:
    """The error of a call, which must have one."""
    found = call.exception(WATCHDOG_S)
    assert found is not None, "the call was answered"
    return found


def code_of(call: grpc.Future) -> str:
    """The code of the closed set that a call ends with."""
    return anyserve_code(failure(call))


def number(answer: Any, name: str) -> float:
    """The one number of an output."""
    place = [output.name for output in answer.outputs].index(name)
    kind = {"INT64": "<i8", "FP64": "<f8"}[answer.outputs[place].datatype]
    return np.frombuffer(answer.raw_output_contents[place], kind)[0].item()


def pid_of(answer: Any) -> int:
    """The worker that has answered."""
    return int(number(answer, "pid"))


def attempts_of(answer: Any) -> int:
    """How often the request was sent to a worker, as the answer says; the handler saw the same number."""
    told = answer.parameters[ATTEMPTS].int64_param if ATTEMPTS in answer.parameters else 1
    assert told == number(answer, "attempt")
    return told


def comes_with_a_time_to_wait(error: grpc.RpcError) -> bool:
    """Whether an error says when to come back."""
    return RETRY_INFO in dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
