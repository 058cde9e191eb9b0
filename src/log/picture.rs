//! What the owner of a log sees of its files: all that was ever done to them. And, of that, what is
//! still to be written down.
//!
//! The invariant: the rows of a file, in the order of their numbers, are a prefix of what was done to
//! its contents.

use super::local::Scratch;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The bytes of one row. What is longer is written as several.
pub const ROW_BYTES_MAX: usize = 1 << 20;
/// What has been written to all files and is not on the server, at most. It is what comes in within
/// a lease, for a sync that has not ended then fails.
const PENDING_BYTES_MAX: usize = 1 << 30;
/// A file of more rows is written anew if most of what they say does not hold any more.
const ROWS_MAX: u64 = 256;
/// As many times its length is in the rows of a file that is written anew.
const REWRITTEN_TIMES_MAX: u64 = 4;

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is right after every statement of ours.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One change of a file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    /// Cut off, or lengthened with zeros.
    Length(u64),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Write { bytes, .. } => bytes.len(),
            Change::Length(_) => 0,
        }
    }
}

/// One row of the table of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub file: i64,
    pub number: i64,
    pub change: Change,
}

impl Row {
    pub fn bytes(&self) -> usize {
        self.change.bytes()
    }
}

/// A file, under whatever name, and when it has none any more.
pub struct Inode {
    pub id: i64,
    /// Held through a sync.
    pub syncing: Mutex<()>,
    /// Everything that is in it. `None` as long as nobody has asked for it.
    local: OnceLock<File>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    length: u64,
    /// Behind the last byte that was written.
    used: u64,
    pending: VecDeque<Change>,
    pending_bytes: usize,
    /// Changes so far: all, those that have been taken to be written down, and those that are.
    noted: u64,
    taken: u64,
    committed: u64,
    /// Of the last row.
    number: i64,
    /// Rows, and bytes in them.
    rows: u64,
    weight: u64,
    /// Others may know of it: it has a name in the tables.
    is_named: bool,
}

impl Inode {
    /// A new one.
    pub fn new(id: i64, scratch: &Scratch) -> io::Result<Inode> {
        let inode = Inode::stored(id);
        locked(&inode.state).is_named = false;
        let _ = inode.local.set(scratch.file()?);
        Ok(inode)
    }

    /// One that is in the tables.
    pub fn stored(id: i64) -> Inode {
        let state = State { is_named: true, ..State::default() };
        let (local, state) = (OnceLock::new(), Mutex::new(state));
        Inode { id, syncing: Mutex::default(), local, state }
    }

    pub fn local(&self) -> Option<&File> {
        self.local.get()
    }

    /// Its contents, of a stored one, which nobody changes meanwhile. What another thread has put
    /// there before is as good.
    pub fn fill(&self, filling: Filling) {
        let mut state = locked(&self.state);
        if self.local.set(filling.file).is_ok() {
            let Filling { length, used, number, rows, weight, .. } = filling;
            *state =
                State { length, used, number, rows, weight, is_named: true, ..State::default() };
        }
    }

    pub fn length(&self) -> u64 {
        locked(&self.state).length
    }

    /// Behind the last byte that was written: only zeros follow.
    pub fn used(&self) -> u64 {
        locked(&self.state).used
    }

    /// Changes the local file, and notes it.
    pub fn change(&self, change: Change) -> io::Result<()> {
        let file = self.local().ok_or_else(|| io::Error::other("the file has not been opened"))?;
        // As write(2): not even the length changes.
        if matches!(&change, Change::Write { bytes, .. } if bytes.is_empty()) {
            return Ok(());
        }
        let mut state = locked(&self.state);
        if state.pending_bytes + change.bytes() > PENDING_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "too much waits for the log's server",
            ));
        }
        apply(file, &change)?;
        state.look(&change);
        state.note(change);
        Ok(())
    }

    /// Makes it at least so long.
    pub fn lengthen(&self, length: u64) -> io::Result<()> {
        match self.length() < length {
            true => self.change(Change::Length(length)),
            false => Ok(()),
        }
    }

    /// How many changes there have been.
    pub fn noted(&self) -> u64 {
        locked(&self.state).noted
    }

    pub fn is_committed(&self, until: u64) -> bool {
        locked(&self.state).committed >= until
    }

    /// What is to be written down, if nobody can know of the file yet.
    pub fn unseen_bytes(&self) -> usize {
        let state = locked(&self.state);
        if state.is_named { 0 } else { state.pending_bytes }
    }

    /// Whether there may be rows of it.
    pub fn has_rows(&self) -> bool {
        let state = locked(&self.state);
        state.is_named || state.taken > 0
    }

    /// Takes changes to be written down, of about so many bytes at most, the oldest first. All rows
    /// of it before the number that is returned, if one is, are to be removed then.
    pub fn take(&self, bytes_max: usize, into: &mut Vec<Row>) -> io::Result<(u64, Option<i64>)> {
        let mut state = locked(&self.state);
        if state.is_worn_out() {
            let first = state.number + 1;
            self.take_whole(&mut state, into)?;
            return Ok((state.taken, Some(first)));
        }
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(change) = state.pending.pop_front()
        {
            bytes += change.bytes();
            state.pending_bytes -= change.bytes();
            state.taken += 1;
            let number = state.count(change.bytes());
            into.push(Row { file: self.id, number, change });
        }
        Ok((state.taken, None))
    }

    /// The whole file, in the place of all changes there have been.
    fn take_whole(&self, state: &mut State, into: &mut Vec<Row>) -> io::Result<()> {
        let file = self.local().ok_or_else(|| io::Error::other("the file has not been opened"))?;
        let mut bytes = vec![0; usize::try_from(state.used).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        (state.rows, state.weight) = (0, 0);
        let length = Change::Length(state.length);
        // From nothing, for whoever has read the rows before.
        let mut changes = vec![Change::Length(0), length];
        for (index, piece) in bytes.chunks(ROW_BYTES_MAX).enumerate() {
            let at = (index * ROW_BYTES_MAX) as u64;
            changes.push(Change::Write { at, bytes: piece.into() });
        }
        for change in changes {
            let number = state.count(change.bytes());
            into.push(Row { file: self.id, number, change });
        }
        state.pending.clear();
        state.pending_bytes = 0;
        state.taken = state.noted;
        Ok(())
    }

    /// Everything up to there is on the server.
    pub fn set_committed(&self, until: u64) {
        let mut state = locked(&self.state);
        state.committed = state.committed.max(until);
    }

    pub fn set_named(&self) {
        locked(&self.state).is_named = true;
    }
}

impl State {
    /// What a change means for the file.
    fn look(&mut self, change: &Change) {
        match change {
            Change::Length(length) => {
                (self.length, self.used) = (*length, self.used.min(*length));
            }
            Change::Write { at, bytes } => {
                let end = at + bytes.len() as u64;
                (self.length, self.used) = (self.length.max(end), self.used.max(end));
            }
        }
    }

    /// Puts it behind what is to be written down; into the last of that, where it goes on.
    fn note(&mut self, change: Change) {
        self.pending_bytes += change.bytes();
        let Change::Write { at, bytes } = change else {
            self.noted += 1;
            return self.pending.push_back(change);
        };
        let mut rest = bytes.as_slice();
        let mut at = at;
        if let Some(Change::Write { at: last, bytes: before }) = self.pending.back_mut()
            && *last + before.len() as u64 == at
        {
            let (fits, others) = rest.split_at(rest.len().min(ROW_BYTES_MAX - before.len()));
            before.extend_from_slice(fits);
            (at, rest) = (at + fits.len() as u64, others);
        }
        for piece in rest.chunks(ROW_BYTES_MAX) {
            self.noted += 1;
            self.pending.push_back(Change::Write { at, bytes: piece.into() });
            at += piece.len() as u64;
        }
    }

    /// Another row of so many bytes → its number.
    fn count(&mut self, bytes: usize) -> i64 {
        self.number += 1;
        self.rows += 1;
        self.weight += bytes as u64;
        self.number
    }

    /// Written over so often that its rows say the same many times.
    fn is_worn_out(&self) -> bool {
        let is_small = self.used <= ROW_BYTES_MAX as u64;
        is_small && self.rows > ROWS_MAX && self.weight > REWRITTEN_TIMES_MAX * self.used.max(1)
    }
}

fn apply(file: &File, change: &Change) -> io::Result<()> {
    match change {
        Change::Write { at, bytes } => file.write_all_at(bytes, *at),
        Change::Length(length) => file.set_len(*length),
    }
}

/// A stored file while it is read.
pub struct Filling {
    file: File,
    length: u64,
    used: u64,
    /// Of the last row that was read.
    pub number: i64,
    rows: u64,
    weight: u64,
}

impl Filling {
    pub fn new(scratch: &Scratch) -> io::Result<Filling> {
        let file = scratch.file()?;
        Ok(Filling { file, length: 0, used: 0, number: 0, rows: 0, weight: 0 })
    }

    /// The next row.
    pub fn add(&mut self, number: i64, change: &Change) -> io::Result<()> {
        apply(&self.file, change)?;
        let mut state = State { length: self.length, used: self.used, ..State::default() };
        state.look(change);
        (self.length, self.used) = (state.length, state.used);
        self.number = number;
        self.rows += 1;
        self.weight += change.bytes() as u64;
        Ok(())
    }
}

/// The files below one prefix, by their names: what a directory is elsewhere.
pub struct Room {
    /// Before every name in the tables: nothing, or a name and a slash.
    pub prefix: String,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    all: BTreeMap<String, Arc<Inode>>,
    /// What the changed ones mean now.
    changed: BTreeMap<String, Option<Arc<Inode>>>,
    /// Without a name once that is written down.
    gone: Vec<Arc<Inode>>,
    noted: u64,
    committed: u64,
}

/// Changes of names that are to be written down.
#[derive(Default)]
pub struct Renaming {
    pub removed: Vec<String>,
    pub set: Vec<(String, Arc<Inode>)>,
    pub gone: Vec<Arc<Inode>>,
}

impl Room {
    pub fn new(prefix: &str, all: BTreeMap<String, Arc<Inode>>) -> Room {
        let names = Mutex::new(Names { all, ..Names::default() });
        Room { prefix: prefix.into(), names }
    }

    pub fn list(&self) -> Vec<String> {
        locked(&self.names).all.keys().cloned().collect()
    }

    pub fn find(&self, name: &str) -> io::Result<Arc<Inode>> {
        let names = locked(&self.names);
        names.all.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives a name to a file; one that had it before has it no more.
    pub fn set(&self, name: &str, inode: &Arc<Inode>) {
        let mut names = locked(&self.names);
        names.set(name, Some(inode.clone()));
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = locked(&self.names);
        let inode = names.all.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        if from != to {
            names.set(to, Some(inode));
            names.all.remove(from);
            names.changed.insert(from.into(), None);
        }
        Ok(())
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut names = locked(&self.names);
        match names.all.contains_key(name) {
            true => names.set(name, None),
            false => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    pub fn noted(&self) -> u64 {
        locked(&self.names).noted
    }

    pub fn is_committed(&self, until: u64) -> bool {
        locked(&self.names).committed >= until
    }

    pub fn set_committed(&self, until: u64) {
        let mut names = locked(&self.names);
        names.committed = names.committed.max(until);
    }

    /// Takes all changes to be written down.
    pub fn take(&self, into: &mut Renaming) -> u64 {
        let mut names = locked(&self.names);
        for (name, inode) in std::mem::take(&mut names.changed) {
            let name = format!("{}{name}", self.prefix);
            match inode {
                Some(inode) => into.set.push((name, inode)),
                None => into.removed.push(name),
            }
        }
        into.gone.append(&mut names.gone);
        names.noted
    }
}

impl Names {
    fn set(&mut self, name: &str, inode: Option<Arc<Inode>>) {
        let before = match &inode {
            Some(inode) => self.all.insert(name.into(), inode.clone()),
            None => self.all.remove(name),
        };
        self.gone.extend(before);
        self.changed.insert(name.into(), inode);
        self.noted += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random numbers (xorshift).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    fn bytes(file: &File, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), length);
        bytes
    }

    fn change_somehow(dice: &mut Dice, inode: &Inode) {
        let at = match dice.below(3) {
            0 => inode.used(),
            _ => dice.below(300),
        };
        match dice.below(12) {
            0 => inode.change(Change::Length(dice.below(300))).unwrap(),
            1 => inode.lengthen(dice.below(400)).unwrap(),
            _ => {
                let bytes = vec![dice.below(256) as u8; dice.below(40) as usize];
                inode.change(Change::Write { at, bytes }).unwrap();
            }
        }
    }

    /// The rows behind those that have been read.
    fn read_on(filling: &mut Filling, rows: &[Row]) {
        for row in rows {
            if row.number > filling.number {
                filling.add(row.number, &row.change).unwrap();
            }
        }
    }

    /// Whoever reads the rows finds the file as it was when they were taken, however it was changed,
    /// and also if he has read some of them before others were removed.
    #[test]
    fn rows_make_the_file_again() {
        let scratch = Scratch::new(None);
        let mut rewritten = 0;
        for seed in 1..40 {
            let mut dice = Dice(seed);
            let inode = Inode::new(seed as i64, &scratch).unwrap();
            let mut rows: Vec<Row> = Vec::new();
            let mut early = Filling::new(&scratch).unwrap();
            let mut all_noted = 0;
            for _ in 0..1_500 {
                change_somehow(&mut dice, &inode);
                assert!(inode.noted() >= all_noted);
                all_noted = inode.noted();
                if dice.below(4) > 0 {
                    continue;
                }
                let (until, first) = inode.take(1 + dice.below(200) as usize, &mut rows).unwrap();
                if let Some(first) = first {
                    rows.retain(|row| row.number >= first);
                    rewritten += 1;
                }
                inode.set_committed(until);
                if dice.below(8) == 0 {
                    read_on(&mut early, &rows);
                }
            }
            while !inode.is_committed(inode.noted()) {
                let (until, first) = inode.take(1 << 20, &mut rows).unwrap();
                rows.retain(|row| first.is_none_or(|first| row.number >= first));
                inode.set_committed(until);
            }
            let expected = bytes(inode.local().unwrap(), inode.length());
            assert!(rows.is_sorted_by_key(|row| row.number));
            let mut late = Filling::new(&scratch).unwrap();
            read_on(&mut late, &rows);
            read_on(&mut early, &rows);
            for filling in [early, late] {
                assert_eq!(filling.used, inode.used(), "seed {seed}");
                let stored = Inode::stored(1);
                stored.fill(filling);
                let found = bytes(stored.local().unwrap(), stored.length());
                assert!(found == expected, "seed {seed}");
            }
        }
        assert!(rewritten > 40, "{rewritten}");
    }

    #[test]
    fn names_are_written_down_as_they_are_in_the_end() {
        let scratch = Scratch::new(None);
        let room = Room::new("in/", BTreeMap::new());
        let file = |id| Arc::new(Inode::new(id, &scratch).unwrap());
        room.set("a", &file(1));
        room.set("b", &file(2));
        room.rename("a", "b").unwrap();
        room.set("c", &file(3));
        room.remove("c").unwrap();
        room.rename("b", "b").unwrap();
        assert_eq!(room.rename("a", "d").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(room.remove("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(room.list(), ["b"]);
        let mut renaming = Renaming::default();
        let until = room.take(&mut renaming);
        assert!(!room.is_committed(until) && until == room.noted());
        room.set_committed(until);
        assert!(room.is_committed(until));
        assert_eq!(renaming.removed, ["in/a", "in/c"]);
        let set: Vec<_> = renaming.set.iter().map(|(name, inode)| (&name[..], inode.id)).collect();
        assert_eq!(set, [("in/b", 1)]);
        let mut gone: Vec<_> = renaming.gone.iter().map(|inode| inode.id).collect();
        gone.sort_unstable();
        assert_eq!(gone, [2, 3]);
        let mut nothing = Renaming::default();
        room.take(&mut nothing);
        assert!(nothing.removed.is_empty() && nothing.set.is_empty() && nothing.gone.is_empty());
    }

    #[test]
    fn what_does_not_wait_any_more_makes_room() {
        let scratch = Scratch::new(None);
        let inode = Inode::new(1, &scratch).unwrap();
        inode.change(Change::Write { at: 0, bytes: vec![1; 3 * ROW_BYTES_MAX + 5] }).unwrap();
        assert_eq!((inode.noted(), inode.unseen_bytes()), (4, 3 * ROW_BYTES_MAX + 5));
        let mut rows = Vec::new();
        assert_eq!(inode.take(ROW_BYTES_MAX, &mut rows).unwrap(), (1, None));
        assert_eq!(inode.unseen_bytes(), 2 * ROW_BYTES_MAX + 5);
        inode.set_named();
        assert_eq!(inode.unseen_bytes(), 0);
    }
}
