//! `/metrics`.

use std::sync::Weak;

use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;

use super::at_once;
use crate::metrics::encode::OPEN_METRICS;
use crate::route::App;
use crate::{Upstream, metrics};

pub(super) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    Router::new().route("/metrics", get(at_once(app, |app, _| Ok(scrape(app)))))
}

fn scrape<S: Upstream>(app: &App<S>) -> Response {
    let draining = app.draining(&app.upstream.catalog());
    let text = metrics::text(&app.metrics, app.upstream.snapshot(), app.certificates.clone(), draining);
    ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}
