//! Books against books: what one side knows of each payment, against what two processors hold, and
//! what somebody says of a window of time, against the same.
//!
//! Pure: no sockets, no files, no clock. Both sides come as lists; where they are from is nobody's
//! business here, so a client's record of a contest is compared as anybody's books would be.
//!
//! The invariant: every payment of either side is looked at, in the order of the ids, and one that
//! differs in several ways gives a difference for each.

use crate::base::clock::Timestamp;
use crate::base::money::{Cents, Total};
use crate::payments::{PaymentId, Processor, Totals, Window};
use crate::tools::dice::Dice;

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
    /// One of them holds it.
    Accepted,
    /// This one holds it, under this time.
    Settled(Processor, Timestamp),
    /// Neither holds it.
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
    /// This one holds it, and it should be the other.
    OtherProcessor(Processor),
    /// This one holds it under another amount.
    OtherAmount(Processor),
    /// This one holds it under another time.
    OtherTime(Processor),
    /// This one holds it more than once.
    TwiceThere(Processor),
    /// Both hold it.
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

/// One line of either side.
#[derive(Clone, Copy)]
enum Line {
    Here(Known),
    There(Processor, Booking),
}

impl Line {
    fn id(&self) -> PaymentId {
        match self {
            Line::Here(known) => known.id,
            Line::There(_, booking) => booking.id,
        }
    }
}

/// What differs, by kind and id.
pub fn compare(known: impl IntoIterator<Item = Known>, books: [&[Booking]; 2]) -> Vec<Difference> {
    let mut lines: Vec<Line> = known.into_iter().map(Line::Here).collect();
    for (which, bookings) in Processor::ALL.into_iter().zip(books) {
        lines.extend(bookings.iter().map(|booking| Line::There(which, *booking)));
    }
    // Stable: what is known first stays first.
    lines.sort_by_key(Line::id);
    let mut found = Vec::new();
    for of_one in lines.chunk_by(|one, next| one.id() == next.id()) {
        let id = of_one[0].id();
        compare_one(of_one, &mut |kind| found.push(Difference { kind, id }));
    }
    found.sort_by_key(|difference| difference.kind);
    found
}

/// All that both sides say of one payment.
fn compare_one(lines: &[Line], differ: &mut impl FnMut(Kind)) {
    let mut all_known = lines.iter().filter_map(|line| match line {
        Line::Here(known) => Some(*known),
        Line::There(..) => None,
    });
    let known = all_known.next();
    if all_known.next().is_some() {
        differ(Kind::TwiceHere);
    }
    let bookings = |which| {
        lines.iter().filter_map(move |line| match line {
            Line::There(by, booking) if *by == which => Some(*booking),
            _ => None,
        })
    };
    let held = Processor::ALL.map(|which| bookings(which).count());
    if held[0] > 0 && held[1] > 0 {
        differ(Kind::BothThere);
    }
    let should_be_held =
        matches!(known.map(|it| it.fate), Some(Fate::Accepted | Fate::Settled(..)));
    if should_be_held && held == [0, 0] {
        differ(Kind::MissingThere);
    }
    for which in Processor::ALL {
        if held[which as usize] == 0 {
            continue;
        }
        if held[which as usize] > 1 {
            differ(Kind::TwiceThere(which));
        }
        let Some(known) = known else {
            differ(Kind::MissingHere(which));
            continue;
        };
        if bookings(which).any(|booking| booking.amount != known.amount) {
            differ(Kind::OtherAmount(which));
        }
        match known.fate {
            Fate::Refused => differ(Kind::Refused(which)),
            Fate::Settled(by, _) if by != which => differ(Kind::OtherProcessor(which)),
            Fate::Settled(_, at) if bookings(which).any(|booking| booking.requested_at != at) => {
                differ(Kind::OtherTime(which));
            }
            Fate::Settled(..) | Fate::Accepted | Fate::Unknown => {}
        }
    }
}

/// What the books say of a window.
pub fn totals(books: [&[Booking]; 2], window: Window) -> [Totals; 2] {
    books.map(|bookings| {
        let mut totals = Totals::default();
        for booking in bookings {
            let at = booking.requested_at;
            if window.from.is_none_or(|from| from <= at) && window.to.is_none_or(|to| at <= to) {
                totals += Totals { count: 1, amount: Total(booking.amount.0.into()) };
            }
        }
        totals
    })
}

/// A window of which the two sides give other totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongTotals {
    pub window: Window,
    pub here: [Totals; 2],
    pub there: [Totals; 2],
}

/// What is said here of a window, against the books. Nothing, if they agree.
pub fn compare_totals(
    here: [Totals; 2],
    books: [&[Booking]; 2],
    window: Window,
) -> Option<WrongTotals> {
    let there = totals(books, window);
    (here != there).then_some(WrongTotals { window, here, there })
}

/// Windows whose bounds lie exactly on, or one millisecond beside, times in the books: none, if
/// there are none.
pub fn choose_windows(books: [&[Booking]; 2], dice: &mut Dice, count: u32) -> Vec<Window> {
    let times: Vec<i64> =
        books.iter().flat_map(|it| it.iter()).map(|it| it.requested_at.0).collect();
    let mut below = |end: usize| (dice.roll() % end as u64) as usize;
    let mut bound = || Timestamp(times[below(times.len())] + [-1, 0, 0, 1][below(4)]);
    let count = if times.is_empty() { 0 } else { count };
    let mut window = || {
        let (one, other) = (bound(), bound());
        Window { from: Some(one.min(other)), to: Some(one.max(other)) }
    };
    (0..count).map(|_| window()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Processor = Processor::Default;
    const FALLBACK: Processor = Processor::Fallback;

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
        for (which, bookings) in Processor::ALL.into_iter().zip(&books) {
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

    #[test]
    fn windows_include_their_bounds() {
        let (_, books) = good();
        let books = books.each_ref().map(|it| &it[..]);
        let count = |from, to| {
            let window = Window { from: Some(Timestamp(from)), to: Some(Timestamp(to)) };
            totals(books, window).map(|totals| totals.count)
        };
        assert_eq!(count(1, 2), [2, 0]);
        assert_eq!(count(2, 3), [1, 1]);
        assert_eq!(count(5, 9), [0, 0]);
        assert_eq!(totals(books, Window::default()).map(|it| it.amount.0), [3_980, 3_980]);
    }

    #[test]
    fn wrong_totals_are_told_with_both_sides() {
        let (_, books) = good();
        let books = books.each_ref().map(|it| &it[..]);
        let window = Window { from: Some(Timestamp(2)), to: None };
        let there = totals(books, window);
        assert_eq!(compare_totals(there, books, window), None);
        for index in 0..2 {
            let (mut one_more, mut a_cent_less) = (there, there);
            one_more[index].count += 1;
            a_cent_less[index].amount.0 -= 1;
            for here in [one_more, a_cent_less] {
                let expected = Some(WrongTotals { window, here, there });
                assert_eq!(compare_totals(here, books, window), expected);
            }
        }
    }

    #[test]
    fn windows_are_chosen_where_a_bound_can_be_missed() {
        let (_, books) = good();
        let books = books.each_ref().map(|it| &it[..]);
        let choose = |seed| choose_windows(books, &mut Dice::of_seed(seed), 50);
        let windows = choose(1);
        assert_eq!((windows.len(), &windows), (50, &choose(1)));
        assert_ne!(windows, choose(2));
        let bounds: Vec<_> = windows.iter().flat_map(|it| [it.from, it.to]).flatten().collect();
        for at in 0..=5 {
            assert!(bounds.contains(&Timestamp(at)), "{at} in {bounds:?}");
        }
        assert!(windows.iter().all(|window| !window.is_empty()));
        assert_eq!(choose_windows([&[], &[]], &mut Dice::of_seed(1), 50), []);
    }
}
