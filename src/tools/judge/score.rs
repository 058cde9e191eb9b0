//! What a contest run amounts to: the formula of its score, and what of a run is wrong whatever the
//! books say.
//!
//! Pure, and in whole numbers throughout: no score depends on how a fraction happens to be stored.
//! The same formula as in perf/contest/contest.js, whose score is compared with it.

use crate::base::money::Fee;
use crate::payments::Totals;
use crate::tools::compare::Fate;
use crate::tools::text::grouped;

/// A run, as observed from outside.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub fees: [Fee; 2],
    pub posts: Posts,
    pub audits: Audits,
    /// What the processors held when the load ended; `None` if one did not tell.
    pub held: Option<[Totals; 2]>,
    /// What the backend said then; `None` if nothing.
    pub said: Option<[Totals; 2]>,
    /// Of all successful requests, in hundredths of a millisecond: the two decimals that the contest
    /// keeps.
    pub p99_hundredths_ms: u64,
    /// Whether the timetable ran faster than the contest's. The processors' delays keep their length.
    pub hurried: bool,
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

impl Posts {
    /// Counts one by the status of its answer, if one came.
    pub fn count(&mut self, status: Option<u16>) {
        match status {
            Some(200 | 201 | 202 | 204) => self.accepted += 1,
            Some(_) => self.refused += 1,
            None => self.unanswered += 1,
        }
    }

    pub fn failed(self) -> u64 {
        self.refused + self.unanswered
    }
}

/// What became of a payment, by the status of the answer to its post, if one came. A balancer's word
/// that it got no answer (502, 504) says no more than none.
pub fn fate(status: Option<u16>) -> Fate {
    match status {
        Some(200 | 201 | 202 | 204) => Fate::Accepted,
        Some(502 | 504) | None => Fate::Unknown,
        Some(_) => Fate::Refused,
    }
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

/// What failed of necessity, because an instance was killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excused {
    pub posts: u64,
    /// Audits without an answer. Such a one counts zeros, and so as inconsistent, too.
    pub audits: u64,
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

impl Run {
    /// `(gross − fees) × (1 + bonus − fine)` ("Score" in its rules), rounded once, to
    /// cents. `None` if the processors' totals are unknown.
    pub fn score(&self) -> Option<Score> {
        let held = self.held?;
        let gross_cents: i128 = held.iter().map(|totals| totals.amount.0).sum();
        let fees_millionths: i128 =
            held.iter().zip(self.fees).map(|(totals, fee)| fee.of(totals.amount.0)).sum();
        // (11 − p99) × 2 %, in whole percent, half up: p99 counts hundredths of a millisecond.
        let below = 1_100_u64.saturating_sub(self.p99_hundredths_ms);
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
    pub fn findings(&self, excused: Excused) -> Vec<String> {
        let Run { posts, audits, .. } = self;
        let mut found = Vec::new();
        let mut check = |wrong: bool, sentence: String| {
            if wrong {
                found.push(sentence);
            }
        };
        let Posts { refused, unanswered, .. } = posts;
        let failed = posts.failed();
        check(posts.accepted == 0, "no payment was accepted".into());
        check(
            failed > excused.posts,
            format!("{failed} posts failed: {refused} refused, {unanswered} unanswered"),
        );
        check(audits.done == 0, "no audit was made".into());
        let unanswered = audits.unanswered;
        check(
            unanswered > excused.audits,
            format!("{unanswered} audits had a question unanswered"),
        );
        let inconsistent = audits.inconsistent.max(audits.inconsistent_strict);
        check(
            inconsistent > excused.audits.min(unanswered),
            format!(
                "{inconsistent} of {} audits inconsistent (by the contest's measure {})",
                audits.done, audits.inconsistent
            ),
        );
        check(
            self.said.is_none(),
            "the backend did not tell its totals when the load ended".into(),
        );
        let Some(Score { lag, .. }) = self.score() else {
            found.push("the run ended before the processors' totals could be read".into());
            return found;
        };
        // Preview's last stage delays fallback by 5 s and lasts 10 s, in a hurried run perhaps 2 s:
        // what fallback had been sent before may still be there. That it arrives, once, is asked of
        // the books.
        let late = if self.hurried { lag < 0 } else { lag != 0 };
        check(late, format!("the lag was {} when the load ended", grouped(lag)));
        let more = "disqualified: the processors held more payments than were accepted";
        check(lag < 0, more.into());
        found
    }
}

/// To the nearest whole, halves up. `divisor` is positive.
fn round(dividend: i128, divisor: i128) -> i128 {
    (dividend + divisor / 2).div_euclid(divisor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Total;

    const PREVIEW: [Fee; 2] = [Fee(50_000), Fee(150_000)];
    const FINAL: [Fee; 2] = [Fee(70_000), Fee(100_000)];

    fn run(fees: [Fee; 2], amount: i128, counts: [u64; 2], p99_hundredths_ms: u64) -> Run {
        let of = |count| Totals { count, amount: Total(i128::from(count) * amount) };
        let held = Some(counts.map(of));
        Run {
            fees,
            posts: Posts { accepted: counts.iter().sum(), ..Posts::default() },
            audits: Audits { done: 6, ..Audits::default() },
            held,
            said: held,
            p99_hundredths_ms,
            hurried: false,
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
            let cents = run(FINAL, 2_005, counts, p99).score().unwrap().score_cents;
            assert_eq!(round(cents, 100), score, "{counts:?}");
        }
    }

    #[test]
    fn a_score_by_hand() {
        // (3,980,000 − 5 % + 1,990,000 − 15 %) + 20 %
        let mut run = run(PREVIEW, 1_990, [2_000, 1_000], 100);
        assert_eq!(run.score().unwrap().score_cents, 6_567_000);
        run.audits.difference = 1;
        assert_eq!(run.score().unwrap().score_cents, 5_472_500 * 85 / 100);
        run.held = None;
        assert_eq!(run.score(), None);
    }

    #[test]
    fn the_bonus_is_rounded_and_never_negative() {
        for (p99, percent) in
            [(0, 22), (24, 22), (25, 22), (26, 21), (100, 20), (1_100, 0), (9_999, 0)]
        {
            let bonus = run(PREVIEW, 1_990, [1, 1], p99).score().unwrap().bonus_percent;
            assert_eq!(bonus, percent, "{p99}");
        }
    }

    #[test]
    fn the_status_says_what_became_of_a_payment() {
        let mut posts = Posts::default();
        for (status, expected) in [
            (Some(200), Fate::Accepted),
            (Some(202), Fate::Accepted),
            (None, Fate::Unknown),
            (Some(502), Fate::Unknown),
            (Some(504), Fate::Unknown),
            (Some(500), Fate::Refused),
            (Some(503), Fate::Refused),
            (Some(422), Fate::Refused),
        ] {
            assert_eq!(fate(status), expected, "{status:?}");
            posts.count(status);
        }
        assert_eq!(posts, Posts { accepted: 2, refused: 5, unanswered: 1 });
        assert_eq!(posts.failed(), 6);
    }

    /// Each finding has the word at its place, and there is no other.
    fn expect(run: &Run, excused: Excused, words: &[&str]) {
        let found = run.findings(excused);
        assert_eq!(found.len(), words.len(), "{found:?}");
        for (finding, word) in found.iter().zip(words) {
            assert!(finding.contains(word), "{word}: {found:?}");
        }
    }

    #[test]
    fn a_good_run_has_no_findings_and_each_fault_one() {
        let good = run(PREVIEW, 1_990, [2_000, 1_000], 100);
        let posts = Posts { accepted: 3_000, ..Posts::default() };
        let audits = good.audits;
        let none = Excused::default();
        expect(&good, none, &[]);
        let lag = |accepted| Run { posts: Posts { accepted, ..posts }, ..good };
        expect(&lag(3_002), none, &["the lag was 2 when"]);
        expect(&Run { hurried: true, ..lag(3_002) }, none, &[]);
        let more_than_accepted = Run { hurried: true, ..lag(2_999) };
        expect(&more_than_accepted, none, &["the lag was -1 when", "disqualified"]);
        expect(&lag(2_999), none, &["the lag was -1 when", "disqualified"]);
        let zero = Totals::default();
        let idle = Run { held: Some([zero; 2]), ..lag(0) };
        expect(&idle, none, &["no payment was accepted"]);
        expect(&Run { held: None, ..good }, none, &["the run ended before"]);
        expect(&Run { said: None, ..good }, none, &["the backend did not tell"]);
        expect(&Run { audits: Audits::default(), ..good }, none, &["no audit"]);
        let refused = Run { posts: Posts { refused: 1, ..posts }, ..good };
        expect(&refused, none, &["1 posts failed: 1 refused, 0 unanswered"]);
        let unanswered = Run { posts: Posts { unanswered: 1, ..posts }, ..good };
        expect(&unanswered, none, &["1 posts failed: 0 refused, 1 unanswered"]);
        for audits in [
            Audits { inconsistent: 1, difference: 3, ..audits },
            Audits { inconsistent_strict: 1, difference_cents_strict: 3, ..audits },
        ] {
            expect(&Run { audits, ..good }, none, &["1 of 6 audits inconsistent"]);
        }
        let audits = Audits { unanswered: 1, ..audits };
        expect(&Run { audits, ..good }, none, &["1 audits had a question unanswered"]);
    }

    /// An audit that got no answer is inconsistent as well; one that got an answer is not excused.
    #[test]
    fn what_failed_of_necessity_is_excused_and_no_more() {
        let good = run(PREVIEW, 1_990, [2_000, 1_000], 100);
        let excused = Excused { posts: 1, audits: 1 };
        let posts = Posts { refused: 1, ..good.posts };
        let audits = Audits { unanswered: 1, inconsistent_strict: 1, ..good.audits };
        expect(&Run { posts, audits, ..good }, excused, &[]);
        let posts = Posts { unanswered: 1, ..posts };
        expect(&Run { posts, ..good }, excused, &["2 posts failed"]);
        let answered = Audits { unanswered: 0, ..audits };
        expect(&Run { audits: answered, ..good }, excused, &["inconsistent"]);
        let more = Audits { inconsistent_strict: 2, ..audits };
        expect(&Run { audits: more, ..good }, excused, &["2 of 6 audits inconsistent"]);
    }
}
