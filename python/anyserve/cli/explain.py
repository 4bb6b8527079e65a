"""`anyserve explain`: the question that is put to a replica or an API server, and its answer as text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from anyserve.cli.ask import BadQuestionError, ask
from anyserve.cli.fleet import explained, is_of_fleet
from anyserve.cli.tables import aligned

_SIGNS = re.compile(r"[=!<>(),\"]|\s(in|notin)\s")
_WORD = re.compile(r"[A-Za-z0-9_\-./:@+]+")

_COLUMNS = ("capability", "function", "group", "health", "queue", "in flight", "wait", "")


def explanation(
    endpoint: str, conditions: Sequence[str], *, name: str | None, priority: int | None, tenant: str | None
) -> dict[str, Any]:
    """Ask what would become of a request now.

    Args:
        endpoint: host and port.
        conditions: each ``KEY=VALUE`` or a selector, all of which must hold; one bare word alone is a model name.
        name: a model name.
        priority: of the request, 1 first to 8 last; ``None`` for the capability's own.
        tenant: whose request it is.

    Returns:
        The replica's answer: its query, its decision and its candidates.

    Raises:
        BadQuestionError: nothing is asked for, or it cannot be sent.
        NoAnswerError: the replica cannot be reached, or refuses.
    """
    headers = {"x-priority": priority, "x-tenant": tenant}
    given = {header: str(value) for header, value in headers.items() if value is not None}
    answer = ask(endpoint, "/explain?" + query(conditions, name), headers=given)
    return dict(answer)


def query(conditions: Sequence[str], name: str | None = None) -> str:
    """Write what is asked for as the query of a URL."""
    if name is None and len(conditions) == 1 and not _SIGNS.search(conditions[0]):
        name, conditions = conditions[0], []
    pairs = {"selector": ",".join(map(_condition, conditions)), "name": name}
    given = {key: value for key, value in pairs.items() if value}
    if not given:
        raise BadQuestionError("nothing is asked for; write KEY=VALUE, such as type=chat, or --name MODEL")
    return urlencode(given, quote_via=quote)


def _condition(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not key or not equals or _SIGNS.search(key) or _SIGNS.search(value):
        return argument
    return f"{_quoted(key)}={_quoted(value)}"


def _quoted(text: str) -> str:
    if _WORD.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\") + '"'


def shown(answer: Mapping[str, Any]) -> str:
    """Write an explanation: what is decided, then a line for each candidate, the chosen one marked."""
    if is_of_fleet(answer):
        return explained(answer)
    candidates = answer["candidates"]
    lines = [f"{answer['query']} {_decided(answer['decision'])}"]
    if candidates:
        lines += ["", *aligned([("", *_COLUMNS), *map(_row, candidates)])]
    if more := answer.get("more"):
        lines.append(f"and {more} more")
    return "\n".join(lines)


def _decided(decision: Mapping[str, Any]) -> str:
    if decision["kind"] == "run":
        return f"goes to {decision['worker']} at once"
    if decision["kind"] == "wait":
        ahead = decision["ahead"]
        behind = f"behind {ahead} other{'' if ahead == 1 else 's'}" if ahead else "for the next free place"
        return f"waits {behind}, about {_time(decision['expected_wait_ms'])}"
    again = decision.get("retry_after_ms")
    return f"is refused with {decision['code']}: {decision['message']}" + (
        f"; again in {_time(again)}" if again else ""
    )


def _row(candidate: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "→" if candidate["chosen"] else "",
        candidate["capability"],
        candidate["function"],
        candidate["group"],
        candidate["health"],
        f"{candidate['queued']}/{candidate['max_queue']}",
        f"{candidate['in_flight']} on {candidate['workers']}",
        _time(candidate["expected_wait_ms"]),
        _matched(candidate),
    )


def _matched(candidate: Mapping[str, Any]) -> str:
    if not candidate["matches"]:
        return f"no: {candidate['why']}"
    others = candidate["unmentioned"]
    return f"matches, with {others} other key{'' if others == 1 else 's'}" if others else "matches"


def _time(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"
