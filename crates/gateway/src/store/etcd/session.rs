//! One session with one member: everything that is under way in it ends with it.

use std::sync::Arc;
use std::time::Duration;

use anyserve_client::Endpoint;
use anyserve_cluster::{RegistryConfig, RegistryLimits};
use anyserve_proto::etcd::event::EventType;
use anyserve_proto::etcd::{self, WatchResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::super::EtcdConfig;
use super::super::entry::{Entry, MAX_ENTRY};
use super::super::mirror::{Action, Change, Event, Id, LeaseId};
use super::client::{Client, PAGE, brief, id_of};
use super::complaints::{Complaint, Complaints};

/// An event, and why if it is none that one would wish for.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Event,
    pub(super) cause: Option<String>,
}

/// What is under way with one member.
#[derive(Debug)]
pub(super) struct Session {
    client: Option<Client>,
    lease: Duration,
    reader: Reader,
    /// Connecting, and requests.
    tasks: JoinSet<Done>,
    /// What changes, as it comes; nothing is read while it is full.
    watched: mpsc::Receiver<Told>,
    watching: mpsc::Sender<Told>,
}

#[derive(Debug)]
enum Done {
    Connected(Client),
    Told(Told),
    /// The watch has said everything over the channel.
    Watched,
}

/// Reads entries, and says which cannot be.
#[derive(Clone, Debug)]
struct Reader {
    limits: RegistryLimits,
    complaints: Arc<Complaints>,
}

/// What a replica says, on its way into the store.
struct Writing {
    client: Client,
    id: Id,
    entry: Arc<Entry>,
    /// Its lease, if it has one already.
    lease: Option<LeaseId>,
    /// The time of a new one.
    ttl: Duration,
    complaints: Arc<Complaints>,
}

/// Changes that wait to be looked at, as messages of the store.
const WAITING: usize = 1;

// === impl Session ===

impl Session {
    /// Begins to connect to a member.
    pub(super) fn open(
        config: &EtcdConfig,
        member: Endpoint,
        registry: &RegistryConfig,
        complaints: &Arc<Complaints>,
        patience: Duration,
    ) -> Self {
        let (watching, watched) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let (user, tls) = (config.user.clone(), config.tls.clone());
        tasks.spawn(async move {
            match Client::connect(&member, user.as_ref(), &tls, patience).await {
                Ok(client) => Done::Connected(client),
                Err(status) => Done::Told(Told::broken(&status)),
            }
        });
        let reader = Reader { limits: registry.limits, complaints: Arc::clone(complaints) };
        Self { client: None, lease: registry.lease, reader, tasks, watched, watching }
    }

    /// What happens next in it.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Told {
        loop {
            let done = tokio::select! {
                Some(told) = self.watched.recv() => return told,
                Some(done) = self.tasks.join_next() => done,
                else => std::future::pending().await,
            };
            match done {
                Ok(Done::Connected(client)) => {
                    self.client = Some(client);
                    return Event::Connected.into();
                }
                Ok(Done::Told(told)) => return told,
                Ok(Done::Watched) => {}
                Err(error) => return Told { event: Event::Broken, cause: Some(format!("a task panicked: {error}")) },
            }
        }
    }

    /// Begins to carry out an action.
    pub(super) fn perform(&mut self, action: Action) {
        let Some(client) = self.client.clone() else { return };
        let (reader, ttl) = (self.reader.clone(), self.lease);
        let complaints = Arc::clone(&reader.complaints);
        match action {
            Action::List => self.tell(async move { list(&client, &reader).await }),
            Action::Ping => self.tell(async move { client.ping().await.map(|()| Event::Ponged) }),
            Action::Write { id, entry, lease } => {
                let writing = Writing { client, id, entry, lease, ttl, complaints };
                self.tell(async move { writing.write().await });
            }
            Action::Remove { id, entry, lease } => {
                let writing = Writing { client, id, entry, lease, ttl, complaints };
                self.tell(async move { writing.remove().await });
            }
            Action::KeepAlive(leases) => {
                self.tell(async move { Ok(Event::KeptAlive { gone: client.keep_alive(leases).await? }) });
            }
            Action::Watch { from } => {
                let watching = self.watching.clone();
                self.tasks.spawn(async move {
                    let end = watch(&client, from, &reader, &watching).await;
                    // Nobody reads any more when the session is over.
                    let _ = watching.send(end).await;
                    Done::Watched
                });
            }
            _ => {}
        }
    }

    fn tell(&mut self, work: impl Future<Output = Result<Event, Status>> + Send + 'static) {
        self.tasks.spawn(async move { Done::Told(work.await.map_or_else(|status| Told::broken(&status), Told::from)) });
    }
}

/// Reads everything, in the order of its keys: no more of them than there can be replicas, whether they can be read or not.
async fn list(client: &Client, reader: &Reader) -> Result<Event, Status> {
    let (mut entries, mut last, mut revision, mut limit, mut keys) = (Vec::new(), None, 0, PAGE, 0);
    loop {
        let page = match client.page(last.as_deref(), revision, limit).await {
            Err(status) if status.code() == Code::OutOfRange && limit > 1 => {
                limit /= 2;
                continue;
            }
            page => page?,
        };
        if revision == 0 {
            revision = page.revision;
        }
        for found in &page.found {
            if last.as_ref().is_some_and(|last| found.key <= *last) {
                return Err(Status::data_loss("etcd lists keys that are not in their order"));
            }
            last = Some(found.key.clone());
        }
        keys += page.found.len();
        entries.extend(page.found.iter().filter_map(|found| reader.entry(found)));
        if !page.more || page.found.is_empty() || keys > reader.limits.max_replicas {
            return Ok(Event::Listed { revision, entries });
        }
    }
}

/// Tells every change; returns how the watch ended.
async fn watch(client: &Client, from: i64, reader: &Reader, told: &mpsc::Sender<Told>) -> Told {
    let mut answers = match client.watch(from).await {
        Ok(answers) => answers,
        Err(status) => return Told::broken(&status),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Told::broken(&Status::unavailable("etcd ended the watch")),
            Err(status) => return Told::broken(&status),
        };
        if answer.compact_revision > 0 {
            let cause = format!("etcd has nothing before revision {} any more", answer.compact_revision);
            return Told { event: Event::Compacted, cause: Some(cause) };
        }
        if answer.canceled {
            return Told::broken(&Status::unavailable(format!(
                "etcd cancelled the watch: {}",
                brief(&answer.cancel_reason)
            )));
        }
        if !answer.events.is_empty() && told.send(watched(&answer, reader).into()).await.is_err() {
            return Event::Broken.into();
        }
    }
}

fn watched(answer: &WatchResponse, reader: &Reader) -> Event {
    let changes = answer.events.iter().filter_map(|event| {
        let key = event.kv.as_ref()?;
        let gone = || id_of(&key.key).map(|id| Change::Gone(id.into()));
        match event.r#type() {
            EventType::Put => reader.entry(key).map(|(id, entry)| Change::Put(id, entry)).or_else(gone),
            EventType::Delete => gone(),
        }
    });
    Event::Watched(changes.collect())
}

// === impl Writing ===

impl Writing {
    async fn write(&self) -> Result<Event, Status> {
        let value = self.entry.encode();
        let (id, len) = (Arc::clone(&self.id), value.len());
        if len > MAX_ENTRY {
            if self.complaints.is_new(Complaint::TooLong, &id) {
                tracing::warn!(replica = %id, len, max = MAX_ENTRY, "a replica says too much for the store; others do not see it");
            }
            return Ok(Event::Refused { id });
        }
        let lease = match self.lease {
            Some(lease) => lease,
            None => self.client.grant(self.ttl).await?,
        };
        match self.client.put(&id, value, lease).await {
            Ok(()) => Ok(Event::Written { id, lease }),
            Err(status) if status.code() == Code::NotFound => Ok(Event::Expired { id }),
            Err(status) if status.code() == Code::InvalidArgument => {
                if self.complaints.is_new(Complaint::Refused, &id) {
                    tracing::warn!(replica = %id, len, %status, "etcd does not take what a replica says; others do not see it");
                }
                Ok(Event::Refused { id })
            }
            Err(status) => Err(status),
        }
    }

    /// That it goes is written first: a key that is just gone says nothing about the replica.
    async fn remove(self) -> Result<Event, Status> {
        self.write().await?;
        self.client.delete(&self.id).await?;
        Ok(Event::Removed { id: self.id })
    }
}

// === impl Reader ===

impl Reader {
    /// The entry of a key, if somebody can read it.
    fn entry(&self, found: &etcd::KeyValue) -> Option<(Id, Arc<Entry>)> {
        // No replica has a longer name, and no log line is to have one.
        let id = id_of(&found.key).filter(|id| id.len() <= self.limits.max_text)?;
        match Entry::decode(id, &found.value, &self.limits) {
            Ok(entry) => Some((id.into(), Arc::new(entry))),
            Err(error) => {
                if self.complaints.is_new(Complaint::Unread, id) {
                    tracing::warn!(replica = id, %error, "what the store says of a replica cannot be read");
                }
                None
            }
        }
    }
}

// === impl Told ===

impl Told {
    fn broken(status: &Status) -> Self {
        let cause = format!("{:?}: {}", status.code(), status.message());
        Self { event: Event::Broken, cause: Some(cause) }
    }
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self { event, cause: None }
    }
}
