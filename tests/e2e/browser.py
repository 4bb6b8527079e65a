"""A headless Chromium, driven over the WebDriver protocol by what Python has itself."""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.replicas import WATCHDOG_S, until

ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--window-size=1400,1000",
]  # fmt: skip


class Browser:
    """A window of its own."""

    def __init__(self, session: str) -> None:
        self._session = session

    def opens(self, url: str) -> None:
        """Load a page."""
        ask(f"{self._session}/url", {"url": url})

    def runs(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page, and give what it returns."""
        return ask(f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def complaints(self) -> list[str]:
        """What the browser wrote to its console as errors, of the page's policy too."""
        found = ask(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in found if entry["level"] == "SEVERE"]

    def resizes(self, width: int, height: int) -> None:
        """Lay the page out for a screen of this size, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", size)

    def prefers(self, scheme: str) -> None:
        """Be the browser of somebody who prefers ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def _devtools(self, command: str, parameters: Any) -> None:
        ask(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})


def ask(url: str, body: Any = None, *, method: str | None = None) -> Any:
    """Ask the driver."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WATCHDOG_S) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {json.load(error)['value']['message']}") from None


def program() -> str:
    """The driver's program. Without a browser the test is skipped, but never in CI."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver and chromium:
        return driver
    message = "no Chromium here: `apt-get install chromium chromium-driver`"
    if os.environ.get("ANYSERVE_CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start a browser with a profile in this folder, and end it."""
    folder.mkdir(parents=True)
    log = folder / "driver"
    command = [program(), "--port=0"]
    # A home of its own: it leaves nothing in that of whoever runs the tests.
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        port = until(
            lambda: re.search(r"successfully on port (\d+)", log.read_text(errors="replace")), "the driver's port"
        )[1]
        options = {"args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        made = ask(f"http://127.0.0.1:{port}/session", {"capabilities": wanted})
        session = f"http://127.0.0.1:{port}/session/{made['sessionId']}"
        try:
            yield Browser(session)
        finally:
            ask(session, method="DELETE")
    except AssertionError as error:
        error.add_note(log.read_text(errors="replace")[-5000:])
        raise
    finally:
        process.kill()
        process.wait()
