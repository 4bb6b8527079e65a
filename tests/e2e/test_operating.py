"""A real replica as those who operate it see it: the live table on a terminal, and Triton's own client."""

import signal
from collections.abc import Iterator

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.e2e.conftest import serving
from tests.e2e.replicas import WATCHDOG_S, Replica, until
from tests.e2e.terminal import shown


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Replica]:
    with serving(tmp_path_factory.mktemp("operated") / "replica", "examples.basic.app:app") as one:
        yield one


def test_on_a_terminal_the_status_is_kept_up_to_date_until_it_is_interrupted(served):
    with shown("status", "--endpoint", served.endpoint) as (process, seen):
        until(lambda: seen.count(b"worker-0") >= 2, "two looks at the replica")
        process.send_signal(signal.SIGINT)
        assert process.wait(WATCHDOG_S) == 0
    assert b"Traceback" not in seen
    assert b"default" in seen


@pytest.mark.parametrize(("model", "config", "part"), [
    ("../etc", None, "a path is no model's name"),
    ("echo", '{"max_batch_size": 8}', "'max_batch_size' of config"),
    ("echo", '{"instance_group": [{"count": 1, "kind": "KIND_GPU"}]}', "'kind' of instance_group[0]"),
    ("echo", "{", "'config' is no JSON"),
], ids=str)  # fmt: skip
def test_what_tritons_client_cannot_load_is_refused_by_name(served, model, config, part):
    with triton.InferenceServerClient(served.endpoint) as client:
        with pytest.raises(InferenceServerException, match="failed to load") as refused:
            client.load_model(model, config=config)
        assert part in refused.value.message()
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="'file:1/model'"):
            client.load_model("echo", config='{"instance_group": [{"count": 1}]}', files={"file:1/model": b"x"})
        assert client.is_model_ready("echo")
        assert {row.state for row in client.get_model_repository_index().models} == {"READY"}
