//! What the dispatcher asks for is carried out, as `anyserve_worker` does it.

use anyserve_core::Code;
use anyserve_sched::{Action, Cause, Over, Sending, Ticket, WorkerId};

use super::{Step, Why, World};
use crate::simulation::books::{Books, Standing};
use crate::simulation::broken::{Broken, Checked, hold};
use crate::simulation::checks;
use crate::simulation::clients::Parcel;
use crate::simulation::process::{Frame, Member};

// === impl World ===

impl World {
    pub(super) fn perform(&mut self, why: Why) -> Checked {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(worker, sending) => self.send(worker, &[sending])?,
                Action::SendBatch(worker, members) => {
                    hold("a batch has at least two members", members.len() > 1, || format!("{members:?}"))?;
                    self.tally.count("batches");
                    self.send(worker, &members)?;
                }
                Action::Withdraw { ticket, worker, slot } => self.withdraw(ticket, worker, slot),
                Action::Over(over) => self.over(&over, why)?,
                Action::Replace(worker) => {
                    self.tally.count("overruns");
                    self.crash(worker, Cause::Replaced);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, worker: WorkerId, sendings: &[Sending]) -> Checked {
        let frame = self.frame(sendings)?;
        let now = self.time.now();
        let numbers: Vec<_> = frame.members.iter().map(|member| member.number).collect();
        self.trace.note(now, format_args!("requests {numbers:?} go to worker {} as call {}", worker.0, frame.call));
        checks::sending(self, worker, sendings, &frame)?;
        let Some(post) = self.books.posts.get_mut(&worker) else { return Ok(()) };
        let shortest = self.books.groups[post.group].shelves[frame.handler].shortest;
        let free = post.sent(&frame, shortest, now);
        self.tally.count(if post.calls[&frame.call].prefetched { "prefetched" } else { "sent" });
        hold("a slot is used again only after its answer", free, || format!("{sendings:?}"))?;
        for member in &frame.members {
            self.book_send(worker, *member);
        }
        self.time.plan(self.scenario.latency, Step::Receive(worker, frame));
        Ok(())
    }

    fn frame(&mut self, sendings: &[Sending]) -> Result<Frame, Broken> {
        let mut members = Vec::with_capacity(sendings.len());
        for Sending { ticket, slot, .. } in sendings {
            let number = self.machine.payload(*ticket).map(|parcel| parcel.number);
            hold("what is sent has a caller", number.is_some(), || format!("{ticket:?}"))?;
            members.extend(number.map(|number| Member { number, ticket: *ticket, slot: *slot }));
        }
        let handler = members.first().map_or(0, |member| self.books.entries[member.number].ask.handler);
        self.next_call += 1;
        Ok(Frame { call: self.next_call, handler, members })
    }

    fn book_send(&mut self, worker: WorkerId, member: Member) {
        self.books.put(member.number, Standing::With(worker));
        let entry = &mut self.books.entries[member.number];
        entry.slot = member.slot;
        entry.attempts += 1;
        if entry.suspect && entry.ask.sequence.is_none() {
            self.tally.count("suspects alone");
            if let Some(post) = self.books.posts.get_mut(&worker) {
                post.alone = Some(member.number);
            }
        }
        if let Some(chain) = Books::chain_of(&entry.ask) {
            let chain = self.books.chains.entry(chain).or_default();
            (chain.worker, chain.last, chain.busy) = (Some(worker), Some(member.ticket), Some(member.number));
        }
        if let Some(shares) = &mut self.shares {
            shares.served(entry.ask.tenant);
        }
    }

    fn withdraw(&mut self, ticket: Ticket, worker: WorkerId, slot: u32) {
        let Some(post) = self.books.posts.get(&worker) else { return };
        let Some(held) = post.held.get(&slot).copied() else { return };
        if post.table.recall(slot, ticket) {
            self.tally.count("withdrawn before its start");
        } else {
            self.tally.count("told to stop");
            self.time.plan(self.scenario.latency, Step::Tell(worker, held.call, held.number));
        }
    }

    fn over(&mut self, over: &Over<Parcel>, why: Why) -> Checked {
        let (number, now) = (over.payload.number, self.time.now());
        self.trace.note(now, format_args!("request {number} is over after {} attempts: {}", over.attempts, over.error));
        checks::over(self, over, why)?;
        self.tally.count(over_name(over.error.code));
        self.books.entries[number].ended = Some(over.error.code);
        let ask = self.books.entries[number].ask.clone();
        self.clients.sequence_over(&ask, &mut self.chance);
        self.end(number)?;
        self.put_down(number);
        Ok(())
    }
}

fn over_name(code: Code) -> &'static str {
    match code {
        Code::Deadline => "over: DEADLINE",
        Code::Overloaded => "over: pushed out",
        Code::WorkerLost => "over: WORKER_LOST",
        Code::Poison => "over: POISON",
        Code::Unavailable => "over: UNAVAILABLE",
        Code::InvalidInput => "over: sequence never began",
        _ => "over: something else",
    }
}
