//! Processors as they come and go: names that are added, names that are retired, and what was written
//! before.

use super::*;
use crate::base::clock::MS_PER_DAY;
use crate::journal::follow::{Follower, Told, beginning};
use crate::journal::identity::{Change, FILE_NAME};
use crate::journal::simulated::{ENOSPC, Fault};
use crate::payments::Totals;

fn settle(writer: &Writer, id: u128, processor: usize, at: i64) -> Line {
    let (amount, requested_at) = (Cents(id as i64 + 1), Timestamp(at));
    let processor = Processor::new(processor).unwrap();
    writer.append_accepted(PaymentId(id), amount, requested_at).unwrap();
    let settlement = Settlement { processor, amount, requested_at };
    let event = Event::Settled { id: PaymentId(id), settlement, attempts: Attempts(0) };
    writer.append(&event);
    Line { id: Some(PaymentId(id)), settlement, attempts: Attempts(0) }
}

fn counts(writer: &Writer) -> Each<u64> {
    writer.totals(Window::default()).unwrap().map(|it| it.count)
}

/// A journal of the contest's two gets a name with each start, while it is rewritten, merged and
/// archived: every sum of before and since is exact, by whichever width its file has.
#[test]
fn names_are_added_and_every_sum_stays_exact() {
    for keep_ms in [None, Some(3 * MS_PER_DAY)] {
        let storage = Simulated::default();
        let options = Options { keep_ms, ..options(1024) };
        let mut expected = Each::<Totals>::default();
        let mut rejected = Vec::new();
        for count in 2..=Processor::MAX {
            let (writer, recovered) = match count {
                2 => open(&storage, options).unwrap(),
                _ => open_by(&storage, options, count).unwrap(),
            };
            assert_eq!(recovered.books.rejected, rejected);
            for number in 0..120_u128 {
                let id = count as u128 * 1_000 + number;
                let at = count as i64 * MS_PER_DAY + number as i64 * 400_000;
                let line = settle(&writer, id, number as usize % count, at);
                let Settlement { processor, amount, .. } = line.settlement;
                let amount = crate::base::money::Total(amount.0.into());
                expected[processor.index()] += Totals { count: 1, amount };
                writer.flush();
                while writer.keep() {}
            }
            let rejection = rejection_by(PaymentId(count as u128), count);
            writer.append(&Event::Rejected(rejection));
            rejected.push(rejection);
            writer.flush();
            assert_eq!(writer.totals(Window::default()).unwrap(), expected, "{count}");
            assert_eq!(
                replayed(&storage).unwrap().settled,
                expected.map(|it| (it.count, it.amount.0))
            );
        }
        let files = storage.names().unwrap();
        assert_eq!(files.iter().any(|name| name.ends_with(".archive")), keep_ms.is_some());
        let copied = Simulated::default();
        crate::journal::copy::copy(&storage, &copied).unwrap();
        super::salvage::hand_on_identity(&storage, &copied);
        let shelf = replay(&copied, 0).unwrap().shelf;
        assert_eq!(shelf.read_totals(Window::default()).unwrap(), expected);
    }
}

/// A name that is gone keeps its number and its books, and comes back to them.
#[test]
fn a_retired_name_keeps_its_books() {
    let storage = Simulated::default();
    let (writer, _) = open_by(&storage, options(1024), 4).unwrap();
    (0..40).for_each(|id| _ = settle(&writer, id, id as usize % 4, id as i64));
    writer.append_accepted(PaymentId(99), Cents(1), Timestamp(5)).unwrap();
    let attempted = Event::Attempted {
        id: PaymentId(99),
        processor: Processor::new(2).unwrap(),
        requested_at: Timestamp(6),
    };
    writer.append(&attempted);
    writer.flush();
    while writer.keep() {}
    drop(writer);
    let without = |name: &str| {
        let kept = owner_of(4).processors;
        let kept = kept.iter().filter(|it| it.1 != name);
        let kept = kept.map(|(_, name, url)| (name.to_string(), url.to_string()));
        Owner { processors: Table::new(kept.collect()).unwrap(), ..owner_of(4) }
    };
    let claim = |owner: &Owner, meant: &[Change]| {
        let mut found = Found::new(Arc::new(storage.clone()), options(1024)).unwrap();
        found.claim(owner, meant, Timestamp(9)).map(|told| (found, told))
    };
    let operations = storage.operations();
    for meant in [&[][..], &[Change::Processors]] {
        let refused =
            claim(&without("pix"), meant).err().expect("one is in doubt there").to_string();
        assert!(refused.contains("1 payments may be booked at pix (http://pix)"), "{refused}");
    }
    assert_eq!(storage.operations(), operations, "nothing is changed");
    let (found, told) = claim(&without("card"), &[]).unwrap();
    assert_eq!(told, ["not among the processors now, with its books kept: card"]);
    assert_eq!(*found.names(), names(4));
    let (writer, recovered) = found.start().unwrap();
    assert_eq!(recovered.doubts[0].processor, Processor::new(2).unwrap());
    assert_eq!(counts(&writer), each([10, 10, 10, 10]));
    writer.append(&Event::Released { id: PaymentId(99) });
    writer.flush();
    drop(writer);
    let (found, _) = claim(&without("pix"), &[]).unwrap();
    let (writer, _) = found.start().unwrap();
    assert_eq!(counts(&writer), each([10, 10, 10, 10]));
    drop(writer);
    let (writer, recovered) = open_by(&storage, options(1024), 4).unwrap();
    assert_eq!((counts(&writer), recovered.waiting.len()), (each([10, 10, 10, 10]), 1));
    settle(&writer, 100, 3, 5);
    assert_eq!(counts(&writer), each([10, 10, 10, 11]));
}

/// The table of a new journal is the owner's, in its order; a journal that has been written to without
/// one has the contest's two first.
#[test]
fn a_new_journal_has_the_names_of_its_owner() {
    let owner = |names: &[&str]| {
        let processors = names.iter().map(|name| ((*name).to_string(), "http://x".to_string()));
        Owner { processors: Table::new(processors.collect()).unwrap(), ..owner_of(1) }
    };
    let start = |storage: &Simulated, names: &[&str]| {
        let mut found = Found::new(Arc::new(storage.clone()), options(1024)).unwrap();
        found.claim(&owner(names), &[], Timestamp(9)).unwrap();
        found.start().unwrap().0.names.to_string()
    };
    let storage = Simulated::default();
    assert_eq!(start(&storage, &["pix", "card"]), "pix, card");
    assert_eq!(start(&storage, &["card", "boleto", "pix"]), "pix, card, boleto");
    assert_eq!(start(&storage, &["boleto"]), "pix, card, boleto");
    let storage = Simulated::default();
    drop(open(&storage, options(1024)).unwrap());
    assert_eq!(start(&storage, &["pix", "default"]), "default, fallback, pix");
}

/// No file means a name that is not on the disk: without space for the table the start is refused.
#[test]
fn without_space_for_a_new_name_nothing_is_started() {
    for is_new in [false, true] {
        let storage = Simulated::default();
        if !is_new {
            drop(open_by(&storage, options(1024), 2).unwrap());
        }
        let before = storage.names().unwrap();
        storage.fault_in(2, Fault::Error(ENOSPC));
        let refused = open_by(&storage, options(1024), 3).err().expect("no space").to_string();
        assert!(refused.contains(FILE_NAME), "{refused}");
        assert_eq!(storage.names().unwrap(), before);
        let (writer, _) = open_by(&storage, options(1024), 3).unwrap();
        settle(&writer, 1, 2, 5);
        writer.flush();
        assert_eq!(replayed(&storage).unwrap().settled[2], (1, 2));
    }
}

/// Whoever follows over a start that adds a name knows it before anything is told by it.
#[test]
fn one_who_follows_hears_of_new_names() {
    let storage = Simulated::default();
    let (writer, _) = open_by(&storage, options(4096), 2).unwrap();
    settle(&writer, 1, 1, 5);
    writer.flush();
    let mut follower = Follower::new(Arc::new(storage.clone()), names(2), beginning(1), None);
    let mut told: Vec<String> = Vec::new();
    let mut poll = |told: &mut Vec<String>| loop {
        let names = follower.names().clone();
        let mut each = |_, it: Told| {
            if let Told::Settled(line) = it {
                told.push(names.name_of(line.settlement.processor).to_string());
            }
            Ok::<(), JournalError>(())
        };
        if !follower.step(Position::LAST, &mut each).unwrap() {
            break;
        }
    };
    poll(&mut told);
    assert_eq!(told, ["fallback"]);
    drop(writer);
    let (writer, _) = open_by(&storage, options(4096), 3).unwrap();
    settle(&writer, 2, 2, 6);
    settle(&writer, 3, 0, 6);
    writer.flush();
    poll(&mut told);
    assert_eq!(told, ["fallback", "pix", "default"]);
}

/// `identity` gone or damaged: what fits the files is taken, and what nobody can know is refused.
#[test]
fn a_salvage_finds_the_names_by_the_files() {
    use crate::journal::salvage::guess_identity;
    let storage = Simulated::default();
    let (writer, _) = open_by(&storage, options(1024), 3).unwrap();
    (0..40).for_each(|id| _ = settle(&writer, id, id as usize % 3, id as i64));
    writer.flush();
    while writer.keep() {}
    let whole = storage.bytes(FILE_NAME);
    let guessed = |bytes: Vec<u8>| {
        storage.set_bytes(FILE_NAME, bytes);
        guess_identity(&storage, 7).unwrap().names().clone()
    };
    let change = |from: &str, to: &str| {
        String::from_utf8(whole.clone()).unwrap().replace(from, to).into_bytes()
    };
    assert_eq!(guessed(whole.clone()), names(3));
    assert_eq!(guessed(change("crc=", "crc=0")), names(3));
    assert_eq!(guessed(change("http://pix", "")), names(3));
    // Of a name that is damaged only the contest's are left, and the files are refused by name.
    let names = guessed(change("2 pix", "2 pox"));
    assert_eq!(names, Names::contest());
    let to = Simulated::default();
    let refused = crate::journal::salvage::salvage(&storage, &to, &names, "", &mut Vec::new());
    assert!(matches!(refused, Err(JournalError::OtherNames { count: 3, .. })), "{refused:?}");
}

/// Whatever ends a payment, with as many processors as there can be.
#[test]
fn there_is_room_for_the_longest_rejection_of_each_payment() {
    let storage = Simulated::default();
    const SEGMENT: usize = 64 * 1024;
    storage.set_capacity(Some(2 * SEGMENT));
    let (writer, _) = open_by(&storage, options(SEGMENT), Processor::MAX).unwrap();
    let mut accepted = 0_u128;
    while writer.has_room() {
        writer.append_accepted(PaymentId(accepted), Cents(7), Timestamp(0)).unwrap();
        accepted += 1;
    }
    assert!(accepted > 200, "{accepted}");
    for id in 0..accepted {
        assert!(writer.has_room_for_attempt(), "attempt {id} of {accepted}");
        let (id, processor) = (PaymentId(id), Processor::new(id as usize % 8).unwrap());
        writer.append(&Event::Attempted { id, processor, requested_at: Timestamp(1) });
        writer.flush();
        writer.sync();
    }
    for id in 0..accepted {
        writer.append(&Event::Rejected(rejection_by(PaymentId(id), Processor::MAX)));
        writer.flush();
        writer.sync();
    }
    assert_eq!(replayed(&storage).unwrap().rejected.len() as u128, accepted);
}
