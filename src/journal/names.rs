//! Which table of names ([`Names`]) a file of the journal was written under.
//!
//! Every record and every line of books means a processor by its number. The table stands in the file
//! `identity` (`identity.rs`), the head of the whole journal; names are only ever added to it. A file
//! that names processors says in its head under which table it was written ([`Reference`]: how many
//! names there were, and their checksum), so that it is never read with another one; and has room for so
//! many sums or statuses. Without the file `identity`, and in layouts of before version 6, the table is
//! that of the contest.

use crate::payments::names::Names;

/// Which table a file was written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// So many names were in it.
    pub count: u8,
    /// The lower 16 bits of the CRC-32C of these names, each with a line feed behind it.
    pub digest: u16,
}

/// Bytes of a reference in a head: the count, and the digest.
pub const REFERENCE_BYTES: usize = 3;

impl Reference {
    /// To this table as it is now.
    pub fn to(names: &Names) -> Reference {
        Reference::of(names.iter().map(|(_, name)| name))
    }

    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Reference {
        let (mut count, mut checksum) = (0, 0);
        for name in names {
            checksum = crc32c::crc32c_append(checksum, name.as_bytes());
            checksum = crc32c::crc32c_append(checksum, b"\n");
            count += 1;
        }
        Reference { count, digest: checksum as u16 }
    }

    /// Of a file that names no processors.
    pub const NONE: Reference = Reference { count: 0, digest: 0 };

    /// Of a file of before version 6 of the layout.
    pub fn first() -> Reference {
        Reference::to(&Names::contest())
    }

    /// Whether the numbers of a file that was written under that table mean what they mean in this one:
    /// names that were added since do not matter.
    pub fn fits(self, names: &Names) -> bool {
        let count = usize::from(self.count);
        let first = names.iter().map(|(_, name)| name).take(count);
        (1..=names.count()).contains(&count) && Reference::of(first) == self
    }

    pub fn encode(self) -> [u8; REFERENCE_BYTES] {
        let [low, high] = self.digest.to_le_bytes();
        [self.count, low, high]
    }

    pub fn decode([count, low, high]: [u8; REFERENCE_BYTES]) -> Reference {
        Reference { count, digest: u16::from_le_bytes([low, high]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::names::tests::names;

    #[test]
    fn the_digest_of_the_first_table_is_a_promise() {
        let digest = crc32c::crc32c(b"default\nfallback\n") as u16;
        assert_eq!(Reference::to(&Names::contest()), Reference { count: 2, digest });
        assert_eq!(Reference::first(), Reference::to(&Names::contest()));
        assert_eq!(Reference::decode(Reference::first().encode()), Reference::first());
    }

    /// Added to, the table is that of every file of before. With any other name, or in any other order,
    /// it is not.
    #[test]
    fn a_file_fits_its_table_and_what_was_added_to_it() {
        let written = Reference::to(&Names::contest());
        for fitting in [&["default", "fallback"][..], &["default", "fallback", "third"]] {
            assert!(written.fits(&names(fitting).unwrap()), "{fitting:?}");
        }
        for other in [
            &["default"][..],
            &["fallback", "default"],
            &["default", "backup"],
            &["third", "default", "fallback"],
            &["defaultf", "allback"],
        ] {
            assert!(!written.fits(&names(other).unwrap()), "{other:?}");
        }
        let three = Reference::to(&names(&["default", "fallback", "third"]).unwrap());
        assert!(!three.fits(&Names::contest()));
        assert!(!Reference::NONE.fits(&Names::contest()));
    }
}
