//! What API servers ask a replica before they send it the second attempt of a request.

use anyserve_core::{Catalog, Error, Query, Snapshot, matches_of};
use anyserve_proto::v1::replica_server::Replica as Asked;
use anyserve_proto::v1::serves_request::Query as Wanted;
use anyserve_proto::v1::{ServesRequest, ServesResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::status::status;
use crate::Upstream;

/// Answers from the upstream's catalog, each time anew.
#[derive(Clone, Debug)]
pub(super) struct Replica<S> {
    upstream: S,
    leaving: CancellationToken,
}

// === impl Replica ===

impl<S: Upstream> Replica<S> {
    pub(super) fn new(upstream: S, leaving: CancellationToken) -> Self {
        Self { upstream, leaving }
    }

    fn serves(&self, query: &Query, version: &str) -> bool {
        let catalog = self.upstream.catalog();
        let leaving = catalog.draining || self.leaving.is_cancelled();
        !leaving && serves(&catalog, &self.upstream.snapshot(), query, version)
    }
}

/// Whether something that matches takes requests. How busy it is makes no difference.
fn serves(catalog: &Catalog, inside: &Snapshot, query: &Query, version: &str) -> bool {
    let open = |place: usize| inside.capabilities.get(place).is_none_or(|load| !load.closed);
    let of_version = |place: usize| version.is_empty() || catalog.entries[place].handler.version() == version;
    let matches = matches_of(query, catalog.entries.iter().map(|entry| &entry.handler.capability));
    matches.into_iter().any(|found| of_version(found.index) && open(found.index))
}

#[tonic::async_trait]
impl<S: Upstream> Asked for Replica<S> {
    async fn serves(&self, request: Request<ServesRequest>) -> Result<Response<ServesResponse>, Status> {
        let ServesRequest { query, version } = request.into_inner();
        let query = wanted(query).map_err(|error| status(&error))?;
        Ok(Response::new(ServesResponse { serves: Self::serves(self, &query, &version) }))
    }
}

fn wanted(query: Option<Wanted>) -> Result<Query, Error> {
    match query {
        Some(Wanted::Selector(text)) => {
            Query::parse(&text).map_err(|error| Error::invalid(format!("selector: {error}")))
        }
        Some(Wanted::Model(name)) => Ok(Query::model(name)),
        None => Err(Error::invalid("nothing is asked for: give a selector or a model")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use anyserve_core::{Capability, CapabilityLoad, CatalogEntry, Handler, Value};

    fn catalog(capabilities: &[&[(&str, &str)]]) -> Catalog {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Value::Text((*value).to_owned()));
        let handler = |pairs: &&[(&str, &str)]| Handler::new(Capability::try_new(pairs.iter().map(pair)).unwrap());
        let entry = |pairs| CatalogEntry { handler: Arc::new(handler(pairs)), ready: false };
        Catalog { entries: capabilities.iter().map(entry).collect(), ..Catalog::default() }
    }

    #[test]
    fn what_matches_is_served_in_any_version_or_in_the_one_that_it_has() {
        let catalog = catalog(&[&[("type", "chat"), ("version", "2")], &[("type", "echo")]]);
        let asked =
            |selector, version| serves(&catalog, &Snapshot::default(), &Query::parse(selector).unwrap(), version);
        assert!(asked("type=chat", "") && asked("type=chat", "2") && asked("type=echo", "1"));
        assert!(!asked("type=chat", "1") && !asked("type=embed", ""));
        assert!(serves(&catalog, &Snapshot::default(), &Query::model("echo"), ""));
    }

    #[test]
    fn what_refuses_every_request_is_not_served_and_what_is_busy_is() {
        let catalog = catalog(&[&[("type", "chat")], &[("type", "chat"), ("size", "7")]]);
        let asked = |closed: [bool; 2]| {
            let load = |closed| CapabilityLoad { closed, saturated: true, ..CapabilityLoad::default() };
            let inside = Snapshot { capabilities: closed.map(load).into(), ..Snapshot::default() };
            serves(&catalog, &inside, &Query::parse("type=chat").unwrap(), "")
        };
        assert_eq!([[false, false], [true, false], [true, true]].map(asked), [true, true, false]);
    }

    #[test]
    fn a_question_without_a_query_is_an_error() {
        assert!(wanted(None).is_err() && wanted(Some(Wanted::Selector("a=".into()))).is_err());
        assert_eq!(wanted(Some(Wanted::Model("m".into()))), Ok(Query::model("m")));
    }
}
