//! Segments that are kept though they have been rewritten, each under a name of its own: for those who
//! follow what becomes of payments (`follow.rs`), and for the ledger's entries, of which an accounts
//! file keeps the newest ten of each account only (`reading.rs`).
//!
//! The invariant: they are no part of the journal. No start reads what is in them, whatever that is,
//! and they may go at any time, the oldest first.

use super::JournalError;
use super::copy::Copied;
use super::head::Kind;
use super::manifest::Files;
use super::record::Record;
use super::segment::{Contents, Ending};
use super::storage::Storage;
use crate::payments::names::Names;
use std::collections::{BTreeSet, VecDeque};
use std::io;

/// What a segment is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retained {
    /// For those who follow: void when all is purged.
    Events,
    /// For exports: a ledger is never purged.
    Entries,
}

/// What is kept, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub of: Retained,
    /// So many bytes of segments that were rewritten are kept, the newest; fewer where the disk is
    /// full. `None`: what is there stays, and nothing comes to it.
    pub bytes: Option<u64>,
}

impl Retention {
    pub fn of_events(bytes: u64) -> Retention {
        Retention { of: Retained::Events, bytes: Some(bytes) }
    }

    /// Whether anything that is rewritten now is kept at all.
    pub fn keeps(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes > 0)
    }
}

impl Retained {
    const ALL: [Retained; 2] = [Retained::Events, Retained::Entries];

    fn extension(self) -> &'static str {
        match self {
            Retained::Events => ".events",
            Retained::Entries => ".entries",
        }
    }

    /// How a segment is called that is kept.
    pub fn file_name(self, segment: u32) -> String {
        format!("{segment:010}{}", self.extension())
    }

    /// The reverse of [`Retained::file_name`].
    pub fn of_file_name(name: &str) -> Option<(u32, Retained)> {
        let it = Retained::ALL.into_iter().find(|it| name.ends_with(it.extension()))?;
        let number = name.strip_suffix(it.extension())?.parse().ok()?;
        (it.file_name(number) == name).then_some((number, it))
    }

    /// The number, if it is a segment that is kept for this.
    pub fn number_of(self, name: &str) -> Option<u32> {
        Retained::of_file_name(name).filter(|(_, it)| *it == self).map(|(number, _)| number)
    }
}

/// A segment that is kept, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub number: u32,
    pub of: Retained,
    pub bytes: u64,
}

impl Held {
    pub fn file_name(&self) -> String {
        self.of.file_name(self.number)
    }
}

/// At a start: removes the segments that have been rewritten, or keeps them. What cannot be kept, or
/// looked at, is in nobody's way.
///
/// # Errors
/// If a segment that is not to be kept cannot be removed.
pub fn keep(
    storage: &dyn Storage,
    there: &BTreeSet<(u32, Retained)>,
    rewritten: &BTreeSet<u32>,
    retention: Retention,
) -> Result<VecDeque<Held>, JournalError> {
    let mut all = there.clone();
    for number in rewritten {
        let name = Kind::Segment.file_name(*number);
        if !retention.keeps() {
            storage.remove(&name).map_err(|error| JournalError::io("remove", &name, error))?;
            continue;
        }
        match storage.rename(&name, &retention.of.file_name(*number)) {
            Ok(()) => _ = all.insert((*number, retention.of)),
            Err(error) => log::warn!("journal: {name} cannot be renamed: {error}"),
        }
    }
    let mut kept = VecDeque::new();
    for (number, of) in all {
        let name = of.file_name(number);
        match storage.open_to_read(&name).and_then(|file| file.length()) {
            // It was given up, and its name came back with a loss of power.
            Ok(0) if of == Retained::Events => {
                storage.remove(&name).map_err(|error| JournalError::io("remove", &name, error))?;
            }
            Ok(bytes) => kept.push_back(Held { number, of, bytes }),
            Err(error) => log::warn!("journal: {name} cannot be looked at: {error}"),
        }
    }
    Ok(kept)
}

/// Goes over the records of a segment that is kept, or was to be, which has that name.
///
/// # Errors
/// What `each` says is wrong, and if it is not whole.
pub fn walk(
    name: &str,
    number: u32,
    bytes: &[u8],
    names: &Names,
    each: impl FnMut(usize, Record) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let walked = Contents::new(number, bytes, names).and_then(|contents| contents.walk(each));
    let damaged = |offset, what| JournalError::Unneeded { file: name.into(), offset, what };
    match walked {
        Ok((_, Ending::Sealed)) => Ok(()),
        Ok((offset, _)) => Err(damaged(offset, "its end is missing, though it was full")),
        Err(JournalError::Corrupt { offset, what, .. }) => Err(damaged(offset, what)),
        Err(error) => Err(error),
    }
}

/// The ledger's entries that are kept beside a journal of these files, as they are: a damaged one must
/// not be in the way of a backup. Returns the names of those that are damaged.
///
/// # Errors
/// If one cannot be read, or the copy not be written.
pub fn copy(
    from: &dyn Storage,
    to: &dyn Storage,
    processors: &Names,
    journal: &Files,
    copied: &mut Copied,
) -> Result<Vec<String>, JournalError> {
    let names = from.names().map_err(|error| JournalError::io("list", "the directory", error))?;
    let (mut damaged, mut bytes) = (Vec::new(), Vec::new());
    for name in names {
        let Some(number) = Retained::Entries.number_of(&name) else { continue };
        // It has been rewritten since.
        if journal.contains(&(Kind::Segment, number)) {
            continue;
        }
        match from.read(&name, usize::MAX, &mut bytes) {
            // It was the oldest, and there is no more room for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(|error| JournalError::io("read", &name, error))?,
        }
        if walk(&name, number, &bytes, processors, |_, _| Ok(())).is_err() {
            damaged.push(name.clone());
        }
        let written = to.create(&name).and_then(|file| {
            file.write_at(&bytes, 0)?;
            file.sync()
        });
        written.map_err(|error| JournalError::io("write", &name, error))?;
        copied.files += 1;
        copied.bytes += bytes.len();
    }
    to.sync_directory().map_err(|error| JournalError::io("sync", "the copy", error))?;
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        assert_eq!(Retained::of_file_name("0000000007.entries"), Some((7, Retained::Entries)));
        assert_eq!(Retained::of_file_name("4294967295.events"), Some((u32::MAX, Retained::Events)));
        for name in ["7.entries", "0000000007.entries.tmp", "0000000007.journal", ".entries"] {
            assert_eq!(Retained::of_file_name(name), None, "{name}");
        }
        assert_eq!(Retained::Entries.number_of("0000000007.events"), None);
    }
}
