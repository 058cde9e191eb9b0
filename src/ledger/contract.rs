//! The contest's JSON: the body of a transaction in, balances and statements out.
//!
//! Read strictly: numbers are JSON integers, texts are kept to the code point. As with payments
//! there are two readers: a scanner for the one shape nearly every client sends, and sonic-rs,
//! which alone decides what is an error.

use super::{Description, History, Kind, Transaction};
use crate::base::clock::Micros;
use crate::base::json::{self, JsonError, skip_space};
use crate::base::money::Cents;
use serde::Deserialize;
use sonic_rs::LazyValue;
use std::io::Write;

const BAD_VALUE: &str = "The field valor must be an integer from 1 to 9223372036854775807.";
const BAD_KIND: &str = "The field tipo must be \"c\" or \"d\".";
const BAD_DESCRIPTION: &str = "The field descricao must be a text of 1 to 10 characters.";

/// Reads `{"valor": integer > 0, "tipo": "c" or "d", "descricao": 1 to 10 characters}`; other
/// fields are ignored.
///
/// # Errors
/// What is wrong, as a sentence. The contest's answer to any of these is 422.
pub fn read(body: &[u8]) -> Result<Transaction, &'static str> {
    match scan(body) {
        Some(transaction) => Ok(transaction),
        None => read_any(body),
    }
}

/// The usual shape: these three fields, in this order, no escapes. `None` means "not sure".
fn scan(body: &[u8]) -> Option<Transaction> {
    let rest = member(skip_space(body).strip_prefix(b"{")?, b"\"valor\"")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let (value, rest) = rest.split_at(end);
    let value = read_value(value)?;
    let rest = member(skip_space(rest).strip_prefix(b",")?, b"\"tipo\"")?;
    let (kind, rest) = rest.split_at_checked(3)?;
    let kind = match kind {
        b"\"c\"" => Kind::Credit,
        b"\"d\"" => Kind::Debit,
        _ => return None,
    };
    let rest =
        member(skip_space(rest).strip_prefix(b",")?, b"\"descricao\"")?.strip_prefix(b"\"")?;
    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f))?;
    let (text, rest) = rest.split_at(end);
    let description = Description::new(std::str::from_utf8(text).ok()?)?;
    let rest = skip_space(skip_space(rest.strip_prefix(b"\"")?).strip_prefix(b"}")?);
    rest.is_empty().then_some(Transaction { kind, value, description })
}

/// What is behind a member's name and colon.
fn member<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    Some(skip_space(skip_space(skip_space(text).strip_prefix(name)?).strip_prefix(b":")?))
}

fn read_any(body: &[u8]) -> Result<Transaction, &'static str> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow)]
        valor: Option<LazyValue<'a>>,
        #[serde(borrow)]
        tipo: Option<LazyValue<'a>>,
        #[serde(borrow)]
        descricao: Option<LazyValue<'a>>,
    }
    let fields: Fields = json::read_object(body).map_err(|error| match error {
        JsonError::NotJson => "The body is not JSON.",
        JsonError::TooDeep => "The body is nested too deeply.",
        JsonError::Shape => "The body must be an object with one valor, one tipo, one descricao.",
    })?;
    let raw = |value: Option<LazyValue>| value.map(|value| value.as_raw_str().to_owned());
    let value = raw(fields.valor).ok_or("The field valor is missing.")?;
    let kind = raw(fields.tipo).ok_or("The field tipo is missing.")?;
    let description = raw(fields.descricao).ok_or("The field descricao is missing.")?;
    let text = |raw: String| json::read::<String>(raw.as_bytes()).ok();
    Ok(Transaction {
        value: read_value(value.as_bytes()).ok_or(BAD_VALUE)?,
        kind: match text(kind).as_deref() {
            Some("c") => Kind::Credit,
            Some("d") => Kind::Debit,
            _ => return Err(BAD_KIND),
        },
        description: text(description)
            .and_then(|text| Description::new(&text))
            .ok_or(BAD_DESCRIPTION)?,
    })
}

/// A JSON integer above zero: no fraction and no exponent, whatever they would come to.
fn read_value(number: &[u8]) -> Option<Cents> {
    let is_integer =
        matches!(number, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    let text = is_integer.then(|| std::str::from_utf8(number).ok())??;
    text.parse().ok().map(Cents)
}

/// As it is read by [`read`].
pub fn write_transaction(out: &mut Vec<u8>, transaction: &Transaction) {
    let Transaction { kind, value, description } = transaction;
    let kind = if *kind == Kind::Credit { 'c' } else { 'd' };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"valor\":{},\"tipo\":\"{kind}\",\"descricao\":", value.0);
    write_text(out, description.as_str());
    out.push(b'}');
}

/// The answer to a transaction that was carried out.
pub fn write_balance(out: &mut Vec<u8>, limit: Cents, balance: Cents) {
    let _ = write!(out, "{{\"limite\":{},\"saldo\":{}}}", limit.0, balance.0);
}

/// A statement of this moment, never dated before its newest entry.
pub fn write_statement(out: &mut Vec<u8>, limit: Cents, history: &History, now: Micros) {
    let at = history.newest.front().map_or(now, |(_, last)| now.max(*last));
    let total = history.balance.0;
    let _ = write!(
        out,
        "{{\"saldo\":{{\"total\":{total},\"data_extrato\":\"{at}\",\"limite\":{}}},\
         \"ultimas_transacoes\":[",
        limit.0
    );
    for (index, (transaction, at)) in history.newest.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_transaction(out, transaction);
        out.pop();
        let _ = write!(out, ",\"realizada_em\":\"{at}\"}}");
    }
    out.extend_from_slice(b"]}");
}

/// A JSON string (RFC 8259, 7).
fn write_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)) {
        // A text can always be written; nothing would be the answer if not.
        out.extend_from_slice(&sonic_rs::to_vec(text).unwrap_or_default());
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transaction(kind: Kind, value: i64, description: &str) -> Transaction {
        let description = Description::new(description).unwrap();
        Transaction { kind, value: Cents(value), description }
    }

    #[test]
    fn bodies_that_are_transactions() {
        let (credit, debit) = (Kind::Credit, Kind::Debit);
        for (body, expected) in [
            (r#"{"valor":1000,"tipo":"c","descricao":"toma"}"#, transaction(credit, 1000, "toma")),
            (
                r#"{"valor": 1, "tipo" : "d", "descricao": "devolve"}"#,
                transaction(debit, 1, "devolve"),
            ),
            (
                "{\r\n\t\"descricao\":\"x\",\"tipo\":\"c\",\"valor\":7}\n",
                transaction(credit, 7, "x"),
            ),
            (
                r#"{"valor":9223372036854775807,"tipo":"c","descricao":"1234567890"}"#,
                transaction(credit, i64::MAX, "1234567890"),
            ),
            (
                r#"{"valor":1,"tipo":"\u0063","descricao":"\u00e9\n\"\\\/"}"#,
                transaction(credit, 1, "é\n\"\\/"),
            ),
            (r#"{"valor":1,"tipo":"d","descricao":"\ud83d\ude00"}"#, transaction(debit, 1, "😀")),
            (r#"{"valor":1,"tipo":"d","descricao":"\u0000"}"#, transaction(debit, 1, "\0")),
            (
                r#"{"valor":1,"tipo":"d","descricao":"😀😀😀😀😀😀😀😀😀😀"}"#,
                transaction(debit, 1, &"😀".repeat(10)),
            ),
            (r#"{"valor":1,"tipo":"d","descricao":" "}"#, transaction(debit, 1, " ")),
            (
                r#"{"x":[null],"valor":1,"tipo":"d","descricao":"a","y":{}}"#,
                transaction(debit, 1, "a"),
            ),
        ] {
            assert_eq!(read(body.as_bytes()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn bodies_that_are_not() {
        let with_value = |value: &str| format!(r#"{{"valor":{value},"tipo":"c","descricao":"a"}}"#);
        for value in [
            "0",
            "-1",
            "1.2",
            "1.0",
            "1e3",
            "\"1\"",
            "true",
            "[1]",
            "{}",
            "9223372036854775808",
            "-0",
            "100000000000000000000000",
        ] {
            assert_eq!(read(with_value(value).as_bytes()), Err(BAD_VALUE), "{value}");
        }
        for kind in ["\"x\"", "\"C\"", "\"cd\"", "\"\"", "1", "[\"c\"]"] {
            let body = format!(r#"{{"valor":1,"tipo":{kind},"descricao":"a"}}"#);
            assert_eq!(read(body.as_bytes()), Err(BAD_KIND), "{kind}");
        }
        for text in [
            "\"\"",
            "\"12345678901\"",
            "\"123456789 e mais um pouco\"",
            "7",
            "[\"a\"]",
            "{}",
            "\"\\ud83d\"",
            "\"\\ude00a\"",
            "\"😀😀😀😀😀😀😀😀😀😀a\"",
        ] {
            let body = format!(r#"{{"valor":1,"tipo":"c","descricao":{text}}}"#);
            assert_eq!(read(body.as_bytes()), Err(BAD_DESCRIPTION), "{text}");
        }
        for body in [
            "",
            "{",
            "null",
            "[]",
            r#"[1,"c","a"]"#,
            "7",
            "\"\"",
            "{}",
            r#"{"valor":null,"tipo":"c","descricao":"a"}"#,
            r#"{"valor":1,"tipo":null,"descricao":"a"}"#,
            r#"{"valor":1,"tipo":"c","descricao":null}"#,
            r#"{"valor":1,"tipo":"c"}"#,
            r#"{"tipo":"c","descricao":"a"}"#,
            r#"{"valor":1,"descricao":"a"}"#,
            r#"{"valor":1,"valor":2,"tipo":"c","descricao":"a"}"#,
            r#"{"valor":01,"tipo":"c","descricao":"a"}"#,
            r#"{"valor":+1,"tipo":"c","descricao":"a"}"#,
            r#"{"valor":1,"tipo":"c","descricao":"a"}x"#,
            r#"{"valor":1,"tipo":"c","descricao":"a",}"#,
            "{\"valor\":1,\"tipo\":\"c\",\"descricao\":\"a\nb\"}",
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
        assert!(read(b"{\"valor\":1,\"tipo\":\"c\",\"descricao\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_statement_has_the_newest_first_and_one_form_of_time() {
        let entry = (transaction(Kind::Debit, 3, "a\"b"), Micros(1_705_459_000_217_753));
        let older = (transaction(Kind::Credit, 10, "é"), Micros(1_705_459_000_000_001));
        let history = History { balance: Cents(7), sequence: 2, newest: [entry, older].into() };
        let mut out = Vec::new();
        write_statement(&mut out, Cents(100), &history, Micros(0));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"saldo":{"total":7,"data_extrato":"2024-01-17T02:36:40.217753Z","limite":100},"ultimas_transacoes":[{"valor":3,"tipo":"d","descricao":"a\"b","realizada_em":"2024-01-17T02:36:40.217753Z"},{"valor":10,"tipo":"c","descricao":"é","realizada_em":"2024-01-17T02:36:40.000001Z"}]}"#
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 1..=i64::MAX, credit: bool, text in "\\PC{1,10}|[\\x00-\\x7f]{1,10}") {
            let kind = if credit { Kind::Credit } else { Kind::Debit };
            let transaction = transaction(kind, value, &text);
            let mut out = Vec::new();
            write_transaction(&mut out, &transaction);
            prop_assert_eq!(read(&out), Ok(transaction));
            prop_assert_eq!(read_any(&out), Ok(transaction));
        }

        #[test]
        fn the_scanner_never_says_more_than_the_parser(body in r#"\{"valor":[0-9.e]{1,3},"tipo":"[cdx]","descricao":"[a\\\\"é]{0,11}"\}"#) {
            if let Some(transaction) = scan(body.as_bytes()) {
                prop_assert_eq!(read_any(body.as_bytes()), Ok(transaction));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = read(&body);
        }
    }
}
