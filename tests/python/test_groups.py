"""Worker classes and groups: what an app declares, and what it is told when that cannot be."""

import abc
import math
import sys

import numpy as np
import pytest

from anyserve import AnyServe, TensorSpec, Worker
from anyserve._isolation import LEAST_MEMORY
from anyserve.errors import StartError


class Plain(Worker):
    def handle(self, request): ...


def group_of(given: type = Plain, **options):
    """Declare a class with these options and hand back its group."""
    app = AnyServe()
    app.worker(**{"capabilities": [{"type": "t"}], **options})(given)
    (group,) = app.groups
    return group


def refusal(given: type = Plain, **options) -> str:
    app = AnyServe()
    with pytest.raises(StartError) as caught:
        app.worker(**{"capabilities": [{"type": "t"}], **options})(given)
    assert (app.handlers, app.groups) == ((), ())
    return str(caught.value)


def groups_of(*functions: dict):
    """Declare a function `f0`, `f1`, … with each of these options and hand back the groups."""
    app = AnyServe()
    for place, options in enumerate(functions):

        def function(request): ...

        function.__name__ = f"f{place}"
        app.capability(type=f"t{place}", **options)(function)
    return app.groups


# === groups ===


def test_a_class_is_a_group_of_its_name_with_a_row_for_each_capability():
    app = AnyServe()

    @app.worker(capabilities=[{"type": "chat", "model": "a"}, {"type": "chat", "model": "b"}], concurrency=64, gpus=2)
    class Chat(Worker):
        async def handle(self, request, context): ...

    (group,) = app.groups
    assert (group.name, group.make, group.gpus, group.workers, group.sleeps) == ("Chat", Chat, 2, (1, 1), False)
    assert [row.capability["model"] for row in group.handlers] == ["a", "b"]
    assert {(row.function, row.kind, row.takes, row.concurrency) for row in group.handlers} == {
        ("Chat.handle", "async", 2, 64)
    }
    assert app.handlers == group.handlers


def test_what_a_class_is_given_is_what_its_group_says():
    group = group_of(
        resources={"token": 2},
        min_workers=0,
        max_workers=2,
        idle_timeout_s=300,
        preload=["json", "os.path", "json"],
        memory_limit="2GiB",
        niceness=5,
        environment={"MODE": "fast"},
        python=sys.executable,
        start_timeout_s=9,
        warmup=[{"x": [1]}],
    )
    assert (group.resources, group.workers, group.idle_timeout_s) == ({"token": 2}, (0, 2), 300.0)
    assert (group.preload, group.memory_limit, group.niceness) == (("json", "os.path"), 2 << 30, 5)
    assert (group.environment, group.python, group.start_timeout_s) == ({"MODE": "fast"}, sys.executable, 9.0)
    assert group.warmup == ({"x": [1]},)


def test_functions_share_the_default_group_whose_workers_are_the_replicas_to_say():
    (group,) = groups_of({}, {"preload": ["json"]}, {"preload": ["json", "csv"], "gpus": 0, "resources": None})
    assert (group.name, len(group.handlers), group.make, group.workers) == ("default", 3, None, None)
    assert group.preload == ("json", "csv")


@pytest.mark.parametrize("option", [{"gpus": 1}, {"resources": {"token": 1}}, {"min_workers": 0}, {"max_workers": 2}])
def test_a_function_that_asks_for_workers_has_a_group_of_its_name(option):
    default, own = groups_of({}, option)
    assert (default.name, own.name, [row.function for row in own.handlers]) == ("default", "f1", ["f1"])
    assert own.workers is not None


def test_an_idle_timeout_alone_would_never_end_a_worker():
    app = AnyServe()
    with pytest.raises(StartError, match=r"idle_timeout_s=3 would never end a worker.*lower min_workers"):
        app.capability(type="t", idle_timeout_s=3)
    assert group_of(idle_timeout_s=3, min_workers=0).idle_timeout_s == 3.0
    assert group_of(min_workers=0, max_workers=9).idle_timeout_s is None, "without one they are kept"


def test_the_groups_stand_in_the_order_of_declaration():
    assert [group.name for group in groups_of({"gpus": 1}, {}, {"gpus": 2}, {})] == ["f0", "default", "f2"]


def test_one_function_with_several_capabilities_and_the_same_needs_is_one_group():
    app = AnyServe()

    @app.capability(type="a", gpus=1, preload=["json"])
    @app.capability(type="b", gpus=1)
    def function(request): ...

    (group,) = app.groups
    assert [row.capability["type"] for row in group.handlers] == ["b", "a"]
    with pytest.raises(StartError, match="two worker groups of the name 'function'"):
        app.capability(type="c", gpus=2)(function)


def test_two_groups_of_one_name_are_told():
    app = AnyServe()
    app.worker(capabilities=[{"type": "a"}])(Plain)
    with pytest.raises(StartError, match=r"two worker groups of the name 'Plain'.*give one of them another"):
        app.worker(capabilities=[{"type": "b"}])(Plain)

    def other(request): ...

    other.__name__ = "Plain"
    with pytest.raises(StartError, match="two worker groups"):
        app.capability(type="c", gpus=1)(other)
    assert len(app.handlers) == 1


def test_the_name_of_the_default_group_and_a_lambda_are_no_names():
    app = AnyServe()

    def default(request): ...

    with pytest.raises(StartError, match="'default' is the worker group of the other functions"):
        app.capability(type="a", gpus=1)(default)
    with pytest.raises(StartError, match="'<lambda>' is no name for a worker group"):
        app.capability(type="a", gpus=1)(lambda request: None)


def test_the_same_capability_in_two_groups_is_told():
    app = AnyServe()
    app.capability(type="a")(lambda request: None)
    with pytest.raises(StartError, match=r"is served by '<lambda>' and by 'Plain.handle'"):
        app.worker(capabilities=[{"type": "b"}, {"type": "a"}])(Plain)
    with pytest.raises(StartError, match=r"by 'Plain.handle' and by 'Plain.handle'"):
        app.worker(capabilities=[{"type": "c"}, {"type": "c"}])(Plain)
    assert [group.name for group in app.groups] == ["default"]


# === numbers ===


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({}, (1, 1)), ({"min_workers": 0}, (0, 1)), ({"min_workers": 3}, (3, 3)), ({"max_workers": 1024}, (1, 1024)),
        ({"min_workers": 1024}, (1024, 1024)), ({"min_workers": 2, "max_workers": 2}, (2, 2)),
    ],
)  # fmt: skip
def test_the_numbers_of_workers_that_are_not_given_follow_from_the_other(options, workers):
    assert group_of(**options).workers == workers


@pytest.mark.parametrize(
    ("name", "bad", "says"),
    [
        *(("gpus", bad, "whole number from 0 to 1024") for bad in (-1, 1025, 1.0, True, "1")),
        *(("min_workers", bad, "whole number from 0 to 1024") for bad in (-1, 1025, 0.5, False, "1")),
        *(("max_workers", bad, "whole number from 1 to 1024") for bad in (0, -1, 1025, 1.5, True)),
        *(("idle_timeout_s", bad, "seconds above 0") for bad in (0, -1, 604_801, math.nan, "9", True)),
        *(("start_timeout_s", bad, "seconds above 0") for bad in (0, -1, 604_801, math.inf)),
        *(("niceness", bad, "whole number from 0 to 19") for bad in (-1, 20, 1.0, True, None)),
        *(("resources", bad, "a dict from names to numbers") for bad in (["token"], "token", 3)),
        *(("resources", {"token": bad}, "whole number from 1 to 1024") for bad in (0, -1, 1025, 1.0, True, None)),
        *(("resources", {bad: 1}, "a name has up to 64") for bad in ("", "a b", "a=b", "-a", "x" * 65, 3, "é")),
        ("resources", {"gpu": 1}, "as in gpus=1"),
        *(("memory_limit", bad, "from 16 MiB on") for bad in (LEAST_MEMORY - 1, 2**63, 0, -1, 1e9, True, "1.5GiB")),
        *(("memory_limit", bad, "from 16 MiB on") for bad in ("", "GiB", "-1GiB", "2XiB", "2 GiB 1", "9999999TiB")),
        *(("environment", bad, "a dict of variables") for bad in (["A=b"], "A=b", 3)),
        *(("environment", {bad: "x"}, "a text without '=' and NUL") for bad in ("", "A=B", "A\0B", 3)),
        *(("environment", {"A": bad}, "a text without NUL") for bad in ("a\0b", 3, None)),
        ("environment", {"ANYSERVE_WORKER_TOKEN": "x"}, "are the runtime's"),
        *(("python", bad, "the path of an interpreter") for bad in ("", 3, "a\0b", True)),
        *(("python", bad, "there is no program at /") for bad in ("/nowhere/python", "/", __file__)),
        *(("preload", bad, "list of names of modules") for bad in ("torch", True, {"a"}, ["a b"], [3], [""], ["a..b"])),
        *(("warmup", bad, "a list of dicts of inputs") for bad in ({"x": 1}, "x", [1], 3)),
        ("warmup", [{"x": [1]}, {"x": object()}], "warmup[1]: input 'x'"),
        ("warmup", [{"x": {"data": [1], "datatype": "FP99"}}], "warmup[0]: input 'x' has the unknown datatype"),
        ("upgrade", "type=a", "must read 'key=value -> key=value'"),
        ("memory_limt", 1, "did you mean 'memory_limit'?"),
        ("max_worker", 1, "did you mean 'max_workers'?"),
        ("type", "chat", "keys stand in capabilities=[{'type': …}]"),
        ("stream", 1, "True or False"),
        ("max_delay_ms", 5, "there are no batches"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_told_with_the_fix(name, bad, says):
    message = refusal(**{name: bad})
    assert says in message
    assert name in message


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("gpus", 0), ("gpus", 1024), ("resources", {"token": 1024}), ("resources", {"x" * 64: 1}), ("resources", {}),
        ("niceness", 19), ("start_timeout_s", 604_800), ("preload", []), ("preload", ("a.b_c",)), ("warmup", []),
        ("environment", {"A": ""}), ("memory_limit", LEAST_MEMORY),
    ],
)  # fmt: skip
def test_the_ends_of_the_ranges_are_in_them(name, good):
    kept = getattr(group_of(**{name: good}), name)
    assert kept == (tuple(good) if isinstance(good, list) else good)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16777216", 1 << 24), ("16MiB", 1 << 24), ("64 mb", 1 << 26), ("1g", 1 << 30), ("2TiB", 2 << 40)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert group_of(memory_limit=text).memory_limit == size


def test_fewest_and_most_workers_are_told_with_both_numbers():
    assert "min_workers=3 is more than max_workers=2: raise max_workers to 3" in refusal(min_workers=3, max_workers=2)


def test_a_relative_interpreter_is_kept_with_its_link(tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert group_of(python="python").python == str(tmp_path / "python")


def test_gpus_and_their_variable_exclude_each_other():
    variables = {"CUDA_VISIBLE_DEVICES": "0"}
    assert group_of(environment=variables).environment == variables
    assert "which the runtime sets for gpus=1" in refusal(environment=variables, gpus=1)


# === warm-up ===

DECLARED = [TensorSpec("x", "FP32", [-1, 2])]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "input 'x' is declared and missing"),
        ({"x": [[1, 2]], "y": [1]}, "input 'y' is not declared; there are x"),
        ({"x": [1.0, 2.0]}, "input 'x' is FP32[2], declared is FP32[-1, 2]"),
        ({"x": [[1.0, 2.0, 3.0]]}, "input 'x' is FP32[1, 3], declared is FP32[-1, 2]"),
        ({"x": np.ones((1, 2))}, "input 'x' is FP64[1, 2]"),
        ({"x": "text"}, "input 'x' is BYTES[1]"),
    ],
)
def test_a_warm_up_that_does_not_fit_the_declared_inputs_is_told(entry, says):
    assert refusal(inputs=DECLARED, warmup=[entry]).startswith(f"warmup[0]: {says}")


def test_numbers_of_a_warm_up_follow_the_declared_datatype():
    assert group_of(inputs=DECLARED, warmup=[{"x": [[1, 2]]}]).warmup == ({"x": [[1, 2]]},)


# === classes ===


class Silent(Worker):
    pass


class Needy(Worker):
    def __init__(self, model): ...
    def handle(self, request): ...


class Unfinished(Worker, abc.ABC):
    def handle(self, request): ...
    @abc.abstractmethod
    def load(self): ...


class Asking(Plain):
    def on_start(self, model): ...


class Yielding(Plain):
    def on_start(self):
        yield 1


class Constant(Plain):
    on_stop = 3


class Sleeper(Plain):
    def on_sleep(self): ...


class Waker(Plain):
    def on_wake(self): ...


class Greedy(Worker):
    def handle(self, one, two, *, request): ...


class Listing(Worker):
    def handle(self, requests): ...


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (int, "'int' is no Worker: write `class int(Worker)`"),
        (lambda request: None, "app.worker decorates a class"),
        (Silent, "'Silent' has no handler: write `def handle(self, request): …`"),
        (Needy, "makes a Needy() without arguments, but: missing a required argument: 'model'"),
        (Unfinished, "'Unfinished' is abstract, so that no worker can make one: write load"),
        (Asking, "'Asking.on_start' is called without arguments, but: missing a required argument: 'model'"),
        (Yielding, "'Yielding.on_start' yields, so that calling it does nothing"),
        (Constant, "'Constant.on_stop' is 3: it is a method"),
        (Sleeper, "'Sleeper' has on_sleep and no on_wake: a worker that sleeps needs both; add on_wake"),
        (Waker, "'Waker' has on_wake and no on_sleep"),
        (Listing, "'Listing.handle' takes a list of requests: add max_batch_size=32"),
        (Greedy, "'Greedy.handle'"),
    ],
)
def test_a_class_that_no_worker_could_run_is_told_with_the_fix(given, says):
    assert says in refusal(given, inputs=[] if given is Greedy else None)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (None, 'app.worker takes a list with a dict of keys for each capability: capabilities=[{"type": "chat"}]'),
        ([], "not []"),
        ({"type": "t"}, "not {'type': 't'}"),
        (["t"], "not ['t']"),
        ([{}], "at least one key"),
        ([{"type": [1]}], "a key is set to a str, int, float or bool"),
        ([{"type": "t"}, {3: "t"}], "at least one character"),
        (Plain, 'write @app.worker(capabilities=[{"type": "chat"}]), not @app.worker'),
    ],
)
def test_the_capabilities_are_a_list_of_dicts(bad, says):
    assert says in refusal(capabilities=bad)


def test_a_class_that_overrides_both_hooks_sleeps():
    class Both(Sleeper):
        async def on_wake(self): ...

    class Heir(Both):
        pass

    assert group_of(Both).sleeps
    assert group_of(Heir).sleeps
    assert not group_of(Plain).sleeps


def test_a_handler_may_be_a_static_or_a_class_method_and_typed():
    class Static(Worker):
        @staticmethod
        def handle(x: np.ndarray): ...

    class Kind(Worker):
        @classmethod
        async def handle(cls, request, context): ...

    assert group_of(Static).handlers[0].takes == 1
    assert (group_of(Kind).handlers[0].kind, group_of(Kind).handlers[0].takes) == ("async", 2)


def test_the_class_is_handed_back_and_its_hooks_do_nothing_by_themselves():
    assert AnyServe().worker([{"type": "t"}])(Plain) is Plain
    made = Plain()
    assert [made.on_start(), made.on_sleep(), made.on_wake(), made.on_stop()] == [None] * 4


# === functions ===


@pytest.mark.parametrize(
    ("name", "bad"), [("gpus", -1), ("resources", {"a": 0}), ("preload", True), ("max_workers", 0)]
)
def test_a_function_is_told_as_a_class_is(name, bad):
    app = AnyServe()
    with pytest.raises(StartError, match=name):
        app.capability(type="t", **{name: bad})


def test_an_option_of_classes_is_no_option_of_functions():
    app = AnyServe()
    with pytest.raises(StartError, match=r"'warmup' is an option of @app.worker\(…\), for a class"):
        app.capability(type="t", warmup=[{"x": 1}])
    with pytest.warns(UserWarning, match="'memory_limit' is an option of @app.worker.*taken as a key"):
        app.capability(type="t", memory_limit="2GiB")(lambda request: None)
    assert app.handlers[0].capability == {"type": "t", "memory_limit": "2GiB"}
