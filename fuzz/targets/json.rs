//! The one door to JSON: it takes for JSON what others do, and nothing that was cut off.

#![no_main]

use galo::base::json::{self, DEPTH_MAX, JsonError};
use galo_fuzz::fuzz_target;
use serde::de::IgnoredAny;
use std::borrow::Cow;

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    number: Option<i64>,
    list: Option<Vec<u8>>,
    flag: Option<bool>,
}

fuzz_target!(|document: &[u8]| {
    let ours = json::read::<IgnoredAny>(document).map(drop);
    let text = str::from_utf8(document);
    // Given bytes, they do not look at those that they do not need.
    let theirs = text.map(serde_json::from_str::<IgnoredAny>).is_ok_and(|read| read.is_ok());
    match ours {
        Ok(()) => assert!(theirs, "they refuse it"),
        Err(JsonError::NotJson) => assert!(!theirs, "they take it"),
        // Where it is no JSON either, the brackets were counted first.
        Err(JsonError::TooDeep) => {
            let open = document.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
            assert!(open > DEPTH_MAX);
        }
        Err(JsonError::Shape) => panic!("anything is of the shape of anything"),
    }
    let ours = json::read::<Document>(document);
    let theirs = serde_json::from_str::<Document>(text.unwrap_or_default());
    match &ours {
        Ok(read) => assert_eq!(theirs.ok().as_ref(), Some(read)),
        Err(JsonError::Shape) => {
            assert!(theirs.is_err());
            assert_ne!(json::read::<IgnoredAny>(document).map(drop), Err(JsonError::NotJson));
        }
        Err(_) => assert!(theirs.is_err() || ours == Err(JsonError::TooDeep)),
    }
    let object = json::read_object::<Document>(document);
    let is_object = json::skip_space(document).starts_with(b"{");
    assert_eq!(object.is_ok(), ours.is_ok() && is_object);
    // A document in brackets ends with the last of them, and not before.
    let start = json::skip_space(document);
    if matches!(start.first(), Some(b'{' | b'[')) && json::read::<IgnoredAny>(document).is_ok() {
        let length = start.iter().rposition(|byte| matches!(byte, b'}' | b']')).unwrap_or(0);
        for cut in 0..=length {
            let read = json::read::<IgnoredAny>(&start[..cut]).map(drop);
            assert_eq!(read, Err(JsonError::NotJson), "cut at {cut}");
        }
        let nested = [&b"["[..], document, b"]"].concat();
        let depth_is_over = json::read::<IgnoredAny>(&nested).map(drop);
        assert!(matches!(depth_is_over, Ok(()) | Err(JsonError::TooDeep)));
    }
});
