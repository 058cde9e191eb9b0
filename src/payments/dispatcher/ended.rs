//! What the end of a request means for its payment, and where that waits from then on; and what its
//! processor has shown by it.

use super::*;

impl Dispatcher {
    /// A request has ended. Returns what that means for its payment.
    ///
    /// # Panics
    /// If this flight has ended before: then the books of this instance cannot be trusted.
    pub fn finished(&mut self, id: FlightId, outcome: Outcome, now: Moment) -> End {
        let slot = &mut self.flights[id.slot as usize];
        let flight = slot.take().filter(|flight| flight.sequence == id.sequence);
        let flight = flight.expect("a flight ends once");
        self.free_slots.push(id.slot);
        self.in_flight -= 1;
        self.drop_ended(flight.processor);
        self.learn(&flight, outcome, now);
        if flight.purged {
            return End::Purged;
        }
        let payment = flight.case.payment.id;
        let outcome = self.unless_disowned(&flight, outcome);
        let end = self.after(flight, outcome, now);
        // What its processor does not hold yet it may still be working at.
        if !self.unknown.is_empty() && end != End::InDoubt {
            self.unknown.remove(&payment);
        }
        self.held -= usize::from(end.is_over());
        end
    }

    fn after(&mut self, mut flight: Flight, outcome: Outcome, now: Moment) -> End {
        let (processor, case) = (flight.processor, &mut flight.case);
        match outcome {
            Outcome::Recorded(requested_at) => {
                let amount = case.payment.amount;
                End::Settled(Settlement { processor, amount, requested_at })
            }
            Outcome::Foreign => End::Foreign,
            Outcome::OtherAmount => End::Rejected(case.held_under_another_amount(processor)),
            outcome => match (flight.look, flight.open) {
                (None, _) => self.after_pay(flight, outcome, now),
                (Some(Look::Doubt | Look::Decline), Some(open)) => {
                    let asked_at = flight.started();
                    self.after_look(flight.case, open, asked_at, outcome, now)
                }
                (Some(_), _) => self.after_verification(flight, outcome, now),
            },
        }
    }

    /// A request to book it was not answered with a booking.
    fn after_pay(&mut self, flight: Flight, outcome: Outcome, now: Moment) -> End {
        let was_sent = outcome != Outcome::NotRecorded(Refusal::Withheld);
        let mut open = flight.opened();
        open.declined = None;
        let mut case = flight.case;
        case.tries = case.tries.saturating_add(u8::from(was_sent));
        match outcome {
            Outcome::NotRecorded(_) if flight.open.is_none() => {
                self.give_back(&case, &open);
                self.release(case, was_sent, now);
                return End::Released;
            }
            Outcome::Declined { status } => {
                let declined = Declined::new(status, flight.open.is_none(), now);
                open.declined = Some(declined);
                let due = match declined.next_look() {
                    Some(due) => due,
                    None => self.lengthen(&mut open.pause, now),
                };
                self.declined[open.processor.index()].push(due, (case, open));
            }
            // An earlier request of the same attempt may still be carried out, so this one's
            // certain failure decides nothing.
            _ => self.doubt(case, open, now),
        }
        End::InDoubt
    }

    /// The processor of an open attempt was asked about it, and does not hold it or did not say.
    fn after_look(
        &mut self,
        case: Case,
        mut open: Open,
        asked_at: Moment,
        outcome: Outcome,
        now: Moment,
    ) -> End {
        let is_absent = outcome == Outcome::Absent;
        // Its processor was the cheapest until the fees were changed, and is it no more.
        let can_never_stay = case.payment.guest
            && self.policy.offers.cheapest(case.payment.amount) != Some(open.processor);
        let is_decided = asked_at.since(open.posted_at) >= self.policy.books_within;
        if is_absent && can_never_stay && is_decided {
            self.give_back(&case, &open);
            self.release(case, true, now);
            return End::Released;
        }
        match open.declined.as_mut() {
            None if is_absent => self.place_absent(case, open, now),
            None => self.doubt(case, open, now),
            Some(declined) if is_absent && !declined.can_be_definite() => {
                self.place_absent(case, open, now);
            }
            Some(declined) if is_absent => {
                declined.is_absent(asked_at);
                match declined.next_look() {
                    Some(due) => {
                        let due = due.max(now);
                        self.declined[open.processor.index()].push(due, (case, open));
                    }
                    None => {
                        let declined = *declined;
                        return self.refuse(case, open, declined, now);
                    }
                }
            }
            Some(_) => {
                let due = self.lengthen(&mut open.pause, now);
                self.declined[open.processor.index()].push(due, (case, open));
            }
        }
        End::InDoubt
    }

    /// The processor has refused it, and means it.
    fn refuse(&mut self, mut case: Case, mut open: Open, declined: Declined, now: Moment) -> End {
        case.refused_by(open.processor, declined.status);
        let targets = case.targets(&self.policy.offers, self.reach);
        let is_over = case.has_enough_of(open.processor)
            && (!declined.is_only || targets.iter().all(|it| case.has_enough_of(it)));
        if is_over {
            return End::Rejected(case.rejection());
        }
        // As many times as with two, also if there are many that have to refuse it.
        let doubled = (case.refusals() - 1) * 2 / (targets.as_slice().len() as u32).max(2);
        let due = self.due_after(REFUSED_PAUSE_MIN, REFUSED_PAUSE_MAX, doubled, now);
        if declined.is_only {
            self.give_back(&case, &open);
            self.place_later(case, due);
            return End::Released;
        }
        open.declined = Some(declined.counted());
        self.place_absent(case, open, due);
        End::InDoubt
    }

    /// Another processor was asked whether somebody else has paid it there.
    fn after_verification(&mut self, flight: Flight, outcome: Outcome, now: Moment) -> End {
        let Flight { mut case, processor, open, mut pause, due: turn, .. } = flight;
        let is_absent = outcome == Outcome::Absent;
        if is_absent {
            case.is_absent_from(processor, &self.policy.offers, now);
        }
        match open {
            Some(open) if is_absent => self.place_absent(case, open, turn),
            // Meanwhile it may have turned up where it was sent.
            Some(open) => self.doubt(case, open, now),
            None if is_absent => self.place_free(case, turn),
            None => {
                let target = self.likely_target(&case, now);
                let asked = self.next_to_verify(&case, target, now).unwrap_or(processor);
                let due = self.lengthen(&mut pause, now);
                let unverified = Unverified { case, open, pause, due: turn };
                self.unverified[asked.index()].push(due, unverified);
            }
        }
        if open.is_some() { End::InDoubt } else { End::Kept }
    }

    /// Where it would go now.
    fn likely_target(&self, case: &Case, now: Moment) -> Processor {
        let (offers, amount) = (&self.policy.offers, case.payment.amount);
        let cheapest = offers.cheapest(amount).unwrap_or_default();
        if case.is_refused() {
            return case.next_to_ask(offers, self.reach).unwrap_or(cheapest);
        }
        let router = self.router(self.reach_of(case), [true; Processor::MAX]);
        match router.choose(amount, now.since(case.payment.accepted), 1, now) {
            Decision::Send(processor) => processor,
            Decision::Wait | Decision::Spent => cheapest,
        }
    }

    /// This processor has to be asked about it before it goes on. Its turn came when it was `due`.
    pub(super) fn unverify(
        &mut self,
        case: Case,
        open: Option<Open>,
        asked: Processor,
        (due, now): (Moment, Moment),
    ) {
        self.unverified_doubts += usize::from(open.is_some());
        let unverified = Unverified { case, open, pause: Duration::ZERO, due };
        self.unverified[asked.index()].push(now, unverified);
    }

    /// It was certainly not booked, and nothing of it is under way.
    fn release(&mut self, case: Case, was_sent: bool, now: Moment) {
        let vain = case.tries.saturating_sub(TRIES_AT_ONCE);
        if !was_sent || (vain == 0 && !case.is_refused()) {
            return self.place_free(case, now);
        }
        let due = self.due_after(TRY_PAUSE_MIN, TRY_PAUSE_MAX, u32::from(vain), now);
        self.place_later(case, due);
    }

    fn place_free(&mut self, case: Case, now: Moment) {
        if case.is_refused() || case.tries > TRIES_AT_ONCE {
            self.place_later(case, now);
        } else {
            self.requeue(case);
        }
    }

    pub(super) fn place_later(&mut self, case: Case, due: Moment) {
        let offers = &self.policy.offers;
        let next = case.is_refused().then(|| case.next_to_ask(offers, self.reach)).flatten();
        match next {
            Some(next) => self.refused[next.index()].push(due, case),
            None => self.lines.of(&case, offers).later.push(due, case),
        }
    }

    pub(super) fn requeue(&mut self, case: Case) {
        self.lines.of(&case, &self.policy.offers).push(case);
    }

    /// What was to be booked by this attempt is not, and never will be.
    pub(super) fn give_back(&mut self, case: &Case, open: &Open) {
        self.budgets[open.processor.index()].give_back(case.payment.amount, open.requested_at);
    }

    /// Its processor will be asked about it.
    pub(super) fn doubt(&mut self, case: Case, mut open: Open, now: Moment) {
        let due = self.lengthen(&mut open.pause, now);
        let place = match is_probe(&case, &open) {
            true => &mut self.doubts,
            false => &mut self.declined,
        };
        place[open.processor.index()].push(due, (case, open));
    }

    /// Its processor does not hold it (yet): it may be posted again there, unless no payment may go
    /// there now. Then it can only turn up.
    pub(super) fn place_absent(&mut self, case: Case, open: Open, due: Moment) {
        if !case.may_stay_at(open.processor, &self.policy.offers, self.reach) {
            return self.doubt(case, open, due);
        }
        let place = match is_probe(&case, &open) {
            true => &mut self.absent,
            false => &mut self.again,
        };
        place[open.processor.index()].push(due, (case, open));
    }

    /// Doubles a pause, and says when it is over.
    fn lengthen(&mut self, pause: &mut Duration, now: Moment) -> Moment {
        *pause = (*pause * 2).clamp(DOUBT_PAUSE_MIN, DOUBT_PAUSE_MAX);
        now + pause.mul_f32(1.0 + self.jitter() / 4.0)
    }

    /// When the pause is over that begins with `first` and was doubled so many times.
    fn due_after(
        &mut self,
        first: Duration,
        longest: Duration,
        doubled: u32,
        now: Moment,
    ) -> Moment {
        let pause = first.saturating_mul(1 << doubled.min(16)).min(longest);
        now + pause.mul_f32(1.0 + self.jitter() / 4.0)
    }

    /// What was disowned is let go of as soon as its processor is known not to hold it.
    fn unless_disowned(&mut self, flight: &Flight, outcome: Outcome) -> Outcome {
        let id = flight.case.payment.id;
        if !self.is_disowned(id) {
            return outcome;
        }
        let is_verifying = flight.look == Some(Look::Verify);
        let outcome = match outcome {
            Outcome::Recorded(_) | Outcome::OtherAmount => outcome,
            // Nothing was sent anywhere.
            _ if is_verifying && flight.open.is_none() => Outcome::Foreign,
            Outcome::Absent if !is_verifying && self.is_decided(flight) => Outcome::Foreign,
            // A request of ours may yet be carried out, and nobody else would count it.
            Outcome::Absent if !is_verifying => Outcome::Unknown,
            Outcome::NotRecorded(_) if flight.open.is_none() => Outcome::Foreign,
            outcome => outcome,
        };
        if matches!(outcome, Outcome::Recorded(_) | Outcome::Foreign | Outcome::OtherAmount) {
            self.disowned.remove(&id);
        }
        outcome
    }

    /// Whether the processor was asked so late that what it does not hold then it never will.
    fn is_decided(&self, look: &Flight) -> bool {
        let posted_at = look.open.map_or(look.begun, |open| open.posted_at);
        look.started().since(posted_at) >= self.policy.books_within
    }

    fn learn(&mut self, flight: &Flight, outcome: Outcome, now: Moment) {
        let jitter = self.jitter();
        let (index, started) = (flight.processor.index(), flight.started());
        let seen = &mut self.observed[index];
        let was_up = seen.state() == State::Up;
        match flight.look {
            Some(look) => self.looks[index][look as usize] -= 1,
            None => seen.ended(flight.begun),
        }
        match (flight.look, outcome) {
            (_, Outcome::NotRecorded(Refusal::TooMany { retry_after_ms })) => {
                seen.told_to_pause(Duration::from_millis(retry_after_ms), now);
            }
            (Some(_), _) => {}
            (None, Outcome::Recorded(_) | Outcome::Foreign | Outcome::OtherAmount) => {
                seen.recorded(started, now);
            }
            (None, Outcome::NotRecorded(Refusal::Failing)) => {
                seen.failed(started, true, now, jitter);
            }
            (None, Outcome::NotRecorded(Refusal::Unreachable) | Outcome::Unknown) => {
                seen.failed(started, false, now, jitter);
            }
            // It is about the payment, and tells nothing about the processor.
            (None, Outcome::Declined { .. } | Outcome::Absent) => {
                seen.probed_in_vain(now, jitter);
            }
            (None, Outcome::NotRecorded(Refusal::Withheld)) => {}
        }
        if !was_up && seen.state() == State::Up {
            // What is still in flight from before tells nothing about the processor as it is now.
            self.order[index].clear();
            let was_an_interruption = seen.up_for(now) > Duration::ZERO;
            if !was_an_interruption {
                let others = self.observed.iter_mut().enumerate().filter(|(it, _)| *it != index);
                others.for_each(|(_, it)| it.hasten_probe(now));
            }
        }
    }
}
