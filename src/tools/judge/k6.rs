//! What k6 leaves of a contest that perf/contest/contest.js played: the score sheet, and the lines of
//! the console that name the posts which failed.
//!
//! Pure: text in, facts out. Payment number n of a run has the id [`payment_id`]`(seed, n)`, and n
//! counts up from 0 without gaps, so the seed and the number of posts are enough to know every id
//! that was sent.

use super::score::{Audits, Excused, Posts, Run, fate};
use crate::base::json::{self, JsonError};
use crate::base::limits::BOOKINGS_JUDGED_MAX;
use crate::base::money::{Cents, Fee, Total};
use crate::payments::{PaymentId, Totals};
use crate::tools::compare::{Fate, Known};
use serde::Deserialize;
use sonic_rs::LazyValue;
use std::collections::HashMap;

/// How the console names a post that failed: its number and its status follow.
const FAILED_POST: &str = "failed-post ";

/// The score sheet.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub run: Run,
    /// What the ids follow from; `None` if the run ended before its set-up was over.
    pub seed: Option<u32>,
    amount: Cents,
    attempted: u64,
    dropped: u64,
    first_ids: Vec<String>,
    /// As contest.js has computed it.
    score_cents: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    time_divisor: f64,
    seed: Option<u32>,
    amount_cents: i64,
    first_ids: Vec<String>,
    posts: PostsDocument,
    dropped_iterations: u64,
    audits: AuditsDocument,
    #[serde(borrow)]
    held: Pair<HeldDocument<'a>>,
    backend: Pair<TotalsDocument>,
    #[serde(borrow)]
    latency_ms: Option<LatencyDocument<'a>>,
    score: Option<ScoreDocument>,
}

#[derive(Deserialize)]
struct Pair<T> {
    default: T,
    fallback: T,
}

#[derive(Deserialize)]
struct PostsDocument {
    attempted: u64,
    accepted: u64,
    refused: u64,
    unanswered: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditsDocument {
    done: u64,
    unanswered: u64,
    inconsistent: u64,
    difference_payments: u64,
    inconsistent_strict: u64,
    difference_cents_strict: u64,
}

#[derive(Deserialize)]
struct HeldDocument<'a> {
    payments: Option<u64>,
    cents: Option<i64>,
    #[serde(borrow)]
    fee: Option<LazyValue<'a>>,
}

#[derive(Clone, Copy, Deserialize)]
struct TotalsDocument {
    payments: Option<u64>,
    cents: Option<i64>,
}

#[derive(Deserialize)]
struct LatencyDocument<'a> {
    #[serde(borrow)]
    p99: LazyValue<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScoreDocument {
    score_cents: Option<i64>,
}

impl Sheet {
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn read(document: &[u8]) -> Result<Sheet, String> {
        let read: Document<'_> = json::read_object(document).map_err(|error| match error {
            JsonError::Shape => "no score sheet: it is JSON of another shape",
            JsonError::NotJson | JsonError::TooDeep => "no score sheet: it is not JSON",
        })?;
        let PostsDocument { attempted, accepted, refused, unanswered } = read.posts;
        if [attempted, accepted, refused, unanswered].iter().any(|it| *it > POSTS_MAX) {
            return Err(format!("more than {POSTS_MAX} posts are more than can be judged"));
        }
        let AuditsDocument { done, unanswered: silent, inconsistent, .. } = read.audits;
        let Pair { default, fallback } = read.held;
        // Without them the totals are unknown, too, and no score hangs on them.
        let fee = |of: &HeldDocument<'_>| match &of.fee {
            Some(fee) => fee.as_raw_str().parse().map_err(|error| format!("a fee: {error}")),
            None => Ok(Fee(0)),
        };
        let fees = [fee(&default)?, fee(&fallback)?];
        let held = [default, fallback].map(|it| (it.payments, it.cents));
        let said = [read.backend.default, read.backend.fallback].map(|it| (it.payments, it.cents));
        let p99 = read.latency_ms.map(|it| hundredths(it.p99.as_raw_str())).transpose()?;
        let run = Run {
            fees,
            posts: Posts { accepted, refused, unanswered },
            audits: Audits {
                done,
                unanswered: silent,
                inconsistent,
                difference: read.audits.difference_payments.into(),
                inconsistent_strict: read.audits.inconsistent_strict,
                difference_cents_strict: read.audits.difference_cents_strict.into(),
            },
            // Without a latency there is no score either.
            held: p99.and_then(|_| totals(held)),
            said: totals(said),
            p99_hundredths_ms: p99.unwrap_or(0),
            hurried: read.time_divisor > 1.0,
        };
        Ok(Sheet {
            run,
            seed: read.seed,
            amount: Cents(read.amount_cents),
            attempted,
            dropped: read.dropped_iterations,
            first_ids: read.first_ids,
            score_cents: read.score.and_then(|score| score.score_cents),
        })
    }

    /// What was wrong with the run, as far as the sheet tells.
    pub fn findings(&self, excused: Excused) -> Vec<String> {
        let Posts { accepted, .. } = self.run.posts;
        let mut found = self.run.findings(excused);
        let answered = accepted + self.run.posts.failed();
        if self.attempted != answered {
            let cut_off = i128::from(self.attempted) - i128::from(answered);
            found.push(format!("{cut_off} posts were cut off before their answer"));
        }
        if self.dropped > 0 {
            found.push(format!("{} iterations dropped", self.dropped));
        }
        if let Some(score) = self.run.score().filter(|score| score.lag >= 0) {
            let formula = score.score_cents;
            // It computes in floats.
            let agrees = |cents: i64| (i128::from(cents) - formula).abs() <= 1;
            if !self.score_cents.is_some_and(agrees) {
                let said = self.score_cents.map_or("none".into(), |cents| cents.to_string());
                found.push(format!("the sheet's score is {said} cents, the formula's {formula}"));
            }
        }
        let ours = |seed| (0..3).map(move |n| payment_id(seed, n).to_string());
        if self.seed.is_some_and(|seed| !self.first_ids.iter().cloned().eq(ours(seed))) {
            let void = "contest.js and galo judge make different ids; this comparison is void";
            found.push(void.into());
        }
        found
    }

    /// What k6 knows of each payment that it has posted; nothing without a seed.
    pub fn known(&self, failed: &Failed) -> Vec<Known> {
        let Some(seed) = self.seed else { return Vec::new() };
        // Fits, by the limit that was checked when the sheet was read.
        let numbers = 0..self.attempted as u32;
        let known = numbers.map(|number| {
            let fate = failed.0.get(&number).map_or(Fate::Accepted, |status| fate(*status));
            Known { id: payment_id(seed, number), amount: self.amount, fate }
        });
        known.collect()
    }

    /// Whether the console names as many failed posts as the sheet has.
    pub fn compare_failed(&self, failed: &Failed) -> Option<String> {
        let (named, counted) = (failed.0.len() as u64, self.run.posts.failed());
        let differ = named != counted;
        differ.then(|| format!("k6's console names {named} failed posts, the sheet {counted}"))
    }
}

const POSTS_MAX: u64 = BOOKINGS_JUDGED_MAX as u64;
const _: () = assert!(BOOKINGS_JUDGED_MAX <= u32::MAX as usize);

fn totals(of: [(Option<u64>, Option<i64>); 2]) -> Option<[Totals; 2]> {
    let one = |(count, cents): (Option<u64>, Option<i64>)| {
        Some(Totals { count: count?, amount: Total(cents?.into()) })
    };
    Some([one(of[0])?, one(of[1])?])
}

/// A number that is not negative, in hundredths.
fn hundredths(text: &str) -> Result<u64, String> {
    let hundredths = Cents::parse(text.as_bytes()).ok().and_then(|it| u64::try_from(it.0).ok());
    hundredths.ok_or_else(|| format!("no score sheet: a p99 of {text}"))
}

/// The posts that were not accepted: number and status, if an answer came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed(HashMap<u32, Option<u16>>);

impl Failed {
    /// Finds them among whatever else is on the console.
    pub fn read(console: &str) -> Failed {
        let one = |rest: &str| {
            let mut words = rest.split_whitespace();
            let (number, status) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            // k6 says 0 if there was none.
            Some((number, Some(status).filter(|status| *status != 0)))
        };
        Failed(console.split(FAILED_POST).skip(1).filter_map(one).collect())
    }
}

/// A bijection of 32-bit words that leaves no visible pattern (the finaliser of MurmurHash3).
fn mix(word: u32) -> u32 {
    let word = (word ^ (word >> 16)).wrapping_mul(0x85eb_ca6b);
    let word = (word ^ (word >> 13)).wrapping_mul(0xc2b2_ae35);
    word ^ (word >> 16)
}

/// The id of payment `number` in the run with this seed, a UUID of version 4; the same function as in
/// contest.js. The first word is a bijection of the number, so no two are the same.
pub fn payment_id(seed: u32, number: u32) -> PaymentId {
    let next = |word: u32| mix(word.wrapping_add(seed).wrapping_add(0x9e37_79b9));
    let a = mix(number ^ seed);
    let b = next(a);
    let c = next(b);
    let d = next(c);
    let version = 0x4000 | (b & 0x0fff);
    let variant = 0x8000 | ((c >> 16) & 0x3fff);
    let at = |word: u32, shift| u128::from(word) << shift;
    let first = at(a, 96) | at(b >> 16, 80) | at(version, 64);
    PaymentId(first | at(variant, 48) | at(c & 0xffff, 32) | at(d, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 0xdead_beef;

    /// A run in which nothing went wrong, as contest.js writes it.
    fn good() -> String {
        let ids = [0, 1, 2].map(|n| payment_id(SEED, n));
        let [first, second, third] = ids;
        format!(
            r#"{{
  "contest": "preview", "timeDivisor": 1, "vusMax": 550, "comparable": true, "complete": true,
  "amountCents": 1990, "seed": {SEED},
  "firstIds": ["{first}", "{second}", "{third}"],
  "posts": {{"attempted": 3000, "accepted": 3000, "failed": 0, "refused": 0, "unanswered": 0}},
  "droppedIterations": 0,
  "audits": {{"done": 6, "unanswered": 0, "inconsistent": 0, "differencePayments": 0,
    "inconsistentStrict": 0, "differenceCentsStrict": 0}},
  "latencyMs": {{"p50": 0.2, "p90": 0.4, "p99": 1.04, "max": 8.4, "requests": 3100}},
  "held": {{"default": {{"payments": 2000, "cents": 3980000, "fee": 0.05}},
    "fallback": {{"payments": 1000, "cents": 1990000, "fee": 0.15}}}},
  "backend": {{"default": {{"payments": 2000, "cents": 3980000}},
    "fallback": {{"payments": 1000, "cents": 1990000}}}},
  "score": {{"grossCents": 5970000, "lag": 0, "disqualified": false, "scoreCents": 6567000}}
}}"#
        )
    }

    /// The good sheet with something else in a place.
    fn with(place: &str, other: &str) -> Sheet {
        let sheet = good();
        assert_eq!(sheet.matches(place).count(), 1, "{place}");
        Sheet::read(sheet.replace(place, other).as_bytes()).unwrap()
    }

    /// Each finding has the word at its place, and there is no other.
    fn expect(sheet: &Sheet, words: &[&str]) {
        let found = sheet.findings(Excused::default());
        assert_eq!(found.len(), words.len(), "{found:?}");
        for (finding, word) in found.iter().zip(words) {
            assert!(finding.contains(word), "{word}: {found:?}");
        }
    }

    #[test]
    fn a_good_sheet_is_read_and_has_no_findings() {
        let sheet = Sheet::read(good().as_bytes()).unwrap();
        expect(&sheet, &[]);
        assert_eq!(sheet.seed, Some(SEED));
        assert_eq!(sheet.run.fees, [Fee(50_000), Fee(150_000)]);
        assert_eq!(sheet.run.p99_hundredths_ms, 104);
        assert_eq!(sheet.run.held.unwrap()[1], Totals { count: 1_000, amount: Total(1_990_000) });
    }

    #[test]
    fn what_only_the_sheet_of_k6_has_is_found_wrong_one_by_one() {
        expect(&with(r#""droppedIterations": 0"#, r#""droppedIterations": 1"#), &["1 iterations"]);
        expect(&with(r#""attempted": 3000"#, r#""attempted": 3002"#), &["2 posts were cut off"]);
        expect(&with(r#""scoreCents": 6567000"#, r#""scoreCents": 6567001"#), &[]);
        expect(&with(r#""scoreCents": 6567000"#, r#""scoreCents": 6567002"#), &["the formula's"]);
        expect(&with(r#""scoreCents": 6567000"#, r#""scoreCents": null"#), &["score is none"]);
        let id = payment_id(SEED, 2).to_string();
        expect(&with(&id, &payment_id(SEED, 3).to_string()), &["void"]);
        expect(
            &with(r#""differencePayments": 0"#, r#""differencePayments": 1"#),
            &["the formula's"],
        );
        let unheld = with(
            r#"{"payments": 2000, "cents": 3980000, "fee": 0.05}"#,
            r#"{"payments": null, "cents": null, "fee": null}"#,
        );
        expect(&unheld, &["ended before"]);
        let silent = with(
            r#""fallback": {"payments": 1000, "cents": 1990000}}"#,
            r#""fallback": {"payments": null, "cents": null}}"#,
        );
        expect(&silent, &["did not tell"]);
    }

    #[test]
    fn a_run_that_was_never_set_up_posted_nothing() {
        let sheet = with(&SEED.to_string(), "null");
        expect(&sheet, &[]);
        assert_eq!(sheet.known(&Failed::default()), []);
    }

    #[test]
    fn what_is_no_sheet_is_refused() {
        let too_many = good().replace("3000", "4000000000");
        let negative = good().replace("1.04", "-1");
        let free = good().replace("0.05", "5");
        for wrong in ["", "{}", "[]", "null", &too_many, &negative, &free] {
            let refused = Sheet::read(wrong.as_bytes()).unwrap_err();
            assert!(!refused.is_empty() && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn ids_are_those_of_contest_js_and_no_two_are_the_same() {
        // k6 made this one, so a change on either side shows.
        assert_eq!(payment_id(1, 0).to_string(), "514e28b7-943b-4487-a400-1f2388872fea");
        let ids: std::collections::HashSet<_> = (0..10_000).map(|n| payment_id(SEED, n)).collect();
        assert_eq!(ids.len(), 10_000);
        let version = |id: &PaymentId| uuid::Uuid::from_u128(id.0).get_version_num();
        assert!(ids.iter().all(|id| version(id) == 4));
    }

    #[test]
    fn the_console_names_what_failed_and_the_status_says_what_that_means() {
        let console = "time=\"x\" level=error msg=\"failed-post 17 503 a-b from 1 to 2 \"\n\
            something else failed-post\nmsg=\"failed-post 4 0 a-b from 1 to 2 EOF\"\n\
            failed-post five 0";
        let failed = Failed::read(console);
        assert_eq!(failed, Failed(HashMap::from([(17, Some(503)), (4, None)])));
        let sheet = Sheet::read(good().as_bytes()).unwrap();
        let known = sheet.known(&failed);
        assert_eq!(known.len(), 3_000);
        assert_eq!(
            known[16],
            Known { id: payment_id(SEED, 16), amount: Cents(1_990), fate: Fate::Accepted }
        );
        assert_eq!((known[17].fate, known[4].fate), (Fate::Refused, Fate::Unknown));
        let differs = sheet.compare_failed(&failed).unwrap();
        assert!(differs.contains("names 2 failed posts, the sheet 0"), "{differs}");
        assert_eq!(sheet.compare_failed(&Failed::default()), None);
    }
}
