//! The ledger when instances die, stand still and come back: what is kept, what is turned away and how
//! soon, and that nothing happens later that was given up.

use crate::support::journals::Scratch;
use crate::support::ledger::{
    Bank, Statement, body, get, post, wait_for_change, wait_for_statement,
};
use crate::support::proxy::{Mishap, Proxy};
use crate::support::system::{Instance, free_address, pair_via, pair_with};
use crate::support::{Answer, Client};
use std::time::{Duration, Instant};

/// A client is told within 300 ms that an account's owner is away. What a busy machine adds to that
/// is not ours, but a second is too long on any.
const PROMISED: Duration = Duration::from_millis(300);
const TOLERATED: Duration = Duration::from_secs(1);

const DURABILITIES: [&str; 2] = ["process", "disk"];

/// A bank whose instances keep journals.
fn open(scratch: &Scratch, durability: &str) -> Bank {
    let data = ["one", "other"].map(|name| scratch.join(name));
    let args = data.each_ref().map(|data| ["--data", data, "--durability", durability]);
    let processors = [free_address(), free_address()];
    let instances = pair_with(processors, [&args[0], &args[1]]);
    let clients = instances.each_ref().map(Instance::client);
    Bank { instances, clients }
}

/// Some entries in accounts of both, and what their statements are then.
fn fill(bank: &mut Bank) -> Vec<(u64, Statement)> {
    for number in 1..=12 {
        for id in 1..=4 {
            let change = if number % 2 == 0 { -number } else { 10 * number };
            bank.change((number as usize + id as usize) % 2, id, change, &format!("{id}-{number}"));
        }
    }
    (1..=5).map(|id| (id, bank.look_at_both(id))).collect()
}

/// The answer, and how long it took.
fn timed(instance: &Instance, request: &str) -> (Answer, Duration) {
    let mut client = instance.client();
    let asked = Instant::now();
    let answer = client.call(request);
    (answer, asked.elapsed())
}

/// The answers to so many requests, each given in time.
fn in_time(instance: &Instance, times: usize, request: &str) -> Vec<Answer> {
    let (answers, took): (Vec<_>, Vec<_>) = (0..times).map(|_| timed(instance, request)).unzip();
    let worst = took.into_iter().max().unwrap_or_default();
    assert!(worst < TOLERATED, "answered after {worst:?}");
    let verdict = if worst <= PROMISED { "as promised" } else { "LATER than promised" };
    println!("answered without the owner within {worst:?}, {verdict}");
    answers
}

fn assert_turned_away(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert!(answer.body.starts_with(r#"{"error":""#), "{answer:?}");
}

/// Turned away, or given up: it had been sent, and nobody knows.
fn assert_not_done(answer: &Answer) {
    if answer.status != 504 {
        return assert_turned_away(answer);
    }
    assert_eq!(answer.header("retry-after"), None, "{answer:?}");
    assert!(answer.body.starts_with(r#"{"error":""#), "{answer:?}");
}

/// The accounts of the instance that is there go on as ever.
fn assert_goes_on(instance: &Instance, id: u64) {
    let mut client = instance.client();
    let before = Statement::read(&client.call(get(id)));
    for change in [5, -5] {
        assert_eq!(client.call(post(id, &body(change, "goes on"))).status, 200);
    }
    assert_eq!(Statement::read(&client.call(get(id))).total, before.total);
}

#[test]
fn accounts_whose_owner_was_killed_are_503_and_the_others_go_on() {
    for away in [0, 1] {
        let scratch = Scratch::new();
        let mut bank = open(&scratch, "process");
        let statements = fill(&mut bank);
        let (here, absent) = (1 - away, if away == 0 { 2 } else { 1 });
        bank.instances[away].kill();
        let instance = &bank.instances[here];
        in_time(instance, 5, &get(absent)).iter().for_each(assert_turned_away);
        let posts = in_time(instance, 5, &post(absent, &body(7, "away")));
        posts.iter().for_each(assert_not_done);
        assert_turned_away(posts.last().expect("five"));
        // What is wrong is wrong whoever is away, and known here.
        let mut client = instance.client();
        assert_eq!(client.call(post(absent, &body(7, "far too long"))).status, 422);
        assert_eq!(client.call(post(absent + 10, &body(7, "away"))).status, 404);
        assert_goes_on(instance, 3 - absent);
        // Back, and nobody has to help.
        bank.instances[away].start_again();
        let found = wait_for_statement(&bank.instances[here], absent);
        assert_eq!(Some(found), statement_of(&statements, absent));
        let balance = wait_for_change(&bank.instances[here], absent, 1, "again");
        bank.reconnect();
        assert_eq!(bank.look_at_both(absent).total, balance);
    }
}

fn statement_of(statements: &[(u64, Statement)], id: u64) -> Option<Statement> {
    statements.iter().find(|(known, _)| *known == id).map(|(_, statement)| statement.clone())
}

/// An owner that stands still has what was sent to it in its socket when it goes on. It must not do
/// what its client was told is given up.
#[test]
fn what_was_sent_to_an_owner_that_stands_still_is_given_up_and_never_done() {
    for away in [0, 1] {
        let mut bank = Bank::open(&[]);
        let statements = fill(&mut bank);
        let (here, absent) = (1 - away, if away == 0 { 2 } else { 1 });
        let before = statement_of(&statements, absent).expect("it was looked at");
        bank.instances[away].galo.freeze();
        let instance = &bank.instances[here];
        let (first, took) = timed(instance, &post(absent, &body(7, "stands")));
        assert_eq!(first.status, 504, "sent, and unknown: {first:?}");
        assert!(took < TOLERATED, "{took:?}");
        assert_not_done(&first);
        in_time(instance, 3, &get(absent)).iter().for_each(assert_turned_away);
        let posts = in_time(instance, 5, &post(absent, &body(7, "stands")));
        posts.iter().for_each(assert_not_done);
        assert_turned_away(posts.last().expect("five"));
        assert_goes_on(instance, 3 - absent);
        bank.instances[away].galo.thaw();
        assert_eq!(wait_for_statement(&bank.instances[here], absent), before);
        for (round, instance) in bank.instances.iter().cycle().take(4).enumerate() {
            let balance = before.total + round as i64 + 1;
            assert_eq!(wait_for_change(instance, absent, 1, "after"), balance);
        }
        let texts = bank.look_at_both(absent).newest.into_iter().map(|entry| entry.descricao);
        assert!(texts.into_iter().all(|text| text != "stands"), "given up, and done");
    }
}

/// A bank whose first instance is reached by the second over this wire.
fn open_over_a_wire() -> (Bank, Proxy) {
    let mut wire = None;
    let processors = [free_address(), free_address()];
    let instances = pair_via(processors, [&[], &[]], |door| {
        // The first door is the first instance's.
        if wire.is_some() {
            return door;
        }
        wire.insert(Proxy::start(door, "POST /peer/accounts/")).address
    });
    let clients = instances.each_ref().map(Instance::client);
    (Bank { instances, clients }, wire.expect("there is a first door"))
}

/// Both instances are well, but the answer to what was passed on is lost: it is asked for again, under
/// the same number, and what was asked for is done once.
#[test]
fn an_answer_that_is_lost_between_the_instances_is_asked_for_again_and_nothing_done_twice() {
    let (mut bank, wire) = open_over_a_wire();
    let limit = bank.look(0, 2).limit;
    for round in 1..=20 {
        wire.prepare(Mishap::LoseAnswer);
        assert_eq!(bank.change(1, 2, 10, "lost"), 10 * round, "round {round}");
        assert!(wire.has_struck(), "round {round}");
        assert_eq!(bank.look_at_both(2).total, 10 * round, "round {round}");
    }
    // A refusal is as good an answer.
    wire.prepare(Mishap::LoseAnswer);
    assert_eq!(bank.post(1, 2, &body(-limit - 201, "too much")).status, 422);
    assert!(wire.has_struck());
    assert_eq!(bank.look_at_both(2).total, 200);
}

/// What was passed on arrives when its client has long been told that it is given up.
#[test]
fn what_arrives_after_it_was_given_up_is_not_done() {
    let (mut bank, wire) = open_over_a_wire();
    for change in [7, -7] {
        bank.change(1, 2, 100, "before");
        let before = bank.look_at_both(2);
        wire.prepare(Mishap::Hold);
        let (answer, took) = timed(&bank.instances[1], &post(2, &body(change, "late")));
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(took < TOLERATED, "{took:?}");
        assert_not_done(&answer);
        wire.release();
        assert_eq!(bank.look(0, 2), before, "it came too late");
        assert_eq!(wait_for_statement(&bank.instances[1], 2), before);
    }
}

/// The one that passes a transaction on is killed or stands still; its client may never learn, and
/// the account goes on.
#[test]
fn an_instance_that_only_passes_on_may_be_away() {
    for freezes in [false, true] {
        let scratch = Scratch::new();
        let mut bank = open(&scratch, "process");
        fill(&mut bank);
        if freezes {
            bank.instances[1].galo.freeze();
        } else {
            bank.instances[1].kill();
        }
        assert_goes_on(&bank.instances[0], 2);
        if freezes {
            bank.instances[1].galo.thaw();
        } else {
            bank.instances[1].start_again();
        }
        let found = wait_for_statement(&bank.instances[1], 2);
        bank.reconnect();
        assert_eq!(bank.look_at_both(2), found);
        let balance = wait_for_change(&bank.instances[0], 1, 1, "again");
        assert_eq!(bank.look_at_both(1).total, balance);
    }
}

/// Kept where a restart rebuilt it as the amount of the oldest transaction.
#[test]
fn django_wrong_balance_after_a_restart() {
    for durability in DURABILITIES {
        let scratch = Scratch::new();
        let mut bank = open(&scratch, durability);
        let mut statements = fill(&mut bank);
        for killed in [&[0_usize][..], &[1], &[0, 1], &[1, 0]] {
            killed.iter().for_each(|index| bank.instances[*index].kill());
            killed.iter().for_each(|index| bank.instances[*index].start_again());
            bank.reconnect();
            for (id, statement) in &mut statements {
                for instance in &bank.instances {
                    assert_eq!(wait_for_statement(instance, *id), *statement, "{durability}");
                }
                // The first one after the restart goes on from there, be it a credit or a debit.
                let change = if *id % 2 == 0 { 3 } else { -3 };
                let balance = bank.change(*id as usize % 2, *id, change, "next");
                assert_eq!(balance, statement.total + change, "{durability}");
                *statement = bank.look_at_both(*id);
            }
        }
        // Stopped in order it keeps as much.
        for instance in &mut bank.instances {
            instance.galo.signal(crate::support::system::SIGTERM);
            assert!(instance.galo.wait().0.success());
        }
        bank.instances.iter_mut().for_each(Instance::start_again);
        for (id, statement) in &statements {
            for instance in &bank.instances {
                assert_eq!(wait_for_statement(instance, *id), *statement, "{durability}");
            }
        }
    }
}

/// One after the other on one connection without waiting for the answers; killed when half of them are
/// there. Those that were answered are kept in their order, and what follows them is what was sent.
#[test]
fn of_many_sent_at_once_a_kill_keeps_every_answered_one_in_order() {
    const SENT: i64 = 400;
    for (durability, at) in [("process", 0), ("process", 1), ("disk", 0), ("disk", 1)] {
        let scratch = Scratch::new();
        let mut bank = open(&scratch, durability);
        // At its home and through the other one; the home is killed.
        let mut client = Client::connect(bank.instances[at].entry);
        let all: String = (1..=SENT).map(|it| post(2, &body(it, &it.to_string()))).collect();
        client.send(all);
        let mut answered = 0;
        while answered < SENT / 4 {
            let answer = client.receive().expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
            answered += 1;
        }
        bank.instances[0].kill();
        // What came before the kill counts too; then the connection or the home is gone.
        while let Ok(answer) = client.receive() {
            match answer.status {
                200 => answered += 1,
                503 | 504 => break,
                _ => panic!("{answer:?}"),
            }
        }
        bank.instances[0].start_again();
        let statement = wait_for_statement(&bank.instances[0], 2);
        let last = statement.newest[0].valor;
        assert!((answered..=SENT).contains(&last), "{durability}: {last} after {answered}");
        assert_eq!(statement.total, last * (last + 1) / 2, "the sum of all up to the last");
        let expected: Vec<_> = (1..=last).rev().take(10).map(|it| (it, it.to_string())).collect();
        assert_eq!(statement.changes(), expected, "{durability}");
    }
}
