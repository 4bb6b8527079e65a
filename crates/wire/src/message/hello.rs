//! The start of a worker: who it is, what it serves, and what it must keep to.

use super::KeyValue;

/// `Hello`: who the worker is and what it can serve.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// Process id of the worker, as it sees itself.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// The number that the runtime started it with.
    #[prost(uint32, tag = "2")]
    pub worker: u32,
    /// The secret that the runtime started it with.
    #[prost(string, tag = "3")]
    pub token: String,
    /// What it can serve; requests name a handler by its place here.
    #[prost(message, repeated, tag = "4")]
    pub handlers: Vec<Handler>,
    /// Requests that it runs at the same time, whatever their handlers; at least 1.
    #[prost(uint32, tag = "5")]
    pub concurrency: u32,
}

/// One row of the handler table.
#[allow(clippy::struct_excessive_bools)] // Each is a field of the protocol.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Handler {
    /// Key-values that it serves.
    #[prost(message, repeated, tag = "1")]
    pub capability: Vec<KeyValue>,
    /// Name of the user's function.
    #[prost(string, tag = "2")]
    pub function: String,
    /// Declared inputs, if `declares_inputs`.
    #[prost(message, repeated, tag = "3")]
    pub inputs: Vec<TensorSpec>,
    /// Whether inputs are declared.
    #[prost(bool, tag = "4")]
    pub declares_inputs: bool,
    /// Declared outputs, if `declares_outputs`.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<TensorSpec>,
    /// Whether outputs are declared.
    #[prost(bool, tag = "6")]
    pub declares_outputs: bool,
    /// Answers any number of times.
    #[prost(bool, tag = "7")]
    pub stream: bool,
    /// Requests that one worker runs at the same time; at least 1.
    #[prost(uint32, tag = "8")]
    pub concurrency: u32,
    /// Requests that may wait; 0 takes the replica's limit.
    #[prost(uint32, tag = "9")]
    pub max_queue: u32,
    /// Microseconds that a request may take without a deadline of its own; 0 is no limit.
    #[prost(uint64, tag = "10")]
    pub timeout_us: u64,
    /// Requests that one call of the function takes at most; 0 gives it one request instead of a list.
    #[prost(uint32, tag = "11")]
    pub max_batch_size: u32,
    /// Microseconds that a request waits at most for others to share its batch.
    #[prost(uint64, tag = "12")]
    pub max_delay_us: u64,
    /// Priority of requests that name none, from 1; 0 takes the middle one.
    #[prost(uint32, tag = "13")]
    pub priority: u32,
    /// Running a request twice does no harm.
    #[prost(bool, tag = "14")]
    pub idempotent: bool,
    /// Requests belong to sequences.
    #[prost(bool, tag = "15")]
    pub sequence: bool,
}

/// A declared tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorSpec {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Number of its datatype.
    #[prost(uint32, tag = "2")]
    pub datatype: u32,
    /// Dimensions; −1 is any.
    #[prost(sint64, repeated, tag = "3")]
    pub shape: Vec<i64>,
}

/// `Welcome`: what the worker must keep to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// Largest metadata, in bytes.
    #[prost(uint64, tag = "1")]
    pub max_meta: u64,
    /// Largest body, in bytes.
    #[prost(uint64, tag = "2")]
    pub max_body: u64,
    /// Bytes of a stream that may be sent before credit comes.
    #[prost(uint64, tag = "3")]
    pub stream_window: u64,
    /// File that holds the slot table.
    #[prost(string, tag = "4")]
    pub slots: String,
    /// The object plane; not set if this replica has none.
    #[prost(message, optional, tag = "5")]
    pub plane: Option<Plane>,
}

/// Where a worker finds the object plane.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Plane {
    /// Number of the store, as its references have it.
    #[prost(fixed64, tag = "1")]
    pub store: u64,
    /// File that holds directory and arena.
    #[prost(string, tag = "2")]
    pub segment: String,
    /// Entries of the directory.
    #[prost(uint32, tag = "3")]
    pub entries: u32,
    /// Bytes of the arena.
    #[prost(uint64, tag = "4")]
    pub capacity: u64,
    /// The instant that uses are counted from, in nanoseconds of the monotonic clock.
    #[prost(uint64, tag = "7")]
    pub epoch_ns: u64,
    /// File that holds this worker's pins.
    #[prost(string, tag = "5")]
    pub pins: String,
    /// Size in bytes from which on a tensor goes through the arena.
    #[prost(uint64, tag = "6")]
    pub threshold: u64,
}
