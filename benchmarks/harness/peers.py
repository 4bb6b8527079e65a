"""The servers compared, each with its own way to be installed, started and called."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.environments import ROOT, environment, installed_anyserve, python_version, site_packages
from harness.workloads import Kind

APPS = ROOT / "benchmarks" / "apps"


@dataclass(frozen=True)
class Tools:
    """Programs of this repository that peers are started from."""

    generator: list[str]
    anyserve: Path | None


@dataclass(frozen=True)
class Place:
    """What one start of a peer is given: free ports and an empty directory of its own."""

    ports: tuple[int, int, int]
    directory: Path
    tools: Tools


@dataclass(frozen=True)
class Command:
    """How to start a process."""

    argv: list[str]
    extra_env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A server with one echo worker."""

    key: str
    label: str
    kinds: frozenset[Kind]
    start: Callable[[Place], Command]
    protocol: Literal["gRPC", "HTTP"] = "gRPC"
    path: str = ""
    body: Literal["raw", "json"] = "raw"


def _ceiling(place: Place) -> Command:
    return Command([*place.tools.generator, "ceiling", "--port", str(place.ports[0])])


def anyserve(app: str, *options: str) -> Callable[[Place], Command]:
    def start(place: Place) -> Command:
        program = place.tools.anyserve or installed_anyserve()
        target = f"{APPS / app}:app"
        return Command([str(program), "serve", target, "--port", str(place.ports[0]), "--workers", "1", *options])

    return start


def _mosec(app: str) -> Callable[[Place], Command]:
    def start(place: Place) -> Command:
        python = environment("mosec", ("mosec", "numpy")) / "bin" / "python"
        listen = ["--address", "127.0.0.1", "--port", str(place.ports[0])]
        return Command([str(python), str(APPS / app), *listen, "--log-level", "warning"])

    return start


def _litserve(*options: str) -> Callable[[Place], Command]:
    def start(place: Place) -> Command:
        python = environment("litserve", ("litserve", "numpy")) / "bin" / "python"
        return Command([str(python), str(APPS / "echo_litserve.py"), str(place.ports[0]), *options])

    return start


def triton_environment() -> Path:
    """Give the virtual environment with Triton, its client, and NumPy."""
    return environment("pytriton", ("nvidia-pytriton", "numpy<2"))


def triton(place: Place) -> Command:
    """Start Triton with its python backend."""
    home = triton_environment()
    packages = site_packages(home)
    server = packages / "pytriton" / "tritonserver"
    backends = _triton_backends(server, packages, place.directory)
    return Command(
        [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={APPS / 'triton'}",
            f"--backend-directory={backends}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={place.ports[0]}",
            "--allow-http=false",
            "--allow-metrics=false",
        ],
        {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs")},
    )


def _triton_backends(server: Path, packages: Path, directory: Path) -> Path:
    """Lay out a backend directory: the wheel keeps the stubs apart, one per Python version.

    The stub embeds the system's Python and finds NumPy only beside the backend.
    """
    backend = directory / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    stub = server / "python_backend_stubs" / python_version() / "triton_python_backend_stub"
    shutil.copy(stub, backend)
    (backend / stub.name).chmod(0o755)
    for package in ("numpy", "numpy.libs"):
        (backend / package).symlink_to(packages / package)
    return backend.parent


def _mlserver(workers: int) -> Callable[[Place], Command]:
    def start(place: Place) -> Command:
        home = environment("mlserver", ("mlserver", "uvloop<0.22"))
        shutil.copytree(APPS / "mlserver", place.directory, dirs_exist_ok=True)
        _write_mlserver_settings(place, workers)
        return Command(
            [str(home / "bin" / "mlserver"), "start", str(place.directory)],
            {"PYTHONPATH": str(place.directory)},
        )

    return start


def _write_mlserver_settings(place: Place, workers: int) -> None:
    grpc, http, metrics = place.ports
    settings = {
        "host": "127.0.0.1",
        "grpc_port": grpc,
        "http_port": http,
        "metrics_port": metrics,
        "parallel_workers": workers,
        "debug": False,
    }
    (place.directory / "settings.json").write_text(json.dumps(settings))


def inherited_env() -> dict[str, str]:
    """Give this process's environment without what would leak one Python into another."""
    leaks = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {key: value for key, value in os.environ.items() if key not in leaks}


_ECHO: frozenset[Kind] = frozenset({"small", "large"})
_ALL: frozenset[Kind] = frozenset({"small", "large", "tokens"})
_SMALL: frozenset[Kind] = frozenset({"small"})
_TOKENS: frozenset[Kind] = frozenset({"tokens"})
_BATCH: frozenset[Kind] = frozenset({"batch"})

PEERS = (
    Peer("ceiling", "(a) empty tonic server, no workers", _ALL, _ceiling),
    Peer("anyserve", "(b) AnyServe", _ECHO, anyserve("echo_anyserve.py")),
    Peer("anyserve-tokens", "(b) AnyServe", _TOKENS, anyserve("tokens_anyserve.py")),
    Peer("mosec", "(c) mosec", _ECHO, _mosec("echo_mosec.py"), protocol="HTTP", path="/inference"),
    Peer("anyserve-batch", "(b) AnyServe", _BATCH, anyserve("batch_anyserve.py")),
    Peer("mosec-batch", "(c) mosec", _BATCH, _mosec("batch_mosec.py"), protocol="HTTP", path="/inference"),
    Peer("triton", "(d) Triton, python backend", _ECHO, triton),
    Peer("mlserver", "(e) MLServer, 1 worker", _SMALL, _mlserver(1)),
    Peer("mlserver0", "(e) MLServer, in process", _SMALL, _mlserver(0)),
    Peer("litserve", "(f) LitServe", _SMALL, _litserve(), "HTTP", "/predict", "json"),
)

RESTARTING = (
    Peer("mosec", "mosec", _ECHO, _mosec("echo_mosec.py"), protocol="HTTP", path="/inference"),
    Peer(
        "litserve", "LitServe, restart_workers=True", _SMALL, _litserve("--restart-workers"), "HTTP", "/predict", "json"
    ),
)
"""Peers whose one worker is to be killed."""
