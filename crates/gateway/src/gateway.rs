//! What answers on an API server's port: by its path, each request goes to the part that is for it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use anyserve_server::Answers;
use anyserve_server::parts::{Reflection, Services};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::body::{Body, boxed};
use crate::control::Control;
use crate::proxy::Proxy;
use crate::{Fleet, GatewayConfig, ReplicaTlsError};

/// The services on an API server's port, but reflection.
const SERVICES: [&str; 3] = ["inference.GRPCInferenceService", "anyserve.v1.Registry", "grpc.health.v1.Health"];

/// An API server's answers.
#[derive(Debug)]
pub struct Gateway {
    proxy: Arc<Proxy>,
    control: Arc<Control>,
}

// === impl Gateway ===

impl Gateway {
    /// Answers for this fleet.
    ///
    /// # Errors
    /// [`ReplicaTlsError`] if TLS to replicas cannot be set up as it is wanted.
    pub fn try_new(config: &GatewayConfig, fleet: Arc<Fleet>) -> Result<Arc<Self>, ReplicaTlsError> {
        let services = Services::new(SERVICES.into_iter().chain(Reflection::SERVICES));
        let control = Arc::new(Control::new(config, &fleet, services.clone()));
        let proxy = Proxy::try_new(&config.proxy, fleet, services, config.leaving.clone())?;
        Ok(Arc::new(Self { proxy, control }))
    }

    /// The same answers for the connections of another thread, with connections to replicas of their own.
    pub fn beside(&self) -> Arc<Self> {
        Arc::new(Self { proxy: self.proxy.beside(), control: Arc::clone(&self.control) })
    }
}

impl Answers for Gateway {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Result<Response<Body>, Infallible> {
        if Proxy::takes(request.uri().path()) {
            return Ok(self.proxy.answer(request).await);
        }
        Ok(Box::pin(self.control.answer(request, peer)).await.map(boxed))
    }

    fn in_flight(&self) -> u64 {
        self.proxy.in_flight()
    }
}
