//! The line a second: what the instances say of themselves, and how fast the entry answered.
//!
//! Pure: text in, text out. Every number is one that an instance published or a request took.

use crate::base::histogram::Histogram;
use crate::base::money::Fee;
use crate::payments::Processor;
use crate::tools::text::{grouped, milliseconds, money};
use std::time::Duration;

/// The names of the columns, in two lines.
pub fn head() -> String {
    let upper = ["", "", "", "in", "at", "default", "at", "fallback", "", "entry,", "ms"];
    let lower = [
        "time", "accepted", "queued", "flight", "settled", "seen", "settled", "seen", "fees",
        "p50", "p99",
    ];
    format!("{}\n{}", row(upper), row(lower))
}

/// All columns at their places, 99 characters wide.
fn row(columns: [&str; 11]) -> String {
    let [
        time,
        accepted,
        queued,
        flight,
        default,
        of_default,
        fallback,
        of_fallback,
        fees,
        p50,
        p99,
    ] = columns;
    format!(
        "{time:>6}{accepted:>10}{queued:>7}{flight:>8}{default:>9} {of_default:<11}\
         {fallback:>9} {of_fallback:<11}{fees:>11}{p50:>7}{p99:>8}"
    )
}

/// What the instances say, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many instances said it.
    pub instances: u64,
    pub accepted: u64,
    /// Accepted and not settled.
    pub outstanding: u64,
    /// Requests to processors under way.
    pub in_flight: u64,
    pub settled: [u64; 2],
    pub settled_cents: [u64; 2],
    /// How many instances give a processor payments.
    pub up: [u64; 2],
    /// Requests for payments that the processors have answered, and how long these took in sum.
    pub answered: [u64; 2],
    pub answered_ns: [u64; 2],
}

impl Seen {
    /// Adds what one instance's `GET /metrics` says; false, and nothing is added, if a number is
    /// missing.
    pub fn add(&mut self, metrics: &str) -> bool {
        self.add_all(metrics).is_some()
    }

    fn add_all(&mut self, metrics: &str) -> Option<()> {
        let both = |name: &str| -> Option<[u64; 2]> {
            let [default, fallback] = Processor::ALL
                .map(|which| sample(metrics, &format!("{name}{{processor=\"{}\"}}", which.name())));
            Some([default?, fallback?])
        };
        let plus = |a: [u64; 2], b: [u64; 2]| [a[0] + b[0], a[1] + b[1]];
        let sums_ns = Processor::ALL.map(|which| {
            let name = format!("galo_attempt_seconds_sum{{processor=\"{}\"}}", which.name());
            nanoseconds(value(metrics, &name)?)
        });
        *self = Seen {
            instances: self.instances + 1,
            accepted: self.accepted + sample(metrics, "galo_payments_total{outcome=\"accepted\"}")?,
            outstanding: self.outstanding + sample(metrics, "galo_outstanding")?,
            in_flight: self.in_flight + sample(metrics, "galo_in_flight")?,
            settled: plus(self.settled, both("galo_settled_total")?),
            settled_cents: plus(self.settled_cents, both("galo_settled_cents_total")?),
            up: plus(self.up, both("galo_processor_up")?),
            answered: plus(self.answered, both("galo_attempt_seconds_count")?),
            answered_ns: plus(self.answered_ns, [sums_ns[0]?, sums_ns[1]?]),
        };
        Some(())
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
        let queued = self.outstanding.saturating_sub(self.in_flight);
        let fees_millionths: i128 =
            fees.iter().zip(self.settled_cents).map(|(fee, cents)| fee.of(cents.into())).sum();
        let [default, fallback] = self.settled.map(grouped);
        let [of_default, of_fallback] = [0, 1].map(|index| self.state(index, before));
        let [p50, p99] = match entry.snapshot().count() {
            0 => ["-".to_owned(), "-".to_owned()],
            _ => [0.5, 0.99].map(|q| milliseconds(entry.snapshot().quantile(q).as_micros() as u64)),
        };
        row([
            &format!("{} s", elapsed.as_secs()),
            &grouped(self.accepted),
            &grouped(queued),
            &grouped(self.in_flight),
            &default,
            &of_default,
            &fallback,
            &of_fallback,
            &money((fees_millionths + 500_000).div_euclid(1_000_000)),
            &p50,
            &p99,
        ])
    }

    /// Whether a processor is given payments, and how long its answers of the last second took on
    /// average, if there were any.
    fn state(&self, index: usize, before: &Seen) -> String {
        let answered = self.answered[index].saturating_sub(before.answered[index]);
        let took_ns = self.answered_ns[index].saturating_sub(before.answered_ns[index]);
        match (self.up[index], took_ns.checked_div(answered)) {
            (0, _) => "down".into(),
            (up, _) if up < self.instances => format!("{up} of {} up", self.instances),
            (_, None) => "up".into(),
            (_, Some(ns)) => format!("up {} ms", grouped(ns.div_ceil(1_000_000))),
        }
    }
}

/// The value of one sample, named with its labels.
fn value<'a>(metrics: &'a str, name: &str) -> Option<&'a str> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

fn sample(metrics: &str, name: &str) -> Option<u64> {
    value(metrics, name)?.parse().ok()
}

/// Seconds with nine decimals, as metrics have them.
fn nanoseconds(seconds: &str) -> Option<u64> {
    let (whole, fraction) = seconds.split_once('.').filter(|(_, text)| text.len() == 9)?;
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1_000_000_000)?.checked_add(fraction.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::stats::Stats;
    use crate::instance::surroundings::Surroundings;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn metrics(accepted: u64, up: [u64; 2]) -> String {
        let stats = Stats { up: up.map(AtomicU64::new), ..Stats::default() };
        stats.accepted.store(accepted, Ordering::Relaxed);
        stats.in_flight.store(1, Ordering::Relaxed);
        stats.attempts[0].record(Duration::from_micros(1_200));
        stats.settled[1].store(4, Ordering::Relaxed);
        let settled_cents = [199_000, 7_960];
        stats.write(&Surroundings {
            outstanding: 3,
            settled_cents,
            fees: [Fee(70_000), Fee(100_000)],
            peer_up: Some(true),
            event_loops: 2,
            ..Surroundings::default()
        })
    }

    #[test]
    fn what_two_instances_say_is_added_up_and_fits_in_100_columns() {
        let mut seen = Seen::default();
        assert!(seen.add(&metrics(1_200, [1, 0])));
        assert!(seen.add(&metrics(1_000, [1, 1])));
        let before = seen.clone();
        assert!(!seen.add("galo_outstanding 1\n"));
        assert_eq!(seen, before);
        let entry = Histogram::new();
        let fees = [Fee(50_000), Fee(150_000)];
        let line = seen.line(Duration::from_secs(12), fees, &Seen::default(), &entry);
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = "12 s 2,200 4 2 0 up 2 ms 8 1 of 2 up 222.88 - -";
        assert_eq!(words, expected.split_whitespace().collect::<Vec<_>>());
        entry.record(Duration::from_micros(100));
        assert!(
            seen.line(Duration::from_secs(12), fees, &Seen::default(), &entry)
                .ends_with("0.10    0.10")
        );
        let head = head();
        for line in head.lines().chain([&line[..]]) {
            assert!(line.len() <= 100, "{line}");
        }
        assert_eq!(seen.state(0, &seen), "up", "nothing was answered in between");
        assert_eq!(line.len(), head.lines().last().unwrap().len());
    }
}
