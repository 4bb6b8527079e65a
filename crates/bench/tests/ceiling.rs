//! The load generator against the empty server, both in this process.

#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test does")]

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;

use anyserve_bench::Ceiling;
use serde_json::Value;

/// Serves the empty echo on a port of its own for as long as the test process lives.
fn ceiling() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ceiling = Ceiling::bind("127.0.0.1:0").unwrap();
            sender.send(ceiling.address()).unwrap();
            ceiling.serve().await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

/// Runs the program and gives its exit code, its report and what it said on stderr.
fn bench(arguments: &str) -> (i32, Value, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_anyserve-bench")).args(arguments.split_whitespace()).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let complaint = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), report, complaint)
}

#[test]
fn a_count_of_unary_requests_is_sent_exactly_and_echoed() {
    let server = ceiling();
    let (code, report, complaint) =
        bench(&format!("unary {server} -i x:FP32:16 -m 8 -c 2 -n 1000 --warmup 0s -d 5m --check-echo --json"));
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(report["requests"], 1000);
    assert_eq!(report["errors"], 0);
    assert_eq!(report["messages_per_request"], serde_json::json!([1, 1]));
    let latency = &report["latency_us"];
    let percentiles: Vec<f64> =
        ["min", "p50", "p90", "p99", "p99_9", "max"].iter().map(|name| latency[name].as_f64().unwrap()).collect();
    assert!(percentiles.is_sorted(), "{percentiles:?}");
    assert!(report["cpu_us_per_request"].as_f64().unwrap() > 0.0);
}

#[test]
fn streams_are_counted_by_message_with_the_time_to_the_first() {
    let server = ceiling();
    let (code, report, complaint) =
        bench(&format!("stream {server} -i x:FP32:16 -m 4 -n 20 --warmup 0s -d 5m --parameter answers=50 --json"));
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(report["requests"], 20);
    assert_eq!(report["messages_per_request"], serde_json::json!([50, 50]));
    assert!(report["first_message_us"]["p50"].is_f64());
}

#[test]
fn an_open_loop_sends_all_that_was_due() {
    let server = ceiling();
    let (code, report, complaint) =
        bench(&format!("unary {server} -i x:FP32:16 -m 16 -r 500 -n 100 --warmup 0s --json"));
    assert_eq!(code, 0, "{complaint}");
    assert_eq!((&report["requests"], &report["unanswered"]), (&100.into(), &0.into()));
    assert_eq!(report["rate"], 500.0);
}

#[test]
fn a_tensor_larger_than_every_default_window_comes_back_unchanged() {
    let server = ceiling();
    let (code, report, complaint) =
        bench(&format!("unary {server} -i x:FP32:1048576 -n 4 -m 2 --warmup 0s -d 5m --check-echo --json"));
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(report["requests"], 4);
}

#[test]
fn errors_are_counted_by_status_and_nothing_but_errors_is_a_failure() {
    let server = ceiling();
    let (code, report, complaint) = bench(&format!("http http://{server}/ --body x -n 3 --warmup 0s -d 5m --json"));
    assert_eq!(code, 1);
    assert_eq!(report["requests"], 0);
    assert!(complaint.contains("succeeded"), "{complaint}");
}

#[test]
fn a_refused_connection_is_one_clear_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, complaint) = bench(&format!("unary {free} -i x:FP32:16"));
    assert_eq!(code, 1);
    assert!(complaint.starts_with(&format!("anyserve bench: cannot connect to {free}: ")));
    assert_eq!(complaint.lines().count(), 1);
}

#[test]
fn wrong_arguments_end_with_code_two() {
    assert_eq!(bench("unary localhost:1 --in-flight 0").0, 2);
    assert_eq!(bench("nonsense").0, 2);
    assert_eq!(anyserve_bench::run(["--help"].map(OsString::from)), 0);
}

#[test]
fn a_saved_request_is_the_framed_message() {
    let path = std::env::temp_dir().join(format!("anyserve-bench-{}", std::process::id()));
    let shown = path.display();
    let (code, _, complaint) = bench(&format!("unary nowhere:1 -i x:FP32:16 --save {shown}"));
    let saved = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(saved[0], 0);
    let length = u32::from_be_bytes(saved[1..5].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), saved.len() - 5);
}

#[test]
fn an_empty_proxy_passes_calls_and_streams_on() {
    let server = ceiling();
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let proxy = Ceiling::bind("127.0.0.1:0").unwrap().in_front_of(Some(server.to_string()));
            sender.send(proxy.address()).unwrap();
            proxy.serve().await.unwrap();
        });
    });
    let proxy = receiver.recv().unwrap();
    let (code, report, complaint) =
        bench(&format!("unary {proxy} -i x:FP32:16 -m 8 -n 100 --warmup 0s -d 5m --check-echo --json"));
    assert_eq!((code, &report["requests"], &report["errors"]), (0, &100.into(), &0.into()), "{complaint}");
    let (code, report, complaint) =
        bench(&format!("stream {proxy} -i x:FP32:16 -n 5 --warmup 0s -d 5m --parameter answers=50 --json"));
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(report["messages_per_request"], serde_json::json!([50, 50]));
}
