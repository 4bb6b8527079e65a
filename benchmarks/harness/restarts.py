"""How long a peer needs from the death of its only worker to its next answer."""

import http.client
import json
import os
import signal
import struct
import time
from pathlib import Path

from harness.environments import PeerUnavailable
from harness.server import Server

LIMIT_S = 60.0


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
    """The process that runs the handler: of all below the server, the one that has worked during many requests.

    Raises:
        PeerUnavailable: no process below the server did any work.
    """
    before = {pid: worked(pid) for pid in below(server.pid)}
    for _ in range(200):
        answers(server)
    spent = {pid: worked(pid) - before[pid] for pid in before if is_python(pid)}
    if not spent or max(spent.values()) == 0:
        raise PeerUnavailable("no process of it could be told to be its worker")
    return max(spent, key=lambda pid: spent[pid])


def answers(server: Server) -> bool:
    """Whether one request is answered well."""
    body = json.dumps({"x": [1.0] * 16}).encode() if server.peer.body == "json" else struct.pack("<16f", *[1.0] * 16)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    try:
        connection.request("POST", server.peer.path, body, {"content-type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def below(pid: int) -> set[int]:
    """Every process below one."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found |= {int(child)} | below(int(child))
    return found


def worked(pid: int) -> int:
    """Ticks of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_python(pid: int) -> bool:
    """Whether a process is an interpreter."""
    return "python" in Path(f"/proc/{pid}/exe").readlink().name
