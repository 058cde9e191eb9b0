//! What a processor takes of a payment: a share of the amount and a fixed sum, exact.

use super::Totals;
use crate::base::money::{Cents, Fee};
use std::cmp::Ordering;
use std::fmt;

/// See the module. Displays as `2.9 % + 0.30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeSchedule {
    /// Below 100 %.
    pub share: Fee,
    /// Taken of each payment, whatever its amount.
    pub fixed: Cents,
}

impl FeeSchedule {
    /// The most that may be fixed, in cents: 1,000.00.
    pub const FIXED_MAX: u32 = 100_000;

    /// What it takes of this amount, in millionths of a cent. Processors round it, each in its way.
    pub fn on(self, amount: Cents) -> i128 {
        self.share.of(amount.0.into()) + i128::from(self.fixed.0) * 1_000_000
    }

    /// What it takes of all of these together, in millionths of a cent.
    pub fn on_all(self, totals: Totals) -> i128 {
        let fixed = i128::from(self.fixed.0) * i128::from(totals.count);
        self.share.of(totals.amount.0) + fixed * 1_000_000
    }

    /// The cheaper one for this amount comes first. Where both take the same, the one with the
    /// smaller share does: equal only if the schedules are, and in no order of their own then.
    pub fn compare(self, other: FeeSchedule, amount: Cents) -> Ordering {
        let key = |it: FeeSchedule| (it.on(amount), it.share, it.fixed);
        key(self).cmp(&key(other))
    }

    /// A percentage with at most four decimals, from 0 to below 100.
    pub fn read_percent(text: &str) -> Option<Fee> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || whole.len() > 2 || fraction.len() > 4 {
            return None;
        }
        format!("{whole}{fraction:0<4}").parse().ok().map(Fee)
    }
}

impl fmt::Display for FeeSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = format!("{}.{:04}", self.share.0 / 10_000, self.share.0 % 10_000);
        write!(f, "{} %", share.trim_end_matches('0').trim_end_matches('.'))?;
        if self.fixed.0 == 0 { Ok(()) } else { write!(f, " + {}", self.fixed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Total;
    use proptest::prelude::*;

    #[test]
    fn percentages_are_exact() {
        for (text, millionths) in
            [("0", 0), ("5", 50_000), ("2.9", 29_000), ("0.0001", 1), ("99.9999", 999_999)]
        {
            assert_eq!(FeeSchedule::read_percent(text), Some(Fee(millionths)), "{text}");
        }
        for wrong in ["", ".5", "5.", "100", "0.00001", "-1", "+1", "1e1", "5%", "inf", "1_0"] {
            assert_eq!(FeeSchedule::read_percent(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_cheaper_one_depends_on_the_amount() {
        let by_share = FeeSchedule { share: Fee(50_000), fixed: Cents(0) };
        let mixed = FeeSchedule { share: Fee(29_000), fixed: Cents(30) };
        assert_eq!(mixed.on(Cents(1_000)), 59_000_000);
        let three = Totals { count: 3, amount: Total(3_000) };
        assert_eq!(mixed.on_all(three), 3 * 59_000_000);
        assert_eq!(by_share.compare(mixed, Cents(1_000)), Ordering::Less);
        assert_eq!(by_share.compare(mixed, Cents(10_000)), Ordering::Greater);
        // Both take 50 cents of 10.00.
        let fixed = FeeSchedule { share: Fee(0), fixed: Cents(50) };
        assert_eq!(fixed.on(Cents(1_000)), by_share.on(Cents(1_000)));
        assert_eq!(fixed.compare(by_share, Cents(1_000)), Ordering::Less);
        assert_eq!(
            (mixed.to_string(), by_share.to_string()),
            ("2.9 % + 0.30".into(), "5 %".into())
        );
    }

    fn schedule() -> impl Strategy<Value = FeeSchedule> {
        let (share, fixed) = (0..1_000_000_u32, 0..=i64::from(FeeSchedule::FIXED_MAX));
        let few = (0..3_u32, 0..3_i64);
        prop_oneof![few, (share, fixed)]
            .prop_map(|(share, fixed)| FeeSchedule { share: Fee(share), fixed: Cents(fixed) })
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(a in schedule(), b in schedule(), c in schedule(), cents: i64) {
            let order = |a: FeeSchedule, b| a.compare(b, Cents(cents));
            prop_assert_eq!(order(a, b), order(b, a).reverse());
            prop_assert_eq!(order(a, b) == Ordering::Equal, a == b);
            if order(a, b).is_le() && order(b, c).is_le() {
                prop_assert!(order(a, c).is_le());
            }
        }
    }
}
