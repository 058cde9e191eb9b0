//! Following a journal while it is rewritten, merged and started anew.

use super::*;
use crate::journal::follow::{self, Follower, Told};

fn settle(writer: &Writer, id: u128) {
    let (amount, requested_at) = (Cents(id as i64 + 1), Timestamp(1_000 - id as i64));
    writer.append_accepted(PaymentId(id), amount, Timestamp(0)).unwrap();
    let settlement = Settlement { processor: Processor::DEFAULT, amount, requested_at };
    writer.append(&Event::Settled { id: PaymentId(id), settlement, attempts: Attempts(0) });
}

fn follower(storage: &Simulated) -> (Vec<u128>, Follower) {
    let replay = replay(storage, 0).unwrap();
    let lines = replay.shelf.lines(storage, &names_of(storage));
    let before = lines.iter().map(|line| line.id.unwrap().0).collect();
    (before, Follower::new(Arc::new(storage.clone()), names_of(storage), replay.end(), None))
}

fn poll(follower: &mut Follower, told: &mut Vec<u128>) -> Result<(), JournalError> {
    follower.poll(|_, it| {
        match it {
            Told::Settled(line) => told.push(line.id.unwrap().0),
            Told::Rejected(rejection) => told.push(rejection.id.0),
            Told::Resolved(resolution) => told.push(resolution.id.0),
            Told::Purged => told.clear(),
        }
        Ok(())
    })
}

#[test]
fn every_settlement_is_told_once_whatever_is_done_to_the_files() {
    for seed in 0..50 {
        let storage = Simulated::default();
        let mut random = Random(seed + 1);
        let mut writer = open(&storage, options(1024)).unwrap().0;
        let (mut followers, mut next) = (Vec::new(), 0);
        for _ in 0..100 {
            for _ in 0..random.below(3) {
                settle(&writer, next);
                next += 1;
            }
            if random.below(9) == 0 {
                writer.append(&Event::Rejected(rejection(PaymentId(next))));
                next += 1;
            }
            writer.flush();
            if random.below(3) == 0 {
                while writer.keep() {}
            }
            if random.below(10) == 0 {
                drop(writer);
                writer = open(&storage, options(1024)).unwrap().0;
            }
            if random.below(20) == 0 {
                let (told, follower) = follower(&storage);
                let rejected = replay(&storage, 0).unwrap().books.rejected;
                let rejected = rejected.iter().map(|it| it.id.0);
                followers.push((told.into_iter().chain(rejected).collect(), follower));
            }
            for (told, follower) in &mut followers {
                poll(follower, told).unwrap();
            }
        }
        assert!(storage.names().unwrap().iter().any(|name| name.ends_with(".books")));
        for (mut told, _) in followers {
            told.sort_unstable();
            let expected: Vec<u128> = (0..next).collect();
            assert_eq!(told, expected, "seed {seed}");
        }
    }
}

#[test]
fn one_that_falls_behind_is_told_so_and_misses_nothing_in_silence() {
    let storage = Simulated::default();
    let writer = open(&storage, options(1024)).unwrap().0;
    let (mut told, mut follower) = follower(&storage);
    poll(&mut follower, &mut told).unwrap();
    (0..40).for_each(|id| settle(&writer, id));
    writer.flush();
    while writer.keep() {}
    let error = poll(&mut follower, &mut told).unwrap_err().to_string();
    assert!(error.contains("rewritten or purged before"), "{error}");
    // What it held it has told.
    assert!(!told.is_empty() && told.iter().copied().eq(0..told.len() as u128), "{told:?}");
}

#[test]
fn what_is_not_whole_yet_is_told_when_it_is_and_so_is_a_purge() {
    let storage = Simulated::default();
    let writer = open(&storage, options(1024)).unwrap().0;
    let (mut told, mut follower) = follower(&storage);
    settle(&writer, 0);
    writer.flush();
    let name = storage.names().unwrap().into_iter().find(|it| it.ends_with(".journal")).unwrap();
    let whole = storage.bytes(&name);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in 48..used {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        storage.set_bytes(&name, bytes);
        poll(&mut follower, &mut told).unwrap();
        assert_eq!(told, [], "{cut}");
    }
    storage.set_bytes(&name, whole);
    poll(&mut follower, &mut told).unwrap();
    assert_eq!(told, [0]);
    writer.append_purged();
    writer.flush();
    poll(&mut follower, &mut told).unwrap();
    assert_eq!(told, []);
}

/// Or a receiver that has been away would keep space that the journal needs.
#[test]
fn events_that_are_given_up_take_no_space_though_somebody_reads_them() {
    let storage = Simulated::default();
    let kept = Options { retention: Retention::of_events(2 * 1024), ..options(1024) };
    let writer = open(&storage, kept).unwrap().0;
    let fill = |from: u128| {
        (from..from + 20).for_each(|id| settle(&writer, id));
        writer.flush();
        while writer.keep() {}
    };
    fill(0);
    let oldest = follow::oldest(&storage).unwrap().unwrap();
    let name = Retained::Events.file_name(oldest.segment());
    let open_still = storage.open_to_read(&name).unwrap();
    let mut follower = Follower::new(Arc::new(storage.clone()), names_of(&storage), oldest, None);
    let mut told = 0;
    let until = Position::new(oldest.segment(), 200);
    let mut each = |_: Position, _: Told| {
        told += 1;
        Ok::<(), JournalError>(())
    };
    follower.step(until, &mut each).unwrap();
    assert!(open_still.length().unwrap() > 0);
    fill(100);
    assert!(!storage.names().unwrap().contains(&name));
    assert_eq!(open_still.length().unwrap(), 0);
    let gone = follower.step(Position::LAST, &mut each).unwrap_err();
    assert!(matches!(gone, JournalError::Gone { .. }) && told > 0, "{gone}");
}

/// Everything from the oldest that is there on, as far as it is on the disk.
fn events(storage: &Simulated, until: Position) -> Result<(Position, Vec<u128>), JournalError> {
    let oldest = follow::oldest(storage).unwrap().unwrap();
    let (mut told, mut last) = (Vec::new(), oldest);
    let mut follower = Follower::new(Arc::new(storage.clone()), names_of(storage), oldest, None);
    let mut each = |place: Position, it: Told| {
        assert!(last < place && place <= until, "{last:?} {place:?} {until:?}");
        last = place;
        match it {
            Told::Settled(line) => told.push(line.id.unwrap().0),
            Told::Rejected(rejection) => told.push(rejection.id.0),
            Told::Resolved(resolution) => told.push(resolution.id.0),
            Told::Purged => told.push(u128::MAX),
        }
        Ok::<(), JournalError>(())
    };
    while follower.step(until, &mut each)? {}
    assert!(follower.place() <= until || follower.place().offset() == 48);
    Ok((oldest, told))
}

/// Crashes, losses of power and purges, and a few segments kept: what was on the disk when it was told
/// is told again in the same order, and nothing is left out between the oldest and the end.
#[test]
fn what_is_kept_is_told_in_order_and_never_otherwise_than_before() {
    let mut left_out = 0;
    for seed in 0..120 {
        let storage = Simulated::default();
        let mut random = Random(seed + 1);
        let segments = [0, 3, 1_000][seed as usize % 3];
        let options =
            || Options { retention: Retention::of_events(segments * 1024), ..options(1024) };
        let mut writer = open(&storage, options()).unwrap().0;
        let (mut all, mut next): (Vec<u128>, u128) = (Vec::new(), 0);
        let mut told: Vec<u128> = Vec::new();
        for _ in 0..80 {
            for _ in 0..random.below(3) {
                settle(&writer, next);
                all.push(next);
                next += 1;
            }
            writer.flush();
            if random.below(3) == 0 {
                while writer.keep() {}
            }
            if random.below(2) == 0 {
                writer.sync();
            }
            if random.below(40) == 0 {
                writer.append_purged();
                all.push(u128::MAX);
                writer.flush();
            }
            if random.below(10) == 0 {
                let synced = writer.synced();
                drop(writer);
                match random.below(2) {
                    0 => storage.kill(),
                    _ => storage.lose_power(&mut random),
                }
                writer = open(&storage, options()).unwrap().0;
                assert!(writer.synced() >= synced);
                // What was lost was never told.
                let kept = events(&storage, writer.synced()).unwrap().1;
                let end = all.iter().rposition(|id| kept.last() == Some(id)).map_or(0, |at| at + 1);
                assert!(end >= told.len() || kept.is_empty(), "seed {seed}");
                all.truncate(end.max(told.len()));
            }
            let (oldest, events) = events(&storage, writer.synced()).unwrap();
            if !events.is_empty() {
                assert!(
                    all.windows(events.len()).any(|all| all == events),
                    "seed {seed}: {events:?} of {all:?}"
                );
                let end = all.iter().rposition(|id| events.last() == Some(id)).unwrap() + 1;
                assert!(told.len() <= end, "seed {seed}: less than was told before");
                told = all[..end].to_vec();
            }
            left_out += usize::from(oldest.segment() > 1);
            let bytes: u64 = storage
                .names()
                .unwrap()
                .iter()
                .filter(|name| Retained::Events.number_of(name).is_some())
                .map(|name| storage.bytes(name).len() as u64)
                .sum();
            assert!(bytes <= (segments + 1) * 1024, "seed {seed}: {bytes}");
            if segments == 1_000 && !all.contains(&u128::MAX) {
                assert_eq!(told.len(), events.len(), "seed {seed}: all of it");
            }
        }
    }
    assert!(left_out > 0);
}
