//! One side of the comparison: which payments a processor holds, or have been settled here.
//!
//! Where they come from is nobody's business here: they come one by one, and those that move money are
//! kept in 32 bytes each. The invariant: both sides together are never more than
//! [`PAYMENTS_RECONCILED_MAX`] payments.

use crate::base::clock::Timestamp;
use crate::base::limits::PAYMENTS_RECONCILED_MAX;
use crate::base::money::Total;
use crate::payments::{Each, PaymentId, Processor, Settlement, Totals, Window};
use crate::tools::compare::{Booking, Fate, Known};

/// What a source tells of one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Held by a processor, or settled there. Books of before version 3 of the journal's layout tell
    /// no id.
    Held(Option<PaymentId>, Settlement),
    /// Known here, and settled nowhere yet, or never.
    Open(Known),
    /// Settlements of this time are in an archive that is not here.
    Absent { file: String, from: Timestamp, to: Timestamp },
}

const _: () = assert!(size_of::<Booking>() == 32, "which is what a payment takes on either side");

/// How many more payments there is room for.
#[derive(Clone, Copy, Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Room {
        Room(PAYMENTS_RECONCILED_MAX)
    }
}

impl Room {
    fn take_place(&mut self) -> Result<(), String> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| {
            format!(
                "more than {PAYMENTS_RECONCILED_MAX} payments on both sides together: compare them \
                 window by window, with --from and --to"
            )
        })?;
        Ok(())
    }
}

/// All that one side says of a window.
#[derive(Clone, Debug, Default)]
pub struct Side {
    bookings: Each<Vec<Booking>>,
    open: Vec<Known>,
    totals: Each<Totals>,
}

impl Side {
    /// Takes what lies in the window, and what has no time of a processor yet.
    ///
    /// # Errors
    /// The first that comes; that there is no more room; that something has no id to compare it by.
    pub fn take(
        &mut self,
        rows: impl Iterator<Item = Result<Row, String>>,
        window: Window,
        room: &mut Room,
    ) -> Result<(), String> {
        for row in rows {
            let (id, Settlement { processor, amount, requested_at }) = match row? {
                Row::Held(id, settlement) => (id, settlement),
                Row::Open(known) => {
                    room.take_place()?;
                    self.open.push(known);
                    continue;
                }
                Row::Absent { file, from, to } => {
                    let is_before = window.from.is_some_and(|it| to < it);
                    if is_before || window.to.is_some_and(|it| from > it) {
                        continue;
                    }
                    return Err(format!(
                        "what was settled from {from} to {to} is in {file}, which is not here: put \
                         it beside the journal, or compare what came later, with --from"
                    ));
                }
            };
            if !window.contains(requested_at) {
                continue;
            }
            room.take_place()?;
            let id = id.ok_or_else(|| {
                format!(
                    "what was settled at {requested_at} has no id: journals of before version 3 kept \
                     none; compare what came later, with --from"
                )
            })?;
            self.bookings[processor.index()].push(Booking { id, amount, requested_at });
            let amount = Total(amount.0.into());
            self.totals[processor.index()] += Totals { count: 1, amount };
        }
        Ok(())
    }

    /// By id, and what has the same id by time.
    pub fn sort(&mut self) {
        for bookings in &mut self.bookings {
            bookings.sort_unstable_by_key(|it| (it.id, it.requested_at, it.amount));
        }
        self.open.sort_by_key(|it| it.id);
    }

    /// Of what is held or settled.
    pub fn totals(&self) -> Each<Totals> {
        self.totals
    }

    /// As the side that holds them. In order, once they are sorted.
    pub fn bookings(&self) -> Each<&[Booking]> {
        self.bookings.each_ref().map(|it| &it[..])
    }

    /// As the side that knows them: by id once they are sorted, and of one id first what is settled.
    pub fn known(&self) -> impl Iterator<Item = Known> + '_ {
        let mut rest = self.bookings.each_ref().map(|it| &it[..]);
        let settled = std::iter::from_fn(move || {
            // Of one id in the order of the processors.
            let heads = Processor::every().zip(&rest);
            let heads = heads.filter_map(|(by, it)| it.first().map(|booking| (booking.id, by)));
            let (_, by) = heads.min()?;
            let (booking, others) = rest[by.index()].split_first()?;
            rest[by.index()] = others;
            let fate = Fate::Settled(by, booking.requested_at);
            Some(Known { id: booking.id, amount: booking.amount, fate })
        });
        let (mut settled, mut open) = (settled.peekable(), self.open.iter().copied().peekable());
        std::iter::from_fn(move || match (settled.peek(), open.peek()) {
            (Some(one), Some(other)) if one.id > other.id => open.next(),
            (None, _) => open.next(),
            _ => settled.next(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::money::Cents;
    use crate::payments::each;

    fn row(id: u128, processor: Processor, at_ms: i64) -> Row {
        let requested_at = Timestamp(at_ms);
        Row::Held(Some(PaymentId(id)), Settlement { processor, amount: Cents(10), requested_at })
    }

    fn open(id: u128) -> Known {
        Known { id: PaymentId(id), amount: Cents(10), fate: Fate::Unknown }
    }

    #[test]
    fn a_side_is_kept_by_id_and_within_the_window() {
        let [default, fallback] = Processor::CONTEST;
        let rows =
            [row(3, default, 5), row(1, fallback, 6), row(2, default, 7), row(9, default, 8)];
        let rows = rows.into_iter().chain([4, 2, 0].map(|id| Row::Open(open(id))));
        let mut side = Side::default();
        let window = Window { from: Some(Timestamp(5)), to: Some(Timestamp(7)) };
        side.take(rows.map(Ok), window, &mut Room::default()).unwrap();
        side.sort();
        let known: Vec<_> = side.known().map(|it| (it.id.0, it.fate)).collect();
        let settled = |by, at| Fate::Settled(by, Timestamp(at));
        let expected = [
            (0, Fate::Unknown),
            (1, settled(fallback, 6)),
            (2, settled(default, 7)),
            (2, Fate::Unknown),
            (3, settled(default, 5)),
            (4, Fate::Unknown),
        ];
        assert_eq!(known, expected);
        let totals = side.totals().map(|it| (it.count, it.amount.0));
        assert_eq!(totals, each([(2, 20), (1, 10)]));
        assert_eq!(side.bookings().map(<[_]>::len), each([2, 1]));
    }

    #[test]
    fn more_than_there_is_room_for_and_errors_end_it() {
        let rows = || [1, 2].into_iter().map(|id| Ok(row(id, Processor::DEFAULT, 1)));
        let mut room = Room(3);
        let mut take = |rows: &mut dyn Iterator<Item = Result<Row, String>>| {
            Side::default().take(rows, Window::default(), &mut room)
        };
        assert_eq!(take(&mut rows()), Ok(()));
        assert!(take(&mut rows()).unwrap_err().contains("--from and --to"));
        let without_id = |at_ms| match row(0, Processor::DEFAULT, at_ms) {
            Row::Held(_, settlement) => Ok(Row::Held(None, settlement)),
            open => Ok(open),
        };
        let window = Window { from: Some(Timestamp(5)), to: None };
        let mut room = Room(3);
        let mut later =
            |at_ms| Side::default().take(std::iter::once(without_id(at_ms)), window, &mut room);
        assert_eq!(later(4), Ok(()));
        assert!(later(5).unwrap_err().contains("has no id"));
        let mut take = |rows: &mut dyn Iterator<Item = Result<Row, String>>| {
            Side::default().take(rows, window, &mut room)
        };
        let mut failing = std::iter::once(Err("line 7".to_owned()));
        assert_eq!(take(&mut failing), Err("line 7".into()));
    }
}
