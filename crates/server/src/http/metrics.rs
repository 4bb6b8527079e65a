//! `/metrics`.

use std::sync::Weak;

use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;

use super::gone;
use crate::route::App;
use crate::{Upstream, metrics};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn router<S: Upstream>(app: Weak<App<S>>) -> Router {
    let scrape = move || {
        let app = app.clone();
        async move { app.upgrade().map_or_else(gone, |app| scrape(&app)) }
    };
    Router::new().route("/metrics", get(scrape))
}

fn scrape<S: Upstream>(app: &App<S>) -> Response {
    let text = metrics::text(&app.metrics, app.upstream.snapshot());
    ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}
