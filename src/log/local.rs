//! What is kept of a file on this machine: a file without a name, which nobody else sees and which is
//! gone with the process.

use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where such files are made.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// `None`: in memory.
    directory: Option<PathBuf>,
}

impl Scratch {
    /// In this directory, or in the system's for such files; where neither can have files without a
    /// name, in memory.
    pub fn new(directory: Option<&Path>) -> Scratch {
        let system = std::env::temp_dir();
        let of_it = directory.into_iter().chain([system.as_path()]);
        let directory = of_it.map(Path::to_path_buf).find(|path| nameless(path).is_ok());
        Scratch { directory }
    }

    /// An empty file.
    pub(super) fn file(&self) -> io::Result<File> {
        match &self.directory {
            Some(directory) => nameless(directory),
            None => Ok(memfd_create("galo", MemfdFlags::CLOEXEC)?.into()),
        }
    }
}

fn nameless(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory)
}
