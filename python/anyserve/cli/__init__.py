"""The command `anyserve`.

This module decides which command is meant and turns every mistake of the user's into one message and exit code 2.
`commands` and `operate` have the commands, `options` their options, `runtime` runs a replica or an API server,
`progress` shows its start, `values` reads and shows tensors, `ask` questions a replica for whatever is told of it or
ordered. They are imported when they are needed: `anyserve bench` and the workers pay for none.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

__all__ = ["main"]

COMMANDS = ("serve", "api-server", "call", "explain", "status", "workers", "models", "drain", "quarantine", "bench")
ROOT_OPTIONS = ("--help", "--version")

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 for success, 1 for a request or run that failed, 2 for what the user can put right.
    """
    given = list(arguments)
    if given[:1] == ["bench"]:
        from anyserve import _core

        return _core.bench(given[1:])
    if given and (slip := _slip(given[0])):
        print(f"anyserve: there is no command {given[0]!r}; did you mean {slip!r}?", file=sys.stderr)
        return USAGE_ERROR
    from anyserve.cli.commands import invoke

    return invoke(with_command(given))


def with_command(arguments: Sequence[str]) -> list[str]:
    """Put `serve` in front of a command line that starts with a target or with one of its options."""
    first = arguments[0] if arguments else "--help"
    if first in COMMANDS or first in ROOT_OPTIONS:
        return list(arguments) or ["--help"]
    return ["serve", *arguments]


def _slip(first: str) -> str | None:
    """The command that a bare word is a misspelling of; whatever looks like a target is one."""
    if first in COMMANDS or not first.replace("-", "").isalpha():
        return None
    return next(iter(get_close_matches(first, COMMANDS, n=1, cutoff=0.7)), None)
