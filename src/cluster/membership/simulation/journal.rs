//! What a played instance writes down, and what its next process makes of it.
//!
//! Much less than the real journal: nothing is torn here, and nothing rewritten. What each record
//! means is the same (`payments/event.rs`, `journal/outstanding.rs`).

use super::{Ids, LeftOut, amount_of};
use crate::base::clock::{Moment, Timestamp};
use crate::base::instance::Instance;
use crate::cluster::membership::{Recovered, home_of};
use crate::payments::{Attempt, Payment, PaymentId, Processor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Accepted(PaymentId, Timestamp),
    Attempted(PaymentId, Processor, Timestamp),
    Released(PaymentId),
    Settled(PaymentId, Processor, Timestamp),
    Foreign(PaymentId),
    Rejected(PaymentId),
    /// What was rejected is sent again, as if it had just been accepted then.
    Retried(PaymentId, Timestamp),
    /// Waiting or rejected, and not to be paid.
    Cancelled(PaymentId),
    /// What was rejected is driven by the other instance.
    Elsewhere(PaymentId),
    /// Handed over, or learned.
    Forwarded(PaymentId),
    Adopted(PaymentId),
    /// Over, and written down by its home: not told again.
    Told(PaymentId),
    Purged,
}

impl Kept {
    /// The payment that is unknown, or known as something else, without it.
    pub fn id(self) -> Option<PaymentId> {
        match self {
            Kept::Accepted(id, _)
            | Kept::Attempted(id, ..)
            | Kept::Released(id)
            | Kept::Settled(id, ..)
            | Kept::Foreign(id)
            | Kept::Rejected(id)
            | Kept::Retried(id, _)
            | Kept::Cancelled(id)
            | Kept::Elsewhere(id)
            | Kept::Forwarded(id)
            | Kept::Adopted(id) => Some(id),
            Kept::Told(_) | Kept::Purged => None,
        }
    }
}

/// A payment that is accepted and not over.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub id: PaymentId,
    pub accepted_at: Timestamp,
    pub attempt: Option<(Processor, Timestamp)>,
}

/// A booking, as an instance counts it.
pub type Counted = (PaymentId, Processor, Timestamp);

/// What a journal says.
#[derive(Debug, Default)]
pub struct Replay {
    pub ids: Ids,
    pub open: Vec<Open>,
    pub adopted: Vec<PaymentId>,
    pub counted: Vec<Counted>,
    /// Listed as rejected, with when they were accepted.
    pub rejected: Vec<(PaymentId, Timestamp)>,
}

impl Replay {
    pub fn of(journal: &[Kept]) -> Replay {
        let mut replay = Replay::default();
        journal.iter().for_each(|kept| replay.apply(*kept));
        replay
    }

    fn apply(&mut self, kept: Kept) {
        match kept {
            Kept::Accepted(id, accepted_at) => {
                self.ids.insert(id);
                self.open.push(Open { id, accepted_at, attempt: None });
            }
            Kept::Attempted(id, processor, at) => self.attempt(id, Some((processor, at))),
            Kept::Released(id) => self.attempt(id, None),
            Kept::Settled(id, processor, at) => {
                self.counted.push((id, processor, at));
                self.rejected.retain(|it| it.0 != id);
                self.over(id);
            }
            Kept::Foreign(id) => self.over(id),
            Kept::Rejected(id) => {
                let open = self.open.iter().find(|open| open.id == id);
                self.rejected.extend(open.map(|open| (id, open.accepted_at)));
                self.over(id);
            }
            Kept::Retried(id, accepted_at) => {
                self.rejected.retain(|it| it.0 != id);
                self.open.push(Open { id, accepted_at, attempt: None });
            }
            Kept::Cancelled(id) => {
                self.rejected.retain(|it| it.0 != id);
                self.over(id);
            }
            Kept::Elsewhere(id) => self.rejected.retain(|it| it.0 != id),
            Kept::Forwarded(id) => {
                self.ids.insert(id);
                self.over(id);
            }
            Kept::Adopted(id) => self.adopted.push(id),
            Kept::Told(id) => self.adopted.retain(|adopted| *adopted != id),
            Kept::Purged => *self = Replay::default(),
        }
    }

    fn attempt(&mut self, id: PaymentId, attempt: Option<(Processor, Timestamp)>) {
        if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
            open.attempt = attempt;
        }
    }

    fn over(&mut self, id: PaymentId) {
        self.open.retain(|open| open.id != id);
    }
}

/// What is taken up by a process that starts.
#[derive(Debug, Default)]
pub struct TakenUp {
    pub free: Vec<Payment>,
    pub doubts: Vec<Attempt>,
    pub of_the_peer: Recovered,
}

impl TakenUp {
    pub fn new(
        replay: &Replay,
        own: Instance,
        is_copy: bool,
        left_out: LeftOut,
        now: Moment,
    ) -> TakenUp {
        let mut taken = TakenUp::default();
        for Open { id, accepted_at, attempt } in replay.open.iter().copied() {
            let is_guest = home_of(id.0) != own;
            let is_adopted = replay.adopted.contains(&id);
            let may_be_driven = is_copy || attempt.is_some();
            let verify = is_guest
                || match left_out {
                    LeftOut::Recovered | LeftOut::Before => false,
                    LeftOut::Original => true,
                    _ => may_be_driven,
                };
            // Before these rules, guests could go anywhere.
            let guest = is_guest && !(is_adopted && left_out == LeftOut::Before);
            let amount = amount_of(id);
            let payment = Payment { id, amount, accepted: now, accepted_at, guest, verify };
            match attempt {
                Some((processor, requested_at)) => {
                    taken.doubts.push(Attempt { payment, processor, requested_at });
                }
                None if !is_guest || is_adopted => taken.free.push(payment),
                None => taken.of_the_peer.guests.push(payment),
            }
            if is_adopted {
                taken.of_the_peer.open.insert(id);
            }
        }
        taken.of_the_peer.adopted = replay.adopted.iter().map(|id| (*id, amount_of(*id))).collect();
        taken
    }
}
