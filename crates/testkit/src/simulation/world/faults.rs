//! What goes wrong: processes that are killed, freeze, are drained, and come back.

use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_sched::{Cause, WorkerId};

use super::{Step, Why, World};
use crate::simulation::books::Standing;
use crate::simulation::broken::Checked;
use crate::simulation::checks;
use crate::simulation::post::Post;
use crate::simulation::table::Phase;

/// A process that is silent for so long is replaced.
const SILENCE: Duration = Duration::from_millis(100);
/// Time that a worker has to finish what it has.
const DRAIN: Duration = Duration::from_millis(60);

/// A request whose worker is gone, before it is known what becomes of it.
struct Left {
    number: usize,
    started: bool,
}

// === impl World ===

impl World {
    pub(super) fn plan_faults(&mut self) {
        let (faults, span) = (&self.scenario.faults, self.scenario.crowd.span);
        let steps: [(u32, fn() -> Step); 4] = [
            (faults.kills, || Step::Kill),
            (faults.outages, || Step::Outage),
            (faults.freezes, || Step::Freeze),
            (faults.drains, || Step::Drain),
        ];
        for (times, step) in steps {
            for _ in 0..times {
                let at = self.chance.time_below(span + span / 4);
                self.time.plan(at, step());
            }
        }
        self.time.plan(span * 2 + SILENCE, Step::Sweep);
    }

    fn any_alive(&mut self) -> Option<WorkerId> {
        let alive = self.books.posts.iter().filter(|(_, post)| post.process.alive).map(|(worker, _)| *worker);
        let alive: Vec<_> = alive.collect();
        if alive.is_empty() { None } else { Some(*self.chance.pick(&alive)) }
    }

    pub(super) fn kill(&mut self) {
        self.tally.count("killed");
        if let Some(worker) = self.any_alive() {
            self.crash(worker, Cause::Died);
        }
    }

    pub(super) fn outage(&mut self) {
        self.tally.count("outages");
        let all: Vec<_> = self.books.posts.keys().copied().collect();
        for worker in all {
            self.crash(worker, Cause::Died);
        }
    }

    pub(super) fn freeze(&mut self) {
        let long = self.chance.percent(15);
        let time = if long { SILENCE * 3 } else { self.chance.time_below(Duration::from_millis(40)) };
        let Some(worker) = self.any_alive() else { return };
        let until = self.time.now() + time;
        let Some(post) = self.books.posts.get_mut(&worker).filter(|post| post.process.frozen.is_none()) else {
            return;
        };
        self.tally.count("frozen");
        self.trace.note(self.time.now(), format_args!("worker {} freezes", worker.0));
        post.process.frozen = Some(until);
        self.time.plan_at(until, Step::Thaw(worker));
        if time > SILENCE {
            self.time.plan(SILENCE, Step::Crash(worker, Cause::Replaced));
        }
    }

    pub(super) fn thaw(&mut self, worker: WorkerId) -> Checked {
        if let Some(post) = self.books.posts.get_mut(&worker) {
            post.process.frozen = None;
        }
        self.work(worker)
    }

    pub(super) fn drain(&mut self) {
        let Some(worker) = self.any_alive() else { return };
        let Some(post) = self.books.posts.get_mut(&worker).filter(|post| !post.draining) else { return };
        self.trace.note(self.time.now(), format_args!("worker {} drains", worker.0));
        self.tally.count("drained");
        post.draining = true;
        self.machine.worker_draining(self.groups[post.group], worker);
        let idle = post.held.is_empty();
        self.time.plan(DRAIN, Step::Crash(worker, Cause::Replaced));
        if idle {
            self.exit(worker);
        }
    }

    /// A worker that was drained ends by itself.
    pub(super) fn exit(&mut self, worker: WorkerId) {
        if let Some(post) = self.books.posts.get_mut(&worker).filter(|post| post.process.alive) {
            post.process.alive = false;
            self.time.plan(self.scenario.latency, Step::Gone(worker, Cause::Died));
        }
    }

    pub(super) fn crash(&mut self, worker: WorkerId, cause: Cause) {
        let Some(post) = self.books.posts.get_mut(&worker).filter(|post| post.process.alive) else { return };
        post.process.alive = false;
        self.trace.note(self.time.now(), format_args!("worker {} ends: {cause:?}", worker.0));
        self.tally.count(if cause == Cause::Died { "died" } else { "replaced" });
        // What it had written before is read before its end is seen.
        let seen = self.scenario.latency + self.chance.time_below(Duration::from_millis(1));
        self.time.plan(seen, Step::Gone(worker, cause));
    }

    /// The runtime sees that a process has ended.
    pub(super) fn gone(&mut self, worker: WorkerId, cause: Cause) -> Checked {
        let Some(post) = self.books.posts.remove(&worker) else { return Ok(()) };
        let (now, group) = (self.time.now(), post.group);
        self.trace.note(now, format_args!("worker {} is gone", worker.0));
        let started = |ticket, slot| post.table.is(slot, ticket, Phase::Started);
        self.machine.worker_gone(self.groups[group], worker, cause, started, now, &mut self.actions);
        let left = self.book_death(worker, &post, cause);
        self.perform(Why::Gone)?;
        self.judge_death(&left)?;
        self.maybe_down(group)?;
        let restart = self.chance.time_below(Duration::from_millis(20));
        self.time.plan(restart, Step::Ready(group));
        Ok(())
    }

    /// What a dead worker leaves behind is nowhere for now.
    fn book_death(&mut self, worker: WorkerId, post: &Post, cause: Cause) -> Vec<Left> {
        let mut left = Vec::new();
        for (slot, held) in &post.held {
            let number = held.number;
            if !self.books.is_current(worker, number, *slot) {
                continue;
            }
            self.books.unchain(number);
            if let Standing::Left(_) = self.books.entries[number].standing {
                self.books.put(number, Standing::Over);
                continue;
            }
            let started = post.table.is(*slot, held.ticket, Phase::Started);
            if started && cause == Cause::Died {
                self.books.suspect(number);
            }
            self.books.take_back(number);
            left.push(Left { number, started });
        }
        let lost = self.books.chains.values_mut().filter(|chain| chain.worker == Some(worker));
        for chain in lost {
            chain.worker = None;
            self.tally.count("sequences lost");
        }
        left
    }

    fn judge_death(&mut self, left: &[Left]) -> Checked {
        for Left { number, started } in left {
            let entry = &self.books.entries[*number];
            match entry.ended {
                None if entry.endings == 0 => {
                    self.tally.count(if *started { "ran again" } else { "sent again" });
                    checks::survived(self, *number, *started)?;
                }
                // It was sent again by the budget, and then its time was over, or its like was found guilty.
                Some(Code::Deadline | Code::Poison) => self.books.groups[entry.ask.group].vague += 1,
                _ => {}
            }
        }
        left.iter().try_for_each(|Left { number, started }| checks::perished(self, *number, *started))
    }

    fn maybe_down(&mut self, group: usize) -> Checked {
        let empty = self.machine.load(self.groups[group]).workers == 0;
        if !empty || !self.chance.percent(self.scenario.faults.downs) {
            return Ok(());
        }
        self.tally.count("group down");
        self.trace.note(self.time.now(), format_args!("group {group} is down"));
        let error = Error::new(Code::Unavailable, "workers keep dying");
        self.machine.group_down(self.groups[group], &error, self.time.now(), &mut self.actions);
        self.perform(Why::Down)
    }

    /// Ends what hangs for ever; as often as it takes.
    pub(super) fn sweep(&mut self) {
        let hung = self.books.posts.iter().filter(|(_, post)| post.process.alive && post.process.hangs());
        let hung: Vec<_> = hung.map(|(worker, _)| *worker).collect();
        for worker in hung {
            self.tally.count("swept");
            self.crash(worker, Cause::Replaced);
        }
        if self.books.live > 0 {
            self.time.plan(SILENCE, Step::Sweep);
        }
    }
}
