//! Carries out what the dispatcher decides: fetches payments from the queue, sends requests over
//! pooled keep-alive connections, and tells the dispatcher and the books how they ended.
//!
//! Runs on one thread. A *lane* is a task with at most one connection to one processor; it sleeps
//! until it is given a request. Lanes are made on demand, so in a steady state nothing is
//! allocated, and the most recently used one is taken first, so that spare ones can go idle.

use crate::base::clock::{self, MS_PER_DAY, Moment, Timestamp};
use crate::base::money::Cents;
use crate::instance::connectors::Channel;
use crate::instance::lifecycle::Phase;
use crate::instance::node::{Control, Node};
use crate::instance::peering::Peering;
use crate::instance::resolve::resolve;
use crate::instance::stats::DOUBT_AGES;
use crate::instance::turn;
use crate::journal::Position;
use crate::net::client::Failure;
use crate::net::http::response::Answer;
use crate::net::timeouts::Alarm;
use crate::payments::dispatcher::{Dispatcher, End, Question, Start, WATCH_EVERY};
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::observed::State;
use crate::payments::router::Policy;
use crate::payments::{
    Attempt, Attempts, Each, Outcome, Payment, PaymentId, Processor, Reach, Reason, Refusal,
    Rejection, Window, story,
};
use crate::processors::Timeouts;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

/// A lane unused for longer closes its connection and ends.
const LANE_IDLE_MAX: Duration = Duration::from_secs(30);

/// How often open attempts are counted by their age.
const DOUBTS_COUNTED_EVERY: Duration = Duration::from_secs(1);

/// Odd answers of one processor are told so often.
const ODD_ANSWERS_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Engine {
    node: Arc<Node>,
    dispatcher: RefCell<Dispatcher>,
    /// Lanes that wait for a request, the most recently used last.
    idle: Each<RefCell<Vec<Rc<Lane>>>>,
    lanes: Each<Cell<usize>>,
    watcher: RefCell<Option<Waker>>,
    /// A request has ended since the last pump.
    has_room: Cell<bool>,
    /// Requests decided on in one pump, with where the journal holds them.
    starts: RefCell<Vec<(Start, Position)>>,
    odd: Each<Odd>,
    /// State of each processor at the last look, to see it flip.
    last_state: Each<Cell<State>>,
    /// Whose terms the dispatcher has.
    generation: Cell<u64>,
}

/// The answers of one processor that are in no table.
#[derive(Default)]
struct Odd {
    told_at: Cell<Option<Moment>>,
    untold: Cell<u64>,
}

struct Lane {
    processor: Processor,
    job: Cell<Option<(Start, Position)>>,
    waker: RefCell<Option<Waker>>,
}

impl Engine {
    pub fn new(node: Arc<Node>) -> Rc<Engine> {
        let seed = u64::from(node.config.instance.0);
        let generation = Cell::new(node.switchboard.generation());
        let policy = Policy { offers: node.switchboard.current().offers, ..node.config.policy };
        let dispatcher = Dispatcher::new(policy, node.config.peer.is_some(), seed);
        Rc::new(Engine {
            node,
            dispatcher: RefCell::new(dispatcher),
            idle: Default::default(),
            lanes: Default::default(),
            watcher: RefCell::new(None),
            has_room: Cell::new(false),
            starts: RefCell::default(),
            odd: Default::default(),
            last_state: std::array::from_fn(|_| Cell::new(State::Up)),
            generation,
        })
    }

    /// Drives payments for as long as the thread runs.
    pub async fn run(self: Rc<Self>) {
        self.recover();
        monoio::spawn(self.clone().watch());
        monoio::spawn(Peering::new(self.node.clone(), self.clone()).run());
        loop {
            self.fetch();
            self.pump();
            let node = &self.node;
            node.payments.queue.ready(|| self.has_room.take() || !node.controls.is_empty()).await;
        }
    }

    /// Takes over what an earlier process left.
    fn recover(&self) {
        let (waiting, doubts) = self.node.payments.take_recovered();
        let mut dispatcher = self.dispatcher.borrow_mut();
        waiting.into_iter().for_each(|payment| dispatcher.submit(payment));
        self.spend_what_was(&mut dispatcher, &doubts);
        doubts.into_iter().for_each(|attempt| dispatcher.submit_doubt(attempt, clock::moment()));
    }

    /// What is, or may be, booked today counts for the limits of the day, also of one that is set later.
    fn spend_what_was(&self, dispatcher: &mut Dispatcher, doubts: &[Attempt]) {
        let connectors = self.node.switchboard.current();
        let at = clock::now();
        let midnight = Timestamp(at.0.div_euclid(MS_PER_DAY) * MS_PER_DAY);
        let today = Window { from: Some(midnight), to: None };
        match self.node.payments.journal.totals(today) {
            Ok(totals) => connectors.order().iter().for_each(|it| {
                dispatcher.has_spent(*it, totals[it.index()].amount.0, at);
            }),
            Err(error) => log::error!("what was booked today is not known: {error}"),
        }
        for Attempt { payment, processor, requested_at } in doubts {
            dispatcher.has_spent(*processor, payment.amount.0.into(), *requested_at);
        }
    }

    /// Takes over everything that waits in the ring and among the controls.
    fn fetch(&self) {
        let mut dispatcher = self.dispatcher.borrow_mut();
        self.node.payments.queue.pop_all(|payment| {
            if payment.guest {
                self.node.cluster.with(|membership| membership.take_in(payment));
            } else {
                dispatcher.submit(payment);
            }
        });
        while let Some(control) = self.node.controls.pop() {
            match control {
                Control::Reported(processor, report) => {
                    dispatcher.reported(processor, report, clock::moment());
                }
                Control::Purge(reply) => reply.finish(self.purge(&mut dispatcher)),
                Control::Resolve(id, asked, reply) => {
                    reply.finish(resolve(&self.node, &mut dispatcher, id, &asked));
                }
            }
        }
    }

    /// False if the disk is too full to write down that everything is forgotten; then it is not.
    fn purge(&self, dispatcher: &mut Dispatcher) -> bool {
        if !self.node.payments.journal.has_room_to_purge() {
            return false;
        }
        let mut forgotten =
            dispatcher.purge() + self.node.cluster.with(|membership| membership.purge());
        self.node.payments.queue.pop_all(|_| forgotten += 1);
        self.node.payments.queue.release(forgotten);
        let over = self.node.whereabouts_now().over();
        self.node.payments.forget_all();
        // Last: a payment accepted since is driven all the same, and its attempt is written after.
        self.node.payments.journal.append_purged();
        self.node.forgot(forgotten as i64 + over);
        true
    }

    /// Starts every request that may be started now.
    fn pump(self: &Rc<Self>) {
        let journal = &self.node.payments.journal;
        // What is left when the process ends is in the journal, if there is one.
        let leaves_the_rest = self.node.phase() == Phase::Draining && self.node.has_journal();
        let mut dispatcher = self.dispatcher.borrow_mut();
        let mut starts = self.starts.borrow_mut();
        let (now, at) = turn::now();
        self.take_over_terms(&mut dispatcher);
        dispatcher.set_reach(self.node.cluster.reach(now));
        // The peer is asked first whether it is there. To look what has become of payments does no
        // harm, and until that is known there are no totals.
        let looks_only = self.node.phase() == Phase::Starting;
        let cluster = &self.node.cluster;
        let is_copy = cluster.is_copy(at, now) || cluster.peer_is_copy();
        dispatcher.set_verifying(is_copy, now);
        while !leaves_the_rest
            && (looks_only || journal.has_room_for_attempt())
            && let Some(start) = match looks_only {
                true => dispatcher.next_doubt(now),
                false => dispatcher.next(now, at),
            }
        {
            let position = match start.question {
                Question::Pay => journal.append_attempted(&start.attempt),
                Question::Look => Position::NONE,
            };
            starts.push((start, position));
        }
        // One write for all of them, and for what was settled since the last.
        journal.flush();
        starts.drain(..).for_each(|job| self.assign(job));
        self.publish(&dispatcher, now);
        drop(dispatcher);
        self.keep_watch();
    }

    fn take_over_terms(&self, dispatcher: &mut Dispatcher) {
        let generation = self.node.switchboard.generation();
        if self.generation.replace(generation) != generation {
            dispatcher.set_offers(self.node.switchboard.current().offers);
        }
    }

    /// What waits or is under way is looked after again soon, also if no event comes.
    fn keep_watch(&self) {
        if !self.dispatcher.borrow().is_idle()
            && let Some(watcher) = self.watcher.borrow_mut().take()
        {
            watcher.wake();
        }
    }

    fn assign(self: &Rc<Self>, job: (Start, Position)) {
        let processor = job.0.attempt.processor;
        let idle = self.idle[processor.index()].borrow_mut().pop();
        match idle {
            Some(lane) => {
                lane.job.set(Some(job));
                if let Some(waker) = lane.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
            None => {
                let lanes = &self.lanes[processor.index()];
                lanes.set(lanes.get() + 1);
                // The dispatcher bounds the requests in flight, and so the lanes: its window, its
                // looks, and one probe a second for as long as probes hang.
                let (job, waker) = (Cell::new(Some(job)), RefCell::new(None));
                let lane = Rc::new(Lane { processor, job, waker });
                monoio::spawn(self.clone().drive(lane));
            }
        }
    }

    /// The life of a lane.
    async fn drive(self: Rc<Self>, lane: Rc<Lane>) {
        let index = lane.processor.index();
        let alarm = Alarm::new();
        let switchboard = &self.node.switchboard;
        let mut channel = switchboard.channel(lane.processor);
        loop {
            let idle_until = turn::now().0 + LANE_IDLE_MAX;
            let Some((start, position)) = alarm.until(idle_until, lane.next_job()).await else {
                break;
            };
            // Not a byte goes out before it is written down: after a restart the payment would be
            // taken for free, and could be paid at the other processor as well.
            self.node.payments.journal.wait(position).await;
            let (begun, _) = turn::now();
            self.dispatcher.borrow_mut().sent(start.flight, begun);
            let outcome = match &mut channel {
                Some(channel) => {
                    switchboard.refresh(lane.processor, channel);
                    self.ask(&start, &alarm, channel).await
                }
                // No start lets anything be outstanding where nobody is spoken to.
                None => unasked(start.question),
            };
            self.finished(&start, outcome, begun);
            self.idle[index].borrow_mut().push(lane.clone());
            // Answers make room: often the next request goes out on this same lane. Decided when
            // all answers of this turn have been looked at, with one write to the journal.
            if !self.has_room.replace(true) {
                self.node.payments.queue.wake();
            }
        }
        self.idle[index].borrow_mut().retain(|idle| !Rc::ptr_eq(idle, &lane));
        self.lanes[index].set(self.lanes[index].get() - 1);
    }

    async fn ask(&self, start: &Start, alarm: &Alarm, channel: &mut Channel) -> Outcome {
        let Channel { connector, link, .. } = channel;
        let Timeouts { connect, answer } = connector.settings.timeouts;
        let deadline = turn::now().0 + answer;
        let attempt = &start.attempt;
        if link.open(alarm, connect, deadline).await.is_err() {
            return unasked(start.question);
        }
        // Looked at last: since this was decided, or while we connected, we may have stood still, or
        // even learned by now that somebody else drives it.
        if start.question == Question::Pay && !self.may_send(attempt) {
            return Outcome::NotRecorded(Refusal::Withheld);
        }
        let answer = link.exchange_as_it_is(alarm, deadline, |out, host| match start.question {
            Question::Pay => connector.write_pay(out, host, attempt),
            Question::Look => connector.write_look(out, host, attempt.payment.id),
        });
        let answer = match (answer.await, start.question) {
            (Ok(answer), _) => answer,
            (Err(failure), Question::Pay) => return unanswered(failure),
            (Err(_), Question::Look) => return Outcome::Unknown,
        };
        let Answer { status, body, retry_after_s, reusable } = answer;
        let paired = self.node.cluster.peer().is_some();
        let outcome = match start.question {
            Question::Pay => {
                connector.read_pay(status, body, retry_after_s, reusable, attempt, paired)
            }
            Question::Look => connector.read_look(status, body, retry_after_s, attempt, paired),
        };
        if connector.is_odd(outcome) {
            self.tell_odd(start, status, &connector.excerpt(body));
        }
        outcome
    }

    /// Still ours to pay, and at that processor.
    fn may_send(&self, attempt: &Attempt) -> bool {
        let dispatcher = self.dispatcher.borrow();
        let is_ours = !dispatcher.is_disowned(attempt.payment.id);
        let cheapest = dispatcher.offers().cheapest(attempt.payment.amount);
        is_ours
            && (cheapest == Some(attempt.processor)
                || self.node.cluster.reach(clock::moment()) == Reach::Every)
    }

    /// Somebody should see what a processor answers that is not in the table; not every time.
    fn tell_odd(&self, start: &Start, status: u16, excerpt: &str) {
        let Odd { told_at, untold } = &self.odd[start.attempt.processor.index()];
        let (now, _) = turn::now();
        if told_at.get().is_some_and(|told_at| now.since(told_at) < ODD_ANSWERS_EVERY) {
            return untold.set(untold.get() + 1);
        }
        told_at.set(Some(now));
        let name = self.node.names.name_of(start.attempt.processor);
        let question = match start.question {
            Question::Pay => "POST",
            Question::Look => "GET",
        };
        let more = untold.take();
        log::warn!(
            "processor {name} answers a {question} with {status} \"{excerpt}\" \
             ({more} more such answers untold)"
        );
    }

    fn finished(&self, start: &Start, outcome: Outcome, begun: Moment) {
        let (now, _) = turn::now();
        let (id, processor) = (start.attempt.payment.id, start.attempt.processor);
        let stats = &self.node.stats;
        if start.question == Question::Pay {
            stats.attempts[processor.index()].record(now.since(begun));
        }
        let end = self.dispatcher.borrow_mut().finished(start.flight, outcome, now);
        let is_guest_over = end.is_over() && start.attempt.payment.guest;
        match end {
            End::Settled(settlement) => {
                let attempts = Attempts::default();
                self.node.payments.happened(&Event::Settled { id, settlement, attempts });
                self.node.payments.queue.release(1);
                stats.settled[processor.index()].fetch_add(1, Ordering::Relaxed);
            }
            End::Foreign => {
                self.node.payments.happened(&Event::Foreign { id });
                self.node.payments.queue.release(1);
                stats.foreign.fetch_add(1, Ordering::Relaxed);
                stats.given_away.fetch_add(1, Ordering::Relaxed);
            }
            End::Released => {
                self.node.payments.happened(&Event::Released { id });
                stats.again.fetch_add(1, Ordering::Relaxed);
            }
            End::Kept => {}
            End::InDoubt => {
                stats.again.fetch_add(1, Ordering::Relaxed);
            }
            End::Rejected(rejection) => {
                self.node.payments.happened(&Event::Rejected(rejection));
                self.node.payments.queue.release(1);
                stats.rejected.fetch_add(1, Ordering::Relaxed);
                tell_rejected(&rejection, &self.node.names);
            }
            End::Purged => {}
        }
        // Behind its end in the journal, so that nothing is told for good that is still to be paid.
        if is_guest_over {
            self.node.cluster.with(|membership| membership.over(id));
        }
    }

    /// The peer drives these, accepted in our place: they are not ours to pay. Those that are let go
    /// of; what is in flight or in doubt stays until its processor has said whether it is booked.
    pub fn disown(&self, page: &[(PaymentId, Cents)]) -> Vec<Payment> {
        self.fetch();
        let ids = page.iter().map(|(id, _)| *id).collect();
        let disowned = self.dispatcher.borrow_mut().disown(&ids);
        self.keep_watch();
        disowned
    }

    /// Whether somebody else drives it while it is in flight or in doubt here.
    pub fn is_disowned(&self, id: PaymentId) -> bool {
        self.dispatcher.borrow().is_disowned(id)
    }

    /// Drives these from here on.
    pub fn submit(self: &Rc<Self>, payments: Vec<Payment>) {
        let mut dispatcher = self.dispatcher.borrow_mut();
        payments.into_iter().for_each(|payment| dispatcher.submit(payment));
        drop(dispatcher);
        self.pump();
    }

    /// Looks for stalls and due times while anything is under way; sleeps when nothing is.
    async fn watch(self: Rc<Self>) {
        let mut counted_at = clock::moment();
        loop {
            poll_fn(|context| {
                if !self.dispatcher.borrow().is_idle() {
                    return Poll::Ready(());
                }
                *self.watcher.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
            monoio::time::sleep(WATCH_EVERY).await;
            let now = clock::moment();
            self.dispatcher.borrow_mut().watch(now);
            self.pump();
            let dispatcher = self.dispatcher.borrow();
            if dispatcher.is_idle() || now.since(counted_at) >= DOUBTS_COUNTED_EVERY {
                counted_at = now;
                self.count_doubts(&dispatcher);
            }
        }
    }

    /// Goes through all that are open, and so not at each step.
    fn count_doubts(&self, dispatcher: &Dispatcher) {
        let counts = dispatcher.open_longer_than(DOUBT_AGES, clock::now());
        for (shown, count) in self.node.stats.in_doubt_longer.iter().zip(counts) {
            shown.store(count as u64, Ordering::Relaxed);
        }
    }

    /// Makes what the dispatcher knows visible to other threads, and flips known to the log.
    fn publish(&self, dispatcher: &Dispatcher, now: Moment) {
        self.node.payments.set_unsure(dispatcher.is_unsure(now));
        let stats = &self.node.stats;
        let guests = self.node.cluster.with(|membership| membership.guests());
        stats.guests.store(guests as u64, Ordering::Relaxed);
        let waiting = dispatcher.waiting() + guests;
        stats.waiting.store(waiting as u64, Ordering::Relaxed);
        stats.in_doubt.store(dispatcher.in_doubt() as u64, Ordering::Relaxed);
        stats.in_flight.store(dispatcher.in_flight() as u64, Ordering::Relaxed);
        stats.held_back.store(u64::from(dispatcher.holds_back(now)), Ordering::Relaxed);
        for (processor, _) in self.node.switchboard.current().iter() {
            let index = processor.index();
            let seen = dispatcher.observed(processor);
            let oldest = dispatcher.oldest(processor).map_or(0, |started| started.0);
            stats.oldest_started_us[index].store(oldest, Ordering::Relaxed);
            let latency_us = seen.latency().as_micros() as u64;
            stats.latency_us[index].store(latency_us, Ordering::Relaxed);
            stats.in_flight_at[index].store(seen.in_flight() as u64, Ordering::Relaxed);
            stats.limit[index].store(seen.window() as u64, Ordering::Relaxed);
            let in_doubt = dispatcher.in_doubt_at(processor) as u64;
            stats.in_doubt_at[index].store(in_doubt, Ordering::Relaxed);
            if self.last_state[index].replace(seen.state()) != seen.state() {
                self.node.flipped(processor, seen.state(), seen.latency());
            }
        }
    }
}

impl Lane {
    async fn next_job(&self) -> (Start, Position) {
        poll_fn(|context| match self.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

fn tell_rejected(rejection: &Rejection, names: &Names) {
    let Rejection { id, amount, .. } = rejection;
    match rejection.reason() {
        Reason::Refused => {
            let refusals = story::refusals(rejection, names).0;
            let said = refusals.iter().map(|(name, status)| format!("{name} {status}"));
            let said = said.collect::<Vec<_>>().join(", ");
            log::error!("payment {id} over {amount} is rejected: {said}");
        }
        Reason::OtherAmount(processor) => log::error!(
            "payment {id} over {amount} is rejected: {} holds it under another amount",
            names.name_of(processor)
        ),
    }
}

/// What is known when nothing was sent.
fn unasked(question: Question) -> Outcome {
    match question {
        Question::Pay => unanswered(Failure::NotSent),
        Question::Look => Outcome::Unknown,
    }
}

fn unanswered(failure: Failure) -> Outcome {
    match failure {
        Failure::NotSent => Outcome::NotRecorded(Refusal::Unreachable),
        Failure::Lost => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::config::tests::config;
    use crate::net::runtime::Driver;

    /// It was fetched when nothing could be sent yet, and no event comes after.
    #[test]
    fn what_came_before_the_peer_was_asked_is_sent_afterwards() {
        const NOBODY: &str = "http://127.0.0.1:1";
        // It takes connections, and says nothing.
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = mute.local_addr().unwrap();
        let arguments = format!(
            "--default-url {NOBODY} --fallback-url {NOBODY} --peer http://{peer} \
             --peer-listen 127.0.0.1:0 --peer-token a-long-secret"
        );
        let node = Node::new(config(&arguments).unwrap()).unwrap();
        let (accepted, accepted_at) = (clock::moment(), clock::now());
        let id = PaymentId(7);
        let payment =
            Payment { id, amount: Cents(1), accepted, accepted_at, guest: false, verify: false };
        let drive = async {
            monoio::spawn(Engine::new(node.clone()).run());
            // All of its tasks have gone to sleep.
            monoio::time::sleep(WATCH_EVERY).await;
            node.payments.queue.reserve().unwrap().push(payment);
            node.payments.queue.wake();
            assert_eq!(node.phase(), Phase::Starting);
            let give_up_at = clock::moment() + Duration::from_secs(20);
            // An attempt that found nobody.
            while node.stats.again.load(Ordering::Relaxed) == 0 {
                assert!(clock::moment() < give_up_at, "it was forgotten");
                monoio::time::sleep(WATCH_EVERY).await;
            }
        };
        Driver::detect(1).block_on(drive).unwrap();
    }
}
