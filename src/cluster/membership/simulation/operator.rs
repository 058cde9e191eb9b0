//! An operator at one of the instances: tells the truth about what was rejected there or is in doubt,
//! has it tried again, or cancels it, and what waits too. What he may do is decided as in earnest.

use super::*;
use crate::payments::dispatcher::Held;
use crate::payments::resolution::{Action, Standing, decide};
use crate::payments::story::Story;
use crate::payments::{Attempts, Processor, Rejection, each};

impl Simulation {
    /// Looks after one of the payments that are listed there.
    pub fn operate(&mut self, index: usize) {
        let member = &self.members[index];
        let is_busy = member.process.as_ref().is_some_and(|process| {
            process.serves && process.membership.is_current(Moment(self.now))
        });
        let listed = listed(&Replay::of(&member.journal));
        if !is_busy || listed.is_empty() {
            return;
        }
        let (id, accepted_at, story) = self.random.pick(&listed);
        let Some(action) = self.choose(id, &story) else { return };
        let member = &self.members[index];
        let Some(process) = &member.process else { return };
        let held = match process.dispatcher.held(id) {
            Held::Unverified if self.left_out == LeftOut::Unverified => Held::Free,
            held => held,
        };
        let standing = Standing {
            story: Some(story),
            held,
            is_home: home_of(id.0) == member.instance,
            is_paired: self.left_out != LeftOut::Whose,
            last: None,
        };
        if member.disk == Disk::Free && decide(action, &standing).is_ok() {
            self.resolve(index, id, accepted_at, action);
        }
    }

    /// What is true, and may be wanted. He is sure that something is not booked, and never will be, if
    /// its processor holds no such payment, and none is on its way there.
    fn choose(&mut self, id: PaymentId, story: &Story) -> Option<Action> {
        match *story {
            Story::InDoubt { processor, requested_at, .. } => {
                match self.processors.find(processor, id) {
                    Some(requested_at) => Some(Action::Settled { processor, requested_at }),
                    None if self.is_to_come(processor, id) => None,
                    None => Some(Action::NotBooked { processor, requested_at }),
                }
            }
            Story::Waiting { .. } => self.random.chance(4).then_some(Action::Cancelled),
            _ => {
                let booking = self.processors.held().find(|it| it.0 == id);
                let is_to_come = self.climate.processors().any(|it| self.is_to_come(it, id));
                match booking {
                    Some((_, processor, requested_at)) if self.random.chance(2) => {
                        Some(Action::Settled { processor, requested_at })
                    }
                    None if !is_to_come && self.random.chance(6) => Some(Action::Cancelled),
                    _ => Some(Action::Retry),
                }
            }
        }
    }

    /// Whether a request to book it may still come to that processor, or be carried out there.
    fn is_to_come(&self, processor: Processor, id: PaymentId) -> bool {
        let is_of_it = |it: &Attempt| it.processor == processor && it.payment.id == id;
        let books = |what: &What| match what {
            What::Send(start) | What::Arrives(start, ..) => {
                start.question == Question::Pay && is_of_it(&start.attempt)
            }
            What::Books(attempt, _) => is_of_it(attempt),
            _ => false,
        };
        self.agenda.iter().any(|event| books(&event.what))
            || self.members.iter().flat_map(|member| &member.held_up).any(books)
    }

    fn resolve(&mut self, index: usize, id: PaymentId, accepted_at: Timestamp, action: Action) {
        let kept = match action {
            Action::Settled { processor, requested_at } => {
                Kept::Settled(id, processor, requested_at)
            }
            Action::NotBooked { .. } => Kept::Released(id),
            Action::Cancelled => Kept::Cancelled(id),
            Action::Retry | Action::Elsewhere => Kept::Retried(id, accepted_at),
        };
        self.write(index, kept);
        let (accepted, amount) = (Moment(self.now), amount_of(id));
        let Some(process) = &mut self.members[index].process else { return };
        match kept {
            Kept::Retried(..) => {
                let guest = false;
                let payment = Payment { id, amount, accepted, accepted_at, guest, verify: true };
                process.dispatcher.submit(payment);
                self.rejected.remove(id);
            }
            Kept::Released(_) => _ = process.dispatcher.release_by_hand(id),
            _ => {
                if let Kept::Settled(_, processor, requested_at) = kept {
                    process.counted.push((id, processor, requested_at));
                }
                if process.dispatcher.let_go(id) {
                    process.membership.over(id);
                }
                _ = kept == Kept::Cancelled(id) && self.cancelled.insert(id);
            }
        }
        self.run(index);
    }
}

/// What a journal lists, with when it was accepted.
fn listed(replay: &Replay) -> Vec<(PaymentId, Timestamp, Story)> {
    let attempts = Attempts::default();
    let rejected = replay.rejected.iter().map(|&(id, accepted_at)| {
        let rejection =
            Rejection { id, amount: amount_of(id), statuses: each([400; 2]), accepted_at };
        (id, accepted_at, Story::Rejected(rejection))
    });
    let open = replay.open.iter().map(|&Open { id, accepted_at, attempt }| {
        let amount = amount_of(id);
        let story = match attempt {
            Some((processor, requested_at)) => {
                Story::InDoubt { amount, accepted_at, processor, requested_at, attempts }
            }
            None => Story::Waiting { amount, accepted_at, attempts },
        };
        (id, accepted_at, story)
    });
    rejected.chain(open).collect()
}
