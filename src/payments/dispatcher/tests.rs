//! The dispatcher against the rules of a payment's life, one by one; and at random against model
//! processors that lose answers, book late, fail and refuse.

mod by_hand;
mod changed;
mod elsewhere;
mod faults;
mod histories;
mod refusals;

use super::*;
use crate::base::money::{Cents, Fee};
use crate::payments::fee::FeeSchedule;
use crate::payments::terms::{Limits, Offers, Terms};
use crate::payments::{PaymentId, Totals};
use std::collections::{BTreeMap, BTreeSet};

fn policy() -> Policy {
    Policy {
        offers: Offers::contest([Fee(50_000), Fee(150_000)], 100),
        patience: Duration::from_millis(100),
        attempt_latency_max: Duration::from_millis(1_300),
        books_within: Duration::from_secs(15),
    }
}

const FAILING: Outcome = Outcome::NotRecorded(Refusal::Failing);
const DECLINED: Outcome = Outcome::Declined { status: 400 };

/// So many processors, two as the contest's are; with limits by number.
fn offers(count: usize, limits: impl Fn(usize) -> Limits) -> Offers {
    let mut terms = Each::default();
    for (number, terms) in terms.iter_mut().enumerate().take(count) {
        let is_fixed = count > 2 && number % 2 == 1;
        let (percent, fixed) = if is_fixed { (number, 8) } else { (5 + 10 * number, 0) };
        let fee = FeeSchedule { share: Fee(percent as u32 * 10_000), fixed: Cents(fixed) };
        *terms = Some(Terms { fee, limits: limits(number) });
    }
    Offers::new(terms)
}

/// A dispatcher and the time, in milliseconds on both clocks.
struct Bench {
    dispatcher: Dispatcher,
    ms: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_policy(policy())
    }

    fn with_policy(policy: Policy) -> Bench {
        Bench { dispatcher: Dispatcher::new(policy, false, 7), ms: 1_000 }
    }

    /// Of several the one that is the cheapest depends on the amount.
    fn with_processors(count: usize) -> Bench {
        Bench::with_policy(Policy { offers: offers(count, |_| Limits::default()), ..policy() })
    }

    /// With so many payments, of the ids 0, 1, … and 1, 2, … cents, accepted a millisecond apart.
    fn with_payments(count: u64) -> Bench {
        let mut bench = Bench::new();
        for id in 0..count {
            bench.submit(id);
            bench.ms += 1;
        }
        bench
    }

    fn now(&self) -> Moment {
        Moment(self.ms * 1_000)
    }

    fn at(&self) -> Timestamp {
        Timestamp(self.ms as i64)
    }

    fn submit(&mut self, id: u64) {
        let (accepted, accepted_at) = (self.now(), self.at());
        let (id, amount) = (PaymentId(u128::from(id)), Cents(id as i64 + 1));
        self.dispatcher.submit(Payment {
            id,
            amount,
            accepted,
            accepted_at,
            guest: false,
            verify: false,
        });
    }

    fn next(&mut self) -> Option<Start> {
        let start = self.dispatcher.next(self.now(), self.at());
        if let Some(start) = start {
            self.dispatcher.sent(start.flight, self.now());
        }
        self.assert_one_place();
        start
    }

    fn finish(&mut self, start: Start, outcome: Outcome) -> End {
        let end = self.dispatcher.finished(start.flight, outcome, self.now());
        self.assert_one_place();
        end
    }

    fn report(&mut self, processor: Processor, failing: bool, response_ms: u64) {
        let report = Report { failing, response_min: Duration::from_millis(response_ms) };
        self.dispatcher.reported(processor, report, self.now());
    }

    /// Waits until there is something to send.
    fn wait_for_next(&mut self) -> Start {
        for _ in 0..60_000 {
            if let Some(start) = self.next() {
                return start;
            }
            self.ms += 1;
            self.dispatcher.watch(self.now());
        }
        panic!("nothing to send for a minute");
    }

    /// The ids of all payments held, each once: otherwise it could be paid twice.
    fn assert_one_place(&self) -> BTreeSet<u128> {
        let dispatcher = &self.dispatcher;
        let mut ids = BTreeSet::new();
        let mut insert = |payment: &Payment| {
            assert!(ids.insert(payment.id.0), "{} is in two places", payment.id);
        };
        let refused = dispatcher.refused.iter().flat_map(Agenda::iter);
        let free = dispatcher.lines.iter().chain(refused);
        let doubts = dispatcher.doubts().flat_map(Agenda::iter).map(|(case, _)| case);
        let unverified = dispatcher.unverified.iter().flat_map(Agenda::iter);
        let open = unverified.clone().filter(|it| it.open.is_some()).count();
        assert_eq!(dispatcher.unverified_doubts, open);
        let flights = dispatcher.flights.iter().flatten().filter(|flight| !flight.purged);
        free.chain(doubts)
            .chain(unverified.map(|it| &it.case))
            .chain(flights.map(|flight| &flight.case))
            .for_each(|case| insert(&case.payment));
        let flying = dispatcher.flights.iter().flatten().count();
        assert_eq!(dispatcher.in_flight(), flying);
        for line in dispatcher.lines.as_slice() {
            assert!(line.fresh.iter().is_sorted_by_key(|case| case.payment.accepted));
        }
        assert_eq!(dispatcher.held, ids.len());
        ids
    }
}

/// Looks at the one payment until its refusal is confirmed; how long that took, and what it was.
fn confirm(bench: &mut Bench, declined_at: u64) -> (u64, End) {
    loop {
        let look = bench.wait_for_next();
        assert_eq!(look.question, Question::Look);
        let end = bench.finish(look, Outcome::Absent);
        if end != End::InDoubt {
            return (bench.ms - declined_at, end);
        }
    }
}

fn recorded(start: Start) -> Outcome {
    Outcome::Recorded(start.attempt.requested_at)
}

fn id(start: Start) -> u128 {
    start.attempt.payment.id.0
}

#[test]
fn a_payment_leaves_by_being_settled_and_only_so() {
    let mut bench = Bench::with_payments(3);
    for left in (0..3).rev() {
        let start = bench.next().unwrap();
        assert_eq!((start.question, start.attempt.processor), (Question::Pay, Processor::DEFAULT));
        assert_eq!(start.attempt.requested_at, bench.at());
        let end = bench.finish(start, recorded(start));
        let Attempt { payment, processor, requested_at } = start.attempt;
        assert_eq!(
            end,
            End::Settled(Settlement { processor, amount: payment.amount, requested_at })
        );
        assert_eq!(bench.assert_one_place().len(), left);
    }
    assert!(bench.dispatcher.is_idle());
}

#[test]
fn first_in_first_out_also_after_failures() {
    let mut bench = Bench::with_payments(5);
    let starts: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    assert_eq!(starts.iter().map(|start| id(*start)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    // They fail in another order than they were sent, and one is accepted meanwhile.
    bench.submit(5);
    for index in [1, 0, 4, 2, 3] {
        assert_eq!(bench.finish(starts[index], FAILING), End::Released);
    }
    bench.ms += 500;
    let mut order = Vec::new();
    for _ in 0..6 {
        let start = bench.wait_for_next();
        order.push(id(start));
        bench.finish(start, recorded(start));
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn after_a_certain_failure_the_next_attempt_gets_a_fresh_time() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.ms += 40;
    bench.finish(first, FAILING);
    let second = bench.next().unwrap();
    assert_eq!(second.attempt.requested_at.0, first.attempt.requested_at.0 + 40);
}

#[test]
fn no_attempt_claims_a_time_before_its_payment_was_accepted() {
    let mut bench = Bench::with_payments(1);
    let start = bench.dispatcher.next(bench.now(), Timestamp(3)).unwrap();
    assert_eq!(start.attempt.requested_at, start.attempt.payment.accepted_at);
}

#[test]
fn what_was_withheld_is_due_again_at_once_and_tells_nothing_of_the_processor() {
    let mut bench = Bench::with_payments(1);
    for _ in 0..10 {
        let start = bench.next().expect("at once");
        assert_eq!(start.attempt.processor, Processor::DEFAULT);
        let withheld = Outcome::NotRecorded(Refusal::Withheld);
        assert_eq!(bench.finish(start, withheld), End::Released);
    }
}

#[test]
fn an_unknown_outcome_pins_the_payment_to_its_processor_and_time() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    assert_eq!(bench.finish(first, Outcome::Unknown), End::InDoubt);
    // The cheaper one is certainly down, the dearer one is well: still nothing goes there.
    bench.report(Processor::DEFAULT, true, 0);
    bench.ms += 1_000;
    let mut questions = Vec::new();
    for outcome in [
        Outcome::Unknown,
        Outcome::Absent,
        FAILING,
        Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 5_000 }),
        Outcome::NotRecorded(Refusal::Unreachable),
        Outcome::Absent,
        Outcome::Unknown,
    ] {
        let start = bench.wait_for_next();
        assert_eq!(start.attempt, first.attempt);
        questions.push(start.question);
        assert_eq!(bench.finish(start, outcome), End::InDoubt, "a doubt stays one: {outcome:?}");
        assert_eq!(bench.dispatcher.in_doubt(), 1);
    }
    use Question::{Look, Pay};
    assert_eq!(questions, [Look, Look, Pay, Look, Look, Look, Pay]);
    let last = bench.wait_for_next();
    assert_eq!((last.question, last.attempt), (Look, first.attempt));
    assert!(matches!(bench.finish(last, recorded(last)), End::Settled(_)));
    assert!(bench.dispatcher.is_idle());
}

#[test]
fn a_doubt_is_paid_again_only_after_the_processor_said_it_has_nothing() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    assert_eq!(bench.next(), None, "not at once");
    let look = bench.wait_for_next();
    assert_eq!(look.question, Question::Look);
    bench.finish(look, Outcome::Absent);
    let pay = bench.next().expect("a processor that is up is asked to pay at once");
    assert_eq!((pay.question, pay.attempt), (Question::Pay, first.attempt));
    // It had been booked after all, under the time of the attempt.
    assert!(matches!(bench.finish(pay, recorded(pay)), End::Settled(_)));
}

/// It may be working at the request of the process before: an auditor would find it booked a moment
/// later, and left out of the totals.
#[test]
fn that_a_processor_does_not_hold_an_earlier_attempt_is_not_known_for_good() {
    let mut earlier = Bench::with_payments(1);
    let Start { attempt, .. } = earlier.next().unwrap();
    for is_booked in [true, false] {
        let mut bench = Bench::new();
        bench.dispatcher.submit_doubt(attempt, bench.now());
        let until = bench.now() + PAST_KNOWN_WITHIN;
        let look = bench.wait_for_next();
        assert_eq!(look.question, Question::Look);
        bench.finish(look, Outcome::Absent);
        assert!(bench.dispatcher.is_unsure(bench.now()));
        let pay = bench.wait_for_next();
        assert_eq!((pay.question, pay.attempt), (Question::Pay, attempt));
        bench.finish(pay, if is_booked { recorded(pay) } else { Outcome::Unknown });
        assert_eq!(bench.dispatcher.is_unsure(bench.now()), !is_booked);
        assert!(!bench.dispatcher.is_unsure(until), "not for ever");
    }
}

/// Wherever they wait and while they are asked about; not those that nobody has sent anywhere.
#[test]
fn open_attempts_are_counted_by_their_age() {
    let mut bench = Bench::with_payments(3);
    let ages = |bench: &Bench| {
        let ages = [1, 10, 60].map(Duration::from_secs);
        bench.dispatcher.open_longer_than(ages, bench.at())
    };
    let starts = [bench.next(), bench.next()].map(Option::unwrap);
    assert_eq!(ages(&bench), [0, 0, 0]);
    bench.ms += 1_001;
    assert_eq!(ages(&bench), [2, 0, 0]);
    bench.finish(starts[0], Outcome::Unknown);
    bench.ms += 9_000;
    assert_eq!(ages(&bench), [2, 2, 0], "in flight, and in doubt");
    bench.finish(starts[1], recorded(starts[1]));
    assert_eq!(ages(&bench), [1, 1, 0]);
    bench.ms += 60_000;
    let look = std::iter::from_fn(|| bench.next()).find(|it| it.question == Question::Look);
    assert!(look.is_some());
    assert_eq!(ages(&bench)[1..], [1, 1], "asked about");
    bench.dispatcher.purge();
    assert_eq!(ages(&bench), [0, 0, 0]);
}

#[test]
fn doubts_are_asked_about_with_growing_pauses() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    for pause_ms in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        let before_ms = bench.ms;
        let start = bench.wait_for_next();
        let waited_ms = bench.ms - before_ms;
        assert!((pause_ms..=pause_ms * 5 / 4 + 1).contains(&waited_ms), "{waited_ms}");
        bench.finish(start, Outcome::Unknown);
    }
}

#[test]
fn a_doubt_at_a_processor_that_stays_slow_is_not_forgotten() {
    // Reports every 5 s said "slow", each put the next probe off, and a payment in doubt that was
    // absent waited for ever.
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    bench.report(Processor::DEFAULT, false, 2_000);
    let pay = loop {
        let start = bench.wait_for_next();
        bench.report(Processor::DEFAULT, false, 2_000);
        match start.question {
            Question::Look => bench.finish(start, Outcome::Absent),
            Question::Pay => break start,
        };
        assert!(bench.ms < 20_000, "asked to pay within seconds");
    };
    assert_eq!(pay.attempt, first.attempt);
}

#[test]
fn at_most_so_many_looks_at_once() {
    let mut bench = Bench::with_payments(60);
    let starts: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    assert_eq!(starts.len(), 60);
    for start in starts {
        bench.finish(start, Outcome::Unknown);
    }
    bench.ms += 100;
    let looks: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    assert_eq!(looks.len(), LOOKS_MAX);
    assert!(looks.iter().all(|start| start.question == Question::Look));
    bench.finish(looks[0], recorded(looks[0]));
    assert!(bench.next().is_some());
    assert_eq!(bench.next(), None);
}

#[test]
fn a_down_processor_is_probed_with_one_payment_at_a_time() {
    let mut bench = Bench::with_payments(50);
    bench.report(Processor::DEFAULT, true, 0);
    bench.report(Processor::FALLBACK, true, 0);
    bench.ms += 2_000;
    let default = bench.next().unwrap();
    let fallback = bench.next().unwrap();
    assert_eq!(default.attempt.processor, Processor::DEFAULT);
    assert_eq!(fallback.attempt.processor, Processor::FALLBACK);
    assert_eq!(bench.next(), None);
    bench.finish(default, FAILING);
    assert_eq!(bench.next(), None, "a pause comes first");
    bench.finish(fallback, recorded(fallback));
    let chance = bench.next().expect("the cheaper one gets its chance before the backlog goes");
    assert_eq!(chance.attempt.processor, Processor::DEFAULT);
    assert_eq!(bench.next(), None, "within patience");
    bench.finish(chance, recorded(chance));
    let rest: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    assert_eq!(rest.len(), 48);
    assert!(rest.iter().all(|start| start.attempt.processor == Processor::DEFAULT));
}

#[test]
fn both_slow_is_no_reason_to_stand_still() {
    // Reports that said "slow" of both put every probe off, again and again.
    let mut bench = Bench::with_payments(10);
    let mut tried = BTreeSet::new();
    for _ in 0..20_000 {
        if bench.ms.is_multiple_of(5_000) {
            bench.report(Processor::DEFAULT, false, 3_000);
            bench.report(Processor::FALLBACK, false, 3_000);
        }
        if bench.ms > 5_000
            && let Some(start) = bench.next()
        {
            tried.insert(start.attempt.processor);
        }
        bench.ms += 1;
    }
    assert_eq!(tried.len(), 2);
}

#[test]
fn a_payment_of_somebody_else_is_let_go() {
    let mut bench = Bench::with_payments(1);
    let start = bench.next().unwrap();
    assert_eq!(bench.finish(start, Outcome::Foreign), End::Foreign);
    assert!(bench.dispatcher.is_idle());
}

#[test]
fn a_purge_forgets_everything_but_lets_requests_end() {
    let mut bench = Bench::with_payments(104);
    let mut starts: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    assert_eq!(starts.len(), 100);
    bench.finish(starts.pop().unwrap(), Outcome::Unknown);
    bench.finish(starts.pop().unwrap(), DECLINED);
    bench.dispatcher.purge();
    assert_eq!((bench.dispatcher.waiting(), bench.dispatcher.in_doubt()), (0, 0));
    assert_eq!(bench.dispatcher.in_flight(), 98);
    for (start, outcome) in starts.into_iter().zip([FAILING, Outcome::Unknown].iter().cycle()) {
        assert_eq!(bench.finish(start, *outcome), End::Purged);
    }
    assert!(bench.dispatcher.is_idle());
    bench.ms += 20_000;
    assert_eq!(bench.next(), None);
}

#[test]
fn a_call_to_watch_that_comes_late_does_not_judge() {
    let mut bench = Bench::with_payments(1);
    bench.dispatcher.watch(bench.now());
    bench.dispatcher.watch(bench.now());
    bench.next().unwrap();
    let state = |bench: &Bench| bench.dispatcher.observed(Processor::DEFAULT).state();
    bench.ms += 200;
    bench.dispatcher.watch(bench.now());
    assert_eq!(state(&bench), State::Up, "it was us who stood still");
    bench.ms += 200;
    bench.dispatcher.watch(bench.now());
    assert_eq!(
        state(&bench),
        State::Down(super::super::observed::Trouble::Stalled),
        "not for ever"
    );
}

#[test]
fn flight_numbers_may_wrap() {
    let mut bench = Bench::with_payments(4);
    bench.dispatcher.sequence = u32::MAX - 1;
    let starts: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    for start in starts {
        assert!(matches!(bench.finish(start, recorded(start)), End::Settled(_)));
    }
    assert!(bench.dispatcher.is_idle());
}

#[test]
#[should_panic(expected = "a flight ends once")]
fn a_flight_ends_once() {
    let mut bench = Bench::with_payments(1);
    let start = bench.next().unwrap();
    bench.finish(start, FAILING);
    bench.finish(start, FAILING);
}

#[test]
fn fresh_payments_come_first_and_repeated_ones_get_their_share() {
    const WINDOW: usize = 4;
    let offers = policy().offers.with_concurrency(|_| WINDOW as u32);
    let policy = Policy { offers, ..policy() };
    let mut bench = Bench { dispatcher: Dispatcher::new(policy, false, 7), ms: 1_000 };
    bench.submit(0);
    // It was sent in vain too often, while others were booked.
    for number in 0..=u64::from(TRIES_AT_ONCE) {
        let start = bench.wait_for_next();
        assert_eq!(id(start), 0);
        bench.submit(10_000 + number);
        let good = bench.next().unwrap();
        bench.finish(good, recorded(good));
        bench.finish(start, FAILING);
    }
    assert_eq!(bench.next(), None, "not at once");
    bench.ms += 10_000;
    let mut before = 0;
    for number in 1..100 {
        (0..WINDOW as u64).for_each(|it| bench.submit(number * 10 + it));
        let start = bench.next().expect("there is always a fresh one");
        if id(start) == 0 {
            break;
        }
        before += 1;
        bench.finish(start, recorded(start));
    }
    assert!((1..REPEATS_ONE_IN).contains(&before), "after {before} fresh ones");
}

/// A processor at a gateway that answered 503 with a body got a fresh payment with every probe, and
/// each of them was in doubt from then on.
#[test]
fn an_outage_puts_no_more_payments_in_doubt() {
    let mut bench = Bench::new();
    let mut in_doubt = BTreeSet::new();
    for number in 0..4_000 {
        bench.ms += 10;
        bench.submit(number);
        while let Some(start) = bench.next() {
            let is_down = start.attempt.processor == Processor::DEFAULT;
            let outcome = match start.question {
                Question::Look => Outcome::Absent,
                Question::Pay if is_down => Outcome::Unknown,
                Question::Pay => recorded(start),
            };
            if bench.finish(start, outcome) == End::InDoubt {
                in_doubt.insert(id(start));
            }
        }
    }
    // Those until it was known to be down, and one for each that it was probed with often enough.
    assert!(in_doubt.len() < 12, "{} in 40 s", in_doubt.len());
    let end_ms = bench.ms + 20_000;
    while bench.dispatcher.in_doubt() > 0 && bench.ms < end_ms {
        bench.ms += 10;
        while let Some(start) = bench.next() {
            let outcome =
                if start.question == Question::Pay { recorded(start) } else { Outcome::Absent };
            bench.finish(start, outcome);
        }
    }
    assert!(bench.dispatcher.is_idle(), "when it is over they are paid");
}

#[test]
fn the_clock_of_an_attempt_starts_when_it_goes_out() {
    let mut bench = Bench::with_payments(1);
    let start = bench.dispatcher.next(bench.now(), bench.at()).unwrap();
    // Our disk takes its time.
    for _ in 0..300 {
        bench.ms += 10;
        bench.dispatcher.watch(bench.now());
    }
    let seen = |bench: &Bench| {
        let seen = bench.dispatcher.observed(Processor::DEFAULT);
        (seen.state(), seen.latency())
    };
    assert_eq!(seen(&bench), (State::Up, Duration::ZERO));
    assert_eq!(bench.dispatcher.oldest(Processor::DEFAULT), None);
    bench.dispatcher.sent(start.flight, bench.now());
    assert_eq!(bench.dispatcher.oldest(Processor::DEFAULT), Some(bench.now()));
    bench.ms += 10;
    bench.finish(start, recorded(start));
    assert_eq!(seen(&bench), (State::Up, Duration::from_millis(5)));
}

/// It waits longer and longer, and each time a probe was due: it was that one for ever.
#[test]
fn a_lone_payment_goes_where_it_is_well_while_the_other_one_fails() {
    let mut bench = Bench::with_payments(1);
    let begun = bench.ms;
    for _ in 0..100 {
        let start = bench.wait_for_next();
        let is_well = start.attempt.processor == Processor::FALLBACK;
        bench.ms += 1;
        bench.finish(start, if is_well { recorded(start) } else { FAILING });
        if is_well {
            assert!(bench.ms - begun <= 2_000, "after {} ms", bench.ms - begun);
            return assert!(bench.dispatcher.is_idle());
        }
    }
    panic!("always sent to the one that fails");
}

#[test]
fn a_payment_that_has_to_wait_is_in_nobodys_way_but_of_those_like_it() {
    // Small ones only at the first, large ones only at the second.
    let limits = |number| match number {
        0 => Limits { largest: Some(Cents(5)), concurrency: 1, ..Limits::default() },
        _ => Limits { smallest: Some(Cents(6)), ..Limits::default() },
    };
    let mut bench = Bench::with_policy(Policy { offers: offers(2, limits), ..policy() });
    (0..10).for_each(|id| bench.submit(id));
    let mut sent = Vec::new();
    while let Some(start) = bench.next() {
        sent.push((start.attempt.processor.number(), id(start)));
    }
    assert_eq!(sent, [(0, 0), (1, 5), (1, 6), (1, 7), (1, 8), (1, 9)]);
}

#[test]
fn what_is_too_much_for_today_waits_for_tomorrow_and_lets_others_pass() {
    let limits = |_| Limits { day: Some(Cents(9)), ..Limits::default() };
    let mut bench = Bench::with_policy(Policy { offers: offers(1, limits), ..policy() });
    // Of 5, 6 and 4 cents.
    [4, 5, 3].into_iter().for_each(|id| bench.submit(id));
    let (first, second) = (bench.next().unwrap(), bench.next().unwrap());
    assert_eq!([id(first), id(second)], [4, 3]);
    assert_eq!(bench.next(), None);
    // What was not booked leaves room for others.
    bench.finish(first, FAILING);
    assert!(matches!(bench.finish(second, recorded(second)), End::Settled(_)));
    let again = bench.wait_for_next();
    assert_eq!(id(again), 4);
    bench.finish(again, recorded(again));
    bench.ms += 24 * 60 * 60 * 1_000;
    assert_eq!(id(bench.wait_for_next()), 5);
}

#[test]
fn before_it_is_paid_at_one_all_others_have_said_that_they_do_not_hold_it() {
    let mut bench = Bench::with_processors(5);
    let (accepted, accepted_at) = (bench.now(), bench.at());
    let (id, amount) = (PaymentId(9), Cents(10));
    let (guest, verify) = (false, true);
    bench.dispatcher.submit(Payment { id, amount, accepted, accepted_at, guest, verify });
    let mut asked = BTreeSet::new();
    let pay = loop {
        let start = bench.wait_for_next();
        if start.question == Question::Pay {
            break start;
        }
        // One does not say so at first.
        let is_first = asked.len() == 2 && bench.ms < 1_200;
        let outcome = if is_first { Outcome::Unknown } else { Outcome::Absent };
        if !is_first {
            asked.insert(start.attempt.processor);
        }
        bench.ms += 300;
        bench.finish(start, outcome);
    };
    asked.insert(pay.attempt.processor);
    assert_eq!(asked.len(), 5);
}
