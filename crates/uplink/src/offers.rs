//! What a replica serves and how busy it is, as it tells API servers.

use std::time::Duration;

use anyserve_cluster::RegistryLimits;
use anyserve_core::{Capability, CapabilityLoad, Catalog, CatalogEntry, Snapshot, Upgrades, Value};
use anyserve_proto::v1::capability_value::Value as ProtoValue;
use anyserve_proto::v1::{CapabilityValue, Load, Offer};

/// Everything that there is to tell at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Inventory {
    /// What requests are taken for.
    pub(crate) offers: Vec<Offer>,
    /// What a request may become that it does not serve, as texts.
    pub(crate) upgrades: Vec<String>,
    /// It takes no more requests.
    pub(crate) draining: bool,
    /// The version of the catalog.
    pub(crate) version: u64,
    /// Capabilities beyond what an API server takes.
    pub(crate) left_out: usize,
    /// Upgrade rules beyond that. They count here all the same.
    pub(crate) rules_left_out: usize,
}

// === impl Inventory ===

impl Inventory {
    /// What a catalog and the inside of the replica come to. What is closed is not offered.
    pub(crate) fn of(catalog: &Catalog, inside: &Snapshot) -> Self {
        let limits = RegistryLimits::default();
        let unknown = CapabilityLoad::default();
        let open = catalog.entries.iter().enumerate().filter_map(|(place, entry)| {
            let load = inside.capabilities.get(place).unwrap_or(&unknown);
            (!load.closed).then_some((entry, load))
        });
        let (fitting, odd): (Vec<_>, Vec<_>) = open.partition(|(entry, _)| fits(&entry.handler.capability, &limits));
        let left_out = odd.len() + fitting.len().saturating_sub(limits.max_capabilities);
        let offers =
            fitting.into_iter().take(limits.max_capabilities).map(|(entry, load)| offer(entry, load)).collect();
        let upgrades = upgrades(&catalog.upgrades, &limits);
        let rules_left_out = catalog.upgrades.len() - upgrades.len();
        Self { offers, upgrades, draining: catalog.draining, version: catalog.version, left_out, rules_left_out }
    }

    /// The loads, in the order of the offers.
    pub(crate) fn loads(&self) -> Vec<Load> {
        self.offers.iter().map(|offer| offer.load.unwrap_or_default()).collect()
    }

    /// Whether another one offers the same by the same rules, however busy it is.
    pub(crate) fn offers_the_same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Offer, &Offer)| {
            one.capability == other.capability && one.idempotent == other.idempotent && one.slots == other.slots
        };
        let rules = self.upgrades == other.upgrades;
        rules && self.offers.len() == other.offers.len() && self.offers.iter().zip(&other.offers).all(same)
    }
}

fn fits(capability: &Capability, limits: &RegistryLimits) -> bool {
    let short = |text: &str| text.len() <= limits.max_text;
    let value = |value: &Value| if let Value::Text(text) = value { short(text) } else { true };
    capability.len() <= limits.max_keys && capability.iter().all(|(key, own)| short(key) && value(own))
}

/// The rules that an API server takes, in their order.
fn upgrades(rules: &Upgrades, limits: &RegistryLimits) -> Vec<String> {
    let fitting = rules.iter().map(ToString::to_string).filter(|rule| rule.len() <= limits.max_upgrade);
    fitting.take(limits.max_upgrades).collect()
}

fn offer(entry: &CatalogEntry, load: &CapabilityLoad) -> Offer {
    let handler = &entry.handler;
    let pair = |(key, value): (&str, &Value)| (key.to_owned(), CapabilityValue { value: Some(to_proto(value)) });
    Offer {
        capability: handler.capability.iter().map(pair).collect(),
        idempotent: handler.idempotent,
        slots: narrow(load.slots).max(handler.concurrency),
        load: Some(Load {
            ready: load.workers > 0,
            saturated: load.saturated,
            pending: narrow(load.pending),
            wait_us: micros(load.wait),
            service_us: micros(load.service),
        }),
    }
}

fn to_proto(value: &Value) -> ProtoValue {
    match value {
        Value::Text(text) => ProtoValue::Text(text.clone()),
        Value::Int(number) => ProtoValue::Integer(*number),
        Value::Float(number) => ProtoValue::Number(*number),
        Value::Bool(truth) => ProtoValue::Truth(*truth),
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use anyserve_core::Handler;

    fn entry(pairs: Vec<(String, Value)>) -> CatalogEntry {
        let handler = Handler { concurrency: 3, ..Handler::new(Capability::try_new(pairs).unwrap()) };
        CatalogEntry { handler: Arc::new(handler), ready: true }
    }

    fn typed(kind: &str) -> CatalogEntry {
        entry(vec![("type".into(), Value::Text(kind.into()))])
    }

    fn inventory(entries: Vec<CatalogEntry>, capabilities: Vec<CapabilityLoad>) -> Inventory {
        let catalog = Catalog { entries, ..Catalog::default() };
        Inventory::of(&catalog, &Snapshot { capabilities, ..Snapshot::default() })
    }

    #[test]
    fn an_offer_has_every_kind_of_value_and_how_busy_it_is() {
        let pairs = [
            ("a", Value::Text("x".into()), ProtoValue::Text("x".into())),
            ("b", Value::Int(-7), ProtoValue::Integer(-7)),
            ("c", Value::Float(0.5), ProtoValue::Number(0.5)),
            ("d", Value::Bool(true), ProtoValue::Truth(true)),
        ];
        let own = pairs.iter().map(|(key, value, _)| ((*key).to_owned(), value.clone())).collect();
        let (wait, service) = (Duration::from_millis(2), Duration::from_micros(7));
        let load =
            CapabilityLoad { workers: 2, slots: 6, pending: 5, wait, service, saturated: true, ..Default::default() };
        let inventory = inventory(vec![entry(own)], vec![load]);
        let offer = &inventory.offers[0];
        let told = pairs.map(|(key, _, value)| (key.to_owned(), CapabilityValue { value: Some(value) }));
        assert_eq!(offer.capability, told.into());
        assert_eq!(offer.slots, 6);
        let expected = Load { ready: true, saturated: true, pending: 5, wait_us: 2_000, service_us: 7 };
        assert_eq!(inventory.loads(), [expected]);
    }

    #[test]
    fn what_is_closed_is_not_offered_and_what_may_be_started_is_not_ready() {
        let load = |closed, workers| CapabilityLoad { closed, workers, ..CapabilityLoad::default() };
        let told = inventory(vec![typed("a"), typed("b"), typed("c")], vec![load(true, 0), load(false, 0)]);
        let ready: Vec<_> = told.loads().iter().map(|load| load.ready).collect();
        assert_eq!((ready, told.offers[0].slots), (vec![false, false], 3));
    }

    #[test]
    fn the_same_offers_may_be_busier_and_have_as_many_slots() {
        let with = |workers, slots| {
            let load = CapabilityLoad { workers, slots, pending: workers, ..CapabilityLoad::default() };
            inventory(vec![typed("a")], vec![load])
        };
        assert!(with(1, 3).offers_the_same(&with(2, 3)));
        assert!(!with(1, 3).offers_the_same(&with(2, 6)));
        assert!(!with(1, 3).offers_the_same(&Inventory::default()));
    }

    #[test]
    fn rules_are_told_up_to_their_length_and_other_ones_are_other_offers() {
        let told = |rules: &[&str]| {
            let upgrades = Upgrades::parse(rules.iter().copied()).unwrap();
            Inventory::of(&Catalog { upgrades, ..Catalog::default() }, &Snapshot::default())
        };
        let (one, other) = (told(&["type=a->type=b"]), told(&["type=a->type=c"]));
        assert_eq!((&one.upgrades, one.rules_left_out), (&vec!["type=a -> type=b".to_owned()], 0));
        assert!(one.offers_the_same(&one) && !one.offers_the_same(&other));
        for (len, left_out) in [(1023, 0), (1024, 0), (1025, 1)] {
            let long = format!("type=a -> type=b{}", "x".repeat(len - "type=a -> type=b".len()));
            assert_eq!(told(&[&long, "type=x -> type=y"]).rules_left_out, left_out, "{len}");
        }
    }

    #[test]
    fn what_no_api_server_takes_is_left_out_and_counted() {
        let many = |count: usize| inventory((0..count).map(|number| typed(&number.to_string())).collect(), vec![]);
        for (count, left_out) in [(255, 0), (256, 0), (257, 1)] {
            let told = many(count);
            assert_eq!((told.offers.len(), told.left_out), (count - left_out, left_out));
        }
        for (len, left_out) in [(255, 0), (256, 0), (257, 1)] {
            assert_eq!(inventory(vec![typed(&"x".repeat(len))], vec![]).left_out, left_out, "{len}");
        }
        for (keys, left_out) in [(63, 0), (64, 0), (65, 1)] {
            let pairs = (0..keys).map(|key| (format!("k{key}"), Value::Int(1))).collect();
            assert_eq!(inventory(vec![entry(pairs)], vec![]).left_out, left_out, "{keys}");
        }
    }
}
