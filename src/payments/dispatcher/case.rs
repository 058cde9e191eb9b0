//! One payment and what has happened to it so far: how often it was sent, who has refused it, and
//! the attempt whose outcome nobody knows.

use crate::base::clock::{Moment, Timestamp};
use crate::payments::router::Policy;
use crate::payments::{Each, Payment, Processor, Reach, Rejection};
use std::time::Duration;

/// So many refusals by every processor it may go to, and a payment is rejected.
pub const REFUSALS_MAX: u8 = 3;
/// A refusal is believed when the processor still does not hold the payment so long after it …
const REFUSAL_CONFIRMED_AFTER: Duration = Duration::from_secs(5);
/// … and this long after it has claimed to hold it (422).
const CLAIM_REFUTED_AFTER: Duration = Duration::from_secs(10);
/// When it is looked at until then, in quarters of that time.
const CONFIRMING_LOOKS: [u32; 3] = [1, 2, 4];
/// What the other processors have said about a payment to verify is good for so long.
const ABSENCE_AGE_MAX: Duration = Duration::from_secs(1);

/// The answer to a payment whose id the processor says it holds.
pub const CLAIMED: u16 = 422;

/// See the module. Small, since all that wait are kept so.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub payment: Payment,
    /// Of a payment to verify: which processor has said last that it does not hold it, and when.
    absent_from: Option<Processor>,
    absent_at: Moment,
    /// Requests to book it that went out, saturating.
    pub tries: u8,
    /// Per processor, its refusals that were confirmed, and the status of the last.
    refusals: [u8; 2],
    statuses: Each<u16>,
}

/// An attempt whose outcome is not known.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub processor: Processor,
    pub requested_at: Timestamp,
    /// When its last request to book it went out.
    pub posted_at: Moment,
    /// Before the next question about it.
    pub pause: Duration,
    pub declined: Option<Declined>,
}

/// The processor has answered a request with 4xx. That alone is no proof that it was not booked.
#[derive(Clone, Copy, Debug)]
pub struct Declined {
    pub status: u16,
    at: Moment,
    /// It was the only request of its attempt. If not, an earlier one may yet be carried out.
    pub is_only: bool,
    /// It did not hold the payment when it was looked at, so many times since.
    absences: usize,
    /// It was confirmed, and is one of the refusals of its payment.
    is_counted: bool,
}

impl Case {
    pub fn new(payment: Payment) -> Case {
        Case {
            payment,
            absent_from: None,
            absent_at: Moment::default(),
            tries: 0,
            refusals: [0; 2],
            statuses: Each::default(),
        }
    }

    /// Whether it may be sent to this processor at all.
    pub fn may_go_to(&self, processor: Processor, policy: &Policy, reach: Reach) -> bool {
        processor == policy.cheaper || (reach == Reach::Every && !self.payment.guest)
    }

    /// Whether every processor but this one has said lately that it does not hold it.
    pub fn is_only_for(&self, processor: Processor, now: Moment) -> bool {
        self.absent_from == Some(processor.other()) && now.since(self.absent_at) <= ABSENCE_AGE_MAX
    }

    pub fn is_absent_from(&mut self, processor: Processor, now: Moment) {
        (self.absent_from, self.absent_at) = (Some(processor), now);
    }

    pub fn is_refused(&self) -> bool {
        self.refusals != [0; 2]
    }

    /// All its refusals.
    pub fn refusals(&self) -> u32 {
        self.refusals.iter().map(|count| u32::from(*count)).sum()
    }

    pub fn refused_by(&mut self, processor: Processor, status: u16) {
        let count = &mut self.refusals[processor.index()];
        *count = count.saturating_add(1);
        self.statuses[processor.index()] = status;
    }

    pub fn has_enough_of(&self, processor: Processor) -> bool {
        self.refusals[processor.index()] >= REFUSALS_MAX
    }

    /// Of those it may go to the one that has refused it the least, the cheaper one first.
    pub fn next_to_ask(&self, policy: &Policy, reach: Reach) -> Processor {
        [policy.cheaper, policy.cheaper.other()]
            .into_iter()
            .filter(|it| self.may_go_to(*it, policy, reach))
            .min_by_key(|it| self.refusals[it.index()])
            .unwrap_or(policy.cheaper)
    }

    pub fn rejection(&self) -> Rejection {
        let Payment { id, amount, accepted_at, .. } = self.payment;
        let accepted_at = Rejection::in_seconds(accepted_at);
        Rejection { id, amount, statuses: self.statuses, accepted_at }
    }

    pub fn held_under_another_amount(&mut self, processor: Processor) -> Rejection {
        self.statuses[processor.index()] = Rejection::OTHER_AMOUNT;
        self.rejection()
    }
}

impl Declined {
    pub fn new(status: u16, is_only: bool, now: Moment) -> Declined {
        Declined { status, at: now, is_only, absences: 0, is_counted: false }
    }

    /// Whether such an answer can yet become a refusal of the payment. The others mean "not now", "in
    /// work", or that a gateway has lost its patience with one of the two sides.
    pub fn can_be_definite(&self) -> bool {
        !self.is_counted
            && matches!(self.status, 400..=499)
            && !matches!(self.status, 408 | 409 | 423 | 425 | 429 | 499)
    }

    /// When the processor is to be looked at next so that the refusal can be believed; `None` if it
    /// can never be, or has been confirmed often and late enough.
    pub fn next_look(&self) -> Option<Moment> {
        if !self.can_be_definite() {
            return None;
        }
        let is_claim = self.status == CLAIMED;
        let all = if is_claim { CLAIM_REFUTED_AFTER } else { REFUSAL_CONFIRMED_AFTER };
        // Who claims to hold it is asked at once: most likely it does.
        let done = match (is_claim, self.absences) {
            (true, 0) => return Some(self.at),
            (true, absences) => absences - 1,
            (false, absences) => absences,
        };
        CONFIRMING_LOOKS.get(done).map(|quarters| self.at + all * *quarters / 4)
    }

    /// It is a refusal: only another request can lead to another.
    pub fn counted(self) -> Declined {
        Declined { is_counted: true, ..self }
    }

    /// It was looked at in time, and is not held.
    pub fn is_absent(&mut self, asked_at: Moment) {
        if self.next_look().is_some_and(|due| asked_at >= due) {
            self.absences += 1;
        }
    }
}
