//! Requests to the processors, from the decision to send one to its end.

use super::*;

impl Simulation {
    /// A request goes out, if it still may.
    pub fn send(&mut self, index: usize, start: Start) {
        let (now, left_out) = (Moment(self.now), self.left_out);
        let Start { flight, attempt, question } = start;
        let Some(process) = &mut self.members[index].process else { return };
        let is_in_reach = process.membership.reach(now) == Reach::Every
            || self.climate.offers().cheapest(attempt.payment.amount) == Some(attempt.processor)
            || matches!(left_out, LeftOut::Lease | LeftOut::Before);
        let is_ours = !process.dispatcher.is_disowned(attempt.payment.id);
        if question == Question::Pay && !(is_in_reach && is_ours) {
            let withheld = Outcome::NotRecorded(Refusal::Withheld);
            return self.finished(index, flight, attempt, withheld);
        }
        process.dispatcher.sent(flight, now);
        let until = self.now + PROCESSOR_WAITS;
        for waiting in process.flights.iter_mut().filter(|waiting| waiting.0 == flight) {
            waiting.2 = until;
        }
        self.tell(Tale::Sends(index, question, attempt));
        if !self.random.chance(20) {
            let slowest = if self.random.chance(5) { BOOKS_WITHIN } else { 3 * MS };
            let time = self.now + self.random.below(slowest);
            let life = self.members[index].life;
            self.at(time, Event::of(index, What::Arrives(start, self.now, life)));
        }
    }

    pub fn arrives(&mut self, index: usize, start: Start, sent_at: u64, life: u32) {
        let shows_by = (sent_at + BOOKS_WITHIN).max(self.now);
        let left = shows_by - self.now;
        let Reaction { outcome, books_in } =
            self.processors.react(&start, self.now, left, &mut self.random);
        match books_in {
            Some(0) => self.book(index, &start.attempt, shows_by),
            Some(us) => {
                let books = What::Books(start.attempt, shows_by);
                self.at(self.now + us, Event::of(index, books));
            }
            None => {}
        }
        if let Some(outcome) = outcome.filter(|_| !self.random.chance(10)) {
            let time = self.now + self.random.below(3 * MS);
            let what = What::Answered(start.flight, start.attempt, outcome);
            self.at(time, Event { member: index, life, what });
        }
    }

    pub fn book(&mut self, index: usize, attempt: &Attempt, shows_by: u64) {
        let shown_at = match self.climate.shows_late && self.random.chance(2) {
            true => self.now + self.random.below(shows_by.saturating_sub(self.now).max(1)),
            false => self.now,
        };
        if !self.processors.book(attempt, shown_at) {
            return;
        }
        self.tell(Tale::Books(index, *attempt));
        let id = attempt.payment.id;
        // Two that are cut apart may end it differently, which nobody can help.
        if self.cancelled.contains(id) && !self.climate.has_copies && !self.was_adopted(id) {
            self.wrong = Some(Wrong::Cancelled(id));
        }
        let is_forgotten = generation(id) < self.generation || self.is_purging;
        if !is_forgotten && self.processors.held().filter(|held| held.0 == id).count() > 1 {
            self.wrong = Some(Wrong::Twice(id));
        }
    }

    pub fn finished(&mut self, index: usize, flight: FlightId, attempt: Attempt, outcome: Outcome) {
        let now = Moment(self.now);
        let Some(process) = &mut self.members[index].process else { return };
        // Its answer may come when it is waited for no more.
        let Some(place) = process.flights.iter().position(|it| it.0 == flight) else { return };
        process.flights.swap_remove(place);
        let id = attempt.payment.id;
        let outcome = match (outcome, self.left_out) {
            (Outcome::Declined { .. }, LeftOut::Doubt) => Outcome::NotRecorded(Refusal::Failing),
            (Outcome::Declined { .. }, LeftOut::Refusal) => Outcome::Unknown,
            (outcome, _) => outcome,
        };
        let end = process.dispatcher.finished(flight, outcome, now);
        if end.is_over() && attempt.payment.guest {
            process.membership.over(id);
        }
        match end {
            End::Settled(settlement) => {
                let (processor, at) = (settlement.processor, settlement.requested_at);
                process.counted.push((id, processor, at));
                self.write(index, Kept::Settled(id, processor, at));
            }
            End::Foreign => self.write(index, Kept::Foreign(id)),
            End::Released => self.write(index, Kept::Released(id)),
            End::Rejected(_) => {
                self.write(index, Kept::Rejected(id));
                self.rejected.insert(id);
                if !self.processors.may_be_rejected(&attempt.payment) {
                    self.wrong = Some(Wrong::Rejected(id));
                }
            }
            End::InDoubt | End::Kept | End::Purged => {}
        }
        self.run(index);
    }
}
