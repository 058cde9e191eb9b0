//! The shelf: everything that is settled, and where it is. In volumes (`volume.rs`), and what is in
//! segments that are not rewritten yet: of each of those a summary by time, and where in its file
//! each settlement is.
//!
//! Whoever asks takes what the shelf has at one moment, and reads without holding its lock; a volume
//! stays readable after its file has been replaced. So a total is that of one moment, and nothing is
//! counted twice or not at all while segments are rewritten and volumes merged.
//!
//! Without a journal everything is summed up in memory, and the newest settlements are kept there.

use super::JournalError;
use super::abridged::Abridged;
use super::head::{self, Kind};
use super::record::{Decoded, Record, Seed};
use super::storage::{Storage, random};
use super::volume::{Span, Volume, hash_of};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::summary::SummaryIndex;
use crate::payments::{Each, Line, PaymentId, Processor, Settlement, Totals, Window};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Without a journal so many of the settlements that came last can be asked for.
const IN_MEMORY_MAX: usize = 65_536;

/// See the module.
pub struct Shelf {
    on_disk: OnDisk,
    recent: BTreeMap<u32, Recent>,
    in_memory: VecDeque<Line>,
    /// What is of lower segments has been purged.
    first: u32,
    /// Of the marks: ids come from outside, and many of one mark would have to be read.
    key: u128,
}

impl Default for Shelf {
    fn default() -> Shelf {
        let (on_disk, recent, in_memory) = Default::default();
        Shelf { on_disk, recent, in_memory, first: 0, key: random() }
    }
}

/// What is in books, at one moment.
#[derive(Clone, Default)]
pub struct OnDisk {
    /// By the number of the last segment of each.
    pub volumes: Arc<BTreeMap<u32, Arc<Volume>>>,
    /// What has left them, all of it of segments before theirs.
    pub abridged: Option<Arc<Abridged>>,
}

impl OnDisk {
    /// # Errors
    /// If what is needed of it cannot be read, is damaged, or has been archived.
    pub fn totals(&self, window: Window) -> Result<Each<Totals>, JournalError> {
        let mut totals = Each::<Totals>::default();
        for volume in self.volumes.values() {
            add(&mut totals, volume.totals(window)?);
        }
        if let Some(abridged) = &self.abridged {
            add(&mut totals, abridged.totals(window)?);
        }
        Ok(totals)
    }
}

/// What is settled in a segment that is not rewritten.
#[derive(Default)]
struct Recent {
    summary: SummaryIndex,
    /// A few bits of each id, to pass over the others quickly, and where its record is.
    marks: Vec<u32>,
    offsets: Vec<u32>,
}

/// Where a payment may be, as the shelf was at one moment.
pub struct Places {
    /// Segments and offsets of records, the latest first.
    pub records: Vec<(u32, usize)>,
    pub volumes: Arc<BTreeMap<u32, Arc<Volume>>>,
    pub in_memory: Option<Line>,
}

impl Shelf {
    /// A settlement whose record begins there.
    pub fn record(&mut self, segment: u32, offset: usize, id: PaymentId, settled: Settlement) {
        let recent = self.recent.entry(segment).or_default();
        recent.summary.record(settled);
        recent.marks.push(hash_of(id, self.key));
        recent.offsets.push(offset as u32);
    }

    /// A settlement of which there is no record.
    pub fn keep_in_memory(&mut self, line: Line) {
        self.recent.entry(0).or_default().summary.record(line.settlement);
        if self.in_memory.len() == IN_MEMORY_MAX {
            self.in_memory.pop_front();
        }
        self.in_memory.push_back(line);
    }

    /// The settlements of books of an older layout, which count until they are rewritten as a volume.
    pub fn add_old(&mut self, number: u32, lines: &[Line]) {
        let summary = &mut self.recent.entry(number).or_default().summary;
        for processor in Processor::CONTEST {
            let of_it =
                lines.iter().map(|line| line.settlement).filter(|it| it.processor == processor);
            let run =
                of_it.map(|it: Settlement| -> (Timestamp, Cents) { (it.requested_at, it.amount) });
            summary.record_run(processor, run);
        }
    }

    /// This volume takes the place of its segments, or of the volumes of those, which are returned:
    /// whoever is the last to have one waits for the disk when it is dropped.
    pub fn put(&mut self, volume: Arc<Volume>) -> Vec<Arc<Volume>> {
        let span = volume.span();
        if span.last < self.first {
            // The keeper was at it when all was forgotten.
            return vec![volume];
        }
        self.recent.retain(|segment, _| !(span.first..=span.last).contains(segment));
        let old = self.take_off(span);
        Arc::make_mut(&mut self.on_disk.volumes).insert(span.last, volume);
        old
    }

    /// These totals take the place of all volumes of their segments, which are returned, and of the
    /// totals before.
    pub fn abridge(&mut self, abridged: Abridged) -> Vec<Arc<Volume>> {
        let span = abridged.span();
        if span.last < self.first {
            return Vec::new();
        }
        self.on_disk.abridged = Some(Arc::new(abridged));
        self.take_off(span)
    }

    fn take_off(&mut self, Span { first, last, .. }: Span) -> Vec<Arc<Volume>> {
        let volumes = Arc::make_mut(&mut self.on_disk.volumes);
        let old: Vec<u32> = volumes.range(first..=last).map(|(last, _)| *last).collect();
        old.iter().filter_map(|last| volumes.remove(last)).collect()
    }

    /// Forgets everything of segments before this one.
    pub fn forget_before(&mut self, first: u32) {
        *self = Shelf { first, ..Shelf::default() };
    }

    pub fn volumes(&self) -> Arc<BTreeMap<u32, Arc<Volume>>> {
        self.on_disk.volumes.clone()
    }

    pub fn on_disk(&self) -> OnDisk {
        self.on_disk.clone()
    }

    /// The totals of what is in no books, and the books.
    pub fn totals(&self, window: Window) -> (Each<Totals>, OnDisk) {
        let mut totals = Each::<Totals>::default();
        for recent in self.recent.values() {
            add(&mut totals, recent.summary.totals(window));
        }
        (totals, self.on_disk())
    }

    /// The totals of everything. Reads from the disk.
    ///
    /// # Errors
    /// If what is needed of a volume cannot be read, or is damaged.
    pub fn read_totals(&self, window: Window) -> Result<Each<Totals>, JournalError> {
        let (mut totals, on_disk) = self.totals(window);
        add(&mut totals, on_disk.totals(window)?);
        Ok(totals)
    }

    pub fn places_of(&self, id: PaymentId) -> Places {
        let mark = hash_of(id, self.key);
        let mut records = Vec::new();
        for (segment, recent) in self.recent.iter().rev() {
            let marks = recent.marks.iter().zip(&recent.offsets).rev();
            let of_it = marks.filter(|(it, _)| **it == mark);
            records.extend(of_it.map(|(_, offset)| (*segment, *offset as usize)));
        }
        let in_memory = self.in_memory.iter().rev().find(|line| line.id == Some(id)).copied();
        Places { records, volumes: self.volumes(), in_memory }
    }

    /// Where in segments that are not rewritten settlements are: of each the offsets of its records.
    pub fn offsets(&self) -> Vec<(u32, Vec<u32>)> {
        let with_some = self.recent.iter().filter(|(_, recent)| !recent.offsets.is_empty());
        with_some.map(|(segment, recent)| (*segment, recent.offsets.clone())).collect()
    }

    /// Everything settled, as it is in the files, the archives too.
    #[cfg(test)]
    pub fn lines(&self, storage: &dyn Storage, names: &Names) -> Vec<Line> {
        let mut lines = recorded(storage, &self.offsets(), names).unwrap();
        let archives = self.on_disk.abridged.iter().flat_map(|it| it.archives());
        for archive in archives {
            let volume = archive.open(storage, names).unwrap().expect("an archive");
            assert_eq!(volume.total(), archive.totals);
            lines.extend(volume.lines().map(Result::unwrap));
        }
        for volume in self.on_disk.volumes.values() {
            lines.extend(volume.lines().map(Result::unwrap));
        }
        lines
    }

    /// What it takes in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let of_recent = |it: &Recent| {
            let words = it.marks.capacity() + it.offsets.capacity();
            it.summary.memory_bytes() + words * size_of::<u32>()
        };
        let recent: usize = self.recent.values().map(of_recent).sum();
        let OnDisk { volumes, abridged } = &self.on_disk;
        let volumes: usize = volumes.values().map(|volume| volume.memory_bytes()).sum();
        let abridged: usize = abridged.iter().map(|it| it.memory_bytes()).sum();
        recent + volumes + abridged + self.in_memory.capacity() * size_of::<Line>()
    }
}

/// The settlements whose records are there.
///
/// # Errors
/// If these cannot be read, or are not what they were when they were replayed.
pub fn recorded(
    storage: &dyn Storage,
    segments: &[(u32, Vec<u32>)],
    names: &Names,
) -> Result<Vec<Line>, JournalError> {
    let (mut lines, mut bytes) = (Vec::new(), Vec::new());
    for (segment, offsets) in segments {
        let name = Kind::Segment.file_name(*segment);
        let read = storage.read_records(&name, &mut bytes);
        read.map_err(|error| JournalError::io("read", &name, error))?;
        let head = head::decode(Kind::Segment, *segment, &bytes, names)?;
        let seed = Seed::of_segment(*segment, head.names.count);
        for offset in offsets {
            let offset = *offset as usize;
            let line = settled_record(seed, bytes.get(offset..).unwrap_or_default(), offset);
            let what = "a settlement that is there no more";
            let corrupt = || JournalError::Corrupt { file: name.clone(), offset, what };
            lines.push(line.ok_or_else(corrupt)?);
        }
    }
    Ok(lines)
}

/// The settlement whose record begins with these bytes, which are at that offset of their segment.
pub fn settled_record(seed: Seed, bytes: &[u8], offset: usize) -> Option<Line> {
    match Record::decode_at(seed, bytes, offset) {
        Decoded::Record {
            record: Record::Event(Event::Settled { id, settlement, attempts }),
            ..
        } => Some(Line { id: Some(id), settlement, attempts }),
        _ => None,
    }
}

/// Adds what was settled at each processor.
pub fn add(to: &mut Each<Totals>, more: Each<Totals>) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}
