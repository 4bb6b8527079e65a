"""The template process: it loads the app once and forks workers from what it has loaded.

It is started by the runtime and by nobody else, and has no thread but its own, since a thread does not survive a fork
and what it was at stays half done. Where forking is not safe it says why and ends, and workers are started cold.

    template ──fork──► middle ──fork──► worker
       │  ◄───── its number, then: ready ──┤            the middle ends at once, so that the kernel makes the
       │ ──Forked──► runtime               │            worker a child of the runtime
       └────── go ────────────────────────►│ run(…)     a template that dies before leaves no worker behind
"""

import argparse
import atexit
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from anyserve._core import _Fork, _Template
from anyserve.app import AnyServe
from anyserve.worker import _process
from anyserve.worker.__main__ import CANNOT_START, TOKEN, log_to_stderr, run, write_by_line
from anyserve.worker._files import source_files
from anyserve.worker.loader import LoadError, load

PATIENCE_S = 5.0
"""Seconds that a fork has, of which it needs some thousandths."""
LATE = f"the worker was not there within {PATIENCE_S:.0f} s"
"""What is wrong with one that hangs."""
SETTLE_S = 0.1
"""Seconds that threads which are told to end have to be gone."""

_log = logging.getLogger("anyserve.worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the app, tell the runtime what it has, and fork workers until the runtime goes.

    Args:
        arguments: the command line; ``None`` takes the process's.

    Returns:
        The exit code: 0 when the runtime has gone or workers cannot be forked, 1 when it broke a rule of the socket, 2
        when the app cannot be loaded.
    """
    options = _parse(arguments)
    # A token in the environment would be inherited by whatever the app starts.
    line = _Template(options.socket, os.environ.pop(TOKEN, ""))
    write_by_line()
    _leave_signals_to_the_runtime()
    try:
        app = load(options.target, factory=options.factory)
    except LoadError as error:
        line.failed(error.kind, error.message, error.trace)
        return CANNOT_START
    log_to_stderr()
    _preload(app)
    # The app may have handlers of its own; those of its workers are set when they start.
    _leave_signals_to_the_runtime()
    # What is loaded stays: the collector of a worker must not touch, and so copy, every page of it.
    gc.collect()
    gc.freeze()
    no_fork = "it was asked not to" if options.no_fork else why_not_fork()
    line.manifest(app.groups, source_files(options.target), no_fork)
    return 0 if no_fork else _serve(line, app)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("anyserve.worker.template", description="Forks workers; the runtime starts it.")
    parser.add_argument("--socket", required=True, help="path of the socket to connect to")
    parser.add_argument("--target", required=True, help="module:app or path/file.py:app")
    parser.add_argument("--factory", action="store_true", help="the target is a function that makes the app")
    parser.add_argument("--no-fork", action="store_true", help="tell what the app has, and end")
    return parser.parse_args(arguments)


def _leave_signals_to_the_runtime() -> None:
    # Ctrl-C in a terminal reaches every process; who stops is for the runtime to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _preload(app: AnyServe) -> None:
    for name in dict.fromkeys(name for group in app.groups for name in group.preload):
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a module that a worker may never need must not stop the others.
            _log.warning("preload: the module %r cannot be imported: %s: %s", name, type(error).__name__, error)


# === whether forking is safe ===


def why_not_fork() -> str:
    """Say why this process cannot fork workers, in a few words.

    Returns:
        An empty string if it can.
    """
    if why := _cuda():
        return why
    if not _threads():
        return ""
    # Some libraries have threads of their own and end them before a fork (NumPy's OpenBLAS does): a fork tells.
    if why := _probe():
        return why
    end = time.monotonic() + SETTLE_S
    while (count := _threads()) and time.monotonic() < end:
        # A thread that was joined is seen for some microseconds more.
        time.sleep(0.001)
    return f"{_named(count)} in it" if count else ""


def _cuda() -> str:
    torch = sys.modules.get("torch")
    initialized = torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized()
    return "CUDA is initialised in it" if initialized or _has_device() else ""


def _has_device() -> bool:
    for descriptor in Path("/proc/self/fd").iterdir():
        # The folder's own descriptor is closed by now.
        with suppress(OSError):
            if str(descriptor.readlink()).startswith("/dev/nvidia"):
                return True
    return False


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir()) - 1


def _named(count: int) -> str:
    main = threading.main_thread()
    names = [repr(thread.name) for thread in threading.enumerate() if thread is not main]
    which = f" ({', '.join(names)})" if names else " of a library"
    return f"a thread{which} runs" if count == 1 else f"{count} threads{which} run"


def _probe() -> str:
    with warnings.catch_warnings():
        # Python warns of a fork beside threads, which is just what is looked into.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    return "" if _reap(pid) == 0 else "a process that is forked from it does not end"


def _reap(pid: int) -> int | None:
    """Wait for a child's end; kill it after `PATIENCE_S`.

    Returns:
        Its exit code, negative for a signal; ``None`` if it had to be killed.
    """
    in_time = _ends(pid)
    if not in_time:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return 0  # The app has told the kernel not to keep the status of children.
    return os.waitstatus_to_exitcode(status) if in_time else None


def _ends(pid: int) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], PATIENCE_S)[0])
    finally:
        os.close(watched)


# === forks ===


def _serve(line: _Template, app: AnyServe) -> int:
    try:
        while (order := line.next()) is not None:
            _obey(line, app, order)
    except ValueError as error:
        sys.stderr.write(f"anyserve template: {error}\n")
        return 1
    except BrokenPipeError:
        pass  # The runtime has gone.
    return 0


def _obey(line: _Template, app: AnyServe, order: _Fork) -> None:
    names = [group.name for group in app.groups]
    if order.group not in names:
        why = f"the app has no worker group {order.group!r}; it has {', '.join(map(repr, names))}"
    else:
        why = why_not_fork()
    if why:
        line.forked(order.worker, 0, why)
        return
    try:
        _fork(line, app, order)
    except OSError as error:
        line.forked(order.worker, 0, f"the system did not fork: {error}")


def _fork(line: _Template, app: AnyServe, order: _Fork) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            _flush()
            middle = os.fork()
            if middle == 0:
                _end_with(lambda: _middle(line, app, order, ours, theirs))
        pid, why = _hear(ours)
        ended = _reap(middle)
        if why == LATE and pid:
            # It is the runtime's child by now and not ours; it hangs, and must not go on by itself.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        elif why and not pid:
            how = "had to be killed" if ended is None else f"ended with {ended}"
            why = f"{why}; the process between template and worker {how}"
        line.forked(order.worker, 0 if why else pid, why)
        # One that has died meanwhile is seen by the runtime.
        with suppress(OSError):
            ours.sendall(b"" if why else b"go")


def _hear(worker: socket.socket) -> tuple[int, str]:
    """Read what a worker says of itself: its number in a line, then a line with what is wrong, which is empty.

    Returns:
        Its number, 0 if it said none, and why there is no worker.
    """
    said, end = b"", time.monotonic() + PATIENCE_S
    while said.count(b"\n") < 2:
        worker.settimeout(max(end - time.monotonic(), 0.001))
        try:
            part = worker.recv(4096)
        except TimeoutError:
            return _number(said), LATE
        if not part:
            return _number(said), "the worker ended before it was there"
        said += part
    return _number(said), said.split(b"\n")[1].decode()


def _number(said: bytes) -> int:
    first, newline, _ = said.partition(b"\n")
    return int(first) if newline else 0


# === the children ===


def _end_with(work: Callable[[], int]) -> NoReturn:
    """Do what this process was forked for, and end it whatever that raises: it never gets back to the template."""
    code = 1
    try:
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - it is told, and the process ends.
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Nobody may be there to read it, and an app may have closed or replaced it.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _middle(line: _Template, app: AnyServe, order: _Fork, ours: socket.socket, theirs: socket.socket) -> int:
    if os.fork() == 0:
        _end_with(lambda: _worker(line, app, order, ours, theirs))
    os._exit(0)


def _worker(line: _Template, app: AnyServe, order: _Fork, ours: socket.socket, theirs: socket.socket) -> int:
    ours.close()
    with theirs:
        os.setpgid(0, 0)
        theirs.sendall(f"{os.getpid()}\n".encode())
        why = _settle(line, order)
        theirs.sendall(f"{why}\n".encode())
        if why or theirs.recv(2) != b"go":
            return 1
    _process.after_fork()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return run(app, order.group, order.socket, order.worker, order.token)
    finally:
        # As at the end of every Python process: wait for threads that are no daemons, then what the app registered.
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what `multiprocessing` calls here, too
        atexit._run_exitfuncs()  # noqa: SLF001


def _settle(line: _Template, order: _Fork) -> str:
    """Become a process of its own: with its own outputs, environment and parent.

    Returns:
        What is wrong; empty if nothing is.
    """
    line.close()
    try:
        _redirect("/dev/null", os.O_RDONLY, 0)
        _redirect(order.stdout, os.O_WRONLY, 1)
        _redirect(order.stderr, os.O_WRONLY, 2)
        os.environ.update(order.environment)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    if not line.adopted(PATIENCE_S):
        return f"the runtime is not its parent after {PATIENCE_S:.0f} s"
    return ""


def _redirect(path: str, how: int, number: int) -> None:
    opened = os.open(path, how)
    os.dup2(opened, number)
    if opened != number:
        os.close(opened)


if __name__ == "__main__":
    _end_with(main)
