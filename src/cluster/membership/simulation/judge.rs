//! When a history is over, and whether it ended well.

use super::*;
use crate::base::limits::PAST_KNOWN_WITHIN;

impl Simulation {
    /// Whether nothing more can come that would tell anything.
    pub fn is_steady(&mut self) -> bool {
        let has_settled_down = |process: &Process| {
            process.membership.presence() == Presence::Up
                && process.membership.guests() == 0
                && process.passed_on.is_empty()
        };
        let processes = self.members.each_ref().map(|member| member.process.as_ref());
        let [Some(first), Some(second)] = processes else { return false };
        if self.is_purging || !has_settled_down(first) || !has_settled_down(second) {
            return false;
        }
        if first.dispatcher.is_idle() && second.dispatcher.is_idle() {
            return self.business == 0;
        }
        // All that was sent in the storm is decided.
        if self.now < self.look_at.max(SECOND + self.climate.storm + BOOKS_WITHIN + SECOND) {
            return false;
        }
        self.look_at = self.now + SECOND / 2;
        [0, 1].into_iter().all(|index| {
            let open = Replay::of(&self.members[index].journal).open;
            open.iter().all(|open| self.stays_for_ever(index, open))
        })
    }

    /// Nobody can end it, or it would take too long to play.
    pub fn stays_for_ever(&self, index: usize, open: &Open) -> bool {
        let Climate { fails, waits_for_rejection, .. } = self.climate;
        if self.processors.is_poison(open.id, self.now) {
            return !waits_for_rejection || fails.is_some();
        }
        let is_guest = home_of(open.id.0) != self.members[index].instance;
        let failing = match fails {
            Some(Fails::Always(failing)) => failing,
            // Whoever must be asked there first waits for ever; nobody else does.
            Some(Fails::Gone(silent) | Fails::Blind(silent)) => {
                let is_found = |(held, at, _)| held == open.id && at != silent;
                return match open.attempt {
                    Some(_) => !self.processors.held().any(is_found),
                    None => is_guest || self.climate.asks_everywhere(),
                };
            }
            Some(Fails::InTurns(_)) | None => return false,
        };
        let is_in_doubt_there = open.attempt.is_some_and(|(at, _)| at == failing);
        // What is held is found: that processor was odd for a while, or the journal is a copy.
        self.processors.held().all(|(held, ..)| held != open.id)
            && (is_in_doubt_there
                || (is_guest
                    && Some(failing) == self.climate.offers().cheapest(amount_of(open.id))))
    }

    /// At any moment: what is told is booked, and counted by one of the two only; and just after a
    /// start nothing is left out that a request of the process before has led to, however late.
    pub fn audit(&mut self) {
        let (now, tells_all) = (Moment(self.now), self.left_out == LeftOut::Unknown);
        let told = self.members.each_ref().map(|member| {
            let process = member.process.as_ref().filter(|_| !member.stopped);
            process.filter(|it| tells_all || !it.dispatcher.is_unsure(now))
        });
        let counted = told.map(|it| it.map_or(&[][..], |process| &process.counted));
        let is_wrong = |index: usize, it: &&Counted| {
            self.processors.find(it.1, it.0) != Some(it.2) || counted[other(index)].contains(it)
        };
        let wrong = [0, 1].into_iter().find_map(|index| {
            let untold = told[index].and_then(|process| {
                let is_fresh = now.since(process.started) < PAST_KNOWN_WITHIN;
                let is_untold = |left: &&Attempt| {
                    process.counted.iter().all(|counted| counted.0 != left.payment.id)
                        && self.processors.shows(left, self.now)
                };
                let untold = process.left.iter().find(is_untold).filter(|_| is_fresh);
                untold.map(|left| Wrong::Untold(left.payment.id))
            });
            let wrong = counted[index].iter().find(|it| is_wrong(index, it));
            untold.or_else(|| wrong.map(|it| Wrong::Counted(it.0)))
        });
        self.wrong = self.wrong.take().or(wrong);
    }

    /// By either, in the place of the other.
    pub fn was_adopted(&self, id: PaymentId) -> bool {
        self.members.iter().any(|member| member.journal.contains(&Kept::Adopted(id)))
    }

    /// After the calm.
    pub fn judge(&self) -> Option<Wrong> {
        let is_judged = |id: PaymentId| generation(id) == self.generation;
        let booked: Vec<Counted> =
            self.processors.held().filter(|(id, ..)| is_judged(*id)).collect();
        let counted = |it: &Counted| {
            let all = self.members.iter().filter_map(|member| member.process.as_ref());
            all.flat_map(|process| &process.counted).filter(|counted| *counted == it).count()
        };
        // People may pay by hand what is listed as rejected. If it was refused only for a while, two that
        // are cut apart may end it differently, which nobody can help.
        let is_refused_for_good = self.climate.lifted_at.is_none();
        if let Some(both) =
            booked.iter().find(|it| is_refused_for_good && self.rejected.contains(it.0))
        {
            return Some(Wrong::Rejected(both.0));
        }
        for booking in &booked {
            let count = counted(booking);
            // Its home lets go of what it has found open, and has forgotten that it paid, when it
            // is told that the other drives it.
            let is_hidden = match self.climate.fails {
                Some(Fails::Blind(blind)) => blind == booking.1 || self.climate.asks_everywhere(),
                Some(Fails::Gone(_)) => self.climate.asks_everywhere(),
                _ => false,
            };
            let is_forgotten = self.excused.contains(booking.0)
                || (self.found.contains(booking.0) && self.was_adopted(booking.0));
            if count != 1 && !(count == 0 && (is_forgotten || is_hidden)) {
                return Some(Wrong::Counted(booking.0));
            }
        }
        let all = self.members.iter().filter_map(|member| member.process.as_ref());
        let mut all = all.flat_map(|process| &process.counted);
        if let Some(nothing) = all.find(|it| is_judged(it.0) && !booked.contains(it)) {
            return Some(Wrong::Counted(nothing.0));
        }
        let stays = |id: PaymentId| {
            [0, 1].into_iter().any(|index| {
                let open = Replay::of(&self.members[index].journal).open;
                open.iter().any(|open| open.id == id && self.stays_for_ever(index, open))
            })
        };
        // One was retried, and is rejected by the other instance still.
        let listed = self.members.iter().flat_map(|member| Replay::of(&member.journal).rejected);
        let listed: Vec<PaymentId> = listed.map(|it| it.0).collect();
        let is_listed = |id: PaymentId| listed.contains(&id);
        let due = (0..IDS).map(id).filter(|id| is_judged(*id) && self.promised.contains(*id));
        let mut lost = due.filter(|id| {
            booked.iter().all(|booking| booking.0 != *id)
                && !self.excused.contains(*id)
                && !self.rejected.contains(*id)
                && !self.cancelled.contains(*id)
                && !is_listed(*id)
                && !stays(*id)
        });
        lost.next().map(Wrong::Lost)
    }
}
