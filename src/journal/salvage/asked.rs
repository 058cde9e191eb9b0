//! The list of the payments that the processors, or people, are to be asked about.

use super::super::JournalError;
use super::super::storage::{Storage, StoredFile};
use std::io;
use std::sync::Arc;

/// The file in the new journal that lists them, one a line.
pub const ASK_NAME: &str = "to-ask.txt";

/// Made with the first line.
#[derive(Default)]
pub struct Asked {
    file: Option<Arc<dyn StoredFile>>,
    bytes: u64,
    lines: usize,
}

impl Asked {
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, to: &dyn Storage, lines: &str) -> Result<(), JournalError> {
        if lines.is_empty() {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(to.create(ASK_NAME).map_err(failed)?),
        };
        file.write_at(lines.as_bytes(), self.bytes).map_err(failed)?;
        self.bytes += lines.len() as u64;
        self.lines += lines.lines().count();
        Ok(())
    }

    /// Puts it on the disk: how many there are.
    ///
    /// # Errors
    /// If it cannot be synced.
    pub fn end(self) -> Result<usize, JournalError> {
        self.file.map_or(Ok(()), |file| file.sync()).map_err(failed)?;
        Ok(self.lines)
    }
}

fn failed(error: io::Error) -> JournalError {
    JournalError::io("write", ASK_NAME, error)
}
