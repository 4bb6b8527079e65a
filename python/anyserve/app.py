"""An app: the capabilities that its functions and worker classes serve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from os import PathLike
from typing import Any, TypeVar

from anyserve._classes import Worker, check_capabilities, check_class, handlers_of, sleeps
from anyserve._groups import DEFAULT_GROUP, Group
from anyserve._isolation import check_isolation, check_warmup
from anyserve._options import CapabilityValue, check_keys, check_options
from anyserve._placement import asks, check_modules, check_placement
from anyserve._upgrades import Upgrade, check_all, check_upgrade
from anyserve.errors import StartError
from anyserve.handlers import Handler, bind
from anyserve.kserve import TensorSpec

__all__ = ["AnyServe"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type[Worker])


class AnyServe:
    """The capabilities of one app, and the functions and worker classes that serve them.

    ::

        app = AnyServe()

        @app.capability(type="echo")
        def echo(request: ModelInferRequest) -> ModelInferResponse:
            ...

    An app is data: making one starts nothing. ``anyserve serve module:app`` loads it in each worker and serves it.

    Args:
        upgrade: rules for what nothing in the app serves, behind those of its capabilities; see `capability`.

    Raises:
        StartError: something that is no rule, or too many of them.
    """

    def __init__(self, *, upgrade: Upgrade = None) -> None:
        self._upgrades = check_upgrade(upgrade)
        self._handlers: list[Handler] = []
        self._groups: dict[str, Group] = {}
        self._owners: dict[str, object] = {}

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """One row per capability, in the order of declaration."""
        return tuple(self._handlers)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The app's worker groups, in the order of declaration. The app's own upgrade rules are with the last one."""
        *others, last = self._groups.values() or (None,)
        if last is None:
            return ()
        return (*others, replace(last, upgrades=tuple(dict.fromkeys((*last.upgrades, *self._upgrades)))))

    def capability(  # noqa: PLR0913 - every option is a keyword of its own
        self,
        keys: Mapping[str, CapabilityValue] | None = None,
        /,
        *,
        stream: bool = False,
        inputs: Sequence[TensorSpec] | None = None,
        outputs: Sequence[TensorSpec] | None = None,
        concurrency: int = 1,
        max_queue: int | None = None,
        timeout_s: float | None = None,
        max_batch_size: int | None = None,
        max_delay_ms: float = 0.0,
        priority: int | None = None,
        idempotent: bool = False,
        sequence: bool = False,
        gpus: int = 0,
        resources: Mapping[str, int] | None = None,
        min_workers: int | None = None,
        max_workers: int | None = None,
        idle_timeout_s: float | None = None,
        preload: Sequence[str] | None = None,
        upgrade: Upgrade = None,
        **more: CapabilityValue,
    ) -> Callable[[F], F]:
        """Declare that a function serves a capability.

        A handler takes the request, or its inputs by name. It is a function or a coroutine function that returns one
        answer, or with ``stream=True`` a generator, an async generator, or a function that sends on its third
        argument. The function itself is handed back unchanged, so that decorators stack and tests can call it.

        With `max_batch_size` it is called once for several requests: it takes a list of them, and if it has a second
        parameter the list of their contexts, and returns a list with one answer for each, in the same order. An answer
        may be an exception, which is that one request's error. If the call raises, it is made again with either half
        of its requests, and so on until only those have failed that make it raise.

        All functions share the workers of the group ``default``, as many as ``--workers`` says. A function with any of
        `gpus`, `resources`, `min_workers`, `max_workers` and `idle_timeout_s` has workers of its own, in a group of its
        name.

        Args:
            keys: keys of the capability that have the name of an option.
            stream: the handler answers any number of times.
            inputs: what a request must bring, exactly; ``None`` leaves it to the handler. Every parameter of a handler
                that takes its inputs by name stands here then.
            outputs: what an answer brings, in the order in which a tuple is returned.
            concurrency: requests that one worker runs at the same time, from 1 to 4096; with `max_batch_size` it is
                batches. Above 1 a function runs in as many threads; coroutines share one event loop.
            max_queue: requests that may wait, at least 1; ``None`` takes the replica's limit.
            timeout_s: seconds that a request may take when its caller gave no deadline, up to a week; ``None`` sets
                none.
            max_batch_size: requests that one call takes at most, from 1 to 256; ``None`` or 0 for a function that takes
                one request and no list. Not with ``stream=True`` or ``sequence=True``, nor with inputs by name.
            max_delay_ms: milliseconds that a request waits at most for others to share its batch, from 0 to 10 000. A
                worker that has nothing to do does not wait for 0.
            priority: of requests that name none, from 1, served first, to 8; ``None`` is 4, the middle.
            idempotent: running a request twice does no harm, so that it is sent again after its worker's death even if
                it had started.
            sequence: requests with the same ``sequence_id`` run one at a time, in order and on the same worker.
            gpus: whole GPUs that each of its workers needs, up to 1024; ``CUDA_VISIBLE_DEVICES`` says which it has.
            resources: tokens that each of its workers needs, from 1 to 1024 of each name; ``--resources`` says what the
                replica has.
            min_workers: workers that are always there, up to 1024; 0 starts the first one for the first request.
                ``None`` is 1.
            max_workers: workers that there may be, from 1 to 1024; ``None`` is `min_workers`, and 1 if that is 0.
            idle_timeout_s: seconds without work, up to a week, after which a worker beyond `min_workers` is put to
                sleep or stopped; ``None`` keeps it.
            preload: modules that are imported once, before workers are forked, so that each starts sooner.
            upgrade: what a request may become that nothing here serves, before it is handed to the API server:
                ``"type=decode -> type=decode.heavy"``, a list of such rules, or a dict from one side to the other.
                The first rule of the app that applies counts. Without an API server it changes nothing.
            **more: keys of the capability: each a str, int, float or bool.

        Returns:
            A decorator that registers its function and returns it.

        Raises:
            StartError: an option out of its range, options that exclude each other, a value that a capability cannot
                have, the same capability twice, or a function that cannot be called as a handler.
        """
        given = {
            "stream": stream,
            "inputs": inputs,
            "outputs": outputs,
            "concurrency": concurrency,
            "max_queue": max_queue,
            "timeout_s": timeout_s,
            "max_batch_size": max_batch_size,
            "max_delay_ms": max_delay_ms,
            "priority": priority,
            "idempotent": idempotent,
            "sequence": sequence,
        }
        wanted = {
            "gpus": gpus,
            "resources": resources,
            "min_workers": min_workers,
            "max_workers": max_workers,
            "idle_timeout_s": idle_timeout_s,
        }
        capability, options = check_keys(keys, more), check_options(given)
        placement, modules, rules = check_placement(wanted), check_modules(preload), check_upgrade(upgrade)
        own = asks(wanted)

        def register(function: F) -> F:
            handler = bind(function, capability, options)
            if own:
                name = _group_name(handler.function)
                self._add(Group(name, (handler,), **asdict(placement), preload=modules, upgrades=rules), function)
            else:
                self._add(Group(DEFAULT_GROUP, (handler,), preload=modules, upgrades=rules), None)
            return function

        return register

    def worker(  # noqa: PLR0913 - every option is a keyword of its own
        self,
        capabilities: Sequence[Mapping[str, CapabilityValue]] | None = None,
        *,
        stream: bool = False,
        inputs: Sequence[TensorSpec] | None = None,
        outputs: Sequence[TensorSpec] | None = None,
        concurrency: int = 1,
        max_queue: int | None = None,
        timeout_s: float | None = None,
        max_batch_size: int | None = None,
        max_delay_ms: float = 0.0,
        priority: int | None = None,
        idempotent: bool = False,
        sequence: bool = False,
        gpus: int = 0,
        resources: Mapping[str, int] | None = None,
        min_workers: int | None = None,
        max_workers: int | None = None,
        idle_timeout_s: float | None = None,
        preload: Sequence[str] | None = None,
        upgrade: Upgrade = None,
        memory_limit: int | str | None = None,
        niceness: int = 0,
        environment: Mapping[str, str] | None = None,
        python: str | PathLike[str] | None = None,
        start_timeout_s: float | None = None,
        warmup: Sequence[Mapping[str, Any]] | None = None,
        **more: object,
    ) -> Callable[[C], C]:
        """Declare a worker class: a group of worker processes of its own, each with one object of the class.

        ::

            @app.worker(capabilities=[{"type": "chat", "model": "llama-7b"}], gpus=1, min_workers=0, max_workers=2,
                        idle_timeout_s=300)
            class Chat(Worker):
                def on_start(self): ...
                async def handle(self, request, context): ...

        The group has the name of the class, which is handed back unchanged. Its method `handle` serves every one of the
        capabilities, and is written as the function of a capability is; see `Worker` for the other methods.

        Args:
            capabilities: a dict of keys for each capability, at least one.
            stream: of each capability; this and the options down to `sequence` are those of `capability`.
            inputs: see `capability`.
            outputs: see `capability`.
            concurrency: see `capability`; of each capability.
            max_queue: see `capability`; of each capability.
            timeout_s: see `capability`.
            max_batch_size: see `capability`.
            max_delay_ms: see `capability`.
            priority: see `capability`.
            idempotent: see `capability`.
            sequence: see `capability`.
            gpus: whole GPUs that each of its workers needs, up to 1024; ``CUDA_VISIBLE_DEVICES`` says which it has.
            resources: tokens that each of its workers needs, from 1 to 1024 of each name; ``--resources`` says what the
                replica has.
            min_workers: workers that are always there, up to 1024; 0 starts the first one for the first request.
                ``None`` is 1.
            max_workers: workers that there may be, from 1 to 1024; ``None`` is `min_workers`, and 1 if that is 0.
            idle_timeout_s: seconds without work, up to a week, after which a worker beyond `min_workers` is put to
                sleep or stopped; ``None`` keeps it.
            preload: modules that are imported once, before workers are forked, so that each starts sooner.
            upgrade: what a request may become that nothing here serves, before it is handed to the API server:
                ``"type=decode -> type=decode.heavy"``, a list of such rules, or a dict from one side to the other.
                The first rule of the app that applies counts. Without an API server it changes nothing.
            memory_limit: bytes of memory of its own that a worker may have, from 16 MiB on, or a text such as
                ``"2GiB"``; ``None`` sets no limit. Beyond it Python raises `MemoryError`. Memory that processes share,
                and what a driver maps, does not count; the stack of each thread that the app starts does.
            niceness: added to the priority number of the workers' processes, from 0 to 19, which yields most.
            environment: variables of the workers' processes, beside those that the replica has.
            python: path of the workers' interpreter, which has this package installed; ``None`` takes the replica's.
                Its workers are not forked.
            start_timeout_s: seconds that a worker has to become ready, up to a week; ``None`` takes the replica's.
            warmup: inputs of requests, each a dict as `Client.infer` takes it, that run one after the other after
                `on_start`, for each capability, and before the worker is ready. What they raise fails the start.
            **more: refused: the keys of a capability stand in `capabilities`.

        Returns:
            A decorator that registers its class and returns it.

        Raises:
            StartError: an option that there is not or out of its range, options that exclude each other, a capability
                that is served already, a second group of the same name, or a class that no worker can make or call.
        """
        given = {
            "stream": stream,
            "inputs": inputs,
            "outputs": outputs,
            "concurrency": concurrency,
            "max_queue": max_queue,
            "timeout_s": timeout_s,
            "max_batch_size": max_batch_size,
            "max_delay_ms": max_delay_ms,
            "priority": priority,
            "idempotent": idempotent,
            "sequence": sequence,
        }
        wanted = {
            "gpus": gpus,
            "resources": resources,
            "min_workers": min_workers,
            "max_workers": max_workers,
            "idle_timeout_s": idle_timeout_s,
        }
        apart = {
            "memory_limit": memory_limit,
            "niceness": niceness,
            "environment": environment,
            "python": python,
            "start_timeout_s": start_timeout_s,
        }
        _refuse_others(more, (*given, *wanted, *apart, "capabilities", "preload", "upgrade", "warmup"))
        served, options = check_capabilities(capabilities), check_options(given)
        placement, modules, rules = check_placement(wanted), check_modules(preload), check_upgrade(upgrade)
        isolation, requests = check_isolation(apart, gpus=placement.gpus), check_warmup(warmup, options)

        def register(decorated: C) -> C:
            made = check_class(decorated)
            group = Group(
                _group_name(made.__name__),
                tuple(handlers_of(made, served, options)),
                make=made,
                sleeps=sleeps(made),
                preload=modules,
                warmup=requests,
                upgrades=rules,
                **asdict(placement),
                **asdict(isolation),
            )
            self._add(group, decorated)
            return decorated

        return register

    def _add(self, group: Group, owner: object) -> None:
        """Take a group in, or what it adds to one that there is."""
        for place, handler in enumerate(group.handlers):
            _check_new(handler, [*self._handlers, *group.handlers[:place]])
        known = self._groups.get(group.name)
        if known is not None and not (self._owners[group.name] is owner and _is_alike(known, group)):
            raise StartError(
                f"there are two worker groups of the name {group.name!r}: a group has the name of its class or "
                "function, so give one of them another"
            )
        others = [rule for own in self._groups.values() for rule in own.upgrades]
        check_all([*others, *group.upgrades, *self._upgrades])
        self._handlers += group.handlers
        self._groups[group.name] = group if known is None else _joined(known, group)
        self._owners[group.name] = owner


def _refuse_others(more: Mapping[str, object], known: Sequence[str]) -> None:
    for name in more:
        close = get_close_matches(name, known, n=1, cutoff=0.8)
        hint = f"; did you mean {close[0]!r}?" if close else f": keys stand in capabilities=[{{{name!r}: …}}]"
        raise StartError(f"app.worker has no option {name!r}{hint}")


def _group_name(name: str) -> str:
    if not name.isidentifier():
        raise StartError(f"{name!r} is no name for a worker group: what has workers of its own is declared by `def`")
    if name == DEFAULT_GROUP:
        raise StartError(f"{name!r} is the worker group of the other functions: give this one another name")
    return name


def _is_alike(known: Group, group: Group) -> bool:
    """Whether one function, or the functions that share workers, may add to a group that they have."""
    bare: dict[str, Any] = {"handlers": (), "preload": (), "upgrades": ()}
    return known.make is None and group.make is None and replace(known, **bare) == replace(group, **bare)


def _joined(known: Group, group: Group) -> Group:
    preload = tuple(dict.fromkeys((*known.preload, *group.preload)))
    upgrades = tuple(dict.fromkeys((*known.upgrades, *group.upgrades)))
    return replace(known, handlers=(*known.handlers, *group.handlers), preload=preload, upgrades=upgrades)


def _check_new(handler: Handler, others: Sequence[Handler]) -> None:
    for other in others:
        if _identity(other.capability) == _identity(handler.capability):
            raise StartError(
                f"the capability {handler.capability!r} is served by {other.function!r} and by "
                f"{handler.function!r}; give one of them another key or value"
            )


def _identity(capability: Mapping[str, CapabilityValue]) -> frozenset[tuple[str, bool, CapabilityValue]]:
    # True == 1 in Python, but a query tells `true` from `1`.
    return frozenset((key, isinstance(value, bool), value) for key, value in capability.items())
