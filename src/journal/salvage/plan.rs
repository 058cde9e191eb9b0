//! What there is of a damaged journal, and what each number is to be in the new one. Reads only.

use super::super::accounts::States;
use super::super::copy::files;
use super::super::head::{self, FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::super::manifest::Files;
use super::super::record::HEAD_BYTES;
use super::super::segment::Contents;
use super::super::storage::Storage;
use super::super::{JournalError, books, notes, volume};
use crate::payments::names::Names;
use std::collections::BTreeMap;
use std::io;

/// So many files in a row may be missing: an empty one takes the place of each.
const MISSING_MAX: u64 = 65_536;

/// Which files there are, and what each number is to be.
#[derive(Debug)]
pub struct Plan {
    pub files: Files,
    /// The last segment of each file of books and the first. Those that were taken in by a later one
    /// are not among them.
    pub books: BTreeMap<u32, u32>,
    /// Likewise of ids.
    pub ids: BTreeMap<u32, u32>,
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

    /// Where the books end that this segment is in; if it is in none, with itself.
    pub fn end_of_books(&self, number: u32) -> u32 {
        end_of(&self.books, number).unwrap_or(number)
    }

    /// Whether ids of this segment should be there and are not. Older ones than the first that is
    /// there are not missed: the keeper removes them when the newer ones are enough.
    pub fn lacks_ids(&self, number: u32) -> bool {
        end_of(&self.ids, number).is_none()
            && (number == self.last_books
                || self.ids.first_key_value().is_some_and(|it| *it.0 < number))
    }

    /// Of how many numbers there is something, from the lowest that counts on.
    fn count_there(&self) -> u64 {
        let mut there: u64 = 0;
        let mut spans: Vec<(u32, u32)> = self.books.iter().map(|it| (*it.1, *it.0)).collect();
        spans.extend(self.ids.iter().map(|it| (*it.1, *it.0)));
        spans.extend(self.files.iter().map(|(_, number)| (*number, *number)));
        spans.sort_unstable();
        let mut next = self.lowest;
        for (first, last) in spans {
            let first = first.max(next);
            if last >= first {
                there += u64::from(last - first) + 1;
                next = last.saturating_add(1);
            }
        }
        there
    }

    /// `None` if there is no file.
    ///
    /// # Errors
    /// If they cannot be read, or too many are missing.
    pub fn of(
        from: &dyn Storage,
        processors: &Names,
        named: &[(Kind, u32)],
    ) -> Result<Option<Plan>, JournalError> {
        let files = files(from)?;
        let (books, ids) = (spans(from, &files, Kind::Books)?, spans(from, &files, Kind::Ids)?);
        let firsts = books.values().chain(ids.values()).copied();
        let numbers = || files.iter().map(|(_, number)| *number);
        let (Some(lowest), Some(highest)) = (numbers().chain(firsts).min(), numbers().max()) else {
            return Ok(None);
        };
        // What the manifest names was there.
        let highest = named.iter().map(|(_, number)| *number).fold(highest, u32::max);
        let mut plan =
            Plan { files, books, ids, lowest, highest, last_books: 0, stands_alone: false };
        let mut first = None;
        for (kind, number) in plan.files.iter().rev() {
            // Of a segment that is still there they are not finished, or superseded by it.
            let is_done = !plan.has(Kind::Segment, *number)
                || *kind == Kind::Books
                    && matches!(read(from, processors, *kind, *number)?.1, File::Whole);
            if *kind != Kind::Segment && is_done {
                plan.last_books = plan.last_books.max(*number);
            }
            if is_first(from, processors, *kind, *number)? {
                let begin = match kind {
                    Kind::Books => plan.books.get(number).copied(),
                    _ => None,
                };
                first = first.max(Some(begin.unwrap_or(*number)));
            }
        }
        plan.lowest = first.unwrap_or(lowest);
        plan.stands_alone = first.is_none() && lowest > FIRST_NUMBER;
        let missing = u64::from(highest - plan.lowest) + 1 - plan.count_there();
        if missing > MISSING_MAX || highest == u32::MAX {
            let file = Kind::Segment.file_name(highest);
            let what = "its number is too far behind those of the others";
            return Err(JournalError::Corrupt { file, offset: 0, what });
        }
        Ok(Some(plan))
    }
}

fn end_of(spans: &BTreeMap<u32, u32>, number: u32) -> Option<u32> {
    let (last, first) = spans.range(number..).next()?;
    (*first <= number).then_some(*last)
}

/// The last and the first segment of each file of a kind that counts. One whose head is damaged is
/// taken to begin behind whatever is there before it.
fn spans(
    from: &dyn Storage,
    files: &Files,
    kind: Kind,
) -> Result<BTreeMap<u32, u32>, JournalError> {
    let (mut spans, mut head) = (BTreeMap::new(), Vec::new());
    let mut taken_from = u32::MAX;
    for (_, number) in files.iter().rev().filter(|(it, number)| *it == kind && *number < u32::MAX) {
        if *number >= taken_from {
            continue;
        }
        let name = kind.file_name(*number);
        let read = from.read(&name, FILE_HEAD_BYTES, &mut head);
        read.map_err(|error| JournalError::io("read", &name, error))?;
        let first = match kind {
            Kind::Books => volume::span(*number, &head).map(|span| span.first),
            _ => books::first_of_ids(*number, &head),
        };
        let before = || {
            let others = files.iter().filter(|(it, _)| [kind, Kind::Segment].contains(it));
            let before = others.map(|(_, number)| *number).filter(|it| it < number).max();
            before.map_or(*number, |before| before + 1)
        };
        taken_from = first.unwrap_or_else(|_| before());
        spans.insert(*number, taken_from);
    }
    Ok(spans)
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
pub fn read(
    from: &dyn Storage,
    processors: &Names,
    kind: Kind,
    number: u32,
) -> Result<(Vec<u8>, File), JournalError> {
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
        Kind::Books => books::check(number, &bytes, processors).map(drop),
        Kind::Ids => books::ids(number, &bytes).map(drop),
        Kind::Notes => notes::read(number, &bytes, processors).map(drop),
        Kind::Accounts => States::new(number, &bytes)
            .and_then(|mut states| states.try_for_each(|state| state.map(drop))),
        Kind::Segment => head::decode(Kind::Segment, number, &bytes, processors).map(drop),
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
fn is_first(
    from: &dyn Storage,
    processors: &Names,
    kind: Kind,
    number: u32,
) -> Result<bool, JournalError> {
    let mut bytes = Vec::new();
    let name = kind.file_name(number);
    let read = from.read(&name, FILE_HEAD_BYTES + HEAD_BYTES, &mut bytes);
    read.map_err(|error| JournalError::io("read", &name, error))?;
    Ok(match kind {
        Kind::Books => books::flags(number, &bytes).is_ok_and(|flags| flags.stands_alone),
        Kind::Segment => Contents::without_head(number, &bytes, processors).begins_with_purge(),
        Kind::Ids | Kind::Accounts | Kind::Notes => false,
    })
}
