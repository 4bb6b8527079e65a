"""Where peers live: a virtual environment each, made when first needed and kept."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / ".peers"
_STAMP = "benchmark-requirements.json"


class PeerUnavailable(Exception):
    """A peer cannot be measured here; the text says why and goes into the table."""


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """Give the virtual environment with these requirements, installing it if need be.

    Raises:
        PeerUnavailable: the environment cannot be made or the packages not installed.
    """
    home = PEERS / name
    stamp = home / _STAMP
    wanted = json.dumps([sys.version, *requirements])
    if stamp.exists() and stamp.read_text() == wanted:
        return home
    shutil.rmtree(home, ignore_errors=True)
    _install(home, requirements)
    stamp.write_text(wanted)
    return home


@functools.cache
def installed_anyserve() -> Path:
    """Build and install this repository's AnyServe, once in a run, and give its command.

    Raises:
        PeerUnavailable: the build failed.
    """
    home = PEERS / "anyserve"
    _install(home, (str(ROOT),))
    return home / "bin" / "anyserve"


def site_packages(home: Path) -> Path:
    """Give the directory a virtual environment's packages are in."""
    return home / "lib" / f"python{python_version()}" / "site-packages"


def release_of(home: Path, package: str) -> str:
    """Give the release of a package that is installed in a virtual environment."""
    found = site_packages(home).glob(f"{package.replace('-', '_')}-*.dist-info")
    return next((path.name.removesuffix(".dist-info").rpartition("-")[2] for path in found), "none")


def python_version() -> str:
    """Give the interpreter's version as in ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def build_generator() -> Path:
    """Build the load generator from this repository and give its path.

    Raises:
        PeerUnavailable: the build failed.
    """
    command = ["cargo", "build", "--quiet", "--release", "-p", "anyserve-bench"]
    _run(command, "the load generator cannot be built")
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    target = Path(json.loads(metadata.stdout)["target_directory"])
    return target / "release" / "anyserve-bench"


def _install(home: Path, requirements: tuple[str, ...]) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(home)], "no virtual environment")
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, *requirements], "not installable here")


def _run(command: list[str], problem: str) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise PeerUnavailable(f"{problem}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise PeerUnavailable(f"{problem}: {last}")
