//! How replicas tell that they are there, and how clients find them: over gRPC, and the same over HTTP.
//!
//! ```text
//!  Register, Heartbeat, Leave  ──┐ guarded                         ┌─► Registry ─► Store
//!  POST /register, /heartbeat    ├─► read: texts, counts, numbers ─┤
//!  DELETE /unregister          ──┘                                 └─► a verdict
//!  Resolve, GET /route, GET /registry: for everybody
//! ```

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grpc;
mod http;
mod json;
mod listing;
mod pairs;
pub(crate) mod read;
pub(crate) mod write;

pub(crate) use grpc::RegistryService;
pub(crate) use http::router;
pub(crate) use listing::{health, heard, standing, state, why};
pub(crate) use pairs::Pairs;

/// Largest message of a replica, in bytes: every capability that it may announce, with every text as long as it may be.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
/// Largest message of anybody else, in bytes.
pub(crate) const MAX_QUESTION: usize = 64 << 10;
/// Ids that a question may name as tried in vain.
pub(crate) const MAX_AVOID: usize = 16;

/// The prefix of the service's methods.
pub(crate) const SERVICE: &str = "/anyserve.v1.Registry/";

/// Whether this is for replicas, and guarded.
pub(crate) fn is_for_replicas(path: &str) -> bool {
    match path.strip_prefix(SERVICE) {
        Some(method) => method != "Resolve",
        None => ["/register", "/heartbeat", "/unregister"].contains(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_registry_is_for_replicas_and_questions_are_for_everybody() {
        for path in ["/register", "/heartbeat", "/unregister", "/anyserve.v1.Registry/Register"] {
            assert!(is_for_replicas(path), "{path}");
        }
        for method in ["Heartbeat", "Leave", "SomethingNew"] {
            assert!(is_for_replicas(&format!("{SERVICE}{method}")), "{method}");
        }
        for path in ["/", "/registry", "/route", "/anyserve.v1.Registry/Resolve", "/health"] {
            assert!(!is_for_replicas(path), "{path}");
        }
    }
}
