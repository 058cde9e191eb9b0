//! A journal as somebody reads it who only looks: what is settled, in the order of its time, and what
//! is not. Takes no lock and changes nothing, so one that is in use can be read too.

use super::abridged::Archive;
use super::accounts::{Accounts, States};
use super::entries::{Gathering, Since};
use super::follow::Follower;
use super::head::Kind;
use super::identity::Identity;
use super::outstanding::Open;
use super::record::Record;
use super::recover::{Replay, read_identity};
use super::retained::{self, Retained};
use super::segment::Contents;
use super::storage::{Directory, Storage, StoredFile};
use super::volume::{self, Volume, merged};
use super::{JournalError, Position, books, shelf};
use crate::ledger::{AccountId, Entry, History};
use crate::payments::names::Names;
use crate::payments::resolution::Resolution;
use crate::payments::{Line, PaymentId, Rejection};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// So often it begins again if files come and go while they are read.
const TRIES_MAX: usize = 20;

/// What a journal held at one moment.
pub struct Reading {
    storage: Arc<dyn Storage>,
    segments: Vec<(u32, Arc<dyn StoredFile>)>,
    /// Behind the last record that was read.
    end: Position,
    pub identity: Option<Identity>,
    /// What the numbers of processors mean in it.
    pub names: Names,
    volumes: Arc<BTreeMap<u32, Arc<Volume>>>,
    /// What is in no volume, in the order of its time.
    others: Vec<Line>,
    /// Archives that are not beside the journal any more, and whose lines are not read.
    pub absent: Vec<Archive>,
    /// Accepted and not over, the oldest first.
    pub open: Vec<(PaymentId, Open)>,
    pub rejected: Vec<Rejection>,
    /// What operators have last decided about payments.
    pub resolved: HashMap<PaymentId, Arc<Resolution>>,
    /// Of a ledger.
    pub accounts: Vec<(AccountId, History)>,
    /// What the file of accounts says of them, which is of before the segments.
    listed: Accounts,
    /// Segments of before that may be there, the oldest first.
    rewritten: BTreeSet<u32>,
}

impl Reading {
    /// # Errors
    /// If the journal is damaged, or cannot be read.
    pub fn new(path: &Path) -> Result<Reading, JournalError> {
        let mut before = None;
        for _ in 0..TRIES_MAX {
            let storage = Directory::read_only(path).map(|it| it.showing("reading"));
            let storage = storage.map_err(|error| JournalError::io("open", path, error))?;
            let storage: Arc<dyn Storage> = Arc::new(storage);
            let error = match Reading::of(storage.clone()) {
                Ok(reading) => return Ok(reading),
                Err(error) => error,
            };
            // The keeper may have rewritten files meanwhile, and more may have been written to one
            // that was read before. Two in a row that say the same are right.
            let said = (error.to_string(), storage.names().unwrap_or_default());
            if before.replace(said.clone()) == Some(said) {
                return Err(error);
            }
        }
        let error = io::Error::other("it changes faster than it can be read");
        Err(JournalError::io("read", path, error))
    }

    pub(super) fn of(shared: Arc<dyn Storage>) -> Result<Reading, JournalError> {
        let storage = &*shared;
        let identity = read_identity(storage)?;
        let names = identity.as_ref().map_or_else(Names::contest, |it| it.names().clone());
        let replay = Replay::new(storage, &names, 0)?;
        let mut others = shelf::recorded(storage, &replay.shelf.offsets(), &names)?;
        for number in replay.old_books() {
            let (name, mut bytes) = (Kind::Books.file_name(number), Vec::new());
            let read = storage.read(&name, usize::MAX, &mut bytes);
            read.map_err(|error| JournalError::io("read", &name, error))?;
            others.append(&mut books::old_lines(number, &bytes, &names)?);
        }
        others.sort_unstable_by_key(volume::order);
        let mut open: Vec<_> = replay.payments.iter().map(|(id, open)| (id, *open)).collect();
        open.sort_unstable_by_key(|(id, open)| (open.accepted_at, *id));
        let mut accounts: Vec<_> =
            replay.accounts.iter().map(|(id, history)| (*id, history.clone())).collect();
        accounts.sort_unstable_by_key(|(id, _)| *id);
        let (mut volumes, mut absent) = (replay.shelf.volumes(), Vec::new());
        for archive in replay.shelf.on_disk().abridged.iter().flat_map(|it| it.archives()) {
            match archive.open(storage, &names)? {
                Some(volume) => {
                    Arc::make_mut(&mut volumes).insert(archive.number, Arc::new(volume));
                }
                None => absent.push(*archive),
            }
        }
        let mut listed = Accounts::default();
        if let Some(number) = replay.listing.accounts {
            let (name, mut bytes) = (Kind::Accounts.file_name(number), Vec::new());
            let read = storage.read(&name, usize::MAX, &mut bytes);
            read.map_err(|error| JournalError::io("read", &name, error))?;
            listed = States::new(number, &bytes)?.collect()?;
        }
        let retained = replay.listing.retained.iter();
        let entries = retained.filter(|(_, of)| *of == Retained::Entries).map(|(it, _)| *it);
        let mut rewritten = replay.listing.rewritten.clone();
        rewritten.extend(entries.filter(|number| !replay.listing.segments.contains(number)));
        let mut segments = Vec::new();
        for number in &replay.listing.segments {
            let name = Kind::Segment.file_name(*number);
            let file = storage.open_to_read(&name);
            segments.push((*number, file.map_err(|error| JournalError::io("open", &name, error))?));
        }
        Ok(Reading {
            end: replay.end(),
            identity,
            names,
            volumes,
            others,
            absent,
            open,
            rejected: replay.books.rejected,
            resolved: replay.books.resolved,
            accounts,
            listed,
            rewritten,
            segments,
            storage: shared,
        })
    }

    /// What is written from here on to the journal in that directory, which this is a reading of.
    ///
    /// # Errors
    /// If the directory cannot be opened.
    pub fn follow(&self, path: &Path) -> Result<Follower, JournalError> {
        let storage = Directory::read_only(path);
        let storage = storage.map_err(|error| JournalError::io("open", path, error))?;
        let mut segments = self.segments.iter();
        let file = segments.find(|(number, _)| *number == self.end.segment());
        let (names, file) = (self.names.clone(), file.map(|(_, file)| file.clone()));
        Ok(Follower::new(Arc::new(storage), names, self.end, file))
    }

    /// The entries of a ledger that are still there, each once: of each account in their order, up to
    /// the last that its history has. Returns from which one on they are all there, for each account
    /// in the order of [`Reading::accounts`].
    ///
    /// # Errors
    /// If they cannot be read any more, or a segment that is kept for this is damaged.
    pub fn entries<E: From<JournalError>>(
        &self,
        mut each: impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<Vec<Since>, E> {
        let last = self.accounts.iter().map(|(id, history)| (*id, history.sequence));
        let mut gathering = Gathering::new(last, &self.listed);
        let mut bytes = Vec::new();
        for number in &self.rewritten {
            // If it has gone, it was the oldest: what is told of its accounts says so.
            if let Some(name) = self.read_rewritten(*number, &mut bytes)? {
                let walk =
                    |take: &mut Take<'_>| retained::walk(&name, *number, &bytes, &self.names, take);
                told(&name, &mut gathering, &mut each, walk)?;
            }
        }
        for (number, file) in &self.segments {
            let name = Kind::Segment.file_name(*number);
            let unread = |error| JournalError::io("read", &name, error);
            bytes.resize(file.length().map_err(unread)? as usize, 0);
            file.read_at(&mut bytes, 0).map_err(unread)?;
            let contents = Contents::new(*number, &bytes, &self.names)?;
            let walk = |take: &mut Take<'_>| contents.walk(take).map(drop);
            told(&name, &mut gathering, &mut each, walk)?;
        }
        let mut since = Vec::with_capacity(self.accounts.len());
        for (id, _) in &self.accounts {
            let corrupt = |what| JournalError::Unneeded { file: "ledger".into(), offset: 0, what };
            let (rest, from) = gathering.rest(*id).map_err(corrupt)?;
            rest.iter().try_for_each(&mut each)?;
            since.push(from);
        }
        Ok(since)
    }

    /// Reads a segment that was rewritten, whatever it is called now. `None` if it has gone.
    fn read_rewritten(
        &self,
        number: u32,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<String>, JournalError> {
        let (kept, name) = (Retained::Entries.file_name(number), Kind::Segment.file_name(number));
        // It may be renamed between the first two looks.
        for name in [&kept, &name, &kept] {
            match self.storage.read(name, usize::MAX, bytes) {
                Ok(()) => return Ok(Some(name.clone())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(JournalError::io("read", name, error)),
            }
        }
        Ok(None)
    }

    /// Everything settled, but for what is in [absent](Reading::absent) archives, in the order of its
    /// time. A block of each volume is in memory at once.
    pub fn settled(&self) -> impl Iterator<Item = Result<Line, JournalError>> + '_ {
        type Lines<'a> = Box<dyn Iterator<Item = Result<Line, JournalError>> + 'a>;
        let volumes = self.volumes.values().map(|volume| Box::new(volume.lines()) as Lines<'_>);
        let others = Box::new(self.others.iter().map(|line| Ok(*line))) as Lines<'_>;
        merged(volumes.chain([others]).collect()).map(|line| line.map_err(|(_, error)| error))
    }
}

/// What is done with each record of a segment.
type Take<'a> = dyn FnMut(usize, Record) -> Result<(), JournalError> + 'a;

/// Tells the entries of one segment, of that name.
fn told<E: From<JournalError>>(
    name: &str,
    gathering: &mut Gathering,
    each: &mut impl FnMut(&Entry) -> Result<(), E>,
    walk: impl FnOnce(&mut Take<'_>) -> Result<(), JournalError>,
) -> Result<(), E> {
    let mut failed = None;
    walk(&mut |offset, record| {
        if let Record::Entry(entry) = record
            && failed.is_none()
        {
            let unneeded = |what| JournalError::Unneeded { file: name.into(), offset, what };
            let entries = gathering.take(&entry).map_err(unneeded)?;
            failed = entries.iter().try_for_each(&mut *each).err();
        }
        Ok(())
    })?;
    failed.map_or(Ok(()), Err)
}
