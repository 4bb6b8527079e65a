//! Worker groups between the wire and `core`. What the template wrote is checked here, once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyserve_core::{GroupSpec, Handler, Needs, Upgrades};

use crate::{MessageError, message as wire};

/// Most workers that a group may have, and most of a resource that a worker may need.
pub const MAX_WORKERS: u32 = 1024;

// === impl wire::Group ===

impl From<&GroupSpec> for wire::Group {
    fn from(spec: &GroupSpec) -> Self {
        let (min_workers, max_workers) = spec.workers.unwrap_or_default();
        let amount = |(name, amount): (&String, &u32)| wire::Amount { name: name.clone(), amount: *amount };
        let variable = |(name, value): &(String, String)| wire::Header { name: name.clone(), value: value.clone() };
        Self {
            name: spec.name.clone(),
            handlers: spec.handlers.iter().map(wire::Handler::from).collect(),
            gpus: spec.needs.gpus,
            tokens: spec.needs.tokens.iter().map(amount).collect(),
            min_workers,
            max_workers,
            idle_timeout_us: micros(spec.idle_timeout),
            sleeps: spec.sleeps,
            environment: spec.environment.iter().map(variable).collect(),
            python: spec.python.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned()),
            start_timeout_us: micros(spec.start_timeout),
            declares_workers: spec.workers.is_some(),
            upgrades: spec.upgrades.clone(),
        }
    }
}

impl TryFrom<wire::Group> for GroupSpec {
    type Error = MessageError;

    fn try_from(group: wire::Group) -> Result<Self, MessageError> {
        let workers = group.declares_workers.then_some((group.min_workers, group.max_workers));
        if let Some((min, max)) = workers
            && (max == 0 || max > MAX_WORKERS || min > max)
        {
            return Err(MessageError::Number { what: "max_workers", number: max });
        }
        Upgrades::parse(group.upgrades.iter().map(String::as_str))?;
        Ok(Self {
            needs: needs(&group)?,
            name: group.name,
            handlers: group.handlers.into_iter().map(Handler::try_from).collect::<Result<_, _>>()?,
            workers,
            idle_timeout: duration(group.idle_timeout_us),
            sleeps: group.sleeps,
            environment: group.environment.into_iter().map(|pair| (pair.name, pair.value)).collect(),
            python: Some(group.python).filter(|path| !path.is_empty()).map(Into::into),
            start_timeout: duration(group.start_timeout_us),
            upgrades: group.upgrades,
        })
    }
}

fn needs(group: &wire::Group) -> Result<Needs, MessageError> {
    let amounts = group.tokens.iter().map(|token| ("resources", token.amount)).chain([("gpus", group.gpus)]);
    for (what, number) in amounts {
        if number > MAX_WORKERS {
            return Err(MessageError::Number { what, number });
        }
    }
    let tokens: BTreeMap<_, _> = group.tokens.iter().map(|token| (token.name.clone(), token.amount)).collect();
    Ok(Needs { gpus: group.gpus, tokens })
}

/// 0 is none; what is shorter than a microsecond is one.
fn micros(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1))
}

fn duration(micros: u64) -> Option<Duration> {
    Some(micros).filter(|micros| *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Value};

    fn spec() -> GroupSpec {
        let capability = Capability::try_new([("type".to_owned(), Value::Text("chat".into()))]).unwrap();
        let tokens = BTreeMap::from([("token".to_owned(), 1)]);
        GroupSpec {
            needs: Needs { gpus: 2, tokens },
            workers: Some((0, 2)),
            idle_timeout: Some(Duration::from_mins(5)),
            sleeps: true,
            environment: vec![("A".into(), "b".into())],
            python: Some("/venv/bin/python".into()),
            start_timeout: Some(Duration::from_secs(9)),
            upgrades: vec!["type=chat -> type=chat.heavy".into()],
            ..GroupSpec::new("Chat", vec![Handler::new(capability)])
        }
    }

    #[test]
    fn a_group_comes_back_as_it_was() {
        for spec in [spec(), GroupSpec::new("default", vec![])] {
            assert_eq!(GroupSpec::try_from(wire::Group::from(&spec)).unwrap(), spec);
        }
    }

    #[test]
    fn numbers_that_no_group_can_have_are_refused_by_name() {
        let group = || wire::Group::from(&spec());
        let refused = |group: wire::Group| GroupSpec::try_from(group).unwrap_err().to_string();
        for (min, max) in [(0, 0), (3, 2), (0, MAX_WORKERS + 1)] {
            let error = refused(wire::Group { min_workers: min, max_workers: max, ..group() });
            assert!(error.contains("max_workers"), "{error}");
        }
        assert!(refused(wire::Group { gpus: MAX_WORKERS + 1, ..group() }).contains("gpus"));
        let upgrades = vec!["type=chat".into()];
        assert!(refused(wire::Group { upgrades, ..group() }).contains("must read 'key=value -> key=value'"));
        let tokens = vec![wire::Amount { name: "token".into(), amount: MAX_WORKERS + 1 }];
        assert!(refused(wire::Group { tokens, ..group() }).contains("resources"));
        assert!(GroupSpec::try_from(wire::Group { min_workers: 0, max_workers: MAX_WORKERS, ..group() }).is_ok());
    }
}
