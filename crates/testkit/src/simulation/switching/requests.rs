//! Requests come, run and end.

use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_sched::{Action, Job, PlaceId, Slots, Ticket, WorkerId};

use super::Traffic;
use super::checks;
use super::post::Life;
use super::world::{Asks, Entry, Parcel, Step, World};
use crate::simulation::broken::{Checked, hold};

/// Every handler starts as soon as its request is sent.
struct AllStarted;

impl Slots for AllStarted {
    fn has_started(&self, _: WorkerId, _: Ticket, _: u32) -> bool {
        true
    }

    fn recall(&self, _: WorkerId, _: Ticket, _: u32) -> bool {
        false
    }
}

// === impl World ===

impl World {
    pub(super) fn arrive(&mut self, app: usize, asks: Asks) -> Checked {
        let (now, patience) = (self.time.now(), self.patience());
        let deadline = patience.map(|patience| now + patience);
        let number = self.entries.len();
        self.entries.push(Entry { app, asks, arrived: now, deadline, ended: false });
        self.trace.note(now, format_args!("request {number} for {app} comes, with {patience:?}"));
        // One of them found its way just before the app was loaded again.
        let old = self.apps.iter().filter(|(_, other)| **other == app).map(|(group, _)| *group);
        let old: Vec<_> = old.collect();
        let first = if self.chance.percent(20) { *self.chance.pick(&old) } else { self.routes[app] };
        match self.submit(number, first) {
            Err(error) if error.code == Code::Draining => {
                self.tally.count("sent to the new group");
                let again = self.submit(number, self.routes[app]);
                self.submitted(number, again)
            }
            other => self.submitted(number, other),
        }?;
        self.perform()
    }

    fn patience(&mut self) -> Option<Duration> {
        let most = match self.plan.traffic {
            Traffic::Random => Duration::from_secs(*self.chance.pick(&[1, 5, 40])),
            Traffic::Reload => return None,
            _ => self.plan.starvation_bound() * 3,
        };
        let hurried = self.chance.percent(50);
        hurried.then(|| Duration::from_millis(20) + self.chance.time_below(most))
    }

    fn submit(&mut self, number: usize, group: anyserve_sched::GroupId) -> Result<(), Error> {
        let job = Job { deadline: self.entries[number].deadline, ..Job::new(group, 0) };
        let submitted = self.machine.submit(&job, Parcel { number }, self.time.now(), &mut self.actions);
        if submitted.is_ok() && self.machine.load(group).queued > 0 {
            self.news |= self.pools.waits(group, self.time.now());
        }
        submitted.map(|_| ()).map_err(|refusal| refusal.error)
    }

    fn submitted(&mut self, number: usize, submitted: Result<(), Error>) -> Checked {
        let Err(error) = submitted else { return Ok(()) };
        checks::refused(self, number, &error)?;
        self.over(number, Some(error.code))
    }

    pub(super) fn expire(&mut self) -> Checked {
        self.machine.expire(&AllStarted, self.time.now(), &mut self.actions);
        self.perform()
    }

    /// Does what the dispatcher says.
    pub(super) fn perform(&mut self) -> Checked {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(worker, sending) => self.send(worker, sending.ticket)?,
                Action::SendBatch(..) => hold("nothing goes in batches here", false, String::new)?,
                // The handler does not look.
                Action::Withdraw { .. } => {}
                Action::Over(over) => {
                    checks::ended(self, over.payload.number, &over.error)?;
                    self.over(over.payload.number, Some(over.error.code))?;
                }
                Action::Replace(worker) => self.replace(worker)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, worker: WorkerId, ticket: Ticket) -> Checked {
        let found = self.posts.iter_mut().find(|(_, post)| post.worker == Some(worker));
        let ready = found.as_ref().is_some_and(|(_, post)| post.life == Life::Ready);
        hold("only a ready worker gets requests", ready, || format!("{worker:?}"))?;
        let Some((place, post)) = found else { return Ok(()) };
        post.held.push(ticket);
        let (place, most) = (*place, self.plan.apps[post.app].service);
        let takes = most / 2 + self.chance.time_below(most / 2);
        self.time.plan(takes, Step::Done(place, ticket));
        Ok(())
    }

    pub(super) fn done(&mut self, place: PlaceId, ticket: Ticket) -> Checked {
        let now = self.time.now();
        let Some(post) = self.posts.get_mut(&place) else { return Ok(()) };
        let Some(at) = post.held.iter().position(|held| *held == ticket) else { return Ok(()) };
        post.held.remove(at);
        let (Some(worker), group, app) = (post.worker, post.group, post.app) else { return Ok(()) };
        let took = Some(self.plan.apps[app].service * 3 / 4);
        let finished = self.machine.finished(group, worker, ticket, took, now, &mut self.actions);
        let Ok(finished) = finished else { return hold("an answer is known", false, || format!("{ticket:?}")) };
        if let Some(parcel) = finished.payload {
            self.tally.count("answered");
            self.over(parcel.number, None)?;
        }
        self.perform()?;
        self.leave_if_free(place)
    }

    /// A client has its answer, or an error.
    fn over(&mut self, number: usize, code: Option<Code>) -> Checked {
        let (now, span) = (self.time.now(), self.plan.span);
        self.trace.note(now, format_args!("request {number} is over: {code:?}"));
        let entry = &mut self.entries[number];
        hold("a request ends once", !entry.ended, || format!("request {number}"))?;
        entry.ended = true;
        let next = match entry.asks {
            Asks::Once => return Ok(()),
            Asks::Again => entry.app,
            Asks::Around => (entry.app + 1) % self.plan.apps.len(),
        };
        let asks = entry.asks;
        if self.age() < span {
            let pause = self.chance.time_below(Duration::from_millis(2));
            self.time.plan(pause, Step::Arrive(next, asks));
        }
        Ok(())
    }
}
