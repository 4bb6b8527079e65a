//! From a query to the handler that serves it.

use std::sync::Arc;

use anyserve_core::{Capability, Catalog, CatalogEntry, Code, Error, Handler, Index, Names, Query, Upgrades};
use anyserve_sched::GroupId;

use crate::group::WorkerGroup;
use crate::statistics::Counters;

/// A handler and where its workers are.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) group: Arc<WorkerGroup>,
    /// Its place in the group's handler table.
    pub(crate) index: usize,
    /// Its place in the catalog.
    pub(crate) place: usize,
    pub(crate) handler: Arc<Handler>,
    pub(crate) version: String,
    pub(crate) counters: Arc<Counters>,
}

/// Every handler of the replica; replaced as a whole when workers announce other ones.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
    index: Index,
}

/// The routes that suit a request alike; at least one.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    routes: &'a [Arc<Route>],
    found: Arc<[u32]>,
    /// Only routes of this version are meant.
    version: Option<&'a str>,
}

// === impl Routes ===

impl Routes {
    /// The routes to these groups' handlers. What was counted of a capability before goes on.
    pub(crate) fn new(groups: &[Arc<WorkerGroup>], before: &Self) -> Self {
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for group in groups {
            for (index, handler) in group.handlers.iter().enumerate() {
                let (group, handler) = (Arc::clone(group), Arc::clone(handler));
                let (place, version, counters) = (routes.len(), handler.version(), before.counters(&handler));
                routes.push(Arc::new(Route { group, index, place, handler, version, counters }));
            }
        }
        let index = Index::new(routes.iter().map(|route| &route.handler.capability));
        Self { routes, index }
    }

    fn counters(&self, handler: &Handler) -> Arc<Counters> {
        let same = self.routes.iter().find(|route| route.handler.capability == handler.capability);
        same.map(|route| Arc::clone(&route.counters)).unwrap_or_default()
    }

    /// The routes that a query comes to: the most specific matches of the asked-for version. Where no match is of that
    /// version, they are the most specific of all, so that the check of the request can say which version there is.
    ///
    /// # Errors
    /// `NO_CAPABILITY` if nothing matches.
    pub(crate) fn candidates<'a>(&'a self, query: &Query, version: &'a str) -> Result<Candidates<'a>, Error> {
        let best = Candidates { routes: &self.routes, found: self.index.best(query), version: None };
        if best.found.is_empty() {
            return Err(self.none(query));
        }
        if version.is_empty() || best.iter().all(|route| route.version == version) {
            return Ok(best);
        }
        if best.iter().any(|route| route.version == version) {
            return Ok(Candidates { version: Some(version), ..best });
        }
        let found = self.index.best_where(query, |place| at(&self.routes, place).version == version);
        Ok(if found.is_empty() { best } else { Candidates { found, ..best } })
    }

    fn none(&self, query: &Query) -> Error {
        let served: Vec<_> = self.routes.iter().take(20).map(|route| route.handler.capability.to_string()).collect();
        let served = served.join(" | ");
        let mut names = Names::default();
        self.capabilities().for_each(|capability| names.add(capability));
        let meant = names.meant(query).map_or(";".to_owned(), |meant| format!(": did you mean '{meant}'?"));
        let message = match query {
            Query::Model(name) => {
                format!("Request for unknown model: '{name}' is not found{meant} served here: {served}")
            }
            Query::All(_) => format!("no capability matches {query}{meant} served here: {served}"),
        };
        Error::new(Code::NoCapability, message)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Arc<Route>> {
        self.routes.get(place)
    }

    /// The route to a handler of a group.
    pub(crate) fn of(&self, group: GroupId, index: usize) -> Option<&Route> {
        self.all().find(|route| route.group.id == group && route.index == index)
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

    /// What a request may become that none of these routes serves: the rules of the app that they are of.
    pub(crate) fn upgrades(&self) -> Upgrades {
        self.all().next().map_or_else(Upgrades::default, |route| route.group.app.upgrades.clone())
    }

    /// The catalog that these routes make.
    pub(crate) fn catalog(&self, ready: impl Fn(&WorkerGroup) -> bool, draining: bool, version: u64) -> Catalog {
        let entry =
            |route: &Arc<Route>| CatalogEntry { handler: Arc::clone(&route.handler), ready: ready(&route.group) };
        let entries = self.routes.iter().map(entry).collect();
        Catalog { entries, upgrades: self.upgrades(), draining, version }
    }
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    /// Each of them, in the order of the catalog.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Arc<Route>> {
        let (routes, version) = (self.routes, self.version);
        let all = self.found.iter().map(move |place| at(routes, *place));
        all.filter(move |route| version.is_none_or(|version| route.version == version))
    }
}

fn at(routes: &[Arc<Route>], place: u32) -> &Arc<Route> {
    &routes[usize::try_from(place).expect("it is a place of this list")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use anyserve_core::{GroupSpec, Value};

    fn routes(capabilities: &[&[(&str, &str)]]) -> Routes {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Value::Text((*value).to_owned()));
        let handler = |pairs: &&[(&str, &str)]| Handler::new(Capability::try_new(pairs.iter().map(pair)).unwrap());
        let spec = GroupSpec::new("default", capabilities.iter().map(handler).collect());
        let group = WorkerGroup::new(GroupId(0), spec, &App::for_tests(), 1);
        Routes::new(&[Arc::new(group)], &Routes::default())
    }

    fn candidates(routes: &Routes, query: &Query, version: &str) -> Vec<usize> {
        let found: Vec<_> = routes.candidates(query, version).unwrap().iter().map(|route| route.index).collect();
        found
    }

    #[test]
    fn all_that_match_best_are_candidates() {
        let list: [&[_]; 4] =
            [&[("type", "echo")], &[("type", "chat"), ("model", "a")], &[("type", "chat")], &[("type", "chat")]];
        let routes = routes(&list);
        assert_eq!(candidates(&routes, &Query::model("chat"), ""), [2, 3]);
        assert_eq!(candidates(&routes, &Query::model("a"), ""), [1]);
        assert_eq!(candidates(&routes, &Query::all(vec![]), ""), [0, 2, 3]);
    }

    #[test]
    fn a_version_is_looked_for_among_the_best_then_among_all_that_match() {
        let one: &[_] = &[("model", "a"), ("version", "1")];
        let two: &[_] = &[("model", "a"), ("version", "2")];
        let routes = routes(&[one, two, &[("model", "a"), ("version", "3"), ("gpu", "yes")], two, &[("model", "b")]]);
        let query = Query::model("a");
        assert_eq!(candidates(&routes, &query, ""), [0, 1, 3]);
        assert_eq!(candidates(&routes, &query, "2"), [1, 3]);
        assert_eq!(candidates(&routes, &query, "3"), [2], "less specific, but of that version");
        assert_eq!(candidates(&routes, &query, "4"), [0, 1, 3], "the check of the request names what there is");
        assert_eq!(candidates(&routes, &Query::model("b"), "1"), [4], "1 is the version of what names none");
    }

    #[test]
    fn what_nothing_matches_is_an_error_that_names_what_is_served() {
        let routes = routes(&[&[("type", "chat"), ("model", "echo")], &[("type", "embed")]]);
        let error = routes.candidates(&Query::model("nothing"), "").unwrap_err();
        assert_eq!(error.code, Code::NoCapability);
        let message =
            "Request for unknown model: 'nothing' is not found; served here: model=echo,type=chat | type=embed";
        assert_eq!(error.message, message);
        let error = routes.candidates(&Query::model("ecoh"), "").unwrap_err();
        let message = "Request for unknown model: 'ecoh' is not found: did you mean 'echo'? \
                       served here: model=echo,type=chat | type=embed";
        assert_eq!(error.message, message);
        let error = routes.candidates(&Query::parse("type=code").unwrap(), "2").unwrap_err();
        assert_eq!(error.message, "no capability matches 'type=code'; served here: model=echo,type=chat | type=embed");
    }
}
