//! Where the ledger's accounts come from: `--accounts FILE`, and what is wrong with one.

use crate::support::Galo;
use crate::support::journals::Scratch;
use crate::support::ledger::{Balance, Statement, body, get, post};
use crate::support::system::{Instance, TOKEN, free_address, pair};

/// What `galo serve` says of this file when it refuses it.
fn refusal(scratch: &Scratch, text: impl AsRef<[u8]>) -> String {
    let file = scratch.join("accounts");
    std::fs::write(&file, text).expect("it can be written");
    refused(&["serve", "--listen", "127.0.0.1:0", "--accounts", &file])
}

fn refused(args: &[&str]) -> String {
    let (code, stderr) = Galo::start(args).wait_for_end();
    assert_eq!(code, Some(2), "{args:?}: {stderr}");
    stderr
}

#[test]
fn a_file_that_cannot_be_is_refused_by_its_line() {
    let scratch = Scratch::new();
    for (text, line, named) in [
        ("1,100\n1,200\n", 2, "twice"),
        ("1\n", 1, ""),
        ("1;100\n", 1, ""),
        ("# one\n\n1,100\n0,100\n", 4, "id"),
        ("01,100\n", 1, "id"),
        ("-1,100\n", 1, "id"),
        ("+1,100\n", 1, "id"),
        ("a,100\n", 1, "id"),
        (",100\n", 1, "id"),
        ("1.0,100\n", 1, "id"),
        ("18446744073709551616,1\n", 1, "id"),
        ("1,\n", 1, "limit"),
        ("1,-1\n", 1, "limit"),
        ("1,+1\n", 1, "limit"),
        ("1,1.5\n", 1, "limit"),
        ("1,1e3\n", 1, "limit"),
        ("1,abc\n", 1, "limit"),
        ("1,9223372036854775808\n", 1, "limit"),
        ("2,5\n1,2,3\n", 2, "limit"),
        ("1,100\n\u{feff}2,100\n", 2, "id"),
    ] {
        let stderr = refusal(&scratch, text);
        let said = stderr.lines().next().unwrap_or_default();
        assert!(said.contains(&format!("line {line}:")), "{text:?}: {stderr}");
        assert!(said.contains(named), "{text:?}: {stderr}");
        assert!(said.contains("--accounts"), "{text:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "one clear line: {stderr}");
    }
    for text in [&b""[..], b"\n\n", b"# 1,100\n", b"1,100\n\xff\n"] {
        let stderr = refusal(&scratch, text);
        assert!(stderr.contains("--accounts") && stderr.lines().count() == 1, "{text:?}: {stderr}");
    }
    let missing = scratch.join("missing");
    let stderr = refused(&["serve", "--listen", "127.0.0.1:0", "--accounts", &missing]);
    assert!(stderr.contains(&missing), "{stderr}");
}

#[test]
fn a_file_decides_which_accounts_there_are() {
    let scratch = Scratch::new();
    let file = scratch.join("accounts");
    let text = "# our accounts\n\n 7 , 0 # no credit\r\n8,250\n\
                18446744073709551615,9223372036854775807\n";
    std::fs::write(&file, text).expect("it can be written");
    let instances = pair([free_address(), free_address()], &["--accounts", &file]);
    for instance in &instances {
        let mut client = instance.client();
        for (id, limit) in [(7, 0), (8, 250), (u64::MAX, i64::MAX)] {
            assert_eq!(Statement::read(&client.call(get(id))).limit, limit, "account {id}");
            // Without credit a debit has to wait for money.
            let more = client.call(post(id, &body(-1, "more")));
            assert_eq!(more.status, if limit == 0 { 422 } else { 200 }, "account {id}: {more:?}");
            assert_eq!(client.call(post(id, &body(1, "one"))).status, 200);
            let balance = Balance::read(&client.call(post(id, &body(-1, "one")))).saldo;
            assert_eq!(balance, Statement::read(&client.call(get(id))).total, "account {id}");
        }
        for id in [1, 2, 5, 6, 9] {
            assert_eq!(client.call(get(id)).status, 404, "account {id}");
        }
    }
}

#[test]
fn one_instance_alone_keeps_all_accounts() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for id in 1..=5 {
        let balance = Balance::read(&client.call(post(id, &body(id as i64, "alone"))));
        assert_eq!(balance.saldo, id as i64);
        assert_eq!(Statement::read(&client.call(get(id))).total, id as i64);
    }
    assert_eq!(client.call(get(6)).status, 404);
}

/// An account with a history may not be left out, nor stand below its limit, nor change its home.
#[test]
fn accounts_that_do_not_fit_to_the_journal_are_refused() {
    let scratch = Scratch::new();
    let (file, data) = (scratch.join("accounts"), scratch.join("data"));
    let write = |text: &str| std::fs::write(&file, text).expect("it can be written");
    let args = ["--accounts", &file, "--data", &data];
    write("1,1000\n2,1000\n");
    let mut instance = Instance::alone(&args);
    let answer = instance.client().call(post(1, &body(-600, "a debt")));
    assert_eq!(answer.status, 200);
    instance.kill();
    let serve = [&["serve", "--listen", "127.0.0.1:0"][..], &args].concat();
    for (text, named) in [("2,1000\n", "account 1"), ("1,599\n2,1000\n", "account 1")] {
        write(text);
        let stderr = refused(&serve);
        assert!(stderr.contains(named), "{text}: {stderr}");
    }
    write("1,600\n2,1000\n");
    let peered = [
        "--peer-listen",
        "127.0.0.1:0",
        "--peer",
        "http://127.0.0.1:9",
        "--peer-token",
        TOKEN,
        "--instance",
        "1",
    ];
    let stderr = refused(&[&serve[..], &peered].concat());
    assert!(stderr.contains("account 1"), "the home of odd accounts is the second: {stderr}");
    // Others may be added, and a limit lowered as far as the debt allows.
    write("1,600\n3,5\n");
    instance.start_again();
    let statement = Statement::read(&instance.client().call(get(1)));
    assert_eq!((statement.total, statement.limit), (-600, 600));
    assert_eq!(instance.client().call(post(1, &body(-1, "more"))).status, 422);
    assert_eq!(instance.client().call(get(3)).status, 200);
    assert_eq!(instance.client().call(get(2)).status, 404, "it had no history");
}
