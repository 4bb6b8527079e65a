//! Fuzz target: what is in the store that API servers share, where anybody who may write there may have written anything.
//!
//! It takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use anyserve_cluster::RegistryLimits;
use anyserve_proto::v1::StoredReplica;
use prost::Message;

use super::entry::Entry;

/// Bytes as the entry of the replica that they name. What is read is written as an entry that says the same.
pub fn stored(data: &[u8]) {
    let limits = RegistryLimits::default();
    let Ok(StoredReplica { registration: Some(said), .. }) = StoredReplica::decode(data) else { return };
    assert!(Entry::decode(&format!("{}.", said.id), data, &limits).is_err());
    let Ok(entry) = Entry::decode(&said.id, data, &limits) else { return };
    assert_eq!(entry.id(), said.id);
    assert_eq!(Entry::decode(&said.id, &entry.encode(), &limits), Ok(entry));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn an_entry_reads_as_it_is_written_or_is_refused() {
        attack("stored", stored);
    }
}
