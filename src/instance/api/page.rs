//! `GET /` at the admin door: the page that shows how things stand, one file in the binary.
//!
//! It asks for `/status.json` once a second while it is looked at, with the token that whoever looks
//! at it has given, and loads nothing else.

use super::Frame;
use crate::net::http::response::{self, Extra, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

const PAGE: &str = include_str!("page.html");

pub fn answer(frame: Frame, out: &mut Vec<u8>) {
    static POLICY: OnceLock<String> = OnceLock::new();
    let extra = Some(Extra::PagePolicy(POLICY.get_or_init(policy)));
    let response = Response {
        content_type: "text/html; charset=utf-8",
        extra,
        head_only: frame.head_only,
        ..Response::json(200, PAGE.as_bytes(), frame.connection)
    };
    response::write(out, &response);
}

/// Its own style and script, known by their digests, and questions to where it came from.
fn policy() -> String {
    let digest = |tag| hash(inside(tag));
    let (style, script) = (digest("style"), digest("script"));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
         connect-src 'self'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
}

fn inside(tag: &str) -> &'static str {
    let behind = PAGE.split_once(&format!("<{tag}>")).map_or("", |(_, behind)| behind);
    behind.split_once(&format!("</{tag}>")).map_or("", |(inside, _)| inside)
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_browsers_read_it() {
        assert_eq!(hash("abc"), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert_eq!(hash(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_page_is_small_and_stands_alone() {
        assert!(PAGE.len() <= 30 * 1024, "{} bytes", PAGE.len());
        assert!(!inside("style").is_empty() && !inside("script").is_empty());
        let foreign = PAGE.matches("http").count();
        let namespaces = PAGE.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(foreign, namespaces, "an address that is not its own");
    }
}
