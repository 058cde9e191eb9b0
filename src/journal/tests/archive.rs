//! What is old leaves the books: every sum stays exact, and every payment is in one file.

use super::*;
use crate::base::clock::MS_PER_DAY;
use crate::journal::abridged::{Abridged, Days, archive_name};
use crate::journal::books::Flags;
use crate::journal::head::Kind as FileKind;
use crate::journal::names::Reference;
use crate::journal::reading::Reading;
use crate::journal::storage::Directory;
use crate::journal::{Journal, copy, salvage, volume};
use crate::payments::{Each, Totals};
use proptest::prelude::*;

fn line(id: u128, at: i64) -> Line {
    let (processor, amount) = (Processor::CONTEST[id as usize % 2], Cents(id as i64 + 1));
    let settlement = Settlement { processor, amount, requested_at: Timestamp(at) };
    Line { id: Some(PaymentId(id)), settlement, attempts: Attempts(0) }
}

fn settle(writer: &Writer, line: &Line) {
    let Line { id: Some(id), settlement, attempts } = *line else { return };
    writer.append_accepted(id, settlement.amount, settlement.requested_at).unwrap();
    writer.append(&Event::Settled { id, settlement, attempts });
}

fn sum<'a>(lines: impl IntoIterator<Item = &'a Line>, window: Window) -> Each<Totals> {
    let mut totals = Each::<Totals>::default();
    for Line { settlement: Settlement { processor, amount, requested_at }, .. } in lines {
        if window.contains(*requested_at) {
            let amount = crate::base::money::Total(amount.0.into());
            totals[processor.index()] += Totals { count: 1, amount };
        }
    }
    totals
}

fn window(from: i64, to: i64) -> Window {
    Window { from: Some(Timestamp(from)), to: Some(Timestamp(to)) }
}

/// Twenty days with 30 payments each, of which the last four stay.
fn twenty_days(storage: &Simulated, options: Options) -> Vec<Line> {
    let (writer, _) = open(storage, options).unwrap();
    let at = |number: u128| (number as i64 / 30) * MS_PER_DAY + (number as i64 % 30) * 2_000_000;
    let lines: Vec<_> = (0..600).map(|id| line(id, at(id))).collect();
    for line in &lines {
        settle(&writer, line);
        writer.flush();
        while writer.keep() {}
    }
    lines
}

fn keeping(days: i64) -> Options {
    Options { keep_ms: Some(days * MS_PER_DAY), ..options(1024) }
}

fn archives(storage: &Simulated) -> Vec<String> {
    let mut names = storage.names().unwrap();
    names.retain(|name| name.ends_with(".archive"));
    names
}

#[test]
fn sums_stay_exact_and_what_cuts_an_archived_day_is_refused() {
    let storage = Simulated::default();
    let lines = twenty_days(&storage, keeping(4));
    assert!(archives(&storage).len() > 2, "{:?}", storage.names());
    let (writer, _) = open(&storage, options(1024)).unwrap();
    let until = writer.shelf.lock().unwrap().on_disk().abridged.unwrap().bounds().unwrap().1.0;
    assert!((12 * MS_PER_DAY..16 * MS_PER_DAY).contains(&until), "{until}");
    let is_refused = |window: Window| match writer.totals(window) {
        Ok(totals) => {
            assert_eq!(totals, sum(&lines, window), "{window:?}");
            false
        }
        Err(JournalError::Archived { until: told }) => {
            assert_eq!(told.0, until);
            true
        }
        Err(error) => panic!("{error}"),
    };
    assert!(!is_refused(Window::default()));
    let mut random = Random(1);
    let mut refused = 0;
    for _ in 0..3_000 {
        let bounds = [0, 1].map(|_| random.below(22 * 24) as i64 * (MS_PER_DAY / 24));
        let (from, to) = (bounds[0].min(bounds[1]), bounds[0].max(bounds[1]) - 1);
        let cuts = |at: i64| at % MS_PER_DAY != 0 && (1..=until).contains(&at);
        let may_be = cuts(from) || cuts(to + 1);
        let was = is_refused(window(from, to));
        assert!(may_be || !was, "{from} to {to}");
        refused += usize::from(was);
    }
    assert!((1_000..2_900).contains(&refused), "{refused}");
    // The directory is small; and of merged volumes each is of one slice.
    let names = storage.names().unwrap();
    let books = names.iter().filter(|name| name.ends_with(".books")).count();
    assert!((3..24).contains(&books), "{names:?}");
}

#[test]
fn every_payment_is_in_one_file_and_none_is_lost() {
    let storage = Simulated::default();
    let lines = twenty_days(&storage, keeping(4));
    let (writer, recovered) = open(&storage, keeping(4)).unwrap();
    let shelf = writer.shelf.lock().unwrap();
    let mut found = shelf.lines(&storage, &Names::contest());
    found.sort_unstable_by_key(volume::order);
    assert!(found == lines, "{} of {}", found.len(), lines.len());
    assert_eq!(recovered.ids.len(), IDS_REMEMBERED, "they do not leave with the payments");
    let on_disk = shelf.on_disk();
    let kept: usize = on_disk.volumes.values().map(|it| it.span().lines as usize).sum();
    assert!(kept > 100 && on_disk.abridged.unwrap().lines() > 300);
    assert!(on_disk.volumes.values().all(|it| it.find(PaymentId(3)).unwrap().is_none()));
}

/// Nothing of a running journal needs an archive.
#[test]
fn archives_may_be_moved_away_and_a_copy_and_a_salvage_do_without() {
    let storage = Simulated::default();
    let lines = twenty_days(&storage, keeping(4));
    archives(&storage).iter().for_each(|name| storage.remove(name).unwrap());
    let all = sum(&lines, Window::default());
    let (copied, salvaged) = (Simulated::default(), Simulated::default());
    copy::copy(&storage, &copied).unwrap();
    let mut told = Vec::new();
    assert!(salvage::salvage(&storage, &salvaged, &names_of(&storage), "", &mut told).unwrap());
    for storage in [storage, copied, salvaged] {
        let (writer, _) = open(&storage, keeping(4)).unwrap();
        assert_eq!(writer.totals(Window::default()).unwrap(), all);
        (600..900).for_each(|id| settle(&writer, &line(id, 25 * MS_PER_DAY)));
        writer.flush();
        while writer.keep() {}
        assert_eq!(archives(&storage).len(), 1, "and goes on with the next");
        let more: Vec<_> = (600..900).map(|id| line(id, 0)).collect();
        let totals = sum(lines.iter().chain(&more), Window::default());
        assert_eq!(writer.totals(Window::default()).unwrap(), totals);
    }
}

#[test]
fn totals_that_are_damaged_or_lost_are_told() {
    let storage = Simulated::default();
    twenty_days(&storage, keeping(4));
    let names = storage.names().unwrap();
    let first = names.iter().find(|name| name.ends_with(".books")).unwrap();
    let damaged = storage.copy();
    let mut bytes = damaged.bytes(first);
    bytes[60] ^= 1;
    damaged.set_bytes(first, bytes);
    let error = open(&damaged, options(1024)).err().unwrap().to_string();
    assert!(error.contains(first) && error.contains("is damaged at offset"), "{error}");
    let gone = storage.copy();
    gone.remove(first).unwrap();
    assert!(open(&gone, options(1024)).err().unwrap().to_string().contains(first));
    for from in [damaged, gone] {
        let (to, mut told) = (Simulated::default(), Vec::new());
        assert!(!salvage::salvage(&from, &to, &names_of(&from), "", &mut told).unwrap());
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains(&format!("lost: {first}: ")), "{told}");
        open(&to, options(1024)).unwrap();
    }
}

/// What an older copy was put in the place of has left archives, the only record of what was settled
/// since: whatever comes of the copy, none of them is written over.
#[test]
fn an_older_copy_writes_over_no_archive_of_what_came_after_it() {
    let day = |from: u128, days: i64| -> Vec<Line> {
        (0..30).map(|id| line(from + id, days * MS_PER_DAY + id as i64 * 2_000_000)).collect()
    };
    let play = |storage: &Simulated, from: u128, days: std::ops::Range<i64>| -> Vec<Line> {
        let (writer, _) = open(storage, keeping(4)).unwrap();
        let lines: Vec<_> = days.flat_map(|it| day(from + it as u128 * 30, it)).collect();
        for line in &lines {
            settle(&writer, line);
            writer.flush();
            while writer.keep() {}
        }
        lines
    };
    for copied_after in 1..12 {
        let storage = Simulated::default();
        let mut lines = play(&storage, 0, 0..copied_after);
        let copy = storage.copy();
        play(&storage, 10_000, copied_after..30);
        let of_after: Vec<_> =
            archives(&storage).iter().map(|name| (name.clone(), storage.bytes(name))).collect();
        for (name, bytes) in &of_after {
            copy.create(name).unwrap().write_at(bytes, 0).unwrap();
        }
        lines.extend(play(&copy, 20_000, copied_after..30));
        for (name, bytes) in &of_after {
            let is_same = copy.bytes(name) == *bytes;
            let lines_of = |bytes: &[u8], number| -> Vec<Line> {
                let volume = Volume::of_bytes(number, bytes.to_vec(), &Names::contest()).unwrap();
                volume.lines().map(Result::unwrap).collect()
            };
            let number = name[..10].parse().unwrap();
            let has_same = || lines_of(&copy.bytes(name), number) == lines_of(bytes, number);
            assert!(is_same || has_same(), "copied after {copied_after} days: {name}");
        }
        let (writer, _) = open(&copy, keeping(4)).unwrap();
        assert_eq!(writer.totals(Window::default()).unwrap(), sum(&lines, Window::default()));
    }
}

#[test]
fn a_purge_forgets_what_has_left_too() {
    let storage = Simulated::default();
    twenty_days(&storage, keeping(4));
    let before = archives(&storage).len();
    let (writer, _) = open(&storage, keeping(4)).unwrap();
    assert!(writer.has_room_to_purge());
    writer.append_purged();
    assert_eq!(writer.totals(Window::default()).unwrap(), Each::<Totals>::default());
    writer.flush();
    while writer.keep() {}
    assert_eq!(archives(&storage).len(), before, "archives are somebody else's");
    drop(writer);
    let (writer, _) = open(&storage, keeping(4)).unwrap();
    assert_eq!(writer.totals(Window::default()).unwrap(), Each::<Totals>::default());
}

/// On a real disk: what an export reads, with the archives and without.
#[test]
fn a_reading_has_the_archives_that_are_there() {
    let path = temporary("archives");
    let options = Options {
        segment_bytes: 8 * 1024,
        keep_ms: Some(4 * MS_PER_DAY),
        ..Options::new(Durability::Process, 10, 50)
    };
    let (journal, _) = Journal::open(&path.0, options).unwrap();
    let lines: Vec<_> = (0..3_000).map(|id| line(id, id as i64 * MS_PER_DAY / 100)).collect();
    for (half, day) in [(&lines[..1_500], 5), (&lines[1_500..], 20)] {
        for Line { id, settlement, attempts } in half.iter().copied() {
            let id = id.unwrap();
            journal.append_accepted(id, settlement.amount, settlement.requested_at).unwrap();
            journal.append(&Event::Settled { id, settlement, attempts });
            journal.flush();
        }
        // The keeper's thread does what there is to do, however long it takes.
        while journal.archived_until().is_none_or(|until| until.0 < day * MS_PER_DAY) {
            std::thread::yield_now();
        }
    }
    let read = || {
        let reading = Reading::new(&path.0).unwrap();
        let settled: Vec<_> = reading.settled().map(Result::unwrap).collect();
        (settled, reading.absent)
    };
    let is_all = || {
        let (settled, absent) = read();
        settled == lines && absent.is_empty()
    };
    assert!(is_all());
    drop(journal);
    let names = Directory::read_only(&path.0).unwrap().names().unwrap();
    let gone: Vec<_> = names.iter().filter(|name| name.ends_with(".archive")).collect();
    let (first, second) = (path.0.join(gone[0]), path.0.join(gone[1]));
    let aside = path.0.join("aside");
    std::fs::rename(&first, &aside).unwrap();
    let (settled, absent) = read();
    assert_eq!(absent.len(), 1);
    assert_eq!(absent[0].name(), *gone[0]);
    assert_eq!(settled.len() as u64 + absent[0].lines(), 3_000);
    assert!(settled.iter().all(|line| line.settlement.requested_at > absent[0].to));
    // Another one in its place.
    std::fs::copy(&second, &first).unwrap();
    let refusal = Reading::new(&path.0).err().expect("it is another").to_string();
    assert!(refusal.contains(gone[0].as_str()), "{refusal}");
    std::fs::rename(&aside, &first).unwrap();
    assert!(is_all());
    let mut told = Vec::new();
    assert!(checked(&path.0, &mut told).unwrap(), "{}", String::from_utf8_lossy(&told));
}

fn abridged(lines: &[Line]) -> Option<Abridged> {
    // In three archives.
    let mut abridged: Option<Abridged> = None;
    let parts = lines.chunks(lines.len().div_ceil(3).max(1));
    for (number, part) in (1..).zip(parts) {
        let mut days = Days::default();
        part.iter().for_each(|line| days.add(line));
        abridged = Abridged::with(abridged.as_ref(), [number, number], number * 7, days);
    }
    abridged
}

/// The layout is a promise to files that exist: these bytes never change.
#[test]
fn the_bytes_of_abridged_books_are_these() {
    let names = Names::contest();
    let abridged = abridged(&[line(1, MS_PER_DAY + 5)]).unwrap();
    let flags = Flags { stands_alone: true, notes: Some(1), ..Flags::default() };
    let bytes = abridged.encode(flags, Reference::first());
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(hex(0..16), "67616c6f3a626b73".to_string() + "06000000" + "01000000");
    assert_eq!(hex(16..20), "050258f0", "flags, and which table of names");
    assert_eq!(hex(24..44), "0100000000000000".to_string() + "01000000" + "01000000" + "01000000");
    let (none, one) = ("00".repeat(24), "01".to_string() + &"00".repeat(7));
    let cents = "02".to_string() + &"00".repeat(15);
    assert_eq!(hex(48..104), "0100000000000000".to_string() + &none + &one + &cents, "a day");
    let head = "01000000".to_string() + "01000000" + "07000000" + "00000000";
    assert_eq!(hex(104..120), head, "an archive");
    assert_eq!(hex(120..136), "05 5c 26 05 00 00 00 00".replace(' ', "").repeat(2));
    assert_eq!(hex(136..184), none + &one + &cents);
    assert_eq!(bytes.len(), 184);
    assert_eq!(Abridged::read(1, &bytes, &names).unwrap(), abridged);
    for length in 0..bytes.len() {
        assert!(Abridged::read(1, &bytes[..length], &names).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Abridged::read(1, &damaged, &names).is_err(), "bit {bit}");
    }
    assert!(volume::Volume::of_bytes(1, bytes.clone(), &names).is_err(), "they are no volume");
    let (head, name) =
        (volume::encode(1, 1, Flags::default(), &[], Reference::first()), archive_name(1));
    assert!(Abridged::read(1, &head, &names).is_err(), "and a volume is not abridged");
    assert_eq!((name.as_str(), FileKind::of_file_name(&name)), ("0000000001.archive", None));
}

/// Times that crowd around midnights, and the earliest and the latest there are.
fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => (-3..4_i64, -2..3_i64).prop_map(|(day, ms)| day * MS_PER_DAY + ms),
        2 => -2 * MS_PER_DAY..2 * MS_PER_DAY,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1]),
    ]
}

proptest! {
    #[test]
    fn totals_are_those_of_a_plain_list_or_refused(
        times in prop::collection::vec(any_time(), 1..60),
        bounds in prop::collection::vec(any_time(), 12),
    ) {
        let lines = times.iter().enumerate().map(|(id, at)| line(id as u128, *at));
        let lines: Vec<_> = lines.collect();
        let names = Names::contest();
        let abridged = abridged(&lines).unwrap();
        let bytes = abridged.encode(Flags::default(), Reference::first());
        prop_assert_eq!(&Abridged::read(abridged.span().last, &bytes, &names).unwrap(), &abridged);
        prop_assert_eq!(abridged.total(), sum(&lines, Window::default()));
        let day = |at: i64| at.div_euclid(MS_PER_DAY);
        // Whether this moment has something of its day on either side of it.
        let parts = |at: i64| {
            let of_day = |it: &&i64| day(**it) == day(at);
            let (before, after): (Vec<i64>, Vec<i64>) =
                times.iter().filter(of_day).partition(|it| **it < at);
            !before.is_empty() && !after.is_empty()
        };
        for from in bounds.iter().copied().map(Some).chain([None]) {
            for to in bounds.iter().copied().map(Some).chain([None]) {
                let window = Window { from: from.map(Timestamp), to: to.map(Timestamp) };
                let cuts = from.is_some_and(parts)
                    || to.and_then(|to| to.checked_add(1)).is_some_and(parts);
                match abridged.totals(window) {
                    Ok(totals) => prop_assert_eq!(totals, sum(&lines, window), "{:?}", window),
                    Err(_) => {
                        let on_midnight = |at: i64| at.rem_euclid(MS_PER_DAY) == 0;
                        let is_aligned = from.is_none_or(on_midnight)
                            && to.is_none_or(|to| to == i64::MAX || on_midnight(to + 1));
                        prop_assert!(!is_aligned, "{:?}", window);
                    }
                }
                if cuts && !window.is_empty() {
                    prop_assert!(abridged.totals(window).is_err(), "{:?}", window);
                }
            }
        }
    }
}
