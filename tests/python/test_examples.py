"""The handlers of the examples, called as plain functions: what a user's own tests would do."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from anyserve import InferInput, ModelInferRequest, Objects
from anyserve.errors import NotFound
from examples.basic import app as basic
from examples.objects import app as objects
from examples.pipeline import app as pipeline
from examples.streaming import app as streaming
from tests.python.object_plane import FakePlane


def test_echo_gives_every_input_back():
    text = InferInput("text", np.array([b"hello", b"\0"], dtype=object))
    number = InferInput("number", np.float32([[1, 2]]))
    response = basic.echo(ModelInferRequest("echo", [text, number], id="7"))
    assert (response.model_name, response.id) == ("echo", "7")
    assert response.output("output_text").as_numpy().tolist() == [b"hello", b"\0"]
    assert response.output("output_number").as_numpy().tolist() == [[1.0, 2.0]]
    assert response.output("output_number").datatype == "FP32"


def test_add_is_a_plain_function():
    assert basic.add(np.float32([1, 2]), np.float32([3, 4]))["sum"].tolist() == [4.0, 6.0]


def test_the_first_two_ways_to_stream_yield_the_words():
    async def collect():
        return [part async for part in streaming.tokens_async("one two")]

    words = [{"token": ["one"]}, {"token": ["two"]}]
    assert list(streaming.tokens("one two")) == words
    assert asyncio.run(collect()) == words


def test_sending_stops_when_the_caller_has_left():
    class Caller:
        def __init__(self, patience):
            self.words = []
            self.patience = patience

        @property
        def cancelled(self):
            return len(self.words) >= self.patience

        def send(self, response):
            self.words.append(response.output("token").as_numpy()[0])

    request = ModelInferRequest("tokens-sent", [InferInput("prompt", np.array([b"a b c"], dtype=object))])
    for patience, words in [(9, [b"a", b"b", b"c"]), (2, [b"a", b"b"])]:
        caller = Caller(patience)
        streaming.tokens_sent(request, caller, caller)
        assert caller.words == words


def test_an_image_is_stored_found_and_forgotten():
    context = SimpleNamespace(objects=Objects(FakePlane(capacity=3 << 20)))
    image = np.float32([[1, 2], [3, 4]])
    ref = objects.store(image, "cat", context)["ref"]
    assert objects.mean(image) == objects.mean_of("cat", context) == {"mean": [2.5]}
    assert objects.usage(context) == {"objects": [1], "capacity_mib": [3]}
    assert objects.forget(ref, context) == {"forgotten": [True]}
    with pytest.raises(NotFound, match="there is no image 'cat'"):
        objects.mean_of("cat", context)


class Steps:
    """A context whose calls are the steps themselves."""

    async def acall(self, capability, inputs):
        given = {name: value.decode() if isinstance(value, bytes) else value for name, value in inputs.items()}
        if capability["type"] == "tokenize":
            answer = pipeline.tokenize(**given)
        elif capability["type"] == "format":
            answer = pipeline.format_line(**given)
        else:
            answer = pipeline.analyze(ModelInferRequest("analyze", [InferInput("tokens", given["tokens"])]))
        return {name: InferInput(name, np.array(values)).as_numpy() for name, values in answer.items()}


def test_a_pipeline_formats_the_three_most_frequent_words():
    answer = asyncio.run(pipeline.report("One two, two three; three three four.", Steps()))
    assert answer == {"report": ["three ***", "two **", "four *"]}


def test_what_the_examples_serve_is_what_their_readmes_call():
    assert [row.capability["type"] for row in basic.app.handlers] == ["echo", "add", "wait"]
    assert [row.capability["type"] for row in objects.app.handlers] == ["store", "mean", "mean-of", "forget", "usage"]
    assert [row.capability["type"] for row in pipeline.app.handlers] == [
        "tokenize",
        "analyze",
        "format",
        "report",
        "lines",
    ]
    assert [row.capability["type"] for row in streaming.app.handlers] == ["tokens", "tokens-async", "tokens-sent"]
