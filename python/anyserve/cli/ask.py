"""Questions to a running replica over its HTTP side, with the standard library's client."""

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from socket import gaierror
from typing import Any
from urllib.parse import SplitResult, urlsplit

_TIMEOUT_S = 30.0
_MAX_EVENT = 64 << 20
_PORTS = {"http": 80, "https": 443}


class BadQuestionError(ValueError):
    """A question that cannot be put; the message has the fix."""


class NoAnswerError(Exception):
    """A question that was put and not answered; the message begins with a code and has the fix."""


def ask(
    endpoint: str,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = _TIMEOUT_S,
) -> Any:
    """Ask a replica.

    Args:
        endpoint: host and port, with ``https://`` in front if the connection is encrypted.
        path: what is asked for, percent-encoded, such as ``/explain?type=chat``.
        method: the HTTP method.
        headers: names and values, printable ASCII.
        timeout_s: seconds of silence after which it is given up; ``None`` waits for as long as it takes.

    Returns:
        What the JSON of the answer says.

    Raises:
        BadQuestionError: no endpoint can be read out of ``endpoint``, or a header cannot be sent.
        NoAnswerError: the replica cannot be reached, or refuses.
    """
    for name, value in (headers or {}).items():
        if not (value.isascii() and value.isprintable()):
            raise BadQuestionError(f"what is sent as {name} has to be printable ASCII")
    connection = _connection(_read_endpoint(endpoint), timeout_s)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        return _read(connection.getresponse(), endpoint)
    except (OSError, HTTPException) as error:
        raise NoAnswerError(_unreachable(endpoint, error)) from error
    finally:
        connection.close()


def events(endpoint: str, path: str) -> Iterator[Any]:
    """Read what a replica tells again and again, for as long as it does.

    Args:
        endpoint: host and port, with ``https://`` in front if the connection is encrypted.
        path: where it tells, as server-sent events.

    Yields:
        What the JSON of each event says.

    Raises:
        BadQuestionError: no endpoint can be read out of ``endpoint``.
        NoAnswerError: the replica cannot be reached, refuses, or ends what it tells.
    """
    connection = _connection(_read_endpoint(endpoint), _TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Accept": "text/event-stream"})
        response = connection.getresponse()
        if response.headers.get_content_type() != "text/event-stream":
            _read(response, endpoint)
            raise NoAnswerError(f"UNAVAILABLE: what answers on {endpoint} is no replica of AnyServe")
        while line := response.readline(_MAX_EVENT):
            if line.startswith(b"data:"):
                yield json.loads(line[len(b"data:") :])
    except (OSError, HTTPException) as error:
        raise NoAnswerError(_unreachable(endpoint, error)) from error
    except ValueError:
        raise NoAnswerError(f"INTERNAL: what {endpoint} tells is no JSON") from None
    finally:
        connection.close()
    raise NoAnswerError(f"UNAVAILABLE: {endpoint} has ended the connection: the replica stops, or has stopped")


def _read_endpoint(endpoint: str) -> SplitResult:
    url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    try:
        has_port = url.port is not None or "://" in endpoint  # Clients take no endpoint without one either.
        usable = url.scheme in _PORTS and url.hostname and has_port and url.port != 0 and not url.path.strip("/")
    except ValueError:
        usable = False
    if not usable:
        raise BadQuestionError(f"{endpoint!r} is no endpoint; write HOST:PORT, such as 127.0.0.1:8000")
    return url


def _connection(url: SplitResult, timeout_s: float | None) -> HTTPConnection:
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    return kind(url.hostname or "", url.port or _PORTS[url.scheme], timeout=timeout_s)


def _read(response: HTTPResponse, endpoint: str) -> Any:
    try:
        answer = json.loads(response.read())
    except ValueError:
        raise NoAnswerError(f"UNAVAILABLE: what answers on {endpoint} is no replica of AnyServe") from None
    if response.status < 400:
        return answer
    code = response.headers.get("x-anyserve-code", f"HTTP {response.status}")
    message = answer.get("error") if isinstance(answer, dict) else None
    hint = "; give the replica's token with --token or ANYSERVE_ADMIN_TOKEN" if response.status == 401 else ""
    if response.status == 404 and code == "HTTP 404":  # What is there and has not what was asked for, has a code.
        hint = f"; if {endpoint} is an API server, name a replica with --endpoint: `anyserve status` lists them"
    raise NoAnswerError(f"{code}: {message or response.reason}{hint}")


def _unreachable(endpoint: str, error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"UNAVAILABLE: nothing listens on {endpoint}; start a replica, or name another with --endpoint"
    if isinstance(error, gaierror):
        return f"UNAVAILABLE: the host of {endpoint} is not known; name another with --endpoint"
    if isinstance(error, TimeoutError):
        return f"DEADLINE: {endpoint} has not answered for {_TIMEOUT_S:g} s"
    return f"UNAVAILABLE: {endpoint} cannot be asked: {str(error) or type(error).__name__}"
