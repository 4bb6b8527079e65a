//! `/`: a page that shows the status. It is static, loads nothing from elsewhere, and can order nothing.

use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

const HTML: &str = include_str!("page/index.html");
/// The style sheet of every status page.
pub const STYLE: &str = include_str!("page/status.css");
const SCRIPT: &str = include_str!("page/status.js");

/// Nothing but the page's own files, no frames, and no text that becomes markup: names in the status are of others.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", HTML)))
        .route("/status.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/status.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
}

/// A file of a page: what browsers may do with it is said in its headers.
pub fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A replica that was replaced by a newer one shows its own page.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_host_and_makes_no_markup_of_text() {
        for text in [HTML, STYLE, SCRIPT] {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{text}");
        }
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
        assert!(!HTML.contains("style=") && !HTML.contains("onload") && !HTML.contains("<script>"));
    }
}
