//! Plain HTTP: a router per idea. REST v2 and the OpenAI front have their place beside these.

mod health;
mod metrics;

use std::sync::Weak;

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, Uri, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::Upstream;
use crate::route::App;

/// Every HTTP path. The router is part of the app, so it holds it weakly.
pub(crate) fn router<S: Upstream>(app: Weak<App<S>>) -> Router {
    let paths = health::router(app.clone()).merge(metrics::router(app));
    paths.fallback(unknown).method_not_allowed_fallback(not_allowed)
}

async fn unknown(uri: Uri) -> Response {
    error(StatusCode::NOT_FOUND, &format!("unknown path {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not allowed on {}", uri.path()))
}

/// The one form of errors over HTTP.
fn error(status: StatusCode, message: &str) -> Response {
    answer(status, &json!({ "error": message }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The app is gone: the process is about to end.
fn gone() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "the server is leaving")
}
