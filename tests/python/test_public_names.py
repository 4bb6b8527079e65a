"""What can be imported is a promise: a name comes or goes only with this test."""

import subprocess
import sys

import pytest

import anyserve


def test_the_public_names_are_these():
    assert anyserve.__all__ == [
        "AnyServe", "AsyncClient", "Client", "Contents", "Context", "InferInput", "InferOutput", "ModelInferRequest",
        "ModelInferResponse", "ObjRef", "ObjectStat", "Objects", "StoreUsage", "Stream", "TensorSpec",
        "Worker",
    ]  # fmt: skip


@pytest.mark.parametrize("name", anyserve.__all__)
def test_every_public_name_is_there_and_has_a_docstring(name):
    assert getattr(anyserve, name).__doc__
    assert name in dir(anyserve)


def test_a_name_that_is_not_there_says_so():
    with pytest.raises(AttributeError, match="has no attribute 'Wörker'"):
        getattr(anyserve, "Wörker")  # noqa: B009 - the attribute is the point


def test_the_client_is_also_where_workers_look_for_it():
    from anyserve.worker import client

    assert client.Client is anyserve.Client


def test_the_version_is_that_of_the_package():
    assert anyserve.__version__.count(".") == 2


def loaded_by(code: str) -> set[str]:
    shown = f"{code}\nimport sys; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True).stdout.split())


def test_a_worker_does_not_load_what_only_the_command_line_needs():
    assert not loaded_by("import anyserve.worker.__main__") & {"typer", "rich", "click"}


def test_the_command_line_does_not_load_numpy_to_start_a_replica():
    loaded = loaded_by("import anyserve.cli.commands")
    assert "typer" in loaded
    assert not loaded & {"numpy", "rich.live"}
