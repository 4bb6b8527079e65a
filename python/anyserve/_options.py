"""The options of a capability: which there are, and what they accept.

Every other keyword of `app.capability` is a key of the capability.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from anyserve._checks import MAX_INTEGER, milliseconds, seconds, truth, whole
from anyserve.errors import StartError
from anyserve.kserve import TensorSpec

CapabilityValue = str | int | float | bool
"""What a key of a capability may be set to."""

NOW = (
    "stream", "inputs", "outputs", "concurrency", "max_queue", "timeout_s", "max_batch_size", "max_delay_ms",
    "priority", "idempotent", "sequence",
)  # fmt: skip
"""Reserved options of a capability."""

PLACEMENT = ("gpus", "resources", "min_workers", "max_workers", "idle_timeout_s", "preload")
"""Reserved options of a worker group, which a function may have too."""

ROUTING = ("upgrade",)
"""Reserved options that say what becomes of what is not served here."""

CLASS_ONLY = ("memory_limit", "niceness", "start_timeout_s", "warmup")
"""Options of `app.worker` that are hardly meant as keys where a function has them."""

MAX_CONCURRENCY = 4096
MAX_QUEUE = 2**32 - 1
MAX_BATCH_SIZE = 256
LAST_PRIORITY = 8


@dataclass(frozen=True, slots=True)
class Options:
    """How the requests for one capability are run.

    Attributes:
        stream: the handler answers any number of times.
        inputs: what a request must bring; ``None`` leaves it unchecked.
        outputs: what an answer brings; ``None`` leaves it open.
        concurrency: requests that one worker runs at the same time, from 1 to 4096.
        max_queue: requests that may wait, at least 1; ``None`` takes the replica's limit.
        timeout_s: seconds that a request may take when its caller gave no deadline, up to a week; ``None`` sets none.
        max_batch_size: requests that one call of the handler takes at most, up to 256; 0 gives it one and no list.
        max_delay_ms: milliseconds that a request waits at most for others to share its batch, up to 10 000.
        priority: of requests that name none, from 1, served first, to 8; ``None`` takes the middle one.
        idempotent: running a request twice does no harm.
        sequence: requests belong to sequences.
    """

    stream: bool = False
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    concurrency: int = 1
    max_queue: int | None = None
    timeout_s: float | None = None
    max_batch_size: int = 0
    max_delay_ms: float = 0.0
    priority: int | None = None
    idempotent: bool = False
    sequence: bool = False


def check_options(given: Mapping[str, object]) -> Options:
    """Check the options of a capability.

    Args:
        given: one value for each of `NOW`.

    Raises:
        StartError: a value of the wrong type or out of its range, or options that exclude each other.
    """
    max_queue, priority = given["max_queue"], given["priority"]
    options = Options(
        stream=truth("stream", given["stream"]),
        inputs=_specs("inputs", given["inputs"]),
        outputs=_specs("outputs", given["outputs"]),
        concurrency=whole("concurrency", given["concurrency"], MAX_CONCURRENCY),
        max_queue=None if max_queue is None else whole("max_queue", max_queue, MAX_QUEUE),
        timeout_s=seconds("timeout_s", given["timeout_s"]),
        max_batch_size=_batch_size("max_batch_size", given["max_batch_size"]),
        max_delay_ms=milliseconds("max_delay_ms", given["max_delay_ms"]),
        priority=None if priority is None else whole("priority", priority, LAST_PRIORITY),
        idempotent=truth("idempotent", given["idempotent"]),
        sequence=truth("sequence", given["sequence"]),
    )
    _check_batch(options)
    return options


def check_keys(positional: object, keywords: Mapping[str, object]) -> dict[str, CapabilityValue]:
    """Check the keys of a capability and join those of the positional dict with the keywords.

    Args:
        positional: the dict given in front of the keywords, which may use reserved names as keys; or ``None``.
        keywords: every keyword that is none of the options.

    Returns:
        The capability, in the order in which it was written.

    Raises:
        StartError: a key that stands twice, a value of another type, or no key.
    """
    if positional is not None and not isinstance(positional, Mapping):
        raise StartError(_not_a_mapping(positional))
    keys: dict[str, object] = dict(positional or {})
    for name, value in keywords.items():
        if name in keys:
            raise StartError(f"the capability's key {name!r} stands in the dict and in the keywords; keep one of them")
        _warn_of_a_slip(name, value)
        keys[name] = value
    if not keys:
        raise StartError('a capability needs at least one key, such as @app.capability(type="echo")')
    return {_key(name): _value(name, value) for name, value in keys.items()}


def _check_batch(options: Options) -> None:
    size, delay = options.max_batch_size, options.max_delay_ms
    if delay and not size:
        raise StartError(
            f"max_delay_ms={delay:g} is how long a batch may wait to fill, but there are no batches: add "
            "max_batch_size=32, or leave max_delay_ms out"
        )
    if size and options.stream:
        raise StartError(
            f"max_batch_size={size} with stream=True: a batch is answered once, with a list; leave one of the two out"
        )
    if size and options.sequence:
        raise StartError(
            f"max_batch_size={size} with sequence=True: the requests of a sequence run one at a time; leave one of the "
            "two out"
        )


def _not_a_mapping(positional: object) -> str:
    if callable(positional):
        return 'the decorator needs the capability: write @app.capability(type="echo"), not @app.capability'
    return f"what stands in front of the keywords is a dict of capability keys, not {positional!r}"


def _warn_of_a_slip(name: str, value: object) -> None:
    if name in CLASS_ONLY:
        return _warn_of_a_class(name, value)
    close = get_close_matches(name, [*NOW, *PLACEMENT, *ROUTING], n=1, cutoff=0.8)
    if close and isinstance(value, CapabilityValue):
        warnings.warn(
            f"{name!r} is taken as a key of the capability; if the option {close[0]!r} is meant, correct it, "
            f"if not, write the key in a dict: @app.capability({{{name!r}: …}})",
            stacklevel=4,
        )
    elif close:
        raise StartError(f"there is no option {name!r}; did you mean {close[0]!r}?")
    return None


def _warn_of_a_class(name: str, value: object) -> None:
    meant = f"{name!r} is an option of @app.worker(…), for a class"
    if not isinstance(value, CapabilityValue):
        raise StartError(f"{meant}, and not of a function; make the function the `handle` of a Worker")
    warnings.warn(
        f"{meant}; here it is taken as a key of the capability, which is written in a dict: "
        f"@app.capability({{{name!r}: …}})",
        stacklevel=5,
    )


def _key(name: object) -> str:
    if isinstance(name, str) and name:
        return name
    raise StartError(f"a capability's key is a text with at least one character, not {name!r}")


def _value(name: object, value: object) -> CapabilityValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise StartError(f"the capability's {name}={value!r} is not a finite number")
    if isinstance(value, int) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        raise StartError(f"the capability's {name}={value!r} does not fit in 64 bits")
    if isinstance(value, CapabilityValue):
        return value
    raise StartError(
        f"the capability's {name}={value!r} is a {type(value).__name__}; a key is set to a str, int, float or bool"
    )


def _batch_size(name: str, value: object) -> int:
    if value is None or (value == 0 and type(value) is int):
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_BATCH_SIZE:
        return value
    raise StartError(
        f"{name}={value!r}: it is the number of requests that one call takes, from 1 to {MAX_BATCH_SIZE}, or None for "
        "a handler that takes one request and no list"
    )


def _specs(name: str, value: object) -> tuple[TensorSpec, ...] | None:
    if value is None:
        return None
    specs = tuple(value) if isinstance(value, Iterable) else (None,)
    seen: set[str] = set()
    for spec in specs:
        if not isinstance(spec, TensorSpec):
            raise StartError(f'{name} is a list of TensorSpec, such as [TensorSpec("x", "FP32", [-1])], not {value!r}')
        if spec.name in seen:
            raise StartError(f"{name} declares {spec.name!r} twice")
        seen.add(spec.name)
    return specs
