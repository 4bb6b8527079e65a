//! What the table must be, said in the plainest way: a map of blocks, searched from end to end for every question.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use anyserve_shm::{ALIGNMENT, BlockId, Change, Extent, Lease, Owner, TableError, Usage, Writer};

pub(crate) enum State {
    Granted(Writer),
    Object { lease: Lease, expires: Instant },
    Tensor,
    Withdrawn,
}

pub(crate) struct Block {
    pub(crate) extent: Extent,
    pub(crate) state: State,
    pub(crate) holds: u32,
    ingress: bool,
    used: u32,
}

pub(crate) struct Model {
    capacity: u64,
    most: usize,
    /// What is not free, by generation.
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// The newest object that there ever was under each key.
    keys: HashMap<String, u64>,
    waiting: VecDeque<u64>,
    evicted: u64,
    /// What the table has to say.
    pub(crate) changes: Vec<Change>,
}

/// What a block of that many bytes takes.
fn taken(len: u64) -> u64 {
    len.max(1).checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
}

// === impl Model ===

impl Model {
    pub(crate) fn new(capacity: u64, most: usize) -> Self {
        let (blocks, keys, waiting) = (BTreeMap::new(), HashMap::new(), VecDeque::new());
        Self { capacity, most, blocks, keys, waiting, evicted: 0, changes: Vec::new() }
    }

    /// What a grant must fail with, if it must.
    pub(crate) fn refusal(&self, len: u64, writer: Writer) -> Option<TableError> {
        let Usage { used, longest_free: longest, capacity, .. } = self.usage();
        let full = Some(TableError::Full { len, free: capacity - used, longest, capacity });
        if taken(len) > capacity {
            return full;
        }
        if writer == Writer::Ingress && self.ingress().saturating_add(taken(len)) > capacity / 2 {
            return full;
        }
        if self.blocks.len() == self.most {
            return Some(TableError::Crowded { max: u32::try_from(self.most).unwrap() });
        }
        full.filter(|_| taken(len) > longest)
    }

    pub(crate) fn granted(&mut self, extent: Extent, writer: Writer) {
        let (state, ingress) = (State::Granted(writer), writer == Writer::Ingress);
        let block = Block { extent, state, holds: 0, ingress, used: 0 };
        assert!(self.blocks.insert(extent.block.generation, block).is_none());
    }

    /// Whether that writer may say that it used `len` bytes of the block.
    fn written(&mut self, id: BlockId, writer: Writer, len: u64) -> Result<&mut Block, TableError> {
        let block = self.find(id).ok_or(TableError::Gone)?;
        let own = matches!(block.state, State::Granted(own) if own == writer) && len <= block.extent.len;
        if !own {
            return Err(TableError::NotYours { index: id.index, len });
        }
        block.extent.len = len;
        Ok(block)
    }

    pub(crate) fn seal(
        &mut self,
        id: BlockId,
        writer: Writer,
        len: u64,
        lease: &Lease,
        (now, stamp): (Instant, u32),
    ) -> Result<(), TableError> {
        let block = self.written(id, writer, len)?;
        let expires = now + lease.ttl;
        (block.state, block.used) = (State::Object { lease: lease.clone(), expires }, stamp);
        let extent = block.extent;
        self.keys.extend(lease.key.clone().map(|key| (key, id.generation)));
        self.changes.push(Change::Publish(extent, Some(expires)));
        Ok(())
    }

    pub(crate) fn adopt(&mut self, id: BlockId, writer: Writer, len: u64) -> Result<Extent, TableError> {
        let block = self.written(id, writer, len)?;
        (block.state, block.holds) = (State::Tensor, 1);
        let extent = block.extent;
        self.changes.push(Change::Publish(extent, None));
        Ok(extent)
    }

    pub(crate) fn discard(&mut self, id: BlockId, writer: Writer) {
        if self.find(id).is_some_and(|block| matches!(block.state, State::Granted(own) if own == writer)) {
            self.blocks.remove(&id.generation);
        }
    }

    pub(crate) fn writer_gone(&mut self, owner: Owner) {
        let gone = Writer::Worker(owner);
        self.blocks.retain(|_, block| !matches!(block.state, State::Granted(own) if own == gone));
    }

    pub(crate) fn hold(&mut self, id: BlockId, (now, stamp): (Instant, u32)) -> Result<Extent, TableError> {
        let block = self.find(id).ok_or(TableError::Gone)?;
        let there = match block.state {
            State::Object { expires, .. } => expires > now,
            State::Tensor => true,
            State::Granted(_) | State::Withdrawn => false,
        };
        if !there {
            return Err(TableError::Gone);
        }
        (block.holds, block.used) = (block.holds + 1, stamp);
        Ok(block.extent)
    }

    pub(crate) fn unhold(&mut self, id: BlockId) {
        let Some(block) = self.find(id) else { return };
        block.holds = block.holds.saturating_sub(1);
        if block.holds == 0 && matches!(block.state, State::Tensor) {
            self.withdraw(id.generation);
        }
    }

    pub(crate) fn lookup(&self, key: &str, now: Instant) -> Option<BlockId> {
        let block = self.blocks.get(self.keys.get(key)?)?;
        matches!(block.state, State::Object { expires, .. } if expires > now).then_some(block.extent.block)
    }

    pub(crate) fn lease(&mut self, id: BlockId, now: Instant) -> Option<(Extent, Lease)> {
        let cacheable = self.may_be_evicted(id.generation);
        let key = self.keys.iter().find(|(_, newest)| **newest == id.generation).map(|(key, _)| key.clone());
        let block = self.find(id)?;
        let State::Object { lease, expires } = &block.state else { return None };
        let lease = Lease { ttl: *expires - now, key, cacheable, ..lease.clone() };
        (*expires > now).then_some((block.extent, lease))
    }

    pub(crate) fn delete(&mut self, id: BlockId) -> bool {
        let there = self.find(id).is_some_and(|block| matches!(block.state, State::Object { .. }));
        if there {
            self.withdraw(id.generation);
        }
        there
    }

    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let lives = |block: &Block| match block.state {
            State::Object { expires, .. } => Some((expires, block.extent.block)),
            _ => None,
        };
        let mut ends: Vec<_> = self.blocks.values().filter_map(lives).collect();
        ends.sort_unstable_by_key(|(expires, block)| (*expires, block.index));
        for (_, block) in ends.iter().filter(|(expires, _)| *expires <= now) {
            self.withdraw(block.generation);
        }
        ends.iter().map(|(expires, _)| *expires).find(|expires| *expires > now)
    }

    /// Returns those that are free now.
    pub(crate) fn sweep(&mut self, is_pinned: impl Fn(u32) -> bool, most: usize) -> Vec<u64> {
        let mut freed = Vec::new();
        for _ in 0..most.min(self.waiting.len()) {
            let generation = self.waiting.pop_front().unwrap();
            let block = &self.blocks[&generation];
            if block.holds > 0 || is_pinned(block.extent.block.index) {
                self.waiting.push_back(generation);
            } else {
                self.blocks.remove(&generation);
                freed.push(generation);
            }
        }
        freed
    }

    pub(crate) fn evict(&mut self, is_pinned: impl Fn(u32) -> bool, used: impl Fn(u32) -> Option<u32>) -> bool {
        let idle = |block: &&Block| block.holds == 0 && !is_pinned(block.extent.block.index);
        let candidates = self.blocks.values().filter(|block| self.may_be_evicted(block.extent.block.generation));
        let oldest = candidates.filter(idle).min_by_key(|block| {
            let index = block.extent.block.index;
            (block.used.max(used(index).unwrap_or(0)), index)
        });
        let Some(generation) = oldest.map(|block| block.extent.block.generation) else { return false };
        self.withdraw(generation);
        self.evicted += 1;
        true
    }

    pub(crate) fn containing(&self, offset: u64) -> Option<Extent> {
        let readable = |block: &Block| match block.state {
            State::Object { .. } | State::Tensor => true,
            State::Withdrawn => block.holds > 0,
            State::Granted(_) => false,
        };
        let inside = |extent: &Extent| (extent.start..extent.start + extent.len.max(1)).contains(&offset);
        self.blocks.values().find(|block| inside(&block.extent) && readable(block)).map(|block| block.extent)
    }

    pub(crate) fn usage(&self) -> Usage {
        let count = |is: fn(&State) -> bool| self.blocks.values().filter(|block| is(&block.state)).count() as u64;
        Usage {
            capacity: self.capacity,
            used: self.blocks.values().map(|block| taken(block.extent.len)).sum(),
            longest_free: self.longest_free(),
            objects: count(|state| matches!(state, State::Object { .. })),
            tensors: count(|state| matches!(state, State::Tensor)),
            withdrawn: count(|state| matches!(state, State::Withdrawn)),
            evicted: self.evicted,
        }
    }

    /// What ingress has, in bytes that blocks take.
    pub(crate) fn ingress(&self) -> u64 {
        self.blocks.values().filter(|block| block.ingress).map(|block| taken(block.extent.len)).sum()
    }

    fn may_be_evicted(&self, generation: u64) -> bool {
        let Some(Block { state: State::Object { lease, .. }, .. }) = self.blocks.get(&generation) else { return false };
        lease.cacheable || lease.key.as_ref().is_some_and(|key| self.keys[key] != generation)
    }

    fn longest_free(&self) -> u64 {
        let mut spans: Vec<_> = self
            .blocks
            .values()
            .map(|block| (block.extent.start, block.extent.start + taken(block.extent.len)))
            .collect();
        spans.push((self.capacity, self.capacity));
        spans.sort_unstable();
        let mut free_from = 0;
        let gaps = spans.iter().map(|(start, end)| start - std::mem::replace(&mut free_from, *end));
        gaps.max().unwrap()
    }

    fn find(&mut self, id: BlockId) -> Option<&mut Block> {
        self.blocks.get_mut(&id.generation).filter(|block| block.extent.block == id)
    }

    fn withdraw(&mut self, generation: u64) {
        let block = self.blocks.get_mut(&generation).unwrap();
        block.state = State::Withdrawn;
        self.waiting.push_back(generation);
        self.changes.push(Change::Withdraw(block.extent.block.index));
    }
}
