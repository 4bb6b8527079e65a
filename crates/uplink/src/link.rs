//! The link between a replica and its API servers.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyserve_client::{ApiServers, Call, Discovery, Failed};
use anyserve_cluster::{Arrival, Refusal, Trip, refuse};
use anyserve_core::header::{DELEGATIONS, REFUSED_BY};
use anyserve_core::{Answered, Code, Directory, Error, Expects, Query, Reply, Request, Upgrades, Uplink};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::announcer::Wish;
use crate::config::LinkConfig;
use crate::forward;
use crate::speaker::{Identity, Speaker};

/// Time that API servers have together to take note of a drain or a departure.
const NOTE_TIMEOUT: Duration = Duration::from_secs(1);

/// A replica's way to its API servers. It hands requests on from its first moment, and announces the replica once it is
/// started.
#[derive(Debug)]
pub struct Link {
    identity: Arc<Identity>,
    servers: ApiServers,
    discovery: Discovery,
    wish: watch::Sender<Wish>,
    /// What each API server knows of the wish.
    told: Vec<watch::Sender<Wish>>,
}

/// The tasks that announce the replica, one for each API server. Dropping it ends them.
#[derive(Debug)]
pub struct Running(JoinSet<()>);

// === impl Link ===

impl Link {
    /// A link that announces nothing yet. Nothing is sent.
    ///
    /// # Errors
    /// `INVALID_INPUT` if there is no API server, or if the TLS options cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime; the connections live on the one this is called in.
    pub fn try_new(config: LinkConfig) -> Result<Arc<Self>, Error> {
        let servers = ApiServers::try_new(&config.api_servers, &config.tls)?;
        let discovery = Discovery::over(servers.clone(), &config.tls);
        let told = config.api_servers.iter().map(|_| watch::Sender::new(Wish::Leave)).collect();
        let identity = Arc::new(Identity { config, seq: AtomicU64::new(0) });
        Ok(Arc::new(Self { identity, servers, discovery, wish: watch::Sender::new(Wish::Serve), told }))
    }

    /// Announces the replica to every API server, and again after every break and change, until it leaves.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the TLS options cannot be used.
    pub fn start(&self, directory: &(impl Directory + Clone + Send + Sync + 'static)) -> Result<Running, Error> {
        let mut tasks = JoinSet::new();
        for (endpoint, told) in self.identity.config.api_servers.iter().zip(&self.told) {
            told.send_replace(Wish::Serve);
            let (directory, identity) = (directory.clone(), Arc::clone(&self.identity));
            let mut wish = self.wish.subscribe();
            // What was wished before counts, too.
            wish.mark_changed();
            let speaker = Speaker::try_new(directory, identity, endpoint.clone(), wish, told.clone())?;
            tasks.spawn(speaker.run());
        }
        Ok(Running(tasks))
    }

    /// Tells every API server that the replica takes no more requests, and waits until they know: a second at most.
    ///
    /// # Cancel safety
    /// Safe; they are told all the same.
    pub async fn drain(&self) {
        self.want(Wish::Drain).await;
    }

    /// Tells every API server that the replica goes, and waits until they know: a second at most. It announces nothing
    /// any more.
    ///
    /// # Cancel safety
    /// Safe; they are told all the same.
    pub async fn leave(&self) {
        self.want(Wish::Leave).await;
    }

    async fn want(&self, wish: Wish) {
        self.wish.send_if_modified(|old| {
            let more = wish > *old;
            *old = wish.max(*old);
            more
        });
        let all = async {
            for told in &self.told {
                // The sender is this link's own, so that the wait can only end well.
                let _ = told.subscribe().wait_for(|told| *told >= wish).await;
            }
        };
        if tokio::time::timeout(NOTE_TIMEOUT, all).await.is_err() {
            tracing::warn!(?wish, "not every API server took note in time; leases end by themselves");
        }
    }

    /// Has an API server serve the request by another replica, as `query`.
    fn forward(&self, request: Request, query: &Query) -> Answered {
        let way =
            vec![(DELEGATIONS.to_owned(), "1".to_owned()), (REFUSED_BY.to_owned(), self.identity.config.id.clone())];
        let (servers, expects) = (self.servers.clone(), request.expects);
        match forward::call(request, query, way) {
            Ok(call) => Box::pin(async move { through(&servers, &call, expects).await.map_err(|failed| failed.error) }),
            Err(error) => failed(error),
        }
    }
}

impl Uplink for Link {
    fn delegate(&self, request: Request, upgrades: &Upgrades) -> Answered {
        let by_server = request.headers.iter().any(|(name, _)| name == DELEGATIONS);
        let arrival = if by_server { Arrival::ByServer } else { Arrival::Direct };
        match Trip::of(&request.headers).map(|trip| refuse(&request.query, &trip, arrival, upgrades)) {
            Ok(Refusal::HandBack(query)) => failed(hand_back(&request.query, query)),
            Ok(Refusal::Forward(query)) => self.forward(request, &query),
            Ok(Refusal::Fail(error)) | Err(error) => failed(error),
        }
    }

    fn call(&self, request: Request) -> Answered {
        let (servers, discovery) = (self.servers.clone(), self.discovery.clone());
        let (query, expects) = (request.query.clone(), request.expects);
        match forward::call(request, &query, Vec::new()) {
            Ok(call) => Box::pin(async move { called(&servers, &discovery, &query, &call, expects).await }),
            Err(error) => failed(error),
        }
    }
}

fn failed(error: Error) -> Answered {
    Box::pin(ready(Err(error)))
}

fn hand_back(asked: &Query, query: Query) -> Error {
    let message = format!("this replica has no capability for {asked}; the API server is to find another one");
    Error::new(Code::NoCapability, message).with_hand_back(query)
}

/// Sends a call to another replica or, if none can be reached from here, to an API server.
async fn called(
    servers: &ApiServers,
    discovery: &Discovery,
    query: &Query,
    call: &Call,
    expects: Expects,
) -> Result<Reply, Error> {
    let found = match expects {
        Expects::One => discovery.attempt(query, call).await.map(Reply::One),
        Expects::Many => discovery.begin_stream(query, call).await.map(Reply::Many),
    };
    match found {
        Err(Failed { error, unsent: true, .. }) if error.code == Code::Unavailable => {
            let answer = through(servers, call, expects).await;
            answer.map_err(|failed| if failed.unsent { error } else { failed.error })
        }
        ended => ended.map_err(|failed| failed.error),
    }
}

async fn through(servers: &ApiServers, call: &Call, expects: Expects) -> Result<Reply, Failed> {
    match expects {
        Expects::One => servers.infer(call).await.map(Reply::One),
        Expects::Many => servers.begin_stream(call).await.map(Reply::Many),
    }
}

// === impl Running ===

impl Running {
    /// Waits until every task has ended: after [`Link::leave`] that is soon.
    ///
    /// # Cancel safety
    /// Dropping the future ends the tasks.
    pub async fn ended(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}
