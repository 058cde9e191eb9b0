//! Payments of an instance that was away, driven by the other one, when either is killed and
//! started again on its journal: each is paid once and counted once all the same.

use crate::support::journals::{Line, Scratch, open_attempts, records};
use crate::support::system::{
    Instance, Processor, QUICK, addresses, assert_books_balance, id, pair_with, see_each_other,
};
use crate::support::wait_until;
use std::collections::HashMap;

/// The payment of these tests: its home is the second instance.
const GUEST: u64 = 1;

struct Scene {
    processors: [Processor; 2],
    instances: [Instance; 2],
    data: [String; 2],
    _scratch: Scratch,
}

impl Scene {
    fn new() -> Scene {
        let scratch = Scratch::new();
        let data = ["first", "second"].map(|name| scratch.join(name));
        let processors = Processor::both();
        let args = data.each_ref().map(|data| {
            let own = ["--data", data, "--adopt-after", "300ms", "--queue-capacity", "10000"];
            [&QUICK[..], &own].concat()
        });
        let instances = pair_with(addresses(&processors), args.each_ref().map(Vec::as_slice));
        Scene { processors, instances, data, _scratch: scratch }
    }

    fn pay(&self, instance: usize) {
        let answer = self.instances[instance].pay(&id(GUEST), "1.50");
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// The cheaper processor fails, and the dearer one does not: whoever drives a payment of its own
    /// now pays it where the other instance did not.
    fn swap_failing(&mut self) {
        self.processors[0].set_failing(true);
        self.processors[1].set_failing(false);
    }

    fn see_each_other(&self) {
        see_each_other(&self.instances);
    }

    /// Whoever is asked for it again knows it, and it is paid once and counted once.
    fn end(mut self) {
        self.processors.iter_mut().for_each(|processor| {
            processor.set_failing(false);
            processor.set_fault("none", 0);
        });
        self.see_each_other();
        let accepted = HashMap::from([(id(GUEST), 150)]);
        for _ in 0..2 {
            self.instances.iter().for_each(Instance::settle);
            assert_books_balance(&accepted, &mut self.processors, &self.instances);
            (0..2).for_each(|instance| self.pay(instance));
        }
    }
}

/// It had been told to its home as ours, and then offered to it as its own: the home took that for
/// a repetition, so that nobody drove it any more.
#[test]
fn an_adopted_payment_that_waits_outlives_its_driver() {
    let mut scene = Scene::new();
    scene.processors.iter_mut().for_each(|processor| processor.set_failing(true));
    scene.instances[1].kill();
    scene.pay(0);
    wait_until("it is driven", || scene.instances[0].metric("galo_attempts_repeated_total") > 0);
    scene.instances[1].start_again();
    scene.see_each_other();
    scene.instances[0].kill();
    scene.instances[0].start_again();
    scene.end();
}

/// Both had accepted it. The one that drove it forgot to say so after it was started again, and its
/// home paid it a second time, at the other processor.
#[test]
fn a_payment_settled_in_the_place_of_its_home_is_not_paid_there_again() {
    let mut scene = Scene::new();
    scene.processors.iter_mut().for_each(|processor| processor.set_failing(true));
    scene.pay(1);
    scene.instances[1].kill();
    scene.processors[0].set_failing(false);
    scene.pay(0);
    scene.instances[0].settle();
    scene.instances[0].kill();
    scene.instances[0].start_again();
    scene.swap_failing();
    scene.instances[1].start_again();
    scene.end();
}

/// Both have promised it, with two amounts. One can be paid under its id, and people are told.
#[test]
fn a_payment_that_its_home_knows_with_another_amount_is_an_alarm() {
    let mut scene = Scene::new();
    scene.processors.iter_mut().for_each(|processor| processor.set_failing(true));
    scene.pay(1);
    scene.instances[1].kill();
    scene.processors[0].set_failing(false);
    let answer = scene.instances[0].pay(&id(GUEST), "2.50");
    assert_eq!(answer.status, 202, "{answer:?}");
    scene.instances[0].settle();
    scene.instances[1].start_again();
    scene.see_each_other();
    assert_eq!(scene.instances[1].metric("galo_conflicts_total"), 1);
    scene.instances[1].settle();
    let accepted = HashMap::from([(id(GUEST), 250)]);
    assert_books_balance(&accepted, &mut scene.processors, &scene.instances);
}

/// Likewise, but its home had no part in it before.
#[test]
fn a_home_that_never_heard_of_a_payment_learns_it_from_one_that_was_killed() {
    let mut scene = Scene::new();
    scene.instances[1].kill();
    scene.pay(0);
    scene.instances[0].settle();
    scene.instances[0].kill();
    scene.swap_failing();
    scene.instances[0].start_again();
    scene.instances[1].start_again();
    scene.see_each_other();
    scene.pay(1);
    scene.end();
}

/// It is told again after each start, until that is written down: both know for good then whose it
/// was.
#[test]
fn a_payment_that_is_over_and_told_is_known_after_both_were_killed() {
    let mut scene = Scene::new();
    scene.instances[1].kill();
    scene.pay(0);
    scene.instances[0].settle();
    scene.instances[0].kill();
    scene.instances[0].start_again();
    let is_told = |line: &Line| line.words == ["Told", &id(GUEST)];
    assert!(!records(&scene.data[0]).iter().any(is_told), "nobody was there to be told");
    scene.instances[1].start_again();
    wait_until("it is told", || records(&scene.data[0]).iter().any(is_told));
    (0..2).for_each(|instance| scene.instances[instance].kill());
    scene.swap_failing();
    (0..2).for_each(|instance| scene.instances[instance].start_again());
    scene.see_each_other();
    (0..2).rev().for_each(|instance| scene.pay(instance));
    scene.end();
}

/// Its home was killed with an attempt open that had never arrived, and asked about it when the
/// other one had paid it there: both counted the same booking.
#[test]
fn a_booking_of_the_other_instance_is_not_counted_by_the_home_as_well() {
    let mut scene = Scene::new();
    scene.processors[0].set_fault("stall", 0);
    scene.pay(1);
    wait_until("it was attempted", || !open_attempts(&scene.data[1]).is_empty());
    scene.instances[1].kill();
    scene.processors[0].set_fault("none", 0);
    scene.pay(0);
    scene.instances[0].settle();
    scene.instances[1].start_again();
    scene.end();
}

/// The same, but its attempt was at the dearer processor, and the other instance had paid it at the
/// cheaper one: the home must not send it again when it hears that it never arrived.
#[test]
fn an_open_attempt_that_never_arrived_is_not_repeated_for_what_the_other_instance_paid() {
    let mut scene = Scene::new();
    scene.processors[0].set_failing(true);
    scene.processors[1].set_fault("stall", 0);
    scene.pay(1);
    wait_until("it was attempted", || {
        open_attempts(&scene.data[1]).values().any(|(processor, _)| *processor == 1)
    });
    scene.instances[1].kill();
    scene.processors[1].set_fault("none", 0);
    scene.processors[0].set_failing(false);
    scene.pay(0);
    scene.instances[0].settle();
    scene.instances[1].start_again();
    scene.end();
}
