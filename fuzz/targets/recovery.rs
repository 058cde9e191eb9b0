//! The start of a journal, whatever is in its directory. Damage leaves a prefix of what was written,
//! or an error that names a file; and what a start has made of the directory means the same at the
//! next one.

#![no_main]

use galo::base::instance::Instance;
use galo::base::money::Cents;
use galo::journal::head::{self, Kind};
use galo::journal::identity::{Identity, Owner, Table};
use galo::journal::manifest;
use galo::journal::names::Reference;
use galo::journal::record::{Record, Seed};
use galo::journal::retained::Retention;
use galo::journal::storage::Storage;
use galo::journal::{Durability, Found, JournalError, Options, Recovered};
use galo::ledger::History;
use galo::payments::event::Event;
use galo::payments::names::Names;
use galo::payments::{Each, PaymentId, Rejection, Totals, Window};
use galo_fuzz::memory::Memory;
use galo_fuzz::records::{Accounts, sealed};
use galo_fuzz::{Source, fuzz_target};
use std::collections::BTreeMap;
use std::sync::Arc;

const RECORDS_MAX: usize = 24;
const SEGMENTS_MAX: usize = 3;
/// Which start of the machine the segments are of.
const BOOT: u8 = 1;

type Files = Vec<(String, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    if source.u8() < 160 {
        check_damage(&mut source);
    } else {
        check_anything(&mut source);
    }
});

/// What a start says of the payments and the accounts.
#[derive(Debug, PartialEq)]
struct Meaning {
    waiting: Vec<(PaymentId, Cents, i64)>,
    doubts: Vec<(PaymentId, Cents, i64, i64)>,
    ids: Vec<(PaymentId, Cents)>,
    settled: Each<Totals>,
    adopted: Vec<(PaymentId, Cents)>,
    rejected: Vec<Rejection>,
    accounts: BTreeMap<u64, History>,
}

impl Meaning {
    fn of(recovered: &Recovered, settled: Each<Totals>) -> Meaning {
        let Recovered { waiting, doubts, ids, books, accounts, .. } = recovered;
        let waiting = waiting.iter().map(|it| (it.id, it.amount, it.accepted_at.0));
        let doubts = doubts.iter().map(|it| {
            let payment = it.payment;
            (payment.id, payment.amount, payment.accepted_at.0, it.requested_at.0)
        });
        Meaning {
            waiting: waiting.collect(),
            doubts: doubts.collect(),
            ids: ids.clone(),
            settled,
            adopted: books.adopted.clone(),
            rejected: books.rejected.clone(),
            accounts: accounts.iter().map(|(id, history)| (id.0, history.clone())).collect(),
        }
    }
}

fn options() -> Options {
    Options {
        durability: Durability::Disk,
        ids_remembered: 6,
        segment_bytes: 1024,
        outstanding_at_first: 0,
        full_segments_kept: 0,
        retention: Retention::of_events(0),
        keep_ms: None,
        fail: |what| panic!("{what}"),
    }
}

/// Starts, and starts again on what that has left.
fn start(files: &Files, boot: u8) -> Result<(Recovered, Meaning), JournalError> {
    let memory = Arc::new(Memory::of(files.clone(), boot));
    let (writer, first) = Found::new(memory.clone(), options())?.start()?;
    let meaning = Meaning::of(&first, writer.totals(Window::default()).expect("totals"));
    let again = Found::new(memory, options()).and_then(Found::start);
    let (writer, again) = again.expect("what a start has left can be started");
    let totals = writer.totals(Window::default()).expect("totals");
    assert_eq!(meaning, Meaning::of(&again, totals));
    assert_eq!(again.torn, None, "it was repaired");
    Ok((first, meaning))
}

fn check_damage(source: &mut Source) {
    let per_segment = 1 + source.below(12);
    let names = source.names();
    let mut accounts = Accounts::new();
    let mut records = Vec::new();
    let count = source.below(RECORDS_MAX.min(per_segment * SEGMENTS_MAX) + 1);
    while records.len() < count {
        // A purge is the first of its segment.
        let purges = records.len().is_multiple_of(per_segment) && source.u8() < 16;
        records.push(match purges {
            true => {
                accounts.clear();
                Record::Event(Event::Purged)
            }
            // Says of earlier ones that they are on the disk, so it may not be made up.
            false => match source.record(&mut accounts, names.count()) {
                Record::Synced { .. } => Record::Event(source.event(names.count())),
                record => record,
            },
        });
    }
    let layout = Layout::of(source);
    let names = if layout == Layout::Before { Names::contest() } else { names };
    let original = segments(&records, per_segment, layout, &names);
    let Ok((whole, _)) = start(&original, BOOT) else {
        // An entry that does not follow.
        return;
    };
    assert_eq!(whole.torn, None);
    let boot = BOOT + u8::from(source.bool());
    let mut damaged = original.clone();
    for _ in 0..1 + source.below(3) {
        damage(&mut damaged, source);
    }
    match start(&damaged, boot) {
        Ok((_, found)) => {
            let is_prefix = (0..=records.len()).rev().any(|length| {
                let part = start(&segments(&records[..length], per_segment, layout, &names), BOOT);
                part.is_ok_and(|(_, part)| part == found)
            });
            assert!(is_prefix, "{found:#?} of {records:#?}");
        }
        Err(error) => check_named(&error),
    }
}

/// A directory of before the manifest, or one with it.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    Before,
    Named,
}

impl Layout {
    fn of(source: &mut Source) -> Layout {
        if source.bool() { Layout::Before } else { Layout::Named }
    }

    /// Makes these a directory of it.
    fn dress(self, files: &mut Files) {
        let is_of_journal = |name: &str| Kind::of_file_name(name);
        if self == Layout::Before {
            for (name, bytes) in files.iter_mut() {
                if is_of_journal(name).is_some() && bytes.len() >= head::FILE_HEAD_BYTES {
                    head::set_version(bytes, head::VERSION_OF_MANIFEST - 1);
                }
            }
            return;
        }
        let memory = Memory::of(files.clone(), BOOT);
        let there = files.iter().filter_map(|(name, _)| is_of_journal(name)).collect();
        let mut bytes = Vec::new();
        manifest::write(&memory, &there).expect("memory always works");
        memory.read(manifest::FILE_NAME, usize::MAX, &mut bytes).expect("it was written");
        files.push((manifest::FILE_NAME.into(), bytes));
    }
}

/// The records as they are written, so many to a segment.
fn segments(records: &[Record], per_segment: usize, layout: Layout, names: &Names) -> Files {
    let mut files = Files::new();
    if *names != Names::contest() {
        files.push(("identity".into(), identity(names)));
    }
    let mut number = head::FIRST_NUMBER;
    let mut chunks = records.chunks(per_segment).peekable();
    while let Some(chunk) = chunks.next() {
        let mut bytes = empty_segment(number, names);
        for record in chunk {
            let offset = bytes.len();
            record.encode(seed(number, names), offset, &mut bytes);
        }
        if chunks.peek().is_some() {
            let offset = bytes.len();
            Record::End.encode(seed(number, names), offset, &mut bytes);
        }
        bytes.resize(bytes.len() + 64, 0);
        files.push((Kind::Segment.file_name(number), bytes));
        number += 1;
    }
    layout.dress(&mut files);
    files
}

fn seed(number: u32, names: &Names) -> Seed {
    Seed::of_segment(number, names.count() as u8)
}

/// The file that tells the table.
fn identity(names: &Names) -> Vec<u8> {
    let processors = names.iter().map(|(_, name)| (name.into(), "http://x".into()));
    let processors = Table::new(processors.collect()).expect("a table");
    let instance = Instance(1);
    let owner = Owner { instance, is_paired: false, processors, are_of_file: false, terms: None };
    Identity::new(5, owner).encode().into_bytes()
}

fn empty_segment(number: u32, names: &Names) -> Vec<u8> {
    let mut own = [0; head::OWN_BYTES];
    own[..16].fill(BOOT);
    head::encode(Kind::Segment, number, own, Reference::to(names)).to_vec()
}

/// What may happen to files: bits turn, blocks are lost, files end early or are gone.
fn damage(files: &mut Files, source: &mut Source) {
    if files.is_empty() {
        return;
    }
    let which = source.below(files.len());
    let bytes = &mut files[which].1;
    let at = (source.u64() % 4096) as usize % bytes.len().max(1);
    match source.below(8) {
        0..3 if at < bytes.len() => bytes[at] ^= 1 << source.below(8),
        3 | 4 => bytes.truncate(at),
        5 => {
            let end = bytes.len().min(at + source.below(128));
            bytes[at.min(end)..end].fill(0);
        }
        6 => bytes.extend_from_slice(source.bytes(64)),
        _ => drop(files.remove(which)),
    }
}

fn check_named(error: &JournalError) {
    use JournalError::{
        Corrupt, Missing, NoManifest, OtherNames, UnknownKind, UnknownVersion, Vanished,
    };
    let is_named = matches!(
        error,
        Corrupt { .. }
            | Missing { .. }
            | NoManifest
            | OtherNames { .. }
            | UnknownKind { .. }
            | UnknownVersion { .. }
            | Vanished { .. }
    );
    assert!(is_named && !error.to_string().contains('\n'), "{error}");
}

/// Files of any name with anything in them, often sealed as if it had been written.
fn check_anything(source: &mut Source) {
    let mut files = BTreeMap::new();
    let names = source.names();
    if source.bool() {
        files.insert("identity".into(), identity(&names));
    }
    for _ in 0..source.below(6) {
        let number = 1 + source.below(4) as u32;
        let (name, bytes) = match source.below(6) {
            0 => (source.text(24), source.bytes(256).to_vec()),
            1 => ("identity".into(), source.bytes(256).to_vec()),
            2 => (Kind::Segment.file_name(number) + ".tmp", source.bytes(64).to_vec()),
            3 | 4 => (Kind::Segment.file_name(number), any_segment(number, &names, source)),
            _ => {
                let kind = [Kind::Books, Kind::Ids, Kind::Accounts][source.below(3)];
                (kind.file_name(number), any_file(kind, number, &names, source))
            }
        };
        files.insert(name, bytes);
    }
    let boot = BOOT + u8::from(source.bool());
    let mut files: Files = files.into_iter().collect();
    Layout::of(source).dress(&mut files);
    if let Err(error) = start(&files, boot) {
        check_named(&error);
    }
}

fn any_segment(number: u32, names: &Names, source: &mut Source) -> Vec<u8> {
    let mut bytes = empty_segment(number, names);
    let mut accounts = Accounts::new();
    for _ in 0..source.below(8) {
        let offset = bytes.len();
        match source.below(8) {
            0 => {
                let (kind, detail) = (source.u8() % 70, source.u8());
                let record = sealed(number, offset, kind, detail, source.bytes(128));
                bytes.extend_from_slice(&record);
            }
            1 => bytes.extend_from_slice(source.bytes(64)),
            2 => Record::End.encode(seed(number, names), offset, &mut bytes),
            3 => {
                let purged = Record::Event(Event::Purged);
                purged.encode(seed(number, names), offset, &mut bytes);
            }
            _ => {
                let record = source.record(&mut accounts, 8);
                record.encode(seed(number, names), offset, &mut bytes);
            }
        }
    }
    bytes
}

fn any_file(kind: Kind, number: u32, names: &Names, source: &mut Source) -> Vec<u8> {
    let entry_bytes = if kind == Kind::Books { 16 } else { 24 };
    let flags = source.u8() % 4;
    let body = source.bytes(256);
    let body = &body[..body.len() / entry_bytes * entry_bytes];
    let mut own = [0; head::OWN_BYTES];
    own[0] = flags;
    own[4..8].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let count = (body.len() / entry_bytes) as u64;
    let (first, second) = match kind {
        Kind::Accounts => (source.u8().into(), body.len() as u64),
        _ => (count, 0),
    };
    own[8..16].copy_from_slice(&first.to_le_bytes());
    own[16..24].copy_from_slice(&second.to_le_bytes());
    [&head::encode(kind, number, own, Reference::to(names)), body].concat()
}
