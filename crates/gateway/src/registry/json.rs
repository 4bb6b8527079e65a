//! Messages of replicas that come as JSON. They become the messages of the service, so that the same is checked.

use std::collections::BTreeMap;
use std::fmt;

use anyserve_core::Error;
use anyserve_proto::v1;
use anyserve_proto::v1::CapabilityValue;
use anyserve_proto::v1::capability_value::Value as Written;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `POST /register`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    id: String,
    epoch: u64,
    seq: u64,
    endpoint: String,
    #[serde(default)]
    draining: bool,
    offers: Vec<Offered>,
    #[serde(default)]
    upgrades: Vec<String>,
}

/// `POST /heartbeat`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beat {
    id: String,
    epoch: u64,
    seq: u64,
    registered: u64,
    #[serde(default)]
    draining: bool,
    loads: Vec<Loaded>,
}

/// `DELETE /unregister`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leaving {
    pub(super) id: String,
    pub(super) epoch: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offered {
    capability: Pairs,
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    slots: u32,
    #[serde(default)]
    load: Loaded,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Loaded {
    ready: bool,
    saturated: bool,
    pending: u32,
    wait_us: u64,
    service_us: u64,
}

/// A capability: texts, whole numbers, numbers with a fraction, true and false, and no key twice.
#[derive(Debug)]
struct Pairs(BTreeMap<String, CapabilityValue>);

/// Reads a message.
///
/// # Errors
/// `INVALID_INPUT` with the line and column where it is no such message.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::invalid(format!("the body: {error}")))
}

impl From<Registration> for v1::RegisterRequest {
    fn from(said: Registration) -> Self {
        let Registration { id, epoch, seq, endpoint, draining, offers, upgrades } = said;
        Self { id, epoch, seq, endpoint, draining, offers: offers.into_iter().map(v1::Offer::from).collect(), upgrades }
    }
}

impl From<Beat> for v1::HeartbeatRequest {
    fn from(said: Beat) -> Self {
        let Beat { id, epoch, seq, registered, draining, loads } = said;
        Self { id, epoch, seq, registered, draining, loads: loads.into_iter().map(v1::Load::from).collect() }
    }
}

impl From<Offered> for v1::Offer {
    fn from(said: Offered) -> Self {
        let Offered { capability, idempotent, slots, load } = said;
        Self { capability: capability.0, idempotent, slots, load: Some(load.into()) }
    }
}

impl From<Loaded> for v1::Load {
    fn from(said: Loaded) -> Self {
        let Loaded { ready, saturated, pending, wait_us, service_us } = said;
        Self { ready, saturated, pending, wait_us, service_us }
    }
}

// === impl Pairs ===

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from keys to texts, numbers, true or false")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
                    let written = written(&key, value).map_err(A::Error::custom)?;
                    if pairs.contains_key(&key) {
                        return Err(A::Error::custom(format!("the key '{key}' stands twice in a capability")));
                    }
                    pairs.insert(key, CapabilityValue { value: Some(written) });
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

fn written(key: &str, value: serde_json::Value) -> Result<Written, String> {
    match value {
        serde_json::Value::String(text) => Ok(Written::Text(text)),
        serde_json::Value::Bool(truth) => Ok(Written::Truth(truth)),
        serde_json::Value::Number(number) => match (number.as_i64(), number.is_u64(), number.as_f64()) {
            (Some(number), _, _) => Ok(Written::Integer(number)),
            (None, false, Some(number)) => Ok(Written::Number(number)),
            _ => Err(format!("the value of '{key}' is {number}: a whole number is at most {}", i64::MAX)),
        },
        _ => Err(format!("the value of '{key}' must be a text, a number, true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capability(json: &str) -> Result<BTreeMap<String, CapabilityValue>, String> {
        parse::<Pairs>(json.as_bytes()).map(|pairs| pairs.0).map_err(|error| error.message)
    }

    #[test]
    fn values_keep_their_types() {
        let read = capability(r#"{"a": "1", "b": 1, "c": 1.0, "d": true, "e": 9223372036854775807}"#).unwrap();
        let values: Vec<_> = read.into_values().map(|value| value.value.unwrap()).collect();
        let expected = [
            Written::Text("1".into()),
            Written::Integer(1),
            Written::Number(1.0),
            Written::Truth(true),
            Written::Integer(i64::MAX),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn what_no_capability_can_have_is_named() {
        for (json, part) in [
            (r#"{"a": null}"#, "the value of 'a' must be a text"),
            (r#"{"a": [1]}"#, "the value of 'a' must be a text"),
            (r#"{"a": 9223372036854775808}"#, "a whole number is at most 9223372036854775807"),
            (r#"{"a": 1, "a": 2}"#, "the key 'a' stands twice"),
            ("[]", "a map from keys"),
        ] {
            let message = capability(json).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_field_that_there_is_not_and_one_that_is_missing_are_named() {
        let message = |json: &str| parse::<Beat>(json.as_bytes()).unwrap_err().message;
        assert!(message(r#"{"id": "a", "epoch": 1, "seqq": 1}"#).contains("seqq"));
        assert!(message(r#"{"id": "a", "epoch": 1, "seq": 1, "registered": 1}"#).contains("loads"));
        assert!(message(r#"{"id": "a", "epoch": -1}"#).contains("column"));
    }

    #[test]
    fn rules_are_a_list_of_texts_and_may_be_left_out() {
        let rules = |more: &str| {
            let json = format!(r#"{{"id": "a", "epoch": 1, "seq": 1, "endpoint": "http://h:1", "offers": []{more}}}"#);
            parse::<Registration>(json.as_bytes()).map(|said| v1::RegisterRequest::from(said).upgrades)
        };
        assert_eq!(rules(""), Ok(vec![]));
        assert_eq!(rules(r#", "upgrades": ["type=a -> type=b"]"#), Ok(vec!["type=a -> type=b".to_owned()]));
        assert!(rules(r#", "upgrades": [1]"#).is_err() && rules(r#", "upgrades": "type=a -> type=b""#).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(text in "[{}\\[\\]:,\"a-e0-9.]{0,60}") {
            let _ = parse::<Registration>(text.as_bytes());
            let _ = capability(&text);
        }
    }
}
