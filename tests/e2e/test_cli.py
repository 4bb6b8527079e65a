"""The command line as its user sees it: clear messages with the fix, exit codes, and the line that a start ends on."""

import json
import re
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from anyserve import Client
from tests.e2e.conftest import serving
from tests.e2e.replicas import BIN, ROOT, WATCHDOG_S, anyserve, environment, run, until
from tests.e2e.terminal import shown

NODE = ROOT / "target" / "debug" / "anyserve-node"
BASIC = "examples.basic.app:app"
COMMANDS = {"anyserve": (BIN / "anyserve", "serve"), "anyserve-node": (NODE,)}

ECHO = """\
from anyserve import AnyServe, ModelInferRequest, ModelInferResponse

app = AnyServe()


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    response = ModelInferResponse()
    for inp in request.inputs:
        response.add_output(inp.name, inp.datatype, inp.shape).contents = inp.contents
    return response
"""


@pytest.fixture
def app(tmp_path):
    """Writes an app and gives its target."""

    def write(text: str, attribute: str = "app", name: str = "mine.py") -> str:
        (tmp_path / name).write_text(text)
        return f"{tmp_path / name}:{attribute}"

    return write


@pytest.fixture(params=COMMANDS)
def command(request):
    """Both ways to run a replica to its end."""
    return lambda *arguments, **more: run(*COMMANDS[request.param], *arguments, **more)


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> str:
    """It ended with 2 and one message that has all these parts."""
    assert done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    for part in parts:
        assert part in done.stderr, f"{part!r} is not in:\n{done.stderr}"
    assert "panicked" not in done.stderr
    assert "serving" not in done.stdout + done.stderr
    return done.stderr


def one_line(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("anyserve")]
    return line


# === targets that cannot be served ===

TARGETS = {
    "no.such.module:app": ["no.such.module", "there is no module"],
    "examples.basic.ap:app": ["examples.basic.ap", "did you mean 'app'"],
    "examples.basic.app:ap": ["has no attribute 'ap'", "'app'"],
    "examples.basic.app:echo": ["examples.basic.app:echo", "no app"],
    "examples/basic/ap.py:app": ["examples/basic/ap.py", "did you mean 'app.py'"],
    "no/such/folder/app.py:app": ["no/such/folder/app.py"],
    ":app": ["names no module"],
    "not a module:app": ["not a module"],
    "json:dumps": ["json:dumps"],
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_bad_target_is_one_message_with_the_fix(command, target):
    error = refused(command(target, "--port", "0"), *TARGETS[target])
    assert "Traceback" not in error


def test_no_target_at_all_is_asked_for(command):
    refused(command("--port", "0"), "name a target")


def test_an_import_error_shows_the_users_traceback_and_none_of_ours(command, app):
    target = app("def helper():\n    return 1 / 0\n\n\nhelper()\n")
    error = refused(command(target, "--port", "0"), "ZeroDivisionError: division by zero", "mine.py", "in helper")
    assert error.count("Traceback") == 1
    assert f"{ROOT}/python/anyserve" not in error
    assert "importlib" not in error
    assert "anyserve/worker" not in error


def test_a_missing_dependency_of_the_app_is_named(command, app):
    error = refused(command(app("import no_such_dependency\n"), "--port", "0"), "no_such_dependency", "mine.py")
    assert "there is no module 'mine'" not in error


def test_a_syntax_error_is_shown_where_it_is(command, app):
    refused(command(app("app = (\n"), "--port", "0"), "SyntaxError", "mine.py")


WRONG_APPS = {
    "a slip": ("@app.capability(type='x', concurency=[2])\ndef f(x): ...", "concurency", "concurrency"),
    "an option of a later version": ("@app.capability(type='x', max_batch_size=8)\ndef f(x): ...", "max_batch_size"),
    "a value out of range": ("@app.capability(type='x', concurrency=0)\ndef f(x): ...", "concurrency=0"),
    "a capability twice": ("for _ in range(2):\n    @app.capability(type='x')\n    def f(x): ...", "'type': 'x'"),
    "a stream that does not stream": ("@app.capability(type='x', stream=True)\ndef f(request): ...", "stream=True"),
    "a generator that is no stream": ("@app.capability(type='x')\ndef f(request):\n    yield", "stream=True"),
    "a bad datatype": (
        "@app.capability(type='x', inputs=[anyserve.TensorSpec('a', 'FP99', [1])])\ndef f(a): ...", "FP99"),
    "no capabilities": ("", "no capabilities"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_APPS)
def test_an_app_that_declares_nonsense_is_one_message_with_the_fix(app, what):
    text, *parts = WRONG_APPS[what]
    refused(anyserve("serve", app(f"import anyserve\n\napp = anyserve.AnyServe()\n{text}\n"), "--port", "0"), *parts)


# === options ===

OPTIONS = {
    ("--prot", "1"): ["--prot", "--port"],
    ("--port", "http"): ["--port"],
    ("--port", "65536"): ["--port", "65535"],
    ("--workers", "0"): ["--workers", "1"],
    ("--workers", "100000"): ["--workers", "1024"],
    ("--grace-s=-1",): ["--grace-s", "0"],
    ("--grace-s", "nan"): ["--grace-s"],
    ("--log-level", "loud"): ["--log-level", "loud", "debug"],
    ("--host", "no such host"): ["--host", "no such host"],
    ("--host", "192.0.2.1"): ["192.0.2.1"],
    ("--config", "/no/such/file.toml"): ["/no/such/file.toml"],
    ("--python", "/no/such/python"): ["/no/such/python", "--python"],
    ("--python", "/bin/false"): ["exit status: 1", "--python is to name a Python"],
    ("--max-message-mb", "0"): ["--max-message-mb"],
    ("--max-queue", "0"): ["--max-queue"],
    ("--tls-cert", "/no/such/cert.pem"): ["--tls-key"],
    ("--tls-cert", "/no/such/cert.pem", "--tls-key", "/no/such/key.pem"): ["/no/such/"],
    ("--tls-client-ca", "/no/such/ca.pem"): ["--tls-cert"],
    ("--workers", "1", "--workers", "2"): ["--workers"],
    ("one more",): ["one more"],
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_bad_option_is_one_message_with_the_fix(command, options):
    ports = () if "--port" in options or "--prot" in options else ("--port", "0")
    error = refused(command(BASIC, *ports, *options), *OPTIONS[options])
    assert "Traceback" not in error


def test_a_misspelt_command_is_told_which_one_is_meant():
    refused(anyserve("sevre", "x:app"), "sevre", "serve")


def test_a_port_in_use_is_one_message_that_names_it(command):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        error = refused(command(BASIC, "--port", port), port, "in use", "--port")
    assert "Traceback" not in error


def test_help_and_version_are_there():
    assert "serve" in anyserve("--help").stdout
    assert "--grace-s" in anyserve("serve", "--help").stdout
    assert re.match(r"anyserve \d+\.\d+", anyserve("--version").stdout)
    assert "--grace-s" in run(NODE, "--help").stdout


# === ways to say what is served ===


def echoes(replica) -> None:
    with Client(replica.endpoint) as client:
        (value,) = client.infer("echo", {"x": [7]}).values()
        assert value.tolist() == [7]


@pytest.mark.parametrize("arguments", [
    (BASIC,), ("examples/basic/app.py:app",), ("examples/basic/app.py",), (str(ROOT / "examples/basic/app.py:app"),),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("program", COMMANDS)
def test_a_target_is_a_module_or_a_file(replica, program, arguments):
    echoes(replica(*arguments, program=COMMANDS[program]))


def test_a_target_alone_is_served(replica):
    echoes(replica(BASIC, program=(BIN / "anyserve",)))


def test_options_in_front_of_a_target_are_served_too(replica):
    echoes(replica(None, "--workers", "1", BASIC, program=(BIN / "anyserve",)))


@pytest.mark.parametrize("program", COMMANDS)
def test_a_factory_is_called_once_for_all_forked_workers_and_once_in_each_other(replica, app, program):
    text = f"{ECHO}\n\ndef create() -> AnyServe:\n    print('made', flush=True)\n    return app\n"
    for fork, made in [("true", 1), ("false", 3)]:
        env = {"ANYSERVE_FORK": fork}
        served = replica(app(text, "create"), "--factory", "--workers", "2", program=COMMANDS[program], env=env)
        echoes(served)
        until(lambda served=served, made=made: len(re.findall(r" made\b", served.output())) == made, f"{made} apps")
    refused(anyserve("serve", app(text, "create"), "--port", "0"), "--factory")


def test_a_file_finds_its_neighbours_and_a_module_the_current_directory(replica, tmp_path):
    (tmp_path / "neighbour.py").write_text(ECHO)
    (tmp_path / "here.py").write_text("from neighbour import app\n")
    echoes(replica("here:app", cwd=tmp_path))
    echoes(replica(f"{tmp_path}/here.py:app"))


def test_a_file_with_the_name_of_a_module_of_pythons_is_itself(replica, app):
    echoes(replica(app(ECHO, name="json.py")))


# === where options come from ===


@pytest.mark.parametrize("program", COMMANDS)
def test_options_come_from_flags_variables_and_the_file_in_this_order(replica, tmp_path, program):
    config = tmp_path / "anyserve.toml"
    config.write_text(f'target = "{BASIC}"\nport = 0\nserver_id = "file"\nworkers = 2\ngrace_s = 5.5\n')
    variables = {"ANYSERVE_CONFIG": str(config), "ANYSERVE_SERVER_ID": "variable"}

    def name(*flags: str, env: dict[str, str] = variables) -> str:
        served = replica(None, *flags, env=env, port=None, program=COMMANDS[program])
        with triton.InferenceServerClient(served.endpoint) as client:
            assert len(served.workers()) == (1 if "--workers" in flags else 2)
            return client.get_server_metadata().name

    assert name("--config", str(config), env={}) == "file"
    assert name() == "variable"
    assert name("--server-id", "flag", "--workers", "1") == "flag"


@pytest.mark.parametrize(("text", "parts"), [
    ("prot = 1\n", ["prot", "line 1"]), ("port = 'x'\n", ["port", "line 1"]), ("port = \n", ["line 1"]),
    ("workers = 0\n", ["workers", "0"]), ("workers = -1\n", ["workers"]), ("port = 70000\n", ["port"]),
    ("[serve]\nport = 1\n", ["serve"]),
])  # fmt: skip
def test_a_bad_configuration_file_is_one_message_with_the_place(command, tmp_path, text, parts):
    config = tmp_path / "anyserve.toml"
    config.write_text(text)
    error = refused(command(BASIC, "--config", config), *parts)
    assert "Traceback" not in error


def test_a_bad_variable_is_one_message(command):
    refused(command(BASIC, "--port", "0", env={"ANYSERVE_WORKERS": "many"}), "--workers")


# === what it says ===


@pytest.mark.parametrize("program", COMMANDS)
def test_the_start_ends_on_the_line_that_says_what_is_served_and_where(replica, program):
    served = replica(BASIC, "--workers", "2", program=COMMANDS[program])
    until(lambda: served.output().count(" ready") == 2, "two workers shown as ready")
    lines = [line for line in served.output().splitlines() if re.match(r"(worker-\d|serving)", line)]
    assert [bool(re.match("serving ", line)) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert {line.split(" (")[0] for line in lines[:-1]} == {
        "worker-0 starting", "worker-0 ready", "worker-1 starting", "worker-1 ready",
    }  # fmt: skip
    assert all(name in lines[-1] for name in ("echo", "add", "wait", served.endpoint, "2 workers"))


def test_the_command_that_the_start_shows_works_as_it_stands(replica):
    served = replica(BASIC)
    command = served.stdout.read_text().rpartition("try: ")[2].strip()
    done = run("bash", "-c", command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_on_a_terminal_the_start_ends_on_the_same_line():
    with shown("serve", BASIC, "--port", "0") as (process, seen):
        until(lambda: re.search(rb"serving .*127\.0\.0\.1:\d+", bytes(seen), re.DOTALL), "the line on the terminal")
        process.send_signal(signal.SIGINT)
        assert process.wait(WATCHDOG_S) == 0
    assert b"Traceback" not in seen
    assert b"stopped" in seen


def test_a_reader_of_its_output_that_leaves_does_not_end_it(tmp_path):
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([BIN / "anyserve", "serve", BASIC, "--port", "0"], cwd=ROOT, env=environment(),
                               stdout=subprocess.PIPE, stderr=log)  # fmt: skip
    try:
        found = (re.search(r"serving .* on (\S+) with", line.decode()) for line in process.stdout)
        endpoint = next(filter(None, found))[1]
        process.stdout.close()
        with Client(endpoint) as client:
            assert client.infer("echo", {"x": [1]})["output_x"].tolist() == [1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(WATCHDOG_S) == 0, Path(tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
        log.close()


# === the other binary ===


def test_the_binary_without_python_serves_the_same(replica):
    python = {"ANYSERVE_PYTHON": str(BIN / "python")}
    served = replica("protocol.py:create_mixed", "--factory", program=(NODE,), env=python)
    assert b"python" not in Path(f"/proc/{served.process.pid}/maps").read_bytes()
    with Client(served.endpoint) as client:
        assert client.infer("add", {"a": [1, 2], "b": [3, 4]})["sum"].tolist() == [4, 6]
        parts = client.stream("count-async", {"name": "", "count": 5, "size": 1})
        assert [part["part"][0] for part in parts] == [0, 1, 2, 3, 4]


# === call ===


@pytest.fixture(scope="module")
def basic(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("basic") / "replica", BASIC) as served:
        yield served


CALLS = {
    ("echo", "text=hello"): 'output_text: ["hello"]\n',
    ("echo", "x=1"): "output_x: [1]\n",
    ("echo", "x:FP32=[[1,2],[3,4]]"): "output_x: [[1.0, 2.0], [3.0, 4.0]]\n",
    ("echo", "x:BYTES=1"): 'output_x: ["1"]\n',
    ("add", "a=[1,2]", "b=[3,4]"): "sum: [4.0, 6.0]\n",
    ("add", "a=[1]", "b=[3]", "--json"): '{"sum": [4.0]}\n',
    ("type=echo", "text=hello"): 'output_text: ["hello"]\n',
    ("type in (echo,nobody)", "text=hello"): 'output_text: ["hello"]\n',
    ("echo",): "\n",
}


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_call_prints_the_outputs(basic, arguments):
    done = anyserve("call", *arguments, "--endpoint", basic.endpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, CALLS[arguments], "")


def test_call_takes_arrays_and_bytes_from_files_and_the_endpoint_from_its_variable(basic, tmp_path):
    array = tmp_path / "a.npy"
    np.save(array, np.array([1, 2], dtype="f4"))
    (tmp_path / "words").write_bytes(b"two\nlines")
    done = anyserve("call", "add", f"a=@{array}", "b=[1,1]", env={"ANYSERVE_ENDPOINT": basic.endpoint})
    assert done.stdout == "sum: [2.0, 3.0]\n"
    done = anyserve("call", "echo", f"x=@{tmp_path}/words", "--json", "--endpoint", basic.endpoint)
    assert json.loads(done.stdout) == {"output_x": ["two\nlines"]}


@pytest.mark.parametrize(("arguments", "code"), [
    (("nobody", "x=1"), "NO_CAPABILITY"), (("add", "a=[1]"), "INVALID_INPUT"),
    (("add", "a=[1,2]", "b=[1,2,3]"), "HANDLER_ERROR"),
    (("wait", "seconds=30", "--timeout-s", "0.2"), "DEADLINE"), (("type=nobody",), "NO_CAPABILITY"),
    (("echo", "x:FP32=abc"), "INVALID_INPUT"),
])  # fmt: skip
def test_call_ends_with_1_and_the_code_when_the_request_fails(basic, arguments, code):
    done = anyserve("call", *arguments, "--endpoint", basic.endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"anyserve: {code}: ")
    assert "Traceback" not in done.stderr


def test_call_ends_with_1_where_nobody_listens():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    done = anyserve("call", "echo", "text=hello", "--endpoint", f"127.0.0.1:{port}", "--timeout-s", "10")
    assert done.returncode == 1
    assert done.stderr.startswith("anyserve: UNAVAILABLE: ")
    assert str(port) in done.stderr


@pytest.mark.parametrize("arguments", [("echo", "text"), ("echo", "=x"), ("echo", "x:FP99=1"), ("echo", "x=1", "x=2"),
                                       ("echo", "x=@/no/such/file"), ()], ids=str)  # fmt: skip
def test_call_refuses_what_cannot_be_read_with_2(basic, arguments):
    done = anyserve("call", *arguments, "--endpoint", basic.endpoint)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr


def test_call_takes_a_stream(replica):
    served = replica("examples.streaming.app:app")
    done = anyserve("call", "tokens", "prompt=a b c", "--stream", "--endpoint", served.endpoint)
    assert (done.returncode, done.stdout) == (0, 'token: ["a"]\ntoken: ["b"]\ntoken: ["c"]\n')
    done = anyserve("call", "tokens", "prompt=a b c", "--endpoint", served.endpoint)
    assert (done.returncode, "UNSUPPORTED" in done.stderr) == (1, True)


# === bench ===


def test_bench_loads_a_replica_and_reports(mixed):
    done = anyserve("bench", "unary", mixed.endpoint, "--input", "x:FP32:16", "--requests", "500", "--warmup", "0s",
                    "--connections", "2", "--in-flight", "4", "--check-echo", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["requests"], report["errors"], report["messages_per_request"]) == (500, 0, [1, 1])
    done = anyserve("bench", "unary", mixed.endpoint, "--input", "x:FP32:16", "--requests", "100", "--rate", "2000",
                    "--warmup", "0s")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("p50", "p99"))


def test_bench_counts_the_parts_of_streams(mixed):
    done = anyserve("bench", "stream", mixed.endpoint, "--model", "count", "--input", "name:BYTES:1=", "--input",
                    "count:INT64:1=10", "--input", "size:INT64:1=4", "--requests", "20", "--warmup", "0s",
                    "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["requests"], report["errors"], report["messages_per_request"]) == (20, 0, [10, 10])


def test_bench_of_nobody_fails_with_a_message():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    done = anyserve("bench", "unary", f"127.0.0.1:{port}", "--input", "x:FP32:16", "--requests", "1", "--warmup", "0s")
    assert done.returncode != 0
    assert done.stderr
    assert "panicked" not in done.stderr
