"""An app that is loaded again while it serves."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from anyserve import Client
from tests.e2e.replicas import children, name_of, until
from tests.e2e.traffic import Traffic

APP = """
import os
from anyserve import AnyServe, Worker

app = AnyServe()
VERSION = {version}

@app.capability(type="version")
def version(name: str):
    return {{"version": [VERSION], "pid": [os.getpid()]}}

@app.worker(capabilities=[{{"type": "token"}}], resources={{"token": 1}})
class Token(Worker):
    def on_start(self):
        {start}

    def handle(self, request):
        return {{"version": [VERSION]}}
"""


def write(path, version, start="pass"):
    path.write_text(APP.format(version=version, start=start))


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "app.py"
    write(path, 1)
    return path


def version(client, model="version"):
    return int(client.infer(model, {"name": "x"}, timeout_s=30)["version"][0])


class Versions(Traffic):
    """Calls of both models without a pause; which version has answered is kept."""

    def __init__(self, endpoint):
        super().__init__((Client(endpoint), partial(self.see, model)) for model in ("version", "token"))
        self.seen = []

    def see(self, model, client, _):
        self.seen.append((model, version(client, model)))


def test_a_changed_file_moves_requests_to_new_workers_and_loses_none(replica, app):
    served = replica(f"{app}:app", "--reload", "--resources", "token=1")
    with Versions(served.endpoint) as traffic:
        for number in range(2, 6):
            until(lambda number=number: ("token", number - 1) in traffic.seen, f"version {number - 1}")
            write(app, number)
            until(lambda number=number: ("version", number) in traffic.seen, f"version {number}")
        until(lambda: ("token", 5) in traffic.seen, "the last version where there is one token for old and new")
    assert traffic.failures == []
    until(lambda: len(served.workers()) == 2, "the old workers to leave")


@pytest.mark.parametrize("broken", ["def broken(:", "raise RuntimeError('not today')", "import no_such_module"])
def test_a_broken_edit_keeps_the_old_workers_and_shows_the_error(replica, app, broken):
    served = replica(f"{app}:app", "--reload", "--resources", "token=1")
    pids = served.workers()
    app.write_text(broken)
    served.says("was not loaded again")
    with Client(served.endpoint) as client:
        assert version(client) == 1
        assert served.workers() == pids
        write(app, 2)
        until(lambda: version(client) == 2, "the mended app")


def test_an_order_loads_the_app_again_once(replica, app):
    served = replica(f"{app}:app", "--resources", "token=1")
    write(app, 2)
    with Client(served.endpoint) as client:
        assert version(client) == 1, "nobody watches"
        status, body = served.http("/admin/reload", method="POST")
        assert (status, json.loads(body)["generation"]) == (200, 2)
        assert version(client) == 2
        app.write_text("raise RuntimeError('not today')")
        status, body = served.http("/admin/reload", method="POST")
        assert status == 503
        assert re.search("not today", body)
        assert version(client) == 2


def test_a_worker_that_does_not_start_keeps_the_old_ones(replica, app, tmp_path):
    served = replica(f"{app}:app", "--resources", "token=2")
    write(app, 2, "raise RuntimeError('no weights')")
    status, body = served.http("/admin/reload", method="POST")
    assert (status, "no weights" in body) == (503, True)
    with Client(served.endpoint) as client:
        assert (version(client), version(client, "token")) == (1, 1)


def test_an_app_whose_workers_are_all_started_on_demand_is_loaded_again_without_any(replica):
    served = replica("examples/switching/app.py:app", "--resources", "token=1")
    status, body = served.http("/admin/reload", method="POST")
    assert (status, json.loads(body)["generation"]) == (200, 2)
    with Client(served.endpoint) as client:
        assert client.infer("shout", {"text": ["hi"]}, timeout_s=30)["text"][0] == b"HI"


def test_a_template_that_dies_while_it_loads_the_app_again_leaves_the_old_workers(replica, app, tmp_path):
    served = replica(f"{app}:app", "--resources", "token=2")
    gate = tmp_path / "gate"
    write(app, 2)
    app.write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n" + app.read_text()
    )
    before = templates(served)
    with ThreadPoolExecutor(1) as pool, Client(served.endpoint) as client:
        ordered = pool.submit(served.http, "/admin/reload", method="POST")
        (loading,) = until(lambda: templates(served) - before, "the template that loads the app")
        os.kill(loading, signal.SIGKILL)
        status, body = ordered.result()
        assert status == 503, body
        assert (version(client), version(client, "token")) == (1, 1)
        gate.touch()
        assert served.http("/admin/reload", method="POST")[0] == 200
        assert version(client) == 2


def test_loads_of_the_app_and_scales_at_once_end_with_one_app_and_all_workers(replica, app):
    served = replica(f"{app}:app", "--resources", "token=2")
    write(app, 2)
    orders = [
        "/admin/reload",
        "/admin/groups/default/scale?workers=3",
        "/admin/reload",
        "/admin/groups/default/scale?workers=2",
    ]
    with ThreadPoolExecutor(4) as pool:
        statuses = [status for status, _ in pool.map(lambda path: served.http(path, method="POST"), orders)]
    assert 200 in statuses
    assert set(statuses) <= {200, 429, 503}, "done, another load is under way, or a later order counts"
    with Client(served.endpoint) as client:
        until(lambda: version(client) == 2, "the new app")
        status, _ = served.http("/admin/groups/default/scale?workers=2", method="POST")
        assert status == 200
        until(lambda: len(served.workers()) == 3, "two of the default group and one with a token")
        assert version(client, "token") == 2


def templates(served):
    """The processes that have loaded the app, or do so."""
    return {pid for pid in children(served.process.pid) if name_of(pid) != "anyserve-worker"}
