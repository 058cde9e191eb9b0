//! The processors, one to eight: up, down, down for ever or in turns, or answering odd things; and what they
//! hold. What they answer is read as in earnest, so that the table of answers is played along.

use super::weather::Climate;
use super::{IDS, Ids, Random, number};
use crate::base::clock::Timestamp;
use crate::payments::dispatcher::{Question, Start};
use crate::payments::processor::{read_look, read_pay};
use crate::payments::terms::Offers;
use crate::payments::{Attempt, Each, Outcome, Payment, PaymentId, Processor, Refusal};

/// Which processor fails, whatever the weather, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    Always(Processor),
    /// It answers nothing at all.
    Gone(Processor),
    /// It books, and never answers a look.
    Blind(Processor),
    /// Each for so many microseconds, when the others are well again: never two.
    InTurns(u64),
}

#[derive(Clone, Copy, Debug)]
struct Booking {
    id: PaymentId,
    requested_at: Timestamp,
    /// From then on it is found by who looks for it.
    shown_at: u64,
}

pub struct Processors {
    pub down: Each<bool>,
    /// Every other answer is an odd one.
    pub odd: Each<bool>,
    pub offers: Offers,
    fails: Option<Fails>,
    /// Refused by all, and never booked.
    poison: Ids,
    /// Until then.
    lifted_at: Option<u64>,
    held: Each<Vec<Booking>>,
    /// Answers that may have been taken for a refusal of the payment.
    refusals: Each<[u8; IDS as usize]>,
}

/// What comes of a request.
pub struct Reaction {
    /// `None`: no answer.
    pub outcome: Option<Outcome>,
    /// It is booked in so many microseconds.
    pub books_in: Option<u64>,
}

impl Processors {
    pub fn new(climate: &Climate) -> Processors {
        let Climate { fails, poison, lifted_at, .. } = *climate;
        let (down, odd, held) = Default::default();
        let (offers, refusals) = (climate.offers(), [[0; IDS as usize]; Processor::MAX]);
        Processors { down, odd, offers, fails, poison, lifted_at, held, refusals }
    }

    /// A request has come. What it leads to does within `left` microseconds.
    pub fn react(&mut self, start: &Start, now: u64, left: u64, random: &mut Random) -> Reaction {
        let attempt = &start.attempt;
        match (self.fails, start.question) {
            (Some(Fails::Gone(gone)), Question::Pay) if gone == attempt.processor => {
                let outcome = Some(Outcome::NotRecorded(Refusal::Unreachable));
                return Reaction { outcome, books_in: None };
            }
            (Some(Fails::Gone(silent) | Fails::Blind(silent)), Question::Look)
                if silent == attempt.processor =>
            {
                return Reaction { outcome: None, books_in: None };
            }
            _ => {}
        }
        let is_odd = self.odd[attempt.processor.index()] && random.chance(2);
        match (start.question, is_odd) {
            (Question::Pay, true) => self.pay_oddly(attempt, now, left, random),
            (Question::Pay, false) => self.pay(attempt, now),
            (Question::Look, true) => {
                let outcome = look_oddly(attempt, random);
                Reaction { outcome, books_in: None }
            }
            (Question::Look, false) => {
                Reaction { outcome: Some(self.look(attempt, now)), books_in: None }
            }
        }
    }

    /// What each processor holds.
    pub fn held(&self) -> impl Iterator<Item = (PaymentId, Processor, Timestamp)> {
        self.offers.processors().flat_map(|processor| {
            let held = self.held[processor.index()].iter();
            held.map(move |it| (it.id, processor, it.requested_at))
        })
    }

    pub fn find(&self, processor: Processor, id: PaymentId) -> Option<Timestamp> {
        self.booking(processor, id).map(|it| it.requested_at)
    }

    /// Whether anybody who looks now finds it booked by this very attempt.
    pub fn shows(&self, attempt: &Attempt, now: u64) -> bool {
        let booking = self.booking(attempt.processor, attempt.payment.id);
        booking.is_some_and(|it| it.requested_at == attempt.requested_at && it.shown_at <= now)
    }

    fn booking(&self, processor: Processor, id: PaymentId) -> Option<&Booking> {
        self.held[processor.index()].iter().find(|it| it.id == id)
    }

    /// Books it. False if it is held already.
    pub fn book(&mut self, attempt: &Attempt, shown_at: u64) -> bool {
        let Attempt { payment, processor, requested_at } = *attempt;
        let is_new = self.find(processor, payment.id).is_none();
        if is_new {
            let booking = Booking { id: payment.id, requested_at, shown_at };
            self.held[processor.index()].push(booking);
        }
        is_new
    }

    /// Whether a payment may be taken for one that no processor will have.
    pub fn may_be_rejected(&self, payment: &Payment) -> bool {
        let has_enough = |it: Processor| self.refusals[it.index()][number(payment.id)] >= 3;
        let mut targets = self.offers.cheapest_first(payment.amount);
        targets.truncate(if payment.guest { 1 } else { u8::MAX });
        self.poison.contains(payment.id) || targets.iter().all(has_enough)
    }

    /// Whether it is refused whenever it is sent.
    pub fn is_poison(&self, id: PaymentId, now: u64) -> bool {
        self.poison.contains(id) && self.lifted_at.is_none_or(|lifted_at| now < lifted_at)
    }

    fn is_down(&self, processor: Processor, now: u64) -> bool {
        self.down[processor.index()]
            || match self.fails {
                Some(Fails::Always(failing) | Fails::Gone(failing)) => failing == processor,
                Some(Fails::InTurns(us)) => {
                    let count = self.offers.processors().count() as u64;
                    now / us % count == u64::from(processor.number())
                }
                Some(Fails::Blind(_)) | None => false,
            }
    }

    fn pay(&mut self, attempt: &Attempt, now: u64) -> Reaction {
        let id = attempt.payment.id;
        if self.is_down(attempt.processor, now) {
            return self.say(attempt, 500, "", None);
        }
        if self.find(attempt.processor, id).is_some() {
            return self.say(attempt, 422, "{}", None);
        }
        if self.is_poison(id, now) {
            return self.say(attempt, [400, 401, 404, 422][number(id) % 4], "{}", None);
        }
        self.say(attempt, 200, r#"{"message":"payment processed successfully"}"#, Some(0))
    }

    fn pay_oddly(
        &mut self,
        attempt: &Attempt,
        now: u64,
        left: u64,
        random: &mut Random,
    ) -> Reaction {
        let is_poison = self.is_poison(attempt.payment.id, now);
        let books_in = match random.below(4) {
            _ if is_poison => None,
            0 => Some(0),
            1 => Some(random.below(left.max(1))),
            _ => None,
        };
        match random.below(9) {
            0 => {
                let outcome = Some(Outcome::NotRecorded(Refusal::Unreachable));
                Reaction { outcome, books_in: None }
            }
            1 => self.say(attempt, 500, "", None),
            2 => self.say(attempt, 429, "", None),
            3 => self.say(attempt, random.pick(&[500, 502, 503, 599, 999]), "error", books_in),
            4 => self.say(attempt, random.pick(&[408, 409, 423, 425, 499]), "", books_in),
            5 => {
                let status = random.pick(&[400, 401, 403, 404, 407, 422]);
                self.say(attempt, status, "{}", books_in)
            }
            6 => {
                let status = random.pick(&[200, 201, 202, 204, 302, 304]);
                self.say(attempt, status, "{}", books_in)
            }
            _ => Reaction { outcome: None, books_in },
        }
    }

    fn say(
        &mut self,
        attempt: &Attempt,
        status: u16,
        body: &str,
        books_in: Option<u64>,
    ) -> Reaction {
        if (400..500).contains(&status) {
            let count = &mut self.refusals[attempt.processor.index()][number(attempt.payment.id)];
            *count = count.saturating_add(1);
        }
        let outcome = read_pay(status, body.as_bytes(), Some(1), true, attempt);
        Reaction { outcome: Some(outcome), books_in }
    }

    fn look(&self, attempt: &Attempt, now: u64) -> Outcome {
        let Payment { id, amount, .. } = attempt.payment;
        let shown = self.booking(attempt.processor, id).filter(|it| it.shown_at <= now);
        let Some(Booking { requested_at: at, .. }) = shown else {
            return read_look(404, b"", None, attempt, true);
        };
        let body = format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{at}"}}"#);
        read_look(200, body.as_bytes(), None, attempt, true)
    }
}

fn look_oddly(attempt: &Attempt, random: &mut Random) -> Option<Outcome> {
    let (status, body) = match random.below(4) {
        0 => (503, "error"),
        1 => (429, ""),
        2 => (200, "<html>"),
        _ => return None,
    };
    Some(read_look(status, body.as_bytes(), Some(1), attempt, true))
}
