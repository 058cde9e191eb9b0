//! A journal that holds nothing but settled payments, written as the keeper leaves one: so many
//! cannot be driven through an instance in the time of a benchmark.

use super::books::Remains;
use super::head::{FIRST_NUMBER, Kind};
use super::keeper::write_unfinished;
use super::segment::UNFINISHED;
use super::storage::{Directory, Storage};
use crate::payments::Settlement;
use std::io;
use std::path::Path;

/// Writes the first segment as books, in a directory that has no journal yet.
///
/// # Errors
/// If the directory is in use or cannot be written, or has a journal.
pub fn write(path: &Path, settled: impl Iterator<Item = Settlement>) -> io::Result<()> {
    let storage = Directory::lock(path).map_err(io::Error::other)?;
    if storage.names()?.iter().any(|name| Kind::of_file_name(name).is_some()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a journal"));
    }
    let mut remains = Remains::default();
    for Settlement { processor, amount, requested_at } in settled {
        remains.settled[processor as usize].push((requested_at, amount));
    }
    remains.sort();
    // Books last: where there are books, nothing is left to be done.
    for (kind, bytes) in
        [(Kind::Ids, remains.encode_ids(FIRST_NUMBER)), (Kind::Books, remains.encode(FIRST_NUMBER))]
    {
        write_unfinished(&storage, kind, FIRST_NUMBER, &bytes)?;
        let name = kind.file_name(FIRST_NUMBER);
        storage.rename(&(name.clone() + UNFINISHED), &name)?;
        storage.sync_directory()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::money::Cents;
    use crate::journal::tests::temporary;
    use crate::journal::{Durability, Journal, Options};
    use crate::payments::{Processor, Window};

    #[test]
    fn what_is_written_is_what_a_start_finds() {
        let path = temporary("history");
        let settled = (0..100).map(|number| Settlement {
            processor: Processor::ALL[usize::from(number % 20 == 0)],
            amount: Cents(1990),
            requested_at: Timestamp(100 - number),
        });
        write(&path.0, settled.clone()).unwrap();
        let refused = write(&path.0, settled).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        let options = Options::new(Durability::Process, 1, 1);
        let (_journal, recovered) = Journal::open(&path.0, options).unwrap();
        let window = Window { from: None, to: Some(Timestamp(80)) };
        let totals = recovered.books.summary.totals(window);
        assert_eq!(totals.map(|it| (it.count, it.amount.0)), [(76, 76 * 1990), (4, 4 * 1990)]);
    }
}
