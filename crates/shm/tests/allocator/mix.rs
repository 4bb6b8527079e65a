//! A mix: allocations and releases in the order in which a replica made them.
//!
//! One a line: `a <id> <len>` takes, `f <id>` gives back; empty lines and those with `#` say nothing.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use anyserve_shm::{ALIGNMENT, Allocator};

#[derive(Debug)]
pub(crate) enum Step {
    Take { id: u64, len: u64 },
    Give { id: u64 },
}

#[derive(Debug)]
pub(crate) struct Mix {
    pub(crate) name: String,
    steps: Vec<Step>,
}

/// What came of a replay.
pub(crate) struct Outcome {
    arena: u64,
    peak: u64,
    taken: usize,
    pub(crate) failed: usize,
    /// The largest share of the free bytes that is not in the longest run: ever, and whenever the peak was reached.
    worst: f64,
    at_peak: f64,
}

// === impl Mix ===

impl Mix {
    pub(crate) fn dir() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mixes")
    }

    /// All that there are, by name.
    pub(crate) fn all() -> Vec<Self> {
        let mut paths: Vec<_> = std::fs::read_dir(Self::dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        paths.sort();
        let read = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            Self::parse(&name, &std::fs::read_to_string(path).unwrap()).unwrap()
        };
        paths.iter().map(read).collect()
    }

    /// A mix gives back only what it took, and takes no id again that it has.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut there = HashMap::new();
        for (place, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step = step(line).filter(|step| match step {
                Step::Take { id, len } => there.insert(*id, *len).is_none(),
                Step::Give { id } => there.remove(id).is_some(),
            });
            steps.push(step.ok_or_else(|| format!("{name}:{}: '{line}' takes and gives nothing", place + 1))?);
        }
        Ok(Self { name: name.to_owned(), steps })
    }

    /// The most that lives at once, as blocks take it.
    pub(crate) fn peak(&self) -> u64 {
        let (mut live, mut sum, mut peak) = (HashMap::new(), 0, 0);
        for step in &self.steps {
            match step {
                Step::Take { id, len } => {
                    let taken = len.max(&1).next_multiple_of(ALIGNMENT);
                    live.insert(id, taken);
                    sum += taken;
                    peak = peak.max(sum);
                }
                Step::Give { id } => sum -= live.remove(id).unwrap(),
            }
        }
        peak
    }
}

fn step(line: &str) -> Option<Step> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    match words[..] {
        ["a", id, len] => Some(Step::Take { id: id.parse().ok()?, len: len.parse().ok()? }),
        ["f", id] => Some(Step::Give { id: id.parse().ok()? }),
        _ => None,
    }
}

/// Replays a mix in an arena of so many bytes.
pub(crate) fn replay(mix: &Mix, arena: u64) -> Outcome {
    let mut allocator = Allocator::new(arena.next_multiple_of(ALIGNMENT));
    let mut live = HashMap::new();
    let peak = mix.peak();
    let mut outcome = Outcome { arena, peak, taken: 0, failed: 0, worst: 0.0, at_peak: 0.0 };
    for step in &mix.steps {
        match step {
            Step::Take { id, len } => match allocator.allocate(*len) {
                Some(start) => _ = live.insert(id, (start, *len)),
                None => outcome.failed += 1,
            },
            Step::Give { id } => live.remove(id).into_iter().for_each(|(start, len)| allocator.release(start, len)),
        }
        outcome.taken += usize::from(matches!(step, Step::Take { .. }));
        let lost = fragmentation(&allocator);
        outcome.worst = outcome.worst.max(lost);
        outcome.at_peak = if allocator.used() == peak { outcome.at_peak.max(lost) } else { outcome.at_peak };
    }
    outcome
}

#[allow(clippy::cast_precision_loss)]
fn fragmentation(allocator: &Allocator) -> f64 {
    1.0 - allocator.longest() as f64 / allocator.free().max(1) as f64
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arena, peak, taken, failed, worst, at_peak } = self;
        write!(f, "{failed} of {taken} allocations failed with an arena of {arena} bytes and a peak of {peak}; ")?;
        write!(f, "free bytes outside of the longest run: {:.0} % at the peak, ", at_peak * 100.0)?;
        write!(f, "{:.0} % at worst", worst * 100.0)
    }
}
