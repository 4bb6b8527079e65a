//! The status as events, and the page that shows it.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_server::{AdminToken, ServerConfig};
use serde_json::Value;
use support::{Running, start, start_with, until, watchdog};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Places for those who watch.
const PLACES: usize = 256;

/// One who watches, with what has arrived.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    async fn of(server: &Running) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The next line that begins so, and nothing if the server ended before.
    async fn line(&mut self, begin: &str) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if watchdog(self.0.read_line(&mut line)).await.unwrap() == 0 {
                return None;
            }
            if line.starts_with(begin) {
                return Some(line.split_off(begin.len()));
            }
        }
    }

    async fn status(&mut self) -> Value {
        serde_json::from_str(&self.line("data: ").await.unwrap()).unwrap()
    }
}

#[tokio::test]
async fn the_status_comes_at_once_and_then_every_second() {
    let server = start().await;
    let mut watcher = Watcher::of(&server).await;
    assert!(watcher.line("content-type: ").await.unwrap().starts_with("text/event-stream"));
    assert_eq!(watcher.line("cache-control: ").await.unwrap(), "no-store\r\n");
    assert_eq!(watcher.line("retry: ").await.unwrap(), "1000\n");
    assert_eq!(watcher.status().await["groups"][0]["name"], "main");
    server.fake.change(|status| status.groups[0].succeeded = 7);
    assert_eq!(watcher.status().await["groups"][0]["succeeded"], 7);
    server.fake.change(|status| status.groups[0].succeeded = 8);
    assert_eq!(watcher.status().await["groups"][0]["succeeded"], 8);
}

#[tokio::test]
async fn many_who_watch_share_one_look() {
    let server = start().await;
    let mut watchers = Vec::new();
    for _ in 0..20 {
        watchers.push(Watcher::of(&server).await);
    }
    for _ in 0..3 {
        for watcher in &mut watchers {
            watcher.status().await;
        }
    }
    // Three events each; the first ones may have been of two seconds, and the last ones may have begun a further one.
    assert!((3..=5).contains(&server.fake.looks()), "{}", server.fake.looks());
}

#[tokio::test]
async fn who_leaves_frees_the_place_and_who_is_one_too_many_is_told() {
    let server = start().await;
    let mut watchers = Vec::new();
    for _ in 0..PLACES {
        let mut watcher = Watcher::of(&server).await;
        watcher.status().await;
        watchers.push(watcher);
    }
    let answer = server.http("GET /status", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("256 watch the status already"), "{answer}");
    watchers.pop();
    watchdog(async {
        let mut line = String::new();
        while !line.starts_with("HTTP/1.1 200") {
            line.clear();
            Watcher::of(&server).await.0.read_line(&mut line).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_leaves_ends_the_events_at_once() {
    let server = start().await;
    let mut watcher = Watcher::of(&server).await;
    watcher.status().await;
    server.begin_to_leave();
    while watcher.line("data: ").await.is_some() {}
    assert_eq!(server.drained().await, anyserve_server::Drained::Clean);
}

#[tokio::test]
async fn over_http2_a_reader_that_does_not_read_holds_nothing_up() {
    let server = start().await;
    let body = http_body_util::Empty::new();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/status", server.address);
    let request = http::Request::get(uri).body(body).unwrap() as http::Request<http_body_util::Empty<bytes::Bytes>>;
    let unread = client.send_request(request).await.unwrap();
    assert_eq!(unread.status(), 200);
    let mut watcher = Watcher::of(&server).await;
    watcher.status().await;
    watcher.status().await;
    drop((unread, client));
    assert_eq!(server.drained().await, anyserve_server::Drained::Clean);
    connection.abort();
}

#[tokio::test]
async fn the_status_is_for_whoever_may_read_the_metrics_and_the_rest_is_not() {
    let admin_token = Some(AdminToken::from("secret".to_owned()));
    let server = start_with(ServerConfig { admin_token, ..ServerConfig::default() }).await;
    Watcher::of(&server).await.status().await;
    for path in ["/metrics", "/"] {
        assert!(server.http(&format!("GET {path}"), &[]).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert_eq!(server.json("GET /admin/workers", &[]).await.0, 401);
}

#[tokio::test]
async fn the_page_and_its_files_may_load_nothing_else() {
    let server = start().await;
    for (path, kind) in [("/", "text/html"), ("/status.css", "text/css"), ("/status.js", "text/javascript")] {
        let answer = server.http(&format!("GET {path}"), &[]).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {kind}; charset=utf-8")), "{path}: {head}");
        for policy in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types"] {
            assert!(head.contains(policy), "{path}: {head}");
        }
        assert!(head.contains("x-content-type-options: nosniff") && !body.is_empty());
        assert!(server.http(&format!("POST {path}"), &[]).await.starts_with("HTTP/1.1 405"), "{path}");
    }
}

#[tokio::test]
async fn a_hostile_name_stays_within_its_event() {
    let server = start().await;
    let name = "a\n\ndata: {}\r\n<script>\u{2028}";
    server.fake.change(|status| status.groups[0].models = vec![name.to_owned()]);
    let mut watcher = Watcher::of(&server).await;
    let fake = server.fake.clone();
    until(|| fake.looks() > 0).await;
    assert_eq!(watcher.status().await["groups"][0]["models"][0], name);
    let mut byte = [0];
    watchdog(watcher.0.read_exact(&mut byte)).await.unwrap();
    assert_eq!(&byte, b"\n");
}
