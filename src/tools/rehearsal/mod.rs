//! `galo rehearse`: plays the contest in virtual time, with the router and dispatcher that serve,
//! over both contests' stage tables and many random ones, and prints what a policy earns. Or plays the
//! processors of a file likewise, and prints what goes where and what it costs ([`described`]).
//!
//! Nothing real is touched: no sockets, no clock, no files but the one of the processors. The defaults of
//! the policy come from here (`--sweep`), and the table in docs/contest.md is its output.

mod described;
mod model;
mod play;
mod tables;

use crate::payments::router::Policy;
use crate::payments::{Each, Processor, Totals};
use play::{Cast, Played, play};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tables::{FEES_FINAL, FEES_PREVIEW, Fees, Table, profit};

/// Prints a line. Whoever reads the output may stop reading; that is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {
        let _ = writeln!(std::io::stdout(), $($text)*);
    };
}

/// What the columns of the table mean.
const LEGEND: &str = "
median..worst  profit as a share of the best in hindsight, where every payment may wait for the
               cheaper processor for as long as it takes: an upper bound no policy can reach
at once        the same for hindsight that sends every payment the moment it is accepted
dearer         payments that went to the dearer processor
lag            accepted payments not held at the end, beyond those that hindsight could not book
at risk        booked attempts per run that took longer than an audit forgives
audits, twice  audits that saw a difference; payments that both processors hold";

/// The share of everything that one differing audit costs.
const FINE: f64 = 0.35;
/// The grid of `--sweep`, in milliseconds.
const SWEEP_PATIENCE_MS: [u64; 6] = [0, 100, 200, 300, 500, 800];
const SWEEP_LATENCY_MS: [u64; 4] = [1_000, 1_300, 1_400, 1_450];

/// Play the routing in virtual time: what a policy earns
///
/// Over both contests and many random tables of outages and delays; or, with --processors, over random
/// tables alone and the processors of a file, with their fees and limits. Opens nothing but that file and
/// what it names, and sends nothing.
#[derive(clap::Args, Clone, Debug)]
pub struct RehearseArgs {
    /// How long a payment waits for the cheaper processor while the dearer one works
    #[arg(long, value_parser = humantime::parse_duration, default_value = "300ms")]
    patience: Duration,
    /// No attempt is started whose answer is expected to take longer than this
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1400ms")]
    attempt_latency_max: Duration,
    /// The most attempts in flight at one processor, from one instance
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    #[arg(conflicts_with = "processors")]
    processor_concurrency: u32,
    /// How many random tables are played
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    tables: u32,
    /// With how many seeds each of the contests' two tables is played
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with = "processors")]
    seeds: u32,
    /// The first seed; the same one gives the same output
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compare policies instead: patience × attempt latency
    #[arg(long)]
    sweep: bool,
    #[command(flatten)]
    described: described::DescribedArgs,
}

/// The runs of one policy.
struct Rehearsal {
    preview: Vec<Played>,
    final_runs: Vec<Played>,
    random: Vec<Played>,
}

/// One line of the output: many runs under the same fees.
struct Row {
    name: String,
    runs: usize,
    /// Profits as a share of the best in hindsight, in percent, in ascending order.
    profits: Vec<f64>,
    /// The median of what hindsight without waiting would have earned, likewise.
    at_once: f64,
    lag_max: u64,
    lag_runs: usize,
    at_risk: f64,
    differing: u64,
    differing_runs: usize,
    duplicates: u64,
    dearer: f64,
}

/// Plays and prints: seconds with the defaults, a few minutes for a sweep.
///
/// # Errors
/// If the processors of the file cannot be played so. What is wrong with the file itself is said, and
/// told by the exit code.
pub fn run(args: &RehearseArgs) -> Result<ExitCode, String> {
    match &args.described.processors {
        Some(file) => return described::run(args, file),
        None if args.sweep => sweep(args),
        None => play_contests(args),
    }
    Ok(ExitCode::SUCCESS)
}

fn play_contests(args: &RehearseArgs) {
    let policy = policy(args, args.patience, args.attempt_latency_max);
    say!(
        "patience {:?}, attempt latency at most {:?}, {} attempts at once per instance",
        policy.patience,
        policy.attempt_latency_max,
        policy.offers.limits(Processor::DEFAULT.index()).concurrency
    );
    print_rows(&rehearse(args, policy).rows());
    say!("{LEGEND}");
}

fn policy(args: &RehearseArgs, patience: Duration, attempt_latency_max: Duration) -> Policy {
    let policy = Policy { patience, attempt_latency_max, ..Policy::default() };
    let offers = policy.offers.with_concurrency(|_| args.processor_concurrency);
    Policy { offers, ..policy }
}

fn rehearse(args: &RehearseArgs, policy: Policy) -> Rehearsal {
    let cast = Cast::contest(policy);
    let play_seeds = |count: u32, table: &(dyn Fn(u64) -> Table + Sync)| {
        play_all(count as usize, |index| {
            let seed = args.seed.wrapping_add(index as u64);
            play(&table(seed), &cast, seed)
        })
    };
    Rehearsal {
        preview: play_seeds(args.seeds, &|_| tables::preview()),
        final_runs: play_seeds(args.seeds, &|_| tables::final_table()),
        random: play_seeds(args.tables, &tables::random),
    }
}

/// Plays `count` runs on all cores, and returns them in order.
fn play_all<T: Send>(count: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return done;
            }
            done.push((index, run(index)));
        }
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a run failed")).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, done)| done).collect()
}

impl Rehearsal {
    fn rows(&self) -> [Row; 4] {
        [
            Row::new("preview", &self.preview, FEES_PREVIEW),
            Row::new("final", &self.final_runs, FEES_FINAL),
            Row::new("random 5/15", &self.random, FEES_PREVIEW),
            Row::new("random 7/10", &self.random, FEES_FINAL),
        ]
    }
}

impl Row {
    fn new(name: &str, runs: &[Played], fees: Fees) -> Row {
        let share = |held: fn(&Played) -> &Each<Totals>| {
            let of_best = |run: &Played| {
                let [held, best] = [held(run), &run.best.waiting].map(|it| profit(it, fees));
                100.0 * held as f64 / best as f64
            };
            let mut shares: Vec<f64> = runs.iter().map(of_best).collect();
            shares.sort_by(f64::total_cmp);
            shares
        };
        let sum = |value: fn(&Played) -> u64| runs.iter().map(value).sum::<u64>();
        let count = |is: fn(&Played) -> bool| runs.iter().filter(|run| is(run)).count();
        Row {
            name: name.to_owned(),
            runs: runs.len(),
            profits: share(|run| &run.held),
            at_once: quantile(&share(|run| &run.best.at_once), 0.5),
            lag_max: runs.iter().map(Played::lag).max().unwrap_or(0),
            lag_runs: count(|run| run.lag() > 0),
            at_risk: sum(|run| run.at_risk) as f64 / runs.len() as f64,
            differing: sum(|run| run.audits_differing),
            differing_runs: count(|run| run.audits_differing > 0),
            duplicates: sum(|run| run.duplicates),
            dearer: 100.0 * sum(|run| run.held[1].count) as f64
                / sum(|run| run.accepted.count) as f64,
        }
    }

    /// No lag, no audit that differs, nothing paid twice, in any run.
    fn is_clean(&self) -> bool {
        self.lag_max == 0 && self.differing == 0 && self.duplicates == 0
    }

    /// The mean profit when every run with a differing audit is fined as the contest does.
    fn score(&self) -> f64 {
        self.mean() * (1.0 - FINE * self.differing_runs as f64 / self.runs as f64)
    }

    fn mean(&self) -> f64 {
        self.profits.iter().sum::<f64>() / self.profits.len() as f64
    }
}

/// The value that so large a share of the ascending values does not exceed.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    ascending[((ascending.len() - 1) as f64 * share) as usize]
}

fn print_rows(rows: &[Row]) {
    say!(
        "{:<12} {:>5} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>7} {:>8} {:>8} {:>8} {:>6}",
        "profit in %",
        "runs",
        "median",
        "mean",
        "p5",
        "worst",
        "at once",
        "dearer",
        "lag max",
        "lag runs",
        "at risk",
        "audits",
        "twice"
    );
    for row in rows {
        say!(
            "{:<12} {:>5} {:>7.2} {:>7.2} {:>7.2} {:>7.2} {:>8.2} {:>6.1}% {:>7} {:>8} {:>8.2} \
             {:>8} {:>6}",
            row.name,
            row.runs,
            quantile(&row.profits, 0.5),
            row.mean(),
            quantile(&row.profits, 0.05),
            row.profits[0],
            row.at_once,
            row.dearer,
            row.lag_max,
            row.lag_runs,
            row.at_risk,
            row.differing,
            row.duplicates,
        );
    }
}

/// Rehearses a grid of policies and names the winner: no lag, difference or payment held twice in
/// either contest comes first, then the mean profit over all rows, fines included.
fn sweep(args: &RehearseArgs) {
    say!(
        "{:>8} {:>8} {:>9} {:>9} {:>12} {:>12} {:>9} {:>8} {:>8} {:>8}",
        "patience",
        "latency",
        "preview",
        "final",
        "random 5/15",
        "random 7/10",
        "score",
        "lag",
        "at risk",
        "audits"
    );
    let mut best: Option<((bool, f64), Policy)> = None;
    for patience_ms in SWEEP_PATIENCE_MS {
        for latency_ms in SWEEP_LATENCY_MS {
            let [patience, latency] = [patience_ms, latency_ms].map(Duration::from_millis);
            let policy = policy(args, patience, latency);
            let rows = rehearse(args, policy).rows();
            let [preview, final_row, random_a, random_b] = &rows;
            let is_clean = [preview, final_row].iter().all(|row| row.is_clean());
            let score = rows.iter().map(Row::score).sum::<f64>() / rows.len() as f64;
            say!(
                "{:>6}ms {:>6}ms {:>8.2}% {:>8.2}% {:>11.2}% {:>11.2}% {score:>9.3} {:>8} {:>8.1} \
                 {:>8}",
                patience_ms,
                latency_ms,
                preview.mean(),
                final_row.mean(),
                random_a.mean(),
                random_b.mean(),
                preview.lag_max.max(final_row.lag_max),
                random_a.at_risk,
                random_a.differing,
            );
            if best.is_none_or(|(rank, _)| rank < (is_clean, score)) {
                best = Some(((is_clean, score), policy));
            }
        }
    }
    if let Some(((is_clean, score), Policy { patience, attempt_latency_max, .. })) = best {
        let clean = if is_clean { "clean" } else { "NOT clean" };
        say!(
            "best: --patience {patience:?} --attempt-latency-max {attempt_latency_max:?}: \
             {score:.3}, {clean} in both contests"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: RehearseArgs,
    }

    fn args(flags: &str) -> RehearseArgs {
        let words = std::iter::once("rehearse").chain(flags.split_whitespace());
        Command::try_parse_from(words).unwrap().args
    }

    #[test]
    fn the_defaults_are_the_policys() {
        let args = args("");
        let Policy { patience, attempt_latency_max, offers, .. } = Policy::default();
        assert_eq!(args.patience, patience);
        assert_eq!(args.attempt_latency_max, attempt_latency_max);
        assert_eq!(args.processor_concurrency, offers.limits(0).concurrency);
    }

    #[test]
    fn both_contests_end_without_lag_or_difference() {
        let rehearsal = rehearse(&args("--tables 10 --seeds 2 --seed 40"), Policy::default());
        let [preview, final_row, random, _] = rehearsal.rows();
        assert!(preview.is_clean() && final_row.is_clean());
        assert!(preview.profits[0] > 98.0, "{:?}", preview.profits);
        assert!(final_row.profits[0] > 99.4, "{:?}", final_row.profits);
        assert_eq!(random.duplicates, 0);
    }

    #[test]
    fn the_same_seed_plays_the_same_run() {
        let play_one = |seed| play(&tables::random(3), &Cast::contest(Policy::default()), seed);
        assert_eq!(format!("{:?}", play_one(5)), format!("{:?}", play_one(5)));
        assert_ne!(format!("{:?}", play_one(5)), format!("{:?}", play_one(6)));
    }
}
