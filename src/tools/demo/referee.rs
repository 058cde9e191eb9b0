//! Everything that asks or sets the processors and the backend from outside, as the contest's
//! script does: set-up, stages, audits, the totals at the end.
//!
//! It sees what any client could see and judges by that alone.

use super::client::{Call, Client, Reply};
use super::load::{Load, sleep_until};
use super::stages::{Condition, Contest, Stage};
use crate::base::clock::{self, Moment, Timestamp};
use crate::payments::Totals;
use crate::tools::ask::{read_summary, read_totals};
use crate::tools::judge::score::Audits;
use crate::tools::text::say;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const AUDIT_EVERY: Duration = Duration::from_secs(10);
const PATHS: [&str; 2] = ["/admin/payments-summary", "/payments-summary"];

/// A connection to each of the three.
pub struct Referee {
    load: Rc<Load>,
    processors: [Client; 2],
    backend: Client,
}

/// What all three said of one window; `None` for one that did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    pub processors: [Option<Totals>; 2],
    pub backend: Option<[Totals; 2]>,
}

impl Answers {
    /// What the processors hold, if both said so.
    pub fn held(&self) -> Option<[Totals; 2]> {
        let [default, fallback] = self.processors;
        Some([default?, fallback?])
    }

    /// Whether everybody answered, and nobody differs.
    pub fn agree(&self) -> bool {
        self.backend.is_some() && self.held() == self.backend
    }
}

impl Referee {
    pub fn new(load: Rc<Load>, processors: [SocketAddr; 2], backend: SocketAddr) -> Referee {
        Referee { load, processors: processors.map(Client::new), backend: Client::new(backend) }
    }

    /// Asks all three at the same moment. `query` is empty or begins with a question mark.
    pub async fn ask_all(&mut self, query: &str) -> Answers {
        let [at_processor, at_backend] = PATHS.map(|path| format!("{path}{query}"));
        let get = |path| Call { method: "GET", path, body: "" };
        let [default, fallback] = &mut self.processors;
        let (default, fallback, backend) = monoio::join!(
            self.load.ask(default, get(&at_processor)),
            self.load.ask(fallback, get(&at_processor)),
            self.load.ask(&mut self.backend, get(&at_backend)),
        );
        let body = |reply: Option<Reply>| reply.filter(|it| it.status == 200).map(|it| it.body);
        let totals = |reply| body(reply).and_then(|body| read_totals(&body));
        Answers {
            processors: [totals(default), totals(fallback)],
            backend: body(backend).and_then(|body| read_summary(&body)),
        }
    }

    /// Sets both processors: both delays first, then both failure switches.
    ///
    /// # Errors
    /// If one of them does not do it.
    pub async fn set(&mut self, conditions: [Condition; 2]) -> Result<(), String> {
        let delays = conditions.map(|it| format!("{{\"delay\":{}}}", it.delay_ms));
        let failures = conditions.map(|it| format!("{{\"failure\":{}}}", it.failing));
        for (what, bodies) in [("delay", delays), ("failure", failures)] {
            let path = format!("/admin/configurations/{what}");
            for (processor, body) in self.processors.iter_mut().zip(&bodies) {
                let call = Call { method: "PUT", path: &path, body };
                must_succeed(self.load.ask(processor, call).await, "set")?;
            }
        }
        Ok(())
    }

    /// Empties all books, as the contest does before its load.
    ///
    /// # Errors
    /// If one of the three does not do it.
    pub async fn purge(&mut self) -> Result<(), String> {
        let call = |path| Call { method: "POST", path, body: "" };
        for processor in &mut self.processors {
            let purge = call("/admin/purge-payments");
            must_succeed(self.load.ask(processor, purge).await, "purged")?;
        }
        let purged = self.load.ask(&mut self.backend, call("/purge-payments")).await;
        must_succeed(purged, "purged")
    }

    /// Sets the processors at the times of `stages`, divided by `speed`, and says so. Ends with the
    /// last stage or the load.
    ///
    /// # Errors
    /// As [`Referee::set`].
    pub async fn play(
        &mut self,
        stages: &[Stage],
        begin: Moment,
        speed: u32,
    ) -> Result<(), String> {
        for stage in stages {
            sleep_until(begin + Duration::from_secs(stage.at_s.into()) / speed).await;
            if self.load.is_stopped() {
                return Ok(());
            }
            self.set(stage.conditions).await?;
            say(format_args!("       now {stage}"));
        }
        Ok(())
    }

    /// Audits again and again until `end`; the pause after the last one ends with it.
    pub async fn audit(&mut self, contest: &Contest, end: Moment, speed: u32) -> Audits {
        let mut audits = Audits::default();
        while clock::moment() < end && !self.load.is_stopped() {
            let now = clock::now();
            let [from, to] = contest.audit_ago_ms.map(|ago_ms| Timestamp(now.0 - ago_ms));
            let answers = self.ask_all(&format!("?from={from}&to={to}")).await;
            audits.add(contest, &answers);
            if !answers.agree() {
                say(format_args!("       audit {from} .. {to}: {answers:?}"));
            }
            sleep_until((clock::moment() + AUDIT_EVERY / speed).min(end)).await;
        }
        audits
    }
}

fn must_succeed(reply: Option<Reply>, what: &str) -> Result<(), String> {
    match reply {
        Some(reply) if reply.is_success() => Ok(()),
        Some(reply) => Err(format!("something could not be {what}: status {}", reply.status)),
        None => Err(format!("something could not be {what}: no answer")),
    }
}

impl Audits {
    fn add(&mut self, contest: &Contest, answers: &Answers) {
        let held = answers.processors.map(Option::unwrap_or_default);
        let said = answers.backend.unwrap_or_default();
        let deltas = |of: fn(&Totals) -> i128| [0, 1].map(|it| of(&said[it]) - of(&held[it]));
        let payments = deltas(|totals| totals.count.into());
        let cents = deltas(|totals| totals.amount.0);
        let strictly = |deltas: [i128; 2]| deltas[0].abs() + deltas[1].abs();
        let difference = contest.difference(payments);
        let unanswered = answers.backend.is_none() || answers.held().is_none();
        self.done += 1;
        self.unanswered += u64::from(unanswered);
        self.inconsistent += u64::from(difference > 0);
        self.difference += difference;
        self.inconsistent_strict += u64::from(strictly(payments) + strictly(cents) > 0);
        self.difference_cents_strict += strictly(cents);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stages::{FINAL, PREVIEW};
    use super::*;
    use crate::base::money::Total;

    #[test]
    fn audits_count_by_both_measures() {
        let totals = |count: u64| Totals { count, amount: Total(i128::from(count) * 1_990) };
        let answers = |held: [u64; 2], said: [u64; 2]| Answers {
            processors: held.map(|count| Some(totals(count))),
            backend: Some(said.map(totals)),
        };
        let swapped = answers([3, 1], [2, 2]);
        let mut audits = Audits::default();
        audits.add(&PREVIEW, &answers([3, 1], [3, 1]));
        audits.add(&PREVIEW, &swapped);
        let expected = Audits {
            done: 2,
            inconsistent_strict: 1,
            difference_cents_strict: 3_980,
            ..Audits::default()
        };
        assert_eq!(audits, expected, "one surplus hides the other shortfall");
        let mut audits = Audits::default();
        audits.add(&FINAL, &swapped);
        audits.add(&FINAL, &Answers { backend: None, ..swapped });
        assert_eq!((audits.inconsistent, audits.difference, audits.unanswered), (2, 2 + 4, 1));
    }
}
