//! Processes killed and power lost, anywhere.

use super::*;
use crate::base::clock::MS_PER_DAY;
use crate::journal::simulated::Fault;
use crate::journal::volume::Span;
use crate::payments::Each;

/// One journal, its model, and everything it may come back as.
struct Day {
    seed: u64,
    random: Random,
    storage: Simulated,
    /// It is kept in a replicated log (`src/log/`), and whoever dies, another goes on.
    is_replicated: bool,
    options: Options,
    traffic: Traffic,
    /// So many processors there are by now, in half of the days more than two; nobody else claims it.
    processors: Option<usize>,
    /// Days go by in a moment, and the clock goes wrong now and then.
    hurries: bool,
    clock: i64,
    model: Model,
    /// The model after each append since the journal was opened, and where that append ended.
    history: Vec<(Position, Model)>,
    crashes: usize,
    books: usize,
    accounts: usize,
    notes: usize,
    torn: usize,
    archives: usize,
    asked: usize,
    refused: usize,
}

impl Day {
    fn new(seed: u64) -> Day {
        let mut random = Random(seed);
        let traffic = Traffic::ALL[seed as usize % Traffic::ALL.len()];
        // A resolution is as long as ten other records.
        let least = if matches!(traffic, Traffic::ByHand) { 120 } else { 20 };
        let segment_bytes = 48 + 8 * (least + random.below(80));
        Day {
            seed,
            random,
            storage: Simulated::default(),
            is_replicated: false,
            options: Options {
                retention: Retention {
                    of: [Retained::Events, Retained::Entries][seed as usize / 3 % 2],
                    bytes: Some((seed % 3) * 5 * segment_bytes as u64),
                },
                ..options(segment_bytes)
            },
            traffic,
            processors: None,
            hurries: seed % 2 == 1,
            clock: if seed % 2 == 1 { 4_000 * MS_PER_DAY } else { 0 },
            model: Model::default(),
            history: Vec::new(),
            crashes: 0,
            books: 0,
            accounts: 0,
            notes: 0,
            torn: 0,
            archives: 0,
            asked: 0,
            refused: 0,
        }
    }

    fn run(mut self, crashes: usize) -> Day {
        if self.seed % 4 >= 2 {
            self.processors = Some(1 + self.random.below(Processor::MAX));
        }
        let writer = self.recover([Position::NONE; 2], false);
        let mut writer = Arc::new(writer);
        while self.crashes < crashes {
            let work = 1 + self.random.below(120) as u64;
            self.storage.fault_in(work, Fault::Crash);
            let by_power = self.random.below(2) == 0 || self.is_replicated;
            if stopped(|| self.work(&writer)).is_ok() {
                continue;
            }
            self.crashes += 1;
            let promised = [writer.written(), writer.synced()];
            self.crash(by_power);
            writer = Arc::new(self.recover(promised, by_power));
        }
        self
    }

    /// Until the crash, or for a while.
    fn work(&mut self, writer: &Writer) {
        for _ in 0..400 {
            if self.hurries {
                self.step_clock();
            }
            match self.random.below(16) {
                0 | 1 => drop(writer.flush()),
                2 => drop(writer.sync()),
                3 => {
                    writer.keep();
                }
                _ => {
                    let (random, clock) = (&mut self.random, &mut self.clock);
                    let Some(step) = self.model.any_step(self.traffic, random, clock) else {
                        continue;
                    };
                    let Some(position) = self.model.append(step, writer) else { continue };
                    self.model.apply(step);
                    self.history.push((position, self.model.clone()));
                }
            }
        }
    }

    fn step_clock(&mut self) {
        let hour = MS_PER_DAY / 24;
        self.clock += match self.random.below(60) {
            0 => 400 * MS_PER_DAY,
            1 if self.clock > 1_000 * MS_PER_DAY => -400 * MS_PER_DAY,
            2..20 => self.random.below(40) as i64 * hour,
            _ => 0,
        };
    }

    /// Any window is exact, or refused as it cuts what has left.
    fn ask(&mut self, writer: &Writer, model: &Model) {
        for _ in 0..4 {
            let mut bound = || {
                let (at, _) =
                    model.lines.values().nth(self.random.below(model.lines.len().max(1)))?;
                let day = at.requested_at.0.div_euclid(MS_PER_DAY) * MS_PER_DAY;
                Some([at.requested_at.0, day, day - 1][self.random.below(3)])
            };
            let [from, to] = [0, 1].map(|_| bound().map(Timestamp));
            let window = Window { from: from.min(to), to: from.max(to) };
            let mut expected = Each::<(u64, i128)>::default();
            for (settlement, _) in model.lines.values() {
                if window.contains(settlement.requested_at) {
                    let sum: &mut (u64, i128) = &mut expected[settlement.processor.index()];
                    *sum = (sum.0 + 1, sum.1 + i128::from(settlement.amount.0));
                }
            }
            let is_midnight = |it: i64| it.rem_euclid(MS_PER_DAY) == 0;
            match writer.totals(window) {
                Ok(totals) => {
                    let totals = totals.map(|it| (it.count, it.amount.0));
                    assert_eq!(totals, expected, "seed {}: {window:?}", self.seed);
                    self.asked += 1;
                }
                Err(JournalError::Archived { .. }) => {
                    let cuts = window.from.is_some_and(|it| !is_midnight(it.0))
                        || window.to.is_some_and(|it| !is_midnight(it.0 + 1));
                    assert!(cuts, "seed {}: {window:?}", self.seed);
                    self.refused += 1;
                }
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        }
    }

    fn crash(&mut self, by_power: bool) {
        match by_power {
            _ if self.is_replicated => self.storage.take_over(),
            true => self.storage.lose_power(&mut self.random),
            false => self.storage.kill(),
        }
    }

    /// Opens the journal, with crashes in between, and checks what it holds.
    fn recover(&mut self, promised: [Position; 2], mut by_power: bool) -> Writer {
        // Another time is to be kept, or all.
        let day = if self.hurries { MS_PER_DAY } else { 1 };
        self.options.keep_ms =
            [None, Some(3 * day), Some(8 * day), Some(48 * day)][self.random.below(4)];
        let (writer, recovered) = loop {
            if self.random.below(2) == 0 {
                self.storage.fault_in(1 + self.random.below(12) as u64, Fault::Crash);
            }
            // A name is there from the start on that has added it, whatever becomes of that.
            if let Some(count) = &mut self.processors
                && *count < Processor::MAX
                && self.random.below(6) == 0
            {
                *count += 1;
            }
            let opened = match self.processors {
                Some(count) => open_by(&self.storage, self.options, count),
                None => open(&self.storage, self.options),
            };
            match opened {
                Ok(opened) => break opened,
                Err(JournalError::Io { .. }) => {
                    let power_too = self.random.below(2) == 0;
                    self.crash(power_too);
                    by_power |= power_too;
                }
                Err(error) => {
                    let names = crate::journal::storage::Storage::names(&self.storage).unwrap();
                    panic!("seed {}: {error}: {names:?}", self.seed)
                }
            }
        };
        let promised = promised[usize::from(by_power)];
        let found = Model::of_recovered(&writer, &recovered);
        let sure = self.history.partition_point(|(position, _)| *position <= promised);
        let first = Model::default();
        let start = sure.checked_sub(1).map_or(&first, |last| &self.history[last].1);
        let rest = self.history[sure..].iter().map(|(_, model)| model);
        let matches = std::iter::once(start).chain(rest).any(|model| *model == found);
        assert!(
            matches,
            "seed {}, crash {}: promised until {promised:?}, found {found:#?}, model {:#?}",
            self.seed, self.crashes, self.model
        );
        self.torn += usize::from(recovered.torn.is_some());
        self.books += files(&self.storage, ".books");
        self.accounts += files(&self.storage, ".accounts");
        self.notes += files(&self.storage, ".notes");
        self.archives += files(&self.storage, ".archive");
        self.ask(&writer, &found);
        let found = Model { others: self.processors.map_or(0, |it| it as isize - 2), ..found };
        self.model = found.clone();
        self.history = vec![(writer.appended(), found)];
        writer
    }
}

fn files(storage: &Simulated, extension: &str) -> usize {
    use crate::journal::storage::Storage;
    storage.names().unwrap().iter().filter(|name| name.ends_with(extension)).count()
}

/// Of which segments the books are.
fn spans(storage: &Simulated) -> Vec<Span> {
    let replay = replay(storage, 0).unwrap();
    replay.shelf.volumes().values().map(|volume| volume.span()).collect()
}

/// Power lost and processes killed at any operation, in the middle of repairs too; whatever was
/// promised is there, whatever was not is there or not, and never is there something in between.
#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_promised() {
    let mut seen = [0; 8];
    for seed in 0..600 {
        let day = Day::new(seed).run(12);
        let Day { crashes, books, accounts, notes, torn, archives, .. } = day;
        let of_it = [crashes, books, accounts, notes, torn, archives, day.asked, day.refused];
        for (sum, seen) in seen.iter_mut().zip(of_it) {
            *sum += seen;
        }
    }
    let [crashes, books, accounts, notes, torn, archives, asked, refused] = seen;
    let enough = crashes >= 7_200 && books > 1_000 && accounts > 1_000 && torn > 150;
    let enough = enough && archives > 200 && asked > 5_000 && refused > 30;
    assert!(enough && notes > 1_000, "not much of a test: {seen:?}");
}

/// The same where each crash ends a process of many: what it had not synced is gone, and nothing is
/// ever torn.
#[test]
fn whoever_takes_over_a_log_finds_all_that_was_promised() {
    let mut seen = [0; 4];
    for seed in 0..300 {
        let Day { crashes, books, accounts, torn, archives, .. } =
            Day { is_replicated: true, ..Day::new(seed) }.run(12);
        assert_eq!(torn, 0, "seed {seed}");
        for (sum, seen) in [crashes, books, accounts, archives].iter().zip(&mut seen) {
            *seen += sum;
        }
    }
    let [crashes, books, accounts, archives] = seen;
    let enough = crashes >= 3_600 && books > 500 && accounts > 500 && archives > 50;
    assert!(enough, "not much of a test: {seen:?}");
}

/// `SEEDS=1000..50000 cargo test --release many_more_crashes -- --ignored`; one seed: `SEEDS=7..8`.
#[test]
#[ignore = "runs for minutes or hours, as many seeds as one asks for"]
fn many_more_crashes() {
    let seeds = std::env::var("SEEDS").unwrap_or("1000..20000".into());
    let (first, end) = seeds.split_once("..").expect("FIRST..END");
    for seed in first.parse().unwrap()..end.parse().unwrap() {
        Day::new(seed).run(12);
    }
}

/// One busy day, and a crash at each of its operations in turn: every write, sync, rename and
/// removal there is, by a kill, by a loss of power, and of a process whose log another takes over.
#[test]
fn a_crash_at_each_single_operation() {
    let keeping = [Traffic::Payments, Traffic::Both, Traffic::ByHand].map(|it| (it, Some(40)));
    for (traffic, keep_ms) in Traffic::ALL.map(|it| (it, None)).into_iter().chain(keeping) {
        let storage = Simulated::default();
        busy_day(traffic, keep_ms, &storage).0.unwrap();
        let operations = storage.operations();
        let [books, accounts, notes] =
            [".books", ".accounts", ".notes"].map(|it| files(&storage, it));
        // Of how many segments, and how many of those in one that was merged.
        let spans = spans(&storage);
        let merged = spans.iter().map(|span| span.last - span.first).max().unwrap_or(0);
        let rewritten = spans.last().map_or(0, |span| span.last);
        let archives = files(&storage, ".archive");
        let expected = rewritten > 3
            && match traffic {
                _ if keep_ms.is_some() => archives > 1,
                Traffic::Payments => merged > 1 && accounts == 0,
                Traffic::Entries => books == 1 && accounts == 1,
                Traffic::Both => merged > 1 && accounts == 1,
                Traffic::Notes => merged > 1 && notes > 1,
                Traffic::ByHand => merged > 1 && notes > 0,
            };
        assert!(
            expected && operations > 150,
            "{traffic:?}: {operations} operations, {books} {accounts} {notes} {archives}"
        );
        for operation in 1..=operations {
            let storage = Simulated::default();
            storage.fault_in(operation, Fault::Crash);
            let (result, history, promised) = busy_day(traffic, keep_ms, &storage);
            result.unwrap_err();
            let [written, synced] = promised;
            for (crash, promised) in [(0, written), (1, synced), (2, synced)] {
                let storage = storage.copy();
                match crash {
                    0 => storage.kill(),
                    1 => storage.lose_power(&mut Random(operation)),
                    _ => storage.take_over(),
                }
                let found = replayed(&storage).unwrap();
                let sure = history.partition_point(|(position, _)| *position <= promised);
                let possible = &history[sure - 1..];
                let context =
                    format!("{traffic:?}, kept {keep_ms:?}, operation {operation}, crash {crash}");
                assert!(possible.iter().any(|(_, model)| *model == found), "{context}: {found:#?}");
                let retention = Retention::of_events(3_000);
                let kept = Options { retention, keep_ms, ..options(400) };
                let (writer, recovered) = open(&storage, kept).unwrap();
                assert_eq!(Model::of_recovered(&writer, &recovered), found, "{context}");
                assert_eq!(replayed(&storage).unwrap(), found, "{context}, opened twice");
                assert!(files(&storage, ".accounts") <= 1, "{context}: none is superfluous");
            }
        }
    }
}

/// What came of it, the model after each append, and what had been written and synced.
type BusyDay = (Result<(), String>, Vec<(Position, Model)>, [Position; 2]);

fn busy_day(traffic: Traffic, keep_ms: Option<i64>, storage: &Simulated) -> BusyDay {
    let mut history = vec![(Position::NONE, Model::default())];
    // Entries are longer.
    let segment_bytes = if matches!(traffic, Traffic::Payments) { 368 } else { 1024 };
    let kept =
        Options { retention: Retention::of_events(3_000), keep_ms, ..options(segment_bytes) };
    let writer = match open(storage, kept) {
        Ok((writer, _)) => writer,
        Err(error) => return (Err(error.to_string()), history, [Position::NONE; 2]),
    };
    let (mut random, mut clock, mut model) = (Random(7), 0, Model::default());
    let result = stopped(|| {
        for round in 0..250 {
            if let Some(step) = model.any_step(traffic, &mut random, &mut clock)
                && let Some(position) = model.append(step, &writer)
            {
                model.apply(step);
                history.push((position, model.clone()));
            }
            match round % 10 {
                3 | 6 => drop(writer.flush()),
                8 => drop(writer.sync()),
                9 => while writer.keep() {},
                _ => {}
            }
        }
    });
    (result, history, [writer.written(), writer.synced()])
}

/// Any failure of the disk stops the journal: it neither goes on nor promises more. What was
/// promised before is there afterwards.
#[test]
fn an_error_at_any_operation_stops_it() {
    for code in [crate::journal::simulated::EIO, crate::journal::simulated::ENOSPC] {
        for (operation, traffic) in (1..200).flat_map(|it| Traffic::ALL.map(|kind| (it, kind))) {
            let storage = Simulated::default();
            storage.fault_in(operation, Fault::Error(code));
            let keep_ms = (operation % 2 == 0).then_some(24);
            let kept = Options { retention: Retention::of_events(1_000), keep_ms, ..options(400) };
            let Ok((writer, _)) = open(&storage, kept) else { continue };
            let (mut random, mut clock, mut model) = (Random(3), 0, Model::default());
            let mut history = vec![(Position::NONE, Model::default())];
            let result = stopped(|| {
                for round in 0..200 {
                    if let Some(step) = model.any_step(traffic, &mut random, &mut clock)
                        && let Some(position) = model.append(step, &writer)
                    {
                        model.apply(step);
                        history.push((position, model.clone()));
                    }
                    match round % 7 {
                        2 | 4 => drop(writer.flush()),
                        5 => drop(writer.sync()),
                        6 => drop(writer.keep()),
                        _ => {}
                    }
                }
            });
            // Making a file may fail for want of space, and is tried again.
            let survivable = code == crate::journal::simulated::ENOSPC;
            let came = storage.operations() >= operation;
            assert!(result.is_err() || survivable || !came, "operation {operation}, error {code}");
            if result.is_err() {
                let again = stopped(|| {
                    writer.append(&Event::Released { id: PaymentId(1) });
                    writer.flush();
                    writer.sync();
                });
                assert!(again.is_err() || writer.synced() == writer.appended());
            }
            let promised = writer.written();
            storage.kill();
            let found = replayed(&storage).unwrap();
            let sure = history.partition_point(|(position, _)| *position <= promised);
            let possible = &history[sure.saturating_sub(1)..];
            assert!(possible.iter().any(|(_, model)| *model == found), "operation {operation}");
        }
    }
}
