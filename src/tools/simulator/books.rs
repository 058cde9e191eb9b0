//! What the processor holds: one booking per id, in the order of arrival, and exact totals.
//!
//! Plain and synchronous; knows nothing of HTTP, waiting or faults. The invariant: an id is booked
//! once or not at all, and [`Books::totals`] over all time is the sum of the rows.

use super::units::MicroTimestamp;
use crate::base::limits::BOOKINGS_JUDGED_MAX;
use crate::base::money::{Cents, Total};
use crate::payments::{PaymentId, Totals};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// How many payments the books take: half a gigabyte of memory, an hour and more at 1,000 a second.
pub const PAYMENTS_MAX: usize = 4_000_000;
const _: () = assert!(PAYMENTS_MAX <= BOOKINGS_JUDGED_MAX, "what is booked can be judged");

/// A payment as it was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking {
    pub id: PaymentId,
    pub amount: Cents,
    pub requested_at: MicroTimestamp,
}

/// Why a payment was not booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookError {
    /// The id is in the books already.
    Repeat,
    /// [`PAYMENTS_MAX`] payments are held.
    Full,
}

/// The books of one processor.
#[derive(Debug, Default)]
pub struct Books {
    rows: Vec<Booking>,
    /// Where in `rows` each id is.
    by_id: HashMap<PaymentId, u32>,
    all: Totals,
    repeats_refused: u64,
    purges: u64,
}

impl Books {
    /// Books one payment.
    ///
    /// # Errors
    /// [`BookError`] if it is not booked; a repeat is also counted.
    pub fn book(&mut self, booking: Booking) -> Result<(), BookError> {
        let row = u32::try_from(self.rows.len()).map_err(|_| BookError::Full)?;
        match self.by_id.entry(booking.id) {
            Entry::Occupied(_) => {
                self.repeats_refused += 1;
                Err(BookError::Repeat)
            }
            Entry::Vacant(_) if self.rows.len() >= PAYMENTS_MAX => Err(BookError::Full),
            Entry::Vacant(vacant) => {
                vacant.insert(row);
                self.rows.push(booking);
                self.all += Totals { count: 1, amount: Total(i128::from(booking.amount.0)) };
                Ok(())
            }
        }
    }

    /// The booking of an id.
    pub fn find(&self, id: PaymentId) -> Option<Booking> {
        self.rows.get(*self.by_id.get(&id)? as usize).copied()
    }

    /// How much is booked with `requested_at` between two times, both inclusive. If either is
    /// missing nothing is filtered, as in the original.
    pub fn totals(&self, from: Option<MicroTimestamp>, to: Option<MicroTimestamp>) -> Totals {
        let (Some(from), Some(to)) = (from, to) else {
            return self.all;
        };
        let mut totals = Totals::default();
        for row in self.rows.iter().filter(|row| (from..=to).contains(&row.requested_at)) {
            totals += Totals { count: 1, amount: Total(i128::from(row.amount.0)) };
        }
        totals
    }

    /// Up to `limit` bookings from the `start`-th on, in order of arrival.
    pub fn page(&self, start: usize, limit: usize) -> &[Booking] {
        let end = start.saturating_add(limit).min(self.rows.len());
        self.rows.get(start..end).unwrap_or_default()
    }

    /// Forgets every payment, and gives their memory back. A payment that is being inserted at this
    /// moment is booked afterwards: a `DELETE` does not see what has not been committed either.
    pub fn purge(&mut self) {
        let purges = self.purges + 1;
        *self = Books { purges, ..Books::default() };
    }

    /// How many repeats were refused since the last purge.
    pub fn repeats_refused(&self) -> u64 {
        self.repeats_refused
    }

    /// How often the books were purged: whoever pages through them can see that they changed.
    pub fn purges(&self) -> u64 {
        self.purges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn booking(id: u128, cents: i64, us: i64) -> Booking {
        Booking { id: PaymentId(id), amount: Cents(cents), requested_at: MicroTimestamp(us) }
    }

    #[test]
    fn an_id_is_booked_once() {
        let mut books = Books::default();
        assert_eq!(books.book(booking(1, 1990, 5)), Ok(()));
        assert_eq!(books.book(booking(1, 10, 6)), Err(BookError::Repeat));
        assert_eq!(books.find(PaymentId(1)), Some(booking(1, 1990, 5)));
        assert_eq!(books.find(PaymentId(2)), None);
        assert_eq!(books.totals(None, None), Totals { count: 1, amount: Total(1990) });
        assert_eq!(books.repeats_refused(), 1);
    }

    #[test]
    fn a_purge_forgets_all() {
        let mut books = Books::default();
        books.book(booking(1, 1990, 5)).unwrap();
        books.book(booking(1, 1990, 5)).unwrap_err();
        books.purge();
        assert_eq!(books.find(PaymentId(1)), None);
        assert_eq!((books.totals(None, None), books.repeats_refused()), (Totals::default(), 0));
        assert_eq!(books.purges(), 1);
        assert_eq!(books.book(booking(1, 1990, 5)), Ok(()));
    }

    #[test]
    fn pages_end_with_the_books() {
        let mut books = Books::default();
        for id in 0..5 {
            books.book(booking(id, 1, 0)).unwrap();
        }
        let ids = |start, limit| -> Vec<u128> {
            books.page(start, limit).iter().map(|row| row.id.0).collect()
        };
        assert_eq!(ids(0, 2), [0, 1]);
        assert_eq!(ids(4, 2), [4]);
        assert_eq!(ids(5, 2), [0; 0]);
        assert_eq!(ids(6, usize::MAX), [0; 0]);
    }

    proptest! {
        #[test]
        fn bounds_are_inclusive_and_only_work_as_a_pair(
            rows in prop::collection::vec((-3_i64..3, any::<i64>()), 0..20),
            from in -4_i64..4, to in -4_i64..4,
        ) {
            let mut books = Books::default();
            for (id, (us, cents)) in rows.iter().enumerate() {
                books.book(booking(id as u128, *cents, *us)).unwrap();
            }
            let sum = |wanted: &dyn Fn(i64) -> bool| {
                let rows = || rows.iter().filter(|(us, _)| wanted(*us));
                let amount = rows().map(|(_, cents)| i128::from(*cents)).sum();
                Totals { count: rows().count() as u64, amount: Total(amount) }
            };
            let (from_us, to_us) = (Some(MicroTimestamp(from)), Some(MicroTimestamp(to)));
            prop_assert_eq!(books.totals(from_us, to_us), sum(&|us| from <= us && us <= to));
            prop_assert_eq!(books.totals(from_us, None), sum(&|_| true));
            prop_assert_eq!(books.totals(None, to_us), sum(&|_| true));
        }
    }
}
