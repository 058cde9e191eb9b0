//! A journal that holds nothing but settled payments of the contest's two processors, written as the keeper leaves one: so many
//! cannot be driven through an instance in the time of a benchmark.

use super::books::Remains;
use super::head::{FIRST_NUMBER, Kind};
use super::keeper::{finish, write_unfinished};
use super::manifest::{self, Files};
use super::names::Reference;
use super::storage::{Directory, Storage};
use super::volume::LINES_MAX;
use crate::payments::{Attempts, Line, PaymentId, Settlement};
use std::io;
use std::path::Path;

/// Writes volumes, each as large as they get, in a directory that has no journal yet.
///
/// # Errors
/// If the directory is in use or cannot be written, or has a journal.
pub fn write(
    path: &Path,
    mut settled: impl Iterator<Item = (PaymentId, Settlement)>,
) -> io::Result<()> {
    let storage = Directory::lock(path).map_err(io::Error::other)?;
    if storage.names()?.iter().any(|name| Kind::of_file_name(name).is_some()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a journal"));
    }
    let attempts = Attempts::default().and_one();
    let mut files = Files::new();
    for number in FIRST_NUMBER.. {
        let mut remains = Remains::default();
        let lines = settled.by_ref().take(LINES_MAX as usize);
        let lines = lines.map(|(id, settlement)| Line { id: Some(id), settlement, attempts });
        remains.settled.extend(lines);
        if remains.settled.is_empty() && number > FIRST_NUMBER {
            break;
        }
        remains.sort();
        // Books last: where there are books, nothing is left to be done.
        write_unfinished(&storage, Kind::Ids, number, &remains.encode_ids(number))?;
        let bytes = remains.encode(number, Reference::first());
        write_unfinished(&storage, Kind::Books, number, &bytes)?;
        for kind in [Kind::Ids, Kind::Books] {
            finish(&storage, kind, number)?;
            storage.sync_directory()?;
            files.insert((kind, number));
        }
    }
    manifest::write(&storage, &files).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::money::Cents;
    use crate::journal::tests::temporary;
    use crate::journal::{Durability, Journal, Options};
    use crate::payments::each;
    use crate::payments::{Processor, Window};

    #[test]
    fn what_is_written_is_what_a_start_finds() {
        let path = temporary("history");
        let settled = (0..100).map(|number| {
            let settlement = Settlement {
                processor: Processor::CONTEST[usize::from(number % 20 == 0)],
                amount: Cents(1990),
                requested_at: Timestamp(100 - number),
            };
            (PaymentId(number as u128), settlement)
        });
        write(&path.0, settled.clone()).unwrap();
        let refused = write(&path.0, settled).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        let options = Options::new(Durability::Process, 1, 1);
        let (journal, _) = Journal::open(&path.0, options).unwrap();
        let window = Window { from: None, to: Some(Timestamp(80)) };
        let totals = journal.totals(window).unwrap();
        assert_eq!(
            totals.map(|it| (it.count, it.amount.0)),
            each([(76, 76 * 1990), (4, 4 * 1990)])
        );
    }
}
