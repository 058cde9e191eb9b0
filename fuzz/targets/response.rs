//! Answers, as our client side reads them: however they are cut, they are read as they are whole;
//! at the end of a connection nobody waits; nothing is longer than its limit.

#![no_main]

use galo::net::http::response::{self, Answer, AnswerFault, Parsed};
use galo::net::http::{HEAD_SIZE_MAX, RESPONSE_BODY_SIZE_MAX};
use galo_fuzz::{cuts, fuzz_target, stretched};

/// How often it is looked again at what was whole or refused before, and at what is long: finding a
/// refusal's reason takes a dozen readings.
const DECIDED_CUTS: usize = 4;
const DECIDED_CUTS_OF_LONG: usize = 1;

fuzz_target!(|data: &[u8]| {
    let bytes = &stretched(data, RESPONSE_BODY_SIZE_MAX + 2 * HEAD_SIZE_MAX)[..];
    let (mut scratch, mut cut_scratch, mut end_scratch) = (Vec::new(), Vec::new(), Vec::new());
    let whole = response::parse(bytes, false, &mut scratch);
    let mut wait = None;
    let decided_cuts = if bytes.len() < 512 { DECIDED_CUTS } else { DECIDED_CUTS_OF_LONG };
    let mut decided = 0;
    for cut in cuts(bytes.len()) {
        if decided >= decided_cuts && cut < bytes.len() {
            continue;
        }
        let part = response::parse(&bytes[..cut], false, &mut cut_scratch);
        let at_end = response::parse(&bytes[..cut], true, &mut end_scratch);
        decided += usize::from(!matches!(part, Parsed::Partial(_)));
        match &part {
            Parsed::Partial(next) => {
                wait = Some(*next);
                match &whole {
                    Parsed::Complete { consumed, .. } => assert!(cut < *consumed, "{cut}"),
                    Parsed::Invalid(_) => assert!(cut < bytes.len()),
                    Parsed::Partial(_) => {}
                }
                check_cut_off(&at_end, &bytes[..cut]);
            }
            Parsed::Complete { answer, consumed } => {
                check(answer);
                // Bytes beyond it are the one thing that may still change something.
                let alike =
                    Answer { reusable: answer.reusable && cut == *consumed, ..answer.clone() };
                assert_eq!(alike, *answer);
                let Parsed::Complete { answer: last, consumed: last_consumed } = &whole else {
                    panic!("whole at {cut}, and then {whole:?}");
                };
                let last = Answer { reusable: answer.reusable, ..last.clone() };
                assert_eq!((answer, consumed), (&last, last_consumed), "cut at {cut}");
                let closed = Answer { reusable: false, ..answer.clone() };
                assert_eq!(at_end, Parsed::Complete { answer: closed, consumed: *consumed });
                assert!(!wait.is_some_and(|wait| wait.holds(&bytes[..cut])), "{cut}");
            }
            Parsed::Invalid(_) => {
                assert_eq!(part, whole, "cut at {cut}");
                assert_eq!(part, at_end, "cut at {cut}");
                assert!(!wait.is_some_and(|wait| wait.holds(&bytes[..cut])), "{cut}");
            }
        }
    }
});

fn check(answer: &Answer<'_>) {
    assert!((200..=999).contains(&answer.status));
    assert!(answer.body.len() <= RESPONSE_BODY_SIZE_MAX);
    assert!((answer.status != 204 && answer.status != 304) || answer.body.is_empty());
}

/// The end of a connection where more was to come.
fn check_cut_off(parsed: &Parsed<'_>, bytes: &[u8]) {
    match parsed {
        Parsed::Complete { answer, consumed } => {
            check(answer);
            assert!(!answer.reusable, "its end was the end of the connection");
            assert_eq!(*consumed, bytes.len());
            assert!(bytes.ends_with(answer.body));
        }
        Parsed::Invalid(AnswerFault::NoAnswer) => assert!(bytes.is_empty()),
        Parsed::Invalid(fault) => assert_eq!(*fault, AnswerFault::Truncated),
        Parsed::Partial(_) => panic!("nobody may wait for a connection that has ended"),
    }
}
