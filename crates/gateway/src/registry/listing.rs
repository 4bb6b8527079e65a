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
        "state": state(view),
        "why": why(view, now),
        "heard": heard(view),
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

/// `up`, `draining`, `ejected` or `probing`: the one thing to know of a replica first.
pub(crate) fn state(view: &ReplicaView) -> &'static str {
    if view.draining { "draining" } else { health(view.health) }
}

/// Who hears it: this server `here`, or another one, which tells it through the `store`.
pub(crate) fn heard(view: &ReplicaView) -> &'static str {
    if view.adopted { "store" } else { "here" }
}

/// Why no request goes there without need; nothing of one that is up.
pub(crate) fn why(view: &ReplicaView, now: Instant) -> Option<String> {
    let (until, strikes) = match view.health {
        Health::Up => return view.draining.then(|| "it takes no more requests".to_owned()),
        Health::Ejected { until, strikes } => (Some(until), strikes),
        Health::Probing { strikes, .. } => (None, strikes),
    };
    let trouble = view.trouble.as_deref().unwrap_or("a connection failed");
    let next = until.map_or("it is asked now".to_owned(), |until| {
        format!("it is asked again in {:.1} s", until.saturating_duration_since(now).as_secs_f64())
    });
    let times = if strikes == 1 { "once".to_owned() } else { format!("{strikes} times") };
    Some(format!("{trouble}; tried {times} in vain, {next}"))
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
