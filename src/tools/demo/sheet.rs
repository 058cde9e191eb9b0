//! The contest's score sheet: the formula, and the text.
//!
//! Pure, and in whole numbers throughout: no score depends on how a fraction happens to be stored.
//! The same sheet as perf/contest/contest.js prints, with one line more for duplicates.

use super::stages::Contest;
use super::text::{grouped, milliseconds, money, percent};
use crate::payments::{Processor, Totals};
use std::fmt;

/// What a run amounts to, as observed from outside.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub contest: &'static Contest,
    /// The timetable ran so many times faster than the contest's.
    pub speed: u32,
    pub posts: Posts,
    pub audits: Audits,
    /// What the processors held when the load ended; `None` if one did not tell.
    pub held: Option<[Totals; 2]>,
    /// What the backend said then; `None` if nothing.
    pub said: Option<[Totals; 2]>,
    pub latency: Latency,
    /// Payments that are held more than once.
    pub duplicates: usize,
}

/// What became of the payments that were posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posts {
    /// Answered 200, 201, 202 or 204.
    pub accepted: u64,
    /// Any other status.
    pub refused: u64,
    /// No answer in time.
    pub unanswered: u64,
}

/// What the audits found. A missing answer counts as zero payments, as it does in the contest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audits {
    pub done: u64,
    pub unanswered: u64,
    /// By the contest's measure.
    pub inconsistent: u64,
    pub difference: i128,
    /// Each processor by itself, payments and money.
    pub inconsistent_strict: u64,
    pub difference_cents_strict: i128,
}

/// Over all successful requests, in microseconds but for the one that decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub requests: usize,
    pub p50_us: u64,
    pub p90_us: u64,
    /// In hundredths of a millisecond: the two decimals that the contest keeps.
    pub p99_hundredths_ms: u64,
    pub max_us: u64,
}

impl Latency {
    /// Sorts. Percentiles as k6 has them: linear between the two nearest ranks.
    pub fn of(mut durations_us: Vec<u32>) -> Latency {
        durations_us.sort_unstable();
        let hundredths_us = |percent| percentile(&durations_us, percent);
        Latency {
            requests: durations_us.len(),
            p50_us: (hundredths_us(50) + 50) / 100,
            p90_us: (hundredths_us(90) + 50) / 100,
            p99_hundredths_ms: (hundredths_us(99) + 500) / 1_000,
            max_us: durations_us.last().map_or(0, |us| u64::from(*us)),
        }
    }
}

/// In hundredths of a microsecond, exactly.
fn percentile(sorted_us: &[u32], percent: usize) -> u64 {
    let position = percent * sorted_us.len().saturating_sub(1);
    let at = |index: usize| sorted_us.get(index).map_or(0, |us| u64::from(*us));
    let (lower, upper) = (at(position / 100), at(position.div_ceil(100)));
    lower * 100 + (upper - lower) * (position % 100) as u64
}

/// The numbers of the formula, in cents and percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    pub gross_cents: i128,
    pub fees_cents: i128,
    pub bonus_percent: u64,
    pub fine_percent: u64,
    /// Accepted and not held. Below 0 the run is disqualified.
    pub lag: i128,
    pub score_cents: i128,
}

const FINE_PERCENT: u64 = 35;

impl Sheet {
    /// `(gross − fees) × (1 + bonus − fine)` ("Score" in its rules), rounded once, to
    /// cents. `None` if the processors' totals are unknown.
    pub fn score(&self) -> Option<Score> {
        let held = self.held?;
        let gross_cents: i128 = held.iter().map(|totals| totals.amount.0).sum();
        let fees_millionths: i128 =
            held.iter().zip(self.contest.fees).map(|(totals, fee)| fee.of(totals.amount.0)).sum();
        // (11 − p99) × 2 %, in whole percent, half up: p99 counts hundredths of a millisecond.
        let below = 1_100_u64.saturating_sub(self.latency.p99_hundredths_ms);
        let bonus_percent = (below + 25) / 50;
        let fine_percent = if self.audits.difference > 0 { FINE_PERCENT } else { 0 };
        let net_millionths = gross_cents * 1_000_000 - fees_millionths;
        let factor_percent = i128::from(100 + bonus_percent - fine_percent);
        Some(Score {
            gross_cents,
            fees_cents: round(fees_millionths, 1_000_000),
            bonus_percent,
            fine_percent,
            lag: i128::from(self.posts.accepted)
                - held.iter().map(|totals| i128::from(totals.count)).sum::<i128>(),
            score_cents: round(net_millionths * factor_percent, 100_000_000),
        })
    }

    /// What was wrong with the run, a sentence each; nothing after a good one.
    pub fn findings(&self) -> Vec<String> {
        let Sheet { posts, audits, .. } = self;
        let mut found = Vec::new();
        let mut check = |wrong: bool, sentence: String| {
            if wrong {
                found.push(sentence);
            }
        };
        let failed = posts.refused + posts.unanswered;
        check(posts.accepted == 0, "no payment was accepted".into());
        check(failed > 0, format!("{failed} posts failed"));
        check(audits.done == 0, "no audit was made".into());
        let unanswered = audits.unanswered;
        check(unanswered > 0, format!("{unanswered} audits had a question unanswered"));
        let inconsistent = audits.inconsistent.max(audits.inconsistent_strict);
        check(inconsistent > 0, format!("{inconsistent} audits were inconsistent"));
        check(self.said.is_none(), "the backend did not tell its totals at the end".into());
        match self.score() {
            Some(score) => check(score.lag != 0, format!("the lag was {}", grouped(score.lag))),
            None => check(true, "the processors did not tell their totals at the end".into()),
        }
        found
    }
}

/// To the nearest whole, halves up. `divisor` is positive.
fn round(dividend: i128, divisor: i128) -> i128 {
    (dividend + divisor / 2).div_euclid(divisor)
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sheet { contest, speed, posts, audits, latency, .. } = self;
        let note = if *speed == 1 { "" } else { ", NOT COMPARABLE" };
        writeln!(f, "Score sheet: {}{note}", contest.name)?;
        let mut line = |label: &str, text: String| writeln!(f, "  {label:<16}{text}");
        if *speed != 1 {
            let text = format!("the timetable ran {speed} times faster than the contest's");
            line("shortened", text)?;
        }
        let Posts { accepted, refused, unanswered } = posts;
        let failed = refused + unanswered;
        line(
            "payments",
            format!(
                "{} accepted, {failed} failed ({refused} refused, {unanswered} unanswered)",
                grouped(accepted)
            ),
        )?;
        line(
            "audits",
            format!(
                "{} done, {} inconsistent by {} payments, {} unanswered",
                audits.done,
                audits.inconsistent,
                grouped(audits.difference),
                audits.unanswered
            ),
        )?;
        let differing = money(audits.difference_cents_strict);
        let strict = audits.inconsistent_strict;
        line("", format!("strictly: {strict} inconsistent by {differing}"))?;
        let (Some(held), Some(score)) = (self.held, self.score()) else {
            return line("INCOMPLETE", "the processors' totals are unknown: no score".into());
        };
        for (index, which) in Processor::ALL.into_iter().enumerate() {
            let said = self.said.map_or("nothing".into(), |said| {
                format!("{}, {}", grouped(said[index].count), money(said[index].amount.0))
            });
            let text = format!(
                "{} payments, {}, fee {}; the backend says {said}",
                grouped(held[index].count),
                money(held[index].amount.0),
                percent(contest.fees[index])
            );
            line(&format!("{} holds", which.name()), text)?;
        }
        let text = format!(
            "p50 {}, p90 {}, p99 {}, max {} ms over {} successful requests",
            milliseconds(latency.p50_us),
            milliseconds(latency.p90_us),
            milliseconds(latency.p99_hundredths_ms * 10),
            milliseconds(latency.max_us),
            grouped(latency.requests)
        );
        line("latency", text)?;
        line("gross", money(score.gross_cents))?;
        line("fees", money(score.fees_cents))?;
        line("bonus", format!("{} %", score.bonus_percent))?;
        line("fine", format!("{} %", score.fine_percent))?;
        line("lag", grouped(score.lag))?;
        line("duplicates", grouped(self.duplicates))?;
        if score.lag < 0 {
            return line("score", "DISQUALIFIED: more is held than was accepted".into());
        }
        line("score", money(score.score_cents))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stages::{FINAL, PREVIEW};
    use super::*;
    use crate::base::money::Total;

    fn sheet(contest: &'static Contest, counts: [u64; 2], p99_hundredths_ms: u64) -> Sheet {
        let held = counts.map(|count| Totals {
            count,
            amount: Total(i128::from(count) * i128::from(contest.amount.0)),
        });
        Sheet {
            contest,
            speed: 1,
            posts: Posts { accepted: counts.iter().sum(), ..Posts::default() },
            audits: Audits { done: 6, ..Audits::default() },
            held: Some(held),
            said: Some(held),
            latency: Latency { p99_hundredths_ms, ..Latency::default() },
            duplicates: 0,
        }
    }

    /// Results of the contest's final as published (its repository, the table):
    /// payments at default and at fallback, p99, score in whole units.
    #[test]
    fn the_published_scores_come_out() {
        for (counts, p99, score) in [
            ([52_945, 37_646], 255, 1_949_876),
            ([11_787, 78_814], 209, 1_937_542),
            ([11_312, 79_220], 218, 1_935_736),
            ([16_650, 73_942], 275, 1_924_355),
            ([3_643, 86_933], 258, 1_914_863),
        ] {
            let cents = sheet(&FINAL, counts, p99).score().unwrap().score_cents;
            assert_eq!(round(cents, 100), score, "{counts:?}");
        }
    }

    #[test]
    fn a_score_by_hand() {
        // (3,980,000 − 5 % + 1,990,000 − 15 %) + 20 %, as in books.py.
        let mut run = sheet(&PREVIEW, [2_000, 1_000], 100);
        assert_eq!(run.score().unwrap().score_cents, 6_567_000);
        assert_eq!(run.findings(), Vec::<String>::new());
        run.audits.difference = 1;
        assert_eq!(run.score().unwrap().score_cents, 5_472_500 * 85 / 100);
        run.posts.accepted += 1;
        assert_eq!(run.score().unwrap().lag, 1);
        assert_eq!(run.findings(), ["the lag was 1"]);
        run.held = None;
        assert_eq!(run.score(), None);
        assert!(run.to_string().contains("INCOMPLETE"));
    }

    #[test]
    fn the_bonus_is_rounded_and_never_negative() {
        for (p99, percent) in
            [(0, 22), (24, 22), (25, 22), (26, 21), (100, 20), (1_100, 0), (9_999, 0)]
        {
            let bonus = sheet(&PREVIEW, [1, 1], p99).score().unwrap().bonus_percent;
            assert_eq!(bonus, percent, "{p99}");
        }
    }

    #[test]
    fn percentiles_are_those_of_k6() {
        assert_eq!(Latency::of(vec![]), Latency::default());
        let one = Latency::of(vec![1_234]);
        assert_eq!((one.p50_us, one.p99_hundredths_ms, one.max_us), (1_234, 123, 1_234));
        let hundred = Latency::of((1..=100).rev().map(|ms| ms * 1_000).collect());
        assert_eq!((hundred.p50_us, hundred.p90_us), (50_500, 90_100));
        assert_eq!(hundred.p99_hundredths_ms, 9_901);
    }
}
