//! What an answer means: rules in order, of which the first that fits decides.
//!
//! Pure: a status and a body in, a meaning out. The invariant: what no rule says is unknown, and so is
//! every answer that says "booked" and does not prove it as it was asked to.

use super::pointer::{Document, Pointer};
use crate::base::money::{Cents, MoneyError};
use crate::net::http::RESPONSE_BODY_SIZE_MAX;
use crate::payments::processor::{read_time, what_is_booked};
use crate::payments::{Attempt, Outcome, PaymentId};
use std::ops::RangeInclusive;

/// What an answer can mean. Not every question can be answered with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The processor holds the payment.
    Booked,
    /// Certainly not booked, and nothing of it is under way: it may go anywhere at once.
    NotBooked,
    /// The processor will not take this payment. Believed if it still does not hold it seconds later.
    Rejected,
    /// Asked about it, the processor does not hold it now.
    Absent,
    /// Too many requests: not carried out, and a pause is asked for.
    Pause,
    /// Nobody knows: the processor is asked about the payment.
    Unknown,
    /// Of the health question: payments are taken.
    Well,
    /// Of the health question: they are not.
    Failing,
}

impl Meaning {
    pub const ALL: [Meaning; 8] = [
        Meaning::Booked,
        Meaning::NotBooked,
        Meaning::Rejected,
        Meaning::Absent,
        Meaning::Pause,
        Meaning::Unknown,
        Meaning::Well,
        Meaning::Failing,
    ];

    /// The word for it in a file.
    pub fn name(self) -> &'static str {
        match self {
            Meaning::Booked => "booked",
            Meaning::NotBooked => "not-booked",
            Meaning::Rejected => "rejected",
            Meaning::Absent => "absent",
            Meaning::Pause => "pause",
            Meaning::Unknown => "unknown",
            Meaning::Well => "well",
            Meaning::Failing => "failing",
        }
    }
}

/// How an amount stands in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number such as `19.90`.
    Decimal,
    /// The same in quotes.
    DecimalText,
    /// A whole number such as `1990`.
    Cents,
    /// The same in quotes.
    CentsText,
}

impl Unit {
    pub const ALL: [(Unit, &'static str); 4] = [
        (Unit::Decimal, "decimal"),
        (Unit::DecimalText, "decimal-text"),
        (Unit::Cents, "cents"),
        (Unit::CentsText, "cents-text"),
    ];

    /// # Errors
    /// What it is instead of an amount.
    fn read(self, value: &str) -> Result<Cents, MoneyError> {
        let value = match self {
            Unit::Decimal | Unit::Cents => value,
            Unit::DecimalText | Unit::CentsText => {
                let inner = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                inner.ok_or(MoneyError::NotANumber)?
            }
        };
        match self {
            Unit::Decimal | Unit::DecimalText => Cents::parse(value.as_bytes()),
            Unit::Cents | Unit::CentsText => {
                let digits = value.strip_prefix('-').unwrap_or(value);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(MoneyError::NotANumber);
                }
                value.parse().map(Cents).map_err(|_| MoneyError::OutOfRange)
            }
        }
    }
}

/// A value that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

impl Literal {
    /// Whether this JSON text is that value.
    fn is(&self, value: &str) -> bool {
        match self {
            Literal::Text(text) => read_text(value).as_deref() == Some(text),
            Literal::Integer(number) => value.parse() == Ok(*number),
            Literal::Boolean(truth) => value.parse() == Ok(*truth),
        }
    }
}

/// What a rule wants of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing at all.
    Any,
    /// There is none, and none was cut off.
    NoBody,
    /// One of these values is there.
    OneOf(Pointer, Vec<Literal>),
    /// A text is there, whichever.
    Text(Pointer),
    /// An object, an array or a text without anything in it is there.
    Empty(Pointer),
}

/// What an answer that says "booked" has to show as well, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The payment's id, or the answer is unknown.
    pub id: Option<Pointer>,
    /// Its amount, or somebody has booked another one under its id.
    pub amount: Option<(Pointer, Unit)>,
    /// The time it is booked under, which tells whose booking it is.
    pub time: Option<Pointer>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As written in the file.
    pub shown: String,
    pub statuses: Vec<RangeInclusive<u16>>,
    pub condition: Condition,
    pub meaning: Meaning,
    /// Of [`Meaning::Booked`].
    pub proof: Proof,
    /// Of [`Meaning::Well`] and [`Meaning::Failing`]: how long an answer takes at least, in ms.
    pub delay: Option<Pointer>,
}

/// An answer as it came. Its document is read once, if anybody wants to know.
pub struct Answer<'a> {
    status: u16,
    body: &'a [u8],
    /// Nothing of the body can have been cut off.
    is_whole: bool,
    document: std::cell::OnceCell<Option<Document<'a>>>,
}

impl<'a> Answer<'a> {
    pub fn new(status: u16, body: &'a [u8], is_whole: bool) -> Answer<'a> {
        Answer { status, body, is_whole, document: std::cell::OnceCell::new() }
    }

    fn document(&self) -> Option<Document<'a>> {
        *self.document.get_or_init(|| Document::read(self.body))
    }

    /// The first rule that fits. None decides about a body that is larger than any answer may be.
    pub fn rule<'r>(&self, rules: &'r [Rule]) -> Option<&'r Rule> {
        let fits = |rule: &&Rule| {
            rule.statuses.iter().any(|it| it.contains(&self.status)) && self.meets(&rule.condition)
        };
        let is_too_large = self.body.len() > RESPONSE_BODY_SIZE_MAX;
        if is_too_large { None } else { rules.iter().find(fits) }
    }

    fn meets(&self, condition: &Condition) -> bool {
        let (pointer, is_wanted): (_, &dyn Fn(&str) -> bool) = match condition {
            Condition::Any => return true,
            Condition::NoBody => return self.body.is_empty() && self.is_whole,
            Condition::OneOf(pointer, values) => {
                (pointer, &|found| values.iter().any(|it| it.is(found)))
            }
            Condition::Text(pointer) => (pointer, &|found| read_text(found).is_some()),
            Condition::Empty(pointer) => (pointer, &is_empty),
        };
        self.find(pointer).is_some_and(|found| is_wanted(&found))
    }

    pub fn find(&self, pointer: &Pointer) -> Option<std::borrow::Cow<'a, str>> {
        pointer.find(self.document()?)
    }

    /// What an answer says that means "booked" by its rule. Without a time in it, it is taken to be
    /// booked by us, under the time we sent.
    pub fn booked(&self, proof: &Proof, attempt: &Attempt, paired: bool) -> Outcome {
        self.read_booking(proof, attempt, paired).unwrap_or(Outcome::Unknown)
    }

    fn read_booking(&self, proof: &Proof, attempt: &Attempt, paired: bool) -> Option<Outcome> {
        let payment = &attempt.payment;
        if let Some(pointer) = &proof.id {
            let id = self.find(pointer)?;
            (PaymentId::parse(read_text(&id)?.as_bytes()) == Some(payment.id)).then_some(())?;
        }
        let at = match &proof.time {
            Some(pointer) => read_time(read_text(&self.find(pointer)?)?.as_bytes())?,
            None => attempt.requested_at,
        };
        let amount = match &proof.amount {
            Some((pointer, unit)) => unit.read(&self.find(pointer)?),
            None => Ok(payment.amount),
        };
        what_is_booked(amount, at, attempt, paired)
    }
}

/// What a JSON text is, if it is a string.
fn read_text(value: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    match inner.contains('\\') {
        false => Some(inner.into()),
        true => sonic_rs::from_str::<String>(value).ok().map(Into::into),
    }
}

fn is_empty(value: &str) -> bool {
    let inner = |open, close| value.strip_prefix(open)?.strip_suffix(close).map(str::trim);
    value == "\"\"" || inner('[', ']') == Some("") || inner('{', '}') == Some("")
}
