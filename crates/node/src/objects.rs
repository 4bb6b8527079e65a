//! Objects that are elsewhere: the replicas they are pulled from, and the store for durable ones.

use std::sync::Arc;

use anyhow::{Context, Error, Result, ensure};
use anyserve_client::Tls;
use anyserve_core::{FarObjects, LocalObjects};
use anyserve_objects::{Endpoint, FarStore, Peers, Spill};

use crate::Options;

/// What was asked for, checked as far as that goes without touching anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectSettings {
    peers: Vec<Endpoint>,
    spill: Option<String>,
}

// === impl ObjectSettings ===

impl ObjectSettings {
    pub(crate) fn try_new(options: &Options) -> Result<Self> {
        let spill = options.object_spill.clone();
        ensure!(spill.as_deref() != Some(""), "--object-spill is empty: write a folder, or s3://bucket/prefix");
        Ok(Self { peers: peers(options.object_peer.as_deref().unwrap_or_default())?, spill })
    }

    /// Whether nobody was named that could have objects.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.spill.is_none()
    }
}

/// The endpoints in these texts, each of which has one or, separated by commas, several.
fn peers(texts: &[String]) -> Result<Vec<Endpoint>> {
    let each = texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
    each.map(|text| text.parse().map_err(Error::new).context("--object-peer")).collect()
}

/// What finds for `local`, the objects of this replica, those that are elsewhere, with TLS like this where a peer is
/// `https://`. Without peers and a store it finds none.
///
/// # Errors
/// What is wrong with the peers, or with the store for durable objects, and how to mend it.
///
/// # Panics
/// Outside a tokio runtime.
pub fn far_objects(settings: &ObjectSettings, tls: &Tls, local: Arc<dyn LocalObjects>) -> Result<Arc<dyn FarObjects>> {
    let peers = Peers::try_new(settings.peers.clone(), tls).context("--object-peer")?;
    let spill = settings.spill.as_deref().map(Spill::open).transpose().context("--object-spill")?;
    Ok(FarStore::start(local, peers, spill))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::Shelf;

    fn settings(peers: &[&str], spill: Option<&str>) -> ObjectSettings {
        let object_peer = Some(peers.iter().map(|&peer| peer.to_owned()).collect());
        let options = Options { object_peer, object_spill: spill.map(str::to_owned), ..Options::default() };
        ObjectSettings::try_new(&options).unwrap()
    }

    #[test]
    fn peers_are_repeated_or_listed() {
        let shown = |settings: ObjectSettings| settings.peers.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(settings(&["a:1, b:2,", "https://c"], None)), ["a:1", "b:2", "https://c:443"]);
        assert_eq!(shown(settings(&[], None)), [""; 0]);
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named_with_its_option() {
        let far = |settings: &ObjectSettings| far_objects(settings, &Tls::default(), Arc::new(Shelf::new(1, 1)));
        assert!(far(&settings(&["a:1"], Some("memory:///"))).is_ok());
        let many: Vec<_> = vec!["a:1"; 257];
        assert!(far(&settings(&many[1..], None)).is_ok());
        let error = format!("{:#}", far(&settings(&many, None)).unwrap_err());
        assert_eq!(error, "--object-peer: 257 peers are more than 256");
        let error = format!("{:#}", far(&settings(&[], Some("gs://bucket"))).unwrap_err());
        assert!(error.starts_with("--object-spill: 'gs://bucket' has the scheme 'gs'"), "{error}");
    }
}
