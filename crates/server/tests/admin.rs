//! `/admin` from outside.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_server::{AdminToken, ServerConfig};
use serde_json::json;
use support::{Running, start, start_with};

const LIST: &str = "GET /admin/quarantine";
const CLEAR: &str = "DELETE /admin/quarantine";

async fn with_token() -> Running {
    let admin_token = Some(AdminToken::from("secret".to_owned()));
    start_with(ServerConfig { admin_token, ..ServerConfig::default() }).await
}

#[tokio::test]
async fn what_is_quarantined_is_listed_and_released_one_by_one_or_all_at_once() {
    let server = start().await;
    for fingerprint in 1..=4 {
        server.fake.quarantine(fingerprint, "echo");
    }
    let (status, listed) = server.json(LIST, &[]).await;
    let expected = json!({
        "fingerprint": "0000000000000001", "model": "echo", "deaths": 2, "refused": 7, "remaining_s": 1.5,
    });
    assert_eq!((status, &listed["quarantined"][0]), (200, &expected));
    assert_eq!(server.json(&format!("{CLEAR}/0000000000000002"), &[]).await, (200, json!({ "released": 1 })));
    assert_eq!(server.json(CLEAR, &[]).await, (200, json!({ "released": 3 })));
    assert_eq!(server.json(CLEAR, &[]).await, (200, json!({ "released": 0 })));
    assert_eq!(server.json(LIST, &[]).await, (200, json!({ "quarantined": [] })));
}

#[tokio::test]
async fn a_fingerprint_that_is_none_or_not_there_is_named() {
    let server = start().await;
    server.fake.quarantine(1, "echo");
    let (status, answer) = server.json(&format!("{CLEAR}/0000000000000009"), &[]).await;
    assert_eq!((status, answer), (404, json!({ "error": "0000000000000009 is not quarantined" })));
    let (status, answer) = server.json(&format!("{CLEAR}/all"), &[]).await;
    assert_eq!((status, answer), (400, json!({ "error": "'all' is no fingerprint: it has 16 hexadecimal digits" })));
    assert!(server.http("POST /admin/quarantine", &[]).await.starts_with("HTTP/1.1 405"));
    assert_eq!(server.fake_quarantined(), 1);
}

#[tokio::test]
async fn a_configured_token_is_needed_although_the_client_is_on_this_machine() {
    let server = with_token().await;
    server.fake.quarantine(1, "echo");
    let one = format!("{CLEAR}/0000000000000001");
    for request in [LIST, CLEAR, &one] {
        for headers in [&[][..], &[("authorization", "Bearer secre")]] {
            let answer = server.http(request, headers).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            assert!(answer.contains("www-authenticate: Bearer") && answer.contains("x-anyserve-code: UNAUTHENTICATED"));
            assert!(!answer.contains("secre"), "{answer}");
        }
    }
    assert_eq!(server.fake_quarantined(), 1);
    let (status, _) = server.json(LIST, &[("authorization", "Bearer secret")]).await;
    assert_eq!(status, 200);
    let released = server.json(&one, &[("authorization", "Bearer secret")]).await;
    assert_eq!(released, (200, json!({ "released": 1 })));
}

#[tokio::test]
async fn a_web_page_cannot_release_anything() {
    for server in [start().await, with_token().await] {
        server.fake.quarantine(1, "echo");
        let headers = [("origin", "http://127.0.0.1"), ("authorization", "Bearer secret")];
        let (status, answer) = server.json(CLEAR, &headers).await;
        assert_eq!(status, 403);
        assert!(answer["error"].as_str().unwrap().contains("Origin"), "{answer}");
        assert_eq!(server.fake_quarantined(), 1);
    }
}
