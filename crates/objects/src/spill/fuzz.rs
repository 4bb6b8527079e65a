//! Fuzz target: files of the spill, where anybody who may write there may have written anything.
//!
//! It takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::str::from_utf8;

use super::header::{HEADER, Header};
use super::key::{Entry, MAX_KEY};

/// Bytes as the header of a durable object, and as the file of a key. Both have one spelling.
pub fn spill(data: &[u8]) {
    if let Ok(header) = Header::read(data) {
        assert_eq!(header.write(), data[..HEADER]);
        assert_eq!(header.is_over(7), header.remaining(7).is_zero());
    }
    if let Some(entry) = from_utf8(data).ok().and_then(|text| text.parse::<Entry>().ok()) {
        assert!(entry.key.len() <= MAX_KEY);
        assert_eq!(entry.write().as_bytes(), data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn a_file_of_the_spill_reads_as_it_is_written_or_is_refused() {
        attack("spill", spill);
    }
}
