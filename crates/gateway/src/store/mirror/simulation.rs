//! Several API servers, a store that fails, and replicas that come, go, move and die, in simulated time and from seeds.
//!
//! What is promised: once nothing fails any more, every server knows exactly the replicas that live, and the store has
//! exactly their entries. And at no time is anything written about one start of a replica more often than once a second.

use std::collections::BTreeMap;

use anyserve_cluster::{Answer, Registry, RegistryConfig};
use anyserve_testkit::Chance;

use super::tests::{CONFIG, announce, beat};
use super::*;

const STEP: Duration = Duration::from_millis(50);
const SERVERS: usize = 3;
const REPLICAS: usize = 6;
const FAULTY: u32 = 1200;
const QUIET: u32 = 800;

/// A store with leases, a history that may be compacted, and data that may be lost.
#[derive(Default)]
struct Fake {
    up: bool,
    revision: i64,
    kept: BTreeMap<Id, (Arc<Entry>, LeaseId)>,
    leases: BTreeMap<LeaseId, Instant>,
    granted: LeaseId,
    history: Vec<(i64, Change)>,
    compacted: i64,
}

struct Server {
    mirror: Mirror,
    registry: Registry,
    session: u64,
    /// What is on its way to the store, and back: when, of which session.
    asked: Vec<(Instant, u64, Action)>,
    answers: Vec<(Instant, u64, Event)>,
    /// The next revision that its watch tells.
    cursor: Option<i64>,
    written_at: BTreeMap<(Id, u64), Instant>,
}

struct Replica {
    id: String,
    epoch: u64,
    seq: u64,
    lives: bool,
    talks_to: usize,
    /// The number of its announcement.
    announced: u64,
    due: Instant,
}

struct World {
    chance: Chance,
    now: Instant,
    fake: Fake,
    servers: Vec<Server>,
    replicas: Vec<Replica>,
}

// === impl Fake ===

impl Fake {
    fn change(&mut self, change: Change) {
        self.revision += 1;
        self.history.push((self.revision, change));
    }

    fn expire(&mut self, now: Instant) {
        let over: Vec<_> = self.leases.iter().filter(|(_, until)| **until <= now).map(|(lease, _)| *lease).collect();
        for lease in over {
            self.leases.remove(&lease);
            let gone: Vec<_> =
                self.kept.iter().filter(|(_, one)| one.1 == lease).map(|(id, _)| Arc::clone(id)).collect();
            for id in gone {
                self.delete(id);
            }
        }
    }

    fn delete(&mut self, id: Id) {
        if self.kept.remove(&id).is_some() {
            self.change(Change::Gone(id));
        }
    }

    fn put(&mut self, id: &Id, entry: &Arc<Entry>, lease: Option<LeaseId>, now: Instant) -> Option<LeaseId> {
        let lease = lease.unwrap_or_else(|| {
            self.granted += 1;
            self.leases.insert(self.granted, now + CONFIG.lease);
            self.granted
        });
        self.leases.contains_key(&lease).then(|| {
            self.kept.insert(Arc::clone(id), (Arc::clone(entry), lease));
            self.change(Change::Put(Arc::clone(id), Arc::clone(entry)));
            lease
        })
    }

    fn answer(&mut self, action: Action, now: Instant) -> Option<Event> {
        Some(match action {
            Action::Connect => Event::Connected,
            Action::List => {
                let entries = self.kept.iter().map(|(id, (entry, _))| (Arc::clone(id), Arc::clone(entry))).collect();
                Event::Listed { revision: self.revision, entries }
            }
            Action::Ping => Event::Ponged,
            Action::Write { id, entry, lease } => match self.put(&id, &entry, lease, now) {
                Some(lease) => Event::Written { id, lease },
                None => Event::Expired { id },
            },
            Action::Remove { id, entry, lease } => {
                self.put(&id, &entry, lease, now);
                self.delete(Arc::clone(&id));
                Event::Removed { id }
            }
            Action::KeepAlive(leases) => {
                let (kept, gone): (Vec<_>, _) = leases.into_iter().partition(|lease| self.leases.contains_key(lease));
                self.leases.extend(kept.into_iter().map(|lease| (lease, now + CONFIG.lease)));
                Event::KeptAlive { gone }
            }
            _ => return None,
        })
    }
}

// === impl Server ===

impl Server {
    fn new(now: Instant) -> Self {
        let registry = Registry::new(RegistryConfig { lease: CONFIG.lease, ..RegistryConfig::default() });
        Self {
            mirror: Mirror::new(CONFIG, now),
            registry,
            session: 0,
            asked: Vec::new(),
            answers: Vec::new(),
            cursor: None,
            written_at: BTreeMap::new(),
        }
    }

    fn perform(&mut self, actions: Vec<Action>, chance: &mut Chance, now: Instant) {
        for action in actions {
            match &action {
                Action::Disconnect => {
                    (self.session, self.cursor) = (self.session + 1, None);
                    continue;
                }
                Action::Renew(entry) if self.registry.renew_adopted(entry.id(), entry.epoch(), now) => {}
                Action::Adopt(entry) | Action::Renew(entry) => self.adopt(entry, now),
                Action::Leave { id, epoch } => drop(self.registry.leave(id, *epoch, now)),
                Action::Watch { from } => self.cursor = Some(*from),
                Action::Write { id, entry, .. } => {
                    let before = self.written_at.insert((Arc::clone(id), entry.epoch()), now);
                    assert!(before.is_none_or(|before| before + CONFIG.pace <= now), "{id} is written too often");
                }
                _ => {}
            }
            let at = now + chance.time_below(Duration::from_millis(300));
            self.asked.push((at, self.session, action));
        }
    }

    fn adopt(&mut self, entry: &Entry, now: Instant) {
        let (newest, announced) = entry.newest();
        self.registry.adopt(&newest, announced, now).unwrap();
    }

    fn breaks(&mut self, now: Instant) {
        self.answers.push((now, self.session, Event::Broken));
    }

    /// What is due on the way to the store and back.
    fn exchange(&mut self, fake: &mut Fake, chance: &mut Chance, now: Instant) {
        let (due, later): (Vec<_>, _) = take(&mut self.asked).into_iter().partition(|(at, ..)| *at <= now);
        self.asked = later;
        for (_, session, action) in due.into_iter().filter(|(_, session, _)| *session == self.session) {
            let event = if fake.up { fake.answer(action, now) } else { Some(Event::Broken) };
            let at = now + chance.time_below(Duration::from_millis(300));
            self.answers.extend(event.map(|event| (at, session, event)));
        }
        let mut events = Vec::new();
        let (due, later): (Vec<_>, _) = take(&mut self.answers).into_iter().partition(|(at, ..)| *at <= now);
        self.answers = later;
        events.extend(due.into_iter().map(|(_, session, event)| (session, event)));
        events.extend(self.watch(fake).map(|event| (self.session, event)));
        for (session, event) in events {
            if session == self.session {
                let actions = self.mirror.on(event, now);
                self.perform(actions, chance, now);
            }
        }
    }

    fn watch(&mut self, fake: &Fake) -> Option<Event> {
        let cursor = self.cursor.filter(|_| fake.up)?;
        if cursor <= fake.compacted {
            self.cursor = None;
            return Some(Event::Compacted);
        }
        let changes: Vec<_> = fake.history.iter().filter(|(revision, _)| *revision >= cursor).cloned().collect();
        let revision = changes.last()?.0;
        self.cursor = Some(revision + 1);
        Some(Event::Watched(changes.into_iter().map(|(_, change)| change).collect()))
    }
}

// === impl World ===

impl World {
    fn new(seed: u64) -> Self {
        let (now, mut chance) = (Instant::now(), Chance::new(seed));
        let replica = |number: usize| Replica {
            id: format!("r{number}"),
            epoch: 1,
            seq: 0,
            lives: true,
            talks_to: number % SERVERS,
            announced: 0,
            due: now + chance.time_below(CONFIG.pace),
        };
        let replicas = (0..REPLICAS).map(replica).collect();
        let fake = Fake { up: true, ..Fake::default() };
        Self { chance, now, fake, servers: (0..SERVERS).map(|_| Server::new(now)).collect(), replicas }
    }

    fn step(&mut self) {
        self.now += STEP;
        let (now, chance) = (self.now, &mut self.chance);
        if self.fake.up {
            self.fake.expire(now);
        }
        for replica in self.replicas.iter_mut().filter(|replica| replica.lives && replica.due <= now) {
            replica.due = now + CONFIG.pace;
            replica.beat(&mut self.servers[replica.talks_to], chance, now);
        }
        for server in &mut self.servers {
            server.exchange(&mut self.fake, chance, now);
            let actions = server.mirror.tick(now);
            server.perform(actions, chance, now);
            server.registry.expire(now);
        }
    }

    fn fault(&mut self) {
        let (server, one) = (place(&mut self.chance, SERVERS), place(&mut self.chance, REPLICAS));
        match self.chance.below(200) {
            0 | 1 => self.fake.up = !self.fake.up,
            2 => self.fake.compacted = self.fake.revision,
            3 => {
                // It has died, and is back without its data.
                self.fake = Fake { up: self.fake.up, granted: self.fake.granted, ..Fake::default() };
                self.servers.iter_mut().for_each(|server| server.breaks(self.now));
            }
            4 => self.servers[server] = Server::new(self.now),
            5..9 => self.replicas[one].talks_to = server,
            9 | 10 => self.replicas[one].lives = false,
            11..14 => self.replicas[one].start(),
            14 => self.leave(one),
            15 => self.servers[server].breaks(self.now),
            _ => {}
        }
    }

    fn leave(&mut self, one: usize) {
        let replica = &mut self.replicas[one];
        if std::mem::replace(&mut replica.lives, false) {
            let server = &mut self.servers[replica.talks_to];
            if server.registry.leave(&replica.id, replica.epoch, self.now) == Answer::Accepted {
                server.mirror.heard(Said::Left { id: &replica.id, epoch: replica.epoch }, self.now);
            }
        }
    }

    fn check(&self, seed: u64) {
        let living = self.replicas.iter().filter(|replica| replica.lives);
        let expected: BTreeMap<_, _> = living.map(|replica| (replica.id.clone(), replica.epoch)).collect();
        for (number, server) in self.servers.iter().enumerate() {
            let known: BTreeMap<_, _> = server.registry.views().map(|view| (view.id.to_string(), view.epoch)).collect();
            assert_eq!(known, expected, "server {number} of seed {seed}");
            assert!(server.mirror.is_connected(), "server {number} of seed {seed}");
        }
        let kept: BTreeMap<_, _> =
            self.fake.kept.iter().map(|(id, (entry, _))| (id.to_string(), entry.epoch())).collect();
        assert_eq!(kept, expected, "the store of seed {seed}");
    }
}

// === impl Replica ===

impl Replica {
    fn start(&mut self) {
        (self.lives, self.epoch, self.seq, self.announced) = (true, self.epoch + 1, 0, 0);
    }

    fn beat(&mut self, server: &mut Server, chance: &mut Chance, now: Instant) {
        self.seq += 1;
        let pending = u32::try_from(chance.below(3)).unwrap();
        let said = beat(&self.id, self.epoch, self.seq, self.announced, pending);
        match server.registry.heartbeat(&said, now).unwrap() {
            Answer::Accepted if server.mirror.heard(Said::Beat(&said), now) != Noted::Unknown => {}
            Answer::Accepted | Answer::AnnounceAgain => self.announce(server, now),
            // Somebody said so once: a later start has to.
            Answer::StaleEpoch { .. } => self.start(),
            Answer::Outdated { .. } => {}
        }
    }

    fn announce(&mut self, server: &mut Server, now: Instant) {
        self.seq += 1;
        self.announced = self.seq;
        let said = announce(&self.id, self.epoch, self.seq);
        match server.registry.announce(&said, now).unwrap() {
            Answer::Accepted => assert_eq!(server.mirror.heard(Said::Announced(&said), now), Noted::ForNow),
            Answer::StaleEpoch { .. } => self.start(),
            Answer::AnnounceAgain | Answer::Outdated { .. } => {}
        }
    }
}

fn place(chance: &mut Chance, end: usize) -> usize {
    usize::try_from(chance.below(u64::try_from(end).unwrap())).unwrap()
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..FAULTY {
        world.fault();
        world.step();
    }
    world.fake.up = true;
    (0..QUIET).for_each(|_| world.step());
    world
}

#[test]
fn once_nothing_fails_any_more_everybody_knows_exactly_who_lives() {
    for seed in 0..100 {
        run(seed).check(seed);
    }
}
