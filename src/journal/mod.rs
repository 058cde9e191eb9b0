//! The journal: what has been promised survives the death of the process, and with
//! [`Durability::Disk`] the loss of power.
//!
//! # In use
//! [`Journal::start`] replays what is there, [`Journal::keep`] starts two threads: one that syncs,
//! one that keeps the directory in order. `append_…` only puts a record into a buffer, from any thread;
//! [`Journal::flush`] writes everything appended so far with one write(2), once an event-loop
//! turn; [`Journal::wait`] ends when a record is as safe as was asked for. An answer that promises
//! something, and the first byte of an attempt, go out only after that:
//!
//! ```text
//! a turn:   append_accepted …   append_accepted   flush   wait(last)   answers go out
//! attempt:  append_attempted    flush   wait   request goes out   append_settled   flush
//! ```
//!
//! With `Disk` an attempt waits for its sync too: were its record lost, the payment would come
//! back free and could be paid at the other processor as well. Many wait for the same sync.
//!
//! # On disk
//! Segments of a fixed size, allocated ahead, hold records in the order of the appends. A segment
//! whose payments are all over is rewritten as `books`, a volume of its settlements in the order of
//! their time (`volume.rs`), and `ids`; volumes that follow each other are merged now and then
//! (`merge.rs`), and old ones may leave (`archive.rs`). So the directory grows by some 38 bytes a settlement, from which the exact totals of
//! any window come and where a payment went. What is not rewritten yet is in memory as well
//! (`shelf.rs`). What
//! it says of adoptions and rejections goes into `notes`, of which newer files take in older ones
//! now and then, so that there are few. Nothing but payments that are not over is written into a
//! newer segment.
//!
//! A ledger has a journal of its own, in a directory inside that of the payments: the same files,
//! with entries of accounts in the segments instead of payments. A full one is rewritten as
//! `accounts`, the state of every account at its end, which takes the place of those before. So
//! that directory does not grow with time, unless the segments are to be kept (`retained.rs`).
//!
//! Which of these files must be there is written down in `manifest` (`manifest.rs`), so that a start
//! notices if any has gone.
//!
//! Whose journal it is stands in the file `identity` (`identity.rs`): another instance's is refused,
//! and a copy is known as one.
//!
//! The layouts are in `head.rs`, `record.rs`, `entry.rs`, `volume.rs`, `books.rs`, `accounts.rs` and
//! `notes.rs`;
//! what is done about damage is told in `recover.rs`, about a full disk in `writer.rs`.
//!
//! # What it knows
//! Which payments are outstanding: accepted and not over. That decides which segments can go, how
//! much room must be kept, and lets payments that stay open for long be carried over to a newer
//! segment, without help from the caller. Reasons:
//! the caller would have to carry a segment number with every payment through every queue, and a
//! wrong one would cost a payment; here it is one look-up in a hash table under the lock that
//! orders the records anyway.
//!
//! A journal that failed once is not trusted again: any failed write or sync ends the process with
//! one line and exit code [`EXIT_FAILED`]. Log lines name files and offsets, never payments.

pub mod abridged;
pub mod accounts;
mod archive;
pub mod books;
mod check;
mod copy;
pub mod entries;
mod entry;
mod error;
pub mod follow;
pub mod head;
pub mod history;
pub mod identity;
pub mod inspect;
mod keeper;
mod listing;
pub mod manifest;
mod merge;
pub mod names;
mod notes;
mod outstanding;
pub mod reading;
pub mod record;
mod recover;
mod resolved;
pub mod retained;
mod salvage;
mod segment;
mod shelf;
pub mod storage;
mod sync;
mod unfinished;
pub mod volume;
mod writer;

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

pub use error::JournalError;
use follow::Follower;
use recover::Torn;
pub use recover::{Found, Recovered};
pub use storage::Lack;

use crate::base::clock::{Moment, Timestamp, Until};
use crate::base::histogram::Histogram;
use crate::base::money::Cents;
use crate::ledger::Entry;
use crate::payments::event::Event;
use crate::payments::names::Names;
use crate::payments::story::Story;
use crate::payments::{Attempt, Each, Line, PaymentId, Totals, Window};
use retained::{Retained, Retention};
use shelf::Shelf;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use storage::Directory;
use writer::{Room, Writer, locked};

/// How safe a record is once [`Journal::wait`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Handed to the kernel: survives the death of the process.
    Process,
    /// On the disk: survives the loss of power.
    Disk,
}

/// A place in the journal. A later record has a greater one. [`Position::NONE`] is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    pub const NONE: Position = Position(0);
    /// After all.
    pub const LAST: Position = Position(u64::MAX);

    /// An offset in a segment. Offsets have 32 bits.
    pub fn new(segment: u32, offset: usize) -> Position {
        Position(u64::from(segment) << 32 | offset as u64)
    }

    /// As one number, greater for what is later.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The reverse of [`Position::number`].
    pub fn from_number(number: u64) -> Position {
        Position(number)
    }

    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn offset(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// The limits of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub durability: Durability,
    /// So many ids of the payments accepted last are recovered.
    pub ids_remembered: usize,
    /// Bytes in a segment. May differ from one start to the next.
    pub segment_bytes: usize,
    /// The table of the outstanding payments has room for so many from the start. It doubles when
    /// they become more, which takes a millisecond or two.
    pub outstanding_at_first: usize,
    /// How long settlements stay in the books at least, in milliseconds (`archive.rs`). `None`: for good.
    pub keep_ms: Option<i64>,
    /// So many full segments are kept as they are while the disk has space: only they have the keys
    /// of their entries.
    pub full_segments_kept: u32,
    /// What is kept of segments that were rewritten.
    pub retention: Retention,
    /// What happens when the journal cannot be trusted any more. Must not return.
    pub fail: fn(&str) -> !,
}

/// Room for 150,000 payments. A start and the keeper read a segment at a time into memory.
const SEGMENT_BYTES_MIN: usize = 16 << 20;
/// Room to settle ten million outstanding payments. Offsets have 32 bits.
const SEGMENT_BYTES_MAX: usize = 1 << 30;

/// The ledger's journal is in this directory inside the payments' own: no purge reaches it.
pub const LEDGER_DIRECTORY: &str = "ledger";

/// Room for 45,000 entries with descriptions of ten letters: more than the contest makes. Half of
/// the 8 MiB that a new one takes on the disk, for this segment and the next, and what a start and
/// the keeper hold in memory at most while they read one.
const LEDGER_SEGMENT_BYTES_MIN: usize = 4 << 20;
const LEDGER_SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Full segments are rewritten as the state of every account, about this long each (ten
/// transactions with descriptions of ten letters). A segment is at least as long as all of them, so
/// the keeper never writes much more than the ledger itself did.
const ACCOUNT_BYTES: usize = 320;

/// The process ends with this code when a write or a sync has failed (EX_SOFTWARE of sysexits.h).
pub const EXIT_FAILED: i32 = 70;

/// See [`Journal::cursor`].
const CURSOR_NAME: &str = "cursor";
const CURSOR_BYTES_MAX: usize = 4_096;

/// See [`Options::outstanding_at_first`].
const OUTSTANDING_AT_FIRST: usize = 16 * 1024;

impl Options {
    /// `outstanding_max`: payments accepted and not over at any time. One segment has room for what
    /// all of them may still need.
    pub fn new(durability: Durability, outstanding_max: usize, ids_remembered: usize) -> Options {
        let needed = segment_bytes_for(outstanding_max, Room::of(2));
        let segment_bytes = needed.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let outstanding_at_first = OUTSTANDING_AT_FIRST.min(outstanding_max);
        Options {
            durability,
            ids_remembered,
            segment_bytes,
            outstanding_at_first,
            keep_ms: None,
            full_segments_kept: 0,
            retention: Retention::of_events(0),
            fail: fail_process,
        }
    }

    /// Of a journal that holds the entries of a ledger with so many accounts, and no payments.
    pub fn of_ledger(durability: Durability, accounts: usize) -> Options {
        let segment_bytes = accounts
            .saturating_mul(ACCOUNT_BYTES)
            .clamp(LEDGER_SEGMENT_BYTES_MIN, LEDGER_SEGMENT_BYTES_MAX)
            .next_power_of_two();
        Options {
            durability,
            ids_remembered: 0,
            segment_bytes,
            outstanding_at_first: 0,
            keep_ms: None,
            full_segments_kept: 1,
            retention: Retention { of: Retained::Entries, bytes: None },
            fail: fail_process,
        }
    }
}

impl Options {
    /// More payments may be outstanding than are to be, if they were accepted with a larger queue.
    /// The names of many processors take some more room with each payment.
    fn make_room_for(&mut self, outstanding: usize, room: Room) {
        let two = Room::of(2).per_payment();
        if self.segment_bytes >= SEGMENT_BYTES_MIN && room.per_payment() > two {
            let scaled = self.segment_bytes.saturating_mul(room.per_payment()) / two;
            self.segment_bytes = scaled.next_multiple_of(record::ALIGNMENT).min(SEGMENT_BYTES_MAX);
        }
        let needed = segment_bytes_for(outstanding, room).min(SEGMENT_BYTES_MAX);
        if outstanding > 0 && needed > SEGMENT_BYTES_MIN {
            self.segment_bytes = self.segment_bytes.max(needed);
        }
    }
}

/// A segment that has room for all that so many outstanding payments may still need.
fn segment_bytes_for(outstanding: usize, room: Room) -> usize {
    (room.for_all(outstanding) / 15).saturating_mul(16).next_power_of_two()
}

fn fail_process(what: &str) -> ! {
    log::error!("the journal cannot be trusted any more, stopping: {what}");
    crate::base::log::flush();
    std::process::exit(EXIT_FAILED)
}

/// See the module. [`Journal::none`] keeps nothing: every call succeeds at once.
pub struct Journal {
    names: Names,
    open: Option<Open>,
    shelf: Arc<Mutex<Shelf>>,
}

struct Open {
    id: Option<u128>,
    /// When it was last found to be a copy.
    copied_at: Option<Timestamp>,
    doubted_since: Option<Timestamp>,
    writer: Arc<Writer>,
    threads: Option<Threads>,
}

struct Threads {
    stop: Arc<AtomicBool>,
    syncer: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Open {
    fn wake_syncer(&self) {
        self.threads.iter().for_each(|threads| threads.syncer.thread().unpark());
    }

    fn wake_keeper(&self) {
        self.threads.iter().for_each(|threads| threads.keeper.thread().unpark());
    }
}

/// How often the keeper looks whether there is anything to do, besides being told, and syncs what
/// was written: so with [`Durability::Process`] a loss of power takes about a second.
const KEEP_EVERY: Duration = Duration::from_secs(1);

impl Journal {
    /// A journal that keeps nothing and promises nothing, of processors with these names.
    pub fn none(names: Names) -> Journal {
        Journal { names, open: None, shelf: Arc::default() }
    }

    /// Locks the directory (made if need be) and reads what is there. Blocking.
    ///
    /// # Errors
    /// See [`JournalError`]; nothing was changed then.
    pub fn find(path: &Path, options: Options) -> Result<Found, JournalError> {
        Found::new(Arc::new(Directory::lock(path)?), options)
    }

    /// [`Journal::find`], [`Journal::start`] and [`Journal::keep`], whoever the journal belongs to.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(path: &Path, options: Options) -> Result<(Journal, Recovered), JournalError> {
        let (mut journal, recovered) = Journal::start(Journal::find(path, options)?)?;
        journal.keep()?;
        Ok((journal, recovered))
    }

    /// Repairs what was found. Nothing is synced, and no space is taken ahead, before
    /// [`Journal::keep`]. Blocking.
    ///
    /// # Errors
    /// See [`JournalError`]; it can be tried again.
    pub fn start(found: Found) -> Result<(Journal, Recovered), JournalError> {
        let (writer, recovered) = found.start()?;
        if let Some(Torn { file, offset, what, bytes, records }) = &recovered.torn {
            log::warn!(
                "journal: the end of {file} was torn at offset {offset} ({what}): {bytes} bytes \
                 with {records} intact records were cut off, none of which had been synced"
            );
        }
        let identity = recovered.identity.as_ref();
        let copied_at = identity.and_then(|it| it.copied_at);
        let open = Open {
            id: identity.map(|it| it.id),
            copied_at,
            doubted_since: identity.and_then(|it| it.doubted_since()),
            writer: Arc::new(writer),
            threads: None,
        };
        let (names, shelf) = (open.writer.names.clone(), open.writer.shelf.clone());
        Ok((Journal { names, open: Some(open), shelf }, recovered))
    }

    /// Starts the two threads. Where two journals share a disk, both are to be
    /// [started](Journal::start) before: a full disk has only what a start gives back, and the keeper
    /// of the one would take it from the other.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn keep(&mut self) -> Result<(), JournalError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |name: &str, step: fn(&Writer) -> bool, pause: Option<Duration>| {
            let (writer, stop) = (open.writer.clone(), stop.clone());
            let run = move || {
                while !stop.load(Ordering::Acquire) {
                    if !step(&writer) {
                        pause.map_or_else(std::thread::park, std::thread::park_timeout);
                    }
                }
            };
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(|error| JournalError::io("start a thread for", "the journal", error))
        };
        let syncer = spawn("galo-sync", Writer::sync_if_promised, None)?;
        let keeper = spawn("galo-keeper", Writer::keep_and_sync, Some(KEEP_EVERY))?;
        open.threads = Some(Threads { stop, syncer, keeper });
        Ok(())
    }

    /// What the numbers of processors mean in it, and wherever what is in it is told.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Which journal this is, in every copy of it.
    pub fn id(&self) -> Option<u128> {
        self.open.as_ref().and_then(|open| open.id)
    }

    /// When it was last found to be a copy.
    pub fn copied_at(&self) -> Option<Timestamp> {
        self.open.as_ref().and_then(|open| open.copied_at)
    }

    /// Until then any payment, also a new one, may have been paid by the original of this copy, or by
    /// another copy; or, since the terms are other ones, by the other instance where this one would not
    /// pay it: before it is paid at one processor, the others are to be asked. To be asked for once,
    /// when the process starts.
    pub fn is_doubted_until(&self, at: Timestamp, now: Moment) -> Option<Until> {
        let since = self.open.as_ref().and_then(|open| open.doubted_since);
        since.map(|since| identity::doubted_until(since, at, now))
    }

    /// How long syncs took, if there is a journal.
    pub fn syncs(&self) -> Option<&Histogram> {
        self.open.as_ref().map(|open| &open.writer.syncs)
    }

    /// Why there is no room, if there is none.
    pub fn lack(&self) -> Lack {
        self.open.as_ref().map_or(Lack::Space, |open| open.writer.lack())
    }

    /// Whether a payment may be accepted: if not, the disk is full and the answer is 503. Cheap.
    pub fn has_room(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.writer.has_room())
    }

    /// Whether an operator's decision can be written down: if not, the disk is full.
    pub fn has_room_to_resolve(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.writer.has_room_to_resolve())
    }

    /// Whether everything may be forgotten: if not, the disk is full. Blocks for the making of a file if
    /// none is ready.
    pub fn has_room_to_purge(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.writer.has_room_to_purge())
    }

    /// Whether an attempt may be started. Only false when a disk has been full for long; what has
    /// been attempted can always be settled.
    pub fn has_room_for_attempt(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.writer.has_room_for_attempt())
    }

    /// `None` if a payment of this id is outstanding: then this is a repetition. Call it while the
    /// id is locked against being admitted by another thread, after [`Journal::has_room`].
    pub fn append_accepted(
        &self,
        id: PaymentId,
        amount: Cents,
        accepted_at: Timestamp,
    ) -> Option<Position> {
        self.open.as_ref().map_or(Some(Position::NONE), |open| {
            open.writer.append_accepted(id, amount, accepted_at)
        })
    }

    /// A request for this payment is about to be sent. It may be, once this is durable.
    pub fn append_attempted(&self, attempt: &Attempt) -> Position {
        self.open.as_ref().map_or(Position::NONE, |open| open.writer.append_attempted(attempt))
    }

    /// How an attempt ended, and what became of a payment. Nobody needs to wait for it: if it is
    /// lost, the attempt is in doubt and the processor is asked again.
    pub fn append(&self, event: &Event) -> Position {
        if let Some(open) = &self.open {
            return open.writer.append(event);
        }
        if let Event::Settled { id, settlement, attempts } = *event {
            locked(&self.shelf).keep_in_memory(Line { id: Some(id), settlement, attempts });
        }
        Position::NONE
    }

    /// What has been settled in a window, per processor. Reads from the disk what is old: of each
    /// volume that one of the window's ends lies in, one block.
    ///
    /// # Errors
    /// If that cannot be read, or is damaged; [`JournalError::Archived`] if it is not there any more.
    pub fn totals(&self, window: Window) -> Result<Each<Totals>, JournalError> {
        let (mut totals, on_disk) = locked(&self.shelf).totals(window);
        shelf::add(&mut totals, on_disk.totals(window)?);
        Ok(totals)
    }

    /// The time of the last settlement that has left the books, if any has (`archive.rs`).
    pub fn archived_until(&self) -> Option<Timestamp> {
        locked(&self.shelf).on_disk().abridged?.bounds().map(|(_, last)| last)
    }

    /// Where a payment has been settled; of several of one id, the latest. Without a journal only the
    /// latest payments are known. Reads from the disk.
    ///
    /// # Errors
    /// If what is needed of it cannot be read, or is damaged.
    pub fn find_settled(&self, id: PaymentId) -> Result<Option<Line>, JournalError> {
        let mut is_second = false;
        loop {
            let places = locked(&self.shelf).places_of(id);
            let Some(open) = &self.open else { return Ok(places.in_memory) };
            if !places.records.is_empty() {
                // What is not in its file yet cannot be read there.
                self.flush();
            }
            match open.writer.settled_at(&places.records, id) {
                // The segment has just been rewritten, and the shelf knows where that is.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_second => {
                    is_second = true;
                    continue;
                }
                Err(error) => return Err(JournalError::io("read", "a segment", error)),
                Ok(Some(line)) => return Ok(Some(line)),
                Ok(None) => {}
            }
            for volume in places.volumes.values().rev() {
                if let Some(line) = volume.find(id)? {
                    return Ok(Some(line));
                }
            }
            return Ok(None);
        }
    }

    /// Settlements in the order of their time and then of their ids, behind that place or from the
    /// first, at most so many. Nothing of books of before version 3, which have no ids. Blocking, for
    /// as long as it takes to read the segments that are not rewritten yet: not for an event loop.
    ///
    /// # Errors
    /// If what is needed of it cannot be read, or is damaged.
    pub fn settled_after(
        &self,
        after: Option<(Timestamp, PaymentId)>,
        max: usize,
    ) -> Result<Vec<Line>, JournalError> {
        let Some(open) = &self.open else { return Ok(Vec::new()) };
        let is_wanted = |line: &Line| {
            let place = line.id.map(|id| (line.settlement.requested_at, id));
            place.is_some() && place > after
        };
        let (mut recent, volumes) = loop {
            let (segments, volumes) = {
                let shelf = locked(&self.shelf);
                (shelf.offsets(), shelf.volumes())
            };
            // What is not in its file yet cannot be read there.
            self.flush();
            match shelf::recorded(&*open.writer.storage, &segments, &self.names) {
                // It has just been rewritten, and the shelf knows where that is.
                Err(JournalError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                read => break (read?, volumes),
            }
        };
        recent.retain(is_wanted);
        recent.sort_unstable_by_key(volume::order);
        type Lines<'a> = Box<dyn Iterator<Item = Result<Line, JournalError>> + 'a>;
        let from = after.map_or(Timestamp(i64::MIN), |(at, _)| at);
        let volumes = volumes.values().map(|volume| Box::new(volume.lines_from(from)) as Lines<'_>);
        let recent = Box::new(recent.into_iter().map(Ok)) as Lines<'_>;
        let lines = volume::merged(volumes.chain([recent]).collect());
        let lines = lines.map(|line| line.map_err(|(_, error)| error));
        lines.filter(|line| line.as_ref().map_or(true, is_wanted)).take(max).collect()
    }

    /// What is known of a payment that is accepted and not over. Without a journal nothing is.
    pub fn open_story_of(&self, id: PaymentId) -> Option<Story> {
        self.open.as_ref()?.writer.open_payment(id).map(|open| open.story())
    }

    /// Those with an open attempt, or without, in the order of their ids, behind that one, at most so
    /// many. Goes through all of them, while nobody else can append: for people, not for programs.
    pub fn open_after(
        &self,
        after: Option<PaymentId>,
        max: usize,
        is_in_doubt: bool,
    ) -> Vec<(PaymentId, Story)> {
        self.open
            .as_ref()
            .map_or(Vec::new(), |open| open.writer.open_after(after, max, is_in_doubt))
    }

    /// What becomes of payments, from a place on; from the oldest that is there if none is named.
    /// `None` without a journal.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn follow(&self, from: Option<Position>) -> Result<Option<Follower>, JournalError> {
        let Some(open) = &self.open else { return Ok(None) };
        let storage = &open.writer.storage;
        let place = match from {
            Some(place) => Some(place),
            None => follow::oldest(&**storage)
                .map_err(|error| JournalError::io("list", "the directory", error))?,
        };
        let place = place.unwrap_or(follow::beginning(0));
        let names = self.names.clone();
        Ok(Some(Follower::new(storage.clone(), names, place, None)))
    }

    /// Behind everything that is on the disk, and so stays whatever happens.
    pub fn synced(&self) -> Position {
        self.open.as_ref().map_or(Position::NONE, |open| open.writer.synced())
    }

    /// How far somebody else is who follows, as it was stored last.
    pub fn cursor(&self) -> Option<String> {
        let (storage, mut bytes) = (&self.open.as_ref()?.writer.storage, Vec::new());
        storage.read(CURSOR_NAME, CURSOR_BYTES_MAX, &mut bytes).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// Replaces it. Blocking.
    ///
    /// # Errors
    /// If it cannot be written; what was stored before is there still.
    pub fn store_cursor(&self, text: &str) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let storage = &open.writer.storage;
        let unfinished = format!("{CURSOR_NAME}{}", segment::UNFINISHED);
        let file = storage.create(&unfinished)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync()?;
        storage.rename(&unfinished, CURSOR_NAME)?;
        storage.sync_directory()
    }

    /// What it takes in memory to know what has been settled, in bytes.
    pub fn settled_memory_bytes(&self) -> usize {
        locked(&self.shelf).memory_bytes()
    }

    /// These, accepted in place of the other instance, are driven from here on. It may be told so
    /// once this is durable. `None` if the disk is full: then nothing was done.
    pub fn append_adopted(&self, adopted: &[(PaymentId, Cents)]) -> Option<Position> {
        self.append_all(adopted, |id, amount| Event::Adopted { id, amount })
    }

    /// These, adopted here, are over, and the other instance has written down that they are not its
    /// own to pay: they are not told again. Nobody needs to wait for it. `None` if the disk is full:
    /// then nothing was done.
    pub fn append_told(&self, told: &[PaymentId]) -> Option<Position> {
        let Some(open) = &self.open else { return Some(Position::NONE) };
        open.writer.append_all(told.iter().map(|id| Event::Told { id: *id }))
    }

    /// These, never accepted here, are the other instance's to pay: a repetition of one is known,
    /// after a restart too. `None` if the disk is full: then nothing was done.
    pub fn append_learned(&self, learned: &[(PaymentId, Cents)]) -> Option<Position> {
        self.append_all(learned, |id, amount| Event::Forwarded { id, amount, learned: true })
    }

    fn append_all(
        &self,
        payments: &[(PaymentId, Cents)],
        event: fn(PaymentId, Cents) -> Event,
    ) -> Option<Position> {
        let Some(open) = &self.open else { return Some(Position::NONE) };
        open.writer.append_all(payments.iter().map(|(id, amount)| event(*id, *amount)))
    }

    /// A transaction was carried out on an account of the ledger. Call it under the account's lock,
    /// after [`Journal::has_room`]: the journal keeps the order of the calls, and a start refuses
    /// entries of one account that do not follow each other.
    pub fn append_entry(&self, entry: &Entry) -> Position {
        self.open.as_ref().map_or(Position::NONE, |open| open.writer.append_entry(entry))
    }

    /// Forgets everything. Call it after the payments have been taken out of the queue: one that is
    /// accepted in between is then taken up again by its attempt. Blocks for the making of a file
    /// if none is ready. Ask first whether it [has room](Journal::has_room_to_purge).
    pub fn append_purged(&self) -> Position {
        let Some(open) = &self.open else {
            locked(&self.shelf).forget_before(0);
            return Position::NONE;
        };
        let position = open.writer.append_purged();
        open.wake_keeper();
        position
    }

    /// Writes everything appended so far, by any thread, with one write(2). Costs two loads if
    /// there is nothing to write.
    pub fn flush(&self) {
        let Some(open) = &self.open else { return };
        let flushed = open.writer.flush();
        if flushed.wrote && open.writer.options.durability == Durability::Disk {
            open.wake_syncer();
        }
        if flushed.new_segment {
            open.wake_keeper();
        }
    }

    /// Behind everything appended so far: waiting for it covers records of other threads too, such
    /// as the acceptance that a repeated request repeats.
    pub fn appended(&self) -> Position {
        self.open.as_ref().map_or(Position::NONE, |open| open.writer.appended())
    }

    /// Whether everything up to there is as safe as was asked for.
    pub fn is_durable(&self, position: Position) -> bool {
        self.open.as_ref().is_none_or(|open| open.writer.is_durable(position))
    }

    /// Ends when everything up to there is on the disk, whatever was asked for: for what somebody
    /// else is told for good, and cannot be told once more after a loss of power.
    pub async fn wait_on_disk(&self, position: Position) {
        self.flush();
        if let Some(open) = &self.open {
            // Of `Durability::Process` it is the keeper who syncs.
            open.wake_syncer();
            open.wake_keeper();
            std::future::poll_fn(|context| open.writer.poll_synced(position, context)).await;
        }
    }

    /// Ends when everything up to there is as safe as was asked for. With `Process` that is at
    /// once. Flushes, so one wait for all of a turn is one write.
    pub async fn wait(&self, position: Position) {
        self.flush();
        if let Some(open) = &self.open {
            std::future::poll_fn(|context| open.writer.poll_durable(position, context)).await;
        }
    }
}

/// Writes and syncs what is left.
impl Drop for Journal {
    fn drop(&mut self) {
        let Some(open) = &mut self.open else { return };
        if let Some(threads) = &open.threads {
            threads.stop.store(true, Ordering::Release);
        }
        open.wake_syncer();
        open.wake_keeper();
        for thread in open.threads.take().into_iter().flat_map(|it| [it.syncer, it.keeper]) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        open.writer.flush();
        open.writer.sync();
    }
}
