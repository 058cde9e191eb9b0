//! What somebody says of a window of time, against the books.
//!
//! Pure, as the comparison of single payments is.

use crate::base::clock::Timestamp;
use crate::base::money::Total;
use crate::payments::{Totals, Window};
use crate::tools::compare::Booking;
use crate::tools::dice::Dice;

/// What the books say of a window.
pub fn totals(books: [&[Booking]; 2], window: Window) -> [Totals; 2] {
    books.map(|bookings| {
        let mut totals = Totals::default();
        for booking in bookings {
            if window.contains(booking.requested_at) {
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
    use crate::base::money::Cents;
    use crate::payments::PaymentId;

    fn booking(id: u128, at_ms: i64) -> Booking {
        Booking { id: PaymentId(id), amount: Cents(1_990), requested_at: Timestamp(at_ms) }
    }

    /// Two payments at each processor, one millisecond after the other.
    fn good() -> [Vec<Booking>; 2] {
        [vec![booking(0, 1), booking(1, 2)], vec![booking(2, 3), booking(3, 4)]]
    }

    #[test]
    fn windows_include_their_bounds() {
        let books = good();
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
        let books = good();
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
        let books = good();
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
