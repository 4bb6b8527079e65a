"""Groups in each state that a request can find them in. Handlers do nothing; `IMPORTS` says what the app imports."""

import importlib
import os

from anyserve import AnyServe, ModelInferRequest, Worker

for name in filter(None, os.environ.get("IMPORTS", "").split(",")):
    importlib.import_module(name)

app = AnyServe()

Answer = dict[str, list[str]]

FIRSTS = 8
"""Groups that have not been asked yet."""

IDLE_S = 0.05
"""Time after which an idle worker goes."""


class Nothing(Worker):
    """Answers at once, and has nothing to load."""

    def handle(self, request: ModelInferRequest) -> Answer:  # noqa: ARG002 - nothing of it matters
        """Answer any request."""
        return {"text": ["done"]}


@app.worker(capabilities=[{"type": "ready"}])
class Ready(Nothing):
    """Always there."""


@app.worker(capabilities=[{"type": "stopped"}], min_workers=0, idle_timeout_s=IDLE_S)
class Stopped(Nothing):
    """Ends when nobody asks."""


@app.worker(capabilities=[{"type": "asleep"}], min_workers=0, idle_timeout_s=IDLE_S)
class Asleep(Nothing):
    """Sleeps when nobody asks."""

    def on_sleep(self) -> None:
        """Nothing to give back."""

    def on_wake(self) -> None:
        """Nothing to take."""


@app.worker(capabilities=[{"type": "one"}], min_workers=0, resources={"token": 1})
class One(Nothing):
    """Shares a token with `Other`."""


@app.worker(capabilities=[{"type": "other"}], min_workers=0, resources={"token": 1})
class Other(Nothing):
    """Shares a token with `One`."""


@app.worker(capabilities=[{"type": "many"}], min_workers=0, max_workers=64)
class Many(Nothing):
    """As many as are ordered."""


for place in range(FIRSTS):
    app.worker(capabilities=[{"type": f"first-{place}"}], min_workers=0)(type(f"First{place}", (Nothing,), {}))
