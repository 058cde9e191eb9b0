//! Processors as they are in the world: one to eight of them, described in a file.
//!
//! Pure, but for reading the file and what it names. What is wrong with a file is told with line and
//! column before anything is opened ([`mod@file`]). What is right becomes a [`Described`]: it writes the
//! requests, and says what the answers mean, as `payments/processor.rs` does for the contest's two.
//! Two descriptions are built in, the contest's and that of an API with idempotency keys.
//!
//! The invariant: an answer that no rule describes is [`Outcome::Unknown`]. That an answer did not
//! come, or not whole, is never described: that is unknown as well.
//!
//! docs/processors.md has the file key by key.

pub mod answers;
pub mod endpoint;
pub mod exchange;
pub mod fault;
pub mod file;
pub mod headers;
pub mod outside;
pub mod pointer;
pub mod request;
pub mod rules;
pub mod table;
pub mod template;
pub mod tls;

use self::answers::{Answer, Condition, Meaning, Rule};
use self::endpoint::Endpoint;
use self::exchange::Exchanges;
use self::fault::{Faults, Refused};
use self::outside::{Machine, Outside};
use self::request::Secrets;
use self::template::Filling;
use self::tls::Tls;
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::fee::FeeSchedule;
use crate::payments::observed::Report;
use crate::payments::processor::too_many;
use crate::payments::terms::Limits;
use crate::payments::{Attempt, Outcome, PaymentId, Processor, Refusal};
use std::path::Path;
use std::time::Duration;

/// As many as a journal's table of names has room for.
pub const PROCESSORS_MAX: usize = Processor::MAX;
/// A file of processors: eight long descriptions are 32 KB.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// Whose API a processor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Contest,
    Idempotent,
    Described,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Contest, Kind::Idempotent, Kind::Described];

    /// The word for it in a file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Contest => "contest",
            Kind::Idempotent => "idempotent",
            Kind::Described => "described",
        }
    }
}

/// How long a processor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the request to the whole of its answer; then its outcome is unknown.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect: Duration::from_secs(1), answer: Duration::from_secs(10) }
    }
}

/// A processor, as its description has it. Debug shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub kind: Kind,
    pub endpoint: Endpoint,
    pub fee: FeeSchedule,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub tls: Tls,
    pub exchanges: Exchanges,
}

impl Described {
    /// Whether it is spoken to just as `payments/processor.rs` has it: of the kind `contest`, with
    /// nothing in front of its paths and no headers of the user's.
    pub fn is_plain_contest(&self) -> bool {
        self.kind == Kind::Contest && file::plain_contest().as_ref() == Some(&self.exchanges)
    }

    /// The request for this attempt. `host` is for the header of that name, as
    /// [`Endpoint::authority`] says it.
    pub fn write_pay(&self, out: &mut Vec<u8>, host: &str, attempt: &Attempt) {
        let filling = filling(attempt);
        self.exchanges.pay.request.write(out, host, &filling, Secrets::Sent);
    }

    /// The question whether the processor holds this payment.
    pub fn write_look(&self, out: &mut Vec<u8>, host: &str, id: PaymentId) {
        let filling = Filling { id, amount: Cents(0), requested_at: Timestamp(0) };
        self.exchanges.look.request.write(out, host, &filling, Secrets::Sent);
    }

    /// The question how it is. Nothing, if it is not asked.
    pub fn write_health(&self, out: &mut Vec<u8>, host: &str) {
        let filling = Filling { id: PaymentId(0), amount: Cents(0), requested_at: Timestamp(0) };
        if let Some(health) = &self.exchanges.health {
            health.request.write(out, host, &filling, Secrets::Sent);
        }
    }

    /// What the answer to a request means. `is_whole`: the connection did not end with it.
    pub fn read_pay(
        &self,
        status: u16,
        body: &[u8],
        retry_after_s: Option<u32>,
        is_whole: bool,
        attempt: &Attempt,
        paired: bool,
    ) -> Outcome {
        let answer = Answer::new(status, body, is_whole);
        let Some(rule) = answer.rule(&self.exchanges.pay.rules) else { return Outcome::Unknown };
        match rule.meaning {
            Meaning::Booked => answer.booked(&rule.proof, attempt, paired),
            Meaning::NotBooked => Outcome::NotRecorded(Refusal::Failing),
            Meaning::Rejected => Outcome::Declined { status: told_of(rule, status) },
            Meaning::Pause => Outcome::NotRecorded(too_many(retry_after_s)),
            Meaning::Absent | Meaning::Unknown | Meaning::Well | Meaning::Failing => {
                Outcome::Unknown
            }
        }
    }

    /// What the answer to a look means.
    pub fn read_look(
        &self,
        status: u16,
        body: &[u8],
        retry_after_s: Option<u32>,
        attempt: &Attempt,
        paired: bool,
    ) -> Outcome {
        let answer = Answer::new(status, body, false);
        let Some(rule) = answer.rule(&self.exchanges.look.rules) else { return Outcome::Unknown };
        match rule.meaning {
            Meaning::Booked => answer.booked(&rule.proof, attempt, paired),
            Meaning::Absent => Outcome::Absent,
            Meaning::Pause => Outcome::NotRecorded(too_many(retry_after_s)),
            _ => Outcome::Unknown,
        }
    }

    /// What the answer to the health question says, if it says anything.
    pub fn read_health(&self, status: u16, body: &[u8]) -> Option<Report> {
        let answer = Answer::new(status, body, false);
        let rule = answer.rule(&self.exchanges.health.as_ref()?.rules)?;
        let failing = match rule.meaning {
            Meaning::Failing => true,
            Meaning::Well => false,
            _ => return None,
        };
        let delay_ms = match &rule.delay {
            Some(pointer) => sonic_rs::from_str::<u32>(&answer.find(pointer)?).ok()?,
            None => 0,
        };
        Some(Report { failing, response_min: Duration::from_millis(delay_ms.into()) })
    }
}

/// The status that a refusal is known by. The dispatcher believes none but those of a refusal; where
/// a document has refused under another one, that document is why: 400 stands for it.
fn told_of(rule: &Rule, status: u16) -> u16 {
    const BAD_REQUEST: u16 = 400;
    let by_status = matches!(rule.condition, Condition::Any | Condition::NoBody);
    if by_status || rules::is_refusal(status) { status } else { BAD_REQUEST }
}

fn filling(attempt: &Attempt) -> Filling {
    let Attempt { payment, requested_at, .. } = *attempt;
    Filling { id: payment.id, amount: payment.amount, requested_at }
}

/// The processors of a file, in its order. One at least, eight at most, no two of the same name or
/// of the same fee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processors {
    all: Vec<Described>,
}

impl Processors {
    /// Reads a file, and what it names beside it (blocking).
    ///
    /// # Errors
    /// All that is wrong with it, a line each: `FILE:LINE:COLUMN: reason`.
    pub fn load(path: &Path) -> Result<Processors, String> {
        let name = path.display().to_string();
        let bytes = outside::read(path, FILE_BYTES_MAX).map_err(|it| format!("{name}: {it}"))?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("{name}: a file of processors has {FILE_BYTES_MAX} bytes at most"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].split(|it| *it == b'\n');
            format!("{name}:{}:1: there is something that is no UTF-8", line.count())
        })?;
        Processors::read(&name, &text, &Machine::beside(path)).map_err(|it| it.to_string())
    }

    /// As [`Processors::load`], of a text.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(name: &str, text: &str, outside: &dyn Outside) -> Result<Processors, Refused> {
        let faults = Faults::default();
        let read = file::read(text, outside, &faults);
        read.ok_or_else(|| Refused { file: name.into(), faults: faults.in_lines(text) })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Described> {
        self.all.iter()
    }

    /// Those that take this amount, the cheapest for it first. Nothing is allocated.
    pub fn cheapest_first(&self, amount: Cents) -> impl Iterator<Item = &Described> {
        let mut order: [usize; PROCESSORS_MAX] = std::array::from_fn(|index| index);
        let count = self.all.len();
        order[..count].sort_unstable_by(|a, b| self.all[*a].fee.compare(self.all[*b].fee, amount));
        let ordered = order.into_iter().take(count).map(|index| &self.all[index]);
        ordered.filter(move |it| it.limits.takes(amount))
    }
}

#[cfg(test)]
mod tests;
