"""What `app.capability` accepts, and what it says about the rest."""

import math

import pytest

from anyserve import AnyServe, TensorSpec
from anyserve.errors import StartError


def serve(**options):
    """Declare a plain handler with these options and hand back its row."""
    app = AnyServe()
    app.capability(**{"type": "t", **options})(lambda request: None)
    return app.handlers[0]


def serve_many(**options):
    """Declare a handler that takes a list with these options and hand back its row."""
    app = AnyServe()
    app.capability(**{"type": "t", **options})(lambda requests: None)
    return app.handlers[0]


def refusal(*positional, **options) -> str:
    app = AnyServe()
    with pytest.raises(StartError) as caught:
        app.capability(*positional, **options)(lambda request: None)
    assert app.handlers == ()
    return str(caught.value)


def test_options_are_carried_and_everything_else_is_the_capability():
    x, y = TensorSpec("x", "FP32", [-1]), TensorSpec("y", "FP32", [2])
    row = serve(
        model="m", heavy=True, size=7, share=0.5, inputs=[x], outputs=[y], concurrency=3, max_queue=9, timeout_s=2
    )
    assert row.capability == {"type": "t", "model": "m", "heavy": True, "size": 7, "share": 0.5}
    assert (row.inputs, row.outputs, row.concurrency, row.max_queue, row.timeout_s) == ([x], [y], 3, 9, 2.0)


def test_without_options_a_handler_runs_one_request_at_a_time_and_declares_nothing():
    row = serve()
    assert (row.inputs, row.outputs, row.stream, row.concurrency) == (None, None, False, 1)
    assert (row.max_queue, row.timeout_s, row.max_batch_size, row.max_delay_ms) == (None, None, 0, 0.0)
    assert (row.priority, row.idempotent, row.sequence) == (None, False, False)


def test_options_of_the_scheduler_are_carried():
    row = serve_many(max_batch_size=32, max_delay_ms=5, priority=2, idempotent=True)
    assert (row.max_batch_size, row.max_delay_ms, row.priority, row.idempotent) == (32, 5.0, 2, True)
    assert row.capability == {"type": "t"}
    assert serve(sequence=True, stream=False).sequence is True


def test_a_reserved_name_is_a_key_in_the_positional_dict():
    app = AnyServe()
    app.capability({"stream": "x", "gpus": 2}, type="t")(lambda request: None)
    assert app.handlers[0].capability == {"stream": "x", "gpus": 2, "type": "t"}
    assert app.handlers[0].stream is False


def test_decorators_stack_and_hand_the_function_back():
    app = AnyServe()

    @app.capability(type="a")
    @app.capability(type="b")
    def function(request):
        return request

    assert function(3) == 3
    assert [row.capability["type"] for row in app.handlers] == ["b", "a"]


@pytest.mark.parametrize("bad", [0, -1, 4097, 1.0, True, "2", None])
def test_concurrency_is_a_whole_number_from_1_to_4096(bad):
    assert f"concurrency={bad!r}" in refusal(type="t", concurrency=bad)


@pytest.mark.parametrize("good", [1, 4096])
def test_both_ends_of_the_range_of_concurrency_are_in_it(good):
    assert serve(concurrency=good).concurrency == good


@pytest.mark.parametrize("bad", [0, 2**32, "9", 1.5])
def test_max_queue_is_a_whole_number_of_at_least_1(bad):
    assert "max_queue" in refusal(type="t", max_queue=bad)


@pytest.mark.parametrize("bad", [0, -1, 604_801, math.inf, math.nan, "3", True])
def test_timeout_s_is_a_number_above_0_and_up_to_a_week(bad):
    assert "timeout_s" in refusal(type="t", timeout_s=bad)


@pytest.mark.parametrize("bad", [1, "yes", None])
@pytest.mark.parametrize("name", ["stream", "idempotent", "sequence"])
def test_a_switch_is_true_or_false(name, bad):
    assert refusal(type="t", **{name: bad}) == f"{name}={bad!r}: it is True or False"


@pytest.mark.parametrize("bad", [-1, 257, 1.0, 0.0, True, False, "32"])
def test_max_batch_size_is_a_whole_number_up_to_256(bad):
    message = refusal(type="t", max_batch_size=bad)
    assert message.startswith(
        f"max_batch_size={bad!r}: it is the number of requests that one call takes, from 1 to 256"
    )


@pytest.mark.parametrize("good", [1, 256])
def test_both_ends_of_the_range_of_max_batch_size_are_in_it(good):
    assert serve_many(max_batch_size=good).max_batch_size == good


@pytest.mark.parametrize("none", [None, 0])
def test_no_batch_size_is_a_handler_that_takes_one_request(none):
    assert serve(max_batch_size=none).max_batch_size == 0


@pytest.mark.parametrize("bad", [-0.1, 10_000.1, math.inf, math.nan, "5", True, None])
def test_max_delay_ms_is_a_number_up_to_ten_seconds(bad):
    message = refusal(type="t", max_batch_size=8, max_delay_ms=bad)
    assert message == f"max_delay_ms={bad!r}: it is a number of milliseconds from 0 to 10000"


@pytest.mark.parametrize("good", [0, 0.5, 10_000])
def test_both_ends_of_the_range_of_max_delay_ms_are_in_it(good):
    assert serve_many(max_batch_size=8, max_delay_ms=good).max_delay_ms == good


@pytest.mark.parametrize("bad", [0, 9, -1, 1.0, True, "1"])
def test_priority_is_a_level_from_1_to_8(bad):
    assert refusal(type="t", priority=bad) == f"priority={bad!r}: it is a whole number from 1 to 8"


@pytest.mark.parametrize("good", [None, 1, 8])
def test_both_ends_of_the_range_of_priority_are_in_it(good):
    assert serve(priority=good).priority == good


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_delay_ms": 5}, "max_delay_ms=5 is how long a batch may wait to fill, but there are no batches: add"),
        ({"max_batch_size": 0, "max_delay_ms": 0.5}, "max_delay_ms=0.5 is how long"),
        ({"max_batch_size": 8, "stream": True}, "max_batch_size=8 with stream=True: a batch is answered once"),
        ({"max_batch_size": 8, "sequence": True}, "max_batch_size=8 with sequence=True: the requests of a sequence"),
    ],
)
def test_options_that_exclude_each_other_are_refused_with_the_fix(options, says):
    message = refusal(type="t", **options)
    assert message.startswith(says)
    assert "leave" in message


@pytest.mark.parametrize("bad", ["x", [("x", "FP32", [1])], TensorSpec("x", "FP32", [1]), 3])
def test_inputs_are_a_list_of_specs(bad):
    assert "TensorSpec" in refusal(type="t", inputs=bad)


def test_a_spec_stands_once():
    spec = TensorSpec("x", "FP32", [1])
    assert "outputs declares 'x' twice" in refusal(type="t", outputs=[spec, spec])


RULE, OTHER, THIRD = "type=a -> type=b", "type=c -> type=d,size=big", "type=e -> type=f"


def rules_of(app: AnyServe) -> list[tuple[str, ...]]:
    return [group.upgrades for group in app.groups]


@pytest.mark.parametrize("given", [RULE, [RULE], (RULE,), {"type=a": "type=b"}], ids=["text", "list", "tuple", "dict"])
def test_an_upgrade_is_a_rule_some_rules_or_a_dict(given):
    app = AnyServe()
    app.capability(type="t", upgrade=given)(lambda request: None)
    assert rules_of(app) == [(RULE,)]


def test_rules_of_functions_that_share_workers_add_up_and_the_apps_own_come_last():
    app = AnyServe(upgrade=[THIRD, RULE])
    app.capability(type="t", upgrade=[RULE, OTHER])(lambda request: None)
    app.capability(type="u", upgrade=OTHER)(lambda request: None)

    @app.capability(type="v", min_workers=1, upgrade=RULE)
    def own(request):
        return None

    assert rules_of(app) == [(RULE, OTHER), (RULE, THIRD)]
    assert AnyServe(upgrade=RULE).groups == ()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("type=a", "must read 'key=value -> key=value'"),
        ({"type=a": "type=a"}, "leads to where it starts"),
        (["type>1 -> type=a"], "only key=value is allowed"),
        ("type= -> type=b", "one side of an upgrade is no list of key=value: "),
        ({"type=a": {"type": "b"}}, "a list of such rules, or a dict such as"),
        ([3], "a list of such rules"),
        (True, "'type=a -> type=b'"),
        ([f"type=a -> type=b{number}" for number in range(65)], "65 upgrades are given, at most 64 are allowed"),
    ],
)
def test_an_upgrade_that_is_none_is_told_with_what_it_should_be(bad, says):
    assert says in refusal(type="t", upgrade=bad)
    with pytest.raises(StartError, match="upgrade="):
        AnyServe(upgrade=bad)


def test_all_rules_of_an_app_together_are_counted():
    app = AnyServe(upgrade=[f"type=a -> type={number}" for number in range(63)])
    app.capability(type="t", upgrade=RULE)(lambda request: None)
    app.capability(type="u", upgrade=RULE)(lambda request: None)
    with pytest.raises(StartError, match="65 upgrades are given, at most 64"):
        app.capability(type="v", upgrade=OTHER)(lambda request: None)


def test_a_key_named_upgrade_stands_in_the_dict():
    app = AnyServe()
    app.capability({"upgrade": "x"})(lambda request: None)
    assert app.handlers[0].capability == {"upgrade": "x"}


def test_a_misspelt_option_whose_value_no_key_can_have_is_an_error():
    assert "did you mean 'inputs'?" in refusal(type="t", imputs=[])


def test_a_misspelt_option_that_could_be_a_key_is_one_with_a_warning():
    with pytest.warns(UserWarning, match="'concurency' is taken as a key.*'concurrency'"):
        assert serve(concurency=4).capability == {"type": "t", "concurency": 4}


@pytest.mark.parametrize("bad", [None, [1], {"a": 1}, b"x", object()])
def test_a_key_is_set_to_text_a_number_or_a_truth(bad):
    assert "a key is set to a str, int, float or bool" in refusal(type=bad)


@pytest.mark.parametrize(("bad", "why"), [(math.nan, "finite"), (2**63, "64 bits"), (-(2**63) - 1, "64 bits")])
def test_a_number_of_a_key_is_finite_and_fits(bad, why):
    assert why in refusal(type=bad)


def test_the_largest_integers_fit():
    assert serve(low=-(2**63), high=2**63 - 1).capability["high"] == 2**63 - 1


@pytest.mark.parametrize("keys", [None, {}])
def test_a_capability_has_a_key(keys):
    assert "at least one key" in refusal(keys, stream=False)


@pytest.mark.parametrize("bad", ["", 3, None])
def test_a_key_is_a_text(bad):
    assert "at least one character" in refusal({bad: "x"})


def test_a_key_stands_once():
    assert "'type' stands in the dict and in the keywords" in refusal({"type": "a"}, type="b")


def test_the_decorator_without_parentheses_says_what_is_missing():
    app = AnyServe()
    with pytest.raises(StartError, match="the decorator needs the capability"):
        app.capability(lambda request: None)


def test_what_stands_in_front_is_a_dict():
    assert "is a dict of capability keys, not 'echo'" in refusal("echo")


def test_the_same_capability_twice_is_an_error_that_names_both_functions():
    app = AnyServe()

    @app.capability(type="a", size=1)
    def first(request): ...

    with pytest.raises(StartError, match="is served by 'first' and by 'second'"):

        @app.capability(size=1.0, type="a")
        def second(request): ...

    app.capability(type="a", size=True)(first)  # A query tells true from 1.
    app.capability(type="a", size="1")(first)
    assert len(app.handlers) == 3


def test_what_serves_a_capability_can_be_called():
    with pytest.raises(StartError, match="not by 3"):
        AnyServe().capability(type="t")(3)


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (("", "FP32", [1]), ValueError),
        (("x", "fp32", [1]), ValueError),
        (("x", "FP32", [-2]), ValueError),
        (("x", "FP32", [1.0]), TypeError),
        (("x", "FP32", [True]), TypeError),
    ],
)
def test_a_spec_that_no_tensor_can_have_is_refused(spec, error):
    with pytest.raises(error):
        TensorSpec(*spec)
