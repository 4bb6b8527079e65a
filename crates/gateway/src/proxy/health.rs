//! The standard gRPC health service: the fleet by "" or the service's name, and every model by its own.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyserve_core::Handler;
use futures_util::stream::{self, Stream};
use http::Response as Answer;
use hyper::body::Incoming;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::ServiceExt;

use super::front::Proxy;
use crate::body::{Body, boxed};

const SERVICE: &str = "inference.GRPCInferenceService";

/// How often a watcher looks again: what replicas say comes every second.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers from the registry, each time anew.
#[derive(Clone)]
struct OfFleet(Arc<Proxy>);

/// One Watch call.
struct Watch {
    health: OfFleet,
    service: String,
    told: Option<ServingStatus>,
}

/// Answers a call of the health service.
pub(crate) async fn health(proxy: &Arc<Proxy>, request: http::Request<Incoming>) -> Answer<Body> {
    let service = HealthServer::new(OfFleet(Arc::clone(proxy)));
    service.oneshot(request).await.unwrap_or_else(|never| match never {}).map(boxed)
}

// === impl Proxy ===

impl Proxy {
    /// Whether requests are taken, and there is a replica to send them to.
    pub(crate) fn is_ready(&self) -> bool {
        !self.leaving.is_cancelled() && self.fleet.with(|registry, _| registry.is_ready())
    }
}

// === impl OfFleet ===

impl OfFleet {
    fn status(&self, service: &str) -> ServingStatus {
        let ready = if service.is_empty() || service == SERVICE {
            self.0.is_ready()
        } else {
            let Some(warm) = self.model(service) else { return ServingStatus::ServiceUnknown };
            warm && self.0.is_ready()
        };
        if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    /// Whether a worker somewhere can take a request for a model; `None` if nobody offers it.
    fn model(&self, name: &str) -> Option<bool> {
        self.0.fleet.with(|registry, _| {
            let named = registry.offered().filter(|(one, _)| Handler::new((***one).clone()).model_name() == name);
            named.map(|(_, warm)| warm).reduce(|one, other| one || other)
        })
    }
}

#[tonic::async_trait]
impl Health for OfFleet {
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

impl Watch {
    /// Waits for another status. It ends once the watcher knows that the server leaves.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let leaving = self.health.0.leaving.is_cancelled();
            let status = self.health.status(&self.service);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(response(status)), self));
            }
            if leaving {
                return None;
            }
            tokio::select! {
                () = self.health.0.leaving.cancelled() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
