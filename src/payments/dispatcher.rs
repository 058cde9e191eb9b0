//! The only driver of a payment: from the queue through its attempts to its settlement.
//!
//! Decides everything and does nothing: no sockets, no clock, no threads. The engine asks for the
//! next request to send, and says how each one ended; the rehearsal does the same in virtual time.
//! The invariant: a payment is in exactly one place, so it is never sent to two processors at once,
//! and it leaves only by being settled, rejected, or found to be somebody else's.
//!
//! | place | who waits there | until |
//! | --- | --- | --- |
//! | `lines` | free payments by age, our own and guests | the router sends them |
//! | `later` | free, but sent in vain too often to go before others | their pause is over |
//! | `refused` | free, and refused by a processor, by the one to ask next | their pause is over |
//! | `unverified` | those that may have been driven elsewhere | that processor says it has not got them |
//! | `doubts` | an attempt of unknown outcome | its processor says whether it holds it |
//! | `absent` | the same, after it said that it does not | it may be posted again there |
//! | `declined` | an attempt that was answered with 4xx, or is in doubt for long | likewise |
//! | `again` | the same, after it said that it does not, and if it may go nowhere else | likewise |
//! | `flights` | a request is under way | it has ended |

mod agenda;
mod case;

use super::observed::{Observed, Report, State};
use super::router::{Decision, Policy, Router};
use super::{
    Attempt, Outcome, Payment, PaymentId, Processor, Reach, Refusal, Rejection, Settlement,
    processor,
};
use crate::base::clock::{Moment, Timestamp};
use agenda::Agenda;
use case::{Case, Declined, Open};
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
    /// Certainly not booked: it is free to go to either processor.
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

#[derive(Clone, Copy, Debug)]
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
        let Flight { processor, requested_at, .. } = *self;
        Attempt { payment: self.case.payment, processor, requested_at }
    }

    /// The attempt that is open if the outcome of this request is not known.
    fn opened(&self) -> Open {
        let Flight { processor, requested_at, .. } = *self;
        self.open.unwrap_or(Open { processor, requested_at, pause: Duration::ZERO, declined: None })
    }
}

/// A payment with an open attempt.
type Doubt = (Case, Open);

/// A payment that another processor has to be asked about, with its attempt if it has one.
#[derive(Clone, Copy, Debug)]
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

/// The lines of free payments: those of this instance, and those of its absent peer.
const OWN: usize = 0;
const GUESTS: usize = 1;

/// The state of every payment of this instance that is accepted and not over.
pub struct Dispatcher {
    policy: Policy,
    /// There is another instance: whose a booking is shows in its milliseconds.
    paired: bool,
    reach: Reach,
    observed: [Observed; 2],
    lines: [VecDeque<Case>; 2],
    later: [Agenda<Case>; 2],
    refused: [Agenda<Case>; 2],
    unverified: [Agenda<Unverified>; 2],
    /// So many of them have an attempt.
    unverified_doubts: usize,
    doubts: [Agenda<Doubt>; 2],
    absent: [Agenda<Doubt>; 2],
    declined: [Agenda<Doubt>; 2],
    again: [Agenda<Doubt>; 2],
    /// In flight or in doubt here, and driven by somebody else: unless it turns out to be booked
    /// by us, it is not ours to pay any more.
    disowned: HashSet<PaymentId>,
    flights: Vec<Option<Flight>>,
    free_slots: Vec<u32>,
    in_flight: usize,
    /// Per processor and kind.
    looks: [[usize; 3]; 2],
    /// Flights of `Pay` in the order they were sent; ended ones are dropped when they reach the
    /// front.
    order: [VecDeque<FlightId>; 2],
    sequence: u32,
    /// Fresh payments sent since one was last sent again.
    fresh_in_a_row: u32,
    random: u64,
    watched_at: Moment,
    was_late: bool,
}

impl Dispatcher {
    /// `paired`: there is another instance. `seed` spreads the pauses of several instances; any
    /// number will do.
    pub fn new(policy: Policy, paired: bool, seed: u64) -> Dispatcher {
        let observed = Observed::new(policy.attempt_latency_max, policy.processor_concurrency);
        Dispatcher {
            policy,
            paired,
            reach: Reach::Every,
            observed: [observed.clone(), observed],
            lines: Default::default(),
            later: Default::default(),
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
            looks: Default::default(),
            order: Default::default(),
            sequence: 0,
            fresh_in_a_row: 0,
            random: seed | 1,
            watched_at: Moment::default(),
            was_late: false,
        }
    }

    /// Which processors payments of this instance may be sent to from now on.
    pub fn set_reach(&mut self, reach: Reach) {
        if std::mem::replace(&mut self.reach, reach) == reach {
            return;
        }
        for processor in Processor::ALL {
            for (due, case) in self.refused[processor as usize].take() {
                let next = case.next_to_ask(&self.policy, reach);
                self.refused[next as usize].push(due, case);
            }
            let [absent, again] = [&mut self.absent, &mut self.again];
            let postable =
                absent[processor as usize].take().chain(again[processor as usize].take());
            for (due, (case, open)) in postable {
                self.place_absent(case, open, due);
            }
        }
    }

    /// Takes over an accepted payment.
    pub fn submit(&mut self, payment: Payment) {
        let case = Case::new(payment);
        if payment.verify {
            let first = self.policy.cheaper.other();
            let (due, pause) = (payment.accepted, Duration::ZERO);
            let unverified = Unverified { case, open: None, pause, due };
            return self.unverified[first as usize].push(due, unverified);
        }
        self.requeue(case);
    }

    /// Takes over an attempt of an earlier process, whose outcome nobody knows.
    pub fn submit_doubt(&mut self, attempt: Attempt, now: Moment) {
        let Attempt { payment, processor, requested_at } = attempt;
        let open = Open { processor, requested_at, pause: Duration::ZERO, declined: None };
        self.doubt(Case::new(payment), open, now);
    }

    /// Payments waiting for an attempt.
    pub fn waiting(&self) -> usize {
        let lines = self.lines.iter().map(VecDeque::len);
        let later = self.later.iter().chain(&self.refused).map(Agenda::len);
        let unverified = self.unverified.iter().map(Agenda::len).sum::<usize>();
        lines.chain(later).sum::<usize>() + unverified - self.unverified_doubts
    }

    /// Attempts of unknown outcome that wait to be asked about.
    pub fn in_doubt(&self) -> usize {
        self.doubts().map(Agenda::len).sum::<usize>() + self.unverified_doubts
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
        self.waiting() + self.in_doubt() + self.in_flight == 0
    }

    pub fn observed(&self, processor: Processor) -> &Observed {
        &self.observed[processor as usize]
    }

    /// When the oldest `Pay` in flight at this processor went out.
    pub fn oldest(&self, processor: Processor) -> Option<Moment> {
        let order = &self.order[processor as usize];
        order.iter().find_map(|id| self.flight(*id)).map(Flight::started)
    }

    /// The next request to send, if one may be sent now. Call until it answers `None`.
    pub fn next(&mut self, now: Moment, at: Timestamp) -> Option<Start> {
        if self.fresh_in_a_row + 1 >= REPEATS_ONE_IN
            && let Some(start) = self.next_repeat(now, at)
        {
            return Some(start);
        }
        let each = Processor::ALL.into_iter();
        each.clone()
            .find_map(|processor| self.next_probe_of_doubt(processor, now))
            .or_else(|| self.next_fresh(now, at))
            .or_else(|| self.next_repeat(now, at))
            .or_else(|| each.clone().find_map(|processor| self.next_look(processor, now)))
            .or_else(|| each.clone().find_map(|it| self.next_verification(it, now)))
    }

    /// A processor that is down is probed with what may be there already: an outage puts no further
    /// payment in doubt.
    fn next_probe_of_doubt(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor as usize;
        if !self.observed[index].is_probe_due(now) {
            return None;
        }
        while let Some((due, (case, open))) = self.absent[index].pop_with_due() {
            if case.is_clear_for(processor, now) {
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
            if case.is_clear_for(processor, now) {
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

    fn router(&self, reach: Reach, may_probe: [bool; 2]) -> Router<'_> {
        Router { policy: &self.policy, observed: &self.observed, reach, may_probe }
    }

    /// The reach of one payment.
    fn reach_of(&self, case: &Case) -> Reach {
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
            a && self.is_free_of_fresh(Processor::Default),
            b && self.is_free_of_fresh(Processor::Fallback),
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
                Absent | Again => self.next_open(repeat, Processor::ALL[index], now),
                Refused => self.next_refused(Processor::ALL[index], now, at),
                Later => self.next_later(index, now, at),
            }
        })?;
        self.fresh_in_a_row = 0;
        Some(start)
    }

    /// An attempt is posted again. Its time is old already, so for an audit it makes no difference
    /// how slow the answer is.
    fn next_open(&mut self, which: Repeat, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor as usize;
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
            if case.is_clear_for(processor, now) {
                return Some(self.start(Flight::about(case, open, None, now)));
            }
            self.unverify(case, Some(open), processor.other(), (due, now));
        }
    }

    /// A payment that was refused, offered to the processor whose turn it is.
    fn next_refused(&mut self, processor: Processor, now: Moment, at: Timestamp) -> Option<Start> {
        let index = processor as usize;
        loop {
            let may_probe = self.may_probe_again();
            let is_last_resort = may_probe[index] && self.observed[index].is_last_resort_due(now);
            let router = self.router(self.reach, may_probe);
            let can_take = router.can_take(processor, now) || is_last_resort;
            if !can_take || !self.refused[index].is_due(now) {
                return None;
            }
            let (due, case) = self.refused[index].pop_with_due()?;
            if case.is_clear_for(processor, now) {
                return Some(self.start_new(case, processor, now, at));
            }
            self.unverify(case, None, processor.other(), (due, now));
        }
    }

    /// A payment that was sent in vain too often.
    fn next_later(&mut self, line: usize, now: Moment, at: Timestamp) -> Option<Start> {
        loop {
            let (_, case) = self.later[line].peek().filter(|(due, _)| *due <= now)?;
            let router = self.router(self.reach_of(case), self.may_probe_again());
            let waited = now.since(case.payment.accepted);
            let Decision::Send(processor) = router.choose(waited, 1, now) else { return None };
            let (due, case) = self.later[line].pop_with_due()?;
            if case.is_clear_for(processor, now) {
                return Some(self.start_new(case, processor, now, at));
            }
            self.unverify(case, None, processor.other(), (due, now));
        }
    }

    fn next_look(&mut self, processor: Processor, now: Moment) -> Option<Start> {
        let index = processor as usize;
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
        let index = processor as usize;
        let may_look = self.observed[index].is_admitting(now)
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
        let index = flight.processor as usize;
        let question = match flight.look {
            Some(look) => {
                self.looks[index][look as usize] += 1;
                Question::Look
            }
            None => {
                self.observed[index].started(flight.begun);
                Question::Pay
            }
        };
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
            let (index, begun) = (flight.processor as usize, flight.begun);
            self.observed[index].sent(begun, now);
            self.order[index].push_back(id);
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
        self.drop_ended(flight.processor);
        self.learn(&flight, outcome, now);
        if flight.purged {
            return End::Purged;
        }
        let Flight { processor, mut case, .. } = flight;
        match self.unless_disowned(&flight, outcome) {
            Outcome::Recorded(requested_at) => {
                let amount = case.payment.amount;
                End::Settled(Settlement { processor, amount, requested_at })
            }
            Outcome::Foreign => End::Foreign,
            Outcome::OtherAmount => End::Rejected(case.held_under_another_amount(processor)),
            outcome => match (flight.look, flight.open) {
                (None, _) => self.after_pay(flight, outcome, now),
                (Some(Look::Doubt | Look::Decline), Some(open)) => {
                    self.after_look(case, open, flight.started(), outcome, now)
                }
                (Some(_), _) => self.after_verification(flight, outcome, now),
            },
        }
    }

    /// A request to book it was not answered with a booking.
    fn after_pay(&mut self, flight: Flight, outcome: Outcome, now: Moment) -> End {
        let mut case = flight.case;
        let was_sent = outcome != Outcome::NotRecorded(Refusal::Withheld);
        case.tries = case.tries.saturating_add(u8::from(was_sent));
        let mut open = flight.opened();
        open.declined = None;
        match outcome {
            Outcome::NotRecorded(_) if flight.open.is_none() => {
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
                self.declined[open.processor as usize].push(due, (case, open));
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
                        self.declined[open.processor as usize].push(due, (case, open));
                    }
                    None => {
                        let declined = *declined;
                        return self.refuse(case, open, declined, now);
                    }
                }
            }
            Some(_) => {
                let due = self.lengthen(&mut open.pause, now);
                self.declined[open.processor as usize].push(due, (case, open));
            }
        }
        End::InDoubt
    }

    /// The processor has refused it, and means it.
    fn refuse(&mut self, mut case: Case, mut open: Open, declined: Declined, now: Moment) -> End {
        case.refused_by(open.processor, declined.status);
        let may_go = |it: Processor| case.may_go_to(it, &self.policy, self.reach);
        let is_over = Processor::ALL
            .into_iter()
            .filter(|it| if declined.is_only { may_go(*it) } else { *it == open.processor })
            .all(|it| case.has_enough_of(it));
        if is_over {
            return End::Rejected(case.rejection());
        }
        let due = self.due_after(REFUSED_PAUSE_MIN, REFUSED_PAUSE_MAX, case.refusals() - 1, now);
        if declined.is_only {
            let next = case.next_to_ask(&self.policy, self.reach);
            self.refused[next as usize].push(due, case);
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
            case.is_absent_from(processor, now);
        }
        match open {
            Some(open) if is_absent => self.place_absent(case, open, turn),
            None if is_absent => self.place_free(case, turn),
            _ => {
                let asked = match open {
                    Some(open) => open.processor.other(),
                    None => self.likely_target(&case, now).other(),
                };
                let due = self.lengthen(&mut pause, now);
                self.unverified_doubts += usize::from(open.is_some());
                self.unverified[asked as usize]
                    .push(due, Unverified { case, open, pause, due: turn });
            }
        }
        if open.is_some() { End::InDoubt } else { End::Kept }
    }

    /// Where it would go now.
    fn likely_target(&self, case: &Case, now: Moment) -> Processor {
        if case.is_refused() {
            return case.next_to_ask(&self.policy, self.reach);
        }
        let router = self.router(self.reach_of(case), [true; 2]);
        match router.choose(now.since(case.payment.accepted), 1, now) {
            Decision::Send(processor) => processor,
            Decision::Wait => self.policy.cheaper,
        }
    }

    /// This processor has to be asked about it before it goes on. Its turn came when it was `due`.
    fn unverify(
        &mut self,
        case: Case,
        open: Option<Open>,
        asked: Processor,
        (due, now): (Moment, Moment),
    ) {
        self.unverified_doubts += usize::from(open.is_some());
        let unverified = Unverified { case, open, pause: Duration::ZERO, due };
        self.unverified[asked as usize].push(now, unverified);
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

    fn place_later(&mut self, case: Case, due: Moment) {
        if case.is_refused() {
            let next = case.next_to_ask(&self.policy, self.reach);
            self.refused[next as usize].push(due, case);
        } else {
            self.later[usize::from(case.payment.guest)].push(due, case);
        }
    }

    /// To its place by age: the lines are ordered so, and patience is measured on the oldest.
    fn requeue(&mut self, case: Case) {
        let line = &mut self.lines[usize::from(case.payment.guest)];
        let accepted = case.payment.accepted;
        if line.back().is_none_or(|last| last.payment.accepted <= accepted) {
            return line.push_back(case);
        }
        let place = line.partition_point(|other| other.payment.accepted <= accepted);
        line.insert(place, case);
    }

    /// Its processor will be asked about it.
    fn doubt(&mut self, case: Case, mut open: Open, now: Moment) {
        let due = self.lengthen(&mut open.pause, now);
        let place = match is_probe(&case, &open) {
            true => &mut self.doubts,
            false => &mut self.declined,
        };
        place[open.processor as usize].push(due, (case, open));
    }

    /// Its processor does not hold it (yet): it may be posted again there, unless no payment may go
    /// there now. Then it can only turn up.
    fn place_absent(&mut self, case: Case, open: Open, due: Moment) {
        if !case.may_go_to(open.processor, &self.policy, self.reach) {
            return self.doubt(case, open, due);
        }
        let place = match is_probe(&case, &open) {
            true => &mut self.absent,
            false => &mut self.again,
        };
        place[open.processor as usize].push(due, (case, open));
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
            Outcome::Absent if !is_verifying => Outcome::Foreign,
            Outcome::NotRecorded(_) if flight.open.is_none() => Outcome::Foreign,
            outcome => outcome,
        };
        if matches!(outcome, Outcome::Recorded(_) | Outcome::Foreign | Outcome::OtherAmount) {
            self.disowned.remove(&id);
        }
        outcome
    }

    fn learn(&mut self, flight: &Flight, outcome: Outcome, now: Moment) {
        let jitter = self.jitter();
        let (index, started) = (flight.processor as usize, flight.started());
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
        self.lines.iter_mut().for_each(VecDeque::clear);
        self.later.iter_mut().chain(&mut self.refused).for_each(Agenda::clear);
        self.unverified.iter_mut().for_each(Agenda::clear);
        self.unverified_doubts = 0;
        for places in [&mut self.doubts, &mut self.absent, &mut self.declined, &mut self.again] {
            places.iter_mut().for_each(Agenda::clear);
        }
        self.disowned.clear();
        for flight in self.flights.iter_mut().flatten() {
            forgotten += usize::from(!flight.purged);
            flight.purged = true;
        }
        forgotten
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
        self.lines.iter_mut().for_each(|line| line.retain(&mut keep));
        for agenda in self.later.iter_mut().chain(&mut self.refused) {
            agenda
                .take()
                .filter(|(_, case)| keep(case))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|(due, case)| agenda.push(due, case));
        }
        for index in 0..2 {
            for (due, it) in self.unverified[index].take() {
                match it.open {
                    None if !keep(&it.case) => {}
                    Some(open) if ids.contains(&it.case.payment.id) => {
                        self.unverified_doubts -= 1;
                        self.doubts[open.processor as usize].push(due, (it.case, open));
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
