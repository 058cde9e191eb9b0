//! The admin calls: the original's, and what tests need beyond them (the fault switch, the script, the
//! whole books, the counters). All want the token, none waits.

use super::answer::Answer;
use super::api::{Processor, Settings};
use super::connection::Call;
use super::faults::Faults;
use super::script::Script;
use super::units::{MicroTimestamp, fee_on};
use crate::base::json;
use serde::Deserialize;
use std::borrow::Cow;
use std::time::Duration;

/// The longest delay and lateness that can be asked for: an hour, in milliseconds.
const DELAY_MS_MAX: u64 = 3_600_000;

/// The longest token that can be set.
const TOKEN_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
struct DelayDocument {
    delay: u64,
}

#[derive(Deserialize)]
struct FailureDocument {
    failure: bool,
}

#[derive(Deserialize)]
struct TokenDocument {
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FaultDocument<'a> {
    #[serde(borrow)]
    fault: Cow<'a, str>,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    lateness_ms: u64,
}

impl Processor {
    /// Answers one call below `/admin/`.
    pub fn administer(&self, call: &Call) -> Answer {
        if call.header("x-rinha-token") != Some(self.settings.borrow().token.as_bytes()) {
            return Answer::empty(401);
        }
        let changed = |change: Option<Answer>| change.unwrap_or(Answer::empty(400));
        let mut settings = self.settings.borrow_mut();
        match (call.method(), call.path()) {
            ("GET", "/admin/payments-summary") => changed(self.summarise(call.query())),
            ("GET", "/admin/payments") => Answer::listing(self.books.clone()),
            ("GET", "/admin/counters") => self.count(),
            ("PUT", "/admin/configurations/delay") => changed(set_delay(&mut settings, &call.body)),
            ("PUT", "/admin/configurations/failure") => {
                changed(set_failure(&mut settings, &call.body))
            }
            ("PUT", "/admin/configurations/token") => changed(set_token(&mut settings, &call.body)),
            ("PUT", "/admin/configurations/fault") => changed(set_fault(&mut settings, &call.body)),
            ("PUT", "/admin/script") => changed(set_script(&mut settings, &call.body)),
            ("POST", "/admin/purge-payments") => {
                self.books.borrow_mut().purge();
                Answer::message(200, "All payments purged.")
            }
            _ => Answer::empty(404),
        }
    }

    /// `None` if a bound is not a time.
    fn summarise(&self, query: &str) -> Option<Answer> {
        let from = parse_bound(query, "from")?;
        let to = parse_bound(query, "to")?;
        let totals = self.books.borrow().totals(from, to);
        Some(Answer::json(
            200,
            format!(
                r#"{{"totalRequests":{},"totalAmount":{},"totalFee":{},"feePerTransaction":{}}}"#,
                totals.count,
                totals.amount,
                fee_on(self.fee, totals.amount),
                self.fee
            ),
        ))
    }

    fn count(&self) -> Answer {
        let (running, waiting) = self.concurrency.load();
        let books = self.books.borrow();
        Answer::json(
            200,
            format!(
                concat!(
                    r#"{{"payments":{},"repeatsRefused":{},"#,
                    r#""running":{},"waiting":{},"healthWaiting":{}}}"#
                ),
                books.totals(None, None).count,
                books.repeats_refused(),
                running,
                waiting,
                self.health.borrow().waiting()
            ),
        )
    }
}

/// One bound of the summary's window: `Some(None)` if it is missing or empty, `None` if it is
/// neither that nor a time.
fn parse_bound(query: &str, name: &str) -> Option<Option<MicroTimestamp>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    match value {
        None | Some("") => Some(None),
        Some(value) => MicroTimestamp::parse(&percent_decode(value)).map(Some),
    }
}

/// Undoes `%3A` and the like. A `+` stays what it is: in a time it begins an offset. So does a `%`
/// without two hexadecimal digits after it.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)).map(|(h, l)| h * 16 + l),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// What the original says after a change. Both values must be JSON.
fn was_is(config: &str, was: impl std::fmt::Display, is: impl std::fmt::Display) -> Answer {
    Answer::json(200, format!(r#"{{"config":"{config}","was":{was},"is":{is}}}"#))
}

fn set_delay(settings: &mut Settings, body: &[u8]) -> Option<Answer> {
    let DelayDocument { delay } = json::read_object(body).ok()?;
    if delay > DELAY_MS_MAX {
        return None;
    }
    let was = std::mem::replace(&mut settings.delay_ms, delay);
    Some(was_is("delay", was, delay))
}

fn set_failure(settings: &mut Settings, body: &[u8]) -> Option<Answer> {
    let FailureDocument { failure } = json::read_object(body).ok()?;
    let was = std::mem::replace(&mut settings.failing, failure);
    Some(was_is("failure", was, failure))
}

fn set_token(settings: &mut Settings, body: &[u8]) -> Option<Answer> {
    let TokenDocument { token } = json::read_object(body).ok()?;
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    settings.token = token;
    Some(Answer::empty(204))
}

fn set_fault(settings: &mut Settings, body: &[u8]) -> Option<Answer> {
    let FaultDocument { fault, count, lateness_ms } = json::read_object(body).ok()?;
    if lateness_ms > DELAY_MS_MAX {
        return None;
    }
    let faults = Faults::named(&fault, count, Duration::from_millis(lateness_ms))?;
    let was = std::mem::replace(&mut settings.faults, faults);
    let quoted = |faults: &Faults| format!(r#""{}""#, faults.name());
    Some(was_is("fault", quoted(&was), quoted(&settings.faults)))
}

fn set_script(settings: &mut Settings, body: &[u8]) -> Option<Answer> {
    let was = std::mem::replace(&mut settings.script, Script::read(body)?);
    Some(was_is("script", was.rules(), settings.script.rules()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_may_be_missing_but_not_wrong() {
        let second = Some(Some(MicroTimestamp(1_000_000)));
        let cases: &[(&str, Option<Option<MicroTimestamp>>)] = &[
            ("", Some(None)),
            ("from=", Some(None)),
            ("fromage=1", Some(None)),
            ("to=x", Some(None)),
            ("from=1970-01-01T00:00:01Z", second),
            ("to=x&from=1970-01-01T00%3a00%3A01.000Z&from=x", second),
            ("from=1970-01-01T01:00:01+01:00", second),
            ("from=1970-01-01T01:00:01%2B01:00", second),
            ("from=tomorrow", None),
            ("from=%", None),
            ("from=%zz", None),
        ];
        for (query, expected) in cases {
            assert_eq!(parse_bound(query, "from"), *expected, "{query}");
        }
    }

    #[test]
    fn settings_take_only_what_makes_sense() {
        let mut settings = Settings {
            token: "123".into(),
            delay_ms: 0,
            failing: false,
            faults: Faults::default(),
            script: Script::default(),
        };
        assert!(set_delay(&mut settings, br#"{"delay":3600000}"#).is_some());
        for wrong in [r#"{"delay":-1}"#, r#"{"delay":3600001}"#, r#"{"delay":"1"}"#, "{}", ""] {
            assert!(set_delay(&mut settings, wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(set_failure(&mut settings, br#"{"failure":1}"#).is_none());
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX + 1));
        assert!(set_token(&mut settings, long.as_bytes()).is_none());
        assert!(set_fault(&mut settings, br#"{"fault":"earthquake"}"#).is_none());
        assert!(set_script(&mut settings, br#"{"rules":[{"call":"pay"}]}"#).is_some());
        assert!(set_script(&mut settings, br#"{"rules":[{}]}"#).is_none());
        assert_eq!(settings.script.rules(), 1);
        assert_eq!((settings.delay_ms, settings.token.as_str()), (3_600_000, "123"));
    }
}
