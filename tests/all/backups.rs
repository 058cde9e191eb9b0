//! What an operator does with a journal's directory on the real binary: looks whether it is sound and
//! whether two are a pair, copies it under load, starts from the copy, saves what is left of a damaged
//! one.

use crate::support::clients::{Clients, Sent};
use crate::support::journals::{Scratch, journal, journal_of_two, open_attempts, records};
use crate::support::seeds::StopAtEnd;
use crate::support::system::{
    Booking, Instance, Processor, QUICK, Random, addresses, id, pair_with, payment,
};
use crate::support::{PATIENCE, wait_until, wait_until_within};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

const CLIENTS: u64 = 4;
/// Between two payments of a client: as fast as it is answered.
const TICK: Duration = Duration::ZERO;
const SETTLED_AT_LEAST: u64 = 300;
/// What a start says of a journal that is a copy.
const RESTORED: &str = "it is a copy, or was restored";
/// Nothing is paid with a copy for half of `--adopt-after`.
const SOON: [&str; 2] = ["--adopt-after", "400ms"];

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Refused in one line with exit code 2, and nothing but what is there already is in the folder.
fn assert_refused(output: &Output, why: &str, scratch: &Scratch, there: &[&str]) {
    let told = text(output);
    assert_eq!(code(output), Some(2), "{told}");
    assert!(told.starts_with("galo: ") && told.lines().count() == 1, "{told}");
    assert!(told.contains(why), "{told}");
    let names = fs::read_dir(scratch.path()).unwrap().flatten();
    let names: HashSet<String> = names.map(|it| it.file_name().into_string().unwrap()).collect();
    assert_eq!(names, there.iter().map(|name| (*name).to_string()).collect(), "{told}");
}

#[test]
fn what_is_no_journal_is_refused_and_nothing_is_changed() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other/notes.txt"), "mine").unwrap();
    let data = at("journal");
    Instance::alone(&["--data", &data]).kill();
    let there = ["empty", "other", "journal"];
    let refused = |output: Output, why: &str| assert_refused(&output, why, &scratch, &there);
    for name in ["empty", "other"] {
        for action in ["check", "dump"] {
            refused(journal(action, at(name)), "no directory of a journal");
        }
        refused(journal_of_two("check", &data, &at(name)), "no directory of a journal");
        for action in ["copy", "salvage"] {
            refused(journal_of_two(action, &at(name), &at("new")), "no directory of a journal");
        }
    }
    refused(journal("check", at("missing")), "cannot read");
    for action in ["copy", "salvage"] {
        refused(journal_of_two(action, &at("missing"), &at("new")), "cannot read");
        refused(journal_of_two(action, &data, &at("other")), "is no empty directory");
        refused(journal_of_two(action, &data, &at("journal/new")), "would be inside");
        refused(journal_of_two(action, &data, &at("no/new")), "cannot read");
    }
    assert_eq!(fs::read_to_string(at("other/notes.txt")).unwrap(), "mine");
    // Of one in use only a copy is made.
    let _instance = Instance::alone(&["--data", &data]);
    refused(journal_of_two("salvage", &data, &at("new")), "in use");
    assert_eq!(code(&journal_of_two("copy", &data, &at("empty"))), Some(0));
    assert_eq!(code(&journal("check", at("empty"))), Some(0));
}

#[test]
fn a_check_says_what_it_has_looked_at() {
    let scratch = Scratch::new();
    let data = scratch.join("journal");
    let processors = Processor::both();
    let flags = [&QUICK[..], &["--data", &data]].concat();
    let mut instance = Instance::start(addresses(&processors), &flags);
    for number in 0..10 {
        assert_eq!(instance.pay(&id(number), "19.90").status, 202);
    }
    instance.settle();
    wait_until("the settlements are written", || settled(&data) == 10);
    instance.kill();
    let output = journal("check", &data);
    let told = text(&output);
    assert_eq!(code(&output), Some(0), "{told}");
    let [default, fallback] = addresses(&processors);
    for line in [
        &*format!(": of instance 1, alone, default http://{default}, fallback http://{fallback}\n"),
        "files: ",
        "\nfrom 20",
        "settled at default: 10, 199.00\nsettled at fallback: 0, 0.00\n",
        "outstanding: 0 waiting, 0 in doubt\nadopted, and to be told: 0\nrejected: 0\nids: 10\n",
        "accounts: 0, 0 entries, 0 with a key\n",
    ] {
        assert!(told.contains(line), "{line:?}\n{told}");
    }
    assert!(told.ends_with("sound\n"), "{told}");
}

fn settled(data: &str) -> usize {
    records(data).iter().filter(|line| line.words[0] == "Settled").count()
}

#[test]
fn a_pair_is_told_from_what_is_none() {
    let scratch = Scratch::new();
    let data = ["one", "other"].map(|name| scratch.join(name));
    let processors = Processor::both();
    let args = data.each_ref().map(|data| [&QUICK[..], &["--data", data]].concat());
    let instances = pair_with(addresses(&processors), args.each_ref().map(Vec::as_slice));
    for number in 0..20 {
        assert_eq!(instances[number as usize % 2].pay(&id(number), "1.00").status, 202);
    }
    instances.iter().for_each(Instance::settle);
    wait_until("the settlements are written", || settled(&data[0]) + settled(&data[1]) == 20);
    let [one, other] = &data;
    let output = journal_of_two("check", one, other);
    assert_eq!(code(&output), Some(0), "{}", text(&output));
    assert!(text(&output).ends_with(&format!("{one} and {other} are a pair\n")));
    // A copy of the first is not its other half: it has paid the same.
    let copy = scratch.join("copy");
    assert_eq!(code(&journal_of_two("copy", one, &copy)), Some(0));
    let output = journal_of_two("check", one, &copy);
    let told = text(&output);
    assert_eq!(code(&output), Some(1), "{told}");
    assert!(told.contains("\nboth are copies of one journal, "), "{told}");
    assert!(told.contains("\nboth are of instance 1\n"), "{told}");
    assert_eq!(told.matches(" is settled in both\n").count(), settled(one), "{told}");
}

/// Nothing is booked by both processors, or twice by one; returns what is booked, by its id.
fn booked_once(processors: &mut [Processor; 2]) -> HashMap<String, Booking> {
    let mut booked = HashMap::new();
    for row in processors.iter_mut().flat_map(Processor::books) {
        let other = booked.insert(row.id.clone(), row.clone());
        assert_eq!(other, None, "paid twice: {row:?}");
    }
    booked
}

/// Clients send as fast as they are answered. Meanwhile `act`; then they stop.
fn under_load<T>(instance: &Instance, seed: u64, act: impl FnOnce() -> T) -> (T, Sent) {
    let clients = Clients::new([instance.entry; 2], TICK, Random::uuid);
    let done = thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (clients, random) = (&clients, Random(seed << 8 | client));
            scope.spawn(move || clients.send(random));
        }
        let _stop = StopAtEnd(&clients.stop);
        act()
    });
    (done, clients.sent.into_inner().unwrap())
}

/// The clients do not know what became of what they sent, and send all of it again.
fn send_again(restored: &Instance, sent: &Sent) {
    let mut client = restored.client();
    for (id, cents) in &sent.cents {
        let amount = crate::support::system::decimal(*cents);
        assert_eq!(client.call(payment(id, &amount)).status, 202);
    }
    restored.settle();
}

/// Everything that was settled before the copy is in the totals of a start with it; what has happened
/// since is asked about; and nothing is paid twice, also what the clients send again.
#[test]
fn a_copy_under_load_is_started_from_and_nothing_is_paid_twice() {
    let scratch = Scratch::new();
    let [data, copy] = ["journal", "copy"].map(|name| scratch.join(name));
    let mut processors = Processor::both();
    let addresses = addresses(&processors);
    let flags = [&QUICK[..], &SOON, &["--data"]].concat();
    let mut instance = Instance::start(addresses, &[&flags[..], &[&data]].concat());
    let (before, sent) = under_load(&instance, 7, || {
        let settled_so_far = || instance.summary("").count();
        wait_until_within(PATIENCE, "there is load", || match settled_so_far() {
            SETTLED_AT_LEAST.. => Ok(()),
            few => Err(format!("{few} settled")),
        });
        let before = settled_so_far();
        // They are written a moment after they count.
        wait_until("what was settled is written", || settled(&data) as u64 >= before);
        // The processors answer, and not at once: there is always something under way.
        processors.iter_mut().for_each(|processor| processor.set_delay_ms(3));
        let output = journal_of_two("copy", &data, &copy);
        assert_eq!(code(&output), Some(0), "{}", text(&output));
        let until = settled_so_far() + SETTLED_AT_LEAST;
        wait_until_within(PATIENCE, "the original goes on", || match settled_so_far() {
            count if count > until => Ok(()),
            count => Err(format!("{count} settled of {until}")),
        });
        before
    });
    instance.kill();
    assert!(!fs::exists(format!("{copy}.unfinished")).unwrap(), "nothing is left behind");
    let output = journal("check", &copy);
    assert_eq!(code(&output), Some(0), "{}", text(&output));
    let in_copy = settled(&copy) as u64;
    assert!(in_copy >= before, "{in_copy} of {before} settled before are in the copy");
    let booked = booked_once(&mut processors);
    assert!(booked.len() as u64 > in_copy, "there is something that the copy does not know");

    let restored = Instance::start(addresses, &[&flags[..], &[&copy]].concat());
    wait_until(RESTORED, || restored.galo.stderr().contains(RESTORED));
    assert!(restored.summary("").count() >= before);
    send_again(&restored, &sent);
    let booked = booked_once(&mut processors);
    for id in &sent.accepted {
        assert_eq!(booked.get(id).map(|row| row.cents), Some(sent.cents[id]), "{id} is paid");
    }
    let summary = restored.summary("");
    assert!(summary.count() <= booked.len() as u64, "{summary:?}");
}

/// Laid over the files that were there, with their inodes, it is known as a copy all the same.
#[test]
fn a_copy_is_known_as_one_wherever_it_is_put() {
    let scratch = Scratch::new();
    let [data, copy] = ["journal", "copy"].map(|name| scratch.join(name));
    let mut instance = Instance::alone(&["--data", &data]);
    assert_eq!(instance.pay(&id(1), "1.00").status, 202);
    assert_eq!(code(&journal_of_two("copy", &data, &copy)), Some(0));
    instance.kill();
    for entry in fs::read_dir(&copy).unwrap().flatten().filter(|it| it.path().is_file()) {
        let onto = Path::new(&data).join(entry.file_name());
        // Opened and written to, not replaced.
        let bytes = fs::read(entry.path()).unwrap();
        fs::write(onto, bytes).unwrap();
    }
    instance.start_again();
    wait_until(RESTORED, || instance.galo.stderr().contains(RESTORED));
    // And for a day each start says why nothing is paid at first.
    instance.kill();
    instance.start_again();
    let said = "it was restored, or used with other fees, less than 24 h ago";
    wait_until(said, || instance.galo.stderr().contains(said));
    wait_until("that is said of a payment, too", || {
        instance.get(&format!("/payments/{}", id(1))).body.contains("a journal was restored")
    });
}

/// The other one may have paid at what was the cheapest until now: it is looked for there first.
#[test]
fn a_pair_that_has_other_fees_than_before_looks_before_it_pays() {
    let (scratch, mut processors) = (Scratch::new(), Processor::both());
    let data = ["1", "2"].map(|name| scratch.join(name));
    let start = |fees: [&str; 2]| {
        let args = |data| {
            [&SOON[..], &["--data", data, "--default-fee", fees[0], "--fallback-fee", fees[1]]]
                .concat()
        };
        let [first, second] = [args(&data[0][..]), args(&data[1][..])];
        pair_with(addresses(&processors), [&first, &second])
    };
    drop(start(["0.05", "0.15"]));
    let two = start(["0.15", "0.05"]);
    for instance in &two {
        let stderr = instance.galo.stderr();
        assert!(stderr.contains("used with other fees"), "{stderr}");
    }
    assert_eq!(two[0].pay(&id(2), "1.00").status, 202);
    two[0].settle();
    drop(two);
    let [default, fallback] = processors.each_mut().map(Processor::books);
    assert_eq!((default.len(), fallback.len()), (0, 1));
}

/// A hole in the middle: what lay there is named, and what is left starts and pays nothing twice.
#[test]
fn a_damaged_journal_is_salvaged_and_nothing_is_paid_twice() {
    let scratch = Scratch::new();
    let [data, new] = ["journal", "new"].map(|name| scratch.join(name));
    let mut processors = Processor::both();
    let addresses = addresses(&processors);
    let flags = [&QUICK[..], &SOON, &["--data"]].concat();
    let mut instance = Instance::start(addresses, &[&flags[..], &[&data]].concat());
    let ((), sent) = under_load(&instance, 8, || {
        wait_until_within(PATIENCE, "there is load", || match instance.summary("").count() {
            SETTLED_AT_LEAST.. => Ok(()),
            few => Err(format!("{few} settled")),
        });
    });
    instance.kill();
    let whole = settled(&data);
    let lines = records(&data);
    let (from, to) = (&lines[lines.len() / 3], &lines[lines.len() / 3 * 2]);
    let path = Path::new(&data).join(&from.file);
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(from.file, to.file);
    bytes[from.offset as usize..to.offset as usize].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(code(&journal("check", &data)), Some(1));

    let refused = journal_of_two("copy", &data, &scratch.join("copy"));
    assert!(text(&refused).contains("galo journal salvage"), "{}", text(&refused));
    let output = journal_of_two("salvage", &data, &new);
    let told = text(&output);
    assert_eq!(code(&output), Some(1), "{told}");
    let hole = to.offset - from.offset;
    let (offset, end) = (from.offset, to.offset);
    let named = format!("lost: {}: {hole} bytes from offset {offset} to {end}, ", from.file);
    assert!(told.contains(&named), "{named}\n{told}");
    assert!(told.contains("\nask the processors: settlements requested between 20"), "{told}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is not changed");
    let output = journal("check", &new);
    assert_eq!(code(&output), Some(0), "{}", text(&output));
    let in_hole = lines.iter().filter(|line| (offset..end).contains(&line.offset));
    let lost = in_hole.filter(|line| line.file == from.file && line.words[0] == "Settled").count();
    assert!(lost > 0);
    assert_eq!(settled(&new), whole - lost);
    // Whatever is in doubt is listed, with where it is to be asked for.
    let asked = fs::read_to_string(Path::new(&new).join("to-ask.txt")).unwrap();
    for id in open_attempts(&new).keys() {
        assert!(asked.contains(&**id), "{id}: {asked}");
    }

    let restored = Instance::start(addresses, &[&flags[..], &[&new]].concat());
    wait_until(RESTORED, || restored.galo.stderr().contains(RESTORED));
    send_again(&restored, &sent);
    let booked = booked_once(&mut processors);
    for id in &sent.accepted {
        assert!(booked.contains_key(id), "{id} is paid");
    }
}
