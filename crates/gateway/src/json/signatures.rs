//! Which datatypes a model's inputs have, for those that a request gives without one: asked of a replica once for each
//! start of it, and remembered.
//!
//! ```text
//! inputs without a datatype ─► who offers what is asked for ─┬─ remembered ──────────────► Signature, or none
//!                                                            └─ ModelMetadata, once ─ or ─ no answer: none
//! ```
//!
//! It may be wrong: another replica may get the request, and a worker may be replaced by one that declares another thing.
//! Then the request is refused, and the answer is forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::{Handle, Resolved, Target};
use anyserve_core::{Datatype, Handler, Query};
use anyserve_proto::inference::{ModelMetadataRequest, ModelMetadataResponse};
use anyserve_server::parts::CallHead;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::OnceCell;

use crate::proxy::{Proxy, inquire};

const METADATA: &str = "/inference.GRPCInferenceService/ModelMetadata";

/// Longest answer in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Answers that are remembered at most.
const MAX_REMEMBERED: usize = 1024;

/// One model of one start of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    handle: Handle,
    model: String,
    version: String,
}

/// The declared datatypes of a model's inputs, by name; none of what it leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Signature(Arc<[(String, Datatype)]>);

/// What replicas have told, or are being asked. The lock is held for a look at the map.
#[derive(Debug, Default)]
pub(crate) struct Signatures(Mutex<HashMap<Subject, Arc<OnceCell<Signature>>>>);

/// What is known of what a query asks for; nothing if nobody offers it.
///
/// # Cancel safety
/// Dropping it cancels the question; whoever else waits for the answer asks again.
pub(super) async fn of(proxy: &Proxy, query: &Query, deadline: Option<Instant>) -> Option<(Subject, Signature)> {
    let Resolved { replica, capability, .. } = proxy.fleet.with(|registry, now| registry.anybody(query, now))?;
    let handler = Handler::new((*capability?).clone());
    let (model, version) = (handler.model_name(), handler.version());
    let subject = Subject { handle: replica.handle, model, version };
    let target = Target {
        handle: replica.handle,
        id: replica.id,
        epoch: replica.epoch,
        endpoint: replica.endpoint,
        capability: None,
        query: query.clone(),
        delegations: 1,
    };
    let cell = proxy.signatures.cell(&subject);
    let told = cell.get_or_init(|| ask(proxy, &target, &subject));
    let signature = match deadline {
        // One that is late goes on without, and ends where every late request does.
        Some(deadline) => tokio::time::timeout_at(CallHead::give_up_at(deadline), told).await.ok()?.clone(),
        None => told.await.clone(),
    };
    Some((subject, signature))
}

async fn ask(proxy: &Proxy, target: &Target, subject: &Subject) -> Signature {
    let question = ModelMetadataRequest { name: subject.model.clone(), version: subject.version.clone() };
    let answer = match inquire(proxy, target, METADATA, &question, MAX_ANSWER).await {
        Ok(Ok(Some(message))) => ModelMetadataResponse::decode(message.reader()).ok(),
        Ok(_) => None,
        Err(lost) => {
            tracing::debug!(%lost, replica = &*target.id, model = subject.model, "a model's metadata is not known");
            None
        }
    };
    answer.as_ref().map(Signature::of).unwrap_or_default()
}

// === impl Signature ===

impl Signature {
    fn of(told: &ModelMetadataResponse) -> Self {
        let typed = |input: &anyserve_proto::inference::model_metadata_response::TensorMetadata| {
            Datatype::from_name(&input.datatype).map(|datatype| (input.name.clone(), datatype))
        };
        Self(told.inputs.iter().filter_map(typed).collect())
    }

    /// The datatype of an input, if it is declared.
    pub(super) fn datatype(&self, input: &str) -> Option<Datatype> {
        self.0.iter().find(|(name, _)| name == input).map(|(_, datatype)| *datatype)
    }

    #[cfg(test)]
    pub(super) fn for_tests(inputs: &[(&str, Datatype)]) -> Self {
        Self(inputs.iter().map(|(name, datatype)| ((*name).to_owned(), *datatype)).collect())
    }
}

// === impl Signatures ===

impl Signatures {
    /// Where the answer is, or will be. If there are too many, all are forgotten: they can be asked for again.
    fn cell(&self, subject: &Subject) -> Arc<OnceCell<Signature>> {
        let mut known = self.0.lock();
        if let Some(cell) = known.get(subject) {
            return Arc::clone(cell);
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        Arc::clone(known.entry(subject.clone()).or_default())
    }

    /// An answer may not hold any more.
    pub(super) fn forget(&self, subject: &Subject) {
        self.0.lock().remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_proto::inference::model_metadata_response::TensorMetadata;

    #[test]
    fn inputs_that_declare_no_datatype_or_one_that_there_is_not_are_left_open() {
        let input = |name: &str, datatype: &str| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![-1],
        };
        let told = ModelMetadataResponse {
            inputs: vec![input("x", "FP32"), input("y", ""), input("z", "fp32")],
            ..Default::default()
        };
        let signature = Signature::of(&told);
        let datatypes = ["x", "y", "z", "w"].map(|name| signature.datatype(name));
        assert_eq!(datatypes, [Some(Datatype::Fp32), None, None, None]);
    }
}
