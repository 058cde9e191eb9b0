//! The processor's own units: a time to the microsecond, and fees with all their decimals.
//!
//! The rest of the program counts time in milliseconds; a processor keeps `requestedAt` to the
//! microsecond, so what it books needs a finer unit. No floats: a fee is a whole number of
//! millionths, and every product with it is printed exactly.

use crate::base::clock::{Rounding, Timestamp};
use crate::base::money::{Fee, Total};
use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z. Displays as ISO 8601 without a zone and with the
/// trailing zeros of the fraction left out, as .NET prints a `DateTime` from a column that has none:
/// whole seconds have no fraction at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroTimestamp(pub i64);

impl MicroTimestamp {
    /// Reads what [`Timestamp::parse`] reads. Digits below the microsecond are dropped, as the
    /// original's database column does.
    pub fn parse(text: &[u8]) -> Option<MicroTimestamp> {
        const FRACTION_START: usize = "2020-07-10T12:34:56.".len();
        let ms = Timestamp::parse(text, Rounding::Down)?.0;
        // The text is valid, so what follows the seconds is a fraction or an offset; the digits of
        // an offset are never reached, because its sign comes first.
        let fraction = match text.get(FRACTION_START - 1) {
            Some(b'.') => text.get(FRACTION_START..).unwrap_or_default(),
            _ => &[],
        };
        let mut digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).skip(3);
        let below_ms = (0..3)
            .fold(0, |us, _| us * 10 + digits.next().map_or(0, |digit| i64::from(digit - b'0')));
        Some(MicroTimestamp(ms * 1000 + below_ms))
    }
}

impl fmt::Display for MicroTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = Timestamp(self.0.div_euclid(1000)).to_string();
        let digits = format!("{}{:03}", ms.trim_end_matches('Z'), self.0.rem_euclid(1000));
        write!(f, "{}", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// `units / 10^scale`. Displays without trailing zeros: `0.995`, `3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    units: i128,
    scale: usize,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", self.units.unsigned_abs(), width = self.scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.scale);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

/// The fee on a sum, exactly: nothing is rounded, however many decimals it takes.
pub fn fee_on(fee: Fee, amount: Total) -> Decimal {
    // Cannot overflow: the books hold fewer than 2^23 payments of 63 bits, and a fee 20 bits.
    Decimal { units: fee.of(amount.0), scale: 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_the_microsecond_and_cut_below_it() {
        let cases: &[(&str, Option<(i64, &str)>)] = &[
            ("1970-01-01T00:00:01Z", Some((1_000_000, "1970-01-01T00:00:01"))),
            ("1970-01-01T00:00:00.1Z", Some((100_000, "1970-01-01T00:00:00.1"))),
            ("1970-01-01T00:00:00.0001Z", Some((100, "1970-01-01T00:00:00.0001"))),
            ("1970-01-01T00:00:00.000001Z", Some((1, "1970-01-01T00:00:00.000001"))),
            ("1970-01-01T00:00:00.0000019999Z", Some((1, "1970-01-01T00:00:00.000001"))),
            ("1970-01-01T03:00:00.123456+03:00", Some((123_456, "1970-01-01T00:00:00.123456"))),
            ("1970-01-01T03:00:00+03:00", Some((0, "1970-01-01T00:00:00"))),
            ("1969-12-31T23:59:59.9999995Z", Some((-1, "1969-12-31T23:59:59.999999"))),
            ("1970-01-01T00:00:20.120Z", Some((20_120_000, "1970-01-01T00:00:20.12"))),
            ("1970-01-01T00:00:00", None),
            ("now", None),
        ];
        for (text, expected) in cases {
            let read = MicroTimestamp::parse(text.as_bytes());
            assert_eq!(read.map(|at| at.0), expected.map(|(us, _)| us), "{text}");
            let printed = read.map(|at| at.to_string());
            assert_eq!(printed.as_deref(), expected.map(|(_, printed)| printed), "{text}");
        }
    }

    #[test]
    fn fees_are_exact() {
        let fee = |fee: &str, cents| fee_on(fee.parse().unwrap(), Total(cents)).to_string();
        assert_eq!(fee("0.000001", 1), "0.00000001");
        assert_eq!(fee("0.05", 1990), "0.995");
        assert_eq!(fee("0.15", -2000), "-3");
        // 0.07 × 90,600 × 20.05 is 127157.1 exactly; in doubles it is 127157.10000000002.
        assert_eq!(fee("0.07", 90_600 * 2005), "127157.1");
    }
}
