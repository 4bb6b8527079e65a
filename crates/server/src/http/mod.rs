//! Plain HTTP: a router per idea. REST v2 and the OpenAI front have their place beside these.

mod admin;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod health;
mod metrics;
pub(crate) mod page;
mod status;
mod workers;

use std::future::{Ready, ready};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyserve_core::header::HAND_BACK;
use anyserve_core::{Code, Error};
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::route::App;
use crate::{Upstream, grpc};

const JSON: &str = "application/json";

/// The header that names the code of the closed set; several codes share one status.
const CODE: &str = "x-anyserve-code";

/// Every HTTP path. The router is part of the app, so it holds it weakly.
pub(crate) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    let shown = page::router().merge(status::router(app)).merge(metrics::router(app)).merge(health::router(app));
    let asked = explain::router(app).merge(admin::router(app)).merge(workers::router(app));
    shown.merge(asked).fallback(unknown).method_not_allowed_fallback(not_allowed)
}

/// The answer to a request that failed.
pub fn failed(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = self::error(status, &error.message);
    let headers = response.headers_mut();
    headers.insert(CODE, HeaderValue::from_static(error.code.name()));
    if let Some(after) = error.retry_after {
        headers.insert(RETRY_AFTER, seconds(after).into());
    }
    if let Some(selector) = grpc::hand_back(error).and_then(|text| text.parse().ok()) {
        headers.insert(HAND_BACK, selector);
    }
    if error.code == Code::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Whole seconds, never too few.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A handler that answers at once, as long as there is an app.
fn at_once<S: Upstream>(
    app: &Weak<App<S>>,
    answer: impl Fn(&App<S>, &Request) -> Result<Response, Error> + Clone + Send + Sync + 'static,
) -> impl Fn(Request) -> Ready<Response> + Clone + Send + Sync + 'static {
    at_once_of(app, move |app, request| answer(app, request))
}

/// The same, for an answer that keeps the app.
fn at_once_of<S: Upstream>(
    app: &Weak<App<S>>,
    answer: impl Fn(&Arc<App<S>>, &Request) -> Result<Response, Error> + Clone + Send + Sync + 'static,
) -> impl Fn(Request) -> Ready<Response> + Clone + Send + Sync + 'static {
    let app = app.clone();
    move |request| {
        let answer = |app: &Arc<App<S>>| answer(app, &request).unwrap_or_else(|error| failed(&error));
        ready(app.upgrade().map_or_else(gone, |app| answer(&app)))
    }
}

/// The answer on a path that there is not.
#[allow(clippy::unused_async, reason = "routers take futures")]
pub async fn unknown(uri: Uri) -> Response {
    let path = uri.path();
    error(StatusCode::NOT_FOUND, &format!("unknown path {path}{}", instead_of(path)))
}

/// Where to go for what is looked for on a path that other servers have.
fn instead_of(path: &str) -> &'static str {
    match path.split('/').nth(1) {
        Some("v2") => ": KServe v2 is spoken over gRPC on this port",
        Some("infer") => ": KServe v2 is spoken over gRPC on this port; an API server takes requests in JSON, too",
        Some("health") => ": there are /health/live and /health/ready",
        _ => "",
    }
}

/// The answer to a method that a path does not take.
#[allow(clippy::unused_async, reason = "routers take futures")]
pub async fn not_allowed(method: Method, uri: Uri) -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not allowed on {}", uri.path()))
}

/// The one form of errors over HTTP.
pub fn error(status: StatusCode, message: &str) -> Response {
    answer(status, &json!({ "error": message }))
}

/// JSON with a status.
pub fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// The app is gone: the process is about to end.
fn gone() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "the server is leaving")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_status_the_code_and_when_to_come_back() {
        let overloaded = Error::new(Code::Overloaded, "full").with_retry_after(Duration::from_millis(1200));
        let response = failed(&overloaded);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[CODE]),
            (429, &HeaderValue::from_static("OVERLOADED"))
        );
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert!(!failed(&Error::invalid("no")).headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn every_code_has_a_status_of_http() {
        for code in Code::all() {
            assert_eq!(failed(&Error::new(code, "why")).status().as_u16(), code.http());
        }
    }

    #[test]
    fn whole_seconds_are_never_too_few() {
        assert_eq!([0, 1, 1000, 1001].map(|ms| seconds(Duration::from_millis(ms))), [0, 1, 1, 2]);
    }
}
