//! `/health`, `/health/live` and `/health/ready`.

use std::sync::Arc;

use anyserve_server::parts::http::answer;
use axum::extract::State;
use axum::response::Response;
use axum::{Router, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use super::Seen;
use crate::registry;

pub(super) fn router() -> Router<Arc<Seen>> {
    Router::new().route("/health", get(health)).route("/health/live", get(live)).route("/health/ready", get(health))
}

/// It depends on nothing but the process: a store that is away and replicas that are not there are no reason to kill it.
async fn live() -> Response {
    answer(StatusCode::OK, &json!({ "live": true }))
}

/// Ready is who does not leave. Without replicas it is, too: they find it only where it is ready.
async fn health(State(seen): State<Arc<Seen>>) -> Response {
    let draining = seen.draining();
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    answer(
        status,
        &json!({
            "live": true,
            "ready": !draining,
            "draining": draining,
            "replicas": replicas(&seen),
            "store": seen.fleet.store().state().name(),
            "policy": seen.fleet.policy(),
            "version": seen.version,
        }),
    )
}

/// How many there are, by health.
fn replicas(seen: &Seen) -> Value {
    let mut counts = json!({ "up": 0, "ejected": 0, "probing": 0, "draining": 0 });
    for view in seen.fleet.views() {
        let name = registry::state(&view);
        counts[name] = (counts[name].as_u64().unwrap_or_default() + 1).into();
    }
    counts
}
