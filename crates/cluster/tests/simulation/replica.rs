//! One replica as it really is, beside what the registry was told.

use std::time::{Duration, Instant};

use anyserve_cluster::{Announce, Answer, Heartbeat, Load, Offer};
use anyserve_core::{Capability, Upgrades, Value};

const LOAD: Load =
    Load { ready: true, saturated: false, pending: 0, wait: Duration::ZERO, service: Duration::from_millis(40) };

/// A replica.
pub(crate) struct Replica {
    pub(crate) number: usize,
    /// It runs.
    pub(crate) alive: bool,
    /// It said that it leaves, and refuses requests.
    pub(crate) draining: bool,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// The newest announcement.
    pub(crate) announced: u64,
    /// What it serves.
    pub(crate) kinds: Vec<u64>,
    /// What it makes of what it does not serve.
    pub(crate) rules: Upgrades,
    /// What it served when it announced itself last.
    said: Vec<u64>,
    /// Nothing that it says arrives until then.
    pub(crate) mute_until: Instant,
    /// Nothing that is sent to it arrives until then.
    pub(crate) cut_until: Instant,
    /// The registry's knowledge.
    pub(crate) known: Option<Known>,
    /// The last change of anything above or below that a request may notice.
    pub(crate) stable_since: Instant,
    /// The newest epoch that the registry accepted, and when it accepted something last.
    pub(crate) accepted: (u64, Option<Instant>),
}

/// What the registry accepted of a replica.
pub(crate) struct Known {
    epoch: u64,
    kinds: Vec<u64>,
    /// It was denied since.
    pub(crate) denied: bool,
}

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Announce(Announce, Vec<u64>),
    Heartbeat(Heartbeat),
    Leave(String, u64),
}

impl Replica {
    pub(crate) fn new(number: usize, kinds: Vec<u64>, rules: Upgrades, now: Instant) -> Self {
        Self {
            number,
            alive: true,
            draining: false,
            epoch: 1,
            seq: 0,
            announced: 0,
            kinds,
            rules,
            said: Vec::new(),
            mute_until: now,
            cut_until: now,
            known: None,
            stable_since: now,
            accepted: (0, None),
        }
    }

    pub(crate) fn id(&self) -> String {
        format!("r{}", self.number)
    }

    pub(crate) fn is_reachable(&self, now: Instant) -> bool {
        self.alive && self.cut_until <= now
    }

    pub(crate) fn announce(&mut self) -> Message {
        self.seq += 1;
        self.announced = self.seq;
        self.said.clone_from(&self.kinds);
        let (id, epoch, seq, draining) = (self.id(), self.epoch, self.seq, self.draining);
        let endpoint = format!("http://10.0.0.1:{}", self.number);
        // Those of even kinds may run twice.
        let offer = |kind: &u64| Offer {
            capability: capability(*kind),
            idempotent: kind.is_multiple_of(2),
            slots: 4,
            load: LOAD,
        };
        let offers = self.kinds.iter().map(offer).collect();
        // Every fifth one is of a release that says no rules, and has them all the same.
        let silent = self.number.is_multiple_of(5);
        let upgrades = if silent { Upgrades::default() } else { self.rules.clone() };
        Message::Announce(Announce { id, epoch, seq, endpoint, draining, offers, upgrades }, self.kinds.clone())
    }

    pub(crate) fn heartbeat(&mut self) -> Message {
        self.seq += 1;
        let (id, epoch, seq, announced) = (self.id(), self.epoch, self.seq, self.announced);
        let loads = vec![LOAD; self.said.len()];
        Message::Heartbeat(Heartbeat { id, epoch, seq, announced, draining: self.draining, loads })
    }

    /// It is started again.
    pub(crate) fn restart(&mut self, kinds: Vec<u64>, now: Instant) -> Message {
        (self.alive, self.draining, self.kinds, self.stable_since) = (true, false, kinds, now);
        self.epoch += 1;
        self.seq = 0;
        self.announce()
    }

    /// The registry answered an announcement.
    pub(crate) fn heard(&mut self, announce: &Announce, kinds: &[u64], answer: Answer, now: Instant) {
        if answer == Answer::Accepted {
            self.known = Some(Known { epoch: announce.epoch, kinds: kinds.to_vec(), denied: false });
            self.stable_since = now;
        }
    }

    /// It serves the kind, and the registry knows.
    pub(crate) fn is_claimed(&self, kind: u64, now: Instant) -> bool {
        let knows = |known: &Known| known.epoch == self.epoch && known.kinds.contains(&kind) && !known.denied;
        self.is_reachable(now) && !self.draining && self.kinds.contains(&kind) && self.known.as_ref().is_some_and(knows)
    }
}

pub(crate) fn capability(kind: u64) -> Capability {
    let pair = |key: &str, text: String| (key.to_owned(), Value::Text(text));
    Capability::try_new([pair("type", format!("t{kind}")), pair("family", format!("f{}", kind % 3))]).unwrap()
}
