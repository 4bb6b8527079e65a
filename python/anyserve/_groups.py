"""Worker groups: which processes an app wants, and what each of them serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyserve.handlers import Handler

__all__ = ["DEFAULT_GROUP", "Group"]

DEFAULT_GROUP = "default"
"""Name of the group of the functions that ask for nothing of their own."""


@dataclass(frozen=True, slots=True)
class Group:
    """Workers with the same handlers, each a process of its own.

    Attributes:
        name: of its class or function, or `DEFAULT_GROUP`.
        handlers: what each of its workers serves, in the order of declaration.
        make: the class whose object handles, made once in each worker; ``None`` for functions.
        gpus: whole GPUs that each worker needs.
        resources: tokens that each worker needs, by their names.
        workers: the fewest and the most workers; ``None`` leaves both to ``--workers``.
        idle_timeout_s: seconds without work after which a worker beyond the fewest goes; ``None`` keeps it.
        sleeps: its workers can give their resources back and stay alive.
        environment: variables of its workers.
        python: the interpreter of its workers; ``None`` takes the replica's.
        start_timeout_s: seconds that a worker has to become ready; ``None`` takes the replica's.
        memory_limit: bytes of memory of its own that a worker may have; ``None`` sets no limit.
        niceness: added to the priority number of its workers' processes, from 0 to 19.
        preload: modules that are imported before workers are forked.
        warmup: inputs of requests that run before a worker is ready, each by name.
        upgrades: what a query may become that nothing serves, in the order in which the rules count.
    """

    name: str
    handlers: tuple[Handler, ...]
    make: type[Any] | None = None
    gpus: int = 0
    resources: Mapping[str, int] = field(default_factory=dict)
    workers: tuple[int, int] | None = None
    idle_timeout_s: float | None = None
    sleeps: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    start_timeout_s: float | None = None
    memory_limit: int | None = None
    niceness: int = 0
    preload: tuple[str, ...] = ()
    warmup: Sequence[Mapping[str, Any]] = ()
    upgrades: tuple[str, ...] = ()
