//! What became of a request that has no response: whether the replica may have begun it.

use std::error::Error as StdError;

use anyserve_client::TlsFault;

/// A request without a response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The replica has not begun it, and will not.
    #[error("not reached: {0}")]
    Unreached(String),
    /// The connection broke after something was written.
    #[error("broken: {0}")]
    Broken(String),
}

// === impl Lost ===

impl Lost {
    /// What a failure of a connection means for a request on it whose writing had begun.
    ///
    /// The replica did not look at it if it says so by `REFUSED_STREAM`, or by a GOAWAY of a replica that leaves: that ends
    /// only requests which came after the last one that it took. Nor did it where it does not take this side's certificate,
    /// which is heard only after the first request was written.
    ///
    /// Source: RFC 9113, sections 6.8 and 8.7.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut causes = std::iter::successors(Some(error), |error| (*error).source());
        let unknown = matches!(TlsFault::of(error), Some(TlsFault::Wanted | TlsFault::Refused));
        let not_begun = unknown || causes.any(|cause| cause.downcast_ref::<h2::Error>().is_some_and(is_refused));
        let why = root(error);
        if not_begun { Self::Unreached(why) } else { Self::Broken(why) }
    }

    /// What the same means after the replica has begun to answer.
    pub(crate) fn begun(error: &(dyn StdError + 'static)) -> Self {
        Self::Broken(root(error))
    }

    /// A request that was not written.
    pub(crate) fn unsent(error: &(dyn StdError + 'static)) -> Self {
        Self::Unreached(root(error))
    }
}

fn is_refused(error: &h2::Error) -> bool {
    let reason = error.reason();
    let refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
    let left = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (refused || left)
}

/// An error with its first cause.
fn root(error: &(dyn StdError + 'static)) -> String {
    let last = std::iter::successors(error.source(), |error| (*error).source()).last();
    last.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
