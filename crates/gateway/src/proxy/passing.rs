//! Messages that are passed on as they come, of which nothing but the length is looked at.

use super::message::{PREFIX, ReadError, length};

/// The prefix of the one message of a body that somebody else passes on frame by frame.
#[derive(Debug)]
pub(crate) struct Passing {
    prefix: [u8; PREFIX],
    seen: usize,
    max: usize,
}

// === impl Passing ===

impl Passing {
    /// A message of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self { prefix: [0; PREFIX], seen: 0, max }
    }

    /// The next bytes pass.
    ///
    /// # Errors
    /// [`ReadError`] once the prefix says that it is no message, or a longer one.
    pub(crate) fn look(&mut self, data: &[u8]) -> Result<(), ReadError> {
        if self.seen == PREFIX {
            return Ok(());
        }
        let count = data.len().min(PREFIX - self.seen);
        self.prefix[self.seen..][..count].copy_from_slice(&data[..count]);
        self.seen += count;
        if self.seen == PREFIX { length(self.prefix, self.max).map(|_| ()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_looked_at_up_to_its_prefix_however_it_is_split() {
        for (len, fits) in [(99_u8, true), (100, true), (101, false)] {
            let sent = [&[0, 0, 0, 0, len][..], &[0xff; 99]].concat();
            for size in 1..=sent.len() {
                let mut passing = Passing::new(100);
                assert_eq!(sent.chunks(size).all(|piece| passing.look(piece).is_ok()), fits, "{len} by {size}");
            }
        }
        assert!(matches!(Passing::new(100).look(&[2, 0, 0, 0, 0]), Err(ReadError::Flag(2))));
    }
}
