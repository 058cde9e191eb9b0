//! `galo journal salvage FROM TO`: a new journal of what is whole in a damaged one, and a report of
//! what is not.
//!
//! # How
//! File by file, in the order of their numbers, one in memory at a time. Ids and accounts are whole
//! or lost; of books every block that is whole is kept. A segment is written anew with every record that is intact, under the same number,
//! and so without its holes; a file that is lost is replaced by an empty one. So TO is a journal as
//! any other, and means what is left of the history.
//!
//! # Why nothing is paid twice because of it
//! What is left is a history with gaps: a payment may come back that is settled, one in doubt may
//! since have been sent to the other processor, and one that was paid may be unknown. That is what
//! an old copy is like, too, and TO is made known as one ([`Identity::to_be_known_as_copy`]): before
//! a payment is paid at one processor, every other one must have said that it does not hold it, and
//! one that it holds itself it refuses.
//!
//! # A ledger
//! An entry that is lost cannot be asked for anywhere. The balance behind the next one is known, so
//! an entry of its own stands for those that are lost (`bridge.rs`). Where there is no next one, the
//! balance is that of before, and the report says from when on entries may be missing.

mod asked;
mod bridge;
mod plan;
mod report;

use super::accounts::States;
use super::books::{self, Flags, Remains};
use super::check::{settled_at, whole_ms, written_at};
use super::copy::{files, write_identity};
use super::head::{self, FILE_HEAD_BYTES, Kind, OWN_BYTES};
use super::identity::{self, Identity};
use super::inspect::expect_journal;
use super::manifest::Stored;
use super::names::Reference;
use super::outstanding::{Open, Outstanding};
use super::record::{END_BYTES, Record, Seed};
use super::recover::{self, IDENTITY_BYTES_MAX};
use super::segment::{Contents, Ending, Piece};
use super::storage::{Directory, Storage, random};
use super::unfinished::Unfinished;
use super::{JournalError, LEDGER_DIRECTORY, manifest, notes, volume};
use crate::base::clock::Timestamp;
use crate::ledger::Entry;
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::{Each, Line, PaymentId, Processor, Rejection};
pub use asked::ASK_NAME;
use asked::Asked;
use bridge::{Bridge, Gap};
use plan::{File, Plan};
use report::{Report, Window};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

/// Salvages a journal with its ledger. Whether nothing was lost.
///
/// # Errors
/// In one line: if `from` is no journal, is in use, cannot be read or is of another version, or `to`
/// cannot be made. Then `to` is as it was.
pub fn run(from: &Path, to: &Path, out: &mut impl Write) -> Result<bool, String> {
    expect_journal(from)?;
    let unfinished = Unfinished::new(from, to)?;
    let failed = |error: JournalError| error.to_string();
    let unwritten = |error: io::Error| format!("the report cannot be written: {error}");
    let held = |path: &Path| Directory::held(path).map(|it| it.showing("reading"));
    let source = held(from).map_err(failed)?;
    let target = Directory::lock(unfinished.path()).map_err(failed)?;
    let (identity, damage) = found_identity(&source).map_err(failed)?;
    let mut is_whole = salvage(&source, &target, identity.names(), "", out).map_err(failed)?;
    let ledger = from.join(LEDGER_DIRECTORY);
    if ledger.is_dir() {
        let source = held(&ledger).map_err(failed)?;
        let path = unfinished.path().join(LEDGER_DIRECTORY);
        let target = Directory::lock(&path).map_err(failed)?;
        let names = Names::contest();
        is_whole &= salvage(&source, &target, &names, "ledger/", out).map_err(failed)?;
    } else {
        is_whole = false;
        writeln!(out, "lost: ledger/: it is missing, with every account").map_err(unwritten)?;
    }
    is_whole &= salvage_identity(&target, identity, damage, out).map_err(failed)?;
    let to = to.display();
    let end = match is_whole {
        true => format!("nothing is lost; a start with {to} asks before it pays, as with a copy"),
        false => format!("{to} has what is left; a start with it asks before it pays"),
    };
    writeln!(out, "{end}").and_then(|()| out.flush()).map_err(unwritten)?;
    unfinished.finish()?;
    Ok(is_whole)
}

/// Salvages one directory: whether nothing was lost. What is in `to` is on the disk then.
///
/// # Errors
/// If `from` cannot be read or is of another version, or `to` or the report cannot be written.
pub fn salvage(
    from: &dyn Storage,
    to: &dyn Storage,
    names: &Names,
    directory: &'static str,
    out: &mut dyn Write,
) -> Result<bool, JournalError> {
    let report = Report::new(directory, out);
    let mut salvage = Salvage {
        from,
        to,
        names,
        report,
        payments: Outstanding::default(),
        attempted: BTreeMap::new(),
        bridge: Bridge::default(),
        bridged: Vec::new(),
        kept: Kept::default(),
        unended: None,
        asked: Asked::default(),
    };
    let stored = match manifest::read(from) {
        Err(JournalError::Corrupt { what, .. }) => Err(what),
        read => Ok(read?),
    };
    let named = stored.as_ref().ok().and_then(Option::as_ref).map(|it| it.named.files());
    match Plan::of(from, names, &named.unwrap_or_default())? {
        Some(plan) => salvage.files(&plan)?,
        None => salvage.report.lost("", 0, "every file is missing"),
    }
    salvage.compare(stored)?;
    let window = salvage.end()?;
    to.sync_directory().map_err(|error| JournalError::io("sync", "the new directory", error))?;
    manifest::write(to, &files(to)?)?;
    recover::check_complete(to, names)?;
    Ok(window.is_none())
}

const NOBODY_KNOWS: &str = "nobody knows whether newer files than these have gone";

/// What is in the new journal.
#[derive(Debug, Default)]
struct Kept {
    records: usize,
    settlements: Each<u64>,
    accounts: usize,
}

struct Salvage<'a> {
    from: &'a dyn Storage,
    to: &'a dyn Storage,
    /// Of the processors, in both.
    names: &'a Names,
    report: Report<'a>,
    payments: Outstanding,
    /// The last attempts of payments whose acceptance has not been found, and that are not over.
    attempted: BTreeMap<PaymentId, (Processor, Timestamp)>,
    bridge: Bridge,
    bridged: Vec<Entry>,
    kept: Kept,
    /// A segment whose records ended without its end: the one in use, if no record comes behind it.
    unended: Option<(u32, usize)>,
    asked: Asked,
}

impl Salvage<'_> {
    /// Tells what is not as the manifest says, and was not told yet. Behind all else: whatever is
    /// newer than what is there is what nobody else would miss.
    fn compare(&mut self, stored: Result<Option<Stored>, &str>) -> Result<(), JournalError> {
        let name = manifest::FILE_NAME;
        let stored = match stored {
            Ok(stored) => stored,
            Err(what) => {
                self.report.lost(name, 0, format_args!("{what}: {NOBODY_KNOWS}"));
                return Ok(());
            }
        };
        for finding in
            manifest::findings(self.from, self.names, stored.as_ref(), &files(self.from)?)?
        {
            let (file, what) = match finding {
                JournalError::Vanished { file } => (file, "it is missing"),
                JournalError::Corrupt { file, what, .. } => (file, what),
                _ => {
                    self.report.lost(name, 0, format_args!("it is missing: {NOBODY_KNOWS}"));
                    continue;
                }
            };
            if !self.report.has_told(&file) {
                self.report.lost(&file, 0, what);
            }
        }
        Ok(())
    }

    fn files(&mut self, plan: &Plan) -> Result<(), JournalError> {
        if plan.stands_alone {
            let kind = if plan.last_books > 0 { Kind::Books } else { Kind::Segment };
            let what =
                "it is missing, with all before it, unless a purge behind it is what is lost";
            self.report.lost(&kind.file_name(plan.lowest - 1), 0, what);
        }
        let mut number = plan.lowest;
        while number <= plan.highest {
            if number > plan.last_books {
                self.segment(number, plan)?;
            } else {
                let first = number;
                number = plan.end_of_books(first);
                self.books(first, number, plan)?;
            }
            number += 1;
        }
        match plan.highest == plan.last_books {
            true => self.next_is_missing(plan.highest),
            false => Ok(()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let write = || {
            let file = self.to.create(name)?;
            file.write_at(bytes, 0)?;
            file.sync()
        };
        write().map_err(|error| JournalError::io("write", name, error))
    }

    /// What is left of segments that were rewritten.
    fn books(&mut self, first: u32, number: u32, plan: &Plan) -> Result<(), JournalError> {
        let (mut bytes, file) = plan::read(self.from, self.names, Kind::Books, number)?;
        let known = books::flags(number, &bytes).ok();
        let has_accounts = match number == plan.last_books {
            true => self.accounts(number, plan, known)?,
            // Those of the last books count alone.
            false => known.is_some_and(|flags| flags.has_accounts),
        };
        let stands_alone = known.is_some_and(|flags| flags.stands_alone)
            || first == plan.lowest && plan.stands_alone;
        let is_abridged = known.is_some_and(|flags| flags.is_abridged);
        let is_abridged = is_abridged && matches!(file, File::Whole);
        let mut remains = None;
        if !matches!(file, File::Whole) {
            let found = self.instead_of_books(number, plan, &bytes, file)?;
            bytes = self.volume(first, number, &found.settled);
            remains = Some(found);
        } else if books::are_old(&bytes) {
            let lines = books::old_lines(number, &bytes, self.names)?;
            bytes = self.volume(first, number, &lines);
        }
        // Those that the last books name count.
        let has_notes = number == plan.last_books && self.notes(number, plan, known)?;
        let notes = has_notes.then_some(number);
        let flags = Flags { stands_alone, has_accounts, is_abridged, notes };
        for segment in first..=number {
            self.ids(segment, plan, remains.as_ref())?;
        }
        books::set_flags(number, flags, &mut bytes)?;
        self.count(number, &bytes)?;
        self.write(&Kind::Books.file_name(number), &bytes)
    }

    fn volume(&self, first: u32, last: u32, lines: &[Line]) -> Vec<u8> {
        volume::encode(first, last, Flags::default(), lines, Reference::to(self.names))
    }

    /// Counts what is in books, and takes note of their times.
    fn count(&mut self, number: u32, bytes: &[u8]) -> Result<(), JournalError> {
        let books::Contents { settled, bounds } = books::check(number, bytes, self.names)?;
        for (kept, settled) in self.kept.settlements.iter_mut().zip(settled) {
            *kept += settled;
        }
        if let Some((first, last)) = bounds {
            self.report.at(first);
            self.report.at(last);
        }
        Ok(())
    }

    /// For books that are damaged or lost: what the segment has that they were made of, if it is
    /// still there, or the blocks that are whole.
    fn instead_of_books(
        &mut self,
        number: u32,
        plan: &Plan,
        damaged: &[u8],
        file: File,
    ) -> Result<Remains, JournalError> {
        let name = Kind::Books.file_name(number);
        let what = match file {
            File::Damaged(what) => what,
            File::Whole | File::Missing => "it is missing".into(),
        };
        if plan.has(Kind::Segment, number) {
            self.report.line(format_args!("{name}: {what}: its segment is there instead"));
            return self.remains(number);
        }
        let mut found = Remains::default();
        if !books::are_old(damaged) {
            let take = |mut lines| found.settled.append(&mut lines);
            volume::whole_lines(number, damaged, self.names, take);
            found.sort();
        }
        let (kept, bytes) = (found.settled.len(), damaged.len());
        match volume::span(number, damaged) {
            Ok(span) if span.lines == kept as u64 => {
                let rest = "all its settlements are there";
                self.report.line(format_args!("{name}: {what}: {rest}"));
            }
            Ok(span) => {
                let lost = span.lines.saturating_sub(kept as u64);
                let what =
                    format_args!("{what}: {lost} of {} settlements, {bytes} bytes", span.lines);
                self.report.lost(&name, bytes as u64, what);
            }
            Err(_) => {
                let what = format_args!(
                    "{what}: nobody knows how many settlements; {kept} are left, {bytes} bytes"
                );
                self.report.lost(&name, bytes as u64, what);
            }
        }
        Ok(found)
    }

    /// What there is left in a segment that is not needed for anything else.
    fn remains(&mut self, number: u32) -> Result<Remains, JournalError> {
        let name = Kind::Segment.file_name(number);
        let mut bytes = Vec::new();
        let read = self.from.read_records(&name, &mut bytes);
        read.map_err(|error| JournalError::io("read", &name, error))?;
        let mut remains = Remains::default();
        let report = &mut self.report;
        Contents::without_head(number, &bytes, self.names).walk_over_holes(|offset, piece| {
            match piece {
                Piece::Record(record) => remains.add(offset, &record),
                Piece::Hole { bytes, what } => tell_hole(report, &name, offset, bytes, what),
            }
            Ok(())
        })?;
        remains.sort();
        Ok(remains)
    }

    /// Writes the accounts that belong to the last books, if they are whole: whether they are.
    fn accounts(
        &mut self,
        number: u32,
        plan: &Plan,
        known: Option<Flags>,
    ) -> Result<bool, JournalError> {
        if !known.map_or(plan.has(Kind::Accounts, number), |flags| flags.has_accounts) {
            return Ok(false);
        }
        let name = Kind::Accounts.file_name(number);
        let (bytes, file) = plan::read(self.from, self.names, Kind::Accounts, number)?;
        let what = match file {
            File::Whole => {
                let accounts = States::new(number, &bytes)?.collect()?;
                let newest = accounts.values().filter_map(|it| it.newest.front());
                if let Some((_, at)) = newest.max_by_key(|(_, at)| *at) {
                    self.report.at(whole_ms(*at));
                }
                self.kept.accounts = accounts.len();
                self.bridge.begin(&accounts);
                self.write(&name, &bytes)?;
                return Ok(true);
            }
            File::Missing => "it is missing".into(),
            File::Damaged(what) => what,
        };
        let (length, rest) = (bytes.len(), "what is not told by later entries begins at nothing");
        self.report.lost(
            &name,
            length as u64,
            format_args!("{what}: every account's state, {length} bytes; {rest}"),
        );
        Ok(false)
    }

    /// Writes all notes that are left into one file: whether there are any. The last books and each
    /// of the notes name the ones before; where that is lost, the next lower ones are taken.
    fn notes(
        &mut self,
        number: u32,
        plan: &Plan,
        known: Option<Flags>,
    ) -> Result<bool, JournalError> {
        let below = |limit: u32| {
            let numbers = plan.files.iter().filter(|(kind, _)| *kind == Kind::Notes);
            numbers.map(|(_, number)| *number).filter(|number| *number < limit).max()
        };
        let mut next = known.map_or_else(|| below(number.saturating_add(1)), |flags| flags.notes);
        let mut files = Vec::new();
        while let Some(number) = next {
            let (bytes, file) = plan::read(self.from, self.names, Kind::Notes, number)?;
            let before = notes::count_and_before(number, &bytes);
            next = before.map_or_else(|_| below(number), |(_, before)| before);
            let what = match file {
                File::Whole => {
                    files.push(notes::read(number, &bytes, self.names)?);
                    continue;
                }
                File::Missing => "it is missing".into(),
                File::Damaged(what) => what,
            };
            let (name, length) = (Kind::Notes.file_name(number), bytes.len());
            let rest = "what was adopted and is not over or not told, and rejections; of payments of \
                        the other instance that wait here, some may be paid by nobody";
            self.report.lost(&name, length as u64, format_args!("{what}: {rest}, {length} bytes"));
        }
        let all = files.into_iter().rev().flatten().collect();
        let all = notes::condense(all, true);
        if !all.is_empty() {
            let bytes = notes::encode(number, None, &all, Reference::to(self.names));
            self.write(&Kind::Notes.file_name(number), &bytes)?;
        }
        Ok(!all.is_empty())
    }

    /// The ids of a segment that was rewritten, or of several.
    fn ids(
        &mut self,
        number: u32,
        plan: &Plan,
        remains: Option<&Remains>,
    ) -> Result<(), JournalError> {
        let first = plan.ids.get(&number).copied();
        if first.is_none() && !plan.lacks_ids(number) {
            return Ok(());
        }
        let name = Kind::Ids.file_name(number);
        let (bytes, file) = plan::read(self.from, self.names, Kind::Ids, number)?;
        let from_segment = remains.filter(|_| plan.has(Kind::Segment, number));
        let what = match file {
            File::Whole => {
                if let (Some(remains), None) = (remains, from_segment) {
                    self.ask_about_lost(number, &bytes, remains)?;
                }
                return self.write(&name, &bytes);
            }
            _ if from_segment.is_some() => String::new(),
            File::Missing => "it is missing".into(),
            File::Damaged(what) => what,
        };
        if from_segment.is_none() {
            let length = bytes.len();
            let ids = "the ids accepted then, which count as new if they are sent again";
            self.report.lost(&name, length as u64, format_args!("{what}: {ids}, {length} bytes"));
        }
        let ids = from_segment.map_or(&[][..], |remains| &remains.ids);
        self.write(&name, &books::encode_ids(first.unwrap_or(number), number, ids))
    }

    /// Whatever was accepted in segments of which settlements are lost, but for those that are left.
    fn ask_about_lost(
        &mut self,
        number: u32,
        bytes: &[u8],
        left: &Remains,
    ) -> Result<(), JournalError> {
        let left: HashSet<PaymentId> = left.settled.iter().filter_map(|line| line.id).collect();
        let mut lines = String::new();
        for (id, amount) in books::ids(number, bytes)?.filter(|(id, _)| !left.contains(id)) {
            let _ = writeln!(lines, "{id} {amount} accepted, settled unless it is below again");
        }
        self.asked.add(self.to, &lines)
    }

    /// A segment without its holes, or an empty one in its place.
    fn segment(&mut self, number: u32, plan: &Plan) -> Result<(), JournalError> {
        let name = Kind::Segment.file_name(number);
        let mut out = begin_segment(self.to, self.names, number);
        if number == plan.lowest && plan.stands_alone {
            self.put(number, Record::Event(Event::Purged), &mut out);
        }
        let ending = match plan.has(Kind::Segment, number) {
            true => self.records(number, &name, &mut out)?,
            false => {
                self.end_is_missing();
                self.report.lost(&name, 0, "it is missing, with all its records");
                Ending::Blank
            }
        };
        if number < plan.highest || ending == Ending::Sealed {
            self.put(number, Record::End, &mut out);
        } else {
            // There was room for the end of the one in use, and so there is here.
            out.resize(out.len() + END_BYTES, 0);
        }
        self.write(&name, &out)?;
        match number == plan.highest && ending == Ending::Sealed {
            true => self.next_is_missing(number),
            false => Ok(()),
        }
    }

    /// Behind a full segment, and behind its books, there has always been another one.
    fn next_is_missing(&mut self, number: u32) -> Result<(), JournalError> {
        let next = number + 1;
        let name = Kind::Segment.file_name(next);
        self.report.lost(&name, 0, "it is missing, and the one before it was full");
        let mut out = begin_segment(self.to, self.names, next);
        out.resize(out.len() + END_BYTES, 0);
        self.write(&name, &out)
    }

    /// Hands on the records of a segment, and says how they end.
    fn records(
        &mut self,
        number: u32,
        name: &str,
        out: &mut Vec<u8>,
    ) -> Result<Ending, JournalError> {
        let mut bytes = Vec::new();
        let read = self.from.read_records(name, &mut bytes);
        read.map_err(|error| JournalError::io("read", name, error))?;
        let head = match head::decode(Kind::Segment, number, &bytes, self.names) {
            Ok(_) => None,
            Err(JournalError::Corrupt { what, .. }) => Some(what),
            Err(error) => return Err(error),
        };
        let mut count = 0_usize;
        let contents = Contents::without_head(number, &bytes, self.names);
        let (offset, ending) = contents.walk_over_holes(|offset, piece| {
            match piece {
                Piece::Record(record) => {
                    count += 1;
                    self.end_is_missing();
                    self.take(number, name, offset, record, out);
                }
                Piece::Hole { bytes, what } => {
                    tell_hole(&mut self.report, name, offset, bytes, what);
                }
            }
            Ok(())
        })?;
        match head {
            Some(what) if count == 0 && ending != Ending::Sealed => {
                let length = bytes.len();
                let what = format!("{what}, and no record behind it: {length} bytes");
                self.report.lost(name, length as u64, what);
                return Ok(Ending::Bad("a damaged head"));
            }
            Some(what) => self.report.line(format_args!("{name}: {what}: its records are used")),
            None => {}
        }
        if ending == Ending::Blank && bytes.len() < offset + END_BYTES {
            let what = format!("it is cut off at offset {offset}, with whatever was behind");
            self.report.lost(name, 0, what);
        } else if ending == Ending::Blank {
            self.unended = Some((number, offset));
        }
        Ok(ending)
    }

    /// Something has come, or must have, behind a segment that looked like the one in use.
    fn end_is_missing(&mut self) {
        if let Some((number, offset)) = self.unended.take() {
            let what = format!("its end from offset {offset} on is missing, and others follow");
            self.report.lost(&Kind::Segment.file_name(number), 0, what);
        }
    }

    /// Hands on one record.
    fn take(&mut self, number: u32, name: &str, offset: usize, record: Record, out: &mut Vec<u8>) {
        written_at(&record).into_iter().for_each(|at| self.report.at(at));
        match record {
            // All that is in the new segments is on the disk, and closed.
            Record::Synced { .. } | Record::End => return,
            Record::Entry(ref entry) => return self.take_entry(number, name, offset, entry, out),
            Record::Event(ref event) => self.apply(number, event),
            Record::Carried { id, amount, accepted_at, attempt, attempts } => {
                self.attempted.remove(&id);
                let payment = Open { amount, accepted_at, attempt, attempts, home: number };
                self.payments.carry(id, payment);
            }
        }
        self.kept.records += 1;
        self.put(number, record, out);
    }

    fn seed(&self, number: u32) -> Seed {
        Seed::of_segment(number, Reference::to(self.names).count)
    }

    /// Puts a record behind the others of a segment.
    fn put(&self, number: u32, record: Record, out: &mut Vec<u8>) {
        record.encode(self.seed(number), out.len(), out);
    }

    fn apply(&mut self, number: u32, event: &Event) {
        match *event {
            Event::Attempted { id, processor, requested_at } if !self.payments.contains(id) => {
                self.attempted.insert(id, (processor, requested_at));
            }
            Event::Accepted { id, .. }
            | Event::Foreign { id }
            | Event::Forwarded { id, .. }
            | Event::Rejected(Rejection { id, .. }) => _ = self.attempted.remove(&id),
            Event::Settled { id, settlement, .. } => {
                self.attempted.remove(&id);
                self.kept.settlements[settlement.processor.index()] += 1;
            }
            Event::Resolved(ref it) => _ = self.attempted.remove(&it.id),
            Event::Purged => self.attempted.clear(),
            Event::Attempted { .. }
            | Event::Released { .. }
            | Event::Adopted { .. }
            | Event::Told { .. } => {}
        }
        self.payments.apply(number, event);
    }

    fn take_entry(
        &mut self,
        number: u32,
        name: &str,
        offset: usize,
        entry: &Entry,
        out: &mut Vec<u8>,
    ) {
        match self.bridge.take(entry, &mut self.bridged) {
            Ok(None) => {}
            Ok(Some(Gap { account, first, last, sum })) => {
                let sum = crate::base::money::Total(sum);
                let what = format!(
                    "before offset {offset}: entries {first} to {last} of account {}, {sum} in all; \
                     an entry \"{}\" stands for them",
                    account.0,
                    bridge::DESCRIPTION
                );
                self.report.lost(name, 0, what);
                self.report.at(whole_ms(entry.at));
            }
            Err(what) => {
                let bytes = Record::Entry(*entry).length(self.seed(number));
                return tell_hole(&mut self.report, name, offset, bytes, what);
            }
        }
        self.kept.records += 1;
        self.bridged.iter().for_each(|entry| self.put(number, Record::Entry(*entry), out));
    }

    /// Lists what is to be asked about, and says what is kept and what is lost.
    fn end(mut self) -> Result<Option<Window>, JournalError> {
        let has_lost = self.report.has_lost();
        if has_lost {
            self.ask_about_open()?;
        }
        let Salvage { mut report, kept, payments, asked, names, .. } = self;
        let asked = asked.end()?;
        let Kept { records, settlements, accounts } = kept;
        let settled = settled_at(settlements, names);
        let directory = report.directory();
        report.line(format_args!(
            "{directory}kept: {records} records, {settled}, {} outstanding payments, {accounts} accounts as they were rewritten",
            payments.len()
        ));
        let unwritten = |error| JournalError::io("write", "the report", error);
        let Some(window) = report.window() else {
            return report.end().map(|()| None).map_err(unwritten);
        };
        let Window { holes, bytes, from, to } = &window;
        report.line(format_args!("{directory}lost: {holes} places, {bytes} bytes known of"));
        if directory.is_empty() {
            report.line(format_args!(
                "ask the processors: settlements requested between {from} and {to} may be missing, \
                 and of payments that had waited for long, older ones"
            ));
        } else {
            report.line(format_args!(
                "look into the accounts: entries between {from} and {to} may be missing"
            ));
        }
        if asked > 0 {
            report.line(format_args!("ask about: {asked} payments, which {ASK_NAME} lists"));
        }
        report.end().map_err(unwritten)?;
        Ok(Some(window))
    }

    /// What a start asks about by itself, and what only people can ask about.
    fn ask_about_open(&mut self) -> Result<(), JournalError> {
        let mut lines = String::new();
        for (id, Open { amount, accepted_at, attempt, .. }) in self.payments.iter() {
            let _ = match attempt {
                None => writeln!(lines, "{id} {amount} waiting, accepted {accepted_at}"),
                Some((processor, at)) => {
                    writeln!(
                        lines,
                        "{id} {amount} in doubt at {}, requested {at}",
                        self.names.name_of(*processor)
                    )
                }
            };
        }
        for (id, (processor, at)) in &self.attempted {
            let processor = self.names.name_of(*processor);
            let _ = writeln!(lines, "{id} ? attempted at {processor}, requested {at}; not known");
        }
        self.asked.add(self.to, &lines)
    }
}

fn tell_hole(report: &mut Report<'_>, name: &str, offset: usize, bytes: usize, what: &str) {
    let end = offset + bytes;
    let line = format!("{bytes} bytes from offset {offset} to {end}, {what}");
    report.lost(name, bytes as u64, line);
}

/// The head of a new segment.
fn begin_segment(to: &dyn Storage, names: &Names, number: u32) -> Vec<u8> {
    let mut own = [0; OWN_BYTES];
    own[..16].copy_from_slice(&to.boot());
    head::encode(Kind::Segment, number, own, Reference::to(names)).to_vec()
}

/// Whose a journal is, as far as that can be read: and what is wrong with the file that says so.
///
/// # Errors
/// If it cannot be read, or is of another version.
fn found_identity(from: &dyn Storage) -> Result<(Identity, Option<&'static str>), JournalError> {
    match recover::read_identity(from) {
        Ok(Some(identity)) => return Ok((identity, None)),
        Ok(None) => guess_identity(from, random()).map(|it| (it, Some("it is missing"))),
        Err(JournalError::Corrupt { what, .. }) => {
            guess_identity(from, random()).map(|it| (it, Some(what)))
        }
        Err(error) => return Err(error),
    }
    .map_err(|error| JournalError::io("read", identity::FILE_NAME, error))
}

/// What can be read of `identity`, with a table of names under which the files can have been written.
///
/// # Errors
/// If it cannot be read.
pub(super) fn guess_identity(from: &dyn Storage, new_id: u128) -> io::Result<Identity> {
    let mut bytes = Vec::new();
    match from.read(identity::FILE_NAME, IDENTITY_BYTES_MAX, &mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (mut tables, mut head) = (HashSet::new(), Vec::new());
    for name in from.names()? {
        let Some((kind, number)) = Kind::of_file_name(&name) else { continue };
        // What cannot be read is told when the whole file is.
        if from.read(&name, FILE_HEAD_BYTES, &mut head).is_ok()
            && let Ok(head) = head::decode_nameless(kind, number, &head)
            && head.names != Reference::NONE
        {
            tables.insert(head.names);
        }
    }
    let fits = |names: &Names| tables.iter().all(|table| table.fits(names));
    Ok(Identity::guess(&bytes, new_id, fits))
}

/// Writes whose the new journal is, and that it is a copy: whether that was known for sure.
fn salvage_identity(
    to: &dyn Storage,
    identity: Identity,
    damage: Option<&str>,
    out: &mut dyn Write,
) -> Result<bool, JournalError> {
    if let Some(what) = damage {
        let (name, owner) = (identity::FILE_NAME, &identity.owner);
        let processors = owner.processors.iter().map(|(_, name, url)| format!("{name} {url}"));
        let line = format!(
            "lost: {name}: {what}: taken to be of instance {}, {}; a start with other settings says \
             which --accept-change it needs",
            owner.instance,
            processors.collect::<Vec<_>>().join(", ")
        );
        let unwritten = |error| JournalError::io("write", "the report", error);
        writeln!(out, "{line}").map_err(unwritten)?;
    }
    write_identity(to, identity.to_be_known_as_copy()).map(|()| damage.is_none())
}
