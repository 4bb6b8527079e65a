"""What an API server tells of its replicas, as text: its status, and what would become of a request."""

from collections.abc import Mapping
from typing import Any

from anyserve.cli.tables import Table, aligned, counted, printable

_COLUMNS = ("replica", "capability", "standing", "pending", "wait", "")
_NONE = "–"


def is_of_fleet(told: Mapping[str, Any]) -> bool:
    """Whether this was told by an API server, and not by a replica."""
    return "policy" in told


def headline(status: Mapping[str, Any], up_for: str) -> str:
    """Say in a line what the API server does."""
    phase = "draining" if status["draining"] else "serving"
    store = ", store disconnected" if status["store"] == "disconnected" else ""
    wrong = [f", {count} {state}" for state, count in status["states"].items() if state != "up" and count]
    replicas = f"{status['up']} of {counted(status['count'], 'replica')} up{''.join(wrong)}"
    return f"{phase}{store}, up for {up_for}, {replicas}, policy {status['policy']}, {status['in_flight']} in flight"


def replicas(status: Mapping[str, Any]) -> Table:
    """Lay out the replicas: those that are not up are first. What there are more of is counted in the last row."""
    columns = ("replica", "state", "pending", "slots", "lease", "endpoint", "capabilities")
    rows = [_replica(one) for one in status["replicas"]]
    if more := status["count"] - len(rows):
        rows.append((f"and {more} more", *[""] * (len(columns) - 1)))
    return Table(columns, rows)


def _replica(one: Mapping[str, Any]) -> tuple[str, ...]:
    serves = [f"{printable(each['capability'])} ({each['standing']})" for each in one["capabilities"]]
    serves += [f"{one['more']} more"] if one["more"] else []
    return (
        printable(one["id"]),
        f"{one['state']}: {printable(one['why'])}" if one["why"] else one["state"],
        str(one["pending"]),
        str(one["slots"]),
        f"{one['lease_s']:.1f} s",
        printable(one["endpoint"]),
        ", ".join(serves) or _NONE,
    )


def explained(answer: Mapping[str, Any]) -> str:
    """Write an explanation: what is decided, then a line for each candidate, the chosen one marked."""
    candidates = answer["candidates"]
    lines = [f"{answer['query']} {_decided(answer['decision'], answer['policy'])}"]
    if upgrade := answer.get("upgrade"):
        lines[0] += f", whose rule makes {printable(upgrade)} of it"
    if candidates:
        lines += ["", *aligned([("", *_COLUMNS), *map(_row, candidates)])]
    if more := answer.get("more"):
        lines.append(f"and {more} more")
    return "\n".join(lines)


def _decided(decision: Mapping[str, Any], policy: str) -> str:
    if decision["kind"] == "send":
        return f"goes to {printable(decision['replica'])} on {printable(decision['endpoint'])}, says {policy}"
    if decision["kind"] == "try":
        return f"is claimed by nobody; the most promising replica gets it once: {printable(decision['replica'])}"
    return f"is refused with {decision['code']}: {printable(decision['message'])}"


def _row(candidate: Mapping[str, Any]) -> tuple[str, ...]:
    wait = candidate["expected_wait_ms"]
    return (
        "→" if candidate["chosen"] else "",
        printable(candidate["replica"]),
        printable(candidate["capability"]),
        candidate["standing"],
        f"{candidate['pending']} on {candidate['slots']}",
        f"{wait / 1000:.3g} s" if wait >= 1000 else f"{wait:.3g} ms",
        "matches" if candidate["matches"] else f"no: {printable(candidate['why'])}",
    )
