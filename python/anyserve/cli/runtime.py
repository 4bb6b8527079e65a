"""The runtime, run by a command: a replica or an API server until it is stopped, with what happens shown."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyserve.cli.command import USAGE_ERROR
from anyserve.errors import StartError

if TYPE_CHECKING:
    from anyserve.cli.progress import Show


def run(serve: "Callable[[dict[str, Any], Show], int]", given: Mapping[str, Any]) -> int:
    """Run what the runtime can be until it is stopped, showing what happens.

    Args:
        serve: what it is to be.
        given: the options by name; ``None`` or nothing in a list for one that was not given, which the file and the
            defaults then decide.

    Returns:
        The exit code.
    """
    from anyserve.cli.progress import progress

    options = {name: _plain(value) for name, value in given.items()}
    try:
        with _signals_left_to_the_runtime(), progress() as show:
            return serve({name: value for name, value in options.items() if value not in (None, [])}, show)
    except StartError as error:
        print(f"anyserve: {error}", file=sys.stderr)
        return USAGE_ERROR


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return list(value)
    return str(value) if isinstance(value, Path) else value


@contextmanager
def _signals_left_to_the_runtime() -> Iterator[None]:
    # The runtime handles SIGINT and calls the handler it finds as well: Python's would raise in the midst of an event.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
