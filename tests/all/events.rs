//! The feed on the real binary: in pages, as a stream, and pushed to a receiver that fails, over
//! kills: every settlement at least once, in the order of the journal.

use crate::support::journals::{Scratch, journal_of_two};
use crate::support::system::{Instance, Processor, addresses, free_address, id};
use crate::support::{Answer, Client, request, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TOKEN: &str = "correct-horse";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

struct Admin(SocketAddr);

impl Admin {
    fn get(&self, target: &str) -> Answer {
        let header = format!("Authorization: Bearer {TOKEN}\r\n");
        Client::connect(self.0).call(request("GET", target, &header, ""))
    }

    fn page(&self, target: &str) -> Value {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// What is the oldest: where nothing is kept, the next page may be gone.
    fn first(&self) -> Vec<Value> {
        self.page("/events?after=0&limit=9")["events"].as_array().unwrap().clone()
    }

    /// Everything from there on, in pages, and where that ends.
    fn all_after(&self, after: u64, limit: usize) -> (Vec<Value>, u64) {
        let (mut all, mut next) = (Vec::new(), after);
        loop {
            let page = self.page(&format!("/events?after={next}&limit={limit}"));
            let events = page["events"].as_array().unwrap();
            assert!(events.len() <= limit);
            all.extend(events.iter().cloned());
            let behind = page["next"].as_u64().unwrap();
            assert!(behind >= next, "{page}");
            if behind == next && events.is_empty() {
                return (all, next);
            }
            next = behind;
        }
    }
}

/// An instance with an admin door and a journal.
fn start(processors: &[Processor; 2], scratch: &Scratch, more: &[&str]) -> (Instance, Admin) {
    let (address, token) = (free_address(), scratch.join("token"));
    std::fs::write(&token, TOKEN).unwrap();
    let (data, door) = (scratch.join("1"), address.to_string());
    let args = ["--data", &data, "--admin-listen", &door, "--admin-token-file", &token];
    let instance = Instance::start(addresses(processors), &[&args[..], more].concat());
    (instance, Admin(address))
}

fn pay(instance: &Instance, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(instance.pay(&id(number), "1.50").status, 202);
    }
    instance.settle();
}

/// As after the loss of a disk.
fn put_a_copy_in_its_place(scratch: &Scratch) {
    let (data, copy) = (scratch.join("1"), scratch.join("restored"));
    let copied = journal_of_two("copy", &data, &copy);
    assert!(copied.status.success(), "{copied:?}");
    std::fs::rename(&data, scratch.join("lost")).unwrap();
    std::fs::rename(&copy, &data).unwrap();
}

fn ids(events: &[Value]) -> Vec<String> {
    let text = |event: &Value| event["payment"]["correlationId"].as_str().unwrap().to_owned();
    events.iter().map(text).collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<String> {
    sorted(numbers.map(id).collect())
}

#[test]
fn pages_go_on_from_any_place_over_kills_and_rewriting() {
    let (processors, scratch) = (Processor::both(), Scratch::new());
    let (mut instance, admin) = start(&processors, &scratch, &[]);
    pay(&instance, 0..10);
    // What is told is on the disk, which is synced once a second.
    wait_until("ten are told", || admin.all_after(0, 3).0.len() == 10);
    let (events, next) = admin.all_after(0, 3);
    assert_eq!(sorted(ids(&events)), expected(0..10));
    let [first, ..] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&first["type"], &first["instance"]), (&"settled".into(), &1.into()));
    assert_eq!(first["payment"]["state"], "settled");
    assert!(events.is_sorted_by_key(|event| event["n"].as_u64().unwrap()));
    let journal = admin.page("/events")["journal"].clone();
    for round in 1..4 {
        instance.kill();
        instance.start_again();
        pay(&instance, round * 10..round * 10 + 10);
    }
    let is_rewritten = || {
        let files = std::fs::read_dir(scratch.join("1")).unwrap().flatten();
        files.map(|it| it.file_name()).any(|name| name.to_str().unwrap().ends_with(".events"))
    };
    wait_until("segments are rewritten", is_rewritten);
    wait_until("thirty more are told", || admin.all_after(next, 7).0.len() == 30);
    assert_eq!(sorted(ids(&admin.all_after(next, 7).0)), expected(10..40));
    let (all, end) = admin.all_after(0, 1_000);
    assert_eq!(all[..10], events, "what was told is told again as it was");
    assert_eq!(sorted(ids(&all)), expected(0..40));
    assert_eq!(admin.page("/events")["journal"], journal);
    let at_end = admin.page("/events?after=end");
    assert_eq!(
        (at_end["events"].as_array().unwrap().len(), at_end["next"].as_u64()),
        (0, Some(end))
    );
    for (target, status) in [
        (format!("/events?after={}", next + 8), 400),
        (format!("/events?after={}", end + (9 << 32)), 400),
        (format!("/events?after={}", end + 8), 400),
        (format!("/events?after={}", u64::MAX), 400),
        (format!("/events?after={end}&after={end}"), 400),
        ("/events?after=x".into(), 400),
        ("/events?limit=0".into(), 400),
    ] {
        assert_eq!(admin.get(&target).status, status, "{target}");
    }
    instance.kill();
    put_a_copy_in_its_place(&scratch);
    instance.start_again();
    // What was a place before may be another one now.
    assert_ne!(admin.page("/events")["journal"], journal);
    let without = Client::connect(admin.0).call(request("GET", "/events", "", ""));
    assert_eq!(without.status, 401);
    assert_eq!(instance.get("/events").status, 404, "at the entry there is no such thing");
}

#[test]
fn what_is_not_kept_is_said_to_be_gone_and_a_purge_is_told() {
    let (processors, scratch) = (Processor::both(), Scratch::new());
    let more = ["--events-kept", "0", "--allow-purge"];
    let (mut instance, admin) = start(&processors, &scratch, &more);
    pay(&instance, 0..3);
    wait_until("three are told", || admin.first().len() == 3);
    let first = admin.page("/events?limit=1")["next"].as_u64().unwrap();
    instance.kill();
    instance.start_again();
    pay(&instance, 3..5);
    wait_until("it is gone", || admin.get(&format!("/events?after={first}")).status == 410);
    wait_until("what is there is told", || sorted(ids(&admin.first())) == expected(3..5));
    let answer = instance.client().call(request("POST", "/purge-payments", "", ""));
    assert_eq!(answer.status, 200);
    pay(&instance, 5..6);
    let told = || {
        let events = admin.first();
        events.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_until("the purge comes first", || told() == ["purged", "settled"]);
}

/// In books and in segments, over restarts: each once, in the order of their time, in pages of any size.
#[test]
fn what_is_settled_is_listed_in_the_order_of_its_time() {
    let (processors, scratch) = (Processor::both(), Scratch::new());
    let (mut instance, admin) = start(&processors, &scratch, &[]);
    for round in 0..4 {
        pay(&instance, round * 10..round * 10 + 10);
        if round < 3 {
            instance.kill();
            instance.start_again();
        }
    }
    let place = |it: &Value| {
        let text = |name: &str| it[name].as_str().unwrap().to_owned();
        (text("requestedAt"), text("correlationId"))
    };
    for limit in [1, 7, 40, 1_000] {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = admin.page(&format!("/payments?state=settled&limit={limit}&after={after}"));
            let payments = page["payments"].as_array().unwrap();
            assert!(payments.len() <= limit && payments.iter().all(|it| it["state"] == "settled"));
            all.extend(payments.iter().map(place));
            match page["after"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert!(all.is_sorted(), "{all:?}");
        assert_eq!(sorted(all.iter().map(|(_, id)| id.clone()).collect()), expected(0..40));
        let from = &all.clone()[17].0;
        let page = admin.page(&format!("/payments?state=settled&limit=1000&after={from}"));
        let since: Vec<_> = page["payments"].as_array().unwrap().iter().map(place).collect();
        let expected: Vec<_> = all.into_iter().filter(|(at, _)| at >= from).collect();
        assert_eq!(since, expected);
    }
    assert_eq!(admin.get("/payments?state=settled&after=7").status, 400);
}

#[test]
fn without_a_journal_there_are_no_events() {
    let (processors, scratch) = (Processor::both(), Scratch::new());
    let (address, token) = (free_address(), scratch.join("token"));
    std::fs::write(&token, TOKEN).unwrap();
    let args = ["--admin-listen", &address.to_string(), "--admin-token-file", &token];
    let _instance = Instance::start(addresses(&processors), &args);
    assert_eq!(Admin(address).get("/events").status, 501);
}

/// Reads a stream up to so many events: their numbers and ids.
fn listen(door: SocketAddr, target: &str, headers: &str, count: usize) -> Vec<(u64, String)> {
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let headers =
        format!("Authorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n{headers}");
    stream.write_all(request("GET", target, &headers, "").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
    assert!(
        lines.by_ref().take_while(|line| !line.is_empty()).any(|it| it.ends_with("event-stream"))
    );
    let (mut told, mut number) = (Vec::new(), 0);
    while told.len() < count {
        let line = lines.next().unwrap();
        if let Some(text) = line.strip_prefix("id: ") {
            number = text.parse().unwrap();
        } else if let Some(text) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(text).unwrap();
            assert_eq!(event["n"], number);
            told.push((number, ids(&[event]).remove(0)));
        }
    }
    told
}

#[test]
fn a_stream_tells_what_comes_and_goes_on_where_it_was_cut() {
    let (processors, scratch) = (Processor::both(), Scratch::new());
    let (instance, admin) = start(&processors, &scratch, &[]);
    pay(&instance, 0..4);
    let listener = std::thread::spawn(move || listen(admin.0, "/events?after=0", "", 6));
    pay(&instance, 4..6);
    let told = listener.join().unwrap();
    assert_eq!(sorted(told.iter().map(|(_, id)| id.clone()).collect()), expected(0..6));
    let again =
        listen(admin.0, "/events?after=end", &format!("Last-Event-ID: {}\r\n", told[1].0), 4);
    assert_eq!(again, told[2..]);
}

/// Those who follow do not shut out who looks.
#[test]
fn there_are_only_so_many_streams() {
    const STREAMS_MAX: usize = 16;
    let (processors, scratch) = (Processor::both(), Scratch::new());
    let (_instance, admin) = start(&processors, &scratch, &[]);
    let status = || {
        let mut stream = TcpStream::connect(admin.0).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let headers = format!("Authorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n");
        stream.write_all(request("GET", "/events", &headers, "").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (line[9..12].to_owned(), stream)
    };
    let open: Vec<_> = (0..STREAMS_MAX).map(|_| status()).collect();
    assert!(open.iter().all(|(status, _)| status == "200"));
    assert_eq!(status().0, "503");
    assert_eq!(admin.get("/status.json").status, 200);
    drop(open);
    wait_until("there is room again", || status().0 == "200");
}

/// Takes what is pushed to it, or not.
struct Receiver {
    address: SocketAddr,
    /// What it answers; 0 for nothing at all.
    status: Arc<AtomicU16>,
    /// What it has taken, and how often it was asked.
    taken: Arc<Mutex<(Vec<Value>, usize)>>,
    /// The ids of the requests that it has taken.
    request_ids: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (status, taken) = (Arc::new(AtomicU16::new(204)), Arc::<Mutex<(Vec<_>, _)>>::default());
        let (says, takes) = (status.clone(), taken.clone());
        let request_ids = Arc::<Mutex<Vec<_>>>::default();
        let takes_ids = request_ids.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Whoever sends may be killed meanwhile.
                let Some((id, body)) = signed_body(&mut stream) else { continue };
                let status = says.load(Ordering::SeqCst);
                let mut taken = takes.lock().unwrap();
                taken.1 += 1;
                if status == 0 {
                    continue;
                }
                if status < 300 {
                    takes_ids.lock().unwrap().push(id);
                    taken.0.extend(body["events"].as_array().unwrap().iter().cloned());
                }
                drop(taken);
                // It may have been killed.
                let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
            }
        });
        Receiver { address, status, taken, request_ids }
    }

    fn events(&self) -> Vec<Value> {
        self.taken.lock().unwrap().0.clone()
    }

    fn asked(&self) -> usize {
        self.taken.lock().unwrap().1
    }
}

/// Reads a request, if all of it comes, and looks whether it is signed.
fn signed_body(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut headers = std::collections::HashMap::new();
    loop {
        let mut line = String::new();
        let length = reader.read_line(&mut line).ok()?;
        if length == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => {
                let (name, value) = line.split_once(": ").unwrap_or((line, ""));
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    assert!(headers.contains_key("post /in?from=galo http/1.1"), "{headers:?}");
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    let key = STANDARD.decode(&SECRET["whsec_".len()..]).unwrap();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", headers["webhook-id"], headers["webhook-timestamp"]).as_bytes());
    mac.update(&body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(headers["webhook-signature"], signature);
    Some((headers["webhook-id"].clone(), serde_json::from_slice(&body).unwrap()))
}

/// An instance that pushes to this receiver.
fn start_pushing(
    processors: &[Processor; 2],
    scratch: &Scratch,
    receiver: &Receiver,
    more: &[&str],
) -> (Instance, Admin) {
    let secret = scratch.join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let url = format!("http://{}/in?from=galo", receiver.address);
    let args = ["--webhook", &url, "--webhook-secret-file", &secret];
    start(processors, scratch, &[&args[..], more].concat())
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// Of events of all kinds, those of payments.
fn paid(events: Vec<Value>) -> Vec<String> {
    let mut ids =
        sorted(ids(&events.into_iter().filter(|it| it["payment"].is_object()).collect::<Vec<_>>()));
    ids.dedup();
    ids
}

fn names_in(directory: &str) -> Vec<String> {
    let files = std::fs::read_dir(directory).unwrap().flatten();
    files.map(|it| it.file_name().into_string().unwrap()).collect()
}

/// Each under an id of its own: a receiver that knows ids again would take the second gap for the
/// first.
#[test]
fn a_webhook_hears_of_each_gap() {
    let (processors, scratch, receiver) = (Processor::both(), Scratch::new(), Receiver::start());
    let (mut instance, _) =
        start_pushing(&processors, &scratch, &receiver, &["--events-kept", "0"]);
    let data = scratch.join("1");
    pay(&instance, 0..2);
    wait_until("two are taken", || paid(receiver.events()) == expected(0..2));
    let segment_of_cursor = || {
        let text = std::fs::read_to_string(format!("{data}/cursor")).unwrap();
        let place: u64 = text.lines().last().unwrap()["after=".len()..].parse().unwrap();
        format!("{data}/{:010}.journal", place >> 32)
    };
    for round in 1..3 {
        // Where it is, is in use.
        wait_until("it is there", || Path::new(&segment_of_cursor()).exists());
        let segment = segment_of_cursor();
        receiver.status.store(500, Ordering::SeqCst);
        pay(&instance, round * 10..round * 10 + 2);
        // The first process may have it open still when it goes.
        for _ in 0..2 {
            instance.kill();
            instance.start_again();
            wait_until("it is rewritten", || !Path::new(&segment).exists());
        }
        receiver.status.store(204, Ordering::SeqCst);
        let gaps = || types(&receiver.events()).iter().filter(|it| **it == "missed").count();
        wait_until("it is told of the gap", || gaps() == round as usize);
    }
    let mut ids: Vec<_> = receiver
        .request_ids
        .lock()
        .unwrap()
        .iter()
        .filter(|id| id.contains("missed"))
        .cloned()
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 2, "{ids:?}");
}

/// What is told is told up to the damage, then that something is missing, and then what is behind it:
/// once, and not again and again.
#[test]
fn damage_in_what_is_kept_is_told_once() {
    let (processors, scratch, receiver) = (Processor::both(), Scratch::new(), Receiver::start());
    let (mut instance, admin) = start_pushing(&processors, &scratch, &receiver, &[]);
    let data = scratch.join("1");
    pay(&instance, 0..4);
    wait_until("four are told", || admin.all_after(0, 9).0.len() == 4);
    let third = admin.all_after(0, 9).0[2]["n"].as_u64().unwrap();
    instance.kill();
    instance.start_again();
    pay(&instance, 4..6);
    let kept = || names_in(&data).into_iter().find(|name| name.ends_with(".events"));
    wait_until("a segment is rewritten", || kept().is_some());
    instance.kill();
    let path = format!("{data}/{}", kept().unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(third & u64::from(u32::MAX)) as usize - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    // As it is for one who was away: he begins before it.
    std::fs::remove_file(format!("{data}/cursor")).unwrap();
    receiver.taken.lock().unwrap().0.clear();
    instance.start_again();
    pay(&instance, 6..7);
    wait_until("it goes on behind it", || types(&receiver.events()).len() == 2 + 1 + 3);
    let events = receiver.events();
    assert_eq!(types(&events)[..3], ["settled", "settled", "missed"]);
    assert_eq!(sorted(ids(&events[3..])), expected(4..7));
    let place = events[2]["n"].as_u64().unwrap();
    pay(&instance, 7..8);
    wait_until("and on", || receiver.events().len() == 7);
    let first = admin.page("/events?after=0&limit=2");
    let next = admin.get(&format!("/events?after={}&limit=2", first["next"]));
    assert!(next.status == 400 && next.body.contains(&format!("after={place}.")), "{next:?}");
    assert_eq!(
        types(admin.page(&format!("/events?after={place}"))["events"].as_array().unwrap()),
        ["settled"; 4]
    );
}

/// A copy has no events of before its segments, and nobody knows what the receiver has heard.
#[test]
fn after_a_restore_a_webhook_is_told_that_something_may_be_missing() {
    let (processors, scratch, receiver) = (Processor::both(), Scratch::new(), Receiver::start());
    let (mut instance, _) = start_pushing(&processors, &scratch, &receiver, &[]);
    pay(&instance, 0..2);
    wait_until("two are taken", || receiver.events().len() == 2);
    instance.kill();
    put_a_copy_in_its_place(&scratch);
    receiver.taken.lock().unwrap().0.clear();
    instance.start_again();
    wait_until("it hears of it again", || {
        types(&receiver.events()) == ["missed", "settled", "settled"]
    });
}

/// How far the receiver is is written down when that is possible again, though nothing new comes.
#[test]
fn a_cursor_that_could_not_be_written_is_written_later() {
    let (processors, scratch, receiver) = (Processor::both(), Scratch::new(), Receiver::start());
    let (instance, admin) = start_pushing(&processors, &scratch, &receiver, &[]);
    let (cursor, in_the_way) = (scratch.join("1/cursor"), scratch.join("1/cursor.tmp"));
    wait_until("there is one", || Path::new(&cursor).exists());
    std::fs::create_dir(&in_the_way).unwrap();
    pay(&instance, 0..1);
    wait_until("it cannot be written", || {
        instance.galo.stderr().contains("cannot be written down")
    });
    std::fs::remove_dir(&in_the_way).unwrap();
    let end = format!("after={}\n", admin.page("/events?after=end")["next"]);
    wait_until("it is", || std::fs::read_to_string(&cursor).unwrap().ends_with(&end));
}

#[test]
fn a_webhook_hears_of_every_settlement_whatever_fails() {
    let (processors, scratch, receiver) = (Processor::both(), Scratch::new(), Receiver::start());
    let (mut instance, _) = start_pushing(&processors, &scratch, &receiver, &[]);
    pay(&instance, 0..5);
    wait_until("five are taken", || ids(&receiver.events()).len() == 5);
    for (status, numbers) in [(500, 5..10), (0, 10..15), (410, 15..20)] {
        receiver.status.store(status, Ordering::SeqCst);
        let asked = receiver.asked();
        // Whatever the receiver does, payments go on.
        pay(&instance, numbers);
        wait_until("it is asked", || receiver.asked() > asked);
        wait_until("it is counted", || instance.metric("galo_webhook_failures_total") > 0);
    }
    wait_until("it is seen", || instance.metric("galo_webhook_failing") == 1);
    instance.kill();
    receiver.status.store(200, Ordering::SeqCst);
    instance.start_again();
    pay(&instance, 20..25);
    let heard = || {
        let mut heard = sorted(ids(&receiver.events()));
        heard.dedup();
        heard
    };
    wait_until("all are taken", || heard() == expected(0..25));
    let mut numbers: Vec<u64> =
        receiver.events().iter().map(|event| event["n"].as_u64().unwrap()).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 25, "of {count}");
    wait_until("it is well again", || instance.metric("galo_webhook_failing") == 0);
}

#[test]
fn a_webhook_that_cannot_work_is_refused_at_the_start() {
    let scratch = Scratch::new();
    let (data, secret, bad) = (scratch.join("1"), scratch.join("secret"), scratch.join("bad"));
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::write(&bad, "whsec_tooshort").unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["--data", &data, "--webhook", "https://a/", "--webhook-secret-file", &secret], "https"),
        (&["--data", &data, "--webhook", "http://a/", "--webhook-secret-file", &bad], "whsec_"),
        (&["--data", &data, "--webhook", "http://a/"], "--webhook-secret-file"),
        (&["--webhook", "http://a/", "--webhook-secret-file", &secret], "--data"),
    ];
    for (args, named) in cases {
        let mut galo = crate::support::Galo::start([&["serve"], args].concat());
        let (code, told) = galo.wait_for_end();
        assert!(code.is_some_and(|code| code > 0) && told.contains(named), "{args:?}: {told}");
    }
}
