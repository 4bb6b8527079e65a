//! What a template says that it has, checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyserve_core::{Error, GroupSpec};
use anyserve_wire::message;

use super::ProtocolError;

/// Groups that an app may have.
const MAX_GROUPS: usize = 256;
/// Bytes that a group's name may have; it is part of its workers' names.
const MAX_NAME: usize = 256;

/// What the app has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    /// Its worker groups, at least one, each with a name of its own.
    pub(crate) groups: Vec<GroupSpec>,
    /// Files that it was loaded from, for `--reload`; absolute paths.
    pub(crate) files: Vec<PathBuf>,
    /// Why the template cannot fork, if it cannot.
    pub(crate) no_fork: Option<String>,
}

/// What a manifest comes to.
#[derive(Debug)]
pub(super) enum Told {
    Loaded(Manifest),
    Failed(Error),
}

// === impl Told ===

impl Told {
    /// Checks a manifest.
    pub(super) fn try_new(manifest: message::Manifest, token: &str) -> Result<Self, ProtocolError> {
        if manifest.token != token {
            return Err(ProtocolError::Stranger);
        }
        if let Some(failed) = manifest.failed {
            return Ok(Self::Failed(failed.into()));
        }
        let groups = manifest.groups.len();
        if groups == 0 || groups > MAX_GROUPS {
            return Err(ProtocolError::Groups { groups, max: MAX_GROUPS });
        }
        let groups: Vec<_> = manifest.groups.into_iter().map(GroupSpec::try_from).collect::<Result<_, _>>()?;
        check_names(&groups)?;
        let files = manifest.files.into_iter().map(absolute).collect::<Result<_, _>>()?;
        let no_fork = Some(manifest.no_fork).filter(|why| !why.is_empty());
        Ok(Self::Loaded(Manifest { groups, files, no_fork }))
    }
}

fn check_names(groups: &[GroupSpec]) -> Result<(), ProtocolError> {
    let mut names = BTreeSet::new();
    for GroupSpec { name, .. } in groups {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(ProtocolError::Name { len: name.len(), max: MAX_NAME });
        }
        if !names.insert(name) {
            return Err(ProtocolError::Twice { name: name.clone() });
        }
    }
    Ok(())
}

fn absolute(path: String) -> Result<PathBuf, ProtocolError> {
    if Path::new(&path).is_absolute() { Ok(path.into()) } else { Err(ProtocolError::Relative { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Code, DEFAULT_GROUP};
    use proptest::prelude::*;
    use prost::Message;

    fn group(name: &str) -> message::Group {
        message::Group { name: name.into(), ..Default::default() }
    }

    fn manifest(groups: Vec<message::Group>) -> message::Manifest {
        message::Manifest { pid: 1, token: "secret".into(), groups, ..Default::default() }
    }

    fn refused(manifest: message::Manifest) -> String {
        Told::try_new(manifest, "secret").unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_is_read_as_it_was_meant() {
        let whole = message::Manifest { files: vec!["/a.py".into()], ..manifest(vec![group(DEFAULT_GROUP)]) };
        let Ok(Told::Loaded(read)) = Told::try_new(whole.clone(), "secret") else { panic!("it is whole") };
        assert_eq!((read.groups.len(), read.files, read.no_fork), (1, vec![PathBuf::from("/a.py")], None));
        let cannot = message::Manifest { no_fork: "threads".into(), ..whole };
        let Ok(Told::Loaded(read)) = Told::try_new(cannot, "secret") else { panic!("it is whole") };
        assert_eq!(read.no_fork.as_deref(), Some("threads"));
    }

    #[test]
    fn an_app_that_cannot_be_loaded_needs_no_groups() {
        let failed = message::Failed::from(&Error::invalid("no such module").with_traceback("line 1"));
        let manifest = message::Manifest { failed: Some(failed), ..manifest(vec![]) };
        let Ok(Told::Failed(error)) = Told::try_new(manifest, "secret") else { panic!("it failed") };
        assert_eq!((error.code, error.traceback.as_deref()), (Code::InvalidInput, Some("line 1")));
    }

    #[test]
    fn the_secret_is_looked_at_before_anything_else() {
        let stranger = message::Manifest { token: "guess".into(), ..manifest(vec![]) };
        assert!(matches!(Told::try_new(stranger, "secret"), Err(ProtocolError::Stranger)));
    }

    #[test]
    fn groups_are_counted_and_named() {
        let many = |count: usize| manifest((0..count).map(|number| group(&number.to_string())).collect());
        for (count, legal) in
            [(0, false), (1, true), (MAX_GROUPS - 1, true), (MAX_GROUPS, true), (MAX_GROUPS + 1, false)]
        {
            assert_eq!(Told::try_new(many(count), "secret").is_ok(), legal, "{count} groups");
        }
        for (len, legal) in [(0, false), (1, true), (MAX_NAME - 1, true), (MAX_NAME, true), (MAX_NAME + 1, false)] {
            let named = manifest(vec![group(&"n".repeat(len))]);
            assert_eq!(Told::try_new(named, "secret").is_ok(), legal, "a name of {len} bytes");
        }
        assert_eq!(refused(manifest(vec![group("a"), group("b"), group("a")])), "two groups have the name 'a'");
    }

    #[test]
    fn files_are_absolute_and_numbers_are_checked() {
        let relative = message::Manifest { files: vec!["a.py".into()], ..manifest(vec![group("a")]) };
        assert!(refused(relative).contains("'a.py'"));
        let huge = message::Group { gpus: anyserve_wire::MAX_WORKERS + 1, ..group("a") };
        assert!(matches!(Told::try_new(manifest(vec![huge]), "secret"), Err(ProtocolError::Group(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(manifest) = message::Manifest::decode(&bytes[..]) {
                let token = manifest.token.clone();
                let _ = Told::try_new(manifest, &token);
            }
        }
    }
}
