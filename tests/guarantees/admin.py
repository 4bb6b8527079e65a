"""The replica's list of what it refuses, as an operator reads it."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.e2e.replicas import WATCHDOG_S, Replica

PATH = "/admin/quarantine"


def ask(served: Replica, path: str = PATH, *, method: str = "GET", token: str | None = None) -> tuple[int, Any]:
    """Status and JSON of a request to an admin path."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://{served.endpoint}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=WATCHDOG_S) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def quarantined(served: Replica) -> list[dict[str, Any]]:
    """The fingerprints that are refused, with what is told of each."""
    status, body = ask(served)
    assert status == 200, body
    rows = body["quarantined"] if isinstance(body, dict) else body
    assert isinstance(rows, list), body
    return rows
