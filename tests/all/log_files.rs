//! What becomes of the files of a log when answers are lost, servers go, and somebody else takes it.

use crate::support::postgres::{Log, Postgres, late};
use crate::support::proxy::{Mishap, Proxy};
use crate::support::wait_until;
use galo::journal::storage::{Storage, StoredFile};
use galo::log::{Fault, LogStorage};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than anything here takes.
const LEASE: Duration = Duration::from_secs(60);

fn contents(storage: &LogStorage, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    storage.read(name, usize::MAX, &mut bytes).unwrap();
    bytes
}

/// A file with these bytes, as safe as can be.
fn write(storage: &LogStorage, name: &str, bytes: &[u8]) -> Arc<dyn StoredFile> {
    let file = storage.create(name).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    storage.sync_directory().unwrap();
    file
}

/// What the next owner finds.
fn next(postgres: &Postgres) -> LogStorage {
    postgres.sql("UPDATE galo.own SET lease_until = NULL");
    Log::take(&postgres.url(), "next", LEASE).open()
}

fn fault(error: &io::Error) -> &Fault {
    error.get_ref().and_then(|it| it.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn what_was_synced_is_there_byte_for_byte() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let file = write(&storage, "a", b"0123456789");
    // Anywhere, over what is there, beyond the end, shorter and longer again.
    file.write_at(b"abc", 4).unwrap();
    file.write_at(b"z", 20).unwrap();
    file.truncate(6).unwrap();
    file.allocate(3).unwrap();
    file.allocate(9).unwrap();
    file.sync().unwrap();
    let expected = b"0123ab\0\0\0";
    assert_eq!(contents(&storage, "a"), expected);
    write(&storage, "b", b"");
    storage.rename("b", "c").unwrap();
    write(&storage, "d", b"gone").write_at(b"!", 4).unwrap();
    storage.remove("d").unwrap();
    storage.sync_directory().unwrap();
    // Not synced.
    file.write_at(b"lost", 0).unwrap();
    storage.create("e").unwrap();
    storage.remove("c").unwrap();
    let mut bytes = [0; 4];
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"lost");
    drop(storage);

    let storage = next(&postgres);
    assert_eq!(storage.names().unwrap(), ["a", "c"]);
    assert_eq!(contents(&storage, "a"), expected);
    assert_eq!(contents(&storage, "c"), b"");
    let file = storage.open("a").unwrap();
    assert_eq!(file.length().unwrap(), 9);
    assert_eq!(file.read_at(&mut [0; 10], 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(storage.open("b").err().unwrap().kind(), io::ErrorKind::NotFound);
}

#[test]
fn who_has_lost_the_log_writes_nothing_into_it() {
    let postgres = Postgres::with_tables();
    let first = Log::take(&postgres.url(), "first", LEASE).open();
    let file = write(&first, "a", b"first");
    let second = next(&postgres);
    file.write_at(b"FIRST", 0).unwrap();
    let error = file.sync().unwrap_err();
    let Fault::Owned { by, epoch: 2 } = fault(&error) else { panic!("{error:?}") };
    assert!(by.starts_with("next at "), "{by}");
    assert!(error.to_string().contains("somebody else owns the log"), "{error}");
    first.create("b").unwrap();
    assert!(matches!(fault(&first.sync_directory().unwrap_err()), Fault::Owned { .. }));
    // What would go ahead of a commit does not either.
    let long = first.create("c").unwrap();
    long.write_at(&vec![7; 5 << 20], 0).unwrap();
    assert!(matches!(fault(&long.sync().unwrap_err()), Fault::Owned { .. }));
    assert_eq!(contents(&second, "a"), b"first");
    assert_eq!(next(&postgres).names().unwrap(), ["a"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM galo.chunk WHERE number > 1"), "0");
}

/// A log behind a proxy that has a mishap with the next request with a word.
fn behind(postgres: &Postgres, word: &'static str) -> (Proxy, LogStorage) {
    let proxy = Proxy::start(postgres.address(), word);
    let storage = Log::take(&postgres.url_at(proxy.address), "one", LEASE).open();
    (proxy, storage)
}

#[test]
fn an_append_whose_answer_is_lost_is_neither_lost_nor_made_twice() {
    let postgres = Postgres::with_tables();
    let (proxy, storage) = behind(&postgres, "marked");
    let file = write(&storage, "a", b"0 ");
    for round in 1..6 {
        proxy.prepare(Mishap::LoseAnswer);
        file.write_at(b"marked ", 2 + 7 * (round - 1)).unwrap();
        file.sync().unwrap();
        assert!(proxy.has_struck());
    }
    let expected = "0 marked marked marked marked marked ";
    assert_eq!(contents(&next(&postgres), "a"), expected.as_bytes());
    assert_eq!(postgres.sql("SELECT count(*) FROM galo.chunk"), "6");
}

#[test]
fn a_commit_whose_answer_is_lost_is_neither_lost_nor_made_twice() {
    let postgres = Postgres::with_tables();
    for word in ["BEGIN", "COMMIT"] {
        let (proxy, storage) = behind(&postgres, word);
        write(&storage, "a", b"a");
        storage.rename("a", word).unwrap();
        proxy.prepare(Mishap::LoseAnswer);
        storage.sync_directory().unwrap();
        assert!(proxy.has_struck());
        let storage = next(&postgres);
        assert!(storage.names().unwrap().contains(&word.to_string()), "{word}");
        assert!(!storage.names().unwrap().contains(&"a".to_string()), "{word}");
        postgres.sql("UPDATE galo.own SET lease_until = NULL");
    }
}

#[test]
fn an_append_that_comes_late_does_nothing_any_more() {
    let postgres = Postgres::with_tables();
    let proxy = Proxy::start(postgres.address(), "marked");
    // A third of the lease is the time for one attempt.
    let lease = Duration::from_secs(3);
    let log = Log::take(&postgres.url_at(proxy.address), "one", lease);
    log.tenure.extend(late());
    let storage = log.open();
    let file = write(&storage, "a", b"0 ");
    proxy.prepare(Mishap::Hold);
    file.write_at(b"marked", 2).unwrap();
    file.sync().unwrap();
    assert!(proxy.has_struck());
    file.write_at(b"after", 2).unwrap();
    file.sync().unwrap();
    proxy.release();
    wait_until("the late one is over", || {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> \
                    pg_backend_pid() AND backend_type = 'client backend'";
        postgres.sql(busy) == "0"
    });
    assert_eq!(contents(&next(&postgres), "a"), b"0 afterd");
    assert_eq!(postgres.sql("SELECT count(*) FROM galo.chunk"), "3");
}

/// Appends numbers, one a sync, as long as it is wanted → how many.
fn append(file: &dyn StoredFile, is_over: &AtomicBool) -> u64 {
    let mut count: u64 = 0;
    while !is_over.load(Ordering::Relaxed) {
        file.write_at(&count.to_be_bytes(), 8 * count).unwrap();
        file.sync().unwrap();
        count += 1;
    }
    count
}

/// Lets something happen while numbers are appended, and looks whether all of them are there.
fn appended_while(postgres: &mut Postgres, happen: impl FnOnce(&mut Postgres)) {
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let file = write(&storage, "a", b"");
    let is_over = Arc::new(AtomicBool::new(false));
    let (appended, over) = (file.clone(), is_over.clone());
    let thread = std::thread::spawn(move || append(&*appended, &over));
    wait_until("it has begun", || file.length().unwrap() > 80);
    happen(postgres);
    let length = file.length().unwrap();
    wait_until("it goes on", || file.length().unwrap() > length + 80);
    is_over.store(true, Ordering::Relaxed);
    let count = thread.join().unwrap();
    let expected: Vec<u8> = (0..count).flat_map(u64::to_be_bytes).collect();
    assert_eq!(contents(&next(postgres), "a"), expected);
    let rows: u64 = postgres.sql("SELECT count(*) FROM galo.chunk").parse().unwrap();
    assert_eq!(rows, count);
}

#[test]
fn connections_that_are_cut_cost_nothing() {
    let mut postgres = Postgres::with_tables();
    appended_while(&mut postgres, |postgres| {
        for _ in 0..10 {
            postgres.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'galo'",
            );
        }
    });
}

#[test]
fn a_restart_of_the_server_costs_nothing_but_time() {
    let mut postgres = Postgres::with_tables();
    appended_while(&mut postgres, |postgres| {
        postgres.kill();
        postgres.start_again();
    });
}

#[test]
fn a_server_that_stays_away_longer_than_the_lease_ends_it() {
    let mut postgres = Postgres::with_tables();
    let log = Log::take(&postgres.url(), "one", Duration::from_millis(600));
    let storage = log.open();
    let file = storage.create("a").unwrap();
    postgres.kill();
    file.write_at(b"never", 0).unwrap();
    let error = file.sync().unwrap_err();
    assert!(matches!(fault(&error), Fault::NoAnswer(_)), "{error:?}");
    assert!(galo::base::clock::moment() >= log.tenure.until());
}

#[test]
fn a_server_that_stands_still_is_noticed_within_the_lease() {
    let postgres = Postgres::with_tables();
    let lease = Duration::from_millis(900);
    let log = Log::take(&postgres.url(), "one", lease);
    let storage = log.open();
    let file = storage.create("a").unwrap();
    let backend = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity \
                   WHERE application_name = 'galo'";
    let pids = postgres.sql(backend);
    let frozen = postgres.freeze(&pids);
    let asked = galo::base::clock::moment();
    file.write_at(b"never", 0).unwrap();
    file.sync().unwrap_err();
    let took = galo::base::clock::moment().since(asked);
    assert!(took < lease * 3, "{took:?}");
    drop(frozen);
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
const CANCEL: &str =
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Whether a commit waits for a standby, that of a comment.
fn waits_for_a_standby(postgres: &Postgres) -> bool {
    std::thread::scope(|scope| {
        let comment = scope.spawn(|| postgres.sql("COMMENT ON SCHEMA galo IS 'it waits'"));
        let mut waits = false;
        wait_until("it waits or has ended", || {
            waits = postgres.sql(WAITING) == "1";
            waits || comment.is_finished()
        });
        if waits {
            postgres.sql(CANCEL);
        }
        waits
    })
}

#[test]
fn a_commit_that_no_standby_has_confirmed_is_none() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let file = write(&storage, "a", b"0");
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'");
    postgres.sql("SELECT pg_reload_conf()");
    // The server sees to that a moment later.
    while !waits_for_a_standby(&postgres) {}
    file.write_at(b"1", 1).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, synced) = (is_over.clone(), file.clone());
    let thread = std::thread::spawn(move || {
        synced.sync().unwrap();
        over.store(true, Ordering::Relaxed);
    });
    for _ in 0..3 {
        wait_until("it waits for a standby", || postgres.sql(WAITING) == "1");
        // That makes it visible, with a warning.
        postgres.sql(CANCEL);
        wait_until("it is visible", || postgres.sql("SELECT count(*) FROM galo.chunk") == "2");
        assert!(!is_over.load(Ordering::Relaxed));
    }
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names");
    postgres.sql("SELECT pg_reload_conf()");
    thread.join().unwrap();
    assert_eq!(contents(&next(&postgres), "a"), b"01");
}

#[test]
fn a_log_that_has_gone_back_is_not_written_on() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let file = write(&storage, "a", b"0");
    write(&storage, "b", b"0");
    postgres.sql("UPDATE galo.own SET seq = seq - 1");
    file.write_at(b"1", 1).unwrap();
    let error = file.sync().unwrap_err();
    assert!(matches!(fault(&error), Fault::Rewound { expected: 4, found: 3 }), "{error:?}");
    assert_eq!(postgres.sql("SELECT count(*) FROM galo.chunk"), "2");
}

#[test]
fn what_is_long_goes_in_pieces_and_what_is_removed_leaves_no_rows() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let long: Vec<u8> = (0..9_000_001_u32).map(|at| (at % 251) as u8).collect();
    let file = storage.create("a.tmp").unwrap();
    file.allocate(long.len() as u64).unwrap();
    file.write_at(&long, 0).unwrap();
    file.sync().unwrap();
    storage.rename("a.tmp", "a").unwrap();
    storage.sync_directory().unwrap();
    assert_eq!(postgres.sql("SELECT seq FROM galo.own"), "2");
    // One that has its name already, too.
    let named = write(&storage, "b", b"");
    named.write_at(&long, 3).unwrap();
    named.sync().unwrap();
    let storage = next(&postgres);
    assert!(contents(&storage, "a") == long);
    assert!(contents(&storage, "b")[3..] == long);
    // An orphan of before is found, too.
    postgres.sql("INSERT INTO galo.chunk VALUES (0, 77, 1, 0, 'x')");
    storage.remove("a").unwrap();
    storage.sync_directory().unwrap();
    write(&storage, "b", b"new");
    let storage = next(&postgres);
    wait_until("nothing is left of them", || {
        postgres.sql("SELECT count(DISTINCT file) FROM galo.chunk") == "1"
    });
    assert_eq!(contents(&storage, "b"), b"new");
}

#[test]
fn what_is_written_over_again_and_again_does_not_grow() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let file = write(&storage, "a", &[0; 64]);
    for round in 0..600_u64 {
        file.write_at(&round.to_be_bytes(), (round % 2) * 8).unwrap();
        file.sync().unwrap();
    }
    let rows: u64 = postgres.sql("SELECT count(*) FROM galo.chunk").parse().unwrap();
    assert!(rows < 300, "{rows}");
    let mut expected = vec![0; 64];
    expected[..8].copy_from_slice(&598_u64.to_be_bytes());
    expected[8..16].copy_from_slice(&599_u64.to_be_bytes());
    assert_eq!(contents(&next(&postgres), "a"), expected);
}

#[test]
fn syncs_that_come_together_go_together() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let storage = storage.within(&number.to_string());
            std::thread::spawn(move || {
                for round in 0..20_u8 {
                    write(&storage, &round.to_string(), &[round; 100]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let commits: u64 = postgres.sql("SELECT seq FROM galo.own").parse().unwrap();
    assert!(commits < 2 * 8 * 20, "{commits}");
    let storage = next(&postgres);
    for number in 0..8 {
        let inside = storage.within(&number.to_string());
        assert_eq!(inside.names().unwrap().len(), 20);
        assert_eq!(contents(&inside, "7"), [7; 100]);
    }
}

#[test]
fn a_place_is_the_same_for_every_owner_and_another_after_a_dump() {
    let postgres = Postgres::with_tables();
    let storage = Log::take(&postgres.url(), "one", LEASE).open();
    write(&storage, "a", b"");
    let place = storage.place("a").unwrap();
    assert_eq!(storage.place("b").err().unwrap().kind(), io::ErrorKind::NotFound);
    assert_eq!(next(&postgres).place("a").unwrap(), place);
    let other = Postgres::with_tables();
    let storage = Log::take(&other.url(), "one", LEASE).open();
    write(&storage, "a", b"");
    assert_ne!(storage.place("a").unwrap(), place);
}

/// `cargo test --features cluster --test all log_files::figures -- --ignored --nocapture`, of the log
/// at `GALO_LOG_URL`, if there is one.
#[test]
#[ignore = "a measurement"]
fn figures() {
    let own = std::env::var("GALO_LOG_URL").map_err(|_| Postgres::with_tables());
    let url = own.as_ref().map_or_else(Postgres::url, String::clone);
    let mut log = Log::take(&url, "one", LEASE);
    let storage = log.open();
    let file = write(&storage, "a", b"");
    let mut end = 0;
    for (bytes, count) in [(64, 200), (64, 3_000), (6_400, 1_000), (640_000, 50)] {
        let mut took: Vec<Duration> = (0..count)
            .map(|_| {
                let begun = galo::base::clock::moment();
                file.write_at(&vec![7; bytes], end).unwrap();
                file.sync().unwrap();
                end += bytes as u64;
                galo::base::clock::moment().since(begun)
            })
            .collect();
        took.sort_unstable();
        let (half, most) = (took[count / 2], took[count * 99 / 100]);
        println!("{count} appends of {bytes} bytes: p50 {half:?}, p99 {most:?}");
    }
    let begun = galo::base::clock::moment();
    write(&storage, "long", &vec![7; 64 << 20]);
    println!("64 MiB written: {:?}", galo::base::clock::moment().since(begun));
    assert!(log.ownership.release(log.tenure.epoch(), late()).unwrap());
    let storage = Log::take(&url, "two", LEASE).open();
    let begun = galo::base::clock::moment();
    let length = contents(&storage, "a").len();
    println!("{length} bytes fetched: {:?}", galo::base::clock::moment().since(begun));
    let begun = galo::base::clock::moment();
    contents(&storage, "long");
    println!("64 MiB fetched: {:?}", galo::base::clock::moment().since(begun));
}
