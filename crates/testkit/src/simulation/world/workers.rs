//! Worker processes at their work: frames come, handlers start and end, answers go.

use std::time::Duration;

use anyserve_sched::{Cause, Finished, Ticket, WorkerId};

use super::{Reply, Step, Why, World};
use crate::simulation::books::Standing;
use crate::simulation::broken::{Checked, hold};
use crate::simulation::checks;
use crate::simulation::clients::{Fate, Parcel};
use crate::simulation::post::Post;
use crate::simulation::process::{Frame, Member, Running};

/// Time that a handler takes to see that its caller left.
const HEED: Duration = Duration::from_micros(20);

// === impl World ===

impl World {
    pub(super) fn ready(&mut self, group: usize) -> Checked {
        let (now, worker) = (self.time.now(), WorkerId(self.next_worker));
        self.next_worker += 1;
        self.trace.note(now, format_args!("worker {} is ready", worker.0));
        let plan = &self.scenario.groups[group];
        let credits = plan.credits();
        self.books.posts.insert(worker, Post::new(group, plan));
        self.machine.worker_ready(self.groups[group], worker, credits, now, &mut self.actions);
        self.perform(Why::Ready)
    }

    pub(super) fn receive(&mut self, worker: WorkerId, frame: Frame) -> Checked {
        let Some(post) = self.books.posts.get_mut(&worker) else { return Ok(()) };
        post.process.receive(frame);
        self.work(worker)
    }

    /// Starts whatever has a place.
    pub(super) fn work(&mut self, worker: WorkerId) -> Checked {
        while let Some(frame) = self.books.posts.get_mut(&worker).and_then(|post| post.process.next()) {
            self.start(worker, &frame)?;
        }
        Ok(())
    }

    fn start(&mut self, worker: WorkerId, frame: &Frame) -> Checked {
        let mut claimed = Vec::with_capacity(frame.members.len());
        for member in frame.members.iter().copied() {
            let post = self.books.posts.get(&worker);
            if post.is_some_and(|post| post.table.start(member.slot, member.ticket)) {
                checks::starting(self, worker, &member)?;
                self.books.entries[member.number].runs += 1;
                claimed.push(member);
            } else {
                self.reply(worker, member, None);
            }
        }
        if claimed.is_empty() {
            if let Some(post) = self.books.posts.get_mut(&worker) {
                post.process.leave(frame.handler);
            }
        } else {
            self.call(worker, Frame { members: claimed, ..*frame });
        }
        Ok(())
    }

    /// The handler is called.
    fn call(&mut self, worker: WorkerId, frame: Frame) {
        let (now, call) = (self.time.now(), frame.call);
        self.trace.note(now, format_args!("worker {} starts call {call}", worker.0));
        let asks: Vec<_> = frame.members.iter().map(|member| &self.books.entries[member.number]).collect();
        let takes = asks.iter().map(|entry| entry.ask.service).max().unwrap_or_default();
        let kills = asks.iter().any(|entry| entry.ask.fate == Fate::Kills);
        let hangs = asks.iter().any(|entry| entry.ask.fate == Fate::Hangs && entry.runs == 1);
        let emits = asks.iter().any(|entry| entry.ask.emits);
        let raises = asks.len() > 1 && self.chance.percent(self.scenario.crowd.raises);
        self.plan_audit(worker, &frame);
        let running = Running { frame, since: now, takes, hangs, raises, parts: 1 };
        if let Some(post) = self.books.posts.get_mut(&worker) {
            post.process.calls.insert(call, running);
        }
        if kills {
            self.tally.count("poison started");
            let after = self.chance.time_below(Duration::from_micros(200));
            self.time.plan(after, Step::Crash(worker, Cause::Died));
        } else if !hangs {
            self.time.plan(takes, Step::Done(worker, call));
        }
        if emits {
            self.time.plan(takes / 2, Step::Chunk(worker, call));
        }
    }

    /// A call goes on as long as somebody in it has time, and is looked at once in every grace.
    fn plan_audit(&mut self, worker: WorkerId, frame: &Frame) {
        let deadlines = frame.members.iter().map(|member| self.books.entries[member.number].ask.deadline);
        let Some(last) = deadlines.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()) else { return };
        let looks = if frame.members.len() == 1 { 1 } else { 2 };
        let grace = (self.scenario.config.overrun_grace + self.scenario.lateness) * looks;
        let slack = self.scenario.lateness + Duration::from_micros(1);
        self.time.plan_at(last + grace + slack, Step::Audit(worker, frame.call));
    }

    /// The caller of a running request left; some handlers look.
    pub(super) fn tell(&mut self, worker: WorkerId, call: u64, number: usize) {
        let Some(post) = self.books.posts.get(&worker) else { return };
        let Some(running) = post.process.calls.get(&call) else { return };
        let heeds = running.frame.members.len() == 1 && self.books.entries[number].ask.heeds && !running.hangs;
        if heeds {
            self.time.plan(HEED, Step::Done(worker, call));
        }
    }

    pub(super) fn chunk(&mut self, worker: WorkerId, call: u64) {
        let Some(post) = self.books.posts.get(&worker).filter(|post| post.process.alive) else { return };
        let Some(running) = post.process.calls.get(&call).filter(|_| post.process.frozen.is_none()) else { return };
        for member in &running.frame.members {
            self.time.plan(self.scenario.latency, Step::Emitted(worker, member.number, member.ticket));
        }
    }

    pub(super) fn emitted(&mut self, worker: WorkerId, number: usize, ticket: Ticket) {
        if self.books.entries[number].standing == Standing::With(worker)
            && let Some(parcel) = self.machine.payload(ticket)
        {
            parcel.emitted = true;
            self.books.entries[number].emitted = true;
            self.tally.count("emitted");
        }
    }

    /// A handler has ended; a batch that raised is called again in halves.
    pub(super) fn done(&mut self, worker: WorkerId, call: u64) -> Checked {
        let Some(post) = self.books.posts.get_mut(&worker).filter(|post| post.process.alive) else { return Ok(()) };
        let frozen = post.process.frozen;
        let Some(running) = post.process.calls.get_mut(&call) else { return Ok(()) };
        if let Some(until) = frozen {
            self.time.plan_at(until, Step::Done(worker, call));
            return Ok(());
        }
        let takes = running.takes;
        if std::mem::take(&mut running.raises) {
            running.parts = 2;
            self.tally.count("batches raised");
            self.time.plan(takes, Step::Done(worker, call));
            return Ok(());
        }
        running.parts -= 1;
        let took = self.time.now().saturating_duration_since(running.since);
        let half = if running.parts == 0 { 0 } else { running.frame.members.len() / 2 };
        let answered = running.frame.members.split_off(half);
        if running.parts > 0 {
            self.time.plan(takes, Step::Done(worker, call));
        } else {
            post.process.end(call);
        }
        for member in answered {
            self.reply(worker, member, Some(took));
        }
        self.work(worker)
    }

    fn reply(&mut self, worker: WorkerId, member: Member, took: Option<Duration>) {
        let Member { number, ticket, slot } = member;
        self.time.plan(self.scenario.latency, Step::Answer(worker, Reply { number, ticket, slot, took }));
    }

    /// A worker's answer reaches the runtime.
    pub(super) fn answer(&mut self, worker: WorkerId, reply: Reply) -> Checked {
        let (now, Reply { number, ticket, slot, took }) = (self.time.now(), reply);
        let Some(group) = self.books.posts.get(&worker).map(|post| post.group) else { return Ok(()) };
        self.trace.note(now, format_args!("worker {} answers for request {number}: {took:?}", worker.0));
        let finished = self.machine.finished(self.groups[group], worker, ticket, took, now, &mut self.actions);
        let Ok(finished) = finished else {
            return hold("a worker's answer is known", false, || format!("request {number} at worker {}", worker.0));
        };
        checks::answered(self, worker, &reply, &finished)?;
        self.book_answer(worker, &reply, &finished)?;
        if let Some(post) = self.books.posts.get_mut(&worker) {
            let over = post.answered(slot, took, now);
            if post.draining && post.held.is_empty() {
                self.exit(worker);
            }
            if let Some((handler, took)) = over {
                self.books.observe(group, handler, took);
            }
        }
        self.perform(Why::Answer)
    }

    fn book_answer(&mut self, worker: WorkerId, reply: &Reply, finished: &Finished<Parcel>) -> Checked {
        let Reply { number, slot, .. } = *reply;
        if !self.books.is_current(worker, number, slot) {
            return Ok(());
        }
        self.books.unchain(number);
        if finished.payload.is_some() {
            self.tally.count("answered");
            self.end(number)?;
        }
        self.books.put(number, Standing::Over);
        Ok(())
    }
}
