//! What is kept of a segment whose payments are all over: the settlements in the order of their
//! time (`volume.rs`), and the ids that were accepted, to know repetitions by.
//!
//! ```text
//! ids:   head, then in the order of acceptance: id 16, cents 8
//! ```
//!
//! The entries of a ledger leave nothing here: they are in the accounts (`accounts.rs`). Adoptions,
//! rejections and resolutions are in the notes (`notes.rs`). Books as they were before version 3 of the layout
//! (`head.rs`) are read here, too.
//!
//! Knows nothing of files. The invariant: such a file is used whole or not at all; its head has
//! the checksum of the rest (`head.rs`).

use super::JournalError;
use super::abridged::Abridged;
use super::head::{self, FILE_HEAD_BYTES, Head, Kind, OWN_BYTES};
use super::names::Reference;
use super::record::Record;
use super::volume::Volume;
use super::{notes, volume};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::ledger::Entry;
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::{Attempts, Each, Line, PaymentId, Processor, Settlement};

/// Before version 3 of the layout.
const SETTLEMENT_BYTES: usize = 2 * size_of::<i64>();
pub const ID_BYTES: usize = size_of::<u128>() + size_of::<i64>();
const STANDS_ALONE: u32 = 1;
const HAS_ACCOUNTS: u32 = 2;
const IS_ABRIDGED: u32 = 4;

/// What is kept of one segment. See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Nothing in files of lower numbers counts: a purge came after, or all that they still meant
    /// is in these accounts.
    pub stands_alone: bool,
    /// A file of accounts of the same number belongs to these books.
    pub has_accounts: bool,
    pub settled: Vec<Line>,
    pub ids: Vec<(PaymentId, Cents)>,
    /// What the notes of this number say, if anything, and the notes before them that count.
    pub notes: Vec<Event>,
    pub notes_before: Option<u32>,
    /// Not kept in these files either: the accounts come of them. With their offsets.
    pub entries: Vec<(usize, Entry)>,
}

impl Remains {
    pub fn add(&mut self, offset: usize, record: &Record) {
        match record {
            Record::Event(event) => self.add_event(event),
            Record::Entry(entry) => self.entries.push((offset, *entry)),
            Record::Carried { .. } | Record::Synced { .. } | Record::End => {}
        }
    }

    fn add_event(&mut self, event: &Event) {
        self.ids.extend(event.makes_known());
        match *event {
            Event::Settled { id, settlement, attempts } => {
                self.settled.push(Line { id: Some(id), settlement, attempts });
            }
            Event::Adopted { .. }
            | Event::Told { .. }
            | Event::Rejected(_)
            | Event::Resolved(_) => {
                self.notes.push(event.clone());
            }
            Event::Purged => *self = Remains { stands_alone: true, ..Remains::default() },
            // Their payments are over, or it would not be rewritten.
            Event::Accepted { .. }
            | Event::Attempted { .. }
            | Event::Released { .. }
            | Event::Foreign { .. }
            | Event::Forwarded { .. } => {}
        }
    }

    pub fn sort(&mut self) {
        self.settled.sort_unstable_by_key(volume::order);
    }

    /// A volume.
    pub fn encode(&self, number: u32, names: Reference) -> Vec<u8> {
        volume::encode(number, number, self.flags(number), &self.settled, names)
    }

    fn flags(&self, number: u32) -> Flags {
        let notes = if self.notes.is_empty() { self.notes_before } else { Some(number) };
        let (stands_alone, has_accounts) = (self.stands_alone, self.has_accounts);
        Flags { stands_alone, has_accounts, is_abridged: false, notes }
    }

    pub fn encode_ids(&self, number: u32) -> Vec<u8> {
        encode_ids(number, number, &self.ids)
    }

    pub fn encode_notes(&self, number: u32, names: Reference) -> Vec<u8> {
        notes::encode(number, self.notes_before, &self.notes, names)
    }
}

/// The ids that were accepted in these segments, in that order.
pub fn encode_ids(first: u32, last: u32, ids: &[(PaymentId, Cents)]) -> Vec<u8> {
    let mut bytes = with_room_for_head(ids.len() * ID_BYTES);
    for (id, amount) in ids {
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.extend_from_slice(&amount.0.to_le_bytes());
    }
    let (counts, names) = ([ids.len() as u64, first.into()], Reference::NONE);
    let own = Own { flags: 0, counts, notes: None, names };
    own.finish(Kind::Ids, last, &mut bytes);
    bytes
}

pub(super) fn with_room_for_head(body: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_HEAD_BYTES + body);
    bytes.resize(FILE_HEAD_BYTES, 0);
    bytes
}

/// The part of the head that these files have for their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub flags: u32,
    pub counts: [u64; 2],
    /// The last notes that count besides: with books, or before notes.
    pub notes: Option<u32>,
    /// The table it is written under, if it names processors.
    pub names: Reference,
}

impl Own {
    /// Fills in the head of a file whose rest is there.
    pub fn finish(&self, kind: Kind, number: u32, bytes: &mut [u8]) {
        let head = self.head(kind, number, crc32c::crc32c(&bytes[FILE_HEAD_BYTES..]));
        bytes[..FILE_HEAD_BYTES].copy_from_slice(&head);
    }

    pub fn head(&self, kind: Kind, number: u32, checksum: u32) -> [u8; FILE_HEAD_BYTES] {
        let mut own = [0; OWN_BYTES];
        own[..4].copy_from_slice(&self.flags.to_le_bytes());
        own[4..8].copy_from_slice(&checksum.to_le_bytes());
        own[8..16].copy_from_slice(&self.counts[0].to_le_bytes());
        own[16..24].copy_from_slice(&self.counts[1].to_le_bytes());
        own[24..].copy_from_slice(&self.notes.unwrap_or(0).to_le_bytes());
        head::encode(kind, number, own, self.names)
    }

    pub fn read(Head { own, names }: Head) -> (Own, u32) {
        let word = |at: usize| {
            own[at..at + 4].iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let notes = Some(word(24)).filter(|number| *number != 0);
        (Own { flags: word(0), counts: [long(8), long(16)], notes, names }, word(4))
    }
}

/// The checked body of a file of so many entries.
fn open(
    kind: Kind,
    number: u32,
    bytes: &[u8],
    entry_bytes: usize,
    count: impl FnOnce(&Own) -> u128,
) -> Result<(Own, &[u8]), JournalError> {
    let (own, checksum) = Own::read(head::decode_nameless(kind, number, bytes)?);
    let body = bytes.get(FILE_HEAD_BYTES..).unwrap_or_default();
    let corrupt = |what| {
        let file = kind.file_name(number);
        Err(JournalError::Corrupt { file, offset: FILE_HEAD_BYTES, what })
    };
    if count(&own) * entry_bytes as u128 != body.len() as u128 {
        return corrupt("a length that differs from what its head says");
    }
    if crc32c::crc32c(body) != checksum {
        return corrupt("a checksum that does not match");
    }
    Ok((own, body))
}

fn number_at(entry: &[u8], at: usize) -> i64 {
    entry.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, i64::from_le_bytes)
}

/// What the head of books says besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub stands_alone: bool,
    pub has_accounts: bool,
    /// They are no volume, but totals (`abridged.rs`).
    pub is_abridged: bool,
    /// The last notes that count.
    pub notes: Option<u32>,
}

impl Flags {
    pub(super) fn of(own: &Own) -> Flags {
        let has = |flag: u32| own.flags & flag != 0;
        Flags {
            stands_alone: has(STANDS_ALONE),
            has_accounts: has(HAS_ACCOUNTS),
            is_abridged: has(IS_ABRIDGED),
            notes: own.notes,
        }
    }

    pub(super) fn bits(self) -> u32 {
        let flags = [
            (self.stands_alone, STANDS_ALONE),
            (self.has_accounts, HAS_ACCOUNTS),
            (self.is_abridged, IS_ABRIDGED),
        ];
        flags.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum()
    }
}

/// # Errors
/// If the head (all that is needed of the file) is not whole.
pub fn flags(number: u32, head: &[u8]) -> Result<Flags, JournalError> {
    let (own, _) = Own::read(head::decode_nameless(Kind::Books, number, head)?);
    Ok(Flags::of(&own))
}

/// Whether these are books as they were before version 3 of the layout.
pub fn are_old(head: &[u8]) -> bool {
    head::version_of(head) < head::VERSION_OF_VOLUMES
}

/// The settlements of such books, in the order of their time.
///
/// # Errors
/// If the books are not whole.
pub fn old_lines(number: u32, bytes: &[u8], names: &Names) -> Result<Vec<Line>, JournalError> {
    head::decode(Kind::Books, number, bytes, names)?;
    let count = |own: &Own| u128::from(own.counts[0]) + u128::from(own.counts[1]);
    let (own, body) = open(Kind::Books, number, bytes, SETTLEMENT_BYTES, count)?;
    let of_default = own.counts[0] as usize;
    let line = |(index, entry): (usize, &[u8])| {
        let processor = Processor::CONTEST[usize::from(index >= of_default)];
        let (requested_at, amount) = (Timestamp(number_at(entry, 0)), Cents(number_at(entry, 8)));
        let settlement = Settlement { processor, amount, requested_at };
        Line { id: None, settlement, attempts: Attempts::default() }
    };
    let mut lines: Vec<Line> = body.chunks_exact(SETTLEMENT_BYTES).enumerate().map(line).collect();
    lines.sort_unstable_by_key(volume::order);
    Ok(lines)
}

/// Such books, as a version of before wrote them.
#[cfg(test)]
pub fn encode_old(number: u32, flags: Flags, settled: &[Vec<(Timestamp, Cents)>; 2]) -> Vec<u8> {
    let mut bytes = with_room_for_head(0);
    for (at, amount) in settled.iter().flatten() {
        bytes.extend_from_slice(&at.0.to_le_bytes());
        bytes.extend_from_slice(&amount.0.to_le_bytes());
    }
    let counts = settled.each_ref().map(|it| it.len() as u64);
    let (flags, notes, names) = (flags.bits(), flags.notes, Reference::first());
    Own { flags, counts, notes, names }.finish(Kind::Books, number, &mut bytes);
    head::set_version(&mut bytes, 2);
    bytes
}

/// The first segment that a file of ids is of.
///
/// # Errors
/// If the head is not whole.
pub fn first_of_ids(number: u32, head: &[u8]) -> Result<u32, JournalError> {
    let (own, _) = Own::read(head::decode_nameless(Kind::Ids, number, head)?);
    Ok(match u32::try_from(own.counts[1]) {
        Ok(first) if (1..=number).contains(&first) => first,
        _ => number,
    })
}

/// Whether books of either layout are whole.
///
/// # Errors
/// If they are not.
pub fn check(number: u32, bytes: &[u8], names: &Names) -> Result<Contents, JournalError> {
    let mut contents = Contents::default();
    if are_old(bytes) {
        old_lines(number, bytes, names)?.iter().for_each(|line| contents.add(line));
    } else if flags(number, bytes)?.is_abridged {
        let abridged = Abridged::read(number, bytes, names)?;
        contents.settled = abridged.total().map(|it| it.count);
        contents.bounds = abridged.bounds();
    } else {
        let volume = Volume::of_bytes(number, bytes.to_vec(), names)?;
        volume.check()?;
        for line in volume.lines() {
            contents.add(&line?);
        }
    }
    Ok(contents)
}

/// What is in books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Settlements per processor.
    pub settled: Each<u64>,
    /// The times of the first and the last.
    pub bounds: Option<(Timestamp, Timestamp)>,
}

impl Contents {
    pub fn add(&mut self, line: &Line) {
        let Settlement { processor, requested_at: at, .. } = line.settlement;
        self.settled[processor.index()] += 1;
        let (first, last) = self.bounds.unwrap_or((at, at));
        self.bounds = Some((first.min(at), last.max(at)));
    }
}

/// Replaces what the head of a whole volume says besides. It stays under its table of names, as many sums as
/// which it has room for.
///
/// # Errors
/// If the head is not whole.
pub fn set_flags(number: u32, flags: Flags, bytes: &mut [u8]) -> Result<(), JournalError> {
    let (own, checksum) = Own::read(head::decode_nameless(Kind::Books, number, bytes)?);
    let own = Own { flags: flags.bits(), notes: flags.notes, ..own };
    bytes[..FILE_HEAD_BYTES].copy_from_slice(&own.head(Kind::Books, number, checksum));
    Ok(())
}

/// The ids of a file, in the order of acceptance.
///
/// # Errors
/// If the file is not whole.
pub fn ids(
    number: u32,
    bytes: &[u8],
) -> Result<impl DoubleEndedIterator<Item = (PaymentId, Cents)> + ExactSizeIterator, JournalError> {
    let (_, body) = open(Kind::Ids, number, bytes, ID_BYTES, |own| own.counts[0].into())?;
    Ok(body.chunks_exact(ID_BYTES).map(|entry| {
        let id = entry.first_chunk().copied().map_or(0, u128::from_le_bytes);
        (PaymentId(id), Cents(number_at(entry, size_of::<u128>())))
    }))
}

/// How many ids a file holds, from its head.
///
/// # Errors
/// If the head is not whole.
pub fn count_of_ids(number: u32, head: &[u8]) -> Result<usize, JournalError> {
    let (own, _) = Own::read(head::decode_nameless(Kind::Ids, number, head)?);
    Ok(own.counts[0] as usize)
}
