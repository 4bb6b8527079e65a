"""The options of `anyserve serve` and `anyserve api-server`, each with its variable and what `--help` says of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

MAX_PORT = 65535
MOST = 2**32 - 1  # What the runtime can take at all; it has narrower bounds of its own, and says so.


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

# === of an API server ===

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
