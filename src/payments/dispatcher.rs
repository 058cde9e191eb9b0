//! The only driver of a payment: from the queue through its attempts to its settlement.
//!
//! Decides everything and does nothing: no sockets, no clock, no threads. The engine asks for the
//! next request to send, and says how each one ended; the rehearsal does the same in virtual time.
//! The invariant: a payment is in exactly one place, so it is never sent to two processors at once,
//! and it leaves only by being settled, rejected, or found to be somebody else's.
//!
//! | place | who waits there | until |
//! | --- | --- | --- |
//! | `lines` | free payments by age, in a line those that may go to the same processors | the router sends them |
//! | their `later` | free, but sent in vain too often to go before others | their pause is over |
//! | `refused` | free, and refused by a processor, by the one to ask next | their pause is over |
//! | `unverified` | those that may have been driven elsewhere | that processor says it has not got them |
//! | `doubts` | an attempt of unknown outcome | its processor says whether it holds it |
//! | `absent` | the same, after it said that it does not | it may be posted again there |
//! | `declined` | an attempt that was answered with 4xx, or is in doubt for long | likewise |
//! | `again` | the same, after it said that it does not, and if it may go nowhere else | likewise |
//! | `flights` | a request is under way | it has ended |

mod agenda;
mod by_hand;
mod case;
mod changed;
mod ended;
mod lines;
mod next;

use super::budget::Budget;
use super::observed::{Observed, Report, State};
use super::router::{Decision, Policy, Router};
use super::terms::Offers;
use super::{
    Attempt, Each, Outcome, Payment, PaymentId, Processor, Reach, Refusal, Rejection, Settlement,
    processor,
};
use crate::base::clock::{Moment, Timestamp};
use crate::base::limits::PAST_KNOWN_WITHIN;
use agenda::Agenda;
pub use by_hand::Held;
use case::{Case, Declined, Open};
use lines::Lines;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// The pause before an attempt of unknown outcome is asked about, doubled each time. The same goes
/// for the question whether another processor holds a payment.
const DOUBT_PAUSE_MIN: Duration = Duration::from_millis(50);
const DOUBT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// At most so many looks of one kind at once at one processor: they answer at once, so few are
/// enough.
pub const LOOKS_MAX: usize = 16;
/// How often [`Dispatcher::watch`] wants to be called, and when a call counts as late.
pub const WATCH_EVERY: Duration = Duration::from_millis(10);
const WATCH_LATE: Duration = Duration::from_millis(20);
/// So often a payment is sent in vain as if nothing had happened: most failures are of a processor
/// and not of a payment. After that it waits, twice as long each time.
const TRIES_AT_ONCE: u8 = 3;
const TRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const TRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause before a payment is sent again after a refusal, doubled at each.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(1);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause before a payment is looked at again for which no processor has money left today.
const SPENT_PAUSE: Duration = Duration::from_secs(1);
/// A processor that has attempts of unknown outcome is probed with those, so that an outage puts no
/// others in doubt; but with each only so often: it may be that payment that it cannot deal with.
const PROBES_WITH_ONE_MAX: u8 = 32;
/// Of so many attempts at least one is a repeated one, if any is due: fresh payments come first,
/// but not for ever.
const REPEATS_ONE_IN: u32 = 16;

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
    /// Certainly not booked: it is free to go to any processor.
    Released,
    /// Nobody knows yet: this processor will be asked.
    InDoubt,
    /// It was free before, and still is: only a question was asked.
    Kept,
    /// No processor that it may go to will take it: it is over, written down, and for people to
    /// decide about.
    Rejected(Rejection),
    /// The payment was purged meanwhile.
    Purged,
}

impl End {
    /// Nothing more is to be done for the payment.
    pub fn is_over(self) -> bool {
        matches!(self, End::Settled(_) | End::Foreign | End::Rejected(_))
    }
}

/// Why a processor is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// What came of an attempt?
    Doubt,
    /// It has answered 4xx: does it stay with that?
    Decline,
    /// Has somebody else paid it there?
    Verify,
}

#[derive(Clone, Debug)]
struct Flight {
    sequence: u32,
    /// The processor that is asked.
    processor: Processor,
    requested_at: Timestamp,
    case: Case,
    /// `None`: a request to book it.
    look: Option<Look>,
    /// The attempt whose outcome was open before this request.
    open: Option<Open>,
    /// Of a [`Look::Verify`]: the pause before it, and when the turn of the payment came.
    pause: Duration,
    due: Moment,
    begun: Moment,
    sent: Option<Moment>,
    purged: bool,
}

impl Flight {
    /// The first request of an attempt.
    fn new(case: Case, processor: Processor, requested_at: Timestamp, now: Moment) -> Flight {
        Flight {
            sequence: 0,
            processor,
            requested_at,
            case,
            look: None,
            open: None,
            pause: Duration::ZERO,
            due: now,
            begun: now,
            sent: None,
            purged: false,
        }
    }

    /// A further request about an open attempt.
    fn about(case: Case, open: Open, look: Option<Look>, now: Moment) -> Flight {
        let Open { processor, requested_at, .. } = open;
        Flight { look, open: Some(open), ..Flight::new(case, processor, requested_at, now) }
    }

    /// Since when its processor is measured.
    fn started(&self) -> Moment {
        self.sent.unwrap_or(self.begun)
    }

    fn attempt(&self) -> Attempt {
        let Flight { processor, requested_at, .. } = self;
        let (processor, requested_at) = (*processor, *requested_at);
        Attempt { payment: self.case.payment, processor, requested_at }
    }

    /// The attempt that is open if the outcome of this request is not known.
    fn opened(&self) -> Open {
        let (processor, requested_at) = (self.processor, self.requested_at);
        let posted_at = self.started();
        let new =
            Open { processor, requested_at, posted_at, pause: Duration::ZERO, declined: None };
        let open = self.open.unwrap_or(new);
        if self.look.is_none() { Open { posted_at, ..open } } else { open }
    }
}

/// A payment with an open attempt.
type Doubt = (Case, Open);

/// A payment that another processor has to be asked about, with its attempt if it has one.
#[derive(Clone, Debug)]
struct Unverified {
    case: Case,
    open: Option<Open>,
    pause: Duration,
    /// When its turn came: it keeps its place.
    due: Moment,
}

/// Whether its processor, if it is down, is probed with this attempt before any other payment. Not
/// if it has answered it with a refusal.
fn is_probe(case: &Case, open: &Open) -> bool {
    open.declined.is_none() && case.tries < PROBES_WITH_ONE_MAX
}

/// The places of what was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Repeat {
    Absent,
    Again,
    Refused,
    Later,
}

/// Such a place, of a processor or a line, and since when something is due in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    due: Moment,
    repeat: Repeat,
    index: usize,
}

/// The state of every payment of this instance that is accepted and not over.
pub struct Dispatcher {
    policy: Policy,
    /// There is another instance: whose a booking is shows in its milliseconds.
    paired: bool,
    reach: Reach,
    /// Every payment is one to verify, and since when that counts.
    verifies_all: bool,
    verifies_from: Moment,
    observed: Each<Observed>,
    budgets: Each<Budget>,
    lines: Lines,
    refused: Each<Agenda<Case>>,
    unverified: Each<Agenda<Unverified>>,
    /// So many of them have an attempt.
    unverified_doubts: usize,
    doubts: Each<Agenda<Doubt>>,
    absent: Each<Agenda<Doubt>>,
    declined: Each<Agenda<Doubt>>,
    again: Each<Agenda<Doubt>>,
    /// In flight or in doubt here, and driven by somebody else: unless it turns out to be booked
    /// by us, it is not ours to pay any more.
    disowned: HashSet<PaymentId>,
    flights: Vec<Option<Flight>>,
    free_slots: Vec<u32>,
    in_flight: usize,
    /// Attempts of an earlier process whose outcome is not known yet, and how long that is waited for.
    unknown: HashSet<PaymentId>,
    past_known_by: Moment,
    /// Per processor and kind.
    looks: Each<[usize; 3]>,
    /// Payments that are here and not over, wherever they wait.
    held: usize,
    /// Flights of `Pay` in the order they were sent; ended ones are dropped when they reach the
    /// front.
    order: Each<VecDeque<FlightId>>,
    sequence: u32,
    /// Fresh payments sent since one was last sent again.
    fresh_in_a_row: u32,
    /// Kept for its room.
    turns: Vec<Turn>,
    random: u64,
    watched_at: Moment,
    was_late: bool,
}

impl Dispatcher {
    /// `paired`: there is another instance. `seed` spreads the pauses of several instances; any
    /// number will do.
    pub fn new(policy: Policy, paired: bool, seed: u64) -> Dispatcher {
        let of = |index: usize| policy.offers.limits(index);
        let observed =
            |index| Observed::new(policy.attempt_latency_max, of(index).concurrency as usize);
        Dispatcher {
            policy,
            paired,
            reach: Reach::Every,
            verifies_all: false,
            verifies_from: Moment::default(),
            observed: std::array::from_fn(observed),
            budgets: std::array::from_fn(|index| Budget::new(&of(index))),
            lines: Lines::default(),
            refused: Default::default(),
            unverified: Default::default(),
            unverified_doubts: 0,
            doubts: Default::default(),
            absent: Default::default(),
            declined: Default::default(),
            again: Default::default(),
            disowned: HashSet::new(),
            flights: Vec::new(),
            free_slots: Vec::new(),
            in_flight: 0,
            unknown: HashSet::new(),
            past_known_by: Moment::default(),
            looks: Default::default(),
            held: 0,
            order: Default::default(),
            sequence: 0,
            fresh_in_a_row: 0,
            turns: Vec::new(),
            random: seed | 1,
            watched_at: Moment::default(),
            was_late: false,
        }
    }

    /// Whether from now on any payment may have been driven by somebody who has forgotten it, as those
    /// may that say so themselves ([`Payment::verify`]). He may have died a moment ago: until all
    /// that he sent is booked, or never will be, no processor can say that it does not hold one.
    pub fn set_verifying(&mut self, all: bool, now: Moment) {
        if all && !std::mem::replace(&mut self.verifies_all, all) {
            self.verifies_from = now + self.policy.books_within;
        }
        self.verifies_all = all;
    }

    /// Whether no processor is asked yet, see [`Dispatcher::set_verifying`].
    pub fn holds_back(&self, now: Moment) -> bool {
        now < self.verifies_from
    }

    /// Who has to say that he does not hold it before it is paid at this processor; `None`: nobody else
    /// can have paid it anywhere.
    fn next_to_verify(&self, case: &Case, target: Processor, now: Moment) -> Option<Processor> {
        let is_to_verify = self.verifies_all || case.payment.verify;
        is_to_verify.then(|| case.next_to_verify(target, &self.policy.offers, now))?
    }

    /// Takes over an accepted payment.
    pub fn submit(&mut self, payment: Payment) {
        self.held += 1;
        let case = Case::new(payment);
        let target = self.policy.offers.cheapest(payment.amount);
        let first = target
            .and_then(|target| case.next_to_verify(target, &self.policy.offers, payment.accepted));
        match first.filter(|_| payment.verify) {
            Some(first) => {
                let (due, pause) = (payment.accepted, Duration::ZERO);
                let unverified = Unverified { case, open: None, pause, due };
                self.unverified[first.index()].push(due, unverified);
            }
            None => self.requeue(case),
        }
    }

    /// Takes over an attempt of an earlier process, whose outcome nobody knows. It is asked about at
    /// once: its processor may have answered long ago.
    pub fn submit_doubt(&mut self, attempt: Attempt, now: Moment) {
        self.held += 1;
        self.unknown.insert(attempt.payment.id);
        self.past_known_by = now + PAST_KNOWN_WITHIN;
        let Attempt { payment, processor, requested_at } = attempt;
        // When it was posted is not known any more, but before now it was.
        let (pause, posted_at) = (Duration::ZERO, now);
        let open = Open { processor, requested_at, posted_at, pause, declined: None };
        self.doubts[processor.index()].push(now, (Case::new(payment), open));
    }

    /// Whether an earlier process may have settled what nobody has counted yet: until it is known what
    /// became of each attempt that it left open, or for [`PAST_KNOWN_WITHIN`]. That a processor does
    /// not hold one is not enough: it may book it a moment later. Totals that were told meanwhile
    /// would be wrong.
    pub fn is_unsure(&self, now: Moment) -> bool {
        !self.unknown.is_empty() && now < self.past_known_by
    }

    /// Payments waiting for an attempt.
    pub fn waiting(&self) -> usize {
        let refused = self.refused.iter().map(Agenda::len).sum::<usize>();
        let unverified = self.unverified.iter().map(Agenda::len).sum::<usize>();
        self.lines.len() + refused + unverified - self.unverified_doubts
    }

    /// Attempts of unknown outcome that wait to be asked about.
    pub fn in_doubt(&self) -> usize {
        self.doubts().map(Agenda::len).sum::<usize>() + self.unverified_doubts
    }

    /// Of these, those that wait to be asked about at this processor; not those for which another
    /// one has to be asked first.
    pub fn in_doubt_at(&self, processor: Processor) -> usize {
        let index = processor.index();
        let all =
            [&self.doubts[index], &self.absent[index], &self.declined[index], &self.again[index]];
        all.into_iter().map(Agenda::len).sum()
    }

    /// How many attempts have been open for longer than each of these, since the time that they have
    /// at their processor: those in doubt, those asked about just now, and those in flight. Goes
    /// through all of them.
    pub fn open_longer_than<const N: usize>(
        &self,
        ages: [Duration; N],
        at: Timestamp,
    ) -> [usize; N] {
        let doubts = self.doubts().flat_map(Agenda::iter).map(|(_, open)| Some(open.requested_at));
        let unverified = self.unverified.iter().flat_map(Agenda::iter);
        let unverified = unverified.map(|it| it.open.map(|open| open.requested_at));
        let flights = self.flights.iter().flatten().filter(|flight| !flight.purged);
        let flights = flights.map(|flight| match (flight.open, flight.look) {
            (Some(open), _) => Some(open.requested_at),
            (None, None) => Some(flight.requested_at),
            (None, Some(_)) => None,
        });
        let mut counts = [0; N];
        for since in doubts.chain(unverified).chain(flights).flatten() {
            let open_ms = i128::from(at.0) - i128::from(since.0);
            for (count, age) in counts.iter_mut().zip(ages) {
                *count += usize::from(open_ms > age.as_millis() as i128);
            }
        }
        counts
    }

    fn doubts(&self) -> impl Iterator<Item = &Agenda<Doubt>> {
        self.doubts.iter().chain(&self.absent).chain(&self.declined).chain(&self.again)
    }

    /// Requests sent and not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.held + self.in_flight == 0
    }

    pub fn observed(&self, processor: Processor) -> &Observed {
        &self.observed[processor.index()]
    }

    /// When the oldest `Pay` in flight at this processor went out.
    pub fn oldest(&self, processor: Processor) -> Option<Moment> {
        let order = &self.order[processor.index()];
        order.iter().find_map(|id| self.flight(*id)).map(Flight::started)
    }

    fn start_new(&mut self, case: Case, processor: Processor, now: Moment, at: Timestamp) -> Start {
        let requested_at = processor::requested_at(&case.payment, at, self.paired);
        self.start(Flight::new(case, processor, requested_at, now))
    }

    fn start(&mut self, mut flight: Flight) -> Start {
        self.sequence = self.sequence.wrapping_add(1);
        flight.sequence = self.sequence;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.flights.push(None);
            (self.flights.len() - 1) as u32
        });
        let index = flight.processor.index();
        let question = match flight.look {
            Some(look) => {
                self.looks[index][look as usize] += 1;
                Question::Look
            }
            None => {
                self.observed[index].started(flight.begun);
                flight.case.is_posted_to(flight.processor);
                if flight.open.is_none() {
                    let cents = flight.case.payment.amount.0.into();
                    self.budgets[index].spend(cents, flight.requested_at);
                }
                Question::Pay
            }
        };
        self.budgets[index].used(question == Question::Look, flight.begun);
        let (attempt, sequence) = (flight.attempt(), flight.sequence);
        self.flights[slot as usize] = Some(flight);
        self.in_flight += 1;
        Start { flight: FlightId { slot, sequence }, attempt, question }
    }

    /// The first byte of a request is about to go out. From here on its processor is measured: what
    /// passed since it was decided on was ours.
    pub fn sent(&mut self, id: FlightId, now: Moment) {
        let Some(slot) = self.flights.get_mut(id.slot as usize) else { return };
        let Some(flight) = slot.as_mut().filter(|it| it.sequence == id.sequence) else { return };
        flight.sent = Some(now);
        if flight.look.is_none() {
            let (index, begun) = (flight.processor.index(), flight.begun);
            self.observed[index].sent(begun, now);
            self.order[index].push_back(id);
        }
    }

    /// What may be, or is, booked at this processor under a time of today by the processes before.
    pub fn has_spent(&mut self, processor: Processor, cents: i128, at: Timestamp) {
        self.budgets[processor.index()].spend(cents, at);
    }

    /// The health endpoint of a processor has answered.
    pub fn reported(&mut self, processor: Processor, report: Report, now: Moment) {
        self.observed[processor.index()].reported(report, now);
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
        for processor in self.policy.offers.processors() {
            // While a processor is down, its probe is watched, not what was in flight before.
            let up = self.observed(processor).state() == State::Up;
            let oldest = if up { self.oldest(processor) } else { None };
            self.observed[processor.index()].watch(oldest, now);
        }
    }

    /// Forgets every payment, and says how many that were. Requests in flight go on, but their
    /// outcomes count for nothing.
    pub fn purge(&mut self) -> usize {
        self.lines.clear();
        self.refused.iter_mut().for_each(Agenda::clear);
        self.unverified.iter_mut().for_each(Agenda::clear);
        self.unverified_doubts = 0;
        for places in [&mut self.doubts, &mut self.absent, &mut self.declined, &mut self.again] {
            places.iter_mut().for_each(Agenda::clear);
        }
        self.disowned.clear();
        self.unknown.clear();
        for flight in self.flights.iter_mut().flatten() {
            flight.purged = true;
        }
        std::mem::take(&mut self.held)
    }

    /// Lets go of free payments that somebody else drives, and says which. What is in flight or in
    /// doubt stays until its processor says whether it is booked; it is not sent again.
    pub fn disown(&mut self, ids: &HashSet<PaymentId>) -> Vec<Payment> {
        let mut disowned = Vec::new();
        let mut keep = |case: &Case| {
            let is_ours = !ids.contains(&case.payment.id);
            if !is_ours {
                disowned.push(case.payment);
            }
            is_ours
        };
        self.lines.retain(&mut keep);
        for agenda in &mut self.refused {
            agenda
                .take()
                .filter(|(_, case)| keep(case))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|(due, case)| agenda.push(due, case));
        }
        for index in 0..Processor::MAX {
            for (due, it) in self.unverified[index].take() {
                match it.open {
                    None if !keep(&it.case) => {}
                    Some(open) if ids.contains(&it.case.payment.id) => {
                        self.unverified_doubts -= 1;
                        self.doubts[open.processor.index()].push(due, (it.case, open));
                    }
                    _ => self.unverified[index].push(due, it),
                }
            }
            for place in [&mut self.absent[index], &mut self.again[index]] {
                for (due, (case, open)) in place.take() {
                    let is_ours = !ids.contains(&case.payment.id);
                    let place = if is_ours { &mut *place } else { &mut self.doubts[index] };
                    place.push(due, (case, open));
                }
            }
        }
        let held = self.doubts().flat_map(Agenda::iter).map(|(case, _)| case.payment.id);
        let sent = self.flights.iter().flatten().map(|flight| flight.case.payment.id);
        let open: Vec<PaymentId> = held.chain(sent).filter(|id| ids.contains(id)).collect();
        self.disowned.extend(open);
        self.held -= disowned.len();
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
        while let Some(id) = self.order[processor.index()].front() {
            if self.flight(*id).is_some() {
                break;
            }
            self.order[processor.index()].pop_front();
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
