//! Time: the only file that reads a clock. Everything else is given the time as an argument, which
//! is what lets the dispatcher run in virtual time.
//!
//! Two kinds, never mixed: a [`Timestamp`] is what people and processors see; a [`Moment`] only
//! measures durations and never jumps.

use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z. Displays as ISO 8601 with three decimals and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Microseconds on a clock that never goes back, since the first reading in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// Microseconds since 1970-01-01T00:00:00Z. Displays as ISO 8601 with six decimals and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// A time to come by both clocks: the wall clock may be set meanwhile, and the other one begins anew
/// with each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    pub wall: Timestamp,
    pub moment: Moment,
}

impl Until {
    /// Not reached by both of them.
    pub fn is_ahead_of(self, at: Timestamp, now: Moment) -> bool {
        at < self.wall || now < self.moment
    }
}

/// Which whole millisecond stands for a time between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The millisecond before: right for an inclusive upper bound.
    Down,
    /// The millisecond after: right for an inclusive lower bound.
    Up,
}

/// The wall clock, now.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since_epoch.as_millis() as i64)
}

/// The wall clock, now, to the microsecond.
pub fn now_micros() -> Micros {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(since_epoch.as_micros() as i64)
}

/// CPU time that this process has used, all threads and the kernel's part included.
pub fn process_cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// The clock for durations, now. It goes on while the machine is asleep, as std's does not: who has
/// slept must notice that the world went on without him.
pub fn moment() -> Moment {
    static START: OnceLock<u64> = OnceLock::new();
    let now = clock_gettime(ClockId::Boottime);
    let now = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
    Moment(now.saturating_sub(*START.get_or_init(|| now)))
}

impl Moment {
    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration.as_micros() as u64))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(duration.as_micros() as u64))
    }
}

pub const MS_PER_DAY: i64 = 86_400_000;

impl Timestamp {
    /// Reads an RFC 3339 date-time: any number of fraction digits, any offset, `T` in either case
    /// or a space. A second of 60 is read as the first of the next minute.
    ///
    /// Returns `None` for anything else, and for years outside 0000 to 9999 in UTC.
    pub fn parse(text: &[u8], rounding: Rounding) -> Option<Timestamp> {
        let (date_time, rest) = text.split_at_checked(19)?;
        let [
            y0,
            y1,
            y2,
            y3,
            b'-',
            mo0,
            mo1,
            b'-',
            d0,
            d1,
            b'T' | b't' | b' ',
            h0,
            h1,
            b':',
            mi0,
            mi1,
            b':',
            s0,
            s1,
        ] = *date_time
        else {
            return None;
        };
        let year = digits(&[y0, y1, y2, y3])?;
        let month = digits(&[mo0, mo1])?;
        let day = digits(&[d0, d1])?;
        let (hour, minute, second) = (digits(&[h0, h1])?, digits(&[mi0, mi1])?, digits(&[s0, s1])?);
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction_ms, between, rest) = parse_fraction(rest)?;
        let offset_minutes = parse_offset(rest)?;

        let seconds = hour * 3600 + (minute - offset_minutes) * 60 + second;
        let ms = days_from_civil(year, month, day) * MS_PER_DAY + seconds * 1000 + fraction_ms;
        let rounded = ms + i64::from(between && rounding == Rounding::Up);
        // The last millisecond stands for all that is left of the last year.
        (FIRST_MS..=LAST_MS).contains(&ms).then_some(Timestamp(rounded.min(LAST_MS)))
    }
}

/// 0000-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z.
const FIRST_MS: i64 = -719_528 * MS_PER_DAY;
const LAST_MS: i64 = 2_932_897 * MS_PER_DAY - 1;

fn digits(text: &[u8]) -> Option<i64> {
    text.iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// `.digits` or nothing → whole milliseconds, whether anything is left below one, and the rest.
fn parse_fraction(text: &[u8]) -> Option<(i64, bool, &[u8])> {
    let [b'.', text @ ..] = text else {
        return Some((0, false, text));
    };
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (fraction, rest) = text.split_at(length);
    let ms = (0..3).fold(0, |ms, place| {
        ms * 10 + fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'))
    });
    let between = fraction.iter().skip(3).any(|digit| *digit != b'0');
    Some((ms, between, rest))
}

/// `Z` or `±hh:mm` → minutes east of UTC.
fn parse_offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (digits(&[h0, h1])?, digits(&[m0, m1])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 60 + minutes;
            Some(if sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Years are counted from
/// March, so that the leap day comes last and the month lengths follow one linear formula.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl Timestamp {
    /// How it is displayed. Written by hand, because every request to a processor carries one, and
    /// `format!` costs as much as all else in that request.
    ///
    /// What lies outside the years 0000 to 9999 becomes the nearest millisecond inside.
    pub fn text(self) -> [u8; 24] {
        let all = self.0.clamp(FIRST_MS, LAST_MS);
        let (year, month, day) = civil_from_days(all.div_euclid(MS_PER_DAY));
        let ms = all.rem_euclid(MS_PER_DAY);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |place: std::ops::Range<usize>, value| put_digits(&mut text[place], value);
        put(0..4, year);
        put(5..7, month);
        put(8..10, day);
        put(11..13, ms / 3_600_000);
        put(14..16, ms / 60_000 % 60);
        put(17..19, ms / 1000 % 60);
        put(20..23, ms % 1000);
        text
    }
}

impl Micros {
    /// How it is displayed; see [`Timestamp::text`].
    pub fn text(self) -> [u8; 27] {
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        text[..23].copy_from_slice(&Timestamp(self.0.div_euclid(1_000)).text()[..23]);
        put_digits(&mut text[23..26], self.0.rem_euclid(1_000));
        text
    }
}

fn put_digits(text: &mut [u8], mut value: i64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, &self.text())
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, &self.text())
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, ascii: &[u8]) -> fmt::Result {
    ascii.iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_rfc_3339_and_nothing_else() {
        let cases: &[(&str, Option<i64>)] = &[
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2020-07-10T12:34:56.000Z", Some(1_594_384_496_000)),
            ("2020-07-10t12:34:56.1z", Some(1_594_384_496_100)),
            ("2020-07-10 12:34:56.123999Z", Some(1_594_384_496_123)),
            ("2020-07-10T09:34:56-03:00", Some(1_594_384_496_000)),
            ("2020-07-10T18:04:56+05:30", Some(1_594_384_496_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("0000-01-01T00:00:00Z", Some(FIRST_MS)),
            ("9999-12-31T23:59:59.999Z", Some(LAST_MS)),
            ("9999-12-31T23:59:59.999-00:01", None),
            ("2023-02-29T00:00:00Z", None),
            ("2020-13-01T00:00:00Z", None),
            ("2020-00-01T00:00:00Z", None),
            ("2020-01-00T00:00:00Z", None),
            ("2020-01-01T24:00:00Z", None),
            ("2020-01-01T00:60:00Z", None),
            ("2020-01-01T00:00:61Z", None),
            ("2020-01-01T00:00:00", None),
            ("2020-01-01T00:00:00.Z", None),
            ("2020-01-01T00:00:00.1", None),
            ("2020-01-01T00:00:00+0300", None),
            ("2020-01-01T00:00:00+24:00", None),
            ("2020-01-01T00:00:00Zjunk", None),
            ("2020-01-01", None),
            ("+020-01-01T00:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = Timestamp::parse(text.as_bytes(), Rounding::Down).map(|at| at.0);
            assert_eq!(read, *expected, "{text}");
        }
    }

    #[test]
    fn a_lower_bound_between_two_milliseconds_is_the_later_one() {
        let at = |text: &str, rounding| Timestamp::parse(text.as_bytes(), rounding).unwrap().0;
        assert_eq!(at("1970-01-01T00:00:00.0010001Z", Rounding::Down), 1);
        assert_eq!(at("1970-01-01T00:00:00.0010001Z", Rounding::Up), 2);
        assert_eq!(at("1970-01-01T00:00:00.0010000Z", Rounding::Up), 1);
        assert_eq!(at("1969-12-31T23:59:59.9995Z", Rounding::Up), 0);
        assert_eq!(at("9999-12-31T23:59:59.999999Z", Rounding::Up), LAST_MS);
    }

    proptest! {
        #[test]
        fn prints_and_reads_as_a_date_library_does(ms in FIRST_MS..=LAST_MS) {
            let printed = Timestamp(ms).to_string();
            let theirs = jiff::Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(&printed, &format!("{theirs:.3}"));
            let read = Timestamp::parse(printed.as_bytes(), Rounding::Up);
            prop_assert_eq!(read, Some(Timestamp(ms)));
        }

        #[test]
        fn reads_offsets_as_a_date_library_does(
            ms in -60_000_000_000_000_i64..200_000_000_000_000,
            minutes in -1439_i64..1440,
            digits in 3_usize..9,
        ) {
            let local = Timestamp(ms + minutes * 60_000).to_string();
            let sign = if minutes < 0 { '-' } else { '+' };
            let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
            let padding = "0".repeat(digits - 3);
            let text = format!("{}{padding}{sign}{hours:02}:{rest:02}", &local[..23]);
            prop_assert_eq!(Timestamp::parse(text.as_bytes(), Rounding::Up), Some(Timestamp(ms)));
            let theirs: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(theirs.as_millisecond(), ms);
        }

        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = Timestamp::parse(&text, Rounding::Up);
        }
    }
}
