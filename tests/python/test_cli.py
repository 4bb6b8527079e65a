"""The command line: which command is meant, what it passes on, and what it says about mistakes."""

import signal
import subprocess
import sys

import pytest

from anyserve import _core, cli
from anyserve.errors import StartError


@pytest.fixture
def served(monkeypatch):
    """Records the options that reach the runtime, and lets no variable of the environment in."""
    for name in (
        "HOST",
        "PORT",
        "WORKERS",
        "CONFIG",
        "ENDPOINT",
        "TARGET",
        "LOG_LEVEL",
        "ADMIN_TOKEN",
        "TENANT_WEIGHT",
    ):
        monkeypatch.delenv(f"ANYSERVE_{name}", raising=False)
    calls = []

    def serve(options, on_event):
        calls.append(options)
        on_event("worker", {"name": "worker-0", "state": "starting", "pid": 5, "detail": ""})
        on_event("serving", {"endpoint": "127.0.0.1:8000", "capabilities": [], "models": ["echo"], "workers": 1})
        on_event("stopped", {"clean": True, "aborted": 0})
        return 0

    monkeypatch.setattr(_core, "serve", serve)
    return calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "mod:app", "--port", "9"], ["mod:app", "--port", "9"], ["--port", "9", "mod:app"],
        ["serve", "--port=9", "mod:app"],
    ],
)  # fmt: skip
def test_a_target_alone_is_served(served, arguments):
    assert cli.run(arguments) == 0
    assert served == [{"target": "mod:app", "port": 9}]


def test_every_option_reaches_the_runtime_under_its_name(served):
    given = {
        "host": "0.0.0.0", "port": 0, "workers": 2, "log_level": "debug", "grace_s": 1.5, "config": "a.toml",
        "python": "/p", "max_message_mb": 64, "server_id": "triton", "max_queue": 8, "start_timeout_s": 9.0,
        "ping_timeout_s": 3.0, "overrun_grace_s": 2.5, "quarantine_ttl_s": 60.0, "sequence_idle_s": 5.0,
        "admin_token": "secret", "replica_id": "a", "advertise": "h:1", "cluster_token": "other",
        "api_server_ca": "a", "api_server_cert": "b", "api_server_key": "d",
        "threads": 2, "tls_cert": "c", "tls_key": "k", "tls_client_ca": "ca",
    }  # fmt: skip
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
    assert cli.run(["serve", "mod:create", "--factory", "--client-shm", *flags]) == 0
    assert served == [{**given, "target": "mod:create", "factory": True, "client_shm": True}]


def test_shares_of_tenants_are_flags_or_a_variable_and_none_leave_it_to_the_file(served, monkeypatch):
    assert cli.run(["mod:app", "--tenant-weight", "a=3", "--tenant-weight", "b=2"]) == 0
    monkeypatch.setenv("ANYSERVE_TENANT_WEIGHT", "a=3,b=2")
    assert cli.run(["mod:app"]) == 0
    monkeypatch.delenv("ANYSERVE_TENANT_WEIGHT")
    assert cli.run(["mod:app"]) == 0
    target = {"target": "mod:app"}
    assert served == [{**target, "tenant_weight": ["a=3", "b=2"]}, {**target, "tenant_weight": ["a=3,b=2"]}, target]


def test_api_servers_are_flags_or_a_variable(served, monkeypatch):
    assert cli.run(["mod:app", "--api-server", "http://a:1", "--api-server", "b:2"]) == 0
    monkeypatch.setenv("ANYSERVE_API_SERVER", "http://a:1,b:2")
    assert cli.run(["mod:app"]) == 0
    target = {"target": "mod:app"}
    assert served == [{**target, "api_server": ["http://a:1", "b:2"]}, {**target, "api_server": ["http://a:1,b:2"]}]


@pytest.mark.parametrize("name", ["admin_token", "cluster_token"])
def test_a_token_of_a_variable_is_passed_on_and_not_shown(served, monkeypatch, capsys, name):
    monkeypatch.setenv(f"ANYSERVE_{name.upper()}", "secret")
    assert cli.run(["mod:app"]) == 0
    assert served == [{"target": "mod:app", name: "secret"}]
    assert cli.run(["serve", "--help"]) == 0
    assert "secret" not in capsys.readouterr().out


def test_a_target_may_stand_in_the_file_or_in_a_variable(served, monkeypatch):
    assert cli.run(["--config", "a.toml"]) == 0
    monkeypatch.setenv("ANYSERVE_TARGET", "mod:app")
    assert cli.run(["serve"]) == 0
    assert served == [{"config": "a.toml"}, {"target": "mod:app"}]


def test_a_variable_stands_for_a_flag_and_the_flag_wins(served, monkeypatch):
    monkeypatch.setenv("ANYSERVE_PORT", "7000")
    monkeypatch.setenv("ANYSERVE_FACTORY", "1")
    cli.run(["mod:app"])
    cli.run(["mod:app", "--port", "7001"])
    assert [options["port"] for options in served] == [7000, 7001]
    assert all(options["factory"] is True for options in served)


def test_events_are_plain_lines_where_there_is_no_terminal(served, capsys):
    cli.run(["mod:app"])
    assert capsys.readouterr().out.splitlines() == [
        "worker-0 starting (pid 5)",
        "serving echo on 127.0.0.1:8000 with 1 worker; try: anyserve call echo NAME=VALUE --endpoint 127.0.0.1:8000",
        "stopped",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "m", "--port", "1", "--port", "2"], "the option --port is given 2 times; keep one of them"),
        (["serve", "m", "--port=1", "--port=1"], "the option --port is given 2 times"),
        (["serve", "m", "--factory", "--factory"], "the option --factory is given 2 times"),
        (["serve", "m", "--prot", "1"], "no such option: --prot"),
        (["serve", "m", "--port", "70000"], "--port"),
        (["serve", "m", "--port", "http"], "--port"),
        (["serve", "m", "--workers", "0"], "--workers"),
        (["serve", "m", "--grace-s", "-1"], "--grace-s"),
        (["serve", "m", "n"], "n"),
        (["sevre", "m"], "there is no command 'sevre'; did you mean 'serve'?"),
        (["api-serve"], "there is no command 'api-serve'; did you mean 'api-server'?"),
        (["api-server", "--policy", "a", "--policy", "b"], "the option --policy is given 2 times"),
        (["api-server", "app:app"], "app:app"),
        (["cal", "m"], "there is no command 'cal'; did you mean 'call'?"),
        (["call", "echo", "hello"], "'hello' is no input; write NAME=VALUE"),
        (["call", "echo", "a=1", "a=2"], "the input 'a' is given twice"),
        (["call", "echo", "a:FP31=1"], "unknown datatype 'FP31'"),
        (["call", "echo", "a=@/nowhere.npy"], "cannot read '/nowhere.npy'"),
        (["call", "echo", "--json", "--json"], "the option --json is given 2 times"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(served, capsys, arguments, says):
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert (printed.out, printed.err.count("\n"), printed.err[:10]) == ("", 1, "anyserve: ")
    assert served == []


def test_a_bad_variable_is_named(served, capsys, monkeypatch):
    monkeypatch.setenv("ANYSERVE_PORT", "http")
    assert cli.run(["mod:app"]) == 2
    assert "ANYSERVE_PORT" in capsys.readouterr().err


def test_a_start_that_fails_is_one_message_and_exit_code_2(capsys, monkeypatch):
    def serve(options, on_event):
        raise StartError("port 8000 is in use; take another with --port")

    monkeypatch.setattr(_core, "serve", serve)
    assert cli.run(["mod:app"]) == 2
    assert capsys.readouterr().err == "anyserve: port 8000 is in use; take another with --port\n"


def test_the_exit_code_of_a_replica_is_that_of_the_command(monkeypatch):
    monkeypatch.setattr(_core, "serve", lambda options, on_event: 1)
    assert cli.run(["mod:app"]) == 1


def test_bench_gets_its_arguments_as_they_are(monkeypatch):
    seen = []
    monkeypatch.setattr(_core, "bench", lambda arguments: seen.append(arguments) or 3)
    assert cli.run(["bench", "echo", "--help", "--connections", "4"]) == 3
    assert seen == [["echo", "--help", "--connections", "4"]]


@pytest.mark.parametrize(
    "arguments", [["--help"], [], *([command, "--help"] for command in ("serve", "call", "explain", "quarantine"))]
)
def test_help_is_printed_and_succeeds(capsys, arguments):
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out.startswith("Usage: anyserve")


def test_the_installed_command_prints_its_version():
    code = "from anyserve.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "anyserve", "")


def test_an_interrupt_is_left_to_the_runtime_while_it_serves(monkeypatch):
    handlers = []
    monkeypatch.setattr(_core, "serve", lambda options, on_event: handlers.append(signal.getsignal(signal.SIGINT)) or 0)
    before = signal.getsignal(signal.SIGINT)
    cli.run(["mod:app"])
    assert handlers == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_before_the_runtime_took_over_is_no_traceback(monkeypatch):
    def interrupted(options, on_event):
        raise KeyboardInterrupt

    monkeypatch.setattr(_core, "serve", interrupted)
    monkeypatch.setattr(sys, "argv", ["anyserve", "mod:app"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
