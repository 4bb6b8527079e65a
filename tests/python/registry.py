"""An API server as a test plays it: its registry believes everybody and names the replicas that it is told to."""

import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tritonclient.grpc import service_pb2_grpc

WATCHDOG_S = 20
_GENERATED = Path(__file__).parents[2] / "crates" / "proto" / "src" / "gen" / "anyserve.v1.bin"


def _messages():
    pool, files = descriptor_pool.DescriptorPool(), descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(_GENERATED.read_bytes())
    for file in files.file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"anyserve.v1.{name}"))


message = _messages()
ACCEPTED, REGISTER_AGAIN = 1, 2


class Registry:
    """A running API server.

    Args:
        kserve: a servicer of KServe that it has requests served by.
    """

    def __init__(self, kserve=None):
        self.replicas = []
        self.asked = []
        self.registered = None
        self.heard = queue.Queue()
        self._server = grpc.server(ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("anyserve.v1.Registry", {
            "Resolve": _method(grpc.unary_unary_rpc_method_handler, self._resolve, "Resolve"),
            "Register": _method(grpc.unary_unary_rpc_method_handler, self._register, "Register"),
            "Heartbeat": _method(grpc.stream_stream_rpc_method_handler, self._heartbeat, "Heartbeat"),
            "Leave": _method(grpc.unary_unary_rpc_method_handler, self._leave, "Leave"),
        }),))  # fmt: skip
        if kserve is not None:
            service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(kserve, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def add(self, replica, endpoint, lease_ms=60_000):
        """Have one more replica to name."""
        self.replicas.append((replica, endpoint, lease_ms))

    def stop(self):
        """End it and its connections."""
        self._server.stop(None).wait(WATCHDOG_S)

    def hears(self, kind, fits=lambda _: True):
        """Wait for a message of this kind that fits."""
        while True:
            heard = self.heard.get(timeout=WATCHDOG_S)
            if heard.DESCRIPTOR.name == f"{kind}Request" and fits(heard):
                return heard

    def _register(self, request, _):
        self.heard.put(request)
        self.registered = request.seq
        return message("RegisterResponse")(verdict=ACCEPTED, heartbeat_ms=100, lease_ms=1000)

    def _heartbeat(self, requests, _):
        for request in requests:
            self.heard.put(request)
            known = request.registered == self.registered
            yield message("HeartbeatResponse")(verdict=ACCEPTED if known else REGISTER_AGAIN)

    def _leave(self, request, _):
        self.heard.put(request)
        return message("LeaveResponse")(verdict=ACCEPTED)

    def _resolve(self, request, context):
        self.asked.append(request)
        for replica, endpoint, lease_ms in self.replicas:
            if replica not in request.avoid:
                named = message("ResolveResponse")
                return named(replica_id=replica, epoch=7, endpoint=f"http://{endpoint}", lease_ms=lease_ms)
        context.set_trailing_metadata((("x-anyserve-code", "NO_CAPABILITY"),))
        return context.abort(grpc.StatusCode.NOT_FOUND, "nobody serves it")


def _method(kind, answer, name):
    read, written = message(f"{name}Request"), message(f"{name}Response")
    return kind(answer, request_deserializer=read.FromString, response_serializer=written.SerializeToString)
