//! The contest's score sheet as text, and the latencies on it.
//!
//! Pure. The same sheet as perf/contest/contest.js prints, with one line more for duplicates. What
//! the numbers mean is the judge's to say.

use super::stages::Contest;
use crate::payments::Processor;
use crate::tools::judge::score::{Posts, Run};
use crate::tools::text::{contest_name, grouped, milliseconds, money, percent};
use std::fmt;

/// What a run amounts to, and what belongs on its sheet besides.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub contest: &'static Contest,
    /// The timetable ran so many times faster than the contest's.
    pub speed: u32,
    pub run: Run,
    pub latency: Latency,
    /// Payments that are held more than once.
    pub duplicates: usize,
}

/// Over all successful requests, in microseconds. The p99 is in the [`Run`], since it decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub requests: usize,
    pub p50_us: u64,
    pub p90_us: u64,
    pub max_us: u64,
}

impl Latency {
    /// Sorts. Percentiles as k6 has them: linear between the two nearest ranks. The p99, in hundredths
    /// of a millisecond, comes beside the others.
    pub fn of(mut durations_us: Vec<u32>) -> (Latency, u64) {
        durations_us.sort_unstable();
        let hundredths_us = |percent| percentile(&durations_us, percent);
        let latency = Latency {
            requests: durations_us.len(),
            p50_us: (hundredths_us(50) + 50) / 100,
            p90_us: (hundredths_us(90) + 50) / 100,
            max_us: durations_us.last().map_or(0, |us| u64::from(*us)),
        };
        (latency, (hundredths_us(99) + 500) / 1_000)
    }
}

/// In hundredths of a microsecond, exactly.
fn percentile(sorted_us: &[u32], percent: usize) -> u64 {
    let position = percent * sorted_us.len().saturating_sub(1);
    let at = |index: usize| sorted_us.get(index).map_or(0, |us| u64::from(*us));
    let (lower, upper) = (at(position / 100), at(position.div_ceil(100)));
    lower * 100 + (upper - lower) * (position % 100) as u64
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sheet { contest, speed, run, latency, .. } = self;
        let audits = run.audits;
        let note = if *speed == 1 { "" } else { ", NOT COMPARABLE" };
        writeln!(f, "Score sheet: {}{note}", contest.name)?;
        let mut line = |label: &str, text: String| writeln!(f, "  {label:<16}{text}");
        if *speed != 1 {
            let text = format!("the timetable ran {speed} times faster than the contest's");
            line("shortened", text)?;
        }
        let Posts { accepted, refused, unanswered } = run.posts;
        let failed = run.posts.failed();
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
        let (Some(held), Some(score)) = (run.held, run.score()) else {
            return line("INCOMPLETE", "the processors' totals are unknown: no score".into());
        };
        for (index, which) in Processor::CONTEST.into_iter().enumerate() {
            let said = run.said.map_or("nothing".into(), |said| {
                format!("{}, {}", grouped(said[index].count), money(said[index].amount.0))
            });
            let text = format!(
                "{} payments, {}, fee {}; the backend says {said}",
                grouped(held[index].count),
                money(held[index].amount.0),
                percent(run.fees[index])
            );
            line(&format!("{} holds", contest_name(which)), text)?;
        }
        let text = format!(
            "p50 {}, p90 {}, p99 {}, max {} ms over {} successful requests",
            milliseconds(latency.p50_us),
            milliseconds(latency.p90_us),
            milliseconds(run.p99_hundredths_ms * 10),
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
    use super::super::stages::PREVIEW;
    use super::*;
    use crate::tools::judge::score::Audits;

    #[test]
    fn without_the_processors_totals_there_is_no_score() {
        let run = Run {
            fees: PREVIEW.fees,
            posts: Posts::default(),
            audits: Audits::default(),
            held: Some(Default::default()),
            said: None,
            p99_hundredths_ms: 0,
            hurried: false,
        };
        let latency = Latency::default();
        let mut sheet = Sheet { contest: &PREVIEW, speed: 1, run, latency, duplicates: 0 };
        let text = sheet.to_string();
        assert!(
            text.contains("  score           0.00\n") && !text.contains("INCOMPLETE"),
            "{text}"
        );
        sheet.run.held = None;
        let text = sheet.to_string();
        assert!(text.contains("INCOMPLETE") && !text.contains("  score "), "{text}");
    }

    #[test]
    fn percentiles_are_those_of_k6() {
        assert_eq!(Latency::of(vec![]), (Latency::default(), 0));
        let (one, p99) = Latency::of(vec![1_234]);
        assert_eq!((one.p50_us, p99, one.max_us), (1_234, 123, 1_234));
        let (hundred, p99) = Latency::of((1..=100).rev().map(|ms| ms * 1_000).collect());
        assert_eq!((hundred.p50_us, hundred.p90_us), (50_500, 90_100));
        assert_eq!(p99, 9_901);
    }
}
