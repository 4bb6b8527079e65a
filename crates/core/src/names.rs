//! Which keys and values there are in capabilities, so that one who asks for what there is not is told what is near.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use crate::nearest::{MAX_LEN, nearest};
use crate::{Capability, Condition, Op, Query, Value};

/// Names that are looked at on either side of what was asked for, in the order of the alphabet.
const LOOKED_AT: usize = 128;
/// Conditions of a query that are looked at.
const MAX_CONDITIONS: usize = 8;

/// The keys of some capabilities, each with the texts that it has as values. Longer ones than 64 bytes are left out.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, Values>);

#[derive(Clone, Debug, Default)]
struct Values {
    /// Capabilities with the key.
    users: usize,
    /// Capabilities with the key and this text.
    texts: BTreeMap<String, usize>,
}

// === impl Names ===

impl Names {
    /// A capability is there.
    pub fn add(&mut self, capability: &Capability) {
        for (key, value) in capability.iter().filter(|(key, _)| key.len() <= MAX_LEN) {
            let values = entry(&mut self.0, key);
            values.users += 1;
            if let Some(text) = text(value) {
                *entry(&mut values.texts, text) += 1;
            }
        }
    }

    /// A capability that was there is gone.
    pub fn remove(&mut self, capability: &Capability) {
        for (key, value) in capability.iter() {
            let Some(values) = self.0.get_mut(key) else { continue };
            values.users -= 1;
            if values.users == 0 {
                self.0.remove(key);
            } else if let Some(text) = text(value)
                && let Some(count) = values.texts.get_mut(text)
            {
                *count -= 1;
                if *count == 0 {
                    values.texts.remove(text);
                }
            }
        }
    }

    /// What a query that selects nothing was meant to say: another model name, or another `key=value` in place of the
    /// first one that no capability has. `None` if nothing is near.
    ///
    /// However many names there are, no more are looked at than 256 for each of eight conditions: those next to it in
    /// the order of the alphabet.
    pub fn meant(&self, query: &Query) -> Option<String> {
        match query {
            Query::Model(name) => ["model", "type"].iter().find_map(|key| self.value(key, name)).map(str::to_owned),
            Query::All(conditions) => conditions.iter().take(MAX_CONDITIONS).find_map(|one| self.condition(one)),
        }
    }

    fn condition(&self, condition: &Condition) -> Option<String> {
        let (key, Op::Equals(text)) = (&condition.key, &condition.op) else { return None };
        match self.0.get(key) {
            None => around(&self.0, key).map(|near| format!("{near}={text}")),
            Some(values) if values.texts.contains_key(text) => None,
            Some(_) => self.value(key, text).map(|near| format!("{key}={near}")),
        }
    }

    fn value(&self, key: &str, text: &str) -> Option<&str> {
        around(&self.0.get(key)?.texts, text)
    }
}

/// The text of a value that may be meant.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) if text.len() <= MAX_LEN => Some(text),
        _ => None,
    }
}

fn entry<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name).expect("it was put there if it was not")
}

fn around<'a, T>(names: &'a BTreeMap<String, T>, asked: &str) -> Option<&'a str> {
    let before = names.range::<str, _>((Unbounded, Excluded(asked)));
    let after = names.range::<str, _>((Included(asked), Unbounded));
    let looked_at = before.rev().take(LOOKED_AT).chain(after.take(LOOKED_AT));
    nearest(asked, looked_at.map(|(name, _)| name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(text: &str) -> Capability {
        let pairs = text.split(',').map(|pair| pair.split_once('=').unwrap());
        Capability::try_new(pairs.map(|(key, value)| (key.to_owned(), Value::Text(value.to_owned())))).unwrap()
    }

    fn names(capabilities: &[&str]) -> Names {
        let mut names = Names::default();
        for text in capabilities {
            names.add(&capability(text));
        }
        names
    }

    #[test]
    fn a_model_name_is_meant_to_be_a_model_or_a_type() {
        let names = names(&["type=echo", "type=chat,model=llama"]);
        for (asked, meant) in [("ech", Some("echo")), ("lama", Some("llama")), ("chta", Some("chat")), ("other", None)]
        {
            assert_eq!(names.meant(&Query::model(asked)).as_deref(), meant, "{asked}");
        }
    }

    #[test]
    fn of_a_selector_the_pair_that_nobody_has_is_meant_to_be_another() {
        let names = names(&["type=echo,size=big", "type=chat"]);
        for (asked, meant) in [
            ("type=ech", Some("type=echo")),
            ("tpye=echo", Some("type=echo")),
            ("size=big,type=caht", Some("type=chat")),
            ("type=echo,size=small", None),
            ("type!=ech", None),
            ("type in (ech)", None),
        ] {
            assert_eq!(names.meant(&Query::parse(asked).unwrap()).as_deref(), meant, "{asked}");
        }
    }

    #[test]
    fn what_is_gone_is_not_meant() {
        let mut names = names(&["type=echo", "type=echo,size=big"]);
        names.remove(&capability("type=echo,size=big"));
        assert_eq!(names.meant(&Query::model("ech")).as_deref(), Some("echo"));
        assert_eq!(names.meant(&Query::parse("sizee=big").unwrap()), None);
        names.remove(&capability("type=echo"));
        assert_eq!(names.meant(&Query::model("ech")), None);
        assert!(names.0.is_empty());
    }

    #[test]
    fn of_very_many_names_the_next_ones_are_looked_at() {
        let mut names = Names::default();
        (0..10_000).for_each(|number| names.add(&capability(&format!("model=model-{number:05}"))));
        assert_eq!(names.meant(&Query::model("model-0500")).as_deref(), Some("model-05000"));
        assert_eq!(names.meant(&Query::model("xxmodel-0500")), None, "the alphabet has it far off");
    }
}
