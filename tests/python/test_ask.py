"""`anyserve explain` and `anyserve quarantine`: what they ask a replica, how they show its answer, what they say if
there is none.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from anyserve import cli
from anyserve.cli.explain import query, shown

MATCHING = {
    "group": "default", "capability": "model=tiny,type=chat", "function": "chat", "matches": True, "unmentioned": 1,
    "health": "ready", "queued": 3, "max_queue": 8, "in_flight": 2, "workers": 1, "expected_wait_ms": 1250.0,
    "chosen": True,
}  # fmt: skip
OTHER = {
    **MATCHING, "capability": "type=embed", "function": "embed", "matches": False, "why": "it has type=embed",
    "chosen": False, "expected_wait_ms": 0.0,
}  # fmt: skip
WAITS = {"kind": "wait", "ahead": 3, "expected_wait_ms": 1250.0}
ANSWER = {"query": "'type=chat'", "decision": WAITS, "candidates": [MATCHING, OTHER]}


class Replica(ThreadingHTTPServer):
    """Answers every request alike and keeps what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked = []
        self.status, self.headers, self.body = 200, {}, b"{}"
        self.endpoint = f"127.0.0.1:{self.server_address[1]}"

    def answers(self, body, status=200, **headers):
        self.status, self.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_DELETE(self):
        self.do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def replica(monkeypatch):
    """A replica that commands find without being told, and no token."""
    with Replica() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("ANYSERVE_ENDPOINT", server.endpoint)
        monkeypatch.delenv("ANYSERVE_ADMIN_TOKEN", raising=False)
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("conditions", "name", "expected"),
    [
        (["type=chat", "model=x"], None, {"selector": "type=chat,model=x"}),
        (["type=chat,size>=7", "!beta"], None, {"selector": "type=chat,size>=7,!beta"}),
        (["q in (a, b)"], None, {"selector": "q in (a, b)"}),
        (["text=hello world & é", "a\\b=c"], None, {"selector": 'text="hello world & é","a\\\\b"=c'}),
        (["echo"], None, {"name": "echo"}),
        (["my model"], None, {"name": "my model"}),
        (["gpu"], "echo", {"selector": "gpu", "name": "echo"}),
        ([], "echo", {"name": "echo"}),
    ],
)
def test_conditions_become_one_selector_and_a_bare_word_a_name(conditions, name, expected):
    assert parse_qs(query(conditions, name), strict_parsing=True) == {key: [text] for key, text in expected.items()}


def test_explain_asks_as_the_request_would(replica, capsys):
    replica.answers(ANSWER)
    assert cli.run(["explain", "type=chat", "--priority", "1", "--tenant", "gold", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER
    method, path, headers = replica.asked[0]
    assert (method, urlsplit(path).path, parse_qs(urlsplit(path).query)) == (
        "GET", "/explain", {"selector": ["type=chat"]},
    )  # fmt: skip
    assert (headers["x-priority"], headers["x-tenant"]) == ("1", "gold")


def test_the_decision_comes_first_then_a_line_for_each_candidate(replica, capsys):
    replica.answers(ANSWER)
    assert cli.run(["explain", "type=chat"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "'type=chat' waits behind 3 others, about 1.25 s",
        "",
        "   capability            function  group    health  queue  in flight  wait",
        "→  model=tiny,type=chat  chat      default  ready   3/8    2 on 1     1.25 s  matches, with 1 other key",
        "   type=embed            embed     default  ready   3/8    2 on 1     0 ms    no: it has type=embed",
    ]


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ({"kind": "run", "worker": "worker-0"}, "goes to worker-0 at once"),
        ({**WAITS, "ahead": 1}, "waits behind 1 other, about 1.25 s"),
        ({**WAITS, "ahead": 0, "expected_wait_ms": 1.5}, "waits for the next free place, about 1.5 ms"),
        ({"kind": "refuse", "code": "NO_CAPABILITY", "message": "no"}, "is refused with NO_CAPABILITY: no"),
        (
            {"kind": "refuse", "code": "OVERLOADED", "message": "full", "retry_after_ms": 100.0},
            "is refused with OVERLOADED: full; again in 100 ms",
        ),
    ],
)
def test_every_decision_is_a_sentence(decision, says):
    assert shown({"query": "'a'", "decision": decision, "candidates": []}) == f"'a' {says}"


def test_quarantine_lists_what_there_is_and_says_when_nothing_is(replica, capsys):
    one = {"fingerprint": "00000000000000ab", "model": "echo", "deaths": 2, "refused": 7, "remaining_s": 599.6}
    replica.answers({"quarantined": [one]})
    assert cli.run(["quarantine", "list"]) == 0
    replica.answers({"quarantined": []})
    assert cli.run(["quarantine", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "00000000000000ab  echo: 2 workers died, 7 refused since, 600 s left",
        "nothing is quarantined",
    ]
    assert "Authorization" not in replica.asked[0][2]


def test_quarantine_releases_one_or_all_and_sends_the_token(replica, capsys, monkeypatch):
    replica.answers({"released": 1})
    assert cli.run(["quarantine", "release", "00000000000000ab", "--token", "t1"]) == 0
    monkeypatch.setenv("ANYSERVE_ADMIN_TOKEN", "t2")
    assert cli.run(["quarantine", "release", "--all"]) == 0
    assert [(method, path, headers["Authorization"]) for method, path, headers in replica.asked] == [
        ("DELETE", "/admin/quarantine/00000000000000ab", "Bearer t1"),
        ("DELETE", "/admin/quarantine", "Bearer t2"),
    ]
    assert capsys.readouterr().out == "released 1\nreleased 1\n"


def test_what_stands_for_a_fingerprint_stays_within_its_place_in_the_path(replica):
    replica.answers({"error": "no"}, status=400)
    assert cli.run(["quarantine", "release", "../x?y"]) == 1
    assert replica.asked[0][1] == "/admin/quarantine/..%2Fx%3Fy"


@pytest.mark.parametrize(
    ("body", "status", "headers", "says"),
    [
        ({"error": "no such thing"}, 404, {"x_anyserve_code": "NOT_FOUND"}, "NOT_FOUND: no such thing"),
        ({"error": "no token"}, 401, {"x_anyserve_code": "UNAUTHENTICATED"}, "--token or ANYSERVE_ADMIN_TOKEN"),
        ({"error": "unknown path"}, 404, {}, "HTTP 404: unknown path; if 127.0.0.1:"),
        ({"error": "unknown path"}, 404, {}, "is an API server, name a replica with --endpoint"),
        ([], 500, {}, "HTTP 500: "),
        (b"<html>", 200, {}, "is no replica of AnyServe"),
    ],
)
def test_a_refusal_is_one_line_with_its_code_and_exit_code_1(replica, capsys, body, status, headers, says):
    replica.answers(body, status, **headers)
    assert cli.run(["quarantine", "list"]) == 1
    printed = capsys.readouterr()
    assert says in printed.err
    assert (printed.out, printed.err.count("\n"), printed.err[:10]) == ("", 1, "anyserve: ")


def test_a_replica_that_is_not_there_is_named_with_what_to_do(replica, capsys):
    with Replica() as gone:
        endpoint = gone.endpoint
    assert cli.run(["explain", "echo", "--endpoint", endpoint]) == 1
    assert capsys.readouterr().err == (
        f"anyserve: UNAVAILABLE: nothing listens on {endpoint}; start a replica, or name another with --endpoint\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain"], "nothing is asked for"),
        (["explain", "a=b", "--priority", "9"], "--priority"),
        (["explain", "a=b", "--tenant", "é"], "x-tenant has to be printable ASCII"),
        (["explain", "a=b", "--tenant", "a\r\nb: c"], "x-tenant has to be printable ASCII"),
        (["explain", "a=b", "--endpoint", "ftp://x"], "'ftp://x' is no endpoint"),
        (["explain", "a=b", "--endpoint", "x:99999"], "'x:99999' is no endpoint"),
        (["explain", "a=b", "--endpoint", "localhost"], "'localhost' is no endpoint; write HOST:PORT"),
        (["explian", "a=b"], "did you mean 'explain'?"),
        (["quarantine"], "missing command"),
        (["quarantine", "release"], "write one fingerprint"),
        (["quarantine", "release", "00000000000000ab", "--all"], "write one fingerprint"),
        (["quarantine", "list", "--token", "a", "--token", "b"], "the option --token is given 2 times"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(replica, capsys, arguments, says):
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert (printed.out, printed.err.count("\n"), printed.err[:10]) == ("", 1, "anyserve: ")
    assert replica.asked == []
