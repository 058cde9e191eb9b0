//! One run in virtual time: the load, the instances with a dispatcher each, the model processors, the
//! audits of the contest. An event heap, no clock, no sockets, no threads.
//!
//! The instances' engine is as thin as the real one: it asks its dispatcher for the next request
//! after every event, calls `watch` every 10 ms, and gives a request up when its time is over (10 s),
//! while the processor goes on with it.

use super::model::{Arrival, Health, Model, Nature};
use super::tables::{Hindsight, Random, Table};
use crate::base::clock::{Moment, Timestamp};
use crate::base::histogram::Histogram;
use crate::base::money::{Cents, Total};
use crate::payments::dispatcher::{Dispatcher, End, Question, Start, WATCH_EVERY};
use crate::payments::observed::Report;
use crate::payments::router::Policy;
use crate::payments::terms::Order;
use crate::payments::{Each, Outcome, Payment, PaymentId, Processor, Totals};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::AddAssign;
use std::time::Duration;

const MS: u64 = 1_000;
const WATCH_EVERY_US: u64 = WATCH_EVERY.as_micros() as u64;
const AUDIT_EVERY_US: u64 = 10_000 * MS;
const AUDIT_WINDOW_MS: i64 = 15_000;
const HEALTH_EVERY_US: u64 = 5_005 * MS;
/// An instance is held up (by its host, its quota, its disk) about once in so long …
const HICCUP_EVERY_US: u64 = 3_000 * MS;
/// … for so long.
const HICCUP_US: (u64, u64) = (10 * MS, 50 * MS);
/// What the wall clock shows at the start.
const START_MS: i64 = 1_750_000_000_000;

/// Who plays: so many instances, by this policy, and the processors, which have the numbers from 0 on in
/// its offers.
#[derive(Clone, Debug)]
pub struct Cast {
    pub instances: usize,
    pub policy: Policy,
    pub natures: Vec<Nature>,
}

impl Cast {
    /// Two instances and the contest's two processors.
    pub fn contest(policy: Policy) -> Cast {
        Cast { instances: 2, policy, natures: vec![Nature::CONTEST; 2] }
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Played {
    pub accepted: Totals,
    /// Payments of an amount that no processor takes: they were not accepted.
    pub untaken: u64,
    /// What the processors hold when the totals are read.
    pub held: Each<Totals>,
    /// The smallest and the largest amount that each of them holds.
    pub bounds: Each<Option<(Cents, Cents)>>,
    pub costs: Costs,
    pub best: Hindsight,
    /// Accepted payments that no processor holds when the totals are read.
    pub unbooked: u64,
    /// From acceptance to booking: so many microseconds or a little less, and how many payments.
    pub booked_after: Vec<(u64, u64)>,
    /// Booked attempts whose round trip was longer than an audit forgives.
    pub at_risk: u64,
    pub audits_differing: u64,
    /// Payments that two processors hold. Must be 0.
    pub duplicates: u64,
}

/// The fees on all that is held, in millionths of a cent, and what they would be if it had gone elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    pub paid: i128,
    /// Everything at the cheapest that takes it, whatever it waits: nobody pays less.
    pub cheapest: i128,
    /// As hindsight does it that sends a payment the moment it is accepted.
    pub at_once: i128,
    pub dearest: i128,
}

impl Played {
    /// Accepted payments that are not held at the end although hindsight could have booked them.
    pub fn lag(&self) -> u64 {
        let count = |all: &Each<Totals>| all.iter().map(|it| it.count).sum::<u64>();
        count(&self.best.waiting).saturating_sub(count(&self.held))
    }

    /// A processor holds a payment of this amount.
    fn holds(&mut self, processor: Processor, amount: Cents) {
        let index = processor.index();
        self.held[index] += Totals { count: 1, amount: Total(amount.0.into()) };
        let (least, most) = self.bounds[index].unwrap_or((amount, amount));
        self.bounds[index] = Some((least.min(amount), most.max(amount)));
    }
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Costs) {
        self.paid += other.paid;
        self.cheapest += other.cheapest;
        self.at_once += other.at_once;
        self.dearest += other.dearest;
    }
}

/// Everything that can happen. The numbers are indices: of an instance, a processor, a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Stage { stage: usize, processor: usize },
    Post,
    Accept { instance: usize },
    Arrive { request: u32 },
    DelayOver { request: u32 },
    DatabaseDone { request: u32 },
    Answer { request: u32 },
    Tick { instance: usize },
    Hiccup { instance: usize },
    HealthAsked { processor: usize },
    Health { instance: usize, processor: usize, failing: bool, response_min: Duration },
    Audit,
    AuditAsks { instance: usize, audit: usize },
}

impl Event {
    /// The instance that has to be running for this event to be noticed.
    fn instance(&self, requests: &[Request]) -> Option<usize> {
        match *self {
            Event::Accept { instance }
            | Event::Tick { instance }
            | Event::Health { instance, .. }
            | Event::AuditAsks { instance, .. } => Some(instance),
            Event::Answer { request } => Some(requests[request as usize].instance),
            _ => None,
        }
    }
}

struct Instance {
    dispatcher: Dispatcher,
    busy_until_us: u64,
    /// Requests by when their time is over.
    sent: BinaryHeap<Reverse<(u64, u32)>>,
}

struct Request {
    instance: usize,
    start: Start,
    outcome: Outcome,
    is_open: bool,
}

/// One payment, from above.
struct Entry {
    amount: Cents,
    accepted_us: u64,
    instance: usize,
    /// Per processor: under which time it is booked, and when it was.
    booked: Each<Option<(Timestamp, u64)>>,
    /// When its instance knew.
    known_us: u64,
}

/// When each party of an audit looked at its books.
struct Audit {
    at_us: u64,
    processors_us: Vec<u64>,
    instances_us: Vec<u64>,
}

pub struct Play<'a> {
    table: &'a Table,
    cast: &'a Cast,
    random: Random,
    /// For amounts alone: those of a run are the same whatever the policy.
    amounts: Random,
    now_us: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    event_sequence: u64,
    instances: Vec<Instance>,
    processors: Vec<Model>,
    requests: Vec<Request>,
    entries: Vec<Entry>,
    untaken: u64,
    audits: Vec<Audit>,
}

/// Plays a table.
///
/// # Panics
/// If an instance settles a payment that no processor holds, or under another time, or sends one where
/// its amount is not taken: then the dispatcher is wrong, and no table of results means anything.
pub fn play(table: &Table, cast: &Cast, seed: u64) -> Played {
    let mut play = Play::new(table, cast, seed);
    let end_us = table.end_ms() * MS;
    while let Some(Reverse((at_us, _, event))) = play.events.pop() {
        if at_us > end_us {
            break;
        }
        play.now_us = at_us;
        play.happen(event);
    }
    play.result(end_us)
}

impl<'a> Play<'a> {
    fn new(table: &'a Table, cast: &'a Cast, seed: u64) -> Play<'a> {
        let mut random = Random::new(seed);
        let is_pair = cast.instances > 1;
        let instance = |_| Instance {
            dispatcher: Dispatcher::new(cast.policy, is_pair, random.next()),
            busy_until_us: 0,
            sent: BinaryHeap::new(),
        };
        let instances = (0..cast.instances).map(instance).collect();
        let mut play = Play {
            table,
            cast,
            random,
            amounts: Random::new(!seed),
            now_us: 0,
            events: BinaryHeap::new(),
            event_sequence: 0,
            instances,
            processors: cast.natures.iter().map(|it| Model::new(*it)).collect(),
            requests: Vec::new(),
            entries: Vec::new(),
            untaken: 0,
            audits: Vec::new(),
        };
        play.schedule();
        play
    }

    /// Everything that does not follow from something else.
    fn schedule(&mut self) {
        for (stage, settings) in self.table.stages.iter().enumerate() {
            for processor in 0..self.processors.len() {
                let noise_us = self.random.between(0, 8 * MS);
                self.at(settings.at_ms * MS + noise_us, Event::Stage { stage, processor });
            }
        }
        let users = self.table.users_max;
        for user in 0..users {
            let noise_us = self.random.between(0, 500);
            self.at(user * self.table.duration_ms * MS / users + noise_us, Event::Post);
        }
        for index in 0..self.instances.len().max(self.processors.len()) {
            if index < self.instances.len() {
                let phase_us = self.random.between(0, WATCH_EVERY_US);
                self.at(phase_us, Event::Tick { instance: index });
                let hiccup_us = self.random.between(0, 2 * HICCUP_EVERY_US);
                self.at(hiccup_us, Event::Hiccup { instance: index });
            }
            let is_asked = |it: &Nature| it.health != Health::Unasked;
            if self.cast.natures.get(index).is_some_and(is_asked) {
                let phase_us = self.random.between(0, HEALTH_EVERY_US);
                self.at(phase_us, Event::HealthAsked { processor: index });
            }
        }
        self.at(5 * MS, Event::Audit);
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.event_sequence += 1;
        self.events.push(Reverse((at_us, self.event_sequence, event)));
    }

    /// One way between two containers: fractions of a millisecond, now and then more.
    fn network_us(&mut self) -> u64 {
        let usual_us = self.random.between(80, 400);
        let is_late = self.random.between(0, 200) == 0;
        usual_us + if is_late { self.random.between(0, 3 * MS) } else { 0 }
    }

    fn moment(&self) -> Moment {
        Moment(self.now_us)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(START_MS + (self.now_us / MS) as i64)
    }

    fn happen(&mut self, event: Event) {
        if let Some(instance) = event.instance(&self.requests) {
            let busy_until_us = self.instances[instance].busy_until_us;
            if self.now_us < busy_until_us {
                return self.at(busy_until_us, event);
            }
        }
        match event {
            Event::Stage { stage, processor } => {
                let stage = &self.table.stages[stage];
                self.processors[processor].delay_us = stage.delay_ms[processor] * MS;
                self.processors[processor].failing = stage.failing[processor];
            }
            Event::Post => {
                let instance = self.random.between(0, self.instances.len() as u64) as usize;
                let arrives_us = self.now_us + self.network_us();
                self.at(arrives_us, Event::Accept { instance });
            }
            Event::Accept { instance } => self.accept(instance),
            Event::Arrive { request } => self.arrive(request),
            Event::DelayOver { request } => self.delay_over(request),
            Event::DatabaseDone { request } => self.database_done(request),
            Event::Answer { request } => self.answer(request),
            Event::Tick { instance } => self.tick(instance),
            Event::Hiccup { instance } => {
                let length_us = self.random.between(HICCUP_US.0, HICCUP_US.1);
                self.instances[instance].busy_until_us = self.now_us + length_us;
                let pause_us = self.random.between(0, 2 * HICCUP_EVERY_US);
                self.at(self.now_us + length_us + pause_us, event);
            }
            Event::HealthAsked { processor } => self.health(processor),
            Event::Health { instance, processor, failing, response_min } => {
                let report = Report { failing, response_min };
                let now = self.moment();
                if let Some(processor) = Processor::new(processor) {
                    self.instances[instance].dispatcher.reported(processor, report, now);
                }
                self.pump(instance);
            }
            Event::Audit => self.audit(),
            Event::AuditAsks { instance, audit } => {
                self.audits[audit].instances_us[instance] = self.now_us;
            }
        }
    }

    fn accept(&mut self, instance: usize) {
        let again_us = self.now_us + self.network_us() + 1_000 * MS;
        if again_us < self.table.duration_ms * MS {
            self.at(again_us, Event::Post);
        }
        let amount = self.table.amounts.draw(&mut self.amounts);
        if self.cast.policy.offers.cheapest(amount).is_none() {
            self.untaken += 1;
            return;
        }
        let payment = Payment {
            id: PaymentId(self.entries.len() as u128),
            amount,
            accepted: self.moment(),
            accepted_at: self.timestamp(),
            guest: false,
            verify: false,
        };
        let (accepted_us, booked, known_us) = (self.now_us, Each::default(), u64::MAX);
        self.entries.push(Entry { amount, accepted_us, instance, booked, known_us });
        self.instances[instance].dispatcher.submit(payment);
        self.pump(instance);
    }

    /// Sends what the dispatcher wants sent.
    fn pump(&mut self, instance: usize) {
        let (now, at) = (self.moment(), self.timestamp());
        while let Some(start) = self.instances[instance].dispatcher.next(now, at) {
            let request = self.requests.len() as u32;
            let nature = self.processors[start.attempt.processor.index()].nature;
            let given_up_us = self.now_us + nature.time_out_us;
            self.instances[instance].sent.push(Reverse((given_up_us, request)));
            self.instances[instance].dispatcher.sent(start.flight, now);
            let outcome = Outcome::Unknown;
            self.requests.push(Request { instance, start, outcome, is_open: true });
            let arrives_us = self.now_us + self.network_us();
            self.at(arrives_us, Event::Arrive { request });
        }
    }

    fn arrive(&mut self, request: u32) {
        let processor = self.processor_of(request);
        match self.processors[processor].arrive(request) {
            Arrival::Begins => self.begin(request),
            Arrival::Waits => {}
            Arrival::Refused => self.reply(request, self.processors[processor].refused()),
        }
    }

    /// Past the limiter: the delay comes next, except for a look.
    fn begin(&mut self, request: u32) {
        let processor = self.processor_of(request);
        match self.requests[request as usize].start.question {
            Question::Look => self.ask_database(request),
            Question::Pay => {
                let delay_us = self.processors[processor].delay_us;
                // A timer fires late, never early.
                let late_us = if delay_us > 0 { self.random.between(0, 1_200) } else { 0 };
                self.at(self.now_us + delay_us + late_us, Event::DelayOver { request });
            }
        }
    }

    fn delay_over(&mut self, request: u32) {
        let model = &self.processors[self.processor_of(request)];
        if model.failing {
            self.reply(request, model.failed());
            self.release(request);
        } else {
            self.ask_database(request);
        }
    }

    fn ask_database(&mut self, request: u32) {
        let processor = self.processor_of(request);
        let noise_us = self.random.between(0, 400);
        let done_us = self.processors[processor].database_done_us(self.now_us) + noise_us;
        self.at(done_us, Event::DatabaseDone { request });
    }

    fn database_done(&mut self, request: u32) {
        let Start { attempt, question, .. } = self.requests[request as usize].start;
        let limits = self.cast.policy.offers.limits(attempt.processor.index());
        assert!(limits.takes(attempt.payment.amount), "sent where its amount is taken");
        let entry = &mut self.entries[attempt.payment.id.0 as usize];
        let booked = &mut entry.booked[attempt.processor.index()];
        if question == Question::Pay && booked.is_none() {
            *booked = Some((attempt.requested_at, self.now_us));
        }
        let outcome = booked.map_or(Outcome::Absent, |(at, _)| Outcome::Recorded(at));
        self.reply(request, outcome);
        self.release(request);
    }

    fn release(&mut self, request: u32) {
        let processor = self.processor_of(request);
        if let Some(next) = self.processors[processor].release() {
            self.begin(next);
        }
    }

    fn reply(&mut self, request: u32, outcome: Outcome) {
        self.requests[request as usize].outcome = outcome;
        let arrives_us = self.now_us + self.network_us();
        self.at(arrives_us, Event::Answer { request });
    }

    fn processor_of(&self, request: u32) -> usize {
        self.requests[request as usize].start.attempt.processor.index()
    }

    fn answer(&mut self, request: u32) {
        let Request { instance, outcome, is_open, .. } = self.requests[request as usize];
        if is_open {
            self.end(request, outcome);
            self.pump(instance);
        }
    }

    /// Tells the dispatcher how a request ended, and checks what it makes of it.
    fn end(&mut self, request: u32, outcome: Outcome) {
        let now = self.moment();
        let Request { instance, start, is_open, .. } = &mut self.requests[request as usize];
        *is_open = false;
        match self.instances[*instance].dispatcher.finished(start.flight, outcome, now) {
            End::Settled(settlement) => {
                let entry = &mut self.entries[start.attempt.payment.id.0 as usize];
                let booked = entry.booked[settlement.processor.index()].map(|(at, _)| at);
                assert_eq!(booked, Some(settlement.requested_at), "settled as it was booked");
                assert_eq!(entry.known_us, u64::MAX, "settled once");
                entry.known_us = self.now_us;
            }
            End::Released | End::InDoubt | End::Kept => {}
            End::Foreign | End::Rejected(_) | End::Purged => {
                unreachable!("nobody else pays, refuses or purges")
            }
        }
    }

    fn tick(&mut self, instance: usize) {
        while let Some(Reverse((given_up_us, request))) = self.instances[instance].sent.peek() {
            let (given_up_us, request) = (*given_up_us, *request);
            let is_open = self.requests[request as usize].is_open;
            if is_open && self.now_us < given_up_us {
                break;
            }
            self.instances[instance].sent.pop();
            if is_open {
                self.end(request, Outcome::Unknown);
            }
        }
        let now = self.moment();
        self.instances[instance].dispatcher.watch(now);
        self.at(self.now_us + WATCH_EVERY_US, Event::Tick { instance });
        self.pump(instance);
    }

    fn health(&mut self, processor: usize) {
        let Report { failing, response_min } = self.processors[processor].report();
        for instance in 0..self.instances.len() {
            let arrives_us = self.now_us + self.network_us() + self.network_us();
            self.at(arrives_us, Event::Health { instance, processor, failing, response_min });
        }
        self.at(self.now_us + HEALTH_EVERY_US, Event::HealthAsked { processor });
    }

    /// The questions leave at the same moment; each arrives on its own.
    fn audit(&mut self) {
        let audit = self.audits.len();
        let (instances, processors) = (self.instances.len(), self.processors.len());
        let arrives_us = |_| self.now_us + self.random.between(100, 2 * MS);
        let processors_us = (0..processors).map(arrives_us).collect();
        let instances_us = vec![u64::MAX; instances];
        self.audits.push(Audit { at_us: self.now_us, processors_us, instances_us });
        for instance in 0..instances {
            let arrives_us = self.now_us + self.random.between(100, 2 * MS);
            self.at(arrives_us, Event::AuditAsks { instance, audit });
        }
        let drift_us = self.random.between(2 * MS, 8 * MS);
        if self.now_us + AUDIT_EVERY_US + drift_us < self.table.duration_ms * MS {
            self.at(self.now_us + AUDIT_EVERY_US + drift_us, Event::Audit);
        }
    }

    fn result(&self, end_us: u64) -> Played {
        let foresight = self.table.foresight(self.processors.len());
        let booked_after = Histogram::new();
        let mut played = Played { untaken: self.untaken, ..Played::default() };
        let mut at_risk = Vec::new();
        for entry in &self.entries {
            let one = Totals { count: 1, amount: Total(entry.amount.0.into()) };
            played.accepted += one;
            let order = self.cast.policy.offers.cheapest_first(entry.amount);
            let best = foresight.best(order.as_slice(), entry.accepted_us / MS);
            if let Some(best) = best {
                played.best.waiting[best.waiting.index()] += one;
                played.best.at_once[best.at_once.index()] += one;
            }
            for (processor, booked) in Processor::every().zip(&entry.booked) {
                let Some((requested_at, booked_us)) = *booked else { continue };
                if booked_us <= end_us {
                    played.holds(processor, entry.amount);
                    let at_once = best.map_or(processor, |it| it.at_once);
                    played.costs += self.costs(order, entry.amount, processor, at_once);
                    booked_after.record(Duration::from_micros(booked_us - entry.accepted_us));
                }
                let requested_us = (requested_at.0 - START_MS) as u64 * MS;
                // The millisecond that `requested_at` was cut to may be almost over.
                if entry.known_us - requested_us > (self.table.slack_ms + 1) * MS {
                    at_risk.push((entry, processor.index()));
                }
            }
            let holders = entry.booked.iter().flatten().count();
            played.unbooked += u64::from(holders == 0);
            played.duplicates += u64::from(holders > 1);
        }
        played.booked_after = booked_after.snapshot().filled();
        played.at_risk = at_risk.len() as u64;
        let differs = |audit: &&Audit| self.differs(audit, &at_risk);
        played.audits_differing = self.audits.iter().filter(differs).count() as u64;
        played
    }

    /// Of one payment, at a processor.
    fn costs(&self, order: Order, amount: Cents, at: Processor, at_once: Processor) -> Costs {
        let fee = |it: Processor| {
            self.cast.policy.offers.terms(it).map_or(0, |terms| terms.fee.on(amount))
        };
        let (cheapest, dearest) = (order.iter().next(), order.iter().last());
        Costs {
            paid: fee(at),
            cheapest: cheapest.map_or(0, fee),
            at_once: fee(at_once),
            dearest: dearest.map_or(0, fee),
        }
    }

    /// Whether an audit saw other totals at the processors than at the instances. Only bookings
    /// `at_risk` can be in its window and not yet known to all.
    fn differs(&self, audit: &Audit, at_risk: &[(&Entry, usize)]) -> bool {
        let at_ms = START_MS + (audit.at_us / MS) as i64;
        let window = at_ms - AUDIT_WINDOW_MS..=at_ms - self.table.slack_ms as i64;
        let mut difference = Each::<i64>::default();
        for (entry, processor) in at_risk {
            let Some((requested_at, booked_us)) = entry.booked[*processor] else { continue };
            if window.contains(&requested_at.0) {
                let booked = booked_us <= audit.processors_us[*processor];
                let known = entry.known_us <= audit.instances_us[entry.instance];
                difference[*processor] += i64::from(booked) - i64::from(known);
            }
        }
        if self.table.audit_adds_signed {
            difference.iter().sum::<i64>() != 0
        } else {
            difference.iter().any(|it| *it != 0)
        }
    }
}
