"""The object plane as a handler sees it: values in memory that all workers of a replica share.

`Objects` is what `context.objects` gives. A value goes in once, by a copy, and is read where it lies; what travels is
an `ObjRef`, a text of 49 characters.

A value is an array, `bytes`, or a flat dict of those. Nothing is pickled: what an array cannot hold is refused. A `str`
is refused as well, because `bytes` would come back: what comes out is always what went in.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from anyserve._core import InferInput, InferOutput, ModelInferResponse, ObjRef
from anyserve.errors import DeadlineExceeded, Internal, InvalidInput

if TYPE_CHECKING:
    from anyserve._core import ObjectPlane

__all__ = ["ObjRef", "ObjectStat", "Objects", "StoreUsage"]

Kind: TypeAlias = Literal["array", "bytes", "dict"]

MAX_TTL_S = 7 * 24 * 3600
MAX_KEY = 256
MAX_ENTRIES = 1024

_ONE = "value"
"""Name of the only part of an object that is no dict."""
_BYTES = "bytes"
"""The parameter of a part that is to come back as `bytes`: its array, of UINT8, is only how they lie."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """An object, without its value.

    Attributes:
        nbytes: bytes that it takes in the arena.
        ttl_s: seconds until it is gone; ``None`` if it has no end.
        key: the name under which it was stored; ``None`` if it has none.
        cacheable: it may be evicted before, when room is needed.
        durable: it outlives its replica.
    """

    nbytes: int
    ttl_s: float | None
    key: str | None
    cacheable: bool
    durable: bool


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """The object store of a replica in numbers.

    Attributes:
        capacity: bytes of the arena.
        used: bytes of it that are taken, by objects and by tensors under way.
        objects: objects that there are.
        evicted: objects that were evicted since the replica started.
    """

    capacity: int
    used: int
    objects: int
    evicted: int


class Objects:
    """Stores, finds and reads objects; what `context.objects` gives.

    The plain methods block. In an async handler use their twins, `acreate`, `aget`, `alookup` and `adelete`, which run
    in a thread; a task that is cancelled does not stop what its twin has begun.

    Args:
        plane: the worker's end of the object plane.
        timeout_s: seconds that the request has left; ``None`` is no deadline.
    """

    __slots__ = ("_deadline", "_plane")

    def __init__(self, plane: "ObjectPlane", timeout_s: float | None = None) -> None:
        self._plane = plane
        # Not the context itself, which may be what holds this object.
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def create(
        self,
        value: Any,
        *,
        key: str | None = None,
        ttl_s: float = 600.0,
        cacheable: bool = False,
        durable: bool = False,
        checksum: bool = False,
    ) -> ObjRef:
        """Copy a value into the object store. Changing the value afterwards does not change the object.

        Args:
            value: an array of any datatype (what `numpy.asarray` reads without a copy counts as one; text and objects
                of `bytes` and `str` are BYTES); an `InferInput` or `InferOutput`, which keeps its datatype; `bytes`,
                `bytearray` or `memoryview`; or a dict of 1 to 1024 of those, by names that are not empty.
            key: a name to look it up by, 1 to 256 characters. The newest object with a key is the one that is found;
                older ones live on, by their references.
            ttl_s: seconds that it lives, above 0 and at most 604 800, which is a week.
            cacheable: it may be evicted before, when room is needed.
            durable: it is to outlive this replica.
            checksum: what is read is compared with what was written.

        Returns:
            The reference, valid in every worker of this replica.

        Raises:
            InvalidInput: a value that is none of these, or a key or time out of bounds; the message has the fix.
            ObjectStoreFull: there is no room for it; nothing was stored.
            Unsupported: this replica has no object store, or none for durable objects.
        """
        _check_key(key)
        _check_ttl(ttl_s)
        kind, parts = _parts(value)
        try:
            return self._plane.create(kind, parts, key, float(ttl_s), cacheable, durable, checksum)
        except ValueError as error:
            # Contents of an input or output that somebody changed: they are read here.
            raise InvalidInput(f"the value cannot be stored: {error}") from None

    def get(self, ref: ObjRef | str, *, timeout_s: float | None = None) -> Any:
        """Read an object.

        Args:
            ref: the reference, or its text.
            timeout_s: seconds to wait at most for an object that is not in this replica, above 0; by default, and at
                most, what the request has left.

        Returns:
            The array, read-only; or `bytes`; or a dict of those, as it was stored. An array of a fixed-size datatype is
            a view on shared memory, and valid as long as it lives, whatever becomes of the object. `bytes` and arrays
            of BYTES and BF16 are copies; the latter are float32.

        Raises:
            NotFound: the object is gone, or the reference never was one.
            InvalidInput: a text that is no reference.
            DeadlineExceeded: the time was over before it was here.
            Unavailable: the replica that has it does not answer.
            ObjectStoreFull: it is elsewhere, and there is no room for a copy here.
        """
        kind, parts = self._plane.get(_reference(ref), self._timeout(timeout_s))
        return _value(kind, parts)

    def lookup(self, key: str, *, timeout_s: float | None = None) -> ObjRef | None:
        """Find the newest object with a key.

        Args:
            key: as given to `create`.
            timeout_s: as in `get`.

        Returns:
            Its reference, or ``None`` if there is no such object.

        Raises:
            InvalidInput: a key out of bounds.
            DeadlineExceeded: the time was over before the answer was here.
        """
        if key is None:
            raise InvalidInput("the key is None: look up the text that the object was stored under")
        _check_key(key)
        return self._plane.lookup(key, self._timeout(timeout_s))

    def delete(self, ref: ObjRef | str) -> bool:
        """Delete an object. Arrays that were read from it stay valid; its memory is free when the last one is gone.

        Args:
            ref: the reference, or its text.

        Returns:
            Whether there was one to delete.

        Raises:
            InvalidInput: a text that is no reference.
        """
        return self._plane.delete(_reference(ref))

    def stat(self, ref: ObjRef | str) -> ObjectStat:
        """Tell what is known of an object, without reading it.

        Args:
            ref: the reference, or its text.

        Raises:
            NotFound: the object is gone, or the reference never was one.
            InvalidInput: a text that is no reference.
        """
        return ObjectStat(**self._plane.stat(_reference(ref)))

    def usage(self) -> StoreUsage:
        """Tell how full the object store of this replica is."""
        return StoreUsage(**self._plane.usage())

    async def acreate(self, value: Any, **options: Any) -> ObjRef:
        """Copy a value into the object store, in a thread. Options, result and exceptions are those of `create`.

        Don't change the value before it is awaited.
        """
        return await asyncio.to_thread(self.create, value, **options)

    async def aget(self, ref: ObjRef | str, *, timeout_s: float | None = None) -> Any:
        """Read an object, in a thread. Result and exceptions are those of `get`."""
        return await asyncio.to_thread(self.get, ref, timeout_s=timeout_s)

    async def alookup(self, key: str, *, timeout_s: float | None = None) -> ObjRef | None:
        """Find the newest object with a key, in a thread. Result and exceptions are those of `lookup`."""
        return await asyncio.to_thread(self.lookup, key, timeout_s=timeout_s)

    async def adelete(self, ref: ObjRef | str) -> bool:
        """Delete an object, in a thread. Result and exceptions are those of `delete`."""
        return await asyncio.to_thread(self.delete, ref)

    def _timeout(self, timeout_s: float | None) -> float | None:
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidInput(
                f"timeout_s is {timeout_s}: it is a number of seconds above 0, or None for what the request has left"
            )
        if self._deadline is None:
            return timeout_s
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the request's deadline passed before the object was asked for")
        return left if timeout_s is None else min(left, timeout_s)


def _reference(ref: Any) -> ObjRef:
    if isinstance(ref, ObjRef):
        return ref
    if isinstance(ref, str):
        return ObjRef(ref)
    raise InvalidInput(f"a reference is an ObjRef or its text, not a {type(ref).__name__}")


def _check_key(key: Any) -> None:
    if key is None:
        return
    if not isinstance(key, str):
        raise InvalidInput(f"the key is a {type(key).__name__}: it is a text of 1 to {MAX_KEY} characters")
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidInput(f"the key has {len(key)} characters: it has at least 1 and at most {MAX_KEY}")


def _check_ttl(ttl_s: Any) -> None:
    numbers = (int, float, np.integer, np.floating)
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, numbers) or not 0 < ttl_s <= MAX_TTL_S:
        raise InvalidInput(f"ttl_s is {ttl_s!r}: it is a number of seconds above 0, at most {MAX_TTL_S}")


def _parts(value: Any) -> tuple[Kind, list[InferOutput]]:
    """Give kind and parts of a value, as `_core.ObjectPlane.create` takes them."""
    made = ModelInferResponse()
    if isinstance(value, Mapping):
        _check_names(value)
        for name, entry in value.items():
            _add(made, name, entry, f"the entry {name!r}")
        return "dict", made.outputs
    _add(made, _ONE, value, "the value")
    return ("bytes" if _is_bytes(value) else "array"), made.outputs


def _check_names(value: Mapping[Any, Any]) -> None:
    if not 1 <= len(value) <= MAX_ENTRIES:
        raise InvalidInput(f"the dict has {len(value)} entries: an object has at least 1 and at most {MAX_ENTRIES}")
    for name in value:
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"the dict has the key {name!r}: it is a text with at least one character")


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def _add(made: ModelInferResponse, name: str, value: Any, what: str) -> None:
    if _is_bytes(value):
        made.add_output(name, _octets(value), parameters={_BYTES: True})
        return
    if isinstance(value, InferInput | InferOutput):
        if value.parameters.get("objref") is True:
            raise InvalidInput(f"{what} is a reference: an object holds values and no references")
        made.add_output(name, value.datatype, value.shape).contents = value.contents
        return
    array = _array(value, what)
    try:
        made.add_output(name, array)
    except ValueError as error:
        raise InvalidInput(f"{what} cannot be stored: {error}") from None


def _octets(value: bytes | bytearray | memoryview) -> npt.NDArray[np.uint8]:
    view = memoryview(value)
    flat = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    return np.frombuffer(flat, np.uint8) if flat.nbytes else np.empty(0, np.uint8)


def _array(value: Any, what: str) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    kind = type(value).__name__
    if isinstance(value, str):
        raise InvalidInput(f"{what} is a str, which would come back as bytes: give value.encode()")
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, ObjRef):
        raise InvalidInput(f"{what} is an ObjRef: an object holds values and no references")
    if isinstance(value, Mapping):
        raise InvalidInput(f"{what} is a {kind}: the dict of an object is flat")
    if isinstance(value, bool | int | float | list | tuple):
        raise InvalidInput(f"{what} is a {kind}: give an array, such as numpy.asarray(value)")
    if isinstance(value, type) or not hasattr(value, "__array__"):
        raise InvalidInput(
            f"{what} is a {kind}: an object is an array, bytes, or a flat dict of those; nothing is pickled"
        )
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{what} is a {kind}, which gives no array: {error}") from error


def _value(kind: str, parts: list[InferInput]) -> Any:
    if kind == "dict":
        return {part.name: _entry(part) for part in parts}
    if kind not in ("array", "bytes") or len(parts) != 1:
        raise Internal(f"an object of kind {kind!r} has {len(parts)} parts")
    return _content(parts[0]) if kind == "bytes" else parts[0].as_numpy()


def _entry(part: InferInput) -> npt.NDArray[Any] | bytes:
    return _content(part) if part.parameters.get(_BYTES) is True else part.as_numpy()


def _content(part: InferInput) -> bytes:
    return part.as_numpy().tobytes()
