//! Every target, driven by libFuzzer. The name of the binary says which one it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| named(env!("CARGO_BIN_NAME"))(data));

fn named(name: &str) -> fn(&[u8]) {
    match name {
        "answer" => anyserve_client::fuzz::answer,
        "call_headers" => anyserve_server::fuzz::grpc::headers,
        "configuration" => anyserve_node::fuzz::configuration,
        "endpoint" => anyserve_client::fuzz::endpoint,
        "failure" => anyserve_client::fuzz::failure,
        "grpc_framing" => anyserve_server::fuzz::grpc::framing,
        "http_asked" => anyserve_server::fuzz::http::asked,
        "infer_request" => anyserve_server::fuzz::grpc::request,
        "json_answered" => anyserve_gateway::fuzz::json::answered,
        "json_asked" => anyserve_gateway::fuzz::json::asked,
        "manifest" => anyserve_worker::fuzz::manifest,
        "object" => anyserve_shm::fuzz::object,
        "proxy_messages" => anyserve_gateway::fuzz::proxy::messages,
        "proxy_scanned" => anyserve_gateway::fuzz::proxy::scanned,
        "pulled" => anyserve_objects::fuzz::pulled,
        "region_key" => anyserve_shm::fuzz::region_key,
        "registry_json" => anyserve_gateway::fuzz::registry::json,
        "registry_messages" => anyserve_gateway::fuzz::registry::messages,
        "registry_pairs" => anyserve_gateway::fuzz::registry::pairs,
        "schedule" => anyserve_core::fuzz::schedule,
        "selector" => anyserve_core::fuzz::selector,
        "spill" => anyserve_objects::fuzz::spill,
        "stored" => anyserve_gateway::fuzz::store::stored,
        "tensor" => anyserve_core::fuzz::tensor,
        "texts" => anyserve_core::fuzz::texts,
        "upgrades" => anyserve_core::fuzz::upgrades,
        "wire_frames" => anyserve_wire::fuzz::frames,
        "wire_messages" => anyserve_wire::fuzz::messages,
        _ => panic!("there is no target {name}"),
    }
}
