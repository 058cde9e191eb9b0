//! What becomes of payments, as it is written: settlements and rejections in the order of one
//! journal, from a place on. Reads only, and in no one's way.
//!
//! A file that is open stays readable when it is rewritten and removed. So one who follows holds the
//! segment that is written to, and goes on to the next when this one has ended; a start closes the
//! last segment and begins another, and is followed like that too.
//!
//! The invariant: the place is behind an intact record, and every record before it has been told once.

use super::head::{FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::record::{Decoded, Record, Seed};
use super::storage::{Storage, StoredFile};
use super::{JournalError, Position};
use crate::payments::event::Event;
use crate::payments::resolution::{Action, Resolution};
use crate::payments::{Line, Rejection};
use std::io;
use std::sync::Arc;

/// So much is read at once. Longer than any record.
const CHUNK_BYTES: usize = 1 << 18;

/// A payment that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    Settled(Line),
    Rejected(Rejection),
    /// By hand. What is settled by hand is settled before it is told who said so.
    Cancelled(Arc<Resolution>),
}

impl Over {
    /// What is told of an event, if anything is: the one place that says so.
    fn of(event: &Event) -> Option<Over> {
        match *event {
            Event::Resolved(ref it) if it.action == Action::Cancelled => {
                Some(Over::Cancelled(it.clone()))
            }
            Event::Settled { id, settlement, attempts } => {
                Some(Over::Settled(Line { id: Some(id), settlement, attempts }))
            }
            Event::Rejected(rejection) => Some(Over::Rejected(rejection)),
            _ => None,
        }
    }
}

/// See the module.
pub struct Follower {
    storage: Box<dyn Storage>,
    /// Behind the last record that was told.
    place: Position,
    /// The segment of that place, once it is there.
    file: Option<Arc<dyn StoredFile>>,
    bytes: Vec<u8>,
}

/// What stands next in a segment.
enum Next {
    Nothing,
    /// The place has moved, and there may be more.
    More,
    /// The segment has ended.
    Sealed,
}

impl Follower {
    /// From a place on whose segment is `file`, or is not there yet.
    pub fn new(
        storage: Box<dyn Storage>,
        place: Position,
        file: Option<Arc<dyn StoredFile>>,
    ) -> Follower {
        Follower { storage, place, file, bytes: Vec::new() }
    }

    /// Hands over what has been written since the last time. Blocking, for as long as there is more.
    ///
    /// # Errors
    /// What `each` answers; if the journal cannot be read, or was purged, or a segment was rewritten
    /// before it was read.
    pub fn poll<E: From<JournalError>>(
        &mut self,
        mut each: impl FnMut(Over) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.file.is_none() {
                self.file = self.open()?;
            }
            let Some(file) = self.file.clone() else { return Ok(()) };
            match self.read(&*file, &mut each)? {
                // A start makes an empty segment anew under the same number.
                Next::Nothing if self.place.offset() == FILE_HEAD_BYTES => {
                    let anew = self.open();
                    // It may have been written, and rewritten, since it was read.
                    if matches!(self.read(&*file, &mut each)?, Next::Nothing) {
                        self.file = anew?.or(self.file.take());
                        return Ok(());
                    }
                }
                Next::Nothing => return Ok(()),
                Next::More => {}
                Next::Sealed => {
                    self.file = None;
                    self.place = beginning(self.place.segment() + 1);
                }
            }
        }
    }

    /// The segment of the place. `None` as long as there is neither this one nor a later one.
    fn open(&self) -> Result<Option<Arc<dyn StoredFile>>, JournalError> {
        let number = self.place.segment();
        let name = Kind::Segment.file_name(number);
        let open = || match self.storage.open_to_read(&name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::io("open", &name, error)),
        };
        if let Some(file) = open()? {
            return Ok(Some(file));
        }
        let names = self.storage.names();
        let names = names.map_err(|error| JournalError::io("list", "the directory", error))?;
        let is_later = |name: &String| {
            matches!(Kind::of_file_name(name),
                Some((Kind::Segment | Kind::Books, it)) if it >= number)
        };
        if !names.iter().any(is_later) {
            return Ok(None);
        }
        // It may have been made between the two looks.
        let gone = "it was rewritten or purged before it was followed. Begin anew";
        open()?.map(Some).ok_or_else(|| JournalError::io("follow", &name, io::Error::other(gone)))
    }

    /// One chunk from the place on. What is no whole record may become one: it is being written, or
    /// was cut short, and the next start closes the segment before it.
    fn read<E: From<JournalError>>(
        &mut self,
        file: &dyn StoredFile,
        each: &mut impl FnMut(Over) -> Result<(), E>,
    ) -> Result<Next, E> {
        let (number, begin) = (self.place.segment(), self.place.offset());
        let name = Kind::Segment.file_name(number);
        let unread = |error| JournalError::io("read", &name, error);
        let length = file.length().map_err(unread)?.saturating_sub(begin as u64);
        self.bytes.resize(length.min(CHUNK_BYTES as u64) as usize, 0);
        match file.read_at(&mut self.bytes, begin as u64) {
            // Cut to what is in it, just now.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Next::Nothing),
            result => result.map_err(unread)?,
        }
        let (seed, mut offset) = (Seed::of_segment(number), begin);
        loop {
            let rest = &self.bytes[offset - begin..];
            let (record, length) = match Record::decode_at(seed, rest, offset) {
                Decoded::Record { record, length } => (record, length),
                Decoded::Blank | Decoded::Bad(_) if offset > begin => return Ok(Next::More),
                Decoded::Blank | Decoded::Bad(_) => return Ok(Next::Nothing),
                Decoded::UnknownKind { kind, .. } => {
                    return Err(JournalError::UnknownKind { file: name, offset, kind }.into());
                }
            };
            match record {
                Record::End => return Ok(Next::Sealed),
                Record::Event(Event::Purged) => {
                    let purged = "it was purged, and all that was told is void. Begin anew";
                    return Err(JournalError::io("follow", name, io::Error::other(purged)).into());
                }
                Record::Event(event) => Over::of(&event).map_or(Ok(()), &mut *each)?,
                _ => {}
            }
            offset += length;
            self.place = Position::new(number, offset);
        }
    }
}

/// Where the records of a segment begin.
pub fn beginning(number: u32) -> Position {
    Position::new(number.max(FIRST_NUMBER), FILE_HEAD_BYTES)
}
