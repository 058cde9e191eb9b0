//! Appending, writing, and the room that is kept free. Syncing is in `sync.rs`.
//!
//! The invariant: records reach the files in the order of their positions, each file only up to
//! what is in it, so after the death of the process the files hold a prefix of what was appended.
//!
//! # A full disk
//! Space is taken ahead: the segment in use and, made by the keeper as soon as the last one is
//! begun, the next. If the next cannot be made, what is left of the segment in use is kept for the
//! payments that are outstanding; an entry of a ledger needs none, it is over at once. The worst
//! case for a payment: one attempt and its settlement, each after a `Synced`
//! ([`Room::per_payment`]). Below that (and some slack) no more are accepted
//! ([`Writer::has_room`]). A payment can be attempted and released any number of times, so
//! attempts too stop when only the settlements of all outstanding payments would still fit
//! ([`Writer::has_room_for_attempt`]): at that point every attempt under way can end, and then
//! everything waits for space. The keeper tries again every second.
//!
//! Locks, taken in this order: keeping, syncing, writing, shelf, appending, next, manifest.

use super::head::{FILE_HEAD_BYTES, Kind};
use super::manifest::{self, Manifest, Named};
use super::names::Reference;
use super::outstanding::{Open, Outstanding};
use super::record::{
    ADOPTED_BYTES, ATTEMPTED_BYTES, CARRIED_BYTES, END_BYTES, ENTRY_BYTES_MAX, FORWARDED_BYTES,
    REJECTED_BYTES_MAX, RESOLVED_BYTES_MAX, Record, SETTLED_BYTES, SYNCED_BYTES, Seed, TOLD_BYTES,
    rejected_bytes,
};
use super::segment::Segment;
use super::shelf::{self, Shelf};
use super::storage::{Lack, Storage, StoredFile};
use super::{JournalError, Options, Position};
use crate::base::clock::Timestamp;
use crate::base::histogram::Histogram;
use crate::base::money::Cents;
use crate::ledger::Entry;
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::story::{self, Story};
use crate::payments::{
    Attempt, Attempts, Each, Line, PaymentId, Processor, Settlement, Totals, Window,
};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

/// How much room outstanding payments may still need, in bytes. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For what ends an attempt or a payment: a settlement, or a rejection, which tells the status of each
    /// processor.
    ending: usize,
}

impl Room {
    /// With so many names of processors.
    pub const fn of(names: usize) -> Room {
        let rejected = rejected_bytes(names as u8);
        let longest = if rejected > SETTLED_BYTES { rejected } else { SETTLED_BYTES };
        Room { ending: longest + SYNCED_BYTES }
    }

    /// Of one payment. Carrying it over needs no more.
    pub const fn per_payment(self) -> usize {
        ATTEMPTED_BYTES + SYNCED_BYTES + self.ending
    }

    /// Bytes to be kept free for so many outstanding payments.
    pub fn for_all(self, outstanding: usize) -> usize {
        outstanding.saturating_mul(self.per_payment())
    }

    /// How long a segment should be on a full disk at a start, with so many outstanding payments: some
    /// may be attempted again before they are over.
    pub fn to_start(self, outstanding: usize) -> usize {
        let twice = self.for_all(outstanding).saturating_mul(2);
        twice.saturating_add(FILE_HEAD_BYTES + ROOM_AT_LEAST)
    }

    /// A resolution, and the settlement before it.
    const fn to_resolve(self) -> usize {
        RESOLVED_BYTES_MAX + SYNCED_BYTES + self.ending
    }
}

const _: () = assert!(Room::of(2).per_payment() == 104 && CARRIED_BYTES + SYNCED_BYTES <= 104);
const _: () = assert!(Room::of(1).per_payment() == 104 && REJECTED_BYTES_MAX <= 56);
/// What one more payment or one more entry may need.
const ROOM_FOR_ONE: usize = ENTRY_BYTES_MAX + SYNCED_BYTES;
const _: () = assert!(ROOM_FOR_ONE >= Room::of(Processor::MAX).per_payment());

/// What one of [`Writer::append_all`] needs at most.
const ROOM_OF_NEWS: usize = SETTLED_BYTES + SYNCED_BYTES;
const _: () = assert!(ADOPTED_BYTES <= SETTLED_BYTES && TOLD_BYTES <= SETTLED_BYTES);
const _: () = assert!(FORWARDED_BYTES <= SETTLED_BYTES);

/// What is kept free besides when an attempt is started, at most: a few records of other threads.
const ATTEMPTS_SLACK: usize = 4096;

/// See [`Room::to_start`].
const ROOM_AT_LEAST: usize = 64 * 1024;

/// A buffer that has grown larger in a rush is given back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// See the module.
pub struct Writer {
    pub storage: Arc<dyn Storage>,
    pub options: Options,
    /// Under which all is written.
    pub names: Names,
    room: Room,
    appending: Mutex<Appending>,
    writing: Mutex<Writing>,
    next: Mutex<Next>,
    /// Held through a sync. Inside: memory to use again.
    pub(super) syncing: Mutex<Vec<Arc<Segment>>>,
    pub(super) waiting: Mutex<Vec<(Position, Waker)>>,
    pub(super) keeping: Mutex<super::keeper::Keeping>,
    pub(super) manifest: Mutex<Manifest>,
    /// What is settled is put there while it is appended, so that the keeper never has rewritten a
    /// segment of which the shelf does not know all.
    pub(super) shelf: Arc<Mutex<Shelf>>,
    appended: AtomicU64,
    written: AtomicU64,
    pub(super) synced: AtomicU64,
    /// Bytes for records in the segment in use.
    left: AtomicUsize,
    next_ready: AtomicBool,
    /// The next segment could not be made because too many files are open.
    lacks_files: AtomicBool,
    outstanding: AtomicUsize,
    /// How long they took, all segments of one together.
    pub(super) syncs: Histogram,
}

struct Next {
    /// The number it has or will have. Kept here because whoever makes it holds only this lock.
    number: u32,
    ready: Option<Segment>,
}

struct Appending {
    segment: Arc<Segment>,
    /// Where the next record goes.
    offset: usize,
    /// What is not written yet, and where in the segment it begins.
    pending: Vec<u8>,
    pending_at: usize,
    /// What is not written yet of segments that are full.
    sealed: Vec<(Arc<Segment>, usize, Vec<u8>)>,
    /// What the last `Synced` record says.
    marked: Position,
    /// The last segment that begins with a purge; 0 if none does.
    purged: u32,
    payments: Outstanding,
}

#[derive(Default)]
struct Writing {
    bytes: Vec<u8>,
    sealed: Vec<(Arc<Segment>, usize, Vec<u8>)>,
    /// Segments written to since they were last synced, oldest first.
    dirty: Vec<Arc<Segment>>,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    pub wrote: bool,
    pub new_segment: bool,
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a journal that failed is not used again")
}

/// What is known of the files.
pub struct Kept {
    pub keeping: super::keeper::Keeping,
    pub manifest: Manifest,
    pub shelf: Shelf,
    pub names: Names,
}

impl Writer {
    /// Goes on in a new, empty segment; everything before it is on the disk.
    pub fn new(
        storage: Arc<dyn Storage>,
        options: Options,
        segment: Segment,
        payments: Outstanding,
        kept: Kept,
    ) -> Writer {
        let Kept { keeping, manifest, shelf, names } = kept;
        let start = Position::new(segment.number, FILE_HEAD_BYTES);
        let room = Segment::room(segment.bytes);
        let outstanding = payments.len();
        let mut appending = Appending {
            segment: Arc::new(segment),
            offset: FILE_HEAD_BYTES,
            pending: Vec::new(),
            pending_at: FILE_HEAD_BYTES,
            sealed: Vec::new(),
            marked: Position::NONE,
            purged: 0,
            payments,
        };
        appending.payments.reserve(options.outstanding_at_first);
        Writer {
            storage,
            options,
            room: Room::of(names.count()),
            names,
            appending: Mutex::new(appending),
            writing: Mutex::default(),
            next: Mutex::new(Next { number: start.segment() + 1, ready: None }),
            syncing: Mutex::default(),
            waiting: Mutex::default(),
            keeping: Mutex::new(keeping),
            manifest: Mutex::new(manifest),
            shelf: Arc::new(Mutex::new(shelf)),
            appended: AtomicU64::new(start.0),
            written: AtomicU64::new(start.0),
            synced: AtomicU64::new(start.0),
            left: AtomicUsize::new(room),
            next_ready: AtomicBool::new(false),
            lacks_files: AtomicBool::new(false),
            outstanding: AtomicUsize::new(outstanding),
            syncs: Histogram::new(),
        }
    }

    /// What it writes says under which table that is.
    pub(super) fn reference(&self) -> Reference {
        Reference::to(&self.names)
    }

    pub fn fail(&self, what: &str) -> ! {
        (self.options.fail)(what)
    }

    pub fn appended(&self) -> Position {
        Position(self.appended.load(Ordering::Acquire))
    }

    pub fn written(&self) -> Position {
        Position(self.written.load(Ordering::Acquire))
    }

    pub fn synced(&self) -> Position {
        Position(self.synced.load(Ordering::Acquire))
    }

    pub fn has_room(&self) -> bool {
        let kept = self.room.for_all(self.outstanding.load(Ordering::Relaxed));
        self.has_room_besides(kept.saturating_add(ROOM_FOR_ONE))
    }

    pub fn has_room_for_attempt(&self) -> bool {
        // One thread appends attempts: others add at most what they have looked for.
        let slack = self.slack().min(ATTEMPTS_SLACK);
        self.free() >= self.room.ending * self.outstanding.load(Ordering::Relaxed) + slack
    }

    /// Why the next segment could not be made.
    pub fn lack(&self) -> Lack {
        match self.lacks_files.load(Ordering::Relaxed) {
            true => Lack::Files,
            false => Lack::Space,
        }
    }

    /// Whether so many bytes are free, and some more for what other threads append meanwhile.
    fn has_room_besides(&self, bytes: usize) -> bool {
        self.free() >= bytes.saturating_add(self.slack())
    }

    fn slack(&self) -> usize {
        self.options.segment_bytes / 64
    }

    /// Bytes for records, in the segment in use and in the next if it is there.
    fn free(&self) -> usize {
        let next_ready = self.next_ready.load(Ordering::Acquire);
        let next = if next_ready { Segment::room(self.options.segment_bytes) } else { 0 };
        self.left.load(Ordering::Relaxed) + next
    }

    /// `None` if a payment of this id is outstanding.
    pub fn append_accepted(
        &self,
        id: PaymentId,
        amount: Cents,
        accepted_at: Timestamp,
    ) -> Option<Position> {
        let appending = &mut locked(&self.appending);
        let is_new = !appending.payments.contains(id);
        is_new.then(|| self.append_in(appending, &Event::Accepted { id, amount, accepted_at }))
    }

    pub fn append_attempted(&self, attempt: &Attempt) -> Position {
        let appending = &mut locked(&self.appending);
        let Attempt { payment, processor, requested_at } = *attempt;
        let id = payment.id;
        if appending.payments.contains(id) {
            return self.append_in(appending, &Event::Attempted { id, processor, requested_at });
        }
        // It was accepted just before a purge and reached the dispatcher just after it.
        let attempt = Some((processor, requested_at));
        let (amount, accepted_at) = (payment.amount, payment.accepted_at);
        let attempts = Attempts::default().and_one();
        self.carry(appending, id, Open { amount, accepted_at, attempt, attempts, home: 0 });
        self.publish(appending);
        appending.position()
    }

    /// Anything but acceptances, attempts and purges, which have methods of their own.
    pub fn append(&self, event: &Event) -> Position {
        match *event {
            Event::Settled { id, settlement, .. } => self.append_settled(id, settlement),
            _ => self.append_in(&mut locked(&self.appending), event),
        }
    }

    fn append_settled(&self, id: PaymentId, settlement: Settlement) -> Position {
        let mut shelf = locked(&self.shelf);
        let appending = &mut locked(&self.appending);
        let attempts = appending.payments.attempts_of(id);
        let event = Event::Settled { id, settlement, attempts };
        let position = self.append_in(appending, &event);
        shelf.record(position.segment(), position.offset() - SETTLED_BYTES, id, settlement);
        position
    }

    fn append_in(&self, appending: &mut Appending, event: &Event) -> Position {
        let position = self.put(appending, Record::Event(event.clone()));
        appending.payments.apply(position.segment(), event);
        self.publish(appending);
        position
    }

    /// See [`super::Journal::totals`].
    ///
    /// # Errors
    /// If a volume cannot be read.
    pub fn totals(&self, window: Window) -> Result<Each<Totals>, JournalError> {
        locked(&self.shelf).read_totals(window)
    }

    pub fn open_payment(&self, id: PaymentId) -> Option<Open> {
        locked(&self.appending).payments.get(id)
    }

    /// See [`super::Journal::open_after`].
    pub fn open_after(
        &self,
        after: Option<PaymentId>,
        max: usize,
        is_in_doubt: bool,
    ) -> Vec<(PaymentId, Story)> {
        let appending = locked(&self.appending);
        let payments = appending.payments.iter();
        let wanted = payments.filter(|(_, open)| open.attempt.is_some() == is_in_doubt);
        story::page(wanted.map(|(id, open)| (id, open.story())), after, max)
    }

    /// The first of these records that is the settlement of this payment.
    pub fn settled_at(&self, records: &[(u32, usize)], id: PaymentId) -> io::Result<Option<Line>> {
        let mut open: Option<(u32, Arc<dyn StoredFile>)> = None;
        for (segment, offset) in records {
            let file = match open.take().filter(|(number, _)| number == segment) {
                Some((_, file)) => file,
                None => self.storage.open_to_read(&Kind::Segment.file_name(*segment))?,
            };
            let mut bytes = [0; SETTLED_BYTES];
            file.read_at(&mut bytes, *offset as u64)?;
            open = Some((*segment, file));
            let seed = Seed::of_segment(*segment, self.names.count() as u8);
            let line = shelf::settled_record(seed, &bytes, *offset);
            if let Some(line) = line.filter(|line| line.id == Some(id)) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// An entry of the ledger.
    pub fn append_entry(&self, entry: &Entry) -> Position {
        let appending = &mut locked(&self.appending);
        let position = self.put(appending, Record::Entry(*entry));
        self.publish(appending);
        position
    }

    /// All of them, which are of no outstanding payment, or `None` if there is no room besides what
    /// is kept for those.
    pub fn append_all(&self, events: impl ExactSizeIterator<Item = Event>) -> Option<Position> {
        let appending = &mut locked(&self.appending);
        let needed = events.len() * ROOM_OF_NEWS;
        let kept = self.room.for_all(appending.payments.len());
        if !self.has_room_besides(kept.saturating_add(needed)) {
            return None;
        }
        for event in events {
            self.append_in(appending, &event);
        }
        Some(appending.position())
    }

    /// Whether a payment can be resolved, which may make it an outstanding one again.
    pub fn has_room_to_resolve(&self) -> bool {
        let outstanding = self.outstanding.load(Ordering::Relaxed);
        let kept = self.room.for_all(outstanding.saturating_add(1));
        self.has_room_besides(kept.saturating_add(self.room.to_resolve()))
    }

    /// Whether a purge can be written now: it is the first record of a segment.
    pub fn has_room_to_purge(&self) -> bool {
        let appending = &mut locked(&self.appending);
        // Looked at once more: the keeper may have made it in between.
        appending.offset == FILE_HEAD_BYTES
            || self.is_next_ready()
            || self.prepare_next()
            || self.is_next_ready()
    }

    /// Call it after [`Writer::has_room_to_purge`]. Should another thread have filled a segment since
    /// and the disk be full, the process ends: what is forgotten in memory must not be left in the
    /// journal.
    pub fn append_purged(&self) -> Position {
        let mut shelf = locked(&self.shelf);
        let appending = &mut locked(&self.appending);
        if appending.offset > FILE_HEAD_BYTES && !self.roll(appending) {
            self.fail("the disk is full: a purge that has begun cannot be written");
        }
        let position = appending.encode(Record::Event(Event::Purged));
        let home = position.segment();
        appending.purged = home;
        appending.payments.apply(home, &Event::Purged);
        self.publish(appending);
        shelf.forget_before(home);
        position
    }

    /// Writes a payment again, whole, into the segment in use.
    fn carry(&self, appending: &mut Appending, id: PaymentId, payment: Open) {
        let Open { amount, accepted_at, attempt, attempts, .. } = payment;
        let record = Record::Carried { id, amount, accepted_at, attempt, attempts };
        let home = self.put(appending, record).segment();
        appending.payments.carry(id, Open { home, ..payment });
    }

    /// Writes the payments of the oldest segment again if there is room for it, at most `max` of
    /// them, so that the segment can go.
    pub fn carry_over(&self, from: u32, max: usize) {
        let appending = &mut locked(&self.appending);
        let count = appending.payments.held_by(from);
        let outstanding = appending.payments.len();
        let (kept, needed) = (self.room.for_all(outstanding), self.room.for_all(count.min(max)));
        if !self.has_room_besides(kept.saturating_add(needed)) {
            return;
        }
        let old: Vec<_> = appending
            .payments
            .iter()
            .filter(|(_, payment)| payment.home == from)
            .take(max)
            .map(|(id, payment)| (id, *payment))
            .collect();
        old.into_iter().for_each(|(id, payment)| self.carry(appending, id, payment));
        self.publish(appending);
    }

    /// Encodes a record behind the others, in the next segment if this one is full.
    fn put(&self, appending: &mut Appending, record: Record) -> Position {
        let needed = SYNCED_BYTES + record.length(appending.segment.seed) + END_BYTES;
        if appending.offset + needed > appending.segment.bytes && !self.roll(appending) {
            self.fail("the disk is full, and so is the space kept for what was accepted");
        }
        let until = self.synced();
        if until > appending.marked {
            appending.encode(Record::Synced { until });
            appending.marked = until;
        }
        appending.encode(record)
    }

    /// Goes over to the next segment, which is made here if the keeper has not been quick enough.
    /// False if the disk is full.
    fn roll(&self, appending: &mut Appending) -> bool {
        let mut next = locked(&self.next);
        if next.ready.is_none() && !self.make_next(&mut next) {
            return false;
        }
        let Some(segment) = next.ready.take() else { return false };
        assert_eq!(segment.number, appending.segment.number + 1, "segments follow each other");
        next.number += 1;
        self.next_ready.store(false, Ordering::Release);
        appending.encode(Record::End);
        let full = std::mem::replace(&mut appending.segment, Arc::new(segment));
        let pending = std::mem::take(&mut appending.pending);
        appending.sealed.push((full, appending.pending_at, pending));
        appending.offset = FILE_HEAD_BYTES;
        appending.pending_at = FILE_HEAD_BYTES;
        true
    }

    /// Makes the next segment ahead. False if it is there already or the disk is full.
    pub fn prepare_next(&self) -> bool {
        let mut next = locked(&self.next);
        next.ready.is_none() && self.make_next(&mut next)
    }

    fn make_next(&self, next: &mut Next) -> bool {
        let number = next.number;
        match Segment::create(&*self.storage, number, self.options.segment_bytes, self.reference())
        {
            Ok(segment) => {
                // It has no record yet: if this must wait, the keeper sees to it.
                self.change_manifest(|named| named.insert_segment(number));
                next.ready = Some(segment);
                self.next_ready.store(true, Ordering::Release);
                true
            }
            Err(error) => {
                let Some(lack) = Lack::of(&error) else {
                    self.fail(&format!("segment {number} cannot be made: {error}"))
                };
                self.lacks_files.store(lack == Lack::Files, Ordering::Relaxed);
                false
            }
        }
    }

    /// False if there is no space for it now: nothing that was named may be removed then.
    pub(super) fn change_manifest(&self, change: impl FnOnce(&mut Named)) -> bool {
        let Err(error) = locked(&self.manifest).change(change) else { return true };
        if Lack::of(&error).is_none() {
            self.fail(&format!("{} cannot be written: {error}", manifest::FILE_NAME));
        }
        false
    }

    pub fn is_next_ready(&self) -> bool {
        self.next_ready.load(Ordering::Acquire)
    }

    /// Lets other threads see what was appended. Before the lock is given back.
    fn publish(&self, appending: &Appending) {
        let left = appending.segment.bytes - END_BYTES - appending.offset;
        self.left.store(left, Ordering::Relaxed);
        self.outstanding.store(appending.payments.len(), Ordering::Relaxed);
        self.appended.store(appending.position().0, Ordering::Release);
    }

    /// See [`super::Journal::flush`].
    pub fn flush(&self) -> Flushed {
        if self.written() >= self.appended() {
            return Flushed::default();
        }
        let mut writing = locked(&self.writing);
        let Writing { bytes, sealed, dirty } = &mut *writing;
        let mut appending = locked(&self.appending);
        let until = appending.position();
        let segment = appending.segment.clone();
        let offset = appending.pending_at;
        appending.pending_at = appending.offset;
        std::mem::swap(&mut appending.pending, bytes);
        std::mem::swap(&mut appending.sealed, sealed);
        drop(appending);

        let new_segment = !sealed.is_empty();
        for (segment, offset, bytes) in sealed.drain(..) {
            self.write(segment, &bytes, offset, dirty);
        }
        let wrote = new_segment || !bytes.is_empty();
        if !bytes.is_empty() {
            self.write(segment, bytes, offset, dirty);
        }
        bytes.clear();
        bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.written.store(until.0, Ordering::Release);
        Flushed { wrote, new_segment }
    }

    fn write(&self, to: Arc<Segment>, bytes: &[u8], offset: usize, dirty: &mut Vec<Arc<Segment>>) {
        if let Err(error) = to.file.write_at(bytes, offset as u64) {
            self.fail(&format!("segment {} cannot be written: {error}", to.number));
        }
        if dirty.last().is_none_or(|last| last.number != to.number) {
            dirty.push(to);
        }
    }

    /// What has been written, and into `dirty` the segments to sync for it.
    pub(super) fn take_dirty(&self, dirty: &mut Vec<Arc<Segment>>) -> Position {
        let mut writing = locked(&self.writing);
        std::mem::swap(&mut writing.dirty, dirty);
        self.written()
    }

    /// How many outstanding payments a segment holds, the segment in use, and the last that begins
    /// with a purge.
    pub fn census(&self, segment: u32) -> Census {
        let appending = locked(&self.appending);
        Census {
            held: appending.payments.held_by(segment),
            in_use: appending.segment.number,
            purged: appending.purged,
        }
    }

    #[cfg(test)]
    pub fn payments(&self) -> Outstanding {
        locked(&self.appending).payments.clone()
    }
}

/// See [`Writer::census`].
#[derive(Clone, Copy, Debug)]
pub struct Census {
    pub held: usize,
    pub in_use: u32,
    pub purged: u32,
}

impl Appending {
    fn position(&self) -> Position {
        Position::new(self.segment.number, self.offset)
    }

    /// Encodes a record for which there is room, and returns the place behind it.
    fn encode(&mut self, record: Record) -> Position {
        let seed = self.segment.seed;
        record.encode(seed, self.offset, &mut self.pending);
        self.offset += record.length(seed);
        self.position()
    }
}
