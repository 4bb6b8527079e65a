//! What answers on an API server's port: by its path, each request goes to the part that is for it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use anyserve_server::Answers;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::control::Control;
use crate::{Fleet, GatewayConfig};

/// An API server's answers.
#[derive(Debug)]
pub struct Gateway {
    fleet: Arc<Fleet>,
    control: Control,
}

// === impl Gateway ===

impl Gateway {
    /// Answers for this fleet.
    pub fn new(config: &GatewayConfig, fleet: Arc<Fleet>) -> Arc<Self> {
        let control = Control::new(config, &fleet);
        Arc::new(Self { fleet, control })
    }
}

impl Answers for Gateway {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Result<Response<Body>, Infallible> {
        Ok(self.control.answer(request, peer).await)
    }

    fn in_flight(&self) -> u64 {
        self.fleet.counters().read().in_flight
    }
}
