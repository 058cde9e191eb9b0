//! `--keep` on the real binary: what is old leaves the books, sums stay exact over both instances, and an
//! export is whole with the archives and says so without.

use crate::support::PATIENCE;
use crate::support::journals::Scratch;
use crate::support::system::{Instance, Processor, addresses, id, iso, pair_with, see_each_other};
use galo::base::clock;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const AMOUNT: &str = "1.50";

fn galo(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_galo")).args(args).output().unwrap();
    let told = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code(), told)
}

fn archives(directory: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(Path::new(directory)).unwrap().flatten().map(|it| it.path());
    let mut archives: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|it| it == "archive")).collect();
    archives.sort();
    archives
}

/// The time of the first settlement, and of the last, that this export tells.
fn times(export: &str) -> Vec<String> {
    let of = |line: &str| Some(line.strip_prefix("settled,")?.split(',').nth(3)?.to_owned());
    export.lines().filter_map(of).collect()
}

#[test]
fn old_settlements_leave_and_every_sum_stays_exact() {
    let processors = Processor::both();
    let scratch = Scratch::new();
    let data = [scratch.join("1"), scratch.join("2")];
    // Only the first forgets.
    let keeping = ["--data", &data[0], "--keep", "200ms"];
    let mut two = pair_with(addresses(&processors), [&keeping, &["--data", &data[1]]]);
    let mut paid = until_two_have_left(&mut two, &data[0]);
    assert_eq!(two[1].pay(&id(1), AMOUNT).status, 202);
    two[1].settle();
    paid += 1;
    for instance in &two {
        let all = instance.summary("");
        assert_eq!((all.count(), all.cents()), (paid, i128::from(paid) * 150));
    }
    let (code, whole) = galo(&["export", &data[0], &data[1]]);
    let told = times(&whole);
    assert_eq!((code, told.len() as u64), (Some(0), paid), "{whole}");
    // Cut within what has left, at either instance; and not cut.
    let (first, last) = (&told[0], &told[told.len() - 1]);
    let within = told.iter().find(|time| *time > first).unwrap();
    for instance in &two {
        let cut = instance.get(&format!("/payments-summary?from={within}&to={last}"));
        assert_eq!(cut.status, 410, "{cut:?}");
        assert!(cut.body.contains("midnight"), "{cut:?}");
        let answer = instance.get(&format!("/payments-summary?from={first}&to={last}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let none = instance.summary(&format!("?to={}", iso(0)));
        assert_eq!(none.count(), 0);
    }
    let gone = two[0].get(&format!("/payments/{}", id(0)));
    assert!(gone.status == 404 || gone.status == 200 && gone.body.contains("known"), "{gone:?}");
    let unknown = two[0].get(&format!("/payments/{}", id(1_000_000)));
    assert!(unknown.status == 404 && unknown.body.contains("archived"), "{unknown:?}");
    without_the_first_archive(&mut two, &scratch, &data, paid);
}

/// Pays and starts again until there are two archives: how many were paid.
fn until_two_have_left(two: &mut [Instance; 2], data: &str) -> u64 {
    let mut paid = 0;
    // Each start ends a segment, which becomes books.
    let begun = clock::moment();
    while archives(data).len() < 2 {
        assert!(clock::moment().since(begun) < PATIENCE, "nothing leaves");
        for _ in 0..4 {
            assert_eq!(two[0].pay(&id(paid * 2), AMOUNT).status, 202);
            paid += 1;
        }
        two[0].settle();
        two[0].kill();
        two[0].start_again();
        see_each_other(&two[..]);
    }
    paid
}

/// Moved away under the running instance, and put back.
fn without_the_first_archive(
    two: &mut [Instance; 2],
    scratch: &Scratch,
    data: &[String; 2],
    paid: u64,
) {
    let moved = archives(&data[0]);
    let aside = scratch.join("aside");
    std::fs::create_dir(&aside).unwrap();
    let name = moved[0].file_name().unwrap().to_str().unwrap();
    std::fs::rename(&moved[0], Path::new(&aside).join(name)).unwrap();
    let (code, without) = galo(&["export", &data[0], &data[1]]);
    assert_eq!(code, Some(0), "{without}");
    assert!(without.contains(&format!("archived,{name},default,")), "{without}");
    let later = times(&without)[0].clone();
    let (_, window) = galo(&["export", &data[0], &data[1], "--from", &later]);
    assert!(!window.contains("archived,"), "{window}");
    let statement = scratch.join("statement.csv");
    std::fs::write(&statement, "id,amount,requested_at\n").unwrap();
    let against = format!("default={statement}");
    let (code, refused) = galo(&["reconcile", &data[0], &data[1], "--statement", &against]);
    assert_eq!(code, Some(2), "{refused}");
    assert!(refused.contains(name) && refused.contains("is not here"), "{refused}");
    for instance in &mut *two {
        instance.kill();
        instance.start_again();
    }
    see_each_other(&two[..]);
    assert_eq!(two[1].summary("").count(), paid, "nothing that runs needs it");
    std::fs::rename(Path::new(&aside).join(name), &moved[0]).unwrap();
    let (code, again) = galo(&["export", &data[0], &data[1]]);
    assert_eq!((code, times(&again).len() as u64), (Some(0), paid), "{again}");
}

#[test]
fn a_time_to_keep_that_is_none_is_refused() {
    for (args, why) in [
        (&["serve", "--keep", "400d"][..], "--data"),
        (&["serve", "--data", "unused", "--keep", "0s"], "--keep must be longer than 0"),
        (&["serve", "--data", "unused", "--keep", "soon"], "--keep"),
    ] {
        let (code, told) = galo(args);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(why), "{told}");
    }
    assert!(!Path::new("unused").exists());
    drop(Instance::alone(&["--data", &Scratch::new().join("1"), "--keep", "400d"]));
}
