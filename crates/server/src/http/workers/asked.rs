//! What a request of an administrator says: the name in its path, the pairs after it, and its body.

use std::time::Duration;

use anyserve_core::{Code, Error, Status};
use axum::RequestExt;
use axum::body::Body;
use axum::extract::{Path, Query, Request};
use serde_json::Value;

use super::other_kind;
use crate::orders;

/// Longest body, in bytes.
const MAX_BODY: usize = 4096;

/// How long a body may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const NO_WORKERS: &str = "how many workers is missing: add ?workers=2, or send the body {\"workers\": 2}";

/// A request as it was read. Names are not known to be of anything yet.
#[derive(Debug)]
pub(super) struct Asked {
    /// The name in the path; empty if the path has none.
    pub(super) name: String,
    /// How many workers are asked for.
    pub(super) workers: Option<u32>,
    /// Whether the order is waited for.
    pub(super) wait: bool,
    /// What there is.
    status: Status,
}

// === impl Asked ===

impl Asked {
    /// Reads a request. A number of workers after the path wins over that of the body.
    ///
    /// # Errors
    /// `INVALID_INPUT` that names what cannot be read; `DEADLINE` if the body does not arrive.
    pub(super) async fn read(mut request: Request, status: Status) -> Result<Self, Error> {
        let has_name = request.uri().path().split('/').count() > 3;
        let name = if has_name { name(&mut request).await? } else { String::new() };
        let mut asked = Self { name, workers: None, wait: true, status };
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
        for (key, value) in pairs.map_err(|error| Error::invalid(format!("the URL's query: {error}")))?.0 {
            asked.pair(&key, &value)?;
        }
        let of_body = of_body(&body(request.into_body()).await?)?;
        asked.workers = asked.workers.or(of_body);
        Ok(asked)
    }

    /// The name, which may be of a worker.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is a group's.
    pub(super) fn worker(self) -> Result<String, Error> {
        let (is_worker, is_group) = self.kinds();
        if is_group && !is_worker { Err(other_kind(&self.name, "group", "worker")) } else { Ok(self.name) }
    }

    /// The name, which may be of a group.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is a worker's.
    pub(super) fn group(self) -> Result<String, Error> {
        let (is_worker, is_group) = self.kinds();
        if is_worker && !is_group { Err(other_kind(&self.name, "worker", "group")) } else { Ok(self.name) }
    }

    fn kinds(&self) -> (bool, bool) {
        let (groups, mut workers) = (&self.status.groups, self.status.groups.iter().flat_map(|group| &group.workers));
        (workers.any(|worker| worker.name == self.name), groups.iter().any(|group| group.name == self.name))
    }

    fn pair(&mut self, key: &str, value: &str) -> Result<(), Error> {
        match (key, value) {
            ("wait", "true") => self.wait = true,
            ("wait", "false") => self.wait = false,
            ("wait", _) => return Err(Error::invalid(format!("wait is true or false, and not '{value}'"))),
            ("workers", _) => self.workers = Some(value.parse().map_err(|_| no_number(&format!("'{value}'")))?),
            _ => return Err(Error::invalid(format!("there is no option '{key}'; there are wait and workers"))),
        }
        Ok(())
    }
}

async fn name(request: &mut Request) -> Result<String, Error> {
    let Path(name) = request
        .extract_parts::<Path<String>>()
        .await
        .map_err(|rejection| Error::invalid(format!("the name in the path: {}", rejection.body_text())))?;
    orders::check_name(&name).map(|()| name)
}

async fn body(body: Body) -> Result<Vec<u8>, Error> {
    let whole = tokio::time::timeout(TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await;
    let whole = whole.map_err(|_| Error::new(Code::Deadline, "the request's body did not arrive"))?;
    whole.map(Vec::from).map_err(|error| Error::invalid(format!("the body, of {MAX_BODY} bytes at most: {error}")))
}

/// The number of workers in a body.
pub(in crate::http) fn of_body(body: &[u8]) -> Result<Option<u32>, Error> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| Error::invalid(format!("the body: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(Error::invalid("the body is no JSON object such as {\"workers\": 2}"));
    };
    if let Some(key) = fields.keys().find(|key| *key != "workers") {
        return Err(Error::invalid(format!("there is no option '{key}' in the body; there is workers")));
    }
    fields.get("workers").map(number).transpose()
}

fn number(value: &Value) -> Result<u32, Error> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| no_number(&value.to_string()))
}

fn no_number(value: &str) -> Error {
    Error::invalid(format!("workers is a whole number from 0 to {}, and not {value}", u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(body: &str) -> String {
        let error = of_body(body.as_bytes()).unwrap_err();
        assert_eq!(error.code, Code::InvalidInput);
        error.message
    }

    #[test]
    fn a_body_has_a_number_of_workers_or_nothing() {
        assert_eq!(of_body(b" \r\n"), Ok(None));
        assert_eq!(of_body(b"{}"), Ok(None));
        assert_eq!(of_body(b"{\"workers\": 0}"), Ok(Some(0)));
        assert_eq!(of_body(b"{\"workers\": 4294967295}"), Ok(Some(u32::MAX)));
    }

    #[test]
    fn a_body_that_says_something_else_is_refused_by_name() {
        for number in ["4294967296", "-1", "1.5", "\"2\"", "null", "[]"] {
            assert!(refused(&format!("{{\"workers\": {number}}}")).ends_with(&format!("and not {number}")), "{number}");
        }
        assert!(refused("{\"worker\": 1}").contains("'worker'"));
        assert!(refused("[1]").contains("no JSON object"));
        assert!(refused("{").contains("the body: "));
    }

    proptest! {
        #[test]
        fn no_body_is_too_odd_to_be_answered(body: Vec<u8>) {
            let _ = of_body(&body);
        }
    }
}
