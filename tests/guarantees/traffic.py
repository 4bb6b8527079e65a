"""Clients of an object plane under way: tensors, streams, objects and references, each checked byte by byte."""

import itertools
import random
from collections import Counter, deque
from functools import partial
from typing import Any

import numpy as np

from anyserve import Client, ObjRef, errors
from tests.e2e import traffic
from tests.guarantees.whole import MIB, check, payload

UNDER_KILLS = {"WORKER_LOST", "UNAVAILABLE", "OVERLOADED", "POISON", "DEADLINE"}
"""What any request may end with while workers are killed."""

TTL_S = 1.5
TIMEOUT_S = 20.0
PARTS = 4
FEW = 4
NEVER = ObjRef("objref:0000000000000000-00000000-0000000000000000")
KEY_SHIFT = 32
"""The payload of an object with a key has its thread in the upper half of its seed, and counts up in the lower."""


class Wrong(Exception):
    """An answer that is not the request's own."""


class Traffic(traffic.Traffic):
    """Threads that send requests of any kind, one after the other.

    Attributes:
        ends: how requests ended, by what they were and their code; "answered" for an answer.
        violations: every end that breaks the promise.
        pids: workers that have answered of late.
    """

    def __init__(self, endpoint: str, seed: int, threads: int) -> None:
        draws = random.Random(seed)
        chances = [random.Random(draws.random()) for _ in range(threads)]
        super().__init__((Client(endpoint), partial(self.any, *of)) for of in enumerate(chances))
        self.ends: Counter[tuple[str, str]] = Counter()
        self.violations: list[str] = []
        self.pids: set[int] = set()
        self.refs: deque[tuple[ObjRef, int]] = deque(maxlen=32)
        self.newest = [0] * threads
        self.numbers = itertools.count(1)
        self.kinds = {
            "echo": (self.echo, set[str]()), "derive": (self.derive, set()), "parts": (self.parts, set()),
            "make": (self.make, {"OBJECT_STORE_FULL"}), "renew": (self.renew, {"OBJECT_STORE_FULL"}),
            "read": (self.read, {"NOT_FOUND"}), "pass": (self.pass_on, {"NOT_FOUND"}),
            "find": (self.find, {"NOT_FOUND"}), "drop": (self.drop, set()),
        }  # fmt: skip

    def __exit__(self, *left: object) -> None:
        super().__exit__(*left)
        self.violations += map(repr, self.failures)

    def answered_of(self, kind: str) -> int:
        return self.ends[kind, "answered"]

    def __str__(self) -> str:
        lines = [f"{kind:7} {code} {count}" for (kind, code), count in sorted(self.ends.items())]
        return "\n".join([*lines, f"violations {len(self.violations)}", *self.violations[:20]])

    # === one thread ===

    def any(self, place: int, chance: random.Random, client: Client, _: int) -> None:
        kind = chance.choice(list(self.kinds))
        send, may = self.kinds[kind]
        try:
            send(client, chance, place)
            self.ends[kind, "answered"] += 1
        except errors.AnyServeError as error:
            self.ends[kind, error.code] += 1
            if error.code not in UNDER_KILLS | may:
                self.violations.append(f"{kind}: {error.code} {error}")
        except Exception as error:  # noqa: BLE001 - it is how the request has ended.
            self.violations.append(f"{kind}: {type(error).__name__} {error}")

    def ask(self, client: Client, model: str, inputs: dict[str, Any], **parameters: Any) -> Any:
        result = client.infer(model, inputs, parameters=parameters or None, timeout_s=TIMEOUT_S)
        self.pids.add(int(result["pid"][0]))
        return result

    # === what they send ===

    def echo(self, client: Client, chance: random.Random, _: int) -> None:
        seed = next(self.numbers)
        model = chance.choice(["echo", "echo-async"])
        check(self.ask(client, model, {"x": payload(seed), "seed": number(seed)})["x"], seed)

    def derive(self, client: Client, *_: Any) -> None:
        seed = next(self.numbers)
        check(self.ask(client, "derive", {"x": payload(seed), "seed": number(seed)})["x"], seed + 1)

    def parts(self, client: Client, chance: random.Random, _: int) -> None:
        """Read a stream to its end, or leave it in its middle."""
        seed, most = next(self.numbers), chance.randint(1, 2 * PARTS)
        with client.stream("parts", {"seed": number(seed), "count": number(PARTS)}, timeout_s=TIMEOUT_S) as stream:
            for part, result in enumerate(itertools.islice(stream, most)):
                check(result["x"], seed + part)
                self.pids.add(int(result["pid"][0]))

    def make(self, client: Client, chance: random.Random, _: int) -> None:
        seed, size = next(self.numbers), chance.choice([64, MIB // 16, MIB])
        inputs = {"seed": number(seed), "size": number(size)}
        options = {"ttl_s": TTL_S, "cacheable": chance.random() < 0.5, "checksum": chance.random() < 0.1}
        self.refs.append((self.ask(client, "make", inputs, **options)["ref"], seed))

    def renew(self, client: Client, _: random.Random, place: int) -> None:
        """Make the newest object of this thread's key; nobody else makes any of it."""
        count = next(self.numbers)
        self.ask(client, "make", {"seed": number(place << KEY_SHIFT | count)}, ttl_s=TTL_S, key=f"key-{place}")
        self.newest[place] = count

    def find(self, client: Client, chance: random.Random, _: int) -> None:
        """Find the newest object of any thread's key: none that was replaced before."""
        place = chance.randrange(len(self.newest))
        newest = self.newest[place]
        result = self.ask(client, "find", {"key": f"key-{place}"})
        seed = int(result["seed"][0])
        check(result["x"], seed)
        if seed >> KEY_SHIFT != place or seed % (1 << KEY_SHIFT) < newest:
            raise Wrong(f"found {seed:x} under key-{place}, which was {newest:x} before")

    def read(self, client: Client, chance: random.Random, _: int) -> None:
        ref, seed = self.any_ref(chance)
        check(self.ask(client, "read", {"ref": str(ref), "seed": number(seed)})["x"], seed)

    def pass_on(self, client: Client, chance: random.Random, _: int) -> None:
        ref, seed = self.any_ref(chance)
        check(self.ask(client, "echo", {"x": ref, "seed": number(seed)})["x"], seed)

    def drop(self, client: Client, chance: random.Random, _: int) -> None:
        ref, _ = self.any_ref(chance)
        self.ask(client, "drop", {"ref": str(ref)})

    def any_ref(self, chance: random.Random) -> tuple[ObjRef, int]:
        """One of the newest objects; some are gone already, and at first there is only one that never was."""
        return chance.choice([*self.refs, (NEVER, 0)] if len(self.refs) < FEW else list(self.refs))


def number(value: int) -> np.ndarray:
    """A number as the input that it is, so that nobody is asked for its datatype."""
    return np.array([value], np.int64)
