//! One instance that is killed and started again on its journal: what it had promised is kept, once
//! each, whatever was waiting, in flight or in doubt at that moment.

use crate::support::journals::{Scratch, journal, open_attempts};
use crate::support::system::{
    Instance, Processor, QUICK, Random, Summary, addresses, assert_books_balance,
    assert_windows_agree, decimal, free_address, id, pair_with, payment,
};
use crate::support::{request, wait_until};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

const DURABILITIES: [&str; 2] = ["process", "disk"];

/// Two processors, one instance with a journal, and what it has accepted.
struct Scene {
    processors: [Processor; 2],
    instance: Instance,
    accepted: HashMap<String, i128>,
    data: String,
    _scratch: Scratch,
}

impl Scene {
    fn new(durability: &str, args: &[&str]) -> Scene {
        let scratch = Scratch::new();
        let data = scratch.join("journal");
        let processors = Processor::both();
        let journal = ["--data", &data, "--durability", durability, "--queue-capacity", "10000"];
        let flags = [&QUICK[..], &journal, args].concat();
        let instance = Instance::start(addresses(&processors), &flags);
        Scene { processors, instance, accepted: HashMap::new(), data, _scratch: scratch }
    }

    fn both(&mut self, change: impl Fn(&mut Processor)) {
        self.processors.iter_mut().for_each(change);
    }

    /// Sends so many payments of different amounts.
    fn pay(&mut self, count: u64) {
        let mut client = self.instance.client();
        for _ in 0..count {
            let number = self.accepted.len() as u64;
            let cents = i128::from(number) * 37 + 1;
            let answer = client.call(payment(&id(number), &decimal(cents)));
            assert_eq!(answer.status, 202, "{answer:?}");
            self.accepted.insert(id(number), cents);
        }
    }

    /// Each payment again, and once with another amount.
    fn repeat(&self) {
        let mut client = self.instance.client();
        for (id, cents) in &self.accepted {
            assert_eq!(client.call(payment(id, &decimal(*cents))).status, 202);
            assert_eq!(client.call(payment(id, &decimal(cents + 1))).status, 422);
        }
    }

    /// Killed, it leaves a journal that is sound.
    fn kill_and_check(&mut self) {
        self.instance.kill();
        let checked = journal("check", &self.data);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    }

    /// Everything is at peace, and the books balance as a whole and by windows.
    fn end(&mut self) {
        self.both(|processor| {
            processor.set_failing(false);
            processor.set_fault("none", 0);
            processor.set_delay_ms(0);
        });
        let instances = std::slice::from_ref(&self.instance);
        let books = assert_books_balance(&self.accepted, &mut self.processors, instances);
        assert_windows_agree(&mut Random(7), 10, &books, instances);
    }
}

#[test]
fn what_waits_and_what_is_settled_outlives_kills() {
    for durability in DURABILITIES {
        let mut scene = Scene::new(durability, &[]);
        scene.pay(30);
        scene.instance.settle();
        for _ in 0..3 {
            let settled = scene.instance.summary("");
            scene.both(|processor| processor.set_failing(true));
            scene.pay(20);
            scene.instance.kill();
            scene.instance.start_again();
            assert_eq!(scene.instance.summary(""), settled, "exactly as before");
            assert_eq!(scene.instance.outstanding(), 20);
            scene.repeat();
            assert_eq!(scene.instance.outstanding(), 20, "known, not new");
            scene.end();
        }
        scene.repeat();
        scene.end();
        // With nothing left to do a kill changes nothing either.
        scene.kill_and_check();
        scene.instance.start_again();
        assert_eq!(scene.instance.outstanding(), 0);
        scene.end();
    }
}

/// What waits was never at a processor that is gone for good, and does not wait for that one to say so.
#[test]
fn a_processor_that_is_gone_holds_nothing_up_after_a_restart() {
    for durability in DURABILITIES {
        let (scratch, mut default) = (Scratch::new(), Processor::start());
        let data = scratch.join("journal");
        let flags = [&QUICK[..], &["--data", &data, "--durability", durability]].concat();
        let mut instance = Instance::start([default.address, free_address()], &flags);
        default.set_failing(true);
        for number in 0..20 {
            assert_eq!(instance.pay(&id(number), "1.00").status, 202);
        }
        // In order, so that nothing is in doubt at the one that is gone.
        instance.galo.signal(crate::support::system::SIGTERM);
        instance.start_again();
        assert_eq!(instance.outstanding(), 20);
        default.set_failing(false);
        instance.settle();
        assert_eq!(instance.summary("").count(), 20);
        assert_eq!(default.books().len(), 20);
    }
}

/// The fault strikes while `count` payments are sent; then the instance is killed. Those whose
/// attempts were open stay at their processors, under their times.
fn survives(fault: &str, delay_ms: u64) {
    for durability in DURABILITIES {
        let mut scene = Scene::new(durability, &[]);
        scene.pay(4);
        scene.instance.settle();
        scene.both(|processor| {
            processor.set_delay_ms(delay_ms);
            processor.set_fault(fault, 0);
        });
        scene.pay(40);
        let attempted = || {
            ["galo_in_flight", "galo_in_doubt"].map(|name| scene.instance.metric(name)) != [0, 0]
        };
        wait_until("attempts are open", attempted);
        scene.instance.kill();
        let open = open_attempts(&scene.data);
        assert!(!open.is_empty(), "{fault}: something was under way");
        scene.both(|processor| {
            processor.set_delay_ms(0);
            processor.set_fault("none", 0);
        });
        scene.instance.start_again();
        scene.repeat();
        scene.end();
        for (id, (processor, at_ms)) in open {
            let books = scene.processors[processor].books();
            let held = books.iter().find(|row| row.id == id);
            assert_eq!(held.map(|row| row.at_ms), Some(at_ms), "{fault}: {id}\n{books:?}");
        }
        assert_eq!(scene.instance.metric("galo_foreign_total"), 0);
    }
}

#[test]
fn killed_while_answers_are_lost_after_the_insert() {
    survives("hang-after-insert", 0);
}

#[test]
fn killed_while_inserts_come_late() {
    survives("insert-late", 0);
}

#[test]
fn killed_while_nothing_is_inserted_nor_answered() {
    survives("stall", 0);
}

#[test]
fn killed_while_connections_are_reset_after_the_insert() {
    survives("reset-after-insert", 0);
}

#[test]
fn killed_while_answers_take_their_time() {
    survives("none", 150);
}

/// It never comes to rest in between: each time it is killed with attempts open, some of them for
/// the third time.
#[test]
fn killed_again_while_what_the_last_one_left_is_asked_about() {
    let mut scene = Scene::new("process", &[]);
    scene.both(|processor| processor.set_fault("hang-after-insert", 0));
    let mut open = HashMap::new();
    for round in 0..5 {
        scene.both(|processor| processor.set_delay_ms(round * 20));
        scene.pay(10);
        wait_until("attempts are open", || {
            scene.instance.metric("galo_in_flight") + scene.instance.metric("galo_in_doubt") > 0
        });
        scene.instance.kill();
        open.extend(open_attempts(&scene.data));
        scene.instance.start_again();
    }
    scene.end();
    for (id, (processor, at_ms)) in open {
        let books = scene.processors[processor].books();
        let held = books.iter().find(|row| row.id == id).map(|row| row.at_ms);
        assert_eq!(held, Some(at_ms), "{id}\n{books:?}");
    }
}

/// What the dead one was paying when it died is booked, and no total leaves it out: neither its own
/// nor the other's, who asks it. Not even in the first moment, and while a process of its number has
/// greeted so lately that it waits before it serves.
#[test]
fn no_total_leaves_out_what_the_dead_process_had_paid() {
    let scratch = Scratch::new();
    let mut processors = Processor::both();
    let data = [1, 2].map(|number| scratch.join(&format!("journal-{number}")));
    let flags = data.each_ref().map(|data| [&QUICK[..], &["--data", data.as_str()]].concat());
    let [mut first, second] =
        pair_with(addresses(&processors), flags.each_ref().map(Vec::as_slice));
    processors.iter_mut().for_each(|processor| processor.set_fault("hang-after-insert", 100));
    let mut client = first.client();
    for number in 0..20 {
        // Even numbers are the first one's own.
        assert_eq!(client.call(payment(&id(2 * number), "1.00")).status, 202);
    }
    wait_until("all are booked", || {
        processors.iter_mut().map(|processor| processor.books().len()).sum::<usize>() == 20
    });
    first.kill();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut told = 0;
            while !ends.load(Ordering::Relaxed) {
                let answer = second.get("/payments-summary");
                match answer.status {
                    200 => assert_eq!(Summary::read(&answer.body).count(), 20, "{answer:?}"),
                    503 => continue,
                    _ => panic!("{answer:?}"),
                }
                told += 1;
            }
            told
        });
        first.start_again();
        assert_eq!(first.summary("").count(), 20);
        wait_until("the other one knows as well", || second.get("/payments-summary").status == 200);
        ends.store(true, Ordering::Relaxed);
        asks.join().unwrap();
    });
}

#[test]
fn a_stop_in_order_leaves_nothing_to_ask_about() {
    for durability in DURABILITIES {
        let mut scene = Scene::new(durability, &[]);
        scene.both(|processor| processor.set_delay_ms(20));
        scene.pay(30);
        scene.instance.galo.signal(crate::support::system::SIGTERM);
        let (code, stderr) = scene.instance.galo.wait_for_end();
        assert_eq!(code, Some(0), "{stderr}");
        let open = open_attempts(&scene.data);
        assert!(open.is_empty(), "settled, and not written down: {open:?}");
        scene.instance.start_again();
        scene.repeat();
        scene.end();
    }
}

#[test]
fn what_was_purged_stays_away() {
    for durability in DURABILITIES {
        let mut scene = Scene::new(durability, &["--allow-purge"]);
        for _ in 0..3 {
            scene.pay(20);
            scene.instance.settle();
            scene.both(|processor| processor.set_failing(true));
            scene.pay(20);
            let answer = scene.instance.client().call(request("POST", "/purge-payments", "", ""));
            // Nothing may lie between the answer and the kill: it has promised.
            scene.instance.kill();
            assert_eq!(answer.status, 200, "{answer:?}");
            scene.both(|processor| {
                processor.admin("POST", "/admin/purge-payments", "");
                processor.set_failing(false);
            });
            scene.instance.start_again();
            assert_eq!(scene.instance.outstanding(), 0);
            assert_eq!(scene.instance.summary(""), Summary::default());
            scene.accepted.clear();
            scene.pay(10);
            scene.end();
        }
    }
}
