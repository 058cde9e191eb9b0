//! `GET /` at the admin door: the page that shows how things stand, one file in the binary.
//!
//! It asks for `/status.json` once a second while it is looked at, with the token that whoever looks
//! at it has given, and loads nothing else. Who serves more than an instance does (the demo) puts
//! that into the same page.

use super::Frame;
use crate::net::http::response::{self, Extra, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

const PAGE: &str = include_str!("page.html");
/// Where more may stand, and where a page that comes from a file says its policy.
const MORE: &str = "<!--more-->";
const POLICY: &str = "<!--policy-->";

/// The page as it is served.
pub struct Page {
    pub text: String,
    /// Its Content-Security-Policy.
    pub policy: String,
}

impl Page {
    /// `more`: HTML behind the verdict, with a style and a script of its own; the script's function
    /// `also` is shown each status document.
    pub fn with(more: &str) -> Page {
        let text = PAGE.replacen(MORE, more, 1);
        let policy = format!("{}; frame-ancestors 'none'", policy(&text, "'self'"));
        Page { text, policy }
    }

    /// Likewise, as a file that asks nobody: `more` has its data (`run`, as JSON).
    pub fn file(more: &str) -> String {
        let text = PAGE.replacen(MORE, more, 1);
        let policy = policy(&text, "'none'");
        let meta = format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">");
        text.replacen(POLICY, &meta, 1)
    }
}

pub fn answer(frame: Frame, out: &mut Vec<u8>) {
    static OWN: OnceLock<Page> = OnceLock::new();
    write(OWN.get_or_init(|| Page::with("")), frame, out);
}

/// A page as an answer.
pub fn write(page: &'static Page, frame: Frame, out: &mut Vec<u8>) {
    let response = Response {
        content_type: "text/html; charset=utf-8",
        extra: Some(Extra::PagePolicy(&page.policy)),
        head_only: frame.head_only,
        ..Response::json(200, page.text.as_bytes(), frame.connection)
    };
    response::write(out, &response);
}

/// Its own styles and scripts, known by their digests, and questions to `asked`.
fn policy(text: &str, asked: &str) -> String {
    let digests = |tag| {
        let digests: Vec<_> =
            inside(text, tag).map(|it| format!("'sha256-{}'", hash(it))).collect();
        digests.join(" ")
    };
    let (styles, scripts) = (digests("style"), digests("script"));
    format!(
        "default-src 'none'; style-src {styles}; script-src {scripts}; \
         connect-src {asked}; img-src data:; form-action 'none'; base-uri 'none'"
    )
}

/// What stands between such tags, one after the other.
fn inside<'a>(text: &'a str, tag: &str) -> impl Iterator<Item = &'a str> {
    let end = format!("</{tag}>");
    let behind = text.split(&format!("<{tag}>")).skip(1).collect::<Vec<_>>().into_iter();
    behind.filter_map(move |behind| behind.split_once(&end).map(|(inside, _)| inside))
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
        assert_eq!(inside(PAGE, "style").count(), 1);
        assert_eq!(inside(PAGE, "script").count(), 1);
        let foreign = PAGE.matches("http").count();
        let namespaces = PAGE.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(foreign, namespaces, "an address that is not its own");
    }

    #[test]
    fn more_stands_in_it_with_digests_of_its_own() {
        let more = "<style>a{}</style><p id=\"more\"></p><script>abc</script>";
        let page = Page::with(more);
        assert!(page.text.contains(more) && !page.text.contains(MORE));
        assert!(page.policy.contains(&format!("' 'sha256-{}'; script-src", hash("a{}"))));
        assert!(page.policy.contains(&format!("'sha256-{}' 'sha256-", hash("abc"))));
        assert!(page.policy.contains("connect-src 'self'"), "{}", page.policy);
        let file = Page::file(more);
        assert!(file.contains("<meta http-equiv") && file.contains("connect-src 'none'"));
        assert!(!Page::with("").text.contains("http-equiv"));
    }
}
