//! The task that speaks to one API server: it does what the [`announcer`](crate::announcer) says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyserve_client::{Endpoint, Tls, channel_to_member, from_status, unsent};
use anyserve_core::{Code, Directory, Error};
use anyserve_proto::v1::registry_client::RegistryClient;
use anyserve_proto::v1::{HeartbeatRequest, HeartbeatResponse, LeaveRequest, RegisterRequest, Verdict};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::announcer::{Action, Announcer, Change, End, Event, Wish};
use crate::config::LinkConfig;
use crate::offers::Inventory;
use crate::trouble::{AWAY, away, refuses};

/// Time that an API server has to answer, a connection to it included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the tasks of one replica have in common.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) config: LinkConfig,
    /// The number of the newest message, to whomever.
    pub(crate) seq: AtomicU64,
}

/// Speaks to one API server.
pub(crate) struct Speaker<D> {
    directory: D,
    identity: Arc<Identity>,
    endpoint: Endpoint,
    registry: RegistryClient<Channel>,
    announcer: Announcer,
    first: Action,
    /// What it was told last.
    inventory: Inventory,
    beats: Option<Beats>,
    wish: watch::Receiver<Wish>,
    /// What it knows of the wish.
    told: watch::Sender<Wish>,
    /// What is wrong; told once.
    trouble: Option<String>,
}

/// A call of `Heartbeat` that lasts.
struct Beats {
    requests: mpsc::Sender<HeartbeatRequest>,
    answers: Streaming<HeartbeatResponse>,
}

// === impl Speaker ===

impl<D: Directory> Speaker<D> {
    /// Who speaks to the API server at `endpoint`.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the TLS options cannot be used.
    pub(crate) fn try_new(
        directory: D,
        identity: Arc<Identity>,
        endpoint: Endpoint,
        wish: watch::Receiver<Wish>,
        told: watch::Sender<Wish>,
    ) -> Result<Self, Error> {
        let registry = registry(&endpoint, &identity.config.tls)?;
        let seed = identity.config.epoch
            ^ endpoint.to_string().bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let (announcer, first) = Announcer::new(seed);
        let inventory = Inventory::default();
        Ok(Self {
            directory,
            identity,
            endpoint,
            registry,
            announcer,
            first,
            inventory,
            beats: None,
            wish,
            told,
            trouble: None,
        })
    }

    /// Speaks until there is nothing more to say.
    pub(crate) async fn run(mut self) {
        let mut action = self.first;
        loop {
            let event = match action {
                Action::Register => self.register().await,
                Action::Heartbeat { registered } => self.beat(registered).await,
                Action::Leave => self.leave().await,
                Action::Wait(until) => self.wait(until).await,
                Action::Over(end) => return self.over(end),
            };
            if matches!(event, Event::Broken | Event::Refused) {
                self.beats = None;
            }
            action = self.announcer.on(event, Instant::now());
            self.told.send_replace(self.announcer.told());
        }
    }

    /// Waits for the time, a change of the replica, or another wish.
    async fn wait(&mut self, until: Instant) -> Event {
        tokio::select! {
            biased;
            changed = self.wish.changed() => {
                // Without the link nobody can wish anything any more.
                let wish = if changed.is_ok() { *self.wish.borrow() } else { Wish::Leave };
                Event::Wants(wish)
            }
            () = tokio::time::sleep_until(until.into()) => Event::Due,
            () = self.directory.changed(self.inventory.version) => Event::Changed(self.look()),
        }
    }

    /// Takes note of what has changed.
    fn look(&mut self) -> Change {
        let now = self.current();
        let change = if now.offers_the_same(&self.inventory) { Change::Loads } else { Change::Offers };
        self.inventory.version = now.version;
        change
    }

    fn current(&self) -> Inventory {
        // The catalog first: what changes in between has another version, so that it is looked at again.
        let catalog = self.directory.catalog();
        Inventory::of(&catalog, &self.directory.snapshot())
    }

    async fn register(&mut self) -> Event {
        let inventory = self.current();
        if inventory.left_out > self.inventory.left_out {
            warn_of(inventory.left_out);
        }
        if inventory.rules_left_out > self.inventory.rules_left_out {
            warn_of_rules(inventory.rules_left_out);
        }
        let (seq, config) = (self.next_seq(), &self.identity.config);
        let message = RegisterRequest {
            id: config.id.clone(),
            epoch: config.epoch,
            seq,
            endpoint: config.endpoint.clone(),
            draining: self.is_draining(&inventory),
            offers: inventory.offers.clone(),
            upgrades: inventory.upgrades.clone(),
        };
        self.inventory = inventory;
        let request = self.signed(message);
        let answer = within(self.registry.register(request)).await;
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                let heartbeat = Duration::from_millis(answer.heartbeat_ms);
                let verdict = self.heard(answer.verdict(), answer.latest);
                Event::Registered { verdict, seq, heartbeat }
            }
            Err(failure) => self.failed(failure),
        }
    }

    async fn beat(&mut self, registered: u64) -> Event {
        let inventory = self.current();
        if !inventory.offers_the_same(&self.inventory) {
            return Event::Changed(Change::Offers);
        }
        let config = &self.identity.config;
        let message = HeartbeatRequest {
            id: config.id.clone(),
            epoch: config.epoch,
            seq: self.next_seq(),
            registered,
            draining: self.is_draining(&inventory),
            loads: inventory.loads(),
        };
        self.inventory = inventory;
        match within(self.exchange(message)).await {
            Ok(answer) => Event::Answered(self.heard(answer.verdict(), answer.latest)),
            Err(failure) => self.failed(failure),
        }
    }

    /// Sends a heartbeat on the call that lasts, or on a new one.
    async fn exchange(&mut self, message: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        let ended = || Status::unavailable("the call of Heartbeat has ended");
        if let Some(beats) = &mut self.beats {
            beats.requests.send(message).await.map_err(|_| ended())?;
        } else {
            let (requests, outgoing) = mpsc::channel(1);
            // It is there before the call: an API server may send its headers with its first answer.
            requests.send(message).await.map_err(|_| ended())?;
            let call = self.signed(ReceiverStream::new(outgoing));
            let answers = self.registry.heartbeat(call).await?.into_inner();
            self.beats = Some(Beats { requests, answers });
        }
        let Some(beats) = &mut self.beats else { return Err(ended()) };
        beats.answers.message().await?.ok_or_else(ended)
    }

    async fn leave(&mut self) -> Event {
        let config = &self.identity.config;
        let request = self.signed(LeaveRequest { id: config.id.clone(), epoch: config.epoch });
        match within(self.registry.leave(request)).await {
            Ok(_) => Event::Left,
            Err(_) => Event::Broken,
        }
    }

    fn is_draining(&self, inventory: &Inventory) -> bool {
        inventory.draining || self.announcer.wish() >= Wish::Drain
    }

    fn next_seq(&self) -> u64 {
        self.identity.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// An answer came: what was wrong is over.
    fn heard(&mut self, verdict: Verdict, latest: u64) -> Verdict {
        if verdict == Verdict::Outdated {
            self.identity.seq.fetch_max(latest, Ordering::Relaxed);
        }
        if verdict == Verdict::Accepted && self.trouble.take().is_some() {
            tracing::info!(api_server = %self.endpoint, "the API server knows this replica again");
        }
        verdict
    }

    /// The event of a failure, which is logged where it is another one than before.
    fn failed(&mut self, failure: Failure) -> Event {
        let Failure::Status(status) = failure else {
            self.complain("it does not answer", AWAY);
            return Event::Broken;
        };
        let error = from_status(&status, &self.endpoint, None);
        let answered = !unsent(&status) && std::error::Error::source(&status).is_none();
        if answered && is_refusal(error.code) {
            self.complain(&error.message, refuses(error.code));
            return Event::Refused;
        }
        self.complain(&error.message, away(&status, &self.endpoint, &self.identity.config.tls));
        Event::Broken
    }

    fn complain(&mut self, why: &str, what: &str) {
        if self.trouble.as_deref() != Some(what) {
            tracing::warn!(api_server = %self.endpoint, error = why, "{what}");
            self.trouble = Some(what.to_owned());
        }
    }

    fn over(self, end: End) {
        if end == End::Replaced {
            let id = &self.identity.config.id;
            tracing::error!(
                api_server = %self.endpoint,
                id,
                "another process runs with the id of this replica, or this one has left: it is not announced any more; \
                 give each replica its own --replica-id"
            );
        }
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = self.identity.config.token.as_ref().and_then(crate::Token::header) {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

fn warn_of(left_out: usize) {
    tracing::error!(
        left_out,
        "capabilities are not announced: an API server takes 256 of a replica, with 64 keys each and texts of 256 bytes; \
         make them shorter or serve them with several replicas"
    );
}

fn warn_of_rules(left_out: usize) {
    tracing::warn!(
        left_out,
        "upgrade rules are not announced: an API server takes 64 of a replica, of 1024 bytes each; they count here all the \
         same, but requests for them may be sent elsewhere"
    );
}

/// Why there is no answer.
enum Failure {
    Late,
    Status(Status),
}

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(Failure::Status),
        Err(_) => Err(Failure::Late),
    }
}

fn registry(endpoint: &Endpoint, tls: &Tls) -> Result<RegistryClient<Channel>, Error> {
    Ok(RegistryClient::new(channel_to_member(endpoint, tls, ANSWER_TIMEOUT)?))
}

/// Whether an API server would say the same to the same message again.
fn is_refusal(code: Code) -> bool {
    matches!(code, Code::InvalidInput | Code::Unauthenticated | Code::Forbidden | Code::Unsupported | Code::NotFound)
}
