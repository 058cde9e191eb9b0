//! Files cut at every byte, and every byte of them flipped.

use super::*;
use crate::journal::head::{self, Kind as FileKind};
use crate::journal::storage::Storage;
use crate::journal::{inspect, manifest};

/// A journal with every kind of record over three segments, and what the model was after each.
pub(super) fn short_journal() -> (Simulated, Vec<Model>) {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(48 + 400)).unwrap();
    short_story(storage, writer, 2)
}

/// The same with so many processors.
pub(super) fn short_journal_of(count: usize) -> (Simulated, Vec<Model>) {
    let storage = Simulated::default();
    let (writer, _) = open_by(&storage, options(48 + 400), count).unwrap();
    short_story(storage, writer, count)
}

fn short_story(storage: Simulated, writer: Writer, count: usize) -> (Simulated, Vec<Model>) {
    let mut model = Model::of_processors(count);
    let mut states = vec![model.clone()];
    let mut step = |step: Step| {
        model.append(step, &writer).expect("room for it");
        model.apply(step);
        states.push(model.clone());
    };
    let id = |number: u128| PaymentId(number << 64 | 0xabcd);
    let [cheap, dear] = [0, count - 1].map(|number| Processor::new(number).unwrap());
    step(Step::Accept(id(50), 7, 1));
    step(Step::Purge);
    writer.flush();
    // Syncs, and nothing after it does: no record says that what follows was on the disk.
    while writer.keep() {}
    for round in 0..2 {
        let (number, at) = (round * 10, 1_752_000_000_000 + round as i64 * 1000);
        step(Step::Accept(id(number + 1), 1990, at));
        step(Step::Accept(id(number + 2), 5, at + 1));
        step(Step::Accept(id(number + 3), i64::MAX, at + 1));
        step(Step::Attempt(id(number + 1), cheap, at + 2));
        step(Step::Attempt(id(number + 2), dear, at + 3));
        writer.flush();
        step(Step::Release(id(number + 1)));
        step(Step::Settle(id(number + 2)));
        step(Step::Attempt(id(number + 1), dear, at + 5));
        step(Step::Settle(id(number + 1)));
        step(Step::Accept(id(number + 4), 7, at + 6));
        step(Step::Accept(id(number + 5), 8, at + 7));
        step(Step::Attempt(id(number + 4), cheap, at + 8));
        step(Step::Foreign(id(number + 4)));
        step(Step::Forward(id(number + 5)));
        step(Step::Accept(id(number + 6), 7, at + 8));
        step(Step::Reject(id(number + 6)));
        let mut enter = |account, sequence, text, balance| {
            let description = Description::new(text).unwrap();
            let transaction = Transaction { kind: Kind::Credit, value: Cents(5), description };
            let (account, balance, at) = (AccountId(account), Cents(balance), Micros(at));
            let key = Key(1 << 100 | u128::from(sequence));
            step(Step::Enter(Entry { account, sequence, transaction, balance, at, key }));
        };
        let before = round as u64 * 2;
        enter(7, before + 1, "x", 5 * before as i64 + 5);
        enter(8, before / 2 + 1, "🧀🧀🧀🧀🧀🧀🧀🧀🧀🧀", 5 * (before / 2) as i64 + 5);
        enter(7, before + 2, "to whom it", 5 * before as i64 + 10);
    }
    step(Step::Accept(id(99), 7, 1));
    writer.flush();
    (storage, states)
}

fn is_named(error: &JournalError) -> bool {
    use JournalError::{Corrupt, Missing, UnknownKind, UnknownVersion, Vanished};
    matches!(
        error,
        Corrupt { .. }
            | Missing { .. }
            | UnknownKind { .. }
            | UnknownVersion { .. }
            | Vanished { .. }
    )
}

/// The result of damage is a prefix or a named corruption: never a panic, never a wrong total.
fn check_damage(storage: &Simulated, states: &[Model], context: &str) -> bool {
    match replayed(storage) {
        Ok(found) => {
            assert!(states.contains(&found), "{context}: {found:#?}");
            true
        }
        Err(error) => {
            assert!(is_named(&error), "{context}: {error}");
            let line = error.to_string();
            assert!(!line.contains('\n') && line.contains("00000"), "{line}");
            false
        }
    }
}

#[test]
fn cut_at_every_byte_and_every_byte_flipped() {
    cut_and_flip(short_journal());
    cut_and_flip(short_journal_of(7));
}

fn cut_and_flip((original, states): (Simulated, Vec<Model>)) {
    assert_eq!(&replayed(&original).unwrap(), states.last().unwrap());
    let names = original.names().unwrap();
    let segments: Vec<&String> = names.iter().filter(|it| it.ends_with(".journal")).collect();
    assert!(segments.len() >= 3, "{names:?}");
    let (mut prefixes, mut corruptions) = (0, 0);
    for reboot in [false, true] {
        let storage = original.copy();
        if reboot {
            storage.reboot();
        }
        for name in &segments {
            let bytes = storage.bytes(name);
            for cut in 0..bytes.len() {
                storage.set_bytes(name, bytes[..cut].into());
                let sound = check_damage(&storage, &states, &format!("{name} cut at {cut}"));
                *(if sound { &mut prefixes } else { &mut corruptions }) += 1;
            }
            for at in 0..bytes.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= flip;
                    storage.set_bytes(name, flipped);
                    let context = format!("{name}, byte {at} flipped by {flip:#x}");
                    let sound = check_damage(&storage, &states, &context);
                    *(if sound { &mut prefixes } else { &mut corruptions }) += 1;
                }
            }
            storage.set_bytes(name, bytes);
        }
    }
    assert!(
        prefixes > 500 && corruptions > 2_000,
        "{prefixes} prefixes, {corruptions} corruptions"
    );
}

/// As a start reads it, and every volume as whoever asks it.
fn read_whole(storage: &Simulated) -> Result<Model, JournalError> {
    let replay = replay(storage, IDS_REMEMBERED)?;
    replay.shelf.volumes().values().try_for_each(|volume| volume.check())?;
    replayed(storage)
}

/// The same with books, ids and notes: those are whole or refused; of books a block when it is read.
#[test]
fn books_with_a_flipped_byte_are_refused() {
    let storage = Simulated::default();
    let writer = open(&storage, options(48 + 400)).unwrap().0;
    flip_books(&storage, writer, 2);
    let storage = Simulated::default();
    let writer = open_by(&storage, options(48 + 400), 5).unwrap().0;
    flip_books(&storage, writer, 5);
}

fn flip_books(storage: &Simulated, writer: Writer, count: usize) {
    let (mut random, mut clock, mut model) = (Random(11), 0, Model::of_processors(count));
    for _ in 0..300 {
        if let Some(step) = model.any_step(Traffic::Payments, &mut random, &mut clock)
            && model.append(step, &writer).is_some()
        {
            model.apply(step);
        }
    }
    // So that nearly all of it is rewritten.
    for (id, (_, _, attempt)) in model.open.clone() {
        let step = if attempt.is_some() { Step::Foreign(id) } else { Step::Forward(id) };
        model.append(step, &writer).unwrap();
        model.apply(step);
    }
    writer.flush();
    while writer.keep() {}
    let expected = replayed(storage).unwrap();
    assert_eq!(expected, model);
    let names = storage.names().unwrap();
    let last_ids = names.iter().rfind(|it| it.ends_with(".ids")).unwrap();
    let notes = names.iter().filter(|it| it.ends_with(".notes"));
    assert!(notes.clone().count() > usize::from(count == 2), "{names:?}");
    let books = names.iter().filter(|it| it.ends_with(".books"));
    for name in books.chain([last_ids]).chain(notes) {
        let bytes = storage.bytes(name);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            storage.set_bytes(name, flipped);
            let error = read_whole(storage).expect_err(name);
            assert!(is_named(&error), "{name}, byte {at}: {error}");
            storage.set_bytes(name, bytes[..at].into());
            assert!(is_named(&read_whole(storage).expect_err(name)), "{name} cut at {at}");
        }
        storage.set_bytes(name, bytes);
        let without = storage.copy();
        without.remove(name).unwrap();
        let missing = replayed(&without).unwrap_err();
        assert!(matches!(&missing, JournalError::Vanished { file } if file == name), "{missing}");
    }
    assert_eq!(replayed(storage).unwrap(), expected);
}

/// What was synced is never cut off, not even after a start of the machine; what was not is, then.
#[test]
fn a_gap_is_torn_only_if_power_can_have_made_it() {
    let story = |sync_after: usize, reboot: bool| {
        let storage = Simulated::default();
        let (writer, _) = open(&storage, options(4096)).unwrap();
        for number in 0..6 {
            writer.append_accepted(PaymentId(number), Cents(1), Timestamp(-1));
            writer.flush();
            if number as usize == sync_after {
                writer.sync();
            }
        }
        if reboot {
            storage.reboot();
        }
        let name = FileKind::Segment.file_name(1);
        let mut bytes = storage.bytes(&name);
        // Head, Synced, payments 0 and 1; then the third is damaged.
        bytes[48 + 16 + 2 * 40 + 20] ^= 1;
        storage.set_bytes(&name, bytes);
        replay(&storage, 0).map(|replay| (replay.payments.len(), replay.torn))
    };
    let corrupt = story(9, false).unwrap_err().to_string();
    assert!(
        corrupt.contains("0000000001.journal is damaged at offset 144: a checksum"),
        "{corrupt}"
    );
    let (left, torn) = story(9, true).unwrap();
    let torn = torn.unwrap();
    assert_eq!((left, torn.offset, torn.bytes, torn.records), (2, 144, 160, 3));
    assert_eq!(story(1, true).unwrap().0, 2);
    assert!(story(3, true).is_err(), "the fourth was synced, and a later record says so");
}

/// The head of a segment, all of it zeros or gone, is not something a crash can leave.
#[test]
fn a_missing_segment_is_named() {
    let (storage, _) = short_journal();
    let names = storage.names().unwrap();
    let segments: Vec<&String> = names.iter().filter(|it| it.ends_with(".journal")).collect();
    storage.remove(segments[1]).unwrap();
    let error = replayed(&storage).unwrap_err();
    let line = format!(
        "journal: {} is missing, and the manifest names it: restore it before starting, or start with \
         what `galo journal salvage` makes of the others",
        segments[1]
    );
    assert_eq!(error.to_string(), line);
    // As before there was a manifest.
    storage.remove(manifest::FILE_NAME).unwrap();
    for name in storage.names().unwrap() {
        let mut bytes = storage.bytes(&name);
        head::set_version(&mut bytes, head::VERSION_OF_MANIFEST - 1);
        storage.set_bytes(&name, bytes);
    }
    let error = replayed(&storage).unwrap_err();
    let file = format!("{} or its .books", segments[1]);
    let line = format!("journal: {file} is missing between others: restore it before starting");
    assert_eq!(error.to_string(), line);
}

#[test]
fn check_and_dump_tell_what_is_there() {
    let (storage, _) = short_journal();
    let path = super::real::temporary("inspect");
    std::fs::create_dir_all(&path.0).unwrap();
    let names = storage.names().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(path.0.join(name), bytes).unwrap();
    for name in &names {
        put(name, &storage.bytes(name));
    }
    let print = |print: fn(&std::path::Path, &mut Vec<u8>) -> std::io::Result<bool>,
                 at: &std::path::Path| {
        let mut out = Vec::new();
        let sound = print(at, &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    };
    // The boot is another here, so this also is what a person sees who copied the directory.
    let (sound, text) = print(checked, &path.0);
    assert!(sound, "{text}");
    assert!(text.contains("settled at fallback: 4, 39.90\n"), "{text}");
    assert!(text.contains("rejected: 2\n"), "{text}");
    assert!(text.contains("outstanding: 3 waiting, 0 in doubt\n"), "{text}");
    assert!(text.ends_with("sound\n"), "{text}");
    let (sound, text) = print(inspect::dump, &path.0);
    assert!(sound && text.contains(" 48 Purged\n"), "{text}");
    assert!(text.contains("19.90 at fallback requested 2025-07-08T18:40:01.005Z"), "{text}");

    let name = names.iter().find(|it| it.ends_with(".journal")).unwrap();
    let mut bytes = storage.bytes(name);
    bytes[100] ^= 4;
    put(name, &bytes);
    let (sound, text) = print(checked, &path.0.join(name));
    assert!(sound && text.contains("at offset 72 a checksum that does not match"), "{text}");
    let (sound, text) = print(inspect::dump, &path.0.join(name));
    assert!(!sound && text.ends_with(" 72 a checksum that does not match\n"), "{text}");
    bytes[8] ^= 1;
    put(name, &bytes);
    let (sound, text) = print(checked, &path.0);
    assert!(!sound && text.contains("is damaged at offset 0: a damaged head"), "{text}");
}
