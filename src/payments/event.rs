//! What happens to payments, and what each event does to the books. One place for both: the process
//! that is told of an event and the start that reads of it in the journal apply the same rules.
//!
//! Knows nothing of files, nor of who is told. What an event does to the payments that are not over
//! is in `journal/outstanding.rs`: it is the journal that keeps them across a death.

use super::resolution::{Action, Resolution};
use super::{Attempts, PaymentId, Processor, Rejection, Settlement};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use std::collections::HashMap;
use std::sync::Arc;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The payment will be paid.
    Accepted { id: PaymentId, amount: Cents, accepted_at: Timestamp },
    /// A request for it is about to be sent. It belongs to this processor until it is known what
    /// became of that.
    Attempted { id: PaymentId, processor: Processor, requested_at: Timestamp },
    /// The attempt was certainly not booked: the payment is free again.
    Released { id: PaymentId },
    /// The processor holds the payment. Counts by itself: the acceptance may be long gone. How often
    /// it was attempted the journal adds.
    Settled { id: PaymentId, settlement: Settlement, attempts: Attempts },
    /// Somebody else holds a payment of this id. Ours is over, and not counted.
    Foreign { id: PaymentId },
    /// The other instance owns the payment from here on: handed over to it, or, if it is only
    /// learned, never accepted here.
    Forwarded { id: PaymentId, amount: Cents, learned: bool },
    /// Accepted in place of the other instance and driven from here: it is told so when it is back.
    Adopted { id: PaymentId, amount: Cents },
    /// What was adopted is over, and the other instance has written down that it is not its own to
    /// pay: it need not be told again.
    Told { id: PaymentId },
    /// No processor takes it, and people decide about it. It is over, and not forgotten.
    Rejected(Rejection),
    /// An operator has decided about it. If he says that it is settled, a `Settled` comes before.
    Resolved(Arc<Resolution>),
    /// Everything before this is forgotten.
    Purged,
}

impl Event {
    /// The payment that is known from here on, if it is a new one: a repetition is not paid again.
    pub fn makes_known(&self) -> Option<(PaymentId, Cents)> {
        match *self {
            Event::Accepted { id, amount, .. } | Event::Forwarded { id, amount, learned: true } => {
                Some((id, amount))
            }
            _ => None,
        }
    }
}

/// What has become of the payments of one instance besides those that are settled, which are on the
/// journal's shelf.
#[derive(Debug, Default)]
pub struct Books {
    /// Driven here in place of the other instance, which is still to be told, in that order.
    pub adopted: Vec<(PaymentId, Cents)>,
    /// Refused by every processor they may go to, in that order.
    pub rejected: Vec<Rejection>,
    /// What operators have last decided about payments.
    pub resolved: HashMap<PaymentId, Arc<Resolution>>,
    /// So many of those are cancelled.
    pub cancelled: usize,
}

impl Books {
    pub fn apply(&mut self, event: &Event) {
        match *event {
            Event::Adopted { id, amount } => self.adopted.push((id, amount)),
            // One by one: a start, which may have very many, takes them out by itself.
            Event::Told { id } => self.adopted.retain(|(adopted, _)| *adopted != id),
            Event::Rejected(rejection) => self.rejected.push(rejection),
            Event::Resolved(ref resolution) => {
                if resolution.action.ends_rejection() {
                    self.rejected.retain(|rejection| rejection.id != resolution.id);
                }
                self.keep(resolution);
            }
            Event::Purged => *self = Books::default(),
            Event::Accepted { .. }
            | Event::Attempted { .. }
            | Event::Released { .. }
            | Event::Settled { .. }
            | Event::Foreign { .. }
            | Event::Forwarded { .. } => {}
        }
    }

    /// A start, which may have very many, takes what is void with it out by itself.
    pub fn keep(&mut self, resolution: &Arc<Resolution>) {
        let before = self.resolved.insert(resolution.id, resolution.clone());
        let is_cancelled = |it: &Arc<Resolution>| it.action == Action::Cancelled;
        self.cancelled -= usize::from(before.as_ref().is_some_and(is_cancelled));
        self.cancelled += usize::from(is_cancelled(resolution));
    }
}
