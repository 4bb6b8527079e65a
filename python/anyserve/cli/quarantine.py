"""`anyserve quarantine`: what a replica refuses because it killed workers, and its release."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from anyserve.cli.ask import ask

_PATH = "/admin/quarantine"


def listed(endpoint: str, token: str | None) -> str:
    """List what is refused, a line for each fingerprint.

    Args:
        endpoint: host and port.
        token: the replica's admin token, if it has one.

    Raises:
        BadQuestionError: the token cannot be sent.
        NoAnswerError: the replica cannot be reached, or refuses.
    """
    rows = ask(endpoint, _PATH, headers=_headers(token))["quarantined"]
    return "\n".join(map(_line, rows)) or "nothing is quarantined"


def released(endpoint: str, fingerprint: str | None, token: str | None) -> str:
    """Release one fingerprint, or all with ``None``, and say how many there were.

    Args:
        endpoint: host and port.
        fingerprint: as `listed` has it.
        token: the replica's admin token, if it has one.

    Raises:
        BadQuestionError: the token cannot be sent.
        NoAnswerError: the replica cannot be reached, or refuses; or the fingerprint is not quarantined.
    """
    path = _PATH if fingerprint is None else f"{_PATH}/{quote(fingerprint, safe='')}"
    count = ask(endpoint, path, method="DELETE", headers=_headers(token))["released"]
    return f"released {count}"


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _line(one: Mapping[str, Any]) -> str:
    deaths, refused = one["deaths"], one["refused"]
    return (
        f"{one['fingerprint']}  {one['model']}: {deaths} workers died, {refused} refused since, "
        f"{one['remaining_s']:.0f} s left"
    )
