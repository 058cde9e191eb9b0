//! What is sent next: fresh payments first, the repeated ones with their share, each question with
//! places of its own. Changes nothing but the place of the payment it sends.

use super::lines::Line;
use super::*;

impl Dispatcher {
    /// The next request to send, if one may be sent now. Call until it answers `None`.
    pub fn next(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        self.budgets.iter_mut().for_each(|it| it.is_at(at));
        if self.fresh_in_a_row + 1 >= REPEATS_ONE_IN
            && let Some(start) = self.next_repeat(now, at)
        {
            return Some(start);
        }
        self.next_of(Dispatcher::next_probe_of_doubt, now)
            .or_else(|| self.next_fresh(now, at))
            .or_else(|| self.next_repeat(now, at))
            .or_else(|| self.next_doubt(now))
            .or_else(|| self.next_of(Dispatcher::next_verification, now))
    }

    /// The first that there is of any processor.
    fn next_of(
        &mut self,
        next: impl Fn(&mut Dispatcher, Processor, Moment) -> Option<Start>,
        now: Moment,
    ) -> Option<Start> {
        self.policy.offers.processors().find_map(|processor| next(self, processor, now))
    }

    /// A processor that is down is probed with what may be there already: an outage puts no further
    /// payment in doubt.
    fn next_probe_of_doubt(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        if !self.observed[index].is_probe_due(now) || !self.budgets[index].may_post(now) {
            return None;
        }
        while let Some((due, (case, open))) = self.absent[index].pop_with_due() {
            match self.next_to_verify(&case, processor, now) {
                None => return Some(self.start(Flight::about(case, open, None, now))),
                Some(asked) => self.unverify(case, Some(open), asked, (due, now)),
            }
        }
        if self.doubts[index].is_empty() || self.looks[index][Look::Doubt as usize] >= LOOKS_MAX {
            return None;
        }
        let (mut case, open) = self.doubts[index].pop()?;
        case.tries = case.tries.saturating_add(1);
        let jitter = self.jitter();
        self.observed[index].probed_in_vain(now, jitter);
        Some(self.start(Flight::about(case, open, Some(Look::Doubt), now)))
    }

    /// One of the payments that nothing has gone wrong with.
    fn next_fresh(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        let mut before = None;
        while let Some(oldest @ (_, index)) = self.lines.next_oldest(before) {
            let decision = self.choose_fresh(index, now);
            if decision == Decision::Wait {
                before = Some(oldest);
                continue;
            }
            let case = self.lines.get_mut(index)?.fresh.pop_front()?;
            let Decision::Send(processor) = decision else {
                self.place_later(case, now + SPENT_PAUSE);
                continue;
            };
            match self.next_to_verify(&case, processor, now) {
                None => {
                    self.fresh_in_a_row = self.fresh_in_a_row.saturating_add(1);
                    return Some(self.start_new(case, processor, now, at));
                }
                Some(asked) => self.unverify(case, None, asked, (now, now)),
            }
        }
        None
    }

    /// What to do with the oldest payment of a line.
    fn choose_fresh(&self, line: usize, now: Moment) -> Decision {
        let line = &self.lines.as_slice()[line];
        let Some(case) = line.fresh.front() else { return Decision::Wait };
        let Payment { amount, accepted, .. } = case.payment;
        let router = self.router(self.reach_of(case), self.may_probe());
        router.choose(amount, now.since(accepted), line.fresh.len(), now)
    }

    pub(super) fn router(&self, reach: Reach, may_probe: Each<bool>) -> Router<'_> {
        let Dispatcher { policy, observed, budgets, .. } = self;
        Router { policy, observed, budgets, reach, may_probe }
    }

    /// The reach of one payment.
    pub(super) fn reach_of(&self, case: &Case) -> Reach {
        if case.payment.guest { Reach::Cheapest } else { self.reach }
    }

    /// Whether a payment without an attempt may be risked as a probe: not while there is one with.
    fn may_probe(&self) -> Each<bool> {
        std::array::from_fn(|index| {
            let has_doubts = !self.doubts[index].is_empty()
                || !self.absent[index].is_empty()
                || self.looks[index][Look::Doubt as usize] > 0;
            !has_doubts
        })
    }

    /// Likewise one that was sent before: not while one that nothing went wrong with waits for that
    /// processor.
    fn may_probe_again(&self, processor: Processor) -> bool {
        let takes = |line: &Line| match line.guest {
            true => line.order().first() == Some(&processor),
            false => line.order().contains(&processor),
        };
        let mut lines = self.lines.as_slice().iter();
        self.may_probe()[processor.index()] && lines.all(|it| it.fresh.is_empty() || !takes(it))
    }

    /// One of the payments that were sent before. They get places that are free, and a probe only
    /// if no other payment waits for it.
    fn next_repeat(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        let mut turns = std::mem::take(&mut self.turns);
        turns.clear();
        self.turns_of(&mut turns, now);
        // Who was due first has the first choice: a single probe must not go to the same for ever.
        turns.sort_unstable();
        let start = turns.iter().find_map(|Turn { repeat, index, .. }| {
            let processor = Processor::new(*index);
            match repeat {
                Repeat::Absent | Repeat::Again => self.next_open(*repeat, processor?, now),
                Repeat::Refused => self.next_refused(processor?, now, at),
                Repeat::Later => self.next_later(*index, now, at),
            }
        });
        self.turns = turns;
        if start.is_some() {
            self.fresh_in_a_row = 0;
        }
        start
    }

    /// The places in which something is due.
    fn turns_of(&self, turns: &mut Vec<Turn>, now: Moment) {
        let mut add = |due: Option<Moment>, repeat, index| {
            let due = due.filter(|due| *due <= now);
            turns.extend(due.map(|due| Turn { due, repeat, index }));
        };
        for index in self.policy.offers.processors().map(Processor::index) {
            add(self.absent[index].first_due(), Repeat::Absent, index);
            add(self.again[index].first_due(), Repeat::Again, index);
            add(self.refused[index].first_due(), Repeat::Refused, index);
        }
        for (index, line) in self.lines.as_slice().iter().enumerate() {
            add(line.later.first_due(), Repeat::Later, index);
        }
    }

    /// An attempt is posted again. Its time is old already, so for an audit it makes no difference
    /// how slow the answer is.
    fn next_open(&mut self, which: Repeat, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        let is_declined = which == Repeat::Again;
        loop {
            let seen = &self.observed[index];
            let may_probe = is_declined && self.may_probe_again(processor);
            let can_take = seen.has_place(now)
                || (may_probe && seen.is_probe_due(now))
                || seen.is_last_resort_due(now);
            let can_take = can_take && self.budgets[index].may_post(now);
            let agenda = if is_declined { &mut self.again[index] } else { &mut self.absent[index] };
            if !can_take || !agenda.is_due(now) {
                return None;
            }
            let (due, (case, open)) = agenda.pop_with_due()?;
            match self.next_to_verify(&case, processor, now) {
                None => return Some(self.start(Flight::about(case, open, None, now))),
                Some(asked) => self.unverify(case, Some(open), asked, (due, now)),
            }
        }
    }

    /// A payment that was refused, offered to the processor whose turn it is. While that is down, to
    /// another one again: the refusal may have been a mistake, and a turn may never come.
    fn next_refused(&mut self, turn: Processor, now: Moment, at: Timestamp) -> Option<Start> {
        let may_post = |it: Processor| self.budgets[it.index()].may_post(now);
        let is_well = |it: Processor| self.observed[it.index()].has_place(now) && may_post(it);
        let is_turn_up = self.observed[turn.index()].state() == State::Up;
        let all = self.policy.offers.processors();
        let well = each_bit(all.clone().filter(|it| is_well(*it)));
        let is_any_of_use = well != 0 || all.clone().any(|it| self.may_be_probed(it, now));
        while self.refused[turn.index()].is_due(now) && is_any_of_use {
            let (due, case) = self.refused[turn.index()].pop_with_due()?;
            let holds = |it: Processor| self.budgets[it.index()].holds(case.payment.amount);
            let may_go = |it: &Processor| {
                holds(*it) && (*it == turn || (!is_turn_up && !case.has_enough_of(*it)))
            };
            let targets = case.targets(&self.policy.offers, self.reach_of(&case));
            let order = std::iter::once(turn).chain(targets.iter());
            let target = order
                .filter(may_go)
                .find(|it| well & each_bit([*it]) != 0)
                .or_else(|| self.probe_of(&case, may_go, now));
            let Some(target) = target else {
                self.refused[turn.index()].push(now + REFUSED_PAUSE_MIN, case);
                continue;
            };
            match self.next_to_verify(&case, target, now) {
                None => return Some(self.start_new(case, target, now, at)),
                Some(asked) => self.unverify(case, None, asked, (due, now)),
            }
        }
        None
    }

    /// Down, and to be tried with a payment that was sent before.
    fn may_be_probed(&self, processor: Processor, now: Moment) -> bool {
        let seen = &self.observed[processor.index()];
        self.may_probe_again(processor)
            && (seen.is_probe_due(now) || seen.is_last_resort_due(now))
            && self.budgets[processor.index()].may_post(now)
    }

    /// Which processor that is down is to be tried with this payment: the one that was not for the
    /// longest time. A lone payment would go to the same one for ever else.
    fn probe_of(
        &self,
        case: &Case,
        may_go: impl Fn(&Processor) -> bool,
        now: Moment,
    ) -> Option<Processor> {
        let targets = case.targets(&self.policy.offers, self.reach_of(case));
        let all = targets.iter();
        all.filter(|it| may_go(it) && self.may_be_probed(*it, now))
            .min_by_key(|it| self.observed[it.index()].tried_at())
    }

    /// A payment that was sent in vain too often.
    fn next_later(&mut self, line: usize, now: Moment, at: Timestamp) -> Option<Start> {
        loop {
            let (_, case) = self.lines.as_slice()[line].later.peek().filter(|it| it.0 <= now)?;
            let Payment { amount, accepted, .. } = case.payment;
            let router = self.router(self.reach_of(case), Each::default());
            let decision = match router.choose(amount, now.since(accepted), 1, now) {
                Decision::Wait => Decision::Send(self.probe_later(case, now)?),
                decision => decision,
            };
            let (due, case) = self.lines.get_mut(line)?.later.pop_with_due()?;
            let Decision::Send(processor) = decision else {
                self.place_later(case, now + SPENT_PAUSE);
                continue;
            };
            match self.next_to_verify(&case, processor, now) {
                None => return Some(self.start_new(case, processor, now, at)),
                Some(asked) => self.unverify(case, None, asked, (due, now)),
            }
        }
    }

    /// Which one is to be probed with it: while the cheapest is up, no other.
    fn probe_later(&self, case: &Case, now: Moment) -> Option<Processor> {
        let amount = case.payment.amount;
        let cheapest = self.policy.offers.cheapest(amount)?;
        let is_cheapest_up = self.observed[cheapest.index()].state() == State::Up;
        let holds = |it: &Processor| self.budgets[it.index()].holds(amount);
        self.probe_of(case, |it| holds(it) && (*it == cheapest || !is_cheapest_up), now)
    }

    /// The next question about an attempt of unknown outcome, and nothing else: it changes nothing
    /// anywhere. Call until it answers `None`.
    pub fn next_doubt(&mut self, now: Moment) -> Option<Start> {
        self.next_of(Dispatcher::next_look, now)
    }

    fn next_look(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        if !self.observed[index].is_admitting(now) || !self.budgets[index].may_look(now) {
            return None;
        }
        let looks = self.looks[index];
        for look in [Look::Doubt, Look::Decline] {
            let agenda = match look {
                Look::Doubt => &mut self.doubts[index],
                _ => &mut self.declined[index],
            };
            if looks[look as usize] < LOOKS_MAX && agenda.is_due(now) {
                let (case, open) = agenda.pop()?;
                return Some(self.start(Flight::about(case, open, Some(look), now)));
            }
        }
        None
    }

    /// Asks a processor about a payment that is to be paid at another one.
    fn next_verification(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        let may_look = !self.holds_back(now)
            && self.observed[index].is_admitting(now)
            && self.budgets[index].may_look(now)
            && self.looks[index][Look::Verify as usize] < LOOKS_MAX
            && self.unverified[index].is_due(now);
        if !may_look {
            return None;
        }
        let Unverified { case, open, pause, due } = self.unverified[index].pop()?;
        self.unverified_doubts -= usize::from(open.is_some());
        let Payment { accepted_at, .. } = case.payment;
        // Nothing of ours was sent there; the time stands for none.
        let requested_at = processor::requested_at(&case.payment, accepted_at, self.paired);
        let look = Some(Look::Verify);
        Some(self.start(Flight {
            look,
            open,
            pause,
            due,
            ..Flight::new(case, processor, requested_at, now)
        }))
    }
}

/// A bit for each of these.
fn each_bit(processors: impl IntoIterator<Item = Processor>) -> u8 {
    processors.into_iter().fold(0, |bits, it| bits | 1 << it.number())
}
