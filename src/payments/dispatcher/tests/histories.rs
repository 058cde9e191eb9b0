//! Random histories in virtual time: model processors that book or do not, and answer anything or
//! nothing; answers in any order; restarts; payments that somebody else may have driven. Whatever
//! happens, nothing is booked twice, the books agree, and everything ends when the weather clears,
//! even if one processor fails for ever.
//!
//! Answers are bytes, and are read as they are in earnest, so that the table of answers is played
//! along. `GALO_SEEDS=1000000` plays more, `GALO_SEED=7` one history.

use super::*;
use crate::payments::processor::{read_look, read_pay};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const SEEDS_BY_DEFAULT: u64 = 20_000;
/// The weather is bad for so long, and payments come in …
const BAD_MS: u64 = 1_500;
/// … and after this everything must be over. Refusals take their time.
const END_MS: u64 = 200_000;
const TIME_OUT_MS: u64 = 10_000;
/// A request whose answer was 4xx may yet be booked so much later, any other one even later.
const LATE_DECLINED_MS: u64 = 4_000;
const LATE_MS: u64 = 20_000;
/// So many requests about one payment in any second, and in any ten: measured, with room.
const REQUESTS_MAX: [(u64, usize); 2] = [(1_000, 30), (10_000, 90)];
const START_MS: u64 = 1_000;

struct Draw(u64);

impl Draw {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What a payment is like, whatever the weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    /// The processors of the mask answer this status, and never book it.
    Poison {
        status: u16,
        mask: [bool; 2],
    },
}

impl Kind {
    /// It may stay for ever with a processor that says neither that it has it nor that it will not.
    fn is_pinned(self) -> bool {
        matches!(self, Kind::Poison { status: 409 | 500, .. })
    }
}

/// What the journal knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Free,
    Attempted(Attempt),
    Settled(Settlement),
    Foreign,
    Rejected,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    amount: Cents,
    at: Timestamp,
    by_us: bool,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    NotSent,
    Lost,
    Bytes {
        status: u16,
        body: &'static str,
        retry_after_s: Option<u32>,
    },
    /// The truth.
    Booking,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Submit,
    Sent(Start),
    Arrive(Start),
    Book(Attempt),
    Answered(Start, Answer),
    Restart,
    Reach,
    Watch,
}

/// Which processor fails for as long as a history lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Always(Processor),
    /// Each for so many milliseconds, when the other one is well again: never both.
    InTurns(u64),
}

struct History {
    seed: u64,
    draw: Draw,
    paired: bool,
    always_clear: bool,
    fails: Option<Fails>,
    has_poison: bool,
    ms: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    happening: BTreeMap<u64, (u64, Event)>,
    sequence: u64,
    dispatcher: Dispatcher,
    /// Restarts so far: what was under way before one is answered to nobody.
    life: u64,
    payments: BTreeMap<u128, (Payment, Kind, Written)>,
    held: [BTreeMap<u128, Held>; 2],
    requests: BTreeMap<u128, Vec<u64>>,
}

impl History {
    fn new(seed: u64) -> History {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| _ = draw.below(2));
        let (paired, always_clear) = (draw.one_in(2), draw.one_in(8));
        let fails = draw.one_in(if always_clear { 2 } else { 6 }).then(|| match draw.below(3) {
            0 => Fails::InTurns(50 + draw.below(2_000)),
            _ => Fails::Always(draw.pick(&Processor::CONTEST)),
        });
        // Those take long to play.
        let has_poison = fails.is_none() && draw.one_in(5);
        let mut history = History {
            seed,
            draw,
            paired,
            always_clear,
            fails,
            has_poison,
            ms: START_MS,
            events: BinaryHeap::new(),
            happening: BTreeMap::new(),
            sequence: 0,
            dispatcher: Dispatcher::new(policy(), paired, seed),
            life: 0,
            payments: BTreeMap::new(),
            held: Default::default(),
            requests: BTreeMap::new(),
        };
        for _ in 0..2 + history.draw.below(8) {
            let at = START_MS + history.draw.below(BAD_MS);
            history.at(at, Event::Submit);
        }
        // Of an instance that lost its lease for good, all would stay with one that always fails.
        let counts = if matches!(fails, Some(Fails::Always(_))) { [3, 1] } else { [3, 4] };
        for (event, count) in [Event::Restart, Event::Reach].into_iter().zip(counts) {
            for _ in 0..history.draw.below(count) {
                let at = START_MS + history.draw.below(BAD_MS);
                history.at(at, event);
            }
        }
        history.at(START_MS, Event::Watch);
        history
    }

    fn at(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((ms, self.sequence)));
        self.happening.insert(self.sequence, (self.life, event));
    }

    fn is_bad(&self) -> bool {
        !self.always_clear && self.ms < START_MS + BAD_MS
    }

    fn now(&self) -> Moment {
        Moment(self.ms * 1_000)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.ms as i64)
    }

    fn play(mut self) {
        while let Some(Reverse((ms, sequence))) = self.events.pop() {
            if ms > END_MS {
                break;
            }
            self.ms = ms;
            let (life, event) = self.happening.remove(&sequence).unwrap();
            self.happen(event, life);
            self.pump();
        }
        self.check_end();
    }

    fn happen(&mut self, event: Event, life: u64) {
        let is_ours = life == self.life;
        match event {
            Event::Submit => self.submit(),
            Event::Sent(start) if is_ours => {
                self.dispatcher.sent(start.flight, self.now());
                let arrives = self.ms + self.draw.below(3);
                self.at(arrives, Event::Arrive(start));
            }
            Event::Sent(_) => {}
            Event::Arrive(start) => self.arrive(start, is_ours),
            Event::Book(attempt) => self.book(attempt),
            Event::Answered(start, answer) if is_ours => self.answered(start, answer),
            Event::Answered(..) => {}
            Event::Restart => self.restart(),
            Event::Reach => {
                let reach = self.draw.pick(&[Reach::Every, Reach::Cheapest]);
                self.dispatcher.set_reach(reach);
                let back = self.ms + self.draw.below(BAD_MS);
                if reach == Reach::Cheapest {
                    self.at(back, Event::Reach);
                }
            }
            Event::Watch => {
                self.dispatcher.watch(self.now());
                // When the weather has been clear for a while only the long pauses are left; not in
                // step with processors that fail in turns.
                let is_early = self.ms < START_MS + 2 * BAD_MS;
                let every = if is_early { 40 } else { 600 + self.draw.below(400) };
                // What was sent oddly may be booked late, and has to be found.
                let late_ms = if self.always_clear { 0 } else { LATE_MS + TIME_OUT_MS };
                let is_over = self.ms > START_MS + 4 * BAD_MS + late_ms && self.is_over();
                if !is_over {
                    self.at(self.ms + every, Event::Watch);
                }
            }
        }
    }

    /// Whether nothing more can happen that would tell anything.
    fn is_over(&self) -> bool {
        self.payments.iter().all(|(number, (_, kind, written))| match written {
            Written::Free | Written::Attempted(_) => {
                let is_held = self.held.iter().any(|books| books.contains_key(number));
                kind.is_pinned() || (self.stays_in_doubt(written) && !is_held)
            }
            Written::Settled(_) | Written::Foreign | Written::Rejected => true,
        })
    }

    fn submit(&mut self) {
        let number = self.payments.len() as u128;
        let guest =
            self.paired && !matches!(self.fails, Some(Fails::Always(_))) && self.draw.one_in(3);
        let verify = guest || self.draw.one_in(4);
        let payment = Payment {
            id: PaymentId(number),
            amount: Cents(number as i64 + 1),
            accepted: self.now(),
            accepted_at: self.timestamp(),
            guest,
            verify,
        };
        let kind = match self.draw.below(4) {
            _ if !self.has_poison => Kind::Good,
            0 => Kind::Poison {
                status: self.draw.pick(&[400, 401, 404, 413, 422]),
                mask: self.draw.pick(&[[true, true], [true, false], [false, true]]),
            },
            1 if self.draw.one_in(4) => {
                Kind::Poison { status: self.draw.pick(&[409, 500]), mask: [true; 2] }
            }
            _ => Kind::Good,
        };
        if verify && self.draw.one_in(2) {
            // Somebody else has driven it before, or we in a life that we know nothing of.
            let at = Timestamp(self.timestamp().0 + self.draw.below(7) as i64 - 3);
            let amount = Cents(payment.amount.0 + i64::from(self.draw.one_in(4)));
            let index = self.draw.below(2) as usize;
            self.held[index].insert(number, Held { amount, at, by_us: false });
        }
        self.payments.insert(number, (payment, kind, Written::Free));
        self.dispatcher.submit(payment);
    }

    /// What the journal brings back; it may be an old copy, from when an attempt was not written.
    fn restart(&mut self) {
        self.life += 1;
        self.dispatcher = Dispatcher::new(policy(), self.paired, self.seed + self.life);
        let now = self.now();
        let everything: Vec<_> = self.payments.values_mut().collect();
        for (payment, _, written) in everything {
            payment.accepted = now;
            match written {
                Written::Free => self.dispatcher.submit(*payment),
                Written::Attempted(attempt) => {
                    attempt.payment = *payment;
                    self.dispatcher.submit_doubt(*attempt, now);
                }
                Written::Settled(_) | Written::Foreign | Written::Rejected => {}
            }
        }
        self.at(self.ms, Event::Watch);
    }

    fn pump(&mut self) {
        while let Some(start) = self.dispatcher.next(self.now(), self.timestamp()) {
            let Start { attempt, question, .. } = start;
            self.count_request(id(start));
            let entry = self.payments.get_mut(&id(start)).unwrap();
            if question == Question::Pay {
                let Attempt { payment, processor, requested_at } = attempt;
                assert!(!payment.guest || processor == Processor::DEFAULT, "seed {}", self.seed);
                assert!(requested_at >= payment.accepted_at, "seed {}", self.seed);
                if let Written::Attempted(open) = entry.2 {
                    let is_same = (open.processor, open.requested_at) == (processor, requested_at);
                    assert!(is_same, "seed {}: {open:?}, then {attempt:?}", self.seed);
                }
                entry.2 = Written::Attempted(attempt);
            }
            let journal_ms = if self.draw.one_in(20) { 400 } else { 2 };
            let sent = self.ms + self.draw.below(journal_ms);
            self.at(sent, Event::Sent(start));
        }
    }

    fn count_request(&mut self, id: u128) {
        let requests = self.requests.entry(id).or_default();
        requests.push(self.ms);
        for (window_ms, most) in REQUESTS_MAX {
            let recent = requests.iter().rev().take_while(|at| **at + window_ms > self.ms).count();
            assert!(recent <= most, "seed {}: {recent} in {window_ms} ms about {id}", self.seed);
        }
    }

    fn arrive(&mut self, start: Start, is_ours: bool) {
        let (answer, booked_in) = match start.question {
            Question::Look => (self.weather_of_a_look(), None),
            Question::Pay => self.weather_of_a_payment(start.attempt),
        };
        match booked_in {
            Some(0) => self.book(start.attempt),
            Some(ms) => self.at(self.ms + ms, Event::Book(start.attempt)),
            None => {}
        }
        let slow_ms = if self.is_bad() && self.draw.one_in(20) { 4_000 } else { 20 };
        let takes = match answer {
            Answer::Lost if self.draw.one_in(2) => TIME_OUT_MS,
            _ => self.draw.below(slow_ms),
        };
        if is_ours {
            self.at(self.ms + takes, Event::Answered(start, answer));
        }
    }

    /// What comes back, and in how many milliseconds it is booked.
    fn weather_of_a_payment(&mut self, attempt: Attempt) -> (Answer, Option<u64>) {
        let index = attempt.processor.index();
        let number = attempt.payment.id.0;
        let say = |status, body| Answer::Bytes { status, body, retry_after_s: None };
        let kind = self.payments[&number].1;
        let is_poison = matches!(kind, Kind::Poison { mask, .. } if mask[index]);
        let maybe = |draw: &mut Draw, late_ms: u64| match draw.below(4) {
            _ if is_poison => None,
            0 => Some(0),
            1 => Some(draw.below(late_ms)),
            _ => None,
        };
        if self.is_bad() && self.draw.one_in(2) {
            let draw = &mut self.draw;
            return match draw.below(9) {
                0 => (Answer::NotSent, None),
                1 => (say(500, ""), None),
                2 => {
                    let retry_after_s = draw.pick(&[None, Some(0), Some(1)]);
                    (Answer::Bytes { status: 429, body: "", retry_after_s }, None)
                }
                3 => (say(draw.pick(&[500, 502, 503, 599, 999]), "error"), maybe(draw, LATE_MS)),
                4 => (say(draw.pick(&[408, 409, 423, 425, 499]), ""), maybe(draw, LATE_MS)),
                5 => {
                    let status = draw.pick(&[400, 401, 403, 404, 407, 422]);
                    (say(status, "{}"), maybe(draw, LATE_DECLINED_MS))
                }
                6 => (say(draw.pick(&[200, 201, 202, 204, 302, 304]), "{}"), maybe(draw, LATE_MS)),
                _ => (Answer::Lost, maybe(draw, LATE_MS)),
            };
        }
        match kind {
            _ if self.held[index].contains_key(&number) => (say(422, "{}"), None),
            Kind::Poison { status, .. } if is_poison => (say(status, ""), None),
            _ if self.is_failing(attempt.processor) => (say(500, ""), None),
            _ => (say(200, r#"{"message":"ok"}"#), Some(0)),
        }
    }

    /// A restart or odd answers have put it in doubt, at the processor that always fails.
    fn stays_in_doubt(&self, written: &Written) -> bool {
        let at = |attempt: &Attempt| self.fails == Some(Fails::Always(attempt.processor));
        (self.life > 0 || !self.always_clear)
            && matches!(written, Written::Attempted(attempt) if at(attempt))
    }

    fn is_failing(&self, processor: Processor) -> bool {
        match self.fails {
            Some(Fails::Always(failing)) => failing == processor,
            Some(Fails::InTurns(ms)) => self.ms / ms % 2 == u64::from(processor.number()),
            None => false,
        }
    }

    fn weather_of_a_look(&mut self) -> Answer {
        let say = |status, body| Answer::Bytes { status, body, retry_after_s: None };
        if !self.is_bad() || self.draw.one_in(2) {
            return Answer::Booking;
        }
        match self.draw.below(4) {
            0 => say(503, "error"),
            1 => say(429, ""),
            2 => say(200, "<html>"),
            _ => Answer::Lost,
        }
    }

    fn book(&mut self, attempt: Attempt) {
        let Attempt { payment, processor, requested_at: at } = attempt;
        let number = payment.id.0;
        let held = &mut self.held[processor.index()];
        if held.contains_key(&number) {
            return;
        }
        held.insert(number, Held { amount: payment.amount, at, by_us: true });
        let other = self.held[1 - processor.index()].get(&number);
        assert!(other.is_none(), "seed {}: {number} is booked at both", self.seed);
    }

    fn answered(&mut self, start: Start, answer: Answer) {
        let attempt = start.attempt;
        let is_pay = start.question == Question::Pay;
        let outcome = match answer {
            Answer::NotSent if is_pay => Outcome::NotRecorded(Refusal::Unreachable),
            Answer::NotSent | Answer::Lost => Outcome::Unknown,
            Answer::Bytes { status, body, retry_after_s } => match start.question {
                Question::Pay => read_pay(status, body.as_bytes(), retry_after_s, true, &attempt),
                Question::Look => {
                    read_look(status, body.as_bytes(), retry_after_s, &attempt, self.paired)
                }
            },
            Answer::Booking => match self.held[attempt.processor.index()].get(&id(start)) {
                None => read_look(404, b"", None, &attempt, self.paired),
                Some(Held { amount, at, .. }) => {
                    let (id, at) = (attempt.payment.id, at.to_string());
                    let body = format!(
                        r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{}"}}"#,
                        at.trim_end_matches('Z')
                    );
                    read_look(200, body.as_bytes(), None, &attempt, self.paired)
                }
            },
        };
        let now = self.now();
        let end = self.dispatcher.finished(start.flight, outcome, now);
        let (payment, kind, written) = self.payments.get_mut(&id(start)).unwrap();
        let is_over = !matches!(written, Written::Free | Written::Attempted(_));
        assert!(!is_over, "seed {}: {payment:?} ended twice: {end:?}", self.seed);
        match end {
            End::Settled(settlement) => {
                *written = Written::Settled(settlement);
                let waited = now.since(payment.accepted);
                // Sent in vain, a payment waits a while before it goes where it is well.
                let waits_ms = match self.fails {
                    // Each probe may come when it is the other one's turn.
                    Some(Fails::InTurns(_)) => 60_000,
                    Some(Fails::Always(_)) => 10_000,
                    None => 2_000,
                };
                let is_held_up = self.always_clear
                    && *kind == Kind::Good
                    && !payment.guest
                    && self.life == 0
                    && waited > Duration::from_millis(waits_ms);
                assert!(!is_held_up, "seed {}: {} waited {waited:?}", self.seed, payment.id);
            }
            End::Foreign => *written = Written::Foreign,
            End::Rejected(rejection) => {
                *written = Written::Rejected;
                let index = rejection.statuses.iter().position(|it| *it == 200);
                let holds_another = index.is_some_and(|index| {
                    let held = self.held[index].get(&payment.id.0);
                    held.is_some_and(|held| held.amount != payment.amount)
                });
                let is_poison = matches!(kind, Kind::Poison { .. });
                assert!(holds_another || is_poison, "seed {}: {rejection:?}", self.seed);
            }
            End::Released => *written = Written::Free,
            End::InDoubt | End::Kept => {}
            End::Purged => panic!("nobody purges"),
        }
    }

    fn check_end(&self) {
        let seed = self.seed;
        for (number, (payment, kind, written)) in &self.payments {
            let held = self.held.each_ref().map(|books| books.get(number));
            let by_us = held.map(|it| it.is_some_and(|held| held.by_us));
            let story = format!("seed {seed}: {payment:?} {kind:?} {written:?} {held:?}");
            match *written {
                Written::Settled(Settlement { processor, amount, requested_at }) => {
                    let held = held[processor.index()].expect(&story);
                    assert_eq!((held.amount, held.at), (amount, requested_at), "{story}");
                    assert!(!by_us[1 - processor.index()], "{story}");
                }
                Written::Foreign | Written::Rejected => assert_eq!(by_us, [false; 2], "{story}"),
                Written::Free | Written::Attempted(_) => {
                    let stays = kind.is_pinned() || self.stays_in_doubt(written);
                    let is_pinned = stays && by_us == [false; 2];
                    assert!(is_pinned, "never over: {story}");
                }
            }
        }
        let left = self
            .payments
            .values()
            .filter(|(_, _, written)| matches!(written, Written::Free | Written::Attempted(_)));
        let (waiting, in_doubt) = (self.dispatcher.waiting(), self.dispatcher.in_doubt());
        let kept = waiting + in_doubt + self.dispatcher.in_flight();
        assert_eq!(kept, left.count(), "seed {seed}: what is not over is held somewhere");
        assert_eq!(self.dispatcher.is_idle(), kept == 0, "seed {seed}");
    }
}

#[test]
fn whatever_is_answered_nothing_is_booked_twice_and_everything_ends() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("GALO_SEED") {
        return History::new(seed).play();
    }
    let seeds = number("GALO_SEEDS").unwrap_or(SEEDS_BY_DEFAULT);
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    std::thread::scope(|scope| {
        for first in 1..=threads {
            scope.spawn(move || {
                for seed in (first..=seeds).step_by(threads as usize) {
                    let replay = Replay(seed);
                    History::new(seed).play();
                    std::mem::forget(replay);
                }
            });
        }
    });
}

/// Says on failure how to play it again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        let seed = self.0;
        eprintln!("replay: GALO_SEED={seed} cargo test --lib histories");
    }
}
