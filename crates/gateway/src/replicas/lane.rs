//! One replica's connection: made by whoever needs it first, waited for by everybody else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;

use super::connect::Connector;
use super::{Lost, Outgoing};

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
    Open(SendRequest<Outgoing>),
}

/// A connection that is being made. Whoever waits drives it; with the last of them it ends.
type Connecting = Pin<Box<dyn Future<Output = Result<SendRequest<Outgoing>, Arc<str>>> + Send>>;

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
        matches!(&*self.state.lock(), State::Open(sender) if !sender.is_closed())
    }

    /// Whether there was a connection that is closed now.
    pub(crate) fn is_over(&self) -> bool {
        matches!(&*self.state.lock(), State::Open(sender) if sender.is_closed())
    }

    /// Sends a request. One that finds the connection about to close, and was not written, is sent on a new one.
    pub(crate) async fn send(
        &self,
        connector: &Arc<Connector>,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Lost> {
        let (mut sender, reused) = self.sender(connector).await?;
        let mut error = match sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match error.take_message() {
            Some(request) if reused => {
                let (mut sender, _) = self.sender(connector).await?;
                let sent = sender.try_send_request(request).await;
                sent.map_err(|mut error| match error.take_message() {
                    Some(_) => Lost::unsent(error.error()),
                    None => Lost::of(error.error()),
                })
            }
            Some(_) => Err(Lost::unsent(error.error())),
            None => Err(Lost::of(error.error())),
        }
    }

    /// The connection, and whether it was there already.
    async fn sender(&self, connector: &Arc<Connector>) -> Result<(SendRequest<Outgoing>, bool), Lost> {
        let connecting = match &mut *self.state.lock() {
            State::Open(sender) if !sender.is_closed() => return Ok((sender.clone(), true)),
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
            Ok(sender) => {
                *state = State::Open(sender.clone());
                Ok((sender, false))
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
