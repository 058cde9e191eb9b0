//! What is kept of a segment whose payments are all over: the settlements in the order of their
//! time, for the summary, and the ids that were accepted, to know repetitions by.
//!
//! ```text
//! books: head, then for each processor its settlements: requested at (ms) 8, cents 8
//! ids:   head, then in the order of acceptance: id 16, cents 8
//! ```
//!
//! The entries of a ledger leave nothing here: they are in the accounts (`accounts.rs`). Adoptions
//! and rejections are in the notes (`notes.rs`).
//!
//! Knows nothing of files. The invariant: such a file is used whole or not at all; its head has
//! the checksum of the rest (`head.rs`).

use super::JournalError;
use super::head::{self, FILE_HEAD_BYTES, Kind, OWN_BYTES};
use super::notes;
use super::record::Record;
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::ledger::Entry;
use crate::payments::event::Event;
use crate::payments::summary::SummaryIndex;
use crate::payments::{PaymentId, Processor, Settlement};

pub const SETTLEMENT_BYTES: usize = 2 * size_of::<i64>();
pub const ID_BYTES: usize = size_of::<u128>() + size_of::<i64>();
const STANDS_ALONE: u32 = 1;
const HAS_ACCOUNTS: u32 = 2;

/// What is kept of one segment. See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Nothing in files of lower numbers counts: a purge came after, or all that they still meant
    /// is in these accounts.
    pub stands_alone: bool,
    /// A file of accounts of the same number belongs to these books.
    pub has_accounts: bool,
    pub settled: [Vec<(Timestamp, Cents)>; 2],
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
            Event::Settled {
                settlement: Settlement { processor, amount, requested_at }, ..
            } => {
                self.settled[processor as usize].push((requested_at, amount));
            }
            Event::Adopted { .. } | Event::Told { .. } | Event::Rejected(_) => {
                self.notes.push(*event);
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
        for settled in &mut self.settled {
            settled.sort_unstable();
        }
    }

    pub fn encode(&self, number: u32) -> Vec<u8> {
        let [default, fallback] = &self.settled;
        let settlements = default.len() + fallback.len();
        let mut bytes = with_room_for_head(settlements * SETTLEMENT_BYTES);
        for (at, amount) in default.iter().chain(fallback) {
            bytes.extend_from_slice(&at.0.to_le_bytes());
            bytes.extend_from_slice(&amount.0.to_le_bytes());
        }
        let notes = if self.notes.is_empty() { self.notes_before } else { Some(number) };
        let flags = flag_bits(self.stands_alone, self.has_accounts);
        let own = Own { flags, counts: [default.len() as u64, fallback.len() as u64], notes };
        own.finish(Kind::Books, number, &mut bytes);
        bytes
    }

    pub fn encode_ids(&self, number: u32) -> Vec<u8> {
        let mut bytes = with_room_for_head(self.ids.len() * ID_BYTES);
        for (id, amount) in &self.ids {
            bytes.extend_from_slice(&id.0.to_le_bytes());
            bytes.extend_from_slice(&amount.0.to_le_bytes());
        }
        let own = Own { flags: 0, counts: [self.ids.len() as u64, 0], notes: None };
        own.finish(Kind::Ids, number, &mut bytes);
        bytes
    }

    pub fn encode_notes(&self, number: u32) -> Vec<u8> {
        notes::encode(number, self.notes_before, &self.notes)
    }
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
}

impl Own {
    pub fn finish(&self, kind: Kind, number: u32, bytes: &mut [u8]) {
        let mut own = [0; OWN_BYTES];
        own[..4].copy_from_slice(&self.flags.to_le_bytes());
        own[4..8].copy_from_slice(&crc32c::crc32c(&bytes[FILE_HEAD_BYTES..]).to_le_bytes());
        own[8..16].copy_from_slice(&self.counts[0].to_le_bytes());
        own[16..24].copy_from_slice(&self.counts[1].to_le_bytes());
        own[24..].copy_from_slice(&self.notes.unwrap_or(0).to_le_bytes());
        bytes[..FILE_HEAD_BYTES].copy_from_slice(&head::encode(kind, number, own));
    }

    pub fn read(own: &[u8; OWN_BYTES]) -> (Own, u32) {
        let word = |at: usize| {
            own[at..at + 4].iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let notes = Some(word(24)).filter(|number| *number != 0);
        (Own { flags: word(0), counts: [long(8), long(16)], notes }, word(4))
    }
}

/// The checked body of a file, and what its head says of it.
fn open(
    kind: Kind,
    number: u32,
    bytes: &[u8],
    entry_bytes: usize,
) -> Result<(Own, &[u8]), JournalError> {
    let (own, checksum) = Own::read(&head::decode(kind, number, bytes)?);
    let body = bytes.get(FILE_HEAD_BYTES..).unwrap_or_default();
    let corrupt = |what| {
        let file = kind.file_name(number);
        Err(JournalError::Corrupt { file, offset: FILE_HEAD_BYTES, what })
    };
    let length = u128::from(own.counts[0]) + u128::from(own.counts[1]);
    if length * entry_bytes as u128 != body.len() as u128 {
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
    /// The last notes that count.
    pub notes: Option<u32>,
}

fn flag_bits(stands_alone: bool, has_accounts: bool) -> u32 {
    let alone = if stands_alone { STANDS_ALONE } else { 0 };
    alone | if has_accounts { HAS_ACCOUNTS } else { 0 }
}

/// # Errors
/// If the head (all that is needed of the file) is not whole.
pub fn flags(number: u32, head: &[u8]) -> Result<Flags, JournalError> {
    let (Own { flags, notes, .. }, _) = Own::read(&head::decode(Kind::Books, number, head)?);
    let (alone, accounts) = (flags & STANDS_ALONE, flags & HAS_ACCOUNTS);
    Ok(Flags { stands_alone: alone != 0, has_accounts: accounts != 0, notes })
}

/// The settlements of books, of each processor in the order of their time.
///
/// # Errors
/// If the books are not whole.
pub fn settlements(
    number: u32,
    bytes: &[u8],
) -> Result<
    [impl DoubleEndedIterator<Item = (Timestamp, Cents)> + ExactSizeIterator; 2],
    JournalError,
> {
    let (own, body) = open(Kind::Books, number, bytes, SETTLEMENT_BYTES)?;
    // Fits: the body has that length.
    let (default, fallback) = body.split_at(own.counts[0] as usize * SETTLEMENT_BYTES);
    Ok([default, fallback].map(|settled| {
        settled
            .chunks_exact(SETTLEMENT_BYTES)
            .map(|entry| (Timestamp(number_at(entry, 0)), Cents(number_at(entry, 8))))
    }))
}

/// Adds the settlements of books to a summary; returns how many per processor.
///
/// # Errors
/// If the books are not whole. Nothing was added then.
pub fn add_to(
    summary: &mut SummaryIndex,
    number: u32,
    bytes: &[u8],
) -> Result<[usize; 2], JournalError> {
    let settled = settlements(number, bytes)?;
    let counts = settled.each_ref().map(ExactSizeIterator::len);
    for (processor, entries) in Processor::ALL.into_iter().zip(settled) {
        summary.record_run(processor, entries);
    }
    Ok(counts)
}

/// Replaces what the head of whole books says besides.
///
/// # Errors
/// If the head is not whole.
pub fn set_flags(number: u32, flags: Flags, bytes: &mut [u8]) -> Result<(), JournalError> {
    let (own, _) = Own::read(&head::decode(Kind::Books, number, bytes)?);
    let Flags { stands_alone, has_accounts, notes } = flags;
    let own = Own { flags: flag_bits(stands_alone, has_accounts), notes, ..own };
    own.finish(Kind::Books, number, bytes);
    Ok(())
}

/// How many settlements the head of books tells of, per processor.
///
/// # Errors
/// If the head is not whole.
pub fn counts_of_settlements(number: u32, head: &[u8]) -> Result<[u64; 2], JournalError> {
    let (own, _) = Own::read(&head::decode(Kind::Books, number, head)?);
    Ok(own.counts)
}

/// The ids of a file, in the order of acceptance.
///
/// # Errors
/// If the file is not whole.
pub fn ids(
    number: u32,
    bytes: &[u8],
) -> Result<impl DoubleEndedIterator<Item = (PaymentId, Cents)> + ExactSizeIterator, JournalError> {
    let (_, body) = open(Kind::Ids, number, bytes, ID_BYTES)?;
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
    let (own, _) = Own::read(&head::decode(Kind::Ids, number, head)?);
    Ok(own.counts[0] as usize)
}
