"""The options that give a class or function workers of its own: what each needs, and how many there are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from anyserve._checks import count, seconds, whole
from anyserve.errors import StartError

__all__ = ["MAX_WORKERS", "Placement", "asks", "check_modules", "check_placement"]

MAX_WORKERS = 1024
"""Most workers that a group may have, and most of a resource that a worker may need."""

_RESOURCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Placement:
    """What the workers of a group need, and how many there are.

    Attributes:
        gpus: whole GPUs that each worker needs.
        resources: tokens that each worker needs, by their names.
        workers: the fewest and the most workers.
        idle_timeout_s: seconds without work after which a worker beyond the fewest goes; ``None`` keeps it.
    """

    gpus: int
    resources: dict[str, int]
    workers: tuple[int, int]
    idle_timeout_s: float | None


def asks(given: Mapping[str, object]) -> bool:
    """Tell whether a function asks for workers of its own.

    Args:
        given: one value for each option of a worker group but ``preload``.
    """
    nothing: dict[str, tuple[object, ...]] = {"gpus": (None, 0), "resources": (None, {})}
    return any(value not in nothing.get(name, (None,)) for name, value in given.items())


def check_placement(given: Mapping[str, object]) -> Placement:
    """Check the options of a worker group.

    Args:
        given: one value for each option of a worker group but ``preload``.

    Raises:
        StartError: a value of the wrong type or out of its range, or values that exclude each other.
    """
    gpus, resources, idle = given["gpus"], given["resources"], given["idle_timeout_s"]
    placement = Placement(
        gpus=0 if gpus is None else count("gpus", gpus, MAX_WORKERS),
        resources={} if resources is None else _resources(resources),
        workers=_workers(given["min_workers"], given["max_workers"]),
        idle_timeout_s=seconds("idle_timeout_s", idle),
    )
    _check_idle(placement)
    return placement


def check_modules(value: object) -> tuple[str, ...]:
    """Check the names of modules that are imported before workers are forked.

    Returns:
        Each name once, in their order.

    Raises:
        StartError: it is no list of names that modules can have.
    """
    names = value if isinstance(value, list | tuple) else () if value is None else (None,)
    if not all(isinstance(name, str) and _is_module(name) for name in names):
        raise StartError(f'preload={value!r}: it is a list of names of modules, such as preload=["torch"]')
    return tuple(dict.fromkeys(names))


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _resources(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise StartError(f'resources={value!r}: it is a dict from names to numbers, such as resources={{"token": 1}}')
    return {_resource(name): whole(f"resources[{name!r}]", amount, MAX_WORKERS) for name, amount in value.items()}


def _resource(name: object) -> str:
    if name == "gpu":
        raise StartError("resources has 'gpu': GPUs are counted by the option of their own, as in gpus=1")
    if isinstance(name, str) and _RESOURCE.fullmatch(name):
        return name
    raise StartError(f"resources has {name!r}: a name has up to 64 letters, digits, '_', '-' and '.'")


def _workers(least: object, most: object) -> tuple[int, int]:
    fewest = 1 if least is None else count("min_workers", least, MAX_WORKERS)
    highest = max(1, fewest) if most is None else whole("max_workers", most, MAX_WORKERS)
    if fewest > highest:
        raise StartError(
            f"min_workers={fewest} is more than max_workers={highest}: raise max_workers to {fewest}, or leave it out"
        )
    return fewest, highest


def _check_idle(placement: Placement) -> None:
    fewest, highest = placement.workers
    if placement.idle_timeout_s is not None and fewest == highest:
        raise StartError(
            f"idle_timeout_s={placement.idle_timeout_s:g} would never end a worker: min_workers={fewest} and "
            f"max_workers={highest} keep all of them; lower min_workers (0 lets the last one go), or leave "
            "idle_timeout_s out"
        )
