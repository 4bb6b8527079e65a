//! What a replica knows of the others: somebody who has its requests served elsewhere.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::{Error, Reply, Request, Upgrades};

/// The answer to a request that is served elsewhere. Dropping it cancels the request there.
pub type Answered = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// The replica's way to its API servers.
pub trait Uplink: fmt::Debug + Send + Sync {
    /// What becomes of a request that nothing here matches: it is handed back to the API server that sent it, forwarded
    /// to one if a client sent it, or refused if it was handed on before. At most one delegation, ever.
    ///
    /// # Errors
    /// `NO_CAPABILITY` with a [`hand_back`](Error::hand_back) is the hand-back; without one nobody serves it. Otherwise
    /// whatever the replica that served it answered, `UNAVAILABLE` if no API server can be reached.
    fn delegate(&self, request: Request, upgrades: &Upgrades) -> Answered;

    /// Has a request of one of this replica's handlers served by another replica.
    ///
    /// # Errors
    /// Whatever that replica answered; `UNAVAILABLE` if neither an API server nor a replica can be reached.
    fn call(&self, request: Request) -> Answered;
}
