//! What a peer may ask for. Every length that comes from outside is compared with one of these before memory is
//! reserved for it.

/// Upper bounds of everything that somebody else decides the size of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message from or to a client, and of one frame's body on the worker socket.
    pub max_message: usize,
    /// Bytes of one frame's metadata on the worker socket.
    pub max_meta: usize,
    /// Dimensions of a tensor.
    pub max_rank: usize,
    /// Tensors in one request or response.
    pub max_tensors: usize,
    /// Requests that wait in one worker group's queue.
    pub max_queue: usize,
    /// Bytes of tensors that wait in one worker group's queue.
    pub max_queue_bytes: usize,
    /// Bytes of streamed responses that a worker may have sent and the client not yet taken.
    pub stream_window: usize,
}

// === impl Limits ===

impl Default for Limits {
    /// 1 GiB a message, 16 MiB of metadata, 1 024 queued requests and 2 GiB of queued tensors a group, 1 MiB of
    /// unread stream.
    fn default() -> Self {
        Self {
            max_message: 1 << 30,
            max_meta: 16 << 20,
            max_rank: 32,
            max_tensors: 4096,
            max_queue: 1024,
            max_queue_bytes: 2 << 30,
            stream_window: 1 << 20,
        }
    }
}
