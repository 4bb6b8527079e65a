//! Who asks, and when something is done to the replica.

use std::time::Duration;

use super::Traffic;
use super::plan::CALM_QUEUE;
use super::world::{Asks, Step, World};

// === impl World ===

impl World {
    pub(super) fn plan_clients(&mut self) {
        match self.plan.traffic {
            Traffic::Alternating => self.time.plan(Duration::ZERO, Step::Arrive(0, Asks::Around)),
            Traffic::Bursty => (0..25).for_each(|_| self.burst()),
            Traffic::Adversarial => self.two_that_never_rest(),
            Traffic::Reload => self.steady(),
            Traffic::Random => {
                (0..10).for_each(|_| self.burst());
                self.steady();
            }
        }
    }

    fn any_app(&mut self) -> usize {
        let apps: Vec<_> = (0..self.plan.apps.len()).collect();
        *self.chance.pick(&apps)
    }

    fn burst(&mut self) {
        let (at, app) = (self.chance.time_below(self.plan.span), self.any_app());
        let most = u64::from(CALM_QUEUE);
        (0..=self.chance.below(most)).for_each(|_| self.time.plan(at, Step::Arrive(app, Asks::Once)));
    }

    /// Two capabilities always have something waiting; the others have a request now and then.
    fn two_that_never_rest(&mut self) {
        for app in 0..2 {
            (0..4).for_each(|_| self.time.plan(Duration::ZERO, Step::Arrive(app, Asks::Again)));
        }
        for _ in 0..30 {
            let at = self.chance.time_below(self.plan.span);
            let app = 2 + usize::from(self.chance.percent(50)) + usize::from(self.chance.percent(30));
            self.time.plan(at, Step::Arrive(app, Asks::Once));
        }
    }

    fn steady(&mut self) {
        for _ in 0..150 {
            let (at, app) = (self.chance.time_below(self.plan.span), self.any_app());
            self.time.plan(at, Step::Arrive(app, Asks::Once));
        }
    }

    pub(super) fn plan_trouble(&mut self) {
        let steps = [(self.plan.kills, Step::Kill), (self.plan.orders, Step::Order), (self.plan.reloads, Step::Reload)];
        for (times, step) in steps {
            for _ in 0..times {
                let at = self.chance.time_below(self.plan.span);
                self.time.plan(at, step);
            }
        }
    }
}
