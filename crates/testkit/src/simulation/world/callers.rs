//! Clients come and go, and time passes for them.

use anyserve_core::Code;
use anyserve_sched::Job;

use super::{Step, Why, World};
use crate::simulation::books::{Books, Standing, Tables};
use crate::simulation::broken::{Checked, hold};
use crate::simulation::checks;
use crate::simulation::clients::Parcel;

// === impl World ===

impl World {
    pub(super) fn arrive(&mut self) -> Checked {
        let now = self.time.now();
        let mut ask = self.clients.ask(&self.scenario, &mut self.chance, now);
        if self.shares.is_some() {
            ask.tenant = self.books.entries.len() % self.scenario.tenants.len();
        }
        let number = self.books.open(ask, now);
        self.submit(number)
    }

    fn submit(&mut self, number: usize) -> Checked {
        let (now, ask) = (self.time.now(), self.books.entries[number].ask.clone());
        let tenant = self.scenario.tenants[ask.tenant].clone();
        let print = self.machine.wants_fingerprints().then_some(ask.print);
        let job: Job<'_> = ask.job(self.groups[ask.group], &tenant, print);
        let outlook = self.machine.outlook(&job, now);
        let parcel = Parcel { number, print: ask.print, emitted: false };
        let submitted = self.machine.submit(&job, parcel, now, &mut self.actions);
        let patience = ask.deadline.map(|deadline| deadline.saturating_duration_since(now));
        self.trace.note(now, format_args!("request {number} comes for {patience:?}: {ask}"));
        let submitted = submitted.map_err(|refusal| refusal.error);
        checks::explained(self, number, &outlook, &submitted)?;
        match submitted {
            Ok(ticket) => {
                self.books.entries[number].ticket = Some(ticket);
                self.accepted(number);
            }
            Err(error) => {
                self.trace.note(now, format_args!("request {number} is refused: {error}"));
                checks::refused(self, number, &error)?;
                self.tally.count(refusal_name(error.code));
                self.clients.sequence_over(&ask, &mut self.chance);
            }
        }
        self.perform(Why::Submit)
    }

    fn accepted(&mut self, number: usize) {
        self.books.put(number, Standing::Waiting);
        self.tally.count("accepted");
        let (now, ask) = (self.time.now(), &self.books.entries[number].ask);
        self.books.groups[ask.group].accepted.push_back(now);
        if let (Some(name), Some(true)) = (Books::chain_of(ask), ask.sequence.as_ref().map(|call| call.start)) {
            self.books.chains.entry(name).or_default().starts.push(number);
        }
        if let Some(shares) = &mut self.shares {
            shares.came(ask.tenant);
        }
        if let Some(after) = ask.leaves {
            self.time.plan(after, Step::Leave(number));
        }
    }

    pub(super) fn leave(&mut self, number: usize) -> Checked {
        let now = self.time.now();
        let (Some(ticket), standing) = (self.books.entries[number].ticket, self.books.entries[number].standing) else {
            return Ok(());
        };
        let left = self.machine.cancel(ticket, now, &mut self.actions);
        let waited = matches!(standing, Standing::Waiting | Standing::With(_));
        hold("a caller can leave exactly while it waits", left.is_some() == waited, || format!("request {number}"))?;
        if left.is_some() {
            self.trace.note(now, format_args!("the caller of request {number} leaves"));
            self.tally.count(if standing == Standing::Waiting { "left the queue" } else { "left a worker" });
            self.end(number)?;
            self.put_down(number);
        }
        self.perform(Why::Cancel)
    }

    pub(super) fn expire(&mut self) -> Checked {
        let now = self.time.now();
        let slots = Tables::new(&self.books.posts);
        self.machine.expire(&slots, now, &mut self.actions);
        for number in slots.into_recalled() {
            self.trace.note(now, format_args!("request {number} is taken back from its worker"));
            self.tally.count("taken back");
            self.books.take_back(number);
        }
        self.armed = None;
        self.perform(Why::Expire)
    }

    /// The caller has its answer, or has left: that happens once.
    pub(super) fn end(&mut self, number: usize) -> Checked {
        let entry = &mut self.books.entries[number];
        entry.endings += 1;
        hold("every request ends once", entry.endings == 1, || format!("request {number} ended again"))
    }

    /// A request is over as far as its caller goes; its worker may still be at it.
    pub(super) fn put_down(&mut self, number: usize) {
        let to = match self.books.entries[number].standing {
            Standing::With(worker) => Standing::Left(worker),
            _ => Standing::Over,
        };
        self.books.put(number, to);
    }
}

fn refusal_name(code: Code) -> &'static str {
    match code {
        Code::Deadline => "refused: DEADLINE",
        Code::InvalidInput => "refused: INVALID_INPUT",
        Code::Overloaded => "refused: OVERLOADED",
        Code::Poison => "refused: POISON",
        Code::Unavailable => "refused: UNAVAILABLE",
        Code::WorkerLost => "refused: WORKER_LOST",
        _ => "refused: something else",
    }
}
