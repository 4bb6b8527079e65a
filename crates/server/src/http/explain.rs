//! `/explain`: what would become of a request, without one being made.

use std::sync::Weak;
use std::time::Instant;

use anyserve_core::{Condition, Error, Expects, Query, Request, Schedule};
use axum::extract::Query as Pairs;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};

use super::{JSON, at_once};
use crate::grpc::Metadata;
use crate::route::App;
use crate::{Upstream, explain};

/// What the pairs of a URL ask for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    /// `name=`: a model name. The last one counts.
    model: String,
    /// `selector=`, and `key = value` for any other pair, all of which must hold.
    conditions: Vec<Condition>,
}

pub(super) fn router<S: Upstream>(app: &Weak<App<S>>) -> Router {
    let explain = at_once(app, |app, asked| explained(app, asked.uri(), asked.headers()));
    Router::new().route("/explain", get(explain))
}

fn explained<S: Upstream>(app: &App<S>, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    let explanation = app.upstream.explain(&request(uri, headers)?);
    Ok(([(CONTENT_TYPE, JSON)], explain::whole(&explanation)).into_response())
}

/// The request that is asked about. As on a request, headers win over the rest, and the model's name comes last.
///
/// # Errors
/// `INVALID_INPUT` for what a request would be refused for before it is matched, and if nothing is asked for.
pub(super) fn request(uri: &Uri, headers: &HeaderMap) -> Result<Request, Error> {
    let metadata = Metadata::read(headers, Instant::now())?;
    let asked = Asked::read(uri)?;
    let query = metadata.query().unwrap_or_else(|| match asked.conditions {
        conditions if conditions.is_empty() => Query::model(&asked.model),
        conditions => Query::all(conditions),
    });
    let Metadata { deadline, headers, .. } = metadata;
    if query == Query::model("") {
        return Err(Error::invalid("nothing is asked for: give conditions such as type=chat, a selector=, or a name="));
    }
    let request = Request {
        id: String::new(),
        model: asked.model,
        version: String::new(),
        query,
        inputs: Vec::new(),
        outputs: Vec::new(),
        destinations: Vec::new(),
        parameters: Vec::new(),
        headers,
        deadline,
        // So that capabilities that answer with a stream are not refused for it.
        expects: Expects::Many,
    };
    Schedule::of(&request)?;
    Ok(request)
}

// === impl Asked ===

impl Asked {
    fn read(uri: &Uri) -> Result<Self, Error> {
        let pairs: Pairs<Vec<(String, String)>> =
            Pairs::try_from_uri(uri).map_err(|error| Error::invalid(format!("the URL's query: {error}")))?;
        let mut asked = Self::default();
        for (key, value) in pairs.0 {
            match key.as_str() {
                "name" => asked.model = value,
                "selector" => asked.conditions.extend(selected(&value)?),
                _ => asked.conditions.push(Condition::equals(key, value)),
            }
        }
        Ok(asked)
    }
}

fn selected(selector: &str) -> Result<Vec<Condition>, Error> {
    match Query::parse(selector).map_err(|error| Error::invalid(error.to_string()))? {
        Query::All(conditions) => Ok(conditions.to_vec()),
        Query::Model(_) => Err(Error::internal("a selector is no model name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::Code;

    fn query(uri: &str, pairs: &[(&'static str, &'static str)]) -> Result<Query, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        request(&uri.parse().unwrap(), &headers).map(|request| request.query)
    }

    #[test]
    fn pairs_are_conditions_and_a_selector_adds_its_own() {
        let expected = Query::equal_to([("type", "a b"), ("model", "é&")]);
        assert_eq!(query("/explain?type=a+b&model=%C3%A9%26", &[]), Ok(expected));
        let expected = Query::parse("type=chat,size>=7,!beta").unwrap();
        assert_eq!(query("/explain?type=chat&selector=size%3E%3D7,!beta&name=x", &[]), Ok(expected));
        assert_eq!(query("/explain?name=x", &[]), Ok(Query::model("x")));
    }

    #[test]
    fn headers_win_as_they_do_on_a_request() {
        let read = query("/explain?type=chat", &[("x-capability-type", "embed"), ("x-tenant", "a")]);
        assert_eq!(read, Ok(Query::equal_to([("type", "embed")])));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_position() {
        let refused = |uri, pairs: &[_]| {
            let error = query(uri, pairs).unwrap_err();
            assert_eq!(error.code, Code::InvalidInput);
            error.message
        };
        assert!(refused("/explain?selector=size%3E%3D", &[]).contains("position 6"));
        assert!(refused("/explain?type=a", &[("x-priority", "9")]).contains('9'));
        assert!(refused("/explain", &[]).contains("nothing is asked for"));
    }
}
