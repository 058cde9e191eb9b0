//! Adoptions and rejections: what is kept of them is in few files, and written a few times.

use super::*;
use crate::journal::storage::Storage;

pub(super) fn adopted(id: u128) -> (PaymentId, Cents) {
    (PaymentId(id), Cents(id as i64 + 1))
}

pub(super) fn adopt(writer: &Writer, ids: std::ops::Range<u128>) {
    append(writer, ids.map(adopted).map(|(id, amount)| Event::Adopted { id, amount }));
}

fn tell(writer: &Writer, ids: std::ops::Range<u128>) {
    append(writer, ids.map(|id| Event::Told { id: PaymentId(id) }));
}

/// In batches of as many as there always is room for, and keeps order after each.
fn append(writer: &Writer, events: impl Iterator<Item = Event>) {
    let events: Vec<_> = events.collect();
    for batch in events.chunks(16) {
        writer.append_all(batch.iter().cloned()).unwrap();
        writer.flush();
        while writer.keep() {}
    }
}

pub(super) fn reject(writer: &Writer, id: u128) {
    writer.append_accepted(PaymentId(id), Cents(7), Timestamp(0)).unwrap();
    writer.append(&Event::Rejected(rejection(PaymentId(id))));
}

/// Settles payments until all that was appended before is in full segments.
pub(super) fn fill(writer: &Writer, next: &mut u128) {
    let until = writer.appended().segment() + 2;
    while writer.appended().segment() < until {
        let id = PaymentId(1 << 100 | *next);
        writer.append_accepted(id, Cents(1), Timestamp(0)).unwrap();
        let (processor, amount, requested_at) = (Processor::DEFAULT, Cents(1), Timestamp(1));
        let settlement = Settlement { processor, amount, requested_at };
        writer.append(&Event::Settled { id, settlement, attempts: Attempts::default() });
        *next += 1;
    }
    writer.flush();
    while writer.keep() {}
}

fn files(storage: &Simulated, extension: &str) -> usize {
    storage.names().unwrap().iter().filter(|name| name.ends_with(extension)).count()
}

fn bytes_in(storage: &Simulated, extension: &str) -> usize {
    let names = storage.names().unwrap();
    let names = names.iter().filter(|name| name.ends_with(extension));
    names.map(|name| storage.bytes(name).len()).sum()
}

/// They were written again in a newer segment whenever their segment went. When they were more than
/// fit into one, that never ended: two new files each time, for ever.
#[test]
fn what_is_kept_is_in_few_files_and_written_a_few_times() {
    const EACH: u128 = 2_048;
    const BATCH: u128 = 64;
    const FIRST_REJECTED: u128 = 1 << 64;
    for segment_bytes in [2 * 1024, 8 * 1024, 64 * 1024] {
        let storage = Simulated::default();
        let (writer, _) = open(&storage, options(segment_bytes)).unwrap();
        for first in (0..EACH).step_by(BATCH as usize) {
            adopt(&writer, first..first + BATCH);
            for id in first..first + BATCH {
                reject(&writer, FIRST_REJECTED + id);
            }
            writer.flush();
            while writer.keep() {}
        }
        fill(&writer, &mut 0);
        let segments = writer.appended().segment() as usize;
        // Adopted 32, Rejected 40: each once in a segment, and a few times in notes.
        let count = 2 * EACH as usize;
        let once = 36 * count;
        let times = 1 + count.ilog2() as usize;
        let appended = segments * segment_bytes;
        let written = storage.written() as usize - appended;
        assert!(written < once * times, "{segment_bytes}: {written} bytes, once is {once}");
        let notes = files(&storage, ".notes");
        assert!((1..=times).contains(&notes), "{segment_bytes}: {notes} files");
        // One of books for each segment, some of ids, the segment in use and the next.
        let names = storage.names().unwrap();
        assert!(names.len() <= segments + notes + 16, "{segment_bytes}: {names:?}");
        let operations = storage.operations();
        for _ in 0..500 {
            assert!(!writer.keep());
        }
        assert_eq!(storage.operations(), operations, "there is nothing left to do");
        drop(writer);
        let (_, recovered) = open(&storage, options(segment_bytes)).unwrap();
        let expected: Vec<_> = (0..EACH).map(adopted).collect();
        assert_eq!(recovered.books.adopted, expected, "in their order");
        let expected: Vec<_> =
            (0..EACH).map(|id| rejection(PaymentId(FIRST_REJECTED + id))).collect();
        assert_eq!(recovered.books.rejected, expected);
    }
}

/// What has been told is gone from the disk, too, by and by; what has not, is told again.
#[test]
fn what_was_told_is_forgotten() {
    const ADOPTED: u128 = 4_096;
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(8 * 1024)).unwrap();
    let mut others = 0;
    adopt(&writer, 0..ADOPTED / 2);
    reject(&writer, 1 << 64);
    adopt(&writer, ADOPTED / 2..ADOPTED);
    fill(&writer, &mut others);
    let all = bytes_in(&storage, ".notes");
    assert!(all >= 32 * ADOPTED as usize);
    writer.append(&Event::Told { id: PaymentId(0) });
    drop(writer);
    let (writer, recovered) = open(&storage, options(8 * 1024)).unwrap();
    assert_eq!(recovered.books.adopted.len() as u128, ADOPTED, "it was not written");
    tell(&writer, 0..ADOPTED - 3);
    // One was adopted anew: its client has sent it again.
    adopt(&writer, 7..8);
    fill(&writer, &mut others);
    let left = bytes_in(&storage, ".notes");
    assert!(left < 1024, "{left} bytes of {all} are left");
    drop(writer);
    let (writer, recovered) = open(&storage, options(8 * 1024)).unwrap();
    let expected = [ADOPTED - 3, ADOPTED - 2, ADOPTED - 1, 7].map(adopted);
    assert_eq!(recovered.books.adopted, expected);
    assert_eq!(recovered.books.rejected, [rejection(PaymentId(1 << 64))]);
    writer.append_purged();
    fill(&writer, &mut others);
    assert_eq!(files(&storage, ".notes"), 0);
}

/// The segment in use is the oldest one, and empty, when the purge becomes its first record.
#[test]
fn what_is_purged_at_once_after_a_start_does_not_come_back() {
    let storage = Simulated::default();
    let mut others = 0;
    let (writer, _) = open(&storage, options(1024)).unwrap();
    adopt(&writer, 0..20);
    reject(&writer, 1 << 64);
    fill(&writer, &mut others);
    drop(writer);
    let kept_none = || Options { full_segments_kept: 0, ..options(1024) };
    let (writer, _) = open(&storage, kept_none()).unwrap();
    while writer.keep() {}
    assert!(files(&storage, ".notes") > 0);
    assert!(writer.has_room_to_purge());
    writer.append_purged();
    writer.flush();
    while writer.keep() {}
    assert_eq!(files(&storage, ".notes"), 0);
    fill(&writer, &mut others);
    drop(writer);
    let (_, recovered) = open(&storage, options(1024)).unwrap();
    assert_eq!((recovered.books.adopted, recovered.books.rejected), (vec![], vec![]));
}

#[test]
fn dump_lists_what_is_in_notes() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(1024)).unwrap();
    adopt(&writer, 0..2);
    reject(&writer, 9);
    fill(&writer, &mut 0);
    let path = super::temporary("notes");
    std::fs::create_dir_all(&path.0).unwrap();
    for name in storage.names().unwrap() {
        std::fs::write(path.0.join(&name), storage.bytes(&name)).unwrap();
    }
    let mut out = Vec::new();
    assert!(crate::journal::inspect::dump(&path.0, &mut out).unwrap());
    let text = String::from_utf8(std::mem::take(&mut out)).unwrap();
    let [one, two, nine] = [0, 1, 9].map(PaymentId);
    for line in [
        format!("0000000001.notes 48 Adopted {one} 0.01\n"),
        format!("0000000001.notes 80 Adopted {two} 0.02\n"),
        format!("0000000001.notes 112 Rejected {nine} 0.07, default 422, fallback 9\n"),
    ] {
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(crate::journal::check::run(&path.0, None, &mut out).unwrap());
    let text = String::from_utf8(out).unwrap();
    for line in ["0000000001.notes: 3 notes\n", "adopted, and to be told: 2\n", "rejected: 1\n"] {
        assert!(text.contains(line), "{line}{text}");
    }
}

/// There is no space for many notes in a new file, and for those of one segment there is.
#[test]
fn on_a_full_disk_only_new_notes_are_written() {
    const SEGMENT: usize = 64 * 1024;
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    let mut others = 0;
    for first in (0..8_192).step_by(1_024) {
        adopt(&writer, first..first + 1_024);
        fill(&writer, &mut others);
    }
    let before = files(&storage, ".notes");
    adopt(&writer, 8_192..9_300);
    let until = writer.appended().segment() + 1;
    // The next segment has just been taken, and there is no space for another.
    let mut id = 1 << 90;
    while writer.appended().segment() < until {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
        writer.append(&Event::Foreign { id: PaymentId(id) });
        id += 1;
    }
    writer.flush();
    assert!(!writer.is_next_ready());
    storage.set_capacity(Some(storage.used() + SEGMENT - 1));
    assert!(writer.keep(), "a segment is given back");
    assert_eq!(files(&storage, ".notes"), before + 1);
    storage.set_capacity(None);
    while writer.keep() {}
    fill(&writer, &mut others);
    drop(writer);
    let (_, recovered) = open(&storage, options(SEGMENT)).unwrap();
    assert_eq!(recovered.books.adopted, (0..9_300).map(adopted).collect::<Vec<_>>());
}

/// Files of a journal as version 1 left them, the first length bytes of each; the rest is zeros.
/// The first segment is gone, and what it said of adoptions and rejections stands again in the next.
const VERSION_1: [(&str, usize, &str); 4] = [
    (
        "0000000001.books",
        64,
        "67616c6f3a626b7301000000010000000000000033ea40f90100000000000000000000000000000000000000\
         be31bdef010000000000000001",
    ),
    (
        "0000000001.ids",
        144,
        "67616c6f3a69647301000000010000000000000088638ced0400000000000000000000000000000000000000\
         3e7195430b000000000000000000000000000000010000000000000005000000000000000000000000000000\
         0700000000000000150000000000000000000000000000000300000000000000070000000000000000000000\
         0000000009",
    ),
    (
        "0000000002.journal",
        448,
        "67616c6f3a6a726e010000000200000000000000000000000000000000000000000000000000000000000000\
         0bcd71f4f9df2b7a1800030007000000000000000000000000000000a2cc7185180005000700000000000000\
         0000000000000000323898602800010017000000000000000000000000000000040000000000000009000000\
         0000000083b2474820000b000f000000000000000000000000000000050000000000000093b7554d10000800\
         a8000000020000004aec998520000b000b0000000000000000000000000000000100000000000000e80901d1\
         20000b000d00000000000000000000000000000002000000000000002500e82a28000c000500000000000000\
         00000000000000000700000000000000a60105",
    ),
    (
        "0000000003.journal",
        448,
        "67616c6f3a6a726e010000000300000000000000000000000000000000000000000000000000000000000000\
         c01dd7c9",
    ),
];

/// What was written before there were notes means what it meant, and goes on as if written today.
#[test]
fn a_journal_of_version_1_is_read_and_goes_on() {
    let storage = Simulated::default();
    for (name, length, digits) in VERSION_1 {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let mut bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        bytes.resize(length, 0);
        storage.create(name).unwrap();
        storage.set_bytes(name, bytes);
    }
    let adopted = [(15, 5), (11, 1), (13, 2)];
    let check = |writer: &Writer, recovered: Recovered| {
        assert_eq!(
            recovered.books.adopted,
            adopted.map(|(id, cents)| (PaymentId(id), Cents(cents)))
        );
        // When it was accepted was not kept then.
        let accepted_at = Timestamp(0);
        let rejected = Rejection { accepted_at, ..rejection(PaymentId(5)) };
        assert_eq!(recovered.books.rejected, [rejected]);
        assert_eq!(writer.totals(Window::default()).unwrap()[0].count, 1);
        let waiting: Vec<_> = recovered.waiting.iter().map(|it| (it.id, it.amount)).collect();
        assert_eq!(waiting, [(PaymentId(23), Cents(4))]);
        recovered.ids
    };
    let (writer, recovered) = open(&storage, options(448)).unwrap();
    let ids: Vec<_> = check(&writer, recovered).into_iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [11, 5, 21, 7, 23]);
    for id in 0..20 {
        let id = PaymentId(1 << 100 | id);
        writer.append_accepted(id, Cents(1), Timestamp(0)).unwrap();
        writer.append(&Event::Foreign { id });
        writer.flush();
        while writer.keep() {}
    }
    let [notes, books] = [".notes", ".books"].map(|it| files(&storage, it));
    assert!(notes == 1 && books > 1, "{notes} files of notes, {books} of books");
    drop(writer);
    let (writer, recovered) = open(&storage, options(448)).unwrap();
    check(&writer, recovered);
}
