//! `galo rehearse --processors FILE`: the same router and dispatcher over the processors of a file, and
//! what one wants to know before real payments go there: what each of them gets, what that costs beside
//! what it might, and how long it takes.
//!
//! The file says what is known of its processors: fees, limits, time-outs, what their answers tell. How well
//! they do is drawn, as for the contest's; what they book, and how fast at best, is a model's.

use super::model::{Health, Nature};
use super::play::{Cast, Costs, Played, play};
use super::tables::{self, Amounts, FAILING_PERCENT, Table};
use super::{RehearseArgs, SWEEP_LATENCY_MS, SWEEP_PATIENCE_MS, play_all};
use crate::base::histogram::Histogram;
use crate::base::money::Cents;
use crate::payments::fee::FeeSchedule;
use crate::payments::router::Policy;
use crate::payments::terms::{Offers, Terms};
use crate::payments::{Each, Processor, Totals};
use crate::processors::answers::Meaning;
use crate::processors::{Described, Processors};
use crate::tools::check_config;
use crate::tools::text::{grouped, money, say, wrapped};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Amounts are of these at least, and then as far as there are bounds.
const USUAL: (i64, i64) = (100, 100_000);
/// Amounts can be drawn up to this: 10 billion.
const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// What is played of a file.
#[derive(clap::Args, Clone, Debug)]
pub struct DescribedArgs {
    /// Play the processors of this file (docs/processors.md) instead of the contest's. Its limits are of
    /// each instance; its day is the minute of a table
    #[arg(long, value_name = "FILE")]
    pub processors: Option<PathBuf>,
    /// With --processors: payments a second at the end of each minute; they grow from none
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    #[arg(requires = "processors")]
    rate: u32,
    /// With --processors: amounts, each doubling as likely as any other [default: 1.00 to 1000.00, and
    /// twice as far as bounds of amounts are, and those where another one gets the cheapest]
    #[arg(long, value_name = "LEAST-MOST", value_parser = read_amounts)]
    #[arg(requires = "processors")]
    amounts: Option<Amounts>,
    /// With --processors: one instance, not a pair. A file that `galo serve --peer` refuses is played
    /// so only
    #[arg(long, requires = "processors")]
    alone: bool,
}

fn read_amounts(text: &str) -> Result<Amounts, String> {
    let amount = |text: &str| {
        let amount = Cents::parse(text.trim().as_bytes()).ok();
        amount.filter(|it| (1..=AMOUNT_MAX).contains(&it.0))
    };
    let both = text.split_once('-').and_then(|(a, b)| Some((amount(a)?, amount(b)?)));
    let both = both.filter(|(least, most)| least <= most);
    let (least, most) = both.ok_or("it must be two amounts above 0, such as 0.50-2000")?;
    Ok(Amounts::Spread(least, most))
}

/// Plays and prints.
pub fn run(args: &RehearseArgs, file: &Path) -> Result<ExitCode, String> {
    let processors = match check_config::load(file) {
        Ok(processors) => processors,
        Err(code) => return Ok(code),
    };
    let rehearsal = Rehearsal::new(args, &processors);
    let rehearsal = rehearsal.map_err(|why| format!("{}: {why}", file.display()))?;
    let lines = if args.sweep { rehearsal.sweep() } else { rehearsal.report() };
    lines.into_iter().for_each(say);
    Ok(ExitCode::SUCCESS)
}

/// Everything that a run follows from.
struct Rehearsal<'a> {
    args: &'a RehearseArgs,
    /// By number, which is the order of the file.
    names: Vec<&'a str>,
    offers: Offers,
    natures: Vec<Nature>,
    instances: usize,
    amounts: Amounts,
}

impl<'a> Rehearsal<'a> {
    /// Refuses what `galo serve` would.
    fn new(args: &'a RehearseArgs, processors: &'a Processors) -> Result<Rehearsal<'a>, String> {
        let latency_max = match args.sweep {
            true => SWEEP_LATENCY_MS.map(Duration::from_millis).into_iter().max(),
            false => Some(args.attempt_latency_max),
        };
        let is_short = |it: &&Described| Some(it.timeouts.answer) <= latency_max;
        if let Some(short) = processors.iter().find(is_short) {
            return Err(format!(
                "processor {}: its time-out for an answer must be longer than \
                 --attempt-latency-max",
                short.name
            ));
        }
        let does_not_tell = |it: &&Described| !args.described.alone && !it.exchanges.tell_whose();
        if let Some(silent) = processors.iter().find(does_not_tell) {
            return Err(format!(
                "processor {}: its bookings do not tell whose they are, so that only one instance \
                 may use it: play it --alone",
                silent.name
            ));
        }
        let instances = if args.described.alone { 1 } else { 2 };
        let mut terms = Each::default();
        for (terms, Described { fee, limits, .. }) in terms.iter_mut().zip(processors.iter()) {
            *terms = Some(Terms { fee: *fee, limits: *limits });
        }
        Ok(Rehearsal {
            args,
            names: processors.iter().map(|it| it.name.as_str()).collect(),
            offers: Offers::new(terms),
            natures: processors.iter().map(|it| nature_of(it, instances)).collect(),
            instances,
            amounts: args.described.amounts.unwrap_or_else(|| amounts_around(processors)),
        })
    }

    fn play(&self, patience: Duration, attempt_latency_max: Duration) -> Sum {
        let offers = self.offers;
        let policy = Policy { offers, patience, attempt_latency_max, ..Policy::default() };
        let (instances, natures) = (self.instances, self.natures.clone());
        let cast = Cast { instances, policy, natures };
        let runs = play_all(self.args.tables as usize, |index| {
            let seed = self.args.seed.wrapping_add(index as u64);
            let table = Table {
                users_max: self.args.described.rate.into(),
                amounts: self.amounts,
                slack_ms: u64::try_from(attempt_latency_max.as_millis()).unwrap_or(u64::MAX),
                ..tables::random_over(self.names.len(), seed)
            };
            play(&table, &cast, seed)
        });
        Sum::of(&runs)
    }

    fn head(&self) -> String {
        let RehearseArgs { tables, described: DescribedArgs { rate, .. }, .. } = self.args;
        let instances = if self.instances == 1 { "one instance" } else { "two instances" };
        let amounts = match self.amounts {
            Amounts::One(amount) => amount.to_string(),
            Amounts::Spread(least, most) => format!("{least} to {most}"),
        };
        let text = format!(
            "{instances}, {tables} tables of a minute. Up to {rate} payments a second of {amounts}, \
             each doubling as likely as any other. Each processor fails in {FAILING_PERCENT} % of \
             the stages, and takes 0 to 6 s for an answer; in a second minute all are well."
        );
        wrapped(&text, 0)
    }

    fn report(&self) -> Vec<String> {
        let RehearseArgs { patience, attempt_latency_max, .. } = *self.args;
        let sum = self.play(patience, attempt_latency_max);
        let mut lines = vec![self.head()];
        let policy =
            format!("patience {patience:?}, attempt latency at most {attempt_latency_max:?}");
        lines.extend([policy, String::new()]);
        lines.extend(self.shares(&sum));
        lines.push(String::new());
        lines.extend(costs(&sum));
        lines.push(String::new());
        lines.extend(counts(&sum));
        lines
    }

    /// A line for each processor, in the order of the file.
    fn shares(&self, sum: &Sum) -> Vec<String> {
        let [w0, w1] = [self.names.iter().map(|it| it.len()).max().unwrap_or(0).max(9), 14];
        let mut lines = vec![format!(
            "{:w0$} {:>9} {:>8} {:>w1$}  {}",
            "processor", "payments", "money", "fees", "amounts"
        )];
        for (name, processor) in self.names.iter().zip(Processor::every()) {
            let held = sum.held[processor.index()];
            let fee = self.offers.terms(processor).map_or(0, |it| it.fee.on_all(held));
            let bounds = sum.bounds[processor.index()];
            let bounds = bounds.map_or("none".into(), |(from, to)| format!("{from} to {to}"));
            lines.push(format!(
                "{name:w0$} {:>9} {:>8} {:>w1$}  {bounds}",
                in_percent(held.count.into(), sum.all_held().count.into(), 1),
                in_percent(held.amount.0, sum.all_held().amount.0, 1),
                in_money(fee),
            ));
        }
        lines
    }

    /// A line for each policy of the grid. What is saved by patience is paid for in time, and nobody else
    /// knows at which price.
    fn sweep(&self) -> Vec<String> {
        let mut lines = vec![self.head(), String::new()];
        lines.push(format!(
            "{:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>6}",
            "patience", "latency", "fees", "least", "p50", "p99", "never", "twice"
        ));
        for patience_ms in SWEEP_PATIENCE_MS {
            for latency_ms in SWEEP_LATENCY_MS {
                let [patience, latency] = [patience_ms, latency_ms].map(Duration::from_millis);
                let sum = self.play(patience, latency);
                let [fees, least] = [sum.costs.paid, sum.costs.cheapest].map(|it| sum.of_money(it));
                let [p50, p99] = [0.5, 0.99].map(|it| sum.booked_after(it));
                lines.push(format!(
                    "{patience_ms:>6}ms {latency_ms:>6}ms {fees:>9} {least:>9} {p50:>8} {p99:>8} \
                     {:>8} {:>6}",
                    sum.unbooked, sum.duplicates
                ));
            }
        }
        lines
    }
}

/// What the file tells of how a processor answers.
fn nature_of(processor: &Described, instances: usize) -> Nature {
    let Described { exchanges, limits, timeouts, .. } = processor;
    let tells = |meaning| exchanges.pay.rules.iter().any(|it| it.meaning == meaning);
    let tells_delay =
        exchanges.health.as_ref().map(|it| it.rules.iter().any(|rule| rule.delay.is_some()));
    Nature {
        // It takes as much at once as it is said to.
        active_max: limits.concurrency as usize * instances,
        time_out_us: u64::try_from(timeouts.answer.as_micros()).unwrap_or(u64::MAX),
        tells_not_booked: tells(Meaning::NotBooked),
        tells_pause: tells(Meaning::Pause),
        health: match tells_delay {
            None => Health::Unasked,
            Some(false) => Health::State,
            Some(true) => Health::StateAndDelay,
        },
    }
}

/// Amounts among which there are those below and above each bound, and each of two processors is the
/// cheaper one for some, if that is so of any.
fn amounts_around(processors: &Processors) -> Amounts {
    let bounds = processors.iter().flat_map(|it| [it.limits.smallest, it.limits.largest]);
    let fees = || processors.iter().map(|it| it.fee);
    let equal = fees().flat_map(|a| fees().filter_map(move |b| equal_at(a, b)));
    let marks = bounds.flatten().map(|it| i128::from(it.0)).chain(equal);
    let (mut least, mut most) = (USUAL.0.into(), USUAL.1.into());
    for mark in marks {
        (least, most) = (i128::min(least, mark / 2), i128::max(most, mark * 2));
    }
    let within = |it: i128| Cents(it.clamp(1, AMOUNT_MAX.into()) as i64);
    Amounts::Spread(within(least), within(most))
}

/// The amount on which both take the same, in cents, if there is one: below it one is the cheaper, above
/// it the other.
fn equal_at(a: FeeSchedule, b: FeeSchedule) -> Option<i128> {
    let fixed = i128::from(a.fixed.0 - b.fixed.0) * 1_000_000;
    let share = i128::from(b.share.0) - i128::from(a.share.0);
    (share != 0).then(|| fixed / share).filter(|it| *it > 0)
}

/// All runs together.
#[derive(Default)]
struct Sum {
    accepted: u64,
    untaken: u64,
    unbooked: u64,
    duplicates: u64,
    held: Each<Totals>,
    bounds: Each<Option<(Cents, Cents)>>,
    costs: Costs,
    booked_after: Histogram,
}

impl Sum {
    fn of(runs: &[Played]) -> Sum {
        let mut sum = Sum::default();
        for run in runs {
            sum.accepted += run.accepted.count;
            sum.untaken += run.untaken;
            sum.unbooked += run.unbooked;
            sum.duplicates += run.duplicates;
            sum.held.iter_mut().zip(run.held).for_each(|(sum, it)| *sum += it);
            for (sum, bounds) in sum.bounds.iter_mut().zip(run.bounds) {
                let both = sum.iter().chain(&bounds);
                let (from, to) = (both.clone().map(|it| it.0).min(), both.map(|it| it.1).max());
                *sum = from.zip(to);
            }
            sum.costs += run.costs;
            for (us, count) in &run.booked_after {
                sum.booked_after.record_many(Duration::from_micros(*us), *count);
            }
        }
        sum
    }

    fn all_held(&self) -> Totals {
        let mut all = Totals::default();
        self.held.iter().for_each(|it| all += *it);
        all
    }

    /// So many millionths of a cent, as a share of all that is held.
    fn of_money(&self, millionths: i128) -> String {
        in_percent(millionths, self.all_held().amount.0 * 1_000_000, 3)
    }

    /// So large a share of all was not booked later than that.
    fn booked_after(&self, share: f64) -> String {
        in_time(self.booked_after.snapshot().quantile(share))
    }
}

/// What was paid in fees, and what might have been of the same payments.
fn costs(sum: &Sum) -> Vec<String> {
    let Costs { paid, cheapest, at_once, dearest } = sum.costs;
    let rows = [
        ("fees paid", paid, ""),
        ("all at the cheapest", cheapest, "nobody pays less"),
        ("all at once", at_once, "in hindsight, without any waiting"),
        ("all at the dearest", dearest, ""),
    ];
    let row = |(name, fees, what): (&str, i128, &str)| {
        format!("{name:19} {:>14} {:>9}  {what}", in_money(fees), sum.of_money(fees))
    };
    rows.map(row).map(|it| it.trim_end().to_owned()).into()
}

fn counts(sum: &Sum) -> Vec<String> {
    let rows = [
        ("payments accepted", sum.accepted, ""),
        ("not accepted", sum.untaken, "no processor takes such an amount (422)"),
        ("never went through", sum.unbooked, "at the end of the second minute"),
        ("held by two", sum.duplicates, "must be none"),
    ];
    let row = |(name, count, what): (&str, u64, &str)| {
        format!("{name:19} {:>14}  {what}", grouped(count))
    };
    let mut lines: Vec<_> = rows.map(row).map(|it| it.trim_end().to_owned()).into();
    let [p50, p99] = [0.5, 0.99].map(|it| sum.booked_after(it));
    lines.push(format!("{:19} p50 {p50}, p99 {p99}", "accepted to booked"));
    lines
}

/// Millionths of a cent as money.
fn in_money(millionths: i128) -> String {
    money((millionths + 500_000) / 1_000_000)
}

/// `2.4 ms`, `328 ms`, `14.7 s`: the histogram knows no more places.
fn in_time(time: Duration) -> String {
    match time.as_micros() {
        us @ ..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        us @ ..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// A share of a whole, with so many decimals.
fn in_percent(part: i128, whole: i128, decimals: usize) -> String {
    let percent = if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    format!("{percent:.decimals$} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::outside::Machine;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: RehearseArgs,
    }

    fn try_args(flags: &str) -> Result<RehearseArgs, String> {
        let words = ["rehearse", "--processors", "p.toml"].into_iter();
        let words = words.chain(flags.split_whitespace());
        Command::try_parse_from(words).map(|it| it.args).map_err(|it| it.to_string())
    }

    fn args(flags: &str) -> RehearseArgs {
        try_args(flags).unwrap()
    }

    /// Each with a name, a kind, and the rest of what stands there.
    fn file(all: &[(&str, &str, &str)]) -> Processors {
        let one = |(name, kind, rest): &(&str, &str, &str)| {
            format!(
                "[[processor]]\nname = '{name}'\nkind = '{kind}'\nurl = 'http://{name}'\n{rest}\n"
            )
        };
        let text: String = all.iter().map(one).collect();
        Processors::read("p.toml", &text, &Machine::beside(Path::new(""))).unwrap()
    }

    const CHEAP: (&str, &str, &str) = ("cheap", "contest", "fee = { percent = 1 }");
    const DEAR: (&str, &str, &str) = ("dear", "idempotent", "fee = { percent = 3, fixed = 10 }");

    /// A described one that tells as little as it may: not whose a booking is, for one.
    const SILENT: &str = "fee = { percent = 1 }
        [processor.pay]
        path = '/p'
        body = '{\"id\":\"{id}\",\"amount\":{amount}}'
        [[processor.pay.answer]]
        status = 200
        means = 'booked'
        id = '/id'
        [processor.look]
        path = '/p/{id}'
        [[processor.look.answer]]
        status = 200
        means = 'booked'
        id = '/id'";

    fn play_all_of(all: &[(&str, &str, &str)], flags: &str) -> Sum {
        let (processors, args) = (file(all), args(flags));
        let rehearsal = Rehearsal::new(&args, &processors).unwrap();
        rehearsal.play(args.patience, args.attempt_latency_max)
    }

    fn of(sum: &Sum, index: usize) -> (u64, i128) {
        (sum.held[index].count, sum.held[index].amount.0)
    }

    #[test]
    fn the_cheapest_gets_most_and_nothing_is_lost_or_paid_twice() {
        let all = [DEAR, CHEAP, ("middle", "idempotent", "fee = { percent = 2 }")];
        let sum = play_all_of(&all, "--tables 20");
        assert_eq!((sum.unbooked, sum.duplicates, sum.untaken), (0, 0, 0));
        assert_eq!(sum.all_held().count, sum.accepted);
        let [(dear, _), (cheap, _), (middle, _)] = [0, 1, 2].map(|it| of(&sum, it));
        assert!(2 * cheap > sum.accepted && cheap > middle && middle > dear && dear > 0);
        let Costs { paid, cheapest, at_once, dearest } = sum.costs;
        assert!(cheapest < paid && paid < dearest && cheapest < at_once && at_once < dearest);
        assert_eq!(cheapest, sum.all_held().amount.0 * 10_000);
        let fees = [30_000, 10_000, 20_000].into_iter().zip(&sum.held);
        let fees: i128 = fees.map(|(share, held)| share * held.amount.0).sum();
        assert_eq!(paid, fees + i128::from(dear) * 10_000_000);
    }

    #[test]
    fn limits_of_amounts_are_kept() {
        let small = ("small", "contest", "fee = { percent = 1 }\nlimits = { largest = 10 }");
        let large = ("large", "contest", "fee = { percent = 2 }\nlimits = { smallest = 10.01 }");
        let few =
            ("few", "contest", "fee = { percent = 9 }\nlimits = { smallest = 8, largest = 12 }");
        let sum = play_all_of(&[small, large, few], "--tables 10 --amounts 5-15");
        let bounds = sum.bounds.map(|it| it.map(|(from, to)| (from.0, to.0)));
        assert_eq!(bounds[0], Some((500, 1_000)));
        assert_eq!(bounds[1], Some((1_001, 1_500)));
        assert!(bounds[2].is_some_and(|(from, to)| from >= 800 && to <= 1_200), "{bounds:?}");
        assert_eq!((sum.untaken, sum.unbooked, sum.duplicates), (0, 0, 0));
        // Between 10.00 and 20.00 nobody takes anything.
        let none = ("none", "contest", "fee = { percent = 2 }\nlimits = { smallest = 20 }");
        let sum = play_all_of(&[small, none], "--tables 3 --amounts 10.01-40");
        assert_eq!(of(&sum, 0), (0, 0));
        assert!(sum.untaken > 0 && sum.bounds[1].is_some_and(|(from, _)| from.0 >= 2_000));
        assert_eq!(sum.accepted, sum.held[1].count);
    }

    #[test]
    fn limits_of_a_day_and_of_a_second_are_kept() {
        let day = ("day", "contest", "fee = { percent = 1 }\nlimits = { day = 5000, largest = 9 }");
        let rate = ("rate", "contest", "fee = { percent = 2 }\nlimits = { per-second = 10 }");
        let sum = play_all_of(&[day, rate], "--tables 1 --rate 300 --amounts 1-20");
        // Two instances, each with the whole of the limit.
        let (_, spent) = of(&sum, 0);
        assert!((900_000..=1_000_000).contains(&spent), "{spent}");
        let (booked, _) = of(&sum, 1);
        assert!(booked <= 2 * 10 * 120 + 2 && booked > 1_000, "{booked}");
        let alone = play_all_of(&[day, rate], "--tables 1 --rate 300 --amounts 1-20 --alone");
        assert!((450_000..=500_000).contains(&of(&alone, 0).1));
        assert!(alone.held[1].count < booked && alone.unbooked > 0);
    }

    /// What fails without saying that it has not booked keeps its payments: nobody else may have them.
    #[test]
    fn what_its_answers_tell_counts() {
        let told = |kind| {
            let processors = file(&[("a", kind, "fee = { percent = 1 }")]);
            processors.iter().map(|it| nature_of(it, 2)).next().unwrap()
        };
        assert_eq!(told("contest"), Nature::CONTEST);
        assert_eq!(told("idempotent"), Nature { health: Health::State, ..Nature::CONTEST });
        let silent = file(&[("a", "described", SILENT)]);
        let expected = Nature {
            active_max: 400,
            tells_not_booked: false,
            tells_pause: false,
            health: Health::Unasked,
            ..Nature::CONTEST
        };
        assert_eq!(silent.iter().map(|it| nature_of(it, 1)).collect::<Vec<_>>(), [expected]);
        let (processors, args) = (file(&[CHEAP, DEAR]), args("--tables 10"));
        let mut rehearsal = Rehearsal::new(&args, &processors).unwrap();
        let clear = rehearsal.play(args.patience, args.attempt_latency_max);
        rehearsal.natures[0].tells_not_booked = false;
        let unclear = rehearsal.play(args.patience, args.attempt_latency_max);
        assert_eq!((unclear.unbooked, unclear.duplicates), (0, 0));
        let longest = |it: &Sum| it.booked_after.snapshot().quantile(1.0);
        assert!(longest(&unclear) > longest(&clear));
    }

    #[test]
    fn the_same_seed_prints_the_same() {
        let bounded = ("bounded", "contest", "fee = { percent = 1 }\nlimits = { largest = 50 }");
        let processors = file(&[bounded, DEAR]);
        let report = |flags: &str| Rehearsal::new(&args(flags), &processors).unwrap().report();
        let seven = report("--tables 3 --seed 7");
        assert_eq!(seven, report("--tables 3 --seed 7"));
        assert_ne!(seven, report("--tables 3 --seed 8"));
        assert!(seven.iter().flat_map(|it| it.lines()).all(|it| it.len() <= 80), "{seven:?}");
        let args = args("--tables 1 --sweep");
        let mut grid = Rehearsal::new(&args, &processors).unwrap().sweep();
        let grid = grid.split_off(3);
        assert_eq!(grid.len(), SWEEP_PATIENCE_MS.len() * SWEEP_LATENCY_MS.len());
        // The amounts are the same whatever the policy, and so is the least that they cost, but for those
        // of a post or two at the very end.
        let least = |line: &String| -> f64 {
            line.split_whitespace().nth(4).and_then(|it| it.parse().ok()).unwrap()
        };
        assert!(grid.iter().all(|it| (least(it) - least(&grid[0])).abs() < 0.005), "{grid:?}");
    }

    #[test]
    fn times_have_the_places_that_are_known() {
        for (us, shown) in
            [(0, "0.0 ms"), (2_440, "2.4 ms"), (327_680, "328 ms"), (14_680_060, "14.7 s")]
        {
            assert_eq!(in_time(Duration::from_micros(us)), shown);
        }
    }

    #[test]
    fn amounts_reach_beyond_all_bounds() {
        let range = |all: &[(&str, &str, &str)]| amounts_around(&file(all));
        assert_eq!(range(&[CHEAP]), Amounts::Spread(Cents(100), Cents(100_000)));
        let bounded = "fee = { percent = 2 }\nlimits = { smallest = 0.50, largest = 10000 }";
        let bounded = range(&[CHEAP, ("b", "contest", bounded)]);
        assert_eq!(bounded, Amounts::Spread(Cents(25), Cents(2_000_000)));
        // 1 % and 20.00 are the same for 2,000.00; 1 % and nothing with 0.01 for 1.00.
        let fixed = range(&[CHEAP, ("f", "contest", "fee = { fixed = 2000 }")]);
        assert_eq!(fixed, Amounts::Spread(Cents(100), Cents(400_000)));
        let fixed = range(&[CHEAP, ("f", "contest", "fee = { fixed = 1 }")]);
        assert_eq!(fixed, Amounts::Spread(Cents(50), Cents(100_000)));
    }

    #[test]
    fn what_cannot_be_played_so_is_refused() {
        for (flags, word) in [
            ("--seeds 3", "--seeds"),
            ("--processor-concurrency 3", "--processor-concurrency"),
            ("--amounts 3", "two amounts"),
            ("--amounts 3-2", "two amounts"),
            ("--amounts 0-2", "two amounts"),
            ("--rate 0", "--rate"),
        ] {
            assert!(try_args(flags).is_err_and(|it| it.contains(word)), "{flags}");
        }
        let refused = |all: &[(&str, &str, &str)], flags: &str| {
            let (args, processors) = (args(flags), file(all));
            Rehearsal::new(&args, &processors).err().unwrap_or_default()
        };
        let short = "fee = { percent = 1 }\ntimeouts = { answer = '1420ms' }";
        let short = [("short", "contest", short)];
        assert_eq!(refused(&short, ""), "");
        for flags in ["--attempt-latency-max 1420ms", "--sweep"] {
            assert!(refused(&short, flags).starts_with("processor short: its time-out"), "{flags}");
        }
        let silent = [("silent", "described", SILENT)];
        assert!(refused(&silent, "").contains("play it --alone"));
        assert_eq!(refused(&silent, "--alone"), "");
    }
}
