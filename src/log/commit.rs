//! Writing down: one transaction at a time, each behind the one before it, and each only while the
//! log is ours.
//!
//! The fence and the count are one: `own.seq` goes from the number of the commit before to that of
//! this one, where the epoch is ours. The row is locked until the commit, so a commit is before a
//! takeover as a whole or does not happen.
//!
//! A commit without an answer may have happened, or may still: its connection may be in a queue
//! somewhere. What `own` says on a new connection decides. If it has the number of this commit, it
//! has happened; and since it may be on that server alone, the row is written once more, for that
//! commit waits for what is before it. If it has the number of the commit before, the transaction is
//! made again, as it was; should the first be carried out later, it finds another number and does
//! nothing. Nothing else is written before that is settled.

use super::Fault;
use super::LogNumber;
use super::ownership::Tenure;
use super::picture::{Change, Inode, Room, Row};
use super::schema::cell;
use super::server::Server;
use super::session::Session;
use crate::base::clock::{self, Moment};
use std::sync::Arc;
use std::time::Duration;

/// A server that refuses connections is asked again so often.
pub const RETRY_EVERY: Duration = Duration::from_millis(20);

const FENCE: &str = "UPDATE galo.own SET seq = $4 WHERE log = $1 AND epoch = $2 AND seq = $3";

/// The fence and new rows in one statement, which is most commits.
const APPEND: &str = "WITH fence AS (UPDATE galo.own SET seq = $4 \
        WHERE log = $1 AND epoch = $2 AND seq = $3 RETURNING log) \
    INSERT INTO galo.chunk (log, file, number, at, bytes) \
    SELECT fence.log, new.file, new.number, new.at, new.bytes FROM fence, \
        unnest($5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[]) AS new (file, number, at, bytes)";

const INSERT: &str = "INSERT INTO galo.chunk (log, file, number, at, bytes) \
    SELECT $1, new.file, new.number, new.at, new.bytes FROM \
        unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[]) AS new (file, number, at, bytes)";

const REMOVE_ROWS: &str = "DELETE FROM galo.chunk USING \
        unnest($2::bigint[], $3::bigint[]) AS worn (file, first) \
    WHERE chunk.log = $1 AND chunk.file = worn.file AND chunk.number < worn.first";

const REMOVE_NAMES: &str = "DELETE FROM galo.name WHERE log = $1 AND name = ANY ($2::text[])";

const SET_NAMES: &str = "INSERT INTO galo.name (log, name, file) \
    SELECT $1, new.name, new.file FROM unnest($2::text[], $3::bigint[]) AS new (name, file) \
    ON CONFLICT (log, name) DO UPDATE SET file = excluded.file";

const OWNER: &str = "SELECT epoch, seq, instance, address FROM galo.own WHERE log = $1";

/// What one commit writes down. It stays as it is until that is settled.
#[derive(Default)]
pub struct Batch {
    pub rows: Vec<Row>,
    /// Files of which all rows before these numbers are to go.
    pub worn: Vec<(i64, i64)>,
    pub names_removed: Vec<String>,
    pub names_set: Vec<(String, Arc<Inode>)>,
    /// What is done once this is, up to which change.
    pub inodes: Vec<(Arc<Inode>, u64)>,
    pub rooms: Vec<(Arc<Room>, u64)>,
    /// Files that have no name any more.
    pub gone: Vec<Arc<Inode>>,
}

impl Batch {
    fn is_append(&self) -> bool {
        self.worn.is_empty() && self.names_removed.is_empty() && self.names_set.is_empty()
    }
}

/// The connection for writing down.
pub struct Committer {
    server: Arc<Server>,
    log: LogNumber,
    tenure: Arc<Tenure>,
    session: Option<Session>,
    /// The number of the last commit.
    seq: i64,
    /// What was begun and is not settled.
    in_flight: Option<Batch>,
    /// An answer is missing.
    is_in_doubt: bool,
    /// How long one attempt may take.
    attempt: Duration,
}

impl Committer {
    /// Reads where the log stands.
    pub fn new(
        server: Arc<Server>,
        log: LogNumber,
        tenure: Arc<Tenure>,
        session: Session,
        attempt: Duration,
    ) -> Result<Committer, Fault> {
        let mut committer = Committer {
            server,
            log,
            tenure,
            session: Some(session),
            seq: 0,
            in_flight: None,
            is_in_doubt: false,
            attempt,
        };
        let until = clock::moment() + attempt;
        committer.seq = committer.look(until)?;
        Ok(committer)
    }

    /// Settles what an earlier call has left, and then writes this down → what was done.
    ///
    /// # Errors
    /// If it is not known to be done by the end of the lease, and that is tried again by the next
    /// call; or if the log is ours no more.
    pub fn commit(&mut self, batch: Batch) -> Result<Batch, Fault> {
        self.in_flight = Some(batch);
        self.settle()?.ok_or_else(|| Fault::NoAnswer("nothing was under way".into()))
    }

    /// See [`Committer::commit`]. `None` if there is nothing to settle.
    pub fn settle(&mut self) -> Result<Option<Batch>, Fault> {
        let Some(batch) = self.in_flight.take() else { return Ok(None) };
        loop {
            let fault = match self.attempt(&batch) {
                Ok(()) => return Ok(Some(batch)),
                Err(fault) => fault,
            };
            self.session = None;
            self.is_in_doubt = true;
            if fault.is_final() || clock::moment() >= self.tenure.until() {
                self.in_flight = Some(batch);
                return Err(fault);
            }
            log::debug!("the log: a commit is tried again: {fault}");
            std::thread::sleep(RETRY_EVERY);
        }
    }

    fn attempt(&mut self, batch: &Batch) -> Result<(), Fault> {
        let now = clock::moment();
        // One attempt is made in any case: the fence knows whose the log is.
        let left = self.tenure.until().since(now).clamp(self.attempt / 4, self.attempt);
        let until = now + left;
        if self.session.is_none() {
            self.session = Some(self.server.connect(until, self.attempt)?);
        }
        let next = self.seq + 1;
        if self.is_in_doubt {
            let seq = self.look(until)?;
            let has_happened = seq == next;
            if !has_happened && seq != self.seq {
                let (expected, found) = (self.seq.cast_unsigned(), seq.cast_unsigned());
                return Err(Fault::Rewound { expected, found });
            }
            if has_happened {
                let again = self.fence(next, next, until)?;
                return self.done(again);
            }
            self.is_in_doubt = false;
        }
        let is_done = self.write(batch, until)?;
        self.done(is_done)
    }

    /// Where the fence has let nothing through, the owner's row tells why.
    fn done(&mut self, is_done: bool) -> Result<(), Fault> {
        if is_done {
            self.seq += 1;
            self.is_in_doubt = false;
            return Ok(());
        }
        Err(Fault::NoAnswer("the fence is closed".into()))
    }

    fn write(&mut self, batch: &Batch, until: Moment) -> Result<bool, Fault> {
        let (log, epoch) = (self.log.0, self.tenure.epoch().cast_signed());
        let (seq, next) = (self.seq, self.seq + 1);
        let columns = Columns::of(&batch.rows);
        let Columns { files, numbers, places, bytes } = &columns;
        let session = self.session()?;
        if batch.is_append() && !batch.rows.is_empty() {
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
                [&log, &epoch, &seq, &next, files, numbers, places, bytes];
            return Ok(session.execute(APPEND, &values, until)? == batch.rows.len() as u64);
        }
        session.batch("BEGIN", until)?;
        if session.execute(FENCE, &[&log, &epoch, &seq, &next], until)? != 1 {
            session.batch("ROLLBACK", until)?;
            return Ok(false);
        }
        if !batch.worn.is_empty() {
            let (files, firsts): (Vec<i64>, Vec<i64>) = batch.worn.iter().copied().unzip();
            session.execute(REMOVE_ROWS, &[&log, &files, &firsts], until)?;
        }
        if !batch.rows.is_empty() {
            session.execute(INSERT, &[&log, files, numbers, places, bytes], until)?;
        }
        if !batch.names_removed.is_empty() {
            session.execute(REMOVE_NAMES, &[&log, &batch.names_removed], until)?;
        }
        if !batch.names_set.is_empty() {
            let of_it = batch.names_set.iter().map(|(name, inode)| (name.as_str(), inode.id));
            let (names, files): (Vec<&str>, Vec<i64>) = of_it.unzip();
            session.execute(SET_NAMES, &[&log, &names, &files], until)?;
        }
        session.batch("COMMIT", until)?;
        Ok(true)
    }

    fn fence(&mut self, from: i64, to: i64, until: Moment) -> Result<bool, Fault> {
        let (log, epoch) = (self.log.0, self.tenure.epoch().cast_signed());
        Ok(self.session()?.execute(FENCE, &[&log, &epoch, &from, &to], until)? == 1)
    }

    /// The number of the last commit, if the log is ours.
    fn look(&mut self, until: Moment) -> Result<i64, Fault> {
        let (log, ours) = (self.log.0, self.tenure.epoch());
        let rows = self.session()?.query(OWNER, &[&log], until)?;
        let missing = || Fault::Setup("there is no such log: `galo log create` makes it".into());
        let row = rows.first().ok_or_else(missing)?;
        let epoch = cell::<i64>(row, 0)?.cast_unsigned();
        if epoch != ours {
            let (instance, address): (&str, &str) = (cell(row, 2)?, cell(row, 3)?);
            return Err(Fault::Owned { by: format!("{instance} at {address}"), epoch });
        }
        cell(row, 1)
    }

    fn session(&mut self) -> Result<&mut Session, Fault> {
        self.session.as_mut().ok_or_else(|| Fault::NoAnswer("not connected".into()))
    }
}

/// Rows as the columns they are sent in.
pub struct Columns<'a> {
    pub files: Vec<i64>,
    pub numbers: Vec<i64>,
    pub places: Vec<i64>,
    pub bytes: Vec<Option<&'a [u8]>>,
}

impl Columns<'_> {
    pub fn of(rows: &[Row]) -> Columns<'_> {
        let of_row = |row: &'_ Row| match &row.change {
            Change::Write { at, .. } => at.cast_signed(),
            Change::Length(length) => length.cast_signed(),
        };
        Columns {
            files: rows.iter().map(|row| row.file).collect(),
            numbers: rows.iter().map(|row| row.number).collect(),
            places: rows.iter().map(of_row).collect(),
            bytes: rows
                .iter()
                .map(|row| match &row.change {
                    Change::Write { bytes, .. } => Some(bytes.as_slice()),
                    Change::Length(_) => None,
                })
                .collect(),
        }
    }
}
