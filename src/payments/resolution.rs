//! What an operator decides about a payment that galo cannot decide about, or is not to.
//!
//! Pure. galo believes him: what he says is written down with his name and his reason, and counts
//! from then on. The rule: he may say what became of a payment only while nobody else is about to
//! find out otherwise. So nothing is resolved while a request to book it is under way, or where
//! the other instance drives it; and of an attempt in doubt he names the very attempt, so that a
//! request that is sent again never speaks of a later one.

use super::dispatcher::Held;
use super::names::Names;
use super::story::Story;
use super::{PaymentId, Processor, Reason, Rejection, Settlement, processor};
use crate::base::clock::{Rounding, Timestamp};
use crate::base::json::{self, JsonError};
use crate::base::money::Cents;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name and the longest reason, in bytes of UTF-8.
pub const BY_BYTES_MAX: usize = 64;
pub const REASON_BYTES_MAX: usize = 255;

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A rejected payment goes back to the queue, with its refusals forgotten.
    Retry,
    /// This processor holds it, under this time. It counts from now on.
    Settled { processor: Processor, requested_at: Timestamp },
    /// The attempt in doubt, which is this one, was not booked and never will be: the payment is
    /// free to go to either processor.
    NotBooked { processor: Processor, requested_at: Timestamp },
    /// It is over, and will not be paid.
    Cancelled,
    /// The other instance turns out to drive what was rejected here: it decides. No operator says so.
    Elsewhere,
}

impl Action {
    /// The word for it in requests and stories.
    pub fn name(self) -> &'static str {
        Action::NAMES[self.index()]
    }

    /// All words, and where each of them stands among these.
    pub const NAMES: [&str; 5] = ["retry", "settled", "notBooked", "cancelled", "elsewhere"];

    /// An index into arrays kept per action.
    pub fn index(self) -> usize {
        match self {
            Action::Retry => 0,
            Action::Settled { .. } => 1,
            Action::NotBooked { .. } => 2,
            Action::Cancelled => 3,
            Action::Elsewhere => 4,
        }
    }

    /// The processor and the `requestedAt` that are named with it, if any are.
    pub fn names(self) -> Option<(Processor, Timestamp)> {
        match self {
            Action::Settled { processor, requested_at }
            | Action::NotBooked { processor, requested_at } => Some((processor, requested_at)),
            Action::Retry | Action::Cancelled | Action::Elsewhere => None,
        }
    }

    /// Whether a rejection from before is void with it.
    pub fn ends_rejection(self) -> bool {
        !matches!(self, Action::NotBooked { .. })
    }
}

impl Action {
    /// For people: `settled at fallback requested 2025-07-08T18:40:00.123Z`.
    pub fn show(self, names: &Names) -> impl fmt::Display {
        let named = self.names().map(|(processor, requested_at)| {
            format!(" at {} requested {requested_at}", names.name_of(processor))
        });
        format!("{}{}", self.name(), named.unwrap_or_default())
    }
}

/// What is asked for: what is decided, by whom, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub action: Action,
    pub by: Box<str>,
    pub reason: Box<str>,
}

/// As it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub id: PaymentId,
    pub amount: Cents,
    pub accepted_at: Timestamp,
    pub action: Action,
    /// When it was decided.
    pub at: Timestamp,
    pub by: Box<str>,
    pub reason: Box<str>,
}

impl Resolution {
    /// Of a payment that was rejected here, and that the other instance drives.
    pub fn elsewhere(rejection: &Rejection, at: Timestamp) -> Resolution {
        let Rejection { id, amount, accepted_at, .. } = *rejection;
        let (by, reason) = ("galo".into(), "the other instance drives it".into());
        Resolution { id, amount, accepted_at, action: Action::Elsewhere, at, by, reason }
    }

    /// What counts from now on, if anything new does.
    pub fn settlement(&self) -> Option<Settlement> {
        let Action::Settled { processor, requested_at } = self.action else { return None };
        Some(Settlement { processor, amount: self.amount, requested_at })
    }
}

impl Resolution {
    /// For people, on one line.
    pub fn show(&self, names: &Names) -> impl fmt::Display {
        let Resolution { id, amount, action, at, by, reason, .. } = self;
        format!("{id} {amount} as {}, on {at} by {by:?}: {reason:?}", action.show(names))
    }
}

/// Whether a text may be written down as a name or a reason.
pub fn is_text(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    r#as: String,
    processor: Option<String>,
    requested_at: Option<String>,
    by: String,
    reason: String,
}

/// Why a body is refused: it is no JSON, or a field is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    NotJson,
    Field(String),
}

/// Reads the body of a request.
///
/// # Errors
/// If it says nothing that could be done, whatever the payment.
pub fn read(body: &[u8], now: Timestamp, names: &Names) -> Result<Asked, Refused> {
    let body: Body = json::read_object(body).map_err(|error| match error {
        JsonError::Shape => Refused::Field(
            "The body must have the fields as, by and reason, and may have processor and \
             requestedAt, each a text."
                .into(),
        ),
        _ => Refused::NotJson,
    })?;
    let action = read_action(&body, now, names).map_err(Refused::Field)?;
    for (name, text, bytes_max) in
        [("by", &body.by, BY_BYTES_MAX), ("reason", &body.reason, REASON_BYTES_MAX)]
    {
        if !is_text(text, bytes_max) {
            let what = "bytes of text without control characters";
            return Err(Refused::Field(format!(
                "The field {name} is not 1 to {bytes_max} {what}."
            )));
        }
    }
    Ok(Asked { action, by: body.by.into(), reason: body.reason.into() })
}

fn read_action(body: &Body, now: Timestamp, names: &Names) -> Result<Action, String> {
    let named = match (&body.processor, &body.requested_at) {
        (None, None) => None,
        (Some(processor), Some(requested_at)) => {
            let processor = names
                .by_name(processor)
                .ok_or_else(|| format!("The field processor is {}.", names.none_of()))?;
            let at = Timestamp::parse(requested_at.as_bytes(), Rounding::Down)
                .ok_or("The field requestedAt is not a time like 2025-07-08T18:40:00.123Z.")?;
            if at > now {
                return Err("The field requestedAt is in the future.".into());
            }
            Some((processor, at))
        }
        _ => return Err("The fields processor and requestedAt belong together.".into()),
    };
    match (&body.r#as[..], named) {
        ("retry", None) => Ok(Action::Retry),
        ("cancelled", None) => Ok(Action::Cancelled),
        ("settled", Some((processor, requested_at))) => {
            Ok(Action::Settled { processor, requested_at })
        }
        ("notBooked", Some((processor, requested_at))) => {
            Ok(Action::NotBooked { processor, requested_at })
        }
        (word @ ("retry" | "cancelled"), Some(_)) => {
            Err(format!("With {word} there is no processor and no requestedAt."))
        }
        (word @ ("settled" | "notBooked"), None) => {
            Err(format!("With {word} the fields processor and requestedAt are needed."))
        }
        _ => Err("The field as is none of retry, settled, notBooked and cancelled.".into()),
    }
}

/// How things stand with a payment at the moment of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub story: Option<Story>,
    /// Where the dispatcher has it.
    pub held: Held,
    /// Whether this instance is its home.
    pub is_home: bool,
    /// Whether there is another one.
    pub is_paired: bool,
    /// What was last decided about it.
    pub last: Option<&'a Resolution>,
}

impl Standing<'_> {
    /// Of a pair each instance counts what was booked under its own milliseconds, or one booking
    /// would be counted by both: see [`processor::is_of_its_instance`].
    fn count_here(&self, requested_at: Timestamp) -> Result<(), &'static str> {
        let is_ours = processor::is_of_its_instance(requested_at, !self.is_home);
        match (self.is_paired && !is_ours, self.is_home) {
            (false, _) => Ok(()),
            (true, true) => Err("This requestedAt has an odd millisecond: the other instance has \
                booked the payment, and counts it. What people have paid has an even one here."),
            (true, false) => {
                Err("This requestedAt has an even millisecond: the payment's home has \
                booked it, and counts it. What people have paid has an odd one here.")
            }
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it down, and do it. With what is known of the payment.
    Resolve { amount: Cents, accepted_at: Timestamp },
    /// It is settled just so already: who says so, and why, is written down.
    Note { amount: Cents },
    /// It was decided so before: nothing.
    Repeated,
}

/// Decides. Nothing changes unless this says so.
///
/// # Errors
/// Why not, in a sentence for the operator.
pub fn decide(action: Action, standing: &Standing<'_>) -> Result<Verdict, &'static str> {
    let is_repeated = standing.last.is_some_and(|last| last.action == action);
    match of_story(action, standing) {
        Ok(Verdict::Note { .. }) | Err(_) if is_repeated => Ok(Verdict::Repeated),
        verdict => verdict,
    }
}

const ELSEWHERE: &str = "The other instance decides about this payment: ask its admin door.";

fn of_story(action: Action, standing: &Standing<'_>) -> Result<Verdict, &'static str> {
    match standing.story {
        None if standing.is_home => Err("No such payment has been accepted."),
        None => Err(ELSEWHERE),
        Some(Story::Known { .. }) => Err("Nothing is known here but that this payment was \
            accepted: the other instance drives it or has, or somebody else has paid it. Ask the \
            admin door of the other instance."),
        Some(Story::Cancelled { .. }) => Err("The payment is cancelled."),
        Some(Story::Settled(line)) => of_settled(action, line.settlement),
        Some(Story::Rejected(rejection)) => of_rejected(action, &rejection, standing),
        Some(Story::Waiting { amount, accepted_at, .. }) => {
            of_waiting(action, standing)?;
            Ok(Verdict::Resolve { amount, accepted_at })
        }
        Some(Story::InDoubt { amount, accepted_at, processor, requested_at, .. }) => {
            of_doubt(action, standing, (processor, requested_at), accepted_at)?;
            Ok(Verdict::Resolve { amount, accepted_at })
        }
    }
}

/// Likewise if the process ended between the two records of a settlement.
fn of_settled(action: Action, settlement: Settlement) -> Result<Verdict, &'static str> {
    let Settlement { processor, amount, requested_at } = settlement;
    match action == (Action::Settled { processor, requested_at }) {
        true => Ok(Verdict::Note { amount }),
        false => Err("The payment is settled."),
    }
}

fn of_rejected(
    action: Action,
    rejection: &Rejection,
    standing: &Standing<'_>,
) -> Result<Verdict, &'static str> {
    let Rejection { amount, accepted_at, .. } = *rejection;
    match (action, rejection.reason()) {
        (Action::NotBooked { .. } | Action::Elsewhere, _) => {
            Err("The payment is rejected: no attempt of it is in doubt.")
        }
        (Action::Retry, Reason::OtherAmount(_)) => Err("A processor holds the payment under \
            another amount: it is not sent again. It can be cancelled."),
        (Action::Retry, Reason::Refused) if !standing.is_home => {
            Err("The payment was taken over from the \
            other instance, which has written it off: it is not sent again. It can be cancelled.")
        }
        (Action::Settled { processor, .. }, Reason::OtherAmount(holder)) if processor == holder => {
            Err("This processor holds the payment under another amount, which cannot be counted. \
                 It can be cancelled.")
        }
        (Action::Settled { requested_at, .. }, _) if requested_at < accepted_at => Err(TOO_EARLY),
        (Action::Settled { requested_at, .. }, _) => {
            standing.count_here(requested_at)?;
            Ok(Verdict::Resolve { amount, accepted_at })
        }
        _ => Ok(Verdict::Resolve { amount, accepted_at }),
    }
}

const TOO_EARLY: &str = "The payment was accepted later than this requestedAt.";

fn of_waiting(action: Action, standing: &Standing<'_>) -> Result<(), &'static str> {
    match (action, standing.held) {
        (Action::Cancelled, Held::Free) => Ok(()),
        (Action::Cancelled, Held::Unverified) => Err(UNVERIFIED),
        (Action::Cancelled, Held::Nowhere) if !standing.is_home => {
            Err("The payment waits here for the other instance, which decides about it: ask its \
             admin door.")
        }
        (Action::Cancelled, Held::Nowhere) => Err("The payment has just been accepted: try again."),
        (Action::Cancelled, _) => Err(UNDER_WAY),
        _ => Err("The payment waits, and no attempt of it is open: it can only be cancelled."),
    }
}

const UNVERIFIED: &str = "Somebody else may have paid the payment, the other instance or this one \
    before its journal was put back, and the processors are asked about it: it cannot be cancelled.";

const UNDER_WAY: &str =
    "A request to book the payment is under way: try again when it has been answered.";

fn of_doubt(
    action: Action,
    standing: &Standing<'_>,
    attempt: (Processor, Timestamp),
    accepted_at: Timestamp,
) -> Result<(), &'static str> {
    match standing.held {
        Held::InDoubt => {}
        Held::Disowned | Held::Nowhere => return Err(ELSEWHERE),
        Held::Posted | Held::Free | Held::Unverified => return Err(UNDER_WAY),
    }
    match action {
        Action::Settled { processor, .. } if processor != attempt.0 => {
            Err("The attempt in doubt is at the other processor.")
        }
        Action::Settled { requested_at, .. } if requested_at < accepted_at => Err(TOO_EARLY),
        Action::Settled { requested_at, .. } if requested_at == attempt.1 => Ok(()),
        Action::Settled { requested_at, .. } => standing.count_here(requested_at),
        Action::NotBooked { processor, requested_at } if (processor, requested_at) == attempt => {
            Ok(())
        }
        Action::NotBooked { .. } => {
            Err("The attempt in doubt is another one: its processor and requestedAt must be named.")
        }
        Action::Retry | Action::Cancelled | Action::Elsewhere => {
            Err("The payment is in doubt: say first whether its \
            attempt is settled or not booked.")
        }
    }
}

/// As clients and the other instance read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResolutionMessage {
    pub r#as: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<String>,
    pub at: String,
    pub by: String,
    pub reason: String,
}

impl ResolutionMessage {
    pub fn new(resolution: &Resolution, names: &Names) -> ResolutionMessage {
        let Resolution { action, at, by, reason, .. } = resolution;
        let (processor, requested_at) = action.names().unzip();
        ResolutionMessage {
            r#as: action.name().into(),
            processor: processor.map(|it| names.name_of(it).into()),
            requested_at: requested_at.map(|at| at.to_string()),
            at: at.to_string(),
            by: by.to_string(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
