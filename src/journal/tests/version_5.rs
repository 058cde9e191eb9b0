//! A journal that galo of layout version 5 has left, killed in the middle of its work: two processors, a
//! ledger, books and segments. It is in the folder `version-5` beside this file, as `galo journal copy` of that
//! version wrote it, its segments cut behind their records.

use super::*;
use crate::base::instance::Instance;
use crate::journal::head::{self, Kind as FileKind};
use crate::journal::identity::{self, Change, Identity, Owner, Table};
use crate::journal::names::Reference;
use crate::journal::{Found, LEDGER_DIRECTORY};
use crate::payments::each;
use crate::payments::names::Names;
use std::path::PathBuf;

const ACCEPTED: u128 = 0x4a79_01b8_7d26_4d9d_aa19_0000_0000_0000;

fn stored(directory: &str) -> Simulated {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "src/journal/tests/version-5", directory].iter().collect();
    let storage = Simulated::default();
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        if entry.path().is_file() {
            let name = entry.file_name().into_string().unwrap();
            let file = storage.create(&name).unwrap();
            file.write_at(&std::fs::read(entry.path()).unwrap(), 0).unwrap();
            file.sync().unwrap();
        }
    }
    storage.sync_directory().unwrap();
    storage
}

/// The versions of the files that are there.
fn versions(storage: &Simulated) -> BTreeMap<String, u32> {
    let mut names = storage.names().unwrap();
    names.retain(|name| FileKind::of_file_name(name).is_some());
    names.into_iter().map(|name| (name.clone(), head::version_of(&storage.bytes(&name)))).collect()
}

fn owner() -> Owner {
    let processors = [1, 2].map(|number| format!("http://127.0.0.1:1800{number}"));
    let processors = Table::contest(processors);
    Owner { instance: Instance(1), is_paired: false, processors, are_of_file: false, terms: None }
}

fn assert_payments(model: &Model) {
    let (default, fallback) = (Processor::DEFAULT, Processor::FALLBACK);
    let settled = |number: u128, processor, cents, at, attempts| {
        let (amount, requested_at) = (Cents(cents), Timestamp(at));
        let settlement = Settlement { processor, amount, requested_at };
        (PaymentId(ACCEPTED + number), (settlement, Attempts(attempts)))
    };
    let lines = [
        settled(1, default, 1991, 1_795_744_908_089, 1),
        settled(2, default, 1992, 1_795_744_908_106, 1),
        settled(3, default, 1993, 1_795_744_908_128, 1),
        settled(4, default, 1994, 1_795_744_908_159, 1),
        settled(5, fallback, 505, 1_795_744_910_006, 6),
        settled(6, fallback, 606, 1_795_744_911_938, 3),
    ];
    assert_eq!(model.lines, lines.into());
    assert_eq!(model.settled, each([(4, 7970), (2, 1111)]));
    let open = [
        (PaymentId(ACCEPTED + 7), (707, 1_795_744_913_703, None)),
        (PaymentId(ACCEPTED + 8), (808, 1_795_744_913_719, None)),
    ];
    assert_eq!(model.open, open.into());
    assert_eq!(model.attempts.values().map(|it| it.0).collect::<Vec<_>>(), [14, 14]);
}

#[test]
fn its_payments_are_read_and_go_on_under_the_table_of_names() {
    let storage = stored("");
    let before = versions(&storage);
    assert!(before.len() == 5 && before.values().all(|version| *version == 5), "{before:?}");
    assert_eq!(Identity::decode(&storage.bytes(identity::FILE_NAME)).unwrap().version, 1);
    assert_payments(&replayed(&storage).unwrap());

    // Others' URLs are refused as before.
    let other = Owner { instance: Instance(2), ..owner() };
    let mut found = Found::new(Arc::new(storage.clone()), options(4096)).unwrap();
    assert!(found.claim(&other, &[], Timestamp(5)).is_err());
    let mut found = Found::new(Arc::new(storage.clone()), options(4096)).unwrap();
    found.claim(&owner(), &[] as &[Change], Timestamp(5)).unwrap();
    let (writer, recovered) = found.start().unwrap();
    assert_payments(&Model::of_recovered(&writer, &recovered));
    let text = String::from_utf8(storage.bytes(identity::FILE_NAME)).unwrap();
    assert!(text.starts_with("version=6\n"), "{text}");
    assert!(text.contains("processor=1 fallback http://127.0.0.1:18002\n"), "{text}");
    let identity = Identity::decode(text.as_bytes()).unwrap();
    assert_eq!((identity.names(), &identity.owner), (&Names::contest(), &owner()));

    // All of them are over, and what is written from now on is of the new version.
    for number in [7, 8] {
        let id = PaymentId(ACCEPTED + number);
        let (amount, requested_at) = (Cents(101 * number as i64), Timestamp(9));
        let settlement = Settlement { processor: Processor::FALLBACK, amount, requested_at };
        writer.append(&Event::Settled { id, settlement, attempts: Attempts(2) });
    }
    writer.flush();
    while writer.keep() {}
    let after = versions(&storage);
    assert!(after.values().any(|version| *version == 6), "{after:?}");
    drop(writer);
    let (writer, recovered) = open(&storage, options(4096)).unwrap();
    let model = Model::of_recovered(&writer, &recovered);
    assert_eq!((model.settled, model.open.len()), (each([(4, 7970), (4, 1111 + 707 + 808)]), 0));
}

#[test]
fn its_ledger_is_read_and_goes_on() {
    let storage = stored(LEDGER_DIRECTORY);
    let before = versions(&storage);
    assert!(before.len() == 6 && before.values().all(|version| *version == 5), "{before:?}");
    let model = replayed(&storage).unwrap();
    let (writer, recovered) = open(&storage, options(1024)).unwrap();
    assert_eq!(Model::of_recovered(&writer, &recovered), model);
    let balances = model.accounts.iter().map(|(id, it)| (id.0, it.balance.0, it.sequence));
    assert_eq!(balances.collect::<Vec<_>>(), [(1, -2750, 4), (2, 1400, 2)]);
    let mut model = model;
    for step in 0..40 {
        let entry = model.any_entry(&mut Random(step + 1), 0);
        model.append(Step::Enter(entry), &writer).expect("room");
        model.apply(Step::Enter(entry));
        writer.flush();
        while writer.keep() {}
    }
    assert_eq!(replayed(&storage).unwrap(), model);
    let after = versions(&storage);
    assert!(after.values().all(|version| *version == 6), "{after:?}");
}

/// A file of another table in an otherwise sound journal.
#[test]
fn a_file_of_another_table_is_refused_by_whoever_reads_it() {
    let storage = Simulated::default();
    let writer = open(&storage, options(400)).unwrap().0;
    for number in 0..40 {
        writer.append(&Event::Rejected(rejection(PaymentId(number))));
        writer.flush();
        while writer.keep() {}
    }
    drop(writer);
    let mut tried = Vec::new();
    for name in storage.names().unwrap() {
        let Some((kind, _)) = FileKind::of_file_name(&name) else { continue };
        let storage = storage.copy();
        let mut bytes = storage.bytes(&name);
        let names = Names::new(["default", "fallback", "third"].map(String::from).into()).unwrap();
        head::set_reference(&mut bytes, Reference::to(&names));
        storage.set_bytes(&name, bytes);
        if matches!(kind, FileKind::Ids | FileKind::Accounts) {
            continue;
        }
        let operations = storage.operations();
        let found = Found::new(Arc::new(storage.clone()), options(400)).map(drop);
        let copied = crate::journal::copy::copy(&storage, &Simulated::default()).map(drop);
        let mut out = Vec::new();
        let salvaged = crate::journal::salvage::salvage(
            &storage,
            &Simulated::default(),
            &Names::contest(),
            "",
            &mut out,
        )
        .map(drop);
        for read in [found, copied, salvaged] {
            let Err(JournalError::OtherNames { file, .. }) = read else {
                panic!("{name}: {read:?}")
            };
            assert_eq!(file, name);
        }
        assert_eq!(storage.operations(), operations);
        tried.push(kind);
    }
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(tried, [FileKind::Segment, FileKind::Books, FileKind::Notes]);
}
