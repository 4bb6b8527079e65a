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
    /// Inputs whose bytes are not in the body.
    #[prost(message, repeated, tag = "12")]
    pub places: Vec<Place>,
    /// Outputs that are written to memory of the caller's.
    #[prost(message, repeated, tag = "13")]
    pub destinations: Vec<Destination>,
}

/// Where the bytes of a tensor lie, if not in the body. A tensor has one place at most.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Place {
    /// Which tensor, counted from 0 in the order of the metadata.
    #[prost(uint32, tag = "1")]
    pub tensor: u32,
    /// Where it begins, in bytes from the start of the memory. It has the tensor's own length.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Which memory; always set.
    #[prost(oneof = "Memory", tags = "3, 4")]
    pub memory: Option<Memory>,
}

/// Memory that both ends of the socket have mapped.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Memory {
    /// A block of the arena. On a request each place brings one pin along, which the worker takes over; on a response each
    /// block that the worker had not been granted brings one, which the runtime takes over.
    #[prost(message, tag = "3")]
    Block(Block),
    /// Memory that a client shares; on requests only.
    #[prost(message, tag = "4")]
    Region(Region),
}

/// A block of the arena, by its place in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Block {
    /// Its place in the directory.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// What no other block at that place has.
    #[prost(fixed64, tag = "2")]
    pub generation: u64,
}

/// Memory that a client shares with the runtime.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Region {
    /// Its number in this replica; never used again.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// File that it is mapped from, whole; there as long as a request that names it is under way.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Where it begins in the file.
    #[prost(uint64, tag = "3")]
    pub start: u64,
    /// Its bytes.
    #[prost(uint64, tag = "4")]
    pub len: u64,
}

/// An output that is written to memory of the caller's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Destination {
    /// Name of the output.
    #[prost(string, tag = "1")]
    pub output: String,
    /// The memory.
    #[prost(message, optional, tag = "2")]
    pub region: Option<Region>,
    /// Where the room begins, in bytes from the start of the region.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Bytes of room.
    #[prost(uint64, tag = "4")]
    pub len: u64,
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
    /// Outputs whose bytes are in the arena.
    #[prost(message, repeated, tag = "4")]
    pub places: Vec<Place>,
    /// Outputs that were written to their destinations, by their numbers as in `Place::tensor`.
    #[prost(uint32, repeated, tag = "5")]
    pub written: Vec<u32>,
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

/// `Call`: a handler calls another capability. The body is the inputs' bytes, in order. Answered by `CallResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Call {
    /// The request whose handler calls.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// What the capability must satisfy, as a selector; empty means the model's name.
    #[prost(string, tag = "2")]
    pub selector: String,
    /// Any number of results may come; otherwise one.
    #[prost(bool, tag = "3")]
    pub stream: bool,
    /// What the other handler is to get; always set. Handler, slot, attempt and destinations mean nothing here.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

/// `CallResult`: one result of a call, or its end. The body is the outputs' bytes, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CallResult {
    /// The result; of its fields, `compute_ns` and `written` mean nothing here.
    #[prost(message, optional, tag = "1")]
    pub response: Option<Response>,
    /// Why there is none; it is the end.
    #[prost(message, optional, tag = "2")]
    pub failed: Option<Failed>,
    /// Nothing comes after it.
    #[prost(bool, tag = "3")]
    pub end: bool,
    /// Id of the response.
    #[prost(string, tag = "4")]
    pub id: String,
    /// Model name of the response.
    #[prost(string, tag = "5")]
    pub model: String,
    /// Version that served it.
    #[prost(string, tag = "6")]
    pub version: String,
    /// What it takes of the call's window, until a `Credit` gives it back.
    #[prost(uint64, tag = "7")]
    pub cost: u64,
}

/// `Credit`: room for more of a stream, or of a call's results.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credit {
    /// Bytes that the client, or the calling handler, has taken.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}

/// `Put`: the worker wants a block of the arena to write to. Answered by `View`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// Its bytes.
    #[prost(uint64, tag = "1")]
    pub len: u64,
    /// Only if there is plenty: it is asked for ahead of its use.
    #[prost(bool, tag = "2")]
    pub ahead: bool,
}

/// `Sealed`: a block is written and is an object from now on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sealed {
    /// The block, as `View` gave it.
    #[prost(message, optional, tag = "1")]
    pub block: Option<Block>,
    /// Bytes of it that are in use, from its start.
    #[prost(uint64, tag = "2")]
    pub len: u64,
    /// Name under which it can be looked up; empty for none.
    #[prost(string, tag = "3")]
    pub key: String,
    /// Milliseconds that it lives, at least 1.
    #[prost(uint64, tag = "4")]
    pub ttl_ms: u64,
    /// It may be evicted when room is needed.
    #[prost(bool, tag = "5")]
    pub cacheable: bool,
    /// It is to outlive this replica.
    #[prost(bool, tag = "6")]
    pub durable: bool,
    /// Whether the worker waits for a `View`.
    #[prost(bool, tag = "7")]
    pub answer: bool,
}

/// `Get`: the worker asks for an object. Answered by `View`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Get {
    /// Which one.
    #[prost(oneof = "Wanted", tags = "1, 2")]
    pub wanted: Option<Wanted>,
    /// Microseconds until the deadline, plus one; 0 is no deadline.
    #[prost(uint64, tag = "3")]
    pub remaining_us: u64,
    /// Whether it is only to be described; with nothing wanted, the store is.
    #[prost(bool, tag = "4")]
    pub describe: bool,
}

/// What `Get` asks for.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Wanted {
    /// The object of a reference.
    #[prost(message, tag = "1")]
    Object(ObjectId),
    /// The newest object under a key.
    #[prost(string, tag = "2")]
    Key(String),
}

/// A reference to an object.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ObjectId {
    /// The store that it was made in.
    #[prost(fixed64, tag = "1")]
    pub store: u64,
    /// Its place in the store's directory.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// What no other object at that place has.
    #[prost(fixed64, tag = "3")]
    pub generation: u64,
}

/// `View`: the answer to `Put`, `Get`, `Release`, and to `Sealed` if it asks for one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct View {
    /// Why there is none.
    #[prost(message, optional, tag = "1")]
    pub failed: Option<Failed>,
    /// The block or object; not set where there is none under a key, or none to delete.
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectId>,
    /// Where it begins in the arena; to `Put` only.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Bytes of room; to `Put` only.
    #[prost(uint64, tag = "4")]
    pub len: u64,
    /// What was asked to be described.
    #[prost(message, optional, tag = "5")]
    pub stat: Option<Stat>,
}

/// An object, or the whole store, in numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Bytes of the object, or of all objects and tensors under way.
    #[prost(uint64, tag = "1")]
    pub len: u64,
    /// Milliseconds that the object lives; 0 for ever.
    #[prost(uint64, tag = "2")]
    pub remaining_ms: u64,
    /// The object's key; empty for none.
    #[prost(string, tag = "3")]
    pub key: String,
    /// The object may be evicted.
    #[prost(bool, tag = "4")]
    pub cacheable: bool,
    /// The object outlives this replica.
    #[prost(bool, tag = "5")]
    pub durable: bool,
    /// Bytes of the arena; of the store only.
    #[prost(uint64, tag = "6")]
    pub capacity: u64,
    /// Objects; of the store only.
    #[prost(uint64, tag = "7")]
    pub objects: u64,
    /// Objects that were evicted since the start; of the store only.
    #[prost(uint64, tag = "8")]
    pub evicted: u64,
}

/// `Release`: from a worker, this object is to be deleted (answered by `View`) or this unwritten block is given back (not
/// answered); from the runtime, a client's memory is not used any more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Release {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectId>,
    /// The block.
    #[prost(message, optional, tag = "2")]
    pub block: Option<Block>,
    /// The number of the client's memory.
    #[prost(uint64, tag = "3")]
    pub region: u64,
}

/// `Manifest`: what a template process has loaded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Manifest {
    /// Process id of the template, as it sees itself.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// The secret that the runtime started it with.
    #[prost(string, tag = "2")]
    pub token: String,
    /// The app's worker groups, in the order of declaration; none if it could not be loaded.
    #[prost(message, repeated, tag = "3")]
    pub groups: Vec<Group>,
    /// Why the app could not be loaded.
    #[prost(message, optional, tag = "4")]
    pub failed: Option<Failed>,
    /// Why this process cannot fork workers; empty if it can. It ends after this frame if it cannot.
    #[prost(string, tag = "5")]
    pub no_fork: String,
    /// Files that the app was loaded from, for `--reload`: absolute paths.
    #[prost(string, repeated, tag = "6")]
    pub files: Vec<String>,
}

/// A worker group of the app.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Group {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What each of its workers serves.
    #[prost(message, repeated, tag = "2")]
    pub handlers: Vec<Handler>,
    /// GPUs that each of its workers needs.
    #[prost(uint32, tag = "3")]
    pub gpus: u32,
    /// Tokens that each of its workers needs.
    #[prost(message, repeated, tag = "4")]
    pub tokens: Vec<Amount>,
    /// Workers that are always there, if `declares_workers`.
    #[prost(uint32, tag = "5")]
    pub min_workers: u32,
    /// Workers that there may be, if `declares_workers`; at least 1.
    #[prost(uint32, tag = "6")]
    pub max_workers: u32,
    /// Microseconds without work after which a worker may go; 0 is never.
    #[prost(uint64, tag = "7")]
    pub idle_timeout_us: u64,
    /// Its workers can give their resources back and stay alive.
    #[prost(bool, tag = "8")]
    pub sleeps: bool,
    /// Variables of its workers' processes.
    #[prost(message, repeated, tag = "9")]
    pub environment: Vec<Header>,
    /// The Python interpreter of its workers; empty is the template's own.
    #[prost(string, tag = "10")]
    pub python: String,
    /// Microseconds that a worker has to become ready; 0 takes the replica's.
    #[prost(uint64, tag = "11")]
    pub start_timeout_us: u64,
    /// Whether the numbers of workers are declared; if not, they are the replica's.
    #[prost(bool, tag = "12")]
    pub declares_workers: bool,
    /// What a query may become where nothing serves it: `type=a -> type=b`.
    #[prost(string, repeated, tag = "13")]
    pub upgrades: Vec<String>,
}

/// So much of something.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Amount {
    /// Of what.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How much.
    #[prost(uint32, tag = "2")]
    pub amount: u32,
}

/// `Fork`: a worker is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fork {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub worker: u32,
    /// Its group.
    #[prost(string, tag = "2")]
    pub group: String,
    /// The socket that it connects to.
    #[prost(string, tag = "3")]
    pub socket: String,
    /// The secret that it says hello with.
    #[prost(string, tag = "4")]
    pub token: String,
    /// Files that its standard output and standard error are.
    #[prost(string, tag = "5")]
    pub stdout: String,
    /// See `stdout`.
    #[prost(string, tag = "6")]
    pub stderr: String,
    /// Variables that it sets before anything else.
    #[prost(message, repeated, tag = "7")]
    pub environment: Vec<Header>,
}

/// `Forked`: the answer to it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Forked {
    /// The number of the worker.
    #[prost(uint32, tag = "1")]
    pub worker: u32,
    /// Its process; 0 if there is none.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Why there is none.
    #[prost(string, tag = "3")]
    pub failed: String,
}
