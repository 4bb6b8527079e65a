//! Models and versions, as KServe clients see the catalog.

use std::sync::Arc;

use anyserve_core::{Catalog, CatalogEntry, Code, Error, Handler};

/// One version of a model: one capability, or several that go by the same name and version.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// The name that it is listed under, or was asked for by.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// Whether a worker can take a request for it now.
    pub(super) ready: bool,
    /// The handler of the capability that comes first.
    pub(super) handler: Arc<Handler>,
    /// Places of all its capabilities in the catalog.
    pub(super) places: Vec<usize>,
}

/// The versions of a model that a request for this name and version is about; at least one.
///
/// # Errors
/// `NOT_FOUND` that names the model and the version.
pub(super) fn find(catalog: &Catalog, name: &str, version: &str) -> Result<Vec<Model>, Error> {
    let mut found = grouped(catalog.named(name), |_| name.to_owned());
    if found.is_empty() {
        return Err(Error::new(Code::NoCapability, format!("Request for unknown model: '{name}' is not found")));
    }
    if !version.is_empty() {
        found.retain(|model| model.version == version);
    }
    if found.is_empty() {
        let message = format!("Request for unknown model: '{name}' version {version} is not found");
        return Err(Error::new(Code::NotFound, message));
    }
    Ok(found)
}

/// Versions of a model that can be asked for.
pub(super) fn versions(catalog: &Catalog, name: &str) -> Vec<String> {
    grouped(catalog.named(name), |_| name.to_owned()).into_iter().map(|model| model.version).collect()
}

/// Every version of every model.
pub(super) fn all(catalog: &Catalog) -> Vec<Model> {
    grouped(catalog.entries.iter().enumerate().collect(), Handler::model_name)
}

fn grouped(entries: Vec<(usize, &CatalogEntry)>, name: impl Fn(&Handler) -> String) -> Vec<Model> {
    let mut models: Vec<Model> = Vec::new();
    for (place, entry) in entries {
        let (name, version) = (name(&entry.handler), entry.handler.version());
        if let Some(model) = models.iter_mut().find(|model| model.name == name && model.version == version) {
            model.ready |= entry.ready;
            model.places.push(place);
        } else {
            let (handler, ready) = (Arc::clone(&entry.handler), entry.ready);
            models.push(Model { name, version, ready, handler, places: vec![place] });
        }
    }
    models
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Value};

    fn catalog() -> Catalog {
        let entry = |text: &str, ready| {
            let pairs = text.split(',').map(|pair| pair.split_once('=').unwrap());
            let pairs = pairs.map(|(key, value)| (key.to_owned(), Value::Text(value.to_owned())));
            CatalogEntry { handler: Arc::new(Handler::new(Capability::try_new(pairs).unwrap())), ready }
        };
        let entries = vec![
            entry("model=a", false),
            entry("model=a,version=2", true),
            entry("model=a,size=7", true),
            entry("type=echo", true),
        ];
        Catalog { entries, ..Catalog::default() }
    }

    #[test]
    fn capabilities_of_one_name_and_version_are_one_model() {
        let all = all(&catalog());
        let rows: Vec<_> = all.iter().map(|model| (&*model.name, &*model.version, model.ready)).collect();
        assert_eq!(rows, [("a", "1", true), ("a", "2", true), ("echo", "1", true)]);
        assert_eq!(all[0].places, [0, 2]);
        assert_eq!(versions(&catalog(), "a"), ["1", "2"]);
    }

    #[test]
    fn the_empty_version_finds_all_and_an_unknown_one_none() {
        assert_eq!(find(&catalog(), "a", "").unwrap().len(), 2);
        assert_eq!(find(&catalog(), "a", "2").unwrap()[0].places, [1]);
        assert_eq!(find(&catalog(), "a", "3").unwrap_err().code, Code::NotFound);
        let error = find(&catalog(), "x", "").unwrap_err();
        assert_eq!(error.message, "Request for unknown model: 'x' is not found");
    }
}
