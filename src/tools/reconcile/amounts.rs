//! Amounts as they stand in statements: decimals or cents, with the points of any country.
//!
//! The invariant: a text is one amount or none. Whatever could be another amount in another country
//! is refused with what to say about it, so that nothing is taken for its hundredfold or thousandth.

use super::table::shown;
use crate::base::money::Cents;

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// 19.90 is nineteen units and ninety cents
    Decimal,
    /// 1990 is the same
    Cents,
}

/// How amounts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// If nothing was said: decimals, but then somewhere a decimal point has to stand.
    pub unit: Option<Unit>,
    pub decimal_point: char,
    /// Between groups of three digits. It may be left out even so.
    pub thousands_separator: Option<char>,
}

impl Default for Amounts {
    fn default() -> Amounts {
        Amounts { unit: None, decimal_point: '.', thousands_separator: None }
    }
}

/// An amount, and whether a decimal point stood in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub cents: Cents,
    pub has_point: bool,
}

impl Amounts {
    /// # Errors
    /// If the two points are one, or may stand in a number as something else.
    pub fn check(self) -> Result<Amounts, String> {
        for point in [Some(self.decimal_point), self.thousands_separator].into_iter().flatten() {
            if point.is_ascii_alphanumeric() || "+-\"\r\n".contains(point) {
                return Err(format!("{point:?} cannot stand between the digits of an amount"));
            }
        }
        if self.thousands_separator == Some(self.decimal_point) {
            let point = self.decimal_point;
            return Err(format!("{point:?} cannot be both decimal point and thousands separator"));
        }
        Ok(self)
    }

    /// # Errors
    /// Why it is no amount, or not for certain one, and what may help.
    pub fn read(self, text: &[u8]) -> Result<Read, String> {
        let Ok(number) = str::from_utf8(text) else { return Err(self.refuse(text)) };
        let (is_negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (whole, fraction) = match number.split_once(self.decimal_point) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (number, None),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        if !fraction.is_none_or(is_digits) {
            return Err(self.refuse(text));
        }
        let mut cents = self.read_whole(whole).ok_or_else(|| self.refuse(text))?;
        if self.unit == Some(Unit::Cents) {
            if fraction.is_some() {
                return Err(format!("{} is no whole number of cents", shown(text)));
            }
        } else {
            cents = cents * 100 + self.read_fraction(text, fraction.unwrap_or_default())?;
        }
        let cents = if is_negative { -cents } else { cents };
        match i64::try_from(cents) {
            Ok(cents) => Ok(Read { cents: Cents(cents), has_point: fraction.is_some() }),
            Err(_) => Err(format!("{} is more than 64 bits of cents", shown(text))),
        }
    }

    /// Digits, in groups of three if they are in groups.
    fn read_whole(self, whole: &str) -> Option<i128> {
        const DIGITS_MAX: usize = 30;
        let mut value = 0;
        let mut digits = 0;
        let mut groups = whole.split(|it| Some(it) == self.thousands_separator).peekable();
        let mut is_first = true;
        while let Some(group) = groups.next() {
            let is_alone = is_first && groups.peek().is_none();
            let lengths = if is_first { 1..=3 } else { 3..=3 };
            digits += group.len();
            let is_group = is_alone || lengths.contains(&group.len());
            if !is_group || group.is_empty() || digits > DIGITS_MAX {
                return None;
            }
            for digit in group.chars() {
                value = value * 10 + i128::from(digit.to_digit(10)?);
            }
            is_first = false;
        }
        Some(value)
    }

    /// The cents behind the decimal point.
    fn read_fraction(self, text: &[u8], fraction: &str) -> Result<i128, String> {
        let point = self.decimal_point;
        let places = fraction.as_bytes();
        if places.len() == 3 && self.thousands_separator.is_none() {
            let other = if point == '.' { ',' } else { '.' };
            return Err(format!(
                "{} may be a thousand times as much: say --decimal-point {point} \
                 --thousands-separator {other} if it is not, and the other way round if it is",
                shown(text)
            ));
        }
        if places.iter().skip(2).any(|it| *it != b'0') {
            return Err(format!("{} has parts of cents", shown(text)));
        }
        let place = |index| places.get(index).map_or(0, |it| i128::from(it - b'0'));
        Ok(place(0) * 10 + place(1))
    }

    fn refuse(self, text: &[u8]) -> String {
        let has = |point: char| String::from_utf8_lossy(text).contains(point);
        let help = if self.decimal_point == '.' && has(',') && has('.') {
            "; is it --decimal-point , --thousands-separator . or --thousands-separator ,?"
        } else if self.decimal_point == '.' && has(',') {
            "; is it --decimal-point , or --thousands-separator ,?"
        } else if self.decimal_point == ',' && has('.') {
            "; is it --thousands-separator . or --decimal-point .?"
        } else {
            ""
        };
        format!("{} is no amount{help}", shown(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEFAULT: Amounts = Amounts { unit: None, decimal_point: '.', thousands_separator: None };
    const EUROPEAN: Amounts =
        Amounts { unit: None, decimal_point: ',', thousands_separator: Some('.') };
    const CENTS: Amounts = Amounts { unit: Some(Unit::Cents), ..DEFAULT };

    fn read(amounts: Amounts, text: &str) -> Result<i64, String> {
        amounts.check().unwrap().read(text.as_bytes()).map(|read| read.cents.0)
    }

    #[test]
    fn amounts_are_what_they_are_said_to_be() {
        let english = Amounts { thousands_separator: Some(','), ..DEFAULT };
        let swiss = Amounts { thousands_separator: Some('\''), ..DEFAULT };
        let french =
            Amounts { decimal_point: ',', thousands_separator: Some('\u{202f}'), ..DEFAULT };
        let in_groups = Amounts { thousands_separator: Some('.'), ..CENTS };
        let in_groups = Amounts { decimal_point: ',', ..in_groups };
        let cases: &[(Amounts, &str, i64)] = &[
            (DEFAULT, "19.90", 1_990),
            (DEFAULT, "19.9", 1_990),
            (DEFAULT, "20", 2_000),
            (DEFAULT, "-0.05", -5),
            (DEFAULT, "0019.9000", 1_990),
            (DEFAULT, "92233720368547758.07", i64::MAX),
            (DEFAULT, "-92233720368547758.08", i64::MIN),
            (EUROPEAN, "1.234,56", 123_456),
            (EUROPEAN, "1234,56", 123_456),
            (EUROPEAN, "1.234.567", 123_456_700),
            (EUROPEAN, "1.234,500", 123_450),
            (english, "1,234,567.80", 123_456_780),
            (english, "19.900", 1_990),
            (swiss, "1'234.56", 123_456),
            (french, "1\u{202f}234,56", 123_456),
            (CENTS, "1990", 1_990),
            (CENTS, "-5", -5),
            (in_groups, "199.000", 199_000),
        ];
        for (amounts, text, cents) in cases {
            assert_eq!(read(*amounts, text), Ok(*cents), "{text}");
        }
    }

    #[test]
    fn what_is_none_or_may_be_another_is_refused_with_help() {
        let english = Amounts { thousands_separator: Some(','), ..DEFAULT };
        let cases: &[(Amounts, &str, &str)] = &[
            (DEFAULT, "", "no amount"),
            (DEFAULT, "abc", "no amount"),
            (DEFAULT, "1e2", "no amount"),
            (DEFAULT, "+1.00", "no amount"),
            (DEFAULT, "--1.00", "no amount"),
            (DEFAULT, "R$ 1.00", "no amount"),
            (DEFAULT, "1.", "no amount"),
            (DEFAULT, ".5", "no amount"),
            (DEFAULT, "1.2.3", "no amount"),
            (DEFAULT, "1.234,56", "--decimal-point , --thousands-separator ."),
            (DEFAULT, "1,234.56", "--thousands-separator ,"),
            (DEFAULT, "19,90", "--decimal-point ,"),
            (DEFAULT, "1,234", "--thousands-separator ,"),
            (DEFAULT, "1.234", "a thousand times as much"),
            (DEFAULT, "1.000", "a thousand times as much"),
            (DEFAULT, "1.2345", "parts of cents"),
            (DEFAULT, "1.001000", "parts of cents"),
            (DEFAULT, "92233720368547758.08", "64 bits"),
            (DEFAULT, &"9".repeat(31), "no amount"),
            (DEFAULT, "٣.00", "no amount"),
            (EUROPEAN, "1,234.56", "no amount"),
            (EUROPEAN, "12.34", "no amount"),
            (EUROPEAN, "1.23,45", "no amount"),
            (EUROPEAN, ".123,45", "no amount"),
            (EUROPEAN, "1..234", "no amount"),
            (EUROPEAN, "1234.567,00", "no amount"),
            (english, "1,23", "no amount"),
            (Amounts { decimal_point: ',', ..DEFAULT }, "1.234,56", "--thousands-separator ."),
            (Amounts { decimal_point: ',', ..DEFAULT }, "1,234", "a thousand times as much"),
            (CENTS, "19.90", "no whole number of cents"),
            (CENTS, "1,990", "no amount"),
        ];
        for (amounts, text, help) in cases {
            let refusal = read(*amounts, text).unwrap_err();
            assert!(refusal.contains(help), "{text}: {refusal}");
        }
        assert!(DEFAULT.read(b"\xff").is_err());
    }

    #[test]
    fn points_that_cannot_be_told_apart_are_refused() {
        let same = Amounts { thousands_separator: Some('.'), ..DEFAULT };
        assert!(same.check().unwrap_err().contains("both"));
        for point in ['1', '-', 'e', '"', '\n'] {
            assert!(Amounts { decimal_point: point, ..DEFAULT }.check().is_err(), "{point:?}");
        }
    }

    proptest! {
        /// What is written with any points is read with them as it was; and with other points never
        /// as something else but for a whole number without any.
        #[test]
        fn an_amount_is_itself_or_refused(
            cents in prop_oneof![any::<i64>(), -1_000_000_i64..1_000_000],
            european: bool, grouped: bool, read_european: bool, read_grouped: bool,
        ) {
            let written = crate::base::money::Total(cents.into()).to_string();
            let (whole, fraction) = written.split_once('.').unwrap();
            let (point, separator) = if european { (',', '.') } else { ('.', ',') };
            let whole = if grouped {
                crate::tools::text::grouped(whole).replace(',', &separator.to_string())
            } else {
                whole.to_owned()
            };
            let text = format!("{whole}{point}{fraction}");
            let (decimal_point, other) = if read_european { (',', '.') } else { ('.', ',') };
            let thousands_separator = read_grouped.then_some(other);
            let amounts = Amounts { unit: None, decimal_point, thousands_separator };
            let read = amounts.read(text.as_bytes());
            if european == read_european && (read_grouped || !text.contains(separator)) {
                prop_assert_eq!(read.unwrap(), Read { cents: Cents(cents), has_point: true });
            } else if let Ok(read) = read {
                prop_assert!(false, "{} is {:?}", text, read);
            }
        }
    }
}
