//! Whether a template is a JSON object for every payment, and that object without white space.

use super::{Part, Place};
use crate::base::json::{self, JsonError};
use serde::de::IgnoredAny;

/// Where in a document (RFC 8259) a byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Outside of strings, and what the byte before was, if it was no white space right before.
    Between(u8),
    /// In a string.
    Inside,
    /// In a string, behind a backslash.
    Escaped,
    /// In a string, so many hexadecimal digits before the end of an escape.
    Digits(u8),
}

/// The parts of the same document without white space between its tokens.
///
/// # Errors
/// Why it is no JSON object, or would be none for some payment.
pub fn compact(parts: &[Part]) -> Result<Vec<Part>, String> {
    let mut compacted = Vec::new();
    let mut at = Where::Between(0);
    let mut example = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => {
                let kept = walk(text, &mut at);
                example.extend_from_slice(kept.as_bytes());
                compacted.push(Part::Text(kept));
            }
            Part::Place(place) => {
                check_place(*place, at, parts.get(index + 1))?;
                let number = matches!(place, Place::Amount | Place::Cents);
                example.extend_from_slice(if number { b"1" } else { b"x" });
                if at != Where::Inside {
                    at = Where::Between(b'1');
                }
                compacted.push(part.clone());
            }
        }
    }
    compacted.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    match json::read_object::<IgnoredAny>(&example) {
        Ok(_) => Ok(compacted),
        Err(JsonError::Shape) => Err("the body must be a JSON object".into()),
        Err(JsonError::TooDeep) => {
            Err(format!("the body is nested deeper than {}", json::DEPTH_MAX))
        }
        Err(JsonError::NotJson) => Err("the body is no JSON, whatever fills its places".into()),
    }
}

/// The text without white space between tokens, and where its end stands. White space that keeps two
/// tokens apart that could be read as one stays: the document was none, and must not become one.
fn walk(text: &str, at: &mut Where) -> String {
    let mut kept = String::with_capacity(text.len());
    for letter in text.chars() {
        let byte = u8::try_from(letter).unwrap_or(0);
        *at = match (*at, byte) {
            (
                Where::Between(b',' | b':' | b'[' | b'{' | b'}' | b']' | b'"' | 0),
                b' ' | b'\t' | b'\r' | b'\n',
            ) => continue,
            (Where::Between(_), b' ' | b'\t' | b'\r' | b'\n') => Where::Between(b' '),
            (Where::Between(_), b'"') => Where::Inside,
            (Where::Between(_), byte) => Where::Between(byte),
            (Where::Inside, b'"') => Where::Between(b'"'),
            (Where::Inside, b'\\') => Where::Escaped,
            (Where::Inside, _) => Where::Inside,
            (Where::Escaped, b'u') => Where::Digits(4),
            (Where::Escaped, _) | (Where::Digits(1), _) => Where::Inside,
            (Where::Digits(left), _) => Where::Digits(left - 1),
        };
        kept.push(letter);
    }
    kept
}

/// A number stands for itself, or in quotes; all else only in quotes.
fn check_place(place: Place, at: Where, next: Option<&Part>) -> Result<(), String> {
    let name = place.name();
    let is_number = matches!(place, Place::Amount | Place::Cents);
    let is_apart_behind = match next {
        None => true,
        Some(Part::Place(_)) => false,
        Some(Part::Text(text)) => text.starts_with([',', '}', ']', ' ', '\t', '\r', '\n']),
    };
    match at {
        Where::Inside => Ok(()),
        Where::Escaped | Where::Digits(_) => {
            Err(format!("{{{name}}} stands behind an unfinished escape"))
        }
        Where::Between(_) if !is_number => Err(format!("{{{name}}} must stand in quotes")),
        Where::Between(b':' | b',' | b'[' | b' ') if is_apart_behind => Ok(()),
        Where::Between(_) => Err(format!("{{{name}}} must stand alone, as a number, or in quotes")),
    }
}
