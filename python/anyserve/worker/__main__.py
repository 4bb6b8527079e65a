"""The process of a worker: load the app, then run its handlers until the runtime says stop.

It is started by the runtime and by nobody else: the socket, its number and the token come from there. A target that
cannot be loaded is reported over the same socket, and the process ends with 2.
"""

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from anyserve import _core
from anyserve._groups import DEFAULT_GROUP
from anyserve.app import AnyServe
from anyserve.worker.loader import LoadError, load

__all__ = ["CANNOT_START", "TOKEN", "log_to_stderr", "main", "run", "write_by_line"]

TOKEN = "ANYSERVE_WORKER_TOKEN"  # noqa: S105 - the name of a variable
CANNOT_START = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker.

    Args:
        arguments: the command line; ``None`` takes the process's.

    Returns:
        The exit code: 0 after a drain or when the runtime has gone, 2 when the app cannot be loaded.
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
        _report(options, token, error)
        return CANNOT_START
    return run(app, DEFAULT_GROUP, options.socket, options.worker_id, token)


def run(app: AnyServe, group_name: str, socket: str, worker_id: int, token: str) -> int:
    """Be a worker of a group, from the loaded app to the end.

    Args:
        app: the app.
        group_name: which of its groups.
        socket: path of the runtime's socket.
        worker_id: the number that the runtime gave this worker.
        token: the secret that the runtime gave this worker.

    Returns:
        The exit code: 0 after a drain or when the runtime has gone.
    """
    log_to_stderr()
    (group,) = (group for group in app.groups if group.name == group_name)
    _core.run_worker(socket, worker_id, token, group.handlers)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("anyserve.worker", description="A worker of a replica; the runtime starts it.")
    parser.add_argument("--socket", required=True, help="path of the socket to connect to")
    parser.add_argument("--worker-id", required=True, type=int, help="number of this worker in its replica")
    parser.add_argument("--target", required=True, help="module:app or path/file.py:app")
    parser.add_argument("--factory", action="store_true", help="the target is a function that makes the app")
    return parser.parse_args(arguments)


def _report(options: argparse.Namespace, token: str, error: LoadError) -> None:
    try:
        _core.report_start_failure(options.socket, options.worker_id, token, error.kind, error.message, error.trace)
    except OSError:
        # The runtime has gone, or does not listen to this worker any more; whoever reads the log may want to know.
        sys.stderr.write(f"{error.trace}{error.message}\n")


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
