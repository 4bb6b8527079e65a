//! The standard gRPC health service: the server by "" or its service's name, and every model by its own.

use std::pin::Pin;

use anyserve_core::Catalog;
use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::Upstream;

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

    fn status(&self, service: &str, catalog: &Catalog) -> ServingStatus {
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
        match self.status(&service, &self.upstream.catalog()) {
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
    /// Waits until the catalog or the server tells of a change. It ends once the watcher knows that the server leaves.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let leaving = self.health.leaving.is_cancelled();
            // The version of this very catalog: a change after it is not missed.
            let catalog = self.health.upstream.catalog();
            let status = self.health.status(&self.service, &catalog);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(response(status)), self));
            }
            if leaving {
                return None;
            }
            tokio::select! {
                () = self.health.leaving.cancelled() => {}
                () = self.health.upstream.changed(catalog.version) => {}
            }
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
