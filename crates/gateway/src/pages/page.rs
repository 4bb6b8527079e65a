//! `/`: a page that shows all replicas. It is static, loads nothing from elsewhere, and can order nothing.

use std::sync::Arc;

use anyserve_server::parts::pages::{STYLE, file};
use axum::{Router, routing::get};

use super::Seen;

const HTML: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/fleet.js");

/// The style sheet is the one of a replica's page.
pub(super) fn router() -> Router<Arc<Seen>> {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", HTML)))
        .route("/status.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/fleet.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_host_and_makes_no_markup_of_text() {
        for text in [HTML, SCRIPT] {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{text}");
        }
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
        assert!(!HTML.contains("style=") && !HTML.contains("onload") && !HTML.contains("<script>"));
    }
}
