//! What there is of a damaged journal, and what each number is to be in the new one. Reads only.

use super::super::accounts::States;
use super::super::copy::{Files, files};
use super::super::head::{self, FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::super::record::HEAD_BYTES;
use super::super::segment::Contents;
use super::super::storage::Storage;
use super::super::{JournalError, books, notes};
use std::collections::BTreeSet;
use std::io;

/// So many files in a row may be missing: an empty one takes the place of each.
const MISSING_MAX: u32 = 65_536;

/// Which files there are, and what each number is to be.
#[derive(Debug)]
pub struct Plan {
    pub files: Files,
    pub lowest: u32,
    pub highest: u32,
    /// Up to this one they are books, behind it segments. 0 if there are no books.
    pub last_books: u32,
    /// What was before the lowest is missing: nothing may look for it.
    pub stands_alone: bool,
}

impl Plan {
    pub fn has(&self, kind: Kind, number: u32) -> bool {
        self.files.contains(&(kind, number))
    }

    /// `None` if there is no file.
    ///
    /// # Errors
    /// If they cannot be read, or too many are missing.
    pub fn of(from: &dyn Storage) -> Result<Option<Plan>, JournalError> {
        let files = files(from)?;
        let numbers = || files.iter().map(|(_, number)| *number);
        let (Some(lowest), Some(highest)) = (numbers().min(), numbers().max()) else {
            return Ok(None);
        };
        let mut plan = Plan { files, lowest, highest, last_books: 0, stands_alone: false };
        let mut first = None;
        for (kind, number) in plan.files.iter().rev() {
            // Of a segment that is still there they are not finished, or superseded by it.
            let is_done = !plan.has(Kind::Segment, *number)
                || *kind == Kind::Books && matches!(read(from, *kind, *number)?.1, File::Whole);
            if *kind != Kind::Segment && is_done {
                plan.last_books = plan.last_books.max(*number);
            }
            if is_first(from, *kind, *number)? {
                first = first.max(Some(*number));
            }
        }
        plan.lowest = first.unwrap_or(lowest);
        plan.stands_alone = first.is_none() && lowest > FIRST_NUMBER;
        let there = plan.files.iter().map(|(_, number)| *number).filter(|it| *it >= plan.lowest);
        let there: BTreeSet<u32> = there.collect();
        let missing = (highest - plan.lowest) as usize + 1 - there.len();
        if missing > MISSING_MAX as usize || highest == u32::MAX {
            let file = Kind::Segment.file_name(highest);
            let what = "its number is too far behind those of the others";
            return Err(JournalError::Corrupt { file, offset: 0, what });
        }
        Ok(Some(plan))
    }
}

/// A file that is used whole or not at all.
pub enum File {
    Whole,
    Missing,
    Damaged(String),
}

/// Reads a file that is used whole or not at all.
///
/// # Errors
/// If it cannot be read, or is of another version.
pub fn read(from: &dyn Storage, kind: Kind, number: u32) -> Result<(Vec<u8>, File), JournalError> {
    let mut bytes = Vec::new();
    let name = kind.file_name(number);
    match from.read(&name, usize::MAX, &mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((bytes, File::Missing));
        }
        // Most of it may be readable: whoever copies what is may lose less.
        Err(error) => return Err(JournalError::io("read", &name, error)),
    }
    let checked = match kind {
        Kind::Books => books::settlements(number, &bytes).map(drop),
        Kind::Ids => books::ids(number, &bytes).map(drop),
        Kind::Notes => notes::read(number, &bytes).map(drop),
        Kind::Accounts => States::new(number, &bytes)
            .and_then(|mut states| states.try_for_each(|state| state.map(drop))),
        Kind::Segment => head::decode(Kind::Segment, number, &bytes).map(drop),
    };
    match checked {
        Ok(()) => Ok((bytes, File::Whole)),
        Err(JournalError::Corrupt { what, offset, .. }) => {
            Ok((bytes, File::Damaged(format!("{what} at offset {offset}"))))
        }
        Err(error) => Err(error),
    }
}

/// Nothing in files of lower numbers counts.
fn is_first(from: &dyn Storage, kind: Kind, number: u32) -> Result<bool, JournalError> {
    let mut bytes = Vec::new();
    let name = kind.file_name(number);
    let read = from.read(&name, FILE_HEAD_BYTES + HEAD_BYTES, &mut bytes);
    read.map_err(|error| JournalError::io("read", &name, error))?;
    Ok(match kind {
        Kind::Books => books::flags(number, &bytes).is_ok_and(|flags| flags.stands_alone),
        Kind::Segment => Contents::without_head(number, &bytes).begins_with_purge(),
        Kind::Ids | Kind::Accounts | Kind::Notes => false,
    })
}
