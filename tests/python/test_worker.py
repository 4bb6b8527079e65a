"""The process of a worker, up to where the runtime's loop takes over."""

import sys
import types

import pytest

from anyserve import _core
from anyserve.worker import __main__ as worker
from anyserve.worker import _process

ARGUMENTS = ["--socket", "/s", "--worker-id", "3"]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Records what the worker tells the runtime; `whole.py` is an app beside it."""
    (tmp_path / "whole.py").write_text(
        "from anyserve import AnyServe\napp = AnyServe()\n@app.capability(type='t')\ndef f(request): ...\n"
        "def create(): return app\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("ANYSERVE_WORKER_TOKEN", "secret")
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker, "write_by_line", lambda: None)
    made = []
    monkeypatch.setattr(_core, "run_worker", lambda *arguments: made.append(("run", *arguments)) or 0)
    monkeypatch.setattr(_core, "report_start_failure", lambda *arguments: made.append(("failed", *arguments)))
    yield made
    sys.modules.pop("whole", None)


@pytest.mark.parametrize("target", [["whole:app"], ["whole:create", "--factory"]])
def test_a_worker_loads_the_app_and_hands_its_rows_over(calls, target):
    assert worker.main([*ARGUMENTS, "--target", *target]) == 0
    ((kind, socket, number, token, rows, life),) = calls
    assert (kind, socket, number, token) == ("run", "/s", 3, "secret")
    assert [row.function for row in rows] == ["f"]
    assert life.start() is None, "functions have nothing to start"


def test_the_token_is_not_left_to_what_the_handlers_start(calls):
    worker.main([*ARGUMENTS, "--target", "whole:app"])
    assert "ANYSERVE_WORKER_TOKEN" not in worker.os.environ


def test_a_target_that_cannot_be_loaded_is_reported_and_ends_with_2(calls):
    assert worker.main([*ARGUMENTS, "--target", "hole:app"]) == 2
    ((kind, socket, number, token, what, message, trace),) = calls
    assert (kind, socket, number, token, what, trace) == ("failed", "/s", 3, "secret", "target", "")
    assert "did you mean 'whole'?" in message


def test_where_the_runtime_has_gone_the_log_says_why(calls, monkeypatch, capsys):
    def refuse(*_):
        raise BrokenPipeError

    monkeypatch.setattr(_core, "report_start_failure", refuse)
    assert worker.main([*ARGUMENTS, "--target", "hole:app"]) == 2
    assert "did you mean 'whole'?" in capsys.readouterr().err


def test_a_group_that_the_app_does_not_have_is_reported_with_those_that_it_has(calls):
    assert worker.main([*ARGUMENTS, "--target", "whole:app", "--group", "Chat"]) == 2
    assert calls[0][5] == "the app has no worker group 'Chat'; there are 'default'"


def test_the_exit_code_is_that_of_the_loop(calls, monkeypatch):
    monkeypatch.setattr(_core, "run_worker", lambda *_: 3)
    assert worker.main([*ARGUMENTS, "--target", "whole:app"]) == 3


def test_after_a_fork_the_random_numbers_are_those_of_nobody_else(monkeypatch):
    import numpy as np

    seeded = []
    monkeypatch.setattr(np.random, "seed", lambda: seeded.append("numpy"))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(seed=lambda: seeded.append("torch")))
    _process.after_fork()
    assert seeded == ["numpy", "torch"]


def test_after_a_fork_nothing_is_loaded_for_its_sake(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    _process.after_fork()
    assert "torch" not in sys.modules
