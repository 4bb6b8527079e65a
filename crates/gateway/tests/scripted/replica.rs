//! A replica that knows HTTP/2 and does what a test says.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use anyserve_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use anyserve_proto::v1::{ServesRequest, ServesResponse};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::raw;

pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

type Serve = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// A call that came.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// All that was sent, framed.
    pub(crate) body: Bytes,
}

/// A replica on a free port; it ends with this.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// Calls but questions whether it serves something.
    seen: Mutex<Vec<(String, HeaderMap, Bytes)>>,
    questions: Mutex<Vec<ServesRequest>>,
    denies: AtomicBool,
    /// Calls whose answers are not complete.
    held: AtomicUsize,
    connections: AtomicUsize,
}

struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Call {
    /// The request that it is.
    pub(crate) fn request(&self) -> ModelInferRequest {
        ModelInferRequest::decode(&self.body[5..]).unwrap()
    }

    /// Answers with the message that came, and a good status.
    pub(crate) fn echo(&self) -> Reply {
        data([self.body.clone()], &[("grpc-status", "0")])
    }
}

impl Replica {
    pub(crate) async fn start<F, R>(serve: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serve: Serve = Arc::new(move |call| Box::pin(serve(call)));
        let mut tasks = JoinSet::new();
        let accepting = tasks.spawn(accept(listener, Arc::clone(&shared), serve));
        Self { address, shared, accepting, _tasks: tasks }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it, with all its connections.
    pub(crate) fn kill(&self) {
        self.accepting.abort();
    }

    /// Lets it say that it serves nothing.
    pub(crate) fn deny(&self) {
        self.shared.denies.store(true, Ordering::SeqCst);
    }

    pub(crate) fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Path, headers and body of every call that came.
    pub(crate) fn seen(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// A header of the newest call.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let seen = self.seen();
        seen.last().unwrap().1.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    pub(crate) fn questions(&self) -> Vec<ServesRequest> {
        self.shared.questions.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, serve: Serve) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(connection(stream, Arc::clone(&shared), Arc::clone(&serve)));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, serve: Serve) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared), Arc::clone(&serve)));
    let mut http = http2::Builder::new(TokioExecutor::new());
    let _ = http.max_frame_size(1 << 20).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>, serve: Serve) -> Result<Reply, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if path == "/anyserve.v1.Replica/Serves" {
        shared.questions.lock().unwrap().push(ServesRequest::decode(&body[5..]).unwrap());
        let answer = ServesResponse { serves: !shared.denies.load(Ordering::SeqCst) };
        return Ok(data([raw::framed(&answer).into()], &[("grpc-status", "0")]));
    }
    shared.held.fetch_add(1, Ordering::SeqCst);
    let until_written = Held(Arc::clone(&shared));
    shared.seen.lock().unwrap().push((path.clone(), head.headers.clone(), body.clone()));
    let reply = serve(Call { path, headers: head.headers, body }).await;
    Ok(reply.map(|body| {
        body.map_frame(move |frame| {
            let _ = &until_written;
            frame
        })
        .boxed_unsync()
    }))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

/// An answer of these pieces and trailers.
pub(crate) fn data(pieces: impl IntoIterator<Item = Bytes>, trailers: &[(&'static str, &str)]) -> Reply {
    let pieces = pieces.into_iter().map(Frame::data);
    frames(stream::iter(pieces.chain([Frame::trailers(headers(trailers))]).map(Ok).collect::<Vec<_>>()))
}

/// An answer of these frames.
pub(crate) fn frames(frames: impl stream::Stream<Item = Result<Frame<Bytes>, io::Error>> + Send + 'static) -> Reply {
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    reply
}

/// Pieces, and then nothing for ever.
pub(crate) fn pieces_and_silence(pieces: Vec<Bytes>) -> Reply {
    use futures_util::StreamExt;
    frames(stream::iter(pieces).map(|piece| Ok(Frame::data(piece))).chain(stream::pending()))
}

/// Pieces, and then the end of the connection's stream without a status.
pub(crate) fn pieces_and_break(pieces: Vec<Bytes>) -> Reply {
    use futures_util::StreamExt;
    let broken = stream::iter([Err(io::Error::other("broken"))]);
    frames(stream::iter(pieces).map(|piece| Ok(Frame::data(piece))).chain(broken))
}

/// An answer that is nothing but this status.
pub(crate) fn status(pairs: &[(&'static str, &str)]) -> Reply {
    let mut reply = frames(stream::iter([]));
    reply.headers_mut().extend(headers(pairs));
    reply
}

/// The refusal of a replica that matches nothing, to be served elsewhere as this query.
pub(crate) fn hand_back(query: &str) -> Reply {
    let code = [("grpc-status", "5"), ("grpc-message", "not%20here"), ("x-anyserve-code", "NO_CAPABILITY")];
    status(&[&code[..], &[("x-anyserve-hand-back", query)]].concat())
}

/// No answer at all.
pub(crate) async fn hang() -> Reply {
    std::future::pending().await
}

/// A response of a stream, framed: its id, and one output of these bytes.
pub(crate) fn response(id: &str, data: &[u8]) -> Bytes {
    let (shape, datatype) = (vec![i64::try_from(data.len()).unwrap()], "UINT8".to_owned());
    let output = InferOutputTensor { name: "y".into(), datatype, shape, ..Default::default() };
    let answer = ModelInferResponse {
        model_name: "m".into(),
        model_version: "1".into(),
        id: id.to_owned(),
        outputs: vec![output],
        raw_output_contents: vec![Bytes::copy_from_slice(data)],
        ..Default::default()
    };
    raw::framed(&ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) }).into()
}
