//! What processors may answer, on the real binaries: anything at all. Nothing is paid twice and
//! nothing is stuck, and what one payment meets holds no other one up.

use crate::support::system::{
    Instance, Processor, addresses, assert_books_balance, decimal, payment,
};
use crate::support::wait_until;
use std::collections::HashMap;

/// An id of a kind that the scripts know by its beginning.
fn id_of(kind: &str, number: u64) -> String {
    format!("{kind}-7d26-4d9d-aa19-{number:012x}")
}

struct Scene {
    processors: [Processor; 2],
    instance: Instance,
    accepted: HashMap<String, i128>,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(&[])
    }

    fn with(args: &[&str]) -> Scene {
        let processors = Processor::both();
        let instance = Instance::start(addresses(&processors), args);
        Scene { processors, instance, accepted: HashMap::new() }
    }

    fn pay(&mut self, id: String) {
        let cents = 100 + self.accepted.len() as i128;
        let answer = self.instance.client().call(payment(&id, &decimal(cents)));
        assert_eq!(answer.status, 202);
        self.accepted.insert(id, cents);
    }

    fn holds(&mut self, index: usize) -> Vec<String> {
        self.processors[index].books().into_iter().map(|row| row.id).collect()
    }
}

/// Fifty payments that no processor will ever take stopped all others, and took both processors
/// down.
#[test]
fn what_both_processors_refuse_holds_nothing_up() {
    const POISON: u64 = 50;
    const GOOD: u64 = 200;
    let mut scene = Scene::new();
    for processor in &mut scene.processors {
        processor.set_script(r#"{"call":"pay","ids":"0badf00d","status":400,"body":"no"}"#);
    }
    (0..POISON).for_each(|number| scene.pay(id_of("0badf00d", number)));
    let again = |scene: &Scene| scene.instance.metric("galo_attempts_repeated_total");
    wait_until("they are refused", || again(&scene) >= POISON);
    scene.accepted.clear();
    (0..GOOD).for_each(|number| scene.pay(id_of("600df00d", number)));
    wait_until("the good ones are paid", || scene.instance.summary("").count() == GOOD);
    let over = scene.instance.metric("galo_rejected_total");
    assert_eq!(scene.instance.outstanding() + over, POISON);
    // A refusal is about a payment, and says nothing about a processor.
    let told = scene.instance.galo.stderr();
    assert!(!told.contains("is down: failing"), "{told}");
    assert_eq!(scene.holds(0).len() + scene.holds(1).len(), GOOD as usize);
}

/// Every payment meets another answer the first time it is sent. However odd it is, and whether the
/// payment was booked or not, it is booked once: where it was sent, unless it was refused for good.
#[test]
fn odd_answers_are_looked_into() {
    let cases: [(&str, bool, bool); 22] = [
        // what is answered, whether it may be booked, whether it is a refusal
        (r#""status":200,"body":"<html>please log in</html>""#, true, false),
        (r#""status":200,"body":"{\"message\":\"ok\"}","cutAt":60"#, true, false),
        (r#""status":200,"body":"x","bodyTimes":3000000"#, true, false),
        (r#""status":201,"body":"{\"message\":\"ok\"}""#, true, false),
        (r#""status":202"#, true, false),
        (r#""status":204"#, true, false),
        (r#""status":302,"headers":{"Location":"/"}"#, true, false),
        (r#""status":303"#, true, false),
        (r#""status":408"#, true, false),
        (r#""status":409,"body":"{}""#, true, false),
        (r#""status":425"#, true, false),
        (r#""status":499"#, true, false),
        (r#""status":500,"body":"{}""#, true, false),
        (r#""status":500,"headers":{"Connection":"close"}"#, true, false),
        (r#""status":502"#, true, false),
        (r#""status":600"#, true, false),
        (r#""status":150"#, true, false),
        (r#""delayMs":1"#, true, false),
        (r#""status":200,"headers":{"Content-Length":"-1"}"#, true, false),
        (r#""status":400"#, true, true),
        (r#""status":404,"body":"<html>""#, true, true),
        (r#""status":429,"headers":{"Retry-After":"0"}"#, false, false),
    ];
    // So many odd answers take a processor down at times; all payments wait for it.
    let mut scene = Scene::with(&["--patience", "20s"]);
    let mut refused = Vec::new();
    for (number, (answer, may_be_booked, is_refusal)) in (0..).zip(cases) {
        let mut rules = Vec::new();
        for booked in [false, true] {
            let id = id_of("0ddba115", number * 2 + u64::from(booked));
            let books = booked && may_be_booked;
            rules.push(format!(
                r#"{{"call":"pay","count":1,"ids":"{id}","booked":{books},{answer}}}"#
            ));
            if is_refusal && !books {
                refused.push(id);
            }
        }
        scene.processors[0].set_script(&rules.join(","));
        [0, 1].into_iter().for_each(|it| scene.pay(id_of("0ddba115", number * 2 + it)));
        wait_until("both are settled or refused", || {
            scene.instance.outstanding() <= refused.len() as u64
        });
    }
    let Scene { accepted, mut processors, instance } = scene;
    let [default, fallback] = assert_books_balance(&accepted, &mut processors, &[instance]);
    let mut at_fallback: Vec<String> = fallback.into_iter().map(|row| row.id).collect();
    at_fallback.sort();
    refused.sort();
    assert_eq!(at_fallback, refused);
    assert_eq!(default.len() + refused.len(), accepted.len());
}

/// 422 is what a processor says that holds the id. One that means something else by it was asked
/// and sent the payment in turn, as fast as it answered, for ever.
#[test]
fn a_422_that_means_something_else_is_a_refusal_in_the_end() {
    let mut scene = Scene::new();
    scene.processors[0].set_script(r#"{"call":"pay","status":422,"body":"above the limit"}"#);
    scene.pay(id_of("0badf00d", 1));
    wait_until("the other processor takes it", || scene.holds(1).len() == 1);
    assert_eq!(scene.instance.metric("galo_attempts_repeated_total"), 5, "asked four times");
    let Scene { accepted, mut processors, instance } = scene;
    assert_books_balance(&accepted, &mut processors, &[instance]);
}

/// The knowledge that a processor claims to hold an id was lost when it would not answer the
/// question that comes next, and the payment went to the other one.
#[test]
fn a_422_is_remembered_while_the_question_is_not_answered() {
    let mut scene = Scene::new();
    let id = id_of("0ddba115", 1);
    let rules = r#"{"call":"pay","booked":true,"count":1,"status":422},
        {"call":"look","count":1,"status":429,"headers":{"Retry-After":"1"}},
        {"call":"look","count":1,"status":503}"#;
    scene.processors[0].set_script(rules);
    scene.pay(id.clone());
    let Scene { accepted, mut processors, instance } = scene;
    let [default, _] = assert_books_balance(&accepted, &mut processors, &[instance]);
    assert_eq!(default[0].id, id);
}

/// It was counted with our amount, whatever the processor held.
#[test]
fn a_booking_under_another_amount_is_an_alarm_and_ends_the_payment() {
    let mut scene = Scene::new();
    let id = id_of("0ddba115", 1);
    let booked = format!(
        r#"{{\"correlationId\":\"{id}\",\"amount\":5.0,\"requestedAt\":\"2999-01-01T00:00:00\"}}"#
    );
    let rules = format!(
        r#"{{"call":"pay","status":422}},{{"call":"look","status":200,"body":"{booked}"}}"#
    );
    scene.processors[0].set_script(&rules);
    scene.pay(id.clone());
    wait_until("it is over", || scene.instance.metric("galo_rejected_total") == 1);
    assert_eq!(scene.instance.outstanding(), 0);
    assert_eq!(scene.instance.summary("").count(), 0);
    assert_eq!([scene.holds(0).len(), scene.holds(1).len()], [0, 0]);
    let told = format!("payment {id} over 1.00 is rejected: default holds it under another amount");
    assert!(scene.instance.galo.stderr().contains(&told), "{}", scene.instance.galo.stderr());
}
