//! One replica's connection: made by whoever needs it first, waited for by everybody else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use http::Response;
use parking_lot::Mutex;

use super::Lost;
use super::connect::Connector;
use super::link::{Arriving, Head, Link};
use crate::proxy::Message;

/// The way to one replica.
pub(crate) struct Lane {
    endpoint: Arc<str>,
    /// The lock is held for a look at it and never across an await.
    state: Mutex<State>,
}

/// ```text
/// New ──► Connecting ──made──► Open ──closed──┐
///  ▲          └──failed, or nobody waits──┐   │
///  └──────────────────────────────────────┴───┘
/// ```
enum State {
    New,
    Connecting(WeakShared<Connecting>),
    Open(Link),
}

/// A connection that is being made. Whoever waits drives it; with the last of them it ends.
type Connecting = Pin<Box<dyn Future<Output = Result<Link, Arc<str>>> + Send>>;

// === impl Lane ===

impl Lane {
    pub(crate) fn new(endpoint: &Arc<str>) -> Self {
        Self { endpoint: Arc::clone(endpoint), state: Mutex::new(State::New) }
    }

    pub(crate) fn leads_to(&self, endpoint: &Arc<str>) -> bool {
        self.endpoint == *endpoint
    }

    /// Whether there is a connection that is not closed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*self.state.lock(), State::Open(link) if !link.is_closed())
    }

    /// Whether there was a connection that is closed now.
    pub(crate) fn is_over(&self) -> bool {
        matches!(&*self.state.lock(), State::Open(link) if link.is_closed())
    }

    /// Sends a request. One that finds the connection about to close goes onto a new one.
    pub(crate) async fn send(
        &self,
        connector: &Arc<Connector>,
        head: Head,
        message: &Message,
    ) -> Result<Response<Arriving>, Lost> {
        let (link, reused) = self.link(connector).await?;
        let place = match link.place().await {
            Err(_) if reused => {
                self.forget(&link);
                self.link(connector).await?.0.place().await?
            }
            place => place?,
        };
        place.send(head, message).await
    }

    /// Has a new connection made for the next request. Requests on the old one go on.
    fn forget(&self, link: &Link) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(open) if open.is(link)) {
            *state = State::New;
        }
    }

    /// The connection, and whether it was there already.
    async fn link(&self, connector: &Arc<Connector>) -> Result<(Link, bool), Lost> {
        let connecting = match &mut *self.state.lock() {
            State::Open(link) if !link.is_closed() => return Ok((link.clone(), true)),
            State::Connecting(weak) if let Some(connecting) = weak.upgrade() => connecting,
            state => {
                let connecting = connect(connector, &self.endpoint);
                *state = connecting.downgrade().map_or(State::New, State::Connecting);
                connecting
            }
        };
        let made = connecting.await;
        let mut state = self.state.lock();
        match made {
            Ok(link) => {
                *state = State::Open(link.clone());
                Ok((link, false))
            }
            Err(why) => {
                if matches!(&*state, State::Connecting(_)) {
                    *state = State::New;
                }
                Err(Lost::Unreached(why.to_string()))
            }
        }
    }
}

fn connect(connector: &Arc<Connector>, endpoint: &Arc<str>) -> Shared<Connecting> {
    let (connector, endpoint) = (Arc::clone(connector), Arc::clone(endpoint));
    let connecting: Connecting = Box::pin(async move { connector.connect(&endpoint).await });
    connecting.shared()
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("endpoint", &self.endpoint).field("open", &self.is_open()).finish_non_exhaustive()
    }
}
