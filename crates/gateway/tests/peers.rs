//! Replicas that take a request and then do anything but answer it.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyserve_cluster::policy::RoundRobin;
use anyserve_gateway::{ProxyConfig, ReplicasConfig};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{pending, repeat};
use h2::Reason;
use http_body::Frame;
use scripted::peer::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Line, OK, PING, Peer, SETTINGS, answer, frame, go_away,
    lying, reset,
};
use scripted::raw::Answer;
use scripted::replica::{data, frames, hang, pieces_and_silence, response};
use scripted::{Call, INFER, Reply, STREAM, World, raw, request, start, start_with, until, watchdog};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How a request comes to the API server.
#[derive(Clone, Copy, Debug)]
enum Way {
    Unary,
    Stream,
    Json,
    JsonStream,
}

const WAYS: [Way; 4] = [Way::Unary, Way::Stream, Way::Json, Way::JsonStream];

/// What a replica does instead of answering: all of it without an end.
#[derive(Clone, Copy, Debug)]
enum Never {
    Nothing,
    Headers,
    HalfAMessage,
    /// A message of 16 MiB, one byte after the other.
    Trickle,
}

const NEVER: [Never; 4] = [Never::Nothing, Never::Headers, Never::HalfAMessage, Never::Trickle];

// === impl Never ===

impl Never {
    async fn answer(self) -> Reply {
        let half = response("1", &[7; 4096]).slice(..2048);
        match self {
            Self::Nothing => hang().await,
            Self::Headers => pieces_and_silence(vec![]),
            Self::HalfAMessage => pieces_and_silence(vec![half]),
            Self::Trickle => {
                let prefix = Bytes::from_static(&[0, 1, 0, 0, 0]);
                let byte = repeat(()).then(|()| async {
                    tokio::task::yield_now().await;
                    Bytes::from_static(&[7])
                });
                let pieces = futures_util::stream::iter([prefix]).chain(byte);
                frames(pieces.map(|piece| Ok(Frame::data(piece))).chain(pending()))
            }
        }
    }
}

// === impl Way ===

impl Way {
    /// Asks for a model, and reads all of the answer.
    async fn ask(self, world: &World, model: &str, timeout: Option<&str>) -> Answer {
        let json = format!(r#"{{"model": "{model}", "inputs": {{}}}}"#);
        let seconds = timeout.map(|timeout| format!("0.{}", timeout.trim_end_matches('m')));
        let grpc: Vec<_> = timeout.iter().map(|timeout| ("grpc-timeout", *timeout)).collect();
        let http: Vec<_> = seconds.iter().map(|seconds| ("x-timeout-s", seconds.as_str())).collect();
        let body = raw::framed(&request(model, vec![0; 4]));
        match self {
            Self::Unary => raw::call(world.address, INFER, &grpc, body).await,
            // With this the first error is the end of the stream.
            Self::Stream => {
                raw::call(world.address, STREAM, &[&grpc[..], &[("triton_grpc_error", "true")]].concat(), body).await
            }
            Self::Json => raw::post(world.address, "/infer", &http, json).await,
            Self::JsonStream => raw::post(world.address, "/infer/stream", &http, json).await,
        }
    }

    /// Asks, and leaves when the task is ended.
    fn begin(self, world: &Arc<World>, model: &'static str) -> JoinHandle<()> {
        let world = Arc::clone(world);
        tokio::spawn(async move { drop(self.ask(&world, model, None).await) })
    }
}

/// The code of an answer, also where it is the last of some events.
fn code(answer: &Answer) -> &str {
    let last = answer.body.rsplit(|byte| *byte == b'{').next().and_then(|text| std::str::from_utf8(text).ok());
    let event = last.and_then(|text| text.split_once(r#""code":""#)).and_then(|(_, text)| text.split('"').next());
    answer.code().or(event).unwrap_or("OK")
}

/// Nothing of any request is left.
async fn over(world: &World) {
    until(|| world.in_flight() == 0 && world.fleet.counters().read().in_flight == 0).await;
}

/// A good answer to unary requests and to streams: both messages say nothing.
async fn serve(_: Call) -> Reply {
    data([Bytes::from_static(&[0; 5])], &[("grpc-status", "0")])
}

/// Pings that are answered within a short time or never.
fn quick() -> ProxyConfig {
    let quick = Duration::from_millis(200);
    let replicas = ReplicasConfig { keepalive: quick, keepalive_timeout: quick, ..ReplicasConfig::default() };
    ProxyConfig { replicas, ..ProxyConfig::default() }
}

#[tokio::test]
async fn what_a_replica_never_ends_is_ended_by_the_deadline_while_others_serve() {
    for never in NEVER {
        let world = start();
        let replica = world.replica("never", &["model=never"], move |_| never.answer()).await;
        let _other = world.replica("other", &["model=m"], serve).await;
        let late = WAYS.map(|way| way.ask(&world, "never", Some("300m")));
        let (late, others) = tokio::join!(futures_util::future::join_all(late), async {
            until(|| replica.held() == WAYS.len()).await;
            futures_util::future::join_all(WAYS.map(|way| way.ask(&world, "m", None))).await
        });
        assert_eq!(late.iter().map(code).collect::<Vec<_>>(), ["DEADLINE"; 4], "{never:?}");
        assert_eq!(others.iter().map(code).collect::<Vec<_>>(), ["OK"; 4], "{never:?}");
        until(|| replica.held() == 0).await;
        over(&world).await;
    }
}

#[tokio::test]
async fn without_a_deadline_the_callers_leaving_frees_everything() {
    for never in NEVER {
        let world = Arc::new(start());
        let replica = world.replica("never", &["model=never"], move |_| never.answer()).await;
        let waiting = WAYS.map(|way| way.begin(&world, "never"));
        until(|| replica.held() == WAYS.len()).await;
        assert_eq!(world.fleet.counters().read().in_flight, 4);
        for one in &waiting {
            one.abort();
        }
        until(|| replica.held() == 0).await;
        over(&world).await;
    }
}

/// Says that its answer has 1 GiB, and sends that whatever the windows are.
async fn flood(mut line: Line) -> io::Result<()> {
    let stream = line.first_request().await?;
    line.write(&[begun(stream), frame(DATA, 0, stream, &[0, 0x40, 0, 0, 0])].concat()).await?;
    let piece = frame(DATA, 0, stream, &[7; 16 << 10]);
    for _ in 0..(1 << 30) / (16 << 10) {
        line.write(&piece).await?;
    }
    line.lives_on().await
}

/// Bytes of memory that this process has had at most.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn an_answer_of_a_gibibyte_that_heeds_no_window_takes_little_memory() {
    let mut config = quick();
    config.limits.max_message = 8 << 20;
    let (world, wide) = (start_with(&config, Box::new(RoundRobin)), start_with(&quick(), Box::new(RoundRobin)));
    let _other = world.replica("other", &["model=m"], serve).await;
    let before = most_memory();
    for way in WAYS {
        let peer = Peer::start(flood).await;
        world.register(&format!("{way:?}"), &peer.endpoint(), &[&format!("model={way:?}")], false);
        let answer = way.ask(&world, &format!("{way:?}"), None).await;
        assert_eq!(code(&answer), "HANDLER_ERROR", "{answer:?}");
        assert_eq!(code(&way.ask(&world, "m", None).await), "OK");
    }
    over(&world).await;
    // Where such a message may be: this client takes nothing before the replica has sent much more than every window together.
    let peer = Peer::start(flood).await;
    wide.register("Unary", &peer.endpoint(), &["model=Unary"], false);
    let body = raw::framed(&request("Unary", vec![0; 4]));
    let (response, _connection) = raw::begin(wide.address, INFER, &[], body).await;
    until(|| peer.ended() == 1 || peer.written() > 256 << 20).await;
    assert_eq!(code(&watchdog(Answer::of(response)).await), "WORKER_LOST");
    over(&wide).await;
    let more = most_memory() - before;
    assert!(more < 128 << 20, "{more} bytes more were taken");
}

#[tokio::test]
async fn bytes_that_are_no_grpc_end_the_request_with_a_code_and_cost_an_idempotent_one_nothing() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let after = |more: Vec<u8>| [settings.clone(), more].concat();
    let endless_headers: Vec<u8> = frame(CONTINUATION, 0, 1, &[0; 16 << 10]).repeat(1024);
    for (what, bytes) in [
        ("HTTP/1", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()),
        ("a line", b"220 mail.example ESMTP\r\n".to_vec()),
        ("zeros", vec![0; 1 << 16]),
        ("ones", vec![0xff; 1 << 16]),
        ("nothing", vec![]),
        ("settings of 16 MiB", lying(0x00ff_ffff, SETTINGS, 0, 0, &[])),
        ("settings that are none", frame(SETTINGS, 0, 0, &[1; 7])),
        ("a frame beyond the limit", after(lying(0x00ff_ffff, DATA, 0, 1, &[0; 1 << 14]))),
        ("data before headers", after(frame(DATA, END_STREAM, 1, b"x"))),
        ("data of no stream", after(frame(DATA, 0, 0, b"x"))),
        ("an answer that nobody asked for", after(answer(2, &[0; 5]))),
        ("headers that are none", after(frame(HEADERS, END_HEADERS, 1, &[0xff; 40]))),
        ("headers without an end", after([frame(HEADERS, 0, 1, OK), endless_headers].concat())),
        ("a kind that there is not", after(frame(0xee, 0xff, 1, &[7; 100]))),
        ("a flood of pings", after(frame(PING, 0, 0, &[0; 8]).repeat(1 << 16))),
        ("a flood of settings", after(settings.repeat(1 << 16))),
    ] {
        let world = start_with(&quick(), Box::new(RoundRobin));
        let peer = Peer::that_says(bytes).await;
        let other = world.replica("other", &["model=other"], serve).await;
        world.register("peer", &peer.endpoint(), &["model=m"], true);
        let answer = Way::Unary.ask(&world, "m", None).await;
        assert!(["UNAVAILABLE", "WORKER_LOST"].contains(&code(&answer)), "{what}: {answer:?}");
        world.register("also", &other.endpoint(), &["model=m"], true);
        for way in WAYS {
            let answer = way.ask(&world, "m", None).await;
            assert_eq!((code(&answer), other.held()), ("OK", 0), "{what}, {way:?}: {answer:?}");
        }
        over(&world).await;
    }
}

/// What a peer sends to end a request on this stream.
type End = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, OK)
}

/// The beginning of an answer that has 9 bytes.
fn half(stream: u32) -> Vec<u8> {
    [begun(stream), frame(DATA, 0, stream, &[0, 0, 0, 0, 9, 1])].concat()
}

/// A peer that takes the first request like this, and after it lives without an answer.
async fn peer_that(end: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Peer {
    let end = Arc::new(end);
    Peer::start(move |mut line| {
        let end = Arc::clone(&end);
        async move {
            let stream = line.first_request().await?;
            line.write(&end(stream)).await?;
            line.lives_on().await
        }
    })
    .await
}

#[tokio::test]
async fn what_a_replica_says_it_has_not_looked_at_is_sent_elsewhere_and_nothing_else_is() {
    let ends: [(&str, End, &str); 10] = [
        ("REFUSED_STREAM", Box::new(|stream| reset(stream, Reason::REFUSED_STREAM)), "OK"),
        ("INTERNAL_ERROR", Box::new(|stream| reset(stream, Reason::INTERNAL_ERROR)), "WORKER_LOST"),
        ("NO_ERROR", Box::new(|stream| reset(stream, Reason::NO_ERROR)), "WORKER_LOST"),
        ("ENHANCE_YOUR_CALM", Box::new(|stream| reset(stream, Reason::ENHANCE_YOUR_CALM)), "WORKER_LOST"),
        (
            "REFUSED_STREAM after headers",
            Box::new(|stream| [begun(stream), reset(stream, Reason::REFUSED_STREAM)].concat()),
            "WORKER_LOST",
        ),
        (
            "REFUSED_STREAM after a part",
            Box::new(|stream| [half(stream), reset(stream, Reason::REFUSED_STREAM)].concat()),
            "WORKER_LOST",
        ),
        ("GOAWAY before it", Box::new(|stream| go_away(stream - 1, Reason::NO_ERROR)), "OK"),
        (
            "GOAWAY before it, after headers",
            Box::new(|stream| [begun(stream), go_away(stream - 1, Reason::NO_ERROR)].concat()),
            "WORKER_LOST",
        ),
        ("GOAWAY with an error", Box::new(|stream| go_away(stream - 1, Reason::INTERNAL_ERROR)), "WORKER_LOST"),
        (
            "GOAWAY after it, then its answer",
            Box::new(|stream| [go_away(stream, Reason::NO_ERROR), answer(stream, &[0; 5])].concat()),
            "OK",
        ),
    ];
    for (what, end, expected) in ends {
        let world = start();
        let peer = peer_that(end).await;
        world.register("peer", &peer.endpoint(), &["model=m"], false);
        let other = world.replica("other", &["model=m"], serve).await;
        // Whose turn it is does not matter: one of the first two requests goes to the peer.
        let mut told = Vec::new();
        while peer.requests() == 0 {
            told = vec![Way::Unary.ask(&world, "m", None).await];
        }
        assert_eq!(code(&told[0]), expected, "{what}: {told:?}");
        let elsewhere = told[0].told("x-anyserve-replica") == Some("other");
        assert_eq!(elsewhere, expected == "OK" && !what.contains("its answer"), "{what}");
        assert_eq!(told[0].told("x-anyserve-attempts"), Some("1"), "{what}");
        assert_eq!(code(&Way::Unary.ask(&world, "m", Some("900m")).await), "OK", "{what}");
        assert!(!other.seen().is_empty());
        over(&world).await;
    }
}

#[tokio::test]
async fn requests_under_a_goaway_end_each_as_it_says() {
    let world = Arc::new(start());
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    // Of three requests it answers the first, takes the second, and has never looked at the third.
    let peer = Peer::start(move |mut line| {
        let gate = Arc::clone(&gate);
        async move {
            let first = line.first_request().await?;
            let (second, _third) = (line.request().await?, line.request().await?);
            gate.acquire().await.unwrap().forget();
            line.write(&[go_away(second, Reason::NO_ERROR), answer(first, &[0; 5])].concat()).await?;
            line.leaves().await
        }
    })
    .await;
    world.register("peer", &peer.endpoint(), &["model=m"], false);
    let asked = [(); 3].map(|()| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { Way::Unary.ask(&world, "m", None).await })
    });
    until(|| peer.requests() == 3).await;
    let _other = world.replica("other", &["model=m"], serve).await;
    opened.add_permits(1);
    let ended = watchdog(futures_util::future::try_join_all(asked)).await.unwrap();
    let mut told: Vec<_> = ended.iter().map(|one| (code(one), one.told("x-anyserve-replica").unwrap())).collect();
    told.sort_unstable();
    assert_eq!(told, [("OK", "other"), ("OK", "peer"), ("WORKER_LOST", "peer")]);
    over(&world).await;
}
