//! etcd's API, with a time for every answer.

use std::time::Duration;

use anyserve_client::{Endpoint, Tls, channel};
use anyserve_proto::etcd::auth_client::AuthClient;
use anyserve_proto::etcd::kv_client::KvClient;
use anyserve_proto::etcd::lease_client::LeaseClient;
use anyserve_proto::etcd::watch_client::WatchClient;
use anyserve_proto::etcd::{self, watch_request::RequestUnion};
use bytes::Bytes;
use futures_util::stream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Keys of replicas begin with it.
pub(super) const PREFIX: &str = "/anyserve/replicas/";
/// The first text after all that begin with it.
const AFTER: &str = "/anyserve/replicas0";
/// Entries that are read at once.
pub(super) const PAGE: i64 = 256;
/// Largest message that is read, in bytes: a page of usual entries, or a few of the largest. Read, a message of many tiny
/// parts takes many times as much.
const MAX_MESSAGE: usize = 16 << 20;

/// A connection to one member, as one user.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: InterceptedService<Channel, Token>,
    patience: Duration,
}

/// Tells in every request who asks, if that is known.
#[derive(Clone, Debug)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

/// One page of what is there.
pub(super) struct Page {
    pub(super) revision: i64,
    pub(super) found: Vec<etcd::KeyValue>,
    pub(super) more: bool,
}

// === impl Client ===

impl Client {
    /// Connects, and authenticates if there is a user.
    pub(super) async fn connect(
        member: &Endpoint,
        user: Option<&(String, String)>,
        tls: &Tls,
        patience: Duration,
    ) -> Result<Self, Status> {
        let plain = channel(member, tls).map_err(|error| Status::invalid_argument(error.message))?;
        let token = match user {
            Some((name, password)) => {
                let asked = etcd::AuthenticateRequest { name: name.clone(), password: password.clone() };
                let answer = within(patience, AuthClient::new(plain.clone()).authenticate(asked)).await?;
                let token = answer.into_inner().token.parse();
                Some(token.map_err(|_| Status::unauthenticated("the token is no header"))?)
            }
            None => None,
        };
        Ok(Self { channel: InterceptedService::new(plain, Token(token)), patience })
    }

    /// Whether most members are there: fewer answer no such question.
    pub(super) async fn ping(&self) -> Result<(), Status> {
        let asked = etcd::RangeRequest { key: PREFIX.into(), count_only: true, ..Default::default() };
        within(self.patience, self.kv().range(asked)).await.map(drop)
    }

    /// So many entries after this key, at this revision; 0 for the newest. `OUT_OF_RANGE` if that is too much at once.
    pub(super) async fn page(&self, after: Option<&[u8]>, revision: i64, limit: i64) -> Result<Page, Status> {
        let key = match after {
            // The next key there can be.
            Some(after) => [after, &[0]].concat().into(),
            None => Bytes::from_static(PREFIX.as_bytes()),
        };
        let asked = etcd::RangeRequest { key, range_end: AFTER.into(), limit, revision, ..Default::default() };
        let answer = within(self.patience, self.kv().range(asked)).await?.into_inner();
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok(Page { revision, found: answer.kvs, more: answer.more })
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64, Status> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let ttl = i64::try_from(seconds).unwrap_or(i64::MAX);
        let asked = etcd::LeaseGrantRequest { ttl, id: 0 };
        let granted =
            within(self.patience, LeaseClient::new(self.channel.clone()).lease_grant(asked)).await?.into_inner();
        // A key with lease 0 would stay for ever.
        if granted.id == 0 {
            return Err(Status::unavailable(format!("etcd granted no lease: {}", brief(&granted.error))));
        }
        Ok(granted.id)
    }

    pub(super) async fn put(&self, id: &str, value: Vec<u8>, lease: i64) -> Result<(), Status> {
        let asked = etcd::PutRequest { key: key(id), value: value.into(), lease };
        within(self.patience, self.kv().put(asked)).await.map(drop)
    }

    pub(super) async fn delete(&self, id: &str) -> Result<(), Status> {
        let asked = etcd::DeleteRangeRequest { key: key(id), range_end: Bytes::new() };
        within(self.patience, self.kv().delete_range(asked)).await.map(drop)
    }

    /// Keeps leases alive; tells those that are gone.
    pub(super) async fn keep_alive(&self, leases: Vec<i64>) -> Result<Vec<i64>, Status> {
        let count = leases.len();
        let asked = stream::iter(leases.into_iter().map(|id| etcd::LeaseKeepAliveRequest { id }));
        let mut client = LeaseClient::new(self.channel.clone());
        let mut answers = within(self.patience, client.lease_keep_alive(asked)).await?.into_inner();
        let mut gone = Vec::new();
        for _ in 0..count {
            match within(self.patience, answers.message()).await? {
                Some(answer) => gone.extend((answer.ttl <= 0).then_some(answer.id)),
                None => return Err(Status::unavailable("not every lease was answered for")),
            }
        }
        Ok(gone)
    }

    /// Every change of entries from this revision on.
    pub(super) async fn watch(&self, from: i64) -> Result<Streaming<etcd::WatchResponse>, Status> {
        let create = etcd::WatchCreateRequest { key: PREFIX.into(), range_end: AFTER.into(), start_revision: from };
        let asked = etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of what is asked stays open: its end would be the watch's.
        let asked = futures_util::StreamExt::chain(stream::iter([asked]), stream::pending());
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        within(self.patience, client.watch(asked)).await.map(tonic::Response::into_inner)
    }

    fn kv(&self) -> KvClient<InterceptedService<Channel, Token>> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// The name of the replica that a key is of.
pub(super) fn id_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)
}

/// The beginning of what etcd says, as it may stand in a log.
pub(super) fn brief(text: &str) -> String {
    text.chars().take(200).collect()
}

fn key(id: &str) -> Bytes {
    format!("{PREFIX}{id}").into()
}

async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("etcd has not answered for {patience:?}"));
    tokio::time::timeout(patience, answer).await.map_err(late)?
}

// === impl Token ===

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}
