//! Questions about the pool, answered from the same machine that serves requests.

use std::time::Instant;

use anyserve_core::{
    Candidate, CapabilityLoad, Decision, Error, Expects, Explanation, Fingerprint, Quarantined, Request,
    Verdict as Match, verdicts,
};
use anyserve_sched::{Job, Outlook, Verdict, WorkerId};

use crate::dispatch::{Dispatch, Inner};
use crate::fingerprint;
use crate::pending::Parcel;
use crate::routes::{Route, Routes};
use crate::service::{Choice, check};
use crate::wishes::Wishes;

/// The handler that a request would go to, and what the machine says to it.
struct Chosen {
    index: Option<usize>,
    decision: Decision,
}

// === impl Inner ===

impl Inner {
    /// What would be done with this request now, and why.
    pub(crate) fn explain(&self, request: &Request) -> Explanation {
        let (routes, now) = (self.routes.load(), Instant::now());
        let chosen = self.choose(request, &routes, now);
        let matches = verdicts(&request.query, routes.capabilities());
        let candidate = |(index, verdict)| self.candidate(request, &routes, index, verdict, now);
        let mut candidates: Vec<_> = matches.into_iter().enumerate().filter_map(candidate).collect();
        for (index, candidate) in candidates.iter_mut().enumerate() {
            candidate.chosen = Some(index) == chosen.index;
        }
        Explanation { query: request.query.to_string(), candidates, decision: chosen.decision }
    }

    fn choose(&self, request: &Request, routes: &Routes, now: Instant) -> Chosen {
        let route = self.admit(request, routes, Choice::Look);
        let decided = route.and_then(|route| {
            check_explained(request, &route)?;
            let wishes = Wishes::of(request, &route.handler, now)?;
            let fingerprint = self.fingerprint_of(request, &route);
            let job = Job { fingerprint, ..wishes.job(route.group.id, route.index) };
            Ok((route.place, self.ask(|dispatch| dispatch.machine.outlook(&job, now))))
        });
        match decided {
            Ok((index, outlook)) => Chosen { index: Some(index), decision: self.decision(outlook.verdict) },
            Err(error) => Chosen { index: None, decision: Decision::Refuse(error) },
        }
    }

    fn fingerprint_of(&self, request: &Request, route: &Route) -> Option<Fingerprint> {
        let place = u32::try_from(route.index).ok()?;
        let parcel = || {
            let (max, memory) = (self.config.limits.max_meta, &self.config.memory);
            Parcel::try_new(&mut request.clone(), (route.group.id, place), max, memory, Vec::new()).ok()
        };
        self.is_suspicious().then(parcel)?.as_ref().map(fingerprint::of)
    }

    fn decision(&self, verdict: Verdict) -> Decision {
        match verdict {
            Verdict::Run(worker) => Decision::Run { worker: self.name_of(worker) },
            Verdict::Wait { ahead, expected } => Decision::Wait { ahead, expected },
            Verdict::Refuse(error) => Decision::Refuse(error),
        }
    }

    fn candidate(
        &self,
        request: &Request,
        routes: &Routes,
        index: usize,
        verdict: Match,
        now: Instant,
    ) -> Option<Candidate> {
        let route = routes.get(index)?;
        let wishes = Wishes::of(request, &route.handler, now).ok();
        let id = route.group.id;
        let job = wishes.as_ref().map_or(Job::new(id, route.index), |wishes| wishes.job(id, route.index));
        let (outlook, load) = self.ask(|dispatch| (dispatch.machine.outlook(&job, now), dispatch.machine.load(id)));
        Some(Candidate {
            group: route.group.name().to_owned(),
            capability: route.handler.capability.to_string(),
            function: route.handler.function.clone(),
            verdict,
            health: self.health(route, &outlook),
            queued: outlook.queued,
            max_queue: outlook.max_queue,
            in_flight: load.in_flight,
            workers: load.workers,
            expected_wait: outlook.expected,
            chosen: false,
        })
    }

    fn health(&self, route: &Route, outlook: &Outlook) -> &'static str {
        let load = self.ask(|dispatch| dispatch.machine.load(route.group.id));
        match load {
            _ if self.is_draining() => "draining",
            _ if !route.group.is_loaded() => "unloaded",
            _ if load.down => "down",
            _ if load.workers == 0 => "starting",
            _ if outlook.queued >= outlook.max_queue => "saturated",
            _ => "ready",
        }
    }

    /// The load of each capability, in the order of the catalog.
    pub(crate) fn capability_loads(&self) -> Vec<CapabilityLoad> {
        let routes = self.routes.load();
        let now = Instant::now();
        self.ask(|dispatch| routes.all().map(|route| capability_load(dispatch, route, now)).collect())
    }

    /// What is refused because it killed workers.
    pub(crate) fn quarantined(&self) -> Vec<Quarantined> {
        let (routes, now) = (self.routes.load(), Instant::now());
        let shown = |record: anyserve_sched::Record| Quarantined {
            fingerprint: record.fingerprint,
            model: routes.of(record.group, record.handler).map_or_else(String::new, |route| route.handler.model_name()),
            deaths: record.deaths,
            refused: record.refused,
            remaining: record.until.saturating_duration_since(now),
        };
        self.ask(|dispatch| dispatch.machine.quarantined(now)).into_iter().map(shown).collect()
    }

    pub(crate) fn name_of(&self, worker: WorkerId) -> String {
        self.names.lock().get(&worker).cloned().unwrap_or_default()
    }
}

fn capability_load(dispatch: &Dispatch, route: &Route, now: Instant) -> CapabilityLoad {
    let (id, machine) = (route.group.id, &dispatch.machine);
    let (group, outlook) = (machine.load(id), machine.outlook(&Job::new(id, route.index), now));
    let concurrency = usize::try_from(route.handler.concurrency.max(1)).unwrap_or(usize::MAX);
    CapabilityLoad {
        model: route.handler.model_name(),
        queued: outlook.queued,
        max_queue: outlook.max_queue,
        saturated: outlook.queued >= outlook.max_queue,
        closed: group.down || !route.group.is_loaded(),
        workers: group.workers,
        slots: concurrency.saturating_mul(group.workers.max(1)),
        pending: outlook.queued.saturating_add(group.in_flight),
        wait: outlook.expected,
        service: machine.service_time(id, route.index),
    }
}

/// What is wrong with the request itself. A question without inputs is about the schedule alone.
fn check_explained(request: &Request, route: &Route) -> Result<(), Error> {
    let streams = route.handler.stream && request.expects == Expects::One;
    if streams || !request.inputs.is_empty() { check(request, &route.handler) } else { Ok(()) }
}
