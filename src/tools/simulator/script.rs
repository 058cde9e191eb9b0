//! Any answer on demand: `PUT /admin/script` takes a list of rules, and each call is answered by the
//! first rule that fits it, or as the original would.
//!
//! ```json
//! {"rules": [{
//!   "call": "pay",             "pay", "look" or "health"
//!   "ids": "-aa19-",           only ids that contain this (pay, look)
//!   "oneIn": 3,                only every third of them
//!   "count": 5,                only the next five of those; without it, until the script changes
//!   "booked": true,            a payment is booked before it is answered; without it, not
//!   "delayMs": 20,             before the answer
//!   "status": 422,             without it, nothing is answered: the connection is reset
//!   "headers": {"X-A": "b"},
//!   "body": "text",
//!   "bodyTimes": 1000,         the body so many times over
//!   "cutAt": 10                the answer ends after so many bytes, and with it the connection
//! }]}
//! ```
//!
//! An empty list ends it. Only says what is to be done; `api.rs` does it. While a rule fits, delay,
//! failure switch and faults are not looked at; the limiters come first.

use crate::base::json;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest delay and the longest body, in milliseconds and bytes.
const DELAY_MS_MAX: u64 = 3_600_000;
const BODY_BYTES_MAX: usize = 64 << 20;

/// What a rule can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScriptedCall {
    Pay,
    Look,
    Health,
}

/// See the module.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    call: ScriptedCall,
    #[serde(default)]
    ids: String,
    #[serde(default = "one")]
    one_in: u64,
    count: Option<u64>,
    #[serde(default)]
    booked: bool,
    #[serde(default)]
    delay_ms: u64,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default = "one")]
    body_times: u64,
    cut_at: Option<usize>,
    /// Calls that fit so far.
    #[serde(skip)]
    seen: u64,
}

fn one() -> u64 {
    1
}

/// What to do with one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Scripted {
    pub booked: bool,
    pub delay: Duration,
    /// Nothing: the connection is reset.
    pub answer: Option<Vec<u8>>,
    /// The answer is cut off there, and the connection ends.
    pub is_cut: bool,
}

impl Script {
    /// `None` if it is no script, or asks for what cannot be.
    pub fn read(document: &[u8]) -> Option<Script> {
        let script: Script = json::read_object(document).ok()?;
        script.rules.iter().all(Rule::is_sound).then_some(script)
    }

    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// The rule for the call that has just come, if one fits. `id` is empty for a call without one.
    pub fn next(&mut self, call: ScriptedCall, id: &str) -> Option<Scripted> {
        for rule in &mut self.rules {
            if rule.call != call || !id.contains(&rule.ids) || rule.count == Some(0) {
                continue;
            }
            rule.seen += 1;
            if rule.seen.is_multiple_of(rule.one_in) {
                rule.count = rule.count.map(|left| left - 1);
                return Some(rule.answer());
            }
        }
        None
    }
}

impl Rule {
    fn is_sound(&self) -> bool {
        let body_bytes = (self.body.len() as u64).checked_mul(self.body_times);
        let is_clean = |text: &String| !text.contains(['\r', '\n']);
        self.one_in > 0
            && self.delay_ms <= DELAY_MS_MAX
            && body_bytes.is_some_and(|bytes| bytes <= BODY_BYTES_MAX as u64)
            && self.status.is_none_or(|status| (100..1_000).contains(&status))
            && self.headers.iter().all(|(name, value)| is_clean(name) && is_clean(value))
    }

    fn answer(&self) -> Scripted {
        let answer = self.status.map(|status| {
            let body = self.body.repeat(self.body_times as usize);
            let mut answer = format!("HTTP/1.1 {status} Scripted\r\n");
            for (name, value) in &self.headers {
                answer += &format!("{name}: {value}\r\n");
            }
            let says_length = self.headers.keys().any(|name| {
                ["content-length", "transfer-encoding"].contains(&name.to_lowercase().as_str())
            });
            if !says_length {
                answer += &format!("Content-Length: {}\r\n", body.len());
            }
            let mut answer = (answer + "\r\n" + &body).into_bytes();
            answer.truncate(self.cut_at.unwrap_or(usize::MAX));
            answer
        });
        let delay = Duration::from_millis(self.delay_ms);
        Scripted { booked: self.booked, delay, answer, is_cut: self.cut_at.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(script: &mut Script, call: ScriptedCall, id: &str) -> Option<String> {
        let answer = script.next(call, id)?.answer?;
        let text = String::from_utf8(answer).unwrap();
        Some(text.split(' ').nth(1)?.into())
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let script = br#"{"rules":[
            {"call":"pay","ids":"-a","count":2,"oneIn":2,"status":400},
            {"call":"pay","ids":"-a","count":1,"status":401},
            {"call":"look","status":503}
        ]}"#;
        let mut script = Script::read(script).unwrap();
        let mut pay = |id: &str| status(&mut script, ScriptedCall::Pay, id);
        assert_eq!(pay("1-b"), None);
        let said: Vec<_> = (0..5).map(|_| pay("1-a")).collect();
        let said: Vec<_> = said.iter().map(Option::as_deref).collect();
        assert_eq!(said, [Some("401"), Some("400"), None, Some("400"), None]);
        assert_eq!(status(&mut script, ScriptedCall::Look, "x").as_deref(), Some("503"));
    }

    #[test]
    fn an_answer_is_written_as_told() {
        let read = |rule: &str| {
            let mut script = Script::read(format!(r#"{{"rules":[{rule}]}}"#).as_bytes()).unwrap();
            script.next(ScriptedCall::Health, "").unwrap()
        };
        let scripted = read(
            r#"{"call":"health","booked":true,"delayMs":7,"status":200,"headers":{"A":"b"},
                "body":"xy","bodyTimes":3}"#,
        );
        let text = b"HTTP/1.1 200 Scripted\r\nA: b\r\nContent-Length: 6\r\n\r\nxyxyxy";
        let delay = Duration::from_millis(7);
        let answer = Some(text.to_vec());
        assert_eq!(scripted, Scripted { booked: true, delay, answer, is_cut: false });
        let cut = read(r#"{"call":"health","status":200,"cutAt":8}"#);
        assert_eq!((cut.answer, cut.is_cut), (Some(b"HTTP/1.1".to_vec()), true));
        assert_eq!(read(r#"{"call":"health"}"#).answer, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for rule in [
            r#"{}"#,
            r#"{"call":"sing"}"#,
            r#"{"call":"pay","oneIn":0}"#,
            r#"{"call":"pay","status":99}"#,
            r#"{"call":"pay","stauts":200}"#,
            r#"{"call":"pay","headers":{"a":"b\r\nc: d"}}"#,
            r#"{"call":"pay","body":"xx","bodyTimes":9223372036854775808}"#,
        ] {
            let script = format!(r#"{{"rules":[{rule}]}}"#);
            assert!(Script::read(script.as_bytes()).is_none(), "{rule}");
        }
        assert_eq!(Script::read(br#"{"rules":[]}"#).unwrap().rules(), 0);
    }
}
