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
//! processor=0 default … the table of names (`names.rs`): each number from 0 on, its name, and the URL
//! processor=1 fallback …  it had when it was last among the owner's processors
//! place=…-…-…          16 hex digits each: the inode of this file, that of its directory, and when
//!                      this file was made (µs since 1970, 0 if the file system does not tell)
//! terms=…              8 hex digits: of one of a pair, a checksum of what decides who is the cheapest
//! copied_at=…          ms since 1970: when the journal was last found to be a copy; if it ever was
//! doubted_at=…         likewise, when it was last used with other terms
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
use crate::payments::names::Names;
use crate::payments::{Each, Processor};
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

/// Processors: their names, and of each the URL as it was given, for addresses may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    names: Names,
    urls: Vec<String>,
}

impl Table {
    /// Of names and URLs. `None` if these are no [names](Names::new), or a URL is not one line.
    pub fn new(processors: Vec<(String, String)>) -> Option<Table> {
        let (names, urls): (Vec<String>, Vec<String>) = processors.into_iter().unzip();
        let table = Table { names: Names::new(names)?, urls };
        table.urls.iter().all(|url| is_line(url)).then_some(table)
    }

    /// The contest's two.
    pub fn contest(urls: [String; 2]) -> Table {
        Table { names: Names::contest(), urls: urls.into() }
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Each with its name and its URL.
    pub fn iter(&self) -> impl Iterator<Item = (Processor, &str, &str)> {
        let urls = self.urls.iter().map(String::as_str);
        self.names.iter().zip(urls).map(|((processor, name), url)| (processor, name, url))
    }

    /// Of the processor of this name.
    pub fn url_of(&self, name: &str) -> Option<&str> {
        self.urls.get(self.names.by_name(name)?.index()).map(String::as_str)
    }

    /// With the URLs of those, and behind its own names those that it has not. `None` if that are too
    /// many.
    fn with(&self, others: &Table) -> Option<Table> {
        let own = self.iter().map(|(_, name, url)| (name, others.url_of(name).unwrap_or(url)));
        let is_new = |name: &str| self.names.by_name(name).is_none();
        let new = others.iter().map(|(_, name, url)| (name, url)).filter(|(name, _)| is_new(name));
        Table::new(own.chain(new).map(|(name, url)| (name.into(), url.into())).collect())
    }
}

/// Who uses a journal, as the settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub instance: Instance,
    pub is_paired: bool,
    pub processors: Table,
    /// The processors are those of a file, and not of `--default-url` and `--fallback-url`: for what a
    /// refusal says to do. Not written down.
    pub are_of_file: bool,
    /// Of one of a pair: a checksum of what decides which processor is the cheapest for an amount. The
    /// two pay at that one while they cannot see each other, and so at no other.
    pub terms: Option<u32>,
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
    /// Who used it last. His processors are the whole table, those too that he did not have.
    pub owner: Owner,
    pub place: Place,
    pub copied_at: Option<Timestamp>,
    /// When it was first used with other terms than before, the last time that happened.
    pub doubted_at: Option<Timestamp>,
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
    pub doubts: Each<usize>,
}

impl Identity {
    /// Of a new journal, which is nowhere yet.
    pub fn new(id: u128, owner: Owner) -> Identity {
        let place = Place::default();
        Identity {
            version: VERSION,
            id,
            owner: unstored(owner),
            place,
            copied_at: None,
            doubted_at: None,
        }
    }

    /// Of a journal that nobody has claimed yet, but that has been written to, under the contest's table;
    /// and what is worth a line in the log.
    ///
    /// # Errors
    /// As with [`judge`] and [`Identity::of_owner`].
    pub fn of_unclaimed(
        id: u128,
        owner: Owner,
        held: Held,
    ) -> Result<(Identity, Vec<String>), String> {
        let processors = Table::contest([UNKNOWN.into(), UNKNOWN.into()]);
        let told = judge_names(&processors, &owner, held)?;
        let unclaimed = Identity::new(id, Owner { processors, ..owner.clone() });
        Ok((unclaimed.of_owner(owner)?, told))
    }

    /// As it is written from now on, by that owner, whose processors are added to the table.
    ///
    /// # Errors
    /// If they are too many for it, what to do about it.
    pub fn of_owner(self, owner: Owner) -> Result<Identity, String> {
        let table = &self.owner.processors;
        let processors = table.with(&owner.processors).ok_or_else(|| {
            let (names, max) = (table.names(), Processor::MAX);
            let new = new_names(table, &owner.processors);
            format!(
                "it has names of processors ({names}), which are never taken out, and with {new} they \
                 would be more than {max}. Begin a new journal, once nothing is outstanding in this one"
            )
        })?;
        let owner = unstored(Owner { processors, ..owner });
        Ok(Identity { version: VERSION, owner, ..self })
    }

    /// The table of names: what the numbers of processors mean in all files of the journal.
    pub fn names(&self) -> &Names {
        self.owner.processors.names()
    }

    /// The same journal in another directory: the next start finds that it is a copy, wherever its
    /// files are by then, because no file is where this one says.
    pub fn to_be_known_as_copy(self) -> Identity {
        Identity { place: Place::default(), ..self }
    }

    /// What can still be read of a damaged file, or of none: for a journal that is to be known as a
    /// copy. What cannot be read is the settings of nobody, so that a start is refused until the
    /// change is meant. `fits` tells whether a table may be that of the files.
    pub fn guess(bytes: &[u8], new_id: u128, fits: impl Fn(&Names) -> bool) -> Identity {
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
        let url = |name: &str| {
            let found = listed(name).or(value(name)).filter(|url| is_line(url));
            found.unwrap_or_else(|| UNKNOWN.into())
        };
        let contest = || Table::contest([url("default"), url("fallback")]);
        let guessed = guess_table(&text, url).filter(|table| fits(table.names()));
        let owner = Owner {
            instance: Instance(value("instance").and_then(|it| it.parse().ok()).unwrap_or(0)),
            is_paired: value("pairing").is_none_or(|it| it != "alone"),
            processors: guessed.unwrap_or_else(contest),
            are_of_file: false,
            terms: None,
        };
        let id = value("id").and_then(|it| u128::from_str_radix(&it, 16).ok()).unwrap_or(new_id);
        Identity::new(id, owner)
    }

    /// Since when somebody may have paid what this journal knows nothing of, where it would not be paid
    /// now: it was found to be a copy, now or once, or was used with other terms.
    pub fn doubted_since(&self) -> Option<Timestamp> {
        self.copied_at.max(self.doubted_at)
    }

    /// Found at this time where no file of it was, or used from then on by an owner of other terms.
    pub fn doubted(self, stored: &Owner, is_copy: bool, now: Timestamp) -> Identity {
        let copied_at = if is_copy { Some(now) } else { self.copied_at };
        let terms = stored.terms.zip(self.owner.terms);
        let is_other = terms.is_some_and(|(stored, new)| stored != new);
        let doubted_at = if is_other { Some(now) } else { self.doubted_at };
        Identity { copied_at, doubted_at, ..self }
    }

    pub fn encode(&self) -> String {
        let Identity { version: _, id, owner, place, copied_at, doubted_at } = self;
        let Owner { instance, is_paired, processors, are_of_file: _, terms } = owner;
        let pairing = if *is_paired { "paired" } else { "alone" };
        let Place { file, directory, made_at } = place;
        let mut text =
            format!("version={VERSION}\nid={id:032x}\ninstance={instance}\npairing={pairing}\n");
        for (processor, name, url) in processors.iter() {
            let number = processor.number();
            let _ = writeln!(text, "processor={number} {name} {url}");
        }
        let _ = writeln!(text, "place={file:016x}-{directory:016x}-{:016x}", made_at.0);
        if let Some(terms) = terms {
            let _ = writeln!(text, "terms={terms:08x}");
        }
        for (name, at) in [("copied_at", copied_at), ("doubted_at", doubted_at)] {
            if let Some(at) = at {
                let _ = writeln!(text, "{name}={}", at.0);
            }
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc={crc:08x}");
        text
    }

    /// # Errors
    /// If it is damaged, or of another version.
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
                urls.map(|(default, fallback)| Table::contest([default, fallback]))
            }
            Some(version) => return Err(JournalError::UnknownVersion { file: file(), version }),
        };
        let processors = table.ok_or_else(|| corrupt("no table of processors"))?;
        let read = || {
            let place = value("place")?;
            let mut numbers = place.split('-').map(|it| u64::from_str_radix(it, 16).ok());
            let mut number = || numbers.next().flatten();
            let (file, directory) = (number()?, number()?);
            let place = Place { file, directory, made_at: Micros(number()? as i64) };
            let time = |name: &str| match value(name) {
                Some(at) => at.parse().ok().map(|at| Some(Timestamp(at))),
                None => Some(None),
            };
            let (copied_at, doubted_at) = (time("copied_at")?, time("doubted_at")?);
            let terms = match value("terms") {
                Some(terms) => Some(u32::from_str_radix(&terms, 16).ok()?),
                None => None,
            };
            let owner = Owner {
                instance: Instance(value("instance")?.parse().ok()?),
                is_paired: value("pairing")? == "paired",
                processors,
                are_of_file: false,
                terms,
            };
            let id = u128::from_str_radix(&value("id")?, 16).ok()?;
            Some(Identity { version: version?, id, owner, place, copied_at, doubted_at })
        };
        read().ok_or_else(|| corrupt("a line is missing or no number"))
    }
}

/// The number, the name and the URL that a line of the table has, if it is one.
fn processor_of(line: &str) -> Option<(usize, (&str, &str))> {
    let (number, rest) = line.strip_prefix("processor=")?.split_once(' ')?;
    Some((number.parse().ok()?, rest.split_once(' ')?))
}

fn table_of(lines: &str) -> Option<Table> {
    let mut processors = Vec::new();
    for line in lines.lines().filter(|line| line.starts_with("processor=")) {
        let (number, (name, url)) = processor_of(line)?;
        if number != processors.len() {
            return None;
        }
        processors.push((name.to_string(), url.to_string()));
    }
    Table::new(processors)
}

/// Whether it can stand in a line.
fn is_line(url: &str) -> bool {
    !url.contains(['\n', '\r'])
}

/// The table as far as it can be read. What is missing of the first two may be the contest's.
fn guess_table(text: &str, url: impl Fn(&str) -> String) -> Option<Table> {
    let name_of = |number: usize| {
        let of_it = text.lines().filter_map(processor_of).find(|(it, _)| *it == number);
        of_it.map(|(_, (name, _))| name).filter(|name| Names::new(vec![name.to_string()]).is_some())
    };
    let contest = Names::contest();
    let mut processors: Vec<(String, String)> = Vec::new();
    while let Some(processor) = Processor::new(processors.len()) {
        let is_contest = processors.iter().zip(contest.iter()).all(|(it, (_, name))| it.0 == name);
        let mut all = contest.iter();
        let otherwise = all.find(|(it, _)| *it == processor && is_contest).map(|(_, name)| name);
        let Some(name) = name_of(processor.index()).or(otherwise) else { break };
        processors.push((name.into(), url(name)));
    }
    Table::new(processors)
}

/// As it is when it was read: without what is not written down.
fn unstored(owner: Owner) -> Owner {
    Owner { are_of_file: false, ..owner }
}

/// The names among these that the table has not.
fn new_names(table: &Table, processors: &Table) -> String {
    let is_new = |name: &&str| table.names.by_name(name).is_none();
    let new: Vec<&str> = processors.names.iter().map(|(_, name)| name).filter(is_new).collect();
    new.join(", ")
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
    for (processor, name, was) in stored.processors.iter() {
        let doubts = held.doubts[processor.index()];
        let Some(is) = owner.processors.url_of(name) else { continue };
        if was == is {
            continue;
        }
        let what = format!("the {name} processor was {was} and is {is} now");
        let old = match owner.are_of_file {
            true => "the old URL in the file of processors".to_string(),
            false => format!("the old --{name}-url"),
        };
        let otherwise = format!(
            "{doubts} payments may be booked at the old one without our knowing: start with {old} until \
             they are settled, or, if both are the same processor"
        );
        decide(Change::Processors, doubts == 0, what, &otherwise)?;
    }
    told.extend(judge_names(&stored.processors, owner, held)?);
    Ok(told)
}

/// What becomes of the names of a table: those that the owner has not stay, with all that was settled
/// there, and those that are new are added.
fn judge_names(stored: &Table, owner: &Owner, held: Held) -> Result<Vec<String>, String> {
    let mut retired = Vec::new();
    for (processor, name, url) in stored.iter() {
        if owner.processors.url_of(name).is_some() {
            continue;
        }
        retired.push(name);
        let doubts = held.doubts[processor.index()];
        if doubts > 0 {
            return Err(format!(
                "{doubts} payments may be booked at {name} ({url}) without our knowing, and {name} \
                 is not among the processors now. Start with a file of processors that has it \
                 until they are settled; no --accept-change can take it out before, for nobody \
                 could settle them then"
            ));
        }
    }
    let mut told = Vec::new();
    if !retired.is_empty() {
        let retired = retired.join(", ");
        told.push(format!("not among the processors now, with its books kept: {retired}"));
    }
    let new = new_names(stored, &owner.processors);
    if !new.is_empty() {
        told.push(format!("new among the processors: {new}"));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::each;
    use crate::payments::names::tests::names;

    fn owner() -> Owner {
        let processors = Table::contest(["http://a:1".into(), "http://b:1".into()]);
        Owner {
            instance: Instance(1),
            is_paired: true,
            processors,
            are_of_file: false,
            terms: None,
        }
    }

    fn guess(bytes: &[u8]) -> Identity {
        Identity::guess(bytes, 7, |_| true)
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
        let at = Some(Timestamp(1_752_000_000_123));
        for (copied_at, doubted_at, terms) in
            [(None, None, None), (at, None, Some(7)), (None, at, Some(u32::MAX)), (at, at, None)]
        {
            let owner = Owner { terms, ..owner() };
            let identity = Identity { copied_at, doubted_at, owner, ..identity() };
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
        let whole = guess(text.as_bytes());
        assert_eq!((whole.id, whole.owner), (identity().id, owner()));
        let held = Held { is_empty: false, doubts: each([1, 1]) };
        let nobody = guess(b"");
        assert_eq!((nobody.id, nobody.place), (7, Place::default()));
        for meant in [&[][..], &[Change::Instance], &[Change::Processors]] {
            judge(&nobody.owner, &owner(), held, meant).unwrap_err();
        }
        judge(&nobody.owner, &owner(), held, &[Change::Instance, Change::Processors]).unwrap();
        for cut in 0..text.len() {
            let guessed = guess(&text.as_bytes()[..cut]);
            let same = guessed.owner == owner();
            assert_eq!(judge(&guessed.owner, &owner(), held, &[]).is_ok(), same, "cut at {cut}");
            Identity::decode(guessed.encode().as_bytes()).unwrap();
            let mut flipped = text.clone().into_bytes();
            flipped[cut] ^= 0x80;
            Identity::decode(guess(&flipped).encode().as_bytes()).unwrap();
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
        assert_eq!(old.clone().of_owner(owner()), Ok(identity()));
        assert_eq!(old.encode(), text);
    }

    fn table(processors: &[(&str, &str)]) -> Table {
        let processors = processors.iter().map(|(name, url)| ((*name).into(), (*url).into()));
        Table::new(processors.collect()).unwrap()
    }

    fn of_file(processors: &[(&str, &str)]) -> Owner {
        Owner { processors: table(processors), are_of_file: true, ..owner() }
    }

    /// One to eight names in whichever order, and nothing else.
    #[test]
    fn any_table_of_names_is_read() {
        let with = |table: &str| {
            let text = identity().encode();
            let (before, rest) = text.split_once("processor=0").unwrap();
            let (_, rest) = rest.split_once("place=").unwrap();
            let text = format!("{before}{table}place={rest}");
            Identity::decode(sealed(&text).as_bytes())
        };
        let eight: String =
            (0..8).map(|it| format!("processor={it} p{it} http://{it}\n")).collect();
        for (table, expected) in [
            ("processor=0 fallback x\nprocessor=1 default y\n", "fallback, default"),
            ("processor=0 pix x\n", "pix"),
            (&eight, "p0, p1, p2, p3, p4, p5, p6, p7"),
        ] {
            let read = with(table).unwrap();
            assert_eq!(read.names().to_string(), expected);
            assert_eq!(Identity::decode(read.encode().as_bytes()).unwrap(), read);
        }
        let nine = format!("{eight}processor=8 p8 x\n");
        for damaged in [
            "",
            "processor=1 default x\n",
            "processor=0 default\n",
            "processor=0\n",
            "processor=0 a x\nprocessor=1 a y\n",
            &nine,
        ] {
            let refused = with(damaged);
            assert!(matches!(refused, Err(JournalError::Corrupt { .. })), "{damaged}: {refused:?}");
        }
    }

    /// Names are added and never taken out, and the last URL of each stays.
    #[test]
    fn the_owners_names_are_added_to_the_table() {
        let three = [("pix", "http://p:1"), ("card", "http://c:1"), ("default", "http://d:1")];
        let identity = identity().of_owner(of_file(&three)).unwrap();
        let expected = table(&[
            ("default", "http://d:1"),
            ("fallback", "http://b:1"),
            ("pix", "http://p:1"),
            ("card", "http://c:1"),
        ]);
        assert_eq!(identity.owner, Owner { processors: expected, ..owner() });
        let again = identity.clone().of_owner(of_file(&three)).unwrap();
        assert_eq!(again, identity);
        let seven: Vec<_> = ["1", "2", "3", "4", "5", "6", "7"].map(|it| (it, "u")).into();
        let line = super::Identity::new(1, owner()).of_owner(of_file(&seven)).unwrap_err();
        assert!(line.contains("(default, fallback)") && !line.contains('\n'), "{line}");
        assert!(line.contains("with 1, 2, 3, 4, 5, 6, 7 they would be more than 8"), "{line}");
        super::Identity::new(1, owner()).of_owner(of_file(&seven[1..])).unwrap();
    }

    /// Where nothing is in doubt. Where something is, nothing but his return settles it.
    #[test]
    fn a_name_may_go_when_nothing_is_outstanding_there() {
        let now = of_file(&[("default", "http://a:1"), ("pix", "http://p:1")]);
        let in_doubt = |at_fallback| Held { is_empty: false, doubts: each([9, at_fallback]) };
        let told = judge(&owner(), &now, in_doubt(0), &[]).unwrap();
        assert_eq!(
            told,
            [
                "not among the processors now, with its books kept: fallback",
                "new among the processors: pix"
            ]
        );
        for meant in [&[][..], &[Change::Processors]] {
            let line = judge(&owner(), &now, in_doubt(3), meant).unwrap_err();
            assert!(
                line.starts_with("3 payments may be booked at fallback (http://b:1)"),
                "{line}"
            );
            assert!(line.contains("Start with a file of processors that has it"), "{line}");
            assert!(line.contains("no --accept-change") && !line.contains('\n'), "{line}");
        }
    }

    /// What to do is told of where the processors come from.
    #[test]
    fn another_url_of_a_file_is_refused_by_the_file() {
        let stored = of_file(&[("pix", "http://p:1"), ("default", "http://a:1")]);
        let now = of_file(&[("default", "http://a:1"), ("pix", "http://p:2")]);
        let held = Held { is_empty: false, doubts: each([2, 0]) };
        let line = judge(&stored, &now, held, &[]).unwrap_err();
        assert!(line.starts_with("the pix processor was http://p:1 and is http://p:2 now. 2 "));
        assert!(line.contains("start with the old URL in the file of processors"), "{line}");
        assert!(line.ends_with("--accept-change processors"), "{line}");
        judge(&stored, &now, held, &[Change::Processors]).unwrap();
        let elsewhere = Held { is_empty: false, doubts: each([0, 2]) };
        judge(&stored, &now, elsewhere, &[]).unwrap();
    }

    /// What is left of the names is used if the files can have been written under it.
    #[test]
    fn the_names_of_a_damaged_table_are_guessed_by_the_files() {
        let processors = [("pix", "http://p:1"), ("card", "http://c:1"), ("boleto", "http://b:1")];
        let identity = Identity::new(5, of_file(&processors));
        let text = identity.encode();
        let guess = |text: &str, fits: Option<&[&str]>| {
            let fits = fits.map(|it| names(it).unwrap());
            let guess =
                Identity::guess(text.as_bytes(), 7, |it| fits.as_ref().is_none_or(|all| it == all));
            Identity::decode(guess.encode().as_bytes()).unwrap();
            guess
        };
        assert_eq!(guess(&text, None), Identity { place: Place::default(), ..identity });
        let cut = text.split_once("processor=2").unwrap().0;
        assert_eq!(guess(cut, None).names(), &names(&["pix", "card"]).unwrap());
        let without_url = text.replace("card http://c:1", "card \rhttp");
        assert_eq!(guess(&without_url, None).owner.processors.url_of("card"), Some(UNKNOWN));
        let flipped = text.replace("card", "cbrd");
        let is_it: &[&str] = &["pix", "card", "boleto"];
        assert_eq!(guess(&flipped, Some(is_it)).names(), &Names::contest());
        let contest = Identity::new(5, owner()).encode().replace("0 default", "0 defaul\u{fffd}");
        assert_eq!(guess(&contest, None).names(), &Names::contest());
    }

    #[test]
    fn another_version_is_named() {
        let text = identity().encode().replace("version=6", "version=2");
        let refused = Identity::decode(sealed(&text).as_bytes()).unwrap_err();
        assert!(matches!(refused, JournalError::UnknownVersion { version: 2, .. }), "{refused}");
    }

    #[test]
    fn its_owner_may_use_it_whatever_is_in_doubt() {
        let held = Held { is_empty: false, doubts: each([3, 3]) };
        assert_eq!(judge(&owner(), &owner(), held, &[]), Ok(vec![]));
    }

    /// Each change is refused with the flag that allows it, and allowed by that flag alone.
    #[test]
    fn a_change_that_could_pay_twice_must_be_meant() {
        let two = Owner { instance: Instance(2), ..owner() };
        let alone = Owner { is_paired: false, ..owner() };
        let moved = |default: &str, fallback: &str| Owner {
            processors: Table::contest([default.into(), fallback.into()]),
            ..owner()
        };
        let doubt_at = |doubts: [usize; 2]| Held { is_empty: false, doubts: each(doubts) };
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
        let processors = Table::contest(["http://c:1".into(), "http://b:1".into()]);
        let moved = Owner { processors, ..owner() };
        // What is in doubt is so at the other one.
        let held = Held { is_empty: false, doubts: each([0, 5]) };
        let told = judge(&owner(), &moved, held, &[]).unwrap();
        assert_eq!(told, ["the default processor was http://a:1 and is http://c:1 now"]);
        let alone = Owner { is_paired: false, ..owner() };
        let empty = Held { is_empty: true, doubts: each([0, 0]) };
        assert_eq!(judge(&alone, &owner(), empty, &[]).unwrap().len(), 1);
        // Its ledger may have entries all the same.
        judge(&owner(), &alone, empty, &[]).unwrap_err();
    }
}
