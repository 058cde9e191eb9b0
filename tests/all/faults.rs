//! What the processors do wrong, one fault a test, on the real binaries: whatever it is, every
//! accepted payment ends in the books of exactly one processor, under an amount and a time that the
//! summary knows, and no payment is lost in doubt.

use crate::support::system::{
    Instance, Processor, QUICK, TOKEN, addresses, assert_books_balance, free_address, id, pair,
    payment,
};
use crate::support::wait_until;
use std::collections::HashMap;

/// Two processors, two instances with short time-outs, and what these have accepted.
struct Scene {
    processors: [Processor; 2],
    instances: [Instance; 2],
    accepted: HashMap<String, i128>,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(Processor::both())
    }

    fn of(processors: [Processor; 2]) -> Scene {
        let instances = pair(addresses(&processors), &QUICK);
        Scene { processors, instances, accepted: HashMap::new() }
    }

    /// Sends so many payments of different amounts, in turn to each instance.
    fn pay(&mut self, count: u64) {
        pay_at(&self.instances, count, &mut self.accepted);
    }

    fn both(&mut self, change: impl Fn(&mut Processor)) {
        self.processors.iter_mut().for_each(change);
    }

    /// Sum of a metric over the instances.
    fn metric(&self, series: &str) -> u64 {
        self.instances.iter().map(|instance| instance.metric(series)).sum()
    }

    /// The books balance. Returns how many payments each processor holds.
    fn end(mut self) -> [usize; 2] {
        let books = assert_books_balance(&self.accepted, &mut self.processors, &self.instances);
        for instance in &self.instances {
            for series in ["galo_waiting", "galo_in_doubt", "galo_in_flight", "galo_foreign_total"]
            {
                assert_eq!(instance.metric(series), 0, "{series}\n{}", instance.galo.stderr());
            }
        }
        books.map(|rows| rows.len())
    }
}

fn pay_at(instances: &[Instance], count: u64, accepted: &mut HashMap<String, i128>) {
    let mut clients: Vec<_> = instances.iter().map(Instance::client).collect();
    for _ in 0..count {
        let number = accepted.len() as u64;
        let cents = i128::from(number) * 37 + 1;
        let amount = crate::support::system::decimal(cents);
        let client = &mut clients[number as usize % instances.len()];
        assert_eq!(client.call(payment(&id(number), &amount)).status, 202);
        accepted.insert(id(number), cents);
    }
}

/// The fault strikes the next `count` payments at one processor, or at both, while 60 are sent.
fn survives(fault: &str, count: u32) {
    for at_both in [false, true] {
        let mut scene = Scene::new();
        scene.pay(4);
        scene.processors[0].set_fault(fault, count);
        if at_both {
            scene.processors[1].set_fault(fault, count);
        }
        scene.pay(60);
        let held = scene.end();
        assert!(held[0] > 0, "the default processor was used: {held:?}");
    }
}

#[test]
fn answers_lost_after_the_insert() {
    survives("hang-after-insert", 5);
}

#[test]
fn no_answer_and_no_insert() {
    survives("stall", 5);
}

#[test]
fn connections_reset_before_the_insert() {
    survives("reset-before-insert", 10);
}

#[test]
fn connections_reset_after_the_insert() {
    survives("reset-after-insert", 10);
}

#[test]
fn connections_reset_and_the_insert_comes_late() {
    survives("insert-late", 10);
}

#[test]
fn connections_closed_after_each_answer() {
    survives("close-after-answer", 30);
}

#[test]
fn errors_of_the_database_after_the_insert() {
    survives("status-500-body-inserted", 10);
}

#[test]
fn errors_of_the_database_without_the_insert() {
    survives("status-500-body", 10);
}

/// It asks for a pause of five seconds, which is more than patience: the other one takes it all.
#[test]
fn too_many_requests() {
    let mut scene = Scene::new();
    scene.processors[0].set_fault("status-429", 0);
    scene.pay(60);
    scene.instances.iter().for_each(Instance::settle);
    assert_eq!(scene.processors[0].books(), []);
    scene.both(|processor| processor.set_fault("none", 0));
    assert_eq!(scene.end(), [0, 60]);
}

#[test]
fn too_many_requests_for_both() {
    let mut scene = Scene::new();
    scene.both(|processor| processor.set_fault("status-429", 3));
    scene.pay(60);
    scene.end();
}

#[test]
fn a_failing_processor_is_left_alone_and_tried_again() {
    let mut scene = Scene::new();
    scene.processors[0].set_failing(true);
    scene.pay(60);
    scene.instances.iter().for_each(Instance::settle);
    assert_eq!(scene.processors[0].books(), []);
    scene.processors[0].set_failing(false);
    wait_until("it is used again", || {
        scene.pay(1);
        !scene.processors[0].books().is_empty()
    });
    scene.end();
}

#[test]
fn both_failing_for_a_while() {
    let mut scene = Scene::new();
    scene.both(|processor| processor.set_failing(true));
    scene.pay(100);
    wait_until("they were tried", || scene.metric("galo_attempts_repeated_total") > 20);
    assert_eq!(scene.metric("galo_outstanding"), 100);
    scene.both(|processor| processor.set_failing(false));
    scene.end();
}

/// Slower than the time-out: every answer is lost to us, and yet each payment is booked.
#[test]
fn both_slower_than_the_time_out_for_a_while() {
    let mut scene = Scene::new();
    scene.both(|processor| processor.set_delay_ms(700));
    scene.pay(20);
    wait_until("answers are missed", || scene.metric("galo_attempts_repeated_total") > 5);
    scene.both(|processor| processor.set_delay_ms(0));
    scene.pay(20);
    scene.end();
}

#[test]
fn a_slow_processor_is_left_for_the_other() {
    let mut scene = Scene::new();
    scene.processors[0].set_delay_ms(250);
    scene.pay(10);
    scene.instances.iter().for_each(Instance::settle);
    scene.pay(60);
    let [default, fallback] = scene.end();
    assert!(fallback >= 58, "but for a probe each: {default} {fallback}");
}

#[test]
fn a_processor_that_freezes_in_the_middle_of_it() {
    let mut scene = Scene::new();
    scene.pay(10);
    scene.both(|processor| processor.set_delay_ms(30));
    scene.pay(20);
    scene.processors[0].galo.freeze();
    scene.pay(20);
    wait_until("some are in doubt", || scene.metric("galo_in_doubt") > 0);
    scene.processors[0].galo.thaw();
    scene.end();
}

#[test]
fn both_freeze_in_the_middle_of_it() {
    let mut scene = Scene::new();
    scene.both(|processor| processor.set_delay_ms(30));
    scene.pay(20);
    scene.both(|processor| processor.galo.freeze());
    scene.pay(20);
    wait_until("some are in doubt", || scene.metric("galo_in_doubt") > 0);
    scene.both(|processor| processor.galo.thaw());
    scene.end();
}

#[test]
fn a_processor_that_is_not_there_yet() {
    let (missing, other) = (free_address(), Processor::start());
    let instances = pair([missing, other.address], &QUICK);
    let mut accepted = HashMap::new();
    pay_at(&instances, 30, &mut accepted);
    instances.iter().for_each(Instance::settle);
    let mut processors = [Processor::at(missing), other];
    wait_until("it is used", || {
        pay_at(&instances, 1, &mut accepted);
        !processors[0].books().is_empty()
    });
    assert_books_balance(&accepted, &mut processors, &instances);
}

#[test]
fn both_are_not_there_yet() {
    let missing = [free_address(), free_address()];
    let instances = pair(missing, &QUICK);
    let mut accepted = HashMap::new();
    pay_at(&instances, 100, &mut accepted);
    wait_until("they were tried", || {
        instances.iter().all(|instance| instance.metric("galo_attempts_repeated_total") > 3)
    });
    let mut processors = missing.map(Processor::at);
    assert_books_balance(&accepted, &mut processors, &instances);
}

/// An instance that is frozen while its answers come in: to its clock they are all late, but they
/// are answers.
#[test]
fn an_instance_that_freezes_with_payments_in_flight() {
    let mut scene = Scene::new();
    scene.both(|processor| processor.set_delay_ms(50));
    scene.pay(40);
    scene.instances[0].galo.freeze();
    wait_until("its payments were booked or are still held back", || {
        scene.processors[0].counters().contains(r#""running":0"#)
    });
    scene.instances[0].galo.thaw();
    scene.end();
}

/// The engine asserted a bound on its connections that did not count probes: one that hangs is
/// followed by another, and each holds its connection until the time-out. With enough of them the
/// assertion ended the process, and with it everything it had accepted.
#[test]
fn probes_that_hang_do_not_end_the_process() {
    const HANGING: u64 = 20; // more than the window of 1 and the 16 looks
    let mut processors = Processor::both();
    let flags = ["--processor-concurrency", "1", "--processor-timeout", "4s"];
    let flags = [&flags[..], &["--attempt-latency-max", "50ms", "--patience", "0s"]].concat();
    let mut instance = Instance::start(addresses(&processors), &flags);
    processors.iter_mut().for_each(|processor| processor.set_fault("stall", 0));
    let mut accepted = HashMap::new();
    pay_at(std::slice::from_ref(&instance), 60, &mut accepted);
    // A health answer that says "up" has a probe sent at once, where time would take a second.
    let up = r#"{"processor":"default","failing":false,"response_min_ms":0}"#;
    wait_until("many probes hang", || {
        assert_eq!(instance.at_peer_door("POST", "/peer/health", TOKEN, up).status, 200);
        instance.metric("galo_in_flight") >= HANGING || !instance.galo.is_running()
    });
    assert!(instance.galo.is_running(), "{}", instance.galo.stderr());
    processors.iter_mut().for_each(|processor| processor.set_fault("none", 0));
    assert_books_balance(&accepted, &mut processors, &[instance]);
}
