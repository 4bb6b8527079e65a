"""Echoes of large tensors: the ways there are for one to get to a handler and back, and how long each takes."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.environments import PeerUnavailable
from harness.generator import Generator
from harness.peers import APPS, Peer, Tools, anyserve, triton
from harness.server import Server
from harness.stores import run

APP = "objects_anyserve.py"
_COMMON = ("--max-message-mb", "2048")
_INLINE_MOST = 1 << 29
"""Bytes of the largest tensor that is sent in a message."""


def replica(key: str, *options: str) -> Peer:
    """Give a replica of the app with these options."""
    return Peer(f"objects-{key}", "AnyServe", frozenset(), anyserve(APP, *_COMMON, *options))


SOCKET = replica("socket", "--object-store", "0")
ARENA = replica("arena", "--client-shm")
ALWAYS = replica("always", "--object-threshold", "1")
TRITON = Peer("objects-triton", "Triton", frozenset(), triton)


@dataclass(frozen=True)
class Way:
    """One way for a tensor to travel. With ``regions`` it is in memory that the client shares, else in the message.

    The handler ``echo`` gives its input back, ``copy`` a new array.
    """

    key: str
    label: str
    server: Peer
    regions: int = 0
    model: str = "echo"

    def takes(self, size: int) -> bool:
        """Whether a tensor of so many bytes can go this way."""
        return self.regions > 0 or size <= _INLINE_MOST


WAYS = (
    Way("socket", "message, worker socket", SOCKET),
    Way("arena", "message, arena", ARENA),
    Way("shm1", "shared memory, in place", ARENA, regions=1),
    Way("shm2", "shared memory, two regions", ARENA, regions=2),
    Way("triton", "Triton, message", TRITON),
    Way("triton-shm1", "Triton, shared memory, in place", TRITON, regions=1),
    Way("triton-shm2", "Triton, shared memory, two regions", TRITON, regions=2),
)
CROSSINGS = (
    (Way("never-echo", "echo, worker socket", SOCKET), Way("always-echo", "echo, arena", ALWAYS)),
    (
        Way("never-copy", "copy, worker socket", SOCKET, model="copy"),
        Way("always-copy", "copy, arena", ALWAYS, model="copy"),
    ),
)
"""Socket and arena, for each handler."""


@dataclass(frozen=True)
class Caller:
    """Calls servers: the load generator where tensors are in messages, Triton's client where they are shared."""

    generator: Generator
    client: Path
    seconds: float

    def echo(self, way: Way, port: int, size: int) -> float:
        """Give the median time of an echo in microseconds, one at a time.

        Raises:
            PeerUnavailable: there was no answer, or it was no echo.
        """
        if way.regions:
            script = APPS / "objects_client.py"
            command = [self.client, script, "echo", f"127.0.0.1:{port}", self.seconds, size, way.regions]
            return median(run(command)) * 1e6
        request = ["unary", f"127.0.0.1:{port}", "--model", way.model, "--input", f"x:FP32:{size // 4}"]
        report = self.generator.measure([*request, "--check-echo"], 1)
        if "error" in report or report.get("errors") or not report.get("latency_us"):
            raise PeerUnavailable(report.get("error") or f"{report.get('errors')} requests failed")
        p50: float = report["latency_us"]["p50"]
        return p50


@contextmanager
def serving(tools: Tools, generator: Generator, servers: set[Peer]) -> Iterator["Ports"]:
    """Start servers side by side and give their ports.

    They are called in turns, one at a time: what is not called does nothing.
    """
    with ExitStack() as stack:
        ports = Ports()
        for peer in sorted(servers, key=lambda peer: peer.key):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anyserve-bench-")))
            try:
                server = stack.enter_context(Server(peer, tools, directory))
                server.wait_until_it_answers(generator)
                ports[peer] = server.port
            except PeerUnavailable as reason:
                ports.reasons[peer] = reason
        yield ports


class Ports(dict[Peer, int]):
    """Ports of servers that run. Asking for that of one that did not start raises why."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[Peer, PeerUnavailable] = {}

    def __missing__(self, peer: Peer) -> int:
        raise self.reasons[peer]
