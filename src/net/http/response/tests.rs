//! Answers: written and read back, cut anywhere, reused or not.

use super::*;
use crate::net::http::{HEAD_SIZE_MAX, request};
use proptest::prelude::*;

/// A scratch for one call. Leaked, so that an answer may be compared in the same expression.
fn scratch() -> &'static mut Vec<u8> {
    Box::leak(Box::default())
}

/// Parses `bytes` as they would arrive, then, with `at_eof`, at the end of the connection.
/// `reusable` is left out of the text: it rightly depends on what stands behind an answer.
fn arrive(bytes: &[u8], first: usize, patient: bool, at_eof: bool) -> String {
    let mut scratch = Vec::new();
    let mut wait: Option<Wait> = None;
    for length in first..=bytes.len() {
        let last = at_eof && length == bytes.len();
        if patient && !last && wait.is_some_and(|wait| wait.holds(&bytes[..length])) {
            continue;
        }
        match parse(&bytes[..length], last, &mut scratch) {
            Parsed::Partial(now) => wait = Some(now),
            Parsed::Complete { answer, consumed } => {
                return format!("{} {:?} {consumed}", answer.status, answer.body);
            }
            Parsed::Invalid(fault) => return format!("{fault:?}"),
        }
    }
    "Partial".to_owned()
}

/// Valid answers that need no EOF: status, body, reusable, Retry-After.
type Seen = (u16, &'static str, bool, Option<u32>);
const VALID: &[(&str, Seen)] = &[
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, "", true, None)),
    ("HTTP/1.1 200\r\ncontent-length:2\r\n\r\nhi", (200, "hi", true, None)),
    ("HTTP/1.1 200 \r\nContent-Length: 02\r\n\r\nhi", (200, "hi", true, None)),
    ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", (200, "hi", false, None)),
    (
        "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi",
        (200, "hi", true, None),
    ),
    (
        "HTTP/1.1 500 Oops\r\nConnection: a, Close\r\nContent-Length: 0\r\n\r\n",
        (500, "", false, None),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n",
        (200, "hi", true, None),
    ),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n\
         HTTP/1.1 422 No\r\nContent-Length: 1\r\n\r\nx",
        (422, "x", true, None),
    ),
    ("HTTP/1.1 204 No Content\r\n\r\n", (204, "", true, None)),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, "", true, None)),
    ("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", (429, "", true, Some(7))),
    (
        "HTTP/1.1 503 Slow\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n",
        (503, "", true, Some(u32::MAX)),
    ),
    (
        "HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
        (503, "", true, None),
    ),
    ("HTTP/1.1 799 \u{e9}\r\nContent-Length: 0\r\n\r\n", (799, "", true, None)),
];

#[test]
fn valid_answers_are_seen_as_they_are() {
    for (text, (status, body, reusable, retry_after_s)) in VALID {
        let expected = Answer {
            status: *status,
            body: body.as_bytes(),
            reusable: *reusable,
            retry_after_s: *retry_after_s,
        };
        let complete = Parsed::Complete { answer: expected.clone(), consumed: text.len() };
        assert_eq!(parse(text.as_bytes(), false, scratch()), complete, "{text:?}");
        let answer = Answer { reusable: false, ..expected };
        let at_eof = Parsed::Complete { answer, consumed: text.len() };
        assert_eq!(parse(text.as_bytes(), true, scratch()), at_eof, "{text:?} at EOF");
        let more = format!("{text}H");
        assert_eq!(parse(more.as_bytes(), false, scratch()), at_eof, "{text:?} and more");
    }
}

#[test]
fn every_prefix_of_a_valid_answer_is_partial_or_truncated() {
    for (text, _) in VALID {
        let bytes = text.as_bytes();
        for cut in 0..bytes.len() {
            let answer = format!("{:?}", parse(&bytes[..cut], false, scratch()));
            assert!(answer.starts_with("Partial"), "{text:?} cut at {cut}: {answer}");
            let expected = if cut == 0 { AnswerFault::NoAnswer } else { AnswerFault::Truncated };
            let answer = parse(&bytes[..cut], true, scratch());
            assert_eq!(answer, Parsed::Invalid(expected), "{text:?} cut at {cut}");
        }
        let whole = arrive(bytes, bytes.len(), false, false);
        assert_eq!(arrive(bytes, 0, true, false), whole, "{text:?}");
    }
}

#[test]
fn several_answers_are_read_one_by_one() {
    let all: String = VALID.iter().map(|(text, _)| *text).collect();
    let mut rest = all.as_bytes();
    for (text, (status, body, ..)) in VALID {
        let mut scratch = Vec::new();
        let Parsed::Complete { answer, consumed } = parse(rest, false, &mut scratch) else {
            panic!("{text:?} is not complete");
        };
        assert_eq!((answer.status, answer.body), (*status, body.as_bytes()));
        rest = &rest[consumed..];
    }
    assert!(rest.is_empty());
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    for version in ["1.0", "1.1"] {
        let text = format!("HTTP/{version} 200 OK\r\nConnection: keep-alive\r\n\r\nhello");
        let partial = parse(text.as_bytes(), false, scratch());
        assert!(matches!(partial, Parsed::Partial(_)), "{partial:?}");
        let answer = Answer { status: 200, body: b"hello", reusable: false, retry_after_s: None };
        let whole = Parsed::Complete { answer, consumed: text.len() };
        assert_eq!(parse(text.as_bytes(), true, scratch()), whole);
    }
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    use AnswerFault::{Message, Status, StatusLine};
    let cases: &[(&str, AnswerFault)] = &[
        ("\r\n", StatusLine),
        ("\n", StatusLine),
        ("HTTP/1.1  200 OK\r\n", StatusLine),
        ("HTTP/1.1 20 OK\r\n", StatusLine),
        ("HTTP/1.1 2000 OK\r\n", StatusLine),
        ("HTTP/1.1 200 O\0K\r\n", StatusLine),
        ("HTTP/1.1 200 O\rK\r\n", StatusLine),
        ("HTTP/2.0 200 OK\r\n", Message(Fault::Version)),
        ("SSH-2.0-x\r\n", Message(Fault::Version)),
        ("HTTP/1.1 200 OK\n", Message(Fault::LineEnd)),
        ("HTTP/1.1 200 OK\r\nA: b\n", Message(Fault::LineEnd)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n\n", Message(Fault::LineEnd)),
        ("HTTP/1.1 200 OK\r\nA : b\r\n", Message(Fault::SpaceBeforeColon)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n", Message(Fault::ObsoleteFold)),
        ("HTTP/1.1 099 OK\r\n\r\n", Status),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Status),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Message(Fault::ContentLength)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Message(Fault::ContentLengthRepeated),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Message(Fault::LengthAndCoding),
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Message(Fault::UnknownCoding)),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Message(Fault::CodingInHttp10)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", Message(Fault::BodyTooLarge)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Message(Fault::Chunk)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n",
            Message(Fault::BodyTooLarge),
        ),
    ];
    for (text, expected) in cases {
        for at_eof in [false, true] {
            let answer = parse(text.as_bytes(), at_eof, scratch());
            assert_eq!(answer, Parsed::Invalid(*expected), "{text:?}");
        }
        let refused = format!("{expected:?}");
        assert_eq!(arrive(text.as_bytes(), 0, false, false), refused, "{text:?}, byte by byte");
        assert_eq!(arrive(text.as_bytes(), 0, true, false), refused, "{text:?}, patiently");
    }
}

#[test]
fn answer_limits_hold_to_the_byte() {
    let until_eof = |size: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(size));
    let at_the_limit = until_eof(RESPONSE_BODY_SIZE_MAX);
    let answer = parse(at_the_limit.as_bytes(), true, scratch());
    assert!(matches!(answer, Parsed::Complete { .. }));
    let answer = parse(at_the_limit.as_bytes(), false, scratch());
    let Parsed::Partial(wait) = answer else { panic!("{answer:?}") };
    let beyond = until_eof(RESPONSE_BODY_SIZE_MAX + 1);
    assert!(wait.holds(at_the_limit.as_bytes()) && !wait.holds(beyond.as_bytes()));
    let too_large = Parsed::Invalid(AnswerFault::Message(Fault::BodyTooLarge));
    assert_eq!(parse(beyond.as_bytes(), false, scratch()), too_large);

    // Interim answers count towards the limit of the head: they cannot go on for ever.
    let last = "HTTP/1.1 204 x\r\n\r\n";
    let room = HEAD_SIZE_MAX - last.len();
    let interim = String::from_utf8_lossy(CONTINUE).into_owned();
    let fitting = interim.repeat(room / CONTINUE.len()) + last;
    assert_eq!(arrive(fitting.as_bytes(), 0, true, false), format!("204 [] {}", fitting.len()));
    let beyond = interim.repeat(HEAD_SIZE_MAX / CONTINUE.len() + 1);
    let answer = parse(beyond.as_bytes(), false, scratch());
    assert_eq!(answer, Parsed::Invalid(AnswerFault::Message(Fault::HeadTooLarge)));
}

fn written(response: &Response<'_>) -> String {
    let mut out = b"before ".to_vec();
    write(&mut out, response);
    String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
}

#[test]
fn answers_are_written_with_all_that_their_status_requires() {
    let accepted = Response::empty(202, Connection::KeepAlive);
    assert_eq!(written(&accepted).as_bytes(), ACCEPTED);
    assert_eq!(written(&Response::empty(100, Connection::KeepAlive)).as_bytes(), CONTINUE);

    let json = Response::json(200, br#"{"a":1}"#, Connection::Close);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
                Content-Length: 7\r\nConnection: close\r\n\r\n";
    assert_eq!(written(&json), format!("{head}{{\"a\":1}}"));
    assert_eq!(written(&Response { head_only: true, ..json }), head);

    let not_allowed = Response {
        extra: Some(Extra::Allow("GET, HEAD")),
        ..Response::empty(405, Connection::KeepAliveSaid)
    };
    assert_eq!(
        written(&not_allowed),
        "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nAllow: GET, HEAD\r\n\
         Connection: keep-alive\r\n\r\n"
    );
    let unauthorized = Response {
        extra: Some(Extra::Authenticate),
        ..Response::empty(401, Connection::KeepAlive)
    };
    assert_eq!(
        written(&unauthorized),
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer\r\n\r\n"
    );
    let no_content = Response::json(204, b"dropped", Connection::KeepAlive);
    assert_eq!(written(&no_content), "HTTP/1.1 204 No Content\r\n\r\n");
    let unknown = Response::empty(299, Connection::KeepAlive);
    assert_eq!(written(&unknown), "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_refused_request_is_answered_and_the_connection_closed() {
    let mut scratch = Vec::new();
    let request::Parsed::Invalid(reject) = request::parse(b"GET / HTTP/3.0\r\n", &mut scratch)
    else {
        panic!("not refused");
    };
    let mut out = Vec::new();
    write_reject(&mut out, reject);
    let Parsed::Complete { answer, consumed } = parse(&out, false, &mut scratch) else {
        panic!("not an answer");
    };
    assert_eq!((answer.status, answer.reusable, consumed), (505, false, out.len()));
    assert_eq!(answer.body, br#"{"error":"The version must be HTTP/1.1 or HTTP/1.0."}"#);
}

#[test]
fn an_error_body_is_json_whatever_the_reason() {
    assert_eq!(
        error_body("x \"y\" \\ \n\u{e9}"),
        "{\"error\":\"x \\\"y\\\" \\\\ \\u000a\u{e9}\"}".as_bytes()
    );
}

fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\0",
        b":",
        b",",
        b"0",
        b"5",
        b";",
        b"\t",
        b"\xff",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.0",
        b"a b: c\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1 100 \r\n\r\n",
    ];
    let change = (any::<prop::sample::Index>(), 0_usize..3, prop::sample::select(pieces));
    (prop::sample::select(VALID), prop::collection::vec(change, 0..4)).prop_map(
        |((text, _), changes)| {
            let mut bytes = text.as_bytes().to_vec();
            for (index, removed, piece) in changes {
                let start = index.index(bytes.len() + 1);
                let end = bytes.len().min(start + removed);
                bytes.splice(start..end, piece.iter().copied());
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn never_panics(bytes: Vec<u8>, at_eof: bool) {
        let _ = parse(&bytes, at_eof, scratch());
    }

    #[test]
    fn how_the_bytes_are_cut_changes_nothing(bytes in nearly_valid(), at_eof: bool) {
        let whole = arrive(&bytes, bytes.len(), false, at_eof);
        prop_assert_eq!(&arrive(&bytes, 0, false, at_eof), &whole);
        let patient = arrive(&bytes, 0, true, at_eof);
        prop_assert_eq!(patient, whole);
    }

    #[test]
    fn never_consumes_more_than_there_is(bytes in nearly_valid(), at_eof: bool) {
        let mut scratch = Vec::new();
        if let Parsed::Complete { answer, consumed } = parse(&bytes, at_eof, &mut scratch) {
            prop_assert!(consumed > 0 && consumed <= bytes.len());
            prop_assert!((200..=999).contains(&answer.status));
            prop_assert!(!(answer.reusable && (at_eof || consumed < bytes.len())));
        }
    }

    #[test]
    fn what_is_written_reads_back(
        status in 200_u16..600,
        body in prop::collection::vec(any::<u8>(), 0..200),
        seconds: Option<u32>,
        close: bool,
    ) {
        let connection = if close { Connection::Close } else { Connection::KeepAlive };
        let extra = seconds.map(|seconds| Extra::RetryAfter { seconds });
        let response = Response { extra, ..Response::json(status, &body, connection) };
        // A 304 has no body to the reader, and we never write one.
        prop_assume!(status != 304);
        let mut out = Vec::new();
        write(&mut out, &response);
        let body = if status == 204 { &[][..] } else { &body[..] };
        let answer = Answer { status, body, reusable: !close, retry_after_s: seconds };
        let complete = Parsed::Complete { answer, consumed: out.len() };
        prop_assert_eq!(parse(&out, false, scratch()), complete);
    }
}
