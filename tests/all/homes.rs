//! One payment per id over both instances: whoever is asked, however often, whoever is away.

use crate::support::system::{
    Instance, Processor, QUICK, SIGKILL, addresses, assert_books_balance, id, pair,
};
use crate::support::{PATIENCE, wait_until, wait_until_within};
use std::collections::HashMap;
use std::sync::Barrier;
use std::thread;

/// Ids end in their number, so even ones have their home at the first instance, odd at the second.
fn pay_all(instances: &[Instance], numbers: std::ops::Range<u64>) -> HashMap<String, i128> {
    let mut accepted = HashMap::new();
    for number in numbers {
        let answer = instances[number as usize / 2 % instances.len()].pay(&id(number), "1.50");
        assert_eq!(answer.status, 202, "{answer:?}");
        accepted.insert(id(number), 150);
    }
    accepted
}

#[test]
fn the_same_id_at_both_instances_at_once_is_paid_once_while_processors_fail_over() {
    let mut processors = Processor::both();
    let instances = pair(addresses(&processors), &QUICK);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for client in 0..4 {
            let (instances, start) = (&instances, &start);
            scope.spawn(move || {
                start.wait();
                let mut client = instances[client % 2].client();
                for number in 0..200 {
                    let answer = client.call(crate::support::system::payment(&id(number), "1.50"));
                    assert_eq!(answer.status, 202, "{answer:?}");
                }
            });
        }
        for (index, fault) in ["status-500-body-inserted", "reset-after-insert", "insert-late"]
            .into_iter()
            .cycle()
            .take(12)
            .enumerate()
        {
            processors[index % 2].set_fault(fault, 3);
            processors[0].set_failing(index % 3 == 0);
        }
        processors.iter_mut().for_each(|processor| processor.set_failing(false));
    });
    let accepted = (0..200).map(|number| (id(number), 150)).collect();
    assert_books_balance(&accepted, &mut processors, &instances);
}

#[test]
fn another_amount_is_refused_at_either_instance() {
    let mut processors = Processor::both();
    let instances = pair(addresses(&processors), &QUICK);
    let accepted = pay_all(&instances, 0..4);
    for number in 0..4 {
        for instance in &instances {
            let answer = instance.pay(&id(number), "1.51");
            assert_eq!(answer.status, 422, "{answer:?}");
            assert!(answer.body.contains("amount"), "{answer:?}");
            assert_eq!(instance.pay(&id(number), "1.5").status, 202);
        }
    }
    assert_books_balance(&accepted, &mut processors, &instances);
}

#[test]
fn a_payment_taken_in_the_place_of_its_home_is_handed_over_when_that_is_back() {
    let mut processors = Processor::both();
    let mut instances = pair(addresses(&processors), &QUICK);
    instances[1].galo.signal(SIGKILL);
    instances[1].galo.wait();
    let accepted = pay_all(&instances[..1], 0..20);
    // Repeats are known, and the home's own payments are driven meanwhile.
    assert_eq!(instances[0].pay(&id(1), "1.50").status, 202);
    assert_eq!(instances[0].pay(&id(3), "1.51").status, 422);
    wait_until("all but the guests are settled", || instances[0].outstanding() == 10);
    assert_eq!(instances[0].metric("galo_waiting"), 10);
    instances[1].start_again();
    assert_books_balance(&accepted, &mut processors, &instances);
    assert_eq!(instances[0].metric("galo_handed_over_total"), 10);
    assert_eq!(instances[1].pay(&id(1), "1.50").status, 202);
    assert_books_balance(&accepted, &mut processors, &instances);
}

#[test]
fn if_the_home_stays_away_its_payments_are_driven_all_the_same() {
    let mut processors = Processor::both();
    let mut instances =
        pair(addresses(&processors), &[&QUICK[..], &["--adopt-after", "300ms"]].concat());
    // Paid at one processor by its home, which then goes away before anybody can ask it.
    processors[0].set_failing(true);
    let before = instances[1].pay(&id(1), "1.50");
    assert_eq!(before.status, 202);
    instances[1].settle();
    processors[0].set_failing(false);
    instances[1].galo.signal(SIGKILL);
    instances[1].galo.wait();
    // The same again, at the instance that has never heard of it, and some that are new.
    let mut accepted = pay_all(&instances[..1], 0..10);
    accepted.insert(id(1), 150);
    instances[0].settle();
    let books = [0, 1].map(|index: usize| processors[index].books());
    let held = books.iter().flatten().filter(|row| row.id == id(1)).count();
    assert_eq!(held, 1, "asked before paying: {books:?}");
    assert_eq!(books[0].len() + books[1].len(), 10);
    assert_eq!(instances[0].metric("galo_foreign_total"), 1);
    // Back, the home knows what was driven in its place.
    instances[1].start_again();
    for number in (3..10).step_by(2) {
        assert_eq!(instances[1].pay(&id(number), "1.51").status, 422, "it knows {number}");
        assert_eq!(instances[1].pay(&id(number), "1.50").status, 202);
    }
    instances.iter().for_each(Instance::settle);
    let again = [0, 1].map(|index: usize| processors[index].books());
    assert_eq!(again, books, "and pays none of it again");
}

#[test]
fn a_home_that_stands_still_costs_its_clients_a_moment_and_nothing_else() {
    let mut processors = Processor::both();
    let instances = pair(addresses(&processors), &QUICK);
    instances[1].galo.freeze();
    let accepted = pay_all(&instances[..1], 0..20);
    wait_until("it is missed", || instances[0].metric("galo_peer_up") == 0);
    instances[1].galo.thaw();
    wait_until_within(PATIENCE, "it is found again", || {
        (instances[0].metric("galo_peer_up") == 1).then_some(()).ok_or_else(String::new)
    });
    assert_books_balance(&accepted, &mut processors, &instances);
}

#[test]
fn two_first_instances_are_one_too_many() {
    let processors = Processor::both();
    let urls = addresses(&processors).map(|address| format!("http://{address}"));
    let instances = pair(addresses(&processors), &[]);
    let peer = format!("http://{}", instances[0].peer_door);
    let args = ["serve", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"];
    let twin = ["--instance", "1", "--peer", &peer, "--peer-token", crate::support::system::TOKEN];
    let urls = ["--default-url", &urls[0], "--fallback-url", &urls[1]];
    let mut twin = crate::support::Galo::start([&args[..], &twin, &urls].concat());
    let (status, stderr) = twin.wait();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--instance"), "{stderr}");
}

/// Stopped for longer than `--adopt-after`, a home does not know that it was away: its own queue, and
/// offers that waited in its sockets, were paid at both processors.
#[test]
fn a_home_that_stood_still_pays_nothing_that_was_driven_in_its_place() {
    let mut processors = Processor::both();
    let instances = pair(addresses(&processors), &[&QUICK[..], &["--adopt-after", "4s"]].concat());
    processors.iter_mut().for_each(|processor| processor.set_failing(true));
    let mut accepted = pay_all(&instances[1..], 1..2);
    // By now a quarter of a second passes between two attempts: none is half-way into the kernel.
    wait_until("it has tried", || instances[1].metric("galo_attempts_repeated_total") >= 8);
    instances[1].galo.freeze();
    accepted.extend(pay_all(&instances[..1], 0..8));
    assert_eq!(instances[0].outstanding(), 8);
    processors[0].set_failing(false);
    wait_until("all of them are driven from here", || instances[0].outstanding() == 0);
    processors[0].set_failing(true);
    processors[1].set_failing(false);
    instances[1].galo.thaw();
    wait_until("it has asked what it missed", || instances[1].get("/healthz").status == 200);
    accepted.extend(pay_all(&instances[1..], 8..12));
    let books = assert_books_balance(&accepted, &mut processors, &instances);
    assert_eq!(books[0].len(), 8);
}

/// The same for offers that waited in its sockets while it stood still: it would take them for new,
/// and its view of the processors is that of before.
#[test]
fn a_home_that_stood_still_takes_no_offer_from_before() {
    let mut processors = Processor::both();
    let instances = pair(addresses(&processors), &[&QUICK[..], &["--adopt-after", "4s"]].concat());
    instances[1].galo.freeze();
    let accepted = pay_all(&instances[..1], 0..8);
    wait_until("all of them are driven from here", || instances[0].outstanding() == 0);
    processors[0].set_failing(true);
    instances[1].galo.thaw();
    wait_until("it has asked what it missed", || instances[1].get("/healthz").status == 200);
    let books = assert_books_balance(&accepted, &mut processors, &instances);
    assert_eq!(books[0].len(), 8);
}
