"""What the documents name is there: links, files, commands, options with their defaults, apps, paths, codes."""

import ast
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import grpc
import pytest

from anyserve import AnyServe, _core
from tests.python import documents
from tests.python.documents import COMMANDS, DOCUMENTS, ROOT, in_code, long_options, named, section, tables

HANDLERS, WORKERS = ROOT / "docs/handlers.md", ROOT / "docs/workers.md"
RUNTIME, CLUSTER = ROOT / "docs/runtime.md", ROOT / "docs/cluster.md"
GUIDES = [path for path in DOCUMENTS if path.parent.name != "adr"]
FOREIGN = {"--cacert", "--cert", "--client-cert-auth", "--json", "--key", "--locked", "--no-buffer", "--package"}
"""Options of other programs that the texts speak of."""

FOLDERS = ("benchmarks", "crates", "docs", "examples", "fuzz", "proto", "python", "tests")

# === links and files ===


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(document):
    for link in documents.links(document):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        assert not anchor or anchor in documents.anchors(target), link


def test_every_document_is_reached_from_the_readme():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        document = left.pop()
        reached.add(document)
        files = [document.parent / link.partition("#")[0] for link in documents.links(document) if "//" not in link]
        found = {file.resolve() for file in files}
        found |= {file / "README.md" for file in found if (file / "README.md").exists()}
        left += [file for file in found if file.suffix == ".md" and file not in reached]
    assert {path for path in GUIDES if path.is_relative_to(ROOT / "docs")} <= reached


def paths_of_the_repository() -> set[str]:
    """Every file and folder as a text names it: `worker/link.rs` is `crates/worker/src/link.rs`."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    return {"/" + named(path).replace("/src/", "/") + "/" * path.is_dir() for path in found}


@pytest.mark.parametrize("document", [path for path in GUIDES if path.parent.name in ("docs", ROOT.name)], ids=named)
def test_every_file_that_is_named_is_there(document):
    everything = paths_of_the_repository()
    for word in in_code(documents.prose(document)):
        if re.fullmatch(r"[\w/-]+\.(rs|py|md|proto)|[a-z]+(/[a-z]+)*/", word):
            ending = "/" + word.replace("/src/", "/")
            assert any(path.endswith(ending) for path in everything), word


def test_every_state_machine_is_drawn_where_it_is_said_to_be():
    files = [
        file for row in tables(section(ROOT / "docs/architecture.md", "State machines"))[0] for file in in_code(row[1])
    ]
    assert len(files) > 10
    for file in files:
        crate, _, rest = file.partition("/")
        assert re.search("(─|--)(►|>)", (ROOT / "crates" / crate / "src" / rest).read_text()), file


# === commands and options ===


def documented(text: str) -> dict[str, str]:
    """The options of the tables of a text, each with the cell of its default."""
    rows = [row for table in tables(text) for row in table if row[0].startswith("`--")]
    return {flag: row[1] or " ".join(row[2:]) for row in rows for flag in re.findall(r"--[a-z-]+", row[0])}


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w.]+", text))


AMONG_MANY = documented(section(CLUSTER, "Replicas"))
TABLES = {
    "serve": documented(RUNTIME.read_text()) | AMONG_MANY,
    "api-server": documented(section(CLUSTER, "API server")),
}


def test_what_a_replica_has_among_many_is_in_the_table_of_all_its_options():
    assert set(AMONG_MANY) <= set(documented(RUNTIME.read_text()))


@pytest.mark.parametrize("command", TABLES)
def test_the_options_of_a_table_are_those_of_the_command(command):
    assert set(TABLES[command]) == set(long_options(command))


@pytest.mark.parametrize("command", TABLES)
def test_each_default_of_a_table_is_the_one_of_the_help(command):
    for flag, cell in TABLES[command].items():
        said = re.search(r"\[default: (.*)\]", long_options(command)[flag].help)
        if said and "as for a" not in cell:
            assert words(said[1]) <= words(cell), f"{flag}: {said[0]} in the help, {cell!r} in the table"


def leaf(arguments: list[str]) -> tuple[Any, str, list[str]]:
    """The command that a command line means, its name, and its arguments."""
    command, (name, *rest) = COMMANDS, arguments
    while (found := getattr(command, "commands", {}).get(name)) is not None:
        command = found
        if not hasattr(command, "commands"):
            return command, name, rest
        name, *rest = rest
    return COMMANDS.commands["serve"], "serve", arguments


SHOWN = sorted(
    {line for path in GUIDES for line in documents.command_lines(path) if re.match(r"anyserve (?!.*\[options\])", line)}
)


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_that_is_shown_can_be_read(line):
    command, name, arguments = leaf(shlex.split(line)[1:])
    if name != "bench":  # It has a parser of its own.
        command.make_context(name, arguments)


def test_every_option_that_is_spoken_of_is_one_of_a_command():
    known = {flag for command in documents.every_command() for flag in documents.options_of(command)}
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        code = " ".join(in_code(documents.prose(path)))
        assert set(re.findall(r"(?<!\S)--[a-z-]+(?![a-z…-])", code)) <= known | FOREIGN, named(path)


# === apps ===


@pytest.mark.parametrize("document", [path for path in GUIDES if documents.blocks(path, "python")], ids=named)
def test_what_is_shown_of_python_can_be_read(document):
    for block in documents.blocks(document, "python"):
        ast.parse(block)


def test_the_handler_that_is_shown_passes_the_test_that_is_shown():
    app, test, _ = documents.blocks(HANDLERS, "python")
    names: dict[str, Any] = {}
    exec(compile(app + test, "handlers.md", "exec"), names)
    names["test_scale"]()
    assert [handler.function for handler in names["app"].handlers] == ["scale"]


def options_in_tables(path: Path, heading: str) -> set[str]:
    return {name for table in tables(section(path, heading)) for row in table for name in in_code(row[0])}


def keywords(function: Any) -> set[str]:
    return {name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY}


def test_the_options_of_capabilities_and_classes_stand_in_one_of_two_tables():
    of_handlers, of_groups = options_in_tables(HANDLERS, "Options"), options_in_tables(WORKERS, "Groups")
    assert not of_handlers & of_groups
    assert of_handlers | of_groups == keywords(AnyServe.worker)
    assert of_handlers <= keywords(AnyServe.capability)


# === codes ===


def test_every_code_stands_with_its_statuses_and_its_exception():
    grpc_names = {status.value[0]: status.name for status in grpc.StatusCode}
    (rows,) = tables(section(RUNTIME, "The closed set of codes"))
    written = [(name, status, int(http), raised) for name, status, http, raised, _ in rows]
    assert written == [(name, grpc_names[number], http, raised) for name, number, http, raised in _core.codes()]


# === paths ===


def routes(folder: str) -> set[str]:
    """The paths that the sources of a folder route."""
    text = "".join(path.read_text() for path in (ROOT / folder).rglob("*.rs"))
    constants = dict(re.findall(r'const ([A-Z_]+): &str = "(/[^"]*)"', text))
    found = re.findall(r'\.route\(\s*(?:"(/[^"]*)"|([A-Z_]+)\b)', text)
    return {path or constants[name] for path, name in found}


def spoken(path: Path, heading: str) -> set[str]:
    """The paths of the tables under a heading: those of the first cells, and where a method stands before one."""
    rows = [row for table in tables(section(path, heading)) for row in table]
    parts = [word for row in rows for word in in_code(row[0])]
    parts += [word for row in rows for word in in_code(" ".join(row)) if re.match("[A-Z]+ /", word)]
    found = [one for word in parts for one in re.findall(r"/[^\s,`]*", word)]
    return {re.split(r"[?…]", one)[0] for one in found}


def test_the_paths_of_a_replica_are_those_that_are_routed():
    written = spoken(RUNTIME, "HTTP") | spoken(RUNTIME, "Orders")
    written = {"/admin/models/{name}/unload" if path == "/unload" else path for path in written} - {"/admin/"}
    assert written == routes("crates/server/src/http") - {"/status.css", "/status.js"}


def test_the_paths_of_an_api_server_are_those_that_are_routed():
    written = spoken(CLUSTER, "The registry") | spoken(CLUSTER, "What is seen of it")
    assert written == routes("crates/gateway/src") - {"/status.css", "/fleet.js"}
