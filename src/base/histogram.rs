//! Latency histograms that any thread may record into without a lock, and the text they and other
//! numbers are published in (Prometheus text exposition format, version 0.0.4).
//!
//! Knows no metric by name. Counters and gauges need nothing of their own: an `AtomicU64` is kept
//! where it is counted and its value passed to [`write_counters`] or [`write_gauges`].
//!
//! The invariant: a bound that is published or answered is never below the truth.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each power of two of microseconds is divided in so many buckets of equal width.
const SUB_BUCKETS: u64 = 8;
const SUB_BUCKETS_LOG2: u32 = SUB_BUCKETS.ilog2();

/// The last bound is 2^26 µs, about 67 seconds; what is longer shares one more bucket.
const BOUND_LOG2_MAX: u32 = 26;
const BOUNDED_BUCKETS: usize =
    ((BOUND_LOG2_MAX - SUB_BUCKETS_LOG2 + 1) as u64 * SUB_BUCKETS) as usize;
const BUCKETS: usize = BOUNDED_BUCKETS + 1;

/// A histogram of durations in 1.5 KiB. Durations are told apart to within 12.5 %, or to the
/// microsecond below 8 µs.
///
/// Threads may record and read at once: what is read then is a moment somewhere in between, and its
/// sum may be off by what was being recorded.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// An empty histogram, also for a `static`.
    pub const fn new() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }

    /// Counts one duration. Takes about ten nanoseconds and never waits.
    pub fn record(&self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// Counts so many durations of the same length, at the cost of one.
    pub fn record_many(&self, duration: Duration, count: u64) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Upwards, so that a bucket's bound is also a bound for what was rounded.
        let us = ns.div_ceil(1000);
        // The read is nearly always all it takes: a maximum is seldom exceeded.
        if us > self.max_us.load(Relaxed) {
            self.max_us.fetch_max(us, Relaxed);
        }
        self.buckets[bucket_of(us)].fetch_add(count, Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(count), Relaxed);
    }

    /// The numbers as they are now, for several questions about one state.
    pub fn snapshot(&self) -> Snapshot {
        let buckets = self.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        // Read last: the maximum is written before the bucket it belongs to.
        Snapshot { buckets, sum_ns: self.sum_ns.load(Relaxed), max_us: self.max_us.load(Relaxed) }
    }
}

/// A histogram's numbers at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    buckets: [u64; BUCKETS],
    /// The sum of all durations, in nanoseconds. Wraps after 584 years of them.
    pub sum_ns: u64,
    /// The longest duration, in microseconds, rounded up.
    pub max_us: u64,
}

impl Snapshot {
    /// The buckets that are not empty: upper bound in microseconds (of the last one the longest
    /// duration), and how many durations it has.
    pub fn filled(&self) -> Vec<(u64, u64)> {
        let all = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        all.map(|(bucket, count)| (bound_us(bucket).unwrap_or(self.max_us), *count)).collect()
    }

    /// How many durations have been recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// A duration that at least this share of the durations (0 to 1) do not exceed: the upper bound
    /// of the bucket where the share is reached, or the longest duration if that is less. At most
    /// 12.5 % (or 1 µs, below 8 µs) above the true quantile, and never below it.
    ///
    /// Zero if nothing has been recorded. A share outside 0 to 1 is taken for the nearer of them.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let count = self.count();
        // A quantile that is no number becomes rank 0 in the conversion, and so 1.
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (bucket, in_bucket) in self.buckets.iter().enumerate() {
            seen += in_bucket;
            if seen >= rank {
                return Duration::from_micros(
                    bound_us(bucket).unwrap_or(u64::MAX).min(self.max_us),
                );
            }
        }
        Duration::ZERO
    }
}

/// The bucket of a duration in microseconds. Buckets include their upper bound and exclude their
/// lower one, as `le` ("less or equal") in the exposition format demands.
fn bucket_of(us: u64) -> usize {
    let below_us = us.saturating_sub(1);
    if below_us < SUB_BUCKETS {
        return below_us as usize;
    }
    let shift = below_us.ilog2() - SUB_BUCKETS_LOG2;
    let bucket = u64::from(shift) * SUB_BUCKETS + (below_us >> shift);
    (bucket as usize).min(BOUNDED_BUCKETS)
}

/// The longest duration of a bucket, in microseconds; `None` for the last, which has no bound.
fn bound_us(bucket: usize) -> Option<u64> {
    let bound = bucket as u64 + 1;
    if bucket >= BOUNDED_BUCKETS {
        return None;
    }
    // Two groups, the linear one and the first power of two above it, have buckets of 1 µs.
    let shift = (bucket as u64 / SUB_BUCKETS).saturating_sub(1);
    Some((bound - shift * SUB_BUCKETS) << shift)
}

/// The labels of one series: names, which must be valid, and values, which may be any text.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Appends one metric with all its series, durations in seconds. All at once, because the format
/// wants the series of a metric together under one `HELP` and one `TYPE`.
///
/// Only the powers of two of microseconds are published as `le`, an eighth of the buckets: 27 lines
/// a series instead of 193. Quantiles computed from the text are therefore only good to a factor of
/// two; [`Snapshot::quantile`] knows better.
pub fn write_histograms(out: &mut String, name: &str, help: &str, series: &[(Labels, &Histogram)]) {
    write_head(out, name, help, "histogram");
    for (labels, histogram) in series {
        let snapshot = histogram.snapshot();
        let bucket_name = format!("{name}_bucket");
        let mut cumulative = 0;
        for (bucket, in_bucket) in snapshot.buckets.iter().enumerate() {
            cumulative += in_bucket;
            if let Some(us) = bound_us(bucket).filter(|us| us.is_power_of_two()) {
                let seconds = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
                write_sample(out, &bucket_name, labels, Some(&seconds), cumulative);
            }
        }
        write_sample(out, &bucket_name, labels, Some("+Inf"), cumulative);
        let (seconds, rest_ns) = (snapshot.sum_ns / 1_000_000_000, snapshot.sum_ns % 1_000_000_000);
        let sum = format_args!("{seconds}.{rest_ns:09}").to_string();
        write_sample(out, &format!("{name}_sum"), labels, None, sum);
        write_sample(out, &format!("{name}_count"), labels, None, cumulative);
    }
}

/// Appends one counter with all its series: numbers that only grow. By convention its name ends in
/// `_total`.
pub fn write_counters(out: &mut String, name: &str, help: &str, series: &[(Labels, u64)]) {
    write_numbers(out, name, help, "counter", series);
}

/// Appends one gauge with all its series: numbers that go up and down.
pub fn write_gauges(out: &mut String, name: &str, help: &str, series: &[(Labels, u64)]) {
    write_numbers(out, name, help, "gauge", series);
}

fn write_numbers(out: &mut String, name: &str, help: &str, kind: &str, series: &[(Labels, u64)]) {
    write_head(out, name, help, kind);
    for (labels, value) in series {
        write_sample(out, name, labels, None, value);
    }
}

fn write_head(out: &mut String, name: &str, help: &str, kind: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    append(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

fn write_sample(
    out: &mut String,
    name: &str,
    labels: Labels,
    le: Option<&str>,
    value: impl std::fmt::Display,
) {
    out.push_str(name);
    let bound = le.map(|le| ("le", le));
    let mut separator = '{';
    for (label, text) in labels.iter().copied().chain(bound) {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        append(out, format_args!("{separator}{label}=\"{text}\""));
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    append(out, format_args!(" {value}\n"));
}

fn append(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn many_at_once_are_as_many_one_by_one() {
        let (at_once, one_by_one) = (Histogram::new(), Histogram::new());
        for (us, count) in [(0, 3), (90, 5), (90_000_000, 2), (7, 0)] {
            let duration = Duration::from_micros(us);
            at_once.record_many(duration, count);
            (0..count).for_each(|_| one_by_one.record(duration));
        }
        assert_eq!(at_once.snapshot(), one_by_one.snapshot());
    }

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        let mut lower_us = 0;
        for bucket in 0..BOUNDED_BUCKETS {
            let upper_us = bound_us(bucket).unwrap();
            assert!(upper_us > lower_us);
            assert_eq!(bucket_of(lower_us + 1), bucket);
            assert_eq!(bucket_of(upper_us), bucket);
            assert!(lower_us < SUB_BUCKETS || (upper_us - lower_us) * 8 <= lower_us);
            lower_us = upper_us;
        }
        assert_eq!(lower_us, 1 << BOUND_LOG2_MAX);
        assert_eq!(bucket_of(lower_us + 1), BOUNDED_BUCKETS);
        assert_eq!(bucket_of(u64::MAX), BOUNDED_BUCKETS);
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bound_us(BOUNDED_BUCKETS), None);
    }

    #[test]
    fn answers_for_nothing_for_one_and_for_the_very_long() {
        let histogram = Histogram::new();
        assert_eq!(histogram.snapshot().quantile(0.99), Duration::ZERO);
        histogram.record(Duration::ZERO);
        assert_eq!(
            (histogram.snapshot().count(), histogram.snapshot().quantile(1.0)),
            (1, Duration::ZERO)
        );
        histogram.record(us(1000));
        assert_eq!(histogram.snapshot().quantile(0.5), us(1));
        assert_eq!(histogram.snapshot().quantile(0.51), us(1000));
        histogram.record(Duration::from_secs(3600));
        for share in [1.0, 2.0, f64::INFINITY] {
            assert_eq!(histogram.snapshot().quantile(share), Duration::from_secs(3600));
        }
        for share in [0.0, -1.0, f64::NAN] {
            assert_eq!(histogram.snapshot().quantile(share), us(1));
        }
        histogram.record(Duration::MAX);
        assert_eq!(histogram.snapshot().count(), 4);
    }

    #[test]
    fn no_record_is_lost_between_threads() {
        let histogram = Histogram::new();
        thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || (0..10_000).for_each(|n| histogram.record(us(n * 4 + thread))));
            }
        });
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.max_us), (40_000, 39_999));
        assert_eq!(snapshot.sum_ns, (0..40_000_u64).sum::<u64>() * 1000);
    }

    #[test]
    fn series_of_a_metric_share_one_head() {
        let (fast, slow) = (Histogram::new(), Histogram::new());
        fast.record(us(2));
        fast.record(Duration::from_nanos(2001));
        slow.record(Duration::from_secs(100));
        let mut out = String::new();
        let series: &[(Labels, &Histogram)] =
            &[(&[("processor", "default")], &fast), (&[("processor", "fallback")], &slow)];
        write_histograms(&mut out, "attempt_seconds", "Round trips.", series);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 2 + 2 * (27 + 3));
        assert_eq!(lines[0], "# HELP attempt_seconds Round trips.");
        assert_eq!(lines[1], "# TYPE attempt_seconds histogram");
        assert_eq!(lines[2], r#"attempt_seconds_bucket{processor="default",le="0.000001"} 0"#);
        assert_eq!(lines[3], r#"attempt_seconds_bucket{processor="default",le="0.000002"} 1"#);
        assert_eq!(lines[4], r#"attempt_seconds_bucket{processor="default",le="0.000004"} 2"#);
        assert_eq!(lines[28], r#"attempt_seconds_bucket{processor="default",le="67.108864"} 2"#);
        assert_eq!(lines[29], r#"attempt_seconds_bucket{processor="default",le="+Inf"} 2"#);
        assert_eq!(lines[30], r#"attempt_seconds_sum{processor="default"} 0.000004001"#);
        assert_eq!(lines[31], r#"attempt_seconds_count{processor="default"} 2"#);
        assert_eq!(lines[58], r#"attempt_seconds_bucket{processor="fallback",le="67.108864"} 0"#);
        assert_eq!(lines[59], r#"attempt_seconds_bucket{processor="fallback",le="+Inf"} 1"#);
        assert_eq!(lines[60], r#"attempt_seconds_sum{processor="fallback"} 100.000000000"#);
    }

    #[test]
    fn names_without_labels_and_texts_with_quotes_are_written_as_the_format_wants() {
        let mut out = String::new();
        write_histograms(&mut out, "h_seconds", "h", &[(&[], &Histogram::new())]);
        assert!(out.contains("\nh_seconds_bucket{le=\"0.000001\"} 0\n"));
        assert!(out.ends_with("\nh_seconds_sum 0.000000000\nh_seconds_count 0\n"));
        out.clear();
        write_counters(&mut out, "c_total", "a\\b\nc", &[(&[("l", "a\\b\"c\nd")], 1), (&[], 2)]);
        write_gauges(&mut out, "g", "now", &[(&[], 3)]);
        let expected = concat!(
            "# HELP c_total a\\\\b\\nc\n# TYPE c_total counter\n",
            "c_total{l=\"a\\\\b\\\"c\\nd\"} 1\nc_total 2\n",
            "# HELP g now\n# TYPE g gauge\ng 3\n",
        );
        assert_eq!(out, expected);
    }

    proptest! {
        #[test]
        fn quantiles_bound_the_true_ones_from_above_closely(
            mut durations_ns in prop::collection::vec(
                (0_u32..36).prop_flat_map(|log2| 0..1_u64 << log2), 1..300),
            quantile in 0.0..=1.0_f64,
        ) {
            let histogram = Histogram::new();
            for ns in &durations_ns {
                histogram.record(Duration::from_nanos(*ns));
            }
            durations_ns.sort_unstable();
            let rank = ((quantile * durations_ns.len() as f64).ceil() as usize).max(1);
            let truth_ns = durations_ns[rank - 1];
            let bound_ns = histogram.snapshot().quantile(quantile).as_nanos() as u64;
            prop_assert!(truth_ns <= bound_ns);
            prop_assert!(bound_ns <= truth_ns + (truth_ns / 8).max(1000));
        }
    }
}
