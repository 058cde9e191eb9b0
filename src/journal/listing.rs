//! Which files of a directory count, and what each is for: those from the last purge on, or from the last
//! books that stand alone; and of files that were merged, or rewritten, the newer ones.
//!
//! Reads heads alone, and changes nothing. The invariant: what counts is whole, a file for every number, or
//! the start is refused with the name of what is missing.

use super::abridged;
use super::head::{FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::manifest::{self, Files, Look, Stored};
use super::record::HEAD_BYTES;
use super::recover::failed;
use super::retained::Retained;
use super::segment::{Contents, UNFINISHED};
use super::storage::Storage;
use super::{JournalError, books, notes, volume};
use crate::payments::names::Names;
use std::collections::{BTreeMap, BTreeSet};

/// The files of a directory by what they are for.
#[derive(Debug, Default)]
pub struct Listing {
    pub segments: BTreeSet<u32>,
    /// The last segment of each and the first: volumes that were merged are of several.
    pub books: BTreeMap<u32, u32>,
    pub ids: BTreeMap<u32, u32>,
    /// The accounts of the last books, if they have any.
    pub accounts: Option<u32>,
    /// The notes that count, oldest first, with how many are in each.
    pub notes: Vec<(u32, usize)>,
    /// To be removed: unfinished, or made superfluous by others.
    pub leftovers: Vec<String>,
    /// Segments that have been rewritten, and are to go.
    pub rewritten: BTreeSet<u32>,
    /// Segments that are kept, and are no part of the journal.
    pub retained: BTreeSet<(u32, Retained)>,
    /// The manifest, which a directory of before it has none of.
    pub manifest: Option<Stored>,
}

impl Listing {
    /// What is in the directory and counts: everything from the last purge on, or from the last
    /// books that stand alone.
    ///
    /// # Errors
    /// If a file is missing between others, or one that the manifest names.
    pub fn new(storage: &dyn Storage, processors: &Names) -> Result<Listing, JournalError> {
        let Look { stored, names, findings } = manifest::look(storage, processors)?;
        if let Some(finding) = findings.into_iter().next() {
            return Err(finding);
        }
        let mut listing = Listing { manifest: stored, ..Listing::default() };
        let (mut books, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let (mut accounts, mut notes) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            match Kind::of_file_name(&name) {
                Some((Kind::Segment, number)) => listing.segments.insert(number),
                Some((Kind::Books, number)) => books.insert(number),
                Some((Kind::Ids, number)) => ids.insert(number),
                Some((Kind::Accounts, number)) => accounts.insert(number),
                Some((Kind::Notes, number)) => notes.insert(number),
                None => {
                    listing.retained.extend(Retained::of_file_name(&name));
                    let is_ours = |it: &&str| {
                        *it == manifest::FILE_NAME
                            || Kind::of_file_name(it).is_some()
                            || abridged::is_archive(it)
                    };
                    let ours = name.strip_suffix(UNFINISHED).filter(is_ours).is_some();
                    listing.leftovers.extend(ours.then_some(name));
                    false
                }
            };
        }
        listing.books = listing.spans(Kind::Books, books, storage)?;
        listing.ids = listing.spans(Kind::Ids, ids, storage)?;
        let first = listing.first_that_counts(storage, processors)?;
        listing.keep_from(first.unwrap_or(FIRST_NUMBER));
        // Between the rewriting of a segment and its removal both are there: the books count.
        let is_in_books = |number: &u32| {
            let next = listing.books.range(number..).next();
            next.is_some_and(|(_, first)| first <= number)
        };
        let (rewritten, segments) = listing.segments.iter().copied().partition(is_in_books);
        (listing.rewritten, listing.segments) = (rewritten, segments);
        listing.check_complete(first)?;
        listing.choose(accounts, notes, storage)?;
        Ok(listing)
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.books.is_empty()
    }

    /// The files that count, of the segments only those before this one.
    pub(super) fn files_before(&self, segment: u32) -> Files {
        let mut files: Files =
            self.segments.range(..segment).map(|number| (Kind::Segment, *number)).collect();
        files.extend(self.books.keys().map(|number| (Kind::Books, *number)));
        files.extend(self.ids_newest_first().map(|(_, number)| (Kind::Ids, number)));
        files.extend(self.accounts.map(|number| (Kind::Accounts, number)));
        files.extend(self.notes.iter().map(|(number, _)| (Kind::Notes, *number)));
        files
    }

    /// Of which segments each of these files is. Those that a later one has taken in are superseded.
    fn spans(
        &mut self,
        kind: Kind,
        numbers: BTreeSet<u32>,
        storage: &dyn Storage,
    ) -> Result<BTreeMap<u32, u32>, JournalError> {
        let (mut spans, mut head) = (BTreeMap::new(), Vec::new());
        let mut taken_from = u32::MAX;
        for number in numbers.into_iter().rev() {
            let name = kind.file_name(number);
            if number >= taken_from {
                self.leftovers.push(name);
                continue;
            }
            storage.read(&name, FILE_HEAD_BYTES, &mut head).map_err(failed("read", &name))?;
            let first = match kind {
                Kind::Books => volume::span(number, &head).map(|span| span.first),
                _ => books::first_of_ids(number, &head),
            };
            taken_from = unless_damaged(first)?.unwrap_or(number);
            spans.insert(number, taken_from);
        }
        Ok(spans)
    }

    /// The accounts and the notes of the last books count. Those before are superseded, but for the
    /// notes that are named by these, and those of a later number are of a segment that is still
    /// there.
    fn choose(
        &mut self,
        mut accounts: BTreeSet<u32>,
        mut notes: BTreeSet<u32>,
        storage: &dyn Storage,
    ) -> Result<(), JournalError> {
        if let Some((last, _)) = self.books.last_key_value() {
            let name = Kind::Books.file_name(*last);
            let mut head = Vec::new();
            storage.read(&name, FILE_HEAD_BYTES, &mut head).map_err(failed("read", &name))?;
            // A damaged head is reported when the whole file is read.
            let flags = books::flags(*last, &head).ok();
            if flags.is_some_and(|flags| flags.has_accounts) {
                if !accounts.remove(last) {
                    return Err(JournalError::Missing { file: Kind::Accounts.file_name(*last) });
                }
                self.accounts = Some(*last);
            }
            self.follow_notes(flags.and_then(|flags| flags.notes), &mut notes, storage)?;
        }
        let accounts = accounts.into_iter().map(|number| Kind::Accounts.file_name(number));
        let notes = notes.into_iter().map(|number| Kind::Notes.file_name(number));
        self.leftovers.extend(accounts.chain(notes));
        Ok(())
    }

    /// Takes from all notes those that count: the last ones, and those that each of them names.
    fn follow_notes(
        &mut self,
        last: Option<u32>,
        all: &mut BTreeSet<u32>,
        storage: &dyn Storage,
    ) -> Result<(), JournalError> {
        let (mut next, mut head) = (last, Vec::new());
        while let Some(number) = next {
            let name = Kind::Notes.file_name(number);
            if !all.remove(&number) {
                return Err(JournalError::Missing { file: name });
            }
            storage.read(&name, FILE_HEAD_BYTES, &mut head).map_err(failed("read", &name))?;
            let (count, before) = notes::count_and_before(number, &head)?;
            self.notes.push((number, count));
            next = before;
        }
        self.notes.reverse();
        Ok(())
    }

    fn first_that_counts(
        &self,
        storage: &dyn Storage,
        processors: &Names,
    ) -> Result<Option<u32>, JournalError> {
        let mut bytes = Vec::new();
        let mut numbers = self.segments.clone();
        numbers.extend(self.books.keys());
        for number in numbers.into_iter().rev() {
            let first = self.books.get(&number).copied();
            let kind = if first.is_some() { Kind::Books } else { Kind::Segment };
            let name = kind.file_name(number);
            let limit = FILE_HEAD_BYTES + HEAD_BYTES;
            storage.read(&name, limit, &mut bytes).map_err(failed("read", &name))?;
            let is_first = match kind {
                Kind::Books => unless_damaged(books::flags(number, &bytes))?
                    .is_some_and(|flags| flags.stands_alone),
                _ => unless_damaged(Contents::new(number, &bytes, processors))?
                    .is_some_and(|it| it.begins_with_purge()),
            };
            if is_first {
                return Ok(Some(first.unwrap_or(number)));
            }
        }
        Ok(None)
    }

    fn keep_from(&mut self, first: u32) {
        let kept = self.segments.split_off(&first);
        let void = std::mem::replace(&mut self.segments, kept);
        self.leftovers.extend(void.into_iter().map(|number| Kind::Segment.file_name(number)));
        let is_void = |(number, of): &(u32, Retained)| *number < first && *of == Retained::Events;
        let (void, kept): (BTreeSet<_>, _) = self.retained.iter().copied().partition(is_void);
        self.retained = kept;
        self.leftovers.extend(void.into_iter().map(|(number, of)| of.file_name(number)));
        for (kind, spans) in [(Kind::Books, &mut self.books), (Kind::Ids, &mut self.ids)] {
            let kept = spans.split_off(&first);
            let void = std::mem::replace(spans, kept);
            self.leftovers.extend(void.into_keys().map(|number| kind.file_name(number)));
        }
    }

    fn check_complete(&self, first: Option<u32>) -> Result<(), JournalError> {
        let mut expected = first.unwrap_or(FIRST_NUMBER);
        let mut spans = self.books.clone();
        spans.extend(self.segments.iter().map(|number| (*number, *number)));
        for (last, first) in spans {
            if first != expected {
                let file = Kind::Segment.file_name(expected) + " or its .books";
                return Err(JournalError::Missing { file });
            }
            expected = last.saturating_add(1);
        }
        match self.books.last_key_value() {
            Some((last, _)) if !self.ids.contains_key(last) => {
                Err(JournalError::Missing { file: Kind::Ids.file_name(*last) })
            }
            _ => Ok(()),
        }
    }

    /// The files of ids in use with the first segment of each, newest first: older ones may have
    /// been removed.
    pub(super) fn ids_newest_first(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut next = self.books.last_key_value().map(|(last, _)| *last);
        std::iter::from_fn(move || {
            let last = next?;
            let first = *self.ids.get(&last)?;
            next = first.checked_sub(1);
            Some((first, last))
        })
    }
}

/// A damaged head is reported when the whole file is read. One that is not for this version says so
/// first: what it says of other files is not known.
fn unless_damaged<T>(read: Result<T, JournalError>) -> Result<Option<T>, JournalError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(JournalError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
