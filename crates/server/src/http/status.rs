//! `/status`: the replica's inside once a second, as server-sent events, for as long as somebody reads.

use std::convert::Infallible;
use std::sync::{Arc, Weak};

use anyserve_core::Error;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::at_once_of;
use crate::route::App;
use crate::{Upstream, status};

const EVENTS: &str = "text/event-stream";

/// How long a reader waits until it comes back after the connection was lost, in milliseconds.
const RETRY: &str = "retry: 1000\n";

/// One who reads. It is polled when the connection has room: who does not read makes nothing.
struct Watcher<S> {
    app: Arc<App<S>>,
    /// When the next event is due; none for the first.
    due: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

pub(super) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    Router::new().route("/status", get(at_once_of(app, |app, _| events(app))))
}

fn events<S: Upstream>(app: &Arc<App<S>>) -> Result<Response, Error> {
    let watcher = Watcher { app: Arc::clone(app), due: None, _place: app.pulse.enter()? };
    let events = Body::from_stream(stream::unfold(watcher, Watcher::next));
    Ok(([(CONTENT_TYPE, EVENTS), (CACHE_CONTROL, "no-store")], events).into_response())
}

// === impl Watcher ===

impl<S: Upstream> Watcher<S> {
    /// The next event. A replica that leaves ends it, so that nobody who watches holds up its end.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let first = self.due.is_none();
        if let Some(due) = self.due {
            tokio::select! {
                biased;
                () = self.app.leaving.cancelled() => return None,
                () = sleep_until(due) => {}
            }
        }
        let now = Instant::now();
        let event = self.app.pulse.newest(now, || event(&self.app));
        self.due = Some(self.app.pulse.next(now));
        let event = if first { Bytes::from([RETRY.as_bytes(), &event].concat()) } else { event };
        Some((Ok(event), self))
    }
}

/// JSON has no line ends of its own, so that an event is one line.
fn event<S: Upstream>(app: &App<S>) -> Bytes {
    format!("data: {}\n\n", status::whole(&app.status())).into()
}
