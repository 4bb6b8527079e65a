//! What the query of a URL asks for.

use std::sync::Arc;

use anyserve_cluster::policy::Keys;
use anyserve_core::{Condition, Error, Query};
use axum::extract::Query as UrlQuery;
use http::Uri;

use super::read;

/// Pairs of a URL: `model=`, `selector=`, `session=`, `avoid=` (more than once), and `key=value` of a capability for any
/// other one, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pairs {
    model: String,
    conditions: Vec<Condition>,
    session: String,
    avoid: Vec<String>,
}

// === impl Pairs ===

impl Pairs {
    /// Reads the pairs; `name` is what stands for the model name.
    ///
    /// # Errors
    /// `INVALID_INPUT` for what is no query of a URL, or no selector.
    pub(crate) fn read(uri: &Uri, name: &str) -> Result<Self, Error> {
        let pairs: UrlQuery<Vec<(String, String)>> =
            UrlQuery::try_from_uri(uri).map_err(|error| Error::invalid(format!("the URL's query: {error}")))?;
        let mut read = Self::default();
        for (key, value) in pairs.0 {
            match key.as_str() {
                key if key == name => read.model = value,
                "selector" => read.conditions.extend(conditions(&value)?),
                "session" => read.session = value,
                "avoid" => read.avoid.push(value),
                _ => read.conditions.push(Condition::equals(key, value)),
            }
        }
        Ok(read)
    }

    /// What is asked for. Conditions go before a model name.
    ///
    /// # Errors
    /// `INVALID_INPUT` if nothing is.
    pub(crate) fn query(&self) -> Result<Query, Error> {
        match (self.conditions.is_empty(), self.model.is_empty()) {
            (false, _) => Ok(Query::all(self.conditions.clone())),
            (true, false) => Ok(Query::model(&self.model)),
            (true, true) => Err(Error::invalid(
                "nothing is asked for: give conditions such as type=chat, a selector=, or a model name",
            )),
        }
    }

    /// What policies keep together.
    pub(crate) fn keys(&self) -> Keys {
        Keys::new(Some(&self.session), None)
    }

    /// Who was tried in vain.
    ///
    /// # Errors
    /// `INVALID_INPUT` if there are too many.
    pub(crate) fn avoid(&self) -> Result<Vec<Arc<str>>, Error> {
        read::avoid(self.avoid.clone())
    }
}

/// The conditions of a selector.
pub(crate) fn conditions(selector: &str) -> Result<Vec<Condition>, Error> {
    match Query::parse(selector).map_err(|error| Error::invalid(error.to_string()))? {
        Query::All(conditions) => Ok(conditions.to_vec()),
        Query::Model(_) => Err(Error::internal("a selector is no model name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::Code;

    fn pairs(uri: &str) -> Result<Pairs, Error> {
        Pairs::read(&uri.parse().unwrap(), "model")
    }

    #[test]
    fn any_pair_is_a_condition_but_those_that_have_a_meaning() {
        let read = pairs("/route?type=a+b&selector=size%3E%3D7,!beta&session=s&avoid=a&avoid=b&model=m").unwrap();
        assert_eq!(read.query(), Ok(Query::parse("type=\"a b\",size>=7,!beta").unwrap()));
        assert_eq!(read.keys(), Keys::new(Some("s"), None));
        assert_eq!(read.avoid().unwrap(), ["a".into(), "b".into()]);
        assert_eq!(pairs("/route?model=m").unwrap().query(), Ok(Query::model("m")));
    }

    #[test]
    fn nothing_and_what_cannot_be_read_are_refused() {
        assert_eq!(pairs("/route").unwrap().query().unwrap_err().code, Code::InvalidInput);
        assert!(pairs("/route?selector=a%3E").unwrap_err().message.contains("position"));
        let many = (0..17).map(|number| format!("avoid={number}")).collect::<Vec<_>>().join("&");
        assert!(pairs(&format!("/route?{many}")).unwrap().avoid().is_err());
    }
}
