"""`anyserve workers`, `anyserve models` and `anyserve drain`: orders to a replica, and what becomes of them.

An order is sent and waited for. Meanwhile the replica's status is asked for, so that whoever waits sees what is still
in flight. An order stands from the moment it is sent: a command that is interrupted takes nothing back.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple
from urllib.parse import quote

from anyserve.cli.ask import NoAnswerError, ask
from anyserve.cli.status import Status, in_flight, ready
from anyserve.cli.tables import printable

_LOOK_S = 0.5

Say = Callable[[str], None]


class Replica(NamedTuple):
    """A replica that takes orders: where it listens, and the token that it wants to see."""

    endpoint: str
    token: str | None

    def ask(self, path: str, *, method: str = "GET", waits: bool = False) -> Any:
        """Ask an admin path.

        Args:
            path: percent-encoded.
            method: the HTTP method.
            waits: the answer may take as long as it takes.

        Raises:
            BadQuestionError: the token cannot be sent.
            NoAnswerError: the replica cannot be reached, or refuses.
        """
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return ask(self.endpoint, path, method=method, headers=headers, **({"timeout_s": None} if waits else {}))

    def status(self) -> dict[str, Any]:
        """Ask for the whole status."""
        return dict(self.ask("/admin/workers"))


class Order(NamedTuple):
    """An order: the path that it is sent to, what is seen of it in the status, and what is said when it is done."""

    path: str
    seen: Callable[[Status], str]
    done: Callable[[Mapping[str, Any]], str]


# === orders ===


def start(replica: Replica, group: str) -> Order:
    """One worker more in a group."""
    _find(replica.status(), group, workers=False)
    return _of_group(group, "start")


def scale(replica: Replica, group: str, count: int) -> Order:
    """So many workers in a group."""
    _find(replica.status(), group, workers=False)
    return _of_group(group, f"scale?workers={count}")


def end(replica: Replica, name: str, how: str) -> Order:
    """End a worker, or every worker of a group.

    Args:
        replica: whose it is.
        name: of a worker or of a group.
        how: ``drain``, or ``stop`` to end at the replica's grace what is not finished.
    """
    kind = _find(replica.status(), name)
    return Order(f"/admin/{kind}/{quote(name, safe='')}/{how}", lambda status: _held(status, name), _ended(name))


def load(model: str, count: int | None) -> Order:
    """Serve a model again."""
    path = f"/admin/models/{quote(model, safe='')}/load" + (f"?workers={count}" if count is not None else "")
    return Order(path, lambda status: _served(status, model), lambda told: _served_now(model, told, "loaded"))


def unload(model: str) -> Order:
    """Serve a model no more."""
    path = f"/admin/models/{quote(model, safe='')}/unload"
    return Order(path, lambda status: _served(status, model), lambda told: _served_now(model, told, "unloaded"))


def reload() -> Order:
    """Load the app again, new workers beside the old ones."""
    return Order("/admin/reload", _loads, lambda told: f"requests go to load {told['generation']} of the app")


def drain() -> Order:
    """Take no more requests."""
    return Order("/admin/drain", lambda status: in_flight(status["in_flight"]), lambda _: "drained: safe to stop")


# === carrying out ===


def carry_out(replica: Replica, order: Order, *, waits: bool, say: Say) -> dict[str, Any]:
    """Send an order, and say what happens until it is done.

    Args:
        replica: whom it is sent to.
        order: what is ordered.
        waits: whether it is waited for. Otherwise what is seen of it at once is said.
        say: takes a line each.

    Returns:
        The replica's answer.

    Raises:
        BadQuestionError: the token cannot be sent.
        NoAnswerError: the replica cannot be reached, or refuses.
    """
    sign = "&" if "?" in order.path else "?"
    if not waits:
        told = dict(replica.ask(f"{order.path}{sign}wait=false", method="POST"))
        say("ordered: " + (order.done(told) if told["done"] else order.seen(replica.status())))
        return told
    told = _awaited(replica, order, say)
    say(order.done(told))
    return told


def _awaited(replica: Replica, order: Order, say: Say) -> dict[str, Any]:
    ended: list[dict[str, Any] | Exception] = []

    def send() -> None:
        try:
            ended.append(dict(replica.ask(order.path, method="POST", waits=True)))
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            ended.append(error)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    try:
        _look_on(replica, order, sending, say)
    except KeyboardInterrupt:
        print("anyserve: it is not waited for any more; the order stands", file=sys.stderr)
        raise
    (end,) = ended
    if isinstance(end, Exception):
        raise end
    return end


def _look_on(replica: Replica, order: Order, sending: threading.Thread, say: Say) -> None:
    said = ""
    sending.join(_LOOK_S)
    while sending.is_alive():
        try:
            seen = order.seen(replica.status())
        except NoAnswerError:
            seen = said  # What is wrong is said by the order itself.
        if seen != said:
            say(seen)
        said = seen
        sending.join(_LOOK_S)


# === what is seen ===


def _of_group(group: str, action: str) -> Order:
    def seen(status: Status) -> str:
        return next((_group(one) for one in status["groups"] if one["name"] == group), f"{printable(group)} is gone")

    def done(told: Mapping[str, Any]) -> str:
        return _group(told["group"]) if told["group"] else f"{printable(group)} is gone"

    return Order(f"/admin/groups/{quote(group, safe='')}/{action}", seen, done)


def _group(group: Mapping[str, Any]) -> str:
    return f"{printable(group['name'])} {group['state']}: {ready(group)} workers ready"


def _held(status: Status, name: str) -> str:
    named = [one for group in status["groups"] for one in (group, *group["workers"]) if one["name"] == name]
    return f"{printable(name)}: {in_flight(sum(one['in_flight'] for one in named))}"


def _ended(name: str) -> Callable[[Mapping[str, Any]], str]:
    def done(told: Mapping[str, Any]) -> str:
        return f"{printable(name)} has ended" + (": safe to stop" if told["safe_to_stop"] else "")

    return done


def _served(status: Status, model: str) -> str:
    states = [group["state"] for group in status["groups"] if model in group["models"]]
    return f"{printable(model)}: {states[0] if states else 'not served'}"


def _served_now(model: str, told: Mapping[str, Any], what: str) -> str:
    group = told["group"]
    return f"{printable(model)} is {what}" + (f"; {_group(group)}" if group else "")


def _loads(status: Status) -> str:
    return "; ".join(_group(group) for group in status["groups"]) or "no worker group yet"


def _find(status: Status, name: str, *, workers: bool = True) -> str:
    """What a name is of, ``groups`` or ``workers``, as paths have it."""
    groups = [str(group["name"]) for group in status["groups"]]
    if name in groups:
        return "groups"
    each = [str(worker["name"]) for group in status["groups"] for worker in group["workers"]] if workers else []
    if name in each:
        return "workers"
    kind, names = ("worker and no group", each + groups) if workers else ("group", groups)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(map(printable, names)) or 'none'}"
    raise NoAnswerError(f"NOT_FOUND: there is no {kind} {name!r}; {hint}")
