"""Rows and cells of the tables."""


def row(cells: list[str]) -> str:
    """Give a row of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def rule(columns: int) -> str:
    """Give the line below a table's head."""
    return row(["---"] * columns)


def time_of(micros: float | None) -> str:
    """Give a time for people; nothing for none."""
    if micros is None:
        return ""
    if micros < 10:
        return f"{micros:.1f} µs"
    return f"{micros:.0f} µs" if micros < 1000 else f"{micros / 1000:.1f} ms"


def size_of(size: int) -> str:
    """Give a number of bytes for people, which are a multiple of a unit."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            return f"{size >> shift} {unit}"
    return f"{size} B"
