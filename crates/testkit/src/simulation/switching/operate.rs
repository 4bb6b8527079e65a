//! Operators unload and load models, move bounds, stop workers, and load the app again.

use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_sched::GroupId;

use super::plan::number;
use super::post::Life;
use super::world::{Step, World};
use crate::simulation::broken::{Checked, hold};

// === impl World ===

impl World {
    pub(super) fn operate(&mut self) -> Checked {
        self.news = true;
        let group = *self.chance.pick(&self.routes);
        if self.pools.bounds(group).is_none() {
            return Ok(());
        }
        match self.chance.below(3) {
            0 => {
                self.unload(group);
                let after = self.chance.time_below(Duration::from_secs(5));
                self.time.plan(after, Step::Load(group));
                self.perform()
            }
            1 => self.move_bounds(group),
            _ => self.stop_one(),
        }
    }

    pub(super) fn unload(&mut self, group: GroupId) {
        let now = self.time.now();
        self.trace.note(now, format_args!("{group:?} is unloaded"));
        self.tally.count("unloaded");
        self.unloaded.push(group);
        let error = Error::new(Code::Unavailable, "its model is unloaded");
        self.machine.close_group(group, error, now, &mut self.actions);
        self.pools.set_loaded(group, false);
    }

    pub(super) fn load_again(&mut self, group: GroupId) {
        self.trace.note(self.time.now(), format_args!("{group:?} is loaded"));
        self.unloaded.retain(|other| *other != group);
        self.machine.open_group(group);
        self.pools.set_loaded(group, true);
        self.news = true;
    }

    fn move_bounds(&mut self, group: GroupId) -> Checked {
        let (min, max) = (number(&mut self.chance, 0, 2), number(&mut self.chance, 0, 3));
        let before = self.pools.bounds(group);
        let moved = self.pools.set_bounds(group, min, max);
        self.trace.note(self.time.now(), format_args!("bounds of {group:?}: {min} to {max}, {moved:?}"));
        self.tally.count(if moved.is_ok() { "bounds moved" } else { "bounds refused" });
        let expected = if moved.is_ok() { Some((min, max)) } else { before };
        hold("a refusal changes nothing", self.pools.bounds(group) == expected, || format!("{moved:?}"))
    }

    /// One worker leaves, whatever the planner thinks of it.
    fn stop_one(&mut self) -> Checked {
        let places = self.posts.iter().filter(|(_, post)| post.life != Life::ToEnd).map(|(place, _)| *place);
        let places: Vec<_> = places.collect();
        if places.is_empty() {
            return Ok(());
        }
        let place = *self.chance.pick(&places);
        self.trace.note(self.time.now(), format_args!("an operator stops {place:?}"));
        self.pools.stopping(place);
        self.stop(place)
    }

    /// New groups beside the old ones, which take nothing new.
    pub(super) fn reload(&mut self) -> Checked {
        self.trace.note(self.time.now(), format_args!("the app is loaded again"));
        self.tally.count("reloads");
        for old in self.routes.clone() {
            self.machine.retire_group(old);
            self.pools.retire(old);
        }
        self.routes = (0..self.plan.apps.len()).map(|app| self.add_group(app)).collect();
        self.news = true;
        self.perform()
    }
}
