//! The ledger's side of the journal: entries that follow each other, files of accounts, keys.

use super::real::temporary;
use super::*;
use crate::journal::accounts::{self, Accounts, States};
use crate::journal::head::{FILE_HEAD_BYTES, Kind as FileKind};
use crate::journal::recover::KEYS_MAX;
use crate::journal::storage::Storage;
use crate::journal::{Journal, LEDGER_DIRECTORY, inspect};
use proptest::prelude::*;

/// What the manifest takes.
const MANIFEST: usize = 8192;
const SEGMENT: usize = 64 * 1024;

/// A ledger, and the writer of its journal.
pub(super) struct Story {
    pub(super) storage: Simulated,
    writer: Writer,
    model: Model,
    random: Random,
    /// The entries appended so far with the segment they are in.
    entries: Vec<(u32, Entry)>,
}

impl Story {
    fn begin(storage: Simulated, options: Options) -> Story {
        let (writer, recovered) = open(&storage, options).unwrap();
        let model = Model::of_recovered(&writer, &recovered);
        Story { storage, writer, model, random: Random(5), entries: Vec::new() }
    }

    fn enter(&mut self) {
        let entry = self.model.any_entry(&mut self.random, 1_700_000_000_000_000);
        let position = self.model.append(Step::Enter(entry), &self.writer).expect("room for it");
        self.model.apply(Step::Enter(entry));
        self.entries.push((position.segment(), entry));
        if self.entries.len().is_multiple_of(16) {
            self.writer.flush();
        }
    }

    fn tidy_up(&self) {
        self.writer.flush();
        while self.writer.keep() {}
    }

    fn files(&self, kind: FileKind) -> Vec<u32> {
        let names = self.storage.names().unwrap();
        let found = names.iter().filter_map(|name| FileKind::of_file_name(name));
        found.filter(|(this, _)| *this == kind).map(|(_, number)| number).collect()
    }
}

/// With books, a file of accounts, and two segments of which one is full.
pub(super) fn a_ledger_in_use() -> Story {
    let options = Options { full_segments_kept: 1, ids_remembered: 0, ..options(1024) };
    let mut story = Story::begin(Simulated::default(), options);
    for _ in 0..100 {
        story.enter();
        story.tidy_up();
    }
    story
}

/// The state is the sum of all entries, wherever they are now: one file of accounts, and no older.
#[test]
fn histories_outlive_their_segments() {
    let story = a_ledger_in_use();
    let in_use = story.writer.appended().segment();
    assert!(in_use > 8, "{in_use} segments");
    assert_eq!(story.files(FileKind::Accounts), [in_use - 2]);
    assert_eq!(story.files(FileKind::Segment), [in_use - 1, in_use, in_use + 1]);
    // Nor do the other files become more: those before say nothing that the accounts do not.
    assert_eq!(story.files(FileKind::Books), [in_use - 2]);
    assert_eq!(story.files(FileKind::Ids), [in_use - 2]);
    let found = replayed(&story.storage).unwrap();
    assert_eq!(found, story.model);
    assert_eq!(found.accounts.len(), 7);
    let sequences: u64 = found.accounts.values().map(|history| history.sequence).sum();
    assert_eq!(sequences, 100);
    // And once more, in a new process that goes on from there.
    let Story { storage, writer, model, random, .. } = story;
    drop(writer);
    let mut story = Story { random, ..Story::begin(storage, options(1024)) };
    assert_eq!(story.model, model);
    for _ in 0..40 {
        story.enter();
    }
    story.tidy_up();
    assert_eq!(replayed(&story.storage).unwrap(), story.model);
    assert_eq!(story.files(FileKind::Accounts).len(), 1);
}

/// A payments' journal has no such files, and its books no sign of them.
#[test]
fn a_journal_without_entries_has_no_accounts() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(1024)).unwrap();
    for number in 0..200 {
        writer.append_accepted(PaymentId(number), Cents(1), Timestamp(1)).unwrap();
        writer.append(&Event::Foreign { id: PaymentId(number) });
        writer.flush();
        while writer.keep() {}
    }
    let names = storage.names().unwrap();
    assert!(names.iter().any(|name| name.ends_with(".books")), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with(".accounts")), "{names:?}");
}

/// What a peer may still ask about: the keys of every segment that is there, in their order. One
/// full segment stays as long as the disk has space, so that those of the last moments always are.
#[test]
fn keys_are_known_while_their_segment_is_there() {
    for kept in [0, 1] {
        let options = Options { full_segments_kept: kept, ..options(1024) };
        let mut story = Story::begin(Simulated::default(), options);
        for _ in 0..100 {
            story.enter();
            story.tidy_up();
            let oldest = story.writer.appended().segment().saturating_sub(kept).max(1);
            let there = story.entries.iter().filter(|(segment, _)| *segment >= oldest);
            let keys: Vec<_> = there
                .filter(|(_, entry)| entry.key != Key::NONE)
                .map(|(_, entry)| (entry.key, entry.account, entry.balance))
                .collect();
            assert_eq!(replayed(&story.storage).unwrap().keys, keys);
        }
        assert!(story.files(FileKind::Accounts)[0] > 5);
    }
}

#[test]
fn no_more_keys_than_the_limit_are_recovered_and_those_are_the_newest() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(16 << 20)).unwrap();
    let description = Description::new("x").unwrap();
    let transaction = Transaction { kind: Kind::Credit, value: Cents(1), description };
    let count = KEYS_MAX as u64 + 10;
    for sequence in 1..=count {
        let (account, balance) = (AccountId(9), Cents(sequence as i64));
        let (at, key) = (Micros(sequence as i64), Key(sequence.into()));
        writer.append_entry(&Entry { account, sequence, transaction, balance, at, key });
    }
    writer.flush();
    let (_, recovered) = open(&storage, options(16 << 20)).unwrap();
    assert_eq!(recovered.keys.len(), KEYS_MAX);
    assert_eq!(recovered.keys[0], (Key(11), AccountId(9), Cents(11)));
    let last = recovered.keys.last().unwrap();
    assert_eq!(*last, (Key(count.into()), AccountId(9), Cents(count as i64)));
}

/// An entry that is missing between others, one that is there twice, and one whose balance is not
/// the sum: a start says where, and changes nothing. The keeper does not rewrite it either.
#[test]
fn entries_that_do_not_follow_are_refused() {
    let entry = |sequence, cents, balance| {
        let description = Description::new("x").unwrap();
        let transaction = Transaction { kind: Kind::Credit, value: Cents(cents), description };
        let (account, balance, at) = (AccountId(1), Cents(balance), Micros(5));
        Entry { account, sequence, transaction, balance, at, key: Key::NONE }
    };
    let follow = "an entry that does not follow the last one of its account";
    let sum = "an entry whose balance is not the sum of its account's entries";
    for (third, what) in [(entry(4, 1, 3), follow), (entry(2, 1, 3), follow), (entry(3, 1, 4), sum)]
    {
        let storage = Simulated::default();
        let (writer, _) = open(&storage, options(400)).unwrap();
        for entry in [entry(1, 1, 1), entry(2, 1, 2), third] {
            writer.append_entry(&entry);
        }
        writer.flush();
        let before = storage.bytes("0000000001.journal");
        let operations = storage.operations();
        let Err(JournalError::Corrupt { file, offset, what: found }) =
            open(&storage, options(400)).map(drop)
        else {
            panic!("{what}: not refused")
        };
        assert_eq!((&*file, offset, found), ("0000000001.journal", 48 + 16 + 2 * 72, what));
        assert_eq!(storage.operations(), operations, "nothing was changed");
        assert_eq!(storage.bytes("0000000001.journal"), before);
        for _ in 0..10 {
            writer.append_entry(&entry(9, 1, 1));
        }
        writer.flush();
        let stopped = stopped(|| while writer.keep() {}).unwrap_err();
        assert!(stopped.contains(what) && stopped.contains("at offset 208"), "{stopped}");
        assert!(!storage.names().unwrap().contains(&"0000000001.accounts".to_string()));
    }
}

/// Accounts are whole or refused by name: cut, flipped, gone, of another version, or another's.
#[test]
fn damaged_accounts_are_refused() {
    let story = a_ledger_in_use();
    let storage = &story.storage;
    let number = story.files(FileKind::Accounts)[0];
    let name = FileKind::Accounts.file_name(number);
    let bytes = storage.bytes(&name);
    let refused = |bytes: Vec<u8>| {
        storage.set_bytes(&name, bytes);
        replayed(storage).unwrap_err()
    };
    for at in 0..bytes.len() {
        let cut = refused(bytes[..at].into());
        assert!(matches!(&cut, JournalError::Corrupt { file, .. } if *file == name), "{cut}");
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let flipped = refused(flipped);
            assert!(matches!(&flipped, JournalError::Corrupt { file, .. } if *file == name));
        }
    }
    let longer = refused([&bytes[..], &[0]].concat());
    assert!(matches!(longer, JournalError::Corrupt { .. }), "{longer}");
    let mut newer = bytes.clone();
    newer[8] += 1;
    let checksum = crc32c::crc32c(&newer[..44]);
    newer[44..48].copy_from_slice(&checksum.to_le_bytes());
    let newer = refused(newer);
    assert!(matches!(newer, JournalError::UnknownVersion { version: 7, .. }), "{newer}");
    storage.set_bytes(&name, bytes);
    assert_eq!(replayed(storage).unwrap(), story.model);
    storage.remove(&name).unwrap();
    let missing = replayed(storage).unwrap_err();
    assert!(matches!(&missing, JournalError::Vanished { file } if *file == name), "{missing}");
}

/// The bytes of a file with a right checksum and these states in it.
fn file_of(states: &[u8], count: u64) -> Vec<u8> {
    let mut bytes = vec![0; FILE_HEAD_BYTES];
    bytes.extend_from_slice(states);
    let counts = [count, states.len() as u64];
    let names = crate::journal::names::Reference::NONE;
    let own = crate::journal::books::Own { flags: 0, counts, notes: None, names };
    own.finish(FileKind::Accounts, 1, &mut bytes);
    bytes
}

/// The layout is a promise to files that exist; and bytes with a right checksum that no version
/// wrote are refused.
#[test]
fn the_bytes_of_accounts_are_these_and_no_others() {
    let description = Description::new("pão").unwrap();
    let transaction = Transaction { kind: Kind::Debit, value: Cents(3), description };
    let (account, balance, at) = (AccountId(5), Cents(-3), Micros(7));
    let entry = Entry { account, sequence: 1, transaction, balance, at, key: Key(1) };
    let bytes = accounts::rewrite(1, None, &mut [(48, entry)]).unwrap();
    let state = [
        &5_u64.to_le_bytes()[..],
        &(-3_i64).to_le_bytes(),
        &[1, 0, 0, 0, 0, 0, 0, 0, 1],
        &[1, 3, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0, 4, 0x70, 0xc3, 0xa3, 0x6f],
    ]
    .concat();
    assert_eq!(bytes, file_of(&state, 1));
    let read = |states: &[u8], count| States::new(1, &file_of(states, count))?.collect();
    assert_eq!(read(&state, 1).unwrap()[&account].newest, [(transaction, at)]);
    let cases: [(&str, usize, u8); 7] = [
        ("no entry", 16, 0),
        ("two entries, and one transaction", 16, 2),
        ("one entry, and no transaction", 24, 0),
        ("a kind there is not", 25, 2),
        ("a value of nothing", 26, 0),
        ("a description of nothing", 42, 0),
        ("not UTF-8", 44, 0xff),
    ];
    for (what, at, byte) in cases {
        let mut state = state.clone();
        state[at] = byte;
        let refused = read(&state, 1).unwrap_err();
        assert!(matches!(refused, JournalError::Corrupt { offset: 48, .. }), "{what}: {refused}");
    }
    assert!(read(&state, 0).is_err() && read(&state, 2).is_err(), "another number of accounts");
    assert!(read(&state, u64::MAX).is_err());
    let twice = read(&[&state[..], &state].concat(), 2).unwrap_err();
    assert!(matches!(twice, JournalError::Corrupt { offset, .. } if offset == 48 + state.len()));
}

proptest! {
    /// Entries of any accounts over any number of segments: the last file says what the histories
    /// say.
    #[test]
    fn accounts_are_read_as_they_were_written(
        seed: u64, segments in proptest::collection::vec(0..60_usize, 1..6),
    ) {
        let mut random = Random(seed);
        let (mut model, mut file) = (Model::default(), None);
        for (number, count) in (1_u32..).zip(segments) {
            let mut entries = Vec::new();
            for offset in 0..count {
                let entry = model.any_entry(&mut random, number.into());
                model.apply(Step::Enter(entry));
                entries.push((offset, entry));
            }
            let before = file.as_deref().map(|bytes| States::new(number - 1, bytes).unwrap());
            file = Some(accounts::rewrite(number, before, &mut entries).unwrap());
            let bytes = file.as_deref().unwrap();
            let found = States::new(number, bytes).unwrap().collect().unwrap();
            let expected: Accounts = model.accounts.clone().into_iter().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn states_never_panic(states: Vec<u8>, count in 0..4_u64) {
        let _ = States::new(1, &file_of(&states, count)).unwrap().collect();
        let _ = States::new(1, &states);
    }
}

/// The disk has room for three segments. Entries are refused before it is full, and all that were
/// taken are there. Then the full segments make room, the kept one as well.
#[test]
fn a_full_disk_refuses_entries_and_loses_none() {
    let storage = Simulated::default();
    storage.set_capacity(Some(3 * SEGMENT + MANIFEST + 200));
    let options = Options { full_segments_kept: 1, ..options(SEGMENT) };
    let mut story = Story::begin(storage, options);
    // Not rewritten meanwhile: the keeper only makes the next segment.
    while story.writer.has_room() {
        story.enter();
        story.writer.prepare_next();
    }
    assert_eq!(story.writer.appended().segment(), 3, "the last there is space for");
    story.writer.flush();
    story.writer.sync();
    assert_eq!(replayed(&story.storage).unwrap(), story.model);
    assert!(story.entries.len() > 1_500, "{}", story.entries.len());
    // Not even the accounts have space: what is there stays as it is.
    assert!(!story.writer.keep() && !story.writer.has_room());
    assert!(story.files(FileKind::Accounts).is_empty());
    assert!(!story.storage.names().unwrap().iter().any(|name| name.ends_with(".tmp")));
    assert_eq!(replayed(&story.storage).unwrap(), story.model);
    story.storage.set_capacity(Some(3 * SEGMENT + MANIFEST + SEGMENT / 4));
    while story.writer.keep() {}
    assert!(story.writer.has_room(), "full segments have become accounts");
    for _ in 0..500 {
        story.enter();
    }
    story.tidy_up();
    assert_eq!(replayed(&story.storage).unwrap(), story.model);
}

/// The full segment that is kept for the keys is in the way of nothing: when there is no space for
/// the next one, it makes room.
#[test]
fn on_a_full_disk_the_kept_segment_goes() {
    let storage = Simulated::default();
    storage.set_capacity(Some(2 * SEGMENT + SEGMENT / 4));
    let options = Options { full_segments_kept: 1, ..options(SEGMENT) };
    let mut story = Story::begin(storage, options);
    while story.writer.has_room() {
        story.enter();
        story.writer.prepare_next();
    }
    story.tidy_up();
    assert_eq!(story.files(FileKind::Segment), [2, 3]);
    assert!(story.writer.has_room());
    assert_eq!(replayed(&story.storage).unwrap(), story.model);
}

/// On a real disk with the real threads: the ledger's journal in its directory inside the payments'
/// own. A purge of payments leaves it alone, and `check` and `dump` show both.
#[test]
fn a_ledger_beside_payments_is_not_purged_with_them() {
    let path = temporary("ledger");
    let ledger_path = path.0.join(LEDGER_DIRECTORY);
    let options = Options { segment_bytes: SEGMENT, ..Options::of_ledger(Durability::Disk, 5) };
    let (payments, _) = Journal::open(&path.0, Options::new(Durability::Disk, 10, 10)).unwrap();
    let (ledger, recovered) = Journal::open(&ledger_path, options).unwrap();
    assert!(recovered.accounts.is_empty() && recovered.keys.is_empty());
    let (mut model, mut random) = (Model::default(), Random(1));
    payments.append_accepted(PaymentId(1), Cents(1), Timestamp(1)).unwrap();
    for number in 0..4_000 {
        // Segments as small as these are full before the keeper has made the next one.
        while !ledger.has_room() {
            super::real::block_on(ledger.wait(ledger.appended()));
            std::thread::yield_now();
        }
        let entry = model.any_entry(&mut random, number);
        model.apply(Step::Enter(entry));
        let position = ledger.append_entry(&entry);
        if number % 100 == 0 {
            super::real::block_on(ledger.wait(position));
        }
    }
    payments.append_purged();
    drop((payments, ledger));
    let (payments, recovered) =
        Journal::open(&path.0, Options::new(Durability::Disk, 10, 10)).unwrap();
    assert!(recovered.waiting.is_empty() && recovered.accounts.is_empty());
    let (ledger, recovered) = Journal::open(&ledger_path, options).unwrap();
    let writer = &ledger.open.as_ref().unwrap().writer;
    assert_eq!(Model::of_recovered(writer, &recovered), model);
    drop((payments, ledger));
    let print = |print: fn(&std::path::Path, &mut Vec<u8>) -> std::io::Result<bool>| {
        let mut out = Vec::new();
        assert!(print(&path.0, &mut out).unwrap());
        String::from_utf8(out).unwrap()
    };
    let text = print(checked);
    assert!(text.contains(".accounts: 7 accounts, "), "{text}");
    assert!(text.contains("\naccounts: 7, 4000 entries, "), "{text}");
    assert_eq!(text.matches("\nsound\n").count(), 2, "{text}");
    let text = print(inspect::dump);
    assert!(text.contains(".accounts account 7: balance "), "{text}");
    assert!(text.contains(" of account 3: debit "), "{text}");
    assert!(text.contains(", key 0000000000000000"), "{text}");
}

/// However many accounts: a segment is about as long as the file that it becomes, within limits.
#[test]
fn segments_of_a_ledger_grow_with_its_accounts() {
    let bytes = |accounts| Options::of_ledger(Durability::Process, accounts).segment_bytes;
    assert_eq!(bytes(0), 4 << 20);
    assert_eq!(bytes(5), 4 << 20);
    assert_eq!(bytes(100_000), 32 << 20);
    assert_eq!(bytes(usize::MAX), 64 << 20);
}
