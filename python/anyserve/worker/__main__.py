"""The process of a worker: load the app, then run its handlers until the runtime says stop.

It is started by the runtime and by nobody else: the socket, its number and the token come from there. A target that
cannot be loaded is reported over the same socket, and the process ends with 2. A worker that is forked begins at `run`.
"""

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from anyserve import _core
from anyserve._calls import declare
from anyserve._groups import DEFAULT_GROUP, Group
from anyserve.app import AnyServe
from anyserve.errors import StartError
from anyserve.worker._life import Life
from anyserve.worker._limits import be_nice, limit_memory
from anyserve.worker._process import users_traceback
from anyserve.worker.loader import LoadError, load

__all__ = ["CANNOT_START", "TOKEN", "log_to_stderr", "main", "run", "write_by_line"]

TOKEN = "ANYSERVE_WORKER_TOKEN"  # noqa: S105 - the name of a variable
CANNOT_START = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker.

    Args:
        arguments: the command line; ``None`` takes the process's.

    Returns:
        The exit code, as `run` has it.
    """
    options = _parse(arguments)
    # A token in the environment would be inherited by whatever the handlers start.
    token = os.environ.pop(TOKEN, "")
    write_by_line()
    # Ctrl-C in a terminal reaches every process; who stops is for the runtime to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        app = load(options.target, factory=options.factory)
    except LoadError as error:
        return _report(options.socket, options.worker_id, token, error)
    log_to_stderr()
    return run(app, options.group, options.socket, options.worker_id, token)


def run(app: AnyServe, group: str, socket: str, worker_id: int, token: str) -> int:
    """Run a worker of an app that is loaded: the rest of `main`, and where a forked worker begins.

    Args:
        app: the app.
        group: name of the worker group that it belongs to.
        socket: path of the runtime's socket.
        worker_id: the number that the runtime gave this worker.
        token: the secret that the runtime gave this worker.

    Returns:
        The exit code: 0 after a drain or when the runtime has gone, 2 when the worker cannot start, 3 when it cannot
        sleep or wake.
    """
    # Until it is ready there is nothing to finish: SIGTERM ends it, whatever its parent does with it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    declare(app.handlers)
    try:
        life = _begin(_group_of(app, group))
    except LoadError as error:
        return _report(socket, worker_id, token, error)
    return _core.run_worker(socket, worker_id, token, life.handlers, life)


def _group_of(app: AnyServe, name: str) -> Group:
    for group in app.groups:
        if group.name == name:
            return group
    there = ", ".join(repr(group.name) for group in app.groups)
    raise LoadError("target", f"the app has no worker group {name!r}; there are {there}")


def _begin(group: Group) -> Life:
    be_nice(group.niceness)
    try:
        if group.memory_limit is not None:
            limit_memory(group.memory_limit, group.handlers)
        return Life(group)
    except StartError as error:
        raise LoadError("app", f"{group.name!r}: {error}") from error
    except BaseException as error:
        text = str(error)
        shown = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise LoadError("import", f"making a {group.name}() raised {shown}", users_traceback(error)) from error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("anyserve.worker", description="A worker of a replica; the runtime starts it.")
    parser.add_argument("--socket", required=True, help="path of the socket to connect to")
    parser.add_argument("--worker-id", required=True, type=int, help="number of this worker in its replica")
    parser.add_argument("--target", required=True, help="module:app or path/file.py:app")
    parser.add_argument("--group", default=DEFAULT_GROUP, help="name of the worker group that it belongs to")
    parser.add_argument("--factory", action="store_true", help="the target is a function that makes the app")
    return parser.parse_args(arguments)


def _report(socket: str, worker_id: int, token: str, error: LoadError) -> int:
    try:
        _core.report_start_failure(socket, worker_id, token, error.kind, error.message, error.trace)
    except OSError:
        # The runtime has gone, or does not listen to this worker any more; whoever reads the log may want to know.
        sys.stderr.write(f"{error.trace}{error.message}\n")
    return CANNOT_START


def write_by_line() -> None:
    """Write each line when it ends."""
    # Into a pipe Python writes by block, so that the log would lag behind and lose its end with the process; unbuffered
    # it writes every piece of a print, and lines of different threads would mix.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)


def log_to_stderr() -> None:
    """Log to stderr, unless the app has set logging up."""
    # After the app is loaded: where it has set logging up itself, this does nothing.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    sys.exit(main())
