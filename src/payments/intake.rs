//! The body of `POST /payments`, read strictly: what is refused is named, what is accepted is exact.
//!
//! Two readers. A scanner for the one shape nearly every client sends; whatever it does not
//! recognise at once goes to sonic-rs, which alone decides what is an error.

use super::PaymentId;
use crate::base::json::{self, JsonError, skip_space};
use crate::base::money::{Cents, MoneyError};
use serde::Deserialize;
use sonic_rs::LazyValue;

/// Why a body is not a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 400.
    NotJson,
    /// 400: nested deeper than [`json::DEPTH_MAX`].
    TooDeep,
    /// 422: the sentence names the field.
    Field(&'static str),
}

/// Reads `{"correlationId": UUID, "amount": decimal > 0}`; other fields are ignored.
///
/// # Errors
/// See [`Refused`].
pub fn read(body: &[u8]) -> Result<(PaymentId, Cents), Refused> {
    match scan(body) {
        Some(payment) => Ok(payment),
        None => read_any(body),
    }
}

/// The usual shape: these two fields, in this order, no escapes. `None` means "not sure".
fn scan(body: &[u8]) -> Option<(PaymentId, Cents)> {
    let rest = skip_space(skip_space(body).strip_prefix(b"{")?);
    let rest = skip_space(skip_space(rest.strip_prefix(b"\"correlationId\"")?).strip_prefix(b":")?);
    let (id, rest) = rest.strip_prefix(b"\"")?.split_at_checked(36)?;
    let id = PaymentId::parse(id)?;
    let rest = skip_space(skip_space(rest.strip_prefix(b"\"")?).strip_prefix(b",")?);
    let rest = skip_space(skip_space(rest.strip_prefix(b"\"amount\"")?).strip_prefix(b":")?);
    let end = rest.iter().position(|byte| matches!(byte, b'}' | b' ' | b'\n' | b'\r' | b'\t'))?;
    let (number, rest) = rest.split_at(end);
    let amount = Cents::parse(number).ok().filter(|amount| amount.0 > 0)?;
    let rest = skip_space(skip_space(rest).strip_prefix(b"}")?);
    rest.is_empty().then_some((id, amount))
}

fn read_any(body: &[u8]) -> Result<(PaymentId, Cents), Refused> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, rename = "correlationId")]
        correlation_id: Option<LazyValue<'a>>,
        #[serde(borrow)]
        amount: Option<LazyValue<'a>>,
    }
    let fields: Fields = json::read_object(body).map_err(|error| match error {
        JsonError::NotJson => Refused::NotJson,
        JsonError::TooDeep => Refused::TooDeep,
        JsonError::Shape => {
            Refused::Field("The body must be an object with one correlationId and one amount.")
        }
    })?;
    let id = fields.correlation_id.ok_or(Refused::Field("The field correlationId is missing."))?;
    let amount = fields.amount.ok_or(Refused::Field("The field amount is missing."))?;
    Ok((read_id(&id)?, read_amount(&amount)?))
}

fn read_id(value: &LazyValue) -> Result<PaymentId, Refused> {
    let text: Option<String> = json::read(value.as_raw_str().as_bytes()).ok();
    text.and_then(|text| PaymentId::parse(text.as_bytes())).ok_or(Refused::Field(
        "The field correlationId must be a UUID in its canonical text form, 36 characters.",
    ))
}

fn read_amount(value: &LazyValue) -> Result<Cents, Refused> {
    match Cents::parse(value.as_raw_str().as_bytes()) {
        Ok(amount) if amount.0 > 0 => Ok(amount),
        Ok(_) => Err(Refused::Field("The field amount must be at least 0.01.")),
        Err(MoneyError::NotANumber) => Err(Refused::Field("The field amount must be a number.")),
        Err(MoneyError::OutOfRange) => {
            Err(Refused::Field("The field amount is larger than 92233720368547758.07."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn with(id: &str, amount: &str) -> String {
        format!(r#"{{"correlationId":{id},"amount":{amount}}}"#)
    }

    #[test]
    fn payments() {
        let id = PaymentId::parse(ID.as_bytes()).unwrap();
        let quoted = format!("\"{ID}\"");
        let upper = format!("\"{}\"", ID.to_uppercase());
        let escaped = format!("\"\\u0034{}\"", &ID[1..]);
        let cases = [
            (with(&quoted, "19.90"), 1990),
            (with(&upper, "19.9"), 1990),
            (with(&quoted, "1e2"), 10_000),
            (with(&quoted, "0.005000001"), 1),
            (with(&quoted, "92233720368547758.07"), i64::MAX),
            (with(&escaped, "1"), 100),
            (format!(r#" {{ "correlationId" : {quoted} , "amount" : 1 }} "#), 100),
            (format!("{{\n\t\"amount\":1,\r\n\"correlationId\":{quoted}}}"), 100),
            (format!(r#"{{"x":[{{}}],"correlationId":{quoted},"amount":1,"y":null}}"#), 100),
        ];
        for (body, cents) in cases {
            assert_eq!(read(body.as_bytes()), Ok((id, Cents(cents))), "{body}");
        }
    }

    #[test]
    fn refusals_name_what_was_wrong() {
        let quoted = format!("\"{ID}\"");
        let not_json =
            ["", "x", "{", "{}x", "nul", "{\"correlationId\":}", "\u{feff}{}", "{'a':1}", "[1,]"];
        for body in not_json.map(String::from).into_iter().chain([
            with(&quoted, "01"),
            with(&quoted, "1."),
            with(&quoted, ".5"),
            with(&quoted, "+1"),
            with(&quoted, "0x10"),
            with(&quoted, "1_000"),
            with(&quoted, "NaN"),
            with(&quoted, "1") + "{}",
            with(&quoted, "1,"),
        ]) {
            assert_eq!(read(body.as_bytes()), Err(Refused::NotJson), "{body}");
        }
        let twice = format!(r#"{{"correlationId":{quoted},"amount":1,"amount":2}}"#);
        let cases = [
            ("[]", "object"),
            (&format!("[{quoted},1]"), "object"),
            ("7", "object"),
            ("null", "object"),
            ("\"text\"", "object"),
            (&twice, "one amount"),
            ("{}", "correlationId is missing"),
            (r#"{"amount":1}"#, "correlationId is missing"),
            (&format!(r#"{{"correlationId":{quoted}}}"#), "amount is missing"),
            (&with("null", "1"), "correlationId"),
            (&with("7", "1"), "correlationId must be a UUID"),
            (&with("\"\"", "1"), "correlationId must be a UUID"),
            (&with("\"4a7901b87d264d9daa194dc1c7cf60b3\"", "1"), "correlationId must be a UUID"),
            (&with(&format!("[{quoted}]"), "1"), "correlationId must be a UUID"),
            (&with(&quoted, "null"), "amount"),
            (&with(&quoted, "\"1\""), "amount must be a number"),
            (&with(&quoted, "true"), "amount must be a number"),
            (&with(&quoted, "[1]"), "amount must be a number"),
            (&with(&quoted, "0"), "at least 0.01"),
            (&with(&quoted, "0.005"), "at least 0.01"),
            (&with(&quoted, "-1"), "at least 0.01"),
            (&with(&quoted, "92233720368547758.08"), "larger"),
            (&with(&quoted, "1e400"), "larger"),
        ];
        for (body, named) in cases {
            match read(body.as_bytes()) {
                Err(Refused::Field(reason)) => assert!(reason.contains(named), "{body}: {reason}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        let not_utf8 = [with(&quoted, "1").as_bytes(), b"\xff"].concat();
        for body in [&not_utf8[..], b"\"\x80\""] {
            assert_eq!(read(body), Err(Refused::NotJson));
        }
    }

    #[test]
    fn the_deepest_body_that_fits_is_refused_calmly() {
        let deep = "[".repeat(crate::net::http::BODY_SIZE_MAX);
        assert_eq!(read(deep.as_bytes()), Err(Refused::TooDeep));
        let field = format!(r#"{{"x":{}"#, "[".repeat(4_000));
        assert_eq!(read(field.as_bytes()), Err(Refused::TooDeep));
    }

    proptest! {
        #[test]
        fn both_readers_agree(
            cents in 1_i64.., id: u128, space in "[ \\n\\r\\t]{0,3}", cut in 0_usize..200, byte: u8,
        ) {
            let (id, amount) = (PaymentId(id), Cents(cents));
            let body = format!(
                "{space}{{{space}\"correlationId\"{space}:{space}\"{id}\"{space},{space}\"amount\"{space}:{space}{amount}{space}}}{space}"
            );
            prop_assert_eq!(scan(body.as_bytes()), Some((id, amount)));
            prop_assert_eq!(read_any(body.as_bytes()), Ok((id, amount)));
            let mut mutated = body.into_bytes();
            let at = cut % mutated.len();
            mutated[at] = byte;
            if let Some(payment) = scan(&mutated) {
                prop_assert_eq!(read_any(&mutated), Ok(payment));
            }
        }

        #[test]
        fn never_panics(body: Vec<u8>) {
            let _ = read(&body);
        }
    }
}
