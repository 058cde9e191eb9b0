//! A directory of files that exists in memory only and does what real ones do on a bad day: lose
//! what was not synced, tear writes, fill up, fail. Same seed, same day.
//!
//! Every file has what a program sees and what would survive a loss of power, and so have the
//! names. Between the two lie changes; a loss of power keeps, drops or tears each change to a file
//! by itself. Of the changes to the names it keeps a prefix, as file systems do that log them in
//! order, or any of them, which is all that POSIX promises.

use super::identity::Place;
use super::storage::{Storage, StoredFile};
use crate::base::clock::Micros;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// Pseudo-random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

#[derive(Clone, Default)]
pub struct Simulated(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

/// What goes wrong, and at which operation that changes something.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process is gone before, in, or after this operation.
    Crash,
    Error(i32),
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    boot: u8,
    directory: u64,
    operations: u64,
    written: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
    capacity: Option<usize>,
}

pub const ENOSPC: i32 = 28;
pub const EIO: i32 = 5;

impl Simulated {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Another directory with the same contents, and a history of its own from here on.
    pub fn copy(&self) -> Simulated {
        Simulated(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The files of a backup in a new directory.
    pub fn restored(&self) -> Simulated {
        let copy = self.copy();
        copy.state().directory += 1;
        copy
    }

    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Bytes written so far, also over others.
    pub fn written(&self) -> u64 {
        self.state().written
    }

    /// Lets something go wrong so many changing operations from now.
    pub fn fault_in(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + operations, fault));
    }

    /// Bytes in all files.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// The process is gone; the kernel goes on.
    pub fn kill(&self) {
        let mut state = self.state();
        (state.fault, state.crashed) = (None, false);
    }

    /// The machine is started anew.
    pub fn lose_power(&self, random: &mut Random) {
        let mut state = self.state();
        let changes = std::mem::take(&mut state.name_changes);
        let in_order = random.below(2) == 0;
        let kept = random.below(changes.len() + 1);
        for (index, change) in changes.into_iter().enumerate() {
            if if in_order { index < kept } else { random.below(2) == 0 } {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            let mut bytes = std::mem::take(&mut inode.durable);
            for change in std::mem::take(&mut inode.changes) {
                match (random.below(4), change) {
                    (0, _) => {}
                    (1, Change::Write { offset, bytes: new }) => {
                        let kept = random.below(new.len());
                        Change::Write { offset, bytes: new[..kept].into() }.apply(&mut bytes);
                    }
                    (2, Change::Write { offset, bytes: new }) => {
                        let lost = random.below(new.len());
                        let bytes_kept = new[lost..].into();
                        Change::Write { offset: offset + lost, bytes: bytes_kept }
                            .apply(&mut bytes);
                    }
                    (_, change) => change.apply(&mut bytes),
                }
            }
            inode.durable = bytes.clone();
            inode.live = bytes;
        }
        state.boot += 1;
        (state.fault, state.crashed) = (None, false);
    }

    /// Another machine goes on with what a replicated log holds: what was synced as a whole, and
    /// nothing else. No machine has been started for that.
    pub fn take_over(&self) {
        let mut state = self.state();
        state.name_changes.clear();
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            inode.changes.clear();
            inode.live = inode.durable.clone();
        }
        (state.fault, state.crashed) = (None, false);
    }

    /// As after a start of the machine that lost nothing.
    pub fn reboot(&self) {
        self.state().boot += 1;
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[name]].live.clone()
    }

    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names[name];
        state.inodes[inode].live = bytes;
    }

    /// One operation that changes something.
    fn change<T>(&self, apply: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        if state.crashed {
            return Err(io::Error::other("the process is gone"));
        }
        state.operations += 1;
        let fault = state.fault.filter(|(at, _)| *at == state.operations).map(|(_, fault)| fault);
        match fault {
            None => apply(&mut state),
            Some(Fault::Error(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Fault::Crash) => {
                state.crashed = true;
                if state.operations.is_multiple_of(2) {
                    let _ = apply(&mut state);
                }
                Err(io::Error::other("the process is gone"))
            }
        }
    }
}

impl State {
    fn used(&self) -> usize {
        let mut inodes: Vec<usize> = self.names.values().copied().collect();
        inodes.dedup();
        inodes.iter().map(|inode| self.inodes[*inode].live.len()).sum()
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn write(&mut self, inode: usize, change: Change) -> io::Result<()> {
        let new_length = match &change {
            Change::Write { offset, bytes } => offset + bytes.len(),
            Change::Length(length) => *length,
        };
        let growth = new_length.saturating_sub(self.inodes[inode].live.len());
        if growth > 0 && self.capacity.is_some_and(|capacity| self.used() + growth > capacity) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        change.apply(&mut self.inodes[inode].live);
        self.inodes[inode].changes.push(change);
        Ok(())
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Length(length) => to.resize(*length, 0),
            Change::Write { offset, bytes } => {
                to.resize(to.len().max(offset + bytes.len()), 0);
                to[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

impl NameChange {
    fn apply(&self, to: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, inode) => {
                to.insert(name.clone(), *inode);
            }
            NameChange::Rename(from, name) => {
                if let Some(inode) = to.remove(from) {
                    to.insert(name.clone(), inode);
                }
            }
            NameChange::Remove(name) => {
                to.remove(name);
            }
        }
    }
}

struct OpenFile {
    storage: Simulated,
    inode: usize,
}

impl Storage for Simulated {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str, limit: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let state = self.state();
        let bytes = &state.inodes[state.find(name)?].live;
        into.clear();
        into.extend_from_slice(&bytes[..bytes.len().min(limit)]);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.change(|state| {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.rename(NameChange::Set(name.into(), inode));
            Ok(inode)
        })?;
        Ok(Arc::new(OpenFile { storage: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.state().find(name)?;
        Ok(Arc::new(OpenFile { storage: self.clone(), inode }))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            state.find(from)?;
            state.rename(NameChange::Rename(from.into(), to.into()));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.find(name)?;
            state.rename(NameChange::Remove(name.into()));
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.change(|state| {
            state.durable_names = state.names.clone();
            state.name_changes.clear();
            Ok(())
        })
    }

    fn boot(&self) -> [u8; 16] {
        [self.state().boot; 16]
    }

    fn place(&self, name: &str) -> io::Result<Place> {
        let state = self.state();
        let (file, directory) = (state.find(name)? as u64, state.directory);
        Ok(Place { file, directory, made_at: Micros(0) })
    }
}

impl StoredFile for OpenFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.storage.state();
        let there = state.inodes[self.inode].live.get(offset as usize..);
        let there = there.and_then(|bytes| bytes.get(..into.len()));
        into.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.storage.state().inodes[self.inode].live.len() as u64)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let change = Change::Write { offset: offset as usize, bytes: bytes.into() };
        self.storage.change(|state| {
            state.written += bytes.len() as u64;
            state.write(self.inode, change)
        })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.storage.change(|state| state.write(self.inode, Change::Length(length as usize)))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.storage.change(|state| state.write(self.inode, Change::Length(length as usize)))
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.change(|state| {
            let inode = &mut state.inodes[self.inode];
            inode.durable = inode.live.clone();
            inode.changes.clear();
            Ok(())
        })
    }
}
