//! The payments that are accepted and not over, and the segments that hold them. What each event
//! does to them is decided here, for the writer that appends and for the start that replays.
//!
//! The invariant: every payment has one home, the segment of the last record that tells all of it,
//! and a segment that is no payment's home is needed by none.

use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::event::Event;
use crate::payments::resolution::{Action, Resolution};
use crate::payments::story::Story;
use crate::payments::{Attempts, PaymentId, Processor, Rejection};
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::collections::BTreeMap;

/// A payment that is accepted and not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub amount: Cents,
    pub accepted_at: Timestamp,
    /// The open attempt: at which processor, and since when.
    pub attempt: Option<(Processor, Timestamp)>,
    pub attempts: Attempts,
    /// The segment that holds it (and its attempt, or a later one does).
    pub home: u32,
}

impl Open {
    pub fn story(&self) -> Story {
        let Open { amount, accepted_at, attempt, attempts, .. } = *self;
        match attempt {
            None => Story::Waiting { amount, accepted_at, attempts },
            Some((processor, requested_at)) => {
                Story::InDoubt { amount, accepted_at, processor, requested_at, attempts }
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    /// Keyed with a random seed: ids come from outside and may be chosen to collide.
    payments: HashMap<PaymentId, Open, RandomState>,
    /// How many payments each segment holds.
    homes: BTreeMap<u32, usize>,
}

impl Outstanding {
    /// What an event does whose record is in that segment. Ids that are not there are those of
    /// payments that are over: purged, or, at a start, with their acceptance in the books.
    pub fn apply(&mut self, home: u32, event: &Event) {
        match *event {
            Event::Accepted { id, amount, accepted_at } => {
                let attempts = Attempts::default();
                self.enter(id, Open { amount, accepted_at, attempt: None, attempts, home });
            }
            Event::Attempted { id, processor, requested_at } => {
                if let Some(payment) = self.payments.get_mut(&id) {
                    payment.attempt = Some((processor, requested_at));
                    payment.attempts = payment.attempts.and_one();
                }
            }
            Event::Released { id } => {
                if let Some(payment) = self.payments.get_mut(&id) {
                    payment.attempt = None;
                }
            }
            Event::Settled { id, .. }
            | Event::Foreign { id }
            | Event::Forwarded { id, .. }
            | Event::Rejected(Rejection { id, .. }) => self.leave(id),
            Event::Resolved(ref resolution) => self.resolve(home, resolution),
            Event::Purged => {
                self.payments.clear();
                self.homes.clear();
            }
            Event::Adopted { .. } | Event::Told { .. } => {}
        }
    }

    fn resolve(&mut self, home: u32, resolution: &Resolution) {
        let Resolution { id, amount, accepted_at, action, .. } = *resolution;
        match action {
            Action::Retry => {
                let attempts = Attempts::default();
                self.enter(id, Open { amount, accepted_at, attempt: None, attempts, home });
            }
            Action::NotBooked { .. } => {
                if let Some(payment) = self.payments.get_mut(&id) {
                    payment.attempt = None;
                }
            }
            Action::Settled { .. } | Action::Cancelled | Action::Elsewhere => self.leave(id),
        }
    }

    /// The payment was written again, whole, in its new home.
    pub fn carry(&mut self, id: PaymentId, payment: Open) {
        self.leave(id);
        self.enter(id, payment);
    }

    pub fn len(&self) -> usize {
        self.payments.len()
    }

    pub fn contains(&self, id: PaymentId) -> bool {
        self.payments.contains_key(&id)
    }

    pub fn get(&self, id: PaymentId) -> Option<Open> {
        self.payments.get(&id).copied()
    }

    /// How often it was attempted, if it is one of them.
    pub fn attempts_of(&self, id: PaymentId) -> Attempts {
        self.payments.get(&id).map_or(Attempts::default(), |payment| payment.attempts)
    }

    /// How many of them this segment holds.
    pub fn held_by(&self, segment: u32) -> usize {
        self.homes.get(&segment).copied().unwrap_or(0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (PaymentId, &Open)> {
        self.payments.iter().map(|(id, payment)| (*id, payment))
    }

    /// Makes room for so many in all.
    pub fn reserve(&mut self, count: usize) {
        self.payments.reserve(count.saturating_sub(self.payments.len()));
    }

    fn enter(&mut self, id: PaymentId, payment: Open) {
        if let Entry::Vacant(entry) = self.payments.entry(id) {
            entry.insert(payment);
            *self.homes.entry(payment.home).or_default() += 1;
        }
    }

    fn leave(&mut self, id: PaymentId) {
        let Some(payment) = self.payments.remove(&id) else { return };
        let held = self.homes.get_mut(&payment.home).expect("a home for every payment");
        *held -= 1;
        if *held == 0 {
            self.homes.remove(&payment.home);
        }
    }
}
