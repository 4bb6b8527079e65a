//! What answers on an API server's port: by its path, each request goes to the part that is for it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use anyserve_core::{Code, Error};
use anyserve_server::Answers;
use anyserve_server::parts::{failed, failed_http};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, boxed, status_only};
use crate::proxy::Proxy;
use crate::{Fleet, ProxyConfig, ReplicaTlsError};

/// What can be set about an API server, beside its port.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// The data path.
    pub proxy: ProxyConfig,
    /// Cancelled once the server leaves: the same one that [`anyserve_server::Server::of`] gets.
    pub leaving: CancellationToken,
}

/// An API server's answers.
#[derive(Debug)]
pub struct Gateway {
    proxy: Arc<Proxy>,
}

// === impl Gateway ===

impl Gateway {
    /// Answers for this fleet.
    ///
    /// # Errors
    /// [`ReplicaTlsError`] if there is a file of replicas' authorities that cannot be used.
    pub fn try_new(config: &GatewayConfig, fleet: Arc<Fleet>) -> Result<Arc<Self>, ReplicaTlsError> {
        let proxy = Proxy::try_new(&config.proxy, fleet, config.leaving.clone())?;
        Ok(Arc::new(Self { proxy }))
    }
}

impl Answers for Gateway {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, _: IpAddr) -> Result<Response<Body>, Infallible> {
        if Proxy::takes(request.uri().path()) {
            return Ok(self.proxy.answer(request).await);
        }
        Ok(unknown(&request))
    }

    fn in_flight(&self) -> u64 {
        self.proxy.in_flight()
    }
}

/// The answer on a path that there is not.
fn unknown(request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let grpc = request.headers().get(http::header::CONTENT_TYPE);
    if grpc.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return status_only(&failed(&Error::new(Code::Unsupported, format!("unknown method {path}"))));
    }
    failed_http(&Error::new(Code::NotFound, format!("unknown path {path}"))).map(boxed)
}
