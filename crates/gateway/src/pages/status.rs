//! `/status`: all replicas once a second, as server-sent events, for as long as somebody reads.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyserve_cluster::{CapabilityView, OfferView, ReplicaView};
use anyserve_server::parts::http::failed;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::Seen;
use crate::registry::{health, heard, standing, state, why};

const EVENTS: &str = "text/event-stream";

/// How long a reader waits until it comes back after the connection was lost, in milliseconds.
const RETRY: &str = "retry: 1000\n";

/// Replicas that are shown one by one: those out of reach, those that leave, then the others, each by their ids. Counts
/// are of all.
const MAX_REPLICAS: usize = 500;

/// Capabilities of one replica that are shown.
const MAX_CAPABILITIES: usize = 32;

/// Different capabilities of all replicas that are shown.
const MAX_CAPABILITIES_OF_ALL: usize = 500;

/// One who reads. It is polled when the connection has room: who does not read makes nothing.
struct Watcher {
    seen: Arc<Seen>,
    /// When the next event is due; none for the first.
    due: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

pub(super) fn router() -> Router<Arc<Seen>> {
    Router::new().route("/status", get(events))
}

async fn events(State(seen): State<Arc<Seen>>) -> Response {
    let place = match seen.pulse.enter() {
        Ok(place) => place,
        Err(error) => return failed(&error),
    };
    let events = Body::from_stream(stream::unfold(Watcher { seen, due: None, _place: place }, Watcher::next));
    ([(CONTENT_TYPE, EVENTS), (CACHE_CONTROL, "no-store")], events).into_response()
}

// === impl Watcher ===

impl Watcher {
    /// The next event. A server that leaves ends it, so that nobody who watches holds up its end.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let first = self.due.is_none();
        if let Some(due) = self.due {
            tokio::select! {
                biased;
                () = self.seen.leaving.cancelled() => return None,
                () = sleep_until(due) => {}
            }
        }
        let now = Instant::now();
        let event = self.seen.pulse.newest(now, || format!("data: {}\n\n", whole(&self.seen)).into());
        self.due = Some(self.seen.pulse.next(now));
        let event = if first { Bytes::from([RETRY.as_bytes(), &event].concat()) } else { event };
        Some((Ok(event), self))
    }
}

/// All of it. JSON has no line ends of its own, so that an event is one line.
fn whole(seen: &Seen) -> Value {
    let fleet = &seen.fleet;
    let (mut views, counted) = (fleet.views(), fleet.counters().read());
    let states = states(&views);
    let here = views.iter().filter(|view| !view.adopted).count();
    // What is wrong is seen however many there are.
    views.sort_by_key(|view| ["up", "draining"].iter().position(|fine| *fine == state(view)).map_or(0, |at| 2 - at));
    let shown = &views[..views.len().min(MAX_REPLICAS)];
    let rows = shown.iter().zip(fleet.offers_of(shown)).map(|(view, offers)| replica(view, &offers));
    let (capabilities, count) =
        fleet.with(|registry, _| (registry.capability_views(MAX_CAPABILITIES_OF_ALL), registry.capabilities().len()));
    let of = |wanted: fn(&str) -> bool| -> u64 {
        counted.ended.iter().filter(|(code, _)| wanted(code)).map(|(_, count)| count).sum()
    };
    json!({
        "version": seen.version,
        "uptime_s": seconds(fleet.started().elapsed()),
        "draining": seen.draining(),
        "policy": fleet.policy(),
        "store": fleet.store().state().name(),
        "in_flight": counted.in_flight,
        "succeeded": of(|code| code == "OK"),
        "failed": of(|code| code != "OK"),
        "delegations": counted.delegations,
        "count": views.len(),
        "up": states["up"],
        "states": states,
        "heard_here": here,
        "replicas": rows.collect::<Vec<_>>(),
        "capabilities": capabilities.iter().map(capability_of_all).collect::<Vec<_>>(),
        "more_capabilities": count - capabilities.len(),
    })
}

/// How many replicas there are, by state.
fn states(views: &[ReplicaView]) -> BTreeMap<&'static str, u64> {
    let mut states = BTreeMap::from([("up", 0), ("draining", 0), ("ejected", 0), ("probing", 0)]);
    for view in views {
        *states.entry(state(view)).or_default() += 1;
    }
    states
}

fn replica(view: &ReplicaView, offers: &[OfferView]) -> Value {
    let now = std::time::Instant::now();
    let shown = &offers[..offers.len().min(MAX_CAPABILITIES)];
    let sum = |of: fn(&OfferView) -> u32| offers.iter().map(|offer| u64::from(of(offer))).sum::<u64>();
    json!({
        "id": &*view.id,
        "epoch": view.epoch,
        "endpoint": &*view.endpoint,
        "state": state(view),
        "why": why(view, now),
        "health": health(view.health),
        "draining": view.draining,
        "heard": heard(view),
        "lease_s": seconds(view.lease_until.saturating_duration_since(now)),
        "pending": sum(|offer| offer.load.pending),
        "slots": sum(|offer| offer.slots),
        "capabilities": shown.iter().map(capability).collect::<Vec<_>>(),
        "more": offers.len() - shown.len(),
    })
}

fn capability(offer: &OfferView) -> Value {
    json!({
        "capability": offer.capability.to_string(),
        "standing": standing(offer),
        "pending": offer.load.pending,
        "wait_ms": milliseconds(offer.load.wait),
    })
}

fn capability_of_all(view: &CapabilityView) -> Value {
    let [ready, cold, saturated, ejected] = view.standings;
    json!({
        "capability": view.capability.to_string(),
        "replicas": view.replicas,
        "ready": ready,
        "cold": cold,
        "saturated": saturated,
        "ejected": ejected,
        "pending": view.pending,
        "wait_ms": view.wait.map(milliseconds),
    })
}

/// Seconds, to the millisecond.
fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds, to the microsecond.
fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
