//! Makes a mix as serving is thought to be. It is no record of anything.
//!
//! Time goes in steps. At each, a request comes with a probability of 1/2, with one to three input tensors; its outputs are
//! taken when half of its time is over, its inputs given back at its end and its outputs a little later, when they are
//! sent. At each, an object is made with a probability of 1/4: a third lives 100 steps, a third 400, a third 1600, and one
//! of four is deleted before. Lengths are uniform in each octave, and octaves are equally likely: near to log-uniform, and
//! the same on every machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const STEPS: u64 = 3000;
const TENSOR: (u64, u64) = (100 << 10, 64 << 20);
const OBJECT: (u64, u64) = (1 << 10, 8 << 20);

/// Numbers from a seed (splitmix64).
struct Draw(u64);

/// What happens at which step.
#[derive(Default)]
struct Agenda {
    takes: BTreeMap<u64, Vec<(u64, u64)>>,
    gives: BTreeMap<u64, Vec<u64>>,
    next: u64,
}

/// The mix of a seed, as text.
pub(crate) fn serving(seed: u64) -> String {
    let (mut draw, mut agenda) = (Draw(seed), Agenda::default());
    let mut text =
        format!("# Synthetic: made by tests/allocator/generator.rs with the seed {seed:#x}, recorded nowhere.\n");
    for step in 0..STEPS {
        if draw.below(2) == 0 {
            request(&mut draw, &mut agenda, step);
        }
        if draw.below(4) == 0 {
            let ttl = [100, 400, 1600][usize::try_from(draw.below(3)).unwrap()];
            let lives = if draw.below(4) == 0 { 1 + draw.below(ttl) } else { ttl };
            agenda.plan(draw.len(OBJECT), step, step + lives);
        }
        agenda.gives.remove(&step).into_iter().flatten().for_each(|id| writeln!(text, "f {id}").unwrap());
        let takes = agenda.takes.remove(&step).into_iter().flatten();
        takes.for_each(|(id, len)| writeln!(text, "a {id} {len}").unwrap());
    }
    text
}

fn request(draw: &mut Draw, agenda: &mut Agenda, now: u64) {
    let lasts = 4 + draw.below(40);
    for _ in 0..=draw.below(3) {
        agenda.plan(draw.len(TENSOR), now, now + lasts);
    }
    for _ in 0..=draw.below(2) {
        let sent = now + lasts + 1 + draw.below(8);
        agenda.plan(draw.len(TENSOR), now + lasts / 2, sent);
    }
}

// === impl Agenda ===

impl Agenda {
    fn plan(&mut self, len: u64, from: u64, to: u64) {
        self.takes.entry(from).or_default().push((self.next, len));
        self.gives.entry(to).or_default().push(self.next);
        self.next += 1;
    }
}

// === impl Draw ===

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn len(&mut self, (least, most): (u64, u64)) -> u64 {
        let octaves = u64::from((most / least).ilog2()) + 1;
        loop {
            let low = least << self.below(octaves);
            let len = low + self.below(low);
            if len <= most {
                return len;
            }
        }
    }
}
