//! The words of the payments system.
//!
//! The life of a payment: **accepted** (the client has its 202) → **queued** → one **attempt** at
//! a time at one processor → **settled**, or queued again. An attempt ends in an [`Outcome`]: the
//! processor has booked it, certainly has not, or nobody knows yet. While it is unknown the payment
//! stays with that processor and that `requestedAt`, and the same request is repeated until the
//! processor's answer decides. Nothing is ever given up, and nothing is sent to one processor while
//! the other may hold it.

pub mod budget;
pub mod dispatcher;
pub mod event;
pub mod fee;
pub mod ids;
pub mod intake;
pub mod names;
pub mod observed;
pub mod processor;
pub mod queue;
pub mod resolution;
pub mod router;
pub mod story;
pub mod summary;
pub mod terms;

use crate::base::clock::{Moment, Timestamp};
use crate::base::money::{Cents, Total};
use std::fmt;

/// The id a client gives a payment: a UUID, whatever its version. Displays in canonical lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PaymentId(pub u128);

impl PaymentId {
    /// Reads the canonical text form (RFC 9562, section 4): 36 characters, either letter case.
    /// Braces, URNs and the form without hyphens are refused.
    pub fn parse(text: &[u8]) -> Option<PaymentId> {
        (text.len() == 36)
            .then(|| uuid::Uuid::try_parse_ascii(text).ok())?
            .map(|id| PaymentId(id.as_u128()))
    }

    /// How it is displayed.
    pub fn text(self) -> [u8; 36] {
        let mut text = [0; 36];
        uuid::Uuid::from_u128(self.0).as_hyphenated().encode_lower(&mut text);
        text
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).as_hyphenated().fmt(f)
    }
}

/// A payment processor, by its number in the table of names ([`names::Names`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Processor(u8);

impl Processor {
    /// So many there can be: a record of the journal has three bits for the number of one.
    pub const MAX: usize = 8;
    /// The contest's two, as the table of names has them if nothing else is said.
    pub const DEFAULT: Processor = Processor(0);
    pub const FALLBACK: Processor = Processor(1);
    pub const CONTEST: [Processor; 2] = [Processor::DEFAULT, Processor::FALLBACK];

    /// `None` from [`Processor::MAX`] on.
    pub const fn new(number: usize) -> Option<Processor> {
        if number < Processor::MAX { Some(Processor(number as u8)) } else { None }
    }

    /// Every number, whether a processor has it or not.
    pub fn every() -> impl Iterator<Item = Processor> + Clone {
        (0..Processor::MAX as u8).map(Processor)
    }

    pub const fn number(self) -> u8 {
        self.0
    }

    /// Into arrays kept per processor.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Something for each processor, by its number.
pub type Each<T> = [T; Processor::MAX];

/// These for the first ones, and nothing for the others.
pub fn each<T: Copy + Default, const N: usize>(first: [T; N]) -> Each<T> {
    std::array::from_fn(|index| first.get(index).copied().unwrap_or_default())
}

/// A payment that was accepted and is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub amount: Cents,
    /// When it was accepted, on the clock for durations (how long it has waited) …
    pub accepted: Moment,
    /// … and on the wall clock (which bookings can be ours: none from before).
    pub accepted_at: Timestamp,
    /// Accepted in place of its home instance, which is away.
    pub guest: bool,
    /// It may have been driven elsewhere: by the other instance, or by this one at a time of which
    /// its journal knows nothing any more. Before it is paid at one processor, every other one must
    /// have said that it does not hold it.
    pub verify: bool,
}

/// Which processors may be sent payments now. An instance that is not in touch with its peer cannot
/// know what that one does, and neither can the peer; both then use one and the same processor, so
/// that it is the processor that books a payment once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Alone, or sure that the peer drives nothing of ours.
    Every,
    /// Only the one that is the cheapest for a payment's amount.
    Cheapest,
}

/// A payment that no processor will take: each it may go to has refused it a bounded number of
/// times. It is out of the queue, written down and listed, and people decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub id: PaymentId,
    pub amount: Cents,
    /// Per processor, the status of its last refusal; 0 if it was not asked; 200 if it holds a
    /// payment of this id under another amount.
    pub statuses: Each<u16>,
    /// When it was accepted, in whole seconds: the start of that second. 1970 if that is not known.
    pub accepted_at: Timestamp,
}

/// Why a payment was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Every processor it may go to refuses it.
    Refused,
    /// This processor holds a payment of the same id under another amount. It may be ours or
    /// somebody else's: it is not counted, and nothing is paid anywhere else.
    OtherAmount(Processor),
}

impl Rejection {
    /// The status that stands for [`Reason::OtherAmount`]: what the question was answered with.
    pub const OTHER_AMOUNT: u16 = 200;

    /// A moment as it is kept of a rejected payment.
    pub fn in_seconds(accepted_at: Timestamp) -> Timestamp {
        Timestamp(accepted_at.0.div_euclid(1_000).clamp(0, u32::MAX.into()) * 1_000)
    }

    pub fn reason(&self) -> Reason {
        let holds = |it: &Processor| self.statuses[it.index()] == Rejection::OTHER_AMOUNT;
        Processor::every().find(holds).map_or(Reason::Refused, Reason::OtherAmount)
    }
}

/// What became of a payment that was offered to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New,
    /// The same id and amount as before: nothing to do, and nothing wrong.
    Repeated,
    /// The same id as before with another amount.
    Conflicting,
    /// No place in the queue.
    Full,
    /// No room on the disk for what it would have to hold.
    DiskFull,
    /// So many payments are rejected that people have to decide about some first.
    TooManyRejected,
    /// Not taking payments.
    Closed,
}

impl Accepted {
    const ALL: [(Accepted, &'static str); 7] = [
        (Accepted::New, "new"),
        (Accepted::Repeated, "repeated"),
        (Accepted::Conflicting, "conflicting"),
        (Accepted::Full, "full"),
        (Accepted::DiskFull, "disk full"),
        (Accepted::TooManyRejected, "too many rejected"),
        (Accepted::Closed, "closed"),
    ];

    /// The word for it between the instances.
    pub fn name(self) -> &'static str {
        Accepted::ALL.iter().find(|(accepted, _)| *accepted == self).map_or("", |(_, name)| name)
    }

    pub fn by_name(name: &str) -> Option<Accepted> {
        Accepted::ALL.iter().find(|(_, word)| *word == name).map(|(accepted, _)| *accepted)
    }
}

/// One request for a payment at one processor. `requested_at` is what the processor books it under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub payment: Payment,
    pub processor: Processor,
    pub requested_at: Timestamp,
}

/// What is known after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The processor holds the payment, under this time.
    Recorded(Timestamp),
    /// The processor holds a payment of this id that was booked before we accepted ours: somebody
    /// else's. It is not ours to count, and ours must not be paid again.
    Foreign,
    /// The processor holds a payment of this id under another amount. Whoever booked that: people
    /// must decide, and nothing more is paid.
    OtherAmount,
    /// Certainly not booked by this attempt, and no request of ours is still under way.
    NotRecorded(Refusal),
    /// The request may have been, or may yet be, carried out.
    Unknown,
    /// The processor answers 4xx: it refuses this request (or claims to hold the id, 422). That may
    /// be so, and then another request cannot help; but who has answered may have been a gateway
    /// that gave up on a request that was carried out.
    Declined { status: u16 },
    /// Asked about it, the processor does not hold it now. A request of ours that is still under
    /// way may yet be carried out.
    Absent,
}

/// Why a processor certainly did not book an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No connection: not a byte was sent.
    Unreachable,
    /// It said so: a 500 with an empty body, which is its failure switch.
    Failing,
    /// 429: too many requests at once. The pause it asks for, in milliseconds.
    TooMany { retry_after_ms: u64 },
    /// Not sent: this instance has stood still, and does not know how things stand.
    Withheld,
}

/// A payment that a processor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub processor: Processor,
    pub amount: Cents,
    pub requested_at: Timestamp,
}

/// A settlement as the books keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// `None` in books of before version 3 of the layout, which did not keep it.
    pub id: Option<PaymentId>,
    pub settlement: Settlement,
    /// See [`Attempts`].
    pub attempts: Attempts,
}

/// How often a payment was attempted, as far as this instance knows: 0 if it does not, and
/// [`Attempts::MANY`] for so many or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempts(pub u8);

impl Attempts {
    /// Four bits, which is what records have for it.
    pub const MANY: Attempts = Attempts(15);

    /// After one more.
    pub fn and_one(self) -> Attempts {
        Attempts(self.0 + 1).min(Attempts::MANY)
    }
}

/// How many payments, and how much money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub count: u64,
    pub amount: Total,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.count += other.count;
        self.amount.0 += other.amount.0;
    }
}

/// An inclusive window of time. `None` is open on that side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

impl Window {
    /// Whether it lies in it. Both bounds are inclusive.
    pub fn contains(self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at <= to)
    }

    /// Whether no time lies in it.
    pub fn is_empty(self) -> bool {
        matches!((self.from, self.to), (Some(from), Some(to)) if from > to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_uuids_are_ids() {
        let canonical = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
        let id = PaymentId::parse(canonical.as_bytes()).unwrap();
        assert_eq!(id.to_string(), canonical);
        assert_eq!(PaymentId::parse(canonical.to_uppercase().as_bytes()), Some(id));
        for wrong in [
            "",
            "4a7901b87d264d9daa194dc1c7cf60b3",
            "{4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3}",
            "urn:uuid:4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3",
            "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg",
            "4a7901b87-d26-4d9d-aa19-4dc1c7cf60b3",
        ] {
            assert_eq!(PaymentId::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
