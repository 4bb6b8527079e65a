//! A replica that knows the frames of HTTP/2 and keeps none of its rules: a test says which bytes it sends.
//!
//! Source: RFC 9113, section 4.1 (frames), and RFC 7541, section 6 (fields of headers).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

/// Of HEADERS and DATA: the stream ends with it.
pub(crate) const END_STREAM: u8 = 1;
/// Of HEADERS: no CONTINUATION follows.
pub(crate) const END_HEADERS: u8 = 4;
/// Of SETTINGS and PING: it is an answer.
const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Headers of a gRPC answer: status 200 and the type of the content.
pub(crate) const OK: &[u8] = b"\x88\x00\x0ccontent-type\x10application/grpc";
/// Trailers of one that ended well.
pub(crate) const WELL: &[u8] = b"\x00\x0bgrpc-status\x010";

/// A peer on a free port; it ends with this.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    written: AtomicUsize,
    ended: AtomicUsize,
}

/// One connection to it.
pub(crate) struct Line {
    stream: TcpStream,
    shared: Arc<Shared>,
}

/// A frame that came.
struct Came {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

// === impl Peer ===

impl Peer {
    /// Does this with every connection, which ends with the future.
    pub(crate) async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Line) -> R + Send + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, mut tasks) = (Arc::<Shared>::default(), JoinSet::new());
        let of_all = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            loop {
                let stream = listener.accept().await.unwrap().0;
                let line = script(Line { stream, shared: Arc::clone(&of_all) });
                let shared = Arc::clone(&of_all);
                lines.spawn(async move {
                    // The other side may end it at any time.
                    let _ = line.await;
                    shared.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Sends these bytes when the client has said hello, and then nothing for ever.
    pub(crate) async fn that_says(bytes: Vec<u8>) -> Self {
        let bytes = Arc::new(bytes);
        Self::start(move |mut line| {
            let bytes = Arc::clone(&bytes);
            async move {
                line.hello().await?;
                line.write(&bytes).await?;
                std::future::pending().await
            }
        })
        .await
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests whose headers came.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that are over.
    pub(crate) fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// Bytes that were written on all connections.
    pub(crate) fn written(&self) -> usize {
        self.shared.written.load(Ordering::SeqCst)
    }
}

// === impl Line ===

impl Line {
    /// Waits for the client's first bytes.
    pub(crate) async fn hello(&mut self) -> io::Result<()> {
        let mut preface = [0; PREFACE.len()];
        self.stream.read_exact(&mut preface).await?;
        assert_eq!(preface, PREFACE);
        Ok(())
    }

    /// Greets as a server does, and waits for the first request. Its stream.
    pub(crate) async fn first_request(&mut self) -> io::Result<u32> {
        self.hello().await?;
        self.write(&frame(SETTINGS, 0, 0, &[])).await?;
        self.request().await
    }

    /// Waits for the next request, and answers meanwhile what every peer answers. Its stream.
    pub(crate) async fn request(&mut self) -> io::Result<u32> {
        loop {
            let came = self.read().await?;
            match came.kind {
                SETTINGS if came.flags & ACK == 0 => self.write(&frame(SETTINGS, ACK, 0, &[])).await?,
                PING if came.flags & ACK == 0 => self.write(&frame(PING, ACK, 0, &came.payload)).await?,
                HEADERS => {
                    self.shared.requests.fetch_add(1, Ordering::SeqCst);
                    return Ok(came.stream);
                }
                _ => {}
            }
        }
    }

    /// Answers pings, and nothing else, until the connection ends.
    pub(crate) async fn lives_on(mut self) -> io::Result<()> {
        while self.request().await.is_ok() {}
        Ok(())
    }

    /// Says that it sends no more, and reads until the other side has left, too.
    pub(crate) async fn leaves(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        while self.read().await.is_ok() {}
        Ok(())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.shared.written.fetch_add(bytes.len(), Ordering::SeqCst);
        Ok(())
    }

    async fn read(&mut self) -> io::Result<Came> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok(Came { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    lying(u32::try_from(payload.len()).unwrap(), kind, flags, stream, payload)
}

/// A frame that says that its payload has `len` bytes.
pub(crate) fn lying(len: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&len.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The end of one stream.
pub(crate) fn reset(stream: u32, reason: h2::Reason) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes())
}

/// The end of the connection: nothing after stream `last` was looked at.
pub(crate) fn go_away(last: u32, reason: h2::Reason) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), u32::from(reason).to_be_bytes()].concat())
}

/// A whole good answer to one stream.
pub(crate) fn answer(stream: u32, message: &[u8]) -> Vec<u8> {
    let parts = [
        frame(HEADERS, END_HEADERS, stream, OK),
        frame(DATA, 0, stream, message),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, WELL),
    ];
    parts.concat()
}
