//! Fuzz target: what is asked of the HTTP paths, in the URL and in a body.
//!
//! It takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use anyserve_core::Query;
use http::{HeaderMap, Uri};

use super::{explain, workers};

/// Bytes as the pairs of a URL, and as the body of an order.
pub fn asked(data: &[u8]) {
    let _ = workers::workers_of_body(data);
    let target = [b"/explain?", data].concat();
    let Ok(uri) = Uri::try_from(target) else { return };
    if let Ok(request) = explain::request(&uri, &HeaderMap::new())
        && let Query::All(conditions) = request.query
    {
        assert!(!conditions.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn what_is_asked_over_http_is_read_or_refused() {
        attack("http_asked", asked);
    }
}
