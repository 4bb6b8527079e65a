//! Requests that go to whichever replica serves them, found through API servers.
//!
//! ```text
//!  call ──► Known ── fresh ──────────────────────────────► replica ──► answer
//!             │                                              │
//!             └─ old, avoided, nobody ─► ApiServers ─► named ┘   unsent, or refused once: another one
//! ```
//!
//! A replica is asked for once and then used for its lease. API servers that are away change nothing for who has found a
//! replica: the one that is known is used until it fails itself. What decides is pure: [`servers`], [`known`],
//! [`attempts`].

mod api_servers;
mod attempts;
mod deadline;
mod known;
mod recent;
mod servers;

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Code, Error, Query, Response, Responses};
use futures_util::TryStreamExt as _;
use parking_lot::Mutex;

pub use self::api_servers::ApiServers;
use self::api_servers::{CONNECT_TIMEOUT, Question, Urgency};
use self::attempts::Attempts;
use self::deadline::Deadline;
use self::known::{Choice, Known, Replica, Start};
use self::recent::Recent;
use crate::client::channel_to_member;
use crate::{Call, Client, Endpoint, Failed, Tls};

/// Queries of which replicas are remembered, each session of one for itself.
const MAX_QUERIES: usize = 1024;
/// Replicas that connections are kept to.
const MAX_CLIENTS: usize = 256;
/// The header that says which requests belong together.
const SESSION: &str = "x-anyserve-session";

/// Finds replicas and sends requests to them. Clones share connections and what is known.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: ApiServers,
    tls: Tls,
    /// `parking_lot`, as all below, and never held across an await.
    topics: Mutex<Recent<(Query, String), Arc<Topic>>>,
    clients: Mutex<Recent<String, Client>>,
    newest: Mutex<Option<Found>>,
}

/// A query, of one session, and who serves it.
#[derive(Debug, Default)]
struct Topic {
    known: Mutex<Known>,
    /// Held by the one who asks; how the last question ended that named nobody.
    asking: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

/// A replica is looked for.
#[derive(Clone, Copy, Debug)]
struct Search<'a> {
    topic: &'a Topic,
    query: &'a Query,
    session: &'a str,
    /// Starts of replicas that have had the request.
    tried: &'a [Start],
}

/// A replica that serves a query.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it takes requests.
    pub endpoint: Endpoint,
    /// Its name.
    pub replica_id: String,
    /// Its start.
    pub epoch: u64,
    /// The connection to it.
    pub client: Client,
}

// === impl Discovery ===

impl Discovery {
    /// Discovery through these API servers. Nothing is sent before the first call. Replicas are spoken to with the same
    /// TLS options as API servers.
    ///
    /// # Errors
    /// `INVALID_INPUT` if there is none, or if the TLS options cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime; the connections live on the one this is called in.
    pub fn try_new(api_servers: &[Endpoint], tls: &Tls) -> Result<Self, Error> {
        Ok(Self::over(ApiServers::try_new(api_servers, tls)?, tls))
    }

    /// The same, with the connections to API servers that others use, too.
    pub fn over(servers: ApiServers, tls: &Tls) -> Self {
        let (topics, clients) = (Mutex::new(Recent::new(MAX_QUERIES)), Mutex::new(Recent::new(MAX_CLIENTS)));
        Self(Arc::new(Inner { servers, tls: tls.clone(), topics, clients, newest: Mutex::default() }))
    }

    /// The replica that a request with this query would go to now.
    ///
    /// # Errors
    /// `NO_CAPABILITY` if nobody serves it, `UNAVAILABLE` if no API server answers and no replica is known.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn current(&self, query: &Query) -> Result<Found, Error> {
        let topic = self.topic(query, &Call::default());
        let search = Search { topic: &topic, query, session: "", tried: &[] };
        self.0.find(search).await.map(|(_, found)| found)
    }

    /// The API servers.
    pub fn api_servers(&self) -> &ApiServers {
        &self.0.servers
    }

    /// The replica that was found last; `None` before the first.
    pub fn newest(&self) -> Option<Found> {
        self.0.newest.lock().clone()
    }

    /// Has a call served by a replica that serves the query. What the replica makes of the call is told by the call's
    /// own capability, headers and model.
    ///
    /// A replica that was not reached, or refused the call without having begun it, costs the call nothing but time.
    ///
    /// # Errors
    /// Any code of the closed set; `NO_CAPABILITY` and `UNAVAILABLE` as of [`current`](Self::current).
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn infer(&self, query: &Query, call: &Call) -> Result<Response, Error> {
        self.attempt(query, call).await.map_err(|failed| failed.error)
    }

    /// The same, for those who may have it served in another way.
    ///
    /// # Errors
    /// [`Failed`], unsent if no replica was reached.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn attempt(&self, query: &Query, call: &Call) -> Result<Response, Failed> {
        self.send(query, call, |client, call| async move { client.attempt(&call).await }).await
    }

    /// The same, for any number of answers. It returns when the first one is there, or the end.
    ///
    /// # Errors
    /// As of [`attempt`](Self::attempt), up to the first answer.
    ///
    /// # Cancel safety
    /// Dropping the future, or the stream, cancels the call.
    pub async fn begin_stream(&self, query: &Query, call: &Call) -> Result<Responses, Failed> {
        self.send(query, call, |client, call| async move { client.begin_stream(&call).await }).await
    }

    /// The same, sent when the stream is first polled.
    pub fn stream(&self, query: Query, call: Call) -> Responses {
        let this = self.clone();
        let begin = async move { this.begin_stream(&query, &call).await.map_err(|failed| failed.error) };
        Box::pin(futures_util::stream::once(begin).try_flatten())
    }

    async fn send<T, F>(&self, query: &Query, call: &Call, send: impl Fn(Client, Call) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let (topic, session, deadline) = (self.topic(query, call), session(call), Deadline::of(call));
        let mut attempts = Attempts::default();
        loop {
            let search = Search { topic: &topic, query, session, tried: attempts.tried() };
            let found = deadline.within(self.0.find(search)).await;
            let (replica, found) = match found {
                Some(Ok(found)) => found,
                Some(Err(nobody)) => return Err(attempts.give_up(nobody)),
                None => return Err(attempts.give_up(late(query))),
            };
            match send(found.client, deadline.on(call)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => {
                    if failed.unsent || failed.silent || attempts::is_refusal(&failed.error) {
                        topic.known.lock().shun(&replica, Instant::now());
                    }
                    if let Some(end) = attempts.failed(replica.start(), failed) {
                        return Err(end);
                    }
                }
            }
        }
    }

    fn topic(&self, query: &Query, call: &Call) -> Arc<Topic> {
        let key = (query.clone(), session(call).to_owned());
        let topic = self.0.topics.lock().get_or_insert(&key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        topic.unwrap_or_else(|never| match never {})
    }
}

/// What a call belongs together with; may be empty.
fn session(call: &Call) -> &str {
    let named = call.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(SESSION));
    named.map_or("", |(_, session)| session)
}

fn late(query: &Query) -> Error {
    Error::new(Code::Deadline, format!("no replica for {query} was found within the timeout"))
}

// === impl Inner ===

impl Inner {
    /// A replica that was not tried yet.
    async fn find(&self, search: Search<'_>) -> Result<(Replica, Found), Error> {
        let replica = match search.choose() {
            Choice::Fresh(replica) => replica,
            // One asks; the others go on with what they have.
            Choice::Old(replica) => match search.topic.asking.try_lock() {
                Ok(mut asking) => self.ask(search, &mut asking).await.unwrap_or(replica),
                Err(_) => replica,
            },
            Choice::Last(replica) => self.ask_in_turn(search).await.unwrap_or(replica),
            Choice::Nobody => self.ask_in_turn(search).await?,
        };
        let client = self.client(&replica.endpoint)?;
        let Replica { id, epoch, endpoint } = replica.clone();
        let found = Found { endpoint, replica_id: id, epoch, client };
        *self.newest.lock() = Some(found.clone());
        Ok((replica, found))
    }

    /// Waits until nobody else asks. Who waited takes what the others have got.
    async fn ask_in_turn(&self, search: Search<'_>) -> Result<Replica, Error> {
        let began = Instant::now();
        let mut asking = search.topic.asking.lock().await;
        if let Choice::Fresh(replica) = search.choose() {
            return Ok(replica);
        }
        match &*asking {
            Some((ended, error)) if *ended > began => Err(error.clone()),
            _ => self.ask(search, &mut asking).await,
        }
    }

    async fn ask(&self, search: Search<'_>, asking: &mut Option<(Instant, Error)>) -> Result<Replica, Error> {
        let question = search.question();
        let mut answer = self.servers.resolve(&question).await;
        let nobody = |error: &Error| error.code == Code::NoCapability;
        if answer.as_ref().is_err_and(nobody) && !question.avoid.is_empty() {
            // Whoever is to be avoided may have been started anew: then it is somebody else.
            answer = self.servers.resolve(&Question { avoid: Vec::new(), ..question }).await;
        }
        let answer = answer.and_then(|(replica, lease)| search.untried(replica).map(|replica| (replica, lease)));
        *asking = answer.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let (replica, lease) = answer?;
        search.topic.known.lock().learned(replica.clone(), lease, Instant::now());
        Ok(replica)
    }

    fn client(&self, endpoint: &Endpoint) -> Result<Client, Error> {
        self.clients.lock().get_or_insert(&endpoint.to_string(), || {
            let channel = channel_to_member(endpoint, &self.tls, CONNECT_TIMEOUT)?;
            Ok(Client::over(channel, endpoint.clone()))
        })
    }
}

// === impl Search ===

impl Search<'_> {
    fn choose(&self) -> Choice {
        self.topic.known.lock().choose(self.tried, Instant::now())
    }

    fn question(&self) -> Question {
        let urgency = if self.choose() == Choice::Nobody { Urgency::Needed } else { Urgency::Welcome };
        let avoid = self.topic.known.lock().avoid(self.tried, Instant::now());
        Question { query: self.query.clone(), session: self.session.to_owned(), avoid, urgency }
    }

    /// A replica that was named although the API server was told to avoid it is nobody new.
    fn untried(&self, replica: Replica) -> Result<Replica, Error> {
        if !self.tried.contains(&replica.start()) {
            return Ok(replica);
        }
        let message = format!("nobody but replica '{}', which was tried, serves {}", replica.id, self.query);
        Err(Error::new(Code::NoCapability, message))
    }
}
