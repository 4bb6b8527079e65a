//! `anyserve.v1.Registry`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::policy::Keys;
use anyserve_core::Error;
use anyserve_proto::v1;
use anyserve_proto::v1::registry_server::Registry;
use anyserve_server::parts::status_of;
use futures_util::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{read, write};
use crate::Fleet;

/// The service. Who may call what is checked before.
#[derive(Clone, Debug)]
pub(crate) struct RegistryService {
    fleet: Arc<Fleet>,
    leaving: CancellationToken,
}

type Beats = Pin<Box<dyn Stream<Item = Result<v1::HeartbeatResponse, Status>> + Send>>;

// === impl RegistryService ===

impl RegistryService {
    pub(crate) fn new(fleet: Arc<Fleet>, leaving: CancellationToken) -> Self {
        Self { fleet, leaving }
    }

    fn registered(&self, said: v1::RegisterRequest) -> Result<v1::RegisterResponse, Error> {
        let config = self.fleet.with(|registry, _| *registry.config());
        let announce = read::announce(said, &config.limits)?;
        let answer = self.fleet.announce(&announce).map_err(|error| read::refused(&error))?;
        Ok(write::registered(answer, &config))
    }

    fn beat(&self, said: v1::HeartbeatRequest) -> Result<v1::HeartbeatResponse, Status> {
        let answer = self.fleet.heartbeat(&read::heartbeat(said)).map_err(|error| status_of(&read::refused(&error)))?;
        let (verdict, latest) = write::verdict(answer);
        Ok(v1::HeartbeatResponse { verdict: verdict.into(), latest })
    }

    fn resolved(&self, asked: v1::ResolveRequest) -> Result<v1::ResolveResponse, Error> {
        let v1::ResolveRequest { query, session, avoid } = asked;
        let (query, avoid) = (read::query(query)?, read::avoid(avoid)?);
        let found = self.fleet.resolve(&query, &Keys::new(Some(&session), None), &avoid)?;
        Ok(write::resolved(&found, Instant::now()))
    }

    /// The next message of a replica; none once this server leaves, so that no replica holds up its end.
    async fn next(&self, said: &mut Streaming<v1::HeartbeatRequest>) -> Result<Option<v1::HeartbeatRequest>, Status> {
        tokio::select! {
            biased;
            () = self.leaving.cancelled() => Ok(None),
            next = said.message() => next,
        }
    }
}

#[tonic::async_trait]
impl Registry for RegistryService {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        self.registered(request.into_inner()).map(Response::new).map_err(|error| status_of(&error))
    }

    type HeartbeatStream = Beats;

    /// Each message is answered when the replica has read the answer before. One that breaks the rules ends the call.
    async fn heartbeat(&self, request: Request<Streaming<v1::HeartbeatRequest>>) -> Result<Response<Beats>, Status> {
        let answers = stream::unfold(Some((self.clone(), request.into_inner())), async |state| {
            let (service, mut said) = state?;
            let answer = match service.next(&mut said).await {
                Ok(Some(beat)) => service.beat(beat),
                Ok(None) => return None,
                Err(broken) => Err(broken),
            };
            let rest = answer.is_ok().then_some((service, said));
            Some((answer, rest))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let v1::LeaveRequest { id, epoch } = request.into_inner();
        let (verdict, latest) = write::verdict(self.fleet.leave(&id, epoch));
        Ok(Response::new(v1::LeaveResponse { verdict: verdict.into(), latest }))
    }

    async fn resolve(&self, request: Request<v1::ResolveRequest>) -> Result<Response<v1::ResolveResponse>, Status> {
        self.resolved(request.into_inner()).map(Response::new).map_err(|error| status_of(&error))
    }
}
