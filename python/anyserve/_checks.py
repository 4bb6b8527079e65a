"""What the values of options are compared with; whatever is wrong is a `StartError` that names the option."""

from anyserve.errors import StartError

__all__ = ["count", "milliseconds", "seconds", "truth", "whole"]

MAX_INTEGER = 2**63 - 1
MAX_SECONDS = 604_800  # A week: whatever is longer is a typing error.
MAX_DELAY_MS = 10_000


def truth(name: str, value: object) -> bool:
    """Take True or False."""
    if isinstance(value, bool):
        return value
    raise StartError(f"{name}={value!r}: it is True or False")


def whole(name: str, value: object, most: int) -> int:
    """Take a whole number from 1 on."""
    return _between(name, value, 1, most)


def count(name: str, value: object, most: int) -> int:
    """Take a whole number from 0 on."""
    return _between(name, value, 0, most)


def seconds(name: str, value: object) -> float | None:
    """Take a number of seconds above 0 and up to a week, or ``None``."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_SECONDS:
        return float(value)
    raise StartError(f"{name}={value!r}: it is a number of seconds above 0 and up to {MAX_SECONDS}, or None")


def milliseconds(name: str, value: object) -> float:
    """Take a number of milliseconds up to ten seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_DELAY_MS:
        return float(value)
    raise StartError(f"{name}={value!r}: it is a number of milliseconds from 0 to {MAX_DELAY_MS}")


def _between(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise StartError(f"{name}={value!r}: it is a whole number from {least} to {most}")
