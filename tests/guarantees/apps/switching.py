"""Five models that share two tokens. Each writes into one journal when it takes its tokens and gives them back."""

import time

from anyserve import AnyServe, Worker
from tests.e2e.apps import marks

LOAD_S = 0.1
"""What loading a model takes."""

TOKENS = {"small": 1, "middle": 1, "large": 1, "dozer": 1, "wide": 2}
"""What the models need."""

app = AnyServe()


class Model(Worker):
    """Writes what it has into the journal."""

    model: str

    def on_start(self) -> None:
        """Load the model."""
        time.sleep(LOAD_S)
        write("takes", self.model)

    def on_stop(self) -> None:
        """Unload it."""
        write("gives", self.model)

    def handle(self, name: str) -> dict[str, list[str]]:
        """Answer with the name that it was asked with."""
        return {"name": [name], "model": [self.model]}


class Dozer(Model):
    """Sleeps instead of leaving. It may be ended asleep: then it has nothing to give back."""

    model = "dozer"
    awake = True

    def on_sleep(self) -> None:
        """Give the token back."""
        self.awake = False
        write("gives", self.model)

    def on_wake(self) -> None:
        """Take it again."""
        self.awake = True
        write("takes", self.model)

    def on_stop(self) -> None:
        """Unload it."""
        if self.awake:
            super().on_stop()


def write(what: str, model: str) -> None:
    """Add a line to the journal, whose order is that of the writes."""
    marks.note("journal", f"{time.monotonic_ns()} {what} {model}")


for name, amount in TOKENS.items():
    base = Dozer if name == "dozer" else Model
    made = type(name.capitalize(), (base,), {"model": name})
    app.worker(capabilities=[{"type": name}], resources={"token": amount}, min_workers=0)(made)
