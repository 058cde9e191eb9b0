//! JSON pointers (RFC 6901): the value of a document that they point at.
//!
//! Strict where two readers could disagree: of a key that stands there twice nobody says which value
//! counts, so it points at nothing.

use crate::base::json;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;
use std::borrow::Cow;
use std::fmt;

const POINTER_BYTES_MAX: usize = 256;
const TOKENS_MAX: usize = 16;

/// A pointer. Displays as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    written: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    key: String,
    /// The place in an array that it names as well, if it does.
    index: Option<usize>,
}

impl Pointer {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Pointer, String> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err("a JSON pointer begins with /, such as /status (RFC 6901)".into());
        }
        if text.chars().any(char::is_control) {
            return Err("a pointer has no control characters".into());
        }
        if text.len() > POINTER_BYTES_MAX || text.split('/').count() > TOKENS_MAX + 1 {
            return Err(format!(
                "a pointer has {POINTER_BYTES_MAX} bytes and {TOKENS_MAX} steps at most"
            ));
        }
        let tokens = text.split('/').skip(1).map(Token::parse).collect::<Result<_, _>>()?;
        Ok(Pointer { written: text.into(), tokens })
    }

    /// The JSON text of the value it points at, in a document that [`Document::read`] has read.
    pub fn find<'a>(&self, document: Document<'a>) -> Option<Cow<'a, str>> {
        let mut deserializer = sonic_rs::Deserializer::from_str(document.0);
        Walk(&self.tokens).deserialize(&mut deserializer).ok().flatten()
    }
}

impl Token {
    fn parse(text: &str) -> Result<Token, String> {
        let is_escaped = |rest: &str| rest.starts_with(['0', '1']);
        if !text.split('~').skip(1).all(is_escaped) {
            return Err("a ~ in a pointer is written ~0, and a / in a key ~1 (RFC 6901)".into());
        }
        if text == "-" {
            return Err("- points behind the end of an array, where there is nothing".into());
        }
        let is_index = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        let index = is_index.then(|| text.parse().ok()).flatten();
        Ok(Token { key: text.replace("~1", "/").replace("~0", "~"), index })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// A body that is one JSON document, whole and not nested too deeply.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a>(&'a str);

impl<'a> Document<'a> {
    pub fn read(body: &'a [u8]) -> Option<Document<'a>> {
        json::read::<LazyValue>(body).ok()?;
        let text = std::str::from_utf8(body).ok()?;
        Some(Document(text.trim_matches([' ', '\t', '\r', '\n'])))
    }
}

/// Follows the tokens into a value.
struct Walk<'t>(&'t [Token]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            let value = <LazyValue as serde::Deserialize>::deserialize(deserializer)?;
            return Ok(Some(value.as_raw_cow()));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some((token, rest)) = self.0.split_first() else { return Ok(None) };
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Is(&token.key))? {
            match (is_it, &found) {
                (true, None) => found = Some(map.next_value_seed(Walk(rest))?),
                (true, Some(_)) => return Err(A::Error::custom("a key stands there twice")),
                (false, _) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found.flatten())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let Some((token, rest)) = self.0.split_first() else { return Ok(None) };
        let Some(index) = token.index else { return Err(A::Error::custom("no index")) };
        for _ in 0..index {
            if array.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = array.next_element_seed(Walk(rest))?;
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.flatten())
    }
}

/// Whether a key is this one.
struct Is<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find<'a>(pointer: &str, document: &'a str) -> Option<Cow<'a, str>> {
        Pointer::parse(pointer).unwrap().find(Document::read(document.as_bytes())?)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let document = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,
            "k\"l":6," ":7,"m~n":8}"#;
        for (pointer, value) in [
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(find(pointer, document).as_deref(), Some(value), "{pointer}");
        }
        assert_eq!(find("", " [1]\n").as_deref(), Some("[1]"));
        for nothing in
            ["/foo/2", "/foo/00", "/foo/x", "/foo/0/x", "/x", "/ /x", "/foo/9999999999999999999999"]
        {
            assert_eq!(find(nothing, document), None, "{nothing}");
        }
    }

    #[test]
    fn pointers_that_are_none() {
        for wrong in
            ["status", "/a\n", "/a~", "/a~2", "/~", "/a/-", &"/a".repeat(17), &"/".repeat(300)]
        {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Pointer::parse("/a~1b/0").unwrap().to_string(), "/a~1b/0");
    }

    #[test]
    fn a_key_that_stands_there_twice_and_what_is_no_json_points_at_nothing() {
        for document in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1}{}"#,
            r#"{"a":1"#,
            r#"{"a":01}"#,
            "",
            "\u{feff}{\"a\":1}",
            r#"{"a":1,"b":tru}"#,
        ] {
            assert_eq!(find("/a", document), None, "{document}");
        }
        assert_eq!(find("/b", r#"{"a":1,"a":2,"b":3}"#).as_deref(), Some("3"));
        assert!(Document::read(b"{\"a\":\"\xff\"}").is_none());
        assert!(Document::read("[".repeat(10_000).as_bytes()).is_none());
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Into::into),
            "[ab~/\"\\\\é]{0,3}".prop_map(Into::into),
            any::<bool>().prop_map(Into::into),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::hash_map("[ab01~/\"é]{0,2}", inner, 0..4)
                    .prop_map(|it| it.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn another_reader_finds_the_same(
            value in value(), pointer in "(/([ab012é]|~0|~1|\"){0,2}){0,3}",
        ) {
            let text = value.to_string();
            let found = find(&pointer, &text).map(|it| serde_json::from_str(&it).unwrap());
            prop_assert_eq!(found.as_ref(), value.pointer(&pointer), "{} in {}", pointer, text);
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, pointer: String) {
            let (pointer, document) = (Pointer::parse(&pointer), Document::read(&body));
            if let (Ok(pointer), Some(document)) = (pointer, document) {
                let _ = pointer.find(document);
            }
        }
    }
}
