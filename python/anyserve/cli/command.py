"""What commands share: each option once, a mistake as one message, one line that says why there is no answer."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

FAILED, USAGE_ERROR = 1, 2

Endpoint = Annotated[str, typer.Option(envvar="ANYSERVE_ENDPOINT", help="Where the replica listens.")]

Token = Annotated[
    str | None,
    typer.Option(
        "--token", "--admin-token", envvar="ANYSERVE_ADMIN_TOKEN", help="The replica's --admin-token.",
        show_default=False,
    ),
]  # fmt: skip


class Refused(typer.TyperException):
    """A command line that cannot be carried out; the message has the fix."""


class Once(TyperCommand):
    """A command whose options may each be given once: the last of two would win without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an option that stands twice, then parse as ever."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, times in Counter(order).items():
            if times > 1 and not getattr(parameter, "multiple", False):
                raise Refused(f"the option {parameter.opts[0]} is given {times} times; keep one of them")
        return super().parse_args(ctx, args)


def attempt(work: Callable[[], None]) -> int:
    """Do what asks a replica; give the exit code, and say why if there is no answer."""
    from anyserve.cli.ask import BadQuestionError, NoAnswerError

    try:
        work()
    except BadQuestionError as error:
        raise Refused(str(error)) from None
    except NoAnswerError as error:
        print(f"anyserve: {error}", file=sys.stderr)
        return FAILED
    return 0


def print_answer(answer: Callable[[], str]) -> int:
    """Print what a replica answers; give the exit code."""
    return attempt(lambda: print(answer(), flush=True))
