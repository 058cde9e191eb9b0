//! The entries that are kept for exports: each once and in order, whatever happens to the process, the
//! power and the files; and no start ever needs them.

use super::*;
use crate::journal::reading::Reading;
use crate::journal::simulated::Fault;
use crate::journal::{copy, head};

const SEGMENT: usize = 1024;

fn keeping(bytes: Option<u64>) -> Options {
    let retention = Retention { of: Retained::Entries, bytes };
    Options { retention, full_segments_kept: 1, ids_remembered: 0, ..options(SEGMENT) }
}

/// What is exported: the entries, and from which one on they are all there, per account.
type Exported = (Vec<Entry>, BTreeMap<AccountId, u64>);

/// Nobody knows the key of an entry that is in the accounts alone.
fn exported(storage: &Simulated) -> Result<Exported, JournalError> {
    let reading = Reading::of(Arc::new(storage.clone()))?;
    let mut entries = Vec::new();
    let since = reading.entries(|entry| {
        entries.push(Entry { key: Key::NONE, ..*entry });
        Ok::<(), JournalError>(())
    })?;
    let ids = reading.accounts.iter().map(|(id, _)| *id);
    Ok((entries, ids.zip(since).map(|(id, since)| (id, since.sequence)).collect()))
}

/// Of each account all from the one that is said on, once each and in order; and never less than what
/// a statement shows.
fn assert_is_of((entries, since): &Exported, all: &[Entry], context: &str) {
    let accounts: BTreeMap<AccountId, Vec<&Entry>> =
        all.iter().fold(BTreeMap::new(), |mut accounts: BTreeMap<_, Vec<&Entry>>, entry| {
            accounts.entry(entry.account).or_default().push(entry);
            accounts
        });
    assert!(accounts.keys().eq(since.keys()), "{context}");
    for (id, all) in accounts {
        let told: Vec<&Entry> = entries.iter().filter(|entry| entry.account == id).collect();
        assert!(told.is_sorted_by(|one, next| one.sequence < next.sequence), "{context}: {told:?}");
        assert!(told.iter().all(|it| all.contains(it)), "{context}: {told:?}");
        let (since, last) = (since[&id], all.len() as u64);
        assert!(since <= last.saturating_sub(9).max(1), "{context}: {since} of {last}");
        let from = told.iter().filter(|it| it.sequence >= since).count() as u64;
        assert_eq!(from, last + 1 - since, "{context}: {since} of {last}");
    }
}

fn kept_bytes(storage: &Simulated) -> u64 {
    let names = storage.names().unwrap();
    let kept = names.iter().filter(|name| Retained::Entries.number_of(name).is_some());
    kept.map(|name| storage.bytes(name).len() as u64).sum()
}

/// Many entries over many segments, with kills, losses of power, and more or less that is kept.
#[test]
fn every_entry_is_exported_once_whatever_happens() {
    let (mut whole, mut in_part) = (0, 0);
    for seed in 0..90 {
        let storage = Simulated::default();
        let mut random = Random(seed + 1);
        let bytes = [None, Some(0), Some(4 * SEGMENT as u64), Some(1 << 30)][seed as usize % 4];
        let mut writer = open(&storage, keeping(bytes)).unwrap().0;
        let (mut model, mut all, mut ends) = (Model::default(), Vec::new(), Vec::new());
        for step in 0..150 {
            for _ in 0..random.below(4) {
                let entry = model.any_entry(&mut random, step);
                ends.push(model.append(Step::Enter(entry), &writer).expect("room"));
                model.apply(Step::Enter(entry));
                all.push(Entry { key: Key::NONE, ..entry });
            }
            writer.flush();
            if random.below(3) == 0 {
                while writer.keep() {}
            }
            if random.below(4) == 0 {
                writer.sync();
            }
            if random.below(12) == 0 {
                drop(writer);
                match random.below(3) {
                    0 => storage.lose_power(&mut random),
                    _ => storage.kill(),
                }
                let recovered;
                (writer, recovered) = open(&storage, keeping(bytes)).unwrap();
                // The newest may have been lost with the power.
                let there: u64 = recovered.accounts.values().map(|it| it.sequence).sum();
                all.truncate(there as usize);
                model = Model::of_recovered(&writer, &recovered);
            }
            let exported = exported(&storage).unwrap();
            let context = format!("seed {seed}, step {step}");
            assert_is_of(&exported, &all, &context);
            let is_whole = exported.1.values().all(|since| *since == 1);
            assert!(is_whole || bytes != Some(1 << 30), "{context}: {:?}", exported.1);
            whole += usize::from(is_whole);
            in_part += usize::from(!is_whole);
            let most = bytes.map_or(0, |it| if it == 0 { 0 } else { it + SEGMENT as u64 });
            assert!(kept_bytes(&storage) <= most, "{context}");
        }
    }
    assert!(whole > 1_000 && in_part > 1_000, "{whole} {in_part}");
}

/// A kill and a loss of power at every operation of a busy ledger: what is exported afterwards, and
/// after the next start, is all that there is.
#[test]
fn at_every_operation() {
    let work = |storage: &Simulated| {
        let mut all = Vec::new();
        let result = stopped(|| {
            let Ok((writer, _)) = open(storage, keeping(Some(1 << 30))) else { return };
            let (mut model, mut random) = (Model::default(), Random(3));
            for step in 0..70 {
                enter_any(&writer, &mut model, &mut random, step, &mut all);
            }
        });
        (result, all)
    };
    let storage = Simulated::default();
    work(&storage).0.unwrap();
    assert!(kept_bytes(&storage) > 3 * SEGMENT as u64);
    for operation in 1..=storage.operations() {
        let storage = Simulated::default();
        storage.fault_in(operation, Fault::Crash);
        let all = work(&storage).1;
        for by_power in [false, true] {
            let storage = storage.copy();
            match by_power {
                true => storage.lose_power(&mut Random(operation)),
                false => storage.kill(),
            }
            for time in ["found", "started"] {
                let context = format!("operation {operation}, by power {by_power}, {time}");
                let exported = exported(&storage).unwrap();
                let count = exported.0.len();
                assert_is_of(&exported, &all[..count], &context);
                assert!(exported.1.values().all(|since| *since == 1), "{context}");
                drop(open(&storage, keeping(Some(1 << 30))).unwrap());
            }
        }
    }
}

/// Enters something, puts it to `all` as an export tells it, and has the keeper do what there is to do,
/// which may end in a crash.
fn enter_any(
    writer: &Writer,
    model: &mut Model,
    random: &mut Random,
    step: i64,
    all: &mut Vec<Entry>,
) {
    let entry = model.any_entry(random, step);
    model.append(Step::Enter(entry), writer).expect("room");
    model.apply(Step::Enter(entry));
    all.push(Entry { key: Key::NONE, ..entry });
    writer.flush();
    while writer.keep() {}
}

/// A ledger with some segments kept, all of its entries, and the names of those.
fn with_some_kept() -> (Simulated, Vec<Entry>, Vec<String>) {
    let storage = Simulated::default();
    let writer = open(&storage, keeping(Some(1 << 30))).unwrap().0;
    let (mut model, mut random, mut all) = (Model::default(), Random(9), Vec::new());
    for step in 0..200 {
        enter_any(&writer, &mut model, &mut random, step, &mut all);
    }
    drop(writer);
    let mut kept = storage.names().unwrap();
    kept.retain(|name| Retained::Entries.number_of(name).is_some());
    kept.sort_unstable();
    (storage, all, kept)
}

/// Whatever is in them: a start goes on, and an export names the file. Moved away, it is said what
/// is missing, and what is older is there.
#[test]
fn a_damaged_one_is_in_nobodys_way_but_an_exports() {
    let (storage, all, kept) = with_some_kept();
    let (name, bytes) = (&kept[2], storage.bytes(&kept[2]));
    let mut flipped = bytes.clone();
    flipped[head::FILE_HEAD_BYTES + 100] ^= 1;
    let another = storage.bytes(&kept[3]);
    for damaged in [flipped, bytes[..300].to_vec(), Vec::new(), b"mine".to_vec(), another] {
        storage.set_bytes(name, damaged.clone());
        let refused = exported(&storage).unwrap_err();
        assert!(matches!(&refused, JournalError::Unneeded { file, .. } if file == name));
        assert!(refused.to_string().contains("no start needs it"), "{refused}");
        drop(open(&storage, keeping(Some(1 << 30))).unwrap());
        assert_eq!(storage.bytes(name), damaged, "a start leaves it as it is");
    }
    storage.remove(name).unwrap();
    let exported = exported(&storage).unwrap();
    assert_is_of(&exported, &all, "one is missing");
    assert!(exported.1.values().any(|since| *since > 1));
    assert!(exported.0.contains(&all[0]), "what is older is there");
}

/// One that is of another history: its entries do not come of those before it.
#[test]
fn entries_of_another_history_are_refused() {
    let (storage, _, kept) = with_some_kept();
    let (other, ..) = {
        let storage = Simulated::default();
        let writer = open(&storage, keeping(Some(1 << 30))).unwrap().0;
        let (mut model, mut random) = (Model::default(), Random(10));
        for step in 0..200 {
            enter_any(&writer, &mut model, &mut random, step, &mut Vec::new());
        }
        (storage, ())
    };
    storage.set_bytes(&kept[0], other.bytes(&kept[0]));
    let refused = exported(&storage).unwrap_err().to_string();
    assert!(refused.contains("is not the sum of its account's entries"), "{refused}");
}

/// Without the flag what is there stays; with `0` it goes.
#[test]
fn what_is_kept_goes_only_if_that_is_asked_for() {
    let (storage, _, kept) = with_some_kept();
    let before = kept_bytes(&storage);
    let writer = open(&storage, keeping(None)).unwrap().0;
    while writer.keep() {}
    assert_eq!(kept_bytes(&storage), before);
    drop(writer);
    let writer = open(&storage, keeping(Some(0))).unwrap().0;
    while writer.keep() {}
    assert_eq!(kept_bytes(&storage), 0, "{kept:?}");
}

/// A copy has them, damaged ones as they are, and means the same.
#[test]
fn a_copy_takes_them_along() {
    let (storage, all, kept) = with_some_kept();
    let target = Simulated::default();
    copy::copy(&storage, &target).unwrap();
    assert_eq!(exported(&target).unwrap(), exported(&storage).unwrap());
    assert_is_of(&exported(&target).unwrap(), &all, "the copy");
    storage.set_bytes(&kept[1], b"damaged".to_vec());
    let target = Simulated::default();
    copy::copy(&storage, &target).unwrap();
    assert_eq!(target.bytes(&kept[1]), b"damaged");
    drop(open(&target, keeping(Some(1 << 30))).unwrap());
}

/// On a full disk they make room for what is being written.
#[test]
fn on_a_full_disk_they_go_first() {
    let (storage, ..) = with_some_kept();
    storage.set_capacity(Some(storage.used() + SEGMENT));
    let (writer, recovered) = open(&storage, keeping(Some(1 << 30))).unwrap();
    let (mut model, mut random) = (Model::of_recovered(&writer, &recovered), Random(11));
    let before = kept_bytes(&storage);
    for step in 0..60 {
        assert!(writer.has_room());
        let entry = model.any_entry(&mut random, 1_000 + step);
        model.append(Step::Enter(entry), &writer).expect("room");
        model.apply(Step::Enter(entry));
        writer.flush();
        while writer.keep() {}
    }
    assert!(kept_bytes(&storage) <= before);
    assert_eq!(replayed(&storage).unwrap(), model);
}
