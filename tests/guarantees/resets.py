"""A client that breaks its connection in the middle of requests: HTTP/2 by hand, then a TCP reset."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
HEADERS, DATA = 1, 0
END_STREAM, END_HEADERS = 1, 4
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s


def connect(endpoint: str) -> socket.socket:
    """Connect without HTTP/2's greeting."""
    host, _, port = endpoint.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def begin(endpoint: str, messages: list[bytes], timeout_ms: int) -> socket.socket:
    """Send requests; the last one's message stops in its middle."""
    connection = connect(endpoint)
    connection.sendall(PREFACE + SETTINGS)
    for place, message in enumerate(messages):
        stream, body = 2 * place + 1, struct.pack(">BI", 0, len(message)) + message
        cut = place == len(messages) - 1
        connection.sendall(frame(HEADERS, END_HEADERS, stream, headers(endpoint, timeout_ms)))
        connection.sendall(frame(DATA, 0 if cut else END_STREAM, stream, body[: len(body) // 2] if cut else body))
    return connection


def reset(connection: socket.socket) -> None:
    """End a connection with a reset instead of a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def headers(endpoint: str, timeout_ms: int) -> bytes:
    """The headers of a call to ModelInfer: literals that enter no table and are not compressed."""
    pairs = {
        ":method": "POST", ":scheme": "http", ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": endpoint, "content-type": "application/grpc", "te": "trailers", "grpc-timeout": f"{timeout_ms}m",
    }  # fmt: skip
    return b"".join(b"\0" + text(name) + text(value) for name, value in pairs.items())


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body
