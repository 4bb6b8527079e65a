"""An API server's registry as a test plays it: it names the replicas that it is told to."""

from concurrent.futures import ThreadPoolExecutor

import grpc

WATCHDOG_S = 20


class Registry:
    """Names replicas, the first one that is not to be avoided."""

    def __init__(self):
        self.replicas = []
        self.asked = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        resolve = grpc.unary_unary_rpc_method_handler(self._resolve)
        handlers = grpc.method_handlers_generic_handler("anyserve.v1.Registry", {"Resolve": resolve})
        self._server.add_generic_rpc_handlers((handlers,))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def add(self, replica, endpoint, lease_ms=60_000):
        """Have one more replica to name."""
        self.replicas.append((replica, endpoint, lease_ms))

    def stop(self):
        """End it and its connections."""
        self._server.stop(None).wait(WATCHDOG_S)

    def _resolve(self, request, context):
        asked = dict.fromkeys((1, 2, 3), "") | {4: []}
        for field, text in _texts(request):
            asked[field] = [*asked[field], text] if field == 4 else text
        self.asked.append(asked)
        for replica, endpoint, lease_ms in self.replicas:
            if replica not in asked[4]:
                return _text(1, replica) + _number(2, 7) + _text(3, f"http://{endpoint}") + _number(4, lease_ms)
        context.set_trailing_metadata((("x-anyserve-code", "NO_CAPABILITY"),))
        return context.abort(grpc.StatusCode.NOT_FOUND, "nobody serves it")


def _varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _number(field, number):
    return _varint(field << 3) + _varint(number)


def _text(field, text):
    return _varint(field << 3 | 2) + _varint(len(text)) + text.encode()


def _texts(message):
    """Read fields of texts, none of which is longer than 127 bytes."""
    while message:
        key, size = message[0], message[1]
        yield key >> 3, message[2 : 2 + size].decode()
        message = message[2 + size :]
