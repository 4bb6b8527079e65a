"""The books of a storm: how every request ended, and every way in which one broke the promise."""

from collections import Counter
from dataclasses import dataclass, field

from anyserve import errors

ALLOWANCE_S = 0.25
"""How long after its deadline a request may end."""

CODES = {
    error.code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.AnyServeError)
}
"""The closed set."""

UNDER_FAULTS = {"DEADLINE", "OVERLOADED", "WORKER_LOST", "UNAVAILABLE", "POISON"}
"""What any good request may end with while workers are killed, stopped and flooded."""

ANSWERED, LEFT = "answered", "left"
SHOWN = 20


@dataclass(slots=True)
class Request:
    """One request of the storm and what may become of it.

    Attributes:
        id: different from all others.
        model: what it asks for.
        payload: different from all others; comes back in an answer.
        timeout_s: what the replica is told.
        parts: of the stream that it asks for; 0 is a unary request.
        may: codes that it may end with beside those of any good request.
        never: an answer would be wrong.
        left: its caller has cancelled it.
        began: when it was sent.
    """

    id: str
    model: str
    payload: str
    timeout_s: float
    parts: int = 0
    may: frozenset[str] = frozenset()
    never: bool = False
    left: bool = False
    began: float = 0.0

    @property
    def deadline(self) -> float:
        return self.began + self.timeout_s


@dataclass
class Ledger:
    """Every request is entered once when it is sent, and once when it ends."""

    sent: int = 0
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    latest: tuple[float, str] = (0.0, "nobody")
    faults: Counter[str] = field(default_factory=Counter)

    def send(self, request: Request, now: float) -> None:
        request.began = now
        self.sent += 1
        self.open.add(request.id)

    def end(self, request: Request, outcome: str, now: float, *, own_delay_s: float = 0.0) -> None:
        """Enter how a request ended; `own_delay_s` is how far behind its schedule the one who looks was."""
        if request.id not in self.open:
            return self.violate(request, f"ended twice, now with {outcome}")
        self.open.remove(request.id)
        self.ended[request.model, outcome] += 1
        if outcome == LEFT:
            return None
        over = now - request.deadline
        self.latest = max(self.latest, (over - own_delay_s, f"{request.id} with {outcome}"))
        if over - own_delay_s > ALLOWANCE_S:
            self.violate(request, f"{outcome} {over:.3f} s after its deadline (own delay {own_delay_s:.3f} s)")
        return None

    def answer(self, request: Request, now: float, attempts: int, *, own_delay_s: float) -> None:
        if request.never:
            self.violate(request, "was answered")
        self.answered.add(request.id)
        self.attempts[request.id] = attempts
        self.end(request, ANSWERED, now, own_delay_s=own_delay_s)

    def fail(self, request: Request, code: str, text: str, now: float, *, own_delay_s: float) -> None:
        if code not in CODES:
            self.violate(request, f"failed with no code of the closed set: {code!r} {text!r}")
        elif code not in UNDER_FAULTS | request.may:
            self.violate(request, f"failed with {code}: {text}")
        self.end(request, code, now, own_delay_s=own_delay_s)

    def violate(self, request: Request, what: str) -> None:
        self.violations.append(f"{request.id} ({request.timeout_s:.3f} s): {what}")

    # === sums ===

    def by_outcome(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for (_, outcome), count in self.ended.items():
            total[outcome] += count
        return total

    def balance(self) -> tuple[int, int]:
        """Requests that were sent, and those that ended in one of the ways there are."""
        return self.sent, sum(self.ended.values())

    def __str__(self) -> str:
        models: dict[str, list[str]] = {}
        for (model, outcome), count in sorted(self.ended.items()):
            models.setdefault(model, []).append(f"{outcome} {count}")
        lines = [f"sent {self.sent}, ended {sum(self.ended.values())}, open {len(self.open)}"]
        lines += [f"  {model:17} {', '.join(outcomes)}" for model, outcomes in models.items()]
        lines += [f"faults {sum(self.faults.values())}: {dict(sorted(self.faults.items()))}"]
        lines += [f"latest end {self.latest[0] * 1000:+.0f} ms after its deadline: {self.latest[1]}"]
        lines += [f"violations {len(self.violations)}", *(f"  {one}" for one in self.violations[:SHOWN])]
        return "\n".join(lines)
