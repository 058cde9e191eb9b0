//! What stands in a target: the window that a summary is asked for, and percent signs.
//!
//! Pure functions over text; knows nothing of what is at which path.

use crate::base::clock::{Rounding, Timestamp};
use crate::payments::Window;

/// The two bounds of a summary's query, as they are rounded down and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bounds {
    pub from: Option<(Timestamp, Timestamp)>,
    pub to: Option<(Timestamp, Timestamp)>,
}

impl From<Bounds> for Window {
    /// Of whole milliseconds: one that lies inside of one holds none, and is empty.
    fn from(Bounds { from, to }: Bounds) -> Window {
        Window { from: from.map(|(_, up)| up), to: to.map(|(down, _)| down) }
    }
}

/// The window of a summary's query.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn read_window(query: Option<&[u8]>) -> Result<Window, String> {
    let bounds = read_bounds(query)?;
    // Judged on the outer milliseconds: a window inside one is empty, not upside down.
    if let (Some((from, _)), Some((_, to))) = (bounds.from, bounds.to)
        && from > to
    {
        return Err("The bound from is after the bound to.".into());
    }
    Ok(bounds.into())
}

/// `from` and `to`, each optional, inclusive. Nothing else: a bound whose name is misspelt would
/// otherwise give the totals of another window.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn read_bounds(query: Option<&[u8]>) -> Result<Bounds, String> {
    let mut bounds = Bounds::default();
    for pair in query.unwrap_or_default().split(|byte| *byte == b'&') {
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..equals], pair.get(equals + 1..).unwrap_or_default());
        let name = percent_decode(name).unwrap_or_else(|| name.to_vec());
        let (bound, unreadable, twice) = match &name[..] {
            b"from" => (
                &mut bounds.from,
                "The bound from is not an RFC 3339 time.",
                "There are two bounds from.",
            ),
            b"to" => (
                &mut bounds.to,
                "The bound to is not an RFC 3339 time.",
                "There are two bounds to.",
            ),
            // Nothing between two separators; and what browsers' libraries add against caches.
            b"" if pair.is_empty() => continue,
            b"_" => continue,
            _ => return Err(unknown_parameter(&name)),
        };
        let text = percent_decode(value).ok_or(unreadable)?;
        let read = |rounding| Timestamp::parse(&text, rounding).ok_or(unreadable);
        if bound.replace((read(Rounding::Down)?, read(Rounding::Up)?)).is_some() {
            return Err(twice.into());
        }
    }
    Ok(bounds)
}

fn unknown_parameter(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    let shown: String = String::from_utf8_lossy(name).chars().take(SHOWN_MAX).collect();
    format!("There is no parameter {shown}: only from and to.")
}

/// `%3A` → `:` (RFC 3986, 2.1). A plus sign stays one, as part of an offset, but where a form that
/// was encoded has it between a date and a time, in place of the space there.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    const DATE_LENGTH: usize = "2025-07-01".len();
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let (value, after) = hex_pair(rest)?;
                decoded.push(value);
                rest = after;
            }
            b'+' if decoded.len() == DATE_LENGTH => decoded.push(b' '),
            byte => decoded.push(*byte),
        }
    }
    Some(decoded)
}

/// Decodes the percent-encoded bytes of a path that need not be encoded: with and without it is the
/// same path (RFC 3986, 6.2.2.2). Others stay as they are: an encoded slash is no slash.
pub fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        decoded.push(*byte);
        if *byte == b'%'
            && let Some((value, after)) = hex_pair(after)
            && (value.is_ascii_alphanumeric() || b"-._~".contains(&value))
        {
            decoded.pop();
            decoded.push(value);
            rest = after;
        }
    }
    decoded
}

/// Two hex digits, and what follows them.
fn hex_pair(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.split_at_checked(2)?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some(((digit(digits[0])? * 16 + digit(digits[1])?) as u8, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let at = |ms: i64| Some(Timestamp(ms));
        let window = |from, to| Ok(Window { from, to });
        let cases: &[(&str, Result<Window, &str>)] = &[
            ("", window(None, None)),
            ("from=1970-01-01T00:00:01Z", window(at(1_000), None)),
            ("to=1970-01-01T00:00:01.5Z", window(None, at(1_500))),
            (
                "&to=1970-01-01T00%3A00%3A01.500Z&_=17&&from=1970-01-01T00:00:00%2B00:00",
                window(at(0), at(1_500)),
            ),
            ("%66rom=1970-01-01T00:00:01Z&t%6F=1970-01-01T00:00:02Z", window(at(1_000), at(2_000))),
            ("from=1970-01-01+00:00:01Z&to=1970-01-01%2000:00:02Z", window(at(1_000), at(2_000))),
            ("from=1970-01-01+03:00:00+03:00", window(at(0), None)),
            ("from=1970-01-01T00:00:00Z&From=1970-01-01T00:00:01Z", Err("parameter From")),
            ("x=1", Err("parameter x:")),
            ("x", Err("parameter x:")),
            ("until=1970-01-01T00:00:01Z", Err("until")),
            ("fr%zz=1970-01-01T00:00:01Z", Err("fr%zz")),
            ("from%00=1970-01-01T00:00:01Z", Err("from\0")),
            ("=1970-01-01T00:00:01Z", Err("parameter :")),
            ("from=1970-01-01%2B00:00:01Z", Err("from")),
            ("from=1970-01-01++00:00:01Z", Err("from")),
            ("from=1970-01-01T03:00:00+03:00", window(at(0), None)),
            ("from=1970-01-01T00:00:00.0001Z&to=1970-01-01T00:00:00.0009Z", window(at(1), at(0))),
            ("from=", Err("from")),
            ("from", Err("from")),
            ("to=yesterday", Err("to")),
            ("to=%", Err("to")),
            ("to=%zz", Err("to")),
            ("to=1970-01-01T00:00:01Z&to=1970-01-01T00:00:01Z", Err("two")),
            ("from=1970-01-01T00:00:01.001Z&to=1970-01-01T00:00:01Z", Err("after")),
        ];
        for (query, expected) in cases {
            match (read_window(Some(query.as_bytes())), expected) {
                (Err(reason), Err(named)) => assert!(reason.contains(named), "{query}: {reason}"),
                (read, expected) => assert_eq!(read.ok(), expected.ok(), "{query}"),
            }
        }
        assert_eq!(read_window(None), Ok(Window::default()));
    }

    /// Only whoever speaks to people judges: the other instance is given what is left of bounds that
    /// were judged before they were rounded.
    #[test]
    fn bounds_that_hold_nothing_are_an_empty_window() {
        let query = "from=1970-01-01T00:00:00.001Z&to=1970-01-01T00:00:00.000Z";
        let window = Window::from(read_bounds(Some(query.as_bytes())).unwrap());
        assert!(window.is_empty() && read_window(Some(query.as_bytes())).is_err());
        assert!(!Window { from: window.to, to: window.to }.is_empty());
        assert!(!Window { from: window.from, to: None }.is_empty());
    }

    #[test]
    fn an_encoded_letter_is_the_letter_and_an_encoded_slash_is_no_slash() {
        for (path, decoded) in [
            ("/%70ayments%2dsummary", "/payments-summary"),
            ("/a%2Fb%2fc%25", "/a%2Fb%2fc%25"),
            ("/%2570", "/%2570"),
            ("/%7e%", "/~%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
        ] {
            assert_eq!(decode_unreserved(path.as_bytes()), decoded.as_bytes(), "{path}");
        }
    }
}
