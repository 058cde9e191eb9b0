//! Files that have gone, the newest too; and the manifest itself damaged, gone, or not to be written.

use super::*;
use crate::journal::head::{self, Kind as FileKind};
use crate::journal::manifest::{FILE_NAME, Manifest, Named};
use crate::journal::simulated::{EIO, ENOSPC, Fault};
use crate::journal::{Journal, copy, salvage};

/// Where the older slot is, or the newer, is known by its sequence.
const SLOTS: [usize; 2] = [0, 4096];

/// A journal in use with files of every kind, none of which can be spared.
fn used() -> (Simulated, Model) {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(2048)).unwrap();
    let (mut random, mut clock, mut model) = (Random(5), 0, Model::default());
    for round in 0..1_500 {
        if let Some(step) = model.any_step(Traffic::ALL[2 + round % 3], &mut random, &mut clock)
            && !matches!(step, Step::Purge)
            && model.append(step, &writer).is_some()
        {
            model.apply(step);
        }
        writer.flush();
        writer.keep();
    }
    while writer.keep() {}
    drop(writer);
    (storage, model)
}

fn files_of(storage: &Simulated) -> Vec<String> {
    let mut names = storage.names().unwrap();
    names.retain(|name| FileKind::of_file_name(name).is_some());
    names
}

fn refused(storage: &Simulated) -> String {
    let error = open(storage, options(2048)).err().expect("it is refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// Each file in turn, and of each kind all of them: a start is refused, and so is a copy, and a salvage
/// says what is missing.
#[test]
fn whatever_has_gone_is_named() {
    let (storage, model) = used();
    assert_eq!(replayed(&storage).unwrap(), model);
    let names = files_of(&storage);
    let kinds = [".journal", ".books", ".ids", ".notes", ".accounts"];
    assert!(kinds.iter().all(|kind| names.iter().any(|name| name.ends_with(kind))), "{names:?}");
    let each = names.iter().map(|name| vec![name]);
    let all = kinds.map(|kind| names.iter().filter(|it| it.ends_with(kind)).collect::<Vec<_>>());
    // From the newest on, and at last all of them.
    let newest = (0..names.len()).map(|from| names[from..].iter().collect());
    for gone in each.chain(all).chain(newest) {
        let damaged = storage.copy();
        gone.iter().for_each(|name| damaged.remove(name).unwrap());
        let is_named = |line: &str| gone.iter().any(|name| line.contains(&**name));
        let (before, line) = (damaged.operations(), refused(&damaged));
        assert!(is_named(&line) && line.contains("missing"), "{gone:?}: {line}");
        assert_eq!(damaged.operations(), before, "nothing was changed");
        let copied = copy::copy(&damaged, &Simulated::default()).unwrap_err().to_string();
        assert!(is_named(&copied), "{gone:?}: {copied}");
        let (to, mut told) = (Simulated::default(), Vec::new());
        assert!(!salvage::salvage(&damaged, &to, &Names::contest(), "", &mut told).unwrap());
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("lost: "), "{told}");
        if gone.len() == 1 {
            assert!(told.contains(&format!("lost: {}: ", gone[0])), "{told}");
        }
        open(&to, options(2048)).unwrap();
    }
}

/// On a real disk, as the threads leave it.
#[test]
fn the_newest_file_of_a_real_journal_is_missed() {
    let (path, other) = (temporary("manifest"), temporary("manifest-less"));
    let options = Options { segment_bytes: 8 * 1024, ..Options::new(Durability::Process, 10, 50) };
    let (journal, _) = Journal::open(&path.0, options).unwrap();
    for id in (0..2_000).map(PaymentId) {
        journal.append_accepted(id, Cents(10), Timestamp(1)).unwrap();
        journal.append(&super::real::settled(id, Timestamp(2)));
        journal.flush();
    }
    drop(journal);
    let names: Vec<String> = std::fs::read_dir(&path.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let ours = names.iter().filter(|name| FileKind::of_file_name(name).is_some());
    assert!(ours.clone().count() > 3, "{names:?}");
    for gone in ours {
        let _ = std::fs::remove_dir_all(&other.0);
        std::fs::create_dir(&other.0).unwrap();
        for name in names.iter().filter(|name| *name != gone) {
            std::fs::copy(path.0.join(name), other.0.join(name)).unwrap();
        }
        let Err(error) = Journal::open(&other.0, options) else { panic!("{gone} is not missed") };
        let line = error.to_string();
        assert!(line.contains(gone) && line.contains("missing"), "{line}");
        let mut told = Vec::new();
        assert!(!checked(&other.0, &mut told).unwrap());
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains(gone) && told.contains("manifest: names "), "{told}");
    }
    Journal::open(&path.0, options).unwrap();
}

/// Another file of the same name, whole in itself: from a backup, or of another journal.
#[test]
fn another_file_of_the_same_name_is_told_apart() {
    let (storage, _) = used();
    let names = files_of(&storage);
    let name = names.iter().rfind(|name| name.ends_with(".ids")).unwrap();
    let (_, number) = FileKind::of_file_name(name).unwrap();
    let ids = crate::journal::books::encode_ids(number, number, &[(PaymentId(7), Cents(7))]);
    storage.set_bytes(name, ids);
    let line = refused(&storage);
    assert!(line.contains(name) && line.contains("another one than the manifest names"), "{line}");
}

/// One slot is enough, and it is known when neither is whole; a directory of this version without a
/// manifest is not taken for one of before.
#[test]
fn a_manifest_that_is_damaged_or_gone_is_noticed() {
    let (storage, model) = used();
    let bytes = storage.bytes(FILE_NAME);
    let sequences = SLOTS.map(|at| u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap()));
    let older = SLOTS[usize::from(sequences[0] > sequences[1])];
    for bit in 0..4096 * 8 {
        let damaged = storage.copy();
        let mut flipped = bytes.clone();
        flipped[older + bit / 8] ^= 1 << (bit % 8);
        damaged.set_bytes(FILE_NAME, flipped);
        assert_eq!(replayed(&damaged).unwrap(), model, "bit {bit}");
    }
    let damaged = storage.copy();
    damaged.set_bytes(FILE_NAME, vec![0; bytes.len()]);
    let line = refused(&damaged);
    assert!(line.contains("manifest is damaged") && line.contains("neither"), "{line}");
    damaged.remove(FILE_NAME).unwrap();
    let line = refused(&damaged);
    assert!(line.contains("manifest is missing") && line.contains("salvage"), "{line}");
    assert!(copy::copy(&damaged, &Simulated::default()).is_err());
    let (to, mut told) = (Simulated::default(), Vec::new());
    assert!(!salvage::salvage(&damaged, &to, &Names::contest(), "", &mut told).unwrap());
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("lost: manifest: it is missing"), "{told}");
    assert_eq!(replayed(&to).unwrap(), model, "all else is there");
    // One of before.
    let before = storage.copy();
    before.remove(FILE_NAME).unwrap();
    for name in files_of(&before) {
        let mut bytes = before.bytes(&name);
        head::set_version(&mut bytes, head::VERSION_OF_MANIFEST - 1);
        before.set_bytes(&name, bytes);
    }
    assert_eq!(replayed(&before).unwrap(), model);
    drop(open(&before, options(2048)).unwrap());
    assert!(before.names().unwrap().contains(&FILE_NAME.to_string()));
    before.remove(files_of(&before).last().unwrap()).unwrap();
    assert!(refused(&before).contains("the manifest names it"));
}

/// Whatever is named is there, and all that counts is named, in the middle of any day's work.
#[test]
fn it_names_what_is_there() {
    for traffic in Traffic::ALL {
        let storage = Simulated::default();
        let (writer, _) = open(&storage, options(1024)).unwrap();
        let (mut random, mut clock, mut model) = (Random(3), 0, Model::default());
        for _ in 0..1_000 {
            if let Some(step) = model.any_step(traffic, &mut random, &mut clock)
                && model.append(step, &writer).is_some()
            {
                model.apply(step);
            }
            writer.flush();
            writer.keep();
        }
        while writer.keep() {}
        let stored = crate::journal::manifest::read(&storage).unwrap().unwrap();
        let named: Vec<String> =
            stored.named.files().iter().map(|(kind, number)| kind.file_name(*number)).collect();
        assert_eq!(named.len(), files_of(&storage).len(), "{traffic:?}: {named:?}");
        assert!(named.iter().all(|name| files_of(&storage).contains(name)), "{traffic:?}");
    }
}

/// Without space for it payments go on, nothing that it names is removed, and later it is written.
#[test]
fn one_that_cannot_be_written_stops_nothing() {
    let storage = Simulated::default();
    let mut named = Named::default();
    named.insert_segment(1);
    let mut manifest = Manifest::create(&storage, named).unwrap();
    storage.fault_in(1, Fault::Error(ENOSPC));
    manifest.change(|named| named.insert_segment(2)).unwrap_err();
    assert!(manifest.is_behind());
    let stored = || crate::journal::manifest::read(&storage).unwrap().unwrap().named;
    assert_eq!(stored().files(), [(FileKind::Segment, 1)]);
    manifest.change(|_| ()).unwrap();
    assert_eq!(stored().files().len(), 2);
    assert!(!manifest.is_behind());
    let before = storage.operations();
    manifest.change(|named| named.insert_segment(2)).unwrap();
    assert_eq!(storage.operations(), before, "nothing is new");
    storage.fault_in(2, Fault::Error(EIO));
    manifest.change(|named| named.insert_segment(3)).unwrap_err();
}

/// Of very many files the newest are named.
#[test]
fn there_is_room_for_the_newest() {
    let storage = Simulated::default();
    let mut named = Named::default();
    (1..=1_000).for_each(|number| named.insert_segment(number));
    Manifest::create(&storage, named).unwrap();
    let stored = crate::journal::manifest::read(&storage).unwrap().unwrap();
    let numbers: Vec<u32> = stored.named.files().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (663..=1_000).collect::<Vec<u32>>());
    assert_eq!(storage.bytes(FILE_NAME).len(), 8192);
}
