//! Connections to replicas: one for each start of each replica, made when it is needed and shared by all requests.
//!
//! ```text
//! request ─► lane of (handle, endpoint) ─┬─ open ──────► HTTP/2 stream ─► response
//!                                        ├─ closed ────► connect, once for all who wait
//!                                        └─ too many ──► the one that was used longest ago goes
//! ```
//!
//! A replica that does not answer pings is as good as gone: its connection ends, and all requests on it. What became of a
//! request is told by [`Lost`]: whether the replica may have begun it.

mod connect;
mod lane;
mod link;
mod lost;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyserve_client::Tls;
use anyserve_cluster::{Handle, Target};
use http::Response;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::proxy::Message;

use self::connect::Connector;
use self::lane::Lane;
pub(crate) use self::link::{Arriving, Head};
pub(crate) use self::lost::Lost;
pub use self::tls::ReplicaTlsError;

/// What can be set about connections to replicas.
#[derive(Clone, Debug)]
pub struct ReplicasConfig {
    /// Whom to believe, and who to say one is, where a replica's endpoint is `https://`.
    pub tls: Tls,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How often a replica is pinged.
    pub keepalive: Duration,
    /// How long it may take to answer one.
    pub keepalive_timeout: Duration,
    /// Connections that are kept at the same time.
    pub max_connections: usize,
}

/// The connections.
#[derive(Clone, Debug)]
pub(crate) struct Replicas {
    lanes: Arc<Mutex<Lanes>>,
    connector: Arc<Connector>,
    max: usize,
    /// Ends every connection, with the last of those beside it.
    stop: Arc<DropGuard>,
}

/// Connections by the start of the replica. Those that have ended are taken out.
#[derive(Debug, Default)]
struct Lanes {
    by_handle: HashMap<Handle, Used>,
    uses: u64,
}

#[derive(Debug)]
struct Used {
    lane: Arc<Lane>,
    /// When it was used last, as the number of the use.
    last: u64,
}

// === impl ReplicasConfig ===

impl Default for ReplicasConfig {
    /// A second to connect, pings every second that are answered within one, 20 000 connections.
    fn default() -> Self {
        let second = Duration::from_secs(1);
        let (connect_timeout, keepalive, keepalive_timeout) = (second, second, second);
        Self { tls: Tls::default(), connect_timeout, keepalive, keepalive_timeout, max_connections: 20_000 }
    }
}

// === impl Replicas ===

impl Replicas {
    /// No connection yet.
    ///
    /// # Errors
    /// [`ReplicaTlsError`] if TLS cannot be set up as it is wanted.
    pub(crate) fn try_new(config: &ReplicasConfig) -> Result<Self, ReplicaTlsError> {
        let stop = CancellationToken::new();
        let connector = Arc::new(Connector::try_new(config, stop.clone())?);
        let stop = Arc::new(stop.drop_guard());
        Ok(Self { lanes: Arc::default(), connector, max: config.max_connections.max(1), stop })
    }

    /// Other connections, for another thread: what a connection does never changes its thread.
    pub(crate) fn beside(&self) -> Self {
        let (connector, stop) = (Arc::clone(&self.connector), Arc::clone(&self.stop));
        Self { lanes: Arc::default(), connector, max: self.max, stop }
    }

    /// Sends a request to a replica. Whether a replica is known is asked when there is a new one.
    ///
    /// # Errors
    /// [`Lost`] if there is no response, with whether the replica may have begun the request.
    ///
    /// # Cancel safety
    /// Dropping it cancels the request at the replica.
    pub(crate) async fn send(
        &self,
        target: &Target,
        head: Head,
        message: &Message,
        known: impl Fn(Handle) -> bool,
    ) -> Result<Response<Arriving>, Lost> {
        let lane = self.lane(target, known);
        let sent = lane.send(&self.connector, head, message).await;
        if sent.is_err() && !lane.is_open() {
            self.lanes.lock().remove(target.handle, &lane);
        }
        sent
    }

    fn lane(&self, target: &Target, known: impl Fn(Handle) -> bool) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(target) {
            return lane;
        }
        // Replicas that went are replaced by new ones: that is when to look for those that went.
        lanes.by_handle.retain(|handle, used| known(*handle) && !used.lane.is_over());
        while lanes.by_handle.len() >= self.max {
            lanes.evict();
        }
        let lane = Arc::new(Lane::new(&target.endpoint));
        let last = lanes.next_use();
        lanes.by_handle.insert(target.handle, Used { lane: Arc::clone(&lane), last });
        lane
    }
}

// === impl Lanes ===

impl Lanes {
    fn get(&mut self, target: &Target) -> Option<Arc<Lane>> {
        let last = self.next_use();
        let used = self.by_handle.get_mut(&target.handle)?;
        if !used.lane.leads_to(&target.endpoint) {
            return None;
        }
        used.last = last;
        Some(Arc::clone(&used.lane))
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Takes the one out that was used longest ago. Requests on it go on; then it closes.
    fn evict(&mut self) {
        let oldest = self.by_handle.iter().min_by_key(|(_, used)| used.last).map(|(handle, _)| *handle);
        oldest.map(|handle| self.by_handle.remove(&handle));
    }

    fn remove(&mut self, handle: Handle, lane: &Arc<Lane>) {
        if self.by_handle.get(&handle).is_some_and(|used| Arc::ptr_eq(&used.lane, lane)) {
            self.by_handle.remove(&handle);
        }
    }
}
