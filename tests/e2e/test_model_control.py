"""Models loaded and unloaded as KServe clients do it (kserve.md, 15)."""

import json

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.e2e.replicas import until

GROUPS = ("groups.py:create", "--factory", "--resources", "token=1", "--gpus", "0,1")


@pytest.fixture
def served(replica):
    return replica(*GROUPS)


@pytest.fixture
def client(served):
    with triton.InferenceServerClient(served.endpoint) as client:
        yield client


def infer(client, model):
    tensor = triton.InferInput("name", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], dtype=object))
    return client.infer(model, [tensor]).as_numpy("pid")[0]


def index(client):
    return {model.name: model.state for model in client.get_model_repository_index().models}


def test_an_unloaded_model_is_not_ready_until_it_is_loaded_again(client):
    pid = infer(client, "always")
    client.unload_model("always")
    assert not client.is_model_ready("always")
    assert client.is_model_ready("plain"), "others do not notice"
    assert index(client)["always"] == "UNAVAILABLE"
    with pytest.raises(InferenceServerException, match="not at ready state") as refused:
        infer(client, "always")
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("always")
    assert client.is_model_ready("always")
    assert infer(client, "always") != pid


def test_loading_starts_a_model_that_is_started_on_demand(client, served):
    assert index(client)["one"] == "READY"
    client.load_model("one")
    groups = {group["name"]: group for group in json.loads(served.http("/admin/workers")[1])["groups"]}
    assert [worker["state"] for worker in groups["one"]["workers"]] == ["ready"]


def test_a_load_may_say_how_many_instances_there_are(client, served):
    client.load_model("always", config=json.dumps({"instance_group": [{"count": 2}, {"count": 1}]}))
    groups = {group["name"]: group for group in json.loads(served.http("/admin/workers")[1])["groups"]}
    assert [worker["state"] for worker in groups["always"]["workers"]] == ["ready"] * 3
    with pytest.raises(InferenceServerException, match="max_batch_size") as refused:
        client.load_model("always", config=json.dumps({"max_batch_size": 7}))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("name", ["nobody", "../always", "/etc/passwd"])
def test_a_model_that_there_is_not_fails_to_load(client, name):
    with pytest.raises(InferenceServerException, match="failed to load"):
        client.load_model(name)


def test_what_waits_for_a_model_ends_when_it_is_unloaded(client, served):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(_named, served.endpoint, "gated-held")
        served.noted("reached-gated-held")
        waiting = pool.submit(_named, served.endpoint, "waits")
        until(lambda: served.metric("anyserve_queue_depth", group="one") == 1, "a request that waits")
        client.unload_model("one")
        assert waiting.exception(30).code() == grpc.StatusCode.UNAVAILABLE
        served.allow("go-gated-held")
        assert held.result(30), "what was in flight is finished"


def _named(endpoint, name):
    from tests.e2e.messages import infer as message
    from tests.e2e.messages import stub, text

    with grpc.insecure_channel(endpoint) as channel:
        return stub(channel).ModelInfer(message("one", text("name", name)), timeout=30)
