//! Abridged books: of payments that were settled long ago, the totals of each day, and in which files
//! the payments themselves are (`archive.rs`).
//!
//! ```text
//! head     48   see `head.rs`
//! days          for each day of which there is something, in their order: its number since 1970 (UTC)
//!               8, and for each processor how many settlements 8 and how many cents 16
//! archives      for each archive, in their order: its number 4, its first segment 4, the checksum at
//!               the end of its head 4, zero 4, times of its first and its last line 16, and for each
//!               processor how many settlements 8 and how many cents 16
//! ```
//!
//! All numbers are little endian. There are sums for as many processors as the head says there are names.
//! They stand in the place of all the volumes whose lines have left: in
//! the same name, with the same meaning of the head. So whatever looks after volumes looks after these.
//!
//! The invariant: days and archives come to the same totals.

use super::JournalError;
use super::books::{Flags, Own, with_room_for_head};
use super::head::{self, FILE_HEAD_BYTES, Kind};
use super::names::Reference;
use super::shelf::add;
use super::storage::Storage;
use super::volume::{Span, Volume};
use crate::base::clock::{MS_PER_DAY, Timestamp};
use crate::base::money::Total;
use crate::payments::names::Names;
use crate::payments::{Each, Line, Settlement, Totals, Window};
use std::collections::BTreeMap;
use std::io;

/// Of one processor.
const TOTALS_BYTES: usize = 8 + 16;

/// The lengths of a day and of an archive under a table of so many names.
fn lengths(names: u8) -> (usize, usize) {
    let totals = usize::from(names) * TOTALS_BYTES;
    (8 + totals, 16 + 16 + totals)
}

const ARCHIVE: &str = ".archive";

/// How the file is called that has the lines of the segments up to this one.
pub fn archive_name(number: u32) -> String {
    format!("{number:010}{ARCHIVE}")
}

/// Whether this is the name of such a file.
pub fn is_archive(name: &str) -> bool {
    let number = name.strip_suffix(ARCHIVE).and_then(|number| number.parse().ok());
    number.is_some_and(|number| archive_name(number) == name)
}

/// A file of lines that have left the books: a volume by another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    pub number: u32,
    /// The first segment it is of.
    pub first: u32,
    /// At the end of its head, by which it is known.
    pub checksum: u32,
    /// The times of its first line …
    pub from: Timestamp,
    /// … and of its last.
    pub to: Timestamp,
    pub totals: Each<Totals>,
}

impl Archive {
    pub fn name(&self) -> String {
        archive_name(self.number)
    }

    pub fn lines(&self) -> u64 {
        self.totals.iter().map(|it| it.count).sum()
    }

    /// Opens it, if it is there: an archive may have been moved away.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is another one.
    pub fn open(
        &self,
        storage: &dyn Storage,
        names: &Names,
    ) -> Result<Option<Volume>, JournalError> {
        let name = self.name();
        let file = match storage.open_to_read(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JournalError::io("open", &name, error)),
        };
        let mut head = Vec::new();
        let read = storage.read(&name, FILE_HEAD_BYTES, &mut head);
        read.map_err(|error| JournalError::io("read", &name, error))?;
        if head::checksum_of(&head) != self.checksum {
            let what = "it is another one than the books name";
            return Err(JournalError::Corrupt { file: name, offset: 0, what });
        }
        Volume::named(name, self.number, file, names).map(Some)
    }
}

/// What was settled on each day, as it is added up.
#[derive(Debug, Default)]
pub struct Days {
    days: BTreeMap<i64, Each<Totals>>,
    bounds: Option<(Timestamp, Timestamp)>,
}

impl Days {
    pub fn add(&mut self, line: &Line) {
        let Settlement { processor, amount, requested_at: at } = line.settlement;
        let day = self.days.entry(at.0.div_euclid(MS_PER_DAY)).or_default();
        day[processor.index()] += Totals { count: 1, amount: Total(amount.0.into()) };
        let (first, last) = self.bounds.unwrap_or((at, at));
        self.bounds = Some((first.min(at), last.max(at)));
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abridged {
    number: u32,
    first: u32,
    archives: Vec<Archive>,
    /// Each with the totals of all days before it.
    days: Vec<(i64, Each<Totals>)>,
    total: Each<Totals>,
}

impl Abridged {
    /// With what has left the segments from `first` to `number` since, into an archive whose head has
    /// this checksum. `None` if that is nothing.
    pub fn with(
        before: Option<&Abridged>,
        [first, number]: [u32; 2],
        checksum: u32,
        left: Days,
    ) -> Option<Abridged> {
        let (from, to) = left.bounds?;
        let mut totals = Each::<Totals>::default();
        left.days.values().for_each(|day| add(&mut totals, *day));
        let mut archives = before.map_or(Vec::new(), |it| it.archives.clone());
        archives.push(Archive { number, first, checksum, from, to, totals });
        let mut days = left.days;
        for (day, totals) in before.iter().flat_map(|it| it.each_day()) {
            add(days.entry(day).or_default(), totals);
        }
        let mut sum = Each::<Totals>::default();
        let days = days.into_iter().map(|(day, totals)| {
            let before = sum;
            add(&mut sum, totals);
            (day, before)
        });
        let (days, first) = (days.collect(), before.map_or(first, |it| it.first));
        Some(Abridged { number, first, archives, days, total: sum })
    }

    pub fn encode(&self, flags: Flags, names: Reference) -> Vec<u8> {
        let (day_bytes, archive_bytes) = lengths(names.count);
        let body = self.days.len() * day_bytes + self.archives.len() * archive_bytes;
        let mut bytes = with_room_for_head(body);
        for (day, totals) in self.each_day() {
            bytes.extend_from_slice(&day.to_le_bytes());
            put(totals, names.count, &mut bytes);
        }
        for archive in &self.archives {
            for word in [archive.number, archive.first, archive.checksum, 0] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            for Timestamp(at) in [archive.from, archive.to] {
                bytes.extend_from_slice(&at.to_le_bytes());
            }
            put(archive.totals, names.count, &mut bytes);
        }
        let counts = [self.lines(), u64::from(self.first) | (self.days.len() as u64) << 32];
        let flags = Flags { is_abridged: true, ..flags };
        let own = Own { flags: flags.bits(), counts, notes: flags.notes, names };
        own.finish(Kind::Books, self.number, &mut bytes);
        bytes
    }

    /// # Errors
    /// If the file is not whole.
    pub fn read(number: u32, bytes: &[u8], names: &Names) -> Result<Abridged, JournalError> {
        let corrupt = |offset: usize, what| {
            let file = Kind::Books.file_name(number);
            JournalError::Corrupt { file, offset, what }
        };
        let (own, checksum) = Own::read(head::decode(Kind::Books, number, bytes, names)?);
        let body = bytes.get(FILE_HEAD_BYTES..).unwrap_or_default();
        if crc32c::crc32c(body) != checksum {
            return Err(corrupt(FILE_HEAD_BYTES, "a checksum that does not match"));
        }
        let (first, days) = (own.counts[1] as u32, (own.counts[1] >> 32) as usize);
        let (day_bytes, archive_bytes) = lengths(own.names.count);
        let parts = days.checked_mul(day_bytes).and_then(|at| body.split_at_checked(at));
        let parts = parts.filter(|(_, archives)| archives.len().is_multiple_of(archive_bytes));
        let may_be = Flags::of(&own).is_abridged && (1..=number).contains(&first);
        let Some((days, archives)) = parts.filter(|_| may_be) else {
            return Err(corrupt(0, "a length that differs from what its head says"));
        };
        let mut abridged = Abridged { number, first, ..Abridged::default() };
        match abridged.fill(days, archives, own.names.count) {
            Some(lines) if lines == own.counts[0] => Ok(abridged),
            _ => Err(corrupt(FILE_HEAD_BYTES, "days and archives that do not fit each other")),
        }
    }

    /// How many lines they are of; `None` if they do not come to the same.
    fn fill(&mut self, days: &[u8], archives: &[u8], names: u8) -> Option<u64> {
        let (day_bytes, archive_bytes) = lengths(names);
        for bytes in days.chunks_exact(day_bytes) {
            let day = i64::from_le_bytes(*bytes.first_chunk()?);
            let is_later = self.days.last().is_none_or(|(last, _)| *last < day);
            let before = self.total;
            self.days.push((day, before));
            self.total = sum(before, take(&bytes[8..])?).filter(|_| is_later)?;
        }
        let mut total = Each::<Totals>::default();
        for bytes in archives.chunks_exact(archive_bytes) {
            let words: [&[u8]; 4] = [0, 4, 8, 12].map(|at| &bytes[at..at + 4]);
            let [number, first, checksum, _] =
                words.map(|it| it.first_chunk().copied().map_or(0, u32::from_le_bytes));
            let times: [&[u8]; 2] = [16, 24].map(|at| &bytes[at..at + 8]);
            let [from, to] =
                times.map(|it| it.first_chunk().copied().map_or(0, i64::from_le_bytes));
            let expected = self.archives.last().map_or(self.first, |last| last.number + 1);
            let totals = take(&bytes[32..])?;
            total = sum(total, totals)?;
            if first < expected || number < first || number > self.number || from > to {
                return None;
            }
            let (from, to) = (Timestamp(from), Timestamp(to));
            self.archives.push(Archive { number, first, checksum, from, to, totals });
        }
        (total == self.total && !self.archives.is_empty()).then(|| self.lines())
    }

    fn each_day(&self) -> impl Iterator<Item = (i64, Each<Totals>)> {
        let ends = self.days.iter().skip(1).map(|(_, before)| *before).chain([self.total]);
        self.days.iter().zip(ends).map(|((day, before), end)| (*day, minus(end, *before)))
    }

    /// Settlements that they stand for.
    pub fn lines(&self) -> u64 {
        self.total.iter().map(|it| it.count).sum()
    }

    pub fn span(&self) -> Span {
        Span { first: self.first, last: self.number, lines: self.lines() }
    }

    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    pub fn total(&self) -> Each<Totals> {
        self.total
    }

    /// The times of the first settlement and of the last.
    pub fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        let from = self.archives.iter().map(|it| it.from).min()?;
        Some((from, self.archives.iter().map(|it| it.to).max()?))
    }

    /// What it takes in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.days.capacity() * size_of::<(i64, Each<Totals>)>()
            + self.archives.capacity() * size_of::<Archive>()
    }

    /// The exact totals of a window.
    ///
    /// # Errors
    /// [`JournalError::Archived`] if it begins or ends within a day of which there is something, and
    /// not before or behind all of it.
    pub fn totals(&self, window: Window) -> Result<Each<Totals>, JournalError> {
        let Some((first, last)) = self.bounds().filter(|_| !window.is_empty()) else {
            return Ok(Default::default());
        };
        // So a bound that is before or behind all of it cuts no day.
        let from = window.from.filter(|from| *from > first);
        let to = window.to.filter(|to| *to < last);
        if from.is_some_and(|from| from > last) || to.is_some_and(|to| to < first) {
            return Ok(Default::default());
        }
        let until = match to {
            Some(to) => self.before(Timestamp(to.0 + 1), last)?,
            None => self.total,
        };
        let outside = match from {
            Some(from) => self.before(from, last)?,
            None => Default::default(),
        };
        Ok(minus(until, outside))
    }

    /// The totals of everything before that moment.
    fn before(&self, at: Timestamp, last: Timestamp) -> Result<Each<Totals>, JournalError> {
        let day = at.0.div_euclid(MS_PER_DAY);
        let next = self.days.partition_point(|(it, _)| *it < day);
        let is_cut = at.0.rem_euclid(MS_PER_DAY) != 0
            && self.days.get(next).is_some_and(|(it, _)| *it == day);
        if is_cut {
            return Err(JournalError::Archived { until: last });
        }
        Ok(self.days.get(next).map_or(self.total, |(_, before)| *before))
    }
}

/// Of what is part of the other.
fn minus(all: Each<Totals>, part: Each<Totals>) -> Each<Totals> {
    std::array::from_fn(|index| Totals {
        count: all[index].count - part[index].count,
        amount: Total(all[index].amount.0 - part[index].amount.0),
    })
}

/// `None` if that is more than there can be.
fn sum(one: Each<Totals>, two: Each<Totals>) -> Option<Each<Totals>> {
    let mut sum = one;
    for (sum, more) in sum.iter_mut().zip(two) {
        sum.count = sum.count.checked_add(more.count).filter(|count| *count <= u64::MAX / 4)?;
        sum.amount = Total(sum.amount.0.checked_add(more.amount.0)?);
    }
    Some(sum)
}

fn put(totals: Each<Totals>, names: u8, out: &mut Vec<u8>) {
    for Totals { count, amount } in totals.into_iter().take(names.into()) {
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&amount.0.to_le_bytes());
    }
}

/// `None` if it is more money than so many settlements can come to.
fn take(bytes: &[u8]) -> Option<Each<Totals>> {
    let mut totals = Each::<Totals>::default();
    for (totals, bytes) in totals.iter_mut().zip(bytes.chunks_exact(TOTALS_BYTES)) {
        let count = u64::from_le_bytes(*bytes.first_chunk()?);
        let cents = i128::from_le_bytes(*bytes[8..].first_chunk()?);
        let most = u128::from(count) << 63;
        let amount = Total(Some(cents).filter(|cents| cents.unsigned_abs() <= most)?);
        *totals = Totals { count, amount };
    }
    Some(totals)
}
