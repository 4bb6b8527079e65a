"""What `Client` and `AsyncClient` have in common: where calls go, and what is known of those who serve them."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

from anyserve import _core
from anyserve._call import Request, Target
from anyserve.errors import AnyServeError, InvalidInput

_Path: TypeAlias = str | PathLike[str]
_Model: TypeAlias = tuple[str, str, str | None]
"""Name, version, and the capability that is asked for."""


class ClientBase:
    """What both clients have in common."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        api_server: str | Sequence[str] | None = None,
        capability: Mapping[str, Any] | None = None,
        tls_ca: _Path | None = None,
        tls_cert: _Path | None = None,
        tls_key: _Path | None = None,
    ) -> None:
        self._api_servers = _api_servers(endpoint, api_server)
        self._capability = _capability(capability, self._api_servers)
        if (tls_cert is None) != (tls_key is None):
            raise InvalidInput("tls_cert and tls_key belong together: give both, or neither")
        self._core = _core.Client(
            endpoint,
            api_servers=self._api_servers,
            capability=self._capability,
            tls_ca=None if tls_ca is None else _pem(tls_ca),
            tls_identity=None if tls_cert is None or tls_key is None else (_pem(tls_cert), _pem(tls_key)),
        )
        self._declared: dict[_Model, Mapping[str, str]] = {}

    @property
    def endpoint(self) -> str | None:
        """Where calls go: ``host:port``, with ``https://`` in front if the connection is encrypted.

        With API servers it is where the last call went, and ``None`` before the first.
        """
        return self._core.endpoint

    @property
    def mode(self) -> Literal["direct", "discovery"]:
        """How replicas are found: ``"direct"`` by the endpoint, ``"discovery"`` through API servers."""
        return "discovery" if self._api_servers else "direct"

    @property
    def replica_id(self) -> str | None:
        """Which replica the last call went to; ``None`` before the first, and in direct mode, where nobody chose."""
        return self._core.replica_id

    def __repr__(self) -> str:
        if not self._api_servers:
            return f"{type(self).__name__}(endpoint={self.endpoint!r})"
        return f"{type(self).__name__}(api_server={self._api_servers!r}, capability={self._capability!r})"

    def _asked_for(self, target: Target, capability: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Give the capability of a call: its own or, where it has none, the client's."""
        return self._capability if capability is None and not isinstance(target, Mapping) else capability

    def _remember(self, asked: Request, metadata: Mapping[str, Any]) -> Mapping[str, str]:
        declared = {name: datatype for name, datatype, _ in metadata["inputs"]}
        self._declared[_key(asked)] = declared
        return declared

    def _known(self, asked: Request) -> Mapping[str, str] | None:
        """Give the declared datatypes that a call needs; ``None`` if the server must be asked for them."""
        if not asked.weak() or not asked.model:
            return {}
        return self._declared.get(_key(asked))

    def _undeclared(self, asked: Request, error: AnyServeError) -> Mapping[str, str]:
        # Whatever is wrong, the call itself gets to the bottom of it. What does not pass by itself is not asked again.
        if error.code in ("NOT_FOUND", "NO_CAPABILITY", "UNSUPPORTED"):
            self._declared[_key(asked)] = {}
        return {}

    def _forget(self, asked: Request) -> None:
        # The app behind the endpoint may be another by now, with other datatypes.
        self._declared.pop(_key(asked), None)


def _key(asked: Request) -> _Model:
    # What a model takes is a matter of who serves it.
    return asked.model, asked.version, None if asked.capability is None else repr(sorted(asked.capability.items()))


def _api_servers(endpoint: str | None, given: str | Sequence[str] | None) -> list[str]:
    if (endpoint is None) == (given is None):
        raise InvalidInput(
            "a client needs endpoint='host:port' of a replica, for example endpoint='localhost:8000', or "
            "api_server='http://host:port' to find one, and not both"
        )
    if endpoint is not None and not isinstance(endpoint, str):
        raise InvalidInput(f"endpoint is {endpoint!r}: it is a str such as 'localhost:8000'")
    servers = [given] if isinstance(given, str) else list(given or ())
    if given is not None and not (servers and all(isinstance(server, str) for server in servers)):
        raise InvalidInput(f"api_server is {given!r}: it is a str such as 'http://localhost:8080', or a list of them")
    return servers


def _capability(given: Mapping[str, Any] | None, api_servers: list[str]) -> dict[str, Any] | None:
    if given is not None and not api_servers:
        raise InvalidInput(
            "capability= belongs to api_server=: with an endpoint give it with the call, as in "
            "client.infer({'type': 'echo'}, …)"
        )
    return None if given is None else dict(given)


def _pem(path: _Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"the TLS file {str(path)!r} cannot be read: {error.strerror}") from None


def no_server(error: AnyServeError) -> Literal[False]:
    """Take no answer for a no; anything else is raised again."""
    if error.code in ("UNAVAILABLE", "DEADLINE"):
        return False
    raise error
