//! Amounts and fees as text: as others read the same number, and back as they were.

#![no_main]

use galo::base::money::{Cents, Fee, MoneyError};
use galo_fuzz::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let amount = Cents::parse(data);
    check_grammar(data, amount);
    if let Ok(amount) = amount {
        round_trip(amount);
        check_value(data, amount);
    }
    if amount != Err(MoneyError::NotANumber) {
        check_signs(data, amount);
        check_spellings(data, amount);
    }
    if let Some(bytes) = data.first_chunk() {
        round_trip(Cents(i64::from_le_bytes(*bytes)));
    }
    if let Ok(fee) =
        str::from_utf8(data).map_err(drop).and_then(|it| it.parse::<Fee>().map_err(drop))
    {
        assert!(fee.0 <= 1_000_000);
        let text = fee.to_string();
        // Without a point where there is nothing behind it.
        assert_eq!(text.parse(), Ok(fee));
        assert_eq!(fee.of(1_000_000), i128::from(fee.0) * 1_000_000);
    }
});

fn round_trip(amount: Cents) {
    let mut written = Vec::new();
    amount.write(&mut written);
    assert_eq!(written, amount.to_string().as_bytes());
    assert_eq!(Cents::parse(&written), Ok(amount));
}

/// Whether it is a number at all is not ours to decide.
fn check_grammar(text: &[u8], amount: Result<Cents, MoneyError>) {
    let theirs = serde_json::from_slice::<&RawValue>(text);
    let is_number = theirs.is_ok_and(|raw| {
        raw.get().len() == text.len()
            && raw.get().starts_with(|it: char| it == '-' || it.is_ascii_digit())
    });
    assert_eq!(is_number, amount != Err(MoneyError::NotANumber));
}

fn check_value(text: &[u8], amount: Cents) {
    let theirs: f64 = str::from_utf8(text).expect("digits").parse().expect("a number");
    let (ours, theirs) = (amount.0 as f64, theirs * 100.0);
    assert!((ours - theirs).abs() <= 0.51 + theirs.abs() * 1e-12, "{ours} {theirs}");
}

fn check_signs(text: &[u8], amount: Result<Cents, MoneyError>) {
    let opposite = match text {
        [b'-', rest @ ..] => Cents::parse(rest),
        _ => Cents::parse(&[b"-", text].concat()),
    };
    match (amount, opposite) {
        (Ok(amount), Ok(opposite)) => assert_eq!(amount.0, -opposite.0),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => assert_eq!(one, Cents(i64::MIN)),
        (Err(one), Err(other)) => assert_eq!(one, other),
    }
}

/// The same number in other words.
fn check_spellings(text: &[u8], amount: Result<Cents, MoneyError>) {
    if text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return;
    }
    let zeros: &[u8] = if text.contains(&b'.') { b"000" } else { b".000" };
    for more in [&b"e0"[..], b"E-00", zeros, b"e+0000000000000000000000"] {
        assert_eq!(Cents::parse(&[text, more].concat()), amount);
    }
    // Behind a lone zero no digit may follow.
    if !text.contains(&b'.') && !matches!(text, b"0" | b"-0") {
        assert_eq!(Cents::parse(&[text, b"00e-2"].concat()), amount);
    }
}
