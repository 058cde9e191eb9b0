//! An operator at one of the instances: tells the truth about what was rejected there, or has it tried
//! again. What he may do is decided as in earnest.

use super::*;
use crate::payments::Rejection;
use crate::payments::resolution::{Action, Standing, decide};
use crate::payments::story::Story;

impl Simulation {
    /// Looks after one of the payments that are listed there.
    pub fn operate(&mut self, index: usize) {
        let member = &self.members[index];
        let listed = Replay::of(&member.journal).rejected;
        let Some(process) = &member.process else { return };
        if listed.is_empty() || !process.serves || !process.membership.is_current(Moment(self.now))
        {
            return;
        }
        let (id, accepted_at) = self.random.pick(&listed);
        let booking = self.processors.held().find(|it| it.0 == id);
        let action = match booking.filter(|_| self.random.chance(2)) {
            Some((_, processor, requested_at)) => Action::Settled { processor, requested_at },
            None => Action::Retry,
        };
        let rejection = Rejection { id, amount: amount_of(id), statuses: [400; 2], accepted_at };
        let standing = Standing {
            story: Some(Story::Rejected(rejection)),
            held: process.dispatcher.held(id),
            is_home: home_of(id.0) == member.instance,
            is_paired: self.left_out != LeftOut::Whose,
            last: None,
        };
        if member.disk == Disk::Free && decide(action, &standing).is_ok() {
            self.resolve(index, rejection, action);
        }
    }

    fn resolve(&mut self, index: usize, rejection: Rejection, action: Action) {
        let Rejection { id, amount, accepted_at, .. } = rejection;
        let (accepted, guest) = (Moment(self.now), false);
        let Some(process) = &mut self.members[index].process else { return };
        match action {
            Action::Settled { processor, requested_at } => {
                process.counted.push((id, processor, requested_at));
                self.write(index, Kept::Settled(id, processor, requested_at));
            }
            _ => {
                let payment = Payment { id, amount, accepted, accepted_at, guest, verify: true };
                process.dispatcher.submit(payment);
                self.rejected.remove(id);
                self.write(index, Kept::Retried(id, accepted_at));
            }
        }
        self.run(index);
    }
}
