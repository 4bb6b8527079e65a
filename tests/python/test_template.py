"""The template process against a runtime that is written down here byte by byte."""

import os
import signal
import struct

import pytest

from tests.python.frames import Frame, request
from tests.python.templates import FakeTemplate

APP = """
import os
import sys
from anyserve import AnyServe, ModelInferRequest, ModelInferResponse

app = AnyServe()

def text(value):
    response = ModelInferResponse()
    response.add_output("t", "BYTES", [1]).contents.bytes_contents = [str(value).encode()]
    return response

@app.capability(type="eval")
def run(request: ModelInferRequest) -> ModelInferResponse:
    return text(eval(request.parameters["code"]))
"""


@pytest.fixture
def start(tmp_path):
    """Starts templates for an app that consists of `APP` and what the test adds."""
    started = []

    def start(more: str = "", *options: str, target: str = "app.py:app", app: str = APP) -> FakeTemplate:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        (folder / "app.py").write_text(app + more)
        started.append(FakeTemplate(target, folder, *options))
        return started[-1]

    yield start
    for template in started:
        template.close()


def evaluated(worker, code: str) -> str:
    """What an expression is in a worker's handler."""
    worker.send(request(1, 0, parameters=[{"key": "code", "text": code}]))
    done = worker.expect("Done", 1)
    worker.set_slot(1, 0)
    return done.outputs()["t"][2][4:].decode()


# === the manifest ===


def test_a_template_says_what_the_app_has(start):
    template = start()
    manifest = template.manifest()
    assert (manifest["failed"], manifest["no_fork"]) == (None, "")
    (group,) = manifest["groups"]
    assert (group["name"], group["declares_workers"], group["gpus"], group["tokens"]) == ("default", False, 0, [])
    assert [handler["function"] for handler in group["handlers"]] == ["run"]


def test_every_number_of_a_group_is_told(start):
    template = start("""
from anyserve._groups import Group
class Declared(AnyServe):
    groups = property(lambda self: (
        Group("Chat", self.handlers, gpus=2, resources={"token": 1}, workers=(0, 2), idle_timeout_s=1.5, sleeps=True,
              environment={"A": "b"}, python="/p", start_timeout_s=9),
        Group("default", self.handlers),
    ))
app.__class__ = Declared
""")
    chat, default = template.manifest()["groups"]
    assert (chat["name"], chat["gpus"], chat["tokens"]) == ("Chat", 2, [{"name": "token", "amount": 1}])
    assert (chat["declares_workers"], chat["min_workers"], chat["max_workers"]) == (True, 0, 2)
    assert (chat["idle_timeout_us"], chat["start_timeout_us"]) == (1_500_000, 9_000_000)
    assert (chat["sleeps"], chat["python"]) == (True, "/p")
    assert chat["environment"] == [{"name": "A", "value": "b"}]
    assert default["name"] == "default"


@pytest.mark.parametrize(
    ("app", "part", "trace"),
    [
        ("raise ValueError('broken')", "raised ValueError: broken", "line 1"),
        ("import", "SyntaxError", "import"),
        ("app = 1", "of type 'int'", ""),
    ],
)
def test_an_app_that_cannot_be_loaded_is_the_answer(start, app, part, trace):
    template = start(app=app)
    manifest = template.manifest()
    assert manifest["groups"] == []
    assert part in manifest["failed"]["message"]
    assert trace in manifest["failed"]["traceback"]
    assert template.wait() == 2


def test_the_files_are_those_that_the_author_edits(start, tmp_path):
    package = tmp_path / "0" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "part.py").touch()
    (tmp_path / "0").rename(tmp_path / "made")
    template = start("import json, numpy, sys\nsys.path.insert(0, '../made')\nimport mine.part\n")
    folder = tmp_path.resolve()
    assert template.manifest()["files"] == [str(folder / "0" / "app.py")], "what is elsewhere is not the app's"
    moved = start("import mine.part\n", target="../made/app.py:app")
    assert moved.manifest()["failed"] is not None, "there is no such file"
    (tmp_path / "made" / "app.py").write_text(APP + "import mine.part\n")
    template = start(target="../made/app.py:app")
    made = folder / "made"
    assert template.manifest()["files"] == [str(made / name) for name in ("app.py", "mine/__init__.py", "mine/part.py")]


def test_what_a_group_names_is_preloaded_and_what_is_missing_is_a_warning(start):
    template = start("""
from anyserve._groups import Group
class Declared(AnyServe):
    groups = property(lambda self: (Group("default", self.handlers, preload=("no_such_module", "colorsys")),))
app.__class__ = Declared
""")
    assert template.manifest()["no_fork"] == ""
    assert "preload: the module 'no_such_module' cannot be imported" in template.printed()
    assert evaluated(template.worker(), "'colorsys' in sys.modules") == "True"


# === when not to fork ===


def test_a_template_that_is_asked_not_to_fork_tells_its_manifest_and_ends(start):
    template = start("", "--no-fork")
    assert template.manifest()["no_fork"] == "it was asked not to"
    assert template.wait() == 0


def test_numpys_own_threads_end_before_a_fork_and_do_no_harm(start, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    template = start("import numpy\nmatrix = numpy.ones((300, 300))\nproduct = matrix @ matrix\n")
    assert template.manifest()["no_fork"] == ""
    for worker in (template.worker(), template.worker()):
        assert evaluated(worker, "(matrix @ product)[0, 0]") == str(300.0**2)


def test_a_thread_of_the_app_makes_forking_unsafe_and_is_named(start):
    template = start("""
import threading
threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
""")
    assert template.manifest()["no_fork"] == "a thread ('poller') runs in it"
    assert template.wait() == 0


def test_a_thread_that_is_no_daemon_does_not_keep_the_template(start):
    template = start("""
import threading
threading.Thread(target=threading.Event().wait, name="poller").start()
""")
    assert template.manifest()["no_fork"]
    assert template.wait() == 0


def test_a_device_of_nvidia_makes_forking_unsafe(start, monkeypatch, tmp_path):
    from anyserve.worker import template as own

    assert own._cuda() == ""
    monkeypatch.setattr(own, "_has_device", lambda: True)
    assert own.why_not_fork() == "CUDA is initialised in it"


def test_torch_is_asked_for_cuda(start):
    template = start("""
import types
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)
""")
    assert template.manifest()["no_fork"] == "CUDA is initialised in it"


def test_a_thread_that_starts_later_is_seen_before_the_next_fork(start):
    template = start("""
import threading
forks = []
def before():
    forks.append(1)
    if len(forks) > 3:  # after the probe and the two of the first worker
        threading.Thread(target=threading.Event().wait, name="late", daemon=True).start()
os.register_at_fork(after_in_parent=before)
import numpy
""")
    assert template.manifest()["no_fork"] == ""
    answers = [template.fork(socket="/nowhere") for _ in range(5)]
    why = [answer["failed"] for answer in answers if answer["failed"]]
    assert why
    assert "'late'" in why[-1]
    assert answers[-1]["pid"] == 0
    for answer in answers:
        if answer["pid"]:
            os.waitpid(answer["pid"], 0)


# === forks ===


def test_a_forked_worker_serves_like_any_other(start):
    template = start()
    template.manifest()
    worker = template.worker({"worker": 7, "token": "its own"})
    hello = worker.hello.meta
    assert (hello["pid"], hello["worker"], hello["token"]) == (worker.forked["pid"], 7, "its own")
    assert evaluated(worker, "1 + 1") == "2"
    worker.send(Frame("Drain", 0))
    assert worker.wait() == 0


def test_a_worker_is_our_child_in_a_group_of_its_own_with_its_own_outputs_and_environment(start):
    template = start("""
import atexit, ctypes
atexit.register(print, "over")
def death_signal():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))
    return number.value
""")
    template.manifest()
    worker = template.worker({"environment": [{"name": "A", "value": "b"}, {"name": "PATH", "value": "/p"}]})
    pid = worker.forked["pid"]
    assert evaluated(worker, "(os.getppid(), os.getpgrp(), os.environ['A'], os.environ['PATH'])") == str(
        (os.getpid(), pid, "b", "/p")
    )
    assert evaluated(worker, "'ANYSERVE_WORKER_TOKEN' in os.environ") == "False"
    assert evaluated(worker, "death_signal()") == "9", "it ends when the runtime ends"
    evaluated(worker, "(print('to stdout'), print('to stderr', file=sys.stderr))")
    assert evaluated(worker, "sys.stdin.read()") == ""
    worker.send(Frame("Drain", 0))
    assert worker.wait() == 0
    assert worker.printed("stdout") == "to stdout\nover\n", "what the app registered runs, and runs once"
    assert "to stderr" in worker.printed()
    assert template.printed() == ""


def test_a_worker_has_nothing_open_of_its_template(start):
    template = start("""
def link_of(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        return ""
""")
    template.manifest()
    worker = template.worker()
    code = "[link for n in os.listdir('/proc/self/fd') if (link := link_of(n)).startswith(('socket:', 'anon'))]"
    links = evaluated(worker, code)
    assert links.count("socket:") == 1, f"the one to the runtime: {links}"


def test_random_states_differ(start):
    template = start("import random, numpy\nrandom.seed(1)\nnumpy.random.seed(1)\n")
    template.manifest()
    code = "(random.random(), float(numpy.random.rand()))"
    first, second = (eval(evaluated(template.worker(), code)) for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_a_worker_drains_on_sigterm_and_leaves_sigint_to_the_runtime(start):
    template = start()
    template.manifest()
    worker = template.worker()
    os.kill(worker.forked["pid"], signal.SIGINT)
    assert evaluated(worker, "2") == "2"
    os.kill(worker.forked["pid"], signal.SIGTERM)
    assert worker.wait() == 0


def test_a_template_ignores_signals_and_ends_with_its_runtime(start):
    template = start()
    template.manifest()
    worker = template.worker()
    os.kill(template.process.pid, signal.SIGINT)
    os.kill(template.process.pid, signal.SIGTERM)
    assert evaluated(template.worker(), "3") == "3"
    template.socket.close()
    assert template.wait() == 0
    assert evaluated(worker, "4") == "4", "workers live on"


def test_an_order_that_cannot_be_is_refused_and_the_next_one_is_carried_out(start):
    template = start()
    template.manifest()
    for order, part in [
        ({"group": "Chat"}, "no worker group 'Chat'; it has 'default'"),
        ({"stdout": "/no/such/file"}, "FileNotFoundError"),
        ({"environment": [{"name": "a=b", "value": ""}]}, "ValueError"),
        ({"environment": [{"name": "A", "value": "b\0"}]}, "ValueError"),
    ]:
        answer = template.fork(**order)
        assert answer["pid"] == 0
        assert part in answer["failed"]
    assert evaluated(template.worker(), "5") == "5"


def test_a_process_that_is_killed_between_template_and_worker_is_told(start, tmp_path):
    template = start("""
from pathlib import Path
def middle():
    if Path("kill").exists():
        Path("kill").unlink()
        os.kill(os.getpid(), 9)
os.register_at_fork(after_in_child=middle)
""")
    template.manifest()
    (template.folder / "kill").touch()
    answer = template.fork()
    assert answer["pid"] == 0
    assert "the process between template and worker ended with -9" in answer["failed"]
    assert evaluated(template.worker(), "6") == "6"


def test_a_template_that_dies_before_its_answer_leaves_no_worker_behind(start):
    template = start("""
from pathlib import Path
template = sys.modules["__main__"]
def die_after_a_fork(pid, reap=template._reap):
    if Path("armed").exists():
        os.kill(os.getpid(), 9)
    return reap(pid)
template._reap = die_after_a_fork
""")
    template.manifest()
    (template.folder / "armed").touch()
    read, write = os.pipe()
    outputs = {"stdout": f"/proc/{os.getpid()}/fd/{write}", "stderr": "/dev/null"}
    template.send(Frame("Fork", 0, 0, {"worker": 1, "group": "default"} | outputs))
    assert template.wait() == -9, "it died when the worker was there, and had not said so"
    os.close(write)
    assert os.read(read, 1) == b"", "the worker has ended: nobody has its output open"
    os.close(read)


def test_a_frame_of_another_kind_ends_the_template(start):
    template = start()
    template.manifest()
    template.send(Frame("Ping", 1))
    assert template.wait() == 1
    assert "a Ping frame instead of Fork" in template.printed()


@pytest.mark.parametrize("data", [b"\xff" * 64, struct.pack("<2sBBHHQIQ", b"AS", 4, 23, 0, 0, 0, (16 << 20) + 1, 0)])
def test_what_is_no_frame_ends_the_template(start, data):
    template = start()
    template.manifest()
    template.socket.sendall(data)
    assert template.wait() == 1
    assert "the runtime broke a rule of the socket" in template.printed()


def test_whatever_a_worker_raises_it_never_becomes_a_template(start):
    template = start()
    template.manifest()
    answer = template.fork(socket="/nowhere")
    assert os.waitstatus_to_exitcode(os.waitpid(answer["pid"], 0)[1]) == 1
    assert evaluated(template.worker(), "7") == "7"


IMPATIENT = "sys.modules['__main__'].PATIENCE_S = 1.0\n"


def test_a_process_that_hangs_between_template_and_worker_is_ended(start):
    template = start(
        IMPATIENT
        + """
import signal
from pathlib import Path
def middle():
    if Path("hang").exists():
        Path("hang").unlink()
        signal.pause()
os.register_at_fork(after_in_child=middle)
"""
    )
    template.manifest()
    (template.folder / "hang").touch()
    answer = template.fork()
    assert answer["pid"] == 0
    assert "was not there within" in answer["failed"]
    assert "between template and worker had to be killed" in answer["failed"]
    assert template.fork(socket="/nowhere")["failed"] == "", "the next one is carried out"


def test_a_worker_that_hangs_before_it_is_there_is_ended(start):
    template = start(IMPATIENT)
    template.manifest()
    os.mkfifo(template.folder / "nobody-reads")
    answer = template.fork(stdout=str(template.folder / "nobody-reads"))
    assert answer["pid"] == 0
    assert "was not there within" in answer["failed"]
    assert template.fork(socket="/nowhere")["failed"] == "", "the next one is carried out"
