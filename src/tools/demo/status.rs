//! The line a second: what the instances say of themselves, and how fast the entry answered.
//!
//! Pure: documents in, text out. Every number is one that an instance published or a request took.

use super::board::Shown;
use crate::base::histogram::Histogram;
use crate::base::json;
use crate::base::money::{Cents, Fee};
use crate::instance::status::InstanceStatus;
use crate::instance::whereabouts::Whereabouts;
use crate::tools::text::{grouped, milliseconds};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An admin door's `GET /status.json`, and what the demo adds for its page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    pub version: u32,
    pub at: String,
    pub verdict: Verdict,
    pub whereabouts: Whereabouts,
    pub instances: Vec<InstanceStatus>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub demo: Option<Shown>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub level: String,
    pub text: String,
}

impl Document {
    /// Nothing, if it is none.
    pub fn read(body: &[u8]) -> Option<Document> {
        json::read_object(body).ok()
    }
}

/// The names of the columns, in two lines.
pub fn head() -> String {
    let upper = ["", "", "", "in", "default", "", "fallback", "", "", "entry,", "ms"];
    let lower = [
        "time", "accepted", "queued", "flight", "settled", "", "settled", "", "fees", "p50", "p99",
    ];
    format!("{}\n{}", row(upper), row(lower))
}

/// All columns at their places, at most 80 characters wide.
fn row(columns: [&str; 11]) -> String {
    let [time, accepted, queued, flight, default, by, fallback, to, fees, p50, p99] = columns;
    let text = format!(
        "{time:>5}{accepted:>8}{queued:>8}{flight:>7}{default:>9} {by:<6}{fallback:>9} {to:<6}\
         {fees:>8}{p50:>6}{p99:>6}"
    );
    text.trim_end().to_owned()
}

/// A count in at most 7 characters.
fn short(count: u64) -> String {
    match count {
        0..1_000_000 => grouped(count),
        1_000_000..1_000_000_000 => {
            format!("{}.{:02}M", count / 1_000_000, count % 1_000_000 / 10_000)
        }
        _ => format!("{}M", count / 1_000_000),
    }
}

/// A time since the beginning in at most 5 characters, for four days.
fn short_time(seconds: u64) -> String {
    match seconds {
        0..1_000 => format!("{seconds} s"),
        1_000..6_000 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Milliseconds in at most 5 characters.
fn short_ms(us: u64) -> String {
    if us < 99_995 { milliseconds(us) } else { (us / 1_000).to_string() }
}

/// What was last seen of each instance: one that does not answer keeps what it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    instances: Vec<InstanceStatus>,
    /// How many have answered now.
    pub answering: usize,
}

impl Seen {
    pub fn update(&mut self, document: &Document) {
        self.answering = document.instances.len();
        for told in &document.instances {
            match self.instances.iter_mut().find(|it| it.instance == told.instance) {
                Some(known) => known.clone_from(told),
                None => self.instances.push(told.clone()),
            }
        }
    }

    fn sum(&self, count: impl Fn(&InstanceStatus) -> u64) -> u64 {
        self.instances.iter().map(count).sum()
    }

    fn settled(&self, index: usize) -> u64 {
        self.sum(|it| it.processors.get(index).map_or(0, |processor| processor.settled))
    }

    /// One line. `before`: what was seen a second ago. `entry`: how long the entry took for the
    /// payments of this second.
    pub fn line(
        &self,
        elapsed: Duration,
        fees: [Fee; 2],
        before: &Seen,
        entry: &Histogram,
    ) -> String {
        let flight = self.sum(|it| it.payments.in_flight);
        let queued = self.sum(|it| it.payments.outstanding).saturating_sub(flight);
        let accepted = self.sum(|it| it.whereabouts.accepted.max(0).unsigned_abs());
        let cents = |index: usize| {
            let amounts = self.instances.iter().filter_map(|it| it.processors.get(index));
            let cents = amounts.filter_map(|it| Cents::parse(it.amount.as_bytes()).ok());
            cents.map(|cents| i128::from(cents.0)).sum()
        };
        let fees_millionths: i128 = [0, 1].map(|index| fees[index].of(cents(index))).iter().sum();
        let fees = fees_millionths.max(0).unsigned_abs() / 100_000_000;
        let [default, fallback] = [0, 1].map(|index| short(self.settled(index)));
        let [of_default, of_fallback] = [0, 1].map(|index| self.state(index, before));
        let [p50, p99] = match entry.snapshot().count() {
            0 => ["-".to_owned(), "-".to_owned()],
            _ => [0.5, 0.99].map(|q| short_ms(entry.snapshot().quantile(q).as_micros() as u64)),
        };
        row([
            &short_time(elapsed.as_secs()),
            &short(accepted),
            &short(queued),
            &short(flight),
            &default,
            &of_default,
            &fallback,
            &of_fallback,
            &short(u64::try_from(fees).unwrap_or(u64::MAX)),
            &p50,
            &p99,
        ])
    }

    /// Whether a processor is given payments, and after how long it is expected to answer, if it
    /// has settled any within the last second.
    fn state(&self, index: usize, before: &Seen) -> String {
        let all = self.instances.iter().filter_map(|it| it.processors.get(index));
        let up: Vec<_> = all.clone().filter(|it| it.up).collect();
        let is_used = self.settled(index) > before.settled(index);
        let expected_us = up.iter().map(|it| it.expected_us).max().unwrap_or_default();
        match (up.len(), expected_us.div_ceil(1_000)) {
            (0, _) => "down".into(),
            (some, _) if some < all.count() => format!("{some} of {}", self.instances.len()),
            _ if !is_used => "up".into(),
            (_, ms @ 0..1_000) => format!("{ms} ms"),
            (_, ms) => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::status::{PaymentsStatus, ProcessorStatus};

    fn processor(up: bool, settled: u64, amount: &str) -> ProcessorStatus {
        let amount = amount.to_owned();
        ProcessorStatus { up, settled, amount, expected_us: 1_200, ..ProcessorStatus::default() }
    }

    fn document(instances: &[(u8, u64, bool)]) -> Document {
        let instance = |&(instance, accepted, up): &(u8, u64, bool)| InstanceStatus {
            instance,
            whereabouts: Whereabouts { accepted: accepted as i64, ..Whereabouts::default() },
            payments: PaymentsStatus { outstanding: 3, in_flight: 1, ..PaymentsStatus::default() },
            processors: vec![processor(up, 100, "1990.00"), processor(true, 4, "79.60")],
            ..InstanceStatus::default()
        };
        Document {
            version: 2,
            at: "2026-01-31T10:00:00.123Z".into(),
            verdict: Verdict::default(),
            whereabouts: Whereabouts::default(),
            instances: instances.iter().map(instance).collect(),
            demo: None,
        }
    }

    const FEES: [Fee; 2] = [Fee(50_000), Fee(150_000)];

    fn words(seen: &Seen, before: &Seen) -> Vec<String> {
        let line = seen.line(Duration::from_secs(12), FEES, before, &Histogram::new());
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_two_instances_say_is_added_up_and_what_one_said_last_is_kept() {
        let (mut seen, nothing) = (Seen::default(), Seen::default());
        seen.update(&document(&[(1, 1_200, true), (2, 1_000, true)]));
        let expected: Vec<_> = "12 s 2,200 4 2 200 2 ms 8 2 ms 222 - -".split(' ').collect();
        assert_eq!(words(&seen, &nothing), expected);
        assert_eq!(seen.answering, 2);
        let before = seen.clone();
        seen.update(&document(&[(1, 1_300, false)]));
        let expected: Vec<_> = "12 s 2,300 4 2 200 1 of 2 8 up 222 - -".split(' ').collect();
        assert_eq!(words(&seen, &before), expected);
        assert_eq!(seen.answering, 1);
    }

    #[test]
    fn a_line_fits_in_80_columns_whatever_is_in_it() {
        let mut seen = Seen::default();
        seen.update(&document(&[(1, 987_654, true), (2, 1_000_000_000, true)]));
        for it in &mut seen.instances {
            it.payments.outstanding = 499_999;
            it.processors[0].settled = 400_000_000;
            it.processors[0].expected_us = 9_912_345;
            it.processors[0].amount = "12345678.90".into();
        }
        let entry = Histogram::new();
        entry.record(Duration::from_millis(1_500));
        let line = seen.line(Duration::from_secs(9_999), FEES, &Seen::default(), &entry);
        let head = head();
        for line in head.lines().chain([&line[..]]) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(line.contains(" 999,996 ") && line.contains(" 9.9 s "), "{line}");
        for (seconds, text) in [(999, "999 s"), (1_000, "16:40"), (9_999, "2h46")] {
            assert_eq!(short_time(seconds), text);
        }
        for (count, text) in [(999_999, "999,999"), (1_234_567, "1.23M"), (999_999_999, "999.99M")]
        {
            assert_eq!(short(count), text);
        }
    }
}
