"""From a function to the shape in which the worker's loop calls it."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyserve import AnyServe, Context, ModelInferRequest, ModelInferResponse, Stream, TensorSpec
from anyserve.errors import InvalidInput, StartError
from anyserve.handlers import to_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as elsewhere  # noqa: ICN001 - a name that does not exist when the annotations are read.


def row(function, **options):
    app = AnyServe()
    app.capability(type="t", **options)(function)
    return app.handlers[0]


def refusal(function, **options) -> str:
    with pytest.raises(StartError) as caught:
        row(function, **options)
    return str(caught.value)


def outputs(response: ModelInferResponse) -> dict[str, list]:
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


class Sent:
    """A stream that keeps what is sent."""

    def __init__(self):
        self.responses = []

    def send(self, response):
        self.responses.append(response)

    async def asend(self, response):
        self.responses.append(response)


def echo(request): ...
def echo_annotated(anything: ModelInferRequest) -> ModelInferResponse: ...
def echo_any(request: Any): ...
def with_context(request, context): ...
def with_ctx(req: ModelInferRequest, c: Context): ...
def with_default_context(request, context=None): ...
def with_own_default(request, temperature=1.0, *, top_k=4): ...
def with_rest(request, *args, **kwargs): ...


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (echo, 1), (echo_annotated, 1), (echo_any, 1), (with_context, 2), (with_ctx, 2), (with_default_context, 2),
        (with_own_default, 1), (with_rest, 1), (lambda _request, _context: None, 2),
    ],
)  # fmt: skip
def test_a_handler_that_takes_the_request_is_called_as_it_is(function, takes):
    made = row(function)
    assert (made.call, made.takes, made.kind) == (function, takes, "sync")


def generator(request):
    yield request


async def coroutine(request):
    return request


async def async_generator(request, context):
    yield request


def sender(request, context, stream): ...
async def async_sender(request, context: Context, out: Stream): ...


@pytest.mark.parametrize(
    ("function", "kind", "takes", "stream"),
    [
        (generator, "generator", 1, True),
        (coroutine, "async", 1, False),
        (async_generator, "async_generator", 2, True),
        (sender, "sync", 3, True),
        (async_sender, "async", 3, True),
    ],
)
def test_how_a_function_answers_is_read_off_it(function, kind, takes, stream):
    made = row(function, stream=stream)
    assert (made.call, made.kind, made.takes, made.stream) == (function, kind, takes, stream)


class Model:
    def handle(self, request, context): ...

    def batched(self, requests, contexts): ...

    async def __call__(self, request):
        return request


class Unreadable:
    __signature__ = "none"

    def __call__(self, request): ...


def test_methods_partials_and_callable_objects_are_functions():
    model = Model()
    assert (row(model.handle).takes, row(model.handle).function) == (2, "handle")
    assert (row(model).kind, row(model).function) == ("async", "Model")
    bound = functools.partial(with_own_default, temperature=0.5)
    assert (row(bound).takes, row(bound).function) == (1, "with_own_default")
    assert row(functools.partial(generator), stream=True).kind == "generator"


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (generator, {}, "add stream=True"),
        (async_generator, {}, "add stream=True"),
        (sender, {}, "add stream=True"),
        (echo, {"stream": True}, "neither yields nor takes"),
        (coroutine, {"stream": True}, "neither yields nor takes"),
        (lambda request, stream: None, {"stream": True}, r"takes \(request, stream\), but"),
        (lambda request, a, b, c: None, {}, "give any further parameter a default"),
        (lambda request, *, top_k: None, {}, "give any further parameter a default"),
        (lambda requests: None, {}, "add max_batch_size=32, or as many as one call may take"),
        (echo, {"max_batch_size": 8}, "'echo' takes one request, but with max_batch_size=8 it is given a list"),
        (echo_annotated, {"max_batch_size": 8}, "takes one request, but with max_batch_size=8"),
        (lambda a, b: None, {"max_batch_size": 8}, "takes its inputs by name, but with max_batch_size=8"),
        (lambda: None, {"max_batch_size": 8}, "write `requests: list\\[ModelInferRequest\\]` as its first parameter"),
        (lambda requests, contexts, stream: None, {"max_batch_size": 8}, r"\(requests, contexts\), both lists"),
        (lambda requests, *, top_k: None, {"max_batch_size": 8}, "give any further parameter a default"),
        (Model.batched, {"max_batch_size": 8}, "method without its object"),
        (Model.handle, {}, "method without its object"),
        (Model, {}, "is a class"),
        (lambda: None, {}, "takes no input"),
        (lambda *args: None, {}, "which no input can be given to by name"),
        (lambda a, /: None, {}, "which no input can be given to by name"),
        (Unreadable(), {}, "cannot be read"),
    ],
)
def test_a_signature_that_cannot_be_called_is_refused_with_the_fix(function, options, says):
    with pytest.raises(StartError, match=says):
        row(function, **options)


def test_a_generator_that_takes_a_stream_has_to_choose():
    def both(request, context, stream):
        yield request

    assert "do one of the two" in refusal(both, stream=True)


def many_typed(many: list[ModelInferRequest]) -> list[ModelInferResponse]: ...
def many_in_sequence(many: Sequence[ModelInferRequest], known: Sequence[Context]): ...
def many_named(requests): ...
def many_in_a_list(requests: list): ...
def many_with_contexts(requests, contexts): ...
def many_with_default_contexts(requests, contexts: list[Context] | None = None): ...
def many_with_own_default(requests, temperature=1.0, *, top_k=4): ...
async def many_later(requests: list[ModelInferRequest], contexts): ...


@pytest.mark.parametrize(
    ("function", "kind", "takes"),
    [
        (many_typed, "sync", 1), (many_in_sequence, "sync", 2), (many_named, "sync", 1), (many_in_a_list, "sync", 1),
        (many_with_contexts, "sync", 2), (many_with_default_contexts, "sync", 2), (many_with_own_default, "sync", 1),
        (many_later, "async", 2), (Model().batched, "sync", 2),
    ],
)  # fmt: skip
def test_a_handler_with_batches_takes_lists(function, kind, takes):
    made = row(function, max_batch_size=8)
    assert (made.call, made.kind, made.takes, made.max_batch_size) == (function, kind, takes, 8)


@pytest.mark.parametrize("function", [many_typed, many_named, many_in_a_list, many_with_contexts, many_later])
def test_a_list_of_requests_needs_a_batch_size(function):
    assert f"{function.__name__!r} takes a list of requests: add max_batch_size=32" in refusal(function)


def test_one_request_may_be_called_requests_if_its_type_says_so():
    def one(requests: ModelInferRequest): ...

    assert row(one).takes == 1
    assert "takes one request" in refusal(one, max_batch_size=8)


def test_a_list_of_another_type_is_an_input_by_name():
    def numbers(requests: list[float]): ...

    assert row(numbers).call is not numbers
    assert "takes its inputs by name" in refusal(numbers, max_batch_size=8)


def test_one_context_for_many_requests_is_refused():
    def wrong(requests: list[ModelInferRequest], context: Context): ...

    assert "called with (requests) or (requests, contexts), both lists" in refusal(wrong, max_batch_size=8)


def test_a_generator_cannot_answer_a_batch():
    def yields(requests):
        yield requests

    assert "'yields' yields, but with max_batch_size=8 it answers its requests all at once" in refusal(
        yields, max_batch_size=8
    )


def test_a_second_parameter_of_another_type_is_no_context():
    def wrong(request: ModelInferRequest, image: np.ndarray): ...

    assert "give any further parameter a default" in refusal(wrong)


def test_inputs_are_read_by_name_and_outputs_made_of_the_dict(make_request):
    def add(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
        return {"sum": a + b}

    response = row(add).call(make_request(b=[10.0, 20.0], a=[1.0, 2.0]))
    assert (response.model_name, response.id) == ("m", "7")
    assert outputs(response) == {"sum": [11.0, 22.0]}


def test_annotations_that_only_a_type_checker_can_read_are_read_as_text(make_request):
    def double(x: elsewhere.typing.NDArray[elsewhere.float32], factor: int | None = None):
        return {"y": x * (factor or 2)}

    call = row(double).call
    assert outputs(call(make_request(x=[1.0]))) == {"y": [2.0]}
    assert outputs(call(make_request(x=[1.0], factor=[3]))) == {"y": [3.0]}


def test_single_elements_and_lists_come_as_pythons_own_types(make_request):
    def describe(text: str, raw: bytes, n: int, x: float, flag: bool, words: list[str]) -> dict[str, list]:
        assert (raw, n, x, flag) == (b"\xff", 3, 0.5, True)
        assert [type(one) for one in (n, x, flag)] == [int, float, bool]
        return {"text": text + "!", "words": [*words, "end"]}

    made = make_request(text=["é".encode()], raw=[b"\xff"], n=[3], x=[0.5], flag=[True], words=[b"a", b"b"])
    assert outputs(row(describe).call(made)) == {"text": ["é!".encode()], "words": [b"a", b"b", b"end"]}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([1, 2], "input 'n' has 2 elements, expected one int"),
        ([1.5], "input 'n' has datatype FP64, which is no int"),
        ([b"1"], "input 'n' has datatype BYTES, which is no int"),
        ([True], "input 'n' has datatype BOOL, which is no int"),
    ],
)
def test_an_element_of_another_type_is_invalid_input(make_request, value, says):
    def count(n: int): ...

    with pytest.raises(InvalidInput, match=says):
        row(count).call(make_request(n=value))


def test_text_that_is_not_utf_8_is_invalid_input(make_request):
    def read(text: str): ...

    with pytest.raises(InvalidInput, match="input 'text' is not UTF-8"):
        row(read).call(make_request(text=[b"\xff"]))


def test_a_missing_input_is_named_and_one_with_a_default_may_be_missing(make_request):
    def scale(x, factor=None):
        return {"y": x if factor is None else x * factor}

    call = row(scale).call
    with pytest.raises(InvalidInput, match="input 'x' is missing: 'scale' takes x, factor"):
        call(make_request(factor=[2.0]))
    with pytest.raises(InvalidInput, match="unexpected input 'z': 'scale' takes x, factor"):
        call(make_request(x=[1.0], z=[2.0]))
    assert outputs(call(make_request(x=[1.5]))) == {"y": [1.5]}


def test_any_further_input_goes_to_the_double_star_but_never_to_what_a_partial_fixed(make_request):
    def collect(model, a, context, **rest):
        assert (model, context) == ("fixed", "the context")
        return {"names": sorted(rest)}

    made = row(functools.partial(collect, model="fixed"))
    assert made.takes == 2
    assert outputs(made.call(make_request(a=[1], c=[1], b=[1]), "the context")) == {"names": [b"b", b"c"]}
    for closed in ("model", "context"):
        with pytest.raises(InvalidInput, match=f"unexpected input '{closed}'"):
            made.call(make_request(**{"a": [1], closed: [2]}), "the context")


def test_a_context_is_passed_wherever_it_stands(make_request):
    def first(context, x):
        return {"y": [context]}

    def by_type(x, where: Context):
        return {"y": [where]}

    for function in (first, by_type):
        made = row(function)
        assert made.takes == 2
        assert outputs(made.call(make_request(x=[1.0]), "c")) == {"y": [b"c"]}


def test_typed_coroutines_generators_and_senders_answer_in_their_own_way(make_request):
    async def later(x):
        return {"y": x}

    def words(text: str):
        for word in text.split():
            yield {"word": word}

    async def words_later(text: str):
        for word in text.split():
            yield {"word": word}

    def send_words(text: str, stream):
        for word in text.split():
            stream.send({"word": word})

    async def send_words_later(text: str, stream: Stream):
        for word in text.split():
            await stream.asend({"word": word})

    async def collect(answers):
        return [outputs(one) async for one in answers]

    asked, two = make_request(text=[b"a b"]), [{"word": [b"a"]}, {"word": [b"b"]}]
    assert outputs(asyncio.run(row(later).call(make_request(x=[1.0])))) == {"y": [1.0]}
    assert [outputs(one) for one in row(words, stream=True).call(asked)] == two
    assert asyncio.run(collect(row(words_later, stream=True).call(asked))) == two
    sent = Sent()
    row(send_words, stream=True).call(asked, None, sent)
    assert [outputs(one) for one in sent.responses] == two
    sent = Sent()
    asyncio.run(row(send_words_later, stream=True).call(asked, None, sent))
    assert [outputs(one) for one in sent.responses] == two


def test_closing_a_typed_generator_closes_the_users(make_request):
    closed = []

    def endless(x):
        try:
            while True:
                yield {"y": x}
        finally:
            closed.append(True)

    answers = row(endless, stream=True).call(make_request(x=[1.0]))
    next(answers)
    answers.close()
    assert closed == [True]


A, B = TensorSpec("a", "FP32", [-1]), TensorSpec("b", "FP32", [-1])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda a: None, "inputs=.* declares 'b', but .* has no parameter"),
        (lambda a, b, c: None, "takes 'c', which inputs=.* does not declare"),
        (lambda a, b=None: None, "'b' has a default"),
    ],
)
def test_parameters_and_declared_inputs_agree(function, says):
    with pytest.raises(StartError, match=says):
        row(function, inputs=[A, B])


def test_declared_inputs_may_leave_parameters_with_defaults_alone(make_request):
    def join(a, scale=2.0, **rest):
        return {"y": [scale, float(len(rest))]}

    assert outputs(row(join, inputs=[A, B]).call(make_request(a=[1.0], b=[2.0]))) == {"y": [2.0, 1.0]}


def test_a_handler_without_inputs_says_so_by_declaring_none(make_request):
    assert outputs(row(lambda: {"y": [1]}, inputs=[]).call(make_request())) == {"y": [1]}


def test_a_parameter_of_a_type_that_no_input_has_is_refused_unless_it_has_a_default(make_request):
    def needs(x: np.ndarray, model: Model): ...

    def has(x: np.ndarray, model: Model | None = None):
        return {"y": x}

    assert "the parameter 'model' of 'needs' has the type 'Model'" in refusal(needs)
    with pytest.raises(InvalidInput, match="unexpected input 'model'"):
        row(has).call(make_request(x=[1.0], model=[2.0]))


def test_to_response_takes_a_response_or_a_dict_and_nothing_else(make_request):
    request, response = make_request(), ModelInferResponse(model_name="m")
    assert to_response(response, request) is response
    assert outputs(to_response({"y": np.array([1.0])}, request)) == {"y": [1.0]}
    for wrong in (None, 3, [1.0], np.zeros(1)):
        with pytest.raises(TypeError, match="return a ModelInferResponse, or a dict"):
            to_response(wrong, request)
