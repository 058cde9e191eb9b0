//! What each processor takes, and for how much: to which of them a payment is offered first.
//!
//! Pure. The invariant: of two instances with the same terms both offer a payment to the same processor
//! first, whatever they have seen ([`Offers::cheapest`]).

use super::fee::FeeSchedule;
use super::{Each, Processor};
use crate::base::money::{Cents, Fee};

/// What a processor may be asked to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight.
    pub concurrency: u32,
    /// Requests a second.
    pub per_second: Option<u32>,
    /// Amounts of a payment, both included.
    pub smallest: Option<Cents>,
    pub largest: Option<Cents>,
    /// The sum of a day of UTC.
    pub day: Option<Cents>,
}

impl Limits {
    pub const CONCURRENCY: u32 = 400;

    /// Whether a payment of this amount may go there at all.
    pub fn takes(&self, amount: Cents) -> bool {
        self.smallest.is_none_or(|it| amount >= it) && self.largest.is_none_or(|it| amount <= it)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        let concurrency = Limits::CONCURRENCY;
        Limits { concurrency, per_second: None, smallest: None, largest: None, day: None }
    }
}

/// The terms of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub fee: FeeSchedule,
    pub limits: Limits,
}

/// The processors that payments may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    terms: Each<Option<Terms>>,
    /// By number.
    all: Order,
    /// The cheapest first; of an amount of one cent, if that depends on the amount.
    order: Order,
    depends_on_amount: bool,
}

/// Some of the processors, one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    processors: Each<Processor>,
    count: u8,
}

impl Order {
    pub fn as_slice(&self) -> &[Processor] {
        &self.processors[..usize::from(self.count)]
    }

    pub fn iter(self) -> impl Iterator<Item = Processor> + Clone {
        self.processors.into_iter().take(self.count.into())
    }

    pub fn truncate(&mut self, count: u8) {
        self.count = self.count.min(count);
    }

    pub fn retain(&mut self, keep: impl Fn(&Processor) -> bool) {
        let before = *self;
        self.count = 0;
        before.as_slice().iter().filter(|it| keep(it)).for_each(|it| self.push(*it));
    }

    fn push(&mut self, processor: Processor) {
        self.processors[usize::from(self.count)] = processor;
        self.count += 1;
    }
}

impl Offers {
    /// Of two that cost the same the one with the lower number is preferred.
    pub fn new(terms: Each<Option<Terms>>) -> Offers {
        let depends_on_amount = terms.iter().flatten().any(|it| {
            it.fee.fixed != Cents(0) || it.limits.smallest.is_some() || it.limits.largest.is_some()
        });
        let mut all = Order::default();
        let is_there = |it: &Processor| terms[it.index()].is_some();
        Processor::every().filter(is_there).for_each(|it| all.push(it));
        let mut offers = Offers { terms, all, order: all, depends_on_amount };
        offers.order = offers.sorted(Cents(1));
        offers
    }

    /// The contest's two, each with so many attempts in flight at most.
    pub fn contest(fees: [Fee; 2], concurrency: u32) -> Offers {
        let mut terms = Each::default();
        for (terms, share) in terms.iter_mut().zip(fees) {
            let fee = FeeSchedule { share, fixed: Cents(0) };
            *terms = Some(Terms { fee, limits: Limits { concurrency, ..Limits::default() } });
        }
        Offers::new(terms)
    }

    /// All of them, by number.
    pub fn processors(&self) -> impl Iterator<Item = Processor> + Clone + use<> {
        self.all.iter()
    }

    /// The same with other limits on the attempts in flight.
    pub fn with_concurrency(mut self, of: impl Fn(u32) -> u32) -> Offers {
        for terms in self.terms.iter_mut().flatten() {
            terms.limits.concurrency = of(terms.limits.concurrency);
        }
        self
    }

    /// How many attempts may be in flight at all of them.
    pub fn concurrency(&self) -> usize {
        self.terms.iter().flatten().map(|it| it.limits.concurrency as usize).sum()
    }

    /// Of one of them.
    pub fn terms(&self, processor: Processor) -> Option<&Terms> {
        self.terms[processor.index()].as_ref()
    }

    /// Of the one with this number; the usual ones if there is none.
    pub fn limits(&self, index: usize) -> Limits {
        self.terms[index].map_or(Limits::default(), |it| it.limits)
    }

    /// Those that take this amount, the cheapest for it first.
    pub fn cheapest_first(&self, amount: Cents) -> Order {
        if self.depends_on_amount { self.sorted(amount) } else { self.order }
    }

    /// Whether there is an amount for which it may be the cheapest.
    pub fn may_be_cheapest(&self, processor: Processor) -> bool {
        self.depends_on_amount || self.order.as_slice().first() == Some(&processor)
    }

    /// The one that is the cheapest for this amount, if any takes it.
    pub fn cheapest(&self, amount: Cents) -> Option<Processor> {
        self.cheapest_first(amount).as_slice().first().copied()
    }

    fn sorted(&self, amount: Cents) -> Order {
        let mut order = self.all;
        order.retain(|it| self.terms(*it).is_some_and(|it| it.limits.takes(amount)));
        let fee = |it: &Processor| self.terms(*it).map_or(FeeSchedule::default(), |it| it.fee);
        let count = usize::from(order.count);
        // Stable.
        order.processors[..count].sort_by(|a, b| fee(a).compare(fee(b), amount));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(percent: u32, fixed: i64, amounts: [Option<i64>; 2]) -> Option<Terms> {
        let fee = FeeSchedule { share: Fee(percent * 10_000), fixed: Cents(fixed) };
        let [smallest, largest] = amounts.map(|it| it.map(Cents));
        Some(Terms { fee, limits: Limits { smallest, largest, ..Limits::default() } })
    }

    fn order(offers: &Offers, cents: i64) -> Vec<u8> {
        let order = offers.cheapest_first(Cents(cents));
        order.as_slice().iter().map(|it| it.number()).collect()
    }

    #[test]
    fn the_contests_two_are_offered_by_their_fees_and_by_number_if_these_are_equal() {
        let fees = |default, fallback| Offers::contest([Fee(default), Fee(fallback)], 400);
        assert_eq!(order(&fees(50_000, 150_000), 1_990), [0, 1]);
        assert_eq!(order(&fees(150_000, 50_000), 1_990), [1, 0]);
        assert_eq!(order(&fees(50_000, 50_000), 1_990), [0, 1]);
    }

    #[test]
    fn who_is_the_cheapest_depends_on_the_amount_and_on_who_takes_it() {
        let mut all = Each::default();
        (all[1], all[4]) = (terms(5, 0, [None; 2]), terms(2, 30, [None, Some(100_000)]));
        all[6] = terms(9, 0, [Some(500), None]);
        let offers = Offers::new(all);
        assert!(offers.processors().map(Processor::number).eq([1, 4, 6]));
        assert_eq!(order(&offers, 100), [1, 4]);
        assert_eq!(order(&offers, 10_000), [4, 1, 6]);
        assert_eq!(order(&offers, 100_001), [1, 6]);
        assert_eq!(offers.cheapest(Cents(100_000)), Processor::new(4));
        let mut few = Each::default();
        few[2] = terms(1, 0, [Some(2), Some(3)]);
        assert_eq!(Offers::new(few).cheapest(Cents(1)), None);
    }
}
