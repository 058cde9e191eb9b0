//! The log in a real PostgreSQL: its tables, its owners, a journal's life over it. What becomes of
//! files when answers are lost and servers go is in `log_files.rs`.

use crate::support::certificates::{Authority, Certified};
use crate::support::journals::Scratch;
use crate::support::postgres::{Log, Postgres, late};
use crate::support::{Galo, PATIENCE, wait_until, wait_until_within};
use galo::base::clock::{self, Timestamp};
use galo::base::money::Cents;
use galo::journal::storage::Storage;
use galo::journal::{Durability, Found, Journal, LEDGER_DIRECTORY, Options, Recovered};
use galo::log::{Fault, LogNumber, LogStorage, Ownership, Server, Take, create};
use galo::payments::PaymentId;
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(60);

fn options() -> Options {
    let options = Options::new(Durability::Disk, 1_000, 1_000);
    Options { fail: |what| panic!("{what}"), ..options }
}

fn start(storage: LogStorage) -> (Journal, Recovered) {
    let found = Found::new(Arc::new(storage), options()).unwrap();
    let (mut journal, recovered) = Journal::start(found).unwrap();
    journal.keep().unwrap();
    (journal, recovered)
}

fn accept(journal: &Journal, number: u128) {
    let (amount, at) = (Cents(100), Timestamp(1_000));
    let position = journal.append_accepted(PaymentId(number), amount, at).expect("a new one");
    journal.flush();
    wait_until("it is on the server", || journal.is_durable(position));
}

fn accepted(recovered: &Recovered) -> Vec<u128> {
    let mut ids: Vec<u128> = recovered.waiting.iter().map(|payment| payment.id.0).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_journal_lives_in_the_log() {
    let postgres = Postgres::with_tables();
    let mut one = Log::take(&postgres.url(), "one", LEASE);
    let storage = one.open();
    let (ledger, _) = start(storage.within(LEDGER_DIRECTORY));
    let (journal, recovered) = start(storage);
    assert!(recovered.waiting.is_empty());
    for number in 0..50 {
        accept(&journal, number);
    }
    drop(journal);
    drop(ledger);
    assert!(one.ownership.release(one.tenure.epoch(), late()).unwrap());

    let two = Log::take(&postgres.url(), "two", LEASE);
    let storage = two.open();
    let inside = storage.within(LEDGER_DIRECTORY);
    assert!(inside.names().unwrap().contains(&"manifest".to_string()));
    assert!(storage.names().unwrap().iter().all(|name| !name.contains('/')));
    let (_journal, recovered) = start(storage);
    assert_eq!(accepted(&recovered), (0..50).collect::<Vec<_>>());
    assert!(!recovered.is_copy && recovered.torn.is_none());
}

#[test]
fn a_process_that_ends_at_once_leaves_what_it_promised() {
    let postgres = Postgres::with_tables();
    let one = Log::take(&postgres.url(), "one", LEASE);
    let (journal, _) = start(one.open());
    for number in 0..20 {
        accept(&journal, number);
    }
    // Its threads go on and find that the log is not theirs.
    std::mem::forget(journal);
    postgres.sql("UPDATE galo.own SET lease_until = clock_timestamp()");
    let two = Log::take(&postgres.url(), "two", LEASE);
    let (_journal, recovered) = start(two.open());
    assert_eq!(accepted(&recovered), (0..20).collect::<Vec<_>>());
}

fn ownership(postgres: &Postgres, name: &str) -> Ownership {
    Log::ownership(&postgres.server(), name, LEASE)
}

fn epoch(take: &Take) -> u64 {
    match take {
        Take::Taken { epoch, .. } => *epoch,
        held @ Take::Held { .. } => panic!("{held:?}"),
    }
}

#[test]
fn a_log_has_one_owner_until_the_database_says_that_the_lease_is_over() {
    let postgres = Postgres::with_tables();
    let (mut one, mut two) = (ownership(&postgres, "one"), ownership(&postgres, "two"));
    let asked = clock::moment();
    let taken = one.take(LEASE, late()).unwrap();
    let Take::Taken { epoch: 1, until } = taken else { panic!("{taken:?}") };
    assert!(until >= asked + LEASE && until <= clock::moment() + LEASE);
    let held = two.take(LEASE, late()).unwrap();
    let Take::Held { by, at, left } = held else { panic!("{held:?}") };
    assert_eq!((by.as_str(), at.as_str()), ("one", "127.0.0.1:9999"));
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
    // Whoever did not hear that he took it asks again; another process of his name does not have it.
    assert_eq!(epoch(&one.take(LEASE, late()).unwrap()), 1);
    let namesake = ownership(&postgres, "one").take(LEASE, late()).unwrap();
    assert!(matches!(namesake, Take::Held { .. }), "{namesake:?}");
    assert!(ownership(&postgres, "one").renew(1, LEASE, late()).unwrap().is_none());

    // A short lease runs out by itself, and the next has the next epoch.
    let short = Duration::from_millis(50);
    assert!(one.renew(1, short, late()).unwrap().is_some());
    let taken = wait_until_within(PATIENCE, "the lease is over", || {
        let taken = two.take(LEASE, late()).unwrap();
        if let Take::Taken { .. } = taken { Ok(taken) } else { Err(format!("{taken:?}")) }
    });
    assert_eq!(epoch(&taken), 2);
    assert!(one.renew(1, LEASE, late()).unwrap().is_none());
    assert!(!one.release(1, late()).unwrap());
    let state = one.state(late()).unwrap();
    assert_eq!((state.epoch, state.instance.as_str()), (2, "two"));
    assert!(state.left.is_some());

    // One that is over and that nobody has taken is the last owner's still.
    assert!(two.renew(2, Duration::ZERO, late()).unwrap().is_some());
    assert!(one.state(late()).unwrap().left.is_none());
    assert!(two.renew(2, LEASE, late()).unwrap().is_some());
    // What was given back is not.
    assert!(two.release(2, late()).unwrap());
    assert!(two.renew(2, LEASE, late()).unwrap().is_none());
    assert_eq!(epoch(&one.take(LEASE, late()).unwrap()), 3);
}

#[test]
fn of_many_who_want_it_one_has_the_log() {
    let postgres = Postgres::with_tables();
    let takers: Vec<_> = (0..8).map(|number| ownership(&postgres, &number.to_string())).collect();
    let threads = takers.into_iter().map(|mut taker| {
        std::thread::spawn(move || matches!(taker.take(LEASE, late()).unwrap(), Take::Taken { .. }))
    });
    let threads: Vec<_> = threads.collect();
    let taken = threads.into_iter().map(|it| it.join().unwrap());
    assert_eq!(taken.filter(|taken| *taken).count(), 1);
}

/// The line that says what is wrong.
fn refusal(postgres: &Postgres) -> String {
    refusal_at(&postgres.server())
}

fn refusal_at(server: &Arc<Server>) -> String {
    let mut ownership = Log::ownership(server, "one", LEASE);
    let fault = ownership.check(late()).unwrap_err();
    assert!(fault.is_final(), "{fault}");
    let line = fault.to_string();
    assert!(!line.contains('\n') && !line.contains("secret"), "{line}");
    line
}

#[test]
fn tables_are_made_once_and_of_one_version() {
    let postgres = Postgres::start();
    let none = refusal(&postgres);
    assert!(none.contains("galo log create"), "{none}");
    assert!(create(&postgres.server(), late()).unwrap());
    assert!(!create(&postgres.server(), late()).unwrap());
    ownership(&postgres, "one").check(late()).unwrap();

    postgres.sql("UPDATE galo.version SET version = 7");
    let other = refusal(&postgres);
    assert!(other.contains("version 7, this program knows 1"), "{other}");
    let create_again = create(&postgres.server(), late()).unwrap_err().to_string();
    assert_eq!(create_again, other);
}

#[test]
fn a_right_that_is_missing_is_named() {
    let postgres = Postgres::with_tables();
    postgres.sql("CREATE ROLE teller LOGIN PASSWORD 'secret'");
    let url = postgres.url().replace("galo:unused", "teller:secret");
    let server = Arc::new(Server::parse(&url).unwrap());
    let none = refusal_at(&server);
    assert!(none.contains("permission denied for schema galo"), "{none}");
    let refused = create(&server, late()).unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "{refused}");
    postgres.sql("GRANT USAGE ON SCHEMA galo TO teller");
    postgres.sql("GRANT SELECT ON ALL TABLES IN SCHEMA galo TO teller");
    postgres.sql("GRANT INSERT, UPDATE, DELETE ON galo.name TO teller");
    let some = refusal_at(&server);
    assert!(some.contains("chunk (INSERT, DELETE), own (UPDATE)"), "{some}");
    postgres
        .sql("GRANT INSERT, DELETE ON galo.chunk TO teller; GRANT UPDATE ON galo.own TO teller");
    let log = Log::take(&url, "one", LEASE);
    start(log.open());
}

#[test]
fn a_server_that_forgets_or_takes_no_writes_is_refused() {
    let postgres = Postgres::with(&["fsync=off"]);
    let line = refusal(&postgres);
    assert!(line.contains("fsync is off"), "{line}");

    let postgres = Postgres::with_tables();
    // Ours is what counts, whatever was set.
    postgres.sql("ALTER ROLE galo SET synchronous_commit = off");
    ownership(&postgres, "one").check(late()).unwrap();
    postgres.sql("ALTER ROLE galo SET default_transaction_read_only = on");
    let fault = ownership(&postgres, "one").check(late()).unwrap_err();
    assert!(matches!(fault, Fault::NoAnswer(_)) && fault.to_string().contains("writes"), "{fault}");
}

#[test]
fn the_first_server_that_takes_writes_is_found() {
    let postgres = Postgres::with_tables();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (gone, mute) = (dead.local_addr().unwrap(), silent.local_addr().unwrap());
    drop(dead);
    let hosts = format!("{gone},{mute},{}", postgres.address());
    let url = format!("postgres://galo@{hosts}/postgres?sslmode=disable");
    let server = Arc::new(Server::parse(&url).unwrap());
    let mut ownership = Log::ownership(&server, "one", LEASE);
    ownership.check(late()).unwrap();
    let warning = ownership.warning(late()).unwrap().unwrap();
    assert!(warning.contains("on one server"), "{warning}");
}

/// As PEM (RFC 7468).
fn pem(what: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

#[test]
fn a_server_by_tls_has_to_show_who_it_is() {
    let authority = Authority::new("of the test");
    let Certified { certificate, key } = authority.certify(&["localhost"]);
    let (certificate, key) = (pem("CERTIFICATE", &certificate), pem("PRIVATE KEY", &key));
    let postgres = Postgres::with_tls(&certificate, &key);
    let scratch = Scratch::new();
    let roots = scratch.join("roots.pem");
    std::fs::write(&roots, pem("CERTIFICATE", &authority.certificate())).unwrap();
    let port = postgres.address().port();
    let look = |host: &str, options: &str| {
        let url = format!("postgres://galo@{host}:{port}/postgres?{options}");
        let server = Arc::new(Server::parse(&url).unwrap());
        let looked = Log::ownership(&server, "one", LEASE).warning(late());
        looked.map_err(|fault| fault.to_string())
    };
    let used = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE ssl AND application_name = 'galo'";
    let server = format!("host=localhost port={port} user=galo dbname=postgres sslmode=require");
    let server = format!("{server} sslrootcert={roots}");
    let server = Arc::new(Server::parse(&server).unwrap());
    let mut ownership = Log::ownership(&server, "one", LEASE);
    ownership.warning(late()).unwrap();
    assert_eq!(postgres.sql(used), "1");
    look("localhost", &format!("sslmode=verify-full&sslrootcert={roots}")).unwrap();
    look("localhost", &format!("sslrootcert={roots}")).unwrap();
    look("localhost", "sslmode=disable").unwrap();
    // Another name, and an authority that nobody believes, also where TLS need not be.
    for options in [&format!("sslmode=require&sslrootcert={roots}"), "sslmode=prefer"] {
        let refused = look("127.0.0.1", options).unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
    }
}

fn galo_log(postgres: &Postgres, args: &[&str]) -> (Option<i32>, String, String) {
    let url = postgres.url().replace("unused", "sesame");
    let args = ["log"].iter().chain(args).copied();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_galo"))
        .args(args)
        .arg(url)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    assert!(!out.contains("sesame") && !told.contains("sesame"), "{out}{told}");
    (output.status.code(), out, told)
}

#[test]
fn the_command_makes_the_tables_and_tells_how_they_stand() {
    let postgres = Postgres::start();
    let (code, _, told) = galo_log(&postgres, &["status"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("`galo log create` makes the tables"), "{told}");
    let (code, out, told) = galo_log(&postgres, &["create"]);
    assert_eq!((code, told.lines().count()), (Some(0), 1), "{told}");
    assert!(out.starts_with("the log is ready: postgres at 127.0.0.1"), "{out}");
    let (code, out, _) = galo_log(&postgres, &["create"]);
    assert!(code == Some(0) && out.contains("already"), "{out}");
    let (_, out, _) = galo_log(&postgres, &["status"]);
    assert!(out.contains("log 0: nobody has had it"), "{out}");

    let log = Log::take(&postgres.url(), "one", LEASE);
    let (journal, _) = start(log.open());
    accept(&journal, 1);
    let (_, out, _) = galo_log(&postgres, &["status"]);
    assert!(out.contains("log 0: one at 127.0.0.1:9999, epoch 1, "), "{out}");
    assert!(out.contains("commits wait for no standby"), "{out}");
    let (_, out, _) = galo_log(&postgres, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["logs"][0]["instance"], "one", "{out}");
    assert!(json["logs"][0]["commits"].as_u64() > Some(0), "{out}");
    assert_eq!(json["standbys"].as_array().map(Vec::len), Some(0), "{out}");
    assert_eq!(json["logs"][0]["log"].as_i64(), Some(LogNumber::FIRST.0.into()), "{out}");
}

#[test]
fn a_url_that_is_none_is_not_repeated() {
    let url = "postgres://galo:sesame@host/books?sslmode=open";
    let mut galo = Galo::start(["log", "status", url]);
    let (code, told) = galo.wait_for_end();
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("sslmode") && !told.contains("sesame"), "{told}");
}
