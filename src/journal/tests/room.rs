//! A disk that fills up, and has space again.

use super::*;
use crate::journal::storage::Storage;

const SEGMENT: usize = 64 * 1024;

fn accept_while_there_is_room(writer: &Writer, from: u128) -> u128 {
    let mut id = from;
    while writer.has_room() {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
        id += 1;
        if id.is_multiple_of(16) {
            writer.flush();
            writer.keep();
        }
        assert!(id < 100_000, "the disk is full at last");
    }
    writer.flush();
    id
}

fn attempt(id: u128) -> Attempt {
    let (accepted, accepted_at) = (Moment(0), Timestamp(0));
    let payment = Payment {
        id: PaymentId(id),
        amount: Cents(1),
        accepted,
        accepted_at,
        guest: false,
        verify: false,
    };
    Attempt { payment, processor: Processor::DEFAULT, requested_at: Timestamp(1) }
}

fn settle(writer: &Writer, id: u128) {
    let (processor, amount, requested_at) = (Processor::DEFAULT, Cents(1), Timestamp(1));
    let settlement = Settlement { processor, amount, requested_at };
    let attempts = Attempts::default();
    writer.append(&Event::Settled { id: PaymentId(id), settlement, attempts });
}

/// The disk has room for three segments, and for what is left of one. Payments are refused before it is full, and every one
/// that was accepted can be attempted and settled, with a sync between any two records. Then the
/// old segments are rewritten, and there is room again.
#[test]
fn a_full_disk_refuses_payments_and_settles_what_it_took() {
    let storage = Simulated::default();
    storage.set_capacity(Some(3 * SEGMENT + SEGMENT / 10 * 9));
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    let sync = || {
        writer.flush();
        writer.sync();
    };
    while writer.keep() {}
    // The first payments stay open, and with them the first segment.
    for id in 0..300 {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
    }
    let mut accepted = 300;
    while writer.has_room() {
        let id = accepted;
        accepted += 1;
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
        if !id.is_multiple_of(100) {
            writer.append_attempted(&attempt(id));
            settle(&writer, id);
        }
        sync();
        writer.keep();
    }
    assert_eq!(writer.appended().segment(), 3, "the last there is space for");
    assert!(accepted > 1_000, "{accepted} accepted");
    writer.keep();
    assert!(!writer.has_room(), "nothing has changed");
    let open: Vec<u128> = writer.payments().iter().map(|(id, _)| id.0).collect();
    for id in &open {
        assert!(writer.has_room_for_attempt(), "attempt {id}");
        writer.append_attempted(&attempt(*id));
        sync();
    }
    for id in &open {
        settle(&writer, *id);
        sync();
    }
    assert_eq!(replayed(&storage).unwrap().settled[0].0, accepted as u64);
    while writer.keep() {}
    assert!(writer.has_room(), "the segments have become books");
    accept_while_there_is_room(&writer, accepted);
    storage.set_capacity(None);
    writer.keep();
    assert!(writer.has_room(), "the disk is larger now");
}

/// Payments that are attempted and released over and over use up the reserve in the end. Attempts
/// stop while every payment that is out can still be settled.
#[test]
fn attempts_stop_while_what_is_out_can_still_be_settled() {
    let storage = Simulated::default();
    storage.set_capacity(Some(2 * SEGMENT + SEGMENT / 2));
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    while writer.keep() {}
    let accepted = accept_while_there_is_room(&writer, 0);
    let mut out = Vec::new();
    let mut random = Random(1);
    let mut rounds = 0_u128;
    while writer.has_room_for_attempt() {
        let id = rounds % accepted;
        if !out.contains(&id) {
            writer.append_attempted(&attempt(id));
            writer.flush();
            writer.sync();
            match random.below(20) {
                0 => out.push(id),
                _ => drop(writer.append(&Event::Released { id: PaymentId(id) })),
            }
        }
        writer.keep();
        rounds += 1;
        assert!(rounds < 100_000, "the reserve is used up at last");
    }
    for id in 0..accepted {
        // All of them, though only those that are out may be.
        settle(&writer, id);
        writer.flush();
        writer.sync();
    }
    assert_eq!(replayed(&storage).unwrap().settled[0].0, accepted as u64);
}

/// A payment that stays open for very long must not keep every segment since then on the disk.
#[test]
fn old_payments_are_carried_over() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(4096)).unwrap();
    for id in [1, 2] {
        writer.append_accepted(PaymentId(id), Cents(id as i64), Timestamp(5)).unwrap();
    }
    writer.append_attempted(&attempt(2));
    for id in 100..3_000 {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(6)).unwrap();
        writer.append_attempted(&attempt(id));
        settle(&writer, id);
        if id.is_multiple_of(10) {
            writer.flush();
            while writer.keep() {}
        }
    }
    writer.flush();
    while writer.keep() {}
    let segments = storage.names().unwrap().iter().filter(|it| it.ends_with(".journal")).count();
    assert!(segments <= 5, "{segments} segments");
    let ids = storage.names().unwrap().iter().filter(|it| it.ends_with(".ids")).count();
    assert!(ids <= 2, "{ids} files of ids, for {IDS_REMEMBERED} ids");
    drop(writer);
    let (writer, recovered) = open(&storage, options(4096)).unwrap();
    let found = Model::of_recovered(&writer, &recovered);
    assert_eq!(found.settled[0].0, 2_900);
    assert_eq!(found.open[&PaymentId(1)], (1, 5, None));
    assert_eq!(found.open[&PaymentId(2)], (2, 5, Some((Processor::DEFAULT, 1))));
    assert_eq!(found.ids.len(), IDS_REMEMBERED);
    assert_eq!(writer.append_accepted(PaymentId(1), Cents(9), Timestamp(9)), None, "a repetition");
}

/// Carrying over once wrote the acceptance and the attempt as two records. Torn between them, the
/// payment was at home in the new segment, the old one was rewritten, and the next start found the
/// payment free, though it may have been paid.
#[test]
fn a_payment_carried_over_by_half_is_still_in_doubt() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(4096)).unwrap();
    writer.append_accepted(PaymentId(2), Cents(2), Timestamp(0)).unwrap();
    writer.append_attempted(&attempt(2));
    writer.flush();
    let before = writer.appended();
    writer.carry_over(1, 10);
    writer.flush();
    let name = "0000000001.journal";
    let bytes = storage.bytes(name);
    for cut in before.offset()..=writer.appended().offset() {
        storage.set_bytes(name, bytes[..cut].into());
        let found = replayed(&storage).unwrap();
        assert_eq!(found.open[&PaymentId(2)].2, Some((Processor::DEFAULT, 1)), "cut at {cut}");
        assert_eq!(found.ids.len(), 1);
    }
}

/// Accepted just before a purge, handed to the dispatcher just after it: the payment is attempted,
/// so it must be in the journal whole.
#[test]
fn an_attempt_brings_an_acceptance_that_was_purged() {
    let storage = Simulated::default();
    let (writer, _) = open(&storage, options(4096)).unwrap();
    writer.append_accepted(PaymentId(2), Cents(2), Timestamp(0)).unwrap();
    writer.append_purged();
    writer.append_attempted(&attempt(2));
    writer.flush();
    while writer.keep() {}
    let found = replayed(&storage).unwrap();
    assert_eq!(found.open[&PaymentId(2)], (1, 0, Some((Processor::DEFAULT, 1))));
    settle(&writer, 2);
    assert!((writer.payments().len() == 0));
}

/// While the disk has space nobody is refused for the size of a segment, however many payments are
/// outstanding: one segment, with nothing left of the one before, has room for all of them.
#[test]
fn a_segment_has_room_for_all_that_may_be_outstanding() {
    for outstanding in [1, 1_000, 100_000, 151_000, 262_144, 302_000, 1_000_000, 9_000_000] {
        let bytes = Options::new(Durability::Process, outstanding, 1).segment_bytes;
        let room = crate::journal::segment::Segment::room(bytes) - bytes / 64;
        assert!(
            room >= crate::journal::writer::Room::of(2).for_all(outstanding + 1),
            "{outstanding}: {bytes}"
        );
    }
}

/// The ids that were driven in the other instance's place go on being told, and what was rejected
/// goes on being listed, whatever becomes of the segments they were written in; until a purge.
#[test]
fn what_was_adopted_or_rejected_outlives_its_segment() {
    let storage = Simulated::default();
    let adopted = [(PaymentId(1), Cents(1)), (PaymentId(3), Cents(2))];
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    let events = adopted.map(|(id, amount)| Event::Adopted { id, amount });
    writer.append_all(events.into_iter()).unwrap();
    let rejected = rejection(PaymentId(5));
    writer.append_accepted(rejected.id, rejected.amount, Timestamp(0)).unwrap();
    writer.append(&Event::Rejected(rejected));
    for round in 10..4_010_u128 {
        writer.append_accepted(PaymentId(round), Cents(1), Timestamp(0)).unwrap();
        settle(&writer, round);
        writer.flush();
        if round.is_multiple_of(100) {
            while writer.keep() {}
        }
    }
    drop(writer);
    assert!(storage.names().unwrap().contains(&"0000000003.books".to_string()));
    let (writer, recovered) = open(&storage, options(SEGMENT)).unwrap();
    assert_eq!(
        (&recovered.books.adopted[..], &recovered.books.rejected[..]),
        (&adopted[..], &[rejected][..])
    );
    assert!(recovered.waiting.is_empty(), "it is not to be paid");
    writer.append_purged();
    writer.flush();
    drop(writer);
    let (_, recovered) = open(&storage, options(SEGMENT)).unwrap();
    assert_eq!((recovered.books.adopted, recovered.books.rejected), (vec![], vec![]));
}

/// It is the first record of a segment: room left in the one in use is no help.
#[test]
fn a_purge_needs_a_segment_of_its_own() {
    const SEGMENT: usize = 64 * 1024;
    let storage = Simulated::default();
    storage.set_capacity(Some(SEGMENT + SEGMENT / 2));
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    assert!(writer.has_room_to_purge(), "the segment is empty");
    writer.append_accepted(PaymentId(1), Cents(1), Timestamp(0)).unwrap();
    assert!(writer.has_room(), "there is room for payments");
    assert!(!writer.has_room_to_purge());
    storage.set_capacity(None);
    assert!(writer.has_room_to_purge());
    writer.append_purged();
    writer.flush();
    assert!(replayed(&storage).unwrap().open.is_empty());
}

/// The disk is as full as it can be, and the process is started anew, again and again: it goes on in
/// what was kept free before, and settles all that it took.
#[test]
fn a_start_on_a_full_disk_settles_what_was_accepted() {
    // The slack is for what each start takes itself.
    const SEGMENT: usize = 1 << 20;
    let storage = Simulated::default();
    storage.set_capacity(Some(2 * SEGMENT + SEGMENT / 2));
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    while writer.keep() {}
    // As many as one segment has room for, and then others until there is no room for one more.
    let accepted = 8_000;
    for id in 0..accepted {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
    }
    let mut others = 0;
    while writer.has_room() {
        let id = 1 << 64 | others;
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
        writer.append_attempted(&attempt(id));
        settle(&writer, id);
        writer.flush();
        others += 1;
    }
    drop(writer);
    let mut settled = 0;
    while settled < accepted {
        // Somebody else has taken what was left.
        storage.set_capacity(Some(storage.used()));
        let (writer, recovered) = open(&storage, options(SEGMENT)).unwrap();
        assert_eq!(recovered.waiting.len() as u128, accepted - settled);
        while writer.keep() {}
        let until = accepted.min(settled + accepted / 5 + 1);
        for id in settled..until {
            assert!(writer.has_room_for_attempt(), "attempt {id} of {accepted}");
            writer.append_attempted(&attempt(id));
            writer.flush();
            writer.sync();
            settle(&writer, id);
        }
        writer.flush();
        settled = until;
    }
    assert_eq!(replayed(&storage).unwrap().settled[0].0, (accepted + others) as u64);
    storage.set_capacity(None);
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    assert!(writer.has_room(), "there is space again");
}

/// Payments taken with a large queue are settled with a small one: a segment is as long as what
/// waits needs.
#[test]
fn a_smaller_queue_than_what_waits_is_drained() {
    const WAITING: u128 = 400_000;
    let storage = Simulated::default();
    let fail = options(0).fail;
    let of = |queue| Options { fail, ..Options::new(Durability::Process, queue, 1) };
    let (writer, _) = open(&storage, of(WAITING as usize)).unwrap();
    for id in 0..WAITING {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
    }
    writer.flush();
    drop(writer);
    let (writer, recovered) = open(&storage, of(1_000)).unwrap();
    assert_eq!(recovered.waiting.len() as u128, WAITING);
    assert!(writer.has_room_for_attempt(), "without the next segment too");
}

/// On a disk that is full of what is over nothing is kept from its rewriting: a start takes what it
/// needs and no more, and then there is space.
#[test]
fn a_start_on_a_full_disk_gives_space_back() {
    const SEGMENT: usize = 1 << 20;
    let storage = Simulated::default();
    storage.set_capacity(Some(SEGMENT / 10 * 19));
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    let mut id = 0;
    while writer.has_room() {
        writer.append_accepted(PaymentId(id), Cents(1), Timestamp(0)).unwrap();
        settle(&writer, id);
        writer.keep();
        id += 1;
    }
    writer.flush();
    drop(writer);
    let (writer, _) = open(&storage, options(SEGMENT)).unwrap();
    while writer.keep() {}
    assert!(writer.is_next_ready() && writer.has_room());
}

/// Whatever was promised to clients: what another instance is told for good must be on the disk.
#[test]
fn who_waits_for_the_disk_is_woken_by_a_sync() {
    let storage = Simulated::default();
    let durability = crate::journal::Durability::Process;
    let (writer, _) = open(&storage, Options { durability, ..options(4096) }).unwrap();
    let position = writer.append_accepted(PaymentId(1), Cents(1), Timestamp(0)).unwrap();
    writer.flush();
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(writer.poll_durable(position, context).is_ready(), "written is enough for that");
    assert!(writer.poll_synced(position, context).is_pending());
    assert!(writer.sync());
    assert!(writer.poll_synced(position, context).is_ready());
}
