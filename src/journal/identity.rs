//! Whose journal a directory is: the file `identity`, and the decision whether a start may use it.
//!
//! Pure: knows the text of the file and what it means, but does not read it (`recover.rs` does).
//! The file is made at the first start, replaced whole when anything in it changes, and reads:
//!
//! ```text
//! version=6            of the layout (`head.rs`)
//! id=…                 32 hex digits, random: which journal this is, in every copy of it
//! instance=1           --instance
//! pairing=paired       or alone: whether there was a --peer
//! processor=0 default … the table of names (`names.rs`): each number from 0 on, its name, and its URL,
//! processor=1 fallback …  --default-url and --fallback-url
//! place=…-…-…          16 hex digits each: the inode of this file, that of its directory, and when
//!                      this file was made (µs since 1970, 0 if the file system does not tell)
//! copied_at=…          ms since 1970: when the journal was last found to be a copy; if it ever was
//! crc=…                8 hex digits, CRC-32C of all lines before
//! ```
//!
//! Before version 6 it was called version 1, and had `default=…` and `fallback=…` instead of the table.
//! The first start replaces it.
//!
//! A copy made by cp, tar or rsync into another directory has other inodes. Their device is not
//! looked at: its number changes when a container or a machine is started anew. What is laid over
//! the files of the same directory, and snapshots of a whole disk, cannot be told from the original.
//! What `galo journal copy` or `salvage` has made says of itself that it is nowhere, and is known
//! wherever it is put.

use super::JournalError;
use crate::base::clock::{Micros, Moment, Timestamp, Until};
use crate::base::instance::Instance;
use crate::payments::Processor;
use crate::payments::names::Names;
use std::fmt::Write;
use std::time::Duration;

pub const FILE_NAME: &str = "identity";
const VERSION: u32 = 6;
/// Of before the table of names.
const VERSION_BEFORE_NAMES: u32 = 1;

/// For so long after a copy was found even new payments are looked for before they are paid: the
/// original may have accepted, and paid, what this one knows nothing of.
pub const DOUBTED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long a journal counts as a copy that was found to be one at that time, seen by a process
/// that starts now.
pub fn doubted_until(copied_at: Timestamp, at: Timestamp, now: Moment) -> Until {
    let doubted_ms = DOUBTED_FOR.as_millis() as i64;
    let wall = Timestamp(copied_at.0.saturating_add(doubted_ms));
    let left_ms = wall.0.saturating_sub(at.0).clamp(0, doubted_ms);
    Until { wall, moment: now + Duration::from_millis(left_ms.unsigned_abs()) }
}

/// Who uses a journal, as the settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub instance: Instance,
    pub is_paired: bool,
    /// Their URLs as they were given: addresses may change.
    pub processors: [String; 2],
}

/// Where a file is. A copy of it is somewhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub file: u64,
    pub directory: u64,
    pub made_at: Micros,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the file that was read.
    pub version: u32,
    pub id: u128,
    /// The names of the processors whose URLs the owner has.
    pub names: Names,
    pub owner: Owner,
    pub place: Place,
    pub copied_at: Option<Timestamp>,
}

/// What stands where nothing is known: no URL is this, and no instance has this number.
const UNKNOWN: &str = "unknown";

/// A change of settings that must be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Change {
    /// The journal was another instance's.
    Instance,
    /// The instance was one of a pair and is alone, or the other way round.
    Pairing,
    /// A processor that payments are in doubt at has another URL.
    Processors,
}

/// What a journal holds that a change could harm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Nothing was ever accepted, or all was purged.
    pub is_empty: bool,
    /// Per processor, payments that may be booked there without our knowing.
    pub doubts: [usize; 2],
}

impl Identity {
    /// Of a new journal, which is nowhere yet.
    pub fn new(id: u128, owner: Owner) -> Identity {
        let (place, names) = (Place::default(), Names::contest());
        Identity { version: VERSION, id, names, owner, place, copied_at: None }
    }

    /// As it is written from now on, by that owner.
    pub fn of_owner(self, owner: Owner) -> Identity {
        Identity { version: VERSION, owner, ..self }
    }

    /// The same journal in another directory: the next start finds that it is a copy, wherever its
    /// files are by then, because no file is where this one says.
    pub fn to_be_known_as_copy(self) -> Identity {
        Identity { place: Place::default(), ..self }
    }

    /// What can still be read of a damaged file, or of none: for a journal that is to be known as a
    /// copy. What cannot be read is the settings of nobody, so that a start is refused until the
    /// change is meant.
    pub fn guess(bytes: &[u8], new_id: u128) -> Identity {
        let text = String::from_utf8_lossy(bytes);
        let value = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        let listed = |name: &str| {
            let of_it = |line: &str| {
                let (it, url) = processor_of(line)?.1;
                (it == name).then(|| url.to_string())
            };
            text.lines().find_map(of_it)
        };
        let url = |name| listed(name).or(value(name)).unwrap_or_else(|| UNKNOWN.into());
        let owner = Owner {
            instance: Instance(value("instance").and_then(|it| it.parse().ok()).unwrap_or(0)),
            is_paired: value("pairing").is_none_or(|it| it != "alone"),
            processors: [url("default"), url("fallback")],
        };
        let id = value("id").and_then(|it| u128::from_str_radix(&it, 16).ok()).unwrap_or(new_id);
        Identity::new(id, owner)
    }

    /// It was found to be a copy, now or once.
    pub fn is_copy(&self) -> bool {
        self.copied_at.is_some()
    }

    pub fn encode(&self) -> String {
        let Identity { version: _, id, names, owner, place, copied_at } = self;
        let Owner { instance, is_paired, processors } = owner;
        let pairing = if *is_paired { "paired" } else { "alone" };
        let Place { file, directory, made_at } = place;
        let mut text =
            format!("version={VERSION}\nid={id:032x}\ninstance={instance}\npairing={pairing}\n");
        for ((processor, name), url) in names.iter().zip(processors) {
            let number = processor.number();
            let _ = writeln!(text, "processor={number} {name} {url}");
        }
        let _ = writeln!(text, "place={file:016x}-{directory:016x}-{:016x}", made_at.0);
        if let Some(at) = copied_at {
            let _ = writeln!(text, "copied_at={}", at.0);
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc={crc:08x}");
        text
    }

    /// # Errors
    /// If it is damaged, of another version, or names other processors than this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Identity, JournalError> {
        let file = || FILE_NAME.to_string();
        let corrupt = |what| JournalError::Corrupt { file: file(), offset: 0, what };
        let text = str::from_utf8(bytes).map_err(|_| corrupt("it is no text"))?;
        let lines = text.rfind("crc=").unwrap_or(0);
        let (lines, crc) = text.split_at(lines);
        if crc != format!("crc={:08x}\n", crc32c::crc32c(lines.as_bytes())) {
            return Err(corrupt("a checksum that does not match"));
        }
        let value = |name: &str| {
            let mut pairs = lines.lines().filter_map(|line| line.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        let version = value("version").and_then(|it| it.parse().ok());
        let table = match version {
            None => None,
            Some(VERSION) => table_of(lines),
            Some(VERSION_BEFORE_NAMES) => {
                let urls = value("default").zip(value("fallback"));
                urls.map(|(default, fallback)| (Names::contest(), vec![default, fallback]))
            }
            Some(version) => return Err(JournalError::UnknownVersion { file: file(), version }),
        };
        let (names, urls) = table.ok_or_else(|| corrupt("no table of processors"))?;
        if names != Names::contest() {
            return Err(JournalError::OtherNames { file: file(), names: names.to_string() });
        }
        let read = || {
            let place = value("place")?;
            let mut numbers = place.split('-').map(|it| u64::from_str_radix(it, 16).ok());
            let mut number = || numbers.next().flatten();
            let (file, directory) = (number()?, number()?);
            let place = Place { file, directory, made_at: Micros(number()? as i64) };
            let copied_at = match value("copied_at") {
                Some(at) => Some(Timestamp(at.parse().ok()?)),
                None => None,
            };
            let owner = Owner {
                instance: Instance(value("instance")?.parse().ok()?),
                is_paired: value("pairing")? == "paired",
                processors: urls.try_into().ok()?,
            };
            let id = u128::from_str_radix(&value("id")?, 16).ok()?;
            Some(Identity { version: version?, id, names, owner, place, copied_at })
        };
        read().ok_or_else(|| corrupt("a line is missing or no number"))
    }
}

/// The number, the name and the URL that a line of the table has, if it is one.
fn processor_of(line: &str) -> Option<(usize, (&str, &str))> {
    let (number, rest) = line.strip_prefix("processor=")?.split_once(' ')?;
    Some((number.parse().ok()?, rest.split_once(' ')?))
}

/// The names, and the URLs.
fn table_of(lines: &str) -> Option<(Names, Vec<String>)> {
    let (mut names, mut urls) = (Vec::new(), Vec::new());
    for line in lines.lines().filter(|line| line.starts_with("processor=")) {
        let (number, (name, url)) = processor_of(line)?;
        if number != names.len() {
            return None;
        }
        names.push(name.to_string());
        urls.push(url.to_string());
    }
    Some((Names::new(names)?, urls))
}

/// Whether a journal of that owner may be used by this one. If so, what has changed and is worth a
/// line in the log.
///
/// # Errors
/// What is wrong and what to do, in one line.
pub fn judge(
    stored: &Owner,
    owner: &Owner,
    held: Held,
    meant: &[Change],
) -> Result<Vec<String>, String> {
    let mut told = Vec::new();
    let mut decide = |change: Change, is_harmless: bool, what: String, otherwise: &str| {
        if is_harmless || meant.contains(&change) {
            told.push(what);
            return Ok(());
        }
        let name = format!("{change:?}").to_lowercase();
        Err(format!("{what}. {otherwise}, start once with --accept-change {name}"))
    };
    if stored.instance != owner.instance {
        let (was, is) = (stored.instance.0, owner.instance.0);
        let what = format!("it is of instance {was}, and this is --instance {is}");
        let otherwise = "Are the two directories swapped? Give each instance its own, or, if this \
                         is meant";
        decide(Change::Instance, false, what, otherwise)?;
    }
    if stored.is_paired != owner.is_paired {
        let (what, otherwise) = match stored.is_paired {
            true => (
                "it is of one instance of a pair, with half of the books and the accounts, and \
                 there is no --peer now",
                "Give --peer, or, if the other instance is gone for good",
            ),
            false => (
                "it is of an instance that was alone, and there is a --peer now, which does not \
                 know what was paid before",
                "Leave --peer out, or, if nobody repeats those payments",
            ),
        };
        let is_harmless = !stored.is_paired && held.is_empty;
        decide(Change::Pairing, is_harmless, what.into(), otherwise)?;
    }
    for processor in Processor::CONTEST {
        let index = processor.index();
        let (was, is) = (&stored.processors[index], &owner.processors[index]);
        if was == is {
            continue;
        }
        let (name, doubts) = (processor.name(), held.doubts[index]);
        let what = format!("the {name} processor was {was} and is {is} now");
        let otherwise = format!(
            "{doubts} payments may be booked at the old one without our knowing: start with the \
             old --{name}-url until they are settled, or, if both are the same processor"
        );
        decide(Change::Processors, doubts == 0, what, &otherwise)?;
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        let processors = ["http://a:1".into(), "http://b:1".into()];
        Owner { instance: Instance(1), is_paired: true, processors }
    }

    fn identity() -> Identity {
        let place = Place { file: 7, directory: u64::MAX, made_at: Micros(1_752_000_000_000_001) };
        Identity { place, ..Identity::new(1 << 127 | 5, owner()) }
    }

    /// At a machine's first start its clock may be anything, and is set a moment later.
    #[test]
    fn a_copy_counts_as_one_whatever_the_wall_clock_does() {
        let hour = |hours: u64| Moment(hours * 3_600_000_000);
        let wall = |hours: i64| Timestamp(hours * 3_600_000);
        let found_now = doubted_until(wall(5), wall(5), hour(1));
        assert!(found_now.is_ahead_of(wall(5), hour(1)));
        assert!(found_now.is_ahead_of(wall(500_000), hour(1)), "the wall clock has been set");
        assert!(
            found_now.is_ahead_of(wall(0), hour(2)) && found_now.is_ahead_of(wall(28), hour(24))
        );
        assert!(!found_now.is_ahead_of(wall(30), hour(26)));
        let later = doubted_until(wall(5), wall(25), hour(0));
        assert!(
            later.is_ahead_of(wall(500_000), hour(3)) && !later.is_ahead_of(wall(500_000), hour(5))
        );
        let long_ago = doubted_until(wall(5), wall(30), hour(0));
        assert!(!long_ago.is_ahead_of(wall(30), hour(0)));
        doubted_until(Timestamp(i64::MAX), Timestamp(i64::MIN), hour(0));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for copied_at in [None, Some(Timestamp(1_752_000_000_123))] {
            let identity = Identity { copied_at, ..identity() };
            let text = identity.encode();
            assert_eq!(Identity::decode(text.as_bytes()).unwrap(), identity);
            for cut in 0..text.len() {
                let cut = Identity::decode(&text.as_bytes()[..cut]);
                assert!(matches!(cut, Err(JournalError::Corrupt { .. })), "{cut:?}");
            }
            for bit in 0..text.len() * 8 {
                let mut flipped = text.clone().into_bytes();
                flipped[bit / 8] ^= 1 << (bit % 8);
                Identity::decode(&flipped).expect_err("a flipped bit");
            }
        }
        let text = identity().encode();
        assert!(text.starts_with("version=6\nid=80000000000000000000000000000005\ninstance=1\n"));
    }

    #[test]
    fn what_is_to_be_a_copy_is_nowhere() {
        let copy = identity().to_be_known_as_copy();
        assert_eq!(copy.place, Place::default());
        assert_eq!(Identity { place: identity().place, ..copy }, identity());
    }

    /// Whatever is damaged, what is read of it is right or is nobody's, or has to be meant.
    #[test]
    fn what_cannot_be_read_has_to_be_meant() {
        let text = identity().encode();
        let whole = Identity::guess(text.as_bytes(), 7);
        assert_eq!((whole.id, whole.owner), (identity().id, owner()));
        let held = Held { is_empty: false, doubts: [1, 1] };
        let nobody = Identity::guess(b"", 7);
        assert_eq!((nobody.id, nobody.place), (7, Place::default()));
        for meant in [&[][..], &[Change::Instance], &[Change::Processors]] {
            judge(&nobody.owner, &owner(), held, meant).unwrap_err();
        }
        judge(&nobody.owner, &owner(), held, &[Change::Instance, Change::Processors]).unwrap();
        for cut in 0..text.len() {
            let guess = Identity::guess(&text.as_bytes()[..cut], 7);
            let same = guess.owner == owner();
            assert_eq!(judge(&guess.owner, &owner(), held, &[]).is_ok(), same, "cut at {cut}");
            Identity::decode(guess.encode().as_bytes()).unwrap();
            let mut flipped = text.clone().into_bytes();
            flipped[cut] ^= 0x80;
            let guess = Identity::guess(&flipped, 7);
            Identity::decode(guess.encode().as_bytes()).unwrap();
        }
    }

    /// With the checksum of what it says now.
    fn sealed(text: &str) -> String {
        let lines = &text[..text.rfind("crc=").unwrap()];
        format!("{lines}crc={:08x}\n", crc32c::crc32c(lines.as_bytes()))
    }

    /// What a version of before has written is read, and written anew with the table.
    #[test]
    fn one_of_before_the_table_is_read() {
        let table = "processor=0 default http://a:1\nprocessor=1 fallback http://b:1\n";
        let text = identity().encode();
        assert!(text.contains(table), "{text}");
        let old = text.replace(table, "default=http://a:1\nfallback=http://b:1\n");
        let old = Identity::decode(sealed(&old.replace("version=6", "version=1")).as_bytes());
        let old = old.unwrap();
        assert_eq!(old.version, 1);
        assert_eq!(old.clone().of_owner(owner()), identity());
        assert_eq!(old.encode(), text);
    }

    /// In one line, whichever names, and in whichever order.
    #[test]
    fn a_table_that_is_not_known_is_refused() {
        let with = |table: &str| {
            let text = identity().encode();
            let (before, rest) = text.split_once("processor=0").unwrap();
            let (_, rest) = rest.split_once("place=").unwrap();
            let text = format!("{before}{table}place={rest}");
            Identity::decode(sealed(&text).as_bytes()).unwrap_err()
        };
        for (table, names) in [
            ("processor=0 fallback x\nprocessor=1 default y\n", "fallback, default"),
            ("processor=0 default x\n", "default"),
            (
                "processor=0 default x\nprocessor=1 fallback y\nprocessor=2 third z\n",
                "default, fallback, third",
            ),
        ] {
            let refused = with(table);
            let line = refused.to_string();
            assert!(matches!(refused, JournalError::OtherNames { .. }), "{line}");
            assert!(line.contains(&format!("by {names}, and")) && !line.contains('\n'), "{line}");
        }
        for damaged in ["", "processor=1 default x\n", "processor=0 default\n", "processor=0\n"] {
            let refused = with(damaged);
            assert!(matches!(refused, JournalError::Corrupt { .. }), "{damaged}: {refused}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let text = identity().encode().replace("version=6", "version=2");
        let refused = Identity::decode(sealed(&text).as_bytes()).unwrap_err();
        assert!(matches!(refused, JournalError::UnknownVersion { version: 2, .. }), "{refused}");
    }

    #[test]
    fn its_owner_may_use_it_whatever_is_in_doubt() {
        let held = Held { is_empty: false, doubts: [3, 3] };
        assert_eq!(judge(&owner(), &owner(), held, &[]), Ok(vec![]));
    }

    /// Each change is refused with the flag that allows it, and allowed by that flag alone.
    #[test]
    fn a_change_that_could_pay_twice_must_be_meant() {
        let two = Owner { instance: Instance(2), ..owner() };
        let alone = Owner { is_paired: false, ..owner() };
        let moved = |default: &str, fallback: &str| Owner {
            processors: [default.into(), fallback.into()],
            ..owner()
        };
        let doubt_at = |doubts| Held { is_empty: false, doubts };
        let (none, cheap, dear) = (doubt_at([0, 0]), doubt_at([3, 0]), doubt_at([0, 1]));
        for (stored, now, held, change, named) in [
            (
                owner(),
                two.clone(),
                none,
                Change::Instance,
                "of instance 1, and this is --instance 2",
            ),
            (owner(), alone.clone(), none, Change::Pairing, "no --peer now"),
            (alone.clone(), owner(), none, Change::Pairing, "there is a --peer now"),
            (owner(), moved("http://c:1", "http://b:1"), cheap, Change::Processors, "3 payments"),
            (
                owner(),
                moved("http://a:1", "http://a:2"),
                dear,
                Change::Processors,
                "--fallback-url",
            ),
            (owner(), moved("http://b:1", "http://a:1"), dear, Change::Processors, "1 payments"),
        ] {
            let line = judge(&stored, &now, held, &[]).expect_err(named);
            let flag = format!("--accept-change {change:?}").to_lowercase();
            assert!(line.contains(named) && line.ends_with(&flag), "{line}");
            for meant in [Change::Instance, Change::Pairing, Change::Processors] {
                let allowed = judge(&stored, &now, held, &[meant]).is_ok();
                assert_eq!(allowed, meant == change, "{named}: {meant:?}");
            }
        }
    }

    #[test]
    fn a_change_that_harms_nothing_is_told() {
        let moved = Owner { processors: ["http://c:1".into(), "http://b:1".into()], ..owner() };
        // What is in doubt is so at the other one.
        let held = Held { is_empty: false, doubts: [0, 5] };
        let told = judge(&owner(), &moved, held, &[]).unwrap();
        assert_eq!(told, ["the default processor was http://a:1 and is http://c:1 now"]);
        let alone = Owner { is_paired: false, ..owner() };
        let empty = Held { is_empty: true, doubts: [0, 0] };
        assert_eq!(judge(&alone, &owner(), empty, &[]).unwrap().len(), 1);
        // Its ledger may have entries all the same.
        judge(&owner(), &alone, empty, &[]).unwrap_err();
    }
}
