//! Requests: however they are cut, they are read as they are whole, and nothing of what is read is
//! longer than its limit.

#![no_main]

use galo::net::http::request::{self, Method, Need, Parsed, Request};
use galo::net::http::{BODY_SIZE_MAX, HEAD_SIZE_MAX, REQUEST_SIZE_MAX, Version, response};
use galo_fuzz::{cuts, fuzz_target, stretched};

/// How often it is looked again at what was whole or refused before, and at what is long: finding a
/// refusal's reason takes a dozen readings.
const DECIDED_CUTS: usize = 4;
const DECIDED_CUTS_OF_LONG: usize = 1;
/// So many that follow each other are looked at.
const REQUESTS_MAX: usize = 4;

fuzz_target!(|data: &[u8]| {
    let bytes = stretched(data, 2 * REQUEST_SIZE_MAX);
    let mut rest = &bytes[..];
    // What a client sends over one connection.
    for _ in 0..REQUESTS_MAX {
        match check(rest) {
            0 => break,
            consumed => rest = &rest[consumed..],
        }
    }
});

/// How many bytes the request at the start took; 0 if there is none.
fn check(bytes: &[u8]) -> usize {
    let (mut scratch, mut cut_scratch) = (Vec::new(), Vec::new());
    let whole = request::parse(bytes, &mut scratch);
    let mut need: Option<Need> = None;
    let mut refused = false;
    let decided_cuts = if bytes.len() < 512 { DECIDED_CUTS } else { DECIDED_CUTS_OF_LONG };
    let mut decided = 0;
    for cut in cuts(bytes.len()) {
        if decided >= decided_cuts && cut < bytes.len() {
            continue;
        }
        let part = request::parse(&bytes[..cut], &mut cut_scratch);
        match &part {
            Parsed::Partial(next) => {
                assert!(!refused, "refused at {cut}, and then not");
                assert!(cut < REQUEST_SIZE_MAX, "no request is so long");
                if let Parsed::Complete { consumed, .. } = whole {
                    assert!(cut < consumed, "whole at {consumed}, and not at {cut}");
                }
                need = Some(*next);
            }
            Parsed::Complete { .. } | Parsed::Invalid(_) => {
                refused |= matches!(part, Parsed::Invalid(_));
                decided += 1;
                assert_eq!(part, whole, "cut at {cut}");
                let held = need.is_some_and(|need| need.holds(&bytes[..cut]));
                assert!(!held, "who waits as told does not look at {cut}");
            }
        }
    }
    match &whole {
        Parsed::Complete { request, consumed } => {
            check_request(request);
            assert!((16..=bytes.len().min(REQUEST_SIZE_MAX)).contains(consumed));
            *consumed
        }
        Parsed::Invalid(reject) => {
            let mut out = Vec::new();
            response::write_reject(&mut out, *reject);
            let answer = response::parse(&out, false, &mut scratch);
            let response::Parsed::Complete { answer, consumed } = answer else {
                panic!("{reject:?} is answered by {answer:?}");
            };
            assert_eq!((answer.status, answer.reusable), (reject.status(), false));
            assert_eq!(consumed, out.len());
            0
        }
        Parsed::Partial(_) => 0,
    }
}

fn check_request(request: &Request<'_>) {
    assert!(request.body.len() <= BODY_SIZE_MAX);
    assert!(request.path.len() < HEAD_SIZE_MAX);
    let is_path = request.path.starts_with(b"/");
    assert!(is_path || (request.path == b"*" && request.method == Method::Options));
    assert!(!request.path.contains(&b'?') && !request.path.contains(&b'#'));
    let target = request.path.iter().chain(request.query.unwrap_or_default());
    assert!(target.copied().all(|byte| byte.is_ascii_graphic()));
    let host = request.header("Host");
    assert!(host.is_some() || request.version == Version::Http10);
    for name in ["host", "content-length", "authorization", "no such name", ""] {
        let value = request.header(name).unwrap_or_default();
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
    }
}
