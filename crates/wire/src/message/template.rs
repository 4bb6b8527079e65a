//! What a template has loaded, and the workers that it forks.

use super::{Failed, Handler, Header};

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
