"""Which files an app was loaded from: those that its author edits."""

import sys
import sysconfig
from pathlib import Path

__all__ = ["source_files"]

_OWN = Path(__file__).resolve().parent.parent
_PACKAGES = frozenset({"site-packages", "dist-packages"})


def source_files(target: str) -> list[str]:
    """Find the Python files of the modules that are loaded, below the app's folder and the working folder.

    Args:
        target: what the app was loaded from: ``module:attribute`` or ``path/file.py:attribute``.

    Returns:
        Absolute paths in their order, without installed packages, Python's own modules and this package.
    """
    homes = [Path.cwd(), *_folder(target)]
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := _source(module))}
    return sorted(str(file) for file in files if _is_below(file, homes) and not _is_installed(file))


def _folder(target: str) -> list[Path]:
    source = target.partition(":")[0]
    if source.endswith(".py") or "/" in source:
        return [_above_packages(Path(source))]
    module = _source(sys.modules.get(source))
    return [_above_packages(Path(module))] if module else []


def _above_packages(file: Path) -> Path:
    """The folder that the file, or the package that it is in, is imported from."""
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _source(module: object) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") else ""


def _is_installed(file: Path) -> bool:
    python = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    return not _PACKAGES.isdisjoint(file.parts) or _is_below(file, [_OWN, *python])


def _is_below(file: Path, folders: list[Path]) -> bool:
    return any(folder in file.parents for folder in folders)
