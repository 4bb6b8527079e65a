"""A replica and an API server whose output nobody reads: a pager that stands still, a pipe to a program that hangs."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anyserve import Client
from tests.e2e.replicas import APPS, BIN, WATCHDOG_S, environment

MORE_THAN_A_PIPE_HOLDS = 1024


@contextmanager
def unread(*command: str, ends_with: re.Pattern[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process whose output is read as far as its endpoint, and no further; both."""
    with subprocess.Popen(
        [BIN / "anyserve", *command], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            found = next(filter(None, map(ends_with.search, iter(process.stdout.readline, b""))))
            yield process, found[1].decode()
        finally:
            process.kill()


@pytest.fixture
def replica() -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    command = ("serve", f"{APPS / 'talkative.py'}:app", "--port", "0")
    serving = unread(*command, ends_with=re.compile(rb"^serving .* on (\S+) with"))
    with serving as (process, endpoint), Client(endpoint=endpoint) as client:
        yield process, client


def test_a_log_that_nobody_reads_holds_up_no_request_and_no_stop(replica):
    process, client = replica
    for _ in range(3):
        answer = client.infer("talk", {"lines": [MORE_THAN_A_PIPE_HOLDS]}, timeout_s=WATCHDOG_S)
        assert answer["said"].tolist() == [MORE_THAN_A_PIPE_HOLDS]
    process.send_signal(signal.SIGTERM)
    assert process.wait(WATCHDOG_S) is not None


def test_what_was_lost_of_a_log_is_said_once_it_is_read_again(replica):
    process, client = replica
    for _ in range(6):
        client.infer("talk", {"lines": [MORE_THAN_A_PIPE_HOLDS]}, timeout_s=WATCHDOG_S)
    assert process.stdout is not None
    lost = re.compile(rb"^(\d+) lines of the log are lost: nobody read stderr for a while$")
    assert any(map(lost.match, iter(process.stdout.readline, b"")))
