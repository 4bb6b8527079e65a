//! `/metrics`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyserve_cluster::Counts;
use anyserve_server::CertificateDates;
use anyserve_server::parts::pages::encode::{OPEN_METRICS, counter, counters, gauge, gauges, page};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::Seen;
use crate::store::StoreState;
use crate::{Counted, registry};

/// Everything one scrape shows.
#[derive(Debug)]
struct Scrape {
    by_health: BTreeMap<&'static str, u64>,
    draining_replicas: u64,
    capabilities: u64,
    counts: Counts,
    counted: Counted,
    store: StoreState,
    policy: &'static str,
    version: String,
    certificates: CertificateDates,
    draining: bool,
}

pub(super) fn router() -> Router<Arc<Seen>> {
    Router::new().route("/metrics", get(scrape))
}

async fn scrape(State(seen): State<Arc<Seen>>) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], page(Scrape::of(&seen))).into_response()
}

// === impl Scrape ===

impl Scrape {
    fn of(seen: &Seen) -> Self {
        let mut by_health = BTreeMap::from([("up", 0), ("ejected", 0), ("probing", 0)]);
        let (mut draining_replicas, views) = (0, seen.fleet.views());
        for view in &views {
            *by_health.entry(registry::health(view.health)).or_default() += 1;
            draining_replicas += u64::from(view.draining);
        }
        let (counts, capabilities) = seen.fleet.with(|registry, _| (registry.counts(), registry.capabilities().len()));
        Self {
            by_health,
            draining_replicas,
            capabilities: u64::try_from(capabilities).unwrap_or(u64::MAX),
            counts,
            counted: seen.fleet.counters().read(),
            store: seen.fleet.store().state(),
            policy: seen.fleet.policy(),
            version: seen.version.clone(),
            certificates: seen.certificates.clone(),
            draining: seen.draining(),
        }
    }

    fn registry(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.by_health.iter().map(|(health, count)| (vec![("health", *health)], *count));
        gauges(encoder, "replicas", "Replicas that are registered, by health", rows)?;
        gauge(encoder, "replicas_draining", "Replicas that take no more requests", self.draining_replicas)?;
        gauge(encoder, "capabilities", "Different capabilities of all replicas", self.capabilities)?;
        let Counts { announced, heartbeats, left, expired, ejected } = self.counts;
        counter(encoder, "registrations", "Registrations that were written down", announced)?;
        counter(encoder, "heartbeats", "Heartbeats that were written down", heartbeats)?;
        counter(encoder, "leaves", "Replicas that said that they go", left)?;
        counter(encoder, "expiries", "Replicas whose leases were over", expired)?;
        counter(encoder, "ejections", "Replicas that were ejected because a connection failed", ejected)
    }

    fn routed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counted = &self.counted;
        let rows = counted.ended.iter().map(|(code, count)| (vec![("code", *code)], *count));
        counters(encoder, "routed_requests", "Requests that were routed and have ended, by code", rows)?;
        let help = "Requests that are routed and have not ended";
        gauge(encoder, "routed_requests_in_flight", help, counted.in_flight)?;
        let help = "Requests that were sent to a replica, each time anew";
        counter(encoder, "routed_attempts", help, counted.attempts)?;
        counter(encoder, "routed_delegations", "Ended requests that were handed on", counted.delegations)?;
        counter(encoder, "routed_questions", "Questions whether a replica serves a request", counted.asked)?;
        counter(encoder, "routed_unreached", "Connections to replicas that could not be made", counted.unreached)
    }

    fn server(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let about = vec![("version", &*self.version), ("policy", self.policy)];
        gauges(encoder, "api_server", "1, with what this API server is", std::iter::once((about, 1)))?;
        let connected = u64::from(self.store != StoreState::Disconnected);
        let help = "1 unless the store that API servers share is away";
        gauge(encoder, "store_connected", help, connected)?;
        gauge(encoder, "draining", "1 once the API server has begun to leave", u64::from(self.draining))
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.registry(&mut encoder)?;
        self.routed(&mut encoder)?;
        self.server(&mut encoder)?;
        self.certificates.encode(&mut encoder)
    }
}
