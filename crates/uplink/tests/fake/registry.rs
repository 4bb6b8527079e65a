//! A registry that believes everybody, unless it is told what to say.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyserve_proto::v1::registry_server::{Registry, RegistryServer};
use anyserve_proto::v1::*;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::tell;

/// What it says.
#[derive(Default)]
pub(crate) struct Script {
    /// Instead of what is true, in this order.
    pub(crate) verdicts: VecDeque<Verdict>,
    /// It answers nothing.
    pub(crate) hangs: bool,
    /// Milliseconds between heartbeats.
    pub(crate) heartbeat_ms: u64,
    /// Whom it names.
    pub(crate) named: Option<SocketAddr>,
    /// The code that its requests end with.
    pub(crate) failure: Option<anyserve_core::Code>,
    /// The registration that it knows.
    registered: Option<u64>,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// With the value of its header `authorization`.
    Register(RegisterRequest, String),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveRequest),
}

struct Service {
    script: Arc<Mutex<Script>>,
    heard: UnboundedSender<Heard>,
}

pub(super) fn service(script: &Arc<Mutex<Script>>, heard: UnboundedSender<Heard>) -> RegistryServer<impl Registry> {
    RegistryServer::new(Service { script: Arc::clone(script), heard })
}

// === impl Script ===

impl Script {
    fn verdict(&mut self, truth: Verdict) -> i32 {
        self.verdicts.pop_front().unwrap_or(truth).into()
    }

    fn beat(&mut self, registered: u64) -> HeartbeatResponse {
        let known = self.registered == Some(registered);
        let truth = if known { Verdict::Accepted } else { Verdict::RegisterAgain };
        HeartbeatResponse { verdict: self.verdict(truth), latest: 1_000 }
    }
}

async fn answer(script: &Mutex<Script>) {
    let hangs = script.lock().hangs;
    if hangs {
        std::future::pending::<()>().await;
    }
}

#[tonic::async_trait]
impl Registry for Service {
    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let request = request.into_inner();
        tell(&self.heard, Heard::Register(request.clone(), token));
        answer(&self.script).await;
        let mut script = self.script.lock();
        let verdict = script.verdict(Verdict::Accepted);
        if verdict == i32::from(Verdict::Accepted) {
            script.registered = Some(request.seq);
        }
        let heartbeat_ms = script.heartbeat_ms;
        Ok(Response::new(RegisterResponse { verdict, latest: 1_000, heartbeat_ms, lease_ms: 5_000 }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (script, heard) = (Arc::clone(&self.script), self.heard.clone());
        let answers = request.into_inner().then(move |message| {
            let (script, heard) = (Arc::clone(&script), heard.clone());
            async move {
                let message = message?;
                let registered = message.registered;
                tell(&heard, Heard::Heartbeat(message));
                answer(&script).await;
                Ok(script.lock().beat(registered))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        tell(&self.heard, Heard::Leave(request.into_inner()));
        answer(&self.script).await;
        Ok(Response::new(LeaveResponse { verdict: Verdict::Accepted.into(), latest: 0 }))
    }

    async fn resolve(&self, _: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let named = self.script.lock().named.ok_or_else(|| Status::not_found("nobody serves it"))?;
        let endpoint = format!("http://{named}");
        Ok(Response::new(ResolveResponse { replica_id: "b".into(), epoch: 1, endpoint, ..Default::default() }))
    }
}
