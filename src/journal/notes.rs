//! What is kept of adoptions, rejections and resolutions once their segments are gone: an adoption
//! until it has been told ([`Event::Told`]), a rejection until it is resolved, and of each payment
//! the last resolution for as long as the journal.
//!
//! ```text
//! head, then records as in a segment (`record.rs`), in their order: Adopted, Told, Rejected,
//! Resolved
//! ```
//!
//! Knows nothing of files. The invariant: such a file is used whole or not at all, and says what its
//! segments said, with what is void taken out. The last books name the last one that counts, and
//! each of them the one before it; there are never many ([`absorbs`]).

use super::JournalError;
use super::books::{Own, with_room_for_head};
use super::head::{self, FILE_HEAD_BYTES, Kind};
use super::names::Reference;
use super::record::{Decoded, Record, Seed};
use crate::payments::PaymentId;
use crate::payments::event::Event;
use crate::payments::names::Names;
use std::collections::{HashMap, HashSet};

/// Whether this is kept in notes.
pub fn is_note(event: &Event) -> bool {
    matches!(
        event,
        Event::Adopted { .. } | Event::Told { .. } | Event::Rejected(_) | Event::Resolved(_)
    )
}

/// Whether so many new ones take in the file before theirs, which has so many. So each file is more
/// than twice as long as the next one: n of them are in at most log2(n) + 1 files, and each is
/// written at most about log1.5(n) times, however they come.
pub fn absorbs(new: usize, before: usize) -> bool {
    before <= new.saturating_mul(2)
}

/// Takes out what is void: rejections and resolutions that were resolved later, and adoptions that
/// were told later. That they were is kept while there are
/// notes before these, which have the adoption.
pub fn condense(mut notes: Vec<Event>, are_first: bool) -> Vec<Event> {
    let mut told: HashSet<PaymentId> = HashSet::new();
    // Whether the later resolution ends a rejection as well.
    let mut resolved: HashMap<PaymentId, bool> = HashMap::new();
    let mut kept = Vec::with_capacity(notes.len());
    while let Some(note) = notes.pop() {
        let is_void = match &note {
            Event::Told { id } => !told.insert(*id) || are_first,
            Event::Adopted { id, .. } => told.contains(id),
            Event::Rejected(it) => resolved.get(&it.id).is_some_and(|ends| *ends),
            Event::Resolved(it) => {
                // One that does not end a rejection leaves one that does before it standing: the
                // rejection may be in notes of before.
                let ends = it.action.ends_rejection();
                let later = resolved.get(&it.id).copied();
                resolved.insert(it.id, ends || later == Some(true));
                later.is_some_and(|later| later || !ends)
            }
            _ => false,
        };
        if !is_void {
            kept.push(note);
        }
    }
    kept.reverse();
    kept
}

pub fn encode(number: u32, before: Option<u32>, notes: &[Event], names: Reference) -> Vec<u8> {
    let seed = Seed::of_segment(number, names.count);
    let length = notes.iter().map(|note| Record::Event(note.clone()).length(seed)).sum();
    let mut bytes = with_room_for_head(length);
    for note in notes {
        let offset = bytes.len();
        Record::Event(note.clone()).encode(seed, offset, &mut bytes);
    }
    let counts = [notes.len() as u64, length as u64];
    Own { flags: 0, counts, notes: before, names }.finish(Kind::Notes, number, &mut bytes);
    bytes
}

/// How many there are in a file, from its head, and the number of the notes before them.
///
/// # Errors
/// If the head is not whole.
pub fn count_and_before(number: u32, head: &[u8]) -> Result<(usize, Option<u32>), JournalError> {
    let (own, _) = read_head(number, head)?;
    Ok((own.counts[0] as usize, own.notes))
}

fn read_head(number: u32, head: &[u8]) -> Result<(Own, u32), JournalError> {
    let (own, checksum) = Own::read(head::decode_nameless(Kind::Notes, number, head)?);
    if own.notes.is_some_and(|before| before >= number) {
        return Err(corrupt(number, 0, "notes before it that are of a later number"));
    }
    Ok((own, checksum))
}

fn corrupt(number: u32, offset: usize, what: &'static str) -> JournalError {
    JournalError::Corrupt { file: Kind::Notes.file_name(number), offset, what }
}

/// The notes of a file, in their order.
///
/// # Errors
/// If the file is not whole, or was written under another table of names.
pub fn read(number: u32, bytes: &[u8], names: &Names) -> Result<Vec<Event>, JournalError> {
    let with_offsets = read_with_offsets(number, bytes, names)?;
    Ok(with_offsets.into_iter().map(|(_, note)| note).collect())
}

/// Each with the offset of its record.
///
/// # Errors
/// As with [`read`].
pub fn read_with_offsets(
    number: u32,
    bytes: &[u8],
    names: &Names,
) -> Result<Vec<(usize, Event)>, JournalError> {
    head::decode(Kind::Notes, number, bytes, names)?;
    let (own, checksum) = read_head(number, bytes)?;
    let seed = Seed::of_segment(number, own.names.count);
    let body = bytes.get(FILE_HEAD_BYTES..).unwrap_or_default();
    if own.counts[1] != body.len() as u64 {
        let what = "a length that differs from what its head says";
        return Err(corrupt(number, FILE_HEAD_BYTES, what));
    }
    if crc32c::crc32c(body) != checksum {
        return Err(corrupt(number, FILE_HEAD_BYTES, "a checksum that does not match"));
    }
    let (mut notes, mut offset) = (Vec::new(), FILE_HEAD_BYTES);
    while offset < bytes.len() {
        match Record::decode(seed, bytes, offset) {
            Decoded::Record { record: Record::Event(note), length } if is_note(&note) => {
                notes.push((offset, note));
                offset += length;
            }
            Decoded::UnknownKind { kind, .. } => {
                let file = Kind::Notes.file_name(number);
                return Err(JournalError::UnknownKind { file, offset, kind });
            }
            _ => return Err(corrupt(number, offset, "no note")),
        }
    }
    match own.counts[0] == notes.len() as u64 {
        true => Ok(notes),
        false => Err(corrupt(number, FILE_HEAD_BYTES, "more or fewer notes than its head says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::money::Cents;
    use crate::payments::Processor;
    use crate::payments::Rejection;
    use crate::payments::each;
    use crate::payments::resolution::{Action, Resolution};
    use std::sync::Arc;

    fn adopted(id: u128) -> Event {
        Event::Adopted { id: PaymentId(id), amount: Cents(1) }
    }

    fn told(id: u128) -> Event {
        Event::Told { id: PaymentId(id) }
    }

    fn rejected(id: u128) -> Event {
        let accepted_at = Timestamp(5_000);
        let (id, amount, statuses) = (PaymentId(id), Cents(1), each([422, 0]));
        Event::Rejected(Rejection { id, amount, statuses, accepted_at })
    }

    #[test]
    fn what_was_told_is_void_and_what_was_adopted_anew_is_not() {
        let notes = vec![
            adopted(1),
            rejected(1),
            told(9),
            adopted(2),
            told(1),
            adopted(3),
            told(2),
            adopted(2),
            told(9),
        ];
        let kept = condense(notes.clone(), true);
        assert_eq!(kept, [rejected(1), adopted(3), adopted(2)]);
        let kept = condense(notes, false);
        assert_eq!(
            kept,
            [rejected(1), told(1), adopted(3), told(2), adopted(2), told(9)],
            "adoptions of before are told as well"
        );
    }

    fn resolved(id: u128, action: Action) -> Event {
        let (at, by, reason) = (Timestamp(9_000), "ana".into(), "she asked".into());
        let (id, amount, accepted_at) = (PaymentId(id), Cents(1), Timestamp(5_000));
        Event::Resolved(Arc::new(Resolution { id, amount, accepted_at, action, at, by, reason }))
    }

    #[test]
    fn what_was_resolved_is_void_and_what_was_rejected_anew_is_not() {
        let (processor, requested_at) = (Processor::DEFAULT, Timestamp(7_000));
        let released = |id| resolved(id, Action::NotBooked { processor, requested_at });
        let notes = vec![
            resolved(1, Action::Cancelled),
            rejected(2),
            resolved(2, Action::Retry),
            rejected(2),
            released(3),
            rejected(3),
            rejected(4),
            resolved(4, Action::Retry),
            released(4),
            released(4),
        ];
        let kept = [
            resolved(1, Action::Cancelled),
            resolved(2, Action::Retry),
            rejected(2),
            released(3),
            rejected(3),
            // Ends a rejection that may be in notes of before.
            resolved(4, Action::Retry),
            released(4),
        ];
        assert_eq!(condense(notes, false), kept);
        assert_eq!(condense(kept.to_vec(), true), kept);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let events = [adopted(1), told(1), rejected(2)];
        let (names, first) = (Names::contest(), Reference::first());
        let encode = |number, before, notes: &[Event]| super::encode(number, before, notes, first);
        let read = |number, bytes: &[u8]| super::read(number, bytes, &names);
        let bytes = encode(7, Some(3), &events);
        assert_eq!(read(7, &bytes).unwrap(), events);
        assert_eq!(count_and_before(7, &bytes).unwrap(), (3, Some(3)));
        for (what, bytes) in [
            ("another event", encode(7, None, &[Event::Released { id: PaymentId(1) }])),
            ("of itself", encode(7, Some(7), &events)),
        ] {
            assert!(matches!(read(7, &bytes), Err(JournalError::Corrupt { .. })), "{what}");
        }
        let mut miscounted = bytes;
        let counts = [4, (miscounted.len() - FILE_HEAD_BYTES) as u64];
        Own { flags: 0, counts, notes: None, names: first }.finish(Kind::Notes, 7, &mut miscounted);
        assert!(matches!(read(7, &miscounted), Err(JournalError::Corrupt { .. })));
    }
}
