//! A journal as somebody reads it who only looks: what is settled, in the order of its time, and what
//! is not. Takes no lock and changes nothing, so one that is in use can be read too.

use super::head::Kind;
use super::identity::Identity;
use super::outstanding::Open;
use super::record::Record;
use super::recover::{Replay, read_identity};
use super::segment::Contents;
use super::storage::{Directory, Storage};
use super::volume::{self, Volume, merged};
use super::{JournalError, books};
use crate::ledger::{AccountId, Entry, History};
use crate::payments::{Line, PaymentId, Rejection};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// So often it begins again if files go while they are read.
const TRIES_MAX: usize = 10;

/// What a journal held at one moment.
pub struct Reading {
    storage: Directory,
    segments: Vec<u32>,
    pub identity: Option<Identity>,
    volumes: Arc<BTreeMap<u32, Arc<Volume>>>,
    /// What is in no volume, in the order of its time.
    others: Vec<Line>,
    /// Accepted and not over, the oldest first.
    pub open: Vec<(PaymentId, Open)>,
    pub rejected: Vec<Rejection>,
    /// Of a ledger.
    pub accounts: Vec<(AccountId, History)>,
}

impl Reading {
    /// # Errors
    /// If the journal is damaged, or cannot be read.
    pub fn new(path: &Path) -> Result<Reading, JournalError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let storage = Directory::read_only(path);
            let storage = storage.map_err(|error| JournalError::io("open", path, error))?;
            match Reading::of(storage) {
                // The keeper has rewritten it meanwhile.
                Err(JournalError::Io { error, .. })
                    if error.kind() == io::ErrorKind::NotFound && tries < TRIES_MAX => {}
                result => return result,
            }
        }
    }

    fn of(storage: Directory) -> Result<Reading, JournalError> {
        let identity = read_identity(&storage)?;
        let replay = Replay::new(&storage, 0)?;
        let mut others = replay.shelf.recorded(&storage)?;
        for number in replay.old_books() {
            let (name, mut bytes) = (Kind::Books.file_name(number), Vec::new());
            let read = storage.read(&name, usize::MAX, &mut bytes);
            read.map_err(|error| JournalError::io("read", &name, error))?;
            others.append(&mut books::old_lines(number, &bytes)?);
        }
        others.sort_unstable_by_key(volume::order);
        let mut open: Vec<_> = replay.payments.iter().map(|(id, open)| (id, *open)).collect();
        open.sort_unstable_by_key(|(id, open)| (open.accepted_at, *id));
        let mut accounts: Vec<_> =
            replay.accounts.iter().map(|(id, history)| (*id, history.clone())).collect();
        accounts.sort_unstable_by_key(|(id, _)| *id);
        Ok(Reading {
            identity,
            volumes: replay.shelf.volumes(),
            others,
            open,
            rejected: replay.books.rejected,
            accounts,
            segments: replay.listing.segments.iter().copied().collect(),
            storage,
        })
    }

    /// The entries of a ledger that are still in segments: of each account in their order.
    ///
    /// # Errors
    /// What `each` answers, or if they cannot be read any more.
    pub fn entries(
        &self,
        mut each: impl FnMut(&Entry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for number in &self.segments {
            let name = Kind::Segment.file_name(*number);
            let read = self.storage.read_records(&name, &mut bytes);
            read.map_err(|error| JournalError::io("read", &name, error))?;
            Contents::new(*number, &bytes)?.walk(|_, record| match record {
                Record::Entry(entry) => each(&entry),
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Everything settled, in the order of its time. A block of each volume is in memory at once.
    pub fn settled(&self) -> impl Iterator<Item = Result<Line, JournalError>> + '_ {
        type Lines<'a> = Box<dyn Iterator<Item = Result<Line, JournalError>> + 'a>;
        let volumes = self.volumes.values().map(|volume| Box::new(volume.lines()) as Lines<'_>);
        let others = Box::new(self.others.iter().map(|line| Ok(*line))) as Lines<'_>;
        merged(volumes.chain([others]).collect()).map(|line| line.map_err(|(_, error)| error))
    }
}
