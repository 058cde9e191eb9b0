//! The journal's directory from outside: who may open it, what a start makes of damage, a full disk.

use crate::support::journals::{Line, Mount, Scratch, journal, records};
use crate::support::system::{
    Instance, Processor, QUICK, addresses, assert_books_balance, id, payment,
};
use crate::support::{Galo, PATIENCE, request, wait_until, wait_until_within};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// A start that is refused: exit code 2, and one line, which is returned.
fn refusal(args: &[&str]) -> String {
    let first = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
    let mut galo = Galo::start(first.iter().chain(args));
    let (code, stderr) = galo.wait_for_end();
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("galo: "), "{stderr}");
    stderr
}

fn pay(instance: &Instance, numbers: std::ops::Range<u64>) -> HashMap<String, i128> {
    let mut client = instance.client();
    let paid = numbers.map(|number| {
        assert_eq!(client.call(payment(&id(number), "1.00")).status, 202);
        (id(number), 100)
    });
    paid.collect()
}

/// An instance that was killed after it had settled ten payments, its processors, its journal.
struct Killed {
    processors: [Processor; 2],
    instance: Instance,
    accepted: HashMap<String, i128>,
    data: String,
    _scratch: Scratch,
}

fn killed() -> Killed {
    let scratch = Scratch::new();
    let data = scratch.join("journal");
    let processors = Processor::both();
    let flags = [&QUICK[..], &["--data", &data, "--queue-capacity", "10000"]].concat();
    let mut instance = Instance::start(addresses(&processors), &flags);
    let accepted = pay(&instance, 0..10);
    instance.settle();
    // The last settlements are written a moment after they count.
    wait_until("all of it is written", || {
        records(&data).iter().filter(|line| line.words[0] == "Settled").count() == 10
    });
    instance.kill();
    Killed { processors, instance, accepted, data, _scratch: scratch }
}

fn check(path: &str) -> (Option<i32>, String) {
    let output = journal("check", path);
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

fn open(data: &str, line: &Line) -> fs::File {
    let path = Path::new(data).join(&line.file);
    fs::File::options().read(true).write(true).open(path).expect("a segment")
}

#[test]
fn one_directory_is_for_one_process() {
    let scratch = Scratch::new();
    let data = scratch.join("journal");
    let mut first = Instance::alone(&["--data", &data]);
    let refused = refusal(&["--data", &data]);
    assert!(refused.contains(&data) && refused.contains("in use"), "{refused}");
    // The lock dies with its holder.
    first.kill();
    first.start_again();
    assert_eq!(first.pay(&id(1), "1.00").status, 202);
}

/// Another instance's volume, or the same one without its peer: refused with exit code 2 and the flag
/// that allows it, and taken over for good by one start with that flag.
#[test]
fn a_journal_of_somebody_else_is_refused() {
    let scratch = Scratch::new();
    let data = scratch.join("journal");
    // Without a payment: one in doubt would be refused for the processors' addresses as well.
    Instance::alone(&["--data", &data]).kill();
    let refused = refusal(&["--data", &data, "--instance", "2"]);
    assert!(refused.ends_with("start once with --accept-change instance\n"), "{refused}");
    let meant = ["--data", &data, "--instance", "2", "--accept-change", "instance"];
    Instance::alone(&meant).kill();
    let refused = refusal(&["--data", &data]);
    assert!(refused.contains("of instance 2, and this is --instance 1"), "{refused}");
    Instance::alone(&["--data", &data, "--instance", "2"]);
}

#[test]
fn durability_without_a_directory_is_refused() {
    for durability in ["process", "disk"] {
        let refused = refusal(&["--durability", durability]);
        assert!(refused.contains("--data"), "{refused}");
    }
}

#[test]
fn a_directory_that_cannot_be_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.join("file");
    fs::write(&file, "").expect("a file");
    let refused = refusal(&["--data", &file]);
    assert!(refused.contains(&file), "{refused}");
}

#[test]
fn only_the_owner_may_look() {
    let scratch = Scratch::new();
    let data = scratch.join("journal");
    let instance = Instance::alone(&["--data", &data]);
    assert_eq!(instance.pay(&id(1), "1.00").status, 202);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode(Path::new(&data)), 0o700);
    let ledger = Path::new(&data).join("ledger");
    assert_eq!(mode(&ledger), 0o700);
    for directory in [Path::new(&data), &ledger] {
        let entries = fs::read_dir(directory).expect("a directory").flatten();
        let files: Vec<_> = entries.map(|it| it.path()).filter(|it| *it != ledger).collect();
        assert!(files.len() > 1, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{file:?}");
        }
    }
}

#[test]
fn damage_in_the_middle_stops_the_start_and_names_the_place() {
    let mut killed = killed();
    let lines = records(&killed.data);
    let damaged = &lines[lines.len() / 2];
    let file = open(&killed.data, damaged);
    // The first byte of the checksum, one of the length, one of the payload.
    for within in [0, 4, 12] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, damaged.offset + within).expect("a byte");
        file.write_all_at(&[byte[0] ^ 0x40], damaged.offset + within).expect("written");
        let refused = refusal(&["--data", &killed.data]);
        assert!(refused.contains(&damaged.file), "{refused}");
        assert!(refused.contains(&format!("offset {}", damaged.offset)), "{refused}");
        let (code, found) = check(&killed.data);
        assert_eq!(code, Some(1), "{found}");
        assert!(found.contains(&format!("offset {}", damaged.offset)), "{found}");
        file.write_all_at(&byte, damaged.offset + within).expect("written");
    }
    assert_eq!(check(&killed.data).0, Some(0));
    // Nothing was changed by the starts that were refused.
    killed.instance.start_again();
    let instances = std::slice::from_ref(&killed.instance);
    assert_books_balance(&killed.accepted, &mut killed.processors, instances);
}

#[test]
fn a_torn_end_is_cut_off() {
    // Of a checksum so much is left that it cannot well be taken for zeros.
    for cut_to in [9, 3] {
        let mut killed = killed();
        let lines = records(&killed.data);
        let last = lines.last().expect("records");
        assert_eq!(last.words[0], "Settled");
        let file = open(&killed.data, last);
        let length = file.metadata().expect("its length").len();
        file.set_len(last.offset + cut_to).expect("cut");
        file.set_len(length).expect("zeros again");
        let (code, found) = check(&killed.data);
        assert_eq!(code, Some(0), "{found}");
        assert!(found.contains("torn"), "{found}");
        killed.instance.start_again();
        wait_until("the log says what was cut off", || {
            let stderr = killed.instance.galo.stderr();
            stderr.contains(&last.file) && stderr.contains("torn")
        });
        // What it lost was a settlement: the processor knows.
        let instances = std::slice::from_ref(&killed.instance);
        assert_books_balance(&killed.accepted, &mut killed.processors, instances);
    }
}

#[test]
fn looking_at_what_is_not_there_is_refused() {
    let scratch = Scratch::new();
    assert_eq!(check(&scratch.join("missing")).0, Some(2));
    assert_eq!(check(&scratch.join("")).0, Some(2), "an empty one is no journal");
}

/// Sends payments in batches, from this number on, until one is refused. Returns how many were
/// accepted, and why no more.
fn pay_until_refused(instance: &Instance, first: u64) -> (u64, String) {
    const BATCH: u64 = 200;
    let mut client = instance.client();
    let mut accepted = 0;
    for batch in 0_u64.. {
        let numbers = first + batch * BATCH..first + (batch + 1) * BATCH;
        client.send(numbers.map(|number| payment(&id(number), "1.00")).collect::<String>());
        let mut refused = None;
        for _ in 0..BATCH {
            let answer = client.receive().expect("an answer");
            match answer.status {
                202 if refused.is_none() => accepted += 1,
                503 => refused = Some(answer.body),
                _ => panic!("{answer:?}"),
            }
        }
        if let Some(reason) = refused {
            return (accepted, reason);
        }
    }
    unreachable!("the disk is small")
}

/// A segment fits, the next one does not.
#[test]
fn a_full_disk_refuses_new_payments_and_settles_what_was_accepted() {
    const SLOW: Duration = Duration::from_secs(120);
    let Some(mount) = Mount::new(28) else { return };
    let data = mount.join("journal");
    let mut processors = Processor::both();
    processors.iter_mut().for_each(|processor| processor.set_failing(true));
    let flags = ["--data", &data, "--queue-capacity", "130000", "--allow-purge"];
    let mut instance = Instance::start(addresses(&processors), &flags);
    let (mut accepted, reason) = pay_until_refused(&instance, 0);
    println!("{accepted} were accepted");
    assert!(reason.contains("The disk is full"), "{reason}");
    assert_eq!(instance.outstanding(), accepted);
    assert_eq!(instance.pay(&id(0), "1.00").status, 503, "not even a repetition");
    let purge = instance.client().call(request("POST", "/purge-payments", "", ""));
    assert_eq!(purge.status, 503, "{purge:?}");

    // Killed, and somebody else takes what is left of the disk: it comes back all the same.
    instance.kill();
    fs::write(mount.join("filler"), vec![0; 28 << 20]).expect_err("no space");
    instance.start_again();
    assert_eq!(instance.outstanding(), accepted);
    // Of what the ledger had taken ahead there may be some room for more.
    accepted += pay_until_refused(&instance, 1 << 32).0;

    processors.iter_mut().for_each(|processor| processor.set_failing(false));
    wait_until_within(SLOW, "all is settled", || match instance.outstanding() {
        0 => Ok(()),
        left => Err(format!("{left} left\n{}", instance.galo.stderr())),
    });
    let cents = |count| i128::from(count) * 100;
    let settled = instance.summary("");
    assert_eq!((settled.count(), settled.cents()), (accepted, cents(accepted)));
    let held: usize = processors.iter_mut().map(|processor| processor.books().len()).sum();
    assert_eq!(held as u64, accepted, "none twice");

    mount.resize(200);
    let new = id(1 << 40);
    wait_until_within(PATIENCE, "it accepts again", || {
        let answer = instance.pay(&new, "1.00");
        if answer.status == 202 { Ok(()) } else { Err(answer.body) }
    });
    instance.settle();
    instance.kill();
    instance.start_again();
    instance.settle();
    assert_eq!(instance.summary("").count(), accepted + 1);
}

#[test]
fn a_start_without_space_is_refused() {
    let Some(mount) = Mount::new(10) else { return };
    let data = mount.join("journal");
    let refused = refusal(&["--data", &data]);
    assert!(refused.contains("0000000001.journal: No space left"), "{refused}");
    // It leaves nothing behind that would be in the way of the next start.
    mount.resize(100);
    let instance = Instance::alone(&["--data", &data]);
    assert_eq!(instance.pay(&id(1), "1.00").status, 202);
}
