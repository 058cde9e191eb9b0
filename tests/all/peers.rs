//! Two instances that share the payments: one summary, one purge, and what happens to each when the
//! other is slow, gone, or back. On the real binary with real processors.

use crate::support::system::{
    Instance, Processor, SIGKILL, SIGTERM, Summary, TOKEN, addresses, assert_books_balance, id,
    iso, pair, payment,
};
use crate::support::{Answer, PATIENCE, request, wait_until, wait_until_within};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A summary is answered within 300 ms whether it can or not. What a busy machine adds
/// to that is not ours, but a second is too long on any.
const SUMMARY_PROMISED: Duration = Duration::from_millis(300);
const SUMMARY_TOLERATED: Duration = Duration::from_secs(1);

fn start(args: &[&str]) -> ([Processor; 2], [Instance; 2]) {
    let processors = Processor::both();
    let instances = pair(addresses(&processors), args);
    (processors, instances)
}

/// Pays `count` payments of 1.00 from `first` on. Each id has its home at one of the two.
fn pay(instance: &Instance, first: u64, count: u64, accepted: &mut HashMap<String, i128>) {
    pay_all(instance, first..first + count, accepted);
}

fn pay_all(
    instance: &Instance,
    numbers: impl IntoIterator<Item = u64>,
    accepted: &mut HashMap<String, i128>,
) {
    let mut client = instance.client();
    for number in numbers {
        assert_eq!(client.call(payment(&id(number), "1.00")).status, 202);
        accepted.insert(id(number), 100);
    }
}

fn timed_summary(instance: &Instance) -> (Answer, Duration) {
    let mut client = instance.client();
    let started = Instant::now();
    let answer = client.call(request("GET", "/payments-summary", "", ""));
    (answer, started.elapsed())
}

/// The summary is refused, in time and with a reason.
fn assert_no_summary(instance: &Instance, times: usize) {
    let mut worst = Duration::ZERO;
    for _ in 0..times {
        let (answer, took) = timed_summary(instance);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert!(answer.body.starts_with(r#"{"error":"The other instance"#), "{answer:?}");
        worst = worst.max(took);
    }
    assert!(worst < SUMMARY_TOLERATED, "refused after {worst:?}");
    let verdict = if worst <= SUMMARY_PROMISED { "as promised" } else { "LATER than promised" };
    println!("a summary without the peer was refused within {worst:?}, {verdict}");
}

fn wait_for_summary(instance: &Instance) -> Summary {
    wait_until_within(PATIENCE, "a summary is given again", || {
        let (answer, _) = timed_summary(instance);
        if answer.status == 200 { Ok(Summary::read(&answer.body)) } else { Err(answer.body) }
    })
}

#[test]
fn both_instances_give_the_same_summary() {
    let (mut processors, instances) = start(&["--patience", "5ms"]);
    let mut accepted = HashMap::new();
    pay(&instances[0], 0, 20, &mut accepted);
    pay(&instances[1], 100, 30, &mut accepted);
    instances.iter().for_each(Instance::settle);
    processors[0].set_failing(true);
    pay(&instances[0], 200, 5, &mut accepted);
    pay(&instances[1], 300, 5, &mut accepted);
    let books = assert_books_balance(&accepted, &mut processors, &instances);
    let all = books.concat();
    for row in all.iter().step_by(5) {
        let slices = books.each_ref().map(Vec::as_slice);
        for (from, to) in [(row.at_ms, row.at_ms), (row.at_ms - 50, row.at_ms)] {
            let expected = Summary::of(slices, Some(from), Some(to));
            for instance in &instances {
                assert_eq!(instance.summary_between(from, to), expected);
            }
            let open = instances[1].summary(&format!("?to={}", iso(to)));
            assert_eq!(open, Summary::of(slices, None, Some(to)));
        }
    }
}

#[test]
fn a_purge_is_allowed_only_on_purpose_and_reaches_both() {
    let purge = request("POST", "/purge-payments", "", "");
    let (mut processors, instances) = start(&["--allow-purge"]);
    for purging in [0, 1] {
        for (instance, first) in instances.iter().zip([0, 100]) {
            pay(instance, first, 10, &mut HashMap::new());
        }
        instances.iter().for_each(Instance::settle);
        let answer = instances[purging].client().call(&purge);
        assert_eq!((answer.status, &*answer.body), (200, r#"{"message":"All payments purged."}"#));
        for instance in &instances {
            assert_eq!(instance.summary(""), Summary::default());
        }
        processors.iter_mut().for_each(|processor| {
            processor.admin("POST", "/admin/purge-payments", "");
        });
    }
    let accepted = (0..10).chain(100..110).map(|number| (id(number), 100)).collect();
    for (instance, first) in instances.iter().zip([0, 100]) {
        pay(instance, first, 10, &mut HashMap::new());
    }
    assert_books_balance(&accepted, &mut processors, &instances);

    let (_processors, closed) = start(&[]);
    pay(&closed[0], 0, 1, &mut HashMap::new());
    closed[0].settle();
    assert_eq!(closed[0].client().call(&purge).status, 404);
    assert_eq!(closed[1].summary("").count(), 1);
}

#[test]
fn a_purge_that_does_not_reach_the_peer_says_so() {
    let (_processors, instances) = start(&["--allow-purge"]);
    instances[1].galo.freeze();
    let answer = instances[0].client().call(request("POST", "/purge-payments", "", ""));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("here nothing was"), "{answer:?}");
    instances[1].galo.thaw();
}

#[test]
fn a_peer_that_died_costs_summaries_but_no_payments_and_may_come_back() {
    let (mut processors, mut instances) = start(&["--adopt-after", "100ms"]);
    let mut accepted = HashMap::new();
    // Of those whose home is the other one, the totals would die with it: memory is all it has.
    pay_all(&instances[0], (0..20).step_by(2), &mut accepted);
    instances[0].settle();
    assert_eq!(instances[1].summary("").count(), 10);
    instances[1].galo.signal(SIGKILL);
    instances[1].galo.wait();

    pay(&instances[0], 20, 10, &mut accepted);
    assert_no_summary(&instances[0], 10);
    wait_until("it is missed", || instances[0].metric("galo_peer_up") == 0);
    pay(&instances[0], 30, 10, &mut accepted);
    instances[0].settle();
    assert_no_summary(&instances[0], 3);

    instances[1].start_again();
    assert_eq!(wait_for_summary(&instances[0]).count(), 30);
    assert_eq!(wait_for_summary(&instances[1]).count(), 30);
    wait_until("it is found again", || instances[0].metric("galo_peer_up") == 1);
    pay(&instances[1], 40, 10, &mut accepted);
    assert_books_balance(&accepted, &mut processors, &instances);
}

#[test]
fn a_peer_that_hangs_costs_summaries_but_no_payments_and_may_go_on() {
    let (mut processors, instances) = start(&["--adopt-after", "100ms"]);
    let mut accepted = HashMap::new();
    pay(&instances[0], 0, 10, &mut accepted);
    pay(&instances[1], 100, 10, &mut accepted);
    instances[1].galo.freeze();

    assert_no_summary(&instances[0], 5);
    let started = Instant::now();
    pay(&instances[0], 10, 10, &mut accepted);
    assert!(started.elapsed() < SUMMARY_TOLERATED, "payments wait for no peer");
    instances[0].settle();
    wait_until("it is missed", || instances[0].metric("galo_peer_up") == 0);
    // Many at once are refused in time as well: each waits for itself, none in line.
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_no_summary(&instances[0], 2));
        }
    });

    instances[1].galo.thaw();
    wait_until("it has asked what it missed", || instances[1].get("/healthz").status == 200);
    wait_for_summary(&instances[0]);
    pay(&instances[1], 110, 10, &mut accepted);
    assert_books_balance(&accepted, &mut processors, &instances);
}

/// While one instance waits for a hanging peer, other requests on the same connection wait behind
/// the summary, but those on other connections do not.
#[test]
fn waiting_for_a_peer_holds_up_no_other_connection() {
    let (_processors, instances) = start(&["--threads", "1"]);
    instances[1].galo.freeze();
    let mut waiting = instances[0].client();
    let mut other = instances[0].client();
    waiting.send(request("GET", "/payments-summary", "", "") + &payment(&id(1), "1.00"));
    let started = Instant::now();
    let mut answered = 0;
    while waiting.is_silent_for(Duration::from_millis(1)) {
        assert_eq!(other.call(request("GET", "/healthz", "", "")).status, 200);
        answered += 1;
        assert!(started.elapsed() < PATIENCE);
    }
    assert!(answered > 3, "{answered} answers while the summary waited");
    assert_eq!(waiting.receive().unwrap().status, 503);
    assert_eq!(waiting.receive().unwrap().status, 202, "what was behind it had its turn");
    instances[1].galo.thaw();
}

#[test]
fn an_impostor_is_not_believed() {
    let mut processors = Processor::both();
    let urls = addresses(&processors);
    // Its peer knows another token: it answers 401 to everything.
    let stranger = Instance::start(urls, &[]);
    let door = format!("http://{}", stranger.peer_door);
    let args = ["--peer", &door, "--peer-token", "another-token", "--adopt-after", "100ms"];
    let instance = Instance::start_with_token(urls, &args);
    let mut accepted = HashMap::new();
    pay(&instance, 0, 3, &mut accepted);
    instance.settle();
    let (answer, _) = timed_summary(&instance);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no usable answer"), "{answer:?}");
    assert_eq!(instance.metric("galo_peer_up"), 0);
    // A processor in the peer's place answers 404.
    let door = format!("http://{}", processors[1].address);
    let lost = Instance::start(urls, &["--peer", &door]);
    assert_eq!(timed_summary(&lost).0.status, 503);
    assert_eq!(processors[0].books().len(), 3);
}

/// The same ids at both instances, the second time when the first has been settled.
#[test]
fn a_payment_repeated_at_the_other_instance_is_counted_once() {
    let (mut processors, instances) = start(&[]);
    let mut accepted = HashMap::new();
    pay(&instances[0], 0, 10, &mut accepted);
    instances.iter().for_each(Instance::settle);
    pay(&instances[1], 0, 10, &mut accepted);
    assert_books_balance(&accepted, &mut processors, &instances);
    assert!(processors[0].counters().contains(r#""repeatsRefused":0"#), "known before it was sent");
}

#[test]
fn the_two_share_one_budget_of_health_calls() {
    let (mut processors, instances) = start(&[]);
    // One of them has asked; were the other to ask too, it would be made to wait for a window.
    wait_until("they have asked", || {
        let answer = processors[0].client().call(request("GET", "/payments/x", "", ""));
        assert_eq!(answer.status, 404);
        processors[0].counters().contains(r#""healthWaiting":0"#)
    });
    let body = r#"{"processor":"default","failing":true,"response_min_ms":5}"#;
    for instance in &instances {
        assert_eq!(instance.at_peer_door("POST", "/peer/health", TOKEN, body).status, 200);
        wait_until("it is believed", || {
            instance.metric(r#"galo_processor_up{processor="default"}"#) == 0
        });
    }
    // One payment finds out that it is not so, where its home is.
    assert_eq!(instances[0].pay(&id(2), "1.00").status, 202);
    wait_until("it is up", || {
        instances[0].metric(r#"galo_processor_up{processor="default"}"#) == 1
    });
}

#[test]
fn one_that_drains_still_gives_its_totals_to_the_other() {
    let (mut processors, mut instances) = start(&[]);
    processors.iter_mut().for_each(|processor| processor.set_delay_ms(1_000));
    let mut accepted = HashMap::new();
    pay(&instances[0], 0, 10, &mut accepted);
    pay(&instances[1], 100, 10, &mut accepted);
    instances[1].galo.signal(SIGTERM);
    wait_until("it drains", || instances[1].get("/healthz").status == 503);
    let (answer, _) = timed_summary(&instances[0]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let (status, stderr) = instances[1].galo.wait();
    assert!(status.success(), "{stderr}");
    instances[0].settle();
    let booked = processors.each_mut().map(|processor| processor.books().len());
    assert_eq!(booked[0] + booked[1], 20);
}

/// A window between two milliseconds holds nothing, whoever is asked, and whether or not the other
/// instance is there; nobody has to be asked for that.
#[test]
fn a_window_inside_a_millisecond_is_empty_and_costs_nobody_anything() {
    let processors = Processor::both();
    let [first, mut second] = pair(addresses(&processors), &[]);
    let windows = [
        "?from=2020-01-01T00:00:00.0001Z&to=2020-01-01T00:00:00.0002Z",
        "?from=2020-01-01T00:00:00.0001Z&to=2020-01-01T00:00:00.0001Z",
        "?from=2020-01-01T00:00:00.999999999Z&to=2020-01-01T00:00:00.999999999Z",
    ];
    for window in windows {
        assert_eq!(first.summary(window), Summary::default(), "{window}");
        assert_eq!(second.summary(window), Summary::default(), "{window}");
    }
    // What is left of such a window when it is rounded is no error at the other door either.
    let rounded = "/peer/totals?from=2020-01-01T00:00:00.001Z&to=2020-01-01T00:00:00.000Z";
    let answer = second.at_peer_door("GET", rounded, TOKEN, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, second.at_peer_door("GET", "/peer/totals", TOKEN, "").body);
    second.kill();
    assert_eq!(first.get("/payments-summary").status, 503, "who is away has to be asked");
    for window in windows {
        assert_eq!(first.summary(window), Summary::default(), "{window}");
    }
}
