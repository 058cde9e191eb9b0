//! What is sent next: fresh payments first, the repeated ones with their share, each question with
//! places of its own. Changes nothing but the place of the payment it sends.

use super::*;

impl Dispatcher {
    /// The next request to send, if one may be sent now. Call until it answers `None`.
    pub fn next(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        if self.fresh_in_a_row + 1 >= REPEATS_ONE_IN
            && let Some(start) = self.next_repeat(now, at)
        {
            return Some(start);
        }
        let each = Processor::CONTEST.into_iter();
        each.clone()
            .find_map(|processor| self.next_probe_of_doubt(processor, now))
            .or_else(|| self.next_fresh(now, at))
            .or_else(|| self.next_repeat(now, at))
            .or_else(|| self.next_doubt(now))
            .or_else(|| each.clone().find_map(|it| self.next_verification(it, now)))
    }

    /// A processor that is down is probed with what may be there already: an outage puts no further
    /// payment in doubt.
    fn next_probe_of_doubt(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        if !self.observed[index].is_probe_due(now) {
            return None;
        }
        while let Some((due, (case, open))) = self.absent[index].pop_with_due() {
            if self.is_clear(&case, processor, now) {
                return Some(self.start(Flight::about(case, open, None, now)));
            }
            self.unverify(case, Some(open), processor.other(), (due, now));
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
        loop {
            let (line, processor) = self.choose_fresh(now)?;
            let case = self.lines[line].pop_front()?;
            if self.is_clear(&case, processor, now) {
                self.fresh_in_a_row = self.fresh_in_a_row.saturating_add(1);
                return Some(self.start_new(case, processor, now, at));
            }
            self.unverify(case, None, processor.other(), (now, now));
        }
    }

    /// Which line is next, and where to. Only the cheaper one takes guests, and they are not in the
    /// way of those that may go to the dearer one.
    fn choose_fresh(&self, now: Moment) -> Option<(usize, Processor)> {
        let accepted = |line: usize| Some(self.lines[line].front()?.payment.accepted);
        let (own, guest) = (accepted(OWN), accepted(GUESTS));
        let may_probe = self.may_probe();
        let router = self.router(self.reach, may_probe);
        let cheaper = self.policy.cheaper;
        if let Some(guest) = guest
            && own.is_none_or(|own| guest < own)
            && router.can_take(cheaper, now)
        {
            return Some((GUESTS, cheaper));
        }
        let choose = |line: usize, accepted: Moment, router: Router| {
            let queued = self.lines[line].len();
            match router.choose(now.since(accepted), queued, now) {
                Decision::Send(processor) => Some((line, processor)),
                Decision::Wait => None,
            }
        };
        own.and_then(|own| choose(OWN, own, router)).or_else(|| {
            guest.and_then(|guest| choose(GUESTS, guest, self.router(Reach::Cheaper, may_probe)))
        })
    }

    pub(super) fn router(&self, reach: Reach, may_probe: [bool; 2]) -> Router<'_> {
        Router { policy: &self.policy, observed: &self.observed, reach, may_probe }
    }

    /// The reach of one payment.
    pub(super) fn reach_of(&self, case: &Case) -> Reach {
        if case.payment.guest { Reach::Cheaper } else { self.reach }
    }

    /// Whether a payment without an attempt may be risked as a probe: not while there is one with.
    fn may_probe(&self) -> [bool; 2] {
        [0, 1].map(|index: usize| {
            let has_doubts = !self.doubts[index].is_empty()
                || !self.absent[index].is_empty()
                || self.looks[index][Look::Doubt as usize] > 0;
            !has_doubts
        })
    }

    /// Whether no payment that nothing went wrong with waits for this processor.
    fn is_free_of_fresh(&self, processor: Processor) -> bool {
        let takes_guests = processor == self.policy.cheaper;
        self.lines[OWN].is_empty() && (!takes_guests || self.lines[GUESTS].is_empty())
    }

    /// Likewise of one that was sent before: not while a fresh one waits for that processor.
    fn may_probe_again(&self) -> [bool; 2] {
        let [a, b] = self.may_probe();
        [
            a && self.is_free_of_fresh(Processor::DEFAULT),
            b && self.is_free_of_fresh(Processor::FALLBACK),
        ]
    }

    /// One of the payments that were sent before. They get places that are free, and a probe only
    /// if no other payment waits for it.
    fn next_repeat(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        use Repeat::{Absent, Again, Later, Refused};
        let nothing = self.absent.iter().chain(&self.again).all(Agenda::is_empty)
            && self.refused.iter().chain(&self.later).all(Agenda::is_empty);
        if nothing {
            return None;
        }
        // Who was due first has the first choice: a single probe must not go to the same for ever.
        let mut order = [
            (self.absent[0].first_due(), Absent, 0),
            (self.absent[1].first_due(), Absent, 1),
            (self.again[0].first_due(), Again, 0),
            (self.again[1].first_due(), Again, 1),
            (self.refused[0].first_due(), Refused, 0),
            (self.refused[1].first_due(), Refused, 1),
            (self.later[OWN].first_due(), Later, OWN),
            (self.later[GUESTS].first_due(), Later, GUESTS),
        ];
        order.sort_unstable_by_key(|(due, ..)| *due);
        let start = order.into_iter().find_map(|(due, repeat, index)| {
            due.filter(|due| *due <= now)?;
            match repeat {
                Absent | Again => self.next_open(repeat, Processor::CONTEST[index], now),
                Refused => self.next_refused(Processor::CONTEST[index], now, at),
                Later => self.next_later(index, now, at),
            }
        })?;
        self.fresh_in_a_row = 0;
        Some(start)
    }

    /// An attempt is posted again. Its time is old already, so for an audit it makes no difference
    /// how slow the answer is.
    fn next_open(&mut self, which: Repeat, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        let is_declined = which == Repeat::Again;
        loop {
            let seen = &self.observed[index];
            let may_probe = is_declined && self.may_probe_again()[index];
            let can_take = seen.has_place(now)
                || (may_probe && seen.is_probe_due(now))
                || seen.is_last_resort_due(now);
            let agenda = if is_declined { &mut self.again[index] } else { &mut self.absent[index] };
            if !can_take || !agenda.is_due(now) {
                return None;
            }
            let (due, (case, open)) = agenda.pop_with_due()?;
            if self.is_clear(&case, processor, now) {
                return Some(self.start(Flight::about(case, open, None, now)));
            }
            self.unverify(case, Some(open), processor.other(), (due, now));
        }
    }

    /// A payment that was refused, offered to the processor whose turn it is. While that is down, to
    /// the other one again: the refusal may have been a mistake, and a turn may never come.
    fn next_refused(&mut self, turn: Processor, now: Moment, at: Timestamp) -> Option<Start> {
        let other = turn.other();
        let is_well = |it: Processor| self.observed[it.index()].has_place(now);
        let well = [turn, other].into_iter().find(|it| is_well(*it));
        let is_turn_up = self.observed[turn.index()].state() == State::Up;
        let probes = [turn, other].map(|it| self.may_be_probed(it, now));
        while self.refused[turn.index()].is_due(now) && (well.is_some() || probes != [false; 2]) {
            let (due, case) = self.refused[turn.index()].pop_with_due()?;
            let may_go_back =
                case.may_go_to(other, &self.policy, self.reach) && !case.has_enough_of(other);
            let may_go = |it: &Processor| *it == turn || (may_go_back && !is_turn_up);
            let target = well.filter(may_go).or_else(|| self.probe_of(&case, may_go, now));
            let Some(target) = target else {
                self.refused[turn.index()].push(now + REFUSED_PAUSE_MIN, case);
                continue;
            };
            if self.is_clear(&case, target, now) {
                return Some(self.start_new(case, target, now, at));
            }
            self.unverify(case, None, target.other(), (due, now));
        }
        None
    }

    /// Down, and to be tried with a payment that was sent before.
    fn may_be_probed(&self, processor: Processor, now: Moment) -> bool {
        let seen = &self.observed[processor.index()];
        self.may_probe_again()[processor.index()]
            && (seen.is_probe_due(now) || seen.is_last_resort_due(now))
    }

    /// Which processor that is down is to be tried with this payment: the one that was not for the
    /// longest time. A lone payment would go to the same one for ever else.
    fn probe_of(
        &self,
        case: &Case,
        may_go: impl Fn(&Processor) -> bool,
        now: Moment,
    ) -> Option<Processor> {
        let reach = self.reach_of(case);
        Processor::CONTEST
            .into_iter()
            .filter(|it| may_go(it) && case.may_go_to(*it, &self.policy, reach))
            .filter(|it| self.may_be_probed(*it, now))
            .min_by_key(|it| (self.observed[it.index()].tried_at(), *it != self.policy.cheaper))
    }

    /// A payment that was sent in vain too often.
    fn next_later(&mut self, line: usize, now: Moment, at: Timestamp) -> Option<Start> {
        loop {
            let (_, case) = self.later[line].peek().filter(|(due, _)| *due <= now)?;
            let waited = now.since(case.payment.accepted);
            let router = self.router(self.reach_of(case), [false; 2]);
            let cheaper = self.policy.cheaper;
            let is_cheaper_up = self.observed[cheaper.index()].state() == State::Up;
            let processor = match router.choose(waited, 1, now) {
                Decision::Send(processor) => processor,
                Decision::Wait => {
                    self.probe_of(case, |it| *it == cheaper || !is_cheaper_up, now)?
                }
            };
            let (due, case) = self.later[line].pop_with_due()?;
            if self.is_clear(&case, processor, now) {
                return Some(self.start_new(case, processor, now, at));
            }
            self.unverify(case, None, processor.other(), (due, now));
        }
    }

    /// The next question about an attempt of unknown outcome, and nothing else: it changes nothing
    /// anywhere. Call until it answers `None`.
    pub fn next_doubt(&mut self, now: Moment) -> Option<Start> {
        Processor::CONTEST.into_iter().find_map(|processor| self.next_look(processor, now))
    }

    fn next_look(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        if !self.observed[index].is_admitting(now) {
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

    /// Asks a processor about a payment that is to be paid at the other one.
    fn next_verification(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor.index();
        let may_look = !self.holds_back(now)
            && self.observed[index].is_admitting(now)
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
