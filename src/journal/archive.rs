//! What is old leaves the books, if it is not to be kept for good: an archive has the payments, and
//! their totals by day stay (`abridged.rs`). So every sum that was exact stays so, the directory is
//! small once its archives are moved away, and nothing but `galo export` and `reconcile` look for those.
//!
//! Old is what was settled long before the oldest settlement of the newest books that have any: by the
//! books' own times, so that a clock that is wrong for a while moves nothing, and the same files mean the
//! same. Books leave as a whole, and are merged only as far as they are of about one time. The last ones
//! stay, to which accounts and notes belong.
//!
//! The invariant: the archive is on the disk, under its name, before the totals take the place of its
//! lines. A crash in between leaves an archive that no books name, which is taken as it is if it has these
//! lines. One that has others, of a history that an older copy was put in the place of, is somebody's
//! only record of them: it is never written over, and the books stay until it is moved away.

use super::JournalError;
use super::abridged::{Abridged, Days, archive_name};
use super::books::Flags;
use super::head::{self, Kind};
use super::keeper::{Form, Held, Keeping, write_unfinished};
use super::merge::Failed;
use super::segment::UNFINISHED;
use super::volume::{LINES_MAX, Span, Volume, merged};
use super::writer::{Writer, locked};
use crate::base::clock::Timestamp;
use crate::payments::Line;
use std::io;
use std::ops::Range;

/// What matters of books here.
#[derive(Clone, Copy, Debug)]
struct Age {
    form: Form,
    is_damaged: bool,
    lines: u64,
    bounds: Option<(Timestamp, Timestamp)>,
}

/// Which books are to leave next.
fn due(ages: &[Age], keep_ms: i64) -> Option<Range<usize>> {
    let (_, others) = ages.split_last()?;
    let newest = ages.iter().rev().find_map(|age| age.bounds)?;
    let limit = newest.0.0.saturating_sub(keep_ms);
    let begin = usize::from(ages[0].form == Form::Abridged);
    let (mut end, mut lines) = (begin, 0);
    for (index, age) in others.iter().enumerate().skip(begin) {
        lines += age.lines;
        let is_old = age.bounds.is_none_or(|(_, last)| last.0 < limit);
        let is_much = lines > LINES_MAX && end > begin;
        if !is_old || age.form != Form::Volume || age.is_damaged || is_much {
            break;
        }
        // Empty ones leave with the next that are not.
        if age.bounds.is_some() {
            end = index + 1;
        }
    }
    (begin < end).then_some(begin..end)
}

impl Writer {
    /// False if nothing is to leave, or there is no space for it now.
    pub(super) fn archive(&self, keeping: &mut Keeping) -> bool {
        let Some(keep_ms) = self.options.keep_ms else { return false };
        if !self.is_next_ready() || keeping.is_merging_held_up {
            return false;
        }
        let volumes = locked(&self.shelf).volumes();
        let age = |held: &Held| Age {
            form: held.form,
            is_damaged: held.is_damaged,
            lines: held.span.lines,
            bounds: volumes.get(&held.span.last).and_then(|volume| volume.bounds()),
        };
        let ages: Vec<_> = keeping.books.iter().map(age).collect();
        drop(volumes);
        let Some(due) = due(&ages, keep_ms) else { return false };
        let last = keeping.books[due.end - 1].span.last;
        let archived = match self.write_archived(&keeping.books[..due.end], due) {
            Ok(abridged) => {
                self.put_abridged(keeping, abridged);
                Ok(())
            }
            Err(failed) => {
                let _ = self.storage.remove(&(Kind::Books.file_name(last) + UNFINISHED));
                self.give_up(keeping, failed, &archive_name(last))
            }
        };
        self.goes_on(keeping, archived)
    }

    /// The first of these, if any, are abridged, and those of the range leave.
    fn write_archived(&self, held: &[Held], leave: Range<usize>) -> Result<Abridged, Failed> {
        let leaving = &held[leave];
        let (Some(first), Some(last)) = (leaving.first(), leaving.last()) else {
            return Err(Failed::Gone);
        };
        let (first, last) = (first.span.first, last.span.last);
        let on_disk = locked(&self.shelf).on_disk();
        let volume = |number| on_disk.volumes.get(&number).ok_or(Failed::Gone);
        let numbers: Vec<u32> = leaving.iter().map(|held| held.span.last).collect();
        let sources = numbers.iter().map(|number| volume(*number).map(|it| it.lines()));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let mut days = Days::default();
        let lines = merged(sources).map(|line| {
            let line = line.map_err(|(source, error)| Failed::of(numbers[source], error))?;
            days.add(&line);
            Ok::<Line, Failed>(line)
        });
        let name = archive_name(last);
        let (file, head) = self.write_volume(&name, leaving, Flags::default(), lines)?;
        let written = Volume::named(name.clone(), last, file, &self.names);
        let written = written.map_err(|error| Failed::of(last, error))?;
        if self.has_other_lines(&name, &written)? {
            let error = JournalError::Occupied { file: name };
            return Err(Failed::Damaged { number: last, error });
        }
        self.storage.rename(&format!("{name}{UNFINISHED}"), &name)?;
        self.storage.sync_directory()?;
        let before = on_disk.abridged.as_deref();
        let checksum = head::checksum_of(&head);
        let abridged = Abridged::with(before, [first, last], checksum, days).ok_or(Failed::Gone)?;
        let stands_alone = self.flags_of(held[0].span.last)?.stands_alone;
        let flags = Flags { stands_alone, ..volume(last)?.flags() };
        let bytes = abridged.encode(flags, self.reference());
        write_unfinished(&*self.storage, Kind::Books, last, &bytes)?;
        self.replace(Kind::Books, last, &bytes)?;
        Ok(abridged)
    }

    /// Whether there is a file of that name, and something would be lost with it.
    fn has_other_lines(&self, name: &str, volume: &Volume) -> io::Result<bool> {
        let file = match self.storage.open_to_read(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let Span { last, .. } = volume.span();
        let Ok(other) = Volume::named(name.into(), last, file, &self.names) else {
            return Ok(true);
        };
        let mut both = volume.lines().zip(other.lines());
        let is_same =
            both.all(|(one, other)| matches!((one, other), (Ok(one), Ok(other)) if one == other));
        Ok(!is_same || other.span() != volume.span())
    }

    fn put_abridged(&self, keeping: &mut Keeping, abridged: Abridged) {
        let (span, archive) = (abridged.span(), abridged.archives().last().copied());
        let replaced = locked(&self.shelf).abridge(abridged);
        keeping.replaced.extend(replaced);
        let held = Held { span, form: Form::Abridged, is_damaged: false };
        let end = keeping.books.partition_point(|it| it.span.last <= span.last);
        let others = keeping.books.splice(..end, [held]).map(|it| it.span.last);
        let others = others.filter(|it| *it != span.last);
        keeping.superseded.extend(others.map(|number| Kind::Books.file_name(number)));
        keeping.fresh.insert((Kind::Books, span.last));
        self.remove_superseded(keeping);
        if let Some(archive) = archive {
            let (name, lines, until) = (archive.name(), archive.lines(), archive.to);
            log::info!("journal: {lines} settlements up to {until} are in {name} now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(lines: u64, first: i64, last: i64) -> Age {
        let bounds = (lines > 0).then_some((Timestamp(first), Timestamp(last)));
        Age { form: Form::Volume, is_damaged: false, lines, bounds }
    }

    #[test]
    fn what_is_old_leaves_from_the_oldest_on() {
        let of = |ages: &[Age]| due(ages, 100);
        let abridged = Age { form: Form::Abridged, ..age(0, 0, 0) };
        let damaged = Age { is_damaged: true, ..age(5, 0, 9) };
        let old = Age { form: Form::Old, ..age(5, 0, 9) };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[age(5, 0, 9)]), None, "the last ones stay");
        assert_eq!(of(&[age(5, 0, 9), age(5, 109, 200)]), None, "it is not older than that");
        assert_eq!(of(&[age(5, 0, 9), age(5, 110, 200)]), Some(0..1));
        assert_eq!(of(&[age(5, 0, 9), age(5, 110, 200), age(0, 0, 0)]), Some(0..1));
        assert_eq!(of(&[age(5, 0, 9), age(0, 0, 0), age(0, 0, 0)]), None, "nothing newer");
        assert_eq!(of(&[age(5, 0, 9), age(0, 0, 0), age(5, 10, 20), age(1, 300, 300)]), Some(0..3));
        assert_eq!(of(&[age(0, 0, 0), age(0, 0, 0), age(1, 300, 300)]), None);
        assert_eq!(of(&[abridged, age(5, 0, 9), age(1, 300, 300)]), Some(1..2));
        assert_eq!(of(&[abridged, age(1, 300, 300)]), None);
        assert_eq!(of(&[age(5, 0, 250), age(5, 0, 9), age(1, 300, 300)]), None, "in their order");
        for stays in [damaged, old] {
            assert_eq!(of(&[stays, age(5, 0, 9), age(1, 300, 300)]), None);
            assert_eq!(of(&[age(5, 0, 9), stays, age(1, 300, 300)]), Some(0..1));
        }
        let large = LINES_MAX;
        assert_eq!(of(&[age(large, 0, 9), age(1, 9, 9), age(1, 300, 300)]), Some(0..1));
    }
}
