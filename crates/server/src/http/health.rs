//! `/health/live` and `/health/ready`.

use std::sync::Weak;

use anyserve_core::{CapabilityLoad, CatalogEntry};
use axum::response::Response;
use axum::{Router, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use super::{answer, at_once};
use crate::Upstream;
use crate::route::App;

pub(super) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    let ready = at_once(app, |app, _| Ok(ready(app)));
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready))
}

/// It depends on nothing but the process: a full queue and a missing worker are no reason to kill it.
async fn live() -> Response {
    answer(StatusCode::OK, &json!({ "live": true }))
}

fn ready<S: Upstream>(app: &App<S>) -> Response {
    let catalog = app.upstream.catalog();
    let draining = app.draining(&catalog);
    let ready = !draining && catalog.ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let loads = app.upstream.snapshot().capabilities;
    let loads = loads.into_iter().chain(std::iter::repeat_with(CapabilityLoad::default));
    let capabilities: Vec<_> = catalog.entries.iter().zip(loads).map(|(entry, load)| row(entry, &load)).collect();
    answer(status, &json!({ "ready": ready, "draining": draining, "capabilities": capabilities }))
}

/// Which capability it is that isn't ready, or that has no room.
fn row(entry: &CatalogEntry, load: &CapabilityLoad) -> Value {
    json!({
        "capability": entry.handler.capability.to_string(),
        "ready": entry.ready,
        "saturated": load.saturated,
        "queued": load.queued,
        "max_queue": load.max_queue,
    })
}
