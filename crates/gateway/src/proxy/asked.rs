//! What one request asks of the fleet.

use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::policy::{Keys, SESSION};
use anyserve_cluster::{Call, Target, Trip};
use anyserve_core::{Error, Query};
use anyserve_server::parts::{CallHead, parameter};
use bytes::Buf;
use http::HeaderMap;
use prost::DecodeError;

use super::front::Proxy;
use super::message::Message;
use super::scan::{Found, Wants, scan};
use super::{INFER, STREAM_INFER, headers};
use crate::replicas::Head;

/// How a request is put to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One message in, one out.
    Infer,
    /// One message in, any number out, and a failure is the status of the call.
    Stream,
    /// A question about a model, by this method.
    Question(&'static str),
}

/// A request, ready to be sent as often as it takes.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    ask: Ask,
    headers: Arc<HeaderMap>,
    message: Arc<Message>,
    /// What the request itself asks for.
    said: Query,
    /// Its id.
    pub(crate) id: String,
    version: String,
    keys: Keys,
    deadline: Option<Instant>,
    trip: Trip,
}

// === impl Ask ===

impl Ask {
    fn path(self) -> &'static str {
        match self {
            Self::Infer => INFER,
            Self::Stream => STREAM_INFER,
            Self::Question(path) => path,
        }
    }

    fn wants(self, proxy: &Proxy) -> Wants {
        match self {
            Self::Question(_) => Wants::Name,
            _ if proxy.fleet.reads_prompts() => Wants::Prompt,
            _ => Wants::Query,
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Reads what routing needs of a message. `headers` are those that go along with it.
    ///
    /// # Errors
    /// What [`look`] and [`Asked::of`] say.
    pub(crate) fn read(
        proxy: &Proxy,
        ask: Ask,
        head: &CallHead,
        headers: Arc<HeaderMap>,
        message: Message,
    ) -> Result<Self, Error> {
        let found = look(proxy, ask, head, &message)?;
        Self::of(ask, head, headers, message, found)
    }

    /// A request of which this was found. `headers` are those that go along with it.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a query or a header that cannot be read.
    pub(crate) fn of(
        ask: Ask,
        head: &CallHead,
        headers: Arc<HeaderMap>,
        message: Message,
        found: Found,
    ) -> Result<Self, Error> {
        let Found { model, version, id, capability, prompt } = found;
        let no_value =
            || Error::invalid(format!("parameter 'capability' of the request for model '{model}' has no value"));
        let capability =
            capability.map(|value| value.parameter_choice.map(parameter).ok_or_else(no_value)).transpose()?;
        let said = head.query(capability.as_ref(), &model)?;
        if matches!(ask, Ask::Question(_)) && said == Query::model("") {
            return Err(Error::invalid(
                "name a model: what is of all of them, ask a replica; GET /registry tells where",
            ));
        }
        let session = head.headers().iter().find(|(name, text)| name == SESSION && !text.is_empty());
        let keys = Keys::new(session.map(|(_, text)| text.as_str()), prompt.as_deref());
        let (trip, deadline) = (Trip::of(head.headers())?, head.deadline());
        Ok(Self { ask, headers, message: Arc::new(message), said, id, version, keys, deadline, trip })
    }

    /// Whether it says nothing of what it asks for.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.said == Query::model("")
    }

    /// What the fleet is told of it.
    pub(crate) fn call(&self) -> Call {
        let (query, keys, deadline, trip) = (self.said.clone(), self.keys, self.deadline, self.trip.clone());
        Call { query, keys, deadline, trip }
    }

    /// When the caller stops waiting.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The version of the model that it asks for; empty for any.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// What is sent after its headers.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// The headers of the request as it is sent to a replica.
    pub(crate) fn head(&self, target: &Target) -> Head {
        let rewritten = (target.query != self.said).then_some(&target.query);
        let mut sent = HeaderMap::clone(&self.headers);
        headers::put(&mut sent, rewritten, target.delegations, self.deadline);
        if self.ask == Ask::Stream {
            sent.insert("triton_grpc_error", http::HeaderValue::from_static("true"));
        }
        Head { path: self.ask.path(), headers: sent }
    }
}

/// Looks for what routing needs of a message. A compressed one is decompressed for it, and stays as it is.
///
/// # Errors
/// `INVALID_INPUT` for a message that cannot be read, `OVERLOADED` where there is no memory to decompress it.
pub(crate) fn look(proxy: &Proxy, ask: Ask, head: &CallHead, message: &Message) -> Result<Found, Error> {
    let wants = ask.wants(proxy);
    let mut reader = message.reader();
    let read = if message.is_compressed() {
        let mut charge = proxy.budget.charge();
        let len = reader.remaining();
        charge.grow(len)?;
        let packed = reader.copy_to_bytes(len);
        scan(head.decompress(&packed, proxy.limits.max_message, &mut charge)?, wants)
    } else {
        scan(reader, wants)
    };
    read.map_err(|error| malformed(wants, &error))
}

fn malformed(wants: Wants, error: &DecodeError) -> Error {
    let what = if wants == Wants::Name { "question about a model" } else { "ModelInferRequest" };
    Error::invalid(format!("the message is no {what}: {error}"))
}
