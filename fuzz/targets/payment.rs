//! Bodies of payments: the two readers agree, whoever else reads JSON agrees, and what is written to
//! a processor is read as what it was.

#![no_main]

use galo::base::clock::Timestamp;
use galo::base::money::Cents;
use galo::payments::PaymentId;
use galo::payments::intake::{self, Refused};
use galo::payments::names::Names;
use galo::payments::resolution::{self, Asked, BY_BYTES_MAX, REASON_BYTES_MAX};
use galo_fuzz::{Source, fuzz_target};
use serde_json::value::RawValue;

#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(rename = "correlationId")]
    id: String,
    #[serde(borrow)]
    amount: &'a RawValue,
}

/// What an operator decides: whatever is read has its bounds, and can be shown on a line.
fn check_resolution(body: &[u8]) {
    let now = Timestamp(1_752_000_000_000);
    let Ok(Asked { action, by, reason }) = resolution::read(body, now, &Names::contest()) else {
        return;
    };
    assert!((1..=BY_BYTES_MAX).contains(&by.len()));
    assert!((1..=REASON_BYTES_MAX).contains(&reason.len()));
    assert!(!by.contains(['\n', '\r']) && !reason.contains(['\n', '\r']));
    assert!(action.names().is_none_or(|(_, requested_at)| requested_at <= now));
}

fuzz_target!(|body: &[u8]| {
    check_resolution(body);
    let read = intake::read(body);
    match read {
        Ok((id, amount)) => {
            assert!(amount > Cents(0));
            assert!(body.trim_ascii_start().starts_with(b"{"), "no object");
            let theirs: Fields = serde_json::from_slice(body).expect("JSON with both fields");
            assert_eq!(PaymentId::parse(theirs.id.as_bytes()), Some(id));
            assert_eq!(Cents::parse(theirs.amount.get().as_bytes()), Ok(amount));
            // Cut off it is no payment, and no other one.
            for cut in 0..body.trim_ascii_end().len() {
                assert_eq!(intake::read(&body[..cut]), Err(Refused::NotJson), "cut at {cut}");
            }
            round_trip(id, amount);
        }
        Err(Refused::NotJson) => {
            let text = str::from_utf8(body).unwrap_or_default();
            assert!(serde_json::from_str::<&RawValue>(text).is_err(), "it is JSON");
        }
        Err(Refused::Field(reason)) => assert!(reason.ends_with('.')),
        Err(Refused::TooDeep) => {}
    }
    // The usual shape has a reader of its own; with another field in front it is not usual.
    let body = body.trim_ascii_start();
    if let Some(rest) = body.strip_prefix(b"{")
        && read.is_ok()
    {
        assert_eq!(intake::read(&[b"{\"other\":[],", rest].concat()), read);
    }
    let mut source = Source::new(body);
    check_amount(source.id(), Cents(source.i64()));
});

/// In either shape it has to be more than nothing.
fn check_amount(id: PaymentId, amount: Cents) {
    if amount > Cents(0) {
        return round_trip(id, amount);
    }
    let refused = Err(Refused::Field("The field amount must be at least 0.01."));
    let usual = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
    assert_eq!(intake::read(usual.as_bytes()), refused);
    let other = format!(r#"{{"amount":{amount},"correlationId":"{id}"}}"#);
    assert_eq!(intake::read(other.as_bytes()), refused);
}

fn round_trip(id: PaymentId, amount: Cents) {
    let usual = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
    assert_eq!(intake::read(usual.as_bytes()), Ok((id, amount)));
    let other = format!(r#"{{ "amount" : {amount} , "correlationId" : "{id}" }}"#);
    assert_eq!(intake::read(other.as_bytes()), Ok((id, amount)));
}
