//! An allocator that is too simple to be wrong: a flag for each line of 64 bytes.

use anyserve_shm::ALIGNMENT;

pub(crate) struct Naive {
    taken: Vec<bool>,
}

// === impl Naive ===

impl Naive {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { taken: vec![false; usize::try_from(capacity / ALIGNMENT).unwrap()] }
    }

    pub(crate) fn allocate(&mut self, len: u64) -> Option<u64> {
        let wanted = lines(len);
        let runs = self.runs();
        let fitting = runs.into_iter().filter(|(_, len)| *len as u64 >= wanted);
        let (start, _) = fitting.min_by_key(|(start, len)| (*len, *start))?;
        self.set(start as u64, wanted, true);
        Some(start as u64 * ALIGNMENT)
    }

    pub(crate) fn release(&mut self, start: u64, len: u64) {
        self.set(start / ALIGNMENT, lines(len), false);
    }

    pub(crate) fn shrink(&mut self, start: u64, len: u64, wanted: u64) {
        let (had, kept) = (lines(len), lines(wanted));
        self.set(start / ALIGNMENT + kept, had - kept, false);
    }

    pub(crate) fn free(&self) -> u64 {
        self.taken.iter().filter(|taken| !**taken).count() as u64 * ALIGNMENT
    }

    pub(crate) fn longest(&self) -> u64 {
        self.runs().iter().map(|(_, len)| *len as u64 * ALIGNMENT).max().unwrap_or(0)
    }

    /// Free runs as (line, lines).
    fn runs(&self) -> Vec<(usize, usize)> {
        let mut start = 0;
        let mut runs = Vec::new();
        for run in self.taken.chunk_by(|left, right| left == right) {
            if !run[0] {
                runs.push((start, run.len()));
            }
            start += run.len();
        }
        runs
    }

    fn set(&mut self, start: u64, len: u64, taken: bool) {
        for line in start..start + len {
            let line = &mut self.taken[usize::try_from(line).unwrap()];
            assert_ne!(*line, taken, "a line is taken or given twice");
            *line = taken;
        }
    }
}

fn lines(len: u64) -> u64 {
    len.div_ceil(ALIGNMENT).max(1)
}
