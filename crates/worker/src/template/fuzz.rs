//! Fuzz target: what a template says that the app has.
//!
//! It takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::collections::BTreeSet;

use anyserve_wire::message;
use prost::Message;

use super::manifest::{Manifest, Told};

/// Bytes as the metadata of a manifest.
pub fn manifest(data: &[u8]) {
    let Ok(said) = message::Manifest::decode(data) else { return };
    let token = said.token.clone();
    assert!(Told::try_new(said.clone(), &format!("{token}.")).is_err());
    let Ok(Told::Loaded(Manifest { groups, files, .. })) = Told::try_new(said, &token) else { return };
    let names: BTreeSet<_> = groups.iter().map(|group| &group.name).collect();
    assert!((1..=256).contains(&groups.len()) && names.len() == groups.len());
    assert!(names.iter().all(|name| (1..=256).contains(&name.len())));
    assert!(files.iter().all(|file| file.is_absolute()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn a_manifest_is_within_its_bounds_or_refused() {
        attack("manifest", manifest);
    }
}
