//! Random faults of one to eight processors in virtual time, and other terms of theirs now and then: each
//! payment is booked once.

use super::*;
use crate::payments::Each;

/// One processor's books, and the requests it will carry out although nobody waits for them.
#[derive(Default)]
struct Books {
    booked: BTreeMap<u128, Attempt>,
    late: Vec<(u64, Attempt)>,
}

impl Books {
    /// Books an attempt unless its id is there, and says under which time it is.
    fn book(&mut self, attempt: Attempt) -> Outcome {
        Outcome::Recorded(self.booked.entry(attempt.payment.id.0).or_insert(attempt).requested_at)
    }

    /// What a request leads to. `fault` chooses; most values mean none.
    fn answer(&mut self, start: Start, ms: u64, fault: u64) -> Outcome {
        let attempt = start.attempt;
        match (fault, start.question) {
            (0, _) => Outcome::NotRecorded(Refusal::Unreachable),
            (1, _) => Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 300 }),
            (2, _) => Outcome::Unknown,
            (_, Question::Look) => self
                .booked
                .get(&attempt.payment.id.0)
                .map_or(Outcome::Absent, |held| Outcome::Recorded(held.requested_at)),
            (3 | 4, Question::Pay) => FAILING,
            (5, Question::Pay) => DECLINED,
            (6, Question::Pay) => {
                self.book(attempt);
                Outcome::Unknown
            }
            (7, Question::Pay) => {
                self.late.push((ms + fault * 100, attempt));
                Outcome::Unknown
            }
            (_, Question::Pay) => self.book(attempt),
        }
    }

    /// Books what was to be booked late and is due.
    fn book_late(&mut self, ms: u64) {
        let (due, rest): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|(due, _)| *due <= ms);
        self.late = rest;
        for (_, attempt) in due {
            self.book(attempt);
        }
    }
}

/// Other fees, and while there are faults other limits of each as well.
fn other_terms(count: usize, has_limits: bool, draw: &mut impl FnMut(u64) -> u64) -> Offers {
    let mut terms = Each::default();
    for terms in terms.iter_mut().take(count) {
        let (share, fixed) = (Fee(draw(200_000) as u32), Cents(draw(20) as i64));
        let mut limits = Limits { concurrency: 1 + draw(100) as u32, ..Limits::default() };
        if has_limits && draw(2) == 0 {
            limits.per_second = (draw(2) == 0).then(|| 1 + draw(200) as u32);
            limits.smallest = (draw(3) == 0).then(|| Cents(draw(400) as i64));
            limits.largest = (draw(3) == 0).then(|| Cents(draw(400) as i64));
            limits.day = (draw(3) == 0).then(|| Cents(draw(30_000) as i64));
        }
        *terms = Some(Terms { fee: FeeSchedule { share, fixed }, limits });
    }
    Offers::new(terms)
}

/// Plays a seed for seconds of faults and as long without as it takes to settle everything.
fn play_with_faults(seed: u64) {
    const PAYMENTS: u64 = 400;
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 20) % below
    };
    // Every other time the contest's two.
    let count = if seed.is_multiple_of(2) { 2 } else { 1 + draw(Processor::MAX as u64) };
    let mut bench = Bench::with_processors(count as usize);
    let mut books: Each<Books> = Default::default();
    let mut open: Vec<(u64, Start, Outcome)> = Vec::new();
    let mut settled: Each<Totals> = Default::default();
    let (mut submitted, mut times) = (0, BTreeMap::new());
    while submitted < PAYMENTS || !bench.dispatcher.is_idle() {
        assert!(bench.ms < 600_000, "seed {seed}: still busy: {:?}", bench.assert_one_place());
        bench.ms += 1 + draw(5);
        let has_faults = bench.ms < 6_000;
        if submitted < PAYMENTS && draw(3) > 0 {
            bench.submit(submitted);
            submitted += 1;
        }
        if draw(500) == 0 {
            let processor = Processor::new(draw(count) as usize).unwrap();
            bench.report(processor, draw(2) == 0, draw(3) * 900);
        }
        if draw(if has_faults { 600 } else { 3_000 }) == 0 {
            let other = other_terms(count as usize, has_faults, &mut draw);
            bench.dispatcher.set_offers(other);
        }
        if draw(20) == 0 {
            bench.assert_one_place();
        }
        while let Some(start) = bench.dispatcher.next(bench.now(), bench.at()) {
            bench.dispatcher.sent(start.flight, bench.now());
            let processor = start.attempt.processor;
            let is_held = |(index, it): (usize, &Books)| {
                let is_late = |(_, late): &(u64, Attempt)| late.payment.id.0 == id(start);
                index != processor.index()
                    && (it.booked.contains_key(&id(start)) || it.late.iter().any(is_late))
            };
            let is_held = books.iter().enumerate().any(is_held);
            assert!(!is_held, "seed {seed}: another one holds {}", start.attempt.payment.id);
            let fault = if has_faults { draw(14) } else { 99 };
            let answer = books[processor.index()].answer(start, bench.ms, fault);
            let slow_ms = if draw(50) == 0 { 3_000 } else { 30 };
            open.push((bench.ms + draw(slow_ms), start, answer));
        }
        books.iter_mut().for_each(|side| side.book_late(bench.ms));
        let (ended, rest) = open.drain(..).partition(|(end_ms, ..)| *end_ms <= bench.ms);
        open = rest;
        let ended: Vec<(u64, Start, Outcome)> = ended;
        for (_, start, outcome) in ended {
            if let End::Settled(Settlement { processor, amount, requested_at }) =
                bench.dispatcher.finished(start.flight, outcome, bench.now())
            {
                let totals =
                    Totals { count: 1, amount: crate::base::money::Total(amount.0.into()) };
                settled[processor.index()] += totals;
                assert_eq!(times.insert(id(start), requested_at), None, "settled once");
            }
        }
        bench.dispatcher.watch(bench.now());
    }
    assert_eq!(times.len() as u64, PAYMENTS, "seed {seed}");
    assert_books_agree(&books, &settled, &times, seed);
}

fn assert_books_agree(
    books: &Each<Books>,
    settled: &Each<Totals>,
    times: &BTreeMap<u128, Timestamp>,
    seed: u64,
) {
    for (books, settled) in books.iter().zip(settled) {
        let booked = &books.booked;
        let mut totals = Totals::default();
        for (id, attempt) in booked {
            totals += Totals {
                count: 1,
                amount: crate::base::money::Total(attempt.payment.amount.0.into()),
            };
            assert_eq!(times[id], attempt.requested_at, "seed {seed}");
        }
        assert_eq!(totals, *settled, "seed {seed}");
    }
    let all: Vec<_> = books.iter().flat_map(|it| it.booked.keys()).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "seed {seed}");
}

#[test]
fn whatever_fails_each_payment_is_booked_once_and_the_books_agree() {
    for seed in 1..=60 {
        play_with_faults(seed);
    }
}
