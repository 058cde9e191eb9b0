//! Money as integer cents, and fees on it: exact decimal text in and out, never a float.
//!
//! Knows nothing of payments or JSON documents; it reads one JSON number at a time. More than two
//! decimals are rounded half to even, as the contest's processors do.

use std::fmt;
use std::str::FromStr;

/// An amount in cents (hundredths). Displays as a decimal with exactly two places: `19.90`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cents(pub i64);

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoneyError {
    /// The text is not a number of the JSON grammar (RFC 8259, section 6).
    NotANumber,
    /// The number of cents does not fit in 64 bits.
    OutOfRange,
}

impl Cents {
    /// Reads one JSON number (RFC 8259, section 6: no leading zeros, no `+`, exponent allowed) and
    /// rounds it to whole cents, half to even. Exact for every length of input.
    ///
    /// # Errors
    /// [`MoneyError::NotANumber`] if anything but one number is there, [`MoneyError::OutOfRange`]
    /// if the cents do not fit in an `i64`.
    pub fn parse(text: &[u8]) -> Result<Cents, MoneyError> {
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (integer, rest) = split_digits(unsigned);
        if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
            return Err(MoneyError::NotANumber);
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (fraction, rest) = split_digits(rest);
                if fraction.is_empty() {
                    return Err(MoneyError::NotANumber);
                }
                (fraction, rest)
            }
            _ => (&[][..], rest),
        };
        let exponent = parse_exponent(rest)?;
        let magnitude = round_to_cents(integer, fraction, exponent)?;
        let cents = if negative { -magnitude } else { magnitude };
        i64::try_from(cents).map(Cents).map_err(|_| MoneyError::OutOfRange)
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Reads `e±digits` or nothing. Saturates: an exponent beyond a million is decided by its sign.
fn parse_exponent(text: &[u8]) -> Result<i64, MoneyError> {
    let digits = match text {
        [] => return Ok(0),
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        _ => return Err(MoneyError::NotANumber),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MoneyError::NotANumber);
    }
    const SATURATED: i64 = 1_000_000;
    let magnitude =
        digits.iter().fold(0_i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(SATURATED));
    Ok(if text[1] == b'-' { -magnitude } else { magnitude })
}

/// `integer.fraction × 10^exponent`, in cents, rounded half to even.
fn round_to_cents(integer: &[u8], fraction: &[u8], exponent: i64) -> Result<i128, MoneyError> {
    const LIMIT: i128 = i64::MAX as i128 + 1; // |i64::MIN|; the caller applies the sign
    let mut digits = integer.iter().chain(fraction).map(|digit| i128::from(digit - b'0'));
    // So many of the digits stand before the decimal point once the value is in cents.
    let mut before_point = integer.len() as i64 + exponent + 2;

    let mut cents = 0_i128;
    while before_point > 0 {
        match digits.next() {
            Some(digit) => cents = cents * 10 + digit,
            None if cents == 0 => break,
            None => cents *= 10,
        }
        if cents > LIMIT {
            return Err(MoneyError::OutOfRange);
        }
        before_point -= 1;
    }
    let half = if before_point == 0 { digits.next().unwrap_or(0) } else { 0 };
    let beyond_half = digits.any(|digit| digit != 0);
    let round_up = half > 5 || (half == 5 && (beyond_half || cents % 2 == 1));
    Ok(cents + i128::from(round_up))
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Total(i128::from(self.0)).fmt(f)
    }
}

impl Cents {
    /// Appends what is displayed, by hand: `format!` costs several times as much, and every request
    /// to a processor carries an amount.
    pub fn write(self, out: &mut Vec<u8>) {
        if self.0 < 0 {
            out.push(b'-');
        }
        let magnitude = self.0.unsigned_abs();
        write_decimal(out, magnitude / 100);
        out.extend_from_slice(&[b'.', digit(magnitude / 10), digit(magnitude)]);
    }
}

/// Appends a number in decimal.
pub fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = digit(value);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The last digit of a number.
fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// A sum of many amounts, in cents: wide enough that no history of 64-bit amounts overflows it.
/// Displays like [`Cents`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Total(pub i128);

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", magnitude / 100, magnitude % 100)
    }
}

/// A fee: the share of an amount, exact, in millionths: 50,000 is 5 %. Displays as a decimal without
/// trailing zeros: `0.05`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fee(pub u32);

impl FromStr for Fee {
    type Err = String;

    fn from_str(text: &str) -> Result<Fee, String> {
        let range = "it must be a decimal from 0 to 1 with at most six places, such as 0.05";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if fraction.is_empty() || fraction.len() > 6 {
            return Err(range.into());
        }
        let millionths = format!("{whole}{fraction:0<6}");
        let digits = millionths.bytes().all(|byte| byte.is_ascii_digit()) && !whole.is_empty();
        let fee = digits.then(|| millionths.parse().ok()).flatten().ok_or(range)?;
        if fee <= 1_000_000 { Ok(Fee(fee)) } else { Err(range.into()) }
    }
}

impl Fee {
    /// The fee on so many cents, in millionths of a cent.
    pub fn of(self, cents: i128) -> i128 {
        cents * i128::from(self.0)
    }
}

impl fmt::Display for Fee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimal = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(decimal.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A whole number with commas between thousands.
pub fn grouped(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", &digits[..]),
    };
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::{Decimal, RoundingStrategy};

    #[test]
    fn reads_what_json_allows_and_nothing_else() {
        let cases: &[(&str, Result<i64, MoneyError>)] = &[
            ("19.90", Ok(1990)),
            ("0", Ok(0)),
            ("-0.01", Ok(-1)),
            ("1e2", Ok(10_000)),
            ("1.5E-1", Ok(15)),
            ("0e999999999999999999999", Ok(0)),
            ("1e-999999999999999999999", Ok(0)),
            ("0.005", Ok(0)),
            ("0.015", Ok(2)),
            ("0.0050000000000000000000000000001", Ok(1)),
            ("5e-3", Ok(0)),
            ("51e-4", Ok(1)),
            ("92233720368547758.07", Ok(i64::MAX)),
            ("92233720368547758.08", Err(MoneyError::OutOfRange)),
            ("-92233720368547758.08", Ok(i64::MIN)),
            ("-92233720368547758.09", Err(MoneyError::OutOfRange)),
            ("92233720368547758.075", Err(MoneyError::OutOfRange)),
            ("1e17", Err(MoneyError::OutOfRange)),
            ("1e999999999999999999999", Err(MoneyError::OutOfRange)),
            ("", Err(MoneyError::NotANumber)),
            ("-", Err(MoneyError::NotANumber)),
            ("+1", Err(MoneyError::NotANumber)),
            ("01", Err(MoneyError::NotANumber)),
            (".5", Err(MoneyError::NotANumber)),
            ("1.", Err(MoneyError::NotANumber)),
            ("1e", Err(MoneyError::NotANumber)),
            ("1e+", Err(MoneyError::NotANumber)),
            ("1 ", Err(MoneyError::NotANumber)),
            ("1_0", Err(MoneyError::NotANumber)),
            ("0x10", Err(MoneyError::NotANumber)),
            ("NaN", Err(MoneyError::NotANumber)),
            ("\"1\"", Err(MoneyError::NotANumber)),
        ];
        for (text, expected) in cases {
            assert_eq!(Cents::parse(text.as_bytes()).map(|cents| cents.0), *expected, "{text}");
        }
    }

    #[test]
    fn fees_are_exact() {
        for (text, millionths) in [("0.05", 50_000), ("0", 0), ("1", 1_000_000), ("0.000001", 1)] {
            assert_eq!(text.parse(), Ok(Fee(millionths)), "{text}");
            assert_eq!(Fee(millionths).to_string(), text);
        }
        for wrong in ["", ".5", "1.000001", "-0.1", "0.0000001", "5%", "0.", "1e-2", "2"] {
            assert!(wrong.parse::<Fee>().is_err(), "{wrong}");
        }
        assert_eq!(Fee(50_000).of(1990), 99_500_000);
    }

    proptest! {
        #[test]
        fn written_by_hand_it_is_what_is_displayed(cents: i64) {
            for cents in [cents, cents % 1000, i64::MIN, i64::MAX, 0] {
                let mut text = Vec::new();
                Cents(cents).write(&mut text);
                prop_assert_eq!(String::from_utf8(text).unwrap(), Cents(cents).to_string());
            }
        }

        #[test]
        fn what_is_printed_reads_back(cents: i64) {
            prop_assert_eq!(Cents::parse(Cents(cents).to_string().as_bytes()), Ok(Cents(cents)));
        }

        #[test]
        fn rounds_as_a_decimal_library_does(
            mantissa in -10_i64.pow(15)..10_i64.pow(15), scale in 0_u32..12,
        ) {
            let decimal = Decimal::new(mantissa, scale);
            let rounded = decimal.round_dp_with_strategy(2, RoundingStrategy::MidpointNearestEven);
            let expected = i64::try_from(rounded * Decimal::ONE_HUNDRED).unwrap();
            prop_assert_eq!(Cents::parse(decimal.to_string().as_bytes()), Ok(Cents(expected)));
            let scientific = format!("{mantissa}e-{scale}");
            prop_assert_eq!(Cents::parse(scientific.as_bytes()), Ok(Cents(expected)));
        }

        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = Cents::parse(&text);
        }
    }
}
