"""From a target to an app, and what is said when there is none."""

import sys
import textwrap

import pytest

from anyserve.worker.loader import LoadError, load

GOOD = """
    from anyserve import AnyServe
    app = AnyServe()
    @app.capability(type="t")
    def handler(request): ...
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes modules into a folder that is the working directory and the first of the import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)

    def put(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(target: str, *, factory: bool = False) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(target, factory=factory)
    return caught.value


@pytest.mark.parametrize(
    "target", ["good_app:app", "good_app", "good_app.py:app", "./good_app.py", "good_app:other.app"]
)
def test_a_target_is_a_module_or_a_file_with_app_unless_it_says_otherwise(write, target):
    write("good_app.py", GOOD + "\n    class other: app = app")
    assert load(target).handlers[0].capability == {"type": "t"}


def test_a_file_in_a_package_keeps_its_relative_imports(write):
    write("pack/__init__.py", "")
    write("pack/inner/__init__.py", "")
    write("pack/inner/parts.py", GOOD)
    write("pack/inner/main.py", "from .parts import app")
    assert load("pack/inner/main.py:app").handlers


def test_a_file_may_be_named_like_a_module_of_pythons(write):
    write("json.py", GOOD)
    assert load("json.py:app").handlers


def test_a_file_may_import_its_neighbours(write, monkeypatch):
    write("folder/neighbour.py", GOOD)
    write("folder/main_app.py", "from neighbour import app")
    assert load("folder/main_app.py:app").handlers


def test_a_factory_is_called_once(write):
    write("made.py", GOOD + "    calls = []\n    def create():\n        calls.append(1)\n        return app\n")
    assert load("made:create", factory=True).handlers
    assert sys.modules["made"].calls == [1]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("god_app:app", "there is no module 'god_app': looked for 'god_app' in .*did you mean 'good_app'?"),
        ("pack.man:app", "looked for 'pack.man' in 'pack'; did you mean 'main'?"),
        ("good_app.app", "there is no module 'good_app.app', but 'app' in 'good_app'; did you mean 'good_app:app'?"),
        ("god_app.py:app", "there is no file 'god_app.py' .*did you mean 'good_app.py'?"),
        ("good_app:ap", "has no attribute 'ap'; its app is 'app'"),
        ("two_apps:app", "has no attribute 'app'; its apps are 'first', 'second'"),
        ("no_app:app", "it makes no AnyServe.. under any name"),
        ("good_app:handler", "is a function and no app; if it makes one, add --factory"),
        ("no_app:number", "is of type 'int'; a target names an AnyServe"),
        ("no_app:Class", "is the class 'Class'; a target names an AnyServe"),
        ("empty_app:app", "has no capabilities; declare one"),
        (":app", "names no module"),
        ("a-b:app", "is no module; write module:app or path/file.py:app"),
        ("./model.gguf", "is no Python file"),
    ],
)
def test_a_target_that_names_no_app_is_refused_with_the_fix(write, target, says):
    write("good_app.py", GOOD)
    write("pack/__init__.py", "")
    write("pack/main.py", GOOD)
    write("two_apps.py", "from anyserve import AnyServe\nfirst = AnyServe()\nsecond = AnyServe()")
    write("no_app.py", "number = 3\nclass Class: ...")
    write("empty_app.py", "from anyserve import AnyServe\napp = AnyServe()")
    error = refusal(target)
    assert error.kind in ("target", "app")
    assert error.trace == ""
    with pytest.raises(LoadError, match=says):
        load(target)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("factories:app", "is an app and no factory: leave --factory out"),
        ("factories:nothing", "returned of type 'NoneType'; return the AnyServe"),
        ("factories:later", "returned a coroutine"),
        ("factories:needs", "is called without arguments, but: missing a required argument: 'x'"),
        ("factories:number", "is of type 'int'; a target names an AnyServe"),
    ],
)
def test_a_factory_that_makes_no_app_is_refused_with_the_fix(write, target, says):
    write(
        "factories.py",
        GOOD + "    def nothing(): ...\n    async def later(): ...\n    def needs(x): ...\n    number = 3\n",
    )
    with pytest.raises(LoadError, match=says):
        load(target, factory=True)


def test_what_the_users_code_raises_is_shown_without_frames_of_ours(write):
    write("broken_part.py", "def fail():\n    raise KeyError('weights')\nfail()")
    write("broken.py", "import broken_part")
    error = refusal("broken:app")
    assert error.kind == "import"
    assert error.message == "importing 'broken' raised KeyError: 'weights'"
    lines = [line.strip() for line in error.trace.splitlines() if line.strip().startswith("File")]
    assert [line.split("/")[-1].split('"')[0] for line in lines] == ["broken.py", "broken_part.py", "broken_part.py"]
    assert error.trace.endswith("KeyError: 'weights'\n")


def test_a_module_that_the_app_imports_and_is_missing_is_the_apps_error(write):
    write("needy.py", "import not_installed_anywhere")
    error = refusal("needy:app")
    assert (error.kind, "No module named 'not_installed_anywhere'" in error.message) == ("import", True)
    assert "needy.py" in error.trace


def test_a_syntax_error_shows_the_line(write):
    write("typo.py", "def f(:\n")
    error = refusal("typo:app")
    assert "SyntaxError" in error.message
    assert "def f(:" in error.trace


def test_an_app_that_exits_while_it_is_imported_is_an_error(write):
    write("exiting.py", "import sys\nsys.exit(0)")
    assert "ended the process with sys.exit(0)" in refusal("exiting:app").message


def test_what_a_factory_raises_is_the_users(write):
    write("raising.py", "def create():\n    raise OSError('no disk')")
    error = refusal("raising:create", factory=True)
    assert error.message == "the factory 'raising:create' raised OSError: no disk"
    assert "raising.py" in error.trace


def test_a_declaration_that_cannot_be_served_names_its_line(write):
    write("wrong.py", GOOD.replace('type="t"', 'type="t", concurrency=0'))
    error = refusal("wrong:app")
    assert error.kind == "app"
    assert "wrong.py:4: concurrency=0: it is a whole number from 1 to 4096" in error.message
