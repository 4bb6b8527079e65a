"""Everything of KServe that is not inference, read by the clients of the field."""

import asyncio

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.messages import INVALID, NOT_FOUND, SERVICE, UNIMPLEMENTED, infer, number, refused, stub, tensor, text
from tests.e2e.replicas import until

MODELS = {"echo", "as-arrays", "as-lists", "add", "fixed", "versioned", "see", "fail", "answer", "count", "count-sent",
          "count-and-fail"}  # fmt: skip


@pytest.fixture
def client(mixed):
    with triton.InferenceServerClient(mixed.endpoint) as made:
        yield made


@pytest.fixture
def service(mixed, channel):
    return stub(channel(mixed.endpoint))


# === live, ready ===


def test_the_server_lives_and_is_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()


def test_a_model_is_ready_under_its_name_and_versions_and_an_unknown_one_never(client):
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert client.is_model_ready("versioned", "4")
    assert not client.is_model_ready("versioned", "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("")


# === metadata ===


def test_the_servers_metadata_has_name_version_and_extensions(client, replica):
    metadata = client.get_server_metadata()
    assert metadata.name == "anyserve"
    assert metadata.version
    assert "statistics" in metadata.extensions
    named = replica("protocol.py:create_serial", "--factory", "--server-id", "triton")
    with triton.InferenceServerClient(named.endpoint) as other:
        assert other.get_server_metadata(as_json=True)["name"] == "triton"


def test_a_models_metadata_is_what_it_declares(client):
    metadata = client.get_model_metadata("add", as_json=True)
    assert (metadata["name"], metadata["versions"], bool(metadata["platform"])) == ("add", ["1"], True)
    assert metadata["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": ["-1"]}, {"name": "b", "datatype": "FP32", "shape": ["-1"]},
    ]  # fmt: skip
    assert [output["name"] for output in metadata["outputs"]] == ["sum", "difference"]
    fixed = client.get_model_metadata("fixed")
    assert list(fixed.inputs[0].shape) == [2, -1]
    assert not client.get_model_metadata("echo").inputs


def test_the_metadata_of_a_model_lists_its_versions(client):
    assert sorted(client.get_model_metadata("versioned").versions) == ["3", "4"]
    assert client.get_model_metadata("versioned", "3").name == "versioned"


def test_the_metadata_of_an_unknown_model_is_not_found_under_its_name(service):
    for call, message in [
        (service.ModelMetadata, pb.ModelMetadataRequest(name="X")),
        (service.ModelConfig, pb.ModelConfigRequest(name="X")),
        (service.ModelStatistics, pb.ModelStatisticsRequest(name="X")), (service.ModelInfer, infer("X")),
    ]:  # fmt: skip
        refused(call, message, NOT_FOUND, "Request for unknown model: 'X'")


def test_a_models_config_says_what_it_is(client):
    config = client.get_model_config("add").config
    assert (config.name, config.max_batch_size, bool(config.platform or config.backend)) == ("add", 0, True)
    assert [(one.name, list(one.dims)) for one in config.input] == [("a", [-1]), ("b", [-1])]
    assert [one.name for one in config.output] == ["sum", "difference"]
    assert not config.model_transaction_policy.decoupled
    assert client.get_model_config("count").config.model_transaction_policy.decoupled


def test_the_index_lists_every_model_with_its_state(client):
    models = client.get_model_repository_index().models
    assert {model.name for model in models} >= MODELS
    assert {model.state for model in models} == {"READY"}
    assert sorted(model.version for model in models if model.name == "versioned") == ["3", "4"]
    ready = client.get_model_repository_index(as_json=True)["models"]
    assert len(ready) == len(models)


# === statistics ===


def test_statistics_have_one_entry_and_their_counts_add_up(replica, channel):
    served = replica("protocol.py:create_mixed", "--factory")
    service = stub(channel(served.endpoint))
    for place in range(5):
        service.ModelInfer(infer("fixed", tensor("x", "INT32", [2, 1]), raw=[bytes(8)], id=str(place)))
    refused(service.ModelInfer, infer("fixed", tensor("x", "INT32", [3, 1]), raw=[bytes(12)]), INVALID)
    for _ in range(2):
        refused(service.ModelInfer, infer("fail", text("how", "ValueError"), text("why", "")), grpc.StatusCode.INTERNAL)
    (entry,) = service.ModelStatistics(pb.ModelStatisticsRequest(name="fixed")).model_stats
    stats = entry.inference_stats
    assert (entry.name, entry.version) == ("fixed", "1")
    assert (entry.inference_count, entry.execution_count) == (5, 5)
    assert (stats.success.count, stats.fail.count) == (5, 1)
    steps = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert [step.count for step in steps] == [5, 5, 5, 5]
    assert 0 < sum(step.ns for step in steps) <= stats.success.ns
    assert entry.last_inference > 0
    (failed,) = service.ModelStatistics(pb.ModelStatisticsRequest(name="fail")).model_stats
    assert (failed.inference_stats.success.count, failed.inference_stats.fail.count) == (0, 2)


def test_statistics_count_streams_once_and_cancelled_requests_too(replica, channel):
    served = replica("protocol.py:create_mixed", "--factory")
    service = stub(channel(served.endpoint))
    stream = infer("count", text("name", ""), number("count", 10), number("size", 1))
    assert len(list(service.ModelStreamInfer(iter([stream, stream])))) == 20
    (entry,) = service.ModelStatistics(pb.ModelStatisticsRequest(name="count")).model_stats
    assert (entry.inference_count, entry.inference_stats.success.count) == (2, 2)
    call = service.ModelInfer.future(infer("gate-async", text("name", "g")))
    served.noted("started-g")
    call.cancel()
    served.noted("cancelled-g")

    def ended() -> int:
        stats = service.ModelStatistics(pb.ModelStatisticsRequest(name="gate-async")).model_stats[0].inference_stats
        return stats.fail.count

    assert until(ended, "the cancelled request in the statistics") == 1


def test_statistics_without_a_name_list_every_model(client):
    stats = client.get_inference_statistics(as_json=True)["model_stats"]
    assert {entry["name"] for entry in stats} >= MODELS
    (one,) = client.get_inference_statistics("versioned", "3").model_stats
    assert (one.name, one.version) == ("versioned", "3")


# === settings ===


def test_trace_settings_are_told_and_kept_and_unknown_ones_refused(client):
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
    changed = client.update_trace_settings("echo", {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"})
    assert list(changed.settings["trace_rate"].value) == ["5"]
    assert list(client.get_trace_settings("echo").settings["trace_level"].value) == ["TIMESTAMPS"]
    assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
    client.update_trace_settings("echo", {"trace_level": None, "trace_rate": None})
    assert list(client.get_trace_settings("echo").settings["trace_level"].value) == ["OFF"]
    wrong = ({"nobody": "1"}, {"trace_rate": "often"}, {"trace_file": "/tmp/x"}, {"trace_level": ["EVERYTHING"]})
    for settings in wrong:
        with pytest.raises(triton.InferenceServerException, match=next(iter(settings))):
            client.update_trace_settings(settings=settings)
    with pytest.raises(triton.InferenceServerException, match="nobody"):
        client.get_trace_settings("nobody")


def test_log_settings_are_told_and_kept_and_unknown_ones_refused(client):
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 0
    changed = client.update_log_settings({"log_verbose_level": 1, "log_info": False})
    assert changed.settings["log_verbose_level"].uint32_param == 1
    assert not client.get_log_settings().settings["log_info"].bool_param
    client.update_log_settings({"log_verbose_level": 0, "log_info": True})
    for settings in ({"nobody": True}, {"log_file": "/tmp/x"}, {"log_format": "mine"}):
        with pytest.raises(triton.InferenceServerException, match=next(iter(settings))):
            client.update_log_settings(settings)


def test_a_log_setting_of_another_type_is_refused(service):
    request = pb.LogSettingsRequest()
    request.settings["log_info"].string_param = "yes"
    refused(service.LogSettings, request, INVALID, "log_info")


# === gRPC's own services ===


def health_request(service: str) -> bytes:
    """grpc.health.v1.HealthCheckRequest: `string service = 1`."""
    return b"\x0a" + bytes([len(service)]) + service.encode() if service else b""


def health(answer: bytes) -> int:
    """grpc.health.v1.HealthCheckResponse: `ServingStatus status = 1`."""
    return answer[1] if answer else 0


SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@pytest.mark.parametrize("service", ["", SERVICE, "echo"])
def test_health_is_checked_for_the_server_its_service_and_every_model(mixed, channel, service):
    check = channel(mixed.endpoint).unary_unary("/grpc.health.v1.Health/Check")
    assert health(check(health_request(service))) == SERVING


def test_the_health_of_an_unknown_service_is_not_found(mixed, channel):
    refused(channel(mixed.endpoint).unary_unary("/grpc.health.v1.Health/Check"), health_request("nobody"), NOT_FOUND)


def test_who_watches_the_health_is_told_at_once_and_when_the_server_leaves(replica, channel):
    served = replica("protocol.py:create_mixed", "--factory")
    watch = channel(served.endpoint).unary_stream("/grpc.health.v1.Health/Watch")
    all_of_it, nobody = watch(health_request("")), watch(health_request("nobody"))
    assert (health(next(all_of_it)), health(next(nobody))) == (SERVING, SERVICE_UNKNOWN)
    call = stub(channel(served.endpoint)).ModelInfer.future(infer("gate", text("name", "g")))
    served.noted("started-g")
    served.signal()
    assert health(next(all_of_it)) == NOT_SERVING
    served.allow("go-g")
    assert call.result().outputs
    assert served.wait() == 0


def reflect(channel: grpc.Channel, number: int, text: str) -> bytes:
    """Ask `grpc.reflection.v1`; field 7 is list_services, 4 is file_containing_symbol."""
    ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    request = bytes([number << 3 | 2, len(text)]) + text.encode()
    (answer,) = ask(iter([request]))
    return answer


def test_reflection_lists_the_services(mixed, channel):
    opened = channel(mixed.endpoint)
    services = reflect(opened, 7, "")
    for service in (SERVICE, "grpc.health.v1.Health"):
        assert service.encode() in services


def test_the_older_reflection_is_there_for_older_tools(mixed, channel):
    ask = channel(mixed.endpoint).stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    (answer,) = ask(iter([b"\x3a\x00"]))
    assert SERVICE.encode() in answer


def test_the_reflected_service_has_every_method_that_tritonclient_knows(mixed, channel):
    answer = reflect(channel(mixed.endpoint), 4, SERVICE)
    files = [file for number, file in fields(dict(fields(answer))[4]) if number == 1]
    service = next(
        service for file in files for service in descriptor_pb2.FileDescriptorProto.FromString(file).service
        if service.name == "GRPCInferenceService"
    )  # fmt: skip
    expected = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {method.name for method in service.method} == set(expected)


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """Length-delimited fields of a message, by number."""
    found, place = [], 0
    while place < len(message):
        key, place = varint(message, place)
        length, place = varint(message, place)
        assert key & 7 == 2
        found.append((key >> 3, message[place : place + length]))
        place += length
    return found


def varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while message[place] & 0x80:
        value |= (message[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return value | message[place] << shift, place + 1


# === what there is not ===


@pytest.mark.parametrize("method", [f"/{SERVICE}/Nobody", "/nobody.Service/Call", "/x", f"/{SERVICE}/modelinfer"])
def test_an_unknown_method_is_unimplemented(mixed, channel, method):
    opened = channel(mixed.endpoint)
    refused(opened.unary_unary(method), b"", UNIMPLEMENTED)
    with pytest.raises(grpc.RpcError) as raised:
        list(opened.stream_stream(method)(iter([b"\xff"])))
    assert raised.value.code() == UNIMPLEMENTED


def test_loading_and_shared_memory_are_refused_in_words_that_clients_know(client):
    with pytest.raises(triton.InferenceServerException, match="failed to load 'nobody'"):
        client.load_model("nobody")
    with pytest.raises(triton.InferenceServerException, match="'nobody'"):
        client.unload_model("nobody")
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()


async def read_everything(endpoint: str) -> dict[str, object]:
    async with triton_aio.InferenceServerClient(endpoint) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model": await client.is_model_ready("echo"),
            "nobody": await client.is_model_ready("nobody"),
            "name": (await client.get_server_metadata()).name,
            "inputs": len((await client.get_model_metadata("add")).inputs),
            "config": (await client.get_model_config("add")).config.name,
            "stats": len((await client.get_inference_statistics("add")).model_stats),
            "index": {model.name for model in (await client.get_model_repository_index()).models} >= MODELS,
        }


def test_tritonclients_asynchronous_client_reads_the_same(mixed):
    assert asyncio.run(read_everything(mixed.endpoint)) == {
        "live": True, "ready": True, "model": True, "nobody": False, "name": "anyserve", "inputs": 2, "config": "add",
        "stats": 1, "index": True,
    }  # fmt: skip
