//! `galo journal check DIR [DIR]`: whether a journal is sound and what is in it, and whether two are
//! those of a pair.
//!
//! Reads only. What two journals mean together is decided by [`compare`], which knows no files.

use super::accounts::{Accounts, States};
use super::head::Kind;
use super::identity::{FILE_NAME, Identity};
use super::inspect::{Files, files_at, with_ledger};
use super::manifest::Look;
use super::record::Record;
use super::recover::{Replay, read_identity};
use super::retained::{self, Retained};
use super::segment::{Contents, Ending};
use super::storage::{Directory, Storage};
use super::volume::{self, Span};
use super::{JournalError, books, manifest, notes};
use crate::base::clock::{Micros, Timestamp};
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::{Each, PaymentId, Totals, Window};
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

/// So many payments of one finding are named, and the others counted.
const NAMED_MAX: usize = 100;

/// Whether all is sound and, of two, whether they are those of a pair.
pub(super) fn run(path: &Path, other: Option<&Path>, out: &mut impl Write) -> io::Result<bool> {
    let Some(other) = other else { return Ok(check(path, false, out)?.is_some()) };
    let one = check(path, true, out)?;
    let two = check(other, true, out)?;
    let (Some(one), Some(two)) = (one, two) else { return Ok(false) };
    let findings = compare(&one, &two);
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    if findings.is_empty() {
        writeln!(out, "{} and {} are a pair", path.display(), other.display())?;
    }
    Ok(findings.is_empty())
}

/// What a journal is compared by.
#[derive(Debug)]
pub(super) struct Looked {
    /// How it is called.
    pub name: String,
    pub identity: Option<Identity>,
    /// Accepted and not over.
    pub open: HashSet<PaymentId>,
    /// As far as it is told: books of before version 3 of the layout have no ids.
    pub settled: HashSet<PaymentId>,
}

/// One journal with its ledger. `None` if it is damaged, which has been told then.
fn check(path: &Path, is_named: bool, out: &mut impl Write) -> io::Result<Option<Looked>> {
    let directories = with_ledger(path);
    let mut looked = Vec::new();
    for directory in &directories {
        if is_named || directories.len() > 1 {
            writeln!(out, "{}:", directory.display())?;
        }
        looked.extend(check_one(directory, is_named, out)?);
    }
    let is_sound = looked.len() == directories.len();
    // The first is that of the payments.
    Ok(if is_sound { looked.into_iter().next() } else { None })
}

/// `None` if anything in it is damaged.
fn check_one(path: &Path, is_compared: bool, out: &mut impl Write) -> io::Result<Option<Looked>> {
    let Files { directory, names, processors } = files_at(path)?;
    let mut sound = true;
    let mut found = Found::default();
    let mut bytes = Vec::new();
    for name in &names {
        directory.read_records(name, &mut bytes)?;
        let file = if path.is_dir() { path.join(name) } else { path.to_path_buf() };
        found.bytes += file.metadata()?.len();
        found.add_times(name, &bytes, &processors);
        match describe(name, &bytes, &processors) {
            Ok(line) => writeln!(out, "{name}: {line}")?,
            Err(error) => {
                sound = false;
                writeln!(out, "{name}: {error}")?;
            }
        }
    }
    drop(bytes);
    let name = path.display().to_string();
    let mut looked = Looked { name, identity: None, open: HashSet::new(), settled: HashSet::new() };
    if path.is_dir() {
        sound &= tell_identity(&directory, &mut looked, out)?;
        sound &= tell_manifest(&directory, &processors, out)?;
        writeln!(out, "files: {}, {} bytes, {} records", names.len(), found.bytes, found.records)?;
        if let (Some(first), Some(last)) = (found.first, found.last) {
            writeln!(out, "from {first} to {last}")?;
        }
        sound &= check_whole(&directory, &processors, is_compared, &mut looked, out)?;
    }
    Ok(sound.then_some(looked))
}

/// Says whose the journal is, if that is written down.
fn tell_identity(
    directory: &Directory,
    looked: &mut Looked,
    out: &mut impl Write,
) -> io::Result<bool> {
    match read_identity(directory) {
        Ok(None) => Ok(true),
        Ok(Some(identity)) => {
            let owner = &identity.owner;
            let pairing = if owner.is_paired { "one of a pair" } else { "alone" };
            write!(out, "journal {:032x}: of instance {}, ", identity.id, owner.instance)?;
            write!(out, "{pairing}")?;
            for (_, name, url) in owner.processors.iter() {
                write!(out, ", {name} {url}")?;
            }
            let copied = identity.copied_at.map(|at| format!(", found to be a copy at {at}"));
            writeln!(out, "{}", copied.unwrap_or_default())?;
            looked.identity = Some(identity);
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "{FILE_NAME}: {error}")?;
            Ok(false)
        }
    }
}

/// Says how many files must be there, and each that is not.
fn tell_manifest(
    directory: &Directory,
    processors: &Names,
    out: &mut impl Write,
) -> io::Result<bool> {
    let findings = match manifest::look(directory, processors) {
        Ok(Look { stored, findings, .. }) => {
            if let Some(stored) = stored {
                let count = stored.named.files().len();
                writeln!(out, "{}: names {count} files", manifest::FILE_NAME)?;
            }
            findings
        }
        Err(error) => vec![error],
    };
    // What comes first is told again when all is read.
    for finding in findings.iter().skip(1) {
        writeln!(out, "{finding}")?;
    }
    Ok(findings.is_empty())
}

/// When a record was written, as far as it says so.
pub(super) fn written_at(record: &Record) -> Option<Timestamp> {
    match record {
        Record::Event(Event::Accepted { accepted_at: at, .. })
        | Record::Event(Event::Attempted { requested_at: at, .. }) => Some(*at),
        Record::Entry(entry) => Some(whole_ms(entry.at)),
        _ => None,
    }
}

/// The millisecond that it lies in.
pub(super) fn whole_ms(at: Micros) -> Timestamp {
    Timestamp(at.0.div_euclid(1_000))
}

/// What all files have together.
#[derive(Debug, Default)]
struct Found {
    bytes: u64,
    records: usize,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Found {
    fn add(&mut self, at: Timestamp) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    /// Of a damaged file, as far as it goes: `describe` says what is wrong with it.
    fn add_times(&mut self, name: &str, bytes: &[u8], processors: &Names) {
        match Kind::of_file_name(name) {
            Some((Kind::Segment, number)) => {
                let _ = Contents::new(number, bytes, processors).and_then(|contents| {
                    contents.walk(|_, record| {
                        self.records += 1;
                        written_at(&record).into_iter().for_each(|at| self.add(at));
                        Ok(())
                    })
                });
            }
            Some((Kind::Books, number)) => {
                let bounds =
                    books::check(number, bytes, processors).ok().and_then(|books| books.bounds);
                if let Some((first, last)) = bounds {
                    self.add(first);
                    self.add(last);
                }
            }
            Some((Kind::Accounts, number)) => {
                for state in States::new(number, bytes).into_iter().flatten().flatten() {
                    let newest = state.1.newest.front().map(|(_, at)| whole_ms(*at));
                    newest.into_iter().for_each(|at| self.add(at));
                }
            }
            Some((Kind::Ids | Kind::Notes, _)) | None => {}
        }
    }
}

/// What one file holds.
pub(super) fn describe(
    name: &str,
    bytes: &[u8],
    processors: &Names,
) -> Result<String, JournalError> {
    let Some((kind, number)) = Kind::of_file_name(name) else { return Ok(String::new()) };
    match kind {
        Kind::Segment => {
            let contents = Contents::new(number, bytes, processors)?;
            let mut count = 0_usize;
            let (offset, ending) = contents.walk(|_, _| {
                count += 1;
                Ok(())
            })?;
            Ok(match ending {
                Ending::Sealed => format!("{count} records, full"),
                Ending::Blank => format!("{count} records, room left from offset {offset}"),
                Ending::Bad(what) => {
                    let behind = contents.intact_from(offset);
                    format!(
                        "{count} records, then at offset {offset} {what}; behind it {} bytes with \
                         {} intact records",
                        behind.bytes, behind.records
                    )
                }
            })
        }
        Kind::Books => {
            let settled = books::check(number, bytes, processors)?.settled;
            let settled = settled_at(settled, processors);
            let of = match volume::span(number, bytes)? {
                Span { first, last, .. } if first < last => {
                    format!(", of segments {first} to {last}")
                }
                _ => String::new(),
            };
            let left = match books::flags(number, bytes)?.is_abridged {
                true => ", archived: their totals alone",
                false => "",
            };
            Ok(format!("{settled}{of}{left}"))
        }
        Kind::Ids => Ok(format!("{} ids", books::ids(number, bytes)?.len())),
        Kind::Notes => Ok(format!("{} notes", notes::read(number, bytes, processors)?.len())),
        Kind::Accounts => {
            let accounts = States::new(number, bytes)?.collect()?;
            Ok(format!("{} accounts, {} entries", accounts.len(), entries_of(&accounts)))
        }
    }
}

/// `5 settlements at default, 2 at fallback`
pub(super) fn settled_at(settled: Each<u64>, processors: &Names) -> String {
    let mut counts = processors.iter().map(|(it, name)| (settled[it.index()], name));
    let first = counts.next().map(|(count, name)| format!("{count} settlements at {name}"));
    let others = counts.map(|(count, name)| format!(", {count} at {name}"));
    first.into_iter().chain(others).collect()
}

fn entries_of(accounts: &Accounts) -> u128 {
    accounts.values().map(|history| u128::from(history.sequence)).sum()
}

/// How many segments are kept besides, and which of those for exports cannot be read.
fn tell_retained(
    directory: &Directory,
    processors: &Names,
    replay: &Replay,
    out: &mut impl Write,
) -> io::Result<bool> {
    let (mut events, mut entries, mut is_whole) = (0, 0, true);
    let mut bytes = Vec::new();
    for (number, of) in &replay.listing.retained {
        if *of == Retained::Events {
            events += 1;
            continue;
        }
        entries += 1;
        let name = of.file_name(*number);
        match directory.read(&name, usize::MAX, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) => {
                if let Err(error) =
                    retained::walk(&name, *number, &bytes, processors, |_, _| Ok(()))
                {
                    is_whole = false;
                    writeln!(out, "{error}")?;
                }
            }
        }
    }
    for (count, what) in [(events, "those who follow"), (entries, "exports")] {
        if count > 0 {
            writeln!(out, "kept for {what}, and no part of it: {count} segments")?;
        }
    }
    Ok(is_whole)
}

/// What all files mean together, as a start would read them.
fn check_whole(
    directory: &Directory,
    processors: &Names,
    is_compared: bool,
    looked: &mut Looked,
    out: &mut impl Write,
) -> io::Result<bool> {
    let replay = match Replay::new(directory, processors, usize::MAX) {
        Ok(replay) => replay,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(false);
        }
    };
    let totals = match replay.shelf.read_totals(Window::default()) {
        Ok(totals) => totals,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(false);
        }
    };
    for (processor, name) in processors.iter() {
        let Totals { count, amount } = totals[processor.index()];
        writeln!(out, "settled at {name}: {count}, {amount}")?;
    }
    let (waiting, doubts) = replay.outstanding();
    writeln!(out, "outstanding: {} waiting, {} in doubt", waiting.len(), doubts.len())?;
    writeln!(out, "adopted, and to be told: {}", replay.books.adopted.len())?;
    writeln!(out, "rejected: {}", replay.books.rejected.len())?;
    if !replay.books.resolved.is_empty() {
        writeln!(out, "resolved by hand: {}", replay.books.resolved.len())?;
    }
    writeln!(out, "ids: {}", replay.ids.len())?;
    let (count, entries) = (replay.accounts.len(), entries_of(&replay.accounts));
    writeln!(out, "accounts: {count}, {entries} entries, {} with a key", replay.keys.len())?;
    let rewritten = replay.listing.rewritten.iter().map(|number| Kind::Segment.file_name(*number));
    for name in replay.listing.leftovers.iter().cloned().chain(rewritten) {
        writeln!(out, "{name}: a leftover, the next start removes it")?;
    }
    let is_all_kept = tell_retained(directory, processors, &replay, out)?;
    match &replay.torn {
        None if is_all_kept => writeln!(out, "sound")?,
        None => writeln!(out, "sound, but for what is kept for exports")?,
        Some(torn) => writeln!(
            out,
            "torn: {} at offset {} ({}): the next start cuts off {} bytes with {} intact records, \
             none of which had been synced",
            torn.file, torn.offset, torn.what, torn.bytes, torn.records
        )?,
    }
    looked.open.extend(replay.payments.iter().map(|(id, _)| id));
    let segments = replay.listing.segments.iter().copied();
    looked.settled = settled_in(directory, processors, segments.collect())?;
    if is_compared {
        for volume in replay.shelf.volumes().values() {
            // What is damaged has been told.
            looked.settled.extend(volume.lines().flatten().filter_map(|line| line.id));
        }
    }
    Ok(is_all_kept)
}

/// The payments that these segments tell to be settled.
fn settled_in(
    directory: &Directory,
    processors: &Names,
    segments: Vec<u32>,
) -> io::Result<HashSet<PaymentId>> {
    let mut settled = HashSet::new();
    let mut bytes = Vec::new();
    for number in segments {
        directory.read_records(&Kind::Segment.file_name(number), &mut bytes)?;
        // It has been read before, without an error.
        let _ = Contents::new(number, &bytes, processors).and_then(|contents| {
            contents.walk(|_, record| {
                match record {
                    Record::Event(Event::Settled { id, .. }) => _ = settled.insert(id),
                    Record::Event(Event::Purged) => settled.clear(),
                    _ => {}
                }
                Ok(())
            })
        });
    }
    Ok(settled)
}

/// Why two journals are not those of a pair, one finding a line.
pub(super) fn compare(one: &Looked, two: &Looked) -> Vec<String> {
    let mut findings = Vec::new();
    for looked in [one, two] {
        match &looked.identity {
            None => findings.push(format!("{} does not say whose it is", looked.name)),
            Some(identity) if !identity.owner.is_paired => {
                findings.push(format!("{} is of an instance that was alone", looked.name));
            }
            Some(_) => {}
        }
    }
    if let (Some(left), Some(right)) = (&one.identity, &two.identity) {
        if left.id == right.id {
            findings.push(format!("both are copies of one journal, {:032x}", left.id));
        }
        if left.owner.instance == right.owner.instance {
            findings.push(format!("both are of instance {}", left.owner.instance));
        }
        // One that only one of them has may be of before the other one's time.
        for (_, name, left) in left.owner.processors.iter() {
            if let Some(right) = right.owner.processors.url_of(name).filter(|url| *url != left) {
                findings
                    .push(format!("the {name} processor is {left} in one, {right} in the other"));
            }
        }
    }
    let both = one.settled.intersection(&two.settled).copied().collect();
    name_payments(both, "is settled in both", &mut findings);
    for (here, there) in [(one, two), (two, one)] {
        let ids = here.open.intersection(&there.settled).copied().collect();
        let what = format!("is not over in {}, and settled in {}", here.name, there.name);
        name_payments(ids, &what, &mut findings);
    }
    findings
}

fn name_payments(mut ids: Vec<PaymentId>, what: &str, findings: &mut Vec<String>) {
    ids.sort_unstable();
    let (named, others) = ids.split_at(ids.len().min(NAMED_MAX));
    findings.extend(named.iter().map(|id| format!("{id} {what}")));
    if !others.is_empty() {
        findings.push(format!("… and {} more: each {what}", others.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::instance::Instance;
    use crate::journal::identity::{Owner, Table};

    fn contest(fallback: &str) -> Table {
        Table::contest(["http://a:1".into(), fallback.into()])
    }

    fn looked(instance: u8, open: &[u128], settled: &[u128]) -> Looked {
        let (id, instance) = (u128::from(instance), Instance(instance));
        let processors = contest("http://b:1");
        let owner =
            Owner { instance, is_paired: true, processors, are_of_file: false, terms: None };
        let identity = Identity::new(id, owner);
        let ids = |ids: &[u128]| ids.iter().map(|id| PaymentId(*id)).collect();
        Looked {
            name: format!("data/{id}"),
            identity: Some(identity),
            open: ids(open),
            settled: ids(settled),
        }
    }

    fn changed(change: impl FnOnce(&mut Identity)) -> Looked {
        let mut looked = looked(2, &[], &[]);
        change(looked.identity.as_mut().unwrap());
        looked
    }

    #[test]
    fn each_way_not_to_be_a_pair_is_found() {
        let one = looked(1, &[1, 5], &[2, 3]);
        assert_eq!(compare(&one, &looked(2, &[1, 6], &[4])), Vec::<String>::new());
        for (other, finding) in [
            (changed(|it| it.id = 1), "both are copies of one journal"),
            (changed(|it| it.owner.instance = Instance(1)), "both are of instance 1"),
            (changed(|it| it.owner.is_paired = false), "data/2 is of an instance that was alone"),
            (
                changed(|it| it.owner.processors = contest("http://c:1")),
                "the fallback processor is http://b:1 in one, http://c:1 in the other",
            ),
            (looked(2, &[], &[3]), "00000000-0000-0000-0000-000000000003 is settled in both"),
            (looked(2, &[], &[5]), "is not over in data/1, and settled in data/2"),
            (looked(2, &[2], &[]), "is not over in data/2, and settled in data/1"),
            (Looked { identity: None, ..looked(2, &[], &[]) }, "data/2 does not say whose it is"),
        ] {
            let found = compare(&one, &other);
            assert!(found.len() == 1 && found[0].contains(finding), "{finding}: {found:?}");
        }
    }

    #[test]
    fn of_many_payments_some_are_named_and_the_others_counted() {
        let ids: Vec<u128> = (0..150).collect();
        let found = compare(&looked(1, &[], &ids), &looked(2, &[], &ids));
        assert_eq!(found.len(), NAMED_MAX + 1);
        assert_eq!(found[NAMED_MAX], "… and 50 more: each is settled in both");
    }
}
