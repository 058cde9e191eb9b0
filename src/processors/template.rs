//! Text with places for what differs from payment to payment: compiled once, and checked once for
//! all payments.
//!
//! | place | becomes |
//! | --- | --- |
//! | `{id}` | the payment's id, 36 characters in lower case |
//! | `{amount}` | its amount as a decimal with two places, `19.90` |
//! | `{cents}` | its amount in cents, `1990` |
//! | `{requestedAt}` | the time it is to be booked under, `2025-07-10T12:34:56.123Z` |
//!
//! None of these has a character that means anything in JSON, in a header or in a path, so nothing is
//! escaped there; in a form the colon is (`%3A`). The invariant: what a template was checked for holds
//! for every payment, not only for the one it was tried with.

mod json;

pub use json::compact;

use crate::base::clock::Timestamp;
use crate::base::money::{Cents, write_decimal};
use crate::payments::PaymentId;

/// What is put into places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    pub id: PaymentId,
    pub amount: Cents,
    pub requested_at: Timestamp,
}

/// A place for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Id,
    Amount,
    Cents,
    RequestedAt,
}

impl Place {
    pub const ALL: [Place; 4] = [Place::Id, Place::Amount, Place::Cents, Place::RequestedAt];

    /// The word in the braces.
    pub fn name(self) -> &'static str {
        match self {
            Place::Id => "id",
            Place::Amount => "amount",
            Place::Cents => "cents",
            Place::RequestedAt => "requestedAt",
        }
    }

    pub fn write(self, out: &mut Vec<u8>, filling: &Filling) {
        match self {
            Place::Id => out.extend_from_slice(&filling.id.text()),
            Place::Amount => filling.amount.write(out),
            Place::Cents => {
                let cents = filling.amount.0;
                if cents < 0 {
                    out.push(b'-');
                }
                write_decimal(out, cents.unsigned_abs());
            }
            Place::RequestedAt => out.extend_from_slice(&filling.requested_at.text()),
        }
    }

    /// As it stands in a form (application/x-www-form-urlencoded).
    fn write_form(self, out: &mut Vec<u8>, filling: &Filling) {
        if self != Place::RequestedAt {
            return self.write(out, filling);
        }
        for byte in filling.requested_at.text() {
            match byte {
                b':' => out.extend_from_slice(b"%3A"),
                byte => out.push(byte),
            }
        }
    }

    /// How many bytes [`Place::write`] writes.
    fn length(self, filling: &Filling) -> usize {
        let cents = filling.amount.0.unsigned_abs();
        let sign = usize::from(filling.amount.0 < 0);
        match self {
            Place::Id => filling.id.text().len(),
            Place::Amount => sign + digits(cents / 100) + ".00".len(),
            Place::Cents => sign + digits(cents),
            Place::RequestedAt => filling.requested_at.text().len(),
        }
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |it| it as usize + 1)
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Place(Place),
}

/// A template. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    is_form: bool,
}

impl Template {
    /// # Errors
    /// A place that nobody knows, or that cannot be there.
    pub fn parse(text: &str, allowed: &[Place]) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut plain = String::new();
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            plain.push_str(before);
            let Some((name, after)) = place_at(from) else {
                plain.push('{');
                rest = &from[1..];
                continue;
            };
            let known = Place::ALL.into_iter().find(|it| it.name() == name);
            let place = known.filter(|it| allowed.contains(it)).ok_or_else(|| {
                let names = allowed.iter().map(|it| format!("{{{}}}", it.name()));
                let names = names.collect::<Vec<_>>().join(", ");
                format!("{{{name}}} is no place that can be filled here: {names}")
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Place(place));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts, is_form: false })
    }

    /// A path with its query, which begins with a slash.
    ///
    /// # Errors
    /// As [`Template::parse`], and what cannot stand in a path.
    pub fn path(text: &str, allowed: &[Place]) -> Result<Template, String> {
        let template = Template::parse(text, allowed)?;
        match path_fault(&template.with_example()) {
            Some(fault) => Err(fault),
            None => Ok(template),
        }
    }

    /// A JSON object, without the white space between its parts.
    ///
    /// # Errors
    /// As [`Template::parse`], and why it would be no JSON.
    pub fn json(text: &str) -> Result<Template, String> {
        let template = Template::parse(text, &Place::ALL)?;
        Ok(Template { parts: compact(&template.parts)?, is_form: false })
    }

    /// A form: `name=value&name=value`, percent-encoded where it must be.
    ///
    /// # Errors
    /// As [`Template::parse`], and a character that no form has.
    pub fn form(text: &str) -> Result<Template, String> {
        let template = Template::parse(text.trim(), &Place::ALL)?;
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*+%&=[]".contains(&byte);
        let is_right = |it: &str| it.bytes().all(is_legal) && are_percents_whole(it);
        if !template.texts().all(is_right) {
            return Err("a form has only letters, digits and -._*+&=[], all else as %XX".into());
        }
        Ok(Template { is_form: true, ..template })
    }

    /// A header's value.
    ///
    /// # Errors
    /// As [`Template::parse`], and what no header may have.
    pub fn header(text: &str, allowed: &[Place]) -> Result<Template, String> {
        let template = Template::parse(text, allowed)?;
        if !is_header_value(&template.with_example()) {
            return Err(HEADER_VALUE.into());
        }
        Ok(template)
    }

    /// Text in which nothing is a place.
    pub fn plain(text: String) -> Template {
        Template { parts: vec![Part::Text(text)], is_form: false }
    }

    /// Its text, if it is the same for every payment.
    pub fn as_constant(&self) -> Option<String> {
        let is_constant = self.parts.iter().all(|part| matches!(part, Part::Text(_)));
        is_constant.then(|| self.texts().collect())
    }

    pub fn has(&self, place: Place) -> bool {
        self.parts.contains(&Part::Place(place))
    }

    pub fn write(&self, out: &mut Vec<u8>, filling: &Filling) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Place(place) if self.is_form => place.write_form(out, filling),
                Part::Place(place) => place.write(out, filling),
            }
        }
    }

    /// How many bytes [`Template::write`] writes.
    pub fn length(&self, filling: &Filling) -> usize {
        let length = |part: &Part| match part {
            Part::Text(text) => text.len(),
            // Its two colons are two bytes longer each.
            Part::Place(Place::RequestedAt) if self.is_form => {
                Place::RequestedAt.length(filling) + 4
            }
            Part::Place(place) => place.length(filling),
        };
        self.parts.iter().map(length).sum()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Place(_) => None,
        })
    }

    /// Places never break a path or a header: one payment shows what all do.
    fn with_example(&self) -> String {
        let mut out = Vec::new();
        let example = Filling { id: PaymentId(0), amount: Cents(1), requested_at: Timestamp(0) };
        self.write(&mut out, &example);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The name of the place that begins here, and what follows it. An object of JSON begins otherwise.
fn place_at(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let is_name =
        !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
    is_name.then_some((name, after))
}

/// What no header's value has. White space at its ends would be lost on its way.
pub const HEADER_VALUE: &str =
    "a header's value is printable ASCII, not empty, without spaces at its ends";

pub fn is_header_value(text: &str) -> bool {
    let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    !text.is_empty() && text.trim() == text && text.bytes().all(is_printable)
}

/// What keeps a text from being a path, with or without a query (RFC 3986, 3.3 and 3.4).
pub fn path_fault(text: &str) -> Option<String> {
    let is_legal =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%[]".contains(&byte);
    if !text.starts_with('/') || text.starts_with("//") {
        return Some("a path must begin with one /".into());
    }
    if !text.bytes().all(is_legal) {
        let reason = "a path has no spaces, control characters, quotes, # or letters beyond ASCII: \
            write them as %XX";
        return Some(reason.into());
    }
    (!are_percents_whole(text)).then(|| "a % must be followed by two hexadecimal digits".into())
}

fn are_percents_whole(text: &str) -> bool {
    let is_whole = |rest: &str| {
        rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    };
    text.split('%').skip(1).all(is_whole)
}

#[cfg(test)]
mod tests;
