//! Books against books, payment by payment: what one side knows of each, against what the processors
//! hold. One judgement for all: the judge of a contest, the demo, and `galo reconcile`.
//!
//! Pure: no sockets, no files, no clock. Both sides come in order of the ids; where they are from is
//! nobody's business here, so a client's record of a contest is compared as anybody's books would be.
//!
//! The invariant: every payment of either side is looked at once, in the order of the ids, and one
//! that differs in several ways gives a difference for each.

use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::{Each, PaymentId, Processor, each};
use std::iter::Peekable;

/// A payment as a processor holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking {
    pub id: PaymentId,
    pub amount: Cents,
    pub requested_at: Timestamp,
}

/// A payment as this side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub id: PaymentId,
    pub amount: Cents,
    pub fate: Fate,
}

/// What this side knows to have become of a payment, and so what the processors have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// One of the contest's two holds it.
    Accepted,
    /// This one holds it, under this time.
    Settled(Processor, Timestamp),
    /// None holds it.
    Refused,
    /// There was no answer: one of them may hold it.
    Unknown,
}

/// In what way the two sides differ. *Here* is who knows, *there* are the processors' books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It should be held, and is not.
    MissingThere,
    /// It is held by this one, and is not known.
    MissingHere(Processor),
    /// It was refused, and is held by this one all the same.
    Refused(Processor),
    /// This one holds it, and it should be another.
    OtherProcessor(Processor),
    /// This one holds it under another amount.
    OtherAmount(Processor),
    /// This one holds it under another time.
    OtherTime(Processor),
    /// This one holds it more than once.
    TwiceThere(Processor),
    /// More than one hold it.
    BothThere,
    /// It is known more than once, where the first is taken to be right.
    TwiceHere,
}

impl Kind {
    /// Whether the money has moved more than once.
    pub fn is_double(self) -> bool {
        matches!(self, Kind::TwiceThere(_) | Kind::BothThere)
    }
}

/// One payment in which the two sides differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    pub id: PaymentId,
}

/// By what two sides are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Times that are apart by so many milliseconds are one time.
    pub time_tolerance_ms: u64,
    /// Whose books are there. Of another processor nothing can be missing, and it holds nothing.
    pub told: Each<bool>,
}

impl Default for Rules {
    /// To the millisecond, with the books of all.
    fn default() -> Rules {
        Rules { time_tolerance_ms: 0, told: [true; Processor::MAX] }
    }
}

/// All that both sides say of one payment. Neither side is empty of it.
#[derive(Clone, Copy, Debug)]
pub struct Both<'a> {
    pub id: PaymentId,
    /// The first is taken to be right.
    pub known: &'a [Known],
    pub held: Each<&'a [Booking]>,
}

/// What differs, by kind and id. To the millisecond, with the books of the contest's two processors.
pub fn compare(known: impl IntoIterator<Item = Known>, books: [&[Booking]; 2]) -> Vec<Difference> {
    let mut known: Vec<Known> = known.into_iter().collect();
    // Stable: what is known first stays first.
    known.sort_by_key(|it| it.id);
    let sorted = books.map(|bookings| {
        let mut bookings = bookings.to_vec();
        bookings.sort_by_key(|it| it.id);
        bookings
    });
    let mut found = Vec::new();
    let books = each(sorted.each_ref().map(|it| &it[..]));
    compare_sorted(known.into_iter(), books, |both| {
        judge(both, Rules::default(), &mut |kind| found.push(Difference { kind, id: both.id }));
    });
    found.sort_by_key(|difference| difference.kind);
    found
}

/// Goes through both sides at once, payment by payment. Each has to be in order of the ids. It
/// keeps no more than one payment's lines.
pub fn compare_sorted(
    known: impl Iterator<Item = Known>,
    books: Each<&[Booking]>,
    mut look_at: impl FnMut(Both),
) {
    let mut known = known.peekable();
    let mut rest = books;
    let mut of_one = Vec::new();
    loop {
        let heads = rest.map(|bookings| bookings.first().map(|it| it.id));
        let head = known.peek().map(|it| it.id);
        let Some(id) = heads.into_iter().chain([head]).flatten().min() else { return };
        take_known(&mut known, id, &mut of_one);
        let held = rest.each_mut().map(|bookings| take_held(bookings, id));
        look_at(Both { id, known: &of_one, held });
    }
}

fn take_known(
    known: &mut Peekable<impl Iterator<Item = Known>>,
    id: PaymentId,
    of_one: &mut Vec<Known>,
) {
    of_one.clear();
    while let Some(one) = known.next_if(|it| it.id == id) {
        of_one.push(one);
    }
}

fn take_held<'a>(bookings: &mut &'a [Booking], id: PaymentId) -> &'a [Booking] {
    let count = bookings.iter().take_while(|it| it.id == id).count();
    let (held, rest) = bookings.split_at(count);
    *bookings = rest;
    held
}

/// In what ways the two sides differ about one payment.
pub fn judge(both: Both, rules: Rules, differ: &mut impl FnMut(Kind)) {
    let Both { known, held, .. } = both;
    if known.len() > 1 {
        differ(Kind::TwiceHere);
    }
    let known = known.first();
    if held.iter().filter(|bookings| !bookings.is_empty()).count() > 1 {
        differ(Kind::BothThere);
    }
    let should_be_held = match known.map(|it| it.fate) {
        Some(Fate::Accepted) => Processor::CONTEST.iter().all(|by| rules.told[by.index()]),
        Some(Fate::Settled(by, _)) => rules.told[by.index()],
        Some(Fate::Refused | Fate::Unknown) | None => false,
    };
    if should_be_held && held.iter().all(|bookings| bookings.is_empty()) {
        differ(Kind::MissingThere);
    }
    for (which, bookings) in Processor::every().zip(held) {
        if bookings.is_empty() {
            continue;
        }
        if bookings.len() > 1 {
            differ(Kind::TwiceThere(which));
        }
        match known {
            Some(known) => judge_held(*known, which, bookings, rules, differ),
            None => differ(Kind::MissingHere(which)),
        }
    }
}

/// A payment that is known, and what this processor holds of it, which is not nothing.
fn judge_held(
    known: Known,
    which: Processor,
    bookings: &[Booking],
    rules: Rules,
    differ: &mut impl FnMut(Kind),
) {
    if bookings.iter().any(|booking| booking.amount != known.amount) {
        differ(Kind::OtherAmount(which));
    }
    let is_at = |booking: &Booking, at: Timestamp| {
        booking.requested_at.0.abs_diff(at.0) <= rules.time_tolerance_ms
    };
    match known.fate {
        Fate::Refused => differ(Kind::Refused(which)),
        Fate::Settled(by, _) if by != which => differ(Kind::OtherProcessor(which)),
        Fate::Settled(_, at) if !bookings.iter().all(|booking| is_at(booking, at)) => {
            differ(Kind::OtherTime(which));
        }
        Fate::Settled(..) | Fate::Accepted | Fate::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Processor = Processor::DEFAULT;
    const FALLBACK: Processor = Processor::FALLBACK;

    fn booking(id: u128, at_ms: i64) -> Booking {
        Booking { id: PaymentId(id), amount: Cents(1_990), requested_at: Timestamp(at_ms) }
    }

    fn known(id: u128, fate: Fate) -> Known {
        Known { id: PaymentId(id), amount: Cents(1_990), fate }
    }

    /// Four payments, two at each processor, one millisecond after the other, as a client knows them
    /// and as they are held.
    fn good() -> (Vec<Known>, [Vec<Booking>; 2]) {
        let known = (0..4).map(|id| known(id, Fate::Accepted)).collect();
        (known, [vec![booking(0, 1), booking(1, 2)], vec![booking(2, 3), booking(3, 4)]])
    }

    /// The same, as somebody knows them who keeps books.
    fn settled() -> (Vec<Known>, [Vec<Booking>; 2]) {
        let (mut known, books) = good();
        for (which, bookings) in Processor::CONTEST.into_iter().zip(&books) {
            for it in bookings {
                known[it.id.0 as usize].fate = Fate::Settled(which, it.requested_at);
            }
        }
        (known, books)
    }

    fn found(known: &[Known], books: &[Vec<Booking>; 2]) -> Vec<(Kind, u128)> {
        let differences = compare(known.iter().copied(), books.each_ref().map(|it| &it[..]));
        differences.into_iter().map(|it| (it.kind, it.id.0)).collect()
    }

    #[test]
    fn sides_that_agree_do_not_differ() {
        for (known, books) in [good(), settled(), (vec![], [vec![], vec![]])] {
            assert_eq!(found(&known, &books), []);
        }
    }

    #[test]
    fn what_is_held_by_none_is_missing_there() {
        for (known, mut books) in [good(), settled()] {
            books[1].pop();
            assert_eq!(found(&known, &books), [(Kind::MissingThere, 3)]);
            books[0].clear();
            let missing = [0, 1, 3].map(|id| (Kind::MissingThere, id));
            assert_eq!(found(&known, &books), missing);
        }
    }

    #[test]
    fn what_nobody_knows_is_missing_here() {
        for (known, mut books) in [good(), settled()] {
            books[1].push(booking(9, 5));
            assert_eq!(found(&known, &books), [(Kind::MissingHere(FALLBACK), 9)]);
        }
    }

    #[test]
    fn what_was_refused_must_not_be_held_and_what_is_unknown_may_be() {
        let (mut known, books) = good();
        known[1].fate = Fate::Refused;
        assert_eq!(found(&known, &books), [(Kind::Refused(DEFAULT), 1)]);
        known[1].fate = Fate::Unknown;
        assert_eq!(found(&known, &books), []);
        let (_, mut books) = good();
        books[0].pop();
        assert_eq!(found(&known, &books), []);
        known[1].fate = Fate::Refused;
        assert_eq!(found(&known, &books), []);
        // What may be held may not be held twice, nor under another amount.
        known[2].fate = Fate::Unknown;
        books[0].push(booking(2, 3));
        books[0][1].amount = Cents(1);
        let expected = [(Kind::OtherAmount(DEFAULT), 2), (Kind::BothThere, 2)];
        assert_eq!(found(&known, &books), expected);
    }

    #[test]
    fn another_amount_is_told_with_who_holds_it() {
        for (known, mut books) in [good(), settled()] {
            books[1][0].amount = Cents(1_991);
            assert_eq!(found(&known, &books), [(Kind::OtherAmount(FALLBACK), 2)]);
        }
    }

    #[test]
    fn another_time_or_processor_differs_for_who_knows_them() {
        let (known, mut books) = settled();
        books[0][1].requested_at = Timestamp(3);
        assert_eq!(found(&known, &books), [(Kind::OtherTime(DEFAULT), 1)]);
        let moved = books[0].remove(0);
        books[1].push(moved);
        let expected = [(Kind::OtherProcessor(FALLBACK), 0), (Kind::OtherTime(DEFAULT), 1)];
        assert_eq!(found(&known, &books), expected);
        let (known, _) = good();
        assert_eq!(found(&known, &books), [], "a client knows neither");
    }

    #[test]
    fn what_is_held_twice_is_told_by_one_or_by_both() {
        for (known, mut books) in [good(), settled()] {
            books[0].push(booking(1, 2));
            assert_eq!(found(&known, &books), [(Kind::TwiceThere(DEFAULT), 1)]);
        }
        let (known, mut books) = good();
        books[0].push(booking(3, 5));
        assert_eq!(found(&known, &books), [(Kind::BothThere, 3)]);
        let (known, mut books) = settled();
        books[0].push(booking(3, 5));
        let expected = [(Kind::OtherProcessor(DEFAULT), 3), (Kind::BothThere, 3)];
        assert_eq!(found(&known, &books), expected);
        assert!(Kind::BothThere.is_double() && Kind::TwiceThere(DEFAULT).is_double());
        assert!(!Kind::OtherProcessor(DEFAULT).is_double());
    }

    #[test]
    fn what_is_known_twice_differs_from_itself() {
        let (mut known, books) = settled();
        known.push(known[2]);
        assert_eq!(found(&known, &books), [(Kind::TwiceHere, 2)]);
    }

    #[test]
    fn differences_come_by_kind_and_id_whatever_the_order_of_the_books() {
        let (mut known, mut books) = good();
        books[0].extend([booking(8, 5), booking(7, 5)]);
        known.extend([6, 5].map(|id| self::known(id, Fate::Accepted)));
        let expected = [
            (Kind::MissingThere, 5),
            (Kind::MissingThere, 6),
            (Kind::MissingHere(DEFAULT), 7),
            (Kind::MissingHere(DEFAULT), 8),
        ];
        assert_eq!(found(&known, &books), expected);
        known.reverse();
        books[0].reverse();
        assert_eq!(found(&known, &books), expected);
    }
}
