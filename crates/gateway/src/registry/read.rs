//! Messages of replicas and clients become what the registry understands; what is more than it takes is refused.

use std::sync::Arc;
use std::time::Duration;

use anyserve_client::Endpoint;
use anyserve_cluster::{Announce, Heartbeat, Load, MessageError, Offer, RegistryLimits, check_upgrades};
use anyserve_core::{Capability, Code, Error, Query, Upgrades, Value};
use anyserve_proto::v1;
use anyserve_proto::v1::capability_value::Value as Written;
use anyserve_proto::v1::resolve_request::Query as Asked;

use super::MAX_AVOID;

/// An announcement. Counts are compared before anything is made of them; texts are the registry's to check.
///
/// # Errors
/// `INVALID_INPUT` for too many capabilities or upgrade rules, one that is none, or an endpoint that nobody can connect to.
pub(crate) fn announce(said: v1::RegisterRequest, limits: &RegistryLimits) -> Result<Announce, Error> {
    let v1::RegisterRequest { id, epoch, seq, endpoint, draining, offers, upgrades } = said;
    let (count, max) = (offers.len(), limits.max_capabilities);
    if count > max {
        return Err(refused(&MessageError::TooManyCapabilities { id, count, max }));
    }
    check_endpoint(&endpoint)?;
    let offers = offers.into_iter().enumerate().map(|(place, said)| offer(place, said)).collect::<Result<_, _>>()?;
    let upgrades = self::upgrades(&id, &upgrades, limits)?;
    Ok(Announce { id, epoch, seq, endpoint, draining, offers, upgrades })
}

fn upgrades(id: &str, texts: &[String], limits: &RegistryLimits) -> Result<Upgrades, Error> {
    check_upgrades(id, texts.iter(), limits).map_err(|error| refused(&error))?;
    Upgrades::parse(texts.iter().map(String::as_str)).map_err(|error| Error::invalid(error.to_string()))
}

/// A heartbeat.
pub(crate) fn heartbeat(said: v1::HeartbeatRequest) -> Heartbeat {
    let v1::HeartbeatRequest { id, epoch, seq, registered, draining, loads } = said;
    Heartbeat { id, epoch, seq, announced: registered, draining, loads: loads.iter().map(load).collect() }
}

/// What is asked for.
///
/// # Errors
/// `INVALID_INPUT` if nothing is, or a selector cannot be read.
pub(crate) fn query(asked: Option<Asked>) -> Result<Query, Error> {
    match asked {
        Some(Asked::Model(name)) if !name.is_empty() => Ok(Query::model(&name)),
        Some(Asked::Selector(selector)) if !selector.is_empty() => {
            Query::parse(&selector).map_err(|error| Error::invalid(error.to_string()))
        }
        _ => Err(Error::invalid("nothing is asked for: give a selector such as type=chat, or a model name")),
    }
}

/// Ids of replicas that were tried in vain.
///
/// # Errors
/// `INVALID_INPUT` if there are too many. One that no replica has makes no difference.
pub(crate) fn avoid(ids: Vec<String>) -> Result<Vec<Arc<str>>, Error> {
    let (count, max) = (ids.len(), MAX_AVOID);
    if count > max {
        return Err(Error::invalid(format!("{count} replicas are to be avoided, at most {max} can be named")));
    }
    Ok(ids.into_iter().map(Arc::from).collect())
}

/// The error that a client is told for a message that breaks the rules.
pub(crate) fn refused(error: &MessageError) -> Error {
    let code = if matches!(error, MessageError::Full { .. }) { Code::Overloaded } else { Code::InvalidInput };
    Error::new(code, error.to_string())
}

fn check_endpoint(text: &str) -> Result<(), Error> {
    let read = text.parse::<Endpoint>().map_err(|error| Error::invalid(error.to_string()))?;
    // Without a scheme it would be read as well, and the registry would refuse it with less to go by.
    if text.starts_with("http") { Ok(()) } else { Err(Error::invalid(format!("the endpoint must be http://{read}"))) }
}

fn offer(place: usize, said: v1::Offer) -> Result<Offer, Error> {
    let v1::Offer { capability, idempotent, slots, load: said } = said;
    let pairs = capability.into_iter().map(|(key, value)| match value.value {
        Some(value) => Ok((key, self::value(value))),
        None => Err(Error::invalid(format!("capability {place}: the value of '{key}' is missing"))),
    });
    let capability = self::capability(place, pairs.collect::<Result<_, _>>()?)?;
    Ok(Offer { capability, idempotent, slots, load: said.as_ref().map(load).unwrap_or_default() })
}

/// The capability of these pairs, the one at this place of its message.
pub(crate) fn capability(place: usize, pairs: Vec<(String, Value)>) -> Result<Capability, Error> {
    Capability::try_new(pairs).map_err(|error| Error::invalid(format!("capability {place}: {error}")))
}

fn value(written: Written) -> Value {
    match written {
        Written::Text(text) => Value::Text(text),
        Written::Integer(number) => Value::Int(number),
        Written::Number(number) => Value::Float(number),
        Written::Truth(truth) => Value::Bool(truth),
    }
}

fn load(said: &v1::Load) -> Load {
    Load {
        ready: said.ready,
        saturated: said.saturated,
        pending: said.pending,
        wait: Duration::from_micros(said.wait_us),
        service: Duration::from_micros(said.service_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_proto::v1::CapabilityValue;
    use proptest::prelude::*;
    use prost::Message;

    fn text(text: &str) -> CapabilityValue {
        CapabilityValue { value: Some(Written::Text(text.into())) }
    }

    fn said(offers: usize) -> v1::RegisterRequest {
        let capability = [("type".to_owned(), text("x"))].into();
        let offer = v1::Offer { capability, ..Default::default() };
        let (id, endpoint) = ("a".to_owned(), "http://h:1".to_owned());
        v1::RegisterRequest {
            id,
            epoch: 1,
            seq: 1,
            endpoint,
            draining: false,
            offers: vec![offer; offers],
            upgrades: vec![],
        }
    }

    #[test]
    fn as_many_capabilities_as_may_be_are_read_and_one_more_is_refused() {
        let limits = RegistryLimits { max_capabilities: 3, ..RegistryLimits::default() };
        for (count, fits) in [(2, true), (3, true), (4, false)] {
            assert_eq!(announce(said(count), &limits).is_ok(), fits, "{count}");
        }
        let error = announce(said(4), &limits).unwrap_err();
        assert!(error.message.contains("4 capabilities, at most 3"), "{error}");
    }

    #[test]
    fn as_many_rules_as_may_be_are_read_up_to_their_length_and_one_more_is_refused() {
        let limits = RegistryLimits::default();
        let with = |upgrades: Vec<String>| announce(v1::RegisterRequest { upgrades, ..said(1) }, &limits);
        let rule = "type=a -> type=b".to_owned();
        for (count, fits) in [(63, true), (64, true), (65, false)] {
            assert_eq!(
                with(vec![rule.clone(); count]).map(|announce| announce.upgrades.len()).ok(),
                fits.then_some(count)
            );
        }
        for (len, fits) in [(1023, true), (1024, true), (1025, false)] {
            let long = format!("{rule}{}", "x".repeat(len - rule.len()));
            assert_eq!(with(vec![long]).is_ok(), fits, "{len}");
        }
        let message = |rule: &str| with(vec![rule.to_owned()]).unwrap_err().message;
        assert!(message("type=a").contains("'key=value -> key=value'"));
        assert!(message(&"x".repeat(1025)).contains("an upgrade rule has 1025 bytes, at most 1024"));
    }

    #[test]
    fn what_cannot_be_announced_is_named() {
        let refused = |change: &dyn Fn(&mut v1::RegisterRequest)| {
            let mut said = said(1);
            change(&mut said);
            announce(said, &RegistryLimits::default()).unwrap_err().message
        };
        for endpoint in ["", "h:1", "http://", "http://h:1/x", "grpc://h:1", "http://h:0"] {
            assert!(refused(&|said| said.endpoint = endpoint.into()).contains("endpoint"), "{endpoint}");
        }
        let missing = refused(&|said| drop(said.offers[0].capability.insert("k".into(), CapabilityValue::default())));
        assert!(missing.contains("capability 0: the value of 'k' is missing"), "{missing}");
        assert!(refused(&|said| said.offers[0].capability.clear()).contains("at least one key"));
        let infinite = CapabilityValue { value: Some(Written::Number(f64::INFINITY)) };
        let error = refused(&|said| drop(said.offers[0].capability.insert("k".into(), infinite.clone())));
        assert!(error.contains("not a finite number"), "{error}");
    }

    #[test]
    fn a_question_asks_for_something_and_avoids_a_few() {
        assert_eq!(query(Some(Asked::Model("m".into()))), Ok(Query::model("m")));
        assert_eq!(query(Some(Asked::Selector("a>=1".into()))), Ok(Query::parse("a>=1").unwrap()));
        for nothing in [None, Some(Asked::Model(String::new())), Some(Asked::Selector(String::new()))] {
            assert!(query(nothing).unwrap_err().message.contains("nothing is asked for"));
        }
        assert!(query(Some(Asked::Selector("a>=".into()))).unwrap_err().message.contains("position 3"));
        for (count, fits) in [(MAX_AVOID - 1, true), (MAX_AVOID, true), (MAX_AVOID + 1, false)] {
            assert_eq!(avoid(vec!["a".into(); count]).is_ok(), fits);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_announcement_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(said) = v1::RegisterRequest::decode(&*bytes) {
                let _ = announce(said, &RegistryLimits::default());
            }
            if let Ok(said) = v1::HeartbeatRequest::decode(&*bytes) {
                let _ = heartbeat(said);
            }
        }
    }
}
