//! `/health/live` and `/health/ready`.

use std::sync::Weak;

use anyserve_core::Catalog;
use axum::response::Response;
use axum::{Router, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use super::{answer, gone};
use crate::Upstream;
use crate::route::App;

pub(super) fn router<S: Upstream>(app: Weak<App<S>>) -> Router {
    let ready = move || {
        let app = app.clone();
        async move { app.upgrade().map_or_else(gone, |app| ready(&app)) }
    };
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready))
}

async fn live() -> Response {
    answer(StatusCode::OK, &json!({ "live": true }))
}

fn ready<S: Upstream>(app: &App<S>) -> Response {
    let ready = app.ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let capabilities = capabilities(&app.upstream.catalog());
    answer(status, &json!({ "ready": ready, "capabilities": capabilities }))
}

/// Which capability it is that isn't ready.
fn capabilities(catalog: &Catalog) -> Vec<Value> {
    let row = |entry: &anyserve_core::CatalogEntry| json!({ "capability": entry.handler.capability.to_string(), "ready": entry.ready });
    catalog.entries.iter().map(row).collect()
}
