"""API servers as their users start them, and replicas that tests play."""

import json
import re
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.e2e import replicas
from tests.e2e.replicas import BIN, Replica


class ApiServer(Replica):
    """A process that is an API server."""

    @property
    def endpoint(self) -> str:
        """Host and port."""
        found = re.search(r"^API server on https?://([^,\s]+)", self.output(), re.MULTILINE)
        assert found, f"it does not listen:\n{self.output()}"
        return found[1]

    def serves(self) -> None:
        """Wait until it listens."""
        self.says("\nAPI server on ")

    @property
    def url(self) -> str:
        """What `--api-server` takes."""
        return f"http://{self.endpoint}"

    def replicas(self) -> dict[str, dict]:
        """The replicas that it knows, by id."""
        return {one["id"]: one for one in self.get("/registry")["replicas"]}

    def knows(self, *ids: str) -> None:
        """Wait until it knows exactly these replicas."""
        replicas.until(lambda: set(self.replicas()) == set(ids), f"the replicas {ids}")

    def post(self, path: str, body: dict) -> dict:
        """Send JSON, and read it."""
        request = urllib.request.Request(
            f"http://{self.endpoint}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=replicas.WATCHDOG_S) as response:
            return json.loads(response.read())

    def get(self, path: str) -> dict:
        """Read JSON, whatever its status."""
        return json.loads(self.http(path)[1])


def start(folder: Path, *flags: str | Path, program: Sequence[str | Path] = (BIN / "anyserve",), **more) -> ApiServer:
    """Start an API server on a free port and don't wait for it."""
    started = replicas.start(folder, None, *flags, program=(*program, "api-server"), **more)
    replicas.RUNNING.remove(started)
    server = ApiServer(started.process, started.stdout, started.stderr, started.notes)
    replicas.RUNNING.append(server)
    return server


class Played:
    """A replica that a test plays: it registers over HTTP, and says once a second that it is there."""

    def __init__(self, server: ApiServer, name: str, *, endpoint: str = "http://127.0.0.1:9", **capability: object):
        self.server, self.name, self.seq, self.load = server, name, 1, {"ready": True, "pending": 0}
        offer = {"capability": capability, "load": self.load}
        body = {"id": name, "epoch": 1, "seq": 1, "endpoint": endpoint, "offers": [offer]}
        assert server.post("/register", body)["verdict"] == "accepted"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(1):
            self.beats()

    def beats(self) -> None:
        """Say that it is there."""
        self.seq += 1
        body = {"id": self.name, "epoch": 1, "seq": self.seq, "registered": 1, "loads": [self.load]}
        self.server.post("/heartbeat", body)

    def stops(self) -> None:
        """Say nothing any more."""
        self._over.set()
        self._thread.join()
