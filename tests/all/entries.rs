//! The ledger's entries on the real binary: kept for exports over many segments, restarts and kills,
//! each exported once.

use crate::support::journals::{Scratch, journal_of_two};
use crate::support::ledger::{Balance, body, post};
use crate::support::system::Instance;
use crate::support::wait_until;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// More of each account than a statement has.
const ENTRIES_A_TURN: i64 = 24;
const TURNS: u32 = 6;
const ACCOUNTS: i64 = 2;

fn kept(data: &str, number: u32) -> String {
    format!("{data}/ledger/{number:010}.entries")
}

/// Exit code, standard output and standard error of an export.
fn export(data: &str) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_galo")).args(["export", data]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Account, number and description.
type Entry = (u64, u64, String);

/// Each entry, and what is said of the accounts.
fn read(export: &str) -> (Vec<Entry>, BTreeMap<u64, String>) {
    let (mut entries, mut accounts) = (Vec::new(), BTreeMap::new());
    for line in export.lines() {
        let cells: Vec<&str> = line.splitn(9, ',').collect();
        let note = cells[8].trim_matches('"');
        match cells[0] {
            "entry" => {
                let parts: Vec<&str> = note.split("; ").collect();
                let number = parts[0].strip_prefix("number ").unwrap().parse().unwrap();
                entries.push((cells[1].parse().unwrap(), number, parts[2].to_owned()));
            }
            "account" => _ = accounts.insert(cells[1].parse().unwrap(), note.to_owned()),
            _ => {}
        }
    }
    assert!(export.lines().last().unwrap().starts_with("digest,"), "{export}");
    (entries, accounts)
}

#[test]
fn every_entry_of_many_segments_is_exported_once_over_kills() {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let mut instance = Instance::alone(&["--data", &data, "--entries-kept", "1GiB"]);
    let mut expected: Vec<Entry> = Vec::new();
    for turn in 0..TURNS {
        let mut client = instance.client();
        for index in 0..ENTRIES_A_TURN {
            let account = 1 + index % ACCOUNTS;
            let (value, text) = (1 + index, format!("t{turn}-{index}"));
            Balance::read(&client.call(post(account, &body(value, &text))));
            let number = i64::from(turn) * ENTRIES_A_TURN / ACCOUNTS + index / ACCOUNTS + 1;
            expected.push((account as u64, number as u64, text));
        }
        instance.kill();
        instance.start_again();
        // A start ends the segment; all but the last full one are rewritten then.
        wait_until("the segment is kept", || turn == 0 || Path::new(&kept(&data, turn)).exists());
    }
    let (code, out, told) = export(&data);
    assert_eq!(code, Some(0), "{told}");
    let (mut entries, accounts) = read(&out);
    entries.sort();
    expected.sort();
    assert_eq!(entries, expected);
    let count = i64::from(TURNS) * ENTRIES_A_TURN / ACCOUNTS;
    let each = |id: u64| (id, format!("{count} entries"));
    assert_eq!(accounts, [each(1), each(2)].into(), "all of them");
    instance.kill();

    // A copy has them all, too.
    let copy = scratch.join("copy");
    let copied = journal_of_two("copy", &data, &copy);
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(export(&copy).1, export(&data).1);

    // A damaged one is named, and what is missing without it is told. No start minds.
    std::fs::write(kept(&data, 2), "damaged").unwrap();
    let (code, out, told) = export(&data);
    assert_eq!(code, Some(2));
    assert!(told.contains("0000000002.entries is damaged") && told.lines().count() == 1, "{told}");
    assert!(!out.contains("digest,"));
    instance.start_again();
    instance.kill();
    std::fs::remove_file(kept(&data, 2)).unwrap();
    let (code, out, told) = export(&data);
    assert_eq!(code, Some(0), "{told}");
    let (entries, accounts) = read(&out);
    assert_eq!(entries.len(), expected.len() - ENTRIES_A_TURN as usize);
    let since = 2 * ENTRIES_A_TURN / ACCOUNTS + 1;
    for note in accounts.values() {
        let text = format!("{count} entries, all from number {since} of 20");
        assert!(note.starts_with(&text) && note.ends_with("Z on"), "{note}");
    }
}
