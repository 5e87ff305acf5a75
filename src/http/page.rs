//! The status page: one file, nothing from elsewhere.
//!
//! Its style and its script are the only ones the browser runs: the policy names them by their digests, so that markup smuggled
//! into a name could not run anything, and the script only ever sets text. Trusted types forbid it anything else.

use axum::body::Body;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, Response, StatusCode};

use super::auth::digest;
use super::problem::respond;

const MARKUP: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page with its policy.
#[derive(Debug)]
pub(super) struct Page {
    html: String,
    policy: Option<HeaderValue>,
}

impl Page {
    pub(super) fn new() -> Self {
        let html = MARKUP.replace("/* style */", STYLE).replace("/* script */", SCRIPT);
        let source = |text: &str| format!("'sha256-{}'", base64(&digest(text.as_bytes())));
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
            source(SCRIPT),
            source(STYLE)
        );
        Self { html, policy: HeaderValue::from_str(&policy).ok() }
    }

    pub(super) fn respond(&self) -> Response<Body> {
        let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", self.html.clone());
        let headers = response.headers_mut();
        if let Some(policy) = &self.policy {
            headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
        }
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
        headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        response
    }
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| usize::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sign = SIGNS[bits >> (18 - 6 * place) & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(sign) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("\u{3ff}\u{3ff}", "z7/Pvw=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_markup() {
        let page = Page::new();
        for word in [
            "http://",
            "https://",
            "src=",
            "@import",
            "url(",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "new Function",
            " style=",
            " onclick",
            "location.search",
            "location.hash",
        ] {
            assert!(!page.html.contains(word), "{word}");
        }
        assert!(page.policy.is_some());
        assert_eq!(page.html.matches("<script>").count(), 1);
    }
}
