"""Certificates for tests, as an operator makes them."""

import subprocess
from pathlib import Path

from tests.e2e.replicas import WATCHDOG_S


def make(folder: Path) -> Path:
    """Make certificates for localhost: ``server`` and ``client`` of the authority ``ca``, ``stranger`` of ``other``."""
    for authority in ("ca", "other"):
        openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj", f"/CN={authority}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    (folder / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        sign(folder, name, authority)
    return folder


def sign(folder: Path, name: str, authority: str, *, days: int = 2) -> None:
    """Make a certificate for localhost, with a new key, in the files of this name."""
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", str(days), "-out", f"{name}.pem", "-extfile", "extensions")  # fmt: skip


def openssl(folder: Path, *arguments: str) -> None:
    """Run the command ``openssl`` there."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=WATCHDOG_S)
