//! The protobuf messages in the metadata of frames.
//!
//! Field numbers are the protocol; they never change their meaning. Datatypes and codes travel as their numbers in the
//! tables of `anyserve_core`.

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

/// A named value: of a capability, or a parameter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value; always set.
    #[prost(oneof = "Value", tags = "2, 3, 4, 5, 6")]
    pub value: Option<Value>,
}

/// A value of a capability or parameter.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "2")]
    Text(String),
    /// A signed whole number.
    #[prost(sint64, tag = "3")]
    Int(i64),
    /// A floating-point number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A truth value.
    #[prost(bool, tag = "5")]
    Bool(bool),
    /// An unsigned whole number; parameters only.
    #[prost(uint64, tag = "6")]
    Uint(u64),
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
}

/// `Request`: what the handler gets, without the bytes of its tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Place of the handler in the worker's table.
    #[prost(uint32, tag = "1")]
    pub handler: u32,
    /// Place of the request in the slot table.
    #[prost(uint32, tag = "2")]
    pub slot: u32,
    /// 1 for the first time that it is sent.
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
    /// Microseconds until the deadline, plus one; 0 is no deadline.
    #[prost(uint64, tag = "4")]
    pub remaining_us: u64,
    /// Model name as the caller used it.
    #[prost(string, tag = "5")]
    pub model: String,
    /// Version as the caller used it.
    #[prost(string, tag = "6")]
    pub version: String,
    /// The caller's id.
    #[prost(string, tag = "7")]
    pub id: String,
    /// Inputs, in the order of their bytes in the body.
    #[prost(message, repeated, tag = "8")]
    pub inputs: Vec<Tensor>,
    /// Wanted outputs.
    #[prost(string, repeated, tag = "9")]
    pub outputs: Vec<String>,
    /// Parameters of the request.
    #[prost(message, repeated, tag = "10")]
    pub parameters: Vec<KeyValue>,
    /// Metadata of the call.
    #[prost(message, repeated, tag = "11")]
    pub headers: Vec<Header>,
}

/// `Batch`: requests for one call of a handler that takes a list. The body is the members' bodies, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// The requests, at least one.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<Member>,
}

/// One request of a batch. It is answered by a frame of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// The request's id, as it would stand in the header of its own frame.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Bytes that it has in the body.
    #[prost(uint64, tag = "2")]
    pub len: u64,
    /// The rest; always set.
    #[prost(message, optional, tag = "3")]
    pub request: Option<Request>,
}

/// One header of the call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// Lower-case name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A tensor, without its bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Number of its datatype.
    #[prost(uint32, tag = "2")]
    pub datatype: u32,
    /// Dimensions.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    /// Bytes that it has in the body.
    #[prost(uint64, tag = "4")]
    pub len: u64,
    /// Its parameters.
    #[prost(message, repeated, tag = "5")]
    pub parameters: Vec<KeyValue>,
}

/// `Chunk` and `Done`: a response, without the bytes of its tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// Outputs, in the order of their bytes in the body.
    #[prost(message, repeated, tag = "1")]
    pub outputs: Vec<Tensor>,
    /// Parameters of the response.
    #[prost(message, repeated, tag = "2")]
    pub parameters: Vec<KeyValue>,
    /// Nanoseconds in the handler; on `Done` only.
    #[prost(uint64, tag = "3")]
    pub compute_ns: u64,
}

/// `Failed`: why there is no answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failed {
    /// Number of the code.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// One sentence for whoever acts next.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The handler's traceback; empty if it did not raise.
    #[prost(string, tag = "3")]
    pub traceback: String,
    /// Nanoseconds in the handler.
    #[prost(uint64, tag = "4")]
    pub compute_ns: u64,
    /// Milliseconds until another try may succeed, plus one; 0 is unknown.
    #[prost(uint64, tag = "5")]
    pub retry_after_ms: u64,
}

/// `Credit`: room for more of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credit {
    /// Bytes that the client has taken.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}
