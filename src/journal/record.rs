//! The records of the journal, byte for byte: encoding, and decoding that is total.
//!
//! Knows nothing of files. The invariant: bytes decode to a record only if they were encoded as
//! that record for that very place (segment and offset), so stale or misplaced bytes never count.
//!
//! All integers are little-endian. Every record is a multiple of eight bytes long and starts at
//! one, so what follows a bad record can be found again.
//!
//! ```text
//! offset  size  what
//!      0     4  CRC-32C of everything behind it, seeded with the segment and the offset
//!      4     2  length of the whole record in bytes
//!      6     1  kind
//!      7     1  detail: the processor's number in the table of names (`names.rs`; for Carried one more,
//!               or 0 for none); for Settled and Carried times 16 besides, how often the payment was
//!               attempted (0 not known, 15 so often or more)
//!      8     …  payload, fixed per kind:
//!
//! kind  name        length  payload
//!    1  Accepted        40  id 16, amount in cents 8, accepted at (ms since 1970) 8
//!    2  Attempted       32  id 16, requested at (ms) 8
//!    3  Released        24  id 16
//!    4  Settled         40  id 16, amount in cents 8, requested at (ms) 8
//!    5  Foreign         24  id 16
//!    6  Forwarded       32  id 16, amount in cents 8; the detail is 1 if it was never accepted here
//!    7  Purged           8  -
//!    8  Synced          16  position 8: the offset in the lower half, the segment in the upper
//!    9  End              8  -
//!   10  Carried         48  id 16, amount in cents 8, accepted at (ms) 8, requested at (ms) 8
//!   11  Adopted         32  id 16, amount in cents 8
//!   12  Rejected   40 to 56  id 16, amount in cents 8, for each processor in the table the status of
//!                           its last refusal 2 (0: not asked, 200: it holds the id under another
//!                           amount), accepted at in seconds since 1970 4 (0: not known) at the next
//!                           multiple of four; the detail is for how many (0 of before version 6: two)
//!   13  Told            24  id 16
//!   14  Resolved   64…384  see `resolved.rs`; the detail is 0 retry, 1 settled, 2 not booked,
//!                           3 cancelled, 4 elsewhere; besides 16 × the processor that is named
//!   64  Entry       72…112  see `entry.rs`; the detail is 0 for a credit, 1 for a debit
//! 65…127 kept for the ledger
//! ```
//!
//! Eight zero bytes where a record would start are the end of the records: segments are
//! allocated ahead and read as zeros. No record begins with them, since none is of length zero.

use super::{Position, entry, resolved};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::ledger::{Entry, Key};
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::resolution::Resolution;
use crate::payments::{Attempts, Each, PaymentId, Processor, Rejection, Settlement};
use std::fmt;
use std::sync::Arc;

const LENGTH_AT: usize = size_of::<u32>();
const KIND_AT: usize = LENGTH_AT + size_of::<u16>();
const DETAIL_AT: usize = KIND_AT + size_of::<u8>();
/// What every record starts with.
pub const HEAD_BYTES: usize = DETAIL_AT + size_of::<u8>();

const ID_AT: usize = HEAD_BYTES;
const AFTER_ID: usize = ID_AT + size_of::<u128>();
const AFTER_AMOUNT: usize = AFTER_ID + size_of::<i64>();

pub const ACCEPTED_BYTES: usize = AFTER_AMOUNT + size_of::<i64>();
pub const ATTEMPTED_BYTES: usize = AFTER_ID + size_of::<i64>();
pub const RELEASED_BYTES: usize = AFTER_ID;
pub const SETTLED_BYTES: usize = AFTER_AMOUNT + size_of::<i64>();
pub const FOREIGN_BYTES: usize = AFTER_ID;
pub const FORWARDED_BYTES: usize = AFTER_AMOUNT;
pub const ADOPTED_BYTES: usize = AFTER_AMOUNT;
pub const TOLD_BYTES: usize = AFTER_ID;
pub const PURGED_BYTES: usize = HEAD_BYTES;
pub const SYNCED_BYTES: usize = HEAD_BYTES + size_of::<u64>();
pub const END_BYTES: usize = HEAD_BYTES;
pub const CARRIED_BYTES: usize = ACCEPTED_BYTES + size_of::<i64>();
/// The longest record of a payment, but for a Rejected and a Resolved.
const PAYMENT_BYTES_MAX: usize = CARRIED_BYTES;
pub const REJECTED_BYTES_MAX: usize = rejected_bytes(Processor::MAX as u8);
pub const ENTRY_BYTES_MAX: usize = HEAD_BYTES + entry::PAYLOAD_BYTES_MAX;
pub const RESOLVED_BYTES_MAX: usize = HEAD_BYTES + resolved::PAYLOAD_BYTES_MAX;
/// The longest record of this version.
#[cfg(test)]
pub const RECORD_BYTES_MAX: usize = RESOLVED_BYTES_MAX;
#[cfg(test)]
const _: () = assert!(ENTRY_BYTES_MAX <= RESOLVED_BYTES_MAX);

/// Every length and every start is a multiple of this.
pub const ALIGNMENT: usize = 8;
const _: () = assert!(HEAD_BYTES == 8 && ACCEPTED_BYTES == 40 && ATTEMPTED_BYTES == 32);
const _: () = assert!(RELEASED_BYTES == 24 && SETTLED_BYTES == 40 && FORWARDED_BYTES == 32);
const _: () = assert!(CARRIED_BYTES == 48 && CARRIED_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(SYNCED_BYTES == 16 && ACCEPTED_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(ATTEMPTED_BYTES.is_multiple_of(ALIGNMENT) && SETTLED_BYTES <= ACCEPTED_BYTES);
const _: () = assert!(rejected_bytes(2) == 40 && REJECTED_BYTES_MAX == 56);
const _: () = assert!(ENTRY_BYTES_MAX == 112 && ENTRY_BYTES_MAX.is_multiple_of(ALIGNMENT));

/// The detail of a Rejected of before version 6, which did not count its statuses: there are two.
const STATUSES_NOT_COUNTED: u8 = 0;

/// Where in a Rejected with so many statuses it says when it was accepted.
const fn after_statuses(count: u8) -> usize {
    (AFTER_AMOUNT + count as usize * size_of::<u16>()).next_multiple_of(size_of::<u32>())
}

/// The length of a Rejected under a table of so many names.
pub const fn rejected_bytes(names: u8) -> usize {
    (after_statuses(names) + size_of::<u32>()).next_multiple_of(ALIGNMENT)
}

/// The number of the kind of a ledger's entry.
const ENTRY: u8 = 64;

/// What is in the segments: what happened, and what holds the segments together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What happened to a payment. A purge is always the first record of its segment.
    Event(Event),
    /// A payment that was accepted in an older segment, written again so that the old segment can
    /// go. With its open attempt, in one record: torn between two it would come back free.
    Carried {
        id: PaymentId,
        amount: Cents,
        accepted_at: Timestamp,
        attempt: Option<(Processor, Timestamp)>,
        attempts: Attempts,
    },
    /// When this was written, everything before that position had reached the disk.
    Synced { until: Position },
    /// The segment is full; what follows is in the next one. Always its last record.
    End,
    /// A transaction on an account of the ledger.
    Entry(Entry),
}

/// What the bytes at one place are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    Record {
        record: Record,
        length: usize,
    },
    /// Zeros where a record would start, or too little left for one: the records end here.
    Blank,
    /// No record was written here, or it has been damaged since.
    Bad(&'static str),
    /// Intact, and not of this version.
    UnknownKind {
        kind: u8,
        length: usize,
    },
}

/// What is known of the records of a file before one of them is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// What their checksums start from, so that no record of another segment verifies.
    start: u32,
    /// So many names are in the table that they are written under: there is no other processor.
    names: u8,
}

impl Seed {
    pub fn of_segment(number: u32, names: u8) -> Seed {
        Seed { start: crc32c::crc32c(&number.to_le_bytes()), names }
    }

    /// Two places in one segment never start from the same value.
    fn checksum(self, offset: usize, covered: &[u8]) -> u32 {
        crc32c::crc32c_append(self.start ^ offset as u32, covered)
    }

    /// The processor of this number, if it has a name.
    fn processor(self, number: u8) -> Option<Processor> {
        Processor::new(number.into()).filter(|_| number < self.names)
    }
}

impl Record {
    /// Of its bytes in such a file.
    pub fn length(&self, seed: Seed) -> usize {
        match self {
            Record::Event(event) => length_of(event, seed),
            Record::Carried { .. } => CARRIED_BYTES,
            Record::Synced { .. } => SYNCED_BYTES,
            Record::End => END_BYTES,
            Record::Entry(entry) => HEAD_BYTES + entry::payload_bytes(entry),
        }
    }

    fn kind_and_detail(&self, seed: Seed) -> (u8, u8) {
        match *self {
            Record::Event(Event::Accepted { .. }) => (1, 0),
            Record::Event(Event::Attempted { processor, .. }) => (2, processor.number()),
            Record::Event(Event::Released { .. }) => (3, 0),
            Record::Event(Event::Settled { settlement, attempts, .. }) => {
                (4, settlement.processor.number() | with(attempts))
            }
            Record::Event(Event::Foreign { .. }) => (5, 0),
            Record::Event(Event::Forwarded { learned, .. }) => (6, u8::from(learned)),
            Record::Event(Event::Purged) => (7, 0),
            Record::Synced { .. } => (8, 0),
            Record::End => (9, 0),
            Record::Carried { attempt, attempts, .. } => {
                let processor = attempt.map_or(0, |(processor, _)| 1 + processor.number());
                (10, processor | with(attempts))
            }
            Record::Event(Event::Adopted { .. }) => (11, 0),
            Record::Event(Event::Rejected(_)) => (12, seed.names),
            Record::Event(Event::Told { .. }) => (13, 0),
            Record::Event(Event::Resolved(ref it)) => (14, resolved::detail_of(it.action)),
            Record::Entry(ref entry) => (ENTRY, entry::number_of(entry.transaction.kind)),
        }
    }

    /// Appends the record, as it is written at that offset of that segment.
    pub fn encode(&self, seed: Seed, offset: usize, out: &mut Vec<u8>) {
        // An entry is more than twice as long as anything else: payments do not pay for its room.
        if let Record::Entry(entry) = self {
            let mut bytes = [0; ENTRY_BYTES_MAX];
            if let Some(payload) = bytes.last_chunk_mut() {
                entry::encode(entry, payload);
            }
            self.finish(seed, offset, &mut bytes, out);
        } else if let Record::Event(Event::Resolved(resolution)) = self {
            let mut bytes = [0; RESOLVED_BYTES_MAX];
            resolved::encode(resolution, &mut bytes[HEAD_BYTES..]);
            self.finish(seed, offset, &mut bytes, out);
        } else if let Record::Event(Event::Rejected(rejection)) = self {
            let mut bytes = [0; REJECTED_BYTES_MAX];
            put_rejection(rejection, seed.names, &mut bytes);
            self.finish(seed, offset, &mut bytes, out);
        } else {
            let mut bytes = [0; PAYMENT_BYTES_MAX];
            self.put_payload(&mut bytes);
            self.finish(seed, offset, &mut bytes, out);
        }
    }

    fn finish(&self, seed: Seed, offset: usize, bytes: &mut [u8], out: &mut Vec<u8>) {
        let length = self.length(seed);
        let (kind, detail) = self.kind_and_detail(seed);
        bytes[LENGTH_AT..KIND_AT].copy_from_slice(&(length as u16).to_le_bytes());
        bytes[KIND_AT] = kind;
        bytes[DETAIL_AT] = detail;
        let checksum = seed.checksum(offset, &bytes[LENGTH_AT..length]);
        put(bytes, 0, checksum.to_le_bytes());
        out.extend_from_slice(&bytes[..length]);
    }

    /// Of any kind of fixed length.
    fn put_payload(&self, bytes: &mut [u8; PAYMENT_BYTES_MAX]) {
        match *self {
            Record::Event(ref event) => put_event(event, bytes),
            Record::Synced { until } => put(bytes, HEAD_BYTES, until.0.to_le_bytes()),
            Record::Carried { id, amount, accepted_at, attempt, .. } => {
                put(bytes, ID_AT, id.0.to_le_bytes());
                put(bytes, AFTER_ID, amount.0.to_le_bytes());
                put(bytes, AFTER_AMOUNT, accepted_at.0.to_le_bytes());
                let requested_at = attempt.map_or(0, |(_, requested_at)| requested_at.0);
                put(bytes, ACCEPTED_BYTES, requested_at.to_le_bytes());
            }
            Record::End | Record::Entry(_) => {}
        }
    }

    /// The record that begins at this offset of a segment's bytes. Never panics.
    pub fn decode(seed: Seed, segment: &[u8], offset: usize) -> Decoded {
        segment.get(offset..).map_or(Decoded::Blank, |rest| Record::decode_at(seed, rest, offset))
    }

    /// The record with which these bytes begin, which are those of a segment from this offset on.
    pub fn decode_at(seed: Seed, bytes: &[u8], offset: usize) -> Decoded {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
            let blank = bytes.iter().all(|byte| *byte == 0);
            return if blank { Decoded::Blank } else { Decoded::Bad("a part of a record") };
        };
        if *head == [0; HEAD_BYTES] {
            return Decoded::Blank;
        }
        let length = usize::from(u16::from_le_bytes([head[LENGTH_AT], head[LENGTH_AT + 1]]));
        if length < HEAD_BYTES || !length.is_multiple_of(ALIGNMENT) {
            return Decoded::Bad("a length that no record has");
        }
        let Some(bytes) = bytes.get(..length) else {
            return Decoded::Bad("a record longer than the file");
        };
        if take::<4>(bytes, 0).map(u32::from_le_bytes)
            != Some(seed.checksum(offset, &bytes[LENGTH_AT..]))
        {
            return Decoded::Bad("a checksum that does not match");
        }
        Record::read(seed, head[KIND_AT], head[DETAIL_AT], bytes)
    }

    /// Bytes whose checksum is right. They were written by this program, or by a later version. One of a
    /// processor without a name is none of this table: refused, and never cut off as torn.
    fn read(seed: Seed, kind: u8, detail: u8, bytes: &[u8]) -> Decoded {
        let length = bytes.len();
        let record = match kind {
            8 => take(bytes, HEAD_BYTES)
                .map(|until| Record::Synced { until: Position(u64::from_le_bytes(until)) }),
            9 => Some(Record::End),
            10 => read_carried(seed, detail, bytes),
            12 => return read_rejected(seed, detail, bytes),
            ENTRY => entry::kind_of(detail)
                .and_then(|kind| entry::decode(kind, &bytes[HEAD_BYTES..]))
                .map(Record::Entry),
            _ => read_event(seed, kind, detail, bytes).map(Record::Event),
        };
        match record {
            Some(record) if record.length(seed) == length => Decoded::Record { record, length },
            // Intact, and of another kind or shape: a layout of another version.
            _ => Decoded::UnknownKind { kind, length },
        }
    }
}

/// How a detail tells of the attempts.
fn with(attempts: Attempts) -> u8 {
    attempts.min(Attempts::MANY).0 << 4
}

/// The reverse: what else a detail says, and the attempts.
fn without_attempts(detail: u8) -> (u8, Attempts) {
    (detail & 0x0f, Attempts(detail >> 4))
}

fn length_of(event: &Event, seed: Seed) -> usize {
    match event {
        Event::Accepted { .. } => ACCEPTED_BYTES,
        Event::Attempted { .. } => ATTEMPTED_BYTES,
        Event::Released { .. } => RELEASED_BYTES,
        Event::Settled { .. } => SETTLED_BYTES,
        Event::Foreign { .. } => FOREIGN_BYTES,
        Event::Forwarded { .. } => FORWARDED_BYTES,
        Event::Adopted { .. } => ADOPTED_BYTES,
        Event::Rejected(_) => rejected_bytes(seed.names),
        Event::Told { .. } => TOLD_BYTES,
        Event::Resolved(resolution) => HEAD_BYTES + resolved::payload_bytes(resolution),
        Event::Purged => PURGED_BYTES,
    }
}

fn put_event(event: &Event, bytes: &mut [u8; PAYMENT_BYTES_MAX]) {
    let mut put_id = |id: PaymentId| put(bytes, ID_AT, id.0.to_le_bytes());
    match *event {
        Event::Accepted { id, amount, accepted_at } => {
            put_id(id);
            put(bytes, AFTER_ID, amount.0.to_le_bytes());
            put(bytes, AFTER_AMOUNT, accepted_at.0.to_le_bytes());
        }
        Event::Settled { id, settlement, .. } => {
            put_id(id);
            put(bytes, AFTER_ID, settlement.amount.0.to_le_bytes());
            put(bytes, AFTER_AMOUNT, settlement.requested_at.0.to_le_bytes());
        }
        Event::Attempted { id, requested_at, .. } => {
            put_id(id);
            put(bytes, AFTER_ID, requested_at.0.to_le_bytes());
        }
        Event::Released { id } | Event::Foreign { id } | Event::Told { id } => put_id(id),
        Event::Forwarded { id, amount, .. } | Event::Adopted { id, amount } => {
            put_id(id);
            put(bytes, AFTER_ID, amount.0.to_le_bytes());
        }
        Event::Rejected(_) | Event::Resolved(_) | Event::Purged => {}
    }
}

fn put_rejection(rejection: &Rejection, names: u8, bytes: &mut [u8; REJECTED_BYTES_MAX]) {
    let Rejection { id, amount, statuses, accepted_at } = rejection;
    put(bytes, ID_AT, id.0.to_le_bytes());
    put(bytes, AFTER_ID, amount.0.to_le_bytes());
    for (index, status) in statuses.iter().take(names.into()).enumerate() {
        put(bytes, AFTER_AMOUNT + index * size_of::<u16>(), status.to_le_bytes());
    }
    let seconds = (accepted_at.0 / 1_000) as u32;
    put(bytes, after_statuses(names), seconds.to_le_bytes());
}

/// Of no more statuses than there are names: where the head of a segment is damaged, it may have been
/// written when there were fewer.
fn read_rejected(seed: Seed, detail: u8, bytes: &[u8]) -> Decoded {
    let (kind, length) = (12, bytes.len());
    let count = if detail == STATUSES_NOT_COUNTED { 2 } else { detail };
    if count > seed.names || length != rejected_bytes(count) {
        return Decoded::UnknownKind { kind, length };
    }
    let read = || {
        let mut statuses = Each::<u16>::default();
        for (index, status) in statuses.iter_mut().take(count.into()).enumerate() {
            *status = u16::from_le_bytes(take(bytes, AFTER_AMOUNT + index * size_of::<u16>())?);
        }
        let id = PaymentId(u128::from_le_bytes(take(bytes, ID_AT)?));
        let amount = Cents(i64::from_le_bytes(take(bytes, AFTER_ID)?));
        let seconds = u32::from_le_bytes(take(bytes, after_statuses(count))?);
        let accepted_at = Timestamp(i64::from(seconds) * 1_000);
        Some(Record::Event(Event::Rejected(Rejection { id, amount, statuses, accepted_at })))
    };
    read()
        .map_or(Decoded::UnknownKind { kind, length }, |record| Decoded::Record { record, length })
}

fn read_event(seed: Seed, kind: u8, detail: u8, bytes: &[u8]) -> Option<Event> {
    let id = || take(bytes, ID_AT).map(|id| PaymentId(u128::from_le_bytes(id)));
    let number = |at| take(bytes, at).map(i64::from_le_bytes);
    let amount = || number(AFTER_ID).map(Cents);
    Some(match kind {
        1 => Event::Accepted {
            id: id()?,
            amount: amount()?,
            accepted_at: Timestamp(number(AFTER_AMOUNT)?),
        },
        2 => Event::Attempted {
            id: id()?,
            processor: seed.processor(detail)?,
            requested_at: Timestamp(number(AFTER_ID)?),
        },
        3 => Event::Released { id: id()? },
        4 => {
            let (processor, attempts) = without_attempts(detail);
            let processor = seed.processor(processor)?;
            let (amount, requested_at) = (amount()?, Timestamp(number(AFTER_AMOUNT)?));
            let settlement = Settlement { processor, amount, requested_at };
            Event::Settled { id: id()?, settlement, attempts }
        }
        5 => Event::Foreign { id: id()? },
        6 => Event::Forwarded { id: id()?, amount: amount()?, learned: detail != 0 },
        7 => Event::Purged,
        11 => Event::Adopted { id: id()?, amount: amount()? },
        13 if detail == 0 => Event::Told { id: id()? },
        14 => {
            let resolution = resolved::decode(detail, &bytes[HEAD_BYTES..])?;
            if let Some((processor, _)) = resolution.action.names() {
                seed.processor(processor.number())?;
            }
            Event::Resolved(Arc::new(resolution))
        }
        _ => return None,
    })
}

fn read_carried(seed: Seed, detail: u8, bytes: &[u8]) -> Option<Record> {
    let number = |at| take(bytes, at).map(i64::from_le_bytes);
    let (processor, attempts) = without_attempts(detail);
    let attempt = match processor.checked_sub(1) {
        None => None,
        Some(processor) => Some((seed.processor(processor)?, Timestamp(number(ACCEPTED_BYTES)?))),
    };
    Some(Record::Carried {
        id: PaymentId(u128::from_le_bytes(take(bytes, ID_AT)?)),
        amount: Cents(number(AFTER_ID)?),
        accepted_at: Timestamp(number(AFTER_AMOUNT)?),
        attempt,
        attempts,
    })
}

impl Record {
    /// One line, for `galo journal dump`.
    pub fn show<'a>(&'a self, names: &'a Names) -> impl fmt::Display + 'a {
        Shown { record: self, names }
    }
}

struct Shown<'a> {
    record: &'a Record,
    names: &'a Names,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { record, names } = *self;
        match record {
            Record::Event(event) => show_event(event, names, f),
            Record::Carried { id, amount, accepted_at, attempt, attempts } => {
                write!(f, "Carried {id} {amount} at {accepted_at}")?;
                attempt.map_or(Ok(()), |(processor, requested_at)| {
                    let name = names.name_of(processor);
                    write!(f, ", attempted at {name} requested {requested_at}")
                })?;
                show_attempts(*attempts, f)
            }
            Record::Synced { until } => {
                write!(f, "Synced until {} in segment {}", until.offset(), until.segment())
            }
            Record::End => write!(f, "End"),
            Record::Entry(entry) => {
                let Entry { account, sequence, transaction, balance, at, key } = entry;
                let (account, transaction) = (account.0, entry::Line(transaction));
                write!(f, "Entry {sequence} of account {account}: {transaction} at {at}, ")?;
                write!(f, "balance {balance}")?;
                if *key == Key::NONE { Ok(()) } else { write!(f, ", key {:032x}", key.0) }
            }
        }
    }
}

fn show_attempts(attempts: Attempts, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match attempts {
        Attempts(0) => Ok(()),
        Attempts::MANY => write!(f, ", {} attempts or more", Attempts::MANY.0),
        Attempts(count) => write!(f, ", {count} attempts"),
    }
}

fn show_event(event: &Event, names: &Names, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        Event::Accepted { id, amount, accepted_at } => {
            write!(f, "Accepted {id} {amount} at {accepted_at}")
        }
        Event::Attempted { id, processor, requested_at } => {
            let name = names.name_of(*processor);
            write!(f, "Attempted {id} at {name} requested {requested_at}")
        }
        Event::Released { id } => write!(f, "Released {id}"),
        Event::Settled { id, settlement, attempts } => {
            let Settlement { processor, amount, requested_at } = settlement;
            let name = names.name_of(*processor);
            write!(f, "Settled {id} {amount} at {name} requested {requested_at}")?;
            show_attempts(*attempts, f)
        }
        Event::Foreign { id } => write!(f, "Foreign {id}"),
        Event::Forwarded { id, amount, learned } => {
            let how = if *learned { ", learned" } else { "" };
            write!(f, "Forwarded {id} {amount}{how}")
        }
        Event::Adopted { id, amount } => write!(f, "Adopted {id} {amount}"),
        Event::Told { id } => write!(f, "Told {id}"),
        Event::Rejected(Rejection { id, amount, statuses, .. }) => {
            write!(f, "Rejected {id} {amount}")?;
            let mut said = names.iter().zip(statuses);
            said.try_for_each(|((_, name), status)| write!(f, ", {name} {status}"))
        }
        Event::Resolved(resolution) => {
            let Resolution { id, amount, action, at, by, reason, .. } = &**resolution;
            write!(f, "Resolved {id} {amount} as {}", action.name())?;
            if let Some((processor, requested_at)) = action.names() {
                write!(f, " at {} requested {requested_at}", names.name_of(processor))?;
            }
            write!(f, ", on {at} by {by:?}: {reason:?}")
        }
        Event::Purged => write!(f, "Purged"),
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Micros;
    use crate::ledger::{AccountId, Description, Kind, Transaction};
    use crate::payments::each;
    use crate::payments::names::tests::names;
    use crate::payments::resolution::{Action, BY_BYTES_MAX, REASON_BYTES_MAX, Resolution};
    use proptest::prelude::*;

    /// Under the contest's table.
    fn seed(number: u32) -> Seed {
        Seed::of_segment(number, 2)
    }

    pub fn any_entry() -> impl Strategy<Value = Entry> {
        let text = proptest::collection::vec(any::<char>(), 1..=10);
        let description = text.prop_map(|it| Description::new(&String::from_iter(it)).unwrap());
        let kind = prop_oneof![Just(Kind::Credit), Just(Kind::Debit)];
        let transaction =
            (kind, 1..=i64::MAX, description).prop_map(|(kind, value, description)| Transaction {
                kind,
                value: Cents(value),
                description,
            });
        let numbers = (any::<u64>(), 1..u64::MAX, any::<i64>(), any::<i64>(), any::<u128>());
        (transaction, numbers).prop_map(|(transaction, (account, sequence, balance, at, key))| {
            let (account, balance, at) = (AccountId(account), Cents(balance), Micros(at));
            Entry { account, sequence, transaction, balance, at, key: Key(key) }
        })
    }

    pub fn any_record() -> impl Strategy<Value = Record> {
        prop_oneof![4 => any_payment_record(), 1 => any_entry().prop_map(Record::Entry)]
    }

    fn any_payment_record() -> impl Strategy<Value = Record> {
        let id = any::<u128>().prop_map(PaymentId);
        let numbers = (any::<i64>(), any::<i64>(), any::<bool>(), 0..14_u8, 0..8_usize);
        (id, numbers).prop_map(|(id, (amount, at, flag, kind, processor))| {
            let (amount, at) = (Cents(amount), Timestamp(at));
            let processor = Processor::new(processor).unwrap();
            let requested_at = at;
            Record::Event(match kind {
                0 => Event::Accepted { id, amount, accepted_at: at },
                1 => Event::Attempted { id, processor, requested_at },
                2 => Event::Released { id },
                3 => Event::Settled {
                    id,
                    settlement: Settlement { processor, amount, requested_at },
                    attempts: Attempts(at.0 as u8 & 15),
                },
                4 => Event::Foreign { id },
                5 => Event::Forwarded { id, amount, learned: flag },
                6 => Event::Purged,
                9 => Event::Adopted { id, amount },
                11 => Event::Told { id },
                12 => Event::Resolved(Arc::new(any_resolution(id, amount, at, processor))),
                10 => {
                    let status = |index: usize| (at.0 >> (8 * index)) as u16;
                    let statuses = std::array::from_fn(status);
                    let accepted_at = Rejection::in_seconds(at);
                    Event::Rejected(Rejection { id, amount, statuses, accepted_at })
                }
                7 => return Record::Synced { until: Position(amount.0 as u64) },
                8 => return Record::End,
                _ => {
                    let attempt = flag.then_some((processor, at));
                    let attempts = Attempts(at.0 as u8 & 15);
                    return Record::Carried { id, amount, accepted_at: at, attempt, attempts };
                }
            })
        })
    }

    fn any_resolution(
        id: PaymentId,
        amount: Cents,
        at: Timestamp,
        processor: Processor,
    ) -> Resolution {
        let requested_at = at;
        let action = [
            Action::Retry,
            Action::Settled { processor, requested_at },
            Action::NotBooked { processor, requested_at },
            Action::Cancelled,
            Action::Elsewhere,
        ][(amount.0 as u64 % 5) as usize];
        let by = "ä".repeat(1 + (amount.0 as usize >> 2) % (BY_BYTES_MAX / 2)).into();
        let reason = "r".repeat(1 + at.0 as usize % REASON_BYTES_MAX).into();
        Resolution { id, amount, accepted_at: at, action, at, by, reason }
    }

    #[test]
    fn what_is_no_resolution_is_none() {
        let resolution = any_resolution(PaymentId(7), Cents(1), Timestamp(5), Processor::FALLBACK);
        let detail = resolved::detail_of(resolution.action);
        let mut bytes = vec![0; resolved::payload_bytes(&resolution)];
        resolved::encode(&resolution, &mut bytes);
        assert_eq!(resolved::decode(detail, &bytes), Some(resolution));
        let refused = |detail, change: (usize, u8)| {
            let mut bytes = bytes.clone();
            bytes[change.0] = change.1;
            assert_eq!(resolved::decode(detail, &bytes), None, "{change:?}");
        };
        refused(0, (0, 0));
        refused(0x81, (0, 0));
        refused(detail | 4, (0, 0));
        refused(5, (0, 0));
        for change in [(48, 0), (49, 0), (48, 65), (48, 1), (49, 255), (50, b'\n'), (63, 1)] {
            refused(detail, change);
        }
    }

    /// The layout is a promise to files that exist: these bytes never change.
    #[test]
    fn the_bytes_of_a_record_are_these() {
        let settlement = Settlement {
            processor: Processor::FALLBACK,
            amount: Cents(1990),
            requested_at: Timestamp(1_752_000_000_123),
        };
        let id = PaymentId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let record = Record::Event(Event::Settled { id, settlement, attempts: Attempts(3) });
        let mut bytes = Vec::new();
        record.encode(seed(3), 48, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex[8..],
            "28000431100f0e0d0c0b0a090807060504030201c6070000000000007b7056eb97010000"[..]
        );
        let checksum = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let start = crc32c::crc32c(&[3, 0, 0, 0]) ^ 48;
        assert_eq!(checksum, crc32c::crc32c_append(start, &bytes[4..]));
        // The polynomial is Castagnoli's (RFC 3720, B.4), not that of zlib.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_bytes_of_a_rejection_are_these() {
        let (id, amount) = (PaymentId(0x0102), Cents(1990));
        let event = Event::Rejected(Rejection {
            id,
            amount,
            statuses: each([422, 0x0190]),
            accepted_at: Timestamp(1_000),
        });
        let mut bytes = Vec::new();
        Record::Event(event.clone()).encode(seed(3), 48, &mut bytes);
        let hex: String = bytes[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected =
            ["28000c02", "0201", &"00".repeat(14), "c607000000000000", "a6019001", "01000000"];
        assert_eq!(hex, expected.concat());
        // Before version 6 the statuses were not counted; more of them than names there cannot be.
        for (detail, is_read) in [(0, true), (2, true), (3, false), (4, false), (255, false)] {
            bytes[DETAIL_AT] = detail;
            let read = Record::read(seed(3), bytes[KIND_AT], detail, &bytes);
            let record = Record::Event(event.clone());
            let expected = Decoded::Record { record, length: bytes.len() };
            assert_eq!(read == expected, is_read, "{detail}: {read:?}");
            assert_eq!(matches!(read, Decoded::UnknownKind { kind: 12, .. }), !is_read);
        }
    }

    /// As many statuses as there are names; it may be read where there are more.
    #[test]
    fn a_rejection_has_a_status_for_each_name() {
        for (names, length, statuses_and_time) in [
            (1, 40, "0100000064000000"),
            (3, 48, "01000200030000006400000000000000"),
            (5, 48, "01000200030004000500000064000000"),
            (8, 56, "010002000300040005000600070008006400000000000000"),
        ] {
            let mut statuses = std::array::from_fn(|index| index as u16 + 1);
            statuses[names as usize..].fill(0);
            let (id, amount, accepted_at) = (PaymentId(7), Cents(1), Timestamp(100_000));
            let record =
                Record::Event(Event::Rejected(Rejection { id, amount, statuses, accepted_at }));
            let mut bytes = Vec::new();
            record.encode(Seed::of_segment(3, names), 48, &mut bytes);
            assert_eq!((bytes.len(), bytes[DETAIL_AT]), (length, names));
            let hex: String =
                bytes[AFTER_AMOUNT..].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, statuses_and_time, "{names}");
            for known in 1..=8 {
                let read = Record::decode_at(Seed::of_segment(3, known), &bytes, 48);
                let expected = Decoded::Record { record: record.clone(), length };
                assert_eq!(read == expected, known >= names, "{names} of {known}: {read:?}");
                assert_eq!(matches!(read, Decoded::UnknownKind { kind: 12, .. }), known < names);
            }
        }
    }

    /// With a right checksum: it is refused, and neither counted for another nor cut off as torn.
    #[test]
    fn a_processor_without_a_name_is_none() {
        let (id, amount, at) = (PaymentId(7), Cents(1), Timestamp(5));
        for number in 0..8_u8 {
            let processor = Processor::new(number.into()).unwrap();
            let attempts = Attempts(3);
            let settlement = Settlement { processor, amount, requested_at: at };
            let action = Action::Settled { processor, requested_at: at };
            let (by, reason) = ("ana".into(), "r".into());
            let resolution = Resolution { id, amount, accepted_at: at, action, at, by, reason };
            let attempt = Some((processor, at));
            for record in [
                Record::Event(Event::Attempted { id, processor, requested_at: at }),
                Record::Event(Event::Settled { id, settlement, attempts }),
                Record::Event(Event::Resolved(Arc::new(resolution))),
                Record::Carried { id, amount, accepted_at: at, attempt, attempts },
            ] {
                let mut bytes = Vec::new();
                record.encode(Seed::of_segment(3, 8), 0, &mut bytes);
                for names in 1..=8 {
                    let read = Record::decode(Seed::of_segment(3, names), &bytes, 0);
                    let length = bytes.len();
                    match number < names {
                        true => {
                            let record = record.clone();
                            assert_eq!(read, Decoded::Record { record, length });
                        }
                        false => assert!(matches!(read, Decoded::UnknownKind { .. }), "{read:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn records_are_shown_by_name() {
        let names = names(&["pix", "card", "boleto"]).unwrap();
        let id = PaymentId(7);
        let (amount, at, statuses) = (Cents(5), Timestamp(0), each([400, 0, 422]));
        let shown = |event: Event| Record::Event(event).show(&names).to_string();
        let rejection = Rejection { id, amount, statuses, accepted_at: at };
        let line = shown(Event::Rejected(rejection));
        assert!(line.ends_with("0007 0.05, pix 400, card 0, boleto 422"), "{line}");
        let processor = Processor::new(2).unwrap();
        let line = shown(Event::Attempted { id, processor, requested_at: at });
        assert!(line.ends_with("0007 at boleto requested 1970-01-01T00:00:00.000Z"), "{line}");
        let action = Action::NotBooked { processor, requested_at: at };
        let (by, reason) = ("ana".into(), "she \"asked\"".into());
        let resolution = Resolution { id, amount, accepted_at: at, action, at, by, reason };
        let line = shown(Event::Resolved(Arc::new(resolution)));
        let expected = "0007 0.05 as notBooked at boleto requested 1970-01-01T00:00:00.000Z, on \
                        1970-01-01T00:00:00.000Z by \"ana\": \"she \\\"asked\\\"\"";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn the_bytes_of_what_was_told_are_these() {
        let mut bytes = Vec::new();
        Record::Event(Event::Told { id: PaymentId(0x0102) }).encode(seed(3), 48, &mut bytes);
        let hex: String = bytes[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, ["18000d00", "0201", &"00".repeat(14)].concat());
    }

    fn entry() -> Entry {
        let description = Description::new("pão").unwrap();
        let transaction = Transaction { kind: Kind::Debit, value: Cents(0x0102), description };
        let (account, balance, at) = (AccountId(5), Cents(-2), Micros(0x0304));
        Entry { account, sequence: 7, transaction, balance, at, key: Key(0x0506) }
    }

    #[test]
    fn the_bytes_of_an_entry_are_these() {
        let mut bytes = Vec::new();
        Record::Entry(entry()).encode(seed(3), 48, &mut bytes);
        let hex: String = bytes[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "48004001",
            "0500000000000000",
            "0700000000000000",
            "0201000000000000",
            "feffffffffffffff",
            "0403000000000000",
            "06050000000000000000000000000000",
            "0470c3a36f",
            "000000",
        ];
        assert_eq!(hex, expected.concat());
    }

    /// Bytes with a right checksum that no version wrote: refused, never cut off as torn.
    #[test]
    fn an_entry_of_another_shape_is_no_entry() {
        let cases: [(&str, usize, &[u8]); 9] = [
            ("detail", 7, &[2]),
            ("sequence of nothing", 16, &[0]),
            ("the last number there is", 16, &[0xff; 8]),
            ("value of nothing", 24, &[0, 0]),
            ("negative value", 31, &[0x80]),
            ("no description", 64, &[0]),
            ("a description beyond the record", 64, &[8]),
            ("not UTF-8", 66, &[0xff]),
            ("padding", 71, &[1]),
        ];
        let seed = Seed::of_segment(3, 2);
        let mut sound = Vec::new();
        Record::Entry(entry()).encode(seed, 0, &mut sound);
        let decode = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let checksum = seed.checksum(0, &bytes[LENGTH_AT..]);
            put(&mut bytes, 0, checksum.to_le_bytes());
            Record::decode(seed, &bytes, 0)
        };
        assert!(matches!(decode(&sound), Decoded::Record { length: 72, .. }));
        for (what, at, bytes) in cases {
            let mut changed = sound.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            let refused = Decoded::UnknownKind { kind: ENTRY, length: 72 };
            assert_eq!(decode(&changed), refused, "{what}");
        }
        let mut longer = sound.clone();
        longer.extend_from_slice(&[0; 8]);
        longer[LENGTH_AT] = 80;
        let refused = Decoded::UnknownKind { kind: ENTRY, length: 80 };
        assert_eq!(decode(&longer), refused, "padding of eight bytes");
        let eleven = Description::new("12345678901");
        assert_eq!(eleven, None);
        longer[64] = 11;
        longer[65..76].copy_from_slice(b"12345678901");
        assert_eq!(decode(&longer), refused, "eleven characters");
    }

    #[test]
    fn an_intact_record_of_another_kind_is_named() {
        let mut bytes = vec![0, 0, 0, 0, 16, 0, 65, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let checksum = seed(1).checksum(0, &bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        let decoded = Record::decode(seed(1), &bytes, 0);
        assert_eq!(decoded, Decoded::UnknownKind { kind: 65, length: 16 });
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_its_place_only(
            record in any_record(), segment: u32, other: u32, offset in 0..1000_usize,
        ) {
            let offset = offset * ALIGNMENT;
            let mut bytes = vec![0xff; offset];
            record.encode(Seed::of_segment(segment, 8), offset, &mut bytes);
            let length = record.length(Seed::of_segment(segment, 8));
            prop_assert_eq!(bytes.len(), offset + length);
            let decoded = Record::decode(Seed::of_segment(segment, 8), &bytes, offset);
            prop_assert_eq!(decoded, Decoded::Record { record, length });
            if other != segment {
                let decoded = Record::decode(Seed::of_segment(other, 8), &bytes, offset);
                prop_assert!(matches!(decoded, Decoded::Bad(_)));
            }
            let mut moved = vec![0xff; ALIGNMENT];
            moved.extend_from_slice(&bytes);
            let decoded = Record::decode(Seed::of_segment(segment, 8), &moved, offset + ALIGNMENT);
            prop_assert!(matches!(decoded, Decoded::Bad(_)));
        }

        #[test]
        fn every_flipped_bit_is_seen(record in any_record(), bit in 0..RECORD_BYTES_MAX * 8) {
            let mut bytes = Vec::new();
            record.encode(Seed::of_segment(7, 8), 0, &mut bytes);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = Record::decode(Seed::of_segment(7, 8), &bytes, 0);
            prop_assert!(matches!(decoded, Decoded::Bad(_)));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>, offset in 0..64_usize) {
            Record::decode(seed(1), &bytes, offset);
            Record::decode(Seed::of_segment(1, 8), &bytes, offset);
        }
    }
}
