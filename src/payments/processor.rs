//! The processors' HTTP API (contest of 2025): requests written, answers read for what they mean.
//!
//! Pure: bytes and values. What an answer says about a payment is decided here and nowhere else:
//!
//! | asked | answer | means |
//! | --- | --- | --- |
//! | `POST` | 200 with a JSON object that has a text `message` | booked, under the time we sent |
//! | `POST` | 429 | not booked; a pause of the seconds it says, 30 at most, or of 1 s; longer if it goes on |
//! | `POST` | 500 without a body, and whole | the failure switch: not booked |
//! | `POST` | not a byte was sent | not booked |
//! | `POST` | 422 | it claims to hold the id: looked at at once |
//! | `POST` | 4xx but 408, 409, 423, 425, 429, 499 | refused, if it is still absent 5 s later (10 s after a 422) |
//! | `POST` | anything else, cut off, unreadable, or none | unknown: looked at |
//! | `GET` | 200 with our id, amount and time | booked by us |
//! | `GET` | 200 with our id and amount, and a time that cannot be ours | somebody else's: over, not counted |
//! | `GET` | 200 with our id and another amount | an alarm: rejected, not counted, not paid elsewhere |
//! | `GET` | 404 | absent now; a request under way may yet be carried out |
//! | `GET` | 429 | not answered; a pause |
//! | `GET` | anything else, cut off, unreadable, or none | unknown: asked again |
//!
//! After "unknown" a payment stays with its processor and its `requestedAt`: it is looked at until
//! it is found or absent, and posted there again when it is absent. Only what is certainly not
//! booked, or refused for good, may go to the other processor. A 4xx tells about a payment and
//! nothing about the processor; a failure, a lost answer or any other odd one counts against it.
//!
//! Whose booking it is shows in its time. Of an instance alone: ours if it is not from before we
//! accepted the payment. Of a pair the instance that is a payment's home sends only even
//! milliseconds, and the other one only odd ones.

use super::observed::Report;
use super::{Attempt, Outcome, Payment, PaymentId, Refusal};
use crate::base::clock::{Rounding, Timestamp};
use crate::base::json;
use crate::base::money::{Cents, MoneyError};
use serde::Deserialize;
use sonic_rs::LazyValue;
use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

/// Pauses asked for by a 429 without a `Retry-After` we can read.
const RETRY_AFTER_DEFAULT_MS: u64 = 1_000;

/// `POST /payments` for this attempt.
pub fn write_pay(out: &mut Vec<u8>, host: &str, attempt: &Attempt) {
    let Attempt { payment, requested_at, .. } = attempt;
    for piece in [
        b"POST /payments HTTP/1.1\r\nHost: ",
        host.as_bytes(),
        b"\r\nContent-Type: application/json\r\nContent-Length: ",
        LENGTH_UNKNOWN,
        b"\r\n\r\n",
    ] {
        out.extend_from_slice(piece);
    }
    let body = out.len();
    out.extend_from_slice(b"{\"correlationId\":\"");
    out.extend_from_slice(&payment.id.text());
    out.extend_from_slice(b"\",\"amount\":");
    payment.amount.write(out);
    out.extend_from_slice(b",\"requestedAt\":\"");
    out.extend_from_slice(&requested_at.text());
    out.extend_from_slice(b"\"}");
    // Leading zeros are part of the grammar (RFC 9110, 8.6), but not of good manners: the shortest
    // body and the longest have three digits.
    let mut length = out.len() - body;
    let digits = body - b"\r\n\r\n".len() - LENGTH_UNKNOWN.len()..body - b"\r\n\r\n".len();
    for digit in out[digits].iter_mut().rev() {
        *digit = b'0' + (length % 10) as u8;
        length /= 10;
    }
}

/// Room for the length of a body, which is known when it is written: between 111 for 0.01 and 127.
const LENGTH_UNKNOWN: &[u8] = b"000";

/// `GET /payments/{id}`.
pub fn write_look(out: &mut Vec<u8>, host: &str, id: PaymentId) {
    let _ = write!(out, "GET /payments/{id} HTTP/1.1\r\nHost: {host}\r\n\r\n");
}

/// `GET /payments/service-health`.
pub fn write_health(out: &mut Vec<u8>, host: &str) {
    let _ = write!(out, "GET /payments/service-health HTTP/1.1\r\nHost: {host}\r\n\r\n");
}

/// When an attempt that starts at `at` asks to be booked: not before its payment was accepted, and
/// in a pair to the millisecond that tells who asked.
pub fn requested_at(payment: &Payment, at: Timestamp, paired: bool) -> Timestamp {
    let at = at.max(payment.accepted_at);
    let is_off = paired && !is_of_its_instance(at, payment.guest);
    Timestamp(at.0 + i64::from(is_off))
}

/// In a pair: whether a payment is booked under such a time by this instance, and not by the other.
pub fn is_of_its_instance(at: Timestamp, guest: bool) -> bool {
    (at.0.rem_euclid(2) == 1) == guest
}

/// The contest's answer to a payment that is booked.
const BOOKED: &[u8] = br#"{"message":"payment processed successfully"}"#;

/// What the answer to `POST /payments` means; the table above says why.
///
/// The failure switch answers 500 with an empty body, after its delay and before any insert. A 5xx
/// with a body comes from somewhere else (a database error may or may not have inserted); so may one
/// whose connection ended with it (`is_whole` is false), of which a body may have been cut off.
pub fn read_pay(
    status: u16,
    body: &[u8],
    retry_after_s: Option<u32>,
    is_whole: bool,
    attempt: &Attempt,
) -> Outcome {
    match status {
        200 if body == BOOKED || has_message(body) => Outcome::Recorded(attempt.requested_at),
        429 => Outcome::NotRecorded(too_many(retry_after_s)),
        500 if body.is_empty() && is_whole => Outcome::NotRecorded(Refusal::Failing),
        400..=499 => Outcome::Declined { status },
        // Above 599 means no more than 500 does (RFC 9110, 15).
        _ => Outcome::Unknown,
    }
}

/// Whether a document is an object with a text `message`.
fn has_message(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow, rename = "message")]
        _message: Cow<'a, str>,
    }
    json::read_object::<Said>(body).is_ok()
}

/// What the answer to `GET /payments/{id}` means; the table above says why.
pub fn read_look(
    status: u16,
    body: &[u8],
    retry_after_s: Option<u32>,
    attempt: &Attempt,
    paired: bool,
) -> Outcome {
    match status {
        200 => read_booking(body, attempt, paired).unwrap_or(Outcome::Unknown),
        404 => Outcome::Absent,
        429 => Outcome::NotRecorded(too_many(retry_after_s)),
        _ => Outcome::Unknown,
    }
}

/// `None` if it is no booking of this payment's id.
fn read_booking(body: &[u8], attempt: &Attempt, paired: bool) -> Option<Outcome> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Booked<'a> {
        #[serde(borrow)]
        correlation_id: Cow<'a, str>,
        #[serde(borrow)]
        amount: LazyValue<'a>,
        #[serde(borrow)]
        requested_at: Cow<'a, str>,
    }
    let payment = &attempt.payment;
    let booked = json::read_object::<Booked>(body).ok()?;
    if PaymentId::parse(booked.correlation_id.as_bytes()) != Some(payment.id) {
        return None;
    }
    let at = read_time(booked.requested_at.as_bytes())?;
    what_is_booked(Cents::parse(booked.amount.as_raw_str().as_bytes()), at, attempt, paired)
}

/// What it means that a processor holds a payment of this id, over this amount and under this time.
/// `None` if the amount is none.
pub fn what_is_booked(
    amount: Result<Cents, MoneyError>,
    at: Timestamp,
    attempt: &Attempt,
    paired: bool,
) -> Option<Outcome> {
    match amount {
        Err(MoneyError::NotANumber) => None,
        Ok(amount) if amount == attempt.payment.amount => {
            Some(match is_ours(at, attempt, paired) {
                true => Outcome::Recorded(at),
                false => Outcome::Foreign,
            })
        }
        Ok(_) | Err(MoneyError::OutOfRange) => Some(Outcome::OtherAmount),
    }
}

fn is_ours(at: Timestamp, attempt: &Attempt, paired: bool) -> bool {
    let payment = &attempt.payment;
    at == attempt.requested_at
        || (at >= payment.accepted_at && (!paired || is_of_its_instance(at, payment.guest)))
}

/// A time as the processors write it: theirs comes from a column without a zone, which is UTC.
pub fn read_time(text: &[u8]) -> Option<Timestamp> {
    const LENGTH_MAX: usize = 40;
    Timestamp::parse(text, Rounding::Down).or_else(|| {
        let mut with_zone = [0; LENGTH_MAX + 1];
        with_zone.get_mut(..text.len())?.copy_from_slice(text);
        *with_zone.get_mut(text.len())? = b'Z';
        Timestamp::parse(&with_zone[..=text.len()], Rounding::Down)
    })
}

/// Whether somebody should hear of an answer that means this: it is none that a processor of the
/// contest gives in good order.
pub fn is_odd(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Declined { status } => status != 422,
        outcome => outcome == Outcome::Unknown,
    }
}

/// The start of an answer's body for a log, on one line.
pub fn excerpt(body: &[u8]) -> impl std::fmt::Display + '_ {
    const EXCERPT_BYTES_MAX: usize = 80;
    body[..body.len().min(EXCERPT_BYTES_MAX)].escape_ascii()
}

/// 429: the pause that it asks for, or a second.
pub fn too_many(retry_after_s: Option<u32>) -> Refusal {
    let retry_after_ms = retry_after_s.map_or(RETRY_AFTER_DEFAULT_MS, |s| u64::from(s) * 1_000);
    Refusal::TooMany { retry_after_ms }
}

/// What `GET /payments/service-health` says, if it says anything.
pub fn read_health(status: u16, body: &[u8]) -> Option<Report> {
    #[derive(Deserialize)]
    struct Health {
        failing: bool,
        #[serde(rename = "minResponseTime")]
        min_response_time: u32,
    }
    let health = json::read_object::<Health>(body).ok().filter(|_| status == 200)?;
    let response_min = Duration::from_millis(u64::from(health.min_response_time));
    Some(Report { failing: health.failing, response_min })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Moment;
    use crate::base::money::Cents;
    use crate::payments::Processor;

    fn attempt() -> Attempt {
        let payment = Payment {
            id: PaymentId::parse(b"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap(),
            amount: Cents(1990),
            accepted: Moment(0),
            accepted_at: Timestamp(1_594_384_496_000),
            guest: false,
            verify: false,
        };
        let requested_at = Timestamp(1_594_384_496_123);
        Attempt { payment, processor: Processor::DEFAULT, requested_at }
    }

    #[test]
    fn a_payment_as_it_goes_out() {
        let mut out = Vec::new();
        write_pay(&mut out, "host:1", &attempt());
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /payments HTTP/1.1\r\nHost: host:1\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(
            body,
            r#"{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.90,"requestedAt":"2020-07-10T12:34:56.123Z"}"#
        );
    }

    /// Every status with every kind of body: what it means is what the table says, and nothing
    /// else is "booked", "not booked" or "refused".
    #[test]
    fn the_table_of_answers_to_a_payment() {
        let attempt = attempt();
        let booked = Outcome::Recorded(attempt.requested_at);
        let bodies: [(&[u8], bool); 9] = [
            (b"", false),
            (br#"{"message":"payment processed successfully"}"#, true),
            (br#" {"more":[{}],"message":"\u0041"}"#, true),
            (b"{}", false),
            (br#"{"message":7}"#, false),
            (br#"["message"]"#, false),
            (br#"{"message":"cut o"#, false),
            (b"<html>please log in</html>", false),
            (b"\xff\xfe{\0", false),
        ];
        for status in 102..1_000 {
            for ((body, is_message), is_whole) in
                bodies.into_iter().flat_map(|it| [(it, true), (it, false)])
            {
                let expected = match status {
                    200 if is_message => booked,
                    429 => Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 5_000 }),
                    500 if body.is_empty() && is_whole => Outcome::NotRecorded(Refusal::Failing),
                    400..=499 => Outcome::Declined { status },
                    _ => Outcome::Unknown,
                };
                let read = read_pay(status, body, Some(5), is_whole, &attempt);
                assert_eq!(read, expected, "{status} {}", body.escape_ascii());
            }
        }
        let default = Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 1_000 });
        assert_eq!(read_pay(429, b"", None, true, &attempt), default);
    }

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn look(attempt: &Attempt, paired: bool, amount: &str, at: &str) -> Outcome {
        let body = format!(r#"{{"correlationId":"{ID}","amount":{amount},"requestedAt":"{at}"}}"#);
        read_look(200, body.as_bytes(), None, attempt, paired)
    }

    #[test]
    fn the_table_of_answers_to_a_question() {
        let attempt = attempt();
        let at = attempt.requested_at;
        let ours = [
            ("19.9", "2020-07-10T12:34:56.123Z"),
            ("19.90", "2020-07-10T12:34:56.123000"), // a column without a zone
            ("1990e-2", "2020-07-10T12:34:56.123"),
            ("19.899", "2020-07-10T09:34:56.123999-03:00"),
        ];
        for (amount, text) in ours {
            assert_eq!(look(&attempt, false, amount, text), Outcome::Recorded(at), "{text}");
        }
        for amount in ["19.91", "-19.90", "0", "1e300"] {
            for text in ["2020-07-10T12:34:56.123Z", "2020-07-10T12:34:55.123Z"] {
                assert_eq!(look(&attempt, false, amount, text), Outcome::OtherAmount, "{amount}");
            }
        }
        for (amount, text) in [
            ("\"19.90\"", "2020-07-10T12:34:56.123Z"),
            ("null", "2020-07-10T12:34:56.123Z"),
            ("19.90", "yesterday"),
            ("19.90", "2020-07-10T12:34:56.123+00"),
            ("19.90", ""),
        ] {
            assert_eq!(look(&attempt, false, amount, text), Outcome::Unknown, "{amount} {text}");
        }
        let long = "2020-07-10T12:34:56.".to_owned() + &"1".repeat(100);
        assert_eq!(look(&attempt, false, "19.90", &long), Outcome::Unknown);
        let other = format!(
            r#"{{"correlationId":"{}","amount":19.9,"requestedAt":"2020-07-10T12:34:56.123Z"}}"#,
            ID.replace('4', "5")
        );
        for body in ["", "{}", "[]", "null", r#"{"requestedAt":7}"#, other.as_str()] {
            let read = read_look(200, body.as_bytes(), None, &attempt, false);
            assert_eq!(read, Outcome::Unknown, "{body}");
        }
        for status in (102..1_000).filter(|it| ![200, 404, 429].contains(it)) {
            assert_eq!(read_look(status, b"", None, &attempt, false), Outcome::Unknown);
        }
        assert_eq!(read_look(404, b"<html>", None, &attempt, false), Outcome::Absent);
    }

    #[test]
    fn whose_booking_it_is() {
        let home = attempt();
        let guest = Payment { guest: true, ..home.payment };
        let guest =
            Attempt { payment: guest, requested_at: Timestamp(home.requested_at.0), ..home };
        let booked = |attempt: &Attempt, paired, ms: i64| {
            look(attempt, paired, "19.90", &Timestamp(ms).to_string())
        };
        let accepted = home.payment.accepted_at.0; // an even millisecond
        for (attempt, paired, ms, is_ours) in [
            (&home, false, accepted, true),
            (&home, false, accepted + 1, true),
            (&home, false, accepted - 1, false),
            (&home, true, accepted, true),
            (&home, true, accepted + 1, false),
            (&home, true, accepted + 2, true),
            (&home, true, accepted - 2, false),
            (&home, true, home.requested_at.0, true), // sent before there was a pair
            (&guest, true, accepted, false),
            (&guest, true, accepted + 1, true),
            (&guest, true, accepted - 1, false),
        ] {
            let expected = match is_ours {
                true => Outcome::Recorded(Timestamp(ms)),
                false => Outcome::Foreign,
            };
            let name = if attempt.payment.guest { "guest" } else { "home" };
            assert_eq!(booked(attempt, paired, ms), expected, "{name} {paired} {ms}");
        }
    }

    #[test]
    fn what_is_sent_can_be_told_from_what_the_other_instance_sends() {
        let home = attempt().payment;
        let guest = Payment { guest: true, ..home };
        for ms in home.accepted_at.0 - 3..home.accepted_at.0 + 9 {
            let at = Timestamp(ms);
            let [ours, theirs] = [home, guest].map(|it| requested_at(&it, at, true));
            assert!(ours.0 % 2 == 0 && theirs.0 % 2 == 1);
            for sent in [ours, theirs] {
                assert!(
                    sent >= at.max(home.accepted_at) && sent.0 <= at.max(home.accepted_at).0 + 1
                );
            }
            assert_eq!(requested_at(&home, at, false), at.max(home.accepted_at));
        }
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        assert_eq!(excerpt(b"<p>\r\n\xff\"").to_string(), r#"<p>\r\n\xff\""#);
        assert_eq!(excerpt(&[b'x'; 1_000]).to_string(), "x".repeat(80));
    }

    #[test]
    fn health() {
        let read = |body: &str| read_health(200, body.as_bytes());
        let report = Report { failing: true, response_min: Duration::from_millis(120) };
        assert_eq!(read(r#"{"failing":true,"minResponseTime":120}"#), Some(report));
        assert_eq!(read("[true,120]"), None);
        assert_eq!(read(r#"{"failing":true}"#), None);
        assert_eq!(read(r#"{"failing":true,"minResponseTime":-1}"#), None);
        assert_eq!(read_health(429, br#"{"failing":true,"minResponseTime":1}"#), None);
    }
}
