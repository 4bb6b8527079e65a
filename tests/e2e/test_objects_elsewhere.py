"""Objects that are not in the replica that is asked for them: pulled from a peer, and kept in a folder."""

from pathlib import Path

import numpy as np
import pytest

from anyserve import Client, errors

APP = "tests/e2e/apps/elsewhere.py:app"
ARRAY = np.arange(3 << 18, dtype=np.float32)


@pytest.fixture
def two(replica):
    """A replica, and one that pulls objects from it."""
    first = replica(APP)
    second = replica(APP, "--object-peer", first.endpoint)
    with Client(endpoint=first.endpoint) as one, Client(endpoint=second.endpoint) as other:
        yield one, other


def test_an_object_is_pulled_once_from_the_replica_that_has_it_and_read_where_it_is_then(two):
    one, other = two
    ref = one.infer("put", {"x": ARRAY}, timeout_s=20)["ref"]
    for _ in range(3):
        assert np.array_equal(other.infer("get", {"ref": str(ref)}, timeout_s=20)["x"], ARRAY)
    assert other.infer("usage", {}, timeout_s=20)["objects"].tolist() == [1]


def test_a_reference_among_the_inputs_of_another_replica_is_its_object(two):
    one, other = two
    ref = one.infer("put", {"x": ARRAY}, timeout_s=20)["ref"]
    assert other.infer("total", {"x": ref}, timeout_s=20)["total"].tolist() == [ARRAY.astype(np.float64).sum()]


def test_an_object_that_was_deleted_where_it_is_is_found_nowhere(two):
    one, other = two
    ref = one.infer("put", {"x": ARRAY}, timeout_s=20)["ref"]
    one.infer("delete", {"ref": str(ref)}, timeout_s=20)
    with pytest.raises(errors.NotFound):
        other.infer("get", {"ref": str(ref)}, timeout_s=20)


def test_a_replica_without_peers_finds_no_object_of_another(two):
    one, other = two
    ref = other.infer("put", {"x": ARRAY}, timeout_s=20)["ref"]
    with pytest.raises(errors.NotFound):
        one.infer("total", {"x": ref}, timeout_s=20)


def test_a_peer_that_is_gone_is_named(replica):
    first = replica(APP)
    second = replica(APP, "--object-peer", first.endpoint)
    with Client(endpoint=first.endpoint) as one:
        ref = one.infer("put", {"x": ARRAY}, timeout_s=20)["ref"]
    first.stop()
    with Client(endpoint=second.endpoint) as other, pytest.raises(errors.Unavailable, match=first.endpoint):
        other.infer("total", {"x": ref}, timeout_s=20)


def test_a_durable_object_outlives_its_replica_by_reference_and_by_key(replica, tmp_path: Path):
    spill = ("--object-spill", str(tmp_path / "kept"))
    first = replica(APP, *spill)
    with Client(endpoint=first.endpoint) as client:
        ref = client.infer("keep", {"x": ARRAY}, timeout_s=20)["ref"]
    first.kill()
    second = replica(APP, *spill)
    with Client(endpoint=second.endpoint) as client:
        assert np.array_equal(client.infer("get", {"ref": str(ref)}, timeout_s=20)["x"], ARRAY)
        assert client.infer("total", {"x": ref}, timeout_s=20)["total"].tolist() == [ARRAY.astype(np.float64).sum()]
        assert np.array_equal(client.infer("find", {"key": "kept"}, timeout_s=20)["x"], ARRAY)
        client.infer("delete", {"ref": str(ref)}, timeout_s=20)
    assert not list((tmp_path / "kept" / "objects").glob("*"))


def test_a_durable_object_needs_a_place(replica):
    with Client(endpoint=replica(APP).endpoint) as client:
        with pytest.raises(errors.Unsupported, match="--object-spill"):
            client.infer("keep", {"x": ARRAY}, timeout_s=20)
        assert client.infer("usage", {}, timeout_s=20)["objects"].tolist() == [0]
