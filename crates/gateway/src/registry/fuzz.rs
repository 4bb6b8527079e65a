//! Fuzz targets: what replicas and clients tell and ask the registry.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::time::Instant;

use anyserve_cluster::{Registry, RegistryConfig};
use anyserve_core::{Code, Query};
use anyserve_proto::v1;
use http::Uri;
use prost::Message;

use super::json::{Beat, Leaving, Registration, parse};
use super::{Pairs, read};

/// Bytes as messages of the service.
pub fn messages(data: &[u8]) {
    if let Ok(said) = v1::RegisterRequest::decode(data) {
        announced(said);
    }
    if let Ok(said) = v1::HeartbeatRequest::decode(data) {
        let _ = read::heartbeat(said);
    }
    if let Ok(v1::ResolveRequest { query, avoid, .. }) = v1::ResolveRequest::decode(data) {
        let _ = (read::query(query), read::avoid(avoid));
    }
}

/// Bytes as the same in JSON.
pub fn json(data: &[u8]) {
    if let Ok(said) = parse::<Registration>(data) {
        announced(said.into());
    }
    if let Ok(said) = parse::<Beat>(data) {
        let _ = read::heartbeat(said.into());
    }
    let _ = parse::<Leaving>(data);
}

/// Bytes as the query of a URL.
pub fn pairs(data: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/route?", data].concat()) else { return };
    let Ok(pairs) = Pairs::read(&uri, "model") else { return };
    if let Ok(query) = pairs.query() {
        assert!(query != Query::model("") && query != Query::all(Vec::new()));
    }
}

/// What is told is known afterwards, or refused: a registry of its own is the judge.
fn announced(said: v1::RegisterRequest) {
    let mut config = RegistryConfig::default();
    (config.limits.max_capabilities, config.limits.max_keys, config.limits.max_text) = (8, 8, 64);
    let Ok(announce) = read::announce(said, &config.limits) else { return };
    assert!(announce.offers.len() <= 8);
    let mut registry = Registry::new(config);
    if let Err(error) = registry.announce(&announce, Instant::now()) {
        assert_eq!(read::refused(&error).code, Code::InvalidInput);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn what_is_told_is_known_or_refused() {
        attack("registry_messages", messages);
    }

    #[test]
    fn what_is_told_in_json_is_known_or_refused() {
        attack("registry_json", json);
    }

    #[test]
    fn what_a_url_asks_for_is_something_or_refused() {
        attack("registry_pairs", pairs);
    }
}
