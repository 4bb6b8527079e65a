"""The status page, in a real browser before a real replica."""

import json
import re
from collections.abc import Iterator

import pytest

from anyserve import Client
from tests.e2e.browser import Browser, browsing
from tests.e2e.replicas import anyserve, until

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"

APP = f"""\
from anyserve import AnyServe, ModelInferRequest, ModelInferResponse

app = AnyServe()


@app.capability(model={HOSTILE!r})
def hostile(request: ModelInferRequest) -> ModelInferResponse:
    return ModelInferResponse()


@app.capability(type="echo")
def echo(request: ModelInferRequest) -> ModelInferResponse:
    return ModelInferResponse()
"""

TABLE = """
const rows = [...document.querySelectorAll(`#${arguments[0]} tbody tr`)];
return rows.map((row) => [...row.cells].map((cell) => cell.textContent));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser") / "home") as opened:
        yield opened


@pytest.fixture
def served(replica, tmp_path):
    (tmp_path / "page.py").write_text(APP)
    return replica(f"{tmp_path / 'page.py'}:app", "--workers", "2")


def columns(browser: Browser, table: str) -> list[dict[str, str]]:
    """Rows of a table by the names of its columns."""
    names = browser.runs(f"return [...document.querySelectorAll('#{table} thead th')].map((name) => name.textContent);")
    return [dict(zip(names, row, strict=True)) for row in browser.runs(TABLE, table)]


def text(browser: Browser, place: str) -> str:
    return browser.runs("return document.getElementById(arguments[0]).textContent;", place)


def is_lost(browser: Browser) -> bool:
    return browser.runs("return !document.getElementById('lost').hidden;")


def test_the_page_shows_the_replica_and_says_when_it_is_gone(served, browser, tmp_path):
    browser.opens(f"http://{served.endpoint}/")
    (group,) = until(lambda: columns(browser, "groups"), "the groups on the page")
    assert (group["group"], group["answered"]) == ("default", "0")
    until(lambda: columns(browser, "groups")[0]["state"] == "ready", "the group to be ready")
    assert (text(browser, "state"), is_lost(browser)) == ("serving", False)

    # What comes from others is text.
    assert HOSTILE in group["models"]
    assert browser.runs("return document.querySelectorAll('img, b').length;") == 0
    assert browser.runs("return document.title;") == "AnyServe"

    # Numbers and charts move.
    with Client(served.endpoint) as client:
        for _ in range(7):
            client.infer("echo", {"x": [1]})
    until(lambda: columns(browser, "groups")[0]["answered"] == "7", "seven answers on the page")
    # Three looks at least, so that there is a curve and a rate.
    until(lambda: browser.runs("return history.length;") >= 3, "a curve")
    assert columns(browser, "groups")[0]["rate"].endswith("/s")
    labels = browser.runs("return [...document.querySelectorAll('svg')].map((one) => one.getAttribute('aria-label'));")
    assert [label.partition(":")[0] for label in labels] == ["in flight", "queued", "requests", "object store"]
    curves = browser.runs("return [...document.querySelectorAll('polyline')].map((one) => one.getAttribute('points'));")
    assert all(curve.count(",") >= 2 for curve in curves), curves
    assert [worker["worker"] for worker in columns(browser, "workers")] == ["worker-0", "worker-1"]
    assert browser.complaints() == [], "the page keeps to its policy"

    served.stop()
    until(lambda: is_lost(browser), "the page to notice the end")
    assert text(browser, "state") == "connection lost"
    assert columns(browser, "groups")[0]["answered"] == "7", "what was known stays"


def test_the_page_comes_back_with_the_replica(replica, browser):
    first = replica("examples.basic.app:app")
    port = first.endpoint.rpartition(":")[2]
    browser.opens(f"http://{first.endpoint}/")
    until(lambda: text(browser, "state") == "serving", "the page to show the replica")
    first.stop()
    until(lambda: is_lost(browser), "the page to notice the end")
    replica("examples.basic.app:app", "--port", port, port=None)
    until(lambda: not is_lost(browser), "the page to find the new one")
    assert text(browser, "state") == "serving"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_is_whole_in_light_and_dark_on_small_screens_and_large(served, browser, scheme, width):
    browser.prefers(scheme)
    browser.resizes(width, 900)
    browser.opens(f"http://{served.endpoint}/")
    until(lambda: columns(browser, "groups"), "the groups on the page")
    room, needed = browser.runs("return [innerWidth, document.documentElement.scrollWidth];")
    assert (room, needed <= room) == (width, True), "nothing sticks out"
    ground, ink = (brightness(browser, name) for name in ("background-color", "color"))
    assert (ground > 200 and ink < 60) if scheme == "light" else (ground < 60 and ink > 200), (ground, ink)


def brightness(browser: Browser, name: str) -> float:
    """Of a colour of the page, from 0 for black to 255 for white."""
    colour = browser.runs("return getComputedStyle(document.body).getPropertyValue(arguments[0]);", name)
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_the_page_can_be_read_without_being_seen(served, browser):
    browser.opens(f"http://{served.endpoint}/")
    until(lambda: columns(browser, "groups"), "the groups on the page")
    headings = browser.runs("return [...document.querySelectorAll('th')].filter((one) => !one.scope).length;")
    captions = browser.runs("return [...document.querySelectorAll('table')].filter((one) => !one.caption).length;")
    assert (headings, captions) == (0, 0), "every heading says what it is of, every table what it is"


def test_the_command_shows_the_same(served):
    with Client(served.endpoint) as client:
        client.infer("echo", {"x": [1]})
    done = anyserve("status", "--once", "--json", "--endpoint", served.endpoint)
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert (group["name"], group["succeeded"], len(group["workers"])) == ("default", 1, 2)
    done = anyserve("workers", "list", "--endpoint", served.endpoint)
    assert (done.returncode, done.stdout.count("worker-")) == (0, 2)
