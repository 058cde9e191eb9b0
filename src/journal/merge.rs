//! Few files: volumes that follow each other are merged into one, and so are files of ids. By size,
//! as in `notes.rs`, so that each line is written again about once for each doubling of the history,
//! and n volumes are about log2(n) files and those that are as large as a volume gets.
//!
//! The invariant: the merged file is on the disk under the name of the last it takes in, before any
//! other of them is removed. A crash in between leaves files that a start finds superseded. As long as
//! either of the two may be found under that name, the manifest says that either counts.

use super::books;
use super::head::{self, FILE_HEAD_BYTES, Kind};
use super::keeper::{Form, Held, IdsFile, Keeping, finish, write_unfinished};
use super::segment::UNFINISHED;
use super::shelf::OnDisk;
use super::storage::{Lack, StoredFile};
use super::volume::{Builder, LINES_MAX, Volume, merged};
use super::writer::{Writer, locked};
use super::{JournalError, notes};
use crate::payments::Line;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Files of ids are merged up to so many, which are in memory at once then.
const IDS_MAX: usize = 65_536;

/// Some of these that follow each other and are to be one, the newest such, if there are any. `size`
/// says how large each is, or `None` if it stays by itself; `fit` whether some may be one.
fn group<T>(
    all: &[T],
    max: u64,
    size: impl Fn(&T) -> Option<u64>,
    fit: impl Fn(&[T]) -> bool,
) -> Option<Range<usize>> {
    (2..=all.len()).rev().find_map(|end| {
        let mut from = end - 1;
        let mut sum = size(&all[from])?;
        while let Some(before) = from.checked_sub(1).and_then(|before| size(&all[before]))
            && notes::absorbs(sum as usize, before as usize)
            && sum + before <= max
            && fit(&all[from - 1..end])
        {
            sum += before;
            from -= 1;
        }
        (from + 1 < end).then_some(from..end)
    })
}

impl Writer {
    /// Merges volumes, or rewrites books of an older layout, or merges files of ids. False if there
    /// is nothing to do, or no space for it now.
    pub(super) fn merge(&self, keeping: &mut Keeping) -> bool {
        // What is there counts as it is: new payments need the space more.
        if !self.is_next_ready() || keeping.is_merging_held_up {
            return false;
        }
        let is_whole = |held: &Held, form| held.form == form && !held.is_damaged;
        let old = keeping.books.iter().position(|held| is_whole(held, Form::Old));
        let size = |held: &Held| is_whole(held, Form::Volume).then_some(held.span.lines);
        let on_disk = locked(&self.shelf).on_disk();
        let fit = |held: &[Held]| self.are_of_one_slice(held, &on_disk);
        // Few files are open meanwhile, however many there were of the older layout.
        let volumes = group(&keeping.books, LINES_MAX, size, fit).or(old.map(|old| old..old + 1));
        let count = |ids: &IdsFile| (!ids.is_damaged).then_some(ids.count as u64);
        let ids = group(keeping.ids.make_contiguous(), IDS_MAX as u64, count, |_| true);
        let merged = match (volumes, ids) {
            (Some(volumes), _) => self.merge_volumes(keeping, volumes),
            (None, Some(ids)) => self.merge_ids(keeping, ids),
            (None, None) => return false,
        };
        self.goes_on(keeping, merged)
    }

    /// False if there was no space for it: then it is held up until something changes.
    pub(super) fn goes_on(&self, keeping: &mut Keeping, merged: io::Result<()>) -> bool {
        if let Err(error) = &merged {
            if Lack::of(error).is_none() {
                self.fail(&format!("files cannot be merged: {error}"));
            }
            // Until there is a reason to try again.
            keeping.is_merging_held_up = true;
        }
        merged.is_ok()
    }

    /// What is to leave after a while is not merged with what comes much later.
    fn are_of_one_slice(&self, held: &[Held], on_disk: &OnDisk) -> bool {
        let Some(keep_ms) = self.options.keep_ms else { return true };
        let volumes = held.iter().filter_map(|held| on_disk.volumes.get(&held.span.last));
        let bounds = volumes.filter_map(|volume| volume.bounds());
        let all = bounds.reduce(|(first, last), (from, to)| (first.min(from), last.max(to)));
        all.is_none_or(|(first, last)| last.0.abs_diff(first.0) <= slice_ms(keep_ms))
    }

    fn merge_volumes(&self, keeping: &mut Keeping, group: Range<usize>) -> io::Result<()> {
        let held = &keeping.books[group.clone()];
        let (Some(first), Some(last)) = (held.first(), held.last()) else { return Ok(()) };
        let (first, last) = (first.span.first, last.span.last);
        let volume = match self.write_merged(last, held) {
            Ok(volume) => volume,
            Err(failed) => return self.give_up(keeping, failed, &Kind::Books.file_name(last)),
        };
        let span = volume.span();
        self.put_on_shelf(keeping, volume);
        let merged = Held { span, form: Form::Volume, is_damaged: false };
        let replaced: Vec<Held> = keeping.books.splice(group, [merged]).collect();
        let others = replaced.iter().map(|held| held.span.last).filter(|it| *it != last);
        keeping.superseded.extend(others.map(|number| Kind::Books.file_name(number)));
        keeping.fresh.insert((Kind::Books, last));
        self.remove_superseded(keeping);
        let lines = span.lines;
        log::info!("journal: books {first} to {last} merged, {lines} settlements");
        Ok(())
    }

    /// Of what became nothing, this file is unfinished.
    pub(super) fn give_up(
        &self,
        keeping: &mut Keeping,
        failed: Failed,
        name: &str,
    ) -> io::Result<()> {
        if !matches!(failed, Failed::Gone) {
            let _ = self.storage.remove(&format!("{name}{UNFINISHED}"));
        }
        match failed {
            Failed::Damaged { number, error } => {
                log::error!("{error}. It stays as it is, and is not merged with others");
                let damaged = keeping.books.iter_mut().find(|held| held.span.last == number);
                damaged.into_iter().for_each(|held| held.is_damaged = true);
                Ok(())
            }
            // A purge: the next step sees to it.
            Failed::Gone => Ok(()),
            Failed::Io(error) => Err(error),
        }
    }

    fn write_merged(&self, last: u32, from: &[Held]) -> Result<Volume, Failed> {
        let shelf = locked(&self.shelf).volumes();
        let mut old = BTreeMap::new();
        for Held { span, .. } in from.iter().filter(|held| held.form == Form::Old) {
            old.insert(span.last, self.old_lines(span.last)?);
        }
        let numbers: Vec<u32> = from.iter().map(|held| held.span.last).collect();
        let mut sources = Vec::new();
        for number in &numbers {
            sources.push(match (old.get(number), shelf.get(number)) {
                (Some(lines), _) => Box::new(lines.iter().map(|line| Ok(*line))) as Lines<'_>,
                (None, Some(volume)) => Box::new(volume.lines()),
                (None, None) => return Err(Failed::Gone),
            });
        }
        let flags = |number: u32| match shelf.get(&number) {
            Some(volume) => Ok(volume.flags()),
            None => self.flags_of(number),
        };
        let flags = books::Flags { stands_alone: flags(numbers[0])?.stands_alone, ..flags(last)? };
        let lines = merged(sources)
            .map(|line| line.map_err(|(source, error)| Failed::of(numbers[source], error)));
        let name = Kind::Books.file_name(last);
        let (file, head) = self.write_volume(&name, from, flags, lines)?;
        let volume =
            Volume::of_file(last, file, &self.names).map_err(|error| Failed::of(last, error))?;
        self.replace(Kind::Books, last, &head)?;
        Ok(volume)
    }

    /// Writes these lines as one volume in the place of those, under an unfinished name. Returns the file, which is
    /// on the disk, and its head.
    pub(super) fn write_volume(
        &self,
        name: &str,
        from: &[Held],
        flags: books::Flags,
        lines: impl Iterator<Item = Result<Line, Failed>>,
    ) -> Result<(Arc<dyn StoredFile>, [u8; FILE_HEAD_BYTES]), Failed> {
        let (Some(first), Some(last)) = (from.first(), from.last()) else {
            return Err(Failed::Gone);
        };
        let file = self.storage.create(&format!("{name}{UNFINISHED}"))?;
        let mut offset = FILE_HEAD_BYTES as u64;
        let write = |bytes: &[u8]| {
            file.write_at(bytes, offset)?;
            offset += bytes.len() as u64;
            // A merger is long, and nobody must have to wait for its end.
            self.prepare_next();
            self.sync();
            Ok(())
        };
        let count = from.iter().map(|held| held.span.lines).sum();
        let mut builder =
            Builder::new(first.span.first, last.span.last, count, self.reference(), write);
        for line in lines {
            builder.push(&line?)?;
        }
        let head = builder.finish(flags)?;
        file.write_at(&head, 0)?;
        file.sync()?;
        Ok((file, head))
    }

    fn old_lines(&self, number: u32) -> Result<Vec<Line>, Failed> {
        let bytes = self.read_books(number, usize::MAX)?;
        books::old_lines(number, &bytes, &self.names).map_err(|error| Failed::of(number, error))
    }

    pub(super) fn flags_of(&self, number: u32) -> Result<books::Flags, Failed> {
        let head = self.read_books(number, FILE_HEAD_BYTES)?;
        books::flags(number, &head).map_err(|error| Failed::of(number, error))
    }

    fn read_books(&self, number: u32, limit: usize) -> Result<Vec<u8>, Failed> {
        let (name, mut bytes) = (Kind::Books.file_name(number), Vec::new());
        let read = self.storage.read(&name, limit, &mut bytes);
        read.map_err(|error| Failed::of(number, JournalError::io("read", &name, error)))?;
        Ok(bytes)
    }

    fn merge_ids(&self, keeping: &mut Keeping, group: Range<usize>) -> io::Result<()> {
        let storage = &*self.storage;
        let files: Vec<_> = keeping.ids.range(group.clone()).copied().collect();
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(()) };
        let (first, last) = (first.first, last.last);
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        for (index, file) in files.iter().enumerate() {
            let name = Kind::Ids.file_name(file.last);
            let read = storage.read(&name, usize::MAX, &mut bytes);
            let read = read.map_err(|error| JournalError::io("read", &name, error));
            match read.and_then(|()| books::ids(file.last, &bytes)) {
                Ok(read) => ids.extend(read),
                Err(error) => {
                    log::error!("{error}. It stays as it is, and is not merged with others");
                    keeping.ids[group.start + index].is_damaged = true;
                    return Ok(());
                }
            }
        }
        let bytes = books::encode_ids(first, last, &ids);
        let written = write_unfinished(storage, Kind::Ids, last, &bytes);
        if let Err(error) = written.and_then(|_| self.replace(Kind::Ids, last, &bytes)) {
            let _ = storage.remove(&(Kind::Ids.file_name(last) + UNFINISHED));
            return Err(error);
        }
        let merged = IdsFile { first, last, count: ids.len(), is_damaged: false };
        let mut all: Vec<_> = std::mem::take(&mut keeping.ids).into();
        all.splice(group, [merged]);
        keeping.ids = all.into();
        let others = files.iter().map(|file| file.last).filter(|it| *it != last);
        keeping.superseded.extend(others.map(|number| Kind::Ids.file_name(number)));
        keeping.fresh.insert((Kind::Ids, last));
        self.remove_superseded(keeping);
        Ok(())
    }

    /// Gives its name to a file that is on the disk and has this head, in the place of the one that
    /// has it.
    pub(super) fn replace(&self, kind: Kind, number: u32, head: &[u8]) -> io::Result<()> {
        let checksum = head::checksum_of(head);
        let mut is_new = false;
        let named = locked(&self.manifest).change(|named| {
            is_new = named.insert(kind, number, checksum);
        });
        if named.is_err() && is_new {
            let _ = locked(&self.manifest).change(|named| named.remove(kind, number, checksum));
        }
        named?;
        finish(&*self.storage, kind, number)?;
        self.storage.sync_directory()
    }
}

type Lines<'a> = Box<dyn Iterator<Item = Result<Line, JournalError>> + 'a>;

/// What is to be kept for so long leaves in pieces of at most so long.
pub(super) fn slice_ms(keep_ms: i64) -> u64 {
    keep_ms.unsigned_abs() / 8
}

/// Why volumes were not merged.
pub(super) enum Failed {
    /// This one cannot be read.
    Damaged {
        number: u32,
        error: JournalError,
    },
    /// One of them is not there any more.
    Gone,
    Io(io::Error),
}

impl Failed {
    /// Why this one could not be read. A disk that cannot be read in one place is no reason to stop.
    pub(super) fn of(number: u32, error: JournalError) -> Failed {
        match error {
            JournalError::Io { error, .. } if Lack::of(&error).is_some() => Failed::Io(error),
            error => Failed::Damaged { number, error },
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_merged_while_they_are_about_as_large() {
        let group = |sizes: &[u64], max| group(sizes, max, |size| Some(*size), |_| true);
        assert_eq!(group(&[], 100), None);
        assert_eq!(group(&[5], 100), None);
        assert_eq!(group(&[5, 2], 100), None);
        assert_eq!(group(&[5, 3], 100), Some(0..2));
        assert_eq!(group(&[40, 10, 5, 3], 100), Some(1..4));
        assert_eq!(group(&[90, 20, 50], 100), Some(1..3), "not beyond the largest");
        assert_eq!(group(&[7, 0, 0, 0], 100), Some(1..4));
        assert_eq!(group(&[9, 5, 5, 1], 100), Some(0..3), "also behind newer ones");
    }

    /// However they come, there are few.
    #[test]
    fn there_are_never_many() {
        let mut random = crate::journal::simulated::Random(7);
        for _ in 0..50 {
            let mut sizes: Vec<u64> = Vec::new();
            let most = 1 + random.below(50) as u64;
            for number in 1..=1_000_u32 {
                sizes.push(random.below(most as usize + 1) as u64);
                let any = |size: &u64| Some(*size);
                while let Some(group) = super::group(&sizes, 1 << 40, any, |_| true) {
                    let sum = sizes[group.clone()].iter().sum();
                    sizes.splice(group, [sum]);
                }
                let total: u64 = sizes.iter().sum();
                let most = (total + 2).ilog2() + 2;
                assert!(sizes.len() <= most as usize, "{number}: {sizes:?}");
            }
        }
    }
}
