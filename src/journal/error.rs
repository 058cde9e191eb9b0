//! What can be wrong with a journal, each in one line that says what to do.

use super::{head, identity, manifest};
use crate::base::clock::Timestamp;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a journal cannot be opened or read. Displays as one line that says what to do.
#[derive(Debug)]
pub enum JournalError {
    Io {
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    Locked {
        path: PathBuf,
    },
    UnknownVersion {
        file: String,
        version: u32,
    },
    UnknownKind {
        file: String,
        offset: usize,
        kind: u8,
    },
    /// Its numbers of processors may mean others: it was written under another table of so many names.
    OtherNames {
        file: String,
        count: u8,
        /// Those of the journal.
        names: String,
    },
    Corrupt {
        file: String,
        offset: usize,
        what: &'static str,
    },
    /// Of a segment that is kept though it has been rewritten.
    Unneeded {
        file: String,
        offset: usize,
        what: &'static str,
    },
    Missing {
        file: String,
    },
    /// A segment that was to be followed is there no more.
    Gone {
        file: String,
    },
    /// The manifest names it.
    Vanished {
        file: String,
    },
    /// There must have been one.
    NoManifest,
    /// An archive of that name has other payments.
    Occupied {
        file: String,
    },
    /// The window cuts a day of which there are only the totals.
    Archived {
        /// The last moment of which that holds.
        until: Timestamp,
    },
    /// The settings are not those of whom the journal belongs to.
    NotOurs {
        what: String,
    },
}

impl JournalError {
    pub(super) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
        error: io::Error,
    ) -> JournalError {
        JournalError::Io { action, path: path.as_ref().into(), error }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { action, path, error } => {
                write!(f, "journal: cannot {action} {}: {error}", path.display())
            }
            JournalError::Locked { path } => {
                let path = path.display();
                write!(f, "journal: {path} is in use by another process: one directory each")
            }
            JournalError::UnknownVersion { file, version } => write!(
                f,
                "journal: {file} has layout version {version}, this program knows {}: start the \
                 version of galo that wrote it",
                head::VERSION
            ),
            JournalError::UnknownKind { file, offset, kind } => write!(
                f,
                "journal: {file} has an intact record of unknown kind {kind} at offset {offset}: \
                 start the version of galo that wrote it"
            ),
            JournalError::OtherNames { file, count, names } => write!(
                f,
                "journal: {file} was written under another table, of {count} names of processors, and \
                 `{}` has {names}: restore the two together",
                identity::FILE_NAME
            ),
            JournalError::Corrupt { file, offset, what } => write!(
                f,
                "journal: {file} is damaged at offset {offset}: {what}. Nothing was changed. Keep \
                 a copy of the directory, look with `galo journal check` and `dump`, and restore \
                 the file, or start with what `galo journal salvage` makes of it"
            ),
            JournalError::Unneeded { file, offset, what } => write!(
                f,
                "journal: {file} is damaged at offset {offset}: {what}. It is kept for exports \
                 alone, and no start needs it: restore it, or move it away, and the export says \
                 what is missing"
            ),
            JournalError::Missing { file } => {
                write!(f, "journal: {file} is missing between others: restore it before starting")
            }
            JournalError::Gone { file } => write!(
                f,
                "journal: cannot follow {file}: it was rewritten or purged before it was followed. \
                 Begin anew"
            ),
            JournalError::Vanished { file } => write!(
                f,
                "journal: {file} is missing, and the manifest names it: restore it before starting, \
                 or start with what `galo journal salvage` makes of the others"
            ),
            JournalError::NoManifest => write!(
                f,
                "journal: {} is missing, which names the files that must be there: restore it \
                 before starting, or start with what `galo journal salvage` makes of the others",
                manifest::FILE_NAME
            ),
            JournalError::Occupied { file } => write!(
                f,
                "journal: {file} is there already, and has other payments: move it away, and what is \
                 old leaves after the next start"
            ),
            JournalError::Archived { until } => write!(
                f,
                "journal: what was settled up to {until} is archived: a window that begins or ends \
                 within that time must do so at midnight (UTC)"
            ),
            JournalError::NotOurs { what } => write!(f, "the journal is not to be used: {what}"),
        }
    }
}

impl std::error::Error for JournalError {}
