//! Payments that processors refuse: when that is believed, and when it is over.

use super::*;
use crate::payments::each;

#[test]
fn a_refusal_is_believed_when_it_is_confirmed_and_then_the_other_one_is_asked() {
    for (status, confirmed_ms) in [(400, 5_000), (404, 5_000), (422, 10_000)] {
        let mut bench = Bench::with_payments(1);
        let first = bench.next().unwrap();
        let declined_at = bench.ms;
        assert_eq!(bench.finish(first, Outcome::Declined { status }), End::InDoubt);
        let (took_ms, end) = confirm(&mut bench, declined_at);
        assert_eq!(end, End::Released);
        assert!((confirmed_ms..confirmed_ms + 500).contains(&took_ms), "{status}: {took_ms}");
        let second = bench.wait_for_next();
        assert_eq!(second.attempt.processor, Processor::FALLBACK);
        assert_eq!(second.attempt.requested_at, bench.at());
    }
}

#[test]
fn who_claims_to_hold_it_is_asked_at_once_and_until_it_says() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Declined { status: 422 });
    let look = bench.next().expect("at once");
    assert_eq!((look.question, look.attempt), (Question::Look, first.attempt));
    // It does not answer that for long, and is not taken to have nothing.
    bench.finish(look, Outcome::Unknown);
    for _ in 0..20 {
        let look = bench.wait_for_next();
        assert_eq!((look.question, look.attempt), (Question::Look, first.attempt));
        assert_eq!(bench.finish(look, Outcome::Unknown), End::InDoubt);
    }
    let look = bench.wait_for_next();
    assert!(matches!(bench.finish(look, recorded(look)), End::Settled(_)));
}

#[test]
fn what_may_mean_that_it_was_booked_is_never_a_refusal() {
    for status in [408, 409, 423, 425, 499] {
        let mut bench = Bench::with_payments(1);
        let first = bench.next().unwrap();
        bench.finish(first, Outcome::Declined { status });
        let mut posts = 0;
        while bench.ms < 120_000 {
            let start = bench.wait_for_next();
            assert_eq!(start.attempt, first.attempt, "{status}");
            posts += u32::from(start.question == Question::Pay);
            let outcome = match start.question {
                Question::Pay => Outcome::Declined { status },
                Question::Look => Outcome::Absent,
            };
            assert_eq!(bench.finish(start, outcome), End::InDoubt);
        }
        assert!((15..40).contains(&posts), "{status}: again and again, with pauses: {posts}");
    }
}

#[test]
fn three_refusals_by_each_processor_and_it_is_over() {
    let mut bench = Bench::with_payments(1);
    let mut asked = Vec::new();
    let end = loop {
        let start = bench.wait_for_next();
        assert_eq!(start.question, Question::Pay);
        let index = start.attempt.processor.index();
        asked.push(index);
        let declined_at = bench.ms;
        bench.finish(start, Outcome::Declined { status: 400 + index as u16 });
        match confirm(&mut bench, declined_at) {
            (_, End::Released) => {}
            (_, end) => break end,
        }
    };
    assert_eq!(asked, [0, 1, 0, 1, 0, 1]);
    let (id, amount, accepted_at) = (PaymentId(0), Cents(1), Timestamp(1_000));
    let statuses = each([400, 401]);
    assert_eq!(end, End::Rejected(Rejection { id, amount, statuses, accepted_at }));
    assert!(bench.dispatcher.is_idle());
}

/// The other one's turn never came, and so it was never sent again to the one that is well.
#[test]
fn a_refused_payment_goes_back_while_the_one_whose_turn_it_is_fails() {
    for slow_at_first in [false, true] {
        let mut bench = Bench::with_payments(1);
        let at_the_fallback = |bench: &mut Bench, outcome: fn(Start) -> Outcome| {
            let begun = bench.ms;
            loop {
                let start = bench.wait_for_next();
                assert!(bench.ms - begun < 60_000, "it is never sent to the fallback");
                match start.attempt.processor {
                    Processor::DEFAULT => bench.finish(start, FAILING),
                    _ => return bench.finish(start, outcome(start)),
                };
            }
        };
        at_the_fallback(&mut bench, |_| DECLINED);
        let declined_at = bench.ms;
        assert_eq!(confirm(&mut bench, declined_at).1, End::Released);
        if slow_at_first {
            // Then both are down, and each is tried in its turn.
            bench.report(Processor::FALLBACK, false, 5_000);
        }
        assert!(matches!(at_the_fallback(&mut bench, recorded), End::Settled(_)));
        assert!(bench.dispatcher.is_idle());
    }
}

#[test]
fn an_earlier_request_of_unknown_outcome_keeps_a_refused_payment_where_it_is() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    let (mut refusals, mut answered_at) = (0, bench.ms);
    let end = loop {
        let start = bench.wait_for_next();
        assert_eq!(start.attempt, first.attempt);
        let outcome = match start.question {
            Question::Pay => {
                let pause_ms = if refusals > 0 { 1_000 } else { 0 };
                assert!(bench.ms - answered_at >= pause_ms, "a pause after each refusal");
                DECLINED
            }
            Question::Look => Outcome::Absent,
        };
        answered_at = bench.ms;
        refusals += u32::from(start.question == Question::Pay);
        match bench.finish(start, outcome) {
            End::InDoubt => {}
            end => break end,
        }
    };
    assert!(matches!(end, End::Rejected(_)), "{end:?}");
    assert_eq!(refusals, 3);
}

#[test]
fn a_booking_under_another_amount_ends_it() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    let look = bench.wait_for_next();
    let End::Rejected(rejection) = bench.finish(look, Outcome::OtherAmount) else {
        panic!("it is over");
    };
    let reason = crate::payments::Reason::OtherAmount(Processor::DEFAULT);
    assert_eq!(rejection.reason(), reason);
    assert!(bench.dispatcher.is_idle());
}

/// Fifty payments that every processor refuses took every probe, and both processors down.
#[test]
fn refusals_say_nothing_about_a_processor_and_hold_nobody_up() {
    let mut bench = Bench::with_payments(50);
    let poison: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    poison.into_iter().for_each(|start| _ = bench.finish(start, DECLINED));
    for number in 50..2_050 {
        bench.ms += 10;
        bench.submit(number);
        let mut good = false;
        while let Some(start) = bench.next() {
            let is_poison = id(start) < 50;
            good |= !is_poison;
            let outcome = match start.question {
                Question::Look => Outcome::Absent,
                Question::Pay if is_poison => DECLINED,
                Question::Pay => recorded(start),
            };
            bench.finish(start, outcome);
        }
        assert!(good, "{number} is sent as soon as it has come");
        for processor in Processor::CONTEST {
            assert_eq!(bench.dispatcher.observed(processor).state(), State::Up);
        }
    }
}

/// Found by a history: out of touch it could only be looked at, and each answer that it was not there
/// was taken for one more refusal, until a good payment was rejected.
#[test]
fn looks_alone_do_not_add_up_to_refusals() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    bench.dispatcher.set_reach(Reach::Cheapest);
    let mut posts = 0;
    for _ in 0..100 {
        let start = bench.wait_for_next();
        posts += u32::from(start.question == Question::Pay);
        let outcome = match start.question {
            Question::Pay => DECLINED,
            Question::Look => Outcome::Absent,
        };
        if posts == 1 && start.question == Question::Pay {
            // It was the cheaper one until now.
            let offers = Offers::contest([Fee(150_000), Fee(50_000)], 100);
            let policy = Policy { offers, ..policy() };
            bench.dispatcher.policy = policy;
        }
        assert_eq!(bench.finish(start, outcome), End::InDoubt);
    }
    assert_eq!(posts, 1);
}
