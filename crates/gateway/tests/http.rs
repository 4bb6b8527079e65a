//! The registry and the pages over HTTP.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_cluster::{Event, RegistryConfig, Step, Trip};
use anyserve_core::Query;
use anyserve_gateway::GatewayConfig;
use anyserve_proto::v1::RegisterRequest;
use anyserve_server::AdminToken;
use serde_json::{Value, json};
use support::{Running, registration, start, start_with, watchdog};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const OFFER: &str = r#"{"capability": {"type": "x", "size": 7, "ratio": 0.5, "fast": true},
    "slots": 2, "load": {"ready": true, "pending": 3, "wait_us": 1500}}"#;

fn registered(id: &str, seq: u64) -> String {
    let host = format!("http://{id}:8000");
    format!(r#"{{"id": "{id}", "epoch": 1, "seq": {seq}, "endpoint": "{host}", "offers": [{OFFER}]}}"#)
}

async fn register(server: &Running, id: &str) {
    let (status, answer) = server.json("POST /register", &registered(id, 1)).await;
    assert_eq!((status, &answer["verdict"]), (200, &json!("accepted")));
}

#[tokio::test]
async fn a_replica_may_speak_json_throughout() {
    let server = start();
    let (status, answer) = server.json("POST /register", &registered("a", 1)).await;
    assert_eq!((status, answer), (200, json!({"verdict": "accepted", "heartbeat_ms": 1000, "lease_ms": 5000})));
    let beat =
        |seq| json!({"id": "a", "epoch": 1, "seq": seq, "registered": 1, "loads": [{"ready": true}]}).to_string();
    assert_eq!(server.json("POST /heartbeat", &beat(2)).await, (200, json!({"verdict": "accepted"})));
    assert_eq!(server.json("POST /heartbeat", &beat(2)).await, (200, json!({"verdict": "outdated", "latest": 2})));
    let (status, route) = server.json("GET /route?type=x&size=7", "").await;
    let capability = json!({"type": "x", "size": 7, "ratio": 0.5, "fast": true});
    assert_eq!((status, &route["endpoint"], &route["capability"]), (200, &json!("http://a:8000"), &capability));
    assert_eq!((&route["replica_id"], &route["epoch"]), (&json!("a"), &json!(1)));
    assert_eq!(server.json("DELETE /unregister?id=a&epoch=1", "").await, (200, json!({"verdict": "accepted"})));
    let left = r#"{"id": "a", "epoch": 0}"#;
    assert_eq!(server.json("DELETE /unregister", left).await.0, 200);
    let (status, answer) = server.json("POST /register", &registered("a", 9)).await;
    assert_eq!((status, &answer["verdict"], &answer["latest"]), (200, &json!("stale_epoch"), &json!(1)));
}

#[tokio::test]
async fn what_is_no_message_is_refused_with_the_place() {
    let server = start();
    for (request, body, part) in [
        ("POST /register", "{", "EOF"),
        ("POST /register", r#"{"id": "a", "epoch": 1, "seq": 1, "endpoint": "http://a:1"}"#, "offers"),
        ("POST /register", r#"{"id": "a", "epoch": 1, "seq": 1, "endpoint": "a:1", "offers": []}"#, "http://a:1"),
        ("POST /heartbeat", "[]", "line 1"),
        ("DELETE /unregister?id=a", "", "epoch"),
        ("GET /registry?type=x", "", "?capability=SELECTOR"),
        ("GET /registry?capability=x%3E", "", "position"),
        ("GET /route", "", "nothing is asked for"),
    ] {
        let (status, answer) = server.json(request, body).await;
        assert_eq!(status, 400, "{request}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!(server.json("GET /nothing", "").await.0, 404);
    assert_eq!(server.json("GET /register", "").await.0, 405);
}

#[tokio::test]
async fn everybody_is_listed_by_id_and_a_selector_leaves_out_who_does_not_match() {
    let server = start();
    let mut client = server.registry().await;
    for (id, kinds) in [("b", &["x"][..]), ("a", &["x", "y"]), ("c", &[])] {
        client.register(registration(id, 1, 1, kinds)).await.unwrap();
    }
    let ids = |listed: &Value| -> Vec<String> {
        listed["replicas"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let (_, listed) = server.json("GET /registry", "").await;
    assert_eq!(ids(&listed), ["a", "b", "c"]);
    let first = &listed["replicas"][0];
    assert_eq!((&first["health"], &first["draining"], &first["epoch"]), (&json!("up"), &json!(false), &json!(1)));
    assert!((1..=5000).contains(&first["lease_ms"].as_u64().unwrap()));
    assert_eq!(first["capabilities"][0]["capability"], json!({"type": "x"}));
    let (_, listed) = server.json("GET /registry?capability=type%3Dx", "").await;
    assert_eq!(ids(&listed), ["a", "b"]);
    assert_eq!(listed["replicas"][0]["capabilities"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_long_list_is_told_page_by_page() {
    let server = start();
    let mut client = server.registry().await;
    for (id, kinds) in [("b", &["x"][..]), ("a", &["x"]), ("c", &["y"]), ("d", &["x"])] {
        client.register(registration(id, 1, 1, kinds)).await.unwrap();
    }
    let page = async |query: &str| {
        let (_, listed) = server.json(&format!("GET /registry?{query}"), "").await;
        let ids = listed["replicas"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), listed["next"].as_str().map(str::to_owned), listed["count"].clone())
    };
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(page("limit=3").await, (owned(&["a", "b", "c"]), Some("c".into()), json!(4)));
    assert_eq!(page("limit=3&after=c").await, (owned(&["d"]), None, json!(4)));
    assert_eq!(page("limit=4").await, (owned(&["a", "b", "c", "d"]), None, json!(4)));
    assert_eq!(page("limit=2&capability=type%3Dx").await, (owned(&["a", "b"]), Some("b".into()), json!(4)));
    assert_eq!(page("limit=2&capability=type%3Dx&after=b").await.0, ["d"]);
    for (limit, status) in [("0", 400), ("1", 200), ("5000", 200), ("5001", 400), ("x", 400)] {
        assert_eq!(server.json(&format!("GET /registry?limit={limit}"), "").await.0, status, "{limit}");
    }
}

#[tokio::test]
async fn who_is_ejected_is_told_first_and_why() {
    let server = start();
    let mut client = server.registry().await;
    for id in ["a", "b", "c", "d"] {
        let said = registration(id, 1, 1, &["x"]);
        client.register(RegisterRequest { draining: id == "d", ..said }).await.unwrap();
    }
    server.fleet.with(|registry, now| {
        let handle = registry.view("b").unwrap().handle;
        registry.eject(handle, now);
        registry.blame(handle, "the connection was refused");
    });
    let status = first_status(&server).await;
    let ids: Vec<_> = status["replicas"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["b", "d", "a", "c"]);
    assert_eq!(status["states"], json!({"up": 2, "draining": 1, "ejected": 1, "probing": 0}));
    let (ejected, other) = (&status["replicas"][0], &status["replicas"][2]);
    let why = ejected["why"].as_str().unwrap();
    assert!(why.starts_with("the connection was refused; tried once in vain, it is asked again in 0."), "{why}");
    assert_eq!((&other["state"], &other["why"], &other["heard"]), (&json!("up"), &Value::Null, &json!("here")));
    let of_all = json!([{"capability": "type=x", "replicas": 4, "ready": 2, "cold": 0, "saturated": 0, "ejected": 1,
        "pending": 0, "wait_ms": 0.0}]);
    assert_eq!((&status["capabilities"], &status["more_capabilities"]), (&of_all, &json!(0)));
    let (_, listed) = server.json("GET /registry", "").await;
    assert_eq!(listed["replicas"][1]["state"], "ejected");
}

/// The first event of `/status`.
async fn first_status(server: &Running) -> Value {
    let mut stream = BufReader::new(TcpStream::connect(server.address).await.unwrap());
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(watchdog(stream.read_line(&mut line)).await.unwrap() > 0);
    }
    serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()
}

#[tokio::test]
async fn a_route_avoids_who_was_tried_and_says_why_there_is_none() {
    let server = start();
    let (status, answer) = server.json("GET /route?type=x", "").await;
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().contains("anyserve serve app:app --api-server URL"), "{answer}");
    register(&server, "a").await;
    register(&server, "b").await;
    let (_, route) = server.json("GET /route?type=x&avoid=a", "").await;
    assert_eq!(route["replica_id"], "b");
    assert_eq!(server.json("GET /route?model=x", "").await.0, 200, "a model name is a type where there is no model");
    let (status, answer) = server.json("GET /route?type=x&avoid=a&avoid=b", "").await;
    assert_eq!(status, 404);
    assert!(answer["error"].as_str().unwrap().contains("2 of which are to be avoided"), "{answer}");
    let (status, answer) = server.json("GET /route?model=xx", "").await;
    let message = "no replica serves model 'xx': did you mean 'x'? GET /registry lists what 2 replicas offer; \
                   GET /explain says why";
    assert_eq!((status, answer), (404, json!({ "error": message })));
}

#[tokio::test]
async fn replicas_from_elsewhere_need_the_token_and_pages_may_not_register() {
    let cluster_token = Some(AdminToken::from("secret".to_owned()));
    let server = start_with(GatewayConfig { cluster_token, ..GatewayConfig::default() }, RegistryConfig::default());
    let say = async |headers: &[(&str, &str)]| {
        let answer = server.http("POST /register", headers, &registered("a", 1)).await;
        answer[9..12].to_owned()
    };
    assert_eq!(say(&[("authorization", "Bearer other")]).await, "401");
    assert_eq!(say(&[("origin", "http://evil")]).await, "403");
    assert_eq!(say(&[("authorization", "Bearer secret")]).await, "200");
}

#[tokio::test]
async fn health_tells_of_replicas_and_store_and_turns_when_the_server_leaves() {
    let server = start();
    register(&server, "a").await;
    assert_eq!(server.json("GET /health/live", "").await, (200, json!({"live": true})));
    for path in ["/health", "/health/ready"] {
        let (status, health) = server.json(&format!("GET {path}"), "").await;
        assert_eq!((status, &health["ready"], &health["store"]), (200, &json!(true), &json!("memory")));
        assert_eq!(health["replicas"], json!({"up": 1, "ejected": 0, "probing": 0, "draining": 0}));
    }
}

#[tokio::test]
async fn metrics_count_replicas_messages_and_routed_requests() {
    let server = start();
    register(&server, "a").await;
    let call = anyserve_cluster::Call {
        query: Query::parse("type=x").unwrap(),
        keys: anyserve_cluster::policy::Keys::default(),
        deadline: None,
        trip: Trip::default(),
    };
    let (mut route, step) = server.fleet.begin(call.clone());
    assert!(matches!(step, Step::Send(_)));
    assert_eq!(server.fleet.on(&mut route, Event::Answered), Step::Over(Ok(())));
    let (mut route, _) = server.fleet.begin(call.clone());
    assert!(matches!(server.fleet.on(&mut route, Event::Unreached), Step::Over(Err(_))));
    let (_open, _) = server.fleet.begin(call);
    let metrics = server.http("GET /metrics", &[], "").await;
    for line in [
        r#"anyserve_replicas{health="up"} 0"#,
        r#"anyserve_replicas{health="ejected"} 1"#,
        "anyserve_replicas_draining 0",
        "anyserve_capabilities 1",
        "anyserve_registrations_total 1",
        "anyserve_heartbeats_total 0",
        "anyserve_leaves_total 0",
        "anyserve_expiries_total 0",
        "anyserve_ejections_total 1",
        r#"anyserve_routed_requests_total{code="OK"} 1"#,
        r#"anyserve_routed_requests_total{code="UNAVAILABLE"} 1"#,
        "anyserve_routed_requests_in_flight 1",
        "anyserve_routed_attempts_total 3",
        "anyserve_routed_delegations_total 0",
        "anyserve_routed_questions_total 0",
        "anyserve_routed_unreached_total 1",
        r#"anyserve_api_server{version=""#,
        r#"policy="least-wait"} 1"#,
        "anyserve_store_connected 1",
        "anyserve_draining 0",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn an_explanation_says_who_is_chosen_and_why_not_the_others() {
    let server = start();
    let (_, none) = server.json("GET /explain?type=x", "").await;
    assert_eq!((&none["decision"]["code"], &none["policy"]), (&json!("UNAVAILABLE"), &json!("least-wait")));
    let mut client = server.registry().await;
    client.register(registration("a", 1, 1, &["y", "x"])).await.unwrap();
    let (_, explained) = server.json("GET /explain?type=x", "").await;
    let decision = json!({"kind": "send", "replica": "a", "endpoint": "http://a:8000", "capability": "type=x"});
    assert_eq!((&explained["decision"], &explained["upgrade"]), (&decision, &Value::Null));
    let [first, second] = &explained["candidates"].as_array().unwrap()[..] else { panic!("{explained}") };
    assert_eq!(
        (&first["matches"], &first["chosen"], &first["standing"]),
        (&json!(true), &json!(true), &json!("ready"))
    );
    assert_eq!((&second["matches"], &second["why"]), (&json!(false), &json!("type=x is asked for, it has type=y")));
    let (_, tried) = server.json("GET /explain?name=z", "").await;
    assert_eq!(tried["decision"]["kind"], "try");
    assert_eq!(server.json("GET /explain", "").await.0, 400);
}

#[tokio::test]
async fn the_status_tells_all_replicas_once_a_second_and_ends_when_the_server_leaves() {
    let server = start();
    register(&server, "a").await;
    let mut stream = BufReader::new(TcpStream::connect(server.address).await.unwrap());
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let (mut line, mut rest) = (String::new(), String::new());
    while !line.starts_with("data: ") {
        line.clear();
        assert!(watchdog(stream.read_line(&mut line)).await.unwrap() > 0);
    }
    server.begin_to_leave();
    watchdog(stream.read_to_string(&mut rest)).await.unwrap();
    let line = line.strip_prefix("data: ").unwrap();
    let status: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&status["count"], &status["up"], &status["store"]), (&json!(1), &json!(1), &json!("memory")));
    let expected = json!([{"capability": "fast=true,ratio=0.5,size=7,type=x", "standing": "ready", "pending": 3,
        "wait_ms": 1.5}]);
    assert_eq!(status["replicas"][0]["capabilities"], expected);
}

#[tokio::test]
async fn the_page_and_its_files_are_there() {
    let server = start();
    for (path, part) in [("/", "<table id=\"replicas\">"), ("/fleet.js", "EventSource"), ("/status.css", ":root")] {
        let answer = server.http(&format!("GET {path}"), &[], "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(part), "{path}");
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{path}");
    }
}
