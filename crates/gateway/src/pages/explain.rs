//! `/explain`: who would get a request, and why the others would not, without one being made.
//!
//! ```text
//! {"query": "…", "policy": "least-wait", "replicas": 3,
//!  "decision": {"kind": "send", "replica", "endpoint", "capability"}    the policy's choice
//!            | {"kind": "try", "replica", "endpoint"}                   nobody says they serve it: the most promising
//!            | {"kind": "refuse", "code", "message", "retry_after_ms"},
//!  "upgrade": "…",                                           what the rules of the most promising one make of it
//!  "candidates": [{"replica", "capability", "matches", "unmentioned" | "why", "standing", "pending", "slots",
//!                  "expected_wait_ms", "chosen"}],
//!  "more": 7}                                                candidates that were left out, if there are any
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyserve_cluster::{OfferView, ReplicaView, Resolved};
use anyserve_core::{Capability, Error, Query, Verdict, matches_of, verdicts};
use anyserve_server::parts::http::{answer, failed};
use axum::extract::State;
use axum::response::Response;
use axum::{Router, routing::get};
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::Seen;
use crate::registry::{Pairs, standing};

/// Candidates that are shown at most. Those that match are shown first.
const MAX_CANDIDATES: usize = 1000;

pub(super) fn router() -> Router<Arc<Seen>> {
    Router::new().route("/explain", get(explain))
}

/// As with a replica, the model name is `name=`.
async fn explain(State(seen): State<Arc<Seen>>, uri: Uri) -> Response {
    match Pairs::read(&uri, "name").and_then(|pairs| explained(&seen, &pairs)) {
        Ok(shown) => answer(StatusCode::OK, &shown),
        Err(error) => failed(&error),
    }
}

fn explained(seen: &Seen, pairs: &Pairs) -> Result<Value, Error> {
    let (fleet, query) = (&seen.fleet, pairs.query()?);
    let found = fleet.resolve(&query, &pairs.keys(), &pairs.avoid()?);
    let promised = match &found {
        Ok(found) => found.upgrade.is_some().then(|| found.clone()),
        Err(_) => fleet.promises(&query, &pairs.keys()),
    };
    let views = fleet.views();
    let offers = fleet.offers_of(&views);
    let all: Vec<_> =
        views.iter().zip(&offers).flat_map(|(view, own)| own.iter().map(move |one| (view, one))).collect();
    let matching = matching(&query, all.iter().map(|(_, offer)| &offer.capability));
    let (first, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|(_, offer)| matching.contains(&Arc::as_ptr(&offer.capability)));
    // One that matches is among them if there is any: what it takes away from the others is known.
    let rows: Vec<_> = first.into_iter().chain(others).take(MAX_CANDIDATES).collect();
    let verdicts = verdicts(&query, rows.iter().map(|(_, offer)| &*offer.capability));
    let rows = rows.into_iter().zip(verdicts);
    let candidates: Vec<_> =
        rows.map(|((view, offer), verdict)| row(view, offer, &verdict, found.as_ref().ok())).collect();
    let mut shown = json!({
        "query": query.to_string(),
        "policy": fleet.policy(),
        "replicas": views.len(),
        "decision": decision(&found, promised.as_ref()),
        "upgrade": promised.as_ref().and_then(|promised| promised.upgrade.as_ref()).map(ToString::to_string),
        "candidates": candidates,
    });
    if let more @ 1.. = all.len() - candidates.len() {
        shown["more"] = more.into();
    }
    Ok(shown)
}

/// Which capabilities a query selects. Each different one is looked at once: replicas that offer the same share it.
fn matching<'a>(query: &Query, capabilities: impl Iterator<Item = &'a Arc<Capability>>) -> HashSet<*const Capability> {
    let different: HashMap<_, _> = capabilities.map(|one| (Arc::as_ptr(one), &**one)).collect();
    let (places, list): (Vec<_>, Vec<&Capability>) = different.into_iter().unzip();
    matches_of(query, list.iter().copied()).into_iter().map(|found| places[found.index]).collect()
}

fn decision(found: &Result<Resolved, Error>, promised: Option<&Resolved>) -> Value {
    match (found, promised) {
        (_, Some(promised)) => json!({
            "kind": "try",
            "replica": &*promised.replica.id,
            "endpoint": &*promised.replica.endpoint,
        }),
        (Ok(found), None) => json!({
            "kind": "send",
            "replica": &*found.replica.id,
            "endpoint": &*found.replica.endpoint,
            "capability": found.capability.as_ref().map(ToString::to_string),
        }),
        (Err(error), None) => json!({
            "kind": "refuse",
            "code": error.code.name(),
            "message": error.message,
            "retry_after_ms": error.retry_after.map(ms),
        }),
    }
}

fn row(view: &ReplicaView, offer: &OfferView, verdict: &Verdict, found: Option<&Resolved>) -> Value {
    let chosen = found.is_some_and(|found| {
        found.replica.handle == view.handle && found.capability.as_deref() == Some(&*offer.capability)
    });
    let mut row = json!({
        "replica": &*view.id,
        "capability": offer.capability.to_string(),
        "standing": standing(offer),
        "pending": offer.load.pending,
        "slots": offer.slots,
        "expected_wait_ms": ms(offer.load.wait),
        "chosen": chosen,
    });
    match verdict {
        Verdict::Matches { unmentioned } => {
            row["matches"] = json!(true);
            row["unmentioned"] = json!(unmentioned);
        }
        Verdict::Differs { why } => {
            row["matches"] = json!(false);
            row["why"] = json!(why);
        }
    }
    row
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
