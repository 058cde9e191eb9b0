//! JSON in: the one door to sonic-rs, behind which its traps are kept.
//!
//! It follows nesting without a limit (23 KiB of stack a level in a debug build), takes bytes that
//! are not UTF-8 where it hands out raw text, does not look into strings that nobody asks for, and
//! its typed reader cannot tell "not JSON" from "of another shape". And whatever reads a struct takes an
//! array of its fields for one. The caller caps the size.

use serde::Deserialize;
use sonic_rs::LazyValue;

/// Our own documents need three levels; the rest is for what fields we ignore may hold.
pub const DEPTH_MAX: usize = 32;

/// Why a document could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// Not UTF-8 or not of the grammar (RFC 8259).
    NotJson,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// JSON, but not of the expected shape: a missing or repeated field, or a value of another type.
    Shape,
}

/// Reads a document strictly: one value, nothing behind it.
///
/// # Errors
/// See [`JsonError`].
pub fn read<'a, T: Deserialize<'a>>(document: &'a [u8]) -> Result<T, JsonError> {
    let text = std::str::from_utf8(document).map_err(|_| JsonError::NotJson)?;
    if depth(document).ok_or(JsonError::NotJson)? > DEPTH_MAX {
        return Err(JsonError::TooDeep);
    }
    sonic_rs::from_str(text).map_err(|_| match sonic_rs::from_str::<LazyValue>(text) {
        Ok(_) => JsonError::Shape,
        Err(_) => JsonError::NotJson,
    })
}

/// Reads a document likewise that has to be an object, as every message is.
///
/// # Errors
/// See [`JsonError`]; an array is of another shape, whatever it holds.
pub fn read_object<'a, T: Deserialize<'a>>(document: &'a [u8]) -> Result<T, JsonError> {
    match skip_space(document).first() {
        Some(b'{') => read(document),
        _ => Err(read::<LazyValue>(document).err().unwrap_or(JsonError::Shape)),
    }
}

/// Without leading JSON white space (RFC 8259, 2).
pub fn skip_space(text: &[u8]) -> &[u8] {
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    &text[text.iter().take_while(blank).count()..]
}

/// How deep the brackets outside of strings are nested, at the deepest; `None` if a string is none.
/// Right for any JSON, and no less than what a parser would follow in anything else.
fn depth(document: &[u8]) -> Option<usize> {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = document;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'"' => rest = after_string(after)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    Some(deepest)
}

/// What follows the string (RFC 8259, 7) whose first quotation mark was taken; `None` if it does not
/// end, or has a control character or an escape that is none.
fn after_string(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        let special = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f))?;
        rest = match &rest[special..] {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'u', a, b, c, d, after @ ..]
                if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                after
            }
            [b'\\', escaped, after @ ..] if b"\"\\/bfnrt".contains(escaped) => after,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Document {
        field: u8,
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let cases: &[(&[u8], Result<u8, JsonError>)] = &[
            (b"{\"field\":7}", Ok(7)),
            (b" {\"field\":7,\"other\":[{}]} ", Ok(7)),
            (b"{\"field\":7}{}", Err(JsonError::NotJson)),
            (b"{\"field\":7", Err(JsonError::NotJson)),
            (b"", Err(JsonError::NotJson)),
            (b"{\"field\":\"\xff\"}", Err(JsonError::NotJson)),
            (b"\xff", Err(JsonError::NotJson)),
            (b"{}", Err(JsonError::Shape)),
            (b"[]", Err(JsonError::Shape)),
            (b"null", Err(JsonError::Shape)),
            (b"{\"field\":256}", Err(JsonError::Shape)),
            (b"{\"field\":7,\"field\":7}", Err(JsonError::Shape)),
        ];
        for (document, expected) in cases {
            let read = read::<Document>(document).map(|document| document.field);
            assert_eq!(read, *expected, "{}", String::from_utf8_lossy(document));
        }
    }

    #[test]
    fn strings_that_nobody_asks_for_are_strings_too() {
        let with = |text: &str| format!(r#"{{"other":"{text}","field":7}}"#);
        for text in ["", r#"\"\\\/\b\f\n\r\t"#, r"\u0041\uD83D\ude00", r"\ud83d", "\u{7f}"] {
            assert_eq!(read(with(text).as_bytes()), Ok(Document { field: 7 }), "{text}");
        }
        for text in [r"\u00g1", r"\u004", r"\ud8.3", r"\x41", r"\'", "\n", "\0", r"\U0041"] {
            let refused = read::<Document>(with(text).as_bytes());
            assert_eq!(refused, Err(JsonError::NotJson), "{text:?}");
        }
    }

    #[test]
    fn an_array_is_no_object() {
        assert_eq!(read::<Document>(b"[7]"), Ok(Document { field: 7 }), "sonic-rs has changed");
        assert_eq!(read_object(b" {\"field\":7}"), Ok(Document { field: 7 }));
        for document in ["[7]", "\n[{\"field\":7}]", "7", "null"] {
            let refused = read_object::<Document>(document.as_bytes());
            assert_eq!(refused, Err(JsonError::Shape), "{document}");
        }
        assert_eq!(read_object::<Document>(b"[7"), Err(JsonError::NotJson));
        assert_eq!(read_object::<Document>(b""), Err(JsonError::NotJson));
        assert_eq!(read_object::<Document>("[".repeat(99).as_bytes()), Err(JsonError::TooDeep));
    }

    #[test]
    fn depth_is_limited_and_strings_are_text() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"other":{open}"]\\\"["{close},"field":1}}"#)
        };
        assert_eq!(read(nested(DEPTH_MAX - 1).as_bytes()), Ok(Document { field: 1 }));
        assert_eq!(read::<Document>(nested(DEPTH_MAX).as_bytes()), Err(JsonError::TooDeep));
        let unfinished = "[".repeat(4096);
        assert_eq!(read::<Document>(unfinished.as_bytes()), Err(JsonError::TooDeep));
        let text = format!(r#"{{"other":"{unfinished}","field":1}}"#);
        assert_eq!(read(text.as_bytes()), Ok(Document { field: 1 }));
    }

    proptest! {
        #[test]
        fn never_panics(document: Vec<u8>) {
            let _ = read::<Document>(&document);
            let _ = read::<LazyValue>(&document);
        }
    }
}
