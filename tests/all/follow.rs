//! `galo export --follow` on the real binary: every settlement once, over kills, restarts and the
//! rewriting of what it reads.

use crate::support::journals::Scratch;
use crate::support::system::{Instance, Processor, addresses, id, pair_with};
use crate::support::{Galo, request, wait_until};
use std::process::Command;

const SIGTERM: i32 = 15;

/// Follows these, and writes into that file.
fn follow(directories: &[&str], file: &str) -> Galo {
    let mut command = Command::new("sh");
    command.args(["-c", "file=$1; shift; exec \"$@\" > \"$file\"", "sh", file]);
    command.args([env!("CARGO_BIN_EXE_galo"), "export", "--follow"]).args(directories);
    Galo::spawn(command)
}

fn lines(file: &str) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn settled(file: &str) -> Vec<String> {
    let cell = |line: &String| line.strip_prefix("settled,")?.split(',').next().map(str::to_owned);
    lines(file).iter().filter_map(cell).collect()
}

#[test]
fn every_settlement_of_both_is_written_once_over_kills_and_rewriting() {
    let processors = Processor::both();
    let scratch = Scratch::new();
    let (data, file) = ([scratch.join("1"), scratch.join("2")], scratch.join("out"));
    let mut two = pair_with(addresses(&processors), [&["--data", &data[0]], &["--data", &data[1]]]);
    let pay = |two: &[Instance], numbers: std::ops::Range<u64>| {
        for number in numbers {
            assert_eq!(two[number as usize % 2].pay(&id(number), "1.50").status, 202);
        }
        two.iter().for_each(Instance::settle);
    };
    pay(&two, 0..10);
    let mut follower = follow(&[&data[0], &data[1]], &file);
    wait_until("what was there is written", || settled(&file).len() == 10);
    for round in 1..4 {
        pay(&two, round * 10..round * 10 + 10);
        wait_until("it is followed", || settled(&file).len() as u64 == round * 10 + 10);
        let one = &mut two[round as usize % 2];
        one.kill();
        one.start_again();
        crate::support::system::see_each_other(&two);
    }
    let is_rewritten = |path: &String| {
        let mut files = std::fs::read_dir(path).unwrap().flatten();
        files.any(|file| file.file_name().to_str().is_some_and(|name| name.ends_with(".books")))
    };
    wait_until("segments are rewritten", || data.iter().all(is_rewritten));
    pay(&two, 40..50);
    wait_until("it goes on", || settled(&file).len() == 50);
    follower.signal(SIGTERM);
    let (code, told) = follower.wait_for_end();
    assert_eq!(code, Some(0), "{told}");
    let mut found = settled(&file);
    found.sort_unstable();
    let mut expected: Vec<_> = (0..50).map(id).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let lines = lines(&file);
    let [.., default, fallback, digest] = &lines[..] else { panic!("{lines:?}") };
    let count = |line: &str| line.split(',').nth(1).unwrap().parse::<u64>().unwrap();
    assert_eq!(count(default) + count(fallback), 50, "{default} {fallback}");
    assert!(digest.starts_with("digest,crc32c:"), "{digest}");
}

#[test]
fn a_purge_ends_it_without_a_digest() {
    let processors = Processor::both();
    let scratch = Scratch::new();
    let (data, file) = (scratch.join("1"), scratch.join("out"));
    let instance = Instance::start(addresses(&processors), &["--data", &data, "--allow-purge"]);
    let mut follower = follow(&[&data], &file);
    assert_eq!(instance.pay(&id(1), "1.00").status, 202);
    wait_until("it is followed", || settled(&file) == [id(1)]);
    let purged = instance.client().call(request("POST", "/purge-payments", "", ""));
    assert_eq!(purged.status, 200, "{purged:?}");
    let (code, told) = follower.wait_for_end();
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("purged"), "{told}");
    assert!(!lines(&file).iter().any(|line| line.starts_with("digest")));
}
