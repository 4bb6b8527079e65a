"""The commands of those who operate a replica: `status`, `drain`, `workers` and `models`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from anyserve.cli.command import Endpoint, Once, Token, attempt, print_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyserve.cli.status import Status
    from anyserve.cli.workers import Order, Replica

MOST = 2**32 - 1

workers = typer.Typer(help="The worker processes of a replica.", add_completion=False, rich_markup_mode=None)
models = typer.Typer(help="The models that a replica serves.", add_completion=False, rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="The replica's answer as it is.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="A worker group, as `anyserve workers list` has it.")]
EitherName = Annotated[str, typer.Argument(metavar="NAME", help="A worker, or a group for all of its workers.")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A model, as `anyserve models list` has it.")]


def add_to(cli: typer.Typer) -> None:
    """Add these commands to the program."""
    cli.command(cls=Once)(status)
    cli.command(cls=Once)(drain)
    cli.add_typer(workers, name="workers")
    cli.add_typer(models, name="models")


def status(
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object in a line each time.")] = False,
    interval_s: Annotated[float, typer.Option(help="Seconds between two looks.", min=1)] = 1.0,
    endpoint: Endpoint = "127.0.0.1:8000",
) -> int:
    """Show groups, workers, queues, rates and resources, and keep it up to date."""
    return attempt(lambda: _watch(endpoint, once=once, as_json=as_json, interval_s=interval_s))


def _watch(endpoint: str, *, once: bool, as_json: bool, interval_s: float) -> None:
    from itertools import islice

    from anyserve.cli.ask import events
    from anyserve.cli.status import spaced

    shown = spaced(events(endpoint, "/status"), interval_s)
    shown = islice(shown, 1) if once else shown
    if sys.stdout.isatty() and not once and not as_json:
        from anyserve.cli.live import show

        # Whoever looks ends it like this; nothing has failed.
        try:
            show(shown)
        except KeyboardInterrupt:
            return
    else:
        for number, (one, rate) in enumerate(shown):
            print(_line(one, rate, as_json=as_json, again=number > 0), flush=True)


def _line(status: "Status", rate: "Mapping[str, float]", *, as_json: bool, again: bool) -> str:
    import json

    from anyserve.cli.status import text

    if as_json:
        return json.dumps(status, ensure_ascii=True)
    return ("\n" if again else "") + text(status, rate)


def drain(
    *, wait: Wait = True, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000", token: Token = None
) -> int:
    """Take no more requests, and wait until nothing is in flight: then a stop loses nothing."""
    from anyserve.cli.workers import drain as order

    return _order(endpoint, token, lambda _: order(), waits=wait, as_json=as_json)


@workers.command("list", cls=Once)
def list_workers(*, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000", token: Token = None) -> int:
    """List the workers of all groups."""
    import json

    from anyserve.cli.status import said
    from anyserve.cli.status import workers as laid_out
    from anyserve.cli.workers import Replica

    def answer() -> str:
        found = Replica(endpoint, token).status()
        return json.dumps(found, ensure_ascii=True) if as_json else said(laid_out(found), "there are no workers")

    return print_answer(answer)


@workers.command(cls=Once)
def start(
    group: GroupName, *, wait: Wait = True, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:  # fmt: skip
    """Start one more worker of a group."""
    from anyserve.cli.workers import start as order

    return _order(endpoint, token, lambda replica: order(replica, group), waits=wait, as_json=as_json)


@workers.command(cls=Once)
def stop(
    name: EitherName, *, wait: Wait = True, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:  # fmt: skip
    """End workers; what they have not finished at the end of the replica's grace is ended."""
    from anyserve.cli.workers import end

    return _order(endpoint, token, lambda replica: end(replica, name, "stop"), waits=wait, as_json=as_json)


@workers.command("drain", cls=Once)
def drain_workers(
    name: EitherName, *, wait: Wait = True, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:  # fmt: skip
    """Let workers finish what they have, and end them."""
    from anyserve.cli.workers import end

    return _order(endpoint, token, lambda replica: end(replica, name, "drain"), waits=wait, as_json=as_json)


@workers.command(cls=Once)
def scale(
    group: GroupName,
    count: Annotated[int, typer.Argument(metavar="N", help="How many workers.", min=0, max=MOST)],
    *,
    wait: Wait = True,
    as_json: AsJson = False,
    endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:
    """Keep so many workers of a group."""
    from anyserve.cli.workers import scale as order

    return _order(endpoint, token, lambda replica: order(replica, group, count), waits=wait, as_json=as_json)


@workers.command(cls=Once)
def reload(
    *, wait: Wait = True, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000", token: Token = None
) -> int:
    """Load the app again: new workers beside the old ones, which then leave."""
    from anyserve.cli.workers import reload as order

    return _order(endpoint, token, lambda _: order(), waits=wait, as_json=as_json)


@models.command("list", cls=Once)
def list_models(*, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000", token: Token = None) -> int:
    """List the models, each with the group that serves it."""
    import json

    from anyserve.cli.status import models as laid_out
    from anyserve.cli.status import said
    from anyserve.cli.workers import Replica

    def answer() -> str:
        table = laid_out(Replica(endpoint, token).status())
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        return json.dumps(rows, ensure_ascii=True) if as_json else said(table, "there are no models")

    return print_answer(answer)


@models.command(cls=Once)
def load(
    name: ModelName,
    *,
    count: Annotated[int | None, typer.Option("--workers", help="How many workers.", min=0, max=MOST)] = None,
    wait: Wait = True,
    as_json: AsJson = False,
    endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:
    """Serve a model again."""
    from anyserve.cli.workers import load as order

    return _order(endpoint, token, lambda _: order(name, count), waits=wait, as_json=as_json)


@models.command(cls=Once)
def unload(
    name: ModelName, *, wait: Wait = True, as_json: AsJson = False, endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:  # fmt: skip
    """Serve a model, and what else its group serves, no more."""
    from anyserve.cli.workers import unload as order

    return _order(endpoint, token, lambda _: order(name), waits=wait, as_json=as_json)


def _order(endpoint: str, token: str | None, order: "Callable[[Replica], Order]", *, waits: bool, as_json: bool) -> int:
    import json

    from anyserve.cli.workers import Replica, carry_out

    def quiet(_: str) -> None:
        """With JSON there is nothing but the answer."""

    def work() -> None:
        replica = Replica(endpoint, token)
        say = quiet if as_json else lambda line: print(line, flush=True)
        told = carry_out(replica, order(replica), waits=waits, say=say)
        if as_json:
            print(json.dumps(told, ensure_ascii=True), flush=True)

    return attempt(work)
