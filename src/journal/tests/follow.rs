//! Following a journal while it is rewritten, merged and started anew.

use super::*;
use crate::journal::follow::{Follower, Over};

fn settle(writer: &Writer, id: u128) {
    let (amount, requested_at) = (Cents(id as i64 + 1), Timestamp(1_000 - id as i64));
    writer.append_accepted(PaymentId(id), amount, Timestamp(0)).unwrap();
    let settlement = Settlement { processor: Processor::Default, amount, requested_at };
    writer.append(&Event::Settled { id: PaymentId(id), settlement, attempts: Attempts(0) });
}

fn follower(storage: &Simulated) -> (Vec<u128>, Follower) {
    let replay = Replay::new(storage, 0).unwrap();
    let lines = replay.shelf.lines(storage);
    let before = lines.iter().map(|line| line.id.unwrap().0).collect();
    (before, Follower::new(Box::new(storage.clone()), replay.end(), None))
}

fn poll(follower: &mut Follower, told: &mut Vec<u128>) -> Result<(), JournalError> {
    follower.poll(|over| {
        told.push(match over {
            Over::Settled(line) => line.id.unwrap().0,
            Over::Rejected(rejection) => rejection.id.0,
            Over::Cancelled(resolution) => resolution.id.0,
        });
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
                let rejected = Replay::new(&storage, 0).unwrap().books.rejected;
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
fn what_is_not_whole_yet_is_told_when_it_is_and_a_purge_ends_it() {
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
    let error = poll(&mut follower, &mut told).unwrap_err().to_string();
    assert!(error.contains("it was purged"), "{error}");
}
