//! Few files however often a journal is started, books of before, and volumes that are damaged.

use super::*;
use crate::journal::head::Kind as FileKind;
use crate::journal::{Journal, books, head, manifest};
use crate::payments::Each;
use crate::payments::each;

fn settle(writer: &Writer, id: u128, at: i64) {
    let (amount, requested_at) = (Cents(id as i64 + 1), Timestamp(at));
    writer.append_accepted(PaymentId(id), amount, Timestamp(at)).unwrap();
    let settlement =
        Settlement { processor: Processor::CONTEST[id as usize % 2], amount, requested_at };
    writer.append(&Event::Settled { id: PaymentId(id), settlement, attempts: Attempts(0) });
}

fn count(storage: &Simulated, extension: &str) -> usize {
    storage.names().unwrap().iter().filter(|name| name.ends_with(extension)).count()
}

fn total(writer: &Writer) -> u64 {
    writer.totals(Window::default()).unwrap().iter().map(|it| it.count).sum()
}

/// Each start ends a segment, which is rewritten: in the thousandth there were thousands of files.
#[test]
fn a_thousand_starts_leave_few_files() {
    let storage = Simulated::default();
    let ids = 200;
    let options = Options { ids_remembered: ids, ..options(4096) };
    let mut random = Random(5);
    let mut settled = 0;
    for _ in 0..1_000 {
        let (writer, recovered) = recover::open(Arc::new(storage.clone()), options).unwrap();
        assert_eq!(total(&writer), settled as u64);
        assert_eq!(recovered.ids.len(), ids.min(settled));
        for _ in 0..random.below(4) {
            settle(&writer, settled as u128, random.below(1_000) as i64);
            settled += 1;
        }
        writer.flush();
        while writer.keep() {}
    }
    let names = storage.names().unwrap();
    assert!(names.len() <= 24, "{names:?}");
    let (writer, _) = recover::open(Arc::new(storage.clone()), options).unwrap();
    for id in (0..settled as u128).map(PaymentId) {
        let shelf = writer.shelf.lock().unwrap();
        let found: Vec<_> =
            shelf.volumes().values().filter_map(|volume| volume.find(id).unwrap()).collect();
        let recorded = shelf.places_of(id).records.len();
        assert!(found.len() + recorded >= 1, "{id}");
        assert!(found.iter().all(|line| line.settlement.amount.0 == id.0 as i64 + 1));
    }
}

/// As version 2 left them: without ids. They count as they did, and are rewritten.
#[test]
fn books_of_before_are_read_and_rewritten() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(1024)).unwrap();
    (0..200).for_each(|id| settle(&writer, id, id as i64));
    writer.flush();
    // Rewritten, and not merged.
    loop {
        writer.keeping.lock().unwrap().is_merging_held_up = true;
        if !writer.keep() {
            break;
        }
    }
    drop(writer);
    let mut old = 0;
    // There was no manifest then.
    storage.remove(manifest::FILE_NAME).unwrap();
    for name in storage.names().unwrap() {
        let mut bytes = storage.bytes(&name);
        head::set_version(&mut bytes, 2);
        storage.set_bytes(&name, bytes.clone());
        if let Some((FileKind::Books, number)) = FileKind::of_file_name(&name) {
            let volume = Volume::of_bytes(number, bytes, &Names::contest()).unwrap();
            let mut settled = [Vec::new(), Vec::new()];
            for line in volume.lines().map(Result::unwrap) {
                let Settlement { processor, amount, requested_at } = line.settlement;
                settled[processor.index()].push((requested_at, amount));
            }
            storage.set_bytes(&name, books::encode_old(number, volume.flags(), &settled));
            old += 1;
        }
    }
    assert!(old > 5, "{old}");
    let windows = [(None, None), (Some(7), Some(90)), (Some(-5), Some(0)), (Some(150), None)];
    let windows =
        windows.map(|(from, to)| Window { from: from.map(Timestamp), to: to.map(Timestamp) });
    let expected = |window: Window| {
        let mut totals = Each::<(u64, i128)>::default();
        for id in (0..200).filter(|id| window.contains(Timestamp(*id))) {
            let total: &mut (u64, i128) = &mut totals[id as usize % 2];
            *total = (total.0 + 1, total.1 + i128::from(id) + 1);
        }
        totals
    };
    let (mut writer, _) = open(&storage, options(1024)).unwrap();
    for is_rewritten in [false, true] {
        for window in windows {
            let found = writer.totals(window).unwrap().map(|it| (it.count, it.amount.0));
            assert_eq!(found, expected(window), "{window:?}");
        }
        let volumes = writer.shelf.lock().unwrap().volumes();
        assert_eq!(!volumes.is_empty(), is_rewritten);
        assert!(volumes.values().all(|volume| volume.find(PaymentId(7)).unwrap().is_none()));
        while writer.keep() {}
        let reopened = open(&storage, options(1024)).unwrap().0;
        drop(std::mem::replace(&mut writer, reopened));
    }
    assert!(count(&storage, ".books") < old, "{old}: {:?}", storage.names());
}

/// A damaged block costs a question that needs it, and nothing else: neither the start nor the other
/// volumes; and it is not carried into another file.
#[test]
fn a_damaged_volume_is_told_and_left_as_it_is() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(1024)).unwrap();
    (0..40).for_each(|id| settle(&writer, id, id as i64));
    writer.flush();
    while writer.keep() {}
    drop(writer);
    let names = storage.names().unwrap();
    let name = names.iter().find(|name| name.ends_with(".books")).unwrap();
    let mut bytes = storage.bytes(name);
    bytes[100] ^= 1;
    storage.set_bytes(name, bytes.clone());
    let (writer, _) = open(&storage, options(1024)).unwrap();
    (40..400).for_each(|id| settle(&writer, id, id as i64));
    writer.flush();
    while writer.keep() {}
    assert_eq!(storage.bytes(name), bytes, "left as it is");
    assert_eq!(total(&writer), 400, "no block is needed for all");
    let window = |from, to| Window { from: Some(Timestamp(from)), to: Some(Timestamp(to)) };
    assert_eq!(writer.totals(window(100, 199)).unwrap().map(|it| it.count), each([50, 50]));
    let refused = writer.totals(window(3, 199)).unwrap_err().to_string();
    assert!(refused.contains(name) && refused.contains("is damaged at offset"), "{refused}");
}

/// Neither stops the journal nor keeps the keeper at it.
#[test]
fn ids_that_are_damaged_meanwhile_are_left_as_they_are() {
    let storage = Simulated::default();
    let options = Options { ids_remembered: 10_000, ..options(1024) };
    let (writer, _) = recover::open(Arc::new(storage.clone()), options).unwrap();
    (0..100).for_each(|id| settle(&writer, id, id as i64));
    writer.flush();
    loop {
        writer.keeping.lock().unwrap().is_merging_held_up = true;
        if !writer.keep() {
            break;
        }
    }
    let names = storage.names().unwrap();
    let ids: Vec<_> = names.iter().filter(|name| name.ends_with(".ids")).collect();
    assert!(ids.len() > 3, "{names:?}");
    let mut bytes = storage.bytes(ids[1]);
    bytes[50] ^= 1;
    storage.set_bytes(ids[1], bytes.clone());
    writer.keeping.lock().unwrap().is_merging_held_up = false;
    let steps = (0..1_000).take_while(|_| writer.keep()).count();
    assert!(steps < 100, "{steps}");
    assert_eq!(storage.bytes(ids[1]), bytes);
    assert!(count(&storage, ".ids") < ids.len());
}

/// The keeper is at a segment when all is forgotten: what it makes of it must not come back.
#[test]
fn what_was_purged_does_not_come_back_when_it_is_rewritten() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(1024)).unwrap();
    (0..40).for_each(|id| settle(&writer, id, id as i64));
    writer.flush();
    while writer.keep() {}
    let volumes = writer.shelf.lock().unwrap().volumes();
    assert!(!volumes.is_empty());
    assert!(writer.has_room_to_purge());
    writer.append_purged();
    // It would merge what is not there any more.
    {
        writer.prepare_next();
        let mut keeping = writer.keeping.lock().unwrap();
        let held = keeping.books[0];
        keeping.books.push(held);
        assert!(writer.merge(&mut keeping));
    }
    for volume in volumes.values() {
        let put_back = writer.shelf.lock().unwrap().put(volume.clone());
        assert_eq!(put_back.len(), 1);
    }
    assert_eq!(total(&writer), 0);
    settle(&writer, 50, 1);
    assert_eq!(total(&writer), 1);
    writer.flush();
    while writer.keep() {}
    assert_eq!(total(&writer), 1);
}

/// Whoever asks finds every payment and every total at any moment of being rewritten and merged.
#[test]
fn what_is_asked_while_the_keeper_works_is_whole() {
    const COUNT: u64 = 3_000;
    let path = temporary("asked");
    let options = Options { segment_bytes: 8 * 1024, ..Options::new(Durability::Process, 10, 50) };
    let (journal, _) = Journal::open(&path.0, options).unwrap();
    for number in 0..COUNT {
        let (id, amount) = (PaymentId(u128::from(number)), Cents(number as i64 + 1));
        journal.append_accepted(id, amount, Timestamp(1)).unwrap();
        let (processor, requested_at) = (Processor::DEFAULT, Timestamp(number as i64));
        let settlement = Settlement { processor, amount, requested_at };
        journal.append(&Event::Settled { id, settlement, attempts: Attempts(0) });
        if number % 16 == 0 {
            journal.flush();
        }
        let asked = PaymentId(u128::from(number / 2));
        let found = journal.find_settled(asked).unwrap().expect("a settled payment");
        assert_eq!(found.settlement.amount, Cents(asked.0 as i64 + 1));
        let totals = journal.totals(Window::default()).unwrap();
        assert_eq!(totals[0].count, number + 1);
        let from = Some(Timestamp(number as i64 / 3));
        let totals = journal.totals(Window { from, to: None }).unwrap();
        assert_eq!(totals[0].count, number + 1 - number / 3);
    }
    assert_eq!(journal.find_settled(PaymentId(u128::from(COUNT))).unwrap(), None);
    // Merged when there is nothing else to do.
    let is_merged = |volume: &Arc<Volume>| volume.span().first < volume.span().last;
    while !journal.shelf.lock().unwrap().volumes().values().any(is_merged) {
        let totals = journal.totals(Window::default()).unwrap();
        assert_eq!(totals[0].count, COUNT);
    }
}
