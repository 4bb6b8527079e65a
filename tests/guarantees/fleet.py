"""Replicas of one API server whose capabilities and rules the test chooses."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.e2e.api_servers import ApiServer
from tests.e2e.replicas import Replica, until

APP = "tests/guarantees/apps/told.py:app"


def join(
    start: Callable[..., Replica],
    server: ApiServer | Sequence[ApiServer],
    name: str,
    *capabilities: dict[str, str],
    upgrade: Sequence[str] = (),
    part_s: float = 0,
    urls: Sequence[str] | None = None,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> Replica:
    """Start a replica and wait until every API server knows it; `urls` are theirs as the replica sees them."""
    all_servers = [server] if isinstance(server, ApiServer) else server
    told = {
        "TOLD_NAME": name, "TOLD_CAPABILITIES": json.dumps(capabilities), "TOLD_UPGRADE": json.dumps(list(upgrade)),
        "TOLD_PART_S": str(part_s), **(env or {}),
    }  # fmt: skip
    announced = [part for url in urls or [one.url for one in all_servers] for part in ("--api-server", url)]
    served = start(APP, *announced, "--replica-id", name, *flags, env=told, **more)
    for one in all_servers:
        knows(one, name)
    return served


def knows(server: ApiServer, name: str) -> None:
    """Wait until an API server knows a replica, as it is now."""
    until(lambda: name in server.replicas(), f"replica {name} in the registry")


def by(answer: Any) -> str:
    """Who has answered."""
    return text(answer, "by")


def text(answer: Any, output: str) -> str:
    """The one text of an output."""
    found: str = answer[output][0].decode()
    return found
