//! The registry over HTTP.

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Error, Query, Verdict};
use anyserve_proto::v1;
use anyserve_server::common::{answer, failed};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::json::{Beat, Leaving, Registration, parse};
use super::listing::{capability, replica};
use super::{MAX_MESSAGE, Pairs, pairs, read, write};
use crate::Fleet;

/// Every path of it. Who may call which is checked before.
pub(crate) fn router() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/register", post(register))
        .route("/heartbeat", post(heartbeat))
        .route("/unregister", delete(unregister))
        .route("/registry", get(list))
        .route("/route", get(route))
}

async fn register(State(fleet): State<Arc<Fleet>>, request: Request) -> Response {
    let registered = async {
        let said: v1::RegisterRequest = body::<Registration>(request).await?.into();
        let config = fleet.with(|registry, _| *registry.config());
        let announce = read::announce(said, &config.limits)?;
        let said = fleet.announce(&announce).map_err(|error| read::refused(&error))?;
        let written = write::registered(said, &config);
        let mut shown = verdict(write::verdict(said));
        (shown["heartbeat_ms"], shown["lease_ms"]) = (written.heartbeat_ms.into(), written.lease_ms.into());
        Ok(shown)
    };
    shown(registered.await)
}

async fn heartbeat(State(fleet): State<Arc<Fleet>>, request: Request) -> Response {
    let heard = async {
        let said: v1::HeartbeatRequest = body::<Beat>(request).await?.into();
        let said = fleet.heartbeat(&read::heartbeat(said)).map_err(|error| read::refused(&error))?;
        Ok(verdict(write::verdict(said)))
    };
    shown(heard.await)
}

/// The id and the epoch stand in the URL or, if it has no query, in the body.
async fn unregister(State(fleet): State<Arc<Fleet>>, request: Request) -> Response {
    let left = async {
        let Leaving { id, epoch } = match request.uri().query() {
            Some(_) => leaving(request.uri())?,
            None => body(request).await?,
        };
        Ok(verdict(write::verdict(fleet.leave(&id, epoch))))
    };
    shown(left.await)
}

async fn list(State(fleet): State<Arc<Fleet>>, uri: Uri) -> Response {
    shown(wanted(&uri).map(|wanted| listed(&fleet, wanted.as_ref())))
}

async fn route(State(fleet): State<Arc<Fleet>>, uri: Uri) -> Response {
    let resolved = Pairs::read(&uri, "model").and_then(|pairs| {
        let found = fleet.resolve(&pairs.query()?, &pairs.keys(), &pairs.avoid()?)?;
        let written = write::resolved(&found, Instant::now());
        Ok(json!({
            "endpoint": written.endpoint,
            "replica_id": written.replica_id,
            "epoch": written.epoch,
            "lease_ms": written.lease_ms,
            "capability": found.capability.as_deref().map(capability),
        }))
    });
    shown(resolved)
}

/// Everybody, or those who have a capability that is wanted, with the capabilities that are.
fn listed(fleet: &Fleet, wanted: Option<&Query>) -> Value {
    let views = fleet.views();
    let now = Instant::now();
    let known = views.iter().zip(fleet.offers_of(&views)).zip(fleet.upgrades_of(&views));
    let rows = known.filter_map(|((view, mut offers), upgrades)| {
        if let Some(wanted) = wanted {
            offers.retain(|offer| matches!(Verdict::of(wanted, &offer.capability), Verdict::Matches { .. }));
        }
        (wanted.is_none() || !offers.is_empty()).then(|| replica(view, &offers, &upgrades, now))
    });
    json!({ "replicas": rows.collect::<Vec<_>>() })
}

/// The selector of `?capability=`, if there is one.
fn wanted(uri: &Uri) -> Result<Option<Query>, Error> {
    let pairs: axum::extract::Query<Vec<(String, String)>> =
        axum::extract::Query::try_from_uri(uri).map_err(|error| Error::invalid(format!("the URL's query: {error}")))?;
    let mut conditions = Vec::new();
    for (key, value) in &pairs.0 {
        if key != "capability" {
            return Err(Error::invalid(format!("there is no '{key}' here: write ?capability=SELECTOR, or nothing")));
        }
        conditions.extend(pairs::conditions(value)?);
    }
    Ok((!conditions.is_empty()).then(|| Query::all(conditions)))
}

fn leaving(uri: &Uri) -> Result<Leaving, Error> {
    axum::extract::Query::try_from_uri(uri)
        .map(|query| query.0)
        .map_err(|error| Error::invalid(format!("the URL's query: {error}")))
}

async fn body<T: serde::de::DeserializeOwned>(request: Request<Body>) -> Result<T, Error> {
    let whole = to_bytes(request.into_body(), MAX_MESSAGE).await;
    parse(&whole.map_err(|error| Error::invalid(format!("the body, of at most {MAX_MESSAGE} bytes: {error}")))?)
}

fn verdict((verdict, latest): (v1::Verdict, u64)) -> Value {
    let name = verdict.as_str_name().trim_start_matches("VERDICT_").to_ascii_lowercase();
    if latest == 0 { json!({ "verdict": name }) } else { json!({ "verdict": name, "latest": latest }) }
}

fn shown(answered: Result<Value, Error>) -> Response {
    match answered {
        Ok(shown) => answer(StatusCode::OK, &shown),
        Err(error) => failed(&error),
    }
}
