//! Errors of the closed set.

use std::time::Duration;

use anyserve_core::{Code, Error};

use crate::message as wire;

// === impl wire::Failed ===

impl From<&Error> for wire::Failed {
    fn from(error: &Error) -> Self {
        let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Self {
            code: error.code.number(),
            message: error.message.clone(),
            traceback: error.traceback.clone().unwrap_or_default(),
            compute_ns: 0,
            retry_after_ms: error.retry_after.map_or(0, millis),
        }
    }
}

impl From<wire::Failed> for Error {
    /// An unknown number is a defect of ours, and told as one.
    fn from(failed: wire::Failed) -> Self {
        let code = Code::from_number(failed.code).unwrap_or(Code::Internal);
        Self {
            code,
            message: failed.message,
            retry_after: failed.retry_after_ms.checked_sub(1).map(Duration::from_millis),
            traceback: Some(failed.traceback).filter(|text| !text.is_empty()),
            // A handler has begun: nothing goes back to the API server.
            hand_back: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::new(Code::Overloaded, "full").with_retry_after(Duration::ZERO).with_traceback("t");
        assert_eq!(Error::from(wire::Failed::from(&error)), error);
    }
}
