//! A directory of files in memory, which always works. What goes wrong is in the bytes.

use galo::base::clock::Micros;
use galo::journal::identity::Place;
use galo::journal::storage::{Storage, StoredFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Default)]
pub struct Memory {
    files: Mutex<BTreeMap<String, Bytes>>,
    pub boot: u8,
}

struct File(Bytes);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic is survived")
}

impl Memory {
    pub fn of(files: impl IntoIterator<Item = (String, Vec<u8>)>, boot: u8) -> Memory {
        let files = files.into_iter().map(|(name, bytes)| (name, Arc::new(Mutex::new(bytes))));
        Memory { files: Mutex::new(files.collect()), boot }
    }

    fn find(&self, name: &str) -> io::Result<Bytes> {
        let found = locked(&self.files).get(name).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(locked(&self.files).keys().cloned().collect())
    }

    fn read(&self, name: &str, limit: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let bytes = self.find(name)?;
        let bytes = locked(&bytes);
        into.clear();
        into.extend_from_slice(&bytes[..bytes.len().min(limit)]);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let bytes = Bytes::default();
        locked(&self.files).insert(name.into(), bytes.clone());
        Ok(Arc::new(File(bytes)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(File(self.find(name)?)))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let bytes = self.find(from)?;
        let mut files = locked(&self.files);
        files.remove(from);
        files.insert(to.into(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = locked(&self.files).remove(name);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn boot(&self) -> [u8; 16] {
        [self.boot; 16]
    }

    fn place(&self, name: &str) -> io::Result<Place> {
        self.find(name).map(|_| Place { file: 1, directory: 2, made_at: Micros(3) })
    }
}

impl StoredFile for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let own = locked(&self.0);
        let there = own.get(offset as usize..).and_then(|bytes| bytes.get(..into.len()));
        into.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut own = locked(&self.0);
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        let length = own.len().max(end);
        own.resize(length, 0);
        own[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut own = locked(&self.0);
        let length = own.len().max(length as usize);
        own.resize(length, 0);
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        locked(&self.0).resize(length as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
