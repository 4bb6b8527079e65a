"""From a target to an app: `module:app`, `path/file.py:app`, or with a factory `module:create_app`.

Whatever goes wrong is a `LoadError` that says how to put it right. Where the user's own code raised, it carries the
traceback from that code on, without the frames of this package and of the import system.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar

from anyserve.app import AnyServe
from anyserve.errors import StartError

__all__ = ["LoadError", "load"]

Kind = Literal["target", "import", "app"]

T = TypeVar("T")

_OWN = str(Path(__file__).parent.parent)


class LoadError(Exception):
    """A target that no app could be loaded from.

    Args:
        kind: ``"target"``: it names nothing, or no app; ``"import"``: its code raised; ``"app"``: it declares
            something that cannot be served.
        message: one paragraph with the fix.
        trace: the user's part of the traceback as text; empty where no code of theirs raised.
    """

    def __init__(self, kind: Kind, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace


def load(target: str, *, factory: bool = False) -> AnyServe:
    """Import the module that a target names and take the app out of it.

    Args:
        target: ``module:attribute`` or ``path/file.py:attribute``; the attribute is ``app`` if it is left out.
        factory: the attribute is a function that makes the app when it is called without arguments.

    Returns:
        An app with at least one capability.

    Raises:
        LoadError: the target names no app, or its code raised.
    """
    source, _, attribute = target.partition(":")
    if not source:
        raise LoadError("target", f"the target {target!r} names no module; write module:app or path/file.py:app")
    is_file = source.endswith(".py") or "/" in source
    module = _guarded(lambda: _import_file(source) if is_file else _import_module(source), f"importing {source!r}")
    found = _attribute(module, attribute or "app", source)
    app = _called(found, target) if factory else found
    if not isinstance(app, AnyServe) or (factory and app is found):
        raise LoadError("target", _no_app(found, app, target, factory=factory))
    if not app.handlers:
        raise LoadError("app", f'the app {target!r} has no capabilities; declare one: @app.capability(type="echo")')
    return app


# === the module ===


def _import_file(source: str) -> ModuleType:
    path = Path(source).resolve()
    if path.suffix != ".py":
        raise LoadError("target", f"{source!r} is no Python file; this version serves apps: path/file.py:app")
    if not path.is_file():
        hint = _close(path.name, (other.name for other in path.parent.glob("*.py")))
        raise LoadError("target", f"there is no file {source!r} (looked in {path.parent}){hint}")
    folder, name = path.parent, path.stem
    while (folder / "__init__.py").is_file():
        folder, name = folder.parent, f"{folder.name}.{name}"
    sys.path.insert(0, str(folder))
    # A file in a package has relative imports to follow; one beside others may have the name of a module of Python's.
    return importlib.import_module(name) if "." in name else _import_alone(path, name)


def _import_alone(path: Path, name: str) -> ModuleType:
    name = f"_{name}_app" if name in sys.modules else name
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError("target", f"Python cannot import {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise LoadError("target", f"{name!r} is no module; write module:app or path/file.py:app")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise
        raise LoadError("target", _no_module(name, missing)) from None


def _no_module(name: str, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    if hasattr(sys.modules.get(parent), last):
        return f"there is no module {name!r}, but {last!r} in {parent!r}; did you mean '{parent}:{last}'?"
    folders = list(getattr(sys.modules.get(parent), "__path__", [])) if parent else [str(Path.cwd())]
    close = _close(last, (module.name for module in pkgutil.iter_modules(folders)))
    where = f"in {parent!r}" if parent else f"in {Path.cwd()} and the installed packages"
    return f"there is no module {name!r}: looked for {missing!r} {where}{close}"


# === the attribute ===


def _attribute(module: ModuleType, path: str, source: str) -> object:
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise LoadError("target", f"{source!r} has no attribute {path!r}{_instead(module, name)}")
        found = getattr(found, name)
    return found


def _instead(module: ModuleType, name: str) -> str:
    apps = [other for other, value in vars(module).items() if isinstance(value, AnyServe)]
    if apps:
        return f"; its app is {apps[0]!r}" if len(apps) == 1 else f"; its apps are {', '.join(map(repr, apps))}"
    return _close(name, (other for other in vars(module) if not other.startswith("_"))) or (
        "; it makes no AnyServe() under any name (a function that makes one is served with --factory)"
    )


def _called(found: object, target: str) -> object:
    if not callable(found):
        return found
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise LoadError("target", f"the factory {target!r} is called without arguments, but: {error}") from None
    except ValueError:
        pass  # Something without a readable signature: the call tells.
    return _guarded(found, f"the factory {target!r}")


def _no_app(found: object, app: object, target: str, *, factory: bool) -> str:
    if factory and isinstance(found, AnyServe):
        return f"{target!r} is an app and no factory: leave --factory out"
    if factory and callable(found):
        return f"the factory {target!r} returned {_described(app)}; return the AnyServe() it makes"
    if callable(found) and not inspect.isclass(found):
        return f"{target!r} is {_described(found)} and no app; if it makes one, add --factory"
    return f"{target!r} is {_described(found)}; a target names an AnyServe()"


def _described(value: object) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__!r}"
    if inspect.iscoroutine(value):
        value.close()  # Nobody will await it, and Python would complain.
        return "a coroutine (a factory is a plain function)"
    return "a function" if inspect.isroutine(value) else f"of type {type(value).__name__!r}"


def _close(name: str, others: Iterable[str]) -> str:
    close = get_close_matches(name, list(others), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# === what the user's code raises ===


def _guarded(code: Callable[[], T], doing: str) -> T:
    try:
        return code()
    except LoadError:
        raise
    except StartError as error:
        raise LoadError("app", f"{_place(error)}{error}") from error
    except SystemExit as error:
        message = f"{doing} ended the process with sys.exit({error.code!r}); an app that is imported must not exit"
        raise LoadError("import", message, _trace(error)) from error
    except Exception as error:
        text = traceback.format_exception_only(error)[-1].strip()
        raise LoadError("import", f"{doing} raised {text}", _trace(error)) from error


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_own(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""


def _trace(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [shown]
    while pending:
        one = pending.pop()
        if one is not None:
            one.stack = traceback.StackSummary.from_list([frame for frame in one.stack if not _is_own(frame.filename)])
            pending += [one.__cause__, one.__context__]
    return "".join(shown.format())


def _is_own(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", _OWN)) or filename == importlib.__file__
