//! An operator resolves by hand what galo cannot, at the admin door of the real binary: what was
//! answered with 200 outlives a kill, and what was refused has changed nothing.

use crate::support::journals::Scratch;
use crate::support::system::{
    Instance, Processor, addresses, free_address, id, pair_with, see_each_other,
};
use crate::support::{Answer, Client, request, wait_until};
use galo::base::clock::Timestamp;
use galo::base::money::Cents;
use galo::journal::{Durability, Journal, Options};
use galo::payments::event::Event;
use galo::payments::{PaymentId, Rejection};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const TOKEN: &str = "correct-horse";

/// An admin door, and where its token is.
struct Admin {
    address: SocketAddr,
    token_file: String,
}

impl Admin {
    fn new(scratch: &Scratch, name: &str) -> Admin {
        let token_file = scratch.join(name);
        std::fs::write(&token_file, TOKEN).unwrap();
        Admin { address: free_address(), token_file }
    }

    fn args<'a>(&'a self, address: &'a str, data: &'a str) -> Vec<&'a str> {
        let token_file = &self.token_file[..];
        vec!["--admin-listen", address, "--admin-token-file", token_file, "--data", data]
    }

    fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        let header = format!("Authorization: Bearer {TOKEN}\r\n");
        Client::connect(self.address).call(request(method, target, &header, body))
    }

    fn resolve(&self, id: &str, body: &Value) -> Answer {
        self.call("POST", &format!("/payments/{id}/resolution"), &body.to_string())
    }

    fn resolved(&self, id: &str, body: &Value) -> Value {
        let answer = self.resolve(id, body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Refused, for this reason.
    fn assert_refused(&self, id: &str, body: &Value, named: &str) {
        let answer = self.resolve(id, body);
        assert_eq!(answer.status, 409, "{body}: {answer:?}");
        assert!(answer.body.contains(named), "{body}: {answer:?}");
    }

    fn story(&self, id: &str) -> Value {
        let answer = self.call("GET", &format!("/payments/{id}"), "");
        serde_json::from_str(&answer.body).unwrap()
    }

    fn state(&self, id: &str) -> String {
        self.story(id)["state"].as_str().unwrap_or_default().into()
    }

    fn listed(&self, state: &str) -> Vec<String> {
        let answer = self.call("GET", &format!("/payments?state={state}"), "");
        let page: Value = serde_json::from_str(&answer.body).unwrap();
        let payments = page["payments"].as_array().unwrap().iter();
        payments.map(|it| it["correlationId"].as_str().unwrap().into()).collect()
    }
}

/// Every payment is somewhere: so many are rejected, and cancelled.
fn assert_balanced(admin: &Admin, rejected: u64, cancelled: u64) {
    let status: Value = serde_json::from_str(&admin.call("GET", "/status.json", "").body).unwrap();
    let found = &status["whereabouts"];
    assert_eq!(found["rejected"], rejected, "{status}");
    assert_eq!(found["cancelled"], cancelled, "{status}");
    let verdict = status["verdict"]["text"].as_str().unwrap();
    assert!(verdict.contains("Balanced: "), "{verdict}");
}

fn decided(what: &str) -> Value {
    json!({"as": what, "by": "ana", "reason": "João asked"})
}

fn named(what: &str, processor: &str, requested_at: &str) -> Value {
    json!({"as": what, "processor": processor, "requestedAt": requested_at,
           "by": "ana", "reason": "João asked"})
}

/// A journal with payments of these numbers that every processor has refused: to have them refused
/// takes a minute.
pub fn write_rejected(data: &str, numbers: impl IntoIterator<Item = u64>) {
    let options = Options::new(Durability::Process, 100, 100);
    let (journal, _) = Journal::open(Path::new(data), options).unwrap();
    for number in numbers {
        let id = PaymentId::parse(id(number).as_bytes()).unwrap();
        let (amount, accepted_at) = (Cents(1990), Timestamp(1_700_000_000_000));
        journal.append_accepted(id, amount, accepted_at).unwrap();
        let statuses = galo::payments::each([400, 404]);
        journal.append(&Event::Rejected(Rejection { id, amount, statuses, accepted_at }));
    }
    journal.flush();
}

#[test]
fn what_was_rejected_is_retried_settled_or_cancelled_and_a_kill_changes_nothing() {
    const AT: &str = "2024-01-01T00:00:00.000Z";
    let mut processors = Processor::both();
    let scratch = Scratch::new();
    let (admin, data) = (Admin::new(&scratch, "token"), scratch.join("1"));
    write_rejected(&data, 1..=3);
    let address = admin.address.to_string();
    let mut instance = Instance::start(addresses(&processors), &admin.args(&address, &data));
    assert_eq!(admin.listed("rejected"), [id(1), id(2), id(3)]);

    let told = admin.resolved(&id(1), &named("settled", "fallback", AT));
    assert_eq!((&told["state"], &told["processor"]), (&"settled".into(), &"fallback".into()));
    assert_eq!((&told["requestedAt"], &told["amount"]), (&AT.into(), &19.9.into()));
    assert_eq!(told["resolution"]["reason"], "João asked");
    assert_eq!(admin.resolved(&id(2), &decided("cancelled"))["state"], "cancelled");
    admin.resolved(&id(3), &decided("retry"));
    assert_balanced(&admin, 0, 1);
    instance.kill();
    instance.start_again();
    wait_until("it is paid", || admin.state(&id(3)) == "settled");

    for round in 0..2 {
        assert_eq!(admin.listed("rejected"), [""; 0], "{round}");
        assert_eq!(admin.listed("cancelled"), [id(2)]);
        for (number, state, how) in
            [(1, "settled", "settled"), (2, "cancelled", "cancelled"), (3, "settled", "retry")]
        {
            let told = admin.story(&id(number));
            assert_eq!((&told["state"], &told["resolution"]["as"]), (&state.into(), &how.into()));
            assert_eq!(told["resolution"]["by"], "ana");
        }
        let summary = instance.summary("");
        assert_eq!((summary.count(), summary.cents()), (2, 2 * 1990));
        assert_eq!(instance.summary(&format!("?from={AT}&to={AT}")).count(), 1);
        // The same again is no other one.
        admin.resolved(&id(1), &named("settled", "fallback", AT));
        admin.resolved(&id(2), &decided("cancelled"));
        admin.assert_refused(&id(1), &named("settled", "default", AT), "is settled");
        admin.assert_refused(&id(1), &decided("cancelled"), "is settled");
        admin.assert_refused(&id(2), &decided("retry"), "is cancelled");
        admin.assert_refused(&id(3), &decided("cancelled"), "is settled");
        admin.assert_refused(&id(9), &decided("cancelled"), "No such payment");
        instance.kill();
        instance.start_again();
    }
    assert_eq!(processors[0].books().len(), 1);
    assert!(processors[1].books().is_empty());
    // What was cancelled is known, and never paid.
    assert_eq!(instance.pay(&id(2), "19.90").status, 202);
    assert_eq!((admin.state(&id(2)), instance.outstanding()), ("cancelled".into(), 0));
    assert_exported(&data);
}

fn assert_exported(data: &str) {
    let export = Command::new(env!("CARGO_BIN_EXE_galo")).args(["export", data]).output().unwrap();
    let text = String::from_utf8(export.stdout).unwrap();
    for (number, record, how) in
        [(1, "settled", "settled"), (2, "cancelled", "cancelled"), (3, "settled", "retry")]
    {
        let line = text.lines().find(|line| line.contains(&id(number))).unwrap();
        assert!(line.starts_with(&format!("{record},")), "{line}");
        assert!(line.contains(&format!("resolved as {how} on 2")), "{line}");
        assert!(line.ends_with("by ana: João asked"), "{line}");
    }
}

/// A processor that may have booked it, and never says.
fn in_doubt(processors: &mut [Processor; 2], instance: &Instance, admin: &Admin) -> Value {
    processors[0].set_script(
        r#"{"call":"pay","status":201,"body":"?"},{"call":"look","status":500,"body":"?"}"#,
    );
    assert_eq!(instance.pay(&id(1), "2.50").status, 202);
    wait_until("it is in doubt", || admin.state(&id(1)) == "inDoubt");
    admin.story(&id(1))
}

/// Sent again while a request about the payment is under way.
fn resolve_patiently(admin: &Admin, body: &Value) -> Value {
    wait_until("nothing is under way", || {
        let answer = admin.resolve(&id(1), body);
        let is_under_way = answer.status == 409 && answer.body.contains("under way");
        assert!(answer.status == 200 || is_under_way, "{answer:?}");
        answer.status == 200
    });
    admin.story(&id(1))
}

#[test]
fn what_is_in_doubt_is_settled_where_it_was_sent() {
    let mut processors = Processor::both();
    let scratch = Scratch::new();
    let (admin, data) = (Admin::new(&scratch, "token"), scratch.join("1"));
    let address = admin.address.to_string();
    let mut instance = Instance::start(addresses(&processors), &admin.args(&address, &data));
    let told = in_doubt(&mut processors, &instance, &admin);
    let at = told["requestedAt"].as_str().unwrap();
    for (body, why) in [
        (named("settled", "fallback", at), "at the other processor"),
        (named("settled", "default", "2020-01-01T00:00:00Z"), "accepted later"),
        (named("notBooked", "default", "2020-01-01T00:00:00Z"), "another one"),
        (decided("cancelled"), "is in doubt"),
        (decided("retry"), "is in doubt"),
    ] {
        // If the request to book it was still under way, that is what is said.
        wait_until("it is refused", || {
            let answer = admin.resolve(&id(1), &body);
            assert_eq!(answer.status, 409, "{body}: {answer:?}");
            answer.body.contains(why)
        });
    }
    assert_eq!(admin.story(&id(1))["requestedAt"], at, "nothing has changed");
    let told = resolve_patiently(&admin, &named("settled", "default", at));
    assert_eq!((&told["state"], &told["requestedAt"]), (&"settled".into(), &at.into()));
    instance.kill();
    instance.start_again();
    assert_eq!((instance.summary("").count(), instance.outstanding()), (1, 0));
    assert_eq!(admin.story(&id(1))["resolution"]["as"], "settled");
}

#[test]
fn what_is_in_doubt_and_was_not_booked_goes_to_the_other_processor() {
    let mut processors = Processor::both();
    let scratch = Scratch::new();
    let (admin, data) = (Admin::new(&scratch, "token"), scratch.join("1"));
    let address = admin.address.to_string();
    let mut args = admin.args(&address, &data);
    args.extend(["--patience", "10ms"]);
    let mut instance = Instance::start(addresses(&processors), &args);
    let told = in_doubt(&mut processors, &instance, &admin);
    let at = told["requestedAt"].as_str().unwrap().to_owned();
    let [default, mut fallback] = processors;
    // Gone for good, and its owner says that it has booked nothing.
    drop(default);
    let body = named("notBooked", "default", &at);
    resolve_patiently(&admin, &body);
    instance.kill();
    instance.start_again();
    // It may have been sent there once more, over a connection that seemed to be open still.
    wait_until("the other one has it", || {
        let told = admin.story(&id(1));
        if told["state"] == "inDoubt" && told["requestedAt"] != at {
            let again = told["requestedAt"].as_str().unwrap();
            let answer = admin.resolve(&id(1), &named("notBooked", "default", again));
            assert!([200, 409, 503].contains(&answer.status), "{answer:?}");
        }
        told["state"] == "settled"
    });
    let told = admin.story(&id(1));
    assert_eq!(
        (&told["processor"], &told["resolution"]["as"]),
        (&"fallback".into(), &"notBooked".into())
    );
    assert_eq!(fallback.books().len(), 1);
    admin.assert_refused(&id(1), &decided("cancelled"), "is settled");
    assert_eq!((instance.summary("").count(), fallback.books().len()), (1, 1));
}

#[test]
fn what_waits_is_cancelled_and_bad_requests_change_nothing() {
    let scratch = Scratch::new();
    let (admin, data) = (Admin::new(&scratch, "token"), scratch.join("1"));
    let address = admin.address.to_string();
    let nowhere = [free_address(), free_address()];
    let mut instance = Instance::start(nowhere, &admin.args(&address, &data));
    assert_eq!(instance.pay(&id(1), "2.50").status, 202);
    let good = decided("cancelled").to_string();
    let target = format!("/payments/{}/resolution", id(1));
    let long = "x".repeat(256);
    for (method, target, body, status) in [
        ("GET", &target[..], &good[..], 405),
        ("POST", "/payments/7/resolution", &good, 400),
        ("POST", "/payments//resolution", &good, 400),
        ("POST", "/payments/resolution", &good, 400),
        ("POST", &target, "", 400),
        ("POST", &target, "{", 400),
        ("POST", &target, "[]", 422),
        ("POST", &target, r#"{"as":"cancelled","by":"ana"}"#, 422),
        ("POST", &target, r#"{"as":"gone","by":"ana","reason":"x"}"#, 422),
        ("POST", &target, r#"{"as":"cancelled","by":"a\nb","reason":"x"}"#, 422),
        ("POST", &target, &format!(r#"{{"as":"cancelled","by":"a","reason":"{long}"}}"#), 422),
        ("POST", &target, &named("settled", "default", "2999-01-01T00:00:00Z").to_string(), 422),
        ("POST", &target, &named("settled", "default", "today").to_string(), 422),
        ("POST", &target, &named("settled", "third", "2020-01-01T00:00:00Z").to_string(), 422),
    ] {
        let answer = admin.call(method, target, body);
        assert_eq!(answer.status, status, "{method} {target} {body}: {answer:?}");
    }
    let unknown = Client::connect(admin.address).call(request("POST", &target, "", &good));
    assert_eq!(unknown.status, 401);
    // Nothing of it is known at the entry.
    assert_eq!(instance.client().call(request("POST", &target, "", &good)).status, 405);
    assert_eq!((admin.state(&id(1)), instance.outstanding()), ("waiting".into(), 1));

    admin.assert_refused(&id(1), &decided("retry"), "can only be cancelled");
    // A request to book it that finds nobody is under way for a moment.
    assert_eq!(resolve_patiently(&admin, &decided("cancelled"))["state"], "cancelled");
    assert_balanced(&admin, 0, 1);
    instance.kill();
    instance.start_again();
    assert_eq!((admin.state(&id(1)), instance.outstanding()), ("cancelled".into(), 0));
    assert_eq!(instance.metric("galo_rejected_total"), 0);
}

#[test]
fn of_two_instances_the_home_decides_and_both_summaries_count() {
    const AT: &str = "2024-01-01T00:00:00.000Z";
    let processors = Processor::both();
    let scratch = Scratch::new();
    let admins = ["a", "b"].map(|name| Admin::new(&scratch, name));
    let data = [scratch.join("1"), scratch.join("2")];
    // Even ids are the first one's.
    write_rejected(&data[0], [2]);
    write_rejected(&data[1], [1]);
    let listen = admins.each_ref().map(|admin| admin.address.to_string());
    let args = [0, 1].map(|index| admins[index].args(&listen[index], &data[index]));
    let instances = pair_with(addresses(&processors), args.each_ref().map(|it| &it[..]));
    see_each_other(&instances);
    admins[1].assert_refused(&id(2), &named("settled", "default", AT), "its admin door");
    admins[0].resolved(&id(2), &named("settled", "default", AT));
    admins[1].resolved(&id(1), &named("settled", "fallback", AT));
    for (instance, admin) in instances.iter().zip(&admins) {
        let summary = instance.summary(&format!("?from={AT}&to={AT}"));
        assert_eq!((summary.count(), summary.cents()), (2, 2 * 1990));
        for number in [1, 2] {
            let told = admin.story(&id(number));
            assert_eq!(
                (&told["state"], &told["resolution"]["by"]),
                (&"settled".into(), &"ana".into())
            );
        }
    }
}

#[test]
fn without_a_journal_nothing_is_resolved() {
    let processors = Processor::both();
    let scratch = Scratch::new();
    let admin = Admin::new(&scratch, "token");
    let address = admin.address.to_string();
    let args = ["--admin-listen", &address, "--admin-token-file", &admin.token_file];
    let _instance = Instance::start(addresses(&processors), &args);
    let answer = admin.resolve(&id(1), &decided("cancelled"));
    assert_eq!(answer.status, 501, "{answer:?}");
}

/// While the two were cut apart one rejected what the other one took over: that one decides then, and
/// nothing is retried here that it may be paying.
#[test]
fn what_the_other_instance_drives_is_not_retried_here() {
    let mut processors = Processor::both();
    processors.iter_mut().for_each(|processor| processor.set_failing(true));
    let scratch = Scratch::new();
    let data = ["1", "2"].map(|name| scratch.join(name));
    // Its home is the second.
    write_rejected(&data[1], [1]);
    let options = Options::new(Durability::Process, 100, 100);
    let (journal, _) = Journal::open(Path::new(&data[0]), options).unwrap();
    let (payment, amount) = (PaymentId::parse(id(1).as_bytes()).unwrap(), Cents(1990));
    journal.append_accepted(payment, amount, Timestamp(1_700_000_000_000)).unwrap();
    journal.append_adopted(&[(payment, amount)]).unwrap();
    journal.flush();
    drop(journal);

    let admins = ["a", "b"].map(|name| Admin::new(&scratch, name));
    let doors = admins.each_ref().map(|admin| admin.address.to_string());
    let args = [0, 1].map(|index: usize| admins[index].args(&doors[index], &data[index]));
    let args = args.each_ref().map(Vec::as_slice);
    let mut instances = pair_with(addresses(&processors), args);
    let home = &admins[1];
    for _ in 0..2 {
        wait_until("its home knows", || home.listed("rejected").is_empty());
        home.assert_refused(&id(1), &decided("retry"), "the other instance drives it");
        assert_balanced(home, 0, 0);
        let state = admins[0].state(&id(1));
        assert!(["waiting", "inDoubt"].contains(&&state[..]), "{state}");
        instances[1].kill();
        instances[1].start_again();
        see_each_other(&instances);
    }
    processors.iter_mut().for_each(|processor| processor.set_failing(false));
    wait_until("it is paid", || home.state(&id(1)) == "settled");
    let books = processors.each_mut().map(|processor| processor.books().len());
    assert_eq!(books[0] + books[1], 1);
    instances.iter().for_each(Instance::assert_balanced);
}
