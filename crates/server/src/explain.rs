//! What becomes of a request and why, as JSON: over HTTP, and in the metadata of an answer.
//!
//! ```text
//! {"query": "…", "decision": {"kind": "run", "worker": "…"}
//!                          | {"kind": "wait", "ahead": 3, "expected_wait_ms": 12.5}
//!                          | {"kind": "refuse", "code": "…", "message": "…", "retry_after_ms": 100},
//!  "candidates": [{"group", "capability", "function", "matches", "unmentioned" | "why", "health", "queued",
//!                  "max_queue", "in_flight", "workers", "expected_wait_ms", "chosen"}],
//!  "more": 7}                                              candidates that were left out, if there are any
//! ```

use std::time::Duration;

use anyserve_core::{Candidate, Decision, Explanation, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// Asks for the explanation of a request, and holds it in the answer.
pub(crate) const HEADER: &str = "x-anyserve-explain";

/// Bytes of metadata in one answer, names and a fixed cost for each included: gRPC clients commonly take 8 KiB of all
/// together. The rest is for what the transport adds.
const MAX_METADATA: usize = (8 << 10) - 512;

/// What one entry counts for beside its name and value.
///
/// Source: HTTP/2, `SETTINGS_MAX_HEADER_LIST_SIZE`.
const ENTRY: usize = 32;

/// Longest query and longest message in metadata, in bytes.
const MAX_TEXT: usize = 512;

/// Room for the brackets around the candidates, and for `more`.
const FRAME: usize = 64;

/// The whole explanation.
pub(crate) fn whole(explanation: &Explanation) -> String {
    let rows: Vec<_> = explanation.candidates.iter().map(candidate).collect();
    joined(&head(explanation, usize::MAX), &rows, 0)
}

/// Puts the explanation into the metadata of an answer: as much as there is room for, in printable ASCII.
///
/// Where there is not room for all, candidates that don't match are left out first, and the chosen one last.
pub(crate) fn put(headers: &mut HeaderMap, explanation: &Explanation) {
    let used: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ENTRY).sum();
    let room = MAX_METADATA.saturating_sub(used + HEADER.len() + ENTRY);
    if let Some(Ok(value)) = within(explanation, room).map(HeaderValue::try_from) {
        headers.insert(HeaderName::from_static(HEADER), value);
    }
}

/// The explanation in at most `room` bytes; `None` if not even the decision fits.
fn within(explanation: &Explanation, room: usize) -> Option<String> {
    let head = head(explanation, MAX_TEXT);
    let room = room.checked_sub(head.len() + FRAME)?;
    let all = &explanation.candidates;
    let mut rows = fitting(all.iter(), room);
    if rows.len() < all.len() {
        let matching = all.iter().filter(|candidate| matches!(candidate.verdict, Verdict::Matches { .. }));
        let (first, others): (Vec<_>, Vec<_>) = matching.partition(|candidate| candidate.chosen);
        rows = fitting(first.into_iter().chain(others), room);
    }
    Some(joined(&head, &rows, all.len() - rows.len()))
}

/// The first candidates that take no more than `room` bytes.
fn fitting<'a>(candidates: impl Iterator<Item = &'a Candidate>, mut room: usize) -> Vec<String> {
    let fits = |row: String| {
        room = room.checked_sub(row.len() + 1)?;
        Some(row)
    };
    candidates.map(candidate).map_while(fits).collect()
}

fn joined(head: &str, rows: &[String], more: usize) -> String {
    let more = if more == 0 { String::new() } else { format!(",\"more\":{more}") };
    format!("{head}\"candidates\":[{}]{more}}}", rows.join(","))
}

/// Query and decision, up to the comma before the candidates.
fn head(explanation: &Explanation, max: usize) -> String {
    let query = ascii(&json!(cut(&explanation.query, max)));
    let decision = ascii(&decision(&explanation.decision, max));
    format!("{{\"query\":{query},\"decision\":{decision},")
}

fn decision(decision: &Decision, max: usize) -> Value {
    match decision {
        Decision::Run { worker } => json!({ "kind": "run", "worker": worker }),
        Decision::Wait { ahead, expected } => {
            json!({ "kind": "wait", "ahead": ahead, "expected_wait_ms": ms(*expected) })
        }
        Decision::Refuse(error) => {
            let message = cut(&error.message, max);
            let mut refusal = json!({ "kind": "refuse", "code": error.code.name(), "message": message });
            if let Some(after) = error.retry_after {
                refusal["retry_after_ms"] = json!(ms(after));
            }
            refusal
        }
    }
}

fn candidate(candidate: &Candidate) -> String {
    let mut row = json!({
        "group": candidate.group,
        "capability": candidate.capability,
        "function": candidate.function,
        "health": candidate.health,
        "queued": candidate.queued,
        "max_queue": candidate.max_queue,
        "in_flight": candidate.in_flight,
        "workers": candidate.workers,
        "expected_wait_ms": ms(candidate.expected_wait),
        "chosen": candidate.chosen,
    });
    match &candidate.verdict {
        Verdict::Matches { unmentioned } => {
            row["matches"] = json!(true);
            row["unmentioned"] = json!(unmentioned);
        }
        Verdict::Differs { why } => {
            row["matches"] = json!(false);
            row["why"] = json!(why);
        }
    }
    ascii(&row)
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The JSON in printable ASCII, which metadata takes: any other character as JSON escapes it.
fn ascii(value: &Value) -> String {
    let text = value.to_string();
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            ' '..='~' => escaped.push(c),
            _ => escaped.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    escaped
}

fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Code, Error};

    fn row(place: usize, verdict: Verdict) -> Candidate {
        Candidate {
            group: "default".into(),
            capability: format!("model=m{place}"),
            function: "f".into(),
            verdict,
            health: "ready",
            queued: 1,
            max_queue: 2,
            in_flight: 3,
            workers: 4,
            expected_wait: Duration::from_micros(1500),
            chosen: place == 90,
        }
    }

    fn of(candidates: Vec<Candidate>, decision: Decision) -> Explanation {
        Explanation { query: "'type=é\u{7f}'".into(), candidates, decision }
    }

    fn run() -> Decision {
        Decision::Run { worker: "worker-0".into() }
    }

    fn matches(place: usize) -> Candidate {
        row(place, Verdict::Matches { unmentioned: 1 })
    }

    fn differs(place: usize) -> Candidate {
        row(place, Verdict::Differs { why: "type=x is asked for".into() })
    }

    fn read(text: &str) -> Value {
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_candidate_says_everything_and_why_it_does_not_match() {
        let read = read(&whole(&of(vec![matches(0), differs(1)], run())));
        assert_eq!(read["query"], "'type=é\u{7f}'");
        assert_eq!(read["decision"], json!({ "kind": "run", "worker": "worker-0" }));
        let expected = json!({
            "group": "default", "capability": "model=m0", "function": "f", "matches": true, "unmentioned": 1,
            "health": "ready", "queued": 1, "max_queue": 2, "in_flight": 3, "workers": 4, "expected_wait_ms": 1.5,
            "chosen": false,
        });
        assert_eq!(read["candidates"][0], expected);
        assert_eq!((&read["candidates"][1]["matches"], &read["more"]), (&json!(false), &Value::Null));
        assert_eq!(read["candidates"][1]["why"], "type=x is asked for");
    }

    #[test]
    fn a_wait_and_a_refusal_say_how_long() {
        let waits = Decision::Wait { ahead: 2, expected: Duration::from_millis(20) };
        let shown = read(&whole(&of(vec![], waits)));
        assert_eq!(shown["decision"], json!({ "kind": "wait", "ahead": 2, "expected_wait_ms": 20.0 }));
        let refused = Error::new(Code::Overloaded, "full").with_retry_after(Duration::from_millis(100));
        let shown = read(&whole(&of(vec![], Decision::Refuse(refused))));
        let expected = json!({ "kind": "refuse", "code": "OVERLOADED", "message": "full", "retry_after_ms": 100.0 });
        assert_eq!(shown["decision"], expected);
    }

    #[test]
    fn where_room_is_short_candidates_that_do_not_match_go_first_and_the_chosen_one_stays() {
        let candidates: Vec<_> =
            (0..100).map(|place| if place % 2 == 0 { matches(place) } else { differs(place) }).collect();
        let all = of(candidates, run());
        let room = whole(&all).len();
        assert_eq!(within(&all, room + FRAME).map(|text| read(&text)), Some(read(&whole(&all))));
        for room in [room - 1, 8000, 1000, 400] {
            let text = within(&all, room).unwrap();
            assert!(text.len() <= room, "{} of {room}", text.len());
            let read = read(&text);
            let shown = read["candidates"].as_array().unwrap();
            assert!(shown.iter().all(|row| row["matches"] == true));
            assert_eq!(shown.len() + usize::try_from(read["more"].as_u64().unwrap()).unwrap(), 100);
            assert!(shown.first().is_none_or(|row| row["chosen"] == true));
        }
        assert_eq!(within(&all, 60), None);
    }

    #[test]
    fn metadata_stay_small_whatever_is_said() {
        let message = "\u{1}".repeat(100_000);
        let mut explanation = of(vec![matches(0)], Decision::Refuse(Error::invalid(message.clone())));
        explanation.query = message;
        let mut headers = HeaderMap::new();
        put(&mut headers, &explanation);
        assert!(headers[HEADER].len() <= MAX_METADATA);
        headers.insert("x-other", HeaderValue::from_str(&"x".repeat(MAX_METADATA)).unwrap());
        headers.remove(HEADER);
        put(&mut headers, &explanation);
        assert!(!headers.contains_key(HEADER));
    }
}
