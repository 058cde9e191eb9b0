//! What becomes of payments, as it is written: settlements, rejections and what operators decide, in
//! the order of one journal, from a place on. Reads only, and in no one's way.
//!
//! A file that is open stays readable when it is rewritten and removed. So one who follows holds the
//! segment that is written to, and goes on to the next when this one has ended; a start closes the
//! last segment and begins another, and is followed like that too. Segments that are rewritten may be
//! kept for those who come later, under another name (`retained.rs`): for nothing else. When their
//! space is needed they are emptied, and whoever reads one then is told that it has gone.
//!
//! The invariant: the place is behind an intact record, and every record before it has been told once.

use super::head::{self, FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::record::{Decoded, Record, Seed};
use super::recover::read_names;
use super::retained::Retained;
use super::storage::{Storage, StoredFile};
use super::{JournalError, Position};
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::resolution::Resolution;
use crate::payments::{Line, Rejection};
use std::io;
use std::sync::Arc;

/// So much is read at once. Longer than any record.
const CHUNK_BYTES: usize = 1 << 18;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Settled(Line),
    Rejected(Rejection),
    /// By hand. What is settled by hand is settled before it is told who said so.
    Resolved(Arc<Resolution>),
    /// All that was told before is void.
    Purged,
}

impl Told {
    /// What is told of an event, if anything is: the one place that says so.
    fn of(event: &Event) -> Option<Told> {
        match *event {
            Event::Resolved(ref it) => Some(Told::Resolved(it.clone())),
            Event::Settled { id, settlement, attempts } => {
                Some(Told::Settled(Line { id: Some(id), settlement, attempts }))
            }
            Event::Rejected(rejection) => Some(Told::Rejected(rejection)),
            Event::Purged => Some(Told::Purged),
            _ => None,
        }
    }
}

/// Where those begin who want all that is there.
///
/// # Errors
/// If the directory cannot be listed.
pub fn oldest(storage: &dyn Storage) -> io::Result<Option<Position>> {
    let is_there = |name: &str| storage.open_to_read(name).is_ok();
    Ok(oldest_of(&storage.names()?, is_there).map(beginning))
}

/// A list may have neither the old nor the new name of a file that is renamed meanwhile, so what lies
/// before the oldest of it is looked for by name.
fn oldest_of(names: &[String], is_there: impl Fn(&str) -> bool) -> Option<u32> {
    let segment = |name: &String| match Kind::of_file_name(name) {
        Some((Kind::Segment, number)) => Some(number),
        _ => Retained::Events.number_of(name),
    };
    let mut oldest = names.iter().filter_map(segment).min()?;
    let is_segment =
        |it| is_there(&Kind::Segment.file_name(it)) || is_there(&Retained::Events.file_name(it));
    while oldest > FIRST_NUMBER && is_segment(oldest - 1) {
        oldest -= 1;
    }
    Some(oldest)
}

/// See the module.
pub struct Follower {
    storage: Arc<dyn Storage>,
    names: Names,
    /// Behind the last record that was told.
    place: Position,
    /// The segment of that place, once it is there.
    file: Option<Arc<dyn StoredFile>>,
    /// Of that segment, once its head has been read.
    seed: Option<Seed>,
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
    /// From a place on whose segment is `file`, or is not there yet, in a journal with these names.
    pub fn new(
        storage: Arc<dyn Storage>,
        names: Names,
        place: Position,
        file: Option<Arc<dyn StoredFile>>,
    ) -> Follower {
        Follower { storage, names, place, file, seed: None, bytes: Vec::new() }
    }

    /// What the numbers of processors mean in what was told, and in what the next [step](Follower::step)
    /// tells: a start may add names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Behind everything that was told.
    pub fn place(&self) -> Position {
        self.place
    }

    /// Hands over what has been written since the last time. Blocking, for as long as there is more.
    ///
    /// # Errors
    /// What `each` answers, and what it refused is told again the next time; if the journal cannot be
    /// read; [`JournalError::Gone`] if a segment was rewritten before it was read.
    pub fn poll<E: From<JournalError>>(
        &mut self,
        mut each: impl FnMut(Position, Told) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.step(Position::LAST, &mut each)? {}
        Ok(())
    }

    /// Hands over some of it, from a stretch of 256 KiB at most, which takes less than a millisecond:
    /// what lies before `until`. False if there was nothing more.
    ///
    /// # Errors
    /// As with [`Follower::poll`].
    pub fn step<E: From<JournalError>>(
        &mut self,
        until: Position,
        each: &mut impl FnMut(Position, Told) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.place >= until {
            return Ok(false);
        }
        if self.file.is_none() {
            self.file = self.open()?;
        }
        let Some(file) = self.file.clone() else { return Ok(false) };
        let Some(seed) = self.seed else {
            let before = self.names.count();
            self.seed = Some(self.read_head(&*file)?);
            // Whoever follows is to know the new names before anything is told by them.
            return if self.names.count() > before { Ok(true) } else { self.step(until, each) };
        };
        match self.read(&*file, seed, until, each)? {
            // A start makes an empty segment anew under the same number.
            Next::Nothing if self.place.offset() == FILE_HEAD_BYTES => {
                let anew = self.open();
                // It may have been written, and rewritten, since it was read.
                if !matches!(self.read(&*file, seed, until, each)?, Next::Nothing) {
                    return Ok(true);
                }
                if let Some(anew) = anew? {
                    (self.file, self.seed) = (Some(anew), None);
                }
                Ok(false)
            }
            Next::Nothing => Ok(false),
            Next::More => Ok(true),
            Next::Sealed => {
                (self.file, self.seed) = (None, None);
                self.place = beginning(self.place.segment() + 1);
                Ok(true)
            }
        }
    }

    /// The segment of the place. `None` as long as there is neither this one nor a later one.
    fn open(&self) -> Result<Option<Arc<dyn StoredFile>>, JournalError> {
        let number = self.place.segment();
        let name = Kind::Segment.file_name(number);
        let open_one = |name: &str| match self.storage.open_to_read(name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::io("open", name, error)),
        };
        let open = || Ok(open_one(&name)?.or(open_one(&Retained::Events.file_name(number))?));
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
        open()?.map(Some).ok_or(JournalError::Gone { file: name })
    }

    /// The seed of the segment of the place.
    fn read_head(&mut self, file: &dyn StoredFile) -> Result<Seed, JournalError> {
        let number = self.place.segment();
        let name = Kind::Segment.file_name(number);
        let mut head = [0; FILE_HEAD_BYTES];
        match file.read_at(&mut head, 0) {
            // It had one: its space was needed (`keeper.rs`).
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(JournalError::Gone { file: name });
            }
            read => read.map_err(|error| JournalError::io("read", &name, error))?,
        }
        let decode = |names: &Names| head::decode(Kind::Segment, number, &head, names);
        let head = match decode(&self.names) {
            Err(JournalError::OtherNames { .. }) => {
                self.names = read_names(&*self.storage)?;
                decode(&self.names)?
            }
            read => read?,
        };
        Ok(Seed::of_segment(number, head.names.count))
    }

    /// One chunk from the place on. What is no whole record may become one: it is being written, or
    /// was cut short, and the next start closes the segment before it.
    fn read<E: From<JournalError>>(
        &mut self,
        file: &dyn StoredFile,
        seed: Seed,
        until: Position,
        each: &mut impl FnMut(Position, Told) -> Result<(), E>,
    ) -> Result<Next, E> {
        let (number, begin) = (self.place.segment(), self.place.offset());
        let name = Kind::Segment.file_name(number);
        let unread = |error| JournalError::io("read", &name, error);
        let whole = file.length().map_err(unread)?;
        if whole == 0 {
            // It had a head: its space was needed (`keeper.rs`).
            return Err(JournalError::Gone { file: name }.into());
        }
        let length = whole.saturating_sub(begin as u64);
        self.bytes.resize(length.min(CHUNK_BYTES as u64) as usize, 0);
        match file.read_at(&mut self.bytes, begin as u64) {
            // Cut to what is in it, just now.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Next::Nothing),
            result => result.map_err(unread)?,
        }
        let mut offset = begin;
        while self.place < until {
            let rest = &self.bytes[offset - begin..];
            let (record, length) = match Record::decode_at(seed, rest, offset) {
                Decoded::Record { record, length } => (record, length),
                Decoded::Blank | Decoded::Bad(_) if offset > begin => return Ok(Next::More),
                Decoded::Blank | Decoded::Bad(_) => return Ok(Next::Nothing),
                Decoded::UnknownKind { kind, .. } => {
                    return Err(JournalError::UnknownKind { file: name, offset, kind }.into());
                }
            };
            let behind = Position::new(number, offset + length);
            match record {
                Record::End => return Ok(Next::Sealed),
                Record::Event(event) => {
                    Told::of(&event).map_or(Ok(()), |told| each(behind, told))?;
                }
                _ => {}
            }
            offset += length;
            self.place = behind;
        }
        Ok(Next::Nothing)
    }
}

/// Where the records of a segment begin.
pub fn beginning(number: u32) -> Position {
    Position::new(number.max(FIRST_NUMBER), FILE_HEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_found_though_it_is_being_renamed_while_the_directory_is_listed() {
        let listed =
            [Kind::Segment.file_name(5), Retained::Events.file_name(6), Kind::Books.file_name(2)];
        let there = [
            Retained::Events.file_name(4),
            Kind::Segment.file_name(3),
            Retained::Events.file_name(1),
        ];
        assert_eq!(oldest_of(&listed, |name| there.iter().any(|it| it == name)), Some(3));
        assert_eq!(oldest_of(&listed, |_| false), Some(5));
        assert_eq!(oldest_of(&listed, |_| true), Some(FIRST_NUMBER));
        assert_eq!(oldest_of(&listed[2..], |_| true), None);
    }
}
