//! JSON in: the one door to sonic-rs, behind which its three traps are kept.
//!
//! It follows nesting without a limit (23 KiB of stack a level in a debug build), takes bytes that
//! are not UTF-8 where it hands out raw text, and its typed reader cannot tell "not JSON" from "of
//! another shape". The caller caps the size.

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
    if depth(document) > DEPTH_MAX {
        return Err(JsonError::TooDeep);
    }
    sonic_rs::from_str(text).map_err(|_| match sonic_rs::from_str::<LazyValue>(text) {
        Ok(_) => JsonError::Shape,
        Err(_) => JsonError::NotJson,
    })
}

/// Without leading JSON white space (RFC 8259, 2).
pub fn skip_space(text: &[u8]) -> &[u8] {
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    &text[text.iter().take_while(blank).count()..]
}

/// How deep the brackets outside of strings are nested, at the deepest. Right for any JSON, and no
/// less than what a parser would follow in anything else.
fn depth(document: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in document {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
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
