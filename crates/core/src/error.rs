//! How a request fails: a code of the closed set, a message for whoever acts next, and when to come back.

use std::time::Duration;

use crate::{Code, Query};

/// The end of a request that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Who acts next, and how.
    pub code: Code,
    /// One sentence that names the thing and the numbers.
    pub message: String,
    /// When the same request may succeed, where that is known.
    pub retry_after: Option<Duration>,
    /// The handler's traceback, where a handler raised and the runtime runs in debug.
    pub traceback: Option<String>,
    /// The request was not begun and goes back to the API server, which is to have it served elsewhere, as this query.
    pub hand_back: Option<Box<Query>>,
}

// === impl Error ===

impl Error {
    /// An error without a hint when to come back.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, traceback: None, hand_back: None }
    }

    /// [`Code::InvalidInput`] with this message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput, message)
    }

    /// [`Code::Internal`] with this message.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The same error, with a hint when to come back.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The same error, with the handler's traceback.
    pub fn with_traceback(mut self, traceback: impl Into<String>) -> Self {
        self.traceback = Some(traceback.into());
        self
    }

    /// The same error, as the hand-back of a request that is to be served elsewhere as this query.
    pub fn with_hand_back(mut self, query: Query) -> Self {
        self.hand_back = Some(Box::new(query));
        self
    }
}
