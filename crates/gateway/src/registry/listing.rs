//! Replicas as JSON.

use std::time::Instant;

use anyserve_cluster::{Health, OfferView, ReplicaView, Standing};
use anyserve_core::{Capability, Upgrades, Value as Held};
use serde_json::{Map, Value, json};

use super::write::{micros, millis};

/// A replica with these capabilities of it, and its upgrade rules.
pub(super) fn replica(view: &ReplicaView, offers: &[OfferView], upgrades: &Upgrades, now: Instant) -> Value {
    json!({
        "id": &*view.id,
        "epoch": view.epoch,
        "endpoint": &*view.endpoint,
        "health": health(view.health),
        "draining": view.draining,
        "lease_ms": millis(view.lease_until.saturating_duration_since(now)),
        "capabilities": offers.iter().map(offer).collect::<Vec<_>>(),
        "upgrades": upgrades.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// A capability as a map.
pub(crate) fn capability(capability: &Capability) -> Value {
    let value = |held: &Held| match held {
        Held::Text(text) => json!(text),
        Held::Int(number) => json!(number),
        Held::Float(number) => json!(number),
        Held::Bool(truth) => json!(truth),
    };
    Value::Object(capability.iter().map(|(key, held)| (key.to_owned(), value(held))).collect::<Map<_, _>>())
}

/// `up`, `ejected` or `probing`.
pub(crate) fn health(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Ejected { .. } => "ejected",
        Health::Probing { .. } => "probing",
    }
}

fn offer(offer: &OfferView) -> Value {
    json!({
        "capability": capability(&offer.capability),
        "idempotent": offer.idempotent,
        "slots": offer.slots,
        "standing": standing(offer),
        "ready": offer.load.ready,
        "saturated": offer.load.saturated,
        "pending": offer.load.pending,
        "wait_us": micros(offer.load.wait),
        "service_us": micros(offer.load.service),
    })
}

/// How fit it is to be sent requests: `ready`, `cold`, `saturated`, `ejected`, or why no request goes there.
pub(crate) fn standing(offer: &OfferView) -> &'static str {
    match offer.standing {
        Some(Standing::Ready) => "ready",
        Some(Standing::Cold) => "cold",
        Some(Standing::Saturated) => "saturated",
        Some(Standing::Ejected) => "ejected",
        None if offer.denied => "denied",
        None => "draining",
    }
}
