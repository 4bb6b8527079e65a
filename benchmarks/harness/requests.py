"""The generator's arguments for a peer's request."""

import json
import struct
from pathlib import Path

from harness.peers import Peer
from harness.workloads import TOKENS, Workload


def request_arguments(peer: Peer, workload: Workload, port: int, directory: Path) -> list[str]:
    """Give the arguments after ``anyserve bench`` that send the workload's request to the peer."""
    if peer.protocol == "HTTP":
        body = http_body(peer, workload, directory)
        arguments = ["http", f"http://127.0.0.1:{port}{peer.path}", "--payload", str(body)]
        return [*arguments, "--content-type", content_type(peer), "--check-echo"]
    tensor = f"x:FP32:{workload.elements}"
    if workload.kind == "tokens":
        answers = f"answers={TOKENS}"
        stream = ["stream", f"127.0.0.1:{port}", "--model", "tokens", "--input", tensor]
        return [*stream, "--parameter", answers]
    return ["unary", f"127.0.0.1:{port}", "--model", "echo", "--input", tensor, "--check-echo"]


def content_type(peer: Peer) -> str:
    """Give the content type of the peer's requests."""
    return "application/json" if peer.body == "json" else "application/octet-stream"


def http_body(peer: Peer, workload: Workload, directory: Path) -> Path:
    """Write the request's body to a file and give its path."""
    values = [float(index % 128) for index in range(workload.elements)]
    path = directory / f"body-{workload.kind}"
    if peer.body == "json":
        path.write_text(json.dumps({"x": values}, separators=(",", ":")))
    else:
        path.write_bytes(struct.pack(f"<{len(values)}f", *values))
    return path
