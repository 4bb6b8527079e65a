"""Worker groups. What becomes of a worker is noted; what a request does is in its name."""

import os
import signal
import subprocess
import sys
import time

import marks
import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest, Worker

Answer = dict[str, list[int] | list[str]]


def name_of(request: ModelInferRequest) -> str:
    return request.input("name").as_numpy()[0].decode()


class Noted(Worker):
    """Notes each step of its life with its process."""

    group = ""

    def note(self, step: str) -> None:
        marks.note(f"{self.group}-{step}", str(os.getpid()))

    def on_start(self) -> None:
        self.note("start")

    def on_stop(self) -> None:
        self.note("stop")

    def handle(self, request: ModelInferRequest, context: Context) -> Answer:
        return self.answer(name_of(request))

    def answer(self, name: str) -> Answer:
        if name.startswith("gated"):
            marks.note(f"reached-{name}", str(os.getpid()))
            marks.wait(f"go-{name}")
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        gpus, tokens = os.environ.get("CUDA_VISIBLE_DEVICES", "unset"), os.environ.get("ANYSERVE_RESOURCES", "unset")
        return {"pid": [os.getpid()], "gpus": [gpus], "tokens": [tokens], "mark": [os.environ.get("MARK", "unset")]}


def add(app: AnyServe, group: str, *, sleeps: bool = False, **options) -> None:
    """Add a group that serves a capability of its name."""
    steps = {"group": group}
    if sleeps:
        steps["on_sleep"] = lambda self: self.note("sleep")
        steps["on_wake"] = lambda self: self.note("wake")
    app.worker(capabilities=[{"type": group}], **options)(type(group, (Noted,), steps))


def create() -> AnyServe:
    """A default group, one that is always there, and some on demand that share tokens and GPUs."""
    app = AnyServe()

    @app.capability(type="plain")
    def plain(name: str) -> Answer:
        return {"pid": [os.getpid()], "gpus": [os.environ.get("CUDA_VISIBLE_DEVICES", "unset")], "name": [name]}

    add(app, "always", environment={"MARK": "own"}, min_workers=1, max_workers=2)
    add(app, "one", resources={"token": 1}, min_workers=0)
    add(app, "other", resources={"token": 1}, min_workers=0)
    add(app, "sleeper", resources={"token": 1}, min_workers=0, sleeps=True)
    add(app, "gpu", gpus=1, min_workers=0, max_workers=2)
    add(app, "brief", min_workers=0, idle_timeout_s=0.1)
    return app


def create_stubborn() -> AnyServe:
    """Workers that do not want to end, or do not start."""
    app = AnyServe()

    @app.worker(capabilities=[{"type": "deaf"}])
    class Deaf(Noted):
        """Ignores SIGTERM and never returns from its `on_stop`."""

        group = "deaf"

        def on_stop(self) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.note("stop")
            time.sleep(3600)

    @app.worker(capabilities=[{"type": "raises"}])
    class Raises(Noted):
        """Raises in its `on_stop`."""

        group = "raises"

        def on_stop(self) -> None:
            self.note("stop")
            raise RuntimeError("it would not go")

    @app.worker(capabilities=[{"type": "parent"}])
    class Parent(Noted):
        """Starts a process of its own, and one that it forgets."""

        group = "parent"

        def on_start(self) -> None:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            marks.note("parent-child", str(child.pid))

    @app.worker(capabilities=[{"type": "hangs"}], min_workers=0, start_timeout_s=0.3)
    class Hangs(Noted):
        """Never returns from its `on_start`."""

        group = "hangs"

        def on_start(self) -> None:
            self.note("start")
            time.sleep(3600)

    @app.worker(capabilities=[{"type": "refuses"}], min_workers=0)
    class Refuses(Noted):
        """Cannot start."""

        group = "refuses"

        def on_start(self) -> None:
            raise RuntimeError("no weights in /models")

    @app.worker(capabilities=[{"type": "eats"}], memory_limit="256MiB", niceness=5)
    class Eats(Noted):
        """Allocates more than it may."""

        group = "eats"

        def answer(self, name: str) -> Answer:
            if name == "much":
                np.ones(1 << 27)
            return {"pid": [os.getpid()], "niceness": [os.nice(0)]}

    @app.worker(capabilities=[{"type": "warm"}], warmup=[{"name": ["first"]}, {"name": ["second"]}])
    class Warm(Noted):
        """Is warmed up."""

        group = "warm"

        def answer(self, name: str) -> Answer:
            marks.note("warmed", name)
            return {"pid": [os.getpid()]}

    return app
