//! Clients: what they ask for, when they leave, and what is in a request that nobody can see from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyserve_core::{Fingerprint, Priority, SequenceCall, SequenceId};
use anyserve_sched::{GroupId, Job, Payload};

use super::scenario::Scenario;
use crate::Chance;

/// One request, as its client makes it.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) group: usize,
    pub(super) handler: usize,
    pub(super) priority: Priority,
    pub(super) tenant: usize,
    pub(super) deadline: Option<Instant>,
    pub(super) bytes: usize,
    pub(super) batch: Option<u64>,
    pub(super) sequence: Option<SequenceCall>,
    pub(super) print: Fingerprint,
    pub(super) fate: Fate,
    /// Its handler ends early when it is told to.
    pub(super) heeds: bool,
    /// Its caller gets a part of the answer before the end.
    pub(super) emits: bool,
    /// Time in its handler.
    pub(super) service: Duration,
    /// Time after which its caller leaves.
    pub(super) leaves: Option<Duration>,
}

/// What a request does to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is answered.
    Ends,
    /// Its worker dies of it.
    Kills,
    /// It never ends by itself, the first time it runs.
    Hangs,
}

/// What the dispatcher keeps for the shell.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) number: usize,
    pub(super) print: Fingerprint,
    pub(super) emitted: bool,
}

/// Prints of requests that kill are below this number.
const POISONOUS: u64 = 3;
/// Sequences that a handler's clients use at the same time.
const SESSIONS: u64 = 4;

/// Everybody who asks.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Sequences that their clients believe to be alive.
    alive: BTreeMap<(usize, usize, u64), bool>,
}

// === impl Clients ===

impl Clients {
    /// The next request.
    pub(super) fn ask(&mut self, scenario: &Scenario, chance: &mut Chance, now: Instant) -> Ask {
        let group = index(chance, scenario.groups.len());
        let handler = index(chance, scenario.groups[group].handlers.len());
        let (plan, crowd) = (&scenario.groups[group].handlers[handler], &scenario.crowd);
        let limits = &plan.limits;
        let kills = chance.percent(crowd.poison);
        let print = if kills { chance.below(POISONOUS) } else { POISONOUS + chance.below(12) };
        Ask {
            group,
            handler,
            priority: *chance.pick(&scenario.levels),
            tenant: index(chance, scenario.tenants.len()),
            deadline: chance.percent(crowd.deadlines).then(|| now + chance.time_below(crowd.patience)),
            bytes: index(chance, 900),
            batch: (limits.max_batch > 1 && chance.percent(90)).then(|| chance.below(2)),
            sequence: if limits.sequence { self.sequence((group, handler), chance) } else { None },
            print: Fingerprint(print),
            fate: fate(kills, chance.percent(crowd.hangs)),
            heeds: chance.percent(50),
            emits: limits.max_batch == 1 && chance.percent(20),
            service: service(chance, plan.service, crowd.surprises),
            leaves: chance.percent(crowd.leavers).then(|| chance.time_below(crowd.patience.max(plan.service * 3))),
        }
    }

    /// The next request of a sequence; now and then one that makes no sense.
    fn sequence(&mut self, of: (usize, usize), chance: &mut Chance) -> Option<SequenceCall> {
        if chance.percent(2) {
            return None;
        }
        let number = 1 + chance.below(SESSIONS);
        let alive = self.alive.entry((of.0, of.1, number)).or_default();
        let start = !*alive && chance.percent(95) || chance.percent(8);
        let end = chance.percent(15);
        *alive = (*alive || start) && !end;
        Some(SequenceCall { id: SequenceId::Number(number), start, end })
    }

    /// A client is told that its sequence is over.
    pub(super) fn sequence_over(&mut self, ask: &Ask, chance: &mut Chance) {
        if let Some(SequenceCall { id: SequenceId::Number(number), .. }) = ask.sequence
            && chance.percent(60)
        {
            self.alive.insert((ask.group, ask.handler, number), false);
        }
    }
}

fn fate(kills: bool, hangs: bool) -> Fate {
    match (kills, hangs) {
        (true, _) => Fate::Kills,
        (false, true) => Fate::Hangs,
        (false, false) => Fate::Ends,
    }
}

fn index(chance: &mut Chance, len: usize) -> usize {
    usize::try_from(chance.below(len as u64)).unwrap_or(0)
}

/// Half to one and a half of the usual time; now and then much longer.
fn service(chance: &mut Chance, usual: Duration, surprises: u64) -> Duration {
    let time = usual / 2 + chance.time_below(usual);
    if chance.percent(surprises) { time * 20 } else { time }
}

// === impl Ask ===

impl Ask {
    pub(super) fn job<'a>(&'a self, group: GroupId, tenant: &'a str, fingerprint: Option<Fingerprint>) -> Job<'a> {
        Job {
            deadline: self.deadline,
            bytes: self.bytes,
            priority: self.priority,
            tenant,
            sequence: self.sequence.as_ref(),
            batch: self.batch,
            fingerprint,
            ..Job::new(group, self.handler)
        }
    }

    /// Its level; lower goes first.
    pub(super) fn level(&self) -> u8 {
        self.priority.level()
    }
}

impl fmt::Display for Ask {
    /// Without instants: what is told must be the same in every run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, handler, tenant, bytes, batch, service, .. } = self;
        let level = self.level();
        write!(
            f,
            "handler {group}.{handler}, level {level}, tenant {tenant}, {bytes} bytes, print {}, ",
            self.print.0
        )?;
        write!(f, "takes {service:?}")?;
        let flag = |f: &mut fmt::Formatter<'_>, on: bool, what: &str| if on { write!(f, ", {what}") } else { Ok(()) };
        flag(f, self.fate == Fate::Kills, "kills")?;
        flag(f, self.fate == Fate::Hangs, "hangs")?;
        flag(f, self.heeds, "heeds")?;
        flag(f, self.emits, "emits")?;
        if let Some(call) = &self.sequence {
            write!(f, ", {:?} start {} end {}", call.id, call.start, call.end)?;
        }
        if let Some(batch) = batch {
            write!(f, ", batch {batch}")?;
        }
        Ok(())
    }
}

// === impl Parcel ===

impl Payload for Parcel {
    fn fingerprint(&self) -> Fingerprint {
        self.print
    }

    fn has_emitted(&self) -> bool {
        self.emitted
    }
}
