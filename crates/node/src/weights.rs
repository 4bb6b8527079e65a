//! Shares of tenants: `NAME=WEIGHT`, as flags, a variable and the file give them.

use anyhow::{Context, Result, ensure};
use anyserve_core::MAX_TENANT;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Larger weights than this are a typing error: nobody measures shares that fine.
const MAX_WEIGHT: u32 = 1000;

/// Both forms of the file: `["a=3"]` and `{ a = 3 }`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a list such as [\"gold=3\"] or a table such as { gold = 3 }")]
enum Weights {
    List(Vec<String>),
    Table(BTreeMap<String, i64>),
}

/// Reads either form of the file as flags have it.
pub(crate) fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Some(match Weights::deserialize(deserializer)? {
        Weights::List(texts) => texts,
        Weights::Table(table) => table.into_iter().map(|(name, weight)| format!("{name}={weight}")).collect(),
    }))
}

/// The weights in these texts, each of which has one or, separated by commas, several.
///
/// # Errors
/// What is wrong with which of them.
pub(crate) fn parse(texts: &[String]) -> Result<Vec<(String, u32)>> {
    let mut weights: Vec<(String, u32)> = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        let (name, weight) = one(text)?;
        ensure!(weights.iter().all(|(known, _)| *known != name), "--tenant-weight names '{name}' twice");
        weights.push((name, weight));
    }
    Ok(weights)
}

fn one(text: &str) -> Result<(String, u32)> {
    // A name may hold the sign, a weight cannot.
    let (name, weight) = text
        .rsplit_once('=')
        .with_context(|| format!("--tenant-weight '{text}' has no weight: write NAME=WEIGHT, such as gold=3"))?;
    let name = name.trim();
    ensure!(!name.is_empty(), "--tenant-weight '{text}' has no name: write NAME=WEIGHT, such as gold=3");
    let len = name.len();
    ensure!(len <= MAX_TENANT, "--tenant-weight has a name of {len} bytes, a tenant's has at most {MAX_TENANT}");
    let number = weight.trim().parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
    let number = number
        .with_context(|| format!("--tenant-weight '{text}': a weight is a whole number from 1 to {MAX_WEIGHT}"))?;
    Ok((name.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<(String, u32)>> {
        parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn weights_are_read_one_by_one_and_separated_by_commas() {
        let expected = [("a", 3), ("b", 1), ("c=d", 1000)].map(|(name, weight)| (name.to_owned(), weight));
        assert_eq!(read(&["a=3", "b=1, c=d=1000,"]).unwrap(), expected);
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn what_is_no_weight_is_named_with_what_would_be() {
        let long = format!("{}=1", "n".repeat(MAX_TENANT + 1));
        for (text, part) in [
            ("a", "'a' has no weight"),
            ("=3", "'=3' has no name"),
            ("a=0", "'a=0': a weight is a whole number from 1 to 1000"),
            ("a=1001", "from 1 to 1000"),
            ("a=-1", "from 1 to 1000"),
            ("a=1.5", "from 1 to 1000"),
            ("a=1,a=2", "names 'a' twice"),
            (&long, "129 bytes, a tenant's has at most 128"),
        ] {
            let message = read(&[text]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
