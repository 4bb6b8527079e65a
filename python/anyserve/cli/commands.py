"""The commands and their options. Nothing is decided here: options go to `_core` or the client as they were given."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anyserve.cli import operate
from anyserve.cli.command import FAILED, Endpoint, Once, Refused, Token, print_answer
from anyserve.errors import StartError

if TYPE_CHECKING:
    from anyserve.cli.progress import Show

USAGE_ERROR = 2
MAX_PORT = 65535
MOST = 2**32 - 1  # What the runtime can take at all; it has narrower bounds of its own, and says so.

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


def _option(name: str, text: str, **limits: Any) -> Any:
    variable = "ANYSERVE_" + name.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, help=text, envvar=variable, show_default=False, **limits)


Host = Annotated[str | None, _option("--host", "Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, _option("--port", "Port; 0 takes a free one.  [default: 8000]", min=0, max=MAX_PORT)]
Workers = Annotated[int | None, _option("--workers", "Worker processes.  [default: 1]", min=1, max=MOST)]
Resources = Annotated[
    list[str] | None,
    _option("--resources", "Tokens that workers share, may be repeated.  [default: none]", metavar="NAME=AMOUNT"),
]
Gpus = Annotated[str | None, _option("--gpus", "auto, none, or a list such as 0,1.  [default: auto]")]
Fork = Annotated[
    bool | None, _option("--fork/--no-fork", "Fork workers off a process with the app, where safe.  [default: fork]")
]
MinResidency = Annotated[
    float | None,
    _option("--min-residency-s", "Seconds that a worker keeps its resources at least.  [default: 1]", min=0),
]
Starvation = Annotated[
    float | None,
    _option("--starvation-s", "Seconds until who waits gets the resources of busy workers.  [default: 5]", min=0),
]
Reload = Annotated[bool | None, _option("--reload", "Load the app again when its files change; for development.")]
LogLevel = Annotated[str | None, _option("--log-level", "error, warn, info, debug or trace.  [default: info]")]
Grace = Annotated[
    float | None, _option("--grace-s", "Seconds that requests in flight get at a stop.  [default: 30]", min=0)
]
Config = Annotated[Path | None, _option("--config", "Settings in a file, such as anyserve.toml.")]
Factory = Annotated[bool | None, _option("--factory", "The target is a function that makes the app.")]
Python = Annotated[
    str | None, _option("--python", "Interpreter of the workers.  [default: the one that runs anyserve]")
]
MaxMessage = Annotated[
    int | None, _option("--max-message-mb", "Largest message in MiB.  [default: 1024]", min=1, max=MOST)
]
ServerId = Annotated[str | None, _option("--server-id", "Name in the server's metadata.  [default: anyserve]")]
ClientShm = Annotated[
    bool | None, _option("--client-shm", "Take tensors in shared memory of trusted clients on this machine.")
]
MaxQueue = Annotated[
    int | None, _option("--max-queue", "Requests that may wait per capability.  [default: 1024]", min=1, max=MOST)
]
ObjectStore = Annotated[
    str | None,
    _option("--object-store", "Size of the object store; 0 for none.  [default: 1GiB or 30 % of memory]"),
]
ObjectThreshold = Annotated[
    str | None, _option("--object-threshold", "Tensors from this size on go through it.  [default: 64KiB]")
]
StartTimeout = Annotated[
    float | None, _option("--start-timeout-s", "Seconds a worker may take to get ready.  [default: 600]", min=0)
]
PingTimeout = Annotated[
    float | None,
    _option("--ping-timeout-s", "Seconds of silence after which a worker is replaced.  [default: 10]", min=0),
]
OverrunGrace = Annotated[
    float | None,
    _option(
        "--overrun-grace-s", "Seconds beyond its deadline until a handler's worker is replaced.  [default: 5]", min=0
    ),
]
QuarantineTtl = Annotated[
    float | None,
    _option("--quarantine-ttl-s", "Seconds that what killed two workers is refused.  [default: 600]", min=0),
]
SequenceIdle = Annotated[
    float | None,
    _option("--sequence-idle-s", "Seconds without a request that end a sequence.  [default: 60]", min=0),
]
TenantWeight = Annotated[
    list[str] | None,
    _option("--tenant-weight", "A tenant's share, may be repeated.  [default: 1 each]", metavar="NAME=WEIGHT"),
]
AdminToken = Annotated[
    str | None, _option("--admin-token", "Who calls /admin must know it; without one, only this machine may call it.")
]
ObjectPeer = Annotated[
    list[str] | None,
    _option("--object-peer", "Replica that objects are pulled from, may be repeated.", metavar="HOST:PORT"),
]
ObjectSpill = Annotated[
    str | None,
    _option("--object-spill", "Where durable objects are kept: a folder, or s3://bucket/prefix.", metavar="PLACE"),
]
ApiServer = Annotated[
    list[str] | None,
    _option("--api-server", "API server to announce this replica to, may be repeated.", metavar="URL"),
]
ReplicaId = Annotated[
    str | None, _option("--replica-id", "Name of this replica.  [default: what is advertised]", metavar="ID")
]
Advertise = Annotated[
    str | None,
    _option(
        "--advertise",
        "Where others reach this replica.  [default: the address that it listens on]",
        metavar="HOST:PORT",
    ),
]
ApiServerCa = Annotated[
    Path | None, _option("--api-server-ca", "CA of the certificates of API servers and other replicas, PEM.")
]
ApiServerCert = Annotated[
    Path | None, _option("--api-server-cert", "Own certificate chain for API servers and replicas that ask, PEM.")
]
ApiServerKey = Annotated[Path | None, _option("--api-server-key", "Private key of --api-server-cert, PEM.")]
ClusterToken = Annotated[str | None, _option("--cluster-token", "Token that API servers on other machines ask for.")]
Threads = Annotated[
    int | None, _option("--threads", "Threads of the runtime.  [default: one for two cores]", min=1, max=MOST)
]
ApiServerThreads = Annotated[
    int | None,
    _option("--threads", "Threads that carry requests.  [default: one per core, at most 8]", min=1, max=MOST),
]
TlsCert = Annotated[Path | None, _option("--tls-cert", "Certificate chain, PEM.")]
TlsKey = Annotated[Path | None, _option("--tls-key", "Private key of the certificate, PEM.")]
TlsClientCa = Annotated[Path | None, _option("--tls-client-ca", "Ask clients for a certificate of this CA, PEM.")]


@cli.command(cls=Once)
def serve(  # noqa: PLR0913 - one parameter per option is how typer is told
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(help="module:app or path/file.py:app", envvar="ANYSERVE_TARGET", show_default=False),
    ] = None,
    *,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    resources: Resources = None,
    gpus: Gpus = None,
    fork: Fork = None,
    min_residency_s: MinResidency = None,
    starvation_s: Starvation = None,
    reload: Reload = None,
    log_level: LogLevel = None,
    grace_s: Grace = None,
    config: Config = None,
    factory: Factory = None,
    python: Python = None,
    max_message_mb: MaxMessage = None,
    server_id: ServerId = None,
    client_shm: ClientShm = None,
    max_queue: MaxQueue = None,
    object_store: ObjectStore = None,
    object_threshold: ObjectThreshold = None,
    start_timeout_s: StartTimeout = None,
    ping_timeout_s: PingTimeout = None,
    overrun_grace_s: OverrunGrace = None,
    quarantine_ttl_s: QuarantineTtl = None,
    sequence_idle_s: SequenceIdle = None,
    tenant_weight: TenantWeight = None,
    admin_token: AdminToken = None,
    object_peer: ObjectPeer = None,
    object_spill: ObjectSpill = None,
    api_server: ApiServer = None,
    replica_id: ReplicaId = None,
    advertise: Advertise = None,
    cluster_token: ClusterToken = None,
    api_server_ca: ApiServerCa = None,
    api_server_cert: ApiServerCert = None,
    api_server_key: ApiServerKey = None,
    threads: Threads = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
) -> int:
    """Serve an app. Each option is also a variable, ANYSERVE_PORT for --port, and a line of the file of --config."""
    return run_replica(ctx.params)


def run_replica(given: Mapping[str, Any]) -> int:
    """Run a replica until it is stopped, showing what happens.

    Args:
        given: the options by name; ``None`` or nothing in a list for one that was not given, which the file and the
            defaults then decide.

    Returns:
        The exit code.
    """
    from anyserve import _core

    return run_runtime(_core.serve, given)


def run_runtime(serve: "Callable[[dict[str, Any], Show], int]", given: Mapping[str, Any]) -> int:
    """Run what the runtime can be until it is stopped, showing what happens; give the exit code."""
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


ApiServerPort = Annotated[
    int | None, _option("--port", "Port; 0 takes a free one.  [default: 8080]", min=0, max=MAX_PORT)
]
Store = Annotated[
    str | None,
    _option("--store", "memory, or etcd://host:port,host:port, which several share.  [default: memory]"),
]
StoreCa = Annotated[Path | None, _option("--store-ca", "CA of etcd's certificate, PEM, for etcd+https://.")]
StoreCert = Annotated[Path | None, _option("--store-cert", "Own certificate chain for etcd that asks for one, PEM.")]
StoreKey = Annotated[Path | None, _option("--store-key", "Private key of --store-cert, PEM.")]
Policy = Annotated[
    str | None,
    _option("--policy", "least-wait, bin-packing, sticky, prefix or round-robin.  [default: least-wait]"),
]
RegistryToken = Annotated[
    str | None,
    _option("--cluster-token", "Replicas must know it; without one, only those on this machine may register."),
]
Lease = Annotated[
    float | None, _option("--lease-s", "Seconds of silence after which a replica is gone.  [default: 5]", min=0)
]
Heartbeat = Annotated[
    float | None, _option("--heartbeat-s", "Seconds between messages of a replica.  [default: 1]", min=0)
]
ReplicaCa = Annotated[Path | None, _option("--replica-ca", "CA of the replicas' certificates, PEM.")]
ReplicaCert = Annotated[
    Path | None, _option("--replica-cert", "Own certificate chain for replicas that ask for one, PEM.")
]
ReplicaKey = Annotated[Path | None, _option("--replica-key", "Private key of --replica-cert, PEM.")]


@cli.command("api-server", cls=Once)
def api_server(  # noqa: PLR0913 - one parameter per option is how typer is told
    ctx: typer.Context,
    *,
    host: Host = None,
    port: ApiServerPort = None,
    store: Store = None,
    store_ca: StoreCa = None,
    store_cert: StoreCert = None,
    store_key: StoreKey = None,
    policy: Policy = None,
    cluster_token: RegistryToken = None,
    lease_s: Lease = None,
    heartbeat_s: Heartbeat = None,
    grace_s: Grace = None,
    max_message_mb: MaxMessage = None,
    log_level: LogLevel = None,
    threads: ApiServerThreads = None,
    config: Config = None,
    server_id: ServerId = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    replica_ca: ReplicaCa = None,
    replica_cert: ReplicaCert = None,
    replica_key: ReplicaKey = None,
) -> int:
    """Serve many replicas under one address. Each option is also a variable and a line of the file of --config."""
    from anyserve import _core

    return run_runtime(_core.serve_api_server, ctx.params)


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
