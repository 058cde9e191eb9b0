//! `galo journal copy FROM TO`: a copy of a journal while an instance writes to it.
//!
//! Takes no lock and changes nothing in FROM. What is copied is what a start would have found at one
//! moment after the copy had begun.
//!
//! # Why it is consistent
//! Books, ids and accounts are written under other names and never change, but for merged ones, which
//! take the place of the last that they take in and are known by their heads. A segment only grows, and
//! no record is written into one before all of the segment before it is in its file. So segments are
//! read from the newest to the oldest: what was read of one is the end of a history of which those
//! before it, read later, have everything. (From the oldest on, one would be read before its end was
//! written, and the next one with what came behind it.)
//!
//! The keeper may rewrite a segment meanwhile. To read its books instead would be wrong: a payment in
//! it may have been carried over to a newer segment since that was read, and would be in neither. So
//! when a file has gone, the pass begins again. And a list of a directory is of no one moment: of what
//! comes and goes meanwhile it may have neither the old nor the new. So a second list must be the
//! same, but for newer segments, or the pass begins again. What never changes is not read again, nor is
//! a segment that was read to its end: a later pass is as short as what is new.
//!
//! The manifest is read before the list. What it names is in the list, or has been superseded since,
//! and the pass begins again. The copy gets a manifest of its own, of what is in it. Last come the ledger's
//! entries that are kept for exports (`retained.rs`): those that have been kept since are in a segment of
//! the copy.
//!
//! A write may be under way while a segment is read, and its later part be seen before its earlier
//! one. What lies before it was written earlier, and is read. So a segment whose records end badly
//! is read a second time: if they go further then, it is cut where they end; if not, it is as it
//! was left, torn or damaged.

use super::accounts::States;
use super::books;
use super::head::{FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::identity;
use super::inspect;
use super::manifest::{self, Files};
use super::record::END_BYTES;
use super::recover;
use super::segment::{Contents, Ending};
use super::storage::{Directory, Storage};
use super::unfinished::Unfinished;
use super::{JournalError, LEDGER_DIRECTORY, notes, retained};
use crate::payments::names::Names;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

/// So often it begins again at most. Each time the keeper has to have rewritten a segment.
const PASSES_MAX: usize = 100;

/// Copies a journal with its ledger. Returns a line that says what it has done.
///
/// # Errors
/// In one line; `to` is as it was then.
pub fn run(from: &Path, to: &Path) -> Result<String, String> {
    inspect::expect_journal(from)?;
    let unfinished = Unfinished::new(from, to)?;
    let failed = |error: JournalError| match error {
        JournalError::Corrupt { .. } | JournalError::Missing { .. } => {
            format!("{error}. For what is left of it there is `galo journal salvage`")
        }
        _ => error.to_string(),
    };
    let read_only = |path: &Path| {
        let opened = Directory::read_only(path).map(|it| it.showing("copying"));
        opened.map_err(|error| JournalError::io("open", path, error))
    };
    let source = read_only(from).map_err(failed)?;
    let ledger = from.join(LEDGER_DIRECTORY);
    if from.join(identity::FILE_NAME).exists() && !ledger.is_dir() {
        return Err(format!(
            "{} lacks {LEDGER_DIRECTORY}/, and so every account: it was restored by halves",
            from.display()
        ));
    }
    let target = Directory::lock(unfinished.path()).map_err(failed)?;
    let mut copied = copy(&source, &target).map_err(failed)?;
    if ledger.is_dir() {
        let target = Directory::lock(&unfinished.path().join(LEDGER_DIRECTORY)).map_err(failed)?;
        copied += copy(&read_only(&ledger).map_err(failed)?, &target).map_err(failed)?;
    }
    copy_identity(&source, &target).map_err(failed)?;
    drop(target);
    unfinished.finish()?;
    let Copied { files, bytes, damaged } = copied;
    let mut done =
        format!("{}: a copy of {}, {files} files, {bytes} bytes", to.display(), from.display());
    for name in damaged {
        let _ = write!(done, "\n{LEDGER_DIRECTORY}/{name} is damaged, and was copied as it is");
    }
    Ok(done)
}

/// How much was copied. Of segments only what has been written to them.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    pub(super) files: usize,
    pub(super) bytes: usize,
    /// Segments that are kept for exports, and are damaged: copied as they are.
    damaged: Vec<String>,
}

impl std::ops::AddAssign for Copied {
    fn add_assign(&mut self, other: Copied) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.damaged.extend(other.damaged);
    }
}

/// # Errors
/// If the directory cannot be listed.
pub(super) fn files(storage: &dyn Storage) -> Result<Files, JournalError> {
    let failed = |error| JournalError::io("list", "the directory", error);
    let names = storage.names().map_err(failed)?;
    Ok(names.iter().filter_map(|name| Kind::of_file_name(name)).collect())
}

/// Whether nothing has come or gone between the two but newer segments.
fn is_same(before: &Files, mut after: Files) -> bool {
    let segments = before.iter().filter(|(kind, _)| *kind == Kind::Segment);
    let newest = segments.map(|(_, number)| *number).max().unwrap_or(FIRST_NUMBER - 1);
    after.retain(|(kind, number)| *kind != Kind::Segment || *number <= newest);
    *before == after
}

/// Copies the files of one directory, all but the identity, and syncs them. See the module.
///
/// # Errors
/// If a file is damaged or missing, or the directory changes faster than it can be copied.
pub fn copy(from: &dyn Storage, to: &dyn Storage) -> Result<Copied, JournalError> {
    let mut copy = Copy { from, to, done: BTreeMap::new(), bytes: 0 };
    let mut incomplete = None;
    for _ in 0..PASSES_MAX {
        let processors = recover::read_names(from)?;
        let named = manifest::read(from)?;
        let files_now = files(from)?;
        let passed = match copy.pass(&files_now, &processors) {
            // A start has added names since.
            Err(JournalError::OtherNames { .. }) if recover::read_names(from)? != processors => {
                false
            }
            passed => passed?,
        };
        if !passed || !is_same(&files_now, files(from)?) {
            continue;
        }
        for (kind, number) in files(to)?.difference(&files_now) {
            let name = kind.file_name(*number);
            to.remove(&name).map_err(|error| JournalError::io("remove", &name, error))?;
        }
        to.sync_directory().map_err(|error| JournalError::io("sync", "the copy", error))?;
        let complete =
            manifest::check(from, &processors, named.as_ref(), &files_now).and_then(|()| {
                // One of before the manifest is copied as it is.
                named.as_ref().map_or(Ok(()), |_| manifest::write(to, &files_now))?;
                recover::check_complete(to, &processors)
            });
        match complete {
            Ok(_) => {
                let (files, bytes) = (files_now.len(), copy.bytes);
                let mut copied = Copied { files, bytes, damaged: Vec::new() };
                copied.damaged = retained::copy(from, to, &processors, &files_now, &mut copied)?;
                return Ok(copied);
            }
            // A file that was listed has gone while it was looked at.
            Err(JournalError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if incomplete.as_ref() == Some(&files_now) => return Err(error),
            // Both lists may have lacked the same by chance: a third would not.
            Err(_) => incomplete = Some(files_now),
        }
    }
    let error = io::Error::other("it changes faster than it can be copied");
    Err(JournalError::io("copy", "the directory", error))
}

struct Copy<'a> {
    from: &'a dyn Storage,
    to: &'a dyn Storage,
    /// What has been copied and does not change any more, with its head.
    done: BTreeMap<(Kind, u32), Vec<u8>>,
    bytes: usize,
}

impl Copy<'_> {
    /// False if a file has gone.
    fn pass(&mut self, files: &Files, processors: &Names) -> Result<bool, JournalError> {
        let mut bytes = Vec::new();
        let (segments, others): (Files, Files) =
            files.iter().copied().partition(|(kind, _)| *kind == Kind::Segment);
        for file in others.into_iter().chain(segments.into_iter().rev()) {
            if !self.is_done(file)? && !self.copy_one(file, processors, &mut bytes)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it was copied as it is now.
    fn is_done(&self, file: (Kind, u32)) -> Result<bool, JournalError> {
        let Some(head) = self.done.get(&file) else { return Ok(false) };
        let (name, mut bytes) = (file.0.file_name(file.1), Vec::new());
        match self.from.read(&name, FILE_HEAD_BYTES, &mut bytes) {
            Ok(()) => Ok(bytes == *head),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(JournalError::io("read", &name, error)),
        }
    }

    fn copy_one(
        &mut self,
        file: (Kind, u32),
        processors: &Names,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, JournalError> {
        let (kind, number) = file;
        let name = kind.file_name(number);
        let is_final = match self.read(file, processors, &name, bytes) {
            Err(JournalError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(false);
            }
            result => result?,
        };
        let write = || {
            let file = self.to.create(&name)?;
            file.write_at(bytes, 0)?;
            file.sync()
        };
        write().map_err(|error| JournalError::io("write", &name, error))?;
        self.bytes += bytes.len();
        if is_final {
            self.done.insert(file, bytes[..FILE_HEAD_BYTES.min(bytes.len())].to_vec());
        }
        Ok(true)
    }

    /// Reads a file that is whole. Whether it will not change any more.
    fn read(
        &self,
        (kind, number): (Kind, u32),
        processors: &Names,
        name: &str,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, JournalError> {
        let failed = |error| JournalError::io("read", name, error);
        if kind != Kind::Segment {
            self.from.read(name, usize::MAX, bytes).map_err(failed)?;
        }
        match kind {
            Kind::Segment => {
                self.from.read_records(name, bytes).map_err(failed)?;
                let (end, ending) =
                    Contents::new(number, bytes, processors)?.walk(|_, _| Ok(()))?;
                if matches!(ending, Ending::Bad(_)) {
                    self.from.read_records(name, bytes).map_err(failed)?;
                    cut_if_longer(number, processors, end, bytes)?;
                }
                Ok(ending == Ending::Sealed)
            }
            Kind::Books => books::check(number, bytes, processors).map(|_| true),
            Kind::Ids => books::ids(number, bytes).map(|_| true),
            Kind::Notes => notes::read(number, bytes, processors).map(|_| true),
            Kind::Accounts => {
                States::new(number, bytes)?.try_for_each(|state| state.map(drop))?;
                Ok(true)
            }
        }
    }
}

/// A segment that was being written to when its records ended before: if they end later now, there
/// it is cut off, in case the next write is under way.
fn cut_if_longer(
    number: u32,
    processors: &Names,
    end: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), JournalError> {
    let (later, ending) = Contents::new(number, bytes, processors)?.walk(|_, _| Ok(()))?;
    if later > end && ending != Ending::Sealed {
        bytes.truncate(later);
        bytes.resize(later + END_BYTES, 0);
    }
    Ok(())
}

/// The same journal, known as a copy wherever its files are put: with `cp` over those of before, too.
fn copy_identity(from: &dyn Storage, to: &dyn Storage) -> Result<(), JournalError> {
    match recover::read_identity(from)? {
        Some(identity) => write_identity(to, identity.to_be_known_as_copy()),
        // Without any file of payments there is nothing that could be paid twice.
        None if files(to)?.is_empty() => Ok(()),
        None => {
            let what = "it has no file `identity` yet, by which a copy is known as one: start galo \
                        with it once";
            Err(JournalError::NotOurs { what: what.into() })
        }
    }
}

/// Writes the identity of a new directory.
pub(super) fn write_identity(
    to: &dyn Storage,
    identity: identity::Identity,
) -> Result<(), JournalError> {
    let write = || {
        let file = to.create(identity::FILE_NAME)?;
        file.write_at(identity.encode().as_bytes(), 0)?;
        file.sync()?;
        to.sync_directory()
    };
    write().map_err(|error| JournalError::io("write", identity::FILE_NAME, error))
}
