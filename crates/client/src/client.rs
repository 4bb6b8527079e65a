//! One server, one connection, calls in and answers out.

use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Error, Response, Responses, TensorSpec};
use anyserve_proto::inference as kserve;
use anyserve_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tonic::Status;
use tonic::transport::{Channel, Endpoint as ChannelEndpoint};

use crate::secure::Secure;
use crate::stream::{self, Reader};
use crate::{Call, Endpoint, Failed, Tls, decode, encode, failure};

/// Largest message in either direction, in bytes.
const MAX_MESSAGE: usize = 1 << 30;
/// What a server may send on one stream, and on all of them together, before it is read. HTTP/2's 64 KiB would make
/// a large tensor wait for the network's round trip once every 64 KiB.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const MAX_FRAME: u32 = 1 << 20;
/// Room for a message and a traceback in the trailers.
const MAX_HEADERS: u32 = 1 << 20;
/// Time that a connection may take unless the caller says otherwise.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that vanished is noticed by TCP. HTTP/2's own pings would do it sooner, but gRPC servers close connections
/// whose pings come more often than every five minutes. Replicas and API servers don't.
const TCP_KEEPALIVE: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE_RETRIES: u32 = 4;
/// How often a member of a fleet is pinged while it has a call, and how long it may take to answer that.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) type Grpc = GrpcInferenceServiceClient<Channel>;

/// What a server says of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The model.
    pub name: String,
    /// Its versions.
    pub versions: Vec<String>,
    /// What runs it.
    pub platform: String,
    /// Declared inputs; empty if nothing is declared.
    pub inputs: Vec<TensorSpec>,
    /// Declared outputs; empty if nothing is declared.
    pub outputs: Vec<TensorSpec>,
}

/// A KServe v2 client. Clones share the connection; dropping a returned future or stream cancels its call.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc,
    endpoint: Arc<Endpoint>,
}

// === impl Client ===

impl Client {
    /// A client of the server at `endpoint`. Nothing is sent: the connection is made by the first call.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the TLS options cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime; the connection lives on the one this is called in.
    pub fn try_new(endpoint: Endpoint, tls: &Tls) -> Result<Self, Error> {
        Ok(Self::over(channel(&endpoint, tls)?, endpoint))
    }

    /// A client that uses a connection to `endpoint`.
    pub(crate) fn over(channel: Channel, endpoint: Endpoint) -> Self {
        let grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { grpc, endpoint: Arc::new(endpoint) }
    }

    /// Where this client connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a call and waits for its one answer.
    ///
    /// # Errors
    /// Any code of the closed set; `UNSUPPORTED` if the capability streams.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call on the server.
    pub async fn infer(&self, call: &Call) -> Result<Response, Error> {
        self.attempt(call).await.map_err(|failed| failed.error)
    }

    /// The same, for those who may send it elsewhere.
    ///
    /// # Errors
    /// [`Failed`], which says whether the server may have begun it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call on the server.
    pub async fn attempt(&self, call: &Call) -> Result<Response, Failed> {
        let request = encode::request(call).map_err(Failed::after)?;
        let answer = self.within(call.timeout, self.grpc.clone().model_infer(request)).await?;
        decode::response(answer).map_err(Failed::after)
    }

    /// Sends a call and gives its answers as they come. The call is sent when the stream is first polled; the
    /// timeout counts from now and holds for the whole stream.
    ///
    /// An ordinary capability answers once. After an error the stream ends.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the call cannot be sent; everything else comes out of the stream.
    pub fn stream(&self, call: &Call) -> Result<Responses, Error> {
        Ok(stream::responses(self.reader(call)?))
    }

    /// Sends a call and waits for its first answer, or for the stream's end. All answers come out of the stream.
    ///
    /// # Errors
    /// [`Failed`] if it ended before the first answer.
    ///
    /// # Cancel safety
    /// Dropping the future, or the stream, cancels the call on the server.
    pub async fn begin_stream(&self, call: &Call) -> Result<Responses, Failed> {
        stream::begun(self.reader(call).map_err(Failed::after)?).await
    }

    fn reader(&self, call: &Call) -> Result<Reader, Error> {
        let request = encode::request(call)?;
        Ok(Reader::new(self.grpc.clone(), Arc::clone(&self.endpoint), request, call.timeout))
    }

    /// Whether the server says that it lives.
    ///
    /// # Errors
    /// `UNAVAILABLE` if there is no server.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn server_live(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let request = kserve::ServerLiveRequest {};
        self.ask(timeout, self.grpc.clone().server_live(request)).await.map(|answer| answer.live)
    }

    /// Whether the server says that it takes requests.
    ///
    /// # Errors
    /// `UNAVAILABLE` if there is no server.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn server_ready(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let request = kserve::ServerReadyRequest {};
        self.ask(timeout, self.grpc.clone().server_ready(request)).await.map(|answer| answer.ready)
    }

    /// Whether the model can be served now; false for one that the server does not know.
    ///
    /// # Errors
    /// `UNAVAILABLE` if there is no server.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn model_ready(&self, name: &str, version: &str, timeout: Option<Duration>) -> Result<bool, Error> {
        let request = kserve::ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        self.ask(timeout, self.grpc.clone().model_ready(request)).await.map(|answer| answer.ready)
    }

    /// What the server says of a model.
    ///
    /// # Errors
    /// `NOT_FOUND` or `NO_CAPABILITY` for a model that the server does not know.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn metadata(&self, name: &str, version: &str, timeout: Option<Duration>) -> Result<Metadata, Error> {
        let request = kserve::ModelMetadataRequest { name: name.to_owned(), version: version.to_owned() };
        let answer = self.ask(timeout, self.grpc.clone().model_metadata(request)).await?;
        let specs = |declared: Vec<_>| declared.into_iter().map(decode::spec).collect::<Result<_, _>>();
        let (inputs, outputs) = (specs(answer.inputs)?, specs(answer.outputs)?);
        Ok(Metadata { name: answer.name, versions: answer.versions, platform: answer.platform, inputs, outputs })
    }

    async fn ask<T>(
        &self,
        timeout: Option<Duration>,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        self.within(timeout, answer).await.map_err(|failed| failed.error)
    }

    async fn within<T>(
        &self,
        timeout: Option<Duration>,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Failed> {
        let answer = match timeout {
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| Failed::after(failure::out_of_time(&self.endpoint, timeout)))?,
            None => answer.await,
        };
        answer.map(tonic::Response::into_inner).map_err(|status| Failed::of(&status, &self.endpoint, timeout))
    }
}

/// A connection to `endpoint` for any gRPC service. Nothing is sent: the connection is made by the first call, and again
/// after a loss.
///
/// # Errors
/// `INVALID_INPUT` if the TLS options cannot be used.
///
/// # Panics
/// Outside a tokio runtime; the connection lives on the one this is called in.
pub fn channel(endpoint: &Endpoint, tls: &Tls) -> Result<Channel, Error> {
    connected(&to(endpoint, CONNECT_TIMEOUT), endpoint, tls)
}

/// The same to a replica or an API server, which answer pings: what is under way ends within seconds when one cannot be
/// reached any more, even if nobody says so. An attempt to connect takes so long at most.
///
/// # Errors
/// `INVALID_INPUT` if the TLS options cannot be used.
///
/// # Panics
/// Outside a tokio runtime; the connection lives on the one this is called in.
pub fn channel_to_member(endpoint: &Endpoint, tls: &Tls, connect_timeout: Duration) -> Result<Channel, Error> {
    let pinged = to(endpoint, connect_timeout).http2_keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
    connected(&pinged, endpoint, tls)
}

fn to(endpoint: &Endpoint, connect_timeout: Duration) -> ChannelEndpoint {
    // TLS is the connector's, and no concern of the channel but for what requests say of it.
    ChannelEndpoint::from(endpoint.plain_uri())
        .origin(endpoint.uri())
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .tcp_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL))
        .tcp_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_max_header_list_size(MAX_HEADERS)
        .user_agent(concat!("anyserve/", env!("CARGO_PKG_VERSION")))
        .expect("a version is a header value")
}

fn connected(to: &ChannelEndpoint, endpoint: &Endpoint, tls: &Tls) -> Result<Channel, Error> {
    if !endpoint.secure() {
        return Ok(to.connect_lazy());
    }
    let unusable = |why: String| Error::invalid(format!("the TLS options for {endpoint} cannot be used: {why}"));
    tls.config().map_err(|error| unusable(error.to_string()))?;
    let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|error| unusable(error.to_string()))?;
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES));
    tcp.set_connect_timeout(to.get_connect_timeout());
    Ok(to.connect_with_connector_lazy(Secure::new(tcp, tls.clone(), name)))
}
