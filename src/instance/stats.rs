//! The numbers one instance shows of itself: counted anywhere, read by `GET /metrics`.
//!
//! Nothing here decides anything; exact totals of money come from the summary alone.

use crate::base::histogram::{Histogram, write_counters, write_gauges, write_histograms};
use crate::instance::surroundings::{Disk, Surroundings, cpu_ms, memory_bytes, open_files};
#[cfg(doc)]
use crate::payments::observed::Trouble;
use crate::payments::resolution::Action;
use crate::payments::{Each, Processor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long an attempt's outcome may be unknown: as ever, after an answer that was lost, until its
/// processor is back, and until people ought to look.
pub const DOUBT_AGES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// Plain counters, all relaxed: each is exact, but two read together may be a moment apart.
///
/// In this order: those of the serving threads and those of the dispatcher are written for every
/// payment, so a histogram lies between, and no cache line goes to and fro.
#[derive(Default)]
#[repr(C)]
pub struct Stats {
    pub accepted: AtomicU64,
    pub repeated: AtomicU64,
    pub refused: AtomicU64,
    pub turned_away: AtomicU64,
    /// From the turn in which a request was whole until its answer was with the kernel.
    pub entry: Histogram,
    pub settled: Each<AtomicU64>,
    /// Attempts after which the payment needs another.
    pub again: AtomicU64,
    pub foreign: AtomicU64,
    /// Payments that no processor will take, or one holds under another amount.
    pub rejected: AtomicU64,
    /// By what was decided, see [`Action::index`].
    pub resolved: [AtomicU64; Action::NAMES.len()],
    /// Payments accepted in place of the peer and given to it when it was back.
    pub handed_over: AtomicU64,
    /// Payments that both instances accepted, with two amounts: seen when guests are given to their
    /// home, and when it learns what was adopted (again from each process of the other).
    pub conflicts: AtomicU64,
    /// Transactions carried out, refused, and turned away at the accounts' home.
    pub transactions: AtomicU64,
    pub transactions_refused: AtomicU64,
    pub transactions_turned_away: AtomicU64,
    pub statements: AtomicU64,
    pub waiting: AtomicU64,
    /// Of these, accepted in place of the peer and kept for it.
    pub guests: AtomicU64,
    pub in_doubt: AtomicU64,
    /// Open attempts that are older than each of [`DOUBT_AGES`].
    pub in_doubt_longer: [AtomicU64; DOUBT_AGES.len()],
    pub in_flight: AtomicU64,
    /// 1 while nothing is paid since a journal has been put back.
    pub held_back: AtomicU64,
    /// When the oldest attempt in flight began, in µs of the clock for durations; 0 for none.
    pub oldest_started_us: Each<AtomicU64>,
    pub attempts: Each<Histogram>,
    /// Open connections of each door: the entry's, the peer's, the admins'.
    pub connections: [AtomicU64; 3],
    /// Per processor: 1 up, 0 down; its expected latency; when it last flipped (ms since 1970).
    pub up: Each<AtomicU64>,
    pub latency_us: Each<AtomicU64>,
    pub flipped_at_ms: Each<AtomicU64>,
    /// Which of [`Trouble::ALL`] it has, while it is down.
    pub trouble: Each<AtomicU64>,
    /// Attempts and looks under way, and how many attempts it is given at most.
    pub in_flight_at: Each<AtomicU64>,
    pub limit: Each<AtomicU64>,
    pub in_doubt_at: Each<AtomicU64>,
    /// New payments that went to their home, which counts them; and those that came from the other
    /// instance's clients.
    pub passed_on: AtomicU64,
    pub taken_for_peer: AtomicU64,
    /// Payments let go of since the other instance drives them, or held already by a processor.
    pub given_away: AtomicU64,
    /// Events the receiver of the webhook has taken, and requests that it has not.
    pub webhook_events: AtomicU64,
    pub webhook_failures: AtomicU64,
    /// 1 while it does not take them, or they cannot be read for it.
    pub webhook_failing: AtomicU64,
    /// Streams of events that are open.
    pub streams: AtomicU64,
}

impl Stats {
    /// Everything in the Prometheus text format, version 0.0.4.
    pub fn write(&self, around: &Surroundings<'_>) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.write_payments(&mut out, around);
        self.write_doubts(&mut out);
        self.write_processors(&mut out, around);
        self.write_ledger(&mut out);
        let help = "Time from a whole request to its answer.";
        write_histograms(&mut out, "galo_entry_seconds", help, &[(&[], &self.entry)]);
        let gauge = |out: &mut String, name, help, value| {
            write_gauges(out, name, help, &[(&[], value)]);
        };
        let snapshot = self.entry.snapshot();
        let quantiles = [("0.5", 0.5), ("0.99", 0.99), ("0.999", 0.999)];
        let labels = quantiles.map(|(name, _)| [("quantile", name)]);
        let series: Vec<_> = quantiles
            .iter()
            .zip(&labels)
            .map(|((_, share), label)| (&label[..], snapshot.quantile(*share).as_micros() as u64))
            .collect();
        let help = "Quantiles of the same since the start, within 12.5 %.";
        write_gauges(&mut out, "galo_entry_quantile_microseconds", help, &series);
        if let Some(up) = around.peer_up {
            gauge(&mut out, "galo_peer_up", "Whether the other instance answers.", u64::from(up));
        }
        let bytes = around.summary_bytes as u64;
        gauge(&mut out, "galo_summary_bytes", "Memory of the index of settlements.", bytes);
        let doors = [[("door", "entry")], [("door", "peer")], [("door", "admin")]];
        let open = self.connections.each_ref().map(|open| open.load(Ordering::Relaxed));
        let series = [0, 1, 2].map(|door: usize| (&doors[door][..], open[door]));
        write_gauges(&mut out, "galo_connections", "Open incoming connections.", &series);
        let loops = around.event_loops as u64;
        gauge(&mut out, "galo_event_loops", "Threads with an event loop.", loops);
        let help = "Whether payments wait, and nothing known is in their way.";
        gauge(&mut out, "galo_stuck", help, u64::from(around.is_stuck));
        self.write_webhook(&mut out);
        write_process(&mut out, around);
        if let Some(disk) = &around.disk {
            write_disk(&mut out, disk);
        }
        out
    }

    fn write_payments(&self, out: &mut String, around: &Surroundings<'_>) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outcomes: [(&[(&str, &str)], u64); 4] = [
            (&[("outcome", "accepted")], load(&self.accepted)),
            (&[("outcome", "repeated")], load(&self.repeated)),
            (&[("outcome", "refused")], load(&self.refused)),
            (&[("outcome", "turned_away")], load(&self.turned_away)),
        ];
        let help = "Answers to POST /payments: new, already known, wrong, or no room.";
        write_counters(out, "galo_payments_total", help, &outcomes);
        let gauges = [
            ("galo_outstanding", "Payments accepted and not settled.", around.outstanding as u64),
            ("galo_waiting", "Payments without an open attempt.", load(&self.waiting)),
            (
                "galo_in_doubt",
                "Attempts of unknown outcome, to be asked about.",
                load(&self.in_doubt),
            ),
            ("galo_in_flight", "Requests to processors under way.", load(&self.in_flight)),
            ("galo_queue_capacity", "So many may be outstanding.", around.capacity as u64),
            (
                "galo_rejected",
                "Rejected payments that wait for people to decide.",
                around.rejected as u64,
            ),
            (
                "galo_missing",
                "Accepted payments that are nowhere, or the other way round: 0, or something is wrong.",
                around.missing,
            ),
        ];
        for (name, help, value) in gauges {
            write_gauges(out, name, help, &[(&[], value)]);
        }
        let counters = [
            (
                "galo_attempts_repeated_total",
                "Attempts that did not settle their payment.",
                &self.again,
            ),
            (
                "galo_handed_over_total",
                "Payments given to the peer, their home.",
                &self.handed_over,
            ),
            (
                "galo_conflicts_total",
                "Payments both instances took, with two amounts.",
                &self.conflicts,
            ),
            (
                "galo_foreign_total",
                "Payments a processor held already, not booked by us.",
                &self.foreign,
            ),
            (
                "galo_rejected_total",
                "Payments no processor takes, or one holds under another amount.",
                &self.rejected,
            ),
        ];
        for (name, help, counter) in counters {
            write_counters(out, name, help, &[(&[], load(counter))]);
        }
        let resolved = Action::NAMES.map(|name| [("as", name)]);
        let resolved: [(&[(&str, &str)], u64); Action::NAMES.len()] =
            std::array::from_fn(|index| (&resolved[index][..], load(&self.resolved[index])));
        let help = "Payments that operators have decided about.";
        write_counters(out, "galo_resolved_total", help, &resolved);
    }

    fn write_doubts(&self, out: &mut String) {
        let ages = DOUBT_AGES.map(|age| format!("{}s", age.as_secs()));
        let ages = ages.each_ref().map(|age| [("older_than", &age[..])]);
        let counts = self.in_doubt_longer.each_ref().map(|count| count.load(Ordering::Relaxed));
        let series: [(&[(&str, &str)], u64); DOUBT_AGES.len()] =
            std::array::from_fn(|index| (&ages[index][..], counts[index]));
        let help = "Payments whose attempt has been without a known outcome for longer than that.";
        write_gauges(out, "galo_payments_in_doubt", help, &series);
    }

    fn write_webhook(&self, out: &mut String) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let help = "Events that the receiver has taken.";
        write_counters(
            out,
            "galo_webhook_events_total",
            help,
            &[(&[], load(&self.webhook_events))],
        );
        let help = "Requests that it has not taken.";
        let failures = load(&self.webhook_failures);
        write_counters(out, "galo_webhook_failures_total", help, &[(&[], failures)]);
        let help = "Whether events do not get to it at the moment, and are sent again.";
        write_gauges(out, "galo_webhook_failing", help, &[(&[], load(&self.webhook_failing))]);
    }

    fn write_ledger(&self, out: &mut String) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outcomes: [(&[(&str, &str)], u64); 3] = [
            (&[("outcome", "done")], load(&self.transactions)),
            (&[("outcome", "refused")], load(&self.transactions_refused)),
            (&[("outcome", "turned_away")], load(&self.transactions_turned_away)),
        ];
        let help = "Transactions of the accounts kept here, and bad ones met here.";
        write_counters(out, "galo_transactions_total", help, &outcomes);
        let help = "Statements of the accounts kept here.";
        write_counters(out, "galo_statements_total", help, &[(&[], load(&self.statements))]);
    }

    fn write_processors(&self, out: &mut String, around: &Surroundings<'_>) {
        let label = |it: &Processor| [("processor", around.names.name_of(*it))];
        let labels: Vec<_> = around.processors.iter().map(label).collect();
        let series = |value: &dyn Fn(Processor) -> u64| -> Vec<(&[(&str, &str)], u64)> {
            let all = labels.iter().zip(around.processors);
            all.map(|(label, it)| (&label[..], value(*it))).collect()
        };
        let load =
            |counters: &Each<AtomicU64>| series(&|it| counters[it.index()].load(Ordering::Relaxed));
        let help = "Payments a processor holds.";
        write_counters(out, "galo_settled_total", help, &load(&self.settled));
        let cents = |cents: i128| u64::try_from(cents).unwrap_or(u64::MAX);
        let amounts = series(&|it| cents(around.settled[it.index()].amount.0));
        let help = "The money of these, in cents.";
        write_counters(out, "galo_settled_cents_total", help, &amounts);
        let fees = series(&|it| {
            let fee = around.fees[it.index()].unwrap_or_default();
            cents(fee.on_all(around.settled[it.index()]) / 1_000_000)
        });
        let help = "What the processors take of it, by their fees of now, in cents, rounded down.";
        write_counters(out, "galo_fees_cents_total", help, &fees);
        let help = "Whether a processor is given payments.";
        write_gauges(out, "galo_processor_up", help, &load(&self.up));
        let help = "When that last changed.";
        write_gauges(out, "galo_processor_flipped_ms", help, &load(&self.flipped_at_ms));
        let help = "How long its answers are expected to take.";
        write_gauges(out, "galo_processor_latency_microseconds", help, &load(&self.latency_us));
        let ages = series(&|it| {
            let started = self.oldest_started_us[it.index()].load(Ordering::Relaxed);
            if started == 0 { 0 } else { around.now_us.saturating_sub(started) }
        });
        let help = "Age of the oldest attempt in flight.";
        write_gauges(out, "galo_attempt_oldest_microseconds", help, &ages);
        let help = "Attempts of unknown outcome that wait to be asked about there.";
        write_gauges(out, "galo_processor_in_doubt", help, &load(&self.in_doubt_at));
        let all = labels.iter().zip(around.processors);
        let histograms: Vec<(&[(&str, &str)], &Histogram)> =
            all.map(|(label, it)| (&label[..], &self.attempts[it.index()])).collect();
        let help = "Time a request for a payment took at a processor.";
        write_histograms(out, "galo_attempt_seconds", help, &histograms);
    }
}

/// The process, under the names that Prometheus' clients agree on where there is one.
fn write_process(out: &mut String, around: &Surroundings<'_>) {
    let instance = around.instance.to_string();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("instance_number", &instance)];
    let help = "Which program this is, and which of the two.";
    write_gauges(out, "galo_build_info", help, &[(&labels, 1)]);
    let help = "CPU time of the process, in ms.";
    write_counters(out, "galo_cpu_milliseconds_total", help, &[(&[], cpu_ms())]);
    for (name, help, value) in [
        ("galo_uptime_seconds", "Since the start of the process.", around.uptime.as_secs()),
        ("process_resident_memory_bytes", "Memory of the process.", memory_bytes()),
        ("process_open_fds", "Open file descriptors.", open_files()),
    ] {
        write_gauges(out, name, help, &[(&[], value)]);
    }
}

fn write_disk(out: &mut String, disk: &Disk<'_>) {
    for (name, help, value) in [
        ("galo_journal_has_room", "Whether payments can be accepted.", u64::from(disk.has_room)),
        ("galo_journal_bytes", "What the journal takes on its disk.", disk.used_bytes),
        ("galo_journal_free_bytes", "What is free on that disk.", disk.free_bytes),
    ] {
        write_gauges(out, name, help, &[(&[], value)]);
    }
    let help = "Time a sync of the journal took, for --durability disk.";
    write_histograms(out, "galo_journal_sync_seconds", help, &[(&[], disk.syncs)]);
}
