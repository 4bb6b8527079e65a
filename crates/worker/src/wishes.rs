//! What a request asks of the scheduler, on its own and by its handler's options.

use std::time::Instant;

use anyserve_core::{Error, Handler, Priority, Request, Schedule, SequenceCall};
use anyserve_sched::{GroupId, Job};

/// What a request asks for. It outlives the request, which is taken apart before it is queued.
#[derive(Debug)]
pub(crate) struct Wishes {
    deadline: Option<Instant>,
    priority: Priority,
    tenant: String,
    sequence: Option<SequenceCall>,
}

// === impl Wishes ===

impl Wishes {
    /// What this request asks of this handler.
    ///
    /// The deadline is the sooner one of the call's and the parameter `timeout`; the handler's own timeout counts where
    /// the caller gives neither.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a parameter or header that cannot be carried out.
    pub(crate) fn of(request: &Request, handler: &Handler, arrived: Instant) -> Result<Self, Error> {
        let Schedule { priority, timeout, tenant, sequence } = Schedule::of(request)?;
        let given = timeout.and_then(|timeout| arrived.checked_add(timeout)).into_iter().chain(request.deadline).min();
        let own = || handler.timeout.and_then(|timeout| arrived.checked_add(timeout));
        Ok(Self {
            deadline: given.or_else(own),
            priority: priority.or(handler.priority).unwrap_or(Priority::MIDDLE),
            tenant: tenant.to_owned(),
            sequence: sequence.filter(|_| handler.sequence),
        })
    }

    /// A job for this handler.
    pub(crate) fn job(&self, group: GroupId, handler: usize) -> Job<'_> {
        Job {
            deadline: self.deadline,
            priority: self.priority,
            tenant: &self.tenant,
            sequence: self.sequence.as_ref(),
            ..Job::new(group, handler)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Expects, Parameter, Query, Value};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn deadline(call_s: Option<u32>, timeout_us: Option<i64>, own_s: Option<u32>) -> Option<Duration> {
        let now = Instant::now();
        let capability = Capability::try_new([("type".to_owned(), Value::Text("t".into()))]).unwrap();
        let handler = Handler { timeout: own_s.map(|own| SECOND * own), ..Handler::new(capability) };
        let request = Request {
            id: String::new(),
            model: String::new(),
            version: String::new(),
            query: Query::model("m"),
            inputs: vec![],
            outputs: vec![],
            destinations: vec![],
            parameters: timeout_us.map(|us| ("timeout".to_owned(), Parameter::Int(us))).into_iter().collect(),
            headers: vec![],
            deadline: call_s.map(|call| now + SECOND * call),
            expects: Expects::One,
        };
        Wishes::of(&request, &handler, now).unwrap().deadline.map(|deadline| deadline - now)
    }

    #[test]
    fn the_soonest_of_what_the_caller_gives_counts_and_the_handlers_own_only_where_that_is_nothing() {
        assert_eq!(deadline(Some(5), Some(2_000_000), Some(1)), Some(2 * SECOND));
        assert_eq!(deadline(Some(1), Some(2_000_000), None), Some(SECOND));
        assert_eq!(deadline(None, Some(0), Some(3)), Some(3 * SECOND));
        assert_eq!(deadline(None, None, None), None);
    }
}
