//! A fleet, its registry and its callers in simulated time, and what holds of them at every event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyserve_cluster::policy::{BinPacking, Keys, LeastWait, Policy, PrefixAffinity, RoundRobin, Sticky};
use anyserve_cluster::{
    Answer, Arrival, Call, Event, Handle, Health, Refusal, Registry, RegistryConfig, Route, Standing, Step, Target,
    Trip, refuse,
};
use anyserve_core::{Code, Error, Query, Upgrades};
use anyserve_testkit::{Chance, Timeline};

use crate::replica::{Message, Replica};

const LEASE: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_secs(1);
/// Kinds that nobody ever serves.
const GHOSTS: u64 = 3;

/// How much there is of what.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) replicas: usize,
    pub(crate) kinds: u64,
    pub(crate) seconds: u64,
    /// A second.
    pub(crate) requests: u64,
    /// A second.
    pub(crate) faults: u64,
}

/// What happens.
enum Happening {
    Beat(usize),
    Deliver(usize, Message),
    Fault,
    Restart(usize),
    Announce(usize),
    Arrive,
    /// What was asked or sent has its answer.
    Answer(usize, Target, Arrived),
    Probed(Handle, usize),
}

/// What became of a question or a request when it came to its replica.
enum Arrived {
    /// It did not.
    No,
    /// It is a question.
    Asks,
    /// It was refused at once.
    Refused(Event),
    /// It runs in the start of this epoch.
    Runs(u64),
}

/// A request on its way, with what was seen of it.
struct Request {
    route: Route,
    kind: u64,
    arrived: Instant,
    refused_by: Vec<usize>,
    sends: u32,
    /// Who could serve it for certain, when it arrived.
    able: Vec<usize>,
    /// The same, of what it was handed back as by the first one, who did not say that he serves it.
    led_to: Option<Vec<usize>>,
}

pub(crate) struct World {
    size: Size,
    chance: Chance,
    timeline: Timeline<Happening>,
    end: Instant,
    registry: Registry,
    policy: Box<dyn Policy>,
    replicas: Vec<Replica>,
    requests: Vec<Option<Request>>,
    /// Messages that come once more, much later.
    repeats: Vec<(usize, Message)>,
    pub(crate) tally: BTreeMap<&'static str, u64>,
    pub(crate) hash: u64,
}

impl World {
    pub(crate) fn new(seed: u64, size: Size) -> Self {
        let (mut chance, timeline) = (Chance::new(seed), Timeline::new());
        let now = timeline.now();
        let mut replica = |number| Replica::new(number, kinds(&mut chance, size), rules(&mut chance, size), now);
        let replicas = (0..size.replicas).map(&mut replica).collect();
        let policy: Box<dyn Policy> = match seed % 5 {
            0 => Box::new(LeastWait),
            1 => Box::new(BinPacking),
            2 => Box::new(Sticky),
            3 => Box::new(PrefixAffinity::default()),
            _ => Box::new(RoundRobin),
        };
        let mut world = Self {
            size,
            chance,
            end: now + Duration::from_secs(size.seconds),
            timeline,
            registry: Registry::new(RegistryConfig::default()),
            policy,
            replicas,
            requests: Vec::new(),
            repeats: Vec::new(),
            tally: BTreeMap::new(),
            hash: 0,
        };
        for number in 0..size.replicas {
            world.plan_within(BEAT, Happening::Announce(number));
            world.plan_within(BEAT, Happening::Beat(number));
        }
        world.plan_within(BEAT, Happening::Arrive);
        world.plan_within(BEAT, Happening::Fault);
        world
    }

    pub(crate) fn run(&mut self) {
        while let Some(happening) = self.timeline.next_event() {
            self.tend();
            self.happen(happening);
        }
        assert!(self.requests.iter().all(Option::is_none), "every request ends");
    }

    fn now(&self) -> Instant {
        self.timeline.now()
    }

    fn is_over(&self) -> bool {
        self.now() >= self.end
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
        let letters = what.bytes().fold(self.hash, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.hash = letters.rotate_left(7);
    }

    fn plan_within(&mut self, time: Duration, happening: Happening) {
        let after = self.chance.time_below(time);
        self.timeline.plan(after, happening);
    }

    /// Leases that are over, and probes that are due.
    fn tend(&mut self) {
        let now = self.now();
        for _ in 0..self.registry.expire(now) {
            self.count("leases over");
        }
        for probe in self.registry.probes(usize::MAX, now) {
            self.count("probed");
            let number = number_of(&probe.id);
            self.plan_within(Duration::from_millis(20), Happening::Probed(probe.handle, number));
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now();
        match happening {
            Happening::Beat(number) => self.beat(number),
            Happening::Announce(number) => {
                if self.replicas[number].alive {
                    let message = self.replicas[number].announce();
                    self.say(number, message);
                }
            }
            Happening::Deliver(number, message) => self.deliver(number, &message),
            Happening::Fault => self.fault(),
            Happening::Restart(number) => {
                let kinds = kinds(&mut self.chance, self.size);
                self.replicas[number].rules = rules(&mut self.chance, self.size);
                let message = self.replicas[number].restart(kinds, now);
                self.say(number, message);
            }
            Happening::Arrive => self.arrive(),
            Happening::Answer(request, target, arrived) => self.answer(request, &target, arrived),
            Happening::Probed(handle, number) => {
                let good = self.replicas[number].is_reachable(now);
                // Whether it comes back or goes on being ejected, what was certain of it before is not any more.
                self.replicas[number].stable_since = now;
                self.registry.probed(handle, good, now);
            }
        }
    }

    fn beat(&mut self, number: usize) {
        if self.is_over() {
            return;
        }
        self.timeline.plan(BEAT, Happening::Beat(number));
        if self.replicas[number].alive && self.replicas[number].announced > 0 {
            let message = self.replicas[number].heartbeat();
            self.say(number, message);
        }
    }

    /// A message goes off: it arrives soon, seldom late, and seldom twice.
    fn say(&mut self, number: usize, message: Message) {
        let late = if self.chance.percent(2) { 3_000 } else { 30 };
        self.say_within(number, message, Duration::from_millis(late));
    }

    fn say_within(&mut self, number: usize, message: Message, time: Duration) {
        if self.replicas[number].mute_until > self.now() {
            return;
        }
        if self.chance.percent(5) && self.repeats.len() < 100 {
            self.repeats.push((number, message.clone()));
        }
        self.plan_within(time, Happening::Deliver(number, message));
    }

    fn deliver(&mut self, number: usize, message: &Message) {
        let now = self.now();
        let (epoch, answer) = match message {
            Message::Announce(announce, kinds) => {
                let answer = self.registry.announce(announce, now).unwrap();
                self.replicas[number].heard(announce, kinds, answer, now);
                (announce.epoch, answer)
            }
            Message::Heartbeat(heartbeat) => (heartbeat.epoch, self.registry.heartbeat(heartbeat, now).unwrap()),
            Message::Leave(id, epoch) => (*epoch, self.registry.leave(id, *epoch, now)),
        };
        let replica = &mut self.replicas[number];
        let newest = replica.accepted.0;
        if epoch < newest && !matches!(message, Message::Leave(..)) {
            assert!(matches!(answer, Answer::StaleEpoch { .. }), "epoch {epoch} after {newest}: {answer:?}");
            self.count("stale epochs refused");
            return;
        }
        if let Some(view) = self.registry.view(&replica.id()) {
            assert!(view.epoch >= newest, "epoch {} is back after {newest}", view.epoch);
            if view.epoch == epoch && view.lease_until == now + LEASE {
                replica.accepted = (epoch, Some(now));
            }
        }
        if answer == Answer::AnnounceAgain && replica.alive && replica.epoch == epoch {
            self.count("announced again");
            self.plan_within(Duration::from_millis(30), Happening::Announce(number));
        }
    }

    fn fault(&mut self) {
        if self.is_over() {
            return;
        }
        self.plan_within(BEAT * 2 / u32::try_from(self.size.faults).unwrap(), Happening::Fault);
        let now = self.now();
        let number = usize::try_from(self.chance.below(u64::try_from(self.size.replicas).unwrap())).unwrap();
        let long = self.chance.time_below(Duration::from_secs(12));
        match self.chance.below(24) {
            0..3 => self.crash(number),
            3..5 => {
                self.count("control cut");
                self.replicas[number].mute_until = now + long;
            }
            5..7 => {
                self.count("data cut");
                self.replicas[number].cut_until = now + long;
                self.replicas[number].stable_since = now + long;
            }
            7 => self.leave(number),
            8 => {
                for (number, message) in std::mem::take(&mut self.repeats) {
                    self.plan_within(BEAT, Happening::Deliver(number, message));
                }
            }
            _ => self.change(number),
        }
    }

    fn crash(&mut self, number: usize) {
        if !self.replicas[number].alive {
            return;
        }
        self.count("crashed");
        (self.replicas[number].alive, self.replicas[number].stable_since) = (false, self.now());
        let after = Duration::from_millis(100) + self.chance.time_below(Duration::from_secs(9));
        self.timeline.plan(after, Happening::Restart(number));
    }

    /// It drains, says so, leaves and stops.
    fn leave(&mut self, number: usize) {
        let now = self.now();
        let replica = &mut self.replicas[number];
        if !replica.alive || replica.draining {
            return;
        }
        (replica.draining, replica.stable_since) = (true, now);
        let (id, epoch, heartbeat) = (replica.id(), replica.epoch, replica.heartbeat());
        self.count("left");
        self.say(number, heartbeat);
        self.say(number, Message::Leave(id, epoch));
        self.crash(number);
    }

    fn change(&mut self, number: usize) {
        let (kinds, rules) = (kinds(&mut self.chance, self.size), rules(&mut self.chance, self.size));
        let now = self.now();
        let replica = &mut self.replicas[number];
        if replica.alive && !replica.draining {
            (replica.kinds, replica.rules, replica.stable_since) = (kinds, rules, now);
            let message = replica.announce();
            self.count("capabilities changed");
            // Until this arrives its claims are wrong.
            self.say_within(number, message, BEAT * 2);
        }
    }

    fn arrive(&mut self) {
        if self.is_over() {
            return;
        }
        self.plan_within(BEAT * 2 / u32::try_from(self.size.requests).unwrap(), Happening::Arrive);
        // Now and then it is something that nobody serves, and that only a rule may make something else of.
        let nobodys = if self.chance.percent(20) { self.size.kinds } else { 0 };
        let (now, kind) = (self.now(), nobodys + self.chance.below(if nobodys > 0 { GHOSTS } else { self.size.kinds }));
        let deadline = self.chance.percent(10).then(|| now + self.chance.time_below(Duration::from_millis(200)));
        let hash = self.chance.below(50);
        let keys = Keys { session: Some(hash), prefix: Some(hash) };
        let query = Query::parse(&format!("type=t{kind}")).unwrap();
        let mut route = Route::new(Call { query, keys, deadline, trip: Trip::default() });
        let able = self.able(kind);
        let step = route.begin(&mut self.registry, &*self.policy, now);
        let led_to = self.led(&step);
        self.requests.push(Some(Request { route, kind, arrived: now, refused_by: vec![], sends: 0, able, led_to }));
        self.step(self.requests.len() - 1, step);
    }

    /// Whom the first step leads to by a rule for certain, if it goes to somebody who does not say that he serves it. He is
    /// the best that the registry could find.
    fn led(&mut self, step: &Step) -> Option<Vec<usize>> {
        let Step::Send(target @ Target { capability: None, .. }) = step else { return None };
        if self.size.replicas < 100 {
            self.is_well_led(target);
        }
        let number = number_of(&target.id);
        let replica = &self.replicas[number];
        let Some(Event::HandedBack(query)) = refusal(replica, target) else { return None };
        if !replica.is_reachable(self.now()) || query == target.query {
            return None;
        }
        self.count("led by a rule");
        let kind = (0..self.size.kinds).find(|kind| asks_for(&query, *kind)).expect("rules lead to a kind");
        Some(self.able(kind).into_iter().filter(|able| *able != number).collect())
    }

    /// Nobody is a better lead by what the registry was told, which is all looked at here.
    fn is_well_led(&mut self, target: &Target) {
        let open: Vec<_> = self.registry.views().filter(|view| view.health == Health::Up && !view.draining).collect();
        let claims = |query: &Query, id: &str| {
            let offers = self.registry.offers(id);
            let up = offers.iter().filter(|one| one.standing.is_some_and(|standing| standing != Standing::Ejected));
            !anyserve_core::matches_of(query, up.map(|one| &*one.capability)).is_empty()
        };
        let worth = |id: &str| match self.registry.upgrades(id).apply(&target.query) {
            Some(query) => 1 + u32::from(open.iter().any(|other| *other.id != *id && claims(&query, &other.id))),
            None => 0,
        };
        let (best, own) = (open.iter().map(|view| worth(&view.id)).max().unwrap_or_default(), worth(&target.id));
        assert_eq!(own, best, "{} gets {}, and somebody is a better lead", target.id, target.query);
        self.count(
            ["led nowhere", "a rule without anybody", "a rule that leads to somebody"][usize::try_from(own).unwrap()],
        );
    }

    /// Who serves a kind now, and is known to, and was not found unfit.
    fn able(&self, kind: u64) -> Vec<usize> {
        let now = self.now();
        let claimed =
            self.replicas.iter().filter(|replica| replica.stable_since <= now && replica.is_claimed(kind, now));
        let up = claimed.filter(|replica| {
            let view = self.registry.view(&replica.id());
            view.is_some_and(|view| view.health == Health::Up && view.epoch == replica.epoch && !view.draining)
        });
        up.map(|replica| replica.number).collect()
    }

    fn step(&mut self, request: usize, step: Step) {
        let (target, asked) = match step {
            Step::Over(end) => return self.over(request, end),
            Step::Ask(target) => (target, true),
            Step::Send(target) => (target, false),
        };
        self.may_be_tried(request, &target);
        if !asked {
            self.requests[request].as_mut().unwrap().sends += 1;
        }
        let arrived = self.arrived(&target, asked);
        let time = Duration::from_millis(if matches!(arrived, Arrived::Runs(_)) { 40 } else { 2 });
        self.plan_within(time, Happening::Answer(request, target, arrived));
    }

    fn arrived(&self, target: &Target, asked: bool) -> Arrived {
        let replica = &self.replicas[number_of(&target.id)];
        match refusal(replica, target) {
            _ if !replica.is_reachable(self.now()) => Arrived::No,
            _ if asked => Arrived::Asks,
            Some(event) => Arrived::Refused(event),
            None => Arrived::Runs(replica.epoch),
        }
    }

    /// What holds of everybody who is asked or sent a request.
    fn may_be_tried(&self, request: usize, target: &Target) {
        let number = number_of(&target.id);
        let (replica, request) = (&self.replicas[number], self.requests[request].as_ref().unwrap());
        assert!(!request.refused_by.contains(&number), "{} has refused it", target.id);
        assert!(target.delegations <= 1 && request.route.attempts() <= 2 && request.route.delegations() <= 1);
        assert!(target.epoch >= replica.accepted.0, "epoch {} is stale", target.epoch);
        let silent = self.now() - replica.accepted.1.expect("it was accepted once");
        assert!(silent < LEASE, "{} has said nothing for {silent:?}", target.id);
    }

    fn answer(&mut self, at: usize, target: &Target, arrived: Arrived) {
        let (now, number) = (self.now(), number_of(&target.id));
        let event = match arrived {
            Arrived::No => Event::Unreached,
            Arrived::Asks => self.can(number, target),
            Arrived::Refused(event) => event,
            Arrived::Runs(epoch) => self.outcome(number, epoch),
        };
        let before = self.registry.view(&target.id).map(|view| view.health);
        self.learn(at, number, &event);
        let failed = matches!(event, Event::Failed { .. });
        let mut request = self.requests[at].take().unwrap();
        let step = request.route.on(event, &mut self.registry, &*self.policy, now).unwrap();
        self.requests[at] = Some(request);
        if failed && before == Some(Health::Up) {
            let after = self.registry.view(&target.id).map(|view| view.health);
            assert!(after.is_none_or(Health::is_up), "an error ejected {}", target.id);
        }
        self.step(at, step);
    }

    fn can(&mut self, number: usize, target: &Target) -> Event {
        let replica = &self.replicas[number];
        if !replica.is_reachable(self.now()) {
            return Event::Unreached;
        }
        if refusal(replica, target).is_none() {
            return Event::Can;
        }
        self.count("asked in vain");
        Event::Cannot
    }

    fn outcome(&mut self, number: usize, epoch: u64) -> Event {
        let replica = &self.replicas[number];
        if !replica.is_reachable(self.now()) || replica.epoch != epoch {
            return Event::Broken { emitted: self.chance.percent(20) };
        }
        match self.chance.below(100) {
            0..3 => fails(Code::InvalidInput),
            3 => fails(Code::HandlerError),
            4 => fails(Code::Poison),
            5 => fails(Code::Overloaded),
            _ => Event::Answered,
        }
    }

    /// Writes down what the registry is about to learn of a replica.
    fn learn(&mut self, request: usize, number: usize, event: &Event) {
        let now = self.now();
        match event {
            Event::Unreached => self.count("unreached"),
            Event::Broken { .. } => self.count("broken"),
            Event::HandedBack(_) => self.count("handed back"),
            _ => {}
        }
        let request = self.requests[request].as_mut().unwrap();
        let refuses = |error: &Error| [Code::NoCapability, Code::Draining, Code::Overloaded].contains(&error.code);
        let denied = match event {
            Event::HandedBack(_) | Event::Cannot => true,
            Event::Failed { error, .. } => refuses(error),
            _ => false,
        };
        if denied {
            self.replicas[number].known.iter_mut().for_each(|known| known.denied = true);
            request.refused_by.push(number);
        }
        if matches!(event, Event::Unreached) {
            request.sends = request.sends.saturating_sub(u32::from(request.route.attempts() > 0));
        }
        if denied || matches!(event, Event::Unreached | Event::Broken { .. }) {
            self.replicas[number].stable_since = self.replicas[number].stable_since.max(now);
        }
    }

    fn over(&mut self, at: usize, end: Result<(), Error>) {
        let request = self.requests[at].take().unwrap();
        assert!(request.route.attempts() <= 2 && request.route.delegations() <= 1);
        if request.route.attempts() == 2 {
            self.count("second attempts");
        }
        let Err(error) = end else { return self.count("answered") };
        self.count(match error.code {
            Code::NoCapability => "over: NO_CAPABILITY",
            Code::Unavailable => "over: UNAVAILABLE",
            Code::WorkerLost => "over: WORKER_LOST",
            Code::InvalidInput => "over: INVALID_INPUT",
            Code::Deadline => "over: DEADLINE",
            Code::Draining => "over: DRAINING",
            Code::Overloaded => "over: OVERLOADED",
            _ => "over: other",
        });
        // What a replica said of the request itself, and what was lost on the way, ends it although others are there.
        if [Code::NoCapability, Code::Unavailable].contains(&error.code) {
            self.nobody_was_there(&request, &error);
        }
    }

    /// Who could serve it for certain when it arrived must have changed since.
    fn nobody_was_there(&mut self, request: &Request, error: &Error) {
        self.count("oracle asked");
        let stable = |number: &&usize| self.replicas[**number].stable_since <= request.arrived;
        let overlooked: Vec<_> = request.able.iter().filter(stable).collect();
        assert!(overlooked.is_empty(), "t{}: {error}, and {overlooked:?} could serve it", request.kind);
        let led_to: Vec<_> = request.led_to.iter().flatten().filter(stable).collect();
        assert!(led_to.is_empty(), "t{}: {error}, and a rule led to {led_to:?}", request.kind);
    }
}

/// Why a replica does not begin a request, if it does not.
fn refusal(replica: &Replica, target: &Target) -> Option<Event> {
    if replica.draining {
        return Some(fails(Code::Draining));
    }
    if replica.kinds.iter().any(|kind| asks_for(&target.query, *kind)) {
        return None;
    }
    let trip = Trip { delegations: target.delegations, refused_by: None };
    Some(match refuse(&target.query, &trip, Arrival::ByServer, &replica.rules) {
        Refusal::HandBack(query) => Event::HandedBack(query),
        Refusal::Fail(error) => Event::Failed { error, emitted: false },
        Refusal::Forward(_) => unreachable!("it came through the API server"),
    })
}

fn fails(code: Code) -> Event {
    Event::Failed { error: Error::new(code, "as the world wants it"), emitted: false }
}

fn asks_for(query: &Query, kind: u64) -> bool {
    anyserve_core::matches_of(query, std::iter::once(&crate::replica::capability(kind))).len() == 1
}

fn number_of(id: &str) -> usize {
    id[1..].parse().unwrap()
}

/// Up to three rules, each from something to what somebody may serve.
fn rules(chance: &mut Chance, size: Size) -> Upgrades {
    let texts: Vec<_> = (0..chance.below(4))
        .map(|_| {
            let (from, to) = (chance.below(size.kinds + GHOSTS), chance.below(size.kinds));
            let to = if from == to { (to + 1) % size.kinds } else { to };
            format!("type=t{from} -> type=t{to}")
        })
        .collect();
    Upgrades::parse(texts.iter().map(String::as_str)).unwrap()
}

fn kinds(chance: &mut Chance, size: Size) -> Vec<u64> {
    let mut kinds: Vec<_> = (0..=chance.below(3)).map(|_| chance.below(size.kinds)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}
