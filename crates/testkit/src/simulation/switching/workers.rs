//! Processes start, sleep, end and die.

use std::time::Duration;

use anyserve_core::{Code, Error, Resources};
use anyserve_sched::{Cause, GroupId, PlaceEvent, PlaceId, PoolAction, WorkerId};

use super::checks;
use super::plan::LEAVE;
use super::post::{Life, Post};
use super::world::{Step, World};
use crate::simulation::broken::{Checked, hold};

/// Failed starts in a row after which nobody waits for a worker any more.
const GIVES_UP: u32 = 3;
/// A supervisor waits so much longer after each failure.
const BACKOFF: Duration = Duration::from_millis(100);

// === impl World ===

impl World {
    /// Does what the planner says.
    pub(super) fn obey(&mut self, order: PoolAction) -> Checked {
        match order {
            PoolAction::Start { place, group, grant } => self.start(place, group, grant),
            PoolAction::Wake(place) => self.wake(place),
            PoolAction::Sleep(place) => self.put_to_sleep(place),
            PoolAction::Stop(place) => {
                let going = self.posts.get(&place).is_none_or(|post| post.life == Life::ToEnd);
                hold("only what is there is stopped, and once", !going, || format!("{place:?}"))?;
                self.stop(place)
            }
        }
    }

    fn start(&mut self, place: PlaceId, group: GroupId, grant: Resources) -> Checked {
        hold("a place is used once", !self.posts.contains_key(&place), || format!("{place:?}"))?;
        let app = self.apps[&group];
        let post = Post::new(group, app, grant);
        self.grants += u32::from(post.has_something());
        self.tally.count("started");
        self.posts.insert(place, post);
        self.plan_begin(place, self.plan.apps[app].start);
        checks::granted(self)
    }

    fn wake(&mut self, place: PlaceId) -> Checked {
        let Some(post) = self.posts.get_mut(&place).filter(|post| post.life == Life::Asleep) else {
            return hold("only who sleeps is woken", false, || format!("{place:?}"));
        };
        post.grant = post.slept.take();
        post.turn(Life::Waking);
        self.grants += u32::from(post.has_something());
        self.tally.count("woken");
        let app = post.app;
        self.plan_begin(place, self.plan.apps[app].wake);
        checks::granted(self)
    }

    fn plan_begin(&mut self, place: PlaceId, most: Duration) {
        let after = most * 4 / 5 + self.chance.time_below(most / 5);
        self.time.plan(after, Step::Begun(place, self.posts[&place].epoch));
    }

    fn put_to_sleep(&mut self, place: PlaceId) -> Checked {
        let Some(post) = self.posts.get_mut(&place).filter(|post| post.life == Life::Ready) else {
            return hold("only a ready worker falls asleep", false, || format!("{place:?}"));
        };
        post.turn(Life::ToSleep);
        self.tally.count("put to sleep");
        if let Some(worker) = post.worker {
            self.machine.worker_draining(post.group, worker);
        }
        self.leave_if_free(place)
    }

    /// A worker finishes what it has and ends; one that has nothing ends soon.
    pub(super) fn stop(&mut self, place: PlaceId) -> Checked {
        let Some(post) = self.posts.get_mut(&place) else { return Ok(()) };
        post.turn(Life::ToEnd);
        self.tally.count("stopped");
        if let Some(worker) = post.worker {
            self.machine.worker_draining(post.group, worker);
        }
        self.leave_if_free(place)
    }

    pub(super) fn leave_if_free(&mut self, place: PlaceId) -> Checked {
        let Some(post) = self.posts.get(&place).filter(|post| post.held.is_empty()) else { return Ok(()) };
        let step = match post.life {
            Life::ToEnd => Step::Ended(place, post.epoch),
            Life::ToSleep => {
                let rests = post.worker.map(|worker| self.machine.worker_rests(post.group, worker));
                hold("who has nothing may rest", rests == Some(Ok(())), || format!("{rests:?}"))?;
                Step::Slept(place, post.epoch)
            }
            _ => return Ok(()),
        };
        let after = self.chance.time_below(LEAVE);
        self.time.plan(after, step);
        Ok(())
    }

    fn current(&mut self, place: PlaceId, epoch: u32) -> Option<&mut Post> {
        self.posts.get_mut(&place).filter(|post| post.epoch == epoch)
    }

    pub(super) fn begun(&mut self, place: PlaceId, epoch: u32) -> Checked {
        let fails = self.chance.percent(self.plan.failures);
        let (now, fresh) = (self.time.now(), WorkerId(self.next_worker));
        let Some(post) = self.current(place, epoch) else { return Ok(()) };
        if fails {
            return self.fail(place);
        }
        let worker = *post.worker.get_or_insert(fresh);
        post.turn(Life::Ready);
        post.failures = 0;
        let (group, app) = (post.group, post.app);
        self.next_worker += 1;
        self.trace.note(now, format_args!("{place:?} of {group:?} is ready"));
        self.machine.worker_ready(group, worker, self.plan.apps[app].limits.concurrency, now, &mut self.actions);
        self.tell(place, PlaceEvent::Ready);
        self.perform()
    }

    fn tell(&mut self, place: PlaceId, event: PlaceEvent) {
        self.pools.on(place, event, self.time.now());
        self.news = true;
    }

    /// Its process is dead, and its supervisor will start another.
    fn fail(&mut self, place: PlaceId) -> Checked {
        let now = self.time.now();
        let Some(post) = self.posts.get_mut(&place) else { return Ok(()) };
        post.worker = None;
        post.failures += 1;
        let (epoch, group, failures) = (post.turn(Life::Down), post.group, post.failures);
        let again = BACKOFF * failures + self.plan.apps[post.app].start;
        self.trace.note(now, format_args!("{place:?} of {group:?} fails"));
        self.tally.count("failed");
        self.time.plan(again, Step::Begun(place, epoch));
        self.tell(place, PlaceEvent::Failing);
        if failures >= GIVES_UP && self.machine.load(group).workers == 0 {
            self.tally.count("group down");
            let error = Error::new(Code::Unavailable, "workers keep dying");
            self.machine.group_down(group, &error, now, &mut self.actions);
        }
        self.perform()
    }

    pub(super) fn slept(&mut self, place: PlaceId, epoch: u32) {
        let Some(post) = self.current(place, epoch) else { return };
        post.slept = post.grant.take();
        post.turn(Life::Asleep);
        self.tell(place, PlaceEvent::Asleep);
    }

    pub(super) fn ended(&mut self, place: PlaceId, epoch: u32) -> Checked {
        let Some(post) = self.current(place, epoch) else { return Ok(()) };
        let free = post.held.is_empty();
        hold("what is in flight is finished before a worker ends", free, || format!("{place:?}"))?;
        self.bury(place, Cause::Replaced)
    }

    /// A process and its place are over.
    fn bury(&mut self, place: PlaceId, cause: Cause) -> Checked {
        let Some(post) = self.posts.remove(&place) else { return Ok(()) };
        self.trace.note(self.time.now(), format_args!("{place:?} of {:?} is over", post.group));
        self.lose(post.group, post.worker, cause);
        self.tell(place, PlaceEvent::Gone);
        self.perform()
    }

    fn lose(&mut self, group: GroupId, worker: Option<WorkerId>, cause: Cause) {
        if let Some(worker) = worker {
            self.machine.worker_gone(group, worker, cause, |_, _| true, self.time.now(), &mut self.actions);
        }
    }

    pub(super) fn kill(&mut self) -> Checked {
        let places: Vec<_> = self.posts.keys().copied().collect();
        if places.is_empty() {
            return Ok(());
        }
        let place = *self.chance.pick(&places);
        self.tally.count("killed");
        self.die(place, Cause::Died)
    }

    fn die(&mut self, place: PlaceId, cause: Cause) -> Checked {
        let Some(post) = self.posts.get_mut(&place) else { return Ok(()) };
        post.held.clear();
        match post.life {
            Life::Down => Ok(()),
            Life::Asleep | Life::ToEnd => self.bury(place, cause),
            Life::Starting | Life::Ready | Life::Waking | Life::ToSleep => {
                let (group, worker) = (post.group, post.worker);
                self.lose(group, worker, cause);
                self.perform()?;
                self.fail(place)
            }
        }
    }

    /// A handler did not stop, and its worker has to.
    pub(super) fn replace(&mut self, worker: WorkerId) -> Checked {
        let found = self.posts.iter().find(|(_, post)| post.worker == Some(worker)).map(|(place, _)| *place);
        found.map_or(Ok(()), |place| self.die(place, Cause::Replaced))
    }
}
