//! From a query to the handler that serves it.

use std::collections::HashMap;
use std::sync::Arc;

use anyserve_core::{Capability, Catalog, CatalogEntry, Code, Error, Handler, Query, matches_of};
use anyserve_sched::GroupId;

use crate::statistics::Counters;

/// A handler and where its workers are.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) group: GroupId,
    /// Its place in the group's handler table.
    pub(crate) index: usize,
    pub(crate) handler: Arc<Handler>,
    pub(crate) version: String,
    pub(crate) counters: Arc<Counters>,
}

/// Every handler of the replica; replaced as a whole when workers announce other ones.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
    /// What each model name comes to, so that a request that names one need not search.
    by_model: HashMap<String, Arc<Route>>,
}

// === impl Routes ===

impl Routes {
    /// The routes to one group's handlers.
    pub(crate) fn new(group: GroupId, handlers: &[Arc<Handler>]) -> Self {
        let route = |(index, handler): (usize, &Arc<Handler>)| {
            let (handler, version) = (Arc::clone(handler), handler.version());
            Arc::new(Route { group, index, handler, version, counters: Arc::default() })
        };
        let mut routes = Self { routes: handlers.iter().enumerate().map(route).collect(), by_model: HashMap::new() };
        routes.by_model = routes
            .names()
            .filter_map(|name| Some((routes.search_version(&Query::model(&name), "")?, name)))
            .map(|(route, name)| (name, route))
            .collect();
        routes
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let keys = |route: &Arc<Route>| {
            let value = |key| route.handler.capability.get(key).map(ToString::to_string);
            [value("model"), value("type")]
        };
        self.routes.iter().flat_map(keys).flatten()
    }

    /// The route that a query comes to: the most specific match and, among several, one of the asked-for version.
    ///
    /// # Errors
    /// `NO_CAPABILITY` if nothing matches.
    pub(crate) fn find(&self, query: &Query, version: &str) -> Result<Arc<Route>, Error> {
        let found = match query {
            Query::Model(name) if version.is_empty() => self.by_model.get(name).cloned(),
            query => self.search_version(query, version),
        };
        found.ok_or_else(|| self.none(query))
    }

    fn search_version(&self, query: &Query, version: &str) -> Option<Arc<Route>> {
        let found = matches_of(query, self.routes.iter().map(|route| &route.handler.capability));
        let versioned = found.iter().find(|found| self.routes[found.index].version == version);
        versioned.or(found.first()).map(|found| Arc::clone(&self.routes[found.index]))
    }

    fn none(&self, query: &Query) -> Error {
        let served: Vec<_> = self.routes.iter().take(20).map(|route| route.handler.capability.to_string()).collect();
        let served = served.join(" | ");
        let message = match query {
            Query::Model(name) => format!("Request for unknown model: '{name}' is not found; served here: {served}"),
            Query::All(_) => format!("no capability matches {query}; served here: {served}"),
        };
        Error::new(Code::NoCapability, message)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<Route>> {
        self.routes.get(index)
    }

    /// Every route, in the order of the catalog.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(Arc::as_ref)
    }

    /// What the routes serve, in the order of the catalog.
    pub(crate) fn capabilities(&self) -> impl Iterator<Item = &Capability> + Clone {
        self.routes.iter().map(|route| &route.handler.capability)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The catalog that these routes make.
    pub(crate) fn catalog(&self, ready: bool, draining: bool, version: u64) -> Catalog {
        let entry = |route: &Arc<Route>| CatalogEntry { handler: Arc::clone(&route.handler), ready };
        Catalog { entries: self.routes.iter().map(entry).collect(), draining, version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Value};

    fn routes(capabilities: &[&[(&str, &str)]]) -> Routes {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Value::Text((*value).to_owned()));
        let handler =
            |pairs: &&[(&str, &str)]| Arc::new(Handler::new(Capability::try_new(pairs.iter().map(pair)).unwrap()));
        Routes::new(GroupId(0), &capabilities.iter().map(handler).collect::<Vec<_>>())
    }

    #[test]
    fn the_shortcut_by_model_name_gives_what_the_definition_gives() {
        let routes = routes(&[&[("type", "chat"), ("model", "echo")], &[("type", "echo")], &[("type", "chat")]]);
        for name in ["echo", "chat", "nothing"] {
            let (short, long) = (routes.find(&Query::model(name), ""), routes.search_version(&Query::model(name), ""));
            assert_eq!(short.ok().map(|route| route.index), long.map(|route| route.index), "{name}");
        }
        let error = routes.find(&Query::model("nothing"), "").unwrap_err();
        assert_eq!(error.code, Code::NoCapability);
        assert!(error.message.starts_with("Request for unknown model: 'nothing'"), "{}", error.message);
    }
}
