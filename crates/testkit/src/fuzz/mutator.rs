//! Inputs that are nearly right: a saved one with a few changes of the kind that break parsers.

use std::ops::Range;

use crate::Chance;

/// Longest input that is made.
const MAX_LEN: usize = 4096;
/// Changes of one input at most.
const MAX_CHANGES: u64 = 4;
/// Longest run of bytes that is moved, copied or made up.
const MAX_RUN: u64 = 64;

/// Numbers at which lengths, counts and signs turn over.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x10000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Makes inputs out of others.
#[derive(Debug)]
pub(super) struct Mutator {
    chance: Chance,
}

// === impl Mutator ===

impl Mutator {
    pub(super) fn new(chance: Chance) -> Self {
        Self { chance }
    }

    /// One of the inputs with a few changes.
    pub(super) fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.chance.pick(corpus).clone();
        for _ in 0..=self.chance.below(MAX_CHANGES) {
            self.change(&mut input, corpus);
        }
        input.truncate(MAX_LEN);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        match self.chance.below(8) {
            0 => self.flip(input),
            1 => self.lie(input),
            2 => self.lie_in_varint(input),
            3 => self.make_up(input),
            4 => self.splice(input, corpus),
            5 => self.repeat(input),
            6 => self.cut(input),
            _ => input.truncate(self.place(input.len())),
        }
    }

    /// A bit of it.
    fn flip(&mut self, input: &mut [u8]) {
        let (place, bit) = (self.place(input.len()), self.chance.below(8));
        if let Some(byte) = input.get_mut(place) {
            *byte ^= 1 << bit;
        }
    }

    /// A number of fixed size becomes another one, little-endian or big-endian.
    fn lie(&mut self, input: &mut [u8]) {
        let number = self.number();
        let width = 1 << self.chance.below(4);
        let little = number.to_le_bytes();
        let mut bytes = little[..width].to_vec();
        if self.chance.percent(50) {
            bytes.reverse();
        }
        let start = self.place(input.len());
        input[start..].iter_mut().zip(bytes).for_each(|(old, new)| *old = new);
    }

    /// A byte becomes a number of the length that protobuf gives it.
    fn lie_in_varint(&mut self, input: &mut Vec<u8>) {
        let mut number = self.number();
        let mut bytes = Vec::new();
        while number > 0x7f {
            bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        bytes.push(number.to_le_bytes()[0]);
        let start = self.place(input.len());
        let end = (start + 1).min(input.len());
        input.splice(start..end, bytes);
    }

    fn make_up(&mut self, input: &mut Vec<u8>) {
        let start = self.place(input.len());
        let run: Vec<_> = (0..self.chance.below(MAX_RUN)).map(|_| self.chance.number().to_le_bytes()[0]).collect();
        input.splice(start..start, run);
    }

    /// A run of another input goes somewhere into this one.
    fn splice(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let other = self.chance.pick(corpus);
        let run = other[self.run(other.len())].to_vec();
        let over = if self.chance.percent(50) { self.run(input.len()) } else { 0..0 };
        input.splice(over, run);
    }

    fn repeat(&mut self, input: &mut Vec<u8>) {
        let run = self.run(input.len());
        let copies = input[run.clone()].repeat(1 + self.size(8));
        input.splice(run.end..run.end, copies);
    }

    fn cut(&mut self, input: &mut Vec<u8>) {
        let run = self.run(input.len());
        input.drain(run);
    }

    /// A number at an edge, near one, or any small one.
    fn number(&mut self) -> u64 {
        let edge = *self.chance.pick(&EDGES);
        match self.chance.below(4) {
            0 => self.chance.below(256),
            1 => edge.wrapping_add(1),
            2 => edge.wrapping_sub(1),
            _ => edge,
        }
    }

    /// A place in so many bytes, or behind them.
    fn place(&mut self, len: usize) -> usize {
        self.size(len as u64 + 1)
    }

    /// A run of so many bytes; it may be empty.
    fn run(&mut self, len: usize) -> Range<usize> {
        let start = self.place(len);
        let longest = (len - start).min(self.size(MAX_RUN) + 1);
        start..start + self.place(longest)
    }

    fn size(&mut self, end: u64) -> usize {
        usize::try_from(self.chance.below(end)).expect("an input has few bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again_and_another_seed_others() {
        let corpus = [b"one input".to_vec(), vec![], vec![7; MAX_LEN + 1]];
        let made = |seed| {
            let mut mutator = Mutator::new(Chance::new(seed));
            (0..2000).map(|_| mutator.mutated(&corpus)).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert!(made(3).iter().all(|input| input.len() <= MAX_LEN));
    }
}
