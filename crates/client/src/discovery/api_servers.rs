//! Several API servers that stand in for one another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, Query, Response, Responses};
use anyserve_proto::v1::registry_client::RegistryClient;
use anyserve_proto::v1::resolve_request::Query as Wanted;
use anyserve_proto::v1::{ResolveRequest, ResolveResponse};
use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::client::channel_to_member;
use crate::discovery::deadline::Deadline;
use crate::discovery::known::Replica;
use crate::discovery::servers::Servers;
use crate::{Call, Client, Endpoint, Failed, Tls, failure};

/// Time that a connection may take where there may be others.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time that an API server has to name a replica.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same, for who has one already.
const LITTLE_PATIENCE: Duration = Duration::from_millis(250);
/// Longest id of a replica, in bytes.
const MAX_ID: usize = 256;

/// API servers, any of which does as well as another. Clones share connections and what is known of each.
#[derive(Clone, Debug)]
pub struct ApiServers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Vec<Server>,
    /// `parking_lot` and never held across an await.
    standing: Mutex<Servers>,
}

#[derive(Clone, Debug)]
struct Server {
    client: Client,
    registry: RegistryClient<Channel>,
}

/// What is asked of an API server.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// What the replica is to serve.
    pub(super) query: Query,
    /// What the request belongs together with; may be empty.
    pub(super) session: String,
    /// Replicas that are not to be named.
    pub(super) avoid: Vec<String>,
    /// How much the answer matters.
    pub(super) urgency: Urgency,
}

/// What an answer is worth to who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Nobody is known: whoever may answer is asked.
    Needed,
    /// There is somebody: API servers that failed a moment ago are left alone, and the others have little time.
    Welcome,
}

/// A replica that an API server named, and for how long it is believed to be there.
pub(super) type Named = (Replica, Duration);

// === impl ApiServers ===

impl ApiServers {
    /// The API servers at these endpoints. Nothing is sent: connections are made by the first call.
    ///
    /// # Errors
    /// `INVALID_INPUT` if there is none, or if the TLS options cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime; the connections live on the one this is called in.
    pub fn try_new(endpoints: &[Endpoint], tls: &Tls) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::invalid("no API server is given: name at least one, such as http://localhost:8080"));
        }
        let all: Vec<_> = endpoints.iter().map(|endpoint| Server::try_new(endpoint, tls)).collect::<Result<_, _>>()?;
        let standing = Mutex::new(Servers::new(all.len()));
        Ok(Self(Arc::new(Inner { all, standing })))
    }

    /// A client of the one that answered last.
    pub fn client(&self) -> Client {
        let place = self.places(true)[0];
        self.0.all[place].client.clone()
    }

    /// Sends a call to the first API server that can be reached, which has it served by some replica.
    ///
    /// # Errors
    /// [`Failed`], unsent only if none can be reached.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn infer(&self, call: &Call) -> Result<Response, Failed> {
        self.send(call, |client, call| async move { client.attempt(&call).await }).await
    }

    /// The same, for any number of answers. It returns when the first one is there, or the end.
    ///
    /// # Errors
    /// [`Failed`], unsent only if none can be reached.
    ///
    /// # Cancel safety
    /// Dropping the future, or the stream, cancels the call.
    pub async fn begin_stream(&self, call: &Call) -> Result<Responses, Failed> {
        self.send(call, |client, call| async move { client.begin_stream(&call).await }).await
    }

    async fn send<T, F>(&self, call: &Call, send: impl Fn(Client, Call) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let deadline = Deadline::of(call);
        let mut failure = None;
        for place in self.places(true) {
            let ended = send(self.0.all[place].client.clone(), deadline.on(call)).await;
            self.note(place, !matches!(&ended, Err(failed) if failed.unsent));
            match ended {
                Err(failed) if failed.unsent => failure = Some(failed),
                ended => return ended,
            }
        }
        Err(failure.unwrap_or_else(|| Failed::before(nobody())))
    }

    /// Asks which replica a request should go to.
    ///
    /// # Errors
    /// `NO_CAPABILITY` if no API server knows of one, `UNAVAILABLE` if none answers.
    pub(super) async fn resolve(&self, question: &Question) -> Result<Named, Error> {
        let request = request(question)?;
        let (mut said, mut silent) = (None, None);
        let need = question.urgency == Urgency::Needed;
        let patience = if need { PATIENCE } else { LITTLE_PATIENCE };
        for place in self.places(need) {
            let answer = self.0.all[place].resolve(request.clone(), patience).await;
            self.note(place, !matches!(&answer, Err(failed) if failed.unsent));
            match answer {
                Ok(named) => return Ok(named),
                Err(Failed { error, unsent: true, .. }) => silent = Some(error),
                // Another one may know more.
                Err(Failed { error, unsent: false, .. }) => said = Some(error),
            }
        }
        Err(said.or(silent).unwrap_or_else(nobody))
    }

    fn places(&self, need: bool) -> Vec<usize> {
        let (standing, now) = (self.0.standing.lock(), Instant::now());
        if need { standing.all(now) } else { standing.able(now) }
    }

    fn note(&self, place: usize, answered: bool) {
        let mut standing = self.0.standing.lock();
        if answered { standing.answered(place) } else { standing.failed(place, Instant::now()) }
    }
}

fn nobody() -> Error {
    Error::new(Code::Unavailable, "no API server answers, and no replica is known")
}

// === impl Server ===

impl Server {
    fn try_new(endpoint: &Endpoint, tls: &Tls) -> Result<Self, Error> {
        let channel = channel_to_member(endpoint, tls, CONNECT_TIMEOUT)?;
        let client = Client::over(channel.clone(), endpoint.clone());
        Ok(Self { client, registry: RegistryClient::new(channel) })
    }

    /// Asks this one. A failure is unsent if it did not answer, which is no answer.
    async fn resolve(&self, request: ResolveRequest, patience: Duration) -> Result<Named, Failed> {
        let endpoint = self.client.endpoint();
        let mut registry = self.registry.clone();
        let answer = tokio::time::timeout(patience, registry.resolve(request)).await;
        let answer = answer.map_err(|_| Failed::before(failure::out_of_time(endpoint, patience)))?;
        let answer = answer.map_err(|status| {
            let error = not_named(failure::from_status(&status, endpoint, None), endpoint);
            Failed { error, unsent: std::error::Error::source(&status).is_some(), silent: false }
        })?;
        named(answer.into_inner()).map_err(|what| {
            let message = format!("API server {endpoint} names a replica {what}");
            Failed::after(Error::new(Code::Internal, message))
        })
    }
}

/// What an API server says that names nobody. One that speaks of nothing but a status has no registry.
fn not_named(error: Error, endpoint: &Endpoint) -> Error {
    match error.code {
        Code::NotFound => Error { code: Code::NoCapability, ..error },
        Code::Unsupported => {
            let instead = format!("call a replica by its endpoint: Client(endpoint=\"{endpoint}\")");
            let message = format!("{endpoint} is no API server: it has no registry; {instead} ({})", error.message);
            Error { message, ..error }
        }
        _ => error,
    }
}

fn request(question: &Question) -> Result<ResolveRequest, Error> {
    let query = match (&question.query, question.query.to_selector()) {
        (_, Some(selector)) => Wanted::Selector(selector),
        (Query::Model(name), None) if !name.is_empty() => Wanted::Model(name.clone()),
        _ => return Err(Error::invalid("a replica is found by a capability or a model name: give one")),
    };
    let (session, avoid) = (question.session.clone(), question.avoid.clone());
    Ok(ResolveRequest { query: Some(query), session, avoid })
}

/// The replica of an answer, or what is wrong with it.
fn named(answer: ResolveResponse) -> Result<Named, &'static str> {
    let ResolveResponse { replica_id: id, epoch, endpoint, lease_ms, .. } = answer;
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("whose id is not 1 to 256 visible ASCII characters");
    }
    let endpoint = endpoint.parse().map_err(|_| "whose endpoint is no http://host:port or https://host:port")?;
    Ok((Replica { id, epoch, endpoint }, Duration::from_millis(lease_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(id: &str, endpoint: &str) -> ResolveResponse {
        ResolveResponse { replica_id: id.into(), endpoint: endpoint.into(), ..ResolveResponse::default() }
    }

    #[test]
    fn only_an_id_and_an_endpoint_that_can_be_are_believed() {
        for (len, fits) in [(0, false), (1, true), (255, true), (256, true), (257, false)] {
            assert_eq!(named(answer(&"x".repeat(len), "http://h:1")).is_ok(), fits, "{len}");
        }
        for (id, endpoint) in [("a b", "http://h:1"), ("é", "http://h:1"), ("a", ""), ("a", "ftp://h:1"), ("a", "h")] {
            assert!(named(answer(id, endpoint)).is_err(), "{id} {endpoint}");
        }
    }

    #[test]
    fn a_question_is_a_selector_or_a_name() {
        let asked = |query| {
            let question = Question { query, session: String::new(), avoid: vec![], urgency: Urgency::Needed };
            request(&question).map(|request| request.query)
        };
        assert_eq!(asked(Query::model("m")), Ok(Some(Wanted::Model("m".into()))));
        assert_eq!(asked(Query::parse("a=1,b>2").unwrap()), Ok(Some(Wanted::Selector("a=1,b>2".into()))));
        for nothing in [Query::model(""), Query::all(vec![])] {
            assert_eq!(asked(nothing).unwrap_err().code, Code::InvalidInput);
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_a_replica_or_refused(id in ".{0,8}", endpoint in "(https?://)?.{0,12}", lease_ms: u64) {
            let told = named(ResolveResponse { lease_ms, ..answer(&id, &endpoint) });
            if let Ok((replica, _)) = told {
                prop_assert_eq!(replica.id, id);
            }
        }
    }
}
