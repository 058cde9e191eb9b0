//! What one instance decides about the other, step by step; whole histories are in `simulation.rs`.

use super::*;
use crate::base::clock::Timestamp;

const ADOPT_AFTER: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Moment {
    Moment(seconds * SECOND)
}

/// A payment of the second instance, at the first.
fn guest(number: u128) -> Payment {
    let (accepted, accepted_at) = (at(0), Timestamp(0));
    let id = PaymentId(2 * number + 1);
    Payment { id, amount: Cents(1), accepted, accepted_at, guest: true, verify: false }
}

fn first_instance() -> Membership {
    Membership::new(Instance(1), 11, ADOPT_AFTER, Recovered::default(), at(0))
}

/// A greeting of the second instance, that has written down what the first adopted until there.
fn hello(process: u64, learned: u64) -> Hello {
    let journal = Some(String::new());
    Hello { instance: 2, process, journal, learned_of: 11, learned, ..Hello::default() }
}

/// Greets in vain until the peer is lost and everything it left is adopted.
fn adopt_all(membership: &mut Membership) -> Vec<Payment> {
    adopt_all_from(membership, 0)
}

fn adopt_all_from(membership: &mut Membership, second: u64) -> Vec<Payment> {
    for second in second..second + 60 {
        for _ in 0..10 {
            match membership.next(at(second)) {
                Some(Duty::Greet) => membership.missed(at(second)),
                Some(Duty::Adopt(batch)) => return membership.adopted(&batch),
                _ => break,
            }
        }
    }
    panic!("nothing is adopted");
}

/// What it tells the peer, from the first that it still tells of, when it has forgotten what it may.
fn told(membership: &mut Membership, theirs: &Hello) -> Vec<PaymentId> {
    let mut ours = Hello::default();
    membership.heard(theirs, &mut ours, at(100));
    for duty in duties(membership, at(100)) {
        let Duty::Forget(ids) = duty else { continue };
        membership.forgot(&ids);
        membership.heard(theirs, &mut ours, at(100));
    }
    let (from, page) = membership.adopted_page(0);
    assert_eq!((from, from + page.len() as u64), (ours.adopted_first, ours.adopted));
    page.into_iter().map(|(id, _)| id).collect()
}

/// A home that had written down what the other drives was started again on an older copy of its
/// journal. It was told nothing any more, and drove it as well.
#[test]
fn what_is_adopted_is_told_to_each_process_of_its_home_until_it_is_over() {
    let mut membership = first_instance();
    let guests = [guest(0), guest(1), guest(2)];
    guests.into_iter().for_each(|guest| membership.take_in(guest));
    let adopted = adopt_all(&mut membership);
    let ids: Vec<_> = adopted.iter().map(|payment| payment.id).collect();
    assert!(ids == guests.map(|guest| guest.id) && adopted.iter().all(|payment| payment.verify));
    assert_eq!(told(&mut membership, &hello(21, 0)), ids);
    assert_eq!(told(&mut membership, &hello(21, 3)), ids, "written down, and not over");
    assert_eq!(told(&mut membership, &hello(22, 0)), ids, "to another process as well");
    membership.over(ids[0]);
    membership.over(ids[2]);
    assert_eq!(told(&mut membership, &hello(22, 3)), ids[1..], "in their order");
    membership.over(ids[1]);
    assert_eq!(told(&mut membership, &hello(22, 3)), []);
}

/// Greets in vain if need be, and returns what else is to be done, once.
fn duties(membership: &mut Membership, now: Moment) -> Vec<Duty> {
    let mut duties = Vec::new();
    while let Some(duty) = membership.next(now) {
        match duty {
            Duty::Greet => membership.missed(now),
            _ if duties.contains(&duty) => break,
            _ => duties.push(duty),
        }
    }
    duties
}

/// It is told, also to a later process of its home, until it is written down that it need not be.
#[test]
fn nothing_is_forgotten_before_that_is_written_down() {
    let mut membership = first_instance();
    [guest(0), guest(1)].into_iter().for_each(|guest| membership.take_in(guest));
    let ids: Vec<_> = adopt_all(&mut membership).iter().map(|payment| payment.id).collect();
    ids.iter().for_each(|id| membership.over(*id));
    let mut ours = Hello::default();
    membership.heard(&hello(21, 2), &mut ours, at(100));
    let forget = Duty::Forget(ids.clone());
    assert_eq!(duties(&mut membership, at(100)), std::slice::from_ref(&forget));
    membership.not_forgot(at(100));
    assert_eq!(duties(&mut membership, at(100)), [], "the disk is full");
    assert_eq!(membership.adopted_page(0).1.len(), 2);
    assert_eq!(duties(&mut membership, at(101)), [forget]);
    membership.purge();
    membership.forgot(&ids);
    membership.heard(&hello(21, 2), &mut ours, at(102));
    assert_eq!((ours.adopted_first, ours.adopted), (2, 2), "counted once, purged or forgotten");
}

/// Only what was told can have been written down, whatever the home says.
#[test]
fn nothing_is_forgotten_that_was_not_told() {
    let mut membership = first_instance();
    membership.take_in(guest(0));
    let first = adopt_all(&mut membership)[0].id;
    membership.over(first);
    let impossible = Hello { learned: u64::MAX, ..hello(21, 0) };
    assert_eq!(told(&mut membership, &impossible), []);
    membership.take_in(guest(1));
    let later = adopt_all_from(&mut membership, 200)[0].id;
    membership.over(later);
    assert_eq!(told(&mut membership, &hello(21, 1)), [later]);
    assert_eq!(told(&mut membership, &hello(21, 2)), []);
}

/// A process of the home has learned it and died; the next one is on an older copy of its journal.
#[test]
fn what_one_process_has_learned_the_next_is_told_again() {
    let mut membership = first_instance();
    membership.take_in(guest(0));
    let first = adopt_all(&mut membership)[0].id;
    assert_eq!(told(&mut membership, &hello(21, 1)), [first], "it is not over");
    membership.over(first);
    assert_eq!(told(&mut membership, &hello(22, 0)), [first]);
    assert_eq!(told(&mut membership, &hello(22, 1)), []);
}

#[test]
fn what_is_over_is_told_until_it_is_written_down() {
    let mut membership = first_instance();
    [guest(0), guest(1)].into_iter().for_each(|guest| membership.take_in(guest));
    let ids: Vec<_> = adopt_all(&mut membership).iter().map(|payment| payment.id).collect();
    ids.iter().for_each(|id| membership.over(*id));
    assert_eq!(told(&mut membership, &hello(21, 0)), ids);
    assert_eq!(told(&mut membership, &hello(21, 1)), ids[1..]);
    let other = Hello { learned_of: 12, ..hello(21, 2) };
    assert_eq!(told(&mut membership, &other), ids[1..], "of another process of ours");
    assert_eq!(told(&mut membership, &hello(21, 2)), []);
}

/// Of what a journal brings back, that counts as open which is outstanding.
#[test]
fn what_was_adopted_before_a_restart_is_told_again() {
    let adopted: Vec<_> = [guest(0), guest(1)].map(|guest| (guest.id, guest.amount)).into();
    let open = HashSet::from([adopted[1].0]);
    let recovered = Recovered { guests: Vec::new(), adopted: adopted.clone(), open };
    let mut membership = Membership::new(Instance(1), 11, ADOPT_AFTER, recovered, at(0));
    assert_eq!(told(&mut membership, &hello(21, 0)), [adopted[0].0, adopted[1].0]);
    assert_eq!(told(&mut membership, &hello(21, 2)), [adopted[1].0]);
}

/// It may have paid what it does not know any more, and what is sent again to us.
#[test]
fn a_peer_on_a_copy_of_its_journal_is_known_with_the_first_lease() {
    let mut membership = first_instance();
    assert_eq!(membership.next(at(1)), Some(Duty::Greet));
    let copy = Hello { is_copy: true, ..hello(21, 0) };
    assert!(!membership.peer_is_copy() && membership.reach(at(1)) == Reach::Cheapest);
    membership.answered(at(1), &copy, at(1));
    assert!(membership.peer_is_copy() && membership.reach(at(1)) == Reach::Every);
    membership.missed(at(2));
    assert!(membership.peer_is_copy(), "whether it answers or not");
    membership.answered(at(3), &hello(21, 0), at(3));
    assert!(!membership.peer_is_copy());
}

/// It was remembered when it was first read, and so was new to nobody when it was read again: it was
/// never written down, and a home that started again paid it as well.
#[test]
fn what_a_full_disk_has_not_taken_is_to_be_written_when_there_is_room() {
    let mut membership = first_instance();
    let page = [guest(0), guest(1)].map(|guest| (guest.id, guest.amount));
    let later = (guest(2).id, guest(2).amount);
    assert_eq!(membership.to_write(&page), page);
    membership.missed(at(1));
    assert_eq!(membership.to_write(&[]), page, "asked again, nothing of it is new");
    membership.missed(at(2));
    assert_eq!(membership.to_write(&[later]), [page[0], page[1], later]);
    membership.learned(0, 3);
    assert_eq!(membership.to_write(&[]), []);
    membership.to_write(&page);
    membership.purge();
    assert_eq!(membership.to_write(&[]), [], "they may be sent anew");
}

/// Numbers that no galo says, each at its brim: nothing of it ends the process.
#[test]
fn a_peer_that_says_impossible_numbers_is_survived() {
    let mut membership = first_instance();
    assert_eq!(membership.next(at(1)), Some(Duty::Greet));
    let most = u64::MAX;
    let greeting = Hello {
        adopted_first: most,
        adopted: most,
        learned: most,
        now_us: most,
        rival: Some((7, most)),
        ..hello(21, 0)
    };
    membership.answered(at(1), &greeting, at(1));
    membership.heard(&greeting, &mut Hello::default(), at(2));
    let ahead = Hello { adopted_first: 0, adopted: most, rival: None, ..greeting };
    membership.answered(at(3), &ahead, at(3));
    membership.learned(most, 500);
    assert_eq!(membership.adopted_page(most), (most, Vec::new()));
}

/// What could not be driven in the peer's place is not accepted: it would wait in the queue, and our
/// own payments would find no place there.
#[test]
fn no_more_guests_are_taken_than_can_be_adopted() {
    let mut membership = first_instance();
    for number in 0..ADOPTED_MAX as u128 {
        assert!(membership.takes_guests(), "{number}");
        membership.take_in(guest(number));
    }
    assert!(!membership.takes_guests());
    let mut adopted = Vec::new();
    while membership.guests() > 0 {
        adopted.extend(adopt_all(&mut membership));
    }
    assert_eq!(adopted.len(), ADOPTED_MAX, "all that were taken are driven");
    assert!(!membership.takes_guests());
    adopted.iter().for_each(|payment| membership.over(payment.id));
    assert!(!membership.takes_guests(), "over, and not told yet");
    membership.heard(&hello(21, 1), &mut Hello::default(), at(60));
    let first = adopted[0].id;
    assert_eq!(duties(&mut membership, at(60)), [Duty::Forget(vec![first])]);
    membership.forgot(&[first]);
    assert!(membership.takes_guests());
}
