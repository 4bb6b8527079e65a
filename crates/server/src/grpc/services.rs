//! Which services a port has, and what it says of a method that none of them has.

use anyserve_core::{Code, Error};
use http::HeaderMap;

/// Characters of a path that an error repeats.
const MAX_PATH: usize = 200;

/// The full names of a port's services.
#[derive(Clone, Debug)]
pub struct Services(Vec<&'static str>);

// === impl Services ===

impl Services {
    /// These ones, in the order in which they are told.
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }

    /// The error of a call on a path that no service has: `UNSUPPORTED`, which names the method and the services.
    pub fn unknown(&self, path: &str) -> Error {
        let shown: String = path.chars().take(MAX_PATH).collect();
        Error::new(Code::Unsupported, format!("unknown method {shown}; the services here are {}", self.0.join(", ")))
    }

    /// The same error, if these headers are generated code's bare word that there is no such method.
    pub fn missed(&self, headers: &HeaderMap, path: &str) -> Option<Error> {
        let told = headers.get("grpc-status").is_some_and(|status| status == "12");
        (told && !headers.contains_key("grpc-message")).then(|| self.unknown(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_nobody_has_is_named_with_the_services() {
        let services = Services::new(["a.A", "b.B"]);
        let error = services.unknown("/a.A/Other");
        assert_eq!(error.message, "unknown method /a.A/Other; the services here are a.A, b.B");
        assert_eq!(error.code, Code::Unsupported);
        let [short, long] = [MAX_PATH, MAX_PATH + 1].map(|len| services.unknown(&"é".repeat(len)).message);
        assert_eq!(short, long, "no more of a path is told than that");
    }

    #[test]
    fn only_a_bare_status_is_generated_codes_word() {
        let services = Services::new(["a.A"]);
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        assert!(services.missed(&headers(&[("grpc-status", "12")]), "/").is_some());
        for told in [&[][..], &[("grpc-status", "5")], &[("grpc-status", "12"), ("grpc-message", "why")]] {
            assert_eq!(services.missed(&headers(told), "/"), None);
        }
    }
}
