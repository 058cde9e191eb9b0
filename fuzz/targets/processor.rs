//! What a processor's answer means, of any status with any body: only what the table in
//! `payments/processor.rs` says; and what is asked of it is a request that says what was meant.

#![no_main]

use galo::base::clock::Timestamp;
use galo::base::money::Cents;
use galo::net::http::request::{self, Method, Parsed};
use galo::payments::processor;
use galo::payments::{Attempt, Outcome, Refusal, intake};
use galo_fuzz::{Source, fuzz_target};

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    let attempt = source.attempt();
    let (is_whole, is_paired) = (source.bool(), source.bool());
    let status = match source.below(8) {
        0..5 => [200, 404, 422, 429, 500][source.below(5)],
        _ => 200 + (source.u64() % 800) as u16,
    };
    let retry_after_s = source.bool().then(|| source.u64() as u32);
    let made_up = source.bool();
    let booked_at = Timestamp(attempt.requested_at.0 + source.i64() % 1_000);
    let booked_amount = if source.bool() { attempt.payment.amount } else { Cents(source.i64()) };
    let zone = ["Z", "", "+00:00"][source.below(3)];
    let cut = source.u64() as usize;
    let rest = source.rest();
    let body = if made_up { rest } else { &[] };

    check_paid(status, body, retry_after_s, is_whole, &attempt);
    check_looked(status, body, retry_after_s, &attempt, is_paired);
    if let Some(report) = processor::read_health(status, body) {
        assert_eq!(status, 200);
        let again = format!(
            r#"{{"failing":{},"minResponseTime":{}}}"#,
            report.failing,
            report.response_min.as_millis()
        );
        assert_eq!(processor::read_health(200, again.as_bytes()), Some(report));
    }
    let shown = processor::excerpt(body).to_string();
    assert!(shown.len() <= 4 * 80 && shown.bytes().all(|it| (0x20..0x7f).contains(&it)));

    // A booking as it is written, and every start of it.
    let time = booked_at.to_string().replace('Z', zone);
    let booking = format!(
        r#"{{"correlationId":"{}","amount":{booked_amount},"requestedAt":"{time}"}}"#,
        attempt.payment.id
    );
    let is_ours = booked_at == attempt.requested_at
        || (booked_at >= attempt.payment.accepted_at
            && (!is_paired || (booked_at.0.rem_euclid(2) == 1) == attempt.payment.guest));
    let expected = match (booked_amount == attempt.payment.amount, is_ours) {
        (false, _) => Outcome::OtherAmount,
        (true, true) => Outcome::Recorded(booked_at),
        (true, false) => Outcome::Foreign,
    };
    let look = |body: &[u8]| processor::read_look(200, body, None, &attempt, is_paired);
    assert_eq!(look(booking.as_bytes()), expected);
    assert_eq!(look(&booking.as_bytes()[..cut % booking.len()]), Outcome::Unknown);
    check_requests(&attempt);
});

fn check_paid(
    status: u16,
    body: &[u8],
    retry_after_s: Option<u32>,
    is_whole: bool,
    attempt: &Attempt,
) {
    let paid = processor::read_pay(status, body, retry_after_s, is_whole, attempt);
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let has_message = said.is_some_and(|it| it.is_object() && it["message"].is_string());
    match paid {
        Outcome::Recorded(at) => {
            assert_eq!((status, at), (200, attempt.requested_at));
            assert!(has_message);
        }
        Outcome::NotRecorded(Refusal::TooMany { retry_after_ms }) => {
            assert_eq!(status, 429);
            assert_eq!(retry_after_ms, retry_after_s.map_or(1_000, |s| u64::from(s) * 1_000));
        }
        Outcome::NotRecorded(refusal) => {
            assert_eq!(refusal, Refusal::Failing);
            assert!(status == 500 && body.is_empty() && is_whole);
        }
        Outcome::Declined { status: said } => {
            assert!(said == status && (400..500).contains(&status) && status != 429);
        }
        Outcome::Unknown => {
            assert!(!(400..500).contains(&status));
            assert!(status != 200 || !has_message);
            assert!(status != 500 || !body.is_empty() || !is_whole);
        }
        Outcome::Foreign | Outcome::OtherAmount | Outcome::Absent => panic!("{paid:?}"),
    }
    processor::is_odd(paid);
}

fn check_looked(
    status: u16,
    body: &[u8],
    retry_after_s: Option<u32>,
    attempt: &Attempt,
    is_paired: bool,
) {
    let looked = processor::read_look(status, body, retry_after_s, attempt, is_paired);
    match looked {
        Outcome::Recorded(at) => {
            assert!(status == 200);
            assert!(at == attempt.requested_at || at >= attempt.payment.accepted_at);
        }
        Outcome::Foreign | Outcome::OtherAmount => assert!(status == 200),
        Outcome::Absent => assert!(status == 404),
        Outcome::NotRecorded(Refusal::TooMany { .. }) => assert!(status == 429),
        Outcome::Unknown => assert!(status != 404 && status != 429),
        Outcome::NotRecorded(_) | Outcome::Declined { .. } => panic!("{looked:?}"),
    }
}

/// They are what a server reads.
fn check_requests(attempt: &Attempt) {
    let mut scratch = Vec::new();
    let mut out = Vec::new();
    processor::write_pay(&mut out, "host:1", attempt);
    let Parsed::Complete { request, consumed } = request::parse(&out, &mut scratch) else {
        panic!("{}", out.escape_ascii());
    };
    let (id, amount) = (attempt.payment.id, attempt.payment.amount);
    assert_eq!(
        (consumed, request.method, request.path),
        (out.len(), Method::Post, &b"/payments"[..])
    );
    assert_eq!(intake::read(request.body), Ok((id, amount)));
    assert!(
        request
            .body
            .ends_with(format!(r#","requestedAt":"{}"}}"#, attempt.requested_at).as_bytes())
    );
    for (is_look, path) in
        [(true, format!("/payments/{id}")), (false, "/payments/service-health".into())]
    {
        let mut out = Vec::new();
        match is_look {
            true => processor::write_look(&mut out, "host:1", id),
            false => processor::write_health(&mut out, "host:1"),
        }
        let Parsed::Complete { request, consumed } = request::parse(&out, &mut scratch) else {
            panic!("{}", out.escape_ascii());
        };
        assert_eq!(
            (consumed, request.method, request.path),
            (out.len(), Method::Get, path.as_bytes())
        );
    }
}
