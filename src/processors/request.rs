//! Requests to a processor, compiled once into what stays the same and what differs.
//!
//! Debug and Display show no secret. What is written is one request of HTTP/1.1 (RFC 9112), whatever
//! the payment is.

use super::headers::{Content, Header};
use super::outside::{HIDDEN, Secret};
use super::template::{Filling, Template};
use crate::base::money::write_decimal;

/// Whether secrets are written, or `***` in their place: for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Sent,
    Hidden,
}

/// A request. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    head: Vec<Piece>,
    body: Option<Template>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Template(Template),
    Secret(Secret),
    Host,
    /// The body's, in bytes.
    Length,
}

/// What a request is made of.
pub struct Parts<'a> {
    pub method: &'static str,
    /// With all that its path begins with.
    pub path: &'a Template,
    pub headers: &'a [Header],
    /// With its type.
    pub body: Option<(&'a str, Template)>,
}

impl Request {
    pub fn new(parts: Parts<'_>) -> Request {
        let mut head = vec![
            plain(format!("{} ", parts.method)),
            Piece::Template(parts.path.clone()),
            plain(" HTTP/1.1\r\nHost: ".into()),
            Piece::Host,
            plain("\r\n".into()),
        ];
        for header in parts.headers {
            head.push(plain(format!("{}: ", header.name)));
            match &header.value {
                Content::Open(value) => head.push(match value.as_constant() {
                    // Hidden as well, though it stands in the file.
                    Some(text) if header.is_secret() => Piece::Secret(Secret::constant(text)),
                    _ => Piece::Template(value.clone()),
                }),
                Content::Secret { prefix, secret, .. } => {
                    head.push(plain(prefix.clone()));
                    head.push(Piece::Secret(secret.clone()));
                }
            }
            head.push(plain("\r\n".into()));
        }
        let body = parts.body.map(|(content_type, body)| {
            head.push(plain(format!("Content-Type: {content_type}\r\nContent-Length: ")));
            head.push(Piece::Length);
            head.push(plain("\r\n".into()));
            body
        });
        head.push(plain("\r\n".into()));
        Request { head, body }
    }

    /// Appends the request to `out`. `host` is for the header of that name.
    pub fn write(&self, out: &mut Vec<u8>, host: &str, filling: &Filling, secrets: Secrets) {
        for piece in &self.head {
            match piece {
                Piece::Template(template) => template.write(out, filling),
                Piece::Secret(_) if secrets == Secrets::Hidden => {
                    out.extend_from_slice(HIDDEN.as_bytes());
                }
                Piece::Secret(secret) => out.extend_from_slice(secret.reveal().as_bytes()),
                Piece::Host => out.extend_from_slice(host.as_bytes()),
                Piece::Length => {
                    let length = self.body.as_ref().map_or(0, |body| body.length(filling));
                    write_decimal(out, length as u64);
                }
            }
        }
        if let Some(body) = &self.body {
            body.write(out, filling);
        }
    }
}

fn plain(text: String) -> Piece {
    Piece::Template(Template::plain(text))
}
