//! Tenants get their shares, by weight, for as long as each has something waiting.

use std::time::Duration;

use crate::simulation::broken::{Checked, hold};
use crate::simulation::scenario::Scenario;

/// What each tenant got.
#[derive(Debug)]
pub(in crate::simulation) struct Shares {
    tenants: Vec<Tenant>,
    /// Requests that are still to come.
    to_come: u32,
    /// Some tenant has nothing waiting any more.
    over: bool,
    /// Time of one call.
    service: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Tenant {
    weight: u32,
    waiting: u32,
    served: u32,
}

/// Requests that each tenant must have had on average, so that shares mean anything.
const ENOUGH: u32 = 40;

// === impl Shares ===

impl Shares {
    pub(in crate::simulation) fn new(scenario: &Scenario) -> Self {
        let weights = &scenario.config.tenant_weights;
        let tenant = |name| Tenant { weight: weights.get(name).copied().unwrap_or(1), waiting: 0, served: 0 };
        Self {
            tenants: scenario.tenants.iter().map(tenant).collect(),
            to_come: scenario.crowd.arrivals,
            over: false,
            service: scenario.groups[0].handlers[0].service,
        }
    }

    /// When a request comes: its tenant comes a little later than the one before.
    pub(in crate::simulation) fn offset(&self, number: u32, span: Duration) -> Duration {
        let tenants = u32::try_from(self.tenants.len()).unwrap_or(1);
        self.service * 8 * (number % tenants) + span * (number / tenants) / self.to_come.max(1)
    }

    pub(in crate::simulation) fn came(&mut self, tenant: usize) {
        self.tenants[tenant].waiting += 1;
        self.to_come -= 1;
    }

    pub(in crate::simulation) fn served(&mut self, tenant: usize) {
        let own = &mut self.tenants[tenant];
        own.waiting -= 1;
        if self.to_come == 0 && !self.over {
            own.served += 1;
            self.over = self.tenants.iter().any(|tenant| tenant.waiting == 0);
        }
    }

    /// Within a tenth, and the one request that can't be divided.
    pub(in crate::simulation) fn check(&self) -> Checked {
        let served: u32 = self.tenants.iter().map(|tenant| tenant.served).sum();
        let weight: u32 = self.tenants.iter().map(|tenant| tenant.weight).sum();
        let enough = served >= ENOUGH * u32::try_from(self.tenants.len()).unwrap_or(1);
        for tenant in self.tenants.iter().filter(|_| enough) {
            let fair = f64::from(served) * f64::from(tenant.weight) / f64::from(weight);
            let wrong = (f64::from(tenant.served) - fair).abs();
            hold("tenants' shares are within a tenth", wrong <= fair / 10.0 + 1.0, || {
                format!("{tenant:?} instead of {fair:.1} of {served}")
            })?;
        }
        Ok(())
    }

    /// Whether there was enough to judge by.
    pub(in crate::simulation) fn is_telling(&self) -> bool {
        let served: u32 = self.tenants.iter().map(|tenant| tenant.served).sum();
        served >= ENOUGH * u32::try_from(self.tenants.len()).unwrap_or(1)
    }
}
