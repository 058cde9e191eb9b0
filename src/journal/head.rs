//! What every file of the journal but `identity` and `manifest` starts with, and how the files are named.
//!
//! ```text
//! offset  size  what
//!      0     8  magic: which of the five kinds of file
//!      8     4  version of the layout, 6 (5 to 1 are read too, see below)
//!     12     4  number of the segment, the same as in the name
//!     16    28  for each kind its own:
//!               segment: 16 the boot it was written in (see `recover.rs`), 3 which table of names
//!                        (`names.rs`), 9 zero
//!               books:   1 flags (1: nothing in files of lower numbers counts, 2: accounts
//!                        belong to it, 4: they are abridged), 3 which table of names, 4 CRC-32C of
//!                        the index (`volume.rs`) or the body (`abridged.rs`), 8 lines, 4 number of
//!                        the first segment it is of, 4 blocks or days, 4 number of the notes that
//!                        count (or 0)
//!               ids:     4 zero, 4 CRC-32C of the body, 8 ids, 8 number of the first segment they
//!                        are of (or 0: the one of the file's number), 4 zero
//!               accounts: 4 zero, 4 CRC-32C of the body, 8 accounts, 8 bytes of the body, 4 zero
//!               notes:   1 zero, 3 which table of names, 4 CRC-32C of the body, 8 records, 8 bytes of
//!                        the body, 4 number of the notes before them that count as well (or 0)
//!     44     4  CRC-32C of everything above
//! ```
//!
//! Before version 3 books were of one segment and had no ids: the body was, for each processor, its
//! settlements (requested at 8, cents 8), with the CRC of the body, the settlements at the default
//! processor 8 and at the fallback 8 in the head; and the detail of a Settled or Carried had no
//! attempts. Version 1 had no notes. Before version 5 there was no manifest (`manifest.rs`), and a
//! program of before would not keep it. Before version 6 a head had no table of names: it is the
//! first; and no books were abridged.
//!
//! Magic, version and the CRC stay in their places in every version, so that a file of another
//! version is told apart from a damaged one.

use super::JournalError;
use super::names::{REFERENCE_BYTES, Reference};
use crate::payments::names::Names;
use std::ops::Range;

const VERSION_AT: usize = 8;
const NUMBER_AT: usize = VERSION_AT + size_of::<u32>();
const OWN_AT: usize = NUMBER_AT + size_of::<u32>();
pub const OWN_BYTES: usize = 28;
const CRC_AT: usize = OWN_AT + OWN_BYTES;
/// Where the contents begin.
pub const FILE_HEAD_BYTES: usize = CRC_AT + size_of::<u32>();
const _: () = assert!(FILE_HEAD_BYTES == 48 && FILE_HEAD_BYTES.is_multiple_of(8));

/// Of what is written.
pub const VERSION: u32 = 6;
/// From here on books are volumes (`volume.rs`).
pub const VERSION_OF_VOLUMES: u32 = 3;
/// From here on there is a manifest beside such a file (`manifest.rs`).
pub const VERSION_OF_MANIFEST: u32 = 5;
/// From here on files say which table of names they are written under (`names.rs`).
pub const VERSION_OF_NAMES: u32 = 6;
/// The oldest that is read.
const VERSION_MIN: u32 = 1;
/// The first segment of a journal.
pub const FIRST_NUMBER: u32 = 1;

/// The five kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Records in the order they were written.
    Segment,
    /// What is left of a segment once all its payments are over: the settlements, sorted.
    Books,
    /// The ids that were accepted in such a segment.
    Ids,
    /// The state of a ledger's accounts at the end of such a segment.
    Accounts,
    /// The adoptions and rejections of one such segment or of several.
    Notes,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Segment, Kind::Books, Kind::Ids, Kind::Accounts, Kind::Notes];

    /// What the manifest calls it.
    pub fn code(self) -> u32 {
        1 + self as u32
    }

    /// The reverse of [`Kind::code`].
    pub fn of_code(code: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    fn magic(self) -> [u8; 8] {
        match self {
            Kind::Segment => *b"galo:jrn",
            Kind::Books => *b"galo:bks",
            Kind::Ids => *b"galo:ids",
            Kind::Accounts => *b"galo:acc",
            Kind::Notes => *b"galo:not",
        }
    }

    /// Where in the head it says which table of names it is written under, if it names processors.
    fn reference(self) -> Option<Range<usize>> {
        let at = match self {
            Kind::Segment => OWN_AT + 16,
            Kind::Books | Kind::Notes => OWN_AT + 1,
            Kind::Ids | Kind::Accounts => return None,
        };
        Some(at..at + REFERENCE_BYTES)
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::Segment => ".journal",
            Kind::Books => ".books",
            Kind::Ids => ".ids",
            Kind::Accounts => ".accounts",
            Kind::Notes => ".notes",
        }
    }

    pub fn file_name(self, number: u32) -> String {
        format!("{number:010}{}", self.extension())
    }

    /// The reverse of [`Kind::file_name`].
    pub fn of_file_name(name: &str) -> Option<(Kind, u32)> {
        let kind = Kind::ALL.into_iter().find(|kind| name.ends_with(kind.extension()))?;
        let number = name.strip_suffix(kind.extension())?.parse().ok()?;
        (kind.file_name(number) == name).then_some((kind, number))
    }
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The part that each kind has for its own, with zeros where the table of names is told.
    pub own: [u8; OWN_BYTES],
    /// The table it was written under; [`Reference::NONE`] of a kind that names no processors.
    pub names: Reference,
}

/// A head. What its own part has where the table of names is told, is replaced.
pub fn encode(
    kind: Kind,
    number: u32,
    own: [u8; OWN_BYTES],
    names: Reference,
) -> [u8; FILE_HEAD_BYTES] {
    let mut bytes = [0; FILE_HEAD_BYTES];
    bytes[..VERSION_AT].copy_from_slice(&kind.magic());
    bytes[VERSION_AT..NUMBER_AT].copy_from_slice(&VERSION.to_le_bytes());
    bytes[NUMBER_AT..OWN_AT].copy_from_slice(&number.to_le_bytes());
    bytes[OWN_AT..CRC_AT].copy_from_slice(&own);
    if let Some(reference) = kind.reference() {
        bytes[reference].copy_from_slice(&names.encode());
    }
    let checksum = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// As if it had been written by that version: for tests.
pub fn set_version(bytes: &mut [u8], version: u32) {
    bytes[VERSION_AT..NUMBER_AT].copy_from_slice(&version.to_le_bytes());
    if let Some(reference) = kind_of(bytes).and_then(Kind::reference)
        && version < VERSION_OF_NAMES
    {
        bytes[reference].fill(0);
    }
    seal(bytes);
}

/// As if it had been written under that table: for tests.
pub fn set_reference(bytes: &mut [u8], to: Reference) {
    if let Some(reference) = kind_of(bytes).and_then(Kind::reference) {
        bytes[reference].copy_from_slice(&to.encode());
    }
    seal(bytes);
}

fn seal(bytes: &mut [u8]) {
    let checksum = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..FILE_HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// Which kind of file these bytes claim to be.
pub fn kind_of(bytes: &[u8]) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| bytes.starts_with(&kind.magic()))
}

/// The version that a head says it has; 0 if it is too short for one.
pub fn version_of(bytes: &[u8]) -> u32 {
    let bytes = bytes.get(VERSION_AT..).and_then(|rest| rest.first_chunk());
    bytes.copied().map_or(0, u32::from_le_bytes)
}

/// The checksum at the end of a head; 0 if it is too short for one.
pub fn checksum_of(bytes: &[u8]) -> u32 {
    let bytes = bytes.get(CRC_AT..).and_then(|rest| rest.first_chunk());
    bytes.copied().map_or(0, u32::from_le_bytes)
}

/// What the head of a file says that is to be read under this table of names.
///
/// # Errors
/// If the file is not of this kind, number and version, is damaged, or was written under a table of names
/// that this one does not begin with.
pub fn decode(kind: Kind, number: u32, bytes: &[u8], names: &Names) -> Result<Head, JournalError> {
    let head = decode_nameless(kind, number, bytes)?;
    if kind.reference().is_some() && !head.names.fits(names) {
        let (file, names) = (kind.file_name(number), names.to_string());
        return Err(JournalError::OtherNames { file, count: head.names.count, names });
    }
    Ok(head)
}

/// What a head says that nobody reads the numbers of processors of: of a file that has none, or of which
/// the head alone is looked at.
///
/// # Errors
/// If the file is not of this kind, number and version, or is damaged.
pub fn decode_nameless(kind: Kind, number: u32, bytes: &[u8]) -> Result<Head, JournalError> {
    let file = || kind.file_name(number);
    let corrupt = |what| Err(JournalError::Corrupt { file: file(), offset: 0, what });
    let Some(head) = bytes.first_chunk::<FILE_HEAD_BYTES>() else {
        return corrupt("shorter than its head");
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..VERSION_AT] != kind.magic() {
        return corrupt("not the head of such a file");
    }
    if word(CRC_AT) != crc32c::crc32c(&head[..CRC_AT]) {
        return corrupt("a damaged head");
    }
    if !(VERSION_MIN..=VERSION).contains(&word(VERSION_AT)) {
        return Err(JournalError::UnknownVersion { file: file(), version: word(VERSION_AT) });
    }
    if word(NUMBER_AT) != number {
        return corrupt("the head of another file");
    }
    let mut head = *head;
    let mut names = Reference::NONE;
    if let Some(at) = kind.reference() {
        let mut reference = [0; REFERENCE_BYTES];
        reference.copy_from_slice(&head[at.clone()]);
        names = match version_of(&head) < VERSION_OF_NAMES {
            true => Reference::first(),
            false => Reference::decode(reference),
        };
        head[at].fill(0);
    }
    let mut own = [0; OWN_BYTES];
    own.copy_from_slice(&head[OWN_AT..CRC_AT]);
    Ok(Head { own, names })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::names::tests::names;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        assert_eq!(Kind::Segment.file_name(1), "0000000001.journal");
        assert_eq!(Kind::of_file_name("4294967295.books"), Some((Kind::Books, u32::MAX)));
        assert_eq!(Kind::of_file_name("0000000007.ids"), Some((Kind::Ids, 7)));
        assert_eq!(Kind::of_file_name("0000000007.accounts"), Some((Kind::Accounts, 7)));
        assert_eq!(Kind::of_file_name("0000000007.notes"), Some((Kind::Notes, 7)));
        for name in
            ["1.journal", "+000000001.journal", "0000000001.journal.tmp", "lock", "9999999999.ids"]
        {
            assert_eq!(Kind::of_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_head_is_whole_or_refused_by_name() {
        let mut own = [9; OWN_BYTES];
        own[1..1 + REFERENCE_BYTES].fill(0);
        let names = Names::contest();
        let decode = |kind, number, bytes: &[u8]| super::decode(kind, number, bytes, &names);
        let head = encode(Kind::Books, 5, own, Reference::first());
        let expected = Head { own, names: Reference::first() };
        assert_eq!(decode(Kind::Books, 5, &head).unwrap(), expected);
        assert!(decode(Kind::Books, 6, &head).is_err());
        assert!(decode(Kind::Ids, 5, &head).is_err());
        for length in 0..head.len() {
            assert!(decode(Kind::Books, 5, &head[..length]).is_err());
        }
        for bit in 0..head.len() * 8 {
            let mut flipped = head;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = decode(Kind::Books, 5, &flipped);
            assert!(matches!(refused, Err(JournalError::Corrupt { .. })), "bit {bit}");
        }
    }

    /// Where processors are named, and nowhere else.
    #[test]
    fn another_table_of_names_is_refused_in_one_line() {
        let first = Reference::first();
        let contest = Names::contest();
        let longer = names(&["default", "fallback", "third"]).unwrap();
        for kind in Kind::ALL {
            let names_some = matches!(kind, Kind::Segment | Kind::Books | Kind::Notes);
            let own = [0; OWN_BYTES];
            let expected = Head { own, names: if names_some { first } else { Reference::NONE } };
            let head = encode(kind, 5, own, first);
            for table in [&contest, &longer] {
                assert_eq!(decode(kind, 5, &head, table).unwrap(), expected, "{kind:?}");
            }
            for other in [
                Reference { count: 3, ..first },
                Reference { digest: first.digest ^ 1, ..first },
                Reference::to(&longer),
                Reference::NONE,
            ] {
                let mut head = head;
                set_reference(&mut head, other);
                let read = decode(kind, 5, &head, &contest).map_err(|error| error.to_string());
                assert_eq!(read.is_err(), names_some, "{kind:?}: {read:?}");
                if let Err(line) = read {
                    let has = line.contains(&format!("of {} names", other.count));
                    assert!(has && line.contains("has default, fallback"), "{line}");
                    assert!(!line.contains('\n'), "{line}");
                }
                // It had none of before version 6.
                set_version(&mut head, VERSION_OF_NAMES - 1);
                assert_eq!(decode(kind, 5, &head, &contest).unwrap(), expected);
            }
        }
        let head = encode(Kind::Books, 5, [0; OWN_BYTES], Reference::to(&longer));
        assert_eq!(decode(Kind::Books, 5, &head, &longer).unwrap().names.count, 3);
    }

    #[test]
    fn a_version_we_do_not_know_is_named() {
        let of = |version| {
            let mut head = encode(Kind::Segment, 5, [0; OWN_BYTES], Reference::first());
            head[VERSION_AT] = version;
            let checksum = crc32c::crc32c(&head[..CRC_AT]);
            head[CRC_AT..].copy_from_slice(&checksum.to_le_bytes());
            decode(Kind::Segment, 5, &head, &Names::contest())
        };
        for unknown in [0, 7] {
            let refused = of(unknown).unwrap_err();
            let JournalError::UnknownVersion { version, .. } = refused else { panic!("{refused}") };
            assert_eq!(version, u32::from(unknown));
        }
        assert!([1, 2, 3, 4, 5, 6].map(of).iter().all(Result::is_ok));
    }
}
