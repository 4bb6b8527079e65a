//! `/admin/quarantine`: which requests are refused because they killed workers, and their release.

use std::sync::Weak;

use anyserve_core::{Code, Error, Fingerprint, Quarantined};
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{delete, get};
use http::StatusCode;
use serde_json::{Value, json};

use super::{answer, at_once};
use crate::route::App;
use crate::{Upstream, guard};

const QUARANTINE: &str = "/admin/quarantine";

pub(super) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    let list = at_once(app, guarded(|app: &App<S>, _| Ok(list(&app.upstream.quarantined()))));
    let release_all = at_once(app, guarded(|app: &App<S>, _| Ok(released(app.upstream.release(None)))));
    let release_one = at_once(app, guarded(|app: &App<S>, request| release(app, request.uri().path())));
    Router::new()
        .route(QUARANTINE, get(list).delete(release_all))
        .route("/admin/quarantine/{fingerprint}", delete(release_one))
}

/// The answer, for those who may have it.
pub(super) fn guarded<S: Upstream>(
    answer: impl Fn(&App<S>, &Request) -> Result<Response, Error> + Clone + Send + Sync + 'static,
) -> impl Fn(&App<S>, &Request) -> Result<Response, Error> + Clone + Send + Sync + 'static {
    move |app, request| {
        guard::check(app.admin_token.as_ref(), request.headers(), request.extensions())?;
        answer(app, request)
    }
}

fn list(quarantined: &[Quarantined]) -> Response {
    let rows: Vec<_> = quarantined.iter().map(row).collect();
    answer(StatusCode::OK, &json!({ "quarantined": rows }))
}

fn row(one: &Quarantined) -> Value {
    json!({
        "fingerprint": one.fingerprint.to_string(),
        "model": one.model,
        "deaths": one.deaths,
        "refused": one.refused,
        "remaining_s": (one.remaining.as_secs_f64() * 1e3).round() / 1e3,
    })
}

fn release<S: Upstream>(app: &App<S>, path: &str) -> Result<Response, Error> {
    let text = path.strip_prefix(QUARANTINE).unwrap_or(path).trim_start_matches('/');
    let fingerprint: Fingerprint = text.parse().map_err(|error| Error::invalid(format!("{error}")))?;
    match app.upstream.release(Some(fingerprint)) {
        0 => Err(Error::new(Code::NotFound, format!("{fingerprint} is not quarantined"))),
        count => Ok(released(count)),
    }
}

fn released(count: usize) -> Response {
    if count > 0 {
        tracing::info!(count, "released from quarantine");
    }
    answer(StatusCode::OK, &json!({ "released": count }))
}
