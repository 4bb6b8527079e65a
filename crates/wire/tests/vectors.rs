//! The golden vectors in `tests/vectors`: one frame of each kind, byte for byte.
//!
//! The Python tests read the same files with a codec of their own. A byte that changes here changes the protocol. Run
//! with `ANYSERVE_WRITE_VECTORS=1` to write the files of new frames; it is never set where tests count.

use std::fs;
use std::path::PathBuf;

use anyserve_core::{Code, Datatype, Limits};
use anyserve_wire::{Decoder, Frame, Kind, batch_of, flags, message};
use prost::Message;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn pair(key: &str, value: message::Value) -> message::KeyValue {
    message::KeyValue { key: key.into(), value: Some(value) }
}

fn every_value() -> Vec<message::KeyValue> {
    vec![
        pair("text", message::Value::Text("ü".into())),
        pair("int", message::Value::Int(-3)),
        pair("double", message::Value::Double(0.5)),
        pair("bool", message::Value::Bool(false)),
        pair("uint", message::Value::Uint(u64::MAX)),
    ]
}

fn tensor(name: &str, datatype: Datatype, shape: &[i64], len: u64) -> message::Tensor {
    let parameters = if name == "x" { every_value() } else { vec![] };
    message::Tensor { name: name.into(), datatype: datatype.number(), shape: shape.into(), len, parameters }
}

fn hello() -> message::Hello {
    let spec = message::TensorSpec { name: "x".into(), datatype: Datatype::Fp32.number(), shape: vec![-1, 300] };
    let full = message::Handler {
        capability: every_value()[..4].to_vec(),
        function: "chat".into(),
        inputs: vec![spec.clone()],
        declares_inputs: true,
        outputs: vec![spec],
        declares_outputs: true,
        stream: true,
        concurrency: 64,
        max_queue: 100,
        timeout_us: 1_500_000,
        max_batch_size: 8,
        ..Default::default()
    };
    let least = message::Handler { function: "echo".into(), concurrency: 1, ..Default::default() };
    message::Hello { pid: 4711, worker: 3, token: "secret".into(), handlers: vec![full, least], concurrency: 65 }
}

fn request() -> message::Request {
    message::Request {
        handler: 1,
        slot: 4095,
        attempt: 2,
        remaining_us: 30_000_001,
        model: "echo".into(),
        version: "1".into(),
        id: "abc".into(),
        inputs: vec![
            tensor("x", Datatype::Fp32, &[1, 2], 8),
            tensor("empty", Datatype::Bytes, &[0], 0),
            tensor("arena", Datatype::Uint8, &[100_000], 100_000),
            tensor("client", Datatype::Uint8, &[64], 64),
        ],
        outputs: vec!["y".into(), "z".into()],
        parameters: every_value(),
        headers: vec![message::Header { name: "x-a".into(), value: "b".into() }],
        places: vec![
            message::Place { tensor: 2, offset: 0, memory: Some(message::Memory::Block(block())) },
            message::Place { tensor: 3, offset: 4096, memory: Some(message::Memory::Region(region())) },
        ],
        destinations: vec![message::Destination { output: "y".into(), region: Some(region()), offset: 8192, len: 256 }],
    }
}

fn block() -> message::Block {
    message::Block { index: 70_000, generation: u64::MAX - 1 }
}

fn region() -> message::Region {
    message::Region { id: 9, path: "/proc/1/fd/9".into(), start: 65_536, len: 1 << 20 }
}

fn object() -> message::ObjectId {
    message::ObjectId { store: 1, index: 2, generation: 3 }
}

fn done() -> message::Response {
    let outputs = vec![
        tensor("y", Datatype::Int8, &[3], 3),
        tensor("arena", Datatype::Int8, &[64], 64),
        tensor("client", Datatype::Int8, &[0], 0),
    ];
    let places = vec![message::Place { tensor: 1, offset: 128, memory: Some(message::Memory::Block(block())) }];
    message::Response { outputs, places, written: vec![2], ..response(1_000_000) }
}

fn plane() -> message::Plane {
    message::Plane {
        store: u64::MAX,
        segment: "/proc/1/fd/7".into(),
        entries: 262_144,
        capacity: 1 << 30,
        epoch_ns: 1 << 40,
        pins: "/proc/1/fd/8".into(),
        threshold: 65_536,
    }
}

fn sealed() -> message::Sealed {
    message::Sealed {
        block: Some(block()),
        len: 100_000,
        key: "key".into(),
        ttl_ms: 600_000,
        cacheable: true,
        durable: true,
        answer: true,
    }
}

fn stat() -> message::Stat {
    message::Stat {
        len: 100_000,
        remaining_ms: 599_999,
        key: "key".into(),
        cacheable: true,
        durable: true,
        capacity: 1 << 30,
        objects: 7,
        evicted: 8,
    }
}

fn batch() -> message::Batch {
    let small = message::Request { handler: 1, slot: 2, attempt: 1, id: "b".into(), ..Default::default() };
    let empty = message::Member { id: 8, len: 0, request: Some(small.clone()) };
    let inputs = vec![tensor("y", Datatype::Int8, &[3], 3)];
    let last = message::Request { slot: 3, inputs, remaining_us: 1, ..small };
    let members = vec![
        message::Member { id: 7, len: 8, request: Some(request()) },
        empty,
        message::Member { id: u64::MAX >> 3, len: 3, request: Some(last) },
    ];
    message::Batch { members }
}

fn response(compute_ns: u64) -> message::Response {
    message::Response {
        outputs: vec![tensor("y", Datatype::Int8, &[3], 3)],
        parameters: every_value(),
        compute_ns,
        ..Default::default()
    }
}

fn failed() -> message::Failed {
    message::Failed {
        code: Code::Overloaded.number(),
        message: "come back".into(),
        traceback: "Traceback".into(),
        compute_ns: 1_000,
        retry_after_ms: 1_501,
    }
}

fn manifest() -> message::Manifest {
    let full = message::Group {
        name: "Chat".into(),
        handlers: hello().handlers,
        gpus: 2,
        tokens: vec![message::Amount { name: "token".into(), amount: 1 }],
        min_workers: 1,
        max_workers: 2,
        idle_timeout_us: 300_000_000,
        sleeps: true,
        environment: vec![message::Header { name: "A".into(), value: "b".into() }],
        python: "/venv/bin/python".into(),
        start_timeout_us: 9_000_000,
        declares_workers: true,
        upgrades: vec!["type=chat -> type=chat.heavy".into()],
    };
    let least = message::Group { name: "default".into(), ..Default::default() };
    message::Manifest {
        pid: 4712,
        token: "secret".into(),
        groups: vec![full, least],
        failed: Some(failed()),
        no_fork: "threads".into(),
        files: vec!["/app.py".into()],
    }
}

fn call() -> message::Call {
    let called = message::Request { handler: 0, slot: 0, attempt: 0, destinations: vec![], ..request() };
    let places = called.places[..1].to_vec();
    let inputs = called.inputs[..3].to_vec();
    let request = message::Request { inputs, places, ..called };
    message::Call { parent: 7, selector: "type=embed".into(), stream: true, request: Some(request) }
}

fn call_result() -> message::CallResult {
    message::CallResult {
        response: Some(message::Response { written: vec![], compute_ns: 0, ..done_without_client() }),
        failed: Some(failed()),
        end: true,
        id: "abc".into(),
        model: "embed".into(),
        version: "1".into(),
        cost: 4096,
    }
}

fn done_without_client() -> message::Response {
    let whole = done();
    message::Response { outputs: whole.outputs[..2].to_vec(), ..whole }
}

fn fork() -> message::Fork {
    message::Fork {
        worker: 3,
        group: "Chat".into(),
        socket: "/tmp/3.sock".into(),
        token: "secret".into(),
        stdout: "/proc/1/fd/5".into(),
        stderr: "/proc/1/fd/6".into(),
        environment: vec![message::Header { name: "A".into(), value: "b".into() }],
    }
}

fn framed(kind: Kind, flags: u16, id: u64, meta: &impl Message, body: &'static [u8]) -> Frame {
    Frame { flags, body: body.into(), ..Frame::with_meta(kind, id, meta) }
}

fn vectors() -> Vec<Frame> {
    let welcome = message::Welcome {
        max_meta: 1 << 24,
        max_body: 1 << 30,
        stream_window: 1 << 20,
        slots: "/tmp/slots".into(),
        plane: Some(plane()),
    };
    let get = message::Get { wanted: Some(message::Wanted::Object(object())), remaining_us: 2, describe: true };
    let view =
        message::View { failed: Some(failed()), object: Some(object()), offset: 64, len: 100_000, stat: Some(stat()) };
    vec![
        framed(Kind::Hello, 0, 0, &hello(), b""),
        framed(Kind::Welcome, 0, 0, &welcome, b""),
        Frame::bare(Kind::Ready, 0),
        framed(Kind::Request, 0, 7, &request(), b"\0\0\x80\x3f\0\0\0\x40"),
        framed(Kind::Chunk, 0, 7, &response(0), b"\x01\x02\xff"),
        framed(Kind::Done, flags::RESPONSE, u64::MAX >> 3, &done(), b"\x01\x02\xff"),
        framed(Kind::Failed, flags::NOT_STARTED, 7, &failed(), b""),
        Frame::bare(Kind::Cancel, 7),
        framed(Kind::Credit, 0, 7, &message::Credit { bytes: 65_536 }, b""),
        Frame::bare(Kind::Drain, 0),
        Frame::bare(Kind::Ping, 99),
        Frame::bare(Kind::Pong, 99),
        framed(Kind::Batch, 0, 0, &batch(), b"\0\0\x80\x3f\0\0\0\x40\x01\x02\xff"),
        framed(Kind::Put, 0, 11, &message::Put { len: 100_000, ahead: true }, b""),
        framed(Kind::Sealed, 0, 12, &sealed(), b""),
        framed(Kind::Get, 0, 13, &get, b""),
        framed(Kind::View, 0, 13, &view, b""),
        framed(
            Kind::Release,
            0,
            14,
            &message::Release { object: Some(object()), block: Some(block()), region: 9 },
            b"",
        ),
        Frame::bare(Kind::Sleep, 0),
        Frame::bare(Kind::Asleep, 0),
        Frame::bare(Kind::Wake, 0),
        framed(Kind::Manifest, 0, 0, &manifest(), b""),
        framed(Kind::Fork, 0, 0, &fork(), b""),
        framed(Kind::Forked, 0, 0, &message::Forked { worker: 3, pid: 4713, failed: "no memory".into() }, b""),
        framed(Kind::Call, 0, 15, &call(), b"\0\0\x80\x3f\0\0\0\x40"),
        framed(Kind::CallResult, 0, 15, &call_result(), b"\x01\x02\xff"),
    ]
}

fn path_of(frame: &Frame) -> PathBuf {
    folder().join(format!("{:?}.bin", frame.kind).to_lowercase())
}

#[test]
fn there_is_one_vector_for_each_kind() {
    let kinds: Vec<_> = vectors().iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, Kind::all().collect::<Vec<_>>());
}

#[test]
fn every_frame_is_written_as_its_vector_says() {
    for frame in vectors() {
        if std::env::var_os("ANYSERVE_WRITE_VECTORS").is_some() {
            fs::write(path_of(&frame), frame.to_bytes()).unwrap();
        }
        assert_eq!(fs::read(path_of(&frame)).unwrap(), frame.to_bytes(), "{:?}", frame.kind);
    }
}

#[test]
fn every_vector_is_read_as_the_frame_that_it_is() {
    for frame in vectors() {
        let bytes = fs::read(path_of(&frame)).unwrap();
        assert_eq!(Decoder::new(Limits::default()).feed(&bytes).unwrap(), [frame]);
    }
    let read = |kind: Kind| vectors().into_iter().find(|frame| frame.kind == kind).unwrap();
    assert_eq!(read(Kind::Hello).message::<message::Hello>().unwrap(), hello());
    assert_eq!(read(Kind::Request).message::<message::Request>().unwrap(), request());
    assert_eq!(read(Kind::Done).message::<message::Response>().unwrap(), done());
    assert_eq!(read(Kind::Failed).message::<message::Failed>().unwrap(), failed());
    assert_eq!(read(Kind::Manifest).message::<message::Manifest>().unwrap(), manifest());
    assert_eq!(read(Kind::Batch).message::<message::Batch>().unwrap(), batch());
    assert_eq!(read(Kind::Call).message::<message::Call>().unwrap(), call());
    assert_eq!(read(Kind::CallResult).message::<message::CallResult>().unwrap(), call_result());
}

#[test]
fn a_batch_is_its_requests_each_with_its_own_bytes() {
    let frame = vectors().into_iter().find(|frame| frame.kind == Kind::Batch).unwrap();
    let parts = batch_of(frame.message().unwrap(), frame.body).unwrap();
    let read: Vec<_> = parts.iter().map(|part| (part.id, part.request.slot, &part.body[..])).collect();
    let first = &b"\0\0\x80\x3f\0\0\0\x40"[..];
    assert_eq!(read, [(7, 4095, first), (8, 2, b""), (u64::MAX >> 3, 3, b"\x01\x02\xff")]);
}
