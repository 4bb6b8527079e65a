"""The status of a replica or an API server as tables, and the rates that two of them give."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from anyserve.cli import fleet
from anyserve.cli.tables import Table, aligned, counted, printable

Status = Mapping[str, Any]

_NONE = "–"


def spaced(statuses: Iterable[Status], interval_s: float) -> Iterator[tuple[Status, dict[str, float]]]:
    """Take of statuses that come every second one each interval, with the rates since the one before.

    Args:
        statuses: in the order in which they come.
        interval_s: seconds between two that are taken; they come once a second.
    """
    before: Status | None = None
    due = 0.0
    for status in statuses:
        # They come on the second, give or take what the network adds.
        if before is not None and time.monotonic() < due - 0.5:
            continue
        yield status, rates(before, status)
        before, due = status, time.monotonic() + interval_s


def rates(before: Status | None, now: Status) -> dict[str, float]:
    """Requests that ended in a second, by group; nothing for a group that was not there before."""
    if fleet.is_of_fleet(now):
        return {}
    passed = now["uptime_s"] - before["uptime_s"] if before else 0
    if before is None or passed <= 0:
        return {}
    known = {_key(group): _ended(group) for group in before["groups"]}
    ended = {_key(group): _ended(group) for group in now["groups"] if _key(group) in known}
    # A count that is smaller than it was has begun anew.
    return {key: (count - known[key] if count >= known[key] else count) / passed for key, count in ended.items()}


def _key(group: Mapping[str, Any]) -> str:
    # A group of an earlier load of the app may have the name of a newer one.
    return f"{group['state'] == 'leaving'} {group['name']}"


def _ended(group: Mapping[str, Any]) -> int:
    return int(group["succeeded"]) + int(group["failed"])


def headline(status: Status) -> str:
    """Say in a line what the replica or the API server does."""
    if fleet.is_of_fleet(status):
        return fleet.headline(status, seconds(status["uptime_s"]))
    phase = "draining" if status["draining"] else "serving"
    phase = "drained: safe to stop" if status["safe_to_stop"] else phase
    load = f"load {status['generation']} of the app"
    return f"{phase}, up for {seconds(status['uptime_s'])}, {load}, {status['in_flight']} in flight"


def tables(status: Status, rate: Mapping[str, float]) -> list[Table]:
    """Lay out groups, workers and resources, or replicas; what there is none of is left out."""
    of_fleet = fleet.is_of_fleet(status)
    all_tables = [fleet.replicas(status)] if of_fleet else [groups(status, rate), workers(status), _resources(status)]
    return [table for table in all_tables if table.rows]


def text(status: Status, rate: Mapping[str, float]) -> str:
    """Write the status as plain lines."""
    blocks = [aligned([table.columns, *table.rows]) for table in tables(status, rate)]
    return "\n\n".join(["\n".join(lines) for lines in [[headline(status)], *blocks]])


def groups(status: Status, rate: Mapping[str, float]) -> Table:
    """Lay out the worker groups."""
    columns = ("group", "state", "workers", "queued", "in flight", "oldest wait", "rate", "answered", "failed",
               "restarts", "start takes", "needs", "models")  # fmt: skip
    return Table(columns, [_group(group, rate.get(_key(group))) for group in status["groups"]])


def _group(group: Mapping[str, Any], rate: float | None) -> tuple[str, ...]:
    return (
        printable(group["name"]),
        group["state"],
        ready(group),
        str(group["queued"]),
        str(group["in_flight"]),
        _ms(group["oldest_wait_ms"]),
        _NONE if rate is None else f"{rate:.0f}/s" if rate >= 100 else f"{rate:.1f}/s",
        str(group["succeeded"]),
        str(group["failed"]),
        str(group["restarts"]),
        _ms(group["start_time_ms"]),
        _needs(group["needs"]),
        printable(", ".join(group["models"])),
    )


def ready(group: Mapping[str, Any]) -> str:
    """Say how many of a group's workers are ready, and how many there may be."""
    all_workers = group["workers"]
    count = sum(worker["state"] == "ready" for worker in all_workers)
    least, most = group["min_workers"], group["max_workers"]
    bounds = "" if least == most == len(all_workers) else f" ({least}–{most})" if least != most else f" ({most})"
    return f"{count}/{len(all_workers)}{bounds}"


def workers(status: Status) -> Table:
    """Lay out the workers of all groups."""
    columns = ("worker", "group", "state", "for", "pid", "in flight", "gpus", "memory", "detail")
    return Table(columns, [_worker(worker, group) for group in status["groups"] for worker in group["workers"]])


def _worker(worker: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        printable(worker["name"]),
        printable(group["name"]),
        worker["state"],
        seconds(worker["since_s"]),
        _NONE if worker["pid"] is None else str(worker["pid"]),
        str(worker["in_flight"]),
        printable(", ".join(worker["gpus"])) or _NONE,
        _bytes(worker["memory_bytes"]),
        printable(worker["detail"]),
    )


def _resources(status: Status) -> Table:
    rows = [(printable(one["name"]), str(one["used"]), str(one["total"])) for one in status["resources"]]
    if store := status["objects"]:
        rows.append(("object store", _bytes(store["used_bytes"]), _bytes(store["capacity_bytes"])))
    return Table(("resource", "used", "of"), rows)


def models(status: Status) -> Table:
    """Lay out the models, each with the group that serves it."""
    rows = [
        (printable(model), group["state"], printable(group["name"]), ready(group))
        for group in status["groups"]
        for model in group["models"]
    ]
    return Table(("model", "state", "group", "workers"), rows)


def said(table: Table, nothing: str) -> str:
    """Write one table as lines, or a sentence if it has no rows."""
    return "\n".join(aligned([table.columns, *table.rows])) if table.rows else nothing


def _needs(needs: Mapping[str, Any]) -> str:
    tokens = [f"{amount} {printable(name)}" for name, amount in needs["tokens"].items() if amount]
    gpus = [f"{needs['gpus']} gpu"] if needs["gpus"] else []
    return ", ".join(gpus + tokens) or _NONE


def in_flight(number: int) -> str:
    """Say how much is in flight."""
    return f"{counted(number, 'request')} in flight" if number else "nothing in flight"


def seconds(value: float) -> str:
    """Say a time with the unit that fits it."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes = int(value // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d"


def _ms(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.3g} ms" if value < 1000 else seconds(value / 1000)


def _bytes(value: float | None) -> str:
    if value is None:
        return _NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
