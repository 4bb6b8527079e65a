//! The definition of matching: which capabilities a query selects, and which of them come first.

use crate::{Capability, Query};

/// A capability that satisfies a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its place in the list that was searched.
    pub index: usize,
    /// Keys that the query does not mention. Fewer is more specific.
    pub unmentioned: usize,
}

/// The capabilities that satisfy a query, the most specific first, and among equals in the order of the list.
///
/// Every condition of the query must hold; keys that it does not mention don't hurt. A model name selects the
/// capabilities whose `model` it is and, where there are none, those whose `type` it is.
pub fn matches_of<'a>(query: &Query, capabilities: impl Iterator<Item = &'a Capability> + Clone) -> Vec<Match> {
    let mut found = match query {
        Query::All(conditions) => select(capabilities, mentioned(query), |capability| {
            conditions.iter().all(|condition| condition.holds(capability))
        }),
        Query::Model(name) => by_model(name, &capabilities),
    };
    found.sort_by_key(|found| (found.unmentioned, found.index));
    found
}

fn by_model<'a>(name: &str, capabilities: &(impl Iterator<Item = &'a Capability> + Clone)) -> Vec<Match> {
    let named = |key: &'static str| {
        move |capability: &Capability| capability.get(key).is_some_and(|value| value.is_spelled(name))
    };
    let models = select(capabilities.clone(), |key| key == "model", named("model"));
    if models.is_empty() { select(capabilities.clone(), |key| key == "type", named("type")) } else { models }
}

fn mentioned(query: &Query) -> impl Fn(&str) -> bool {
    let keys: Vec<&str> = match query {
        Query::All(conditions) => conditions.iter().map(|condition| condition.key.as_str()).collect(),
        Query::Model(_) => Vec::new(),
    };
    move |key| keys.contains(&key)
}

fn select<'a>(
    capabilities: impl Iterator<Item = &'a Capability>,
    mentions: impl Fn(&str) -> bool,
    holds: impl Fn(&Capability) -> bool,
) -> Vec<Match> {
    let unmentioned = |capability: &Capability| capability.iter().filter(|(key, _)| !mentions(key)).count();
    capabilities
        .enumerate()
        .filter(|(_, capability)| holds(capability))
        .map(|(index, capability)| Match { index, unmentioned: unmentioned(capability) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn capability(text: &str) -> Capability {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap();
            let number = value.parse().map(Value::Int);
            (key.to_owned(), number.unwrap_or_else(|_| Value::Text(value.to_owned())))
        };
        Capability::try_new(text.split(',').map(pair)).unwrap()
    }

    fn found(query: &Query, list: &[&str]) -> Vec<usize> {
        let list: Vec<_> = list.iter().map(|text| capability(text)).collect();
        matches_of(query, list.iter()).into_iter().map(|found| found.index).collect()
    }

    #[test]
    fn extra_keys_do_not_hurt_but_the_most_specific_comes_first() {
        let list = ["type=chat,model=a,size=7", "type=chat", "type=embed", "type=chat,model=b"];
        assert_eq!(found(&Query::parse("type=chat").unwrap(), &list), [1, 3, 0]);
        assert_eq!(found(&Query::parse("type=chat,size>=7").unwrap(), &list), [0]);
    }

    #[test]
    fn a_model_name_matches_models_first_and_types_where_there_is_none() {
        let list = ["type=chat,model=echo", "type=echo", "type=embed,model=minilm"];
        assert_eq!(found(&Query::model("echo"), &list), [0]);
        assert_eq!(found(&Query::model("embed"), &list), [2]);
        assert_eq!(found(&Query::model("nothing"), &list), [0; 0]);
    }

    #[test]
    fn no_conditions_match_everything_and_a_missing_key_is_only_unequal() {
        let list = ["type=chat", "model=a"];
        assert_eq!(found(&Query::all(vec![]), &list), [0, 1]);
        assert_eq!(found(&Query::parse("type!=chat").unwrap(), &list), [1]);
        assert_eq!(found(&Query::parse("type notin (chat)").unwrap(), &list), [1]);
        assert_eq!(found(&Query::parse("model").unwrap(), &list), [1]);
        assert_eq!(found(&Query::parse("!model").unwrap(), &list), [0]);
    }
}
