//! The processor's own units: a fee rate, a time to the microsecond, a duration as a flag.
//!
//! The rest of the program counts time in milliseconds; a processor keeps `requestedAt` to the
//! microsecond, so what it books needs a finer unit. No floats: a fee is a whole number of
//! millionths, and every product with it is printed exactly.

use crate::clock::{Rounding, Timestamp};
use crate::money::Total;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z. Displays as ISO 8601 with the trailing zeros of the
/// fraction left out, as .NET prints a `DateTime` in JSON: whole seconds have no fraction at all.
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
        write!(f, "{}Z", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a processor keeps of each amount, in millionths: 50,000 is 5 %. Displays as a decimal
/// without trailing zeros: `0.05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fee(u32);

impl Fee {
    /// The fee on a sum, exactly: nothing is rounded, however many decimals it takes.
    pub fn of(self, amount: Total) -> Decimal {
        // Cannot overflow: the books hold fewer than 2^23 payments of 63 bits, and a fee 20 bits.
        Decimal { units: amount.0 * i128::from(self.0), scale: 8 }
    }
}

impl FromStr for Fee {
    type Err = String;

    /// Reads a decimal from 0 to 1 with six decimals at most.
    fn from_str(text: &str) -> Result<Fee, String> {
        const WRONG: &str = "a decimal from 0 to 1 with six decimals at most, such as 0.05";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if fraction.is_empty() || fraction.len() > 6 {
            return Err(WRONG.into());
        }
        let digits = whole.bytes().chain(fraction.bytes());
        if !matches!(whole, "0" | "1") || !digits.into_iter().all(|byte| byte.is_ascii_digit()) {
            return Err(WRONG.into());
        }
        let millionths = format!("{whole}{fraction:0<6}").parse().map_err(|_| WRONG)?;
        if millionths > 1_000_000 { Err(WRONG.into()) } else { Ok(Fee(millionths)) }
    }
}

impl fmt::Display for Fee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Decimal { units: i128::from(self.0), scale: 6 }.fmt(f)
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

/// Reads a whole number and its unit: `500us`, `1ms`, `2s`, or just `0`. An hour at most.
///
/// # Errors
/// A sentence for the person who typed the flag.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "a whole number and a unit, such as 500us, 1ms or 2s; an hour at most";
    const LONGEST: Duration = Duration::from_secs(3600);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_start = text.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
    let (number, unit) = text.split_at(unit_start);
    let number: u64 = number.parse().map_err(|_| WRONG)?;
    let duration = match unit {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return Err(WRONG.into()),
    };
    if duration > LONGEST { Err(WRONG.into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_the_microsecond_and_cut_below_it() {
        let cases: &[(&str, Option<(i64, &str)>)] = &[
            ("1970-01-01T00:00:01Z", Some((1_000_000, "1970-01-01T00:00:01Z"))),
            ("1970-01-01T00:00:00.1Z", Some((100_000, "1970-01-01T00:00:00.1Z"))),
            ("1970-01-01T00:00:00.0001Z", Some((100, "1970-01-01T00:00:00.0001Z"))),
            ("1970-01-01T00:00:00.000001Z", Some((1, "1970-01-01T00:00:00.000001Z"))),
            ("1970-01-01T00:00:00.0000019999Z", Some((1, "1970-01-01T00:00:00.000001Z"))),
            ("1970-01-01T03:00:00.123456+03:00", Some((123_456, "1970-01-01T00:00:00.123456Z"))),
            ("1970-01-01T03:00:00+03:00", Some((0, "1970-01-01T00:00:00Z"))),
            ("1969-12-31T23:59:59.9999995Z", Some((-1, "1969-12-31T23:59:59.999999Z"))),
            ("1970-01-01T00:00:20.120Z", Some((20_120_000, "1970-01-01T00:00:20.12Z"))),
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
        let fee = |text: &str| text.parse::<Fee>().unwrap();
        assert_eq!(fee("0.05").to_string(), "0.05");
        assert_eq!(fee("0").to_string(), "0");
        assert_eq!(fee("1.000000").to_string(), "1");
        assert_eq!(fee("0.000001").of(Total(1)).to_string(), "0.00000001");
        assert_eq!(fee("0.05").of(Total(1990)).to_string(), "0.995");
        assert_eq!(fee("0.15").of(Total(-2000)).to_string(), "-3");
        // 0.07 × 90,600 × 20.05 is 127157.1 exactly; in doubles it is 127157.10000000002.
        assert_eq!(fee("0.07").of(Total(90_600 * 2005)).to_string(), "127157.1");
        for wrong in ["", "5", "1.1", "0.0000001", ".05", "0.", "-0.1", "5%", "0.0 5", "1e-2"] {
            assert!(wrong.parse::<Fee>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(parse_duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["", "1", "ms", "-1ms", "1.5ms", "1m", "3601s", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
