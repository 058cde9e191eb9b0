//! Requests: every prefix, every malformed head, every limit.

use super::*;
use crate::net::http::{
    CHUNK_FRAMING_SIZE_MAX, CHUNK_LINE_SIZE_MAX, HEAD_SIZE_MAX, REQUEST_SIZE_MAX, TRAILERS_SIZE_MAX,
};
use proptest::prelude::*;

/// A scratch for one call. Leaked, so that an answer may be compared in the same expression.
fn scratch() -> &'static mut Vec<u8> {
    Box::leak(Box::default())
}

/// Parses `bytes` as they would arrive: first `first` bytes, then one more each time. With
/// `patient`, as a caller does that asks [`Need::holds`]. Returns the first answer that is not
/// Partial, or the last one, as text that outlives the scratch.
fn arrive(bytes: &[u8], first: usize, patient: bool) -> String {
    let mut scratch = Vec::new();
    let mut need: Option<Need> = None;
    for length in first..=bytes.len() {
        if patient && need.is_some_and(|need| need.holds(&bytes[..length])) {
            continue;
        }
        match parse(&bytes[..length], &mut scratch) {
            Parsed::Partial(now) => need = Some(now),
            answer => return format!("{answer:?}"),
        }
    }
    "Partial".to_owned()
}

/// Valid requests, with what a route gets to see: method, path, query, body, keep-alive.
type Seen = (Method, &'static str, Option<&'static str>, &'static str, bool);
const VALID: &[(&str, Seen)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", (Method::Get, "/", None, "", true)),
    (
        "\r\n\r\nGET /a?b=c?d HTTP/1.1\r\nhost:\r\n\r\n",
        (Method::Get, "/a", Some("b=c?d"), "", true),
    ),
    ("GET /a? HTTP/1.0\r\n\r\n", (Method::Get, "/a", Some(""), "", false)),
    ("HEAD / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", (Method::Head, "/", None, "", true)),
    (
        "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: x , CLOSE\r\nConnection: keep-alive\r\n\r\n",
        (Method::Head, "/", None, "", false),
    ),
    ("POST /p HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", (Method::Post, "/p", None, "", true)),
    (
        "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: \t5 \r\n\r\nhello",
        (Method::Post, "/p", None, "hello", true),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH: 02\r\n\r\nhi",
        (Method::Get, "/", None, "hi", true),
    ),
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
         2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
        (Method::Other, "/", None, "hello", true),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
        (Method::Post, "/", None, "x", true),
    ),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", (Method::Options, "*", None, "", true)),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", (Method::Get, "/", None, "", true)),
    (
        "POST /a?b HTTP/1.9\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        (Method::Post, "/a", Some("b"), "hi", false),
    ),
    ("GET http://a:1/b?c HTTP/1.1\r\nHost: a\r\n\r\n", (Method::Get, "/b", Some("c"), "", true)),
    ("GET HTTPS://a?c HTTP/1.1\r\nHost: a\r\n\r\n", (Method::Get, "/", Some("c"), "", true)),
    ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", (Method::Get, "/", None, "", true)),
    ("get / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", (Method::Unknown, "/", None, "", true)),
    ("BREW / HTTP/1.0\r\n\r\n", (Method::Unknown, "/", None, "", false)),
];

#[test]
fn valid_requests_are_seen_as_they_are() {
    for (text, (method, path, query, body, keep_alive)) in VALID {
        let mut scratch = Vec::new();
        let Parsed::Complete { request, consumed } = parse(text.as_bytes(), &mut scratch) else {
            panic!("{text:?} is not complete");
        };
        assert_eq!(consumed, text.len(), "{text:?}");
        assert_eq!(request.method, *method, "{text:?}");
        assert_eq!(request.path, path.as_bytes(), "{text:?}");
        assert_eq!(request.query, query.map(str::as_bytes), "{text:?}");
        assert_eq!(request.body, body.as_bytes(), "{text:?}");
        assert_eq!(request.keep_alive, *keep_alive, "{text:?}");
    }
}

#[test]
fn every_prefix_of_a_valid_request_is_partial() {
    for (text, _) in VALID {
        let bytes = text.as_bytes();
        for cut in 0..bytes.len() {
            let answer = format!("{:?}", parse(&bytes[..cut], scratch()));
            assert!(answer.starts_with("Partial"), "{text:?} cut at {cut}: {answer}");
        }
        assert_eq!(arrive(bytes, 0, true), arrive(bytes, bytes.len(), false), "{text:?}");
    }
}

#[test]
fn pipelined_requests_are_read_one_by_one() {
    let all: String = VALID.iter().map(|(text, _)| *text).collect();
    let mut rest = all.as_bytes();
    let mut scratch = Vec::new();
    for (text, (_, path, _, body, _)) in VALID {
        let Parsed::Complete { request, consumed } = parse(rest, &mut scratch) else {
            panic!("{text:?} is not complete");
        };
        assert_eq!((request.path, request.body), (path.as_bytes(), body.as_bytes()));
        assert_eq!(consumed, text.len());
        rest = &rest[consumed..];
    }
    assert!(rest.is_empty());
}

/// Refused at once, byte by byte, and by a caller who waits for as long as he is told to.
fn assert_refused(text: &str, expected: Reject) {
    let refused = Parsed::Invalid(expected);
    assert_eq!(parse(text.as_bytes(), scratch()), refused, "{text:?}");
    let refused = format!("{refused:?}");
    assert_eq!(arrive(text.as_bytes(), 0, false), refused, "{text:?}, byte by byte");
    assert_eq!(arrive(text.as_bytes(), 0, true), refused, "{text:?}, patiently");
}

/// Nothing that follows could make a request of these; each is refused with its last byte, and not
/// before.
#[test]
fn what_can_never_become_a_request_is_refused_at_its_first_wrong_byte() {
    use Fault::*;
    use Reject::{Host, HostRepeated, RequestLine, Target};
    let message = Reject::Message;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases: &[(&str, Reject)] = &[
        ("\x16", RequestLine),
        ("\0", RequestLine),
        (" ", RequestLine),
        ("G(", RequestLine),
        ("GET:", RequestLine),
        ("GET  ", RequestLine),
        ("GET a", Target),
        ("GET htx", Target),
        ("GET http:/x", Target),
        ("GET http://u@", Target),
        ("GET http://a:b", Target),
        ("GET http://[g", Target),
        ("GET http://[::1]a", Target),
        ("GET http://[:::]", Target),
        ("GET *", Target),
        ("GET /#", Target),
        ("GET / X", RequestLine),
        ("GET / HTTP/x", RequestLine),
        ("GET / HTTP/1.x", RequestLine),
        ("GET / HTTP/2.0", message(Version)),
        ("GET / HTTP/1.1 ", RequestLine),
        ("GET / HTTP/1.11", RequestLine),
        ("GET / HTTP/1.21", RequestLine),
        ("GET / HTTP/1.1\rX", message(LineEnd)),
        ("GET / HTTP/1.2\rX", message(LineEnd)),
        ("GET / HTTP/1.1\r\n\rX", message(LineEnd)),
        ("\rX", message(LineEnd)),
        ("GET / HTTP/1.1\r\nHost(", message(HeaderName)),
        ("GET / HTTP/1.2\r\nHost(", message(HeaderName)),
        ("GET / HTTP/1.1\r\nHost: a\rX", message(HeaderValue)),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", HostRepeated),
        ("GET / HTTP/1.1\r\nContent-Length: x\r\n", message(ContentLength)),
        ("GET / HTTP/1.1\r\nContent-Length: 4097\r\n", message(BodyTooLarge)),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", message(CodingInHttp10)),
        (&format!("{chunked}x"), message(Chunk)),
        (&format!("{chunked}5\rh"), message(Chunk)),
        (&format!("{chunked}5;;"), message(Chunk)),
        (&format!("{chunked}1\r\nxy"), message(Chunk)),
        (&format!("{chunked}0\r\na "), message(Trailers)),
    ];
    for (text, expected) in cases {
        let before = &text.as_bytes()[..text.len() - 1];
        assert!(matches!(parse(before, scratch()), Parsed::Partial(_)), "{text:?}, too early");
        assert_refused(text, *expected);
    }
}

#[test]
fn a_host_is_a_name_or_an_address_and_a_port() {
    let host = |text: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: {text}\r\n\r\n");
        matches!(parse(text.as_bytes(), scratch()), Parsed::Complete { .. })
    };
    let url = |text: &str| {
        let text = format!("GET http://{text}/ HTTP/1.1\r\nHost: a\r\n\r\n");
        matches!(parse(text.as_bytes(), scratch()), Parsed::Complete { .. })
    };
    for good in [
        "a",
        "A.b-c_d~",
        "a:",
        "a:80",
        "127.0.0.1:9999",
        "[::1]",
        "[::1]:80",
        "[::ffff:1.2.3.4]:",
        "[v1.x:y]:1",
        "a%41b",
        "%C3%a9:80",
        "!$&'()*+;=",
    ] {
        assert!(host(good) && url(good), "{good}");
    }
    for bad in [
        ":80", "a:b", "a:1:2", "a:-1", "[::1", "::1", "[]", "[::1]x", "[::1]:x", "[:::]", "[g]",
        "[v.x]", "[v1.]", "%", "%z", "%zz", "a%4", "a,b", "a@b", "a b", "a\"b", "<a>", "a[1]",
    ] {
        assert!(!host(bad) && !url(bad), "{bad}");
    }
    assert!(host("") && !url(""), "an empty Host says that the target has none");
}

#[test]
fn malformed_lines_are_refused_without_waiting_for_the_rest() {
    use Fault::*;
    use Reject::{EmptyLines, RequestLine};
    let message = Reject::Message;
    let cases: &[(&str, Reject)] = &[
        ("GET / HTTP/1.1\n", message(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\n", message(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", message(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", message(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", message(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\nbad name: x\r\n", message(LineEnd)),
        ("GET / HTTP/1.1\rX", message(LineEnd)),
        ("\nGET / HTTP/1.1\r\n", message(LineEnd)),
        ("\rGET / HTTP/1.1\r\n", message(LineEnd)),
        ("\r\n\r\n\r\n\r\n\r\n", EmptyLines),
        ("GET /\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\n", RequestLine),
        ("GET /  HTTP/1.1\r\n", RequestLine),
        (" GET / HTTP/1.1\r\n", RequestLine),
        ("G\0T / HTTP/1.1\r\n", RequestLine),
        ("GET /\0 HTTP/1.1\r\n", RequestLine),
        ("GET / HTTP/1.1 \r\n", RequestLine),
        ("GET / HTTP/1.11\r\n", RequestLine),
        ("GET / http/1.1\r\n", RequestLine),
        ("GET / HTTP/1\r\n", RequestLine),
        ("GET / HTTP/10.1\r\n", RequestLine),
        ("\x16\x03\x01\x02", RequestLine),
        ("GET / HTTP/2.0\r\n", message(Version)),
        ("GET / HTTP/0.9\r\n", message(Version)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", message(Version)),
        ("GET / HTTP/1.1\r\n Host: a\r\n", message(ObsoleteFold)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n", message(ObsoleteFold)),
        ("GET / HTTP/1.1\r\nHost : a\r\n", message(SpaceBeforeColon)),
        ("GET / HTTP/1.1\r\nHost\r\n", message(HeaderName)),
        ("GET / HTTP/1.1\r\n: a\r\n", message(HeaderName)),
        ("GET / HTTP/1.1\r\nH(st: a\r\n", message(HeaderName)),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n", message(HeaderValue)),
        ("GET / HTTP/1.1\r\nHost: a\0b\r\n", message(HeaderValue)),
        ("GET / HTTP/1.1\r\nHost: a\x7fb\r\n", message(HeaderValue)),
    ];
    for (text, expected) in cases {
        assert_refused(text, *expected);
    }
}

#[test]
fn targets_and_hosts_that_name_nothing_are_refused() {
    use Reject::{Host, HostMissing, HostRepeated, Target};
    let cases: &[(&str, Reject)] = &[
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET / HTTP/1.1\r\n\r\n", HostMissing),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", HostRepeated),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", HostRepeated),
        ("GET / HTTP/1.1\r\nHost: a, a\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Host),
    ];
    for (text, expected) in cases {
        assert_refused(text, *expected);
    }
}

#[test]
fn ambiguous_framing_and_unknown_expectations_are_refused() {
    use Fault::*;
    use Reject::Expectation;
    let message = Reject::Message;
    let cases: &[(&str, Reject)] = &[
        ("Content-Length: x", message(ContentLength)),
        ("Content-Length:", message(ContentLength)),
        ("Content-Length: +5", message(ContentLength)),
        ("Content-Length: 99999999999999999999", message(ContentLength)),
        ("Content-Length: 5, 6", message(ContentLength)),
        ("Content-Length: 70, 70", message(ContentLength)),
        ("Content-Length: 5\r\ncontent-length: 6", message(ContentLengthRepeated)),
        ("Content-Length: 70\r\nContent-Length: 70", message(ContentLengthRepeated)),
        ("Content-Length: 70\r\nContent-Length: 070", message(ContentLengthRepeated)),
        ("Content-Length: 4097", message(BodyTooLarge)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", message(LengthAndCoding)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", message(LengthAndCoding)),
        ("Transfer-Encoding: gzip\r\nContent-Length: 5", message(UnknownCoding)),
        ("Transfer-Encoding: gzip, chunked", message(UnknownCoding)),
        ("Transfer-Encoding: chunked, chunked", message(UnknownCoding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", message(UnknownCoding)),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", message(UnknownCoding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", message(UnknownCoding)),
        ("Transfer-Encoding: xchunked", message(UnknownCoding)),
        ("Transfer-Encoding:", message(UnknownCoding)),
        ("Transfer-Encoding: chunked;q=1", message(UnknownCoding)),
        ("Expect: 200-ok", Expectation),
        ("Expect:", Expectation),
        ("Expect: 100-continue, more", Expectation),
        ("Expect: 100-continue\r\nContent-Length: 5000", message(BodyTooLarge)),
    ];
    for (field, expected) in cases {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        assert_refused(&text, *expected);
    }
    let coding = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_refused(coding, message(CodingInHttp10));
}

#[test]
fn each_refusal_has_its_status() {
    let statuses = [
        (Reject::Message(Fault::HeadTooLarge), 431),
        (Reject::Message(Fault::TooManyHeaders), 431),
        (Reject::Message(Fault::BodyTooLarge), 413),
        (Reject::Message(Fault::UnknownCoding), 501),
        (Reject::Message(Fault::Version), 505),
        (Reject::Expectation, 417),
        (Reject::Message(Fault::LengthAndCoding), 400),
        (Reject::HostMissing, 400),
    ];
    for (reject, status) in statuses {
        assert_eq!(reject.status(), status, "{reject:?}");
    }
}

#[test]
fn head_limits_hold_to_the_byte() {
    let head = |size: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nPadding: ";
        format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4))
    };
    let at_the_limit = head(HEAD_SIZE_MAX);
    let complete = parse(at_the_limit.as_bytes(), scratch());
    assert!(matches!(complete, Parsed::Complete { consumed: HEAD_SIZE_MAX, .. }));
    let too_large = format!("{:?}", Parsed::Invalid(Reject::Message(Fault::HeadTooLarge)));
    let beyond = head(HEAD_SIZE_MAX + 1);
    assert_eq!(arrive(beyond.as_bytes(), beyond.len(), false), too_large);
    // Known as soon as the limit is reached, and found by a patient caller too.
    assert_eq!(arrive(&beyond.as_bytes()[..HEAD_SIZE_MAX], HEAD_SIZE_MAX, false), too_large);
    assert_eq!(arrive(beyond.as_bytes(), 1, true), too_large);

    let head =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
    let at_the_limit = head(HEADER_COUNT_MAX);
    let complete = parse(at_the_limit.as_bytes(), scratch());
    assert!(matches!(complete, Parsed::Complete { .. }));
    let beyond = head(HEADER_COUNT_MAX + 1);
    let too_many = Parsed::Invalid(Reject::Message(Fault::TooManyHeaders));
    assert_eq!(parse(beyond.as_bytes(), scratch()), too_many);
}

#[test]
fn body_limits_hold_to_the_byte() {
    let too_large = Parsed::Invalid(Reject::Message(Fault::BodyTooLarge));
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    let at_the_limit = format!("{head}Content-Length: 4096\r\n\r\n{}", "x".repeat(BODY_SIZE_MAX));
    let mut scratch = Vec::new();
    let answer = parse(at_the_limit.as_bytes(), &mut scratch);
    assert!(matches!(answer, Parsed::Complete { request, .. } if request.body.len() == 4096));

    let chunks = "400\r\n".to_owned() + &"x".repeat(0x400) + "\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunks.repeat(4));
    let whole = format!("{chunked}0\r\n\r\n");
    let answer = parse(whole.as_bytes(), &mut scratch);
    assert!(matches!(answer, Parsed::Complete { request, .. } if request.body.len() == 4096));
    let beyond = format!("{chunked}1\r\n");
    assert_eq!(parse(beyond.as_bytes(), &mut scratch), too_large);
}

#[test]
fn a_full_buffer_is_never_partial() {
    // Every part at its limit, and the trailers one byte short of theirs: REQUEST_SIZE_MAX - 1.
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nPadding: ";
    let padding = "x".repeat(HEAD_SIZE_MAX - start.len() - 4);
    let small = format!("1;{}\r\nx\r\n", "e".repeat(CHUNK_LINE_SIZE_MAX - 4)).repeat(31);
    let large = format!("{:x}\r\n{}\r\n", BODY_SIZE_MAX - 31, "x".repeat(BODY_SIZE_MAX - 31));
    let framing = small.len() + large.len() - BODY_SIZE_MAX;
    let last = format!("0;{}\r\n", "e".repeat(CHUNK_FRAMING_SIZE_MAX - framing - 4));
    let trailers = format!("a:{}", "x".repeat(TRAILERS_SIZE_MAX - 3));
    let mut text = format!("{start}{padding}\r\n\r\n{small}{large}{last}{trailers}");
    assert_eq!(text.len(), REQUEST_SIZE_MAX - 1);
    assert!(matches!(parse(text.as_bytes(), scratch()), Parsed::Partial(_)));
    text.push('x');
    let too_large = Parsed::Invalid(Reject::Message(Fault::TrailersTooLarge));
    assert_eq!(parse(text.as_bytes(), scratch()), too_large);
}

#[test]
fn continue_is_expected_only_before_the_body_begins() {
    let need = |text: &str| match parse(text.as_bytes(), scratch()) {
        Parsed::Partial(Need::Body { expects_continue, .. }) => expects_continue,
        answer => panic!("{text:?}: {answer:?}"),
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n";
    assert!(need(&format!("{head}Expect: 100-continue\r\n\r\n")));
    assert!(!need(&format!("{head}Expect: 100-continue\r\n\r\nx")));
    assert!(!need(&format!("{head}\r\n")));
    assert!(!need("POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    assert!(need(&format!("{chunked}Expect: 100-continue\r\n\r\n")));
}

#[test]
fn a_partial_request_tells_when_to_look_again() {
    let need = |text: &str| match parse(text.as_bytes(), scratch()) {
        Parsed::Partial(need) => need,
        answer => panic!("{text:?}: {answer:?}"),
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let body = Need::Body { wait: Wait::Length(head.len() + 10), expects_continue: false };
    assert_eq!(need(head), body);
    assert_eq!(need(&head[..20]), Need::Head(Wait::Text { seen: 20, length_max: HEAD_SIZE_MAX }));
    assert!(need(&head[..20]).holds(&head.as_bytes()[..21]));
    assert!(!need(&head[..20]).holds(&head.as_bytes()[..22]), "a colon");
    for place in [5, 8, 14, 16] {
        assert!(
            matches!(need(&head[..place]), Need::Head(Wait::Length(next)) if next == place + 1)
        );
    }
}

#[test]
fn any_header_can_be_asked_for() {
    let text = "\r\nGET / HTTP/1.1\r\nHost: a\r\nx-one:  1 \r\nX-One: 2\r\nX-Empty:\r\n\r\n";
    let mut scratch = Vec::new();
    let Parsed::Complete { request, .. } = parse(text.as_bytes(), &mut scratch) else {
        panic!("not complete");
    };
    assert_eq!(request.header("X-ONE"), Some(&b"1"[..]));
    assert_eq!(request.header("x-empty"), Some(&b""[..]));
    assert_eq!(request.header("x-two"), None);
}

#[test]
fn the_connection_is_what_the_client_wants_and_needs_to_hear() {
    let connection = |text: &str| match parse(text.as_bytes(), scratch()) {
        Parsed::Complete { request, .. } => request.connection(),
        answer => panic!("{text:?}: {answer:?}"),
    };
    let of_1_0 = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    assert_eq!(connection(of_1_0), Connection::KeepAliveSaid);
    assert_eq!(connection("GET / HTTP/1.0\r\n\r\n"), Connection::Close);
    assert_eq!(connection("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Connection::KeepAlive);
}

/// Valid requests, and the same with a few bytes replaced, inserted or removed: near enough to
/// valid that every part of the parser is reached.
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
        b"#",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"HTTP/2.0",
        b"Expect: 100-continue\r\n",
        b"a b: c\r\n",
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
    fn never_panics(bytes: Vec<u8>) {
        let _ = parse(&bytes, scratch());
    }

    #[test]
    fn how_the_bytes_are_cut_changes_nothing(bytes in nearly_valid()) {
        let whole = arrive(&bytes, bytes.len(), false);
        prop_assert_eq!(&arrive(&bytes, 0, false), &whole);
        prop_assert_eq!(&arrive(&bytes, 0, true), &whole);
    }

    #[test]
    fn never_consumes_more_than_there_is(bytes in nearly_valid()) {
        let mut scratch = Vec::new();
        if let Parsed::Complete { request, consumed } = parse(&bytes, &mut scratch) {
            prop_assert!(consumed > 0 && consumed <= bytes.len());
            prop_assert!(!request.path.is_empty());
            let mut target = request.path.iter().chain(request.query.unwrap_or_default());
            prop_assert!(target.all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
            prop_assert!(request.body.len() <= BODY_SIZE_MAX);
        }
    }

    #[test]
    fn generated_requests_read_back(
        method in "[A-Z]{1,8}",
        path in "/[!$-+\\--;=@-_a-~]{0,40}",
        query in prop::option::of("[!$-_a-~]{0,40}"),
        headers in prop::collection::vec(("x-[a-z0-9]{1,20}", "[!-~]([ -~]{0,30}[!-~])?"), 0..20),
        body in prop::collection::vec(any::<u8>(), 0..200),
        chunk_size in prop::option::of(1_usize..50),
    ) {
        let mark = if query.is_some() { "?" } else { "" };
        let query_text = query.clone().unwrap_or_default();
        let mut text = format!("{method} {path}{mark}{query_text} HTTP/1.1\r\nhost: a\r\n");
        for (name, value) in &headers {
            text += &format!("{name}:{value}\r\n");
        }
        let mut bytes = text.into_bytes();
        if let Some(chunk_size) = chunk_size {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in body.chunks(chunk_size) {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
        }
        let length = bytes.len();
        bytes.extend_from_slice(b"next");
        let mut scratch = Vec::new();
        let Parsed::Complete { request, consumed } = parse(&bytes, &mut scratch) else {
            return Err(TestCaseError::fail("not complete"));
        };
        prop_assert_eq!(consumed, length);
        prop_assert_eq!(request.path, path.as_bytes());
        prop_assert_eq!(request.query, query.as_deref().map(str::as_bytes));
        prop_assert_eq!(request.body, &body[..]);
        for (name, _) in &headers {
            let first = headers.iter().find(|(other, _)| other == name).map(|it| it.1.as_bytes());
            prop_assert_eq!(request.header(name), first);
        }
    }
}
