"""References: as values, in tensors, as inputs and results of a client, and in handlers."""

import copy
import pickle

import numpy as np
import pytest

from anyserve import (
    AnyServe,
    Contents,
    InferInput,
    ModelInferRequest,
    ModelInferResponse,
    ObjRef,
    TensorSpec,
)
from anyserve._inputs import tensor
from anyserve._results import InferResult
from anyserve.cli.values import shown
from anyserve.errors import Internal, InvalidInput, StartError

TEXT = "objref:0123456789abcdef-01234567-89abcdef01234567"
OTHER = "objref:0123456789abcdef-01234567-89abcdef01234568"
REF = ObjRef(TEXT)
FRAMED = len(TEXT).to_bytes(4, "little") + TEXT.encode()


def resolved(name: str = "x") -> InferInput:
    """What the runtime makes of a reference to an array."""
    return InferInput(name, np.float32([1, 2]), parameters={"objref": TEXT})


def marked(value: object, mark: object = True) -> InferInput:
    return InferInput("x", value, parameters={"objref": mark})


def call(function, *inputs: InferInput, **options):
    """The response of a handler to these inputs."""
    app = AnyServe()
    app.capability(type="t", **options)(function)
    return app.handlers[0].call(ModelInferRequest("m", list(inputs)))


# === the value ===


def test_a_reference_is_its_text():
    assert (str(REF), repr(REF), REF.store) == (TEXT, f"ObjRef('{TEXT}')", "0123456789abcdef")
    assert eval(repr(REF)) == REF
    same, other = ObjRef(TEXT), ObjRef(OTHER)
    assert (same == REF, other == REF, same == TEXT) == (True, False, False)
    assert (same != REF, other != REF) == (False, True)
    assert {REF: 1}[ObjRef(TEXT)] == 1
    assert len({REF, ObjRef(TEXT), ObjRef(OTHER)}) == 2


def test_a_reference_survives_pickle_and_copy():
    assert pickle.loads(pickle.dumps(REF)) == REF
    assert copy.deepcopy([REF]) == [REF]


def test_a_reference_cannot_be_changed():
    with pytest.raises(AttributeError):
        REF.store = "f" * 16
    with pytest.raises(AttributeError):
        REF.more = 1


@pytest.mark.parametrize(
    "text",
    ["", "objref:", TEXT[1:], TEXT[:-1], TEXT + "0", TEXT.upper(), TEXT.replace("-", "_"), TEXT + "\n", "x" * 999],
)
def test_a_text_that_is_nearly_a_reference_is_refused(text):
    with pytest.raises(InvalidInput, match="is no object reference"):
        ObjRef(text)


@pytest.mark.parametrize("text", [None, 5, TEXT.encode(), REF])
def test_a_reference_is_made_of_a_text(text):
    with pytest.raises(TypeError):
        ObjRef(text)


# === in tensors ===


def test_a_reference_is_bytes_with_one_element_and_a_mark():
    given = {"more": 1, "objref": False}
    output = ModelInferResponse().add_output("y", REF, parameters=given)
    for one in (InferInput("y", REF, parameters=given), output, ModelInferResponse().add_output("y", REF)):
        assert (one.datatype, one.shape, one.contents.raw, one.objref) == ("BYTES", [1], FRAMED, REF)
        assert one.parameters["objref"] is True
    assert output.parameters == {"more": 1, "objref": True}
    assert given == {"more": 1, "objref": False}


def test_a_reference_has_its_own_datatype_and_shape():
    response = ModelInferResponse()
    assert response.add_output("y", REF, datatype="BYTES").objref == REF
    for make, error in ((lambda **more: response.add_output("z", REF, **more), ValueError),
                        (lambda **more: InferInput("z", REF, **more), InvalidInput)):  # fmt: skip
        with pytest.raises(error, match="'z' is a reference, which is BYTES and not FP32"):
            make(datatype="FP32")
        with pytest.raises(error, match="'z' is given as an array"):
            make(shape=[1])
    assert [output.name for output in response.outputs] == ["y"]


def test_a_tensor_without_the_mark_is_no_reference():
    text = np.array([TEXT], object)
    assert InferInput("x", text).objref is None
    assert marked(text, mark=False).objref is None
    assert ModelInferResponse().add_output("y", text).objref is None


def test_what_a_reference_was_resolved_to_knows_the_reference():
    assert resolved().objref == REF
    assert resolved().as_numpy().tolist() == [1.0, 2.0]
    output = ModelInferResponse().add_output("y", np.zeros(1), parameters={"objref": TEXT})
    assert output.objref == REF


@pytest.mark.parametrize(
    ("value", "mark", "says"),
    [
        (np.zeros(3, np.float32), True, r"FP32 with shape \[3\]: it takes BYTES with \[1\]"),
        (np.array([TEXT, TEXT], object), True, r"BYTES with shape \[2\]"),
        (np.array([[TEXT]], object), True, r"BYTES with shape \[1, 1\]"),
        (np.array([], object), True, r"BYTES with shape \[0\]"),
        (np.array(["nearly"], object), True, "is no reference: 'nearly'"),
        (np.array([b"\xff\xfe"], object), True, "is no reference"),
        (np.zeros(1), "nearly", "is no reference: 'nearly'"),
        (np.array([TEXT], object), 1, "a number as its parameter objref"),
        (np.array([TEXT], object), 1.5, "a number as its parameter objref"),
    ],
)
def test_a_mark_without_a_reference_is_a_mistake(value, mark, says):
    with pytest.raises(InvalidInput, match=f"input 'x' .*{says}"):
        _ = marked(value, mark).objref
    output = ModelInferResponse().add_output("y", value, parameters={"objref": mark})
    with pytest.raises(ValueError, match=f"output 'y' .*{says}"):
        _ = output.objref


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x02\0\0\0a", bytes(4)])
def test_contents_that_were_changed_to_something_else_are_no_reference(raw):
    output = ModelInferResponse().add_output("y", REF)
    output.contents = Contents(raw=raw)
    with pytest.raises(ValueError, match="output 'y'"):
        _ = output.objref


def test_the_mark_is_read_when_it_is_asked_for():
    given = InferInput("x", np.array([TEXT], object))
    assert given.objref is None
    given.parameters["objref"] = True
    assert given.objref == REF
    given.parameters.clear()
    assert given.objref is None


# === a client's inputs and results ===


@pytest.mark.parametrize("value", [REF, {"data": REF}, {"data": REF, "parameters": {"objref": False}}])
def test_a_reference_is_one_input(value):
    made = tensor("x", value)
    assert (made.datatype, made.shape, made.data, made.parameters) == ("BYTES", (1,), [TEXT], {"objref": True})
    assert made.as_declared("FP32") is made


def test_a_reference_keeps_the_parameters_that_it_is_given():
    assert tensor("x", {"data": REF, "parameters": {"a": 1}}).parameters == {"a": 1, "objref": True}
    assert tensor("x", InferInput("x", REF)).parameters == {"objref": True}


@pytest.mark.parametrize("more", [{"datatype": "FP32"}, {"datatype": "BYTES"}, {"shape": [1]}])
def test_a_reference_with_a_datatype_or_a_shape_is_refused(more):
    with pytest.raises(InvalidInput, match="input 'x' is a reference: datatype and shape are those of its object"):
        tensor("x", {"data": REF, **more})


@pytest.mark.parametrize(("value", "place"), [([REF], 0), ([REF, REF], 0), ((REF,), 0), ([[REF], [REF]], 0),
                                              (["a", REF], 1), (np.array([b"", REF], object), 1)])  # fmt: skip
def test_references_in_a_list_are_refused_and_why(value, place):
    for given in (value, {"data": value}):
        with pytest.raises(InvalidInput, match=f"'x' has a reference as element {place}: .* a whole input; give each"):
            tensor("x", given)


def result(value, **parameters) -> InferResult:
    response = ModelInferResponse()
    response.add_output("x", value, parameters=parameters or None)
    return InferResult(response)


def test_a_result_has_the_reference_and_the_response_the_tensor():
    made = result(REF)
    assert made["x"] == REF
    assert dict(made) == {"x": REF}
    assert made.response.output("x").as_numpy().tolist() == [TEXT.encode()]
    assert shown(made, as_json=True) == f'{{"x": "{TEXT}"}}'


def test_a_result_that_was_resolved_has_the_array():
    for mark in (TEXT, "of another server's making", 5, False):
        assert result(np.arange(2), objref=mark)["x"].tolist() == [0, 1]
    assert result(np.arange(2), objref=TEXT).response.output("x").objref == REF


def test_an_answer_that_says_it_is_a_reference_and_is_none_breaks_the_protocol():
    with pytest.raises(Internal, match=r"the answer breaks the protocol: output 'x' .*BYTES"):
        _ = result(np.arange(2), objref=True)["x"]


# === handlers ===


def test_a_typed_handler_gets_the_array_of_a_reference_and_the_reference_to_what_is_none():
    seen = []
    for function in (lambda x: seen.append(x) or 1, lambda **inputs: seen.append(inputs["x"]) or 1):
        call(function, resolved())
        call(function, InferInput("x", REF))
    assert [one.tolist() for one in seen[::2]] == [[1.0, 2.0]] * 2
    assert seen[1::2] == [REF] * 2


def test_a_parameter_of_type_objref_gets_the_reference_either_way():
    def handler(x: ObjRef):
        return {"y": x}

    for given in (resolved(), InferInput("x", REF)):
        assert call(handler, given).output("y").objref == REF
    with pytest.raises(InvalidInput, match="input 'x' is a FP64 tensor, expected a reference to an object"):
        call(handler, InferInput("x", np.zeros(1)))


def test_an_array_or_a_reference_is_a_type_as_well():
    def either(x: np.ndarray | ObjRef):
        return {"y": x}

    def or_none(x: ObjRef | None = None):
        return {"y": np.zeros(1) if x is None else x}

    def by_text(x: "np.ndarray | ObjRef"):
        return {"y": x}

    for handler in (either, by_text):
        assert call(handler, resolved()).output("y").as_numpy().tolist() == [1.0, 2.0]
        assert call(handler, InferInput("x", REF)).output("y").objref == REF
    assert call(or_none, InferInput("x", REF)).output("y").objref == REF
    assert call(or_none).output("y").objref is None


def test_references_in_other_types_are_refused_when_the_app_is_loaded():
    def listed(x: list[ObjRef]): ...
    def number(x: int | ObjRef): ...

    for handler in (listed, number):
        with pytest.raises(StartError, match="ObjRef, or take the request"):
            AnyServe().capability(type="t")(handler)


def test_a_reference_to_what_is_no_array_is_neither_a_text_nor_a_number():
    def text(x: str): ...
    def number(x: int): ...
    def texts(x: list[str]): ...

    for handler in (text, number, texts):
        with pytest.raises(InvalidInput, match="input 'x' is a reference to an object that is no array"):
            call(handler, InferInput("x", REF))


def test_a_resolved_reference_to_a_text_is_read_as_any_text():
    def text(x: str):
        return {"y": x + "!"}

    given = InferInput("x", np.array(["é"], object), parameters={"objref": TEXT})
    assert call(text, given).output("y").as_numpy().tolist() == ["é!".encode()]


def test_a_handler_that_takes_the_request_sees_both():
    seen = []

    def handler(request):
        seen.extend((one.objref, one.datatype) for one in request.inputs)

    call(handler, resolved("a"), InferInput("b", REF), InferInput("c", np.zeros(1)))
    assert seen == [(REF, "FP32"), (REF, "BYTES"), (None, "FP64")]


@pytest.mark.parametrize("shape", [[1], [-1]])
def test_a_handler_answers_with_a_reference(shape):
    declared = [TensorSpec("ref", "BYTES", shape)]
    for answer, options in ((lambda x: {"ref": REF}, {}), (lambda x: {"ref": REF}, {"outputs": declared}),
                            (lambda x: REF, {"outputs": declared})):  # fmt: skip
        assert call(answer, resolved(), **options).output("ref").objref == REF
    assert call(lambda x: REF, resolved()).output("output").objref == REF


@pytest.mark.parametrize(("datatype", "shape"), [("FP32", [1]), ("BYTES", [2]), ("BYTES", [1, 1]), ("BYTES", [])])
def test_a_reference_where_something_else_is_declared_is_the_handlers_mistake(datatype, shape):
    with pytest.raises(TypeError, match=r"'y' as a reference, but declares .*TensorSpec\('y', \"BYTES\", \[1\]\)"):
        call(lambda x: {"y": REF}, resolved(), outputs=[TensorSpec("y", datatype, shape)])


def test_a_list_of_references_is_no_output():
    with pytest.raises(TypeError, match="no array can be made of list"):
        call(lambda x: {"y": [REF]}, resolved())
