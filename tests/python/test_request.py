"""What `anyserve call` asks the client for."""

from typing import ClassVar

import numpy as np
import pytest

from anyserve import cli
from anyserve.cli import request
from anyserve.errors import NoCapability


class Parts(list):
    """A stream of answers."""

    def __enter__(self):
        return self

    def __exit__(self, *error): ...


class FakeClient:
    """Records calls and answers with what it was sent."""

    calls: ClassVar[list] = []

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def __enter__(self):
        return self

    def __exit__(self, *error): ...

    def infer(self, target, inputs, **options):
        self.calls.append((self.endpoint, target, inputs, options))
        if target == "unknown":
            raise NoCapability("nothing serves 'unknown'")
        return {name: np.array(value) for name, value in inputs.items()}

    def stream(self, target, inputs, **options):
        return Parts([self.infer(target, inputs, **options)] * 2)


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    monkeypatch.delenv("ANYSERVE_ENDPOINT", raising=False)
    monkeypatch.setattr(FakeClient, "calls", [])
    monkeypatch.setattr(request, "Client", FakeClient)
    return FakeClient.calls


@pytest.mark.parametrize(
    ("model", "target", "parameters"),
    [
        ("echo", "echo", None),
        ("org/model-7b:latest", "org/model-7b:latest", None),
        ("type=echo", {"type": "echo"}, None),
        ("type=echo, lang=en", {"type": "echo", "lang": "en"}, None),
        ("size>=7", "size>=7", {"capability": "size>=7"}),
        ("type=chat,!draft", "type=chat,!draft", {"capability": "type=chat,!draft"}),
        ("lang in (en,de)", "lang in (en,de)", {"capability": "lang in (en,de)"}),
    ],
)
def test_a_name_a_capability_and_a_selector_are_told_apart(model, target, parameters):
    assert request.chosen(model) == (target, parameters)


def test_a_call_prints_its_outputs(calls, capsys):
    assert cli.run(["call", "echo", "n=[1,2]", "--endpoint", "h:1", "--timeout-s", "3"]) == 0
    assert capsys.readouterr().out == "n: [1, 2]\n"
    assert calls == [("h:1", "echo", {"n": [1, 2]}, {"timeout_s": 3.0, "parameters": None})]


def test_a_stream_prints_each_answer(capsys):
    assert cli.run(["call", "echo", "n=1", "--stream", "--json"]) == 0
    assert capsys.readouterr().out == '{"n": [1]}\n{"n": [1]}\n'


def test_the_endpoint_may_be_a_variable(calls, monkeypatch):
    monkeypatch.setenv("ANYSERVE_ENDPOINT", "h:2")
    cli.run(["call", "echo"])
    assert calls[0][0] == "h:2"


def test_an_error_of_the_closed_set_is_one_line_and_exit_code_1(capsys):
    assert cli.run(["call", "unknown", "n=1"]) == 1
    assert capsys.readouterr().err == "anyserve: NO_CAPABILITY: nothing serves 'unknown'\n"
