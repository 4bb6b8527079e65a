//! Everything that an API server answers but requests: the registry's service and paths, and the pages.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyserve_core::Error;
use anyserve_proto::v1::registry_server::RegistryServer;
use anyserve_server::AdminToken;
use anyserve_server::parts::http::{failed, not_allowed, unknown};
use anyserve_server::parts::{Peer, Reflection, Services, check_cluster, status_of};
use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::pages::{self, Seen};
use crate::registry::{self, MAX_MESSAGE, MAX_QUESTION, RegistryService};
use crate::{Fleet, GatewayConfig};

/// The routes, and who guards them.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    router: Router,
    services: Services,
    reflection: Reflection,
    cluster_token: Option<AdminToken>,
}

// === impl Control ===

impl Control {
    /// `services` are those of the port.
    pub(crate) fn new(config: &GatewayConfig, fleet: &Arc<Fleet>, services: Services) -> Self {
        let seen = Arc::new(Seen::new(Arc::clone(fleet), config));
        let service = RegistryService::new(Arc::clone(fleet), config.leaving.clone());
        let of_replicas = RegistryServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE);
        let of_everybody = RegistryServer::new(service).max_decoding_message_size(MAX_QUESTION);
        let router = Router::new()
            .route_service("/anyserve.v1.Registry/Resolve", of_everybody)
            .route_service("/anyserve.v1.Registry/{method}", of_replicas)
            .merge(registry::router().with_state(Arc::clone(fleet)))
            .merge(pages::router().with_state(seen))
            .fallback(unknown)
            .method_not_allowed_fallback(not_allowed);
        let reflection = Reflection::new(&services, &config.leaving);
        Self { router, services, reflection, cluster_token: config.cluster_token.clone() }
    }

    /// Answers a request of `peer` that is no request for a replica, also one on a path that there is not.
    pub(crate) async fn answer(&self, mut request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        request.extensions_mut().insert(Peer(peer));
        let grpc = is_grpc(request.headers());
        if let Err(error) = self.check(&request, grpc) {
            return refusal(&error, grpc);
        }
        let uri = request.uri().clone();
        match AssertUnwindSafe(self.call(request)).catch_unwind().await {
            Ok(answer) => {
                self.services.missed(answer.headers(), uri.path()).map_or(answer, |error| refusal(&error, grpc))
            }
            Err(_) => refusal(&Error::internal("the server failed on this request"), grpc),
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        if Reflection::takes(request.uri().path()) {
            return self.reflection.answer(request).await.map(Body::new);
        }
        let answer = self.router.clone().oneshot(request.map(Body::new)).await;
        answer.unwrap_or_else(|never| match never {})
    }

    /// Whether this request may be answered: by who asks, and for gRPC by whether there is such a method.
    fn check(&self, request: &Request<Incoming>, grpc: bool) -> Result<(), Error> {
        let path = request.uri().path();
        if registry::is_for_replicas(path) {
            check_cluster(self.cluster_token.as_ref(), request.headers(), request.extensions())?;
        }
        let known = !grpc || path.starts_with(registry::SERVICE) || Reflection::takes(path);
        if known { Ok(()) } else { Err(self.services.unknown(path)) }
    }
}

/// The answer to a request that failed, in the protocol that it came in.
pub(crate) fn refusal(error: &Error, grpc: bool) -> Response<Body> {
    if grpc { status_of(error).into_http() } else { failed(error) }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
