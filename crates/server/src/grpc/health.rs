//! The standard gRPC health service: the server by "" or its service's name, and every model by its own.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::Upstream;

/// How soon a watcher is told of a change.
const TICK: Duration = Duration::from_millis(50);

const SERVICE: &str = "inference.GRPCInferenceService";

/// Answers from the upstream's catalog, each time anew.
#[derive(Clone)]
pub(super) struct Health<S> {
    upstream: S,
    leaving: CancellationToken,
}

/// One Watch call.
struct Watch<S> {
    health: Health<S>,
    service: String,
    told: Option<ServingStatus>,
}

// === impl Health ===

impl<S: Upstream> Health<S> {
    pub(super) fn new(upstream: S, leaving: CancellationToken) -> Self {
        Self { upstream, leaving }
    }

    fn status(&self, service: &str) -> ServingStatus {
        let catalog = self.upstream.catalog();
        let ready = if service.is_empty() || service == SERVICE {
            catalog.ready()
        } else {
            let named = catalog.named(service);
            if named.is_empty() {
                return ServingStatus::ServiceUnknown;
            }
            !catalog.draining && named.iter().any(|(_, entry)| entry.ready)
        };
        let serving = ready && !self.leaving.is_cancelled();
        if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

#[tonic::async_trait]
impl<S: Upstream> tonic_health::pb::health_server::Health for Health<S> {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("unknown service '{service}'"))),
            status => Ok(Response::new(response(status))),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watch = Watch { health: self.clone(), service: request.into_inner().service, told: None };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

// === impl Watch ===

impl<S: Upstream> Watch<S> {
    /// Waits for a change. It ends once the watcher has been told that the server leaves.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let leaving = self.health.leaving.is_cancelled();
            let status = self.health.status(&self.service);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(response(status)), self));
            }
            if leaving {
                return None;
            }
            let _ = tokio::time::timeout(TICK, self.health.leaving.cancelled()).await;
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
