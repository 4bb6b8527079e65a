"""How long a peer needs from the death of its only worker to its next answer."""

import http.client
import json
import os
import signal
import struct
import time

from harness.environments import PeerUnavailable
from harness.server import Server

LIMIT_S = 60.0
PATIENCE_S = 1.0
"""How long one answer is waited for: what a dead worker had taken may never be answered."""


def restart_of(server: Server) -> float:
    """Kill a peer's worker and give the seconds until a request is answered well.

    Raises:
        PeerUnavailable: it has no worker that could be told apart, or never answers again.
    """
    worker = worker_of(server)
    began = time.perf_counter()
    os.kill(worker, signal.SIGKILL)
    while not answers(server):
        if time.perf_counter() - began > LIMIT_S:
            raise PeerUnavailable(f"its only worker was killed, and it did not answer again in {LIMIT_S:.0f} s")
        if not server.runs():
            raise PeerUnavailable("its only worker was killed, and the server ended")
    return time.perf_counter() - began


def worker_of(server: Server) -> int:
    """The process that runs the handler, as it says itself.

    Raises:
        PeerUnavailable: it said nothing.
    """
    told = server.directory / "worker.pid"
    if not told.exists():
        raise PeerUnavailable("its worker did not say which process it is")
    return int(told.read_text())


def answers(server: Server) -> bool:
    """Whether one request is answered well."""
    body = json.dumps({"x": [1.0] * 16}).encode() if server.peer.body == "json" else struct.pack("<16f", *[1.0] * 16)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    try:
        connection.request("POST", server.peer.path, body, {"content-type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
