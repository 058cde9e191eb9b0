//! The files of a log as a journal sees them: `journal::storage`'s seam, over the tables.
//!
//! Everything is done to a picture on this machine at once (`picture.rs`), and written down when a
//! sync asks for it (`commit.rs`): a file's contents by its own sync, the names by that of the
//! directory. Syncs that come while one is under way go together.
//!
//! What is long and in a file that nobody can know of yet is written ahead, in pieces and beside the
//! commits, so that a short commit never waits for it.
//!
//! A file is fetched whole when it is first opened or read, and never again.

use super::commit::{Batch, Columns, Committer, RETRY_EVERY};
use super::local::Scratch;
use super::ownership::Tenure;
use super::picture::{Change, Filling, Inode, Renaming, Room, Row, locked};
use super::schema::{self, cell};
use super::session::Session;
use super::{Fault, LogNumber, Server};
use crate::base::clock::{self, Micros, Moment};
use crate::journal::identity::Place;
use crate::journal::storage::{Storage, StoredFile};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// One commit has not much more.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// What is longer goes ahead of its commit, in pieces of so many bytes.
const AHEAD_BYTES: usize = 1 << 20;
const AHEAD_PIECE_BYTES: usize = 4 << 20;
/// So long a piece, or a page of a file that is fetched, may take.
const PIECE_WITHIN: Duration = Duration::from_secs(10);
/// A page of a file that is fetched has so many bytes, and one row more, and so many rows.
const PAGE_BYTES: i64 = 4 << 20;
const PAGE_ROWS: i64 = 1 << 16;
/// More zeros than any record ends with.
const ZEROS_KEPT: u64 = 1 << 16;
/// Files that wait to be removed. What is one too many is removed after the next start.
const GARBAGE_MAX: usize = 1 << 16;
/// So many rows go at once when a file is removed.
const SWEPT_ROWS: i64 = 2_000;

/// The records of one log that is ours. Made anew when it has been taken again.
#[derive(Clone)]
pub struct LogStorage {
    shared: Arc<Shared>,
    room: Arc<Room>,
}

struct Shared {
    server: Arc<Server>,
    log: LogNumber,
    tenure: Arc<Tenure>,
    scratch: Scratch,
    place: (u64, u64),
    rooms: Mutex<Rooms>,
    /// Files made in this tenure.
    made: AtomicU32,
    wanted: Mutex<Wanted>,
    committer: Mutex<Committer>,
    /// For fetching, and for what goes ahead.
    side: Mutex<Option<Session>>,
    garbage: SyncSender<i64>,
    /// What was taken to be written down could not be read any more.
    broken: OnceLock<String>,
}

/// Taken in this order: an inode's `syncing`, the committer, then whatever else for a moment.
#[derive(Default)]
struct Wanted {
    inodes: Vec<Arc<Inode>>,
    rooms: Vec<Arc<Room>>,
}

struct Rooms {
    made: BTreeMap<String, Arc<Room>>,
    /// Names of which nobody has opened the room.
    others: BTreeMap<String, i64>,
}

const NAMES: &str = "SELECT name, file FROM galo.name WHERE log = $1";

/// Rows that begin within so many bytes: what is stored aside is counted without being read.
const PAGE: &str = "SELECT number, at, bytes FROM ( \
        SELECT number, at, bytes, sum(coalesce(octet_length(bytes), 0)) OVER (ORDER BY number) \
            - coalesce(octet_length(bytes), 0) AS before \
        FROM (SELECT number, at, bytes FROM galo.chunk \
            WHERE log = $1 AND file = $2 AND number > $3 ORDER BY number LIMIT $4) AS next \
    ) AS page WHERE before < $5 ORDER BY number";

/// Nobody can know of the file, so the fence is only looked through, and rows that come too late are
/// of no file.
const AHEAD: &str = "INSERT INTO galo.chunk (log, file, number, at, bytes) \
    SELECT own.log, new.file, new.number, new.at, new.bytes FROM galo.own, \
        unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[]) \
            AS new (file, number, at, bytes) \
    WHERE own.log = $1 AND own.epoch = $2 ON CONFLICT (log, file, number) DO NOTHING";

const EPOCH: &str = "SELECT epoch FROM galo.own WHERE log = $1";

/// Files without a name, of tenures before this one.
const ORPHANS: &str = "WITH RECURSIVE files (file) AS ( \
        SELECT min(file) FROM galo.chunk WHERE log = $1 \
        UNION ALL \
        SELECT (SELECT min(chunk.file) FROM galo.chunk WHERE log = $1 AND chunk.file > files.file) \
        FROM files WHERE files.file IS NOT NULL) \
    SELECT file FROM files WHERE file < $2 \
        AND NOT EXISTS (SELECT FROM galo.name WHERE log = $1 AND name.file = files.file)";

const SWEEP: &str = "DELETE FROM galo.chunk WHERE log = $1 AND file = $2 AND number < \
    (SELECT min(number) FROM galo.chunk WHERE log = $1 AND file = $2) + $3";

impl LogStorage {
    /// The files of a log that has been taken. Fetches their names.
    ///
    /// # Errors
    /// See [`Fault`]; [`Fault::Owned`] if somebody else has taken the log meanwhile.
    pub fn open(
        server: Arc<Server>,
        log: LogNumber,
        tenure: Arc<Tenure>,
        scratch: Scratch,
        lease: Duration,
    ) -> Result<LogStorage, Fault> {
        // The server gives up a statement in time for another attempt.
        let attempt = lease / 3;
        let until = tenure.until().max(clock::moment() + attempt);
        let mut session = server.connect(until, attempt)?;
        schema::check(&mut session, until)?;
        let place = schema::place(&mut session, until)?;
        let committer = Committer::new(server.clone(), log, tenure.clone(), session, attempt)?;
        let mut side = server.connect(until, PIECE_WITHIN)?;
        let rows = side.query(NAMES, &[&log.0], until)?;
        let others = rows.iter().map(|row| Ok((cell(row, 0)?, cell(row, 1)?)));
        let others = others.collect::<Result<BTreeMap<String, i64>, Fault>>()?;
        let garbage = sweep_beside(server.clone(), log, tenure.epoch())?;
        let rooms = Mutex::new(Rooms { made: BTreeMap::new(), others });
        let shared = Arc::new(Shared {
            server,
            log,
            tenure,
            scratch,
            place,
            rooms,
            made: AtomicU32::new(0),
            wanted: Mutex::default(),
            committer: Mutex::new(committer),
            side: Mutex::new(Some(side)),
            garbage,
            broken: OnceLock::new(),
        });
        let room = shared.room("");
        Ok(LogStorage { shared, room })
    }

    /// Another set of files of the same log, as a directory inside is elsewhere.
    pub fn within(&self, name: &str) -> LogStorage {
        let prefix = format!("{}{name}/", self.room.prefix);
        LogStorage { shared: self.shared.clone(), room: self.shared.room(&prefix) }
    }

    fn make(&self, name: &str) -> io::Result<Arc<Inode>> {
        let inode = Arc::new(Inode::new(self.shared.new_file()?, &self.shared.scratch)?);
        self.room.set(name, &inode);
        Ok(inode)
    }

    fn handle(&self, inode: Arc<Inode>) -> Arc<dyn StoredFile> {
        Arc::new(OpenFile { shared: self.shared.clone(), inode })
    }
}

impl Shared {
    fn room(&self, prefix: &str) -> Arc<Room> {
        let mut rooms = locked(&self.rooms);
        if let Some(room) = rooms.made.get(prefix) {
            return room.clone();
        }
        let is_inside =
            |name: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/'));
        let mut inside = BTreeMap::new();
        rooms.others.retain(|name, file| {
            let is_other = !is_inside(name);
            if !is_other {
                inside.insert(name[prefix.len()..].to_string(), Arc::new(Inode::stored(*file)));
            }
            is_other
        });
        let room = Arc::new(Room::new(prefix, inside));
        rooms.made.insert(prefix.into(), room.clone());
        room
    }

    /// A number that no file of this log has ever had: the epoch, and behind it a count.
    fn new_file(&self) -> io::Result<i64> {
        let count = self.made.fetch_add(1, Ordering::Relaxed);
        let is_last = count == u32::MAX || self.tenure.epoch() >> 31 != 0;
        if is_last {
            return Err(io::Error::other("the log has had more files than it can number"));
        }
        Ok(first_file_of(self.tenure.epoch()) + i64::from(count))
    }

    /// Does it until it succeeds or the lease is over; it may be done more than once.
    fn on_the_side<T>(
        &self,
        mut call: impl FnMut(&mut Session, Moment) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut side = locked(&self.side);
        loop {
            let until = clock::moment() + PIECE_WITHIN;
            let mut attempt = || {
                let mut session = match side.take() {
                    Some(session) => session,
                    None => self.server.connect(until, PIECE_WITHIN)?,
                };
                let result = call(&mut session, until)?;
                *side = Some(session);
                Ok::<T, Fault>(result)
            };
            match attempt() {
                Err(fault) if !fault.is_final() && clock::moment() < self.tenure.until() => {
                    std::thread::sleep(RETRY_EVERY);
                }
                result => return result,
            }
        }
    }

    /// The whole file, fetched if it has not been.
    fn fetched(&self, inode: &Inode) -> io::Result<()> {
        if inode.local().is_some() {
            return Ok(());
        }
        let mut filling = Filling::new(&self.scratch)?;
        loop {
            let (log, file, after) = (self.log.0, inode.id, filling.number);
            let rows = self.on_the_side(|session, until| {
                session.query(PAGE, &[&log, &file, &after, &PAGE_ROWS, &PAGE_BYTES], until)
            })?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let at = cell::<i64>(row, 1)?.cast_unsigned();
                let contents: Option<&[u8]> = cell(row, 2)?;
                let change = match contents {
                    Some(contents) => Change::Write { at, bytes: contents.into() },
                    None => Change::Length(at),
                };
                filling.add(cell(row, 0)?, &change)?;
            }
        }
        inode.fill(filling);
        Ok(())
    }

    fn sync_file(&self, inode: &Arc<Inode>) -> io::Result<()> {
        let ticket = inode.noted();
        let _syncing = locked(&inode.syncing);
        while inode.unseen_bytes() > AHEAD_BYTES {
            self.send_ahead(inode)?;
        }
        if inode.is_committed(ticket) {
            return Ok(());
        }
        locked(&self.wanted).inodes.push(inode.clone());
        self.commit_until(&|| inode.is_committed(ticket))
    }

    /// One piece of a file that nobody can know of.
    fn send_ahead(&self, inode: &Inode) -> io::Result<()> {
        let mut rows: Vec<Row> = Vec::new();
        let (taken, _) = inode.take(AHEAD_PIECE_BYTES, &mut rows)?;
        let Columns { files, numbers, places, bytes } = Columns::of(&rows);
        let (log, epoch) = (self.log.0, self.tenure.epoch());
        let ours = epoch.cast_signed();
        self.on_the_side(|session, until| {
            let written =
                session.execute(AHEAD, &[&log, &ours, &files, &numbers, &places, &bytes], until)?;
            if written == rows.len() as u64 {
                return Ok(());
            }
            // Made once more, or not ours any more.
            let found: i64 = schema::one(session.query(EPOCH, &[&log], until)?)?;
            match found == ours {
                true => Ok(()),
                false => {
                    let (by, epoch) = ("another".into(), found.cast_unsigned());
                    Err(Fault::Owned { by, epoch })
                }
            }
        })?;
        inode.set_committed(taken);
        Ok(())
    }

    /// Writes down what anybody waits for, until that is done.
    fn commit_until(&self, is_done: &dyn Fn() -> bool) -> io::Result<()> {
        let mut committer = locked(&self.committer);
        let left = committer.settle()?;
        self.finish(left);
        while !is_done() {
            if let Some(what) = self.broken.get() {
                return Err(io::Error::other(what.clone()));
            }
            // Of what it has taken before, nothing is there any more.
            let broken = |error: io::Error| self.broken.get_or_init(|| error.to_string()).clone();
            let batch = self.gather().map_err(|error| io::Error::other(broken(error)))?;
            let done = committer.commit(batch)?;
            self.finish(Some(done));
        }
        Ok(())
    }

    /// What is wanted, as far as it goes into one commit.
    fn gather(&self) -> io::Result<Batch> {
        let mut wanted = locked(&self.wanted);
        let mut batch = Batch::default();
        let mut renaming = Renaming::default();
        for room in wanted.rooms.drain(..) {
            let until = room.take(&mut renaming);
            batch.rooms.push((room, until));
        }
        let mut bytes_left = BATCH_BYTES_MAX;
        let mut later = Vec::new();
        for inode in wanted.inodes.drain(..) {
            if bytes_left == 0 {
                later.push(inode);
                continue;
            }
            let before = batch.rows.len();
            let (until, first) = inode.take(bytes_left, &mut batch.rows)?;
            let taken: usize = batch.rows[before..].iter().map(Row::bytes).sum();
            bytes_left = bytes_left.saturating_sub(taken);
            batch.worn.extend(first.map(|first| (inode.id, first)));
            if until < inode.noted() {
                later.push(inode.clone());
            }
            batch.inodes.push((inode, until));
        }
        wanted.inodes = later;
        let Renaming { removed, set, gone } = renaming;
        (batch.names_removed, batch.names_set, batch.gone) = (removed, set, gone);
        Ok(batch)
    }

    /// What a commit that is done means.
    fn finish(&self, batch: Option<Batch>) {
        let Some(batch) = batch else { return };
        for (inode, until) in &batch.inodes {
            inode.set_committed(*until);
        }
        for (room, until) in &batch.rooms {
            room.set_committed(*until);
        }
        for (_, inode) in &batch.names_set {
            inode.set_named();
        }
        for inode in batch.gone.iter().filter(|inode| inode.has_rows()) {
            // What is one too many is found again by the next who has the log.
            let _ = self.garbage.try_send(inode.id);
        }
    }
}

/// The least number of a file made in this epoch.
fn first_file_of(epoch: u64) -> i64 {
    (epoch << 32).cast_signed()
}

/// Removes what is in files that have no name any more, beside everything else and with no hurry. Ends
/// with whoever tells it of them.
fn sweep_beside(server: Arc<Server>, log: LogNumber, epoch: u64) -> Result<SyncSender<i64>, Fault> {
    let (sender, receiver) = sync_channel(GARBAGE_MAX);
    let run = move || sweep(&server, log, epoch, &receiver);
    let started = std::thread::Builder::new().name("galo-sweep".into()).spawn(run);
    started.map(|_| sender).map_err(|error| Fault::NoAnswer(format!("no thread: {error}")))
}

fn sweep(server: &Server, log: LogNumber, epoch: u64, files: &Receiver<i64>) {
    let orphans = |session: &mut Session, until| {
        let first = first_file_of(epoch);
        let rows = session.query(ORPHANS, &[&log.0, &first], until)?;
        rows.iter().map(|row| cell(row, 0)).collect::<Result<Vec<i64>, Fault>>()
    };
    let remove = |session: &mut Session, file: i64| {
        while session.execute(SWEEP, &[&log.0, &file, &SWEPT_ROWS], soon())? > 0 {}
        Ok::<(), Fault>(())
    };
    let mut session = server.connect(soon(), PIECE_WITHIN).ok();
    let mut found = session.as_mut().map(|it| orphans(it, soon())).and_then(Result::ok);
    for file in found.take().into_iter().flatten().chain(files) {
        if session.is_none() {
            session = server.connect(soon(), PIECE_WITHIN).ok();
        }
        let Some(connected) = &mut session else { continue };
        if let Err(fault) = remove(connected, file) {
            log::debug!("the log: what is left of file {file} is removed later: {fault}");
            session = None;
        }
    }
}

fn soon() -> Moment {
    clock::moment() + PIECE_WITHIN
}

impl Storage for LogStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.room.list())
    }

    fn read(&self, name: &str, limit: usize, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        let inode = self.room.find(name)?;
        self.shared.fetched(&inode)?;
        let length = inode.length().min(limit as u64);
        read_from(local(&inode)?, length, into)
    }

    fn read_records(&self, name: &str, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        let inode = self.room.find(name)?;
        self.shared.fetched(&inode)?;
        let length = inode.length().min(inode.used().saturating_add(ZEROS_KEPT));
        read_from(local(&inode)?, length, into)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        Ok(self.handle(self.make(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.room.find(name)?;
        self.shared.fetched(&inode)?;
        Ok(self.handle(inode))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.room.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.room.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        let ticket = self.room.noted();
        if self.room.is_committed(ticket) {
            return Ok(());
        }
        locked(&self.shared.wanted).rooms.push(self.room.clone());
        self.shared.commit_until(&|| self.room.is_committed(ticket))
    }

    /// Always the same: what has been synced is on other machines too, and hangs on no start of this
    /// one.
    fn boot(&self) -> [u8; 16] {
        *b"galo.replicated."
    }

    /// That of the tables (`schema::place`): the same on whatever machine the log is taken.
    fn place(&self, name: &str) -> io::Result<Place> {
        self.room.find(name)?;
        let (directory, file) = self.shared.place;
        Ok(Place { file, directory, made_at: Micros(0) })
    }
}

struct OpenFile {
    shared: Arc<Shared>,
    inode: Arc<Inode>,
}

impl StoredFile for OpenFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        local(&self.inode)?.read_exact_at(into, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.inode.length())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inode.change(Change::Write { at: offset, bytes: bytes.into() })
    }

    /// Only the length: whether there is room is for the server to say.
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.inode.lengthen(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.inode.change(Change::Length(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.sync_file(&self.inode)
    }
}

fn local(inode: &Inode) -> io::Result<&File> {
    inode.local().ok_or_else(|| io::Error::other("the file has not been opened"))
}

fn read_from(file: &File, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    into.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
    file.read_exact_at(into, 0)
}
