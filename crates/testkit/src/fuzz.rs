//! Parsers of outside bytes under attack: every input of a saved corpus, then seeded mutations of it.
//!
//! A target is a function of any bytes that panics where a property does not hold. The same function is what
//! `cargo fuzz` drives, see `fuzz/README.md`; here it runs without instrumentation, on every toolchain, and the same
//! inputs each time. What an input makes a target hold in memory is measured, too.
//!
//! `ANYSERVE_FUZZ_RUNS` sets how many mutations there are, `ANYSERVE_FUZZ_SEED` which ones.

mod mutator;

use std::path::PathBuf;
use std::{env, fs};

use crate::Chance;
use mutator::Mutator;

/// Mutations of a corpus, unless the environment says another number.
const RUNS: u64 = 10_000;

/// Bytes of the heap that any target may hold, whatever the input: read-ahead, and the tables of decompressors.
const HELD: u64 = 512 << 10;

/// Bytes of the heap that a target may hold for each byte of its input. An empty message inside of another has 2 bytes
/// and becomes a struct of some hundred, in lists that double as they grow, and both sides of a comparison are held.
const HELD_FOR_EACH: u64 = 1024;

/// Runs a target on its corpus, `fuzz/corpus/<name>`, and on mutations of that.
///
/// # Panics
/// If the target does, or holds more memory than an input of that length may ask for; the input is printed. If there is
/// no corpus.
pub fn attack(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    for input in &corpus {
        try_one(name, target, input);
    }
    let mut mutator = Mutator::new(Chance::new(seed_of(name, number("ANYSERVE_FUZZ_SEED").unwrap_or(0))));
    for _ in 0..number("ANYSERVE_FUZZ_RUNS").unwrap_or(RUNS) {
        try_one(name, target, &mutator.mutated(&corpus));
    }
}

/// The saved inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("no corpus at {}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort_unstable();
    assert!(!paths.is_empty(), "the corpus at {} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).expect("a file of the corpus can be read")).collect()
}

fn try_one(name: &str, target: fn(&[u8]), input: &[u8]) {
    let shown = Shown { name, input };
    let held = allocation_counter::measure(|| target(input)).bytes_max;
    let most = HELD + HELD_FOR_EACH * input.len() as u64;
    assert!(held <= most, "{held} bytes are held for {} bytes of input, at most {most} may be", input.len());
    drop(shown);
}

/// Shows the input that a target panics at.
struct Shown<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {} panics at {} bytes: \"{}\"", self.name, self.input.len(), self.input.escape_ascii());
        }
    }
}

/// Targets don't get the same mutations.
fn seed_of(name: &str, seed: u64) -> u64 {
    name.bytes().fold(seed, |mixed, byte| Chance::new(mixed ^ u64::from(byte)).number())
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is '{text}', and no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(target: fn(&[u8]), input: &'static [u8]) -> bool {
        std::panic::catch_unwind(|| try_one("a test of the test", target, input)).is_err()
    }

    #[test]
    fn a_target_that_panics_or_takes_what_an_input_promises_is_found_out() {
        assert!(panics(|input| assert_ne!(input, b"bad"), b"bad"));
        let promise: fn(&[u8]) = |input| drop(Vec::<u8>::with_capacity(usize::from(input[0]) << 20));
        assert!(panics(promise, &[1]) && !panics(promise, &[0]));
    }

    #[test]
    fn the_corpus_has_a_folder_for_each_target_of_cargo_fuzz() {
        let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let bins = manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap().to_owned());
        let mut targets: Vec<_> = bins.collect();
        let folders = fs::read_dir(fuzz.join("corpus")).unwrap();
        let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        targets.sort_unstable();
        folders.sort_unstable();
        assert_eq!(folders, targets);
    }
}
