"""The exceptions and the closed set of codes agree."""

import inspect

from anyserve import _core, errors


def test_every_code_of_the_runtime_has_its_exception_and_no_exception_is_left_over():
    table = {name: python for name, _grpc, _http, python in _core.codes()}
    for name, python in table.items():
        assert getattr(errors, python).code == name
    tree = {
        cls.__name__ for cls in vars(errors).values() if inspect.isclass(cls) and cls.__base__ is errors.AnyServeError
    }
    assert tree == set(table.values())


def test_an_error_carries_what_is_known_about_it():
    error = errors.Overloaded("queue full", retry_after_s=0.5, traceback="t")
    assert (str(error), error.message, error.code) == ("queue full", "queue full", "OVERLOADED")
    assert (error.retry_after_s, error.traceback) == (0.5, "t")
    assert (errors.Poison("p").retry_after_s, errors.Poison("p").traceback) == (None, None)


def test_a_start_error_is_no_answer_to_a_request():
    assert not issubclass(errors.StartError, errors.AnyServeError)


def test_the_tree_in_the_docstring_has_every_class():
    assert all(name in errors.__doc__ for name in errors.__all__)
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)
