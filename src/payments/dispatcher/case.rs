//! One payment and what has happened to it so far: how often it was sent, who has refused it, and
//! the attempt whose outcome nobody knows.

use crate::base::clock::{Moment, Timestamp};
use crate::payments::terms::{Offers, Order};
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
/// What another processor has said about a payment to verify is good for so long …
const ABSENCE_AGE_MAX: Duration = Duration::from_secs(1);
/// … and while the others are asked, one behind the other, so long for each.
const ABSENCE_ASKED_WITHIN: Duration = Duration::from_secs(4);

/// The answer to a payment whose id the processor says it holds.
pub const CLAIMED: u16 = 422;

/// See the module. Small, since all that wait are kept so.
#[derive(Clone, Debug)]
pub struct Case {
    pub payment: Payment,
    /// Requests to book it that went out, saturating.
    pub tries: u8,
    /// Few have any of it.
    said: Option<Box<Said>>,
}

const _: () = assert!(size_of::<Case>() <= 64);

/// What processors have said about a payment.
#[derive(Clone, Debug, Default)]
struct Said {
    /// Those that do not hold a payment to verify, a bit each, and when the first of them said so.
    absent: u8,
    absent_at: Moment,
    /// Per processor, its refusals that were confirmed, and the status of the last.
    refusals: Each<u8>,
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

impl Said {
    /// Whether what was said first is still good.
    fn is_fresh(&self, offers: &Offers, now: Moment) -> bool {
        let asked_behind = offers.processors().count().saturating_sub(2) as u32;
        now.since(self.absent_at) <= ABSENCE_AGE_MAX + ABSENCE_ASKED_WITHIN * asked_behind
    }
}

impl Case {
    pub fn new(payment: Payment) -> Case {
        Case { payment, tries: 0, said: None }
    }

    fn said(&mut self) -> &mut Said {
        self.said.get_or_insert_default()
    }

    /// Those that it may be sent to, the cheapest first.
    pub fn targets(&self, offers: &Offers, reach: Reach) -> Order {
        let mut order = offers.cheapest_first(self.payment.amount);
        if reach == Reach::Cheapest || self.payment.guest {
            order.truncate(1);
        }
        order
    }

    /// Whether it may be posted again at this processor. Limits that have changed since do not matter.
    pub fn may_stay_at(&self, processor: Processor, offers: &Offers, reach: Reach) -> bool {
        (reach == Reach::Every && !self.payment.guest)
            || offers.cheapest(self.payment.amount) == Some(processor)
    }

    /// The next processor that has to say that it does not hold it, before it is paid at that one;
    /// `None`: all have said so lately.
    pub fn next_to_verify(
        &self,
        target: Processor,
        offers: &Offers,
        now: Moment,
    ) -> Option<Processor> {
        let said = self.said.as_ref().filter(|it| it.is_fresh(offers, now));
        let absent = said.map_or(0, |it| it.absent);
        offers.processors().find(|it| *it != target && absent & bit_of(*it) == 0)
    }

    pub fn is_absent_from(&mut self, processor: Processor, offers: &Offers, now: Moment) {
        let said = self.said();
        if said.absent == 0 || !said.is_fresh(offers, now) {
            (said.absent, said.absent_at) = (0, now);
        }
        said.absent |= bit_of(processor);
    }

    /// A request to book it goes out.
    pub fn is_posted_to(&mut self, processor: Processor) {
        if let Some(said) = &mut self.said {
            said.absent &= !bit_of(processor);
        }
    }

    pub fn is_refused(&self) -> bool {
        self.refusals() > 0
    }

    /// All its refusals.
    pub fn refusals(&self) -> u32 {
        let all = self.said.iter().flat_map(|it| it.refusals);
        all.map(u32::from).sum()
    }

    fn refusals_of(&self, processor: Processor) -> u8 {
        self.said.as_ref().map_or(0, |it| it.refusals[processor.index()])
    }

    pub fn refused_by(&mut self, processor: Processor, status: u16) {
        let said = self.said();
        let count = &mut said.refusals[processor.index()];
        *count = count.saturating_add(1);
        said.statuses[processor.index()] = status;
    }

    pub fn has_enough_of(&self, processor: Processor) -> bool {
        self.refusals_of(processor) >= REFUSALS_MAX
    }

    /// Of those it may be sent to the one that has refused it the least, the cheapest first.
    pub fn next_to_ask(&self, offers: &Offers, reach: Reach) -> Option<Processor> {
        let targets = self.targets(offers, reach);
        targets.iter().min_by_key(|it| self.refusals_of(*it))
    }

    pub fn rejection(&self) -> Rejection {
        let Payment { id, amount, accepted_at, .. } = self.payment;
        let accepted_at = Rejection::in_seconds(accepted_at);
        let statuses = self.said.as_ref().map_or(Each::default(), |it| it.statuses);
        Rejection { id, amount, statuses, accepted_at }
    }

    pub fn held_under_another_amount(&mut self, processor: Processor) -> Rejection {
        self.said().statuses[processor.index()] = Rejection::OTHER_AMOUNT;
        self.rejection()
    }
}

fn bit_of(processor: Processor) -> u8 {
    1 << processor.number()
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
