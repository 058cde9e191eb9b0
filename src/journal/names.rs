//! The names of the processors: a journal's table, number to name, in which every record and every line
//! of books means a processor by its number.
//!
//! The table stands in the file `identity` (`identity.rs`), the head of the whole journal. Names are
//! only ever added to it, and no number is used for another name. A file that names processors says in its head
//! under which table it was written ([`Reference`]: how many names there were, and their checksum), so
//! that it is never read with another one. Without the file, and in layouts of before version 6, the
//! table is [`Names::first`].
//!
//! Pure. The invariant: a table has one to eight names, each once.

use std::fmt;

/// More would not fit into the detail of a record, with the attempts beside it.
pub const NAMES_MAX: usize = 8;
/// A name of a processor is no longer.
pub const NAME_BYTES_MAX: usize = 32;

/// A table. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

/// Which table a file was written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// So many names were in it.
    pub count: u8,
    /// The lower 16 bits of the CRC-32C of these names, each with a line feed behind it.
    pub digest: u16,
}

/// Bytes of a reference in a head: the count, and the digest.
pub const REFERENCE_BYTES: usize = 3;

impl Names {
    /// What every journal begins with, and the only table that this version knows: the numbers of
    /// [`Processor`](crate::payments::Processor).
    pub fn first() -> Names {
        Names(FIRST.map(String::from).into())
    }

    /// `None` if these are no table.
    pub fn new(names: Vec<String>) -> Option<Names> {
        let is_first = |(index, name): (usize, &String)| !names[..index].contains(name);
        let is_sound = (1..=NAMES_MAX).contains(&names.len())
            && names.iter().all(|name| is_name(name))
            && names.iter().enumerate().all(is_first);
        is_sound.then_some(Names(names))
    }

    pub fn name_of(&self, number: usize) -> Option<&str> {
        self.0.get(number).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// This table as it is now.
    pub fn reference(&self) -> Reference {
        reference_of(self.0.iter().map(String::as_str))
    }

    /// Whether the numbers of a file that was written under that table mean what they mean in this one:
    /// names that were added since do not matter.
    pub fn fits(&self, reference: Reference) -> bool {
        let count = usize::from(reference.count);
        (1..=self.0.len()).contains(&count) && reference_of(self.iter().take(count)) == reference
    }
}

/// What every journal's table begins with.
const FIRST: [&str; 2] = ["default", "fallback"];

/// Letters, digits, `-` and `_`.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_letter)
}

fn reference_of<'a>(names: impl Iterator<Item = &'a str>) -> Reference {
    let (mut count, mut checksum) = (0, 0);
    for name in names {
        checksum = crc32c::crc32c_append(checksum, name.as_bytes());
        checksum = crc32c::crc32c_append(checksum, b"\n");
        count += 1;
    }
    Reference { count, digest: checksum as u16 }
}

impl Reference {
    /// Of what this version writes, and all that it reads: books have room for so many sums.
    pub fn known() -> Reference {
        reference_of(FIRST.into_iter())
    }

    pub fn encode(self) -> [u8; REFERENCE_BYTES] {
        let [low, high] = self.digest.to_le_bytes();
        [self.count, low, high]
    }

    pub fn decode([count, low, high]: [u8; REFERENCE_BYTES]) -> Reference {
        Reference { count, digest: u16::from_le_bytes([low, high]) }
    }
}

/// `default, fallback`
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::Processor;

    fn names(names: &[&str]) -> Option<Names> {
        Names::new(names.iter().map(|name| (*name).to_string()).collect())
    }

    #[test]
    fn the_first_table_is_that_of_the_processors_and_its_digest_a_promise() {
        assert!(Names::first().iter().eq(Processor::CONTEST.map(Processor::name)));
        assert_eq!(names(&["default", "fallback"]), Some(Names::first()));
        let digest = crc32c::crc32c(b"default\nfallback\n") as u16;
        assert_eq!(Names::first().reference(), Reference { count: 2, digest });
        assert_eq!(Reference::known(), Names::first().reference());
        assert_eq!(Reference::decode(Reference::known().encode()), Reference::known());
    }

    #[test]
    fn a_table_has_one_to_eight_names_each_once() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for no_table in [
            &[][..],
            &["a", "a"],
            &[""],
            &["a b"],
            &["a\n"],
            &[&long],
            &["0", "1", "2", "3", "4", "5", "6", "7", "8"],
        ] {
            assert_eq!(names(no_table), None, "{no_table:?}");
        }
        assert!(names(&["0", "1", "2", "3", "4", "5", "6", "7"]).is_some());
    }

    /// Added to, the table is that of every file of before. With any other name, or in any other order,
    /// it is not.
    #[test]
    fn a_file_fits_its_table_and_what_was_added_to_it() {
        let written = Names::first().reference();
        for fitting in [&["default", "fallback"][..], &["default", "fallback", "third"]] {
            assert!(names(fitting).unwrap().fits(written), "{fitting:?}");
        }
        for other in [
            &["default"][..],
            &["fallback", "default"],
            &["default", "backup"],
            &["third", "default", "fallback"],
            &["defaultf", "allback"],
        ] {
            assert!(!names(other).unwrap().fits(written), "{other:?}");
        }
        let three = names(&["default", "fallback", "third"]).unwrap().reference();
        assert!(!Names::first().fits(three));
        assert!(!Names::first().fits(Reference { count: 0, digest: 0 }));
    }
}
