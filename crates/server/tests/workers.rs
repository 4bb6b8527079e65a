//! The replica's inside and orders about it, over HTTP.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_core::{Code, Error, Order};
use anyserve_server::{AdminToken, ServerConfig};
use serde_json::{Value, json};
use support::{Running, request, start, start_with, until, watchdog};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every order, and what it is to the replica.
fn orders() -> Vec<(&'static str, Order)> {
    let (name, worker, group, model) = ("main", "main-0", || "main".to_owned(), || "echo".to_owned());
    vec![
        ("/admin/workers/main-0/drain", Order::Drain { name: worker.into() }),
        ("/admin/workers/main-0/stop", Order::Stop { name: worker.into() }),
        ("/admin/groups/main/start", Order::Start { group: group() }),
        ("/admin/groups/main/scale?workers=0", Order::Scale { group: group(), workers: 0 }),
        ("/admin/groups/main/drain", Order::Drain { name: name.into() }),
        ("/admin/groups/main/stop", Order::Stop { name: name.into() }),
        ("/admin/models/echo/load", Order::Load { model: model(), workers: None }),
        ("/admin/models/echo/load?workers=2", Order::Load { model: model(), workers: Some(2) }),
        ("/admin/models/echo/unload", Order::Unload { model: model() }),
        ("/admin/reload", Order::Reload),
        ("/admin/drain", Order::DrainReplica),
    ]
}

/// Status and JSON of the answer to a POST with a body.
async fn post(server: &Running, path: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    watchdog(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn the_whole_inside_is_told_with_every_field() {
    let server = start().await;
    let (status, shown) = server.json("GET /admin/workers", &[]).await;
    let worker = |name: &str| {
        json!({
            "name": name, "state": "ready", "since_s": 0.0, "pid": null, "in_flight": 0, "gpus": [],
            "memory_bytes": null, "detail": "",
        })
    };
    let group = json!({
        "name": "main", "state": "ready", "models": ["echo", "gate"], "workers": [worker("main-0"), worker("main-1")],
        "min_workers": 1, "max_workers": 2, "needs": { "gpus": 1, "tokens": { "token": 2 } }, "queued": 0, "in_flight": 0,
        "oldest_wait_ms": null, "succeeded": 0, "failed": 0, "starts": 0, "restarts": 0, "start_time_ms": null,
        "wake_time_ms": null,
    });
    let objects = json!({
        "capacity_bytes": 100, "used_bytes": 25, "longest_free_bytes": 0, "objects": 0, "tensors": 0, "evicted": 0,
        "kept": [{ "worker": "main-0", "count": 3 }],
    });
    let expected = json!({
        "uptime_s": 0.0, "draining": false, "in_flight": 0, "safe_to_stop": false, "generation": 1, "groups": [group],
        "resources": [{ "name": "token", "total": 4, "used": 4 }], "objects": objects,
    });
    assert_eq!((status, shown), (200, expected));
}

#[tokio::test]
async fn every_order_reaches_the_replica_and_is_answered_when_it_is_done() {
    let server = start().await;
    for (path, order) in orders() {
        let (status, told) = server.json(&format!("POST {path}"), &[]).await;
        assert_eq!((status, &told["done"]), (200, &json!(true)), "{path}: {told}");
        assert_eq!(server.fake.orders().last(), Some(&order), "{path}");
    }
    assert_eq!(server.fake.orders().len(), orders().len());
}

#[tokio::test]
async fn an_order_is_not_answered_before_it_is_done_unless_it_is_not_waited_for() {
    let server = start().await;
    for (path, order) in orders() {
        server.fake.end_orders(None);
        let sign = if path.contains('?') { '&' } else { '?' };
        let (status, told) = server.json(&format!("POST {path}{sign}wait=false"), &[]).await;
        assert_eq!((status, &told["done"]), (202, &json!(false)), "{path}: {told}");
        assert_eq!(server.fake.orders().last(), Some(&order), "{path}");
        let fake = server.fake.clone();
        let end = async {
            until(|| fake.waiting() == 1).await;
            fake.end_orders(Some(Ok(())));
        };
        let whole = format!("POST {path}{sign}wait=true");
        let ((status, told), ()) = tokio::join!(server.json(&whole, &[]), end);
        assert_eq!((status, &told["done"]), (200, &json!(true)), "{path}: {told}");
    }
}

#[tokio::test]
async fn a_drain_says_what_is_in_flight_and_when_a_stop_loses_nothing() {
    let server = start().await;
    server.fake.end_orders(None);
    server.fake.change(|status| {
        status.groups[0].workers[0].state = "draining";
        status.groups[0].workers[0].in_flight = 3;
        status.groups[0].in_flight = 3;
    });
    let (_, told) = server.json("POST /admin/workers/main-0/drain?wait=false", &[]).await;
    assert_eq!((&told["in_flight"], &told["safe_to_stop"]), (&json!(3), &json!(false)));
    assert_eq!((&told["worker"]["name"], &told["worker"]["state"]), (&json!("main-0"), &json!("draining")));
    server.fake.change(|status| status.groups[0].workers[0].in_flight = 0);
    let (_, told) = server.json("POST /admin/workers/main-0/stop?wait=false", &[]).await;
    assert_eq!((&told["in_flight"], &told["safe_to_stop"]), (&json!(0), &json!(true)));
    let (_, told) = server.json("POST /admin/groups/main/drain?wait=false", &[]).await;
    assert_eq!((&told["in_flight"], &told["safe_to_stop"]), (&json!(3), &json!(false)));
    assert_eq!(told["group"]["name"], "main");
    server.fake.end_orders(Some(Ok(())));
    server.fake.change(|status| drop(status.groups[0].workers.remove(0)));
    let (_, told) = server.json("POST /admin/workers/main-0/drain", &[]).await;
    assert_eq!(told, json!({ "done": true, "in_flight": 0, "safe_to_stop": true, "worker": null }));
}

#[tokio::test]
async fn a_replica_is_safe_to_stop_when_the_last_answer_is_written_too() {
    let server = start().await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", vec![0; 4])).await });
    let fake = server.fake.clone();
    until(|| fake.has_seen()).await;
    // The replica itself has handed out all its answers; the ingress has not.
    fake.change(|status| (status.draining, status.safe_to_stop) = (true, true));
    let expected = json!({ "draining": true, "in_flight": 1, "safe_to_stop": false });
    assert_eq!(server.json("GET /admin/drain", &[]).await, (200, expected.clone()));
    let (status, mut told) = server.json("POST /admin/drain?wait=false", &[]).await;
    told.as_object_mut().unwrap().remove("done");
    assert_eq!((status, told), (202, expected));
    let open = async {
        until(|| fake.orders().len() == 2).await;
        fake.open_gate();
    };
    let ((status, told), ()) = tokio::join!(server.json("POST /admin/drain", &[]), open);
    let expected = json!({ "done": true, "draining": true, "in_flight": 0, "safe_to_stop": true });
    assert_eq!((status, told), (200, expected));
    assert!(watchdog(call).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_waiting_and_nothing_else() {
    let server = start().await;
    server.fake.end_orders(None);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /admin/groups/main/drain HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let fake = server.fake.clone();
    until(|| fake.waiting() == 1).await;
    drop(stream);
    until(|| fake.waiting() == 0).await;
    assert_eq!(fake.orders(), [Order::Drain { name: "main".into() }]);
    assert_eq!(server.json("GET /admin/drain", &[]).await.0, 200);
}

#[tokio::test]
async fn a_replica_that_leaves_keeps_nobody_waiting_for_an_order() {
    let server = start().await;
    server.fake.end_orders(None);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /admin/reload HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let fake = server.fake.clone();
    until(|| fake.waiting() == 1).await;
    server.begin_to_leave();
    let mut answer = String::new();
    watchdog(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("x-anyserve-code: DRAINING"), "{answer}");
}

#[tokio::test]
async fn what_the_replica_refuses_has_its_code_and_text_waited_for_or_not() {
    let server = start().await;
    for (code, status) in [(Code::NotFound, 404), (Code::Overloaded, 429), (Code::Unavailable, 503)] {
        server.fake.end_orders(Some(Err(Error::new(code, "there are main-0 and main-1"))));
        for wait in ["true", "false"] {
            let path = format!("POST /admin/workers/nobody/drain?wait={wait}");
            let answer = server.http(&path, &[]).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.contains(&format!("x-anyserve-code: {}", code.name())), "{answer}");
            assert!(answer.ends_with(r#"{"error":"there are main-0 and main-1"}"#), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_name_of_the_other_kind_is_told_where_it_belongs() {
    let server = start().await;
    let (status, told) = server.json("POST /admin/workers/main/drain", &[]).await;
    assert_eq!(
        (status, &told["error"]),
        (404, &json!("'main' is a group and no worker: its paths begin with /admin/groups/"))
    );
    let (status, told) = server.json("POST /admin/groups/main-1/scale?workers=1", &[]).await;
    assert_eq!((status, told["error"].as_str().unwrap().contains("/admin/workers/")), (404, true));
    assert_eq!(server.fake.orders(), []);
}

#[tokio::test]
async fn names_are_decoded_and_bounded() {
    let server = start().await;
    let ordered = async |path: String| {
        let (status, told) = server.json(&format!("POST {path}"), &[]).await;
        (status, told["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ordered("/admin/models/a%2Fb%20%C3%A9/load".into()).await.0, 200);
    assert_eq!(server.fake.orders(), [Order::Load { model: "a/b é".into(), workers: None }]);
    for (len, status) in [(1023, 200), (1024, 200), (1025, 400)] {
        let (answered, error) = ordered(format!("/admin/models/{}/unload", "x".repeat(len))).await;
        assert_eq!((answered, error.contains("1025 bytes, the limit is 1024")), (status, len == 1025), "{error}");
    }
    let (status, error) = ordered("/admin/models/%FF/load".into()).await;
    assert_eq!((status, error.starts_with("the name in the path: ")), (400, true), "{error}");
    assert_eq!(server.fake.orders().len(), 3);
}

#[tokio::test]
async fn a_number_of_workers_is_in_the_path_or_in_the_body() {
    let server = start().await;
    let scale = "/admin/groups/main/scale";
    let scaled = || match server.fake.orders().last() {
        Some(Order::Scale { workers, .. }) => *workers,
        other => panic!("{other:?}"),
    };
    assert_eq!((post(&server, scale, b"{\"workers\": 3}").await.0, scaled()), (200, 3));
    assert_eq!((post(&server, &format!("{scale}?workers=4"), b"{\"workers\": 3}").await.0, scaled()), (200, 4));
    for (path, body, part) in [
        ("", "", "how many workers is missing"),
        ("", "{\"workers\": -1}", "and not -1"),
        ("", "{\"count\": 1}", "'count'"),
        ("", "[", "the body: "),
        ("?workers=4294967296", "", "'4294967296'"),
        ("?wait=maybe", "", "'maybe'"),
        ("?worker=1", "", "'worker'"),
    ] {
        let (status, told) = post(&server, &format!("{scale}{path}"), body.as_bytes()).await;
        assert_eq!((status, told["error"].as_str().unwrap().contains(part)), (400, true), "{told}");
    }
    assert_eq!(server.fake.orders().len(), 2);
}

#[tokio::test]
async fn a_body_is_bounded() {
    let server = start().await;
    for (len, status) in [(4095, 200), (4096, 200), (4097, 400)] {
        let body = format!("{:len$}", "{\"workers\": 1}");
        let (answered, told) = post(&server, "/admin/groups/main/scale", body.as_bytes()).await;
        assert_eq!(answered, status, "{told}");
    }
}

#[tokio::test]
async fn only_an_administrator_sees_and_orders() {
    let admin_token = Some(AdminToken::from("secret".to_owned()));
    let server = start_with(ServerConfig { admin_token, ..ServerConfig::default() }).await;
    let paths: Vec<_> = orders().into_iter().map(|(path, _)| format!("POST {path}")).collect();
    let reads = ["GET /admin/workers".to_owned(), "GET /admin/drain".to_owned()];
    for path in paths.iter().chain(&reads) {
        let known = ("authorization", "Bearer secret");
        assert_eq!(server.json(path, &[]).await.0, 401, "{path}");
        assert_eq!(server.json(path, &[("authorization", "Bearer secre")]).await.0, 401, "{path}");
        assert_eq!(server.json(path, &[known, ("origin", "http://127.0.0.1")]).await.0, 403, "{path}");
        assert_eq!(server.fake.orders(), [], "{path}");
    }
    for path in paths.iter().chain(&reads) {
        assert_eq!(server.json(path, &[("authorization", "Bearer secret")]).await.0, 200, "{path}");
    }
    assert_eq!(server.fake.orders().len(), paths.len());
}

#[tokio::test]
async fn an_order_is_no_question() {
    let server = start().await;
    for (path, _) in orders().into_iter().filter(|(_, order)| *order != Order::DrainReplica) {
        assert!(server.http(&format!("GET {path}"), &[]).await.starts_with("HTTP/1.1 405"), "{path}");
    }
    assert_eq!(server.fake.orders(), []);
}
