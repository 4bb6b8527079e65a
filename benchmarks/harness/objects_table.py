"""What `objects.py` measured, as Markdown: absolute numbers, ratios, aims."""

from collections.abc import Iterator

from harness.echoes import CROSSINGS, WAYS, Way
from harness.machine import Facts
from harness.markdown import row, rule, size_of, time_of
from harness.stores import STORES, Figures

MIB = 1 << 20


def render(figures: Figures, machine: Facts) -> str:
    """Give the whole report."""
    parts = (
        ("Objects, p50 in the process that uses them", _objects),
        ("FP32 echo, one at a time, p50", _echoes),
        ("Where the arena begins to pay: FP32 echo, one at a time, p50", _crossing),
        ("Aims", _aims),
    )
    sections = ["\n".join(f"- {name}: {value}" for name, value in machine.items())]
    for title, lines in parts:
        if found := list(lines(figures)):
            sections += [f"### {title}", "\n".join(found)]
    sections += [f"{who} was not measured: {reason}" for who, reason in figures.missing.items()]
    return "\n\n".join(sections) + "\n"


def crossing(figures: Figures, never: Way, always: Way) -> int | None:
    """Give the smallest size from which on the arena is never slower than the socket; None if there is none."""
    found = None
    for size in reversed(sizes(figures, never.key)):
        ratio = _over(figures.median(always.key, "echo", size), figures.median(never.key, "echo", size))
        if ratio is None or ratio > 1:
            break
        found = size
    return found


def sizes(figures: Figures, who: str) -> list[int]:
    """Give the sizes for which there are figures."""
    return sorted({size for name, _, size in figures.rounds if name == who})


def _objects(figures: Figures) -> Iterator[str]:
    stores = [store for store in STORES if sizes(figures, store)]
    if not stores:
        return
    heads = [[f"{STORES[store]} put", "of memcpy", "get", "delete"] for store in stores]
    yield row(["size", "memcpy", *(cell for head in heads for cell in head)])
    yield rule(2 + 4 * len(stores))
    for size in sizes(figures, stores[0]):
        cells = [size_of(size), time_of(figures.median(stores[0], "memcpy", size))]
        for store in stores:
            times = (time_of(figures.median(store, what, size)) for what in ("put", "get", "delete"))
            put, *others = times
            cells += [put, _times(figures.median(store, "of memcpy", size)), *others]
        yield row(cells)


def _echoes(figures: Figures) -> Iterator[str]:
    ways = [way for way in WAYS if sizes(figures, way.key)]
    if not ways:
        return
    yield row(["size", *(way.label for way in ways)])
    yield rule(1 + len(ways))
    for size in sorted({size for way in ways for size in sizes(figures, way.key)}):
        yield row([size_of(size), *(time_of(figures.median(way.key, "echo", size)) for way in ways)])


def _crossing(figures: Figures) -> Iterator[str]:
    pairs = [pair for pair in CROSSINGS if sizes(figures, pair[0].key)]
    if not pairs:
        return
    yield row(["size", *(cell for never, always in pairs for cell in (never.label, always.label, "the arena takes"))])
    yield rule(1 + 3 * len(pairs))
    for size in sizes(figures, pairs[0][0].key):
        cells = [size_of(size)]
        for pair in pairs:
            never, always = (figures.median(way.key, "echo", size) for way in pair)
            cells += [time_of(never), time_of(always), _times(_over(always, never))]
        yield row(cells)
    yield ""
    for never, always in pairs:
        found = crossing(figures, never, always)
        where = "nowhere" if found is None else f"from {size_of(found)} on"
        yield f"{always.label.capitalize()}: it pays {where}."


def _aims(figures: Figures) -> Iterator[str]:
    yield row(["aim", "reached", ""])
    yield rule(3)
    of_memcpy = [figures.median("anyserve", "of memcpy", size) for size in sizes(figures, "anyserve") if size >= MIB]
    yield _aim("put ≥ 0.8 × memcpy from 1 MiB on, at worst", min(_known(of_memcpy), default=None), 0.8, least=True)
    gets = [figures.median("anyserve", "get", size) for size in sizes(figures, "anyserve")]
    yield _aim("get ≤ 20 µs at any size, at worst", max(_known(gets), default=None), 20, unit="µs")
    shared = _known([figures.median("shm1", "echo", size) for size in sizes(figures, "shm1")])
    spread = max(shared) / min(shared) if shared else None
    yield _aim("shared memory in place: slowest size ≤ 2 × the fastest", spread, 2)
    for size in (4 * MIB, 64 * MIB):
        for theirs in ("socket", "triton"):
            ratio = _over(figures.median(theirs, "echo", size), figures.median("arena", "echo", size))
            yield _aim(f"{size_of(size)} echo by the arena against {theirs}: ≥ 1 ×", ratio, 1, least=True)


def _aim(what: str, reached: float | None, bound: float, *, least: bool = False, unit: str = "×") -> str:
    if reached is None:
        return row([what, "not measured", ""])
    met = reached >= bound if least else reached <= bound
    return row([what, f"{reached:.2f} {unit}", "met" if met else "missed"])


def _known(figures: list[float | None]) -> list[float]:
    return [figure for figure in figures if figure is not None]


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} ×"
