//! The data path: requests go to replicas as they came, and answers come back as they are.
//!
//! ```text
//! ModelInfer ──► Asked ──► carry ──► Begun ─► Relay: frames as they come ───────────────► client
//! ModelStreamInfer ─► Session: an Asked for every message ─► carry ─► Responses, in turn ─► client
//!                            │ ▲
//!                      Event │ │ Step
//!                            ▼ │
//!                        Flight: the Route of anyserve_cluster, told of its end whatever happens
//! ```
//!
//! No message is decoded: of a request only what routing needs is looked at, and of an answer whether it begins with data
//! or is an error. Nothing is sent a second time once an answer has begun.

mod asked;
mod carry;
mod config;
mod failure;
mod flight;
mod front;
mod headers;
mod health;
mod inquiry;
mod message;
mod passing;
mod questions;
mod relay;
mod responses;
mod scan;
mod serves;
mod session;
mod stream;
mod unary;

pub(crate) use asked::{Ask, Asked};
pub(crate) use carry::carry;
pub use config::ProxyConfig;
pub(crate) use failure::Refused;
pub(crate) use front::{Proxy, leaving};
pub(crate) use headers::{copy_trail, of_http};
use health::health;
pub(crate) use inquiry::inquire;
pub(crate) use message::{Message, ReadError};
use questions::questions;
pub(crate) use responses::{Answer, Responses};
use stream::stream_infer;
use unary::infer;
pub(crate) use unary::within;

/// The service of KServe.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// One message in, one message out.
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Many messages in, any number out.
const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// The gRPC health service.
const HEALTH: &str = "/grpc.health.v1.Health/";

#[cfg(any(test, fuzzing))]
pub mod fuzz;
