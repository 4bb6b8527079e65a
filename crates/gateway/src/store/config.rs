//! Which store it is, as it is written: `memory`, `etcd://host:port,host:port`, or `etcd+https://…`.

use std::fmt;
use std::str::FromStr;

use anyserve_client::{Endpoint, EndpointError, Tls};

/// A store.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// None: this is the only API server.
    Memory,
    /// etcd, version 3.4 or later.
    Etcd(EtcdConfig),
}

/// Where etcd is, and who may use it.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Its members; one of them is asked at a time.
    pub(crate) members: Vec<Endpoint>,
    pub(crate) user: Option<(String, String)>,
    /// How to talk TLS with it.
    pub tls: Tls,
}

/// A text that names no store. The message has the fix, and no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is neither of the two.
    #[error("a store is memory, or etcd://host:port with more members after commas")]
    Unknown,
    /// One of the members is none.
    #[error("one of the members of etcd is none: {0}")]
    Member(#[from] EndpointError),
    /// There are too many.
    #[error("{count} members of etcd are given, at most {max} can be")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The user stands without a password.
    #[error("before the @ of a store stand a user and a password, with a colon between them")]
    User,
}

/// Members that can be given.
const MAX_MEMBERS: usize = 16;

// === impl StoreConfig ===

impl StoreConfig {
    /// `memory` or `etcd`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Etcd(_) => "etcd",
        }
    }
}

impl FromStr for StoreConfig {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = match text.split_once("://") {
            None if text == "memory" => return Ok(Self::Memory),
            Some(("etcd", rest)) => ("http", rest),
            Some(("etcd+https", rest)) => ("https", rest),
            _ => return Err(StoreError::Unknown),
        };
        let (user, hosts) = match rest.rsplit_once('@') {
            Some((user, hosts)) => (Some(user.split_once(':').ok_or(StoreError::User)?), hosts),
            None => (None, rest),
        };
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
        let (count, max) = (hosts.len(), MAX_MEMBERS);
        match count {
            0 => return Err(StoreError::Unknown),
            count if count > max => return Err(StoreError::TooMany { count, max }),
            _ => {}
        }
        let members = hosts.iter().map(|host| format!("{scheme}://{}", with_port(host)).parse());
        let members = members.collect::<Result<Vec<Endpoint>, _>>()?;
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        Ok(Self::Etcd(EtcdConfig { members, user, tls: Tls::default() }))
    }
}

/// etcd listens on port 2379 unless told otherwise.
fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if has_port { host.to_owned() } else { format!("{host}:2379") }
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// Whether its members are spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.members.iter().any(Endpoint::secure)
    }
}

impl fmt::Debug for EtcdConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdConfig").field("members", &self.members).field("user", &user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<String>, Option<(String, String)>);

    fn read(text: &str) -> Result<Read, String> {
        match text.parse() {
            Ok(StoreConfig::Etcd(EtcdConfig { members, user, .. })) => {
                Ok((members.iter().map(ToString::to_string).collect(), user))
            }
            Ok(StoreConfig::Memory) => Ok((vec![], None)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn memory_and_members_with_and_without_ports_users_and_tls_are_read() {
        let user = Some(("me".to_owned(), "p@s:s".to_owned()));
        assert_eq!(read("memory"), Ok((vec![], None)));
        assert_eq!(read("etcd://a:1, b"), Ok((vec!["a:1".into(), "b:2379".into()], None)));
        assert_eq!(read("etcd://me:p@s:s@[::1],[::1]:7"), Ok((vec!["[::1]:2379".into(), "[::1]:7".into()], user)));
        assert_eq!(read("etcd+https://a"), Ok((vec!["https://a:2379".into()], None)));
    }

    #[test]
    fn what_is_no_store_is_refused_and_no_password_is_shown() {
        for (text, part) in [
            ("", "memory, or etcd://"),
            ("redis://a", "memory, or etcd://"),
            ("etcd://", "memory, or etcd://"),
            ("etcd://secret@a", "a user and a password"),
            ("etcd://me:secret@a:0", "from 1 to 65535"),
            ("etcd://me:secret@a/x", "is none"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(part) && !message.contains("secret"), "{message}");
        }
        let many = |count| format!("etcd://{}", vec!["a"; count].join(","));
        assert_eq!([15, 16, 17].map(|count| read(&many(count)).is_ok()), [true, true, false]);
        let StoreConfig::Etcd(config) = "etcd://me:secret@a".parse().unwrap() else { panic!("it is etcd") };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
