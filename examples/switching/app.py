"""Three models on a machine that has room for one: whoever is asked for is loaded, and the others make room."""

import time

from anyserve import AnyServe, ModelInferRequest, Worker

app = AnyServe()

Answer = dict[str, list[str]]

LOAD_S = 0.2
"""What loading a model takes."""


class Model(Worker):
    """What the three have in common: each is loaded when its worker starts, and takes the machine's one token."""

    name: str

    def on_start(self) -> None:
        """Load the model: the worker is ready, and its first request runs, when this returns."""
        time.sleep(LOAD_S)


@app.worker(capabilities=[{"type": "translate"}], resources={"token": 1}, min_workers=0)
class Translator(Model):
    """Says things in Latin, more or less."""

    def handle(self, request: ModelInferRequest) -> Answer:
        """Answer one text."""
        return {"text": [f"{text_of(request)}us"]}


@app.worker(capabilities=[{"type": "summarize"}], resources={"token": 1}, min_workers=0)
class Summarizer(Model):
    """Keeps the first word."""

    def handle(self, request: ModelInferRequest) -> Answer:
        """Answer one text."""
        return {"text": text_of(request).split()[:1]}


@app.worker(capabilities=[{"type": "shout"}], resources={"token": 1}, min_workers=0)
class Shouter(Model):
    """Gives its token back without ending: waking takes less than loading."""

    def on_sleep(self) -> None:
        """Move the model out of the way."""

    def on_wake(self) -> None:
        """Move it back."""

    def handle(self, request: ModelInferRequest) -> Answer:
        """Answer one text."""
        return {"text": [text_of(request).upper()]}


def text_of(request: ModelInferRequest) -> str:
    """Read the one text of a request."""
    text: str = request.input("text").as_numpy()[0].decode()
    return text
