//! What happened, as a hash and, on request, as lines.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

/// Listens to everything that happens.
#[derive(Debug)]
pub(super) struct Trace {
    began: Instant,
    hash: Fnv,
    lines: Option<Vec<String>>,
}

/// Source: the FNV-1a hash of Fowler, Noll and Vo, 64 bits.
#[derive(Clone, Copy, Debug)]
struct Fnv(u64);

// === impl Trace ===

impl Trace {
    pub(super) fn new(began: Instant, told: bool) -> Self {
        Self { began, hash: Fnv(0xcbf2_9ce4_8422_2325), lines: told.then(Vec::new) }
    }

    /// Notes that this happened now.
    pub(super) fn note(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let at = now.saturating_duration_since(self.began);
        self.hash.eat(&at.as_nanos().to_le_bytes());
        // Writing into a hash cannot fail.
        let _ = self.hash.write_fmt(what);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12} {what}", shown(at)));
        }
    }

    pub(super) fn finish(self) -> (u64, Vec<String>) {
        (self.hash.0, self.lines.unwrap_or_default())
    }
}

fn shown(at: Duration) -> String {
    let micros = at.as_micros();
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

// === impl Fnv ===

impl Fnv {
    fn eat(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.eat(text.as_bytes());
        Ok(())
    }
}
