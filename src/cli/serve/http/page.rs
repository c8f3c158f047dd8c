//! The page at `/`: one file inside the program.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

/// Its document, with marks where its style and its script belong.
const DOCUMENT: &str = include_str!("../page/page.html");

/// The parts of its script, in order.
const SCRIPT: [&str; 10] = [
    include_str!("../page/shared.js"),
    include_str!("../page/transport.js"),
    include_str!("../page/files.js"),
    include_str!("../page/store.js"),
    include_str!("../page/form.js"),
    include_str!("../page/mask.js"),
    include_str!("../page/stage.js"),
    include_str!("../page/sheet.js"),
    include_str!("../page/compare.js"),
    include_str!("../page/main.js"),
];

/// The whole: style and script are inside it, and nothing comes from elsewhere.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = DOCUMENT.replace("/*{style}*/", include_str!("../page/page.css"));
    page.replace("/*{script}*/", &SCRIPT.join("\n"))
});

pub(super) fn routes() -> Router<Arc<super::App>> {
    Router::new().route("/", get(page))
}

async fn page() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], PAGE.as_str()).into_response()
}

/// What the page may do: run its own scripts, which are known by their hashes, use its own styles, and ask this server.
pub(super) fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let policy = policy_of(&PAGE);
        HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

fn policy_of(page: &str) -> String {
    format!(
        "default-src 'none'; script-src{}; style-src{}; img-src 'self' data: blob:; connect-src 'self'; worker-src blob:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hashes(page, "script"),
        hashes(page, "style")
    )
}

/// The hashes of what stands in elements of this name.
fn hashes(page: &str, element: &str) -> String {
    let mut hashes = String::new();
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    for part in page.split(&open).skip(1) {
        let text = part.split_once('>').map_or("", |(_, text)| text);
        let text = text.split_once(&close).map_or("", |(text, _)| text);
        // Browsers read line ends as one character.
        let hash = STANDARD.encode(Sha256::digest(text.replace("\r\n", "\n")));
        let _ = write!(hashes, " 'sha256-{hash}'");
    }
    if hashes.is_empty() { " 'none'".to_owned() } else { hashes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_their_hashes() {
        // As `printf 'a()' | openssl dgst -sha256 -binary | base64` has it.
        let policy = policy_of("<style>b{}</style><script type=\"module\">a()</script>");
        let hash = STANDARD.encode(Sha256::digest("a()"));
        assert!(policy.contains(&format!("script-src 'sha256-{hash}';")), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(hashes("<p>", "script"), " 'none'");
    }

    #[test]
    fn the_page_is_small_and_takes_nothing_from_elsewhere() {
        assert!(PAGE.len() < 150_000, "{} bytes", PAGE.len());
        for part in [" src=\"http", " href=\"http", "@import", "url(http", " style=\"", " onclick=", " onload="] {
            assert!(!PAGE.contains(part), "{part}");
        }
        assert!(!PAGE.contains("/*{"), "every mark is filled in");
    }
}
