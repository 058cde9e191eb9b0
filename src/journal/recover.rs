//! From the files to what they mean: the start of a journal. Total: no bytes make it panic.
//!
//! # Damage, and what is done about it
//! Reading stops at the first spot where the next record should be and is not. If nothing intact
//! lies behind it, it is the tail of a write that was cut short: it is cut off, and reported. If
//! there is something intact behind it, either power was lost before all of that was on the disk
//! (the disk may have kept the later part and lost the earlier), or something has been damaged
//! since. It counts as torn, and is cut off with all that is behind it, only if both hold:
//!
//! * no `Synced` record behind it says that the spot had been on the disk, and
//! * the machine has been started anew since: until then no write to the kernel can be lost, so
//!   the part before a later record was certainly there. The head of a segment tells the boot.
//!
//! Anything else stops the start with the file and the offset, and nothing is changed: a journal
//! with a hole in it could pay twice. So what was durable is never cut off, and what was only
//! handed to the kernel is lost only with the power.
//!
//! # What is paid without asking further
//! A payment that comes back is verified before it is paid ([`Payment::verify`]) if the journal may
//! not know all that was done about it: it was a copy once, nobody had claimed it, or it is of before
//! the last start of the machine, and may have lost its end. Otherwise the payment is as sure as if
//! the process had gone on, and must not have to wait for a processor that is gone.
//!
//! # Repairs
//! A start changes the directory only after all of it has been read: first the manifest names what is
//! to be left, then what was torn goes,
//! then the last segment is closed, then all is synced, then leftovers are removed. A crash
//! between any two of these leaves a directory that means the same.

use super::abridged::Abridged;
use super::accounts::{Accounts, States};
use super::head::{FILE_HEAD_BYTES, FIRST_NUMBER, Kind};
use super::identity::{self, Change, Identity, Owner};
use super::keeper::{Form, Held, IdsFile, Keeping};
use super::listing::Listing;
use super::manifest::{self, Files, Manifest, Named};
use super::names::Reference;
use super::outstanding::{Open, Outstanding};
use super::record::{Record, Seed};
use super::retained;
use super::segment::{Contents, Ending, Segment, UNFINISHED};
use super::shelf::Shelf;
use super::storage::{Lack, Storage, random};
use super::volume::{self, Volume};
use super::writer::{Kept, Room, Writer};
use super::{JournalError, Options, Position, books, follow, notes};
use crate::base::clock::{Moment, Timestamp};
use crate::base::money::Cents;
use crate::ledger::{AccountId, Entry, Key};
use crate::payments::event::{Books, Event};
use crate::payments::names::Names;
use crate::payments::{Attempt, Each, Payment, PaymentId, Window};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Accepted, and free to go to either processor; the oldest first.
    pub waiting: Vec<Payment>,
    /// Attempted, and nobody knows what became of it: to be asked about at that processor, with
    /// that `requestedAt`, before anything else is done with them. The oldest first.
    pub doubts: Vec<Attempt>,
    /// The payments accepted last, in that order, as many as are to be remembered.
    pub ids: Vec<(PaymentId, Cents)>,
    pub books: Books,
    /// Every account of the ledger that has an entry.
    pub accounts: Accounts,
    /// The newest entries that have a key, each with the balance behind it, the oldest first: at
    /// most [`KEYS_MAX`], of segments that are still there. A key matters for less than a second.
    pub keys: Vec<(Key, AccountId, Cents)>,
    pub torn: Option<Torn>,
    /// The directory was found to be a copy of another at this start.
    pub is_copy: bool,
    /// Who has claimed the journal, if anybody has.
    pub identity: Option<Identity>,
}

/// Eight URLs and some numbers: no identity is longer.
pub(super) const IDENTITY_BYTES_MAX: usize = 64 * 1024;

/// So many keys are recovered at most.
pub const KEYS_MAX: usize = 65_536;

/// An end that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: String,
    pub offset: usize,
    pub what: &'static str,
    /// Bytes that were written behind it.
    pub bytes: usize,
    /// Intact records among them. They had not been synced, and something before them is missing.
    pub records: usize,
}

/// What the files mean.
pub struct Replay {
    pub listing: Listing,
    pub payments: Outstanding,
    pub ids: VecDeque<(PaymentId, Cents)>,
    pub books: Books,
    pub shelf: Shelf,
    /// The files of books, oldest first.
    held: Vec<Held>,
    /// What the notes say, and the segments besides; in the books, when all is read.
    notes: Vec<Event>,
    pub accounts: Accounts,
    pub keys: VecDeque<(Key, AccountId, Cents)>,
    pub torn: Option<Torn>,
    /// The machine has not been started anew since any of the segments was begun: all that was
    /// written to them is there.
    is_of_this_boot: bool,
    /// Where the records end: a segment, the offset behind the last one, and whether it is closed.
    end: Option<(u32, usize, Ending)>,
}

pub(super) fn failed(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> JournalError {
    move |error| JournalError::io(action, name, error)
}

impl Replay {
    /// Behind the last record, or where the first one will be.
    pub fn end(&self) -> Position {
        let next = self.listing.books.last_key_value().map_or(FIRST_NUMBER, |(last, _)| last + 1);
        match self.end {
            None => follow::beginning(next),
            Some((number, _, Ending::Sealed)) => follow::beginning(number + 1),
            Some((number, offset, _)) => Position::new(number, offset),
        }
    }

    /// Reads everything, changes nothing.
    ///
    /// # Errors
    /// If the files are damaged or not of this version.
    pub fn new(
        storage: &dyn Storage,
        names: &Names,
        ids_remembered: usize,
    ) -> Result<Replay, JournalError> {
        let mut replay = Replay {
            listing: Listing::new(storage, names)?,
            payments: Outstanding::default(),
            ids: VecDeque::new(),
            books: Books::default(),
            shelf: Shelf::default(),
            held: Vec::new(),
            notes: Vec::new(),
            accounts: Accounts::default(),
            keys: VecDeque::new(),
            torn: None,
            is_of_this_boot: true,
            end: None,
        };
        let mut bytes = Vec::new();
        let books: Vec<u32> = replay.listing.books.keys().copied().collect();
        for number in books {
            replay.read_books(storage, number, names)?;
        }
        if let Some(number) = replay.listing.accounts {
            let name = Kind::Accounts.file_name(number);
            storage.read(&name, usize::MAX, &mut bytes).map_err(failed("read", &name))?;
            replay.accounts = States::new(number, &bytes)?.collect()?;
        }
        for (number, _) in &replay.listing.notes {
            let name = Kind::Notes.file_name(*number);
            storage.read(&name, usize::MAX, &mut bytes).map_err(failed("read", &name))?;
            replay.notes.append(&mut notes::read(*number, &bytes, names)?);
        }
        let segments: Vec<u32> = replay.listing.segments.iter().copied().collect();
        for (index, number) in segments.iter().enumerate() {
            let name = Kind::Segment.file_name(*number);
            storage.read_records(&name, &mut bytes).map_err(failed("read", &name))?;
            let contents = Contents::new(*number, &bytes, names)?;
            replay.is_of_this_boot &= contents.boot == storage.boot();
            let (offset, ending) = contents.walk(|offset, record| {
                replay
                    .apply(*number, offset, &record, ids_remembered)
                    .map_err(|what| JournalError::Corrupt { file: name.clone(), offset, what })
            })?;
            replay.end = Some((*number, offset, ending));
            if ending != Ending::Sealed {
                let later = &segments[index + 1..];
                replay.torn = judge(storage, names, &contents, offset, ending, later)?;
                break;
            }
        }
        for (_, number) in replay.listing.ids_newest_first() {
            if replay.ids.len() >= ids_remembered {
                break;
            }
            let name = Kind::Ids.file_name(number);
            storage.read(&name, usize::MAX, &mut bytes).map_err(failed("read", &name))?;
            let missing = ids_remembered - replay.ids.len();
            for id in books::ids(number, &bytes)?.rev().take(missing) {
                replay.ids.push_front(id);
            }
        }
        let notes = notes::condense(std::mem::take(&mut replay.notes), true);
        for note in &notes {
            match note {
                Event::Resolved(resolution) => replay.books.keep(resolution),
                _ => replay.books.apply(note),
            }
        }
        without_repetitions(&mut replay.books.adopted, |(id, _)| *id);
        without_repetitions(&mut replay.books.rejected, |it| it.id);
        Ok(replay)
    }

    /// Opens a volume; books of an older layout are read.
    fn read_books(
        &mut self,
        storage: &dyn Storage,
        number: u32,
        names: &Names,
    ) -> Result<(), JournalError> {
        let (name, mut bytes) = (Kind::Books.file_name(number), Vec::new());
        storage.read(&name, FILE_HEAD_BYTES, &mut bytes).map_err(failed("read", &name))?;
        let span = volume::span(number, &bytes)?;
        let form = match books::are_old(&bytes) {
            true => Form::Old,
            false if books::flags(number, &bytes)?.is_abridged => Form::Abridged,
            false => Form::Volume,
        };
        if form == Form::Volume {
            drop(self.shelf.put(Arc::new(Volume::open(storage, number, names)?)));
        } else {
            storage.read(&name, usize::MAX, &mut bytes).map_err(failed("read", &name))?;
        }
        if form == Form::Old {
            self.shelf.add_old(number, &books::old_lines(number, &bytes, names)?);
        }
        if form == Form::Abridged {
            if !self.held.is_empty() {
                let what = "they are abridged, and others before them are not";
                return Err(JournalError::Corrupt { file: name, offset: 0, what });
            }
            drop(self.shelf.abridge(Abridged::read(number, &bytes, names)?));
        }
        self.held.push(Held { span, form, is_damaged: false });
        Ok(())
    }

    fn apply(
        &mut self,
        home: u32,
        offset: usize,
        record: &Record,
        ids_remembered: usize,
    ) -> Result<(), &'static str> {
        match *record {
            Record::Event(ref event) => {
                self.payments.apply(home, event);
                match notes::is_note(event) {
                    true => self.notes.push(event.clone()),
                    false => self.books.apply(event),
                }
                if let Event::Settled { id, settlement, .. } = *event {
                    self.shelf.record(home, offset, id, settlement);
                }
                if *event == Event::Purged {
                    self.shelf.forget_before(home);
                    self.held.clear();
                    self.notes.clear();
                    self.ids.clear();
                    self.accounts.clear();
                    self.keys.clear();
                }
                if let Some(known) = event.makes_known() {
                    self.ids.push_back(known);
                    if self.ids.len() > ids_remembered {
                        self.ids.pop_front();
                    }
                }
            }
            Record::Carried { id, amount, accepted_at, attempt, attempts } => {
                self.payments.carry(id, Open { amount, accepted_at, attempt, attempts, home });
            }
            Record::Entry(ref entry) => self.apply_entry(entry)?,
            Record::Synced { .. } | Record::End => {}
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), &'static str> {
        self.accounts.entry(entry.account).or_default().apply(entry)?;
        if entry.key != Key::NONE {
            if self.keys.len() == KEYS_MAX {
                self.keys.pop_front();
            }
            self.keys.push_back((entry.key, entry.account, entry.balance));
        }
        Ok(())
    }

    /// The books of an older layout.
    pub fn old_books(&self) -> impl Iterator<Item = u32> {
        self.held.iter().filter(|held| held.form == Form::Old).map(|held| held.span.last)
    }

    /// What a change of settings could harm.
    fn held(&self) -> identity::Held {
        let mut doubts = Each::default();
        for (processor, _) in self.payments.iter().filter_map(|(_, payment)| payment.attempt) {
            doubts[processor.index()] += 1;
        }
        let is_empty = self.payments.len() == 0 && self.ids.is_empty() && !self.has_settled();
        identity::Held { is_empty, doubts }
    }

    fn has_settled(&self) -> bool {
        let (recent, _) = self.shelf.totals(Window::default());
        recent.iter().any(|it| it.count > 0) || self.is_in_books()
    }

    fn is_in_books(&self) -> bool {
        self.held.iter().any(|held| held.span.lines > 0)
    }

    /// Payments that are free, and attempts in doubt, the oldest first. All are to be verified, unless
    /// [`Found`] knows better.
    pub fn outstanding(&self) -> (Vec<Payment>, Vec<Attempt>) {
        let (mut waiting, mut doubts) = (Vec::new(), Vec::new());
        for (id, Open { amount, accepted_at, attempt, .. }) in self.payments.iter() {
            let (accepted_at, accepted) = (*accepted_at, Moment(0));
            let payment =
                Payment { id, amount: *amount, accepted, accepted_at, guest: false, verify: true };
            match *attempt {
                None => waiting.push(payment),
                Some((processor, requested_at)) => {
                    doubts.push(Attempt { payment, processor, requested_at });
                }
            }
        }
        waiting.sort_unstable_by_key(|payment| (payment.accepted_at, payment.id));
        doubts.sort_unstable_by_key(|doubt| (doubt.requested_at, doubt.payment.id));
        (waiting, doubts)
    }
}

/// Decides about a segment whose records end without its end: torn, damaged, or in use until now.
fn judge(
    storage: &dyn Storage,
    names: &Names,
    contents: &Contents<'_>,
    offset: usize,
    ending: Ending,
    later: &[u32],
) -> Result<Option<Torn>, JournalError> {
    let mut behind = contents.intact_from(offset);
    let mut bytes = Vec::new();
    for number in later {
        let name = Kind::Segment.file_name(*number);
        storage.read_records(&name, &mut bytes).map_err(failed("read", &name))?;
        behind += Contents::new(*number, &bytes, names)?.intact_from(FILE_HEAD_BYTES);
    }
    let file = Kind::Segment.file_name(contents.number);
    let what = match ending {
        Ending::Bad(what) => what,
        _ if behind.bytes == 0 => return Ok(None),
        _ => "it ends before its end",
    };
    let was_on_disk = behind.synced > Position::new(contents.number, offset);
    let lost_with_the_power = contents.boot != storage.boot() && !was_on_disk;
    if behind.records > 0 && !lost_with_the_power {
        return Err(JournalError::Corrupt { file, offset, what });
    }
    Ok(Some(Torn { file, offset, what, bytes: behind.bytes, records: behind.records }))
}

/// Whether a start could read the files: all are there, and every segment but the last has its end.
/// Of a file at a time, and of what each holds by itself nothing is looked at but the records.
///
/// # Errors
/// What a start would be refused for.
pub fn check_complete(storage: &dyn Storage, names: &Names) -> Result<Option<Torn>, JournalError> {
    let segments: Vec<u32> = Listing::new(storage, names)?.segments.into_iter().collect();
    let mut bytes = Vec::new();
    for (index, number) in segments.iter().enumerate() {
        let name = Kind::Segment.file_name(*number);
        storage.read_records(&name, &mut bytes).map_err(failed("read", &name))?;
        let contents = Contents::new(*number, &bytes, names)?;
        let (offset, ending) = contents.walk(|_, _| Ok(()))?;
        if ending != Ending::Sealed {
            return judge(storage, names, &contents, offset, ending, &segments[index + 1..]);
        }
    }
    Ok(None)
}

/// A journal that was read and not changed yet.
pub struct Found {
    storage: Arc<dyn Storage>,
    options: Options,
    replay: Replay,
    /// What its file says now, if there is one.
    stored: Option<Identity>,
    /// What it is to say, if anybody has claimed the journal.
    identity: Option<Identity>,
    /// The table of names, of whoever has claimed it too.
    names: Names,
    is_copy: bool,
}

impl Found {
    /// Reads everything, changes nothing.
    ///
    /// # Errors
    /// See [`Replay::new`].
    pub fn new(storage: Arc<dyn Storage>, options: Options) -> Result<Found, JournalError> {
        let stored = read_identity(&*storage)?;
        let names = names_in(stored.as_ref());
        let replay = Replay::new(&*storage, &names, options.ids_remembered)?;
        Ok(Found { storage, options, replay, stored, identity: None, names, is_copy: false })
    }

    /// The names of the processors, by the numbers that the journal has for them: the owner's are among
    /// them once it is [claimed](Found::claim).
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Decides whether this owner may use the journal, and whether it is a copy. Changes nothing
    /// on the disk yet. Returns what is worth a line in the log.
    ///
    /// # Errors
    /// [`JournalError::NotOurs`].
    pub fn claim(
        &mut self,
        owner: &Owner,
        meant: &[Change],
        now: Timestamp,
    ) -> Result<Vec<String>, JournalError> {
        let refused = |what| JournalError::NotOurs { what };
        let Some(stored) = &self.stored else {
            let (id, owner) = (random(), owner.clone());
            let (identity, told) = match self.replay.listing.is_empty() {
                true => (Identity::new(id, owner), Vec::new()),
                false => {
                    let held = self.replay.held();
                    Identity::of_unclaimed(id, owner, held).map_err(refused)?
                }
            };
            self.names = identity.names().clone();
            self.identity = Some(identity);
            return Ok(told);
        };
        let told = identity::judge(&stored.owner, owner, self.replay.held(), meant);
        let told = told.map_err(refused)?;
        let place = self.storage.place(identity::FILE_NAME);
        let place = place.map_err(failed("look at", identity::FILE_NAME))?;
        self.is_copy = place != stored.place;
        let identity = stored.clone().of_owner(owner.clone()).map_err(refused)?;
        self.names = identity.names().clone();
        self.identity = Some(identity.doubted(&stored.owner, self.is_copy, now));
        Ok(told)
    }

    #[cfg(test)]
    pub fn stored_id(&self) -> u128 {
        self.stored.as_ref().expect("a file").id
    }

    /// Repairs, and goes on in a new segment.
    ///
    /// # Errors
    /// If that fails, which can be tried again.
    pub fn start(self) -> Result<(Writer, Recovered), JournalError> {
        let Found { storage, mut options, replay, stored, identity, names, is_copy } = self;
        if let Some(identity) = &identity
            && (is_copy || stored.as_ref() != Some(identity))
        {
            // No file may mean a name that is not on the disk.
            let may_wait = names == names_in(stored.as_ref());
            store_identity(&*storage, identity.clone(), may_wait)?;
        }
        // However small a queue was asked for: there must be room for what waits in it.
        let room = Room::of(names.count());
        options.make_room_for(replay.payments.len(), room);
        let (number, mut manifest) = repair(&*storage, &replay)?;
        let Listing { retained, rewritten, .. } = &replay.listing;
        let retained = retained::keep(&*storage, retained, rewritten, options.retention)?;
        let ids = ids_files(&*storage, &replay.listing)?;
        let oldest = replay.listing.segments.first().map_or(number, |first| *first.min(&number));
        let (accounts, notes) = (replay.listing.accounts, replay.listing.notes.clone());
        let only_accounts = !replay.is_in_books() && ids.iter().all(|ids| ids.count == 0);
        let keeping = Keeping {
            oldest,
            purged: 0,
            books: replay.held.clone(),
            ids,
            accounts,
            notes,
            replaced: Vec::new(),
            retained,
            superseded: Vec::new(),
            fresh: Files::new(),
            is_merging_held_up: false,
            only_accounts,
            lacks: [None; 3],
        };
        // A new journal is not begun where there is no space for it.
        let (bytes, needed) = (options.segment_bytes, room.to_start(replay.payments.len()));
        let reference = Reference::to(&names);
        let created = match replay.end.is_some() || replay.is_in_books() {
            true => Segment::create_what_fits(&*storage, number, bytes, needed, reference),
            false => Segment::create(&*storage, number, bytes, reference),
        };
        let segment = created.map_err(failed("make", &Kind::Segment.file_name(number)))?;
        match manifest.change(|named| named.insert_segment(number)) {
            // The keeper tries again.
            Err(error) if Lack::of(&error).is_some() => {}
            result => result.map_err(failed("write", manifest::FILE_NAME))?,
        }
        let (mut waiting, mut doubts) = replay.outstanding();
        let is_original =
            stored.is_some() && identity.as_ref().is_some_and(|it| it.doubted_since().is_none());
        for payment in waiting.iter_mut().chain(doubts.iter_mut().map(|doubt| &mut doubt.payment)) {
            payment.verify = !(is_original && replay.is_of_this_boot);
        }
        let recovered = Recovered {
            waiting,
            doubts,
            ids: replay.ids.into(),
            books: replay.books,
            accounts: replay.accounts,
            keys: replay.keys.into(),
            torn: replay.torn,
            is_copy,
            identity,
        };
        let kept = Kept { keeping, manifest, shelf: replay.shelf, names };
        let writer = Writer::new(storage, options, segment, replay.payments, kept);
        Ok((writer, recovered))
    }
}

/// The files of ids, the oldest first, and how many are in each.
fn ids_files(storage: &dyn Storage, listing: &Listing) -> Result<VecDeque<IdsFile>, JournalError> {
    let (mut ids, mut bytes) = (VecDeque::new(), Vec::new());
    for (first, last) in listing.ids_newest_first() {
        let name = Kind::Ids.file_name(last);
        storage.read(&name, FILE_HEAD_BYTES, &mut bytes).map_err(failed("read", &name))?;
        let count = books::count_of_ids(last, &bytes)?;
        ids.push_front(IdsFile { first, last, count, is_damaged: false });
    }
    Ok(ids)
}

/// Reads and starts, whoever it belongs to.
///
/// # Errors
/// See [`Found::new`] and [`Found::start`].
#[cfg(test)]
pub fn open(
    storage: Arc<dyn Storage>,
    options: Options,
) -> Result<(Writer, Recovered), JournalError> {
    Found::new(storage, options)?.start()
}

pub(super) fn read_identity(storage: &dyn Storage) -> Result<Option<Identity>, JournalError> {
    let mut bytes = Vec::new();
    match storage.read(identity::FILE_NAME, IDENTITY_BYTES_MAX, &mut bytes) {
        Ok(()) => Identity::decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", identity::FILE_NAME)(error)),
    }
}

/// The table of names of a journal of that identity.
fn names_in(stored: Option<&Identity>) -> Names {
    stored.map_or_else(Names::contest, |it| it.names().clone())
}

/// The table of names of a journal: that of the contest, if it has none.
///
/// # Errors
/// If `identity` cannot be read, or is damaged.
pub(super) fn read_names(storage: &dyn Storage) -> Result<Names, JournalError> {
    read_identity(storage).map(|stored| names_in(stored.as_ref()))
}

/// Replaces the file, which says where it is itself. If there is no space for it, and it may wait, the
/// next start does that.
fn store_identity(
    storage: &dyn Storage,
    mut identity: Identity,
    may_wait: bool,
) -> Result<(), JournalError> {
    let unfinished = format!("{}{UNFINISHED}", identity::FILE_NAME);
    let mut store = || {
        let file = storage.create(&unfinished)?;
        identity.place = storage.place(&unfinished)?;
        file.write_at(identity.encode().as_bytes(), 0)?;
        file.sync()?;
        storage.rename(&unfinished, identity::FILE_NAME)?;
        storage.sync_directory()
    };
    match store() {
        Err(error) if Lack::of(&error).is_some() => {
            let _ = storage.remove(&unfinished);
            if !may_wait {
                return Err(failed("write", identity::FILE_NAME)(error));
            }
            log::warn!("journal: {} cannot be written now: {error}", identity::FILE_NAME);
            Ok(())
        }
        result => result.map_err(failed("write", identity::FILE_NAME)),
    }
}

/// In a journal of version 1 one may be there twice: they were written again in a newer segment, and
/// the removal of the old one may have been cut short.
fn without_repetitions<T>(all: &mut Vec<T>, id: impl Fn(&T) -> PaymentId) {
    let mut seen = HashSet::new();
    all.retain(|one| seen.insert(id(one)));
}

/// Makes the files say what was read from them. Returns the number of the next segment, and the
/// manifest, which names what is left.
fn repair(storage: &dyn Storage, replay: &Replay) -> Result<(u32, Manifest), JournalError> {
    let listing = &replay.listing;
    let after_books = listing.books.last_key_value().map_or(FIRST_NUMBER, |(last, _)| last + 1);
    let next = match replay.end {
        None => after_books,
        Some((number, FILE_HEAD_BYTES, _)) => number,
        Some((number, ..)) => number + 1,
    };
    // What was seen must stay: removals of a start that was cut short may not be on the disk yet,
    // and one of them undone behind one of ours would be a gap.
    storage.sync_directory().map_err(failed("sync", "the directory"))?;
    let unnamed = || failed("write", manifest::FILE_NAME);
    let named = Named::of(storage, listing.files_before(next)).map_err(unnamed())?;
    let manifest = match &listing.manifest {
        None => None,
        Some(stored) => {
            let mut manifest = Manifest::open(storage, stored).map_err(unnamed())?;
            manifest.change(|it| it.clone_from(&named)).map_err(unnamed())?;
            Some(manifest)
        }
    };
    // The highest first, so that there is never a gap.
    for number in listing.segments.range(next..).rev() {
        let name = Kind::Segment.file_name(*number);
        storage.remove(&name).map_err(failed("remove", &name))?;
        storage.sync_directory().map_err(failed("sync", "the directory"))?;
    }
    if let Some((number, offset, ending)) = replay.end
        && ending != Ending::Sealed
        && number < next
    {
        let name = Kind::Segment.file_name(number);
        let close = || {
            let file = storage.open(&name)?;
            file.truncate(offset as u64)?;
            let mut end = Vec::new();
            Record::End.encode(Seed::of_segment(number, 0), offset, &mut end);
            file.write_at(&end, offset as u64)
        };
        close().map_err(failed("close", &name))?;
    }
    // Whatever counts from here on must not be lost: nothing says so again.
    for number in listing.segments.range(..next) {
        let name = Kind::Segment.file_name(*number);
        let synced = storage.open(&name).and_then(|file| file.sync());
        synced.map_err(failed("sync", &name))?;
    }
    for name in &listing.leftovers {
        storage.remove(name).map_err(failed("remove", name))?;
    }
    storage.sync_directory().map_err(failed("sync", "the directory"))?;
    // The first is made when there is all the space that there will be.
    let manifest = manifest.map_or_else(|| Manifest::create(storage, named), Ok);
    Ok((next, manifest.map_err(unnamed())?))
}
