//! What is known of a replica by somebody who heard it: the value in the store.

use std::sync::Arc;

use anyserve_cluster::{Announce, Heartbeat, Load, Offer, RegistryLimits};
use anyserve_core::Error;
use anyserve_proto::v1;
use prost::Message;

use crate::registry::{read, write};

/// A replica as it was heard last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    announce: Arc<Announce>,
    beat: Option<Heartbeat>,
    /// It has said that it goes.
    left: bool,
}

/// Bytes of an entry at most: by default etcd takes no larger ones.
pub(crate) const MAX_ENTRY: usize = 1 << 20;

/// Bytes that are no entry.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum EntryError {
    /// They are more than one may have.
    #[error("it has {len} bytes, the limit is {max}")]
    TooLong {
        /// Bytes that it has.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// They are no message.
    #[error("it is no entry")]
    Message(#[from] prost::DecodeError),
    /// It has no registration.
    #[error("it has no registration")]
    Nobody,
    /// It is of another replica than its key says.
    #[error("it is of replica '{found}'")]
    Other {
        /// The replica.
        found: String,
    },
    /// Its registration breaks the rules.
    #[error("its registration is none: {0}")]
    Registration(Error),
}

// === impl Entry ===

impl Entry {
    /// A replica that has just announced itself.
    pub(crate) fn new(announce: Announce) -> Self {
        Self { announce: Arc::new(announce), beat: None, left: false }
    }

    /// The same replica with a newer heartbeat; `None` if that is not of this announcement.
    pub(crate) fn with_beat(&self, beat: &Heartbeat) -> Option<Self> {
        let fits = (beat.epoch, beat.announced) == (self.announce.epoch, self.announce.seq);
        let fits = fits && beat.loads.len() == self.announce.offers.len();
        fits.then(|| Self { announce: Arc::clone(&self.announce), beat: Some(beat.clone()), left: false })
    }

    /// The same replica, which goes.
    pub(crate) fn leaving(&self) -> Self {
        Self { left: true, ..self.clone() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.announce.id
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.announce.epoch
    }

    pub(crate) fn left(&self) -> bool {
        self.left
    }

    /// Whether others are to be told: anything but that it is still there.
    pub(crate) fn says_more_than(&self, other: &Self) -> bool {
        let told = |entry: &Self| entry.beat.as_ref().map(|beat| (beat.draining, beat.loads.clone()));
        self.left != other.left || self.announce != other.announce || told(self) != told(other)
    }

    /// The announcement with what the newest heartbeat says, and the announcement's own number.
    pub(crate) fn newest(&self) -> (Announce, u64) {
        let mut newest = Announce::clone(&self.announce);
        let announced = newest.seq;
        if let Some(beat) = &self.beat {
            (newest.seq, newest.draining) = (beat.seq, beat.draining);
            newest.offers.iter_mut().zip(&beat.loads).for_each(|(offer, load)| offer.load = *load);
        }
        (newest, announced)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = v1::StoredReplica {
            registration: Some(announce(&self.announce)),
            heartbeat: self.beat.as_ref().map(heartbeat),
            left: self.left,
        };
        stored.encode_to_vec()
    }

    /// Reads the entry of replica `id`. A heartbeat that is not of its registration is left out.
    pub(crate) fn decode(id: &str, bytes: &[u8], limits: &RegistryLimits) -> Result<Self, EntryError> {
        let (len, max) = (bytes.len(), MAX_ENTRY);
        if len > max {
            return Err(EntryError::TooLong { len, max });
        }
        let v1::StoredReplica { registration, heartbeat, left } = v1::StoredReplica::decode(bytes)?;
        let announce = registration.ok_or(EntryError::Nobody)?;
        let announce = read::announce(announce, limits).map_err(EntryError::Registration)?;
        if announce.id != id {
            return Err(EntryError::Other { found: announce.id });
        }
        let entry = Self::new(announce);
        let beat = heartbeat.map(read::heartbeat).and_then(|beat| entry.with_beat(&beat));
        Ok(Self { left, ..beat.unwrap_or(entry) })
    }
}

fn announce(said: &Announce) -> v1::RegisterRequest {
    v1::RegisterRequest {
        id: said.id.clone(),
        epoch: said.epoch,
        seq: said.seq,
        endpoint: said.endpoint.clone(),
        draining: said.draining,
        offers: said.offers.iter().map(offer).collect(),
        upgrades: said.upgrades.iter().map(ToString::to_string).collect(),
    }
}

fn heartbeat(said: &Heartbeat) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        id: said.id.clone(),
        epoch: said.epoch,
        seq: said.seq,
        registered: said.announced,
        draining: said.draining,
        loads: said.loads.iter().map(load).collect(),
    }
}

fn offer(said: &Offer) -> v1::Offer {
    let Offer { capability, idempotent, slots, load } = said;
    let load = Some(self::load(load));
    v1::Offer { capability: write::capability(capability), idempotent: *idempotent, slots: *slots, load }
}

fn load(said: &Load) -> v1::Load {
    v1::Load {
        ready: said.ready,
        saturated: said.saturated,
        pending: said.pending,
        wait_us: write::micros(said.wait),
        service_us: write::micros(said.service),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Upgrades, Value};
    use proptest::prelude::*;
    use std::time::Duration;

    fn said() -> Announce {
        let pairs = [
            ("a", Value::Text("é".into())),
            ("b", Value::Int(i64::MIN)),
            ("c", Value::Float(0.5)),
            ("d", Value::Bool(true)),
        ];
        let capability = Capability::try_new(pairs.map(|(key, value)| (key.to_owned(), value))).unwrap();
        let offers = vec![Offer { capability, idempotent: true, slots: 4, load: busy(1) }];
        let (id, endpoint) = ("a".to_owned(), "https://h:1".to_owned());
        let upgrades = Upgrades::parse(["type=a -> type=b", "a=\"-\\>\" -> b=1"]).unwrap();
        Announce { id, epoch: 5, seq: 6, endpoint, draining: false, offers, upgrades }
    }

    fn busy(pending: u32) -> Load {
        let (wait, service) = (Duration::from_micros(7), Duration::from_micros(8));
        Load { ready: true, saturated: true, pending, wait, service }
    }

    fn beat(seq: u64, pending: u32) -> Heartbeat {
        Heartbeat { id: "a".into(), epoch: 5, seq, announced: 6, draining: false, loads: vec![busy(pending)] }
    }

    /// The entry with a field that is not known, so long altogether.
    fn padded(len: usize) -> Vec<u8> {
        let mut bytes = Entry::new(said()).encode();
        let rest = len - bytes.len() - 6;
        // Field 1001, bytes, and their length in four bytes.
        bytes.extend([0xca, 0x3e]);
        bytes.extend(
            [0, 7, 14, 21].map(|shift| u8::try_from(rest >> shift & 0x7f).unwrap() | u8::from(shift < 21) << 7),
        );
        bytes.resize(len, 0);
        bytes
    }

    #[test]
    fn an_entry_may_be_as_long_as_etcd_takes_and_no_longer() {
        let read = |len| Entry::decode("a", &padded(len), &RegistryLimits::default());
        for len in [MAX_ENTRY - 1, MAX_ENTRY] {
            assert_eq!(read(len), Ok(Entry::new(said())), "{len}");
        }
        assert_eq!(read(MAX_ENTRY + 1), Err(EntryError::TooLong { len: MAX_ENTRY + 1, max: MAX_ENTRY }));
    }

    #[test]
    fn what_was_said_is_read_as_it_was_written() {
        let limits = RegistryLimits::default();
        let entry = Entry::new(said());
        let later = entry.with_beat(&Heartbeat { draining: true, ..beat(9, 3) }).unwrap();
        for entry in [entry, later.leaving(), later] {
            assert_eq!(Entry::decode("a", &entry.encode(), &limits), Ok(entry));
        }
    }

    #[test]
    fn the_newest_is_the_announcement_with_the_heartbeats_number_and_loads() {
        let entry = Entry::new(said()).with_beat(&beat(9, 3)).unwrap();
        let (newest, announced) = entry.newest();
        assert_eq!((newest.seq, announced, newest.offers[0].load.pending), (9, 6, 3));
    }

    #[test]
    fn a_heartbeat_of_another_announcement_does_not_belong_to_it() {
        let entry = Entry::new(said());
        for other in [
            Heartbeat { announced: 5, ..beat(9, 3) },
            Heartbeat { epoch: 4, ..beat(9, 3) },
            Heartbeat { loads: vec![], ..beat(9, 3) },
        ] {
            assert_eq!(entry.with_beat(&other), None);
        }
    }

    #[test]
    fn only_what_is_new_to_others_is_more() {
        let first = Entry::new(said()).with_beat(&beat(7, 1)).unwrap();
        let same = first.with_beat(&beat(8, 1)).unwrap();
        let busier = first.with_beat(&beat(8, 2)).unwrap();
        assert!(
            !same.says_more_than(&first) && busier.says_more_than(&first) && first.leaving().says_more_than(&first)
        );
    }

    #[test]
    fn an_entry_under_anothers_key_is_none() {
        let limits = RegistryLimits::default();
        let bytes = Entry::new(said()).encode();
        assert_eq!(Entry::decode("b", &bytes, &limits), Err(EntryError::Other { found: "a".into() }));
        assert_eq!(Entry::decode("a", &[], &limits), Err(EntryError::Nobody));
        assert!(matches!(Entry::decode("a", &[0xff], &limits), Err(EntryError::Message(_))));
        let none = RegistryLimits { max_capabilities: 0, ..limits };
        assert!(matches!(Entry::decode("a", &bytes, &none), Err(EntryError::Registration(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode("a", &bytes, &RegistryLimits::default());
        }
    }
}
