//! Groups whose workers come late, rest, or do not come any more.

use std::time::{Duration, Instant};

use anyserve_core::Error;

use super::{Action, Dispatcher};
use crate::{GroupId, Payload, WorkerId};

/// Why a worker cannot go to sleep. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotRest {
    /// It is not there.
    #[error("worker {} takes no requests of this group", worker.0)]
    Unknown {
        /// Who it was.
        worker: WorkerId,
    },
    /// It has something to do.
    #[error("worker {} still has {requests} requests", worker.0)]
    Busy {
        /// Who it was.
        worker: WorkerId,
        /// Requests that it has not answered for.
        requests: usize,
    },
    /// What it knows of its sequences would be lost.
    #[error("worker {} keeps {sequences} sequences", worker.0)]
    Sequences {
        /// Who it was.
        worker: WorkerId,
        /// Sequences that it keeps.
        sequences: usize,
    },
}

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// No worker of the group is ready, and the next one is expected after this time; `None` if nobody knows.
    ///
    /// As long as no worker takes requests, a request whose deadline is sooner is refused with `STARTING`. Those that wait
    /// already go on waiting: a worker may come sooner than is thought. Forgotten as soon as a worker is ready.
    pub fn expect_worker(&mut self, group: GroupId, after: Option<Duration>, now: Instant) {
        self.groups[group.0].expect(after.and_then(|after| now.checked_add(after)));
    }

    /// The group serves nothing for now: what waits ends with this error, and so does what comes, until
    /// [`open_group`](Self::open_group). What is with a worker is finished there.
    pub fn close_group(&mut self, group: GroupId, error: Error, now: Instant, out: &mut Vec<Action<T>>) {
        self.end_waiting(group, &error, now, out);
        self.groups[group.0].closed = Some(error);
    }

    /// The group takes requests again; with no worker, they wait for one. What was said of it while it was down is
    /// forgotten, too.
    pub fn open_group(&mut self, group: GroupId) {
        let own = &mut self.groups[group.0];
        (own.closed, own.down) = (None, false);
    }

    /// Another group has taken this one's place: what waits and what runs is finished, whatever comes is refused with
    /// `DRAINING` and may be sent again to the new one. Its tables are freed once its last worker has gone.
    pub fn retire_group(&mut self, group: GroupId) {
        self.groups[group.0].retired = true;
        self.groups[group.0].free_if_over();
    }

    /// A worker that has nothing to do goes to sleep: it leaves the group as if it had never been there, until it is
    /// [ready](Self::worker_ready) again under the same number.
    ///
    /// # Errors
    /// [`CannotRest`] if it holds requests or keeps sequences; nothing is changed then.
    pub fn worker_rests(&mut self, group: GroupId, worker: WorkerId) -> Result<(), CannotRest> {
        let own = self.groups[group.0].worker(worker).ok_or(CannotRest::Unknown { worker })?;
        let (requests, sequences) = (own.requests().len(), self.sequences.bound_to(worker));
        if requests > 0 {
            return Err(CannotRest::Busy { worker, requests });
        }
        if sequences > 0 {
            return Err(CannotRest::Sequences { worker, sequences });
        }
        self.groups[group.0].remove_worker(worker);
        self.groups[group.0].free_if_over();
        Ok(())
    }
}
