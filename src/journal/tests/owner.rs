//! Whose a journal is, and whether it is the original.

use super::*;
use crate::base::instance::Instance;
use crate::journal::identity::{Change, FILE_NAME, Owner, Table};
use crate::journal::simulated::{ENOSPC, Fault};
use crate::journal::storage::Directory;
use crate::journal::{Found, Journal};

const HOUR_MS: i64 = 3_600_000;

fn owner(number: u8) -> Owner {
    let processors = Table::contest(["http://a:1".into(), "http://b:1".into()]);
    Owner {
        instance: Instance(number),
        is_paired: true,
        processors,
        are_of_file: false,
        terms: None,
    }
}

fn find(storage: &Simulated) -> Found {
    Found::new(Arc::new(storage.clone()), options(4096)).unwrap()
}

/// A start at that time, by that instance.
fn start(storage: &Simulated, number: u8, now: i64) -> Result<Recovered, JournalError> {
    let mut found = find(storage);
    found.claim(&owner(number), &[], Timestamp(now))?;
    Ok(found.start()?.1)
}

fn copied_at(recovered: &Recovered) -> Option<i64> {
    recovered.identity.as_ref().unwrap().copied_at.map(|at| at.0)
}

#[test]
fn a_journal_of_before_is_given_an_identity_and_keeps_it() {
    let storage = Simulated::default();
    open(&storage, options(4096)).unwrap();
    let first = start(&storage, 1, 5).unwrap();
    let again = start(&storage, 1, 6).unwrap();
    assert_eq!(first.identity.unwrap().id, again.identity.unwrap().id);
    assert!(!again.is_copy);
    let other = start(&Simulated::default(), 1, 5).unwrap();
    assert_ne!(other.identity.unwrap().id, find(&storage).stored_id());
}

#[test]
fn a_refused_start_changes_nothing() {
    let storage = Simulated::default();
    start(&storage, 1, 5).unwrap();
    let before = storage.operations();
    let refused = start(&storage, 2, 5).err().unwrap().to_string();
    assert!(refused.contains("--accept-change instance"), "{refused}");
    assert_eq!(storage.operations(), before);
    let mut found = find(&storage);
    found.claim(&owner(2), &[Change::Instance], Timestamp(5)).unwrap();
    found.start().unwrap();
    start(&storage, 2, 5).expect("its own by now");
}

/// Known at its first start, and remembered over restarts; and so is a copy of the copy.
#[test]
fn a_restored_copy_is_known() {
    let original = Simulated::default();
    start(&original, 1, 5).unwrap();
    let copy = original.restored();
    let found = start(&copy, 1, 7 * HOUR_MS).unwrap();
    assert_eq!((found.is_copy, copied_at(&found)), (true, Some(7 * HOUR_MS)));
    let later = start(&copy, 1, 9 * HOUR_MS).unwrap();
    assert_eq!((later.is_copy, copied_at(&later)), (false, Some(7 * HOUR_MS)));
    assert_eq!(later.identity.unwrap().id, find(&original).stored_id());
    let second = start(&copy.restored(), 1, 90 * HOUR_MS).unwrap();
    assert_eq!((second.is_copy, copied_at(&second)), (true, Some(90 * HOUR_MS)));
    assert!(!start(&original, 1, 7 * HOUR_MS).unwrap().is_copy);
}

/// What comes back is to be looked for before it is paid, unless the journal is complete for sure.
#[test]
fn what_is_recovered_is_to_be_verified_unless_nothing_can_be_missing() {
    let write = |storage: &Simulated, number: u128, at: i64| {
        let mut found = find(storage);
        found.claim(&owner(1), &[], Timestamp(at)).unwrap();
        let (writer, _) = found.start().unwrap();
        writer.append_accepted(PaymentId(number), Cents(1), Timestamp(at)).unwrap();
        writer.flush();
    };
    let verified = |storage: &Simulated, now: i64| -> Vec<(u128, bool)> {
        let Recovered { waiting, .. } = start(storage, 1, now).unwrap();
        waiting.iter().map(|payment| (payment.id.0, payment.verify)).collect()
    };
    let original = Simulated::default();
    write(&original, 1, HOUR_MS);
    assert_eq!(verified(&original, 2 * HOUR_MS), [(1, false)], "as if the process had gone on");
    let copy = original.restored();
    assert_eq!(verified(&copy, 3 * HOUR_MS), [(1, true)], "a copy");
    write(&copy, 2, 28 * HOUR_MS);
    assert_eq!(verified(&copy, 29 * HOUR_MS), [(1, true), (2, true)], "once a copy");
    original.reboot();
    assert_eq!(verified(&original, 3 * HOUR_MS), [(1, true)], "its end may be lost");
    // Nobody has claimed it: where it comes from is not known.
    let unclaimed = Simulated::default();
    let (writer, _) = open(&unclaimed, options(4096)).unwrap();
    writer.append_accepted(PaymentId(1), Cents(1), Timestamp(0)).unwrap();
    writer.flush();
    let (_, Recovered { waiting, .. }) = open(&unclaimed, options(4096)).unwrap();
    assert!(waiting[0].verify);
    assert_eq!(verified(&unclaimed, 0), [(1, true)]);
}

/// At every operation of a start that writes the file: it is there whole afterwards, or as before.
#[test]
fn a_crash_leaves_the_old_identity_or_the_new_one() {
    let original = Simulated::default();
    start(&original, 1, 5).unwrap();
    let id = find(&original).stored_id();
    for operation in 1..20 {
        for by_power in [false, true] {
            let copy = original.restored();
            copy.fault_in(operation, Fault::Crash);
            let crashed = start(&copy, 1, HOUR_MS).is_err();
            match by_power {
                true => copy.lose_power(&mut Random(operation)),
                false => copy.kill(),
            }
            let after = start(&copy, 1, 2 * HOUR_MS).unwrap();
            let known = [Some(HOUR_MS), Some(2 * HOUR_MS)].contains(&copied_at(&after));
            assert!(known, "operation {operation}, crashed: {crashed}");
            assert_eq!(after.identity.unwrap().id, id);
        }
    }
}

/// Without space for the file the journal is used all the same; the next start tries again.
#[test]
fn without_space_for_it_the_identity_waits() {
    let storage = Simulated::default();
    storage.fault_in(2, Fault::Error(ENOSPC));
    start(&storage, 1, 5).unwrap();
    let names = |storage: &Simulated| crate::journal::storage::Storage::names(storage).unwrap();
    assert!(names(&storage).iter().all(|name| !name.starts_with(FILE_NAME)));
    start(&storage, 1, 5).unwrap();
    assert!(names(&storage).iter().any(|name| name == FILE_NAME));
}

/// With real files: as `cp -a` leaves them, and moved as a whole.
#[test]
fn a_copied_directory_is_told_from_one_that_was_moved() {
    let path = temporary("original");
    let options = Options::new(Durability::Process, 1, 1);
    let start = |path: &std::path::Path, now: i64| {
        let mut found = Journal::find(path, options).unwrap();
        found.claim(&owner(1), &[], Timestamp(now)).unwrap();
        Journal::start(found).unwrap()
    };
    let (journal, recovered) = start(&path.0, 0);
    assert!(!recovered.is_copy && journal.is_doubted_until(Timestamp(0), Moment(0)).is_none());
    let id = journal.id();
    drop(journal);
    let moved = temporary("moved");
    std::fs::rename(&path.0, &moved.0).unwrap();
    assert!(!start(&moved.0, 0).1.is_copy);
    let copy = temporary("copy");
    std::fs::create_dir(&copy.0).unwrap();
    let names = super::super::storage::Storage::names(&Directory::read_only(&moved.0).unwrap());
    for name in names.unwrap() {
        std::fs::copy(moved.0.join(&name), copy.0.join(&name)).unwrap();
    }
    let (journal, recovered) = start(&copy.0, HOUR_MS);
    assert!(recovered.is_copy && journal.id() == id);
    let until = journal.is_doubted_until(Timestamp(HOUR_MS), Moment(0)).unwrap();
    assert_eq!(until.wall, Timestamp(25 * HOUR_MS));
}

/// Then the other one may have paid at what was the cheapest until now. It is the same journal all the
/// same: who follows it goes on.
#[test]
fn a_journal_is_doubted_when_one_of_a_pair_has_other_terms() {
    let storage = Simulated::default();
    let start = |terms: Option<u32>, now: i64| {
        let mut found = find(&storage);
        found.claim(&Owner { terms, ..owner(1) }, &[], Timestamp(now)).unwrap();
        let (_, recovered) = found.start().unwrap();
        assert!(!recovered.is_copy);
        let identity = recovered.identity.unwrap();
        assert_eq!(identity.copied_at, None);
        identity.doubted_since().map(|at| at.0)
    };
    assert_eq!(start(None, 1), None, "a journal of before says nothing about it");
    assert_eq!(start(Some(7), 2), None);
    assert_eq!(start(Some(7), 3), None);
    assert_eq!(start(Some(8), 4), Some(4));
    assert_eq!(start(Some(8), 5), Some(4));
    assert_eq!(start(None, 6), Some(4), "alone there is nobody else");
    assert_eq!(start(Some(7), 7), Some(4));
    assert_eq!(start(Some(8), 8), Some(8));
}
