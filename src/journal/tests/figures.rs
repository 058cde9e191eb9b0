//! Figures for a person to read:
//! `cargo test --release figures -- --ignored --nocapture --test-threads 1`

use super::real::{block_on, settled, temporary};
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
                journal.append(&settled(id, Timestamp(2)));
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
                let id = PaymentId((number - 100) << 70 | 1 << 60 | (number - 100));
                journal.append(&settled(id, Timestamp(2)));
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

/// Entries of a ledger with five accounts, with one flush each `batch` of them.
#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_entries() {
    const ENTRIES: u64 = 2_000_000;
    let description = Description::new("transacao!").unwrap();
    let transaction = Transaction { kind: Kind::Credit, value: Cents(10), description };
    for batch in [1, 16, 64] {
        let path = temporary("figures-entries");
        let options = Options::of_ledger(Durability::Process, 5);
        let (journal, _) = Journal::open(&path.0, options).unwrap();
        let started = Instant::now();
        for number in 0..ENTRIES {
            let (account, sequence) = (AccountId(1 + number % 5), 1 + number / 5);
            let (balance, at) = (Cents(10 * sequence as i64), Micros(sequence as i64));
            let key = Key(number.into());
            journal.append_entry(&Entry { account, sequence, transaction, balance, at, key });
            if number.is_multiple_of(batch) {
                journal.flush();
            }
        }
        let per_entry = started.elapsed().as_nanos() / u128::from(ENTRIES);
        println!("batch {batch}: {per_entry} ns an entry with its share of the flush");
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
        let (processor, amount) = (Processor::CONTEST[usize::from(number % 20 == 0)], Cents(1990));
        let at = Timestamp(1_750_000_000_000 + number as i64 - random.below(10_000) as i64);
        writer.append_accepted(id(number), amount, at).unwrap();
        let payment = Payment {
            id: id(number),
            amount,
            accepted: Moment(0),
            accepted_at: at,
            guest: false,
            verify: false,
        };
        writer.append_attempted(&Attempt { payment, processor, requested_at: at });
        let settlement = Settlement { processor, amount, requested_at: at };
        writer.append(&Event::Settled { id: id(number), settlement, attempts: Attempts(0) });
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
        let replay = replay(&Directory::read_only(&path.0).unwrap(), 1_000_000).unwrap();
        let took = started.elapsed();
        let totals = replay.shelf.read_totals(Window::default()).unwrap();
        assert_eq!(totals[0].count + totals[1].count, PAYMENTS);
        assert_eq!(replay.ids.len(), 1_000_000);
        println!(
            "start: {took:?} for {books} books, {segments} segments, {id_files} ids; {:.2} B a \
             settlement in memory",
            replay.shelf.memory_bytes() as f64 / PAYMENTS as f64
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}

/// A number of kilobytes from /proc/self/status.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 100,000 accounts with ten entries each, descriptions of ten letters: read at a start from
/// segments, then from the file of accounts that the keeper makes of them.
#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_a_ledgers_start() {
    const ACCOUNTS: u64 = 100_000;
    let path = temporary("figures-ledger");
    let options =
        Options { full_segments_kept: 0, ..Options::of_ledger(Durability::Process, 100_000) };
    let storage: Arc<dyn Storage> = Arc::new(Directory::lock(&path.0).unwrap());
    let (writer, _) = recover::open(storage.clone(), options).unwrap();
    let description = Description::new("transacao!").unwrap();
    let transaction = Transaction { kind: Kind::Credit, value: Cents(10), description };
    for sequence in 1..=10 {
        for account in (1..=ACCOUNTS).map(AccountId) {
            let number = (sequence * ACCOUNTS + account.0).into();
            let (balance, at) = (Cents(10 * sequence as i64), Micros(sequence as i64));
            let entry = Entry { account, sequence, transaction, balance, at, key: Key(number) };
            writer.append_entry(&entry);
            if account.0.is_multiple_of(1024) {
                writer.flush();
            }
        }
    }
    writer.flush();
    drop((writer, storage));
    for rewritten in [false, true] {
        if rewritten {
            let storage: Arc<dyn Storage> = Arc::new(Directory::lock(&path.0).unwrap());
            let (writer, recovered) = recover::open(storage, options).unwrap();
            drop(recovered);
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let (before, started) = (kilobytes("VmRSS"), Instant::now());
            let mut steps = 0;
            while writer.keep() {
                steps += 1;
            }
            let took = started.elapsed();
            let more = kilobytes("VmHWM") - before;
            println!("keeper: {took:?} in {steps} steps, {more} kB more at its height");
        }
        let directory = Directory::read_only(&path.0).unwrap();
        let mut sizes: Vec<String> = Vec::new();
        for name in directory.names().unwrap() {
            let bytes = std::fs::metadata(path.0.join(&name)).unwrap().len();
            sizes.push(format!("{name} {} kB", bytes / 1024));
        }
        sizes.sort();
        // In a process of its own, whose memory nothing else has been in.
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["one_start_of_a_ledger", "--ignored", "--nocapture"])
            .env("LEDGER", &path.0)
            .output()
            .unwrap();
        assert!(child.status.success());
        let printed = String::from_utf8(child.stdout).unwrap();
        let start = printed.find("start: ").unwrap();
        println!("{}, {sizes:?}", printed[start..].lines().next().unwrap());
    }
}

/// Part of the figures above, in the directory `LEDGER`.
#[test]
#[ignore = "a part of the figures"]
fn one_start_of_a_ledger() {
    let Ok(path) = std::env::var("LEDGER") else { return };
    let directory = Directory::read_only(path.as_ref()).unwrap();
    let (before, started) = (kilobytes("VmRSS"), Instant::now());
    let replay = replay(&directory, 0).unwrap();
    let took = started.elapsed();
    let (highest, now) = (kilobytes("VmHWM") - before, kilobytes("VmRSS") - before);
    let accounts = replay.accounts.len();
    assert!(replay.accounts.values().all(|it| it.balance == Cents(100)));
    println!("start: {took:?} for {accounts} accounts, {now} kB, at its height {highest} kB");
}

/// What two journals of an idle instance hold in memory and on the disk.
#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_idle_journals() {
    let path = temporary("figures-idle");
    let mut open = Vec::new();
    for (name, options) in [
        ("payments", Options::new(Durability::Process, 100_000, 100_000)),
        ("ledger", Options::of_ledger(Durability::Process, 5)),
    ] {
        let before = kilobytes("VmRSS");
        let path = path.0.join(name);
        open.push(Journal::open(&path, options).unwrap());
        while path.join("0000000002.journal").metadata().is_err() {
            std::thread::yield_now();
        }
        let files = std::fs::read_dir(&path).unwrap();
        let bytes: u64 = files.map(|it| it.unwrap().metadata().unwrap().len()).sum();
        let memory = kilobytes("VmRSS") - before;
        println!("{name}: {memory} kB in memory, {} kB on the disk", bytes / 1024);
    }
}
