"""What goes wrong in a storm: one fault every 200 ms, drawn from a seed."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress

from tests.e2e.replicas import Replica
from tests.guarantees import resets
from tests.guarantees.ledger import Ledger
from tests.guarantees.load import Load, encode

EVERY_S = 0.2
MIB = 1 << 20
RESET_REQUESTS = 4

GRACE_S = 0.7
"""What an overrunning handler of the storm gets; some take more."""

PING_TIMEOUT_S = 2.0
"""After so much silence the replica replaces a worker; some are stopped for longer."""

WEIGHTS = {
    "kill": 2, "stop": 3, "poison": 1, "overrun": 4, "fail": 6, "leave": 9, "burst": 5, "malformed": 9, "oversized": 3,
    "reset": 8,
}  # fmt: skip
"""Which faults there are, and how many of each come in 50. About every second one of the workers dies of one."""


class Faults:
    """Brings the faults of a storm on."""

    def __init__(self, replica: Replica, load: Load, ledger: Ledger, chance: random.Random) -> None:
        self.replica, self.load, self.ledger, self.chance = replica, load, ledger, chance
        self.stopped: set[int] = set()

    async def run(self, duration_s: float) -> None:
        """Bring a fault on every 200 ms."""
        start = time.monotonic()
        for place in range(int(duration_s / EVERY_S)):
            await asyncio.sleep(start + place * EVERY_S - time.monotonic())
            self.one()

    def one(self) -> None:
        (name,) = self.chance.choices(list(WEIGHTS), WEIGHTS.values())
        self.ledger.faults[name] += 1
        getattr(self, name)()

    def end(self) -> None:
        """Let everybody who is stopped go on."""
        for pid in list(self.stopped):
            self.go_on(pid)

    # === on workers ===

    def kill(self) -> None:
        self.signal(self.worker(), signal.SIGKILL)

    def stop(self) -> None:
        """Stop a worker for a while; it goes on, or is replaced because it answers no ping."""
        pid = self.worker()
        if pid is None or pid in self.stopped:
            return
        self.stopped.add(pid)
        self.signal(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(self.chance.uniform(0.1, 1.25 * PING_TIMEOUT_S), self.go_on, pid)

    def go_on(self, pid: int) -> None:
        if pid in self.stopped and pid in self.replica.workers():
            self.signal(pid, signal.SIGCONT)
        self.stopped.discard(pid)

    def worker(self) -> int | None:
        workers = sorted(self.replica.workers())
        return self.chance.choice(workers) if workers else None

    def signal(self, pid: int | None, number: signal.Signals) -> None:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # === in handlers ===

    def poison(self) -> None:
        """Send a request that ends its worker, with content that nothing has been learnt of."""
        model, how = self.chance.choice(["crash", "crash-idempotent"]), self.chance.choice(["kill", "exit"])
        self.load.send(self.load.make(model, how, timeout_s=3.0, never=True))

    def overrun(self) -> None:
        """Have a handler work on beyond its deadline; some of them for longer than the grace."""
        timeout_s = 0.3
        seconds = f"{timeout_s + self.chance.uniform(0, 1.4 * GRACE_S):.2f}"
        how = self.chance.choice(["spin", "sleep", "sleep", "sleep"])
        self.load.send(self.load.make("overrun", f"{how} {seconds}", timeout_s=timeout_s))

    def fail(self) -> None:
        self.load.send(self.load.make("raise", "why", may=frozenset({"HANDLER_ERROR"}), never=True))

    # === by clients ===

    def leave(self) -> None:
        """Have callers leave: some whose requests run for longer, and some of whoever is there."""
        for _ in range(8):
            self.load.send(self.load.make("slow", "leaves"))
        asyncio.get_running_loop().call_later(0.02, self.load.leave, 20)

    def burst(self) -> None:
        for _ in range(200):
            self.load.send(self.load.make("narrow", "burst"))

    def malformed(self) -> None:
        """Send what is no message, and a message that says something impossible."""
        for message in (self.chance.randbytes(200), self.lying()):
            self.load.send(self.load.make("echo", "", may=frozenset({"INVALID_INPUT"}), never=True), message)

    def lying(self) -> bytes:
        """Make a message whose tensor has fewer elements than its shape."""
        request = self.load.make("echo", "lies")
        return encode(request, shape=1000)

    def oversized(self) -> None:
        request = self.load.make("echo", "x" * MIB, may=frozenset({"INVALID_INPUT", "OVERLOADED"}), never=True)
        self.load.send(request)

    def reset(self) -> None:
        """Break a connection with requests that run, and one whose message has arrived by half."""
        requests = [self.load.make("slow", "is cut off") for _ in range(RESET_REQUESTS)]
        with suppress(OSError):
            connection = resets.begin(self.load.endpoint, [encode(one) for one in requests], 500)
            asyncio.get_running_loop().call_later(self.chance.uniform(0, 0.1), resets.reset, connection)
