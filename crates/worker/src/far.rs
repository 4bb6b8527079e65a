//! What a worker asks of others than this process: other replicas, and the store of durable objects.
//!
//! One task of each worker's link carries it out, some at a time; with the worker ends whatever it waits for.

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Error, FarObjects, ObjRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::dispatch::Inner;
use crate::link::{Link, LinkError};
use crate::objects::{Answer, far};

/// What a worker waits for, with the number of its frame.
#[derive(Debug)]
pub(crate) struct FarCall {
    pub(crate) id: u64,
    pub(crate) what: Far,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Far {
    /// An object that is not here.
    Fetch { objref: ObjRef, deadline: Option<Instant>, describe: bool },
    /// A local object is to outlive this replica.
    Keep { objref: ObjRef, key: Option<String> },
    /// A key that no local object has.
    Lookup { key: String, deadline: Option<Instant> },
    /// An object that is not here is to be deleted.
    Delete { objref: ObjRef },
}

/// Calls of one worker that may wait to be carried out.
pub(crate) const MAX_FAR_CALLS: usize = 256;
/// Calls of one worker that are carried out at the same time.
const AT_ONCE: usize = 32;

// === impl Inner ===

impl Inner {
    /// Carries out one worker's calls for the life of its link.
    ///
    /// # Cancel safety
    /// Dropping it ends every call.
    pub(crate) async fn answer_far(self: Arc<Self>, link: Arc<Link>, mut calls: mpsc::Receiver<FarCall>) -> LinkError {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = running.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(unread)) => return unread,
                    Err(error) => report(&error),
                },
                Some(call) = calls.recv(), if running.len() < AT_ONCE => {
                    let (inner, link) = (Arc::clone(&self), Arc::clone(&link));
                    running.spawn(async move {
                        let answer = inner.carry_out(call.what).await;
                        link.push_answer(&answer.frame(call.id))?;
                        link.flush();
                        Ok(())
                    });
                }
            }
        }
    }

    async fn carry_out(&self, what: Far) -> Answer {
        let done = match far(&self.config.memory) {
            Ok(store) => self.ask_far(store, what).await,
            Err(error) => Err(error),
        };
        done.unwrap_or_else(Answer::Failed)
    }

    async fn ask_far(&self, store: &Arc<dyn FarObjects>, what: Far) -> Result<Answer, Error> {
        Ok(match what {
            Far::Fetch { objref, deadline, describe } => {
                let here = store.fetch(objref, deadline).await?;
                if describe { self.describe(here)? } else { Answer::Object(Some(here)) }
            }
            Far::Keep { objref, key } => {
                store.keep(objref, key).await?;
                Answer::Object(Some(objref))
            }
            Far::Lookup { key, deadline } => Answer::Object(store.lookup(key, deadline).await?),
            Far::Delete { objref } => Answer::Object(store.delete(objref).await?.then_some(objref)),
        })
    }
}

pub(crate) fn report(error: &tokio::task::JoinError) {
    if error.is_panic() {
        tracing::error!(%error, "a call of a worker panicked");
    }
}
