//! Connecting to an `https://` endpoint: TCP, then TLS with what is believed and shown at that moment.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;

use crate::Tls;
use crate::tls::HTTP2;

type BoxError = Box<dyn StdError + Send + Sync>;
type Connected = TokioIo<TlsStream<TcpStream>>;

/// Makes the connections of one channel.
#[derive(Clone)]
pub(crate) struct Secure {
    tcp: HttpConnector,
    tls: Tls,
    /// Whose certificate it has to be.
    name: ServerName<'static>,
}

// === impl Secure ===

impl Secure {
    /// TLS over connections that `tcp` makes, with a server of this name.
    pub(crate) fn new(tcp: HttpConnector, tls: Tls, name: ServerName<'static>) -> Self {
        Self { tcp, tls, name }
    }
}

impl Service<Uri> for Secure {
    type Response = Connected;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connected, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (tcp, config, name) = (self.tcp.call(uri), self.tls.config(), self.name.clone());
        Box::pin(async move {
            let tls = TlsConnector::from(config?);
            let stream = tls.connect(name, tcp.await?.into_inner()).await?;
            if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                return Err(io::Error::other("the server does not speak HTTP/2 over TLS").into());
            }
            Ok(TokioIo::new(stream))
        })
    }
}
