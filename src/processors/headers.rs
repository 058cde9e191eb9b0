//! The headers that a file adds to requests: constants, templates, and secrets from elsewhere.
//!
//! The invariant: no header can end its line, or say where a message ends; and none has two meanings.

use super::fault::Faults;
use super::outside::{Outside, Secret, Source};
use super::table::{Table, Text, Value};
use super::template::{self, Place, Template};
use std::fmt;

/// In one request.
pub const HEADERS_MAX: usize = 32;
/// A constant or a template, in bytes.
const VALUE_BYTES_MAX: usize = 1_024;

/// Headers that galo writes itself, that belong to one connection, or that ask for an answer which it
/// does not read (a coding, an interim answer).
const RESERVED: [&str; 13] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept-encoding",
    "range",
];

/// What nobody should see in a constant either.
const CONFIDENTIAL: [&str; 6] = ["authorization", "cookie", "key", "token", "secret", "password"];

/// A header of requests.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: Content,
}

/// What a header says.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// As it stands in the file.
    Open(Template),
    /// From elsewhere.
    Secret { prefix: String, secret: Secret, source: Source },
}

impl Header {
    /// Whether its value is to be hidden: it comes from elsewhere, or has the name of one that should.
    /// A template is none, whatever its name.
    pub fn is_secret(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        match &self.value {
            Content::Secret { .. } => true,
            Content::Open(value) => {
                !Place::ALL.iter().any(|place| value.has(*place))
                    && CONFIDENTIAL.iter().any(|it| name.contains(it))
            }
        }
    }

    /// Where its value comes from, for people.
    pub fn source(&self) -> String {
        match &self.value {
            Content::Open(_) => "the file itself".into(),
            Content::Secret { source, .. } => source.to_string(),
        }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ({})", self.name, self.source())
    }
}

/// The headers of a table, in the order of the file. In their values these places may stand.
pub fn read(table: Option<Table<'_>>, allowed: &[Place], outside: &dyn Outside) -> Vec<Header> {
    let Some(table) = table else { return Vec::new() };
    let (at, faults) = (table.at, table.faults());
    let mut headers: Vec<Header> = Vec::new();
    for (name, value) in table.into_entries() {
        let reason = name_fault(name.text).or_else(|| {
            let is_same = |it: &Header| it.name.eq_ignore_ascii_case(name.text);
            headers
                .iter()
                .any(is_same)
                .then(|| format!("the header {} stands here twice", name.text))
        });
        if let Some(reason) = reason {
            faults.add(name.at, reason);
            continue;
        }
        if let Some(value) = read_value(value, allowed, outside, faults) {
            headers.push(Header { name: name.text.into(), value });
        }
    }
    if headers.len() > HEADERS_MAX {
        faults.add(at, format!("there are more than {HEADERS_MAX} headers"));
    }
    headers
}

fn name_fault(name: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_token) {
        return Some("a header's name is 1 to 64 letters, digits and hyphens".into());
    }
    let is_reserved = RESERVED.iter().any(|it| it.eq_ignore_ascii_case(name));
    is_reserved.then(|| format!("the header {name} is galo's own to write"))
}

fn read_value(
    value: &Value<'_>,
    allowed: &[Place],
    outside: &dyn Outside,
    faults: &Faults,
) -> Option<Content> {
    let at = value.span().start;
    if let Some(text) = value.get_ref().as_str() {
        if text.len() > VALUE_BYTES_MAX {
            faults.add(at, format!("a header's value has {VALUE_BYTES_MAX} bytes at most"));
            return None;
        }
        let template = Template::header(text, allowed);
        return template.map_err(|reason| faults.add(at, reason)).ok().map(Content::Open);
    }
    if value.get_ref().as_table().is_none() {
        faults.add(at, "a header is text, or { file = \"…\" } or { env = \"…\" }");
        return None;
    }
    let mut table = Table::of(value, faults)?;
    let source = read_source(&mut table);
    let prefix = table.text("prefix");
    table.end();
    let prefix = prefix.unwrap_or(Text { at, text: "" });
    let is_prefix =
        prefix.text.is_empty() || template::is_header_value(prefix.text.trim_end_matches(' '));
    if !is_prefix || prefix.text.len() > 64 {
        faults.add(prefix.at, "a prefix is at most 64 characters of printable ASCII");
        return None;
    }
    let secret = Secret::read(source.as_ref()?, outside);
    let secret = secret.map_err(|reason| faults.add(at, reason)).ok()?;
    Some(Content::Secret { prefix: prefix.text.into(), secret, source: source? })
}

/// One of `file` and `env`.
pub fn read_source(table: &mut Table<'_>) -> Option<Source> {
    let (file, variable) = (table.text("file"), table.text("env"));
    let is_name = |it: &str| {
        !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match (file, variable) {
        (Some(file), None) if !file.text.is_empty() => Some(Source::File(file.text.into())),
        (None, Some(variable)) if is_name(variable.text) => {
            Some(Source::Variable(variable.text.into()))
        }
        _ => {
            table.faults().add(table.at, "a secret comes from one `file` or one variable `env`");
            None
        }
    }
}
