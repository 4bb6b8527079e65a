//! The table, its model, and the workers around them, driven by the same events.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyserve_shm::{ALIGNMENT, BlockId, Change, Extent, Lease, Owner, Pins, Table, Writer};
use proptest::prelude::*;

use crate::model::{Block, Model, State};

const CAPACITY: u64 = 32 << 10;
const PLACES: usize = 20;
const KEYS: [&str; 3] = ["a", "b", "c"];

/// Which of the last blocks an event is about; also those that are long gone.
type Pick = usize;
const PICKS: usize = 24;

/// How an event names its block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Naming {
    Right,
    WrongWriter,
    WrongGeneration,
    WrongPlace,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Grant {
        len: u64,
        writer: usize,
    },
    Seal {
        pick: Pick,
        naming: Naming,
        len: Len,
        key: Option<usize>,
        cacheable: bool,
        ttl_ms: u64,
    },
    Adopt {
        pick: Pick,
        naming: Naming,
        len: Len,
    },
    Discard {
        pick: Pick,
        naming: Naming,
    },
    WriterGone(usize),
    Hold(Pick, Naming),
    Unhold(Pick),
    Delete(Pick, Naming),
    Advance {
        ms: u64,
    },
    Expire,
    Evict,
    Sweep {
        most: usize,
    },
    /// A worker pins what it finds.
    Pin(Pick),
    Unpin(usize),
    /// A worker is in the middle of a look at a place, whatever is there.
    Peek(u32),
    Unpeek(usize),
}

/// Bytes that a writer says it used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Len {
    All,
    Half,
    None,
    OneMore,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let pick = || any::<Pick>();
    let naming = || {
        let wrong = prop_oneof![Just(Naming::WrongWriter), Just(Naming::WrongGeneration), Just(Naming::WrongPlace)];
        prop_oneof![12 => Just(Naming::Right), 1 => wrong]
    };
    let len = || prop_oneof![8 => Just(Len::All), 3 => Just(Len::Half), 1 => Just(Len::None), 1 => Just(Len::OneMore)];
    let bytes = prop_oneof![4 => 0..3000_u64, 1 => 0..CAPACITY + 100, 1 => Just(u64::MAX), 2 => Just(64)];
    let seal = (pick(), naming(), len(), prop::option::of(0..KEYS.len()), any::<bool>(), 1..2000_u64);
    prop_oneof![
        8 => (bytes, 0..WRITERS.len()).prop_map(|(len, writer)| Op::Grant { len, writer }),
        8 => seal.prop_map(|(pick, naming, len, key, cacheable, ttl_ms)| {
            Op::Seal { pick, naming, len, key, cacheable, ttl_ms }
        }),
        3 => (pick(), naming(), len()).prop_map(|(pick, naming, len)| Op::Adopt { pick, naming, len }),
        1 => (pick(), naming()).prop_map(|(pick, naming)| Op::Discard { pick, naming }),
        1 => (1..3_usize).prop_map(Op::WriterGone),
        3 => (pick(), naming()).prop_map(|(pick, naming)| Op::Hold(pick, naming)),
        4 => pick().prop_map(Op::Unhold),
        3 => (pick(), naming()).prop_map(|(pick, naming)| Op::Delete(pick, naming)),
        3 => (0..400_u64).prop_map(|ms| Op::Advance { ms }),
        2 => Just(Op::Expire),
        3 => Just(Op::Evict),
        4 => prop_oneof![Just(usize::MAX), 0..4_usize].prop_map(|most| Op::Sweep { most }),
        4 => pick().prop_map(Op::Pin),
        4 => pick().prop_map(Op::Unpin),
        1 => (0..24_u32).prop_map(Op::Peek),
        2 => pick().prop_map(Op::Unpeek),
    ]
}

const WRITERS: [Writer; 4] = [Writer::Runtime, Writer::Ingress, Writer::Worker(Owner(1)), Writer::Worker(Owner(2))];

/// What workers do: they see only what was published.
#[derive(Default)]
struct Workers {
    directory: HashMap<u32, Extent>,
    views: Vec<Extent>,
    peeks: Vec<u32>,
    used: HashMap<u32, u32>,
}

pub(crate) struct World {
    table: Table,
    model: Model,
    workers: Workers,
    /// Every block that was granted, and to whom.
    ever: Vec<(BlockId, Writer)>,
    now: Instant,
}

// === impl Workers ===

impl Pins for Workers {
    fn is_pinned(&self, index: u32) -> bool {
        self.views.iter().any(|view| view.block.index == index) || self.peeks.contains(&index)
    }

    fn last_used(&self, index: u32) -> Option<u32> {
        self.used.get(&index).copied()
    }
}

impl Workers {
    /// A block is published where nothing is, and withdrawn where something is.
    fn see(&mut self, change: &Change) {
        match *change {
            Change::Publish(extent, _) => assert!(self.directory.insert(extent.block.index, extent).is_none()),
            Change::Withdraw(index) => assert!(self.directory.remove(&index).is_some()),
        }
    }
}

// === impl World ===

impl World {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            table: Table::new(CAPACITY, u32::try_from(PLACES).unwrap(), now),
            model: Model::new(CAPACITY, PLACES),
            workers: Workers::default(),
            ever: Vec::new(),
            now,
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        let now = (self.now, self.table.stamp(self.now));
        match *op {
            Op::Grant { len, writer } => self.grant(len, WRITERS[writer]),
            Op::Seal { pick, naming, len, key, cacheable, ttl_ms } => {
                let Some((block, writer)) = self.name(pick, naming) else { return };
                let (len, ttl) = (self.len(block, len), Duration::from_millis(ttl_ms));
                let lease = Lease { ttl, key: key.map(|key| KEYS[key].to_owned()), cacheable, durable: false };
                let sealed = self.table.seal(block, writer, len, lease.clone(), self.now);
                assert_eq!(sealed, self.model.seal(block, writer, len, &lease, now));
            }
            Op::Adopt { pick, naming, len } => {
                let Some((block, writer)) = self.name(pick, naming) else { return };
                let len = self.len(block, len);
                assert_eq!(self.table.adopt(block, writer, len), self.model.adopt(block, writer, len));
            }
            Op::Discard { pick, naming } => {
                let Some((block, writer)) = self.name(pick, naming) else { return };
                self.table.discard(block, writer);
                self.model.discard(block, writer);
            }
            Op::WriterGone(writer) => {
                let owner = Owner(u32::try_from(writer).unwrap());
                self.table.writer_gone(owner);
                self.model.writer_gone(owner);
            }
            Op::Hold(pick, naming) => {
                let Some((block, _)) = self.name(pick, naming) else { return };
                assert_eq!(self.table.hold(block, self.now), self.model.hold(block, now));
            }
            Op::Unhold(pick) => {
                let Some((block, _)) = self.name(pick, Naming::Right) else { return };
                self.table.unhold(block);
                self.model.unhold(block);
            }
            Op::Delete(pick, naming) => {
                let Some((block, _)) = self.name(pick, naming) else { return };
                assert_eq!(self.table.delete(block), self.model.delete(block));
            }
            Op::Advance { ms } => self.now += Duration::from_millis(ms),
            Op::Expire => assert_eq!(self.table.expire(self.now), self.model.expire(self.now)),
            Op::Evict => {
                let (is_pinned, used) = (|index| self.workers.is_pinned(index), |index| self.workers.last_used(index));
                assert_eq!(self.table.evict(&self.workers), self.model.evict(is_pinned, used));
            }
            Op::Sweep { most } => self.sweep(most),
            Op::Pin(_) | Op::Unpin(_) | Op::Peek(_) | Op::Unpeek(_) => self.work(op),
        }
    }

    fn grant(&mut self, len: u64, writer: Writer) {
        let refusal = self.model.refusal(len, writer);
        let generation = self.ever.len() as u64 + 1;
        let extent = match (self.table.grant(len, writer, generation), refusal) {
            (Ok(extent), None) => extent,
            (result, refusal) => return assert_eq!(result.err(), refusal),
        };
        assert_eq!((extent.len, extent.block.generation, extent.start % ALIGNMENT), (len, generation, 0));
        let end = extent.start + len;
        assert!(end <= CAPACITY);
        let apart = |other: &Extent| end <= other.start || other.start + other.len <= extent.start;
        for other in self.model.blocks.values().map(|block| &block.extent).chain(&self.workers.views) {
            assert!(apart(other), "{extent:?} lies in {other:?}");
            assert_ne!(extent.block.index, other.block.index);
        }
        assert!(!self.workers.directory.contains_key(&extent.block.index), "it was not withdrawn");
        self.model.granted(extent, writer);
        self.ever.push((extent.block, writer));
    }

    fn sweep(&mut self, most: usize) {
        let freed = self.model.sweep(|index| self.workers.is_pinned(index), most);
        let left = self.table.sweep(&self.workers, most);
        assert_eq!(left as u64, self.model.usage().withdrawn);
        assert!(!self.workers.views.iter().any(|view| freed.contains(&view.block.generation)));
    }

    fn work(&mut self, op: &Op) {
        let workers = &mut self.workers;
        match *op {
            Op::Pin(pick) => {
                let mut places: Vec<_> = workers.directory.keys().copied().collect();
                places.sort_unstable();
                if let Some(place) = places.get(pick % places.len().max(1)) {
                    workers.views.push(workers.directory[place]);
                    workers.used.insert(*place, self.table.stamp(self.now));
                }
            }
            Op::Unpin(pick) if !workers.views.is_empty() => _ = workers.views.swap_remove(pick % workers.views.len()),
            Op::Peek(place) => workers.peeks.push(place),
            Op::Unpeek(pick) if !workers.peeks.is_empty() => _ = workers.peeks.swap_remove(pick % workers.peeks.len()),
            _ => {}
        }
    }

    /// What both say after each event.
    pub(crate) fn check(&mut self) {
        let changes = self.table.take_changes();
        assert_eq!(changes, std::mem::take(&mut self.model.changes));
        for change in &changes {
            self.workers.see(change);
        }
        assert_eq!(self.table.usage(), self.model.usage());
        assert!(self.model.ingress() <= CAPACITY / 2);
        let key = KEYS[self.ever.len() % KEYS.len()];
        assert_eq!(self.table.lookup(key, self.now), self.model.lookup(key, self.now), "key {key}");
    }

    /// Everything that can be asked is asked of both; too slow for each event.
    pub(crate) fn check_all(&mut self) {
        for key in KEYS {
            assert_eq!(self.table.lookup(key, self.now), self.model.lookup(key, self.now), "key {key}");
        }
        for (block, _) in self.ever.iter().rev().take(PICKS) {
            assert_eq!(self.table.lease(*block, self.now), self.model.lease(*block, self.now));
        }
        let spans = self.model.blocks.values().map(|block| block.extent);
        let edges: HashSet<_> = spans.flat_map(|span| [span.start, span.start + span.len]).collect();
        for offset in edges.into_iter().flat_map(|edge| [edge.saturating_sub(1), edge]) {
            assert_eq!(self.table.containing(offset), self.model.containing(offset), "byte {offset}");
        }
        let waiting = |block: &&Block| matches!(block.state, State::Withdrawn);
        let expected = self.model.blocks.values().filter(waiting).map(|block| block.extent.block.index);
        assert_eq!(self.table.withdrawn().collect::<BTreeSet<_>>(), expected.collect());
    }

    /// Everybody leaves, and nothing is left.
    pub(crate) fn end(mut self) {
        self.workers.views.clear();
        self.workers.peeks.clear();
        for (block, writer) in self.ever.clone() {
            self.table.discard(block, writer);
            self.table.delete(block);
            let holds = self.model.blocks.get(&block.generation).map_or(0, |block| block.holds);
            (0..holds).for_each(|_| self.table.unhold(block));
        }
        for change in &self.table.take_changes() {
            self.workers.see(change);
        }
        self.table.sweep(&self.workers, usize::MAX);
        let usage = self.table.usage();
        assert_eq!((usage.used, usage.longest_free), (0, CAPACITY));
        assert_eq!((usage.objects, usage.tensors, usage.withdrawn), (0, 0, 0));
        assert!(self.workers.directory.is_empty());
        assert!(self.table.grant(CAPACITY, Writer::Runtime, u64::MAX).is_ok());
    }

    /// The block and its writer, as the event names them.
    fn name(&self, pick: Pick, naming: Naming) -> Option<(BlockId, Writer)> {
        let newest = self.ever.len().checked_sub(1)?;
        let (BlockId { index, generation }, writer) = self.ever[newest - pick % PICKS.min(newest + 1)];
        let other = WRITERS.into_iter().find(|other| *other != writer)?;
        Some(match naming {
            Naming::Right => (BlockId { index, generation }, writer),
            Naming::WrongWriter => (BlockId { index, generation }, other),
            Naming::WrongGeneration => (BlockId { index, generation: generation ^ (1 << 40) }, writer),
            Naming::WrongPlace => (BlockId { index: index + u32::try_from(PLACES).unwrap(), generation }, writer),
        })
    }

    fn len(&self, block: BlockId, len: Len) -> u64 {
        let room = self.model.blocks.get(&block.generation).map_or(64, |block| block.extent.len);
        match len {
            Len::All => room,
            Len::Half => room / 2,
            Len::None => 0,
            Len::OneMore => room + 1,
        }
    }
}
