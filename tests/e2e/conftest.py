"""Real replicas for the end-to-end tests.

`replica` starts as many as a test wants and checks that each ends well; `mixed` and `serial` are shared by all tests of
the protocol. What a replica printed is part of a failed test's report.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from tests.e2e import api_servers, replicas
from tests.e2e import certificates as made_certificates
from tests.e2e.api_servers import ApiServer
from tests.e2e.replicas import Replica

TEST_WATCHDOG_S = 90.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for replica in replicas.RUNNING:
            report.sections.append((f"replica {replica.process.args}", replica.output()[-20_000:]))
    return report


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """Ends every replica when a test hangs, so that what waits for one fails."""

    def end() -> None:
        for replica in list(replicas.RUNNING):
            replica.process.kill()

    timer = threading.Timer(TEST_WATCHDOG_S, end)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@contextmanager
def serving(folder, *arguments, **more) -> Iterator[Replica]:
    served = replicas.start(folder, *arguments, **more)
    try:
        served.serves()
        yield served
        if served.process.poll() is None:
            served.stop()
    except BaseException as error:
        error.add_note(f"=== what the replica said ===\n{served.output()[-20_000:]}")
        raise
    finally:
        served.kill()


@pytest.fixture
def replica(tmp_path) -> Iterator[Callable[..., Replica]]:
    """Starts replicas that serve; each must end with 0 after a SIGTERM, unless the test itself ended it."""
    numbers = itertools.count()
    with ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(
            serving(tmp_path / f"replica-{next(numbers)}", *arguments, **more)
        )


@pytest.fixture
def begun(tmp_path) -> Iterator[Callable[..., Replica]]:
    """Starts replicas without waiting for them; what is left of them is killed."""
    numbers, made = itertools.count(), []

    def begin(*arguments, **more) -> Replica:
        made.append(replicas.start(tmp_path / f"begun-{next(numbers)}", *arguments, **more))
        return made[-1]

    yield begin
    for one in made:
        one.kill()


@pytest.fixture(scope="session")
def serial(tmp_path_factory) -> Iterator[Replica]:
    """One worker whose handlers are all sync with a concurrency of 1: one thread receives, runs and answers."""
    with serving(tmp_path_factory.mktemp("serial") / "replica", "protocol.py:create_serial", "--factory") as served:
        yield served


@pytest.fixture(scope="session")
def mixed(tmp_path_factory) -> Iterator[Replica]:
    """One worker with handlers in threads and on an event loop."""
    with serving(tmp_path_factory.mktemp("mixed") / "replica", "protocol.py:create_mixed", "--factory") as served:
        yield served


@pytest.fixture(params=["serial", "mixed"])
def either(request) -> Replica:
    """Both ways in which a worker runs."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def channel() -> Iterator[Callable[..., grpc.Channel]]:
    """Opens gRPC channels of their own, without a limit on messages."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
               ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
    with ExitStack() as stack:
        yield lambda endpoint, *more: stack.enter_context(grpc.insecure_channel(endpoint, options=[*options, *more]))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with certificates of two authorities; see `certificates.make`."""
    return made_certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def api_server(tmp_path) -> Iterator[Callable[..., ApiServer]]:
    """Starts API servers that listen; each must end with 0 after a SIGTERM, unless the test itself ended it."""
    with ExitStack() as stack:
        made: list[ApiServer] = []

        def begin(*flags, **more) -> ApiServer:
            server = api_servers.start(tmp_path / f"api-server-{len(made)}", *flags, **more)
            stack.callback(server.kill)
            made.append(server)
            server.serves()
            return server

        yield begin
        for server in made:
            if server.process.poll() is None:
                server.stop()
