"""Promise 10, and what of 6 and 14 is about objects: shared memory survives whoever is killed, and whoever lies."""

import itertools
import json
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest

from anyserve import Client, ObjRef, errors
from tests.e2e.conftest import serving
from tests.e2e.messages import anyserve_code, infer, refused, stub, tensor
from tests.e2e.replicas import BIN, WATCHDOG_S, Replica, anyserve, assert_gone, run, until
from tests.guarantees import memory, resets
from tests.guarantees.traffic import PARTS, Traffic, number
from tests.guarantees.whole import MIB, check, payload
from tests.guarantees.wild import Wild, Wilds
from tests.python.frames import Frame

TARGET = "tests/guarantees/apps/plane.py:app"
SMALL_STORE = ("--object-store", "8MiB")
STORM_STORE = ("--object-store", "16MiB", "--workers", "4")
STORM_S = float(os.environ.get("ANYSERVE_PLANE_STORM_S", "6"))
PAUSES_S = (0.1, 0.2)
THREADS = 6
BACK_S = 1.0
"""How long after the last reader memory may be taken still."""

USED, TENSORS, KEPT = "anyserve_object_store_used_bytes", "anyserve_object_store_tensors", "anyserve_object_store_kept"


@pytest.fixture
def client(channel) -> Iterator[Callable[[Replica], Client]]:
    """Makes clients of replicas."""
    made: list[Client] = []

    def make(served: Replica) -> Client:
        made.append(Client(served.endpoint))
        return made[-1]

    yield make
    for one in made:
        one.close()


def usage(client: Client) -> dict[str, int]:
    return json.loads(client.infer("usage", {})["usage"][0])


def make(client: Client, seed: int, size: int = MIB, **options: Any) -> ObjRef:
    inputs = {"seed": number(seed), "size": number(size)}
    return client.infer("make", inputs, parameters=options or None)["ref"]


def read(client: Client, ref: ObjRef, seed: int) -> None:
    check(client.infer("read", {"ref": str(ref), "seed": number(seed)})["x"], seed)


def echo(client: Client, seed: int, size: int = MIB) -> None:
    check(client.infer("echo", {"x": payload(seed, size), "seed": number(seed)})["x"], seed)


def drop(client: Client, ref: ObjRef) -> bool:
    return bool(client.infer("drop", {"ref": str(ref)})["dropped"][0])


def is_gone(client: Client, ref: ObjRef) -> bool:
    try:
        client.infer("read", {"ref": str(ref), "seed": number(0)})
    except errors.NotFound:
        return True
    except errors.HandlerError:  # Another seed: it is there.
        return False
    return False


def comes_back(served: Replica, used: int = 0) -> None:
    """Wait until no more than so many bytes are taken, and no tensor is under way."""
    until(lambda: served.metric(USED) <= used and served.metric(TENSORS) == 0,
          f"{served.metric(USED):.0f} bytes to become {used}", limit_s=BACK_S)  # fmt: skip


# === whoever is killed ===


@pytest.fixture
def seed() -> int:
    """What the storm is drawn from; ANYSERVE_STORM_SEED brings the same draws again."""
    return int(os.environ.get("ANYSERVE_STORM_SEED") or random.SystemRandom().randrange(2**32))


def kill_workers(served: Replica, traffic: Traffic, chance: random.Random) -> tuple[int, set[str]]:
    """Kill workers at random, seldom the last one that serves or one that only starts, so that something is served.

    Returns:
        How many were killed, and names that stayed in /dev/shm.
    """
    end, kills, stayed, before = time.monotonic() + STORM_S, 0, set(), set()
    while time.monotonic() < end:
        traffic.over.wait(chance.uniform(*PAUSES_S))
        now = memory.names(served.process.pid)
        stayed, before = stayed | (now & before), now
        workers = served.workers()
        serving, starting = sorted(traffic.pids & workers), sorted(workers - traffic.pids)
        if len(serving) < 2 and chance.random() < 0.8:
            serving = []
        victims = starting if starting and chance.random() < 0.1 else serving
        if victims:
            pid = chance.choice(victims)
            traffic.pids.discard(pid)
            os.kill(pid, signal.SIGKILL)
            kills += 1
    return kills, stayed


def test_workers_killed_at_random_tear_nothing_and_leave_nothing(replica, client, seed):
    print(f"ANYSERVE_STORM_SEED={seed}")
    served = replica(TARGET, *STORM_STORE)
    with Traffic(served.endpoint, seed, THREADS) as traffic:
        kills, stayed = kill_workers(served, traffic, random.Random(seed + 1))
    report = f"seed {seed}, {kills} kills in {STORM_S:g} s\n{traffic}"
    print(report)
    assert not traffic.violations, report
    assert not stayed, report
    assert kills >= STORM_S, report
    # A storm in which nothing is answered would keep the promise, and prove little.
    assert all(traffic.answered_of(kind) for kind in traffic.kinds), report

    until(served.is_ready, "ready after the storm")
    until(lambda: usage(client(served))["objects"] == 0, "the end of every lease")
    comes_back(served)
    assert served.metric(KEPT) == 0
    until(lambda: len(memory.holders(served.process.pid)) == 5, "the runtime and its four workers")
    holders = memory.holders(served.process.pid)
    # The segment, and the pins of each worker that lives; a worker has mapped the segment and its own pins.
    assert len(holders.pop(served.process.pid)) == 1 + 4
    assert all(len(names) == 2 for names in holders.values())
    assert not memory.names(served.process.pid)
    echo(client(served), 7)


def test_callers_that_leave_leave_no_memory_behind(replica, client):
    served = replica(TARGET, *STORM_STORE)
    one = client(served)
    for place in range(8):
        with one.stream("flood", {"seed": number(place), "name": f"s{place}"}) as stream:
            check(next(stream)["x"], place)
            served.noted(f"made-s{place}", PARTS // 2)
    with pytest.raises(errors.DeadlineExceeded):
        one.infer("hold", {"x": payload(1), "seed": number(1), "name": "left"}, timeout_s=0.3)
    served.allow("go-left")
    comes_back(served)


def test_a_killed_runtime_leaves_no_shared_memory_and_the_next_one_starts(replica, client):
    served = replica(TARGET, *STORM_STORE)
    runtime, before = served.process.pid, client(served)
    ref = make(before, 1)
    with Traffic(served.endpoint, 1, THREADS) as traffic:
        until(lambda: all(traffic.answered_of(kind) for kind in ("echo", "read", "parts")), "traffic of every kind")
        workers = served.workers()
        assert len(memory.holders(runtime)) == 1 + len(workers)
        served.process.kill()
        served.wait()
        assert_gone(workers)
        traffic.over.set()
    until(lambda: not memory.holders(runtime), "the end of the last mapping")
    assert not memory.names(runtime)
    after = client(replica(TARGET, *STORM_STORE))
    with pytest.raises(errors.NotFound):
        read(after, ref, 1)
    read(after, make(after, 2), 2)


# === views that outlive ===


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_what_a_handler_keeps_stays_as_it_was_while_the_arena_is_full_of_others(replica, client, how):
    served = replica(TARGET, *SMALL_STORE)
    one = client(served)
    ref = make(one, 2, **({"ttl_s": 0.5} if how == "expired" else {}))
    one.infer("keep", {"x": payload(1), "seed": number(1), "ref": str(ref), "ref_seed": number(2)})
    if how == "deleted":
        assert drop(one, ref)
    until(lambda: is_gone(one, ref), "the end of the object")
    others = []
    for seed in range(10, 40):
        others.append(make(one, seed, cacheable=True))
        echo(one, seed + 100)
        read(one, others[-1], seed)
        assert one.infer("kept", {})["kept"].tolist() == [2]
    assert sum(drop(one, other) for other in others) == 30 - usage(one)["evicted"] < 8
    assert (usage(one)["objects"], served.metric(KEPT)) == (0, 2)
    assert usage(one)["used"] >= 2 * MIB
    one.infer("let-go", {})
    comes_back(served)


def test_a_worker_that_keeps_thousands_of_views_is_told_in_the_log(replica, client):
    served = replica(TARGET, *SMALL_STORE)
    one = client(served)
    assert one.infer("keep-many", {"count": number(1100)})["kept"].tolist() == [1100]
    served.says("handlers keep views")
    assert served.metric(KEPT, worker="worker-0") == 1100
    assert one.infer("kept", {})["kept"].tolist() == [1100]
    one.infer("let-go", {})
    comes_back(served)
    assert served.metric(KEPT) == 0


# === bounds ===


def fill(client: Client) -> tuple[list[ObjRef], errors.ObjectStoreFull]:
    """Make objects until there is room for no other."""
    refs: list[ObjRef] = []
    with pytest.raises(errors.ObjectStoreFull) as raised:
        refs.extend(make(client, seed) for seed in range(9))
    return refs, raised.value


def test_a_full_arena_refuses_objects_with_both_numbers_and_no_request(replica, client, channel):
    served = replica(TARGET, *SMALL_STORE)
    one = client(served)
    refs, full = fill(one)
    assert "no room for 1048640 bytes" in str(full), "the payload and its header"
    assert f"of {8 * MIB} are free" in str(full)
    message = infer("make", tensor("seed", "INT64", [1]), raw=[bytes(8)])
    call = stub(channel(served.endpoint)).ModelInfer.with_call
    with pytest.raises(grpc.RpcError) as raised:
        call(message)
    assert (raised.value.code(), anyserve_code(raised.value)) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "OBJECT_STORE_FULL",
    )  # fmt: skip
    for size in (100, MIB, 8 * MIB, 24 * MIB):
        echo(one, size, size)
    for seed, ref in enumerate(refs):
        read(one, ref, seed)
    assert all(drop(one, ref) for ref in refs)
    comes_back(served)


def test_what_may_be_evicted_goes_first_and_what_was_used_least_recently_goes_before_others(replica, client):
    one = client(replica(TARGET, *SMALL_STORE))
    stays, old, used = make(one, 1), make(one, 2, cacheable=True), make(one, 3, cacheable=True)
    end = time.monotonic() + 0.2  # Uses are counted in steps of 62 ms.
    until(lambda: read(one, used, 3) or time.monotonic() > end, "later uses")
    evict(one, 1)
    assert is_gone(one, old)
    read(one, used, 3)
    evict(one, 2)
    assert is_gone(one, used)
    fill(one)
    read(one, stays, 1)


def test_there_are_so_many_objects_and_no_more_and_requests_go_on(replica, client):
    served = replica(TARGET, *SMALL_STORE)
    one = client(served)
    told = one.infer("crowd", {"most": number(4096)})
    made, why = int(told["made"][0]), told["why"][0].decode()
    assert 2000 <= made <= 2048
    assert "holds 2048 objects and tensors" in why
    echo(one, 1, 2 * MIB)
    assert usage(one)["used"] < MIB


def test_a_client_that_announces_much_and_sends_nothing_takes_nothing_from_others(replica, client):
    served = replica(TARGET, *SMALL_STORE)
    one = client(served)
    connections = [announce(served.endpoint, 6 * MIB) for _ in range(8)]
    echo(one, 1)
    refs = [make(one, seed) for seed in range(3)]
    assert served.metric(USED) <= 4 * MIB + 3 * (MIB + 256)
    for seed, ref in enumerate(refs):
        read(one, ref, seed)
        assert drop(one, ref)
    for connection in connections:
        resets.reset(connection)
    comes_back(served)


def announce(endpoint: str, size: int) -> Any:
    """Begin a request whose one tensor is that large, and send its first bytes."""
    message = infer("echo", tensor("x", "UINT8", [size]), raw=[bytes(size)]).SerializeToString()
    connection = resets.connect(endpoint)
    connection.sendall(resets.PREFACE + resets.SETTINGS)
    connection.sendall(resets.frame(resets.HEADERS, resets.END_HEADERS, 1, resets.headers(endpoint, 60_000)))
    start = struct.pack(">BI", 0, len(message)) + message[:1024]
    connection.sendall(resets.frame(resets.DATA, 0, 1, start))
    return connection


# === a worker that lies ===


class Scene:
    """A replica with an honest and a wild worker; the wild one is busy, so that requests go to the honest one."""

    def __init__(
        self, served: Replica, wilds: Wilds, client: Client, pool: ThreadPoolExecutor, first: Wild | None
    ) -> None:
        self.served, self.wilds, self.client, self.pool, self.first = served, wilds, client, pool, first
        self.refs: dict[int, ObjRef] = {}

    def busy(self) -> tuple[Wild, Frame, Future]:
        """The next wild worker, with a request that it has not started, and what becomes of that.

        It has answered one before, so that the replica does not wait long to start the next one.
        """
        wild, self.first = self.first or self.wilds.next(), None
        request, answer = self.begun(wild, "a")
        wild.done(request)
        assert len(answer.result(WATCHDOG_S)) == 0
        return wild, *self.begun(wild, "b")

    def begun(self, wild: Wild, name: str) -> tuple[Frame, Future]:
        """Send requests that last until one is with the wild worker; the others end."""
        others = []
        for place in itertools.count():
            note = f"{wild.told['worker']}-{name}-{place}"
            answer = self.pool.submit(self.hold, note)
            until(lambda note=note: wild.has_more() or self.served.note(f"holding-{note}"), "the start of a request")
            self.served.allow(f"go-{note}")
            if wild.has_more():
                break
            others.append(answer)
        for other in others:
            other.result(WATCHDOG_S)
        return wild.receive("Request"), answer

    def hold(self, name: str) -> Any:
        return self.client.infer("hold", {"x": payload(1), "seed": number(1), "name": name})

    def is_untouched(self) -> None:
        """Whether everything that the honest worker has stored is there and whole, and requests are answered."""
        for seed, ref in self.refs.items():
            read(self.client, ref, seed)
        echo(self.client, 5)


@pytest.fixture
def scene(begun, client, tmp_path) -> Iterator[Scene]:
    wilds = Wilds(tmp_path, TARGET)
    flags = ("--workers", "2", "--no-fork", "--python", wilds.python)
    served = begun(TARGET, *SMALL_STORE, *flags, env={"WILD": str(wilds.path)})
    with ThreadPoolExecutor(8) as pool:
        first = wilds.next()
        try:
            served.serves()
            yield Scene(served, wilds, client(served), pool, first)
        finally:
            wilds.close()
            served.kill()


def released(block: dict[str, int]) -> Frame:
    """The frame that gives an unwritten block back."""
    return Frame("Release", 0, 0, {"block": block})


def object_of(ref: ObjRef) -> dict[str, int]:
    """A reference as frames have it."""
    store, index, generation = (int(part, 16) for part in str(ref).removeprefix("objref:").split("-"))
    return {"store": store, "index": index, "generation": generation}


def block_of(ref: ObjRef) -> dict[str, int]:
    return {name: number for name, number in object_of(ref).items() if name != "store"}


def test_a_worker_that_asks_for_what_it_has_no_right_to_is_refused_and_harms_nobody(scene):
    wild, request, answer = scene.busy()
    scene.refs = {seed: make(scene.client, seed) for seed in (1, 2)}
    used = scene.served.metric(USED)

    for size in (2**64 - 1, 2**63, 8 * MIB + 1):
        assert wild.refused("Put", len=size)[0] == "OBJECT_STORE_FULL"
    for index, generation in [(0, 0), (0, 2**64 - 1), (2**32 - 1, 1), (2048, 1), (5, 5)]:
        block = {"index": index, "generation": generation}
        assert wild.refused("Sealed", block=block, len=1, answer=True)[0] == "NOT_FOUND"
        assert wild.refused("Get", object={"store": wild.plane["store"], **block})[0] == "NOT_FOUND"
        assert wild.refused("Get", object={"store": 1, **block}, describe=True)[0] == "NOT_FOUND"
        assert not wild.ask("Release", object={"store": wild.plane["store"], **block})["object"]
        wild.send(released(block))

    block = wild.put(1000)
    for size in (1001, 2**64 - 1):
        code, text = wild.refused("Sealed", block=block, len=size, answer=True)
        assert (code, f"{size} bytes" in text) == ("INVALID_INPUT", True)
    assert wild.refused("Sealed", block=block, len=1, key="k" * 1025)[0] == "INVALID_INPUT"
    assert wild.refused("Sealed", block=block, len=1, durable=True)[0] == "UNSUPPORTED"
    sealed = wild.ask("Sealed", block=block, len=1000, ttl_ms=2**64 - 1, answer=True)["object"]
    assert wild.refused("Sealed", block=block, len=1000, answer=True)[0] == "INVALID_INPUT"
    assert wild.ask("Get", object=sealed, describe=True)["stat"]["remaining_ms"] <= 7 * 24 * 3600 * 1000
    assert wild.ask("Release", object=sealed)["object"]
    # Of an object of others it can be told, as everybody, and no more.
    theirs = scene.refs[1]
    assert wild.refused("Sealed", block=block_of(theirs), len=1, answer=True)[0] == "INVALID_INPUT"
    wild.send(released(block_of(theirs)))
    assert wild.ask("Get", object=object_of(theirs))["object"] == object_of(theirs)

    scene.is_untouched()
    wild.done(request)
    answer.result(WATCHDOG_S)
    wild.kill()
    scene.is_untouched()
    comes_back(scene.served, int(used))


def test_a_worker_that_hoards_and_lies_about_what_it_reads_loses_all_of_it_with_its_life(scene):
    wild, _, answer = scene.busy()
    scene.refs = {1: make(scene.client, 1, cacheable=True)}
    used = scene.served.metric(USED)
    hoard = until(lambda: hoarded(wild, 32 << 10), "an arena that is full")
    assert 190 <= hoard <= 256
    with pytest.raises(errors.ObjectStoreFull):
        make(scene.client, 2)
    wild.lie_about_pins(random.Random(3).randbytes(8 * wild.plane["entries"]))
    assert wild.refused("Put", len=1 << 20)[0] == "OBJECT_STORE_FULL"
    scene.refs = {}
    scene.is_untouched()
    wild.kill()
    answer.result(WATCHDOG_S)  # The wild one had not said that it has started: another has run it.
    comes_back(scene.served, int(used))


def hoarded(wild: Wild, size: int) -> int:
    """Ask for blocks without an end, and give how many there were."""
    count = 0
    while not wild.ask("Put", len=size)["failed"]:
        count += 1
    return count


def ask_on(wild: Wild, question: Frame) -> None:
    """Ask without an end and read nothing, until the runtime has closed its end."""
    questions = question.to_bytes() * 100
    with suppress(OSError):
        for _ in range(1_000_000):
            wild.socket.sendall(questions)
    until(wild.is_closed, "the end of the connection")


def test_a_worker_that_is_dead_gets_no_memory_any_more(scene):
    """A process that it had started may have its socket still, and what it had sent may be read after its death."""
    wild, _, answer = scene.busy()
    used = scene.served.metric(USED)
    os.kill(wild.pid, signal.SIGKILL)
    ask_on(wild, Frame("Put", 1, 0, {"len": 4096}))
    answer.result(WATCHDOG_S)
    comes_back(scene.served, int(used))


def test_a_worker_that_dies_while_it_is_greeted_leaves_no_pins_behind(scene):
    wild, _, answer = scene.busy()
    wild.kill()
    answer.result(WATCHDOG_S)
    for _ in range(3):
        dies = Wild(scene.wilds.listener.accept()[0])
        os.kill(dies.pid, signal.SIGKILL)
        dies.hello(scene.wilds.handlers)
        until(dies.is_closed, "the end of the greeting")
        dies.close()
    scene.wilds.next()
    assert len(memory.mapped(scene.served.process.pid, scene.served.process.pid)) == 1 + 2


BREAKS: dict[str, Callable[[Wild, Frame, Scene], None]] = {
    "a View from a worker": lambda wild, *_: wild.send(Frame("View", 1)),
    "a Sealed without a block": lambda wild, *_: wild.send(Frame("Sealed", 1, 0, {"len": 1})),
    "a Release of nothing": lambda wild, *_: wild.send(Frame("Release", 1)),
    "an output nowhere": lambda wild, request, _: wild.done(request, {"offset": 0}),
    "an output at a place that there is not": lambda wild, request, _: wild.done(
        request, {"block": {"index": 2**32 - 1, "generation": 2**64 - 1}, "offset": 2**64 - 1}
    ),
    "an output beyond its block": lambda wild, request, _: wild.done(
        request, {"block": wild.put(1000), "offset": 1000}
    ),
    "an output as long as there are numbers": lambda wild, request, _: wild.done(
        request, {"block": wild.put(1000), "offset": 1}, lens=[2**63 - 1]
    ),
    "an object of others that is not pinned": lambda wild, request, scene: wild.done(
        request, {"block": block_of(scene.refs[1]), "offset": 0}
    ),
    "two places for an output": lambda wild, request, _: wild.done(
        request, *2 * ({"block": wild.put(1000), "offset": 0, "tensor": 0},)
    ),
    "questions without an end whose answers it does not read": lambda wild, *_: ask_on(
        wild, Frame("Get", 1, 0, {"describe": True})
    ),
}


def test_a_worker_has_no_say_in_the_streams_of_others(scene):
    wild, request, answer = scene.busy()
    with scene.client.stream("parts-held", {"seed": number(3), "name": "s"}) as stream:
        check(next(stream)["x"], 3)
        # Tickets are counted: the next requests after its own are not hard to guess.
        sequence = request.id >> 20
        forged = [(sequence + more) << 20 | other for more in range(8) for other in range(8)]
        wild.send(*(Frame("Chunk", number, 0, {}) for number in forged if number != request.id))
        assert_gone({wild.pid})
        scene.served.allow("go-s")
        check(next(stream)["x"], 4)
        assert list(stream) == []
    answer.result(WATCHDOG_S)


def test_a_worker_that_breaks_a_rule_is_replaced_and_nobody_else_notices(scene):
    for breaks in BREAKS.values():
        wild, request, answer = scene.busy()
        scene.refs = {1: scene.refs.get(1) or make(scene.client, 1)}
        used = scene.served.metric(USED)
        breaks(wild, request, scene)
        assert_gone({wild.pid})
        answer.result(WATCHDOG_S)
        scene.is_untouched()
        comes_back(scene.served, int(used))


# === references ===


STALE = ("deleted", "expired", "evicted", "replaced and evicted", "of another store", "of a replica before", "never")


def test_a_stale_reference_is_not_found_whatever_has_become_of_its_object(replica, client, channel):
    first = replica(TARGET, *SMALL_STORE)
    before = client(first)
    stale = {"of a replica before": make(before, 1)}
    first.stop()
    served, other = replica(TARGET, *SMALL_STORE), replica(TARGET, *SMALL_STORE)
    one = client(served)
    stale["of another store"] = make(client(other), 1)
    stale["deleted"] = make(one, 1)
    assert drop(one, stale["deleted"])
    assert not drop(one, stale["deleted"])
    stale["expired"] = make(one, 1, ttl_s=0.001)
    stale["evicted"] = make(one, 1, cacheable=True)
    stale["replaced and evicted"] = make(one, 1, key="k")
    newer = make(one, 2, key="k")
    evict(one, 2)
    stale["never"] = ObjRef(f"objref:{stale['deleted'].store}-ffffffff-ffffffffffffffff")
    assert set(stale) == set(STALE)

    service = stub(channel(served.endpoint))
    for what, ref in stale.items():
        assert is_gone(one, ref), what
        error = refused(service.ModelInfer, passed(str(ref)), grpc.StatusCode.NOT_FOUND, "input 'x'", "'echo'")
        assert anyserve_code(error) == "NOT_FOUND", what
    read(one, newer, 2)
    assert one.infer("find", {"key": "k"})["seed"].tolist() == [2]


def evict(client: Client, count: int) -> None:
    """Make objects until so many others were evicted."""
    seeds = itertools.count(100)
    until(lambda: make(client, next(seeds)) and usage(client)["evicted"] == count, f"{count} evictions")


def passed(text: str, datatype: str = "BYTES", shape: tuple[int, ...] = (1,)) -> Any:
    """A request whose input is said to be a reference."""
    made = tensor("x", datatype, list(shape))
    made.parameters["objref"].bool_param = True
    data = text.encode()
    framed = (len(data).to_bytes(4, "little") + data) * (shape[0] if shape else 1)
    raw = framed if datatype == "BYTES" else bytes(shape[0])
    return infer("echo", made, tensor("seed", "INT64", [1]), raw=[raw, bytes(8)])


GOOD = "objref:0123456789abcdef-01234567-0123456789abcdef"


@pytest.mark.parametrize(
    "request_of",
    [
        *(lambda text=text: passed(text) for text in (
            "", "objref:", GOOD[:-1], GOOD + "0", GOOD.upper(), GOOD.replace("-0", "-+"), GOOD.replace("-", "_"),
            "file:///etc/passwd", "/dev/shm/anyserve", GOOD + "\0", "é" * 49, "x" * MIB,
        )),
        lambda: passed("x" * 8, "UINT8", (8,)),
        lambda: passed(GOOD, shape=(2,)),
        lambda: passed(GOOD, shape=(1, 1)),
    ],
)  # fmt: skip
def test_what_is_no_reference_is_invalid_and_its_input_is_named(shared, channel, request_of):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    error = refused(stub(channel(shared.endpoint)).ModelInfer, request_of(), invalid, "input 'x'", "'echo'")
    assert anyserve_code(error) == "INVALID_INPUT"
    assert len(error.details()) < 400


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Replica]:
    """A replica for tests that leave nothing behind."""
    with serving(tmp_path_factory.mktemp("shared") / "replica", TARGET, *SMALL_STORE) as served:
        yield served


# === /dev/shm ===


def test_a_store_larger_than_what_is_free_ends_the_start_with_the_fix():
    for size in ("1024TiB", "64TiB"):
        done = anyserve("serve", TARGET, "--port", "0", "--object-store", size)
        is_refused(done, size)


def is_refused(done: subprocess.CompletedProcess[str], what: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == 2, (what, said)
    assert all(part in said for part in ("/dev/shm has", "bytes left", "--object-store", "--shm-size")), (what, said)
    assert "Traceback" not in said


def in_small_shm(size: str, filled: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a replica in a /dev/shm of its own, of a size, so many bytes of which are taken."""
    fill = f"head -c {filled} /dev/zero > /dev/shm/others"
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && {fill} && exec "$@"'
    command = [BIN / "anyserve", "serve", TARGET, "--port", "0", *flags]
    return run("unshare", "--mount", "sh", "-c", script, "sh", *command)


def test_a_dev_shm_that_is_small_or_full_ends_the_start_with_the_fix():
    if run("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt").returncode:
        pytest.skip("mounts are not allowed here")
    is_refused(in_small_shm("16m", "0", "--object-store", "16MiB"), "small")
    is_refused(in_small_shm("16m", "9M", "--object-store", "8MiB"), "full")
    is_refused(in_small_shm("16m", "15M"), "full, and no size was given")
