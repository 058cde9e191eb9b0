//! What an operator decides about a payment that is here.

use super::*;

fn hold(bench: &Bench) -> Held {
    bench.dispatcher.held(PaymentId(0))
}

#[test]
fn where_a_payment_is_and_what_may_be_let_go() {
    let mut bench = Bench::with_payments(1);
    assert_eq!(hold(&bench), Held::Free);
    let post = bench.next().unwrap();
    assert_eq!(hold(&bench), Held::Posted);
    assert!(!bench.dispatcher.let_go(PaymentId(0)), "its answer may be that it is booked");
    assert!(!bench.dispatcher.release_by_hand(PaymentId(0)));
    bench.finish(post, Outcome::Unknown);
    assert_eq!(hold(&bench), Held::InDoubt);
    assert!(bench.dispatcher.let_go(PaymentId(0)));
    assert_eq!(hold(&bench), Held::Nowhere);
    assert!(bench.dispatcher.is_idle());
    assert!(!bench.dispatcher.let_go(PaymentId(0)));
}

/// In whichever place it waits, and while a processor is asked: nobody knows that it was not paid.
#[test]
fn what_somebody_else_may_have_paid_is_told_apart() {
    let mut bench = Bench::with_payments(1);
    bench.dispatcher.set_verifying(true, Moment(0));
    assert_eq!(hold(&bench), Held::Unverified, "in line");
    bench.ms += 60_000;
    let look = bench.wait_for_next();
    assert_eq!((look.question, hold(&bench)), (Question::Look, Held::Unverified));
    bench.finish(look, Outcome::Unknown);
    assert_eq!(hold(&bench), Held::Unverified, "to be asked about again");
    bench.dispatcher.set_verifying(false, Moment(0));
    assert_eq!(hold(&bench), Held::Free);
}

#[test]
fn what_is_known_not_to_be_booked_gives_the_days_money_back() {
    let day = |_| Limits { day: Some(Cents(1)), ..Limits::default() };
    for is_asked in [false, true] {
        let mut bench = Bench::with_policy(Policy { offers: offers(1, day), ..policy() });
        bench.submit(0);
        let post = bench.next().unwrap();
        bench.finish(post, Outcome::Unknown);
        if is_asked {
            bench.wait_for_next();
        }
        assert!(bench.dispatcher.release_by_hand(PaymentId(0)));
        assert_eq!(bench.wait_for_next().question, Question::Pay);
    }
}

/// Whatever the processor says to what was asked before the decision, it counts for nothing.
#[test]
fn the_answer_of_a_look_that_comes_after_the_decision_counts_for_nothing() {
    for outcome in [Outcome::Recorded(Timestamp(5)), Outcome::Absent, Outcome::Unknown] {
        for is_released in [false, true] {
            let mut bench = Bench::with_payments(1);
            let post = bench.next().unwrap();
            bench.finish(post, Outcome::Unknown);
            let look = bench.wait_for_next();
            assert_eq!((look.question, hold(&bench)), (Question::Look, Held::InDoubt));
            match is_released {
                true => assert!(bench.dispatcher.release_by_hand(PaymentId(0))),
                false => assert!(bench.dispatcher.let_go(PaymentId(0))),
            }
            assert_eq!(bench.finish(look, outcome), End::Purged);
            assert_eq!(bench.dispatcher.is_idle(), !is_released);
            assert_eq!(hold(&bench), if is_released { Held::Free } else { Held::Nowhere });
        }
    }
}

#[test]
fn a_released_payment_is_attempted_anew_and_settled_once() {
    let mut bench = Bench::with_payments(1);
    let first = bench.next().unwrap();
    bench.finish(first, Outcome::Unknown);
    assert!(bench.dispatcher.release_by_hand(PaymentId(0)));
    bench.ms += 10;
    let second = bench.wait_for_next();
    assert_eq!(second.question, Question::Pay);
    assert!(second.attempt.requested_at > first.attempt.requested_at, "an attempt of its own");
    assert!(matches!(bench.finish(second, recorded(second)), End::Settled(_)));
    assert!(bench.dispatcher.is_idle());
}

#[test]
fn a_refused_payment_that_waits_can_be_let_go_and_what_somebody_else_drives_cannot() {
    let mut bench = Bench::with_payments(1);
    let post = bench.next().unwrap();
    let declined_at = bench.ms;
    bench.finish(post, DECLINED);
    assert_eq!(hold(&bench), Held::InDoubt);
    assert_eq!(confirm(&mut bench, declined_at).1, End::Released);
    assert_eq!(hold(&bench), Held::Free);
    let post = bench.wait_for_next();
    bench.finish(post, Outcome::Unknown);
    bench.dispatcher.disown(&HashSet::from([PaymentId(0)]));
    assert_eq!(hold(&bench), Held::Disowned);
    assert!(!bench.dispatcher.let_go(PaymentId(0)));
    assert!(!bench.dispatcher.release_by_hand(PaymentId(0)));
}
