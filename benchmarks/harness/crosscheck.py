"""A second opinion on requests per second: h2load for gRPC, wrk for HTTP/1.1."""

import re
import shutil
import subprocess
from pathlib import Path

from harness.generator import Generator
from harness.requests import content_type, http_body, request_arguments
from harness.server import Server
from harness.workloads import Workload

TOOLS = {"h2load": "nghttp2-client", "wrk": "wrk"}
"""Programs and the Debian packages that carry them."""

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def missing_tools() -> list[str]:
    """Give the packages whose programs are not on the path."""
    return [package for program, package in TOOLS.items() if shutil.which(program) is None]


def install_tools() -> None:
    """Install what is missing from Debian's archive."""
    if missing := missing_tools():
        subprocess.run(["apt-get", "install", "--yes", "--quiet", *missing], check=True)


def cross_check(server: Server, workload: Workload, generator: Generator, seconds: float) -> float | None:
    """Give the other tool's requests per second, or None if it is not there or has none."""
    program = "wrk" if server.peer.protocol == "HTTP" else "h2load"
    if shutil.which(program) is None:
        return None
    command = _wrk if program == "wrk" else _h2load
    duration = max(1, round(seconds))
    done = subprocess.run(command(server, workload, generator, duration), capture_output=True, text=True)
    return requests_per_s(done.stdout)


def requests_per_s(output: str) -> float | None:
    """Read what h2load (``12.5 req/s``) or wrk (``Requests/sec: 12.5``) printed."""
    found = re.search(r"([\d.]+) req/s|Requests/sec:\s+([\d.]+)", output)
    return float(found[1] or found[2]) if found else None


def _h2load(server: Server, workload: Workload, generator: Generator, seconds: int) -> list[str]:
    message = server.directory / "message"
    request = request_arguments(server.peer, workload, server.port, server.directory)
    generator.save_request(request, message)
    load = ["-t", "1", "-c", "1", "-m", str(workload.in_flight)]
    timing = ["-D", str(seconds), "--warm-up-time", "1"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://127.0.0.1:{server.port}{_METHOD}"
    return ["h2load", *load, *timing, *headers, "-d", str(message), url]


def _wrk(server: Server, workload: Workload, _: Generator, seconds: int) -> list[str]:
    body = http_body(server.peer, workload, server.directory)
    script = server.directory / "post.lua"
    script.write_text(_post_script(body, content_type(server.peer)))
    load = ["-t", "1", "-c", str(workload.in_flight), "-d", str(seconds)]
    return ["wrk", *load, "-s", str(script), f"http://127.0.0.1:{server.port}{server.peer.path}"]


def _post_script(body: Path, kind: str) -> str:
    return (
        f'local body = io.open("{body}", "rb")\n'
        'wrk.method = "POST"\n'
        'wrk.body = body:read("*a")\n'
        f'wrk.headers["Content-Type"] = "{kind}"\n'
    )
