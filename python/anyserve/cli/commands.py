"""The commands. Nothing is decided here: options go to `_core` or the client as they were given."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from anyserve.cli import operate, options, runtime
from anyserve.cli.command import FAILED, USAGE_ERROR, Endpoint, Once, Refused, Token, print_answer

cli = typer.Typer(
    name="anyserve",
    help="Serve Python handlers by capability, over the KServe v2 protocol.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line that starts with a command, or with an option of the program itself."""
    try:
        code = cli(list(arguments), prog_name="anyserve", standalone_mode=False)
    except typer.TyperException as error:
        return _refuse(error.format_message(), arguments)
    except typer.Abort:
        return FAILED
    return code if isinstance(code, int) else 0


def _refuse(message: str, arguments: Sequence[str]) -> int:
    command = f"anyserve {arguments[0]}" if not arguments[0].startswith("-") else "anyserve"
    print(f"anyserve: {message[:1].lower()}{message[1:].rstrip('.')} (see `{command} --help`)", file=sys.stderr)
    return USAGE_ERROR


def _show_version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"anyserve {version('anyserve')}")
        raise typer.Exit


@cli.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _show_version(wanted=value), is_eager=True)
    ] = False,
) -> None:
    """Serve Python handlers by capability, over the KServe v2 protocol.

    `anyserve TARGET` is `anyserve serve TARGET`.
    """


@cli.command(cls=Once)
def serve(  # noqa: PLR0913 - one parameter per option is how typer is told
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(help="module:app or path/file.py:app", envvar="ANYSERVE_TARGET", show_default=False),
    ] = None,
    *,
    host: options.Host = None,
    port: options.Port = None,
    workers: options.Workers = None,
    resources: options.Resources = None,
    gpus: options.Gpus = None,
    fork: options.Fork = None,
    min_residency_s: options.MinResidency = None,
    starvation_s: options.Starvation = None,
    reload: options.Reload = None,
    log_level: options.LogLevel = None,
    grace_s: options.Grace = None,
    config: options.Config = None,
    factory: options.Factory = None,
    python: options.Python = None,
    max_message_mb: options.MaxMessage = None,
    server_id: options.ServerId = None,
    client_shm: options.ClientShm = None,
    max_queue: options.MaxQueue = None,
    object_store: options.ObjectStore = None,
    object_threshold: options.ObjectThreshold = None,
    start_timeout_s: options.StartTimeout = None,
    ping_timeout_s: options.PingTimeout = None,
    overrun_grace_s: options.OverrunGrace = None,
    quarantine_ttl_s: options.QuarantineTtl = None,
    sequence_idle_s: options.SequenceIdle = None,
    tenant_weight: options.TenantWeight = None,
    admin_token: options.AdminToken = None,
    object_peer: options.ObjectPeer = None,
    object_spill: options.ObjectSpill = None,
    api_server: options.ApiServer = None,
    replica_id: options.ReplicaId = None,
    advertise: options.Advertise = None,
    cluster_token: options.ClusterToken = None,
    api_server_ca: options.ApiServerCa = None,
    api_server_cert: options.ApiServerCert = None,
    api_server_key: options.ApiServerKey = None,
    threads: options.Threads = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
) -> int:
    """Serve an app. Each option is also a variable, ANYSERVE_PORT for --port, and a line of the file of --config."""
    from anyserve import _core

    return runtime.run(_core.serve, ctx.params)


@cli.command("api-server", cls=Once)
def api_server(  # noqa: PLR0913 - one parameter per option is how typer is told
    ctx: typer.Context,
    *,
    host: options.Host = None,
    port: options.ApiServerPort = None,
    store: options.Store = None,
    store_ca: options.StoreCa = None,
    store_cert: options.StoreCert = None,
    store_key: options.StoreKey = None,
    policy: options.Policy = None,
    cluster_token: options.RegistryToken = None,
    lease_s: options.Lease = None,
    heartbeat_s: options.Heartbeat = None,
    grace_s: options.Grace = None,
    max_message_mb: options.MaxMessage = None,
    log_level: options.LogLevel = None,
    threads: options.ApiServerThreads = None,
    config: options.Config = None,
    server_id: options.ServerId = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    replica_ca: options.ReplicaCa = None,
    replica_cert: options.ReplicaCert = None,
    replica_key: options.ReplicaKey = None,
) -> int:
    """Serve many replicas under one address. Each option is also a variable and a line of the file of --config."""
    from anyserve import _core

    return runtime.run(_core.serve_api_server, ctx.params)


@cli.command(cls=Once)
def call(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name, or a selector such as type=echo,lang=en.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME[:DATATYPE]=VALUE", help="Inputs: text, JSON, or @file.", show_default=False),
    ] = None,
    *,
    endpoint: Endpoint = "127.0.0.1:8000",
    timeout_s: Annotated[float | None, typer.Option(help="Seconds to wait for the answer.", min=0)] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Take any number of answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per answer.")] = False,
) -> int:
    """Send one request and print the outputs: anyserve call add a:FP32=[1,2] b:FP32=[3,4]."""
    from anyserve.cli.values import BadValueError, read_inputs, shown

    try:
        tensors = read_inputs(inputs or [])
    except BadValueError as error:
        raise Refused(str(error)) from None
    from anyserve.cli.request import answers
    from anyserve.errors import AnyServeError

    try:
        for answer in answers(endpoint, model, tensors, timeout_s=timeout_s, stream=stream):
            print(shown(answer, as_json=as_json), flush=True)
    except AnyServeError as error:
        print(f"anyserve: {error.code}: {error}", file=sys.stderr)
        return FAILED
    return 0


@cli.command(cls=Once)
def explain(
    conditions: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Conditions, selectors or a model name.", show_default=False),
    ] = None,
    *,
    name: Annotated[str | None, typer.Option(help="Model name.")] = None,
    priority: Annotated[int | None, typer.Option(help="Priority, 1 first to 8 last.", min=0, max=8)] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose request it is.")] = None,
    endpoint: Endpoint = "127.0.0.1:8000",
    as_json: Annotated[bool, typer.Option("--json", help="The replica's answer as it is.")] = False,
) -> int:
    """Say what would become of a request now, and why: anyserve explain type=chat model=tiny."""
    import json

    from anyserve.cli.explain import explanation, shown

    def answer() -> str:
        found = explanation(endpoint, conditions or [], name=name, priority=priority, tenant=tenant)
        return json.dumps(found, ensure_ascii=False) if as_json else shown(found)

    return print_answer(answer)


quarantine = typer.Typer(help="What is refused because it killed workers.", add_completion=False, rich_markup_mode=None)
cli.add_typer(quarantine, name="quarantine")


@quarantine.command("list", cls=Once)
def list_quarantined(*, endpoint: Endpoint = "127.0.0.1:8000", token: Token = None) -> int:
    """List the fingerprints that are refused now."""
    from anyserve.cli.quarantine import listed

    return print_answer(lambda: listed(endpoint, token))


@quarantine.command(cls=Once)
def release(
    fingerprint: Annotated[str | None, typer.Argument(help="As `list` shows it.", show_default=False)] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every one that is there.")] = False,
    endpoint: Endpoint = "127.0.0.1:8000",
    token: Token = None,
) -> int:
    """Let requests with a fingerprint be served again."""
    from anyserve.cli.quarantine import released

    if (fingerprint is None) != every:
        raise Refused("write one fingerprint of `anyserve quarantine list`, or --all, and not both")
    return print_answer(lambda: released(endpoint, fingerprint, token))


operate.add_to(cli)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def bench() -> None:
    """Load a server and measure it; `anyserve bench --help` has its options."""
    # `cli.run` takes this command before it gets here; it stands among the others for `--help` to list.
