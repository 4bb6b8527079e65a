"""What the handlers of a storm have started, from the files that their workers have left."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path


def read(notes: Path) -> dict[str, list[int]]:
    """The attempts with which each request was started."""
    found: dict[str, list[int]] = defaultdict(list)
    for path in notes.glob("executions-*"):
        for line in path.read_text().splitlines():
            request, attempt = line.rsplit(" ", 1)
            found[request].append(int(attempt))
    return found


def run_twice(started: Mapping[str, list[int]], idempotent: Iterable[str]) -> list[str]:
    """Requests that were started more often than the promise allows.

    Args:
        started: as `read` gives it.
        idempotent: how the ids of requests begin that may be started once for every attempt.
    """
    prefixes = tuple(idempotent)

    def too_often(request: str, attempts: list[int]) -> bool:
        most = len(set(attempts)) if request.startswith(prefixes) else 1
        return len(attempts) > most

    return [f"{request}: {attempts}" for request, attempts in started.items() if too_often(request, attempts)]


def unknown_answers(started: Mapping[str, list[int]], attempts: Mapping[str, int]) -> list[str]:
    """Answered requests that no handler has started, or that say another number of attempts than the last start."""
    last = {request: max(found) for request, found in started.items()}
    return [
        f"{request}: answered with attempt {told}, last started with {last.get(request)}"
        for request, told in attempts.items()
        if request not in last or told != last[request]
    ]
