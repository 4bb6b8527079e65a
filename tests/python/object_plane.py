"""An object plane in a dict, which stands in for `_core.ObjectPlane`: the same calls, and no shared memory."""

import itertools
import time
from dataclasses import dataclass

from anyserve import Contents, InferInput, InferOutput, ObjRef
from anyserve.errors import NotFound, ObjectStoreFull

STORE = "0123456789abcdef"


@dataclass
class Stored:
    kind: str
    parts: list[InferInput]
    key: str | None
    nbytes: int
    until: float
    cacheable: bool
    durable: bool


class FakePlane:
    """Keeps what it is given, byte by byte, and what it was asked."""

    def __init__(self, capacity: int = 1 << 20):
        self.capacity = capacity
        self.stored: dict[ObjRef, Stored] = {}
        self.timeouts: list[float | None] = []
        self.checksums: list[bool] = []
        self.numbers = itertools.count(1)

    def create(self, kind, parts, key, ttl_s, cacheable, durable, checksum):
        received = [received_as(part) for part in parts]
        nbytes = sum(len(part.contents.raw) for part in received)
        if self.used() + nbytes > self.capacity:
            raise ObjectStoreFull(f"{nbytes} bytes do not fit")
        ref = ObjRef(f"objref:{STORE}-00000000-{next(self.numbers):016x}")
        self.checksums.append(checksum)
        self.stored[ref] = Stored(kind, received, key, nbytes, time.monotonic() + ttl_s, cacheable, durable)
        return ref

    def get(self, ref, timeout_s):
        self.timeouts.append(timeout_s)
        stored = self._find(ref)
        return stored.kind, stored.parts

    def lookup(self, key, timeout_s):
        self.timeouts.append(timeout_s)
        return next((ref for ref in reversed(self._alive()) if self.stored[ref].key == key), None)

    def delete(self, ref):
        return self.stored.pop(ref, None) is not None

    def stat(self, ref):
        stored = self._find(ref)
        return {
            "nbytes": stored.nbytes, "ttl_s": stored.until - time.monotonic(), "key": stored.key,
            "cacheable": stored.cacheable, "durable": stored.durable,
        }  # fmt: skip

    def usage(self):
        return {"capacity": self.capacity, "used": self.used(), "objects": len(self.stored), "evicted": 0}

    def used(self) -> int:
        return sum(stored.nbytes for stored in self.stored.values())

    def _alive(self) -> list[ObjRef]:
        return [ref for ref, stored in list(self.stored.items()) if stored.until > time.monotonic()]

    def _find(self, ref) -> Stored:
        if ref not in self._alive():
            raise NotFound(f"there is no object {ref}")
        return self.stored[ref]


def received_as(part: InferOutput) -> InferInput:
    """What a part is on the other side."""
    contents = Contents(raw=part.contents.raw)
    return InferInput(part.name, part.datatype, part.shape, contents=contents, parameters=dict(part.parameters))
