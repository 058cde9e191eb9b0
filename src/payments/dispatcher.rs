//! The only driver of a payment: from the queue through its attempts to its settlement.
//!
//! Decides everything and does nothing: no sockets, no clock, no threads. The engine asks for the
//! next request to send, and says how each one ended; the rehearsal does the same in virtual time.
//! The invariant: a payment is in exactly one place (waiting, in doubt, in flight, set aside), so
//! it is never sent to two processors at once, and it leaves only by being settled.

use super::observed::{Observed, Report, State};
use super::router::{self, Decision, Policy};
use super::{
    Attempt, Outcome, Payment, PaymentId, Processor, Reach, Refusal, Rejection, Settlement,
};
use crate::base::clock::{Moment, Timestamp};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::time::Duration;

/// The pause before an attempt of unknown outcome is asked about, doubled each time.
const DOUBT_PAUSE_MIN: Duration = Duration::from_millis(50);
const DOUBT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// At most so many looks at once at one processor: they answer at once, so few are enough.
pub const LOOKS_MAX: usize = 16;
/// How often [`Dispatcher::watch`] wants to be called, and when a call counts as late.
pub const WATCH_EVERY: Duration = Duration::from_millis(10);
const WATCH_LATE: Duration = Duration::from_millis(20);
/// The pause before a payment that a processor rejects (4xx) is offered to the other one.
const REJECTED_PAUSE: Duration = Duration::from_secs(5);

/// Names one request in flight. Never reused for another while somebody may still hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightId {
    slot: u32,
    sequence: u32,
}

/// The two things a processor can be asked about a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Book it: `POST /payments`.
    Pay,
    /// Have you booked it: `GET /payments/{id}`. Answered at once even by a slow processor.
    Look,
}

/// A request to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub flight: FlightId,
    pub attempt: Attempt,
    pub question: Question,
}

/// How a flight ended, seen from the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Settled(Settlement),
    /// Held under the same id by somebody else since before we accepted it.
    Foreign,
    /// Certainly not booked: it is free to go to either processor.
    Released,
    /// Nobody knows yet: this processor will be asked.
    InDoubt,
    /// No processor that it may go to will take it: it is over, written down, and for people to
    /// decide about.
    Rejected(Rejection),
    /// The payment was purged meanwhile.
    Purged,
}

/// An attempt whose outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    attempt: Attempt,
    pause: Duration,
    /// The processor has said that it does not hold it (yet): the next question may be `Pay`.
    absent: bool,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    sequence: u32,
    attempt: Attempt,
    question: Question,
    started: Moment,
    /// Set if an earlier request of this attempt had an unknown outcome.
    doubt: Option<Doubt>,
    purged: bool,
}

/// Due times with what is due; the earliest on top, first in first out among equals.
type Agenda<T> = BinaryHeap<Reverse<(Moment, u64, Due<T>)>>;

/// Carries a value through a heap without taking part in its order.
struct Due<T>(T);

impl<T> PartialEq for Due<T> {
    fn eq(&self, _: &Due<T>) -> bool {
        true
    }
}
impl<T> Eq for Due<T> {}
impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Due<T> {
    fn cmp(&self, _: &Due<T>) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// The state of every payment of this instance that is accepted and not settled.
pub struct Dispatcher {
    policy: Policy,
    /// There is another instance: whose a booking is shows in its milliseconds.
    paired: bool,
    reach: Reach,
    observed: [Observed; 2],
    /// Accepted and without an open attempt, oldest first.
    waiting: VecDeque<Payment>,
    doubts: [Agenda<Doubt>; 2],
    /// In flight or in doubt here, and driven by somebody else: unless it turns out to be booked
    /// by us, it is not ours to pay any more.
    disowned: HashSet<PaymentId>,
    /// Rejected (4xx), with the attempt that was.
    set_aside: Agenda<Attempt>,
    flights: Vec<Option<Flight>>,
    free_slots: Vec<u32>,
    in_flight: usize,
    looks: [usize; 2],
    /// Flights of `Pay` in the order they started; ended ones are dropped when they reach the front.
    order: [VecDeque<FlightId>; 2],
    sequence: u32,
    agenda_sequence: u64,
    random: u64,
    watched_at: Moment,
    was_late: bool,
}

impl Dispatcher {
    /// `seed` spreads the pauses of several instances; any number will do.
    pub fn new(policy: Policy, paired: bool, seed: u64) -> Dispatcher {
        let observed = Observed::new(policy.attempt_latency_max, policy.processor_concurrency);
        Dispatcher {
            policy,
            paired,
            reach: Reach::Every,
            observed: [observed.clone(), observed],
            waiting: VecDeque::new(),
            doubts: Default::default(),
            disowned: HashSet::new(),
            set_aside: BinaryHeap::new(),
            flights: Vec::new(),
            free_slots: Vec::new(),
            in_flight: 0,
            looks: [0; 2],
            order: Default::default(),
            sequence: 0,
            agenda_sequence: 0,
            random: seed | 1,
            watched_at: Moment::default(),
            was_late: false,
        }
    }

    /// Which processors payments of this instance may be sent to from now on.
    pub fn set_reach(&mut self, reach: Reach) {
        self.reach = reach;
    }

    /// Takes over an accepted payment.
    pub fn submit(&mut self, payment: Payment) {
        self.waiting.push_back(payment);
    }

    /// Takes over an attempt of an earlier process, whose outcome nobody knows.
    pub fn submit_doubt(&mut self, attempt: Attempt, now: Moment) {
        self.doubt(attempt, None, false, now);
    }

    /// Payments waiting for an attempt.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.set_aside.len()
    }

    /// Attempts of unknown outcome that wait to be asked about.
    pub fn in_doubt(&self) -> usize {
        self.doubts.iter().map(BinaryHeap::len).sum()
    }

    /// Requests sent and not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.waiting() + self.in_doubt() + self.in_flight == 0
    }

    pub fn observed(&self, processor: Processor) -> &Observed {
        &self.observed[processor as usize]
    }

    /// When the oldest `Pay` in flight at this processor began.
    pub fn oldest(&self, processor: Processor) -> Option<Moment> {
        let order = &self.order[processor as usize];
        order.iter().find_map(|id| self.flight(*id)).map(|flight| flight.started)
    }

    /// The next request to send, if one may be sent now. Call until it answers `None`.
    pub fn next(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        Processor::ALL
            .into_iter()
            .find_map(|processor| self.next_doubt(processor, now))
            .or_else(|| self.next_set_aside(now, at))
            .or_else(|| self.next_waiting(now, at))
    }

    /// A payment that one processor rejects is offered to the other one first.
    fn next_set_aside(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        let Reverse((due, _, Due(attempt))) = self.set_aside.peek()?;
        let Attempt { payment, processor: rejecting, .. } = *attempt;
        if *due > now {
            return None;
        }
        let can_take = |processor: &Processor| router::can_take(self.observed(*processor), now);
        let processor = [rejecting.other(), rejecting].into_iter().find(can_take)?;
        self.set_aside.pop();
        Some(self.start_new(payment, processor, now, at))
    }

    fn next_doubt(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let Reverse((due, _, Due(doubt))) = self.doubts[processor as usize].peek()?;
        let doubt = *doubt;
        let seen = &self.observed[processor as usize];
        let may_look =
            *due <= now && seen.is_admitting(now) && self.looks[processor as usize] < LOOKS_MAX;
        // Its time is old already, so for an audit it makes no difference how slow the answer is.
        let may_pay = doubt.absent && (router::can_take(seen, now) || seen.is_last_resort_due(now));
        if !may_pay && !may_look {
            return None;
        }
        self.doubts[processor as usize].pop();
        let question = if may_pay { Question::Pay } else { Question::Look };
        Some(self.start(doubt.attempt, question, Some(doubt), now))
    }

    fn next_waiting(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        let oldest = self.waiting.front()?;
        let waited = now.since(oldest.accepted);
        let queued = self.waiting.len();
        match router::choose(&self.policy, &self.observed, waited, queued, now) {
            Decision::Wait => None,
            Decision::Send(processor) => {
                let payment = self.waiting.pop_front()?;
                Some(self.start_new(payment, processor, now, at))
            }
        }
    }

    fn start_new(
        &mut self,
        payment: Payment,
        processor: Processor,
        now: Moment,
        at: Timestamp,
    ) -> Start {
        let requested_at = at.max(payment.accepted_at);
        let attempt = Attempt { payment, processor, requested_at };
        self.start(attempt, Question::Pay, None, now)
    }

    fn start(
        &mut self,
        attempt: Attempt,
        question: Question,
        doubt: Option<Doubt>,
        now: Moment,
    ) -> Start {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let flight = Flight { sequence, attempt, question, started: now, doubt, purged: false };
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.flights.push(None);
            (self.flights.len() - 1) as u32
        });
        self.flights[slot as usize] = Some(flight);
        self.in_flight += 1;
        let flight = FlightId { slot, sequence };
        let index = attempt.processor as usize;
        match question {
            Question::Look => self.looks[index] += 1,
            Question::Pay => {
                self.observed[index].started(now);
                self.order[index].push_back(flight);
            }
        }
        Start { flight, attempt, question }
    }

    /// The first byte of a request is about to go out: from here on its processor is measured.
    pub fn sent(&mut self, id: FlightId, now: Moment) {
        let flight = self.flights.get_mut(id.slot as usize).and_then(Option::as_mut);
        if let Some(flight) = flight.filter(|flight| flight.sequence == id.sequence) {
            flight.started = now;
        }
    }

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
        self.drop_ended(flight.attempt.processor);
        self.learn(&flight, outcome, now);
        if flight.purged {
            return End::Purged;
        }
        let attempt = flight.attempt;
        let outcome = self.unless_disowned(&flight, outcome);
        match outcome {
            Outcome::Recorded(requested_at) => {
                let Attempt { payment, processor, .. } = attempt;
                let amount = payment.amount;
                return End::Settled(Settlement { processor, amount, requested_at });
            }
            Outcome::Foreign => return End::Foreign,
            // An earlier request of the same attempt may still be carried out, so this one's
            // certain failure decides nothing.
            Outcome::NotRecorded(_) | Outcome::Absent if flight.doubt.is_some() => {
                let absent = outcome == Outcome::Absent;
                self.doubt(attempt, flight.doubt, absent, now);
                return End::InDoubt;
            }
            Outcome::NotRecorded(Refusal::Rejected { .. } | Refusal::Unconfirmed) => {
                let entry = self.agenda_entry(now + REJECTED_PAUSE, attempt);
                self.set_aside.push(entry);
            }
            Outcome::NotRecorded(_) => self.requeue(attempt.payment),
            Outcome::Unknown | Outcome::Absent => {
                self.doubt(attempt, flight.doubt, false, now);
                return End::InDoubt;
            }
        }
        End::Released
    }

    /// What was disowned is let go of as soon as its processor is known not to hold it.
    fn unless_disowned(&mut self, flight: &Flight, outcome: Outcome) -> Outcome {
        let id = flight.attempt.payment.id;
        if !self.is_disowned(id) {
            return outcome;
        }
        let outcome = match outcome {
            Outcome::Absent => Outcome::Foreign,
            Outcome::NotRecorded(_) if flight.doubt.is_none() => Outcome::Foreign,
            outcome => outcome,
        };
        if matches!(outcome, Outcome::Recorded(_) | Outcome::Foreign) {
            self.disowned.remove(&id);
        }
        outcome
    }

    /// Back to its place: the queue is ordered by age, and patience is measured on the oldest.
    fn requeue(&mut self, payment: Payment) {
        let place = self.waiting.partition_point(|other| other.accepted <= payment.accepted);
        self.waiting.insert(place, payment);
    }

    fn doubt(&mut self, attempt: Attempt, before: Option<Doubt>, absent: bool, now: Moment) {
        let pause = before.map_or(DOUBT_PAUSE_MIN, |doubt| (doubt.pause * 2).min(DOUBT_PAUSE_MAX));
        let due = now + pause.mul_f32(1.0 + self.jitter() / 4.0);
        let entry = self.agenda_entry(due, Doubt { attempt, pause, absent });
        self.doubts[attempt.processor as usize].push(entry);
    }

    fn agenda_entry<T>(&mut self, due: Moment, value: T) -> Reverse<(Moment, u64, Due<T>)> {
        self.agenda_sequence += 1;
        Reverse((due, self.agenda_sequence, Due(value)))
    }

    fn learn(&mut self, flight: &Flight, outcome: Outcome, now: Moment) {
        let jitter = self.jitter();
        let index = flight.attempt.processor as usize;
        let seen = &mut self.observed[index];
        match flight.question {
            Question::Look => self.looks[index] -= 1,
            Question::Pay => seen.ended(flight.started),
        }
        let was_up = seen.state() == State::Up;
        match (flight.question, outcome) {
            (_, Outcome::NotRecorded(Refusal::TooMany { retry_after_ms })) => {
                seen.told_to_pause(Duration::from_millis(retry_after_ms), now);
            }
            (Question::Look, _) => {}
            (Question::Pay, Outcome::Recorded(_) | Outcome::Foreign) => {
                seen.recorded(flight.started, now);
            }
            // One bad payment does not take a processor down; one that rejects everything is.
            (Question::Pay, Outcome::NotRecorded(Refusal::Failing | Refusal::Rejected { .. })) => {
                seen.failed(flight.started, true, now, jitter);
            }
            (Question::Pay, Outcome::NotRecorded(Refusal::Unreachable) | Outcome::Unknown) => {
                seen.failed(flight.started, false, now, jitter);
            }
            (Question::Pay, Outcome::NotRecorded(Refusal::Unconfirmed | Refusal::Withheld))
            | (Question::Pay, Outcome::Absent) => {}
        }
        if !was_up && seen.state() == State::Up {
            // What is still in flight from before tells nothing about the processor as it is now.
            self.order[index].clear();
            let was_an_interruption = seen.up_for(now) > Duration::ZERO;
            if !was_an_interruption {
                self.observed[1 - index].hasten_probe(now);
            }
        }
    }

    /// The health endpoint of a processor has answered.
    pub fn reported(&mut self, processor: Processor, report: Report, now: Moment) {
        self.observed[processor as usize].reported(report, now);
    }

    /// Looks for stalls. Call every few milliseconds while anything is in flight.
    pub fn watch(&mut self, now: Moment) {
        // Called late, it is ourselves who stood still: answers may lie unread that are younger
        // than they look. The next call judges, late or not.
        let is_late = now.since(self.watched_at) > WATCH_LATE;
        self.watched_at = now;
        if is_late && !std::mem::replace(&mut self.was_late, true) {
            return;
        }
        self.was_late = false;
        for processor in Processor::ALL {
            // While a processor is down, its probe is watched, not what was in flight before.
            let up = self.observed(processor).state() == State::Up;
            let oldest = if up { self.oldest(processor) } else { None };
            self.observed[processor as usize].watch(oldest, now);
        }
    }

    /// Forgets every payment, and says how many that were. Requests in flight go on, but their
    /// outcomes count for nothing.
    pub fn purge(&mut self) -> usize {
        let mut forgotten = self.waiting() + self.in_doubt();
        self.waiting.clear();
        self.set_aside.clear();
        self.doubts.iter_mut().for_each(BinaryHeap::clear);
        self.disowned.clear();
        for flight in self.flights.iter_mut().flatten() {
            forgotten += usize::from(!flight.purged);
            flight.purged = true;
        }
        forgotten
    }

    /// Lets go of waiting payments that somebody else drives, and says which. What is in flight or
    /// in doubt stays until its processor says whether it is booked; it is not sent again.
    pub fn disown(&mut self, ids: &HashSet<PaymentId>) -> Vec<Payment> {
        let mut disowned = Vec::new();
        let mut keep = |payment: &Payment| {
            let is_ours = !ids.contains(&payment.id);
            if !is_ours {
                disowned.push(*payment);
            }
            is_ours
        };
        self.waiting.retain(&mut keep);
        self.set_aside.retain(|Reverse((_, _, Due(attempt)))| keep(&attempt.payment));
        for doubts in &mut self.doubts {
            let kept =
                std::mem::take(doubts).into_iter().map(|Reverse((due, order, Due(doubt)))| {
                    let is_ours = !ids.contains(&doubt.attempt.payment.id);
                    let absent = doubt.absent && is_ours;
                    Reverse((due, order, Due(Doubt { absent, ..doubt })))
                });
            *doubts = kept.collect();
        }
        let held = self.doubts.iter().flatten().map(|Reverse((_, _, Due(doubt)))| doubt.attempt);
        let sent = self.flights.iter().flatten().map(|flight| flight.attempt);
        let open = held.chain(sent).map(|attempt| attempt.payment.id);
        self.disowned.extend(open.filter(|id| ids.contains(id)));
        disowned
    }

    /// Whether somebody else drives a payment that is in flight or in doubt here.
    pub fn is_disowned(&self, id: PaymentId) -> bool {
        !self.disowned.is_empty() && self.disowned.contains(&id)
    }

    fn flight(&self, id: FlightId) -> Option<&Flight> {
        self.flights[id.slot as usize].as_ref().filter(|flight| flight.sequence == id.sequence)
    }

    fn drop_ended(&mut self, processor: Processor) {
        while let Some(id) = self.order[processor as usize].front() {
            if self.flight(*id).is_some() {
                break;
            }
            self.order[processor as usize].pop_front();
        }
    }

    /// 0..=1, from a xorshift generator: pauses need to differ, not to be unpredictable.
    fn jitter(&mut self) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 40) as f32 / (1_u32 << 24) as f32
    }
}

#[cfg(test)]
mod tests;
