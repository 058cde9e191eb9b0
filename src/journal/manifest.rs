//! The manifest: the file that names every other one that must be there. What is missing between two
//! files shows by itself; that the newest has gone, or all of them, only this tells.
//!
//! ```text
//! two slots of 4,096 bytes, written in turn, each:
//!     0   8  magic
//!     8   4  version of the layout (`head.rs`)
//!    12   4  files that are named
//!    16   8  sequence: of two whole slots the one with the greater counts
//!    24   4  CRC-32C of the 24 bytes before and of all that is named
//!    28   4  zero
//!    32      for each file: number 4, kind 4 (the place in the list of kinds, from 1 on), and the
//!            checksum at the end of its head 4 (0 of a segment, which grows)
//! ```
//!
//! The checksum of a head covers that of the contents, so a file that never changes is known by it. A
//! file may be named twice: while it is being replaced by another of its name, either counts.
//!
//! A slot is written over the older of the two, in space that was taken once: that works on a full
//! disk, and whatever becomes of it, the other slot is whole. If it cannot be written all the same,
//! nothing is removed that it names, and it is tried again; payments do not wait for it.
//!
//! The invariant: a file is on the disk before it is named, and is not named any more, on the disk too,
//! before it is removed. So a file that is named is there, at whichever operation a crash comes; one
//! that is not named may be there.

use super::JournalError;
use super::head::{self, FILE_HEAD_BYTES, Kind};
use super::segment::UNFINISHED;
use super::storage::{Storage, StoredFile};
use crate::payments::names::Names;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

pub const FILE_NAME: &str = "manifest";
const MAGIC: [u8; 8] = *b"galo:man";
/// A page: most disks write it whole or not at all.
const SLOT_BYTES: usize = 4096;
const HEAD_BYTES: usize = 32;
const CHECKSUM_AT: usize = 24;
const FILE_BYTES: usize = 12;
/// Of more the oldest are not named: what is missing of those is missing between others, but for ids
/// that are likely forgotten anyway.
const FILES_MAX: usize = (SLOT_BYTES - HEAD_BYTES) / FILE_BYTES;

/// Those of a journal's files that are there, by kind and number.
pub type Files = BTreeSet<(Kind, u32)>;

/// The files that must be there, each with its checksum. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(BTreeSet<(u32, Kind, u32)>);

impl Named {
    /// The files of a directory that count.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn of(
        storage: &dyn Storage,
        files: impl IntoIterator<Item = (Kind, u32)>,
    ) -> io::Result<Named> {
        let mut named = Named::default();
        for (kind, number) in files {
            named.insert(kind, number, checksum_of(storage, kind, number)?);
        }
        Ok(named)
    }

    pub fn insert_segment(&mut self, number: u32) {
        self.insert(Kind::Segment, number, 0);
    }

    /// Whether it was not named yet.
    pub fn insert(&mut self, kind: Kind, number: u32, checksum: u32) -> bool {
        self.0.insert((number, kind, checksum))
    }

    pub fn remove(&mut self, kind: Kind, number: u32, checksum: u32) {
        self.0.remove(&(number, kind, checksum));
    }

    pub fn retain(&mut self, mut is_kept: impl FnMut(Kind, u32) -> bool) {
        self.0.retain(|(number, kind, _)| is_kept(*kind, *number));
    }

    /// Without their checksums, by number.
    pub fn files(&self) -> Vec<(Kind, u32)> {
        let mut files: Vec<_> = self.0.iter().map(|(number, kind, _)| (*kind, *number)).collect();
        files.dedup();
        files
    }

    /// Whether the file of that name that is there is the one that is meant. One whose head is
    /// damaged is for whoever reads it whole to tell.
    fn is_same(
        &self,
        storage: &dyn Storage,
        processors: &Names,
        kind: Kind,
        number: u32,
    ) -> io::Result<bool> {
        let mut head = Vec::new();
        storage.read(&kind.file_name(number), FILE_HEAD_BYTES, &mut head)?;
        let is_whole =
            kind != Kind::Segment && head::decode(kind, number, &head, processors).is_ok();
        Ok(!is_whole || self.0.contains(&(number, kind, head::checksum_of(&head))))
    }

    fn encode(&self, sequence: u64) -> Vec<u8> {
        // The newest first: of those nothing else tells.
        let files: Vec<_> = self.0.iter().rev().take(FILES_MAX).collect();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + files.len() * FILE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&head::VERSION.to_le_bytes());
        bytes.extend_from_slice(&(files.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.resize(HEAD_BYTES, 0);
        for (number, kind, checksum) in files {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&kind.code().to_le_bytes());
            bytes.extend_from_slice(&checksum.to_le_bytes());
        }
        let checksum = checksum_of_slot(&bytes);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

fn checksum_of_slot(slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..CHECKSUM_AT]), &slot[HEAD_BYTES..])
}

/// What a file is known by: nothing, if it grows.
///
/// # Errors
/// If it cannot be read.
pub fn checksum_of(storage: &dyn Storage, kind: Kind, number: u32) -> io::Result<u32> {
    if kind == Kind::Segment {
        return Ok(0);
    }
    let mut head = Vec::new();
    storage.read(&kind.file_name(number), FILE_HEAD_BYTES, &mut head)?;
    Ok(head::checksum_of(&head))
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.copied().map_or(0, u32::from_le_bytes)
}

/// A manifest as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    sequence: u64,
    pub named: Named,
}

impl Stored {
    /// `None` if this slot is not whole: it was never written, or not to its end.
    fn decode(slot: &[u8]) -> Result<Option<Stored>, JournalError> {
        let count = word_at(slot, 12) as usize;
        let length = HEAD_BYTES + count.min(FILES_MAX) * FILE_BYTES;
        let Some(slot) = slot.get(..length).filter(|_| count <= FILES_MAX) else {
            return Ok(None);
        };
        if slot[..8] != MAGIC || checksum_of_slot(slot) != word_at(slot, CHECKSUM_AT) {
            return Ok(None);
        }
        let (version, file) = (word_at(slot, 8), FILE_NAME.to_string());
        if !(head::VERSION_OF_MANIFEST..=head::VERSION).contains(&version) {
            return Err(JournalError::UnknownVersion { file, version });
        }
        let mut named = Named::default();
        for bytes in slot[HEAD_BYTES..].chunks_exact(FILE_BYTES) {
            let Some(kind) = Kind::of_code(word_at(bytes, 4)) else {
                let what = "a file of no known kind, with a right checksum";
                return Err(JournalError::Corrupt { file, offset: 0, what });
            };
            named.insert(kind, word_at(bytes, 0), word_at(bytes, 8));
        }
        let sequence = u64::from(word_at(slot, 16)) | u64::from(word_at(slot, 20)) << 32;
        Ok(Some(Stored { sequence, named }))
    }
}

/// The manifest of a directory, if there is one.
///
/// # Errors
/// If it cannot be read, is damaged, or of another version.
pub fn read(storage: &dyn Storage) -> Result<Option<Stored>, JournalError> {
    let mut bytes = Vec::new();
    match storage.read(FILE_NAME, 2 * SLOT_BYTES, &mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io("read", FILE_NAME, error)),
    }
    let mut newest: Option<Stored> = None;
    for slot in bytes.chunks(SLOT_BYTES) {
        let read = Stored::decode(slot)?;
        let is_newer = |it: &Stored| newest.as_ref().is_none_or(|old| old.sequence < it.sequence);
        if let Some(stored) = read.filter(is_newer) {
            newest = Some(stored);
        }
    }
    let what = "neither of its two slots is whole";
    let corrupt = || JournalError::Corrupt { file: FILE_NAME.into(), offset: 0, what };
    newest.map(Some).ok_or_else(corrupt)
}

/// A directory as its manifest tells it.
pub struct Look {
    pub stored: Option<Stored>,
    /// Everything that is in it.
    pub names: Vec<String>,
    /// What is not as the manifest says, the oldest first.
    pub findings: Vec<JournalError>,
}

/// So often it looks again where somebody is at work.
const LOOKS_MAX: usize = 200;

/// Looks at the manifest and then at the names. Between the two, something that was named may be
/// superseded and removed: the manifest is another one then, and it looks again.
///
/// # Errors
/// If they cannot be read, or the manifest is damaged.
pub fn look(storage: &dyn Storage, processors: &Names) -> Result<Look, JournalError> {
    let mut looks = 1;
    loop {
        let stored = read(storage)?;
        let names = storage.names();
        let names = names.map_err(|error| JournalError::io("list", "the directory", error))?;
        let there = names.iter().filter_map(|name| Kind::of_file_name(name)).collect();
        let findings = findings(storage, processors, stored.as_ref(), &there);
        let is_clear = findings.as_ref().is_ok_and(Vec::is_empty);
        if is_clear || looks == LOOKS_MAX || read(storage)? == stored {
            return Ok(Look { stored, names, findings: findings? });
        }
        looks += 1;
    }
}

/// Whether all is there that must be.
///
/// # Errors
/// The first that is missing or is another one: the manifest too, where there are files of a version
/// that has one.
pub fn check(
    storage: &dyn Storage,
    processors: &Names,
    stored: Option<&Stored>,
    there: &Files,
) -> Result<(), JournalError> {
    let finding = findings(storage, processors, stored, there)?.into_iter().next();
    finding.map_or(Ok(()), Err)
}

/// All that is missing or is another one, the oldest first.
///
/// # Errors
/// If what is there cannot be read.
pub fn findings(
    storage: &dyn Storage,
    processors: &Names,
    stored: Option<&Stored>,
    there: &Files,
) -> Result<Vec<JournalError>, JournalError> {
    let mut findings = Vec::new();
    let Some(Stored { named, .. }) = stored else {
        findings.extend(expect_none(storage, there)?);
        return Ok(findings);
    };
    for (kind, number) in named.files() {
        let file = kind.file_name(number);
        if !there.contains(&(kind, number)) {
            findings.push(JournalError::Vanished { file });
            continue;
        }
        let is_same = named.is_same(storage, processors, kind, number);
        if !is_same.map_err(|error| JournalError::io("read", &file, error))? {
            let what = "it is whole, but another one than the manifest names";
            findings.push(JournalError::Corrupt { file, offset: 0, what });
        }
    }
    Ok(findings)
}

/// The first start of this version makes a manifest before it makes any other file.
fn expect_none(storage: &dyn Storage, there: &Files) -> Result<Option<JournalError>, JournalError> {
    let mut head = Vec::new();
    for (kind, number) in there {
        let file = kind.file_name(*number);
        let read = storage.read(&file, FILE_HEAD_BYTES, &mut head);
        read.map_err(|error| JournalError::io("read", &file, error))?;
        if head::decode_nameless(*kind, *number, &head).is_ok()
            && head::version_of(&head) >= head::VERSION_OF_MANIFEST
        {
            return Ok(Some(JournalError::NoManifest));
        }
    }
    Ok(None)
}

/// A manifest that is kept.
pub struct Manifest {
    file: Arc<dyn StoredFile>,
    sequence: u64,
    named: Named,
    /// What it says on the disk is older than what it is to say.
    is_behind: bool,
}

impl Manifest {
    /// Makes one. Blocking; afterwards it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(storage: &dyn Storage, named: Named) -> io::Result<Manifest> {
        let unfinished = format!("{FILE_NAME}{UNFINISHED}");
        let make = || {
            let file = storage.create(&unfinished)?;
            file.allocate(2 * SLOT_BYTES as u64)?;
            let mut manifest = Manifest { file, sequence: 0, named, is_behind: true };
            manifest.store()?;
            storage.rename(&unfinished, FILE_NAME)?;
            storage.sync_directory()?;
            Ok(manifest)
        };
        let made = make();
        if made.is_err() {
            // Gives the space back.
            let _ = storage.remove(&unfinished);
        }
        made
    }

    /// The one that was read.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(storage: &dyn Storage, stored: &Stored) -> io::Result<Manifest> {
        let (file, sequence) = (storage.open(FILE_NAME)?, stored.sequence);
        // What was read may not be on the disk yet, and the slot before it is written over next.
        file.sync()?;
        Ok(Manifest { file, sequence, named: stored.named.clone(), is_behind: false })
    }

    pub fn named(&self) -> &Named {
        &self.named
    }

    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Changes what it says, and what it says on the disk. Blocking.
    ///
    /// # Errors
    /// If it cannot be written: then [`Manifest::is_behind`].
    pub fn change(&mut self, change: impl FnOnce(&mut Named)) -> io::Result<()> {
        let before = self.named.clone();
        change(&mut self.named);
        self.is_behind |= self.named != before;
        if self.is_behind { self.store() } else { Ok(()) }
    }

    fn store(&mut self) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let slot = (sequence % 2) * SLOT_BYTES as u64;
        self.file.write_at(&self.named.encode(sequence), slot)?;
        self.file.sync()?;
        (self.sequence, self.is_behind) = (sequence, false);
        Ok(())
    }
}

/// Names all of these in a new directory.
///
/// # Errors
/// If they cannot be read, or the manifest cannot be written.
pub fn write(storage: &dyn Storage, files: &Files) -> Result<(), JournalError> {
    let named = Named::of(storage, files.iter().copied());
    let written = named.and_then(|named| Manifest::create(storage, named));
    written.map(drop).map_err(|error| JournalError::io("write", FILE_NAME, error))
}
