//! A handler as the runtime knows it: one capability with its options. Workers announce theirs when they say hello.

use std::time::Duration;

use crate::{Capability, Priority, TensorSpec, Value};

/// One row of a worker's handler table.
#[derive(Clone, Debug, PartialEq)]
pub struct Handler {
    /// What it serves.
    pub capability: Capability,
    /// The function's name, for logs and errors.
    pub function: String,
    /// Declared inputs; `None` leaves them unchecked.
    pub inputs: Option<Vec<TensorSpec>>,
    /// Declared outputs.
    pub outputs: Option<Vec<TensorSpec>>,
    /// Answers any number of times instead of once.
    pub stream: bool,
    /// Requests that one worker runs at the same time.
    pub concurrency: u32,
    /// Requests that may wait; `None` takes the replica's limit.
    pub max_queue: Option<u32>,
    /// Longest time a request may take when its caller gave no deadline.
    pub timeout: Option<Duration>,
    /// Requests that one call of the function takes at most; 0 gives it one request instead of a list.
    pub max_batch_size: u32,
    /// Longest time that a request waits for others to share its batch.
    pub max_delay: Duration,
    /// Priority of requests that name none; `None` takes the middle one.
    pub priority: Option<Priority>,
    /// Running a request twice does no harm: it is sent again after its worker's death even if it had started.
    pub idempotent: bool,
    /// Requests belong to sequences; each keeps to one worker and to its order.
    pub sequence: bool,
}

// === impl Handler ===

impl Handler {
    /// A handler with default options: one request at a time, no stream, nothing declared.
    pub fn new(capability: Capability) -> Self {
        Self {
            capability,
            function: String::new(),
            inputs: None,
            outputs: None,
            stream: false,
            concurrency: 1,
            max_queue: None,
            timeout: None,
            max_batch_size: 0,
            max_delay: Duration::ZERO,
            priority: None,
            idempotent: false,
            sequence: false,
        }
    }

    /// The name by which KServe clients call it: the capability's `model`, or failing that its `type`.
    pub fn model_name(&self) -> String {
        let named = self.capability.get("model").or_else(|| self.capability.get("type"));
        named.map_or_else(|| self.capability.to_string(), Value::to_string)
    }

    /// The one version it has: the capability's `version`, or `1`.
    pub fn version(&self) -> String {
        self.capability.get("version").map_or_else(|| "1".to_owned(), Value::to_string)
    }
}
