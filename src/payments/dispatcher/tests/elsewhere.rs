//! Payments that may have been driven elsewhere, or may go to one processor only.

use super::*;

impl Bench {
    fn submit_as(&mut self, id: u64, change: impl Fn(&mut Payment)) {
        let (accepted, accepted_at) = (self.now(), self.at());
        let (id, amount) = (PaymentId(u128::from(id)), Cents(id as i64 + 1));
        let mut payment =
            Payment { id, amount, accepted, accepted_at, guest: false, verify: false };
        change(&mut payment);
        self.dispatcher.submit(payment);
    }
}

#[test]
fn what_may_have_been_driven_elsewhere_is_asked_for_there_first() {
    for (outcome, expected) in [
        (Outcome::Recorded(Timestamp(5_000)), "Settled"),
        (Outcome::Foreign, "Foreign"),
        (Outcome::OtherAmount, "Rejected"),
        (Outcome::Absent, "Kept"),
        (Outcome::Unknown, "Kept"),
        (Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 9 }), "Kept"),
    ] {
        let mut bench = Bench::new();
        bench.submit_as(1, |payment| payment.verify = true);
        let look = bench.next().unwrap();
        assert_eq!((look.question, look.attempt.processor), (Question::Look, Processor::FALLBACK));
        assert_eq!(bench.next(), None, "nothing before the answer");
        let end = bench.finish(look, outcome);
        assert!(format!("{end:?}").starts_with(expected), "{outcome:?}: {end:?}");
        if let End::Settled(settlement) = end {
            assert_eq!(settlement.processor, Processor::FALLBACK);
        }
        if expected == "Kept" {
            let next = bench.wait_for_next();
            let is_absent = outcome == Outcome::Absent;
            let question = if is_absent { Question::Pay } else { Question::Look };
            assert_eq!(next.question, question, "{outcome:?}");
        } else {
            assert!(bench.dispatcher.is_idle());
        }
    }
}

#[test]
fn what_was_said_long_ago_is_asked_again() {
    let mut bench = Bench::new();
    bench.report(Processor::DEFAULT, true, 5_000);
    let probe = {
        bench.submit(0);
        bench.next().unwrap()
    };
    bench.submit_as(1, |payment| payment.verify = true);
    let look = bench.next().unwrap();
    assert_eq!(look.question, Question::Look);
    bench.finish(look, Outcome::Absent);
    bench.ms += 1_100;
    bench.finish(probe, recorded(probe));
    let next = bench.wait_for_next();
    assert_eq!((id(next), next.question), (1, Question::Look), "a second is long");
    bench.finish(next, Outcome::Absent);
    assert_eq!(bench.next().unwrap().question, Question::Pay);
}

/// A journal was put back as it was a while ago, right after a kill. The request of the process
/// before was under way: its processor did not hold the payment yet, and it went to the other one.
#[test]
fn after_a_copy_was_put_back_no_processor_is_believed_before_all_is_booked() {
    let mut bench = Bench::new();
    bench.submit_as(0, |payment| payment.verify = true);
    bench.submit(1);
    bench.dispatcher.set_verifying(true, bench.now());
    let put_back_at = bench.now();
    let first = bench.wait_for_next();
    assert!(bench.now().since(put_back_at) >= policy().books_within);
    let second = bench.next().unwrap();
    for look in [first, second] {
        assert_eq!((look.question, look.attempt.processor), (Question::Look, Processor::FALLBACK));
        bench.dispatcher.set_verifying(true, bench.now());
        assert_eq!(bench.finish(look, Outcome::Absent), End::Kept);
        let pay = bench.wait_for_next();
        assert_eq!((id(pay), pay.question), (id(look), Question::Pay), "it is waited for once");
        bench.finish(pay, recorded(pay));
    }
    bench.dispatcher.set_verifying(false, bench.now());
    bench.submit(2);
    assert_eq!(bench.next().unwrap().question, Question::Pay);
}

/// A hung fallback stalled a healthy default, because the question about guests ran inside the
/// flight that was measured against it.
#[test]
fn a_hung_processor_holds_up_only_those_it_has_to_be_asked_about() {
    let mut bench = Bench::new();
    let mut hanging = 0;
    for number in 0..3_000 {
        bench.ms += 10;
        let guest = number % 2 == 0;
        bench.submit_as(number, |payment| (payment.guest, payment.verify) = (guest, guest));
        let mut paid = false;
        while let Some(start) = bench.next() {
            match start.question {
                Question::Pay => {
                    assert_eq!(start.attempt.processor, Processor::DEFAULT);
                    paid = true;
                    bench.finish(start, recorded(start));
                }
                // Never answered.
                Question::Look => hanging += 1,
            }
        }
        assert!(paid || guest, "{number} is paid at once");
        bench.dispatcher.watch(bench.now());
        assert_eq!(bench.dispatcher.observed(Processor::DEFAULT).state(), State::Up);
    }
    assert_eq!(hanging, LOOKS_MAX);
    assert_eq!(bench.dispatcher.oldest(Processor::FALLBACK), None, "looks are no attempts");
}

#[test]
fn a_doubt_that_may_have_been_driven_elsewhere_is_verified_before_it_is_posted_again() {
    let mut bench = Bench::new();
    let payment = Payment {
        id: PaymentId(1),
        amount: Cents(2),
        accepted: bench.now(),
        accepted_at: bench.at(),
        guest: false,
        verify: true,
    };
    let attempt =
        Attempt { payment, processor: Processor::DEFAULT, requested_at: Timestamp(1_000) };
    bench.dispatcher.submit_doubt(attempt, bench.now());
    let own = bench.wait_for_next();
    assert_eq!((own.question, own.attempt), (Question::Look, attempt));
    assert_eq!(bench.finish(own, Outcome::Absent), End::InDoubt);
    let other = bench.wait_for_next();
    assert_eq!((other.question, other.attempt.processor), (Question::Look, Processor::FALLBACK));
    assert_eq!(bench.dispatcher.in_doubt(), 0);
    assert_eq!(bench.finish(other, Outcome::Absent), End::InDoubt);
    let again = bench.wait_for_next();
    assert_eq!((again.question, again.attempt), (Question::Pay, attempt));
}

/// While the other processor says nothing, the one it was sent to is asked as well: what it shows
/// late is counted, and need not wait for the other one.
#[test]
fn a_doubt_that_waits_for_the_other_processor_is_found_where_it_was_sent() {
    let mut bench = Bench::new();
    bench.submit_as(1, |payment| payment.verify = true);
    let look = bench.next().unwrap();
    bench.finish(look, Outcome::Absent);
    let pay = bench.wait_for_next();
    bench.finish(pay, Outcome::Unknown);
    let requested_at = pay.attempt.requested_at;
    // By then what the other one has said is long ago.
    for _ in 0..4 {
        let own = bench.wait_for_next();
        assert_eq!((own.question, own.attempt), (Question::Look, pay.attempt));
        bench.finish(own, Outcome::Absent);
        bench.ms += 1_100;
        let other = bench.wait_for_next();
        assert_eq!(
            (other.question, other.attempt.processor),
            (Question::Look, Processor::FALLBACK)
        );
        assert_eq!(bench.finish(other, Outcome::Unknown), End::InDoubt);
    }
    let own = bench.wait_for_next();
    let end = bench.finish(own, Outcome::Recorded(requested_at));
    assert!(matches!(end, End::Settled(_)), "{end:?}");
    assert!(bench.dispatcher.is_idle());
}

#[test]
fn guests_and_an_instance_out_of_touch_use_only_the_cheaper_one() {
    for reach in [Reach::Every, Reach::Cheapest] {
        let mut bench = Bench::new();
        bench.dispatcher.set_reach(reach);
        // The cheaper one is down, and has no probe due.
        for number in 0..3 {
            bench.submit(number);
        }
        let starts: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
        starts.into_iter().for_each(|start| _ = bench.finish(start, FAILING));
        bench.submit_as(100, |payment| payment.guest = true);
        bench.ms += 20;
        let mut own = 0;
        for _ in 0..1_000 {
            bench.ms += 1;
            while let Some(start) = bench.next() {
                if start.attempt.processor == Processor::DEFAULT {
                    bench.finish(start, FAILING);
                    continue;
                }
                assert!(reach == Reach::Every && !start.attempt.payment.guest);
                own += 1;
                bench.finish(start, recorded(start));
            }
        }
        // The guest, or the first of all, is not in the way of those that may go to the other one.
        assert_eq!(own, if reach == Reach::Every { 3 } else { 0 });
        bench.dispatcher.set_reach(Reach::Every);
        bench.report(Processor::DEFAULT, false, 0);
        let mut paid = BTreeSet::new();
        for _ in 0..5_000 {
            bench.ms += 1;
            while let Some(start) = bench.next() {
                paid.insert(id(start));
                bench.finish(start, recorded(start));
            }
        }
        assert!(paid.contains(&100) && bench.dispatcher.is_idle());
    }
}

#[test]
fn out_of_touch_a_doubt_at_the_dearer_one_is_only_looked_at() {
    let mut bench = Bench::with_payments(1);
    bench.report(Processor::DEFAULT, true, 5_000);
    let probe = bench.next().unwrap();
    bench.submit(1);
    bench.ms += 200;
    let start = bench.wait_for_next();
    assert_eq!(start.attempt.processor, Processor::FALLBACK);
    bench.finish(start, Outcome::Unknown);
    bench.finish(probe, recorded(probe));
    bench.dispatcher.set_reach(Reach::Cheapest);
    for _ in 0..20 {
        let look = bench.wait_for_next();
        assert_eq!((look.question, look.attempt), (Question::Look, start.attempt));
        bench.finish(look, Outcome::Absent);
    }
    bench.dispatcher.set_reach(Reach::Every);
    loop {
        let next = bench.wait_for_next();
        assert_eq!(next.attempt, start.attempt);
        if next.question == Question::Pay {
            break;
        }
        bench.finish(next, Outcome::Absent);
    }
}

#[test]
fn whatever_place_a_payment_is_in_it_can_be_disowned() {
    let mut bench = Bench::new();
    // 0 waits to be verified, 1 is refused, 2 is in flight, 3 is absent, 4 is being verified.
    bench.submit_as(4, |payment| payment.verify = true);
    let verifying = bench.next().unwrap();
    bench.submit(1);
    let declined = bench.next().unwrap();
    let declined_at = bench.ms;
    bench.finish(declined, DECLINED);
    assert_eq!(confirm(&mut bench, declined_at).1, End::Released);
    bench.submit(3);
    let unknown = bench.next().unwrap();
    bench.finish(unknown, Outcome::Unknown);
    let look = bench.wait_for_next();
    bench.finish(look, Outcome::Absent);
    bench.submit(2);
    let in_flight = bench.next().filter(|it| id(*it) == 2).expect("fresh ones come first");
    bench.submit_as(0, |payment| payment.verify = true);
    let ids: HashSet<PaymentId> = (0..5).map(PaymentId).collect();
    let mut free: Vec<u128> = bench.dispatcher.disown(&ids).iter().map(|it| it.id.0).collect();
    free.sort_unstable();
    assert_eq!(free, [0, 1]);
    assert_eq!(bench.finish(verifying, Outcome::Unknown), End::Foreign, "nothing was sent");
    assert_eq!(bench.finish(in_flight, FAILING), End::Foreign);
    let look = bench.wait_for_next();
    assert_eq!((id(look), look.question), (3, Question::Look), "not posted again");
    assert_eq!(bench.finish(look, Outcome::Absent), End::InDoubt, "it may yet be carried out");
    bench.ms += bench.dispatcher.policy.books_within.as_millis() as u64;
    let look = bench.wait_for_next();
    assert_eq!((id(look), look.question), (3, Question::Look), "still not posted again");
    assert_eq!(bench.finish(look, Outcome::Absent), End::Foreign);
    assert!(bench.dispatcher.is_idle() && !bench.dispatcher.is_disowned(PaymentId(3)));
}

/// It was in doubt at what was the cheapest until the fees were changed: it can never be posted there
/// again, and must not wait for ever.
#[test]
fn what_a_guest_has_in_doubt_where_it_may_not_stay_is_let_go_of_once_that_is_decided() {
    let mut bench = Bench::new();
    let (accepted, accepted_at) = (bench.now(), bench.at());
    let (id, amount, guest, verify) = (PaymentId(9), Cents(10), true, true);
    let payment = Payment { id, amount, accepted, accepted_at, guest, verify };
    let (processor, requested_at) = (Processor::FALLBACK, accepted_at);
    bench.dispatcher.submit_doubt(Attempt { payment, processor, requested_at }, accepted);
    let decided_at = accepted + policy().books_within;
    loop {
        let look = bench.wait_for_next();
        assert_eq!((look.question, look.attempt.processor), (Question::Look, processor));
        let is_decided = bench.now() >= decided_at;
        let end = bench.finish(look, Outcome::Absent);
        assert_eq!(end == End::Released, is_decided, "{:?}", bench.now());
        if is_decided {
            break;
        }
    }
    let look = bench.wait_for_next();
    assert_eq!((look.question, look.attempt.processor), (Question::Look, Processor::FALLBACK));
    bench.finish(look, Outcome::Absent);
    let pay = bench.wait_for_next();
    assert_eq!((pay.question, pay.attempt.processor), (Question::Pay, Processor::DEFAULT));
}
