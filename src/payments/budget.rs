//! How much more one processor may be sent: requests a second, and money a day.
//!
//! Pure, and for one instance. The invariants: in any second no more requests go out than `per_second`
//! says, and one; and what may have been booked under the times of one day of UTC never comes to more
//! than `day`.

use super::terms::Limits;
use crate::base::clock::{MS_PER_DAY, Moment, Timestamp};
use crate::base::money::Cents;
use std::time::Duration;

/// What was not used lately may be made up for at once: two of the steps in which payments are looked
/// after ([`WATCH_EVERY`](super::dispatcher::WATCH_EVERY)).
const BURST: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Clone, Debug)]
pub struct Budget {
    /// From one request to the next, on average. Zero without a limit.
    interval: Duration,
    /// When the next one would go out if they went out evenly.
    next_at: Moment,
    /// The last one was a question.
    has_asked: bool,
    day: Option<Cents>,
    /// When today is over.
    midnight: Timestamp,
    /// Kept also without a limit, which there may be later.
    spent: i128,
}

impl Budget {
    pub fn new(limits: &Limits) -> Budget {
        let a_second_and_burst = Duration::from_secs(1) + BURST;
        let interval = limits.per_second.map_or(Duration::ZERO, |per_second| {
            let us = (a_second_and_burst.as_micros() as u64).div_ceil(u64::from(per_second));
            Duration::from_micros(us)
        });
        let midnight = Timestamp(i64::MIN);
        let next_at = Moment::default();
        Budget { interval, next_at, has_asked: false, day: limits.day, midnight, spent: 0 }
    }

    /// The same with other limits: what was used up stays so.
    pub fn limited(&self, limits: &Limits) -> Budget {
        let Budget { next_at, has_asked, midnight, spent, .. } = *self;
        Budget { next_at, has_asked, midnight, spent, ..Budget::new(limits) }
    }

    /// Whether a request to book something may go out now.
    pub fn may_post(&self, now: Moment) -> bool {
        self.next_at <= now + BURST
    }

    /// Whether a question may: it goes before what is to be booked, or nothing would ever come of what
    /// is in doubt; but not two in a row, or nothing would be booked while there is enough in doubt.
    pub fn may_look(&self, now: Moment) -> bool {
        let ahead = if self.has_asked { Duration::ZERO } else { self.interval };
        self.next_at <= now + BURST + ahead
    }

    /// A request goes out, a question or one to book something.
    pub fn used(&mut self, is_look: bool, now: Moment) {
        self.has_asked = is_look;
        if self.interval > Duration::ZERO {
            self.next_at = self.next_at.max(now) + self.interval;
        }
    }

    /// How long it takes until so many more have gone out.
    pub fn time_for(&self, requests: usize) -> Duration {
        self.interval.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX))
    }

    /// What time it is. A clock that is put back does not bring yesterday's money back.
    pub fn is_at(&mut self, at: Timestamp) {
        if at >= self.midnight {
            (self.midnight, self.spent) = (midnight_after(at), 0);
        }
    }

    /// Whether so much more may be booked today.
    pub fn holds(&self, amount: Cents) -> bool {
        self.day.is_none_or(|day| self.spent + i128::from(amount.0) <= i128::from(day.0))
    }

    /// So much may be booked under this time from now on, or is.
    pub fn spend(&mut self, cents: i128, at: Timestamp) {
        self.is_at(at);
        // If the clock was ahead, what is booked until then counts for that day: too much, not too little.
        self.spent += if at < self.midnight { cents } else { 0 };
    }

    /// What might have been booked under this time is not, and never will be.
    pub fn give_back(&mut self, amount: Cents, at: Timestamp) {
        if self.is_today(at) {
            self.spent -= i128::from(amount.0);
        }
    }

    fn is_today(&self, at: Timestamp) -> bool {
        midnight_after(at) == self.midnight
    }
}

fn midnight_after(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_euclid(MS_PER_DAY).saturating_add(1).saturating_mul(MS_PER_DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_second: Option<u32>, day: Option<i64>) -> Limits {
        Limits { per_second, day: day.map(Cents), ..Limits::default() }
    }

    /// Whoever sends as soon as he may, or after a pause, or looks in between.
    #[test]
    fn in_no_second_there_are_more_than_so_many_and_one() {
        for per_second in [1, 3, 50, 1_000, 100_000] {
            for pause_ms in [0, 7, 900] {
                let mut budget = Budget::new(&limits(Some(per_second), None));
                let mut sent: Vec<u64> = Vec::new();
                for tick in 0..4_000 {
                    let now = Moment(1_000_000 + tick * 1_000);
                    let rests = pause_ms > 0 && tick % (2 * pause_ms) < pause_ms;
                    while !rests && budget.may_post(now) {
                        budget.used(false, now);
                        sent.push(now.0);
                    }
                    if tick % 400 == 0 && budget.may_look(now) {
                        budget.used(true, now);
                        sent.push(now.0);
                    }
                }
                let until = |us: u64| sent.partition_point(|it| *it < us);
                let second = |from: &u64| until(from + 1_000_000) - until(*from);
                let most = sent.iter().map(second).max().unwrap();
                assert!(most <= per_second as usize + 1, "{per_second} {pause_ms}: {most}");
                let all = if pause_ms == 0 { 3 * per_second as usize } else { 1 };
                assert!(sent.len() >= all, "{per_second}: {}", sent.len());
            }
        }
    }

    #[test]
    fn a_day_has_its_sum_and_the_next_one_its_own() {
        let noon = |day: i64| Timestamp(day * MS_PER_DAY + MS_PER_DAY / 2);
        let mut budget = Budget::new(&limits(None, Some(100)));
        budget.spend(70, noon(5));
        assert!(budget.holds(Cents(30)) && !budget.holds(Cents(31)));
        budget.give_back(Cents(70), noon(5));
        budget.spend(20, noon(5));
        budget.is_at(noon(4));
        assert!(budget.holds(Cents(80)) && !budget.holds(Cents(81)), "the clock was put back");
        budget.is_at(noon(6));
        assert!(budget.holds(Cents(100)));
        budget.give_back(Cents(20), noon(5));
        assert!(!budget.holds(Cents(101)), "what was yesterday's gives nothing back");
        budget.spend(60, noon(5));
        assert!(budget.holds(Cents(40)) && !budget.holds(Cents(41)), "the clock was ahead");
    }

    #[test]
    fn half_of_the_requests_book_something_however_much_is_in_doubt() {
        let mut budget = Budget::new(&limits(Some(4), None));
        let mut counts = [0; 2];
        for ms in 0..10_000 {
            let now = Moment(1_000_000 + ms * 1_000);
            let is_look = !budget.may_post(now);
            if !is_look || budget.may_look(now) {
                budget.used(is_look, now);
                counts[usize::from(is_look)] += 1;
            }
        }
        assert!(counts.iter().all(|count| (18..=22).contains(count)), "{counts:?}");
    }

    #[test]
    fn other_limits_find_what_was_used_up() {
        let at = Timestamp(5 * MS_PER_DAY);
        let mut budget = Budget::new(&limits(None, None));
        budget.spend(70, at);
        assert!(budget.holds(Cents(i64::MAX)));
        budget = budget.limited(&limits(None, Some(100)));
        assert!(budget.holds(Cents(30)) && !budget.holds(Cents(31)));
        budget = budget.limited(&limits(None, Some(50)));
        assert!(!budget.holds(Cents(1)), "less than was spent");
        let now = Moment(1_000_000);
        let mut budget = Budget::new(&limits(Some(1), None));
        (0..2).for_each(|_| budget.used(false, now));
        assert!(!budget.limited(&limits(Some(1_000), None)).may_post(now));
    }
}
