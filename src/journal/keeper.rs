//! Order in the directory: the next segment made ahead, old segments rewritten as books, what was
//! purged removed. Runs on a thread of its own, one step at a time; tests run the steps by hand.
//!
//! The invariant: a segment is removed only when its books, ids, accounts and notes are on the disk
//! under their names, and when everything that ended its payments is on the disk as well. And no file
//! is removed before the manifest on the disk has ceased to name it. A crash between any
//! two operations leaves a directory that `recover.rs` reads the same way.

use super::accounts::States;
use super::books::Remains;
use super::head::Kind;
use super::manifest::{self, Files};
use super::retained::{self, Retained};
use super::segment::{Contents, Ending, UNFINISHED};
use super::storage::{Lack, Storage, StoredFile};
use super::volume::{Span, Volume};
use super::writer::{Writer, locked};
use super::{JournalError, accounts, notes};
use crate::ledger::Entry;
use crate::payments::event::Event;
use crate::payments::names::Names;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// A segment this far behind the one in use is emptied by carrying its payments over: some may
/// stay open for as long as a processor is away.
pub const CARRY_AFTER_SEGMENTS: u32 = 2;
/// So many are carried over in one step, under the lock that appends need.
const CARRIED_MAX: usize = 4096;

/// What the keeper knows.
pub struct Keeping {
    /// The oldest segment that is not rewritten yet.
    pub oldest: u32,
    /// The last purge that was seen to: what was before it is gone.
    pub purged: u32,
    /// Files of books that count, oldest first.
    pub books: Vec<Held>,
    /// Files of ids, oldest first.
    pub ids: VecDeque<IdsFile>,
    /// The file of accounts that belongs to the last books.
    pub accounts: Option<u32>,
    /// Files of notes that count, oldest first, with how many are in each.
    pub notes: Vec<(u32, usize)>,
    /// Volumes that are not on the shelf any more, as long as somebody may read them.
    pub replaced: Vec<Arc<Volume>>,
    /// Segments that are kept though they have been rewritten, oldest first.
    pub retained: VecDeque<retained::Held>,
    /// Files that others have taken the place of, to be removed when the manifest names those.
    pub superseded: Vec<String>,
    /// Files that are not named yet, or have taken the place of one of the same name.
    pub fresh: Files,
    /// There was no space to merge files, and nothing has changed since.
    pub is_merging_held_up: bool,
    /// No books so far have settlements or ids: what comes of the segments is in the accounts.
    pub only_accounts: bool,
    /// What was lacking the last time for the next segment, for books, and for attempts.
    pub lacks: [Option<Lack>; 3],
}

/// A file of books.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub span: Span,
    pub form: Form,
    /// It was found damaged: it stays as it is.
    pub is_damaged: bool,
}

/// What books may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Of a layout before that of volumes.
    Old,
    Volume,
    /// Totals alone (`abridged.rs`).
    Abridged,
}

/// A file of ids: of which segments, and how many.
#[derive(Clone, Copy, Debug)]
pub struct IdsFile {
    pub first: u32,
    pub last: u32,
    pub count: usize,
    /// It was found damaged: it stays as it is.
    pub is_damaged: bool,
}

impl Keeping {
    /// Those that count, but for the segments.
    fn files(&self) -> Files {
        let mut files: Files =
            self.books.iter().map(|held| (Kind::Books, held.span.last)).collect();
        files.extend(self.ids.iter().map(|ids| (Kind::Ids, ids.last)));
        files.extend(self.accounts.map(|number| (Kind::Accounts, number)));
        files.extend(self.notes.iter().map(|(number, _)| (Kind::Notes, *number)));
        files
    }
}

impl Writer {
    /// Does what is most urgent. False if there was nothing to do, or no space to do it.
    pub fn keep(&self) -> bool {
        let mut keeping = locked(&self.keeping);
        keeping.replaced.retain(|volume| Arc::strong_count(volume) > 1);
        self.remove_old_retained(&mut keeping);
        if !keeping.superseded.is_empty() || locked(&self.manifest).is_behind() {
            self.remove_superseded(&mut keeping);
        }
        let prepared = self.prepare_next();
        let lack = (!self.is_next_ready()).then(|| self.lack());
        if lack == Some(Lack::Space) && self.remove_oldest_retained(&mut keeping) {
            return true;
        }
        tell(&mut keeping.lacks[0], lack, "the next segment");
        let withheld = (!self.has_room_for_attempt()).then(|| self.lack());
        tell(&mut keeping.lacks[2], withheld, "attempts, which wait");
        let census = self.census(keeping.oldest);
        if census.purged > keeping.purged {
            self.remove_purged(&mut keeping, census.purged);
            return self.remove_superseded(&mut keeping) || prepared;
        }
        // Without space for the next segment these are given up as well.
        let kept = if self.is_next_ready() { self.options.full_segments_kept } else { 0 };
        if census.in_use.saturating_sub(keeping.oldest) <= kept {
            return self.merge(&mut keeping) || self.archive(&mut keeping) || prepared;
        }
        if census.held > 0 {
            let late = census.in_use - keeping.oldest > CARRY_AFTER_SEGMENTS;
            if late {
                self.carry_over(keeping.oldest, CARRIED_MAX);
            }
            let carried = late && self.census(keeping.oldest).held < census.held;
            let done = carried || self.merge(&mut keeping) || self.archive(&mut keeping);
            return done || prepared;
        }
        // Nothing in it is outstanding. Whatever ended its payments must not be lost once it is
        // gone, so that is synced first, with `Process` too.
        self.flush();
        self.sync();
        self.rewrite(&mut keeping) || prepared
    }

    /// What the keeper's thread does; and each time it syncs what was written, for which nobody else
    /// does with `Process`.
    pub fn keep_and_sync(&self) -> bool {
        let is_more = self.keep();
        self.sync();
        is_more
    }

    /// Segment → books, ids, accounts and notes. False if there is no space for them now.
    fn rewrite(&self, keeping: &mut Keeping) -> bool {
        let number = keeping.oldest;
        let storage = &*self.storage;
        let name = Kind::Segment.file_name(number);
        let mut bytes = Vec::new();
        if let Err(error) = storage.read(&name, usize::MAX, &mut bytes) {
            self.fail(&format!("segment {number} cannot be read: {error}"));
        }
        let mut books = match books_of(number, &bytes, &self.names) {
            Ok(books) => books,
            Err(error) => self.fail(&error.to_string()),
        };
        drop(bytes);
        let notes_kept = self.gather_notes(&keeping.notes, &mut books);
        // A purge has removed those from before it, so they go together.
        let had_accounts = keeping.accounts;
        books.has_accounts = had_accounts.is_some() || !books.entries.is_empty();
        // So a ledger's directory does not grow by two files of nothing with every segment.
        books.stands_alone |= books.has_accounts && keeping.only_accounts && notes_kept == 0;
        let written = self.write_books(number, had_accounts, &mut books);
        let lack = written.as_ref().err().map(|error| {
            let failed = || self.fail(&format!("segment {number} cannot be rewritten: {error}"));
            Lack::of(error).unwrap_or_else(failed)
        });
        tell(&mut keeping.lacks[1], lack, "books");
        let Ok(volume) = written else {
            return lack == Some(Lack::Space) && self.remove_oldest_retained(keeping);
        };
        let span = volume.span();
        self.put_on_shelf(keeping, volume);
        keeping.superseded.push(Kind::Segment.file_name(number));
        keeping.oldest += 1;
        keeping.is_merging_held_up = false;
        keeping.books.push(Held { span, form: Form::Volume, is_damaged: false });
        let count = books.ids.len();
        keeping.ids.push_back(IdsFile { first: number, last: number, count, is_damaged: false });
        self.remove_old_ids(keeping);
        for (superseded, _) in keeping.notes.drain(notes_kept..) {
            keeping.superseded.push(Kind::Notes.file_name(superseded));
        }
        if !books.notes.is_empty() {
            keeping.notes.push((number, books.notes.len()));
        }
        let settled = books.settled.len();
        keeping.only_accounts &= settled == 0 && books.ids.is_empty();
        let accounts = books.has_accounts.then_some(number);
        if let Some(superseded) = std::mem::replace(&mut keeping.accounts, accounts) {
            keeping.superseded.push(Kind::Accounts.file_name(superseded));
            if books.stands_alone {
                keeping.superseded.push(Kind::Books.file_name(superseded));
                keeping.books.retain(|held| held.span.last != superseded);
            }
        }
        keeping.fresh.extend(keeping.files().into_iter().filter(|(_, it)| *it == number));
        self.remove_superseded(keeping);
        let entries = books.entries.len();
        log::info!(
            "journal: segment {number} rewritten as books of {settled} settlements and {entries} \
             entries"
        );
        true
    }

    /// A segment that is rewritten is no part of the journal any more. It may be kept all the same, as
    /// it is.
    fn retire(&self, keeping: &mut Keeping, number: u32) {
        let (name, of) = (Kind::Segment.file_name(number), self.options.retention.of);
        if !self.options.retention.keeps() {
            return self.remove(&name);
        }
        let kept = of.file_name(number);
        let length = self.storage.open_to_read(&name).and_then(|file| file.length());
        match length.and_then(|length| self.storage.rename(&name, &kept).map(|()| length)) {
            Ok(bytes) => keeping.retained.push_back(retained::Held { number, of, bytes }),
            Err(error) => self.fail(&format!("{name} cannot be renamed: {error}")),
        }
    }

    fn remove_old_retained(&self, keeping: &mut Keeping) {
        let Some(bytes_max) = self.options.retention.bytes else { return };
        let mut bytes: u64 = keeping.retained.iter().map(|held| held.bytes).sum();
        while bytes > bytes_max
            && let Some(held) = keeping.retained.front()
        {
            bytes -= held.bytes;
            self.remove_oldest_retained(keeping);
        }
    }

    /// False if there are none. Whoever still follows it does not keep its space, however slow he is:
    /// the journal may need it.
    fn remove_oldest_retained(&self, keeping: &mut Keeping) -> bool {
        let Some(held) = keeping.retained.pop_front() else { return false };
        let name = held.file_name();
        if held.of == Retained::Events
            && let Err(error) = self.storage.open(&name).and_then(|file| file.truncate(0))
            && Lack::of(&error).is_none()
        {
            self.fail(&format!("{name} cannot be emptied: {error}"));
        }
        self.remove(&name);
        true
    }

    /// What it replaces is dropped by the keeper, when nobody else reads it any more: closing a file
    /// that has been removed waits for the disk.
    pub(super) fn put_on_shelf(&self, keeping: &mut Keeping, volume: Volume) {
        let replaced = locked(&self.shelf).put(Arc::new(volume));
        keeping.replaced.extend(replaced);
    }

    /// Puts the notes of older files before those of a segment, where the new file is to take their
    /// place. So many of the older files go on counting.
    fn gather_notes(&self, older: &[(u32, usize)], books: &mut Remains) -> usize {
        let mut gathered = std::mem::take(&mut books.notes);
        let mut kept = older.len();
        // On a full disk what is new alone takes the least space, and gives back a segment.
        while !gathered.is_empty()
            && self.is_next_ready()
            && let Some((number, _)) =
                older[..kept].last().filter(|(_, count)| notes::absorbs(gathered.len(), *count))
        {
            let mut before = self.read_notes(*number);
            before.append(&mut gathered);
            gathered = before;
            kept -= 1;
        }
        books.notes = notes::condense(gathered, kept == 0);
        books.notes_before = older[..kept].last().map(|(number, _)| *number);
        kept
    }

    fn read_notes(&self, number: u32) -> Vec<Event> {
        let name = Kind::Notes.file_name(number);
        let mut bytes = Vec::new();
        if let Err(error) = self.storage.read(&name, usize::MAX, &mut bytes) {
            self.fail(&format!("{name} cannot be read: {error}"));
        }
        notes::read(number, &bytes, &self.names)
            .unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    /// Writes what is left of a segment, which can be removed then. First everything is written under other
    /// names, so that a full disk leaves nothing behind; then the names, those of the books last
    /// and for good: where there are books, nothing is left to be done.
    fn write_books(
        &self,
        number: u32,
        had_accounts: Option<u32>,
        books: &mut Remains,
    ) -> io::Result<Volume> {
        let (storage, names) = (&*self.storage, self.reference());
        let mut kinds = vec![Kind::Ids];
        let mut write = || {
            write_unfinished(storage, Kind::Ids, number, &books.encode_ids(number))?;
            if books.has_accounts {
                let bytes = self.accounts_of(number, had_accounts, &mut books.entries)?;
                write_unfinished(storage, Kind::Accounts, number, &bytes)?;
                kinds.push(Kind::Accounts);
            }
            if !books.notes.is_empty() {
                let bytes = books.encode_notes(number, names);
                write_unfinished(storage, Kind::Notes, number, &bytes)?;
                kinds.push(Kind::Notes);
            }
            let bytes = books.encode(number, names);
            let file = write_unfinished(storage, Kind::Books, number, &bytes)?;
            for kind in &kinds {
                finish(storage, *kind, number)?;
            }
            storage.sync_directory()?;
            finish(storage, Kind::Books, number)?;
            Ok(file)
        };
        let file = write();
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                for kind in [Kind::Ids, Kind::Accounts, Kind::Notes, Kind::Books] {
                    // Gives the space back; a start would too.
                    let _ = storage.remove(&(kind.file_name(number) + UNFINISHED));
                }
                return Err(error);
            }
        };
        storage.sync_directory()?;
        Volume::of_file(number, file, &self.names).map_err(io::Error::other)
    }

    /// The accounts at the end of a segment.
    fn accounts_of(
        &self,
        number: u32,
        before: Option<u32>,
        entries: &mut [(usize, Entry)],
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(before) = before {
            let name = Kind::Accounts.file_name(before);
            self.storage.read(&name, usize::MAX, &mut bytes)?;
        }
        let before = before.map(|number| States::new(number, &bytes)).transpose();
        match before.and_then(|states| accounts::rewrite(number, states, entries)) {
            Ok(bytes) => Ok(bytes),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Gives up files of ids that the newer ones alone make unnecessary.
    fn remove_old_ids(&self, keeping: &mut Keeping) {
        let mut count: usize = keeping.ids.iter().map(|ids| ids.count).sum();
        // The last one stays, even empty: every start looks for it.
        while keeping.ids.len() > 1
            && let Some(oldest) = keeping.ids.front().copied()
            && count - oldest.count >= self.options.ids_remembered
        {
            keeping.superseded.push(Kind::Ids.file_name(oldest.last));
            count -= oldest.count;
            keeping.ids.pop_front();
        }
    }

    /// Gives up everything from before a purge, once the purge is on the disk.
    fn remove_purged(&self, keeping: &mut Keeping, purged: u32) {
        self.flush();
        self.sync();
        let names = match self.storage.names() {
            Ok(names) => names,
            Err(error) => self.fail(&format!("the directory cannot be listed: {error}")),
        };
        for name in names {
            let number = Kind::of_file_name(&name).map(|(_, number)| number);
            if number.or(Retained::Events.number_of(&name)).is_some_and(|number| number < purged) {
                keeping.superseded.push(name);
            }
        }
        keeping.superseded.sort_unstable();
        keeping.superseded.dedup();
        (keeping.oldest, keeping.purged) = (purged, purged);
        keeping.books.clear();
        keeping.ids.clear();
        keeping.is_merging_held_up = false;
        keeping.accounts = None;
        keeping.notes.clear();
        keeping.retained.retain(|it| it.of == Retained::Entries || it.number >= purged);
        keeping.only_accounts = true;
    }

    /// Names in the manifest what counts now, and then removes what does not any more. False if there
    /// is no space for that: the next step tries again.
    pub(super) fn remove_superseded(&self, keeping: &mut Keeping) -> bool {
        let files = keeping.files();
        let mut fresh = Vec::new();
        for (kind, number) in keeping.fresh.intersection(&files) {
            match manifest::checksum_of(&*self.storage, *kind, *number) {
                Ok(checksum) => fresh.push((*kind, *number, checksum)),
                Err(error) if Lack::of(&error).is_some() => return false,
                Err(error) => {
                    self.fail(&format!("{} cannot be read: {error}", kind.file_name(*number)));
                }
            }
        }
        let oldest = keeping.oldest;
        let is_named = self.change_manifest(|named| {
            named.retain(|kind, number| match kind {
                Kind::Segment => number >= oldest,
                _ => files.contains(&(kind, number)) && !keeping.fresh.contains(&(kind, number)),
            });
            fresh.iter().for_each(|(kind, number, checksum)| {
                named.insert(*kind, *number, *checksum);
            });
        });
        if is_named {
            keeping.fresh.clear();
            for name in std::mem::take(&mut keeping.superseded) {
                match Kind::of_file_name(&name) {
                    Some((Kind::Segment, number)) if number >= keeping.purged => {
                        self.retire(keeping, number);
                    }
                    _ => self.remove(&name),
                }
            }
        }
        is_named
    }

    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = self.storage.remove(name) {
            self.fail(&format!("{name} cannot be removed: {error}"));
        }
    }
}

/// Says so when something begins to lack, and when it is there again.
fn tell(was: &mut Option<Lack>, is: Option<Lack>, what: &str) {
    match (*was, is) {
        (None, Some(Lack::Space)) => log::warn!("journal: the disk is full: no space for {what}"),
        (None, Some(Lack::Files)) => {
            log::warn!("journal: too many files are open: none left for {what}");
        }
        (Some(_), None) => log::info!("journal: there is room for {what} again"),
        _ => {}
    }
    *was = is;
}

/// What is left of a full segment.
fn books_of(number: u32, bytes: &[u8], names: &Names) -> Result<Remains, JournalError> {
    let contents = Contents::new(number, bytes, names)?;
    let mut books = Remains::default();
    let (offset, ending) = contents.walk(|offset, record| {
        books.add(offset, &record);
        Ok(())
    })?;
    if ending != Ending::Sealed {
        let file = Kind::Segment.file_name(number);
        let what = "its end is missing, though it was full";
        return Err(JournalError::Corrupt { file, offset, what });
    }
    books.sort();
    Ok(books)
}

/// Writes a file under another name first, so that its own name only ever means the whole.
pub(super) fn write_unfinished(
    storage: &dyn Storage,
    kind: Kind,
    number: u32,
    bytes: &[u8],
) -> io::Result<Arc<dyn StoredFile>> {
    let file = storage.create(&(kind.file_name(number) + UNFINISHED))?;
    file.allocate(bytes.len() as u64)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    Ok(file)
}

pub(super) fn finish(storage: &dyn Storage, kind: Kind, number: u32) -> io::Result<()> {
    let name = kind.file_name(number);
    storage.rename(&(name.clone() + UNFINISHED), &name)
}
