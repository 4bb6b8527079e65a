//! The registry over HTTP.

use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::{OfferView, ReplicaView};
use anyserve_core::{Error, Query, Upgrades, Verdict};
use anyserve_proto::v1;
use anyserve_server::parts::http::{answer, failed};
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

/// Replicas that are listed at once, unless it is said how many.
const PAGE: usize = 500;

/// Replicas that are listed at once at most.
const MAX_PAGE: usize = 5000;

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
    shown(Wanted::read(&uri).map(|wanted| listed(&fleet, &wanted)))
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

/// Everybody by id, or those who have a capability that is wanted, with the capabilities that are; as many as are asked
/// for, from the one after which they are.
fn listed(fleet: &Fleet, wanted: &Wanted) -> Value {
    let (views, now) = (fleet.views(), Instant::now());
    let start = views.partition_point(|view| *view.id <= *wanted.after);
    let (mut rows, mut next): (Vec<(&ReplicaView, Vec<OfferView>, Upgrades)>, _) = (Vec::new(), None);
    'all: for some in views[start..].chunks(PAGE) {
        let known = some.iter().zip(fleet.offers_of(some)).zip(fleet.upgrades_of(some));
        for ((view, mut offers), upgrades) in known {
            if let Some(query) = &wanted.query {
                offers.retain(|offer| matches!(Verdict::of(query, &offer.capability), Verdict::Matches { .. }));
                if offers.is_empty() {
                    continue;
                }
            }
            if rows.len() == wanted.limit {
                next = rows.last().map(|(view, ..)| Arc::clone(&view.id));
                break 'all;
            }
            rows.push((view, offers, upgrades));
        }
    }
    let replicas: Vec<_> = rows.iter().map(|(view, offers, upgrades)| replica(view, offers, upgrades, now)).collect();
    let mut answer = json!({ "count": views.len(), "replicas": replicas });
    if let Some(next) = next {
        answer["next"] = (&*next).into();
    }
    answer
}

/// Which replicas are to be listed.
#[derive(Debug)]
struct Wanted {
    /// What they have to serve.
    query: Option<Query>,
    /// They come after this id.
    after: String,
    limit: usize,
}

// === impl Wanted ===

impl Wanted {
    /// Reads `?capability=SELECTOR`, `after=ID` and `limit=N`.
    ///
    /// # Errors
    /// `INVALID_INPUT` for anything else, and for a limit that is not from 1 to [`MAX_PAGE`].
    fn read(uri: &Uri) -> Result<Self, Error> {
        let pairs: axum::extract::Query<Vec<(String, String)>> = axum::extract::Query::try_from_uri(uri)
            .map_err(|error| Error::invalid(format!("the URL's query: {error}")))?;
        let mut conditions = Vec::new();
        let mut wanted = Self { query: None, after: String::new(), limit: PAGE };
        for (key, value) in pairs.0 {
            match key.as_str() {
                "capability" => conditions.extend(pairs::conditions(&value)?),
                "after" => wanted.after = value,
                "limit" => wanted.limit = limit(&value)?,
                _ => return Err(unknown(&key)),
            }
        }
        wanted.query = (!conditions.is_empty()).then(|| Query::all(conditions));
        Ok(wanted)
    }
}

fn limit(text: &str) -> Result<usize, Error> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| Error::invalid(format!("limit is '{text}', it is from 1 to {MAX_PAGE}")))
}

fn unknown(key: &str) -> Error {
    Error::invalid(format!("there is no '{key}' here: write ?capability=SELECTOR, after=ID, limit=N, or nothing"))
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
