//! Other terms while payments wait, are under way, or were refused.

use super::*;

fn two(fees: [u32; 2], limits: Limits) -> Offers {
    let mut terms = Each::default();
    for (terms, percent) in terms.iter_mut().zip(fees) {
        let fee = FeeSchedule { share: Fee(percent * 10_000), fixed: Cents(0) };
        *terms = Some(Terms { fee, limits });
    }
    Offers::new(terms)
}

fn places(concurrency: u32) -> Limits {
    Limits { concurrency, ..Limits::default() }
}

fn up_to(cents: i64) -> Limits {
    Limits { largest: Some(Cents(cents)), ..Limits::default() }
}

fn bench(offers: Offers) -> Bench {
    Bench::with_policy(Policy { offers, ..policy() })
}

fn sent(bench: &mut Bench) -> Vec<(u128, u8)> {
    let starts = std::iter::from_fn(|| bench.next());
    starts.map(|start| (id(start), start.attempt.processor.number())).collect()
}

#[test]
fn what_waits_goes_to_the_cheapest_of_now_the_oldest_first() {
    let mut bench = bench(two([5, 15], places(1)));
    (0..4).for_each(|id| bench.submit(id));
    assert_eq!(sent(&mut bench), [(0, 0)]);
    bench.dispatcher.set_offers(two([15, 5], places(2)));
    let second = bench.next().unwrap();
    assert_eq!((id(second), second.attempt.processor.number()), (1, 1));
    assert_eq!(sent(&mut bench), [(2, 1)]);
    bench.finish(second, recorded(second));
    assert_eq!(sent(&mut bench), [(3, 1)]);
}

#[test]
fn with_fewer_places_nothing_begins_until_one_is_free() {
    let mut bench = bench(two([5, 15], places(3)));
    (0..5).for_each(|id| bench.submit(id));
    let first: Vec<Start> = std::iter::from_fn(|| bench.next()).collect();
    assert_eq!(first.len(), 3);
    bench.dispatcher.set_offers(two([5, 15], places(1)));
    for start in first {
        assert_eq!(bench.next(), None);
        bench.finish(start, recorded(start));
    }
    assert_eq!(sent(&mut bench), [(3, 0)]);
}

#[test]
fn what_no_processor_takes_waits_until_one_does() {
    let mut bench = bench(two([5, 15], up_to(3)));
    bench.submit(4);
    bench.submit(1);
    assert_eq!(sent(&mut bench), [(1, 0)]);
    bench.ms += 60_000;
    assert_eq!(bench.next(), None);
    bench.dispatcher.set_offers(two([5, 15], up_to(5)));
    assert_eq!(sent(&mut bench), [(4, 0)]);
}

#[test]
fn what_nobody_takes_any_more_is_not_sent_and_what_was_sent_ends() {
    let mut bench = bench(two([5, 15], places(1)));
    bench.submit(4);
    bench.submit(5);
    let first = bench.next().unwrap();
    bench.dispatcher.set_offers(two([5, 15], up_to(1)));
    bench.ms += 60_000;
    assert_eq!(bench.next(), None);
    assert!(matches!(bench.finish(first, Outcome::Unknown), End::InDoubt));
    // It is where it was: its amount does not matter any more.
    let look = bench.wait_for_next();
    assert_eq!((look.question, id(look)), (Question::Look, 4));
    bench.finish(look, Outcome::Absent);
    let again = bench.wait_for_next();
    assert_eq!((again.question, id(again)), (Question::Pay, 4));
    assert!(matches!(bench.finish(again, recorded(again)), End::Settled(_)));
    assert_eq!(bench.dispatcher.waiting(), 1);
}

#[test]
fn a_limit_of_the_day_that_is_new_counts_what_went_before_it() {
    let mut bench = bench(two([5, 15], places(1)));
    bench.submit(6);
    let start = bench.next().unwrap();
    bench.finish(start, recorded(start));
    let day = |cents| Limits { day: Some(Cents(cents)), ..Limits::default() };
    bench.dispatcher.set_offers(two([5, 15], day(10)));
    bench.submit(3);
    bench.submit(2);
    assert_eq!(sent(&mut bench), [(3, 1), (2, 0)], "7 and 4 cents are too much for the cheapest");
}

#[test]
fn what_was_refused_is_offered_where_it_may_go_now() {
    let mut only_first = Each::default();
    for (terms, largest) in only_first.iter_mut().zip([None, Some(Cents(1))]) {
        let limits = Limits { largest, ..Limits::default() };
        *terms = Some(Terms { fee: FeeSchedule::default(), limits });
    }
    let mut bench = bench(Offers::new(only_first));
    bench.submit(8);
    let start = bench.next().unwrap();
    bench.finish(start, DECLINED);
    let now = bench.ms;
    let (_, end) = confirm(&mut bench, now);
    assert_eq!(end, End::Released);
    bench.dispatcher.set_offers(two([5, 15], Limits::default()));
    let next = bench.wait_for_next();
    assert_eq!((id(next), next.attempt.processor.number()), (8, 1), "it has refused nothing yet");
}
