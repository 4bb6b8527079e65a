//! What becomes of a request, and why: every handler that was looked at, and what is decided.

use std::time::Duration;

use crate::{Capability, Condition, Error, Query, matches_of};

/// The scheduler's answer to "what would you do with this request now?".
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The query, as it reads.
    pub query: String,
    /// Every handler of the replica, in the order of the catalog.
    pub candidates: Vec<Candidate>,
    /// What is done with the request.
    pub decision: Decision,
}

/// One handler that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name of its worker group.
    pub group: String,
    /// What it serves, as it reads.
    pub capability: String,
    /// The function's name.
    pub function: String,
    /// Whether it matches.
    pub verdict: Verdict,
    /// `ready`, `saturated`, `starting`, `draining` or `down`.
    pub health: &'static str,
    /// Requests that wait for it.
    pub queued: usize,
    /// Requests that may wait for it.
    pub max_queue: usize,
    /// Requests of its group that are with a worker.
    pub in_flight: usize,
    /// Workers of its group that take requests.
    pub workers: usize,
    /// How long the request would wait for it, as far as that is known.
    pub expected_wait: Duration,
    /// Whether it is the one that the request goes to.
    pub chosen: bool,
}

/// Whether a handler matches a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does; so many of its keys are not mentioned by the query, fewer is more specific.
    Matches {
        /// Keys of the capability that the query does not mention.
        unmentioned: usize,
    },
    /// It does not, and this is the first condition that fails, with what the capability has instead.
    Differs {
        /// Such as `model=x is asked for, it has model=y`.
        why: String,
    },
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It goes to a worker at once.
    Run {
        /// The worker: `worker-0`.
        worker: String,
    },
    /// It waits.
    Wait {
        /// Requests that go before it.
        ahead: usize,
        /// How long, as far as that is known.
        expected: Duration,
    },
    /// It is refused.
    Refuse(Error),
}

// === impl Verdict ===

impl Verdict {
    /// Whether a capability matches, if it is the only one.
    pub fn of(query: &Query, capability: &Capability) -> Self {
        verdicts(query, std::iter::once(capability)).remove(0)
    }
}

/// Whether each of these capabilities is among [`matches_of`], in their order, and if not, why.
pub fn verdicts<'a>(query: &Query, capabilities: impl Iterator<Item = &'a Capability>) -> Vec<Verdict> {
    let list: Vec<&Capability> = capabilities.collect();
    let mut unmentioned = vec![None; list.len()];
    for found in matches_of(query, list.iter().copied()) {
        unmentioned[found.index] = Some(found.unmentioned);
    }
    let differs = |capability| why_not(query, capability).unwrap_or_else(|| less_than_a_model(query));
    let verdict = |(capability, unmentioned): (_, Option<usize>)| {
        let matches = unmentioned.map(|unmentioned| Verdict::Matches { unmentioned });
        matches.unwrap_or_else(|| Verdict::Differs { why: differs(capability) })
    };
    list.into_iter().zip(unmentioned).map(verdict).collect()
}

/// The first condition that a capability does not satisfy, with what it has instead; `None` if it satisfies all.
///
/// A model name is satisfied by a `type` as well as by a `model` here: that the first counts only where nobody has the
/// second is a matter between capabilities, see [`verdicts`].
pub fn why_not(query: &Query, capability: &Capability) -> Option<String> {
    match query {
        Query::All(conditions) => {
            let failing = conditions.iter().find(|condition| !condition.holds(capability))?;
            Some(format!("{failing} is asked for, it has {}", own(capability, &failing.key)))
        }
        Query::Model(name) => {
            let named = |key: &&str| Condition::equals(*key, name).holds(capability);
            if ["model", "type"].iter().any(named) {
                return None;
            }
            let (model, kind) = (own(capability, "model"), own(capability, "type"));
            Some(format!("{query} is asked for, it has {model} and {kind}"))
        }
    }
}

fn own(capability: &Capability, key: &str) -> String {
    capability.get(key).map_or_else(|| format!("no key {key}"), |value| format!("{key}={value}"))
}

/// Why a capability is passed over although its type is the model name.
fn less_than_a_model(query: &Query) -> String {
    format!("{query} is asked for, it has that only as its type, others have it as their model")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn capability(pairs: &[(&str, &str)]) -> Capability {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Value::Text((*value).to_owned()));
        Capability::try_new(pairs.iter().map(pair)).unwrap()
    }

    #[test]
    fn the_first_condition_that_fails_is_named_with_what_is_there_instead() {
        let own = capability(&[("model", "y"), ("type", "chat"), ("size", "big")]);
        for (selector, why) in [
            ("model=x", "model=x is asked for, it has model=y"),
            ("model=x,type=embed", "model=x is asked for, it has model=y"),
            ("type=chat,rank>=7", "rank>=7 is asked for, it has no key rank"),
            ("size<7", "size<7 is asked for, it has size=big"),
            ("type!=chat", "type!=chat is asked for, it has type=chat"),
            ("type notin (chat,embed)", "type notin (chat,embed) is asked for, it has type=chat"),
            ("model in (a,b)", "model in (a,b) is asked for, it has model=y"),
            ("!model", "!model is asked for, it has model=y"),
            ("gpu", "gpu is asked for, it has no key gpu"),
        ] {
            assert_eq!(why_not(&Query::parse(selector).unwrap(), &own).as_deref(), Some(why));
        }
        assert_eq!(why_not(&Query::parse("type=chat,!gpu,model!=x").unwrap(), &own), None);
    }

    #[test]
    fn a_model_name_is_compared_with_the_model_and_the_type() {
        let own = capability(&[("model", "y"), ("type", "chat")]);
        assert_eq!(why_not(&Query::model("y"), &own), None);
        assert_eq!(why_not(&Query::model("chat"), &own), None);
        let why = "model 'x' is asked for, it has model=y and type=chat";
        assert_eq!(why_not(&Query::model("x"), &own).as_deref(), Some(why));
        let why = "model 'x' is asked for, it has no key model and no key type";
        assert_eq!(why_not(&Query::model("x"), &capability(&[("size", "7")])).as_deref(), Some(why));
    }

    #[test]
    fn a_type_that_is_the_model_name_counts_only_where_nobody_has_the_model() {
        let list = [capability(&[("type", "echo")]), capability(&[("type", "chat"), ("model", "echo")])];
        let why = "model 'echo' is asked for, it has that only as its type, others have it as their model";
        let differs = Verdict::Differs { why: why.to_owned() };
        assert_eq!(verdicts(&Query::model("echo"), list.iter()), [differs, Verdict::Matches { unmentioned: 1 }]);
        assert_eq!(Verdict::of(&Query::model("echo"), &list[0]), Verdict::Matches { unmentioned: 0 });
        assert_eq!(verdicts(&Query::model("echo"), [].into_iter()), []);
    }
}
