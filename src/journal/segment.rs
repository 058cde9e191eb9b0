//! One segment: making a new file, and walking over the records of an old one.
//!
//! The invariant: a file of a segment's name has a whole head and all its space, and both are on
//! the disk, because it is made under another name.

use super::head::{self, FILE_HEAD_BYTES, Kind, OWN_BYTES};
use super::names::Reference;
use super::record::{ALIGNMENT, Decoded, END_BYTES, Record, Seed};
use super::storage::{Lack, Storage, StoredFile, is_zero};
use super::{JournalError, Position};
use crate::payments::event::Event;
use crate::payments::names::Names;
use std::io;
use std::sync::Arc;

/// What a file is called until it is whole.
pub const UNFINISHED: &str = ".tmp";

/// A segment that is written to.
pub struct Segment {
    pub number: u32,
    pub seed: Seed,
    /// How long it may become.
    pub bytes: usize,
    pub file: Arc<dyn StoredFile>,
}

impl Segment {
    /// Makes an empty segment. Blocking; afterwards it is on the disk with all its space.
    pub fn create(
        storage: &dyn Storage,
        number: u32,
        bytes: usize,
        names: Reference,
    ) -> io::Result<Segment> {
        let name = Kind::Segment.file_name(number);
        let unfinished = name.clone() + UNFINISHED;
        let make = || {
            let mut own = [0; OWN_BYTES];
            own[..16].copy_from_slice(&storage.boot());
            let file = storage.create(&unfinished)?;
            file.allocate(bytes as u64)?;
            file.write_at(&head::encode(Kind::Segment, number, own, names), 0)?;
            file.sync()?;
            storage.rename(&unfinished, &name)?;
            storage.sync_directory()?;
            Ok(file)
        };
        match make() {
            Ok(file) => {
                let seed = Seed::of_segment(number, names.count);
                Ok(Segment { number, seed, bytes, file })
            }
            Err(error) => {
                // Gives the space back; a start would too.
                let _ = storage.remove(&unfinished);
                Err(error)
            }
        }
    }

    /// Makes one of this size or, if there is no space for it, one of the size that is needed, or as
    /// long a one as there is space for: what it takes to settle what is outstanding was kept free
    /// in the segment before, which has just been cut to what is in it. No more than is needed: the
    /// rest is for the rewriting of old segments, which gives space back.
    pub fn create_what_fits(
        storage: &dyn Storage,
        number: u32,
        bytes: usize,
        needed: usize,
        names: Reference,
    ) -> io::Result<Segment> {
        match Segment::create(storage, number, bytes, names) {
            Err(error) if Lack::of(&error) == Some(Lack::Space) && bytes > LENGTH_MIN => {}
            result => return result,
        }
        let needed = needed.next_multiple_of(PAGE_BYTES).min(bytes);
        let (mut fits, mut too_long) = (LENGTH_MIN, needed + LENGTH_STEP);
        let mut next = needed;
        while too_long - fits > LENGTH_STEP {
            match there_is_space_for(storage, number, next)? {
                true => fits = next,
                false => too_long = next,
            }
            next = (fits + too_long) / 2 / ALIGNMENT * ALIGNMENT;
        }
        let made = Segment::create(storage, number, fits, names)?;
        log::warn!(
            "journal: the disk is full: a segment of {fits} bytes was made, not of {bytes}; what \
             was accepted is settled, and nothing more is accepted until there is space"
        );
        Ok(made)
    }

    /// Bytes for records, in a segment of this size.
    pub fn room(segment_bytes: usize) -> usize {
        segment_bytes - FILE_HEAD_BYTES - END_BYTES
    }
}

/// Tries it with a file that is gone afterwards.
fn there_is_space_for(storage: &dyn Storage, number: u32, bytes: usize) -> io::Result<bool> {
    let name = Kind::Segment.file_name(number) + UNFINISHED;
    let allocated = storage.create(&name).and_then(|file| file.allocate(bytes as u64));
    storage.remove(&name)?;
    match allocated {
        Ok(()) => Ok(true),
        Err(error) if Lack::of(&error) == Some(Lack::Space) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its last record: the next segment goes on.
    Sealed,
    /// With nothing but zeros.
    Blank,
    /// With bytes that are no record.
    Bad(&'static str),
}

/// What is found one behind the other in a segment that may be damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Record(Record),
    /// So many bytes in which no record can be found.
    Hole {
        bytes: usize,
        what: &'static str,
    },
}

/// A segment as it was read.
pub struct Contents<'a> {
    pub number: u32,
    pub boot: [u8; 16],
    seed: Seed,
    bytes: &'a [u8],
}

impl<'a> Contents<'a> {
    /// # Errors
    /// If the head is not that of this segment.
    pub fn new(number: u32, bytes: &'a [u8], names: &Names) -> Result<Contents<'a>, JournalError> {
        let head = head::decode(Kind::Segment, number, bytes, names)?;
        let mut boot = [0; 16];
        boot.copy_from_slice(&head.own[..16]);
        Ok(Contents { number, boot, seed: Seed::of_segment(number, head.names.count), bytes })
    }

    /// A segment whose head may be damaged: its records tell by themselves that they are of it.
    pub fn without_head(number: u32, bytes: &'a [u8], names: &Names) -> Contents<'a> {
        let seed = Seed::of_segment(number, Reference::to(names).count);
        Contents { number, boot: [0; 16], seed, bytes }
    }

    /// Hands over each record with its offset, in order. Returns how the records end, and where:
    /// at the offset of whatever is no record, or behind the last one.
    ///
    /// # Errors
    /// What `each` answers, and [`JournalError::UnknownKind`].
    pub fn walk(
        &self,
        mut each: impl FnMut(usize, Record) -> Result<(), JournalError>,
    ) -> Result<(usize, Ending), JournalError> {
        let mut offset = FILE_HEAD_BYTES;
        loop {
            match Record::decode(self.seed, self.bytes, offset) {
                Decoded::Record { record: Record::End, length } => {
                    return Ok((offset + length, Ending::Sealed));
                }
                Decoded::Record { record, length } => {
                    each(offset, record)?;
                    offset += length;
                }
                Decoded::Blank if self.is_zero_from(offset) => return Ok((offset, Ending::Blank)),
                Decoded::Blank => return Ok((offset, Ending::Bad("a gap"))),
                Decoded::Bad(what) => return Ok((offset, Ending::Bad(what))),
                Decoded::UnknownKind { kind, .. } => {
                    let file = Kind::Segment.file_name(self.number);
                    return Err(JournalError::UnknownKind { file, offset, kind });
                }
            }
        }
    }

    /// Like [`Contents::walk`], but goes on behind whatever is no record where there is one again.
    /// What ends badly has been handed over as a hole, too.
    ///
    /// # Errors
    /// What `each` answers, and [`JournalError::UnknownKind`].
    pub fn walk_over_holes(
        &self,
        mut each: impl FnMut(usize, Piece) -> Result<(), JournalError>,
    ) -> Result<(usize, Ending), JournalError> {
        let mut offset = FILE_HEAD_BYTES;
        let end = offset + self.used_from(offset);
        loop {
            let what = match Record::decode(self.seed, self.bytes, offset) {
                Decoded::Record { record: Record::End, length } => {
                    return Ok((offset + length, Ending::Sealed));
                }
                Decoded::Record { record, length } => {
                    each(offset, Piece::Record(record))?;
                    offset += length;
                    continue;
                }
                Decoded::UnknownKind { kind, .. } => {
                    let file = Kind::Segment.file_name(self.number);
                    return Err(JournalError::UnknownKind { file, offset, kind });
                }
                Decoded::Blank if offset >= end => return Ok((offset, Ending::Blank)),
                Decoded::Blank => "a gap",
                Decoded::Bad(what) => what,
            };
            let begin = offset;
            offset = self.next_intact(begin + ALIGNMENT, end);
            each(begin, Piece::Hole { bytes: offset - begin, what })?;
            if offset == end {
                return Ok((begin, Ending::Bad(what)));
            }
        }
    }

    /// Where something intact begins, from an offset on, or the end.
    fn next_intact(&self, offset: usize, end: usize) -> usize {
        let is_intact = |offset: &usize| {
            let decoded = Record::decode(self.seed, self.bytes, *offset);
            matches!(decoded, Decoded::Record { .. } | Decoded::UnknownKind { .. })
        };
        (offset..end).step_by(ALIGNMENT).find(is_intact).unwrap_or(end)
    }

    /// The intact records from an offset on, wherever they start, and how far they say that the
    /// journal had reached the disk.
    pub fn intact_from(&self, offset: usize) -> Beyond {
        let used = self.used_from(offset);
        let mut beyond = Beyond { bytes: used, ..Beyond::default() };
        let end = offset + used;
        let mut offset = offset;
        while offset < end {
            match Record::decode(self.seed, self.bytes, offset) {
                Decoded::Record { record, length } => {
                    beyond.records += 1;
                    if let Record::Synced { until } = record {
                        beyond.synced = beyond.synced.max(until);
                    }
                    offset += length;
                }
                Decoded::UnknownKind { length, .. } => {
                    beyond.records += 1;
                    offset += length;
                }
                Decoded::Blank | Decoded::Bad(_) => offset += ALIGNMENT,
            }
        }
        beyond
    }

    pub fn begins_with_purge(&self) -> bool {
        let first = Record::decode(self.seed, self.bytes, FILE_HEAD_BYTES);
        matches!(first, Decoded::Record { record: Record::Event(Event::Purged), .. })
    }

    /// Bytes from this offset up to the last that is not zero.
    pub fn used_from(&self, offset: usize) -> usize {
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let page_count =
            rest.chunks(PAGE_BYTES).rposition(|page| !is_zero(page)).map_or(0, |n| n + 1);
        let used = &rest[..rest.len().min(page_count * PAGE_BYTES)];
        used.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    fn is_zero_from(&self, offset: usize) -> bool {
        self.bytes.get(offset..).unwrap_or_default().chunks(PAGE_BYTES).all(is_zero)
    }
}

const PAGE_BYTES: usize = 4096;
/// The shortest segment that is worth having.
const LENGTH_MIN: usize = PAGE_BYTES / 4;
/// How closely it is found out how long one can be.
const LENGTH_STEP: usize = PAGE_BYTES / 8;

/// What was found behind a bad spot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beyond {
    /// Up to the last that is not zero.
    pub bytes: usize,
    pub records: usize,
    pub synced: Position,
}

impl std::ops::AddAssign for Beyond {
    fn add_assign(&mut self, other: Beyond) {
        self.bytes += other.bytes;
        self.records += other.records;
        self.synced = self.synced.max(other.synced);
    }
}
