"""`anyserve status`, `workers`, `models` and `drain`: what they order, what they say, how they show a replica."""

import copy
import json
import queue
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO

import pytest
from rich.console import Console

from anyserve import cli
from anyserve.cli import live
from anyserve.cli.status import headline, models, rates, said, seconds, spaced, tables, text
from anyserve.cli.tables import printable

WATCHDOG_S = 30

WORKER = {
    "name": "Chat-0", "state": "ready", "since_s": 61.0, "pid": 7, "in_flight": 2, "gpus": ["0"],
    "memory_bytes": 3 << 20, "detail": "",
}  # fmt: skip
GROUP = {
    "name": "Chat", "state": "ready", "models": ["chat", "tiny"], "workers": [WORKER], "min_workers": 0,
    "max_workers": 2, "needs": {"gpus": 1, "tokens": {"token": 2, "none": 0}}, "queued": 3, "in_flight": 2,
    "oldest_wait_ms": 12.5, "succeeded": 10, "failed": 1, "starts": 1, "restarts": 0, "start_time_ms": 1500.0,
    "wake_time_ms": None,
}  # fmt: skip
STATUS = {
    "uptime_s": 10.0, "draining": False, "in_flight": 5, "safe_to_stop": False, "generation": 1, "groups": [GROUP],
    "resources": [{"name": "token", "total": 4, "used": 2}],
    "objects": {"capacity_bytes": 1 << 30, "used_bytes": 1536, "longest_free_bytes": 0, "objects": 1, "tensors": 0,
                "evicted": 0, "kept": []},
}  # fmt: skip


class Replica(ThreadingHTTPServer):
    """Shows a status, and carries out orders when the test says so."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.endpoint = f"127.0.0.1:{self.server_address[1]}"
        self.status = copy.deepcopy(STATUS)
        self.asked, self.looks = [], queue.Queue()
        self.done = threading.Event()
        self.done.set()
        self.answer, self.code = {"done": True, "in_flight": 0, "safe_to_stop": True, "group": GROUP}, 200
        self.events = [STATUS]


class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/status":
            self.tell()
            return
        assert self.path == "/admin/workers"
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        self.send(self.server.status, 200)
        self.server.looks.put(self.path)

    def do_POST(self):
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        waits = "wait=false" not in self.path
        if waits:
            assert self.server.done.wait(WATCHDOG_S)
        code = self.server.code if waits or self.server.code >= 400 else 202
        self.send(self.server.answer | {"done": self.server.done.is_set()}, code)

    def tell(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"retry: 1000\n")
        for event in self.server.events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def send(self, body, status):
        body = json.dumps(body).encode()
        self.send_response(status)
        if status >= 400:
            self.send_header("x-anyserve-code", {404: "NOT_FOUND", 401: "UNAUTHENTICATED"}[status])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def replica(monkeypatch):
    """A replica that commands find without being told."""
    with Replica() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("ANYSERVE_ENDPOINT", server.endpoint)
        monkeypatch.delenv("ANYSERVE_ADMIN_TOKEN", raising=False)
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


# === orders ===


ORDERS = {
    ("workers", "start", "Chat"): "/admin/groups/Chat/start",
    ("workers", "scale", "Chat", "3"): "/admin/groups/Chat/scale?workers=3",
    ("workers", "drain", "Chat-0"): "/admin/workers/Chat-0/drain",
    ("workers", "drain", "Chat"): "/admin/groups/Chat/drain",
    ("workers", "stop", "Chat-0"): "/admin/workers/Chat-0/stop",
    ("workers", "reload"): "/admin/reload",
    ("models", "load", "a/b c"): "/admin/models/a%2Fb%20c/load",
    ("models", "load", "chat", "--workers", "2"): "/admin/models/chat/load?workers=2",
    ("models", "unload", "chat"): "/admin/models/chat/unload",
    ("drain",): "/admin/drain",
}


@pytest.mark.parametrize("arguments", ORDERS, ids=" ".join)
def test_an_order_goes_to_its_path_with_the_token_and_is_waited_for(replica, capsys, arguments):
    replica.answer["generation"] = 2
    assert cli.run([*arguments, "--admin-token", "secret"]) == 0
    assert replica.asked[-1] == ("POST", ORDERS[arguments], "Bearer secret")
    assert {token for _, _, token in replica.asked} == {"Bearer secret"}
    printed = capsys.readouterr()
    assert (bool(printed.out), printed.err) == (True, "")


@pytest.mark.parametrize("arguments", ORDERS, ids=" ".join)
def test_an_order_that_is_not_waited_for_says_so_to_the_replica_and_to_the_caller(replica, capsys, arguments):
    replica.done.clear()
    assert cli.run([*arguments, "--no-wait"]) == 0
    path = next(path for method, path, _ in replica.asked if method == "POST")
    assert path == ORDERS[arguments] + ("&" if "?" in ORDERS[arguments] else "?") + "wait=false"
    assert capsys.readouterr().out.startswith("ordered: ")


def test_a_drain_shows_what_is_in_flight_until_it_is_safe_to_stop(replica, capsys):
    replica.done.clear()

    def operate():
        for in_flight in (5, 1, 0):
            replica.status["in_flight"] = in_flight
            while not replica.looks.empty():
                replica.looks.get()
            replica.looks.get(timeout=WATCHDOG_S)
            replica.looks.get(timeout=WATCHDOG_S)
        replica.done.set()

    operator = threading.Thread(target=operate)
    operator.start()
    assert cli.run(["drain"]) == 0
    operator.join()
    assert capsys.readouterr().out.splitlines() == [
        "5 requests in flight", "1 request in flight", "nothing in flight", "drained: safe to stop",
    ]  # fmt: skip


def test_what_is_done_is_said_in_a_line(replica, capsys):
    for arguments, expected in {
        ("workers", "drain", "Chat-0"): "Chat-0 has ended: safe to stop",
        ("workers", "scale", "Chat", "1"): "Chat ready: 1/1 (0–2) workers ready",
        ("models", "unload", "chat"): "chat is unloaded; Chat ready: 1/1 (0–2) workers ready",
    }.items():
        assert cli.run(list(arguments)) == 0
        assert capsys.readouterr().out == expected + "\n"


def test_with_json_there_is_nothing_but_the_answer(replica, capsys):
    assert cli.run(["workers", "drain", "Chat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == replica.answer
    assert cli.run(["workers", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


@pytest.mark.parametrize(("arguments", "says"), [
    (["workers", "drain", "Chat-1"], "no worker and no group 'Chat-1'; did you mean 'Chat-0'?"),
    (["workers", "drain", "xyz"], "no worker and no group 'xyz'; there are Chat-0, Chat"),
    (["workers", "start", "chat"], "no group 'chat'; did you mean 'Chat'?"),
    (["workers", "scale", "Chat-0", "2"], "no group 'Chat-0'; did you mean 'Chat'?"),
], ids=str)  # fmt: skip
def test_a_name_that_there_is_not_is_met_with_one_that_there_is(replica, capsys, arguments, says):
    assert cli.run(arguments) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"anyserve: NOT_FOUND: there is {says}\n")
    assert all(method == "GET" for method, _, _ in replica.asked)


def test_what_the_replica_refuses_is_one_line_and_exit_code_1(replica, capsys):
    replica.code, replica.answer = 404, {"error": "there is no model 'x'; there are chat and tiny"}
    for wait in ([], ["--no-wait"]):
        assert cli.run(["models", "load", "x", *wait]) == 1
        assert capsys.readouterr().err == "anyserve: NOT_FOUND: there is no model 'x'; there are chat and tiny\n"
    replica.code, replica.answer = 401, {"error": "this is not the admin token"}
    assert cli.run(["drain"]) == 1
    assert "--token or ANYSERVE_ADMIN_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["drain"], ["status"], ["workers", "list"], ["models", "list"]], ids=" ".join)
def test_nobody_who_listens_is_named_with_what_to_do(replica, capsys, arguments):
    with Replica() as gone:
        endpoint = gone.endpoint
    assert cli.run([*arguments, "--endpoint", endpoint]) == 1
    assert f"nothing listens on {endpoint}; start a replica" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "says"), [
    (["workers"], "missing command"), (["workers", "scale", "Chat", "-1"], "-1"),
    (["workers", "scale", "Chat"], "'N'"), (["status", "--interval-s", "0.5"], "--interval-s"),
    (["drain", "now"], "now"), (["statsu"], "did you mean 'status'?"),
], ids=str)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_asked(replica, capsys, arguments, says):
    assert cli.run(arguments) == 2
    assert says in capsys.readouterr().err
    assert replica.asked == []


# === what is shown ===


def test_the_status_is_shown_in_plain_lines_where_there_is_no_terminal(replica, capsys):
    assert cli.run(["status", "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    groups = [re.split(" {2,}", line) for line in lines[2:4]]
    assert groups == [
        ["group", "state", "workers", "queued", "in flight", "oldest wait", "rate", "answered", "failed", "restarts",
         "start takes", "needs", "models"],
        ["Chat", "ready", "1/1 (0–2)", "3", "2", "12.5 ms", "–", "10", "1", "0", "1.5 s", "1 gpu, 2 token",
         "chat, tiny"],
    ]  # fmt: skip
    assert lines[:2] + lines[4:] == [
        "serving, up for 10 s, load 1 of the app, 5 in flight",
        "",
        "",
        "worker  group  state  for    pid  in flight  gpus  memory   detail",
        "Chat-0  Chat   ready  1 min  7    2          0     3.0 MiB",
        "",
        "resource      used     of",
        "token         2        4",
        "object store  1.5 KiB  1.0 GiB",
    ]


def test_with_json_each_status_is_a_line(replica, capsys):
    replica.events = [STATUS, {**STATUS, "uptime_s": 11.0}]
    assert cli.run(["status", "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_a_replica_that_ends_is_told_and_the_exit_code_is_1(replica, capsys):
    assert cli.run(["status"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("serving, ")
    assert printed.err.startswith(f"anyserve: UNAVAILABLE: {replica.endpoint} has ended the connection")


def test_lists_say_when_there_is_nothing(replica, capsys):
    assert (cli.run(["workers", "list"]), cli.run(["models", "list"])) == (0, 0)
    shown = capsys.readouterr().out
    assert "Chat-0  Chat   ready" in shown
    assert re.search(r"^tiny +ready +Chat +1/1", shown, re.MULTILINE)
    replica.status["groups"] = []
    assert (cli.run(["workers", "list"]), cli.run(["models", "list"])) == (0, 0)
    assert capsys.readouterr().out == "there are no workers\nthere are no models\n"


def later(**groups):
    """A status 2 s later, with other fields of its group."""
    return {**STATUS, "uptime_s": 12.0, "groups": [{**GROUP, **groups}]}


def test_rates_are_differences_and_a_count_that_begins_anew_is_no_negative_one():
    assert list(rates(STATUS, later(succeeded=29, failed=2)).values()) == [10.0]
    assert list(rates(STATUS, later(succeeded=4, failed=0)).values()) == [2.0]
    assert rates(None, STATUS) == {}
    assert rates(STATUS, STATUS) == {}
    assert rates(STATUS, later(name="Other")) == {}
    assert rates(STATUS, later(state="leaving")) == {}, "a group that leaves is another one than its successor"


def test_statuses_are_taken_at_their_interval():
    assert [one["uptime_s"] for one, _ in spaced([STATUS, later()], 60)] == [10.0]
    assert [one["uptime_s"] for one, _ in spaced([STATUS, later()], 0)] == [10.0, 12.0]


def test_names_of_others_do_nothing_to_the_terminal():
    hostile = "\x1b[2Ja\nb[red]\u202e"
    status = {
        **STATUS,
        "groups": [{**GROUP, "name": hostile, "models": [hostile], "workers": [{**WORKER, "detail": hostile}]}],
    }
    expected = "\\x1b[2Ja\\nb[red]\\u202e"
    assert printable(hostile) == expected
    drawn = StringIO()
    console = Console(file=drawn, width=300, force_terminal=True)
    for table in tables(status, {}):
        console.print(live._drawn(table))
    for shown in (text(status, {}), said(models(status), ""), drawn.getvalue()):
        assert expected in shown
        assert "\x1b[2J" not in shown
        assert "\u202e" not in shown


def test_what_a_replica_does_is_said_first():
    assert headline({**STATUS, "draining": True}).startswith("draining, ")
    assert headline({**STATUS, "draining": True, "safe_to_stop": True}).startswith("drained: safe to stop, ")
    assert [seconds(value) for value in (0.04, 59, 60, 3599, 3600, 172_800)] == [
        "0.0 s", "59 s", "1 min", "59 min", "1 h 0 min", "2 d",
    ]  # fmt: skip
