//! What is left of a damaged journal: every file of some, cut at every byte, every byte flipped, and
//! gone. Either all is kept or what is lost is named; and what is lost is what lay there, no more.

use super::*;
use crate::journal::head::{FILE_HEAD_BYTES, Kind as FileKind};
use crate::journal::identity;
use crate::journal::record::{Record, Seed};
use crate::journal::salvage;
use crate::journal::segment::{Contents, Ending};
use crate::journal::volume::Volume;
use crate::payments::Each;
use std::collections::BTreeSet;
use std::ops::Range;

/// Without the manifest.
fn files_of(storage: &Simulated) -> Vec<String> {
    let mut names = storage.names().unwrap();
    names.retain(|name| FileKind::of_file_name(name).is_some());
    names
}

fn salvaged(from: &Simulated) -> (bool, Simulated, String) {
    let (to, mut out) = (Simulated::default(), Vec::new());
    hand_on_identity(from, &to);
    let before = from.operations();
    let is_whole = salvage::salvage(from, &to, &names_of(from), "", &mut out).unwrap();
    assert_eq!(from.operations(), before, "it is not changed");
    (is_whole, to, String::from_utf8(out).unwrap())
}

/// A copy means by the numbers of processors what the original does.
pub(super) fn hand_on_identity(from: &Simulated, to: &Simulated) {
    if from.names().unwrap().iter().any(|name| name == identity::FILE_NAME) {
        let file = to.create(identity::FILE_NAME).unwrap();
        file.write_at(&from.bytes(identity::FILE_NAME), 0).unwrap();
        file.sync().unwrap();
    }
}

/// The records of the segments, with where they are and where they end.
fn records(storage: &Simulated) -> Vec<(String, std::ops::Range<usize>, Record)> {
    let (mut found, names) = (Vec::new(), names_of(storage));
    for name in files_of(storage) {
        if let Some((FileKind::Segment, number)) = FileKind::of_file_name(&name) {
            let bytes = storage.bytes(&name);
            let seed = Seed::of_segment(number, names.count() as u8);
            let walked = Contents::new(number, &bytes, &names).unwrap().walk(|offset, record| {
                found.push((name.clone(), offset..offset + record.length(seed), record));
                Ok(())
            });
            let (offset, ending) = walked.unwrap();
            if ending == Ending::Sealed {
                found.push((name.clone(), offset - 8..offset, Record::End));
            }
        }
    }
    found
}

fn id_of(record: &Record) -> Option<PaymentId> {
    match *record {
        Record::Carried { id, .. } => Some(id),
        Record::Event(
            Event::Accepted { id, .. }
            | Event::Attempted { id, .. }
            | Event::Released { id }
            | Event::Settled { id, .. }
            | Event::Foreign { id }
            | Event::Forwarded { id, .. }
            | Event::Adopted { id, .. }
            | Event::Rejected(Rejection { id, .. }),
        ) => Some(id),
        _ => None,
    }
}

/// Compares what was salvaged with the original, of which these records are lost.
fn assert_rest_is_kept(original: &Model, lost: &[Record], found: &Model, context: &str) {
    let mut settled = original.settled;
    for record in lost {
        if let Record::Event(Event::Settled { settlement, .. }) = record {
            settled[settlement.processor.index()].0 -= 1;
            settled[settlement.processor.index()].1 -= i128::from(settlement.amount.0);
        }
    }
    assert_eq!(found.settled, settled, "{context}");
    let touched: BTreeSet<PaymentId> = lost.iter().filter_map(id_of).collect();
    let others = |model: &Model| {
        let open = model.open.clone().into_iter().filter(|(id, _)| !touched.contains(id));
        open.collect::<Vec<_>>()
    };
    assert_eq!(others(found), others(original), "{context}");
    let rejected = |model: &Model| {
        model.rejected.iter().filter(|it| !touched.contains(&it.id)).copied().collect::<Vec<_>>()
    };
    assert_eq!(rejected(found), rejected(original), "{context}");
    for (id, history) in &original.accounts {
        let mine = |record: &&Record| matches!(record, Record::Entry(it) if it.account == *id);
        let gone: Vec<u64> = lost.iter().filter(mine).filter_map(sequence_of).collect();
        let balance = found.accounts.get(id).map(|it| it.balance);
        if !gone.contains(&history.sequence) {
            assert_eq!(balance, Some(history.balance), "{context}: account {id:?}");
        }
    }
}

fn sequence_of(record: &Record) -> Option<u64> {
    match record {
        Record::Entry(entry) => Some(entry.sequence),
        _ => None,
    }
}

/// Salvages a damaged journal and compares; returns whether it was told to be whole.
fn assert_salvaged(
    damaged: &Simulated,
    original: &Model,
    file: &str,
    lost: &[Record],
    context: &str,
) -> bool {
    let (is_whole, to, told) = salvaged(damaged);
    let context = format!("{context}\n{told}");
    let found = replayed(&to).unwrap_or_else(|error| panic!("{context}{error}"));
    assert!(is_whole || told.contains(&format!("lost: {file}")), "it is named: {context}");
    if is_whole {
        assert_eq!(&found, original, "{context}");
        assert_eq!(lost, [], "{context}");
    } else {
        assert_rest_is_kept(original, lost, &found, &context);
    }
    let (again_whole, again, told) = salvaged(&to);
    assert!(again_whole, "what was salvaged is whole: {context}{told}");
    assert_eq!(replayed(&again).unwrap(), found, "{context}");
    // And whoever starts with it goes on.
    open(&to, options(4096)).unwrap_or_else(|error| panic!("{context}{error}"));
    is_whole
}

/// Damages every byte of every segment in turn, and cuts each at every byte.
fn damage_segments(storage: &Simulated) {
    let original = replayed(storage).unwrap();
    let records = records(storage);
    for name in files_of(storage).iter().filter(|name| name.ends_with(".journal")) {
        let bytes = storage.bytes(name);
        let mine: Vec<_> = records.iter().filter(|(file, ..)| file == name).collect();
        // What is behind the end of a full one means nothing.
        let ends = mine.iter().find(|(.., record)| *record == Record::End);
        let end = ends.map_or(bytes.len(), |(_, range, _)| range.end);
        for at in 0..bytes.len() {
            let damaged = storage.copy();
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            damaged.set_bytes(name, flipped);
            let hit = mine.iter().find(|(_, range, _)| range.contains(&at));
            let lost: Vec<Record> = hit.map(|(.., record)| record.clone()).into_iter().collect();
            let is_purge = lost.contains(&Record::Event(Event::Purged));
            let context = format!("{name}, byte {at} flipped");
            if is_purge || lost.contains(&Record::End) {
                // Nothing but the names of what was before, or of what may be behind.
                assert!(!salvaged(&damaged).0, "{context}");
                continue;
            }
            let silent = |record: &Record| matches!(record, Record::Synced { .. });
            let lost: Vec<Record> = lost.into_iter().filter(|record| !silent(record)).collect();
            let is_whole = assert_salvaged(&damaged, &original, name, &lost, &context);
            // Without a record nobody can say whether there were any.
            let is_head_enough = at < FILE_HEAD_BYTES && !mine.is_empty();
            assert_eq!(is_whole, is_head_enough || at >= end, "{context}");
        }
        for at in 0..bytes.len() {
            let damaged = storage.copy();
            damaged.set_bytes(name, bytes[..at].into());
            let gone = mine.iter().filter(|(_, range, _)| range.end > at);
            let lost: Vec<Record> = gone.map(|(.., record)| record.clone()).collect();
            if lost.contains(&Record::Event(Event::Purged)) {
                assert!(!salvaged(&damaged).0, "{name} cut at {at}");
                continue;
            }
            let silent = |record: &Record| matches!(record, Record::Synced { .. } | Record::End);
            let lost: Vec<Record> = lost.into_iter().filter(|record| !silent(record)).collect();
            let context = format!("{name} cut at {at}");
            assert_salvaged(&damaged, &original, name, &lost, &context);
        }
    }
}

#[test]
fn every_byte_of_segments_flipped_and_cut() {
    let (storage, _) = super::damage::short_journal();
    let (is_whole, to, told) = salvaged(&storage);
    assert!(is_whole && replayed(&to).unwrap() == replayed(&storage).unwrap(), "{told}");
    damage_segments(&storage);
    damage_segments(&super::damage::short_journal_of(5).0);
}

/// Books, ids, and segments behind them, of which the oldest have payments carried over.
/// A journal in use, and whether its volumes were merged.
fn rewritten(is_merged: bool) -> (Simulated, Model) {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(4096)).unwrap();
    rewrite(storage, writer, Model::default(), is_merged)
}

fn rewritten_of(count: usize, is_merged: bool) -> (Simulated, Model) {
    let storage = Simulated::default();
    let (writer, _) = open_by(&storage, options(4096), count).unwrap();
    rewrite(storage, writer, Model::of_processors(count), is_merged)
}

fn rewrite(
    storage: Simulated,
    writer: Writer,
    mut model: Model,
    is_merged: bool,
) -> (Simulated, Model) {
    let (mut random, mut clock) = (Random(12), 0);
    for _ in 0..900 {
        if let Some(step) = model.any_step(Traffic::Payments, &mut random, &mut clock)
            && !matches!(step, Step::Purge)
            && model.append(step, &writer).is_some()
        {
            model.apply(step);
        }
        writer.flush();
        writer.keeping.lock().unwrap().is_merging_held_up |= !is_merged;
        writer.keep();
    }
    assert_eq!(replayed(&storage).unwrap(), model);
    (storage, model)
}

fn missing_segment(storage: &Simulated, name: &str) -> Vec<Record> {
    let mine = records(storage).into_iter().filter(|(file, ..)| file == name);
    let silent = |record: &Record| matches!(record, Record::Synced { .. } | Record::End);
    mine.map(|(.., record)| record).filter(|record| !silent(record)).collect()
}

/// Each file gone, each byte of books and ids flipped: all of that file is lost, and nothing else.
#[test]
fn files_that_are_used_whole_are_lost_whole() {
    for is_merged in [false, true] {
        let (storage, original) = rewritten(is_merged);
        let names = files_of(&storage);
        let books = names.iter().filter(|name| name.ends_with(".books")).count();
        assert!(if is_merged { books == 1 } else { books > 2 }, "{names:?}");
        lose_each_file(&storage, &original, &names);
    }
    let (storage, original) = rewritten_of(6, false);
    lose_each_file(&storage, &original, &files_of(&storage));
}

/// Where the block of books is that are not longer, and what is settled without it. It is whole or lost.
fn one_block(
    number: u32,
    bytes: &[u8],
    names: &Names,
    original: &Model,
) -> (Range<usize>, Each<(u64, i128)>) {
    let volume = Volume::of_bytes(number, bytes.to_vec(), names).unwrap();
    let mut without = original.settled;
    for line in volume.lines().map(Result::unwrap) {
        let settled = &mut without[line.settlement.processor.index()];
        *settled = (settled.0 - 1, settled.1 - i128::from(line.settlement.amount.0));
    }
    let lines = volume.span().lines as usize;
    assert!((1..=512).contains(&lines));
    (48..48 + 16 + 30 * lines, without)
}

fn lose_each_file(storage: &Simulated, original: &Model, names: &[String]) {
    for name in names {
        let (kind, number) = FileKind::of_file_name(name).unwrap();
        let bytes = storage.bytes(name);
        let (blocks, without) = match kind {
            FileKind::Books => one_block(number, &bytes, &names_of(storage), original),
            _ => (0..0, original.settled),
        };
        let mut rejected = original.rejected.clone();
        if kind == FileKind::Notes {
            let there = crate::journal::notes::read(number, &bytes, &names_of(storage)).unwrap();
            rejected.retain(|it| !there.contains(&Event::Rejected(*it)));
            assert!(rejected.len() < original.rejected.len());
        }
        let check = |damaged: &Simulated, at: Option<usize>, context: &str| {
            let (is_whole, to, told) = salvaged(damaged);
            let found = replayed(&to).unwrap_or_else(|error| panic!("{context}{error}"));
            // Of a damaged head nobody knows whether there were more.
            let is_kept = kind == FileKind::Books && at.is_some_and(|at| !blocks.contains(&at));
            let is_told = is_kept && at >= Some(48);
            let word = if is_told { "" } else { "lost: " };
            assert_eq!(is_whole, is_told, "{context}: {told}");
            assert!(told.contains(&format!("{word}{name}")), "{context}: {told}");
            let settled = if is_kept || blocks.is_empty() { original.settled } else { without };
            assert_eq!(found.settled, settled, "{context}");
            assert_eq!(found.open, original.open, "{context}");
            assert_eq!(found.rejected, rejected, "{context}");
            if kind == FileKind::Books {
                assert_eq!(found.ids, original.ids, "{context}");
            }
            if kind == FileKind::Books && !is_kept {
                let asked = String::from_utf8(to.bytes(salvage::ASK_NAME)).unwrap();
                let ids = FileKind::Ids.file_name(number);
                let listed = files_of(storage).contains(&ids);
                assert_eq!(asked.contains(" accepted, settled"), listed, "{context}");
            }
            open(&to, options(4096)).unwrap();
        };
        let gone = storage.copy();
        gone.remove(name).unwrap();
        match kind {
            FileKind::Segment => {
                let lost = missing_segment(storage, name);
                let context = format!("{name} gone");
                let is_whole = assert_salvaged(&gone, original, name, &lost, &context);
                assert!(!is_whole, "{context}: it was there");
                continue;
            }
            _ => check(&gone, None, &format!("{name} gone")),
        }
        for at in (0..bytes.len()).step_by(7) {
            let damaged = storage.copy();
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            damaged.set_bytes(name, flipped);
            check(&damaged, Some(at), &format!("{name}, byte {at} flipped"));
            damaged.set_bytes(name, bytes[..at].into());
            let cut = (at < blocks.end || blocks.is_empty()).then_some(at);
            let cut = if cut.is_some() { None } else { Some(at) };
            check(&damaged, cut, &format!("{name} cut at {at}"));
        }
    }
}

/// A ledger keeps every balance that any entry behind the damage tells.
#[test]
fn a_ledger_keeps_the_balances_that_are_known() {
    let storage = super::ledger::a_ledger_in_use().storage;
    let original = replayed(&storage).unwrap();
    let entries: Vec<_> = records(&storage);
    let (is_whole, to, told) = salvaged(&storage);
    assert!(is_whole && replayed(&to).unwrap() == original, "{told}");
    damage_segments(&storage);
    let accounts = files_of(&storage);
    let accounts = accounts.iter().find(|name| name.ends_with(".accounts")).unwrap();
    let later: BTreeSet<AccountId> = entries
        .iter()
        .filter_map(|(.., record)| match record {
            Record::Entry(entry) => Some(entry.account),
            _ => None,
        })
        .collect();
    for cut_to in [None, Some(0), Some(60)] {
        let damaged = storage.copy();
        match cut_to {
            None => damaged.remove(accounts).unwrap(),
            Some(length) => damaged.set_bytes(accounts, storage.bytes(accounts)[..length].into()),
        }
        let (is_whole, to, told) = salvaged(&damaged);
        assert!(!is_whole && told.contains(&format!("lost: {accounts}")), "{told}");
        let found = replayed(&to).unwrap();
        assert_eq!(found.accounts.len(), later.len());
        for (id, history) in &found.accounts {
            assert_eq!(history.balance, original.accounts[id].balance, "{id:?}");
        }
        open(&to, options(4096)).unwrap();
    }
}

/// Both files of a number gone, everything before a number gone, a file that cannot be of this journal.
#[test]
fn several_files_may_be_gone() {
    let (storage, original) = rewritten(false);
    let names = files_of(&storage);
    let number = |name: &String| FileKind::of_file_name(name).unwrap().1;
    let highest = names.iter().map(number).max().unwrap();
    for below in 2..=highest {
        let damaged = storage.copy();
        for name in names.iter().filter(|name| number(name) < below) {
            damaged.remove(name).unwrap();
        }
        let (is_whole, to, told) = salvaged(&damaged);
        assert!(!is_whole && told.contains("it is missing, with all before it"), "{told}");
        let found = replayed(&to).unwrap();
        assert!(found.settled[0].0 <= original.settled[0].0);
        open(&to, options(4096)).unwrap();
        assert!(salvaged(&to).0);
    }
    for gone in 1..=highest {
        let damaged = storage.copy();
        for name in names.iter().filter(|name| number(name) == gone) {
            damaged.remove(name).unwrap();
        }
        let (_, to, told) = salvaged(&damaged);
        replayed(&to).unwrap_or_else(|error| panic!("{error}\n{told}"));
        open(&to, options(4096)).unwrap();
    }
    let far = storage.copy();
    far.create(&FileKind::Segment.file_name(u32::MAX)).unwrap();
    let refused =
        salvage::salvage(&far, &Simulated::default(), &Names::contest(), "", &mut Vec::new())
            .unwrap_err();
    assert!(refused.to_string().contains("too far behind"), "{refused}");
}

/// Of notes in several files each is damaged, and gone: the others count on, and it is named.
#[test]
fn notes_that_are_lost_are_named_and_the_others_kept() {
    use super::notes::{adopt, adopted, fill, reject};
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(4096)).unwrap();
    let mut others = 0;
    // Each less than half of the one before: none takes in another.
    for ids in [0..600, 600..720, 720..730] {
        adopt(&writer, ids);
        fill(&writer, &mut others);
    }
    reject(&writer, 1 << 64);
    fill(&writer, &mut others);
    drop(writer);
    let all: Vec<_> = (0..730).map(adopted).collect();
    let adopted_in = |storage: &Simulated| {
        let (_, recovered) = open(storage, options(4096)).unwrap();
        (recovered.books.adopted, recovered.books.rejected.len())
    };
    let (is_whole, to, told) = salvaged(&storage);
    assert!(is_whole, "{told}");
    assert_eq!(adopted_in(&to), (all.clone(), 1));
    let names = files_of(&storage);
    let notes: Vec<_> = names.iter().filter(|name| name.ends_with(".notes")).collect();
    assert!(notes.len() > 1, "{names:?}");
    for name in notes {
        let bytes = storage.bytes(name);
        for at in [Some(8), Some(FILE_HEAD_BYTES + 8), None] {
            let damaged = storage.copy();
            match at {
                Some(at) => {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1;
                    damaged.set_bytes(name, flipped);
                }
                None => damaged.remove(name).unwrap(),
            }
            let (is_whole, to, told) = salvaged(&damaged);
            assert!(!is_whole && told.contains(&format!("lost: {name}: ")), "{name}: {told}");
            let (found, rejected) = adopted_in(&to);
            let (_, number) = FileKind::of_file_name(name).unwrap();
            let gone = crate::journal::notes::read(number, &bytes, &names_of(&storage)).unwrap();
            assert_eq!(found.len() + rejected + gone.len(), all.len() + 1, "{name}: {told}");
            assert!(found.iter().all(|it| all.contains(it)));
        }
    }
}

/// Nothing but zeros from a record on, in a full segment: those behind it tell that there was more.
#[test]
fn a_segment_without_its_end_is_named() {
    let (storage, _) = super::damage::short_journal();
    let original = replayed(&storage).unwrap();
    let all = records(&storage);
    let full = all.iter().filter(|(.., record)| *record == Record::End).map(|(name, ..)| name);
    let mut tried = 0;
    for name in full {
        let mine: Vec<_> = all.iter().filter(|(file, ..)| file == name).collect();
        for (_, range, record) in &mine {
            if *record == Record::Event(Event::Purged) {
                continue;
            }
            let damaged = storage.copy();
            let mut bytes = storage.bytes(name);
            bytes[range.start..].fill(0);
            damaged.set_bytes(name, bytes);
            let gone = mine.iter().filter(|(_, other, _)| other.start >= range.start);
            let silent = |record: &Record| matches!(record, Record::Synced { .. } | Record::End);
            let lost: Vec<Record> =
                gone.map(|(.., record)| record.clone()).filter(|record| !silent(record)).collect();
            let context = format!("{name} zeros from {}", range.start);
            assert!(!assert_salvaged(&damaged, &original, name, &lost, &context), "{context}");
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
}

/// The newest files gone: the manifest names each.
#[test]
fn the_newest_files_may_be_gone() {
    let (storage, _) = rewritten(false);
    let names = files_of(&storage);
    let number = |name: &String| FileKind::of_file_name(name).unwrap().1;
    let highest = names.iter().map(number).max().unwrap();
    for last in 1..highest {
        let damaged = storage.copy();
        let gone: Vec<_> = names.iter().filter(|name| number(name) > last).collect();
        gone.iter().for_each(|name| damaged.remove(name).unwrap());
        let (is_whole, to, told) = salvaged(&damaged);
        assert!(!is_whole, "{last}: {told}");
        let is_told = |name: &&String| told.contains(&format!("lost: {name}: "));
        assert!(gone.into_iter().all(|name| is_told(&name)), "{last}: {told}");
        open(&to, options(4096)).unwrap();
        assert!(salvaged(&to).0);
    }
}

/// Random damage to several files at once: never a panic, always a journal that starts.
#[test]
fn whatever_is_damaged_the_rest_starts() {
    let (storage, original) = rewritten(false);
    let (of_eight, original_of_eight) = rewritten_of(8, false);
    let ledger = super::ledger::a_ledger_in_use().storage;
    for seed in 0..600 {
        let mut random = Random(seed);
        let (from, original) =
            [(&ledger, &original), (&storage, &original), (&of_eight, &original_of_eight)]
                [seed as usize % 3];
        let damaged = from.copy();
        let mut names = damaged.names().unwrap();
        names.retain(|name| name != identity::FILE_NAME);
        for _ in 0..1 + random.below(4) {
            let name = &names[random.below(names.len())];
            if !damaged.names().unwrap().contains(name) {
                continue;
            }
            let mut bytes = damaged.bytes(name);
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => damaged.remove(name).unwrap(),
                1 => damaged.set_bytes(name, bytes[..at].into()),
                2 => {
                    let end = (at + random.below(600)).min(bytes.len());
                    bytes[at..end].fill(0);
                    damaged.set_bytes(name, bytes);
                }
                _ => {
                    let end = (at + 1 + random.below(200)).min(bytes.len());
                    bytes[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8);
                    damaged.set_bytes(name, bytes);
                }
            }
        }
        let (is_whole, to, told) = salvaged(&damaged);
        let found = replayed(&to).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{told}"));
        assert_eq!(is_whole, !told.contains("lost: "), "seed {seed}: {told}");
        if seed % 3 != 0 {
            for index in 0..Processor::MAX {
                assert!(found.settled[index].0 <= original.settled[index].0, "seed {seed}");
            }
        }
        open(&to, options(4096)).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{told}"));
    }
}
