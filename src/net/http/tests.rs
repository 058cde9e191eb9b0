//! What both sides of the codec share: limits, faults, chunked bodies.

use super::*;
use proptest::prelude::*;

const SIZE_MAX: usize = 100;

fn decode(bytes: &[u8]) -> Result<(Vec<u8>, usize), Stop<Fault>> {
    let mut body = b"left over".to_vec();
    decode_chunked(bytes, 0, SIZE_MAX, &mut body).map(|end| (body, end))
}

#[test]
fn chunks_of_every_legal_shape_decode() {
    let cases: &[(&str, &str)] = &[
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\nhe\r\n3\r\nllo\r\n000\r\n\r\n", "hello"),
        ("00a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        ("1;name=value\r\nx\r\n0;last\r\n\r\n", "x"),
        ("1 \t; name = \"a;b\"\r\nx\r\n0\r\n\r\n", "x"),
        ("1;a;b=c ; d = \"\\\"\\\\\t\u{e9}\" ;e\r\nx\r\n0\r\n\r\n", "x"),
        ("1\r\nx\r\n0\r\nDigest: abc\r\nEmpty:\r\n\r\n", "x"),
    ];
    for (text, expected) in cases {
        let whole = Ok((expected.as_bytes().to_vec(), text.len()));
        assert_eq!(decode(text.as_bytes()), whole, "{text:?}");
        assert_eq!(decode(format!("{text}GET").as_bytes()), whole, "{text:?} and more");
        for cut in 0..text.len() {
            let partial = decode(&text.as_bytes()[..cut]);
            assert!(matches!(partial, Err(Stop::Partial(_))), "{text:?} cut at {cut}");
        }
    }
}

#[test]
fn chunks_of_any_other_shape_are_refused() {
    let cases: &[(&str, Fault)] = &[
        ("\r\n", Fault::Chunk),
        ("5\nhello\r\n0\r\n\r\n", Fault::Chunk),
        ("5\r\nhello0\r\n\r\n", Fault::Chunk),
        ("5\r\nhello\n0\r\n\r\n", Fault::Chunk),
        ("5\r\nhello\rx", Fault::Chunk),
        ("5\r\nhelloo", Fault::Chunk),
        ("0x5\r\nhello\r\n", Fault::Chunk),
        ("+5\r\nhello\r\n", Fault::Chunk),
        ("-5\r\nhello\r\n", Fault::Chunk),
        (" 5\r\nhello\r\n", Fault::Chunk),
        ("5 \r\nhello\r\n", Fault::Chunk),
        ("5 x\r\nhello\r\n", Fault::Chunk),
        ("g\r\n", Fault::Chunk),
        (";ext\r\n", Fault::Chunk),
        ("5;a\rb\r\nhello\r\n", Fault::Chunk),
        ("5;a\0b\r\nhello\r\n", Fault::Chunk),
        ("5;a\nb\r\nhello\r\n", Fault::Chunk),
        ("5\rh", Fault::Chunk),
        ("5\r\r", Fault::Chunk),
        ("5;\r", Fault::Chunk),
        ("5; \r", Fault::Chunk),
        ("5;;", Fault::Chunk),
        ("5;=", Fault::Chunk),
        ("5;a=\r", Fault::Chunk),
        ("5;a=;", Fault::Chunk),
        ("5;a==", Fault::Chunk),
        ("5;a \r", Fault::Chunk),
        ("5;a b", Fault::Chunk),
        ("5;a=b c", Fault::Chunk),
        ("5;a=b \r", Fault::Chunk),
        ("5;a=\"b\r", Fault::Chunk),
        ("5;a=\"b\\\r", Fault::Chunk),
        ("5;a=\"b\"c", Fault::Chunk),
        ("5;a=b\"", Fault::Chunk),
        ("5;a/b", Fault::Chunk),
        ("65\r\n", Fault::BodyTooLarge),
        ("60\r\n", Fault::BodyTooLarge), // after the four bytes before it
        ("ffffffffffffffff\r\n", Fault::BodyTooLarge),
        ("10000000000000005\r\nhello\r\n", Fault::BodyTooLarge),
        ("0\r\nno colon\r\n\r\n", Fault::Trailers),
        ("0\r\nname : x\r\n\r\n", Fault::Trailers),
        ("0\r\nname: x\n\r\n", Fault::Trailers),
        ("0\r\nname: x\r\n\n", Fault::Trailers),
        ("0\r\nname: x\n", Fault::Trailers),
        ("0\r\n\n", Fault::Trailers),
        ("0\r\n folded: x\r\n\r\n", Fault::Trailers),
    ];
    for (text, expected) in cases {
        let before = if text.starts_with("60") { "5\r\nabcde\r\n" } else { "" };
        let text = format!("{before}{text}");
        assert_eq!(decode(text.as_bytes()), Err(Stop::Invalid(*expected)), "{text:?}");
    }
}

#[test]
fn chunk_limits_hold_to_the_byte() {
    let full = format!("64\r\n{}\r\n0\r\n\r\n", "x".repeat(SIZE_MAX));
    assert_eq!(decode(full.as_bytes()), Ok((vec![b'x'; SIZE_MAX], full.len())));
    let over = format!("63\r\n{}\r\n2\r\n", "x".repeat(SIZE_MAX - 1));
    assert_eq!(decode(over.as_bytes()), Err(Stop::Invalid(Fault::BodyTooLarge)));

    let line = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length - 4));
    assert!(decode(line(CHUNK_LINE_SIZE_MAX).as_bytes()).is_ok());
    let too_long = Err(Stop::Invalid(Fault::ChunkLineTooLong));
    assert_eq!(decode(line(CHUNK_LINE_SIZE_MAX + 1).as_bytes()), too_long);
    assert_eq!(decode(&[b'0'; CHUNK_LINE_SIZE_MAX]), too_long);

    let trailers = |length: usize| format!("0\r\na:{}\r\n\r\n", "x".repeat(length - 6));
    assert!(decode(trailers(TRAILERS_SIZE_MAX).as_bytes()).is_ok());
    let too_large = Err(Stop::Invalid(Fault::TrailersTooLarge));
    assert_eq!(decode(trailers(TRAILERS_SIZE_MAX + 1).as_bytes()), too_large);

    let trailers = |count: usize| format!("0\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert!(decode(trailers(TRAILER_COUNT_MAX).as_bytes()).is_ok());
    let too_many = Err(Stop::Invalid(Fault::Trailers));
    assert_eq!(decode(trailers(TRAILER_COUNT_MAX + 1).as_bytes()), too_many);
}

#[test]
fn framing_may_not_outgrow_its_limit() {
    // Each chunk is 131 bytes of framing around one byte; the last line is 3 bytes.
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(125));
    let body = |extension: usize| {
        let chunks = chunk.repeat((CHUNK_FRAMING_SIZE_MAX - 100) / 131);
        let spare = CHUNK_FRAMING_SIZE_MAX - chunks.len() / 132 * 131;
        format!("{chunks}0;{}\r\n\r\n", "e".repeat(spare - 4 + extension))
    };
    assert!(decode(body(0).as_bytes()).is_ok());
    assert_eq!(decode(body(1).as_bytes()), Err(Stop::Invalid(Fault::ChunkFramingTooLarge)));
}

#[test]
fn a_content_length_is_one_number() {
    let read = |values: &[&str]| {
        let mut framing = Framing::default();
        for value in values {
            framing.note(&Header { name: "cOnTeNt-LeNgTh", value: value.as_bytes() })?;
        }
        Ok(framing.content_length)
    };
    type Read = Result<Option<u64>, Fault>;
    let cases: &[(&[&str], Read)] = &[
        (&[], Ok(None)),
        (&["0"], Ok(Some(0))),
        (&["05"], Ok(Some(5))),
        (&["18446744073709551615"], Ok(Some(u64::MAX))),
        (&["18446744073709551616"], Err(Fault::ContentLength)),
        (&[""], Err(Fault::ContentLength)),
        (&["5,"], Err(Fault::ContentLength)),
        (&["+5"], Err(Fault::ContentLength)),
        (&["-0"], Err(Fault::ContentLength)),
        (&["5 5"], Err(Fault::ContentLength)),
        (&["0x5"], Err(Fault::ContentLength)),
        (&["5.0"], Err(Fault::ContentLength)),
        (&["5, 5"], Err(Fault::ContentLength)),
        (&["5, 6"], Err(Fault::ContentLength)),
        (&["5", "5"], Err(Fault::ContentLengthRepeated)),
        (&["70", "070"], Err(Fault::ContentLengthRepeated)),
        (&["5", "6"], Err(Fault::ContentLengthRepeated)),
    ];
    for (values, expected) in cases {
        assert_eq!(read(values), *expected, "{values:?}");
    }
}

#[test]
fn a_wait_holds_until_what_it_waits_for() {
    let length = Wait::Length(3);
    assert!(length.holds(b"ab"));
    assert!(!length.holds(b"abc"));
    let text = Wait::Text { seen: 2, length_max: 5 };
    assert!(text.holds(b"\nab~"));
    for byte in b"\n\r :/#%;\t\0\x80" {
        assert!(!text.holds(&[b'a', b'b', *byte]), "{byte}");
    }
    assert!(!text.holds(b"abcde"));
    assert!(!text.holds(b"a")); // not the buffer it was made for: parse again
}

proptest! {
    #[test]
    fn decoding_never_panics_nor_reads_beyond_its_input(
        text in "([0-9a-f]{0,2}|;[a-z]{1,3}|\r\n|\n|[a-z]: |\r\n0\r\n\r\n){0,12}",
    ) {
        if let Ok((body, end)) = decode(text.as_bytes()) {
            prop_assert!(end <= text.len() && body.len() <= SIZE_MAX);
        }
    }

    #[test]
    fn what_is_cut_into_chunks_is_put_together(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        prop_assert_eq!(decode(&text), Ok((chunks.concat(), text.len())));
    }
}
