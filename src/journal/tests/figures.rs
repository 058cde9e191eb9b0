//! Figures for a person to read:
//! `cargo test --release journal::tests::figures -- --ignored --nocapture --test-threads 1`

use super::real::{block_on, settlement, temporary};
use super::*;
use crate::journal::Journal;
use crate::journal::segment::Segment;
use crate::journal::storage::{Directory, Storage};
use std::time::{Duration, Instant};

/// A payment's three records with one flush each `batch` payments.
#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_appending() {
    const PAYMENTS: u128 = 400_000;
    for batch in [1_u128, 16, 64] {
        let path = temporary("figures");
        let options = Options::new(Durability::Process, 10_000, 1);
        let (journal, _) = Journal::open(&path.0, options).unwrap();
        let mut times = Vec::with_capacity((PAYMENTS / batch) as usize);
        let started = Instant::now();
        for number in 0..PAYMENTS {
            let id = PaymentId(number << 70 | number);
            journal.append_accepted(id, Cents(10), Timestamp(1));
            if number >= 100 {
                let id = PaymentId((number - 100) << 70 | (number - 100));
                journal.append_settled(id, settlement(Timestamp(2)));
            }
            if number.is_multiple_of(batch) {
                let before = Instant::now();
                journal.flush();
                times.push(before.elapsed());
            }
        }
        let per_record = started.elapsed().as_nanos() / PAYMENTS / 2;
        times.sort_unstable();
        let at = |share: f64| times[(times.len() as f64 * share) as usize - 1];
        println!(
            "batch {batch}: {per_record} ns a record with its share of the flush; flush p50 {:?}, \
             p99 {:?}, p99.99 {:?}, max {:?}",
            at(0.5),
            at(0.99),
            at(0.9999),
            at(1.0)
        );
        let started = Instant::now();
        for number in 0..1_000_000_u128 {
            journal.append_accepted(
                PaymentId(number << 70 | 1 << 60 | number),
                Cents(10),
                Timestamp(1),
            );
            if number >= 100 {
                journal.append_settled(
                    PaymentId((number - 100) << 70 | 1 << 60 | (number - 100)),
                    settlement(Timestamp(2)),
                );
            }
            if number.is_multiple_of(4096) {
                journal.flush();
            }
        }
        println!(
            "  append alone, nearly: {} ns a record",
            started.elapsed().as_nanos() / 2_000_000
        );
        let started = Instant::now();
        for _ in 0..1_000_000 {
            journal.flush();
        }
        println!("  flush of nothing: {} ns", started.elapsed().as_nanos() / 1_000_000);
    }
}

#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_group_commit() {
    for threads in [1_u128, 8, 32, 128] {
        let path = temporary("figures");
        let (journal, _) =
            Journal::open(&path.0, Options::new(Durability::Disk, 10_000, 1)).unwrap();
        let started = Instant::now();
        let mut times: Vec<Duration> = std::thread::scope(|scope| {
            let run = |thread: u128| {
                let journal = &journal;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    let mut number = 0;
                    while started.elapsed() < Duration::from_secs(2) {
                        let before = Instant::now();
                        let id = PaymentId(thread << 64 | number);
                        let position =
                            journal.append_accepted(id, Cents(10), Timestamp(1)).unwrap();
                        block_on(journal.wait(position));
                        times.push(before.elapsed());
                        number += 1;
                    }
                    times
                })
            };
            let handles: Vec<_> = (0..threads).map(run).collect();
            handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
        });
        let seconds = started.elapsed().as_secs_f64();
        times.sort_unstable();
        let at = |share: f64| times[(times.len() as f64 * share) as usize - 1];
        println!(
            "{threads} waiting at once: {:.0} durable payments/s, p50 {:?}, p99 {:?}",
            times.len() as f64 / seconds,
            at(0.5),
            at(0.99)
        );
    }
}

/// Ten million settled payments at 1,000 a second, up to ten seconds late, written straight into
/// segments (five in a hundred at the fallback), rewritten by the keeper, and read at a start with
/// three segments that are not rewritten yet.
#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_a_start() {
    const PAYMENTS: u64 = 10_000_000;
    let path = temporary("figures");
    let options =
        Options { ids_remembered: 1_000_000, ..Options::new(Durability::Process, 10_000, 1) };
    let storage: Arc<dyn Storage> = Arc::new(Directory::lock(&path.0).unwrap());
    let (writer, _) = recover::open(storage.clone(), options).unwrap();
    let mut random = Random(1);
    let mut keeping = Duration::ZERO;
    let (mut kept, mut segment) = (0, 1);
    let ids: Vec<u128> =
        (0..100).map(|_| u128::from(random.next()) << 64 | u128::from(random.next())).collect();
    let id = |number: u64| PaymentId(ids[number as usize % 100] ^ u128::from(number) << 40);
    for number in 0..PAYMENTS {
        let (processor, amount) = (Processor::ALL[usize::from(number % 20 == 0)], Cents(1990));
        let at = Timestamp(1_750_000_000_000 + number as i64 - random.below(10_000) as i64);
        writer.append_accepted(id(number), amount, at).unwrap();
        let payment =
            Payment { id: id(number), amount, accepted: Moment(0), accepted_at: at, guest: false };
        writer.append_attempted(&Attempt { payment, processor, requested_at: at });
        let id = id(number);
        writer.append(Record::Settled { id, processor, amount, requested_at: at });
        if number.is_multiple_of(1024) {
            writer.flush();
            if writer.appended().segment() > segment && number < PAYMENTS - 2_000_000 {
                segment = writer.appended().segment();
                let started = Instant::now();
                while writer.keep() {
                    kept += 1;
                }
                keeping += started.elapsed();
            }
        }
    }
    writer.flush();
    drop((writer, storage));
    println!(
        "keeper: {keeping:?} in {kept} steps, segments of {} payments",
        Segment::room(options.segment_bytes) / 112
    );
    for round in 0..3 {
        if round == 1 {
            let (writer, _) =
                recover::open(Arc::new(Directory::lock(&path.0).unwrap()), options).unwrap();
            while writer.keep() {}
        }
        let names = Directory::read_only(&path.0).unwrap().names().unwrap();
        let count = |extension: &str| names.iter().filter(|name| name.ends_with(extension)).count();
        let (books, segments, id_files) = (count(".books"), count(".journal"), count(".ids"));
        let started = Instant::now();
        let replay = Replay::new(&Directory::read_only(&path.0).unwrap(), 1_000_000).unwrap();
        let took = started.elapsed();
        let totals = replay.summary.totals(Window::default());
        assert_eq!(totals[0].count + totals[1].count, PAYMENTS);
        assert_eq!(replay.ids.len(), 1_000_000);
        println!(
            "start: {took:?} for {books} books, {segments} segments, {id_files} ids; {:.2} B a \
             settlement in memory",
            replay.summary.memory_bytes() as f64 / PAYMENTS as f64
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
