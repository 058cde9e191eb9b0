//! The stage tables that are played: what each processor does when, and what hindsight makes of it.
//!
//! Two come from the contest (its rules), any number are drawn at random. Everything a
//! table leads to depends on the table and a seed alone.

use crate::base::money::Cents;
use crate::payments::{Each, Processor, Totals, each};

/// From `at_ms` on, until the next stage: the settings of each processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage {
    pub at_ms: u64,
    pub delay_ms: Each<u64>,
    pub failing: Each<bool>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Table {
    pub duration_ms: u64,
    /// So long after the last post the processors' totals are read.
    pub read_after_ms: u64,
    /// Virtual users grow linearly from 1 to this; each posts one payment a second.
    pub users_max: u64,
    pub amounts: Amounts,
    /// An audit asks about what was requested until so long ago.
    pub slack_ms: u64,
    /// Whether the differences at both processors cancel out in an audit (the preview's slip).
    pub audit_adds_signed: bool,
    pub stages: Vec<Stage>,
}

/// What payments come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amounts {
    One(Cents),
    /// From the first to the second. Each doubling is as likely as any other, so that bounds count
    /// whether they are of cents or of thousands.
    Spread(Cents, Cents),
}

impl Amounts {
    /// Draws nothing where there is only one.
    pub fn draw(self, random: &mut Random) -> Cents {
        match self {
            Amounts::One(amount) => amount,
            Amounts::Spread(Cents(least), Cents(most)) => {
                let doublings = u64::from((most / least).ilog2()) + 1;
                let from = least.unsigned_abs() << random.between(0, doublings);
                Cents(random.between(from, (2 * from).min(most.unsigned_abs() + 1)) as i64)
            }
        }
    }
}

/// What the processors take, in percent, the cheaper one first.
pub type Fees = [i64; 2];

pub const FEES_PREVIEW: Fees = [5, 15];
pub const FEES_FINAL: Fees = [7, 10];

fn stage(at_s: u64, default: (u64, bool), fallback: (u64, bool)) -> Stage {
    Stage {
        at_ms: at_s * 1_000,
        delay_ms: each([default.0, fallback.0]),
        failing: each([default.1, fallback.1]),
    }
}

/// The preview: 60 s.
pub fn preview() -> Table {
    Table {
        duration_ms: 60_000,
        // k6 still sleeps so long.
        read_after_ms: 1_000,
        users_max: 550,
        amounts: Amounts::One(Cents(1_990)),
        slack_ms: 1_500,
        audit_adds_signed: true,
        stages: vec![
            stage(1, (0, false), (0, false)),
            stage(10, (100, false), (0, false)),
            stage(20, (100, true), (0, false)),
            stage(30, (2_000, true), (1_000, true)),
            stage(40, (20, false), (20, false)),
            stage(50, (0, false), (5_000, false)),
        ],
    }
}

/// The final: 300 s. Its name keeps clear of the keyword.
pub fn final_table() -> Table {
    Table {
        duration_ms: 300_000,
        read_after_ms: 1_000,
        users_max: 603,
        amounts: Amounts::One(Cents(2_005)),
        slack_ms: 2_000,
        audit_adds_signed: false,
        stages: vec![
            stage(1, (0, false), (0, false)),
            stage(30, (1_000, false), (0, false)),
            stage(60, (500, false), (0, false)),
            stage(90, (2_000, true), (1_000, false)),
            stage(120, (5_000, true), (5, false)),
            stage(150, (0, false), (5, true)),
            stage(180, (100, false), (5, false)),
            stage(210, (50, false), (0, false)),
            stage(240, (103, false), (10, false)),
            stage(270, (2_000, false), (0, false)),
        ],
    }
}

/// A table of 60 s at the preview's load, the cheaper processor in more trouble than the dearer, both
/// at times.
pub fn random(seed: u64) -> Table {
    Table { audit_adds_signed: false, stages: random_stages(seed, &[30, 18]), ..preview() }
}

/// A minute like [`random`] over so many processors, each in as much trouble as any other. Then all are
/// well, and whatever was accepted has another minute.
pub fn random_over(processors: usize, seed: u64) -> Table {
    let mut stages = random_stages(seed, &vec![FAILING_PERCENT; processors]);
    stages.push(Stage { at_ms: 60_000, ..Stage::default() });
    Table { read_after_ms: 60_000, audit_adds_signed: false, stages, ..preview() }
}

/// How often a processor of a file fails.
pub const FAILING_PERCENT: u64 = 20;

/// A minute: all well at first, then a new stage every 4 to 12 s, delays of 0 to 6 s. Each processor
/// fails in so many percent of the stages.
fn random_stages(seed: u64, failing_percent: &[u64]) -> Vec<Stage> {
    let mut random = Random::new(seed);
    let mut stages = vec![Stage { at_ms: 1_000, ..Stage::default() }];
    let mut at_ms = random.between(6_000, 12_000);
    while at_ms < 58_000 {
        let mut stage = Stage { at_ms, ..Stage::default() };
        for (index, percent) in failing_percent.iter().enumerate() {
            (stage.delay_ms[index], stage.failing[index]) = trouble(&mut random, *percent);
        }
        stages.push(stage);
        at_ms += random.between(4_000, 12_000);
    }
    stages
}

/// Draws a delay in milliseconds and a failure switch that is on in so many percent.
fn trouble(random: &mut Random, failing_percent: u64) -> (u64, bool) {
    let delay_ms = match random.between(0, 100) {
        0..=44 => random.between(0, 25),
        45..=64 => random.between(25, 300),
        65..=79 => random.between(300, 1_300),
        _ => random.between(1_300, 6_000),
    };
    (delay_ms, random.between(0, 100) < failing_percent)
}

/// What the best plan made in hindsight books at each processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hindsight {
    /// A payment may wait for the cheapest processor for as long as it takes: no policy is better.
    pub waiting: Each<Totals>,
    /// Every payment is sent the moment it is accepted; if no processor would book it then, as soon
    /// as one would.
    pub at_once: Each<Totals>,
}

/// What is known of a table in hindsight: by processor, and for each millisecond, the first one from
/// then on at which an attempt would be booked.
pub struct Foresight(Vec<Vec<usize>>);

/// Where hindsight books a payment, see [`Hindsight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    pub waiting: Processor,
    pub at_once: Processor,
}

impl Foresight {
    /// For a payment accepted at this millisecond that may go to these, the cheapest first. `None`: no
    /// one would book it before the end.
    pub fn best(&self, order: &[Processor], accepted_ms: u64) -> Option<Best> {
        let books_at = |it: &Processor| self.0[it.index()][accepted_ms as usize];
        let mut able = order.iter().filter(|it| books_at(it) < usize::MAX);
        // Of those that book it first, the cheapest.
        let at_once = *able.clone().min_by_key(|it| books_at(it))?;
        Some(Best { waiting: *able.next()?, at_once })
    }
}

impl Table {
    /// When it is over, and the totals are read.
    pub fn end_ms(&self) -> u64 {
        self.duration_ms + self.read_after_ms
    }

    fn stage_at(&self, ms: u64) -> Option<&Stage> {
        self.stages.iter().rev().find(|stage| stage.at_ms <= ms)
    }

    /// An attempt begun then would be booked: before the totals are read, and soon enough that no
    /// audit asks meanwhile. Limits of concurrency are left out, so the bound is one from above.
    fn would_book(&self, index: usize, ms: u64) -> bool {
        let delay_ms = self.stage_at(ms).map_or(0, |stage| stage.delay_ms[index]);
        let booked_ms = ms + delay_ms;
        let failing = self.stage_at(booked_ms).is_some_and(|stage| stage.failing[index]);
        !failing && delay_ms < self.slack_ms && booked_ms < self.end_ms()
    }

    /// For so many processors.
    pub fn foresight(&self, processors: usize) -> Foresight {
        let end_ms = self.end_ms() as usize;
        let next_of = |index| {
            let mut next = vec![usize::MAX; end_ms + 1];
            for ms in (0..end_ms).rev() {
                let books = self.would_book(index, ms as u64);
                next[ms] = if books { ms } else { next[ms + 1] };
            }
            next
        };
        Foresight((0..processors).map(next_of).collect())
    }
}

/// What is left of these after the contest's fees, in hundredths of a cent.
pub fn profit(held: &Each<Totals>, fees: Fees) -> i128 {
    let left = |index: usize| held[index].amount.0 * i128::from(100 - fees[index]);
    left(0) + left(1)
}

/// A small generator (splitmix64): the same seed plays the same run on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly spread over `from..to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Total;

    #[test]
    fn hindsight_waits_for_the_cheaper_one_and_counts_what_cannot_be_booked() {
        let table = Table {
            duration_ms: 10_000,
            stages: vec![
                stage(0, (0, false), (0, false)),
                stage(2, (0, true), (0, false)),
                stage(4, (3_000, false), (0, true)),
                stage(6, (100, false), (0, true)),
                stage(8, (2_000, false), (700, false)),
            ],
            ..preview()
        };
        let foresight = table.foresight(2);
        let best = |accepted_ms| {
            let best = foresight.best(&Processor::CONTEST, accepted_ms)?;
            Some([best.waiting, best.at_once].map(Processor::number))
        };
        assert_eq!([0, 3_000, 5_000].map(best), [Some([0, 0]), Some([0, 1]), Some([0, 0])]);
        // Too slow for the rest of the run.
        assert_eq!([8_500, 10_299].map(best), [Some([1, 1]), Some([1, 1])]);
        assert_eq!(best(10_300), None, "it cannot be booked before the end");
    }

    #[test]
    fn fees_are_taken_of_what_each_holds() {
        let of = |count: u64| Totals { count, amount: Total(i128::from(count) * 1_990) };
        let held = each([1, 2].map(of));
        assert_eq!(profit(&held, FEES_PREVIEW), 1_990 * 95 + 2 * 1_990 * 85);
    }

    #[test]
    fn amounts_lie_between_the_bounds_and_reach_them() {
        for (least, most) in [(1, 1), (1, 4), (3, 5), (50, 1_000_000)] {
            let amounts = Amounts::Spread(Cents(least), Cents(most));
            let mut random = Random::new(7);
            let drawn: Vec<Cents> = (0..10_000).map(|_| amounts.draw(&mut random)).collect();
            assert!(drawn.iter().all(|it| (least..=most).contains(&it.0)), "{least} {most}");
            let is_small = |it: &&Cents| it.0 < 2 * least;
            let small = drawn.iter().filter(is_small).count();
            let doublings = (most / least).ilog2() as usize + 1;
            assert!(small.abs_diff(10_000 / doublings) < 200, "{least} {most}: {small}");
        }
    }

    #[test]
    fn random_tables_depend_on_their_seed_alone() {
        let delays =
            |seed| random(seed).stages.iter().map(|stage| stage.delay_ms).collect::<Vec<_>>();
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }
}
