"""Upgrade rules: what a query may become where nothing serves it as it is.

A rule reads ``key=value -> key=value``, with any number of pairs on either side. `_core` knows what is one.
"""

from collections.abc import Iterable, Mapping, Sequence

from anyserve._core import check_upgrades
from anyserve.errors import StartError

__all__ = ["Upgrade", "check_all", "check_upgrade"]

Upgrade = str | Sequence[str] | Mapping[str, str] | None
"""One rule, a list of rules, or a dict from what is asked for to what stands for it."""

_SHAPES = "'type=a -> type=b', a list of such rules, or a dict such as {'type=a': 'type=b'}"


def check_upgrade(value: object) -> tuple[str, ...]:
    """Check the option ``upgrade``.

    Args:
        value: an `Upgrade`, or whatever a user gave instead.

    Returns:
        The rules, in their order.

    Raises:
        StartError: something that is no rule, or too many of them.
    """
    rules = tuple(_rules(value))
    if wrong := check_upgrades(list(rules)):
        raise StartError(f"upgrade={value!r}: {wrong}")
    return rules


def check_all(rules: Iterable[str]) -> tuple[str, ...]:
    """Check the rules of a whole app: each counts once.

    Raises:
        StartError: there are too many.
    """
    each = tuple(dict.fromkeys(rules))
    if wrong := check_upgrades(list(each)):
        raise StartError(f"upgrade, in the whole app: {wrong}")
    return each


def _rules(value: object) -> Iterable[str]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping) and all(isinstance(side, str) for pair in value.items() for side in pair):
        return [f"{asked} -> {instead}" for asked, instead in value.items()]
    if isinstance(value, list | tuple) and all(isinstance(rule, str) for rule in value):
        return value
    raise StartError(f"upgrade={value!r}: it is {_SHAPES}")
